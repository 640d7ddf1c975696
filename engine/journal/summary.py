"""Summary of a journal by hour or day: hours heard, labels, near misses, outages."""

import heapq
from collections import OrderedDict, defaultdict
from contextlib import closing
from datetime import UTC, datetime, tzinfo
from pathlib import Path
from typing import Literal

import msgspec

from neurovocal.engine.contracts.clock import NS
from neurovocal.engine.contracts.errors import ConfigError
from neurovocal.engine.journal.periods import (
    Activity,
    Outage,
    Period,
    RunSummary,
    Summary,
)
from neurovocal.engine.journal.reader import Selection, select_rows
from neurovocal.engine.journal.store import RunRecord, runs
from neurovocal.engine.support.strict_json import JsonError, JsonReader

__all__ = ["Activity", "Outage", "Period", "RunSummary", "Summary", "summarize"]

# The others belong to a segment, whose offset is counted.
_KINDS = (
    "anchor",
    "gap",
    "withheld",
    "offset",
    "near_miss",
    "label",
    "health",
    "control",
)
# Hours begin at a multiple of it in every time zone.
_QUARTER_NS = 900 * NS
# No stream goes on for 100 days without any event.
_MOST_QUARTERS = 100 * 96
# A stream whose position falls by more begins anew, under the same name.
_BACK_S = 2
# Segments of a stream of which an offset and its labels may come in any order.
_MOST_REMEMBERED = 4096


# Errors of rows that no run has written: wrong types, times beyond the calendar.
_UNREADABLE = (ValueError, TypeError, AttributeError, OverflowError, OSError)


def summarize(
    path: str | Path,
    selection: Selection | None = None,
    *,
    by: Literal["hour", "day"] = "hour",
    timezone: tzinfo = UTC,
) -> Summary:
    """Summarize the events of a journal, which an engine may be writing.

    Rows are read one at a time, a million in about 8 s: memory grows only with the
    number of hours (or days), units and streams. Audio counts as heard up to the last
    event of its stream; a stream of which the journal has no event is not counted.

    Parameters
    ----------
    path : path
        The journal.
    selection : Selection, optional
        Runs, streams and times to count (`kinds` is ignored). None: everything, a
        recording that was processed twice once (``heard="last"``).
    by : {'hour', 'day'}
        Length of the periods.
    timezone : tzinfo
        Time zone of hours and days.

    Raises
    ------
    ConfigError
        The file does not exist, is no journal, or cannot be read.
    """
    selection = selection or Selection(heard="last")
    known = [
        record
        for record in runs(path)
        if selection.runs is None or record.run in selection.runs
    ]
    chosen = Selection(
        runs=selection.runs,
        kinds=_KINDS,
        streams=selection.streams,
        since_ns=selection.since_ns,
        until_ns=selection.until_ns,
        heard=selection.heard,
    )
    counter = _Counter(known, by, timezone, selection.since_ns)
    columns = "run, stream, kind, sample, utc_ns, header"
    with closing(select_rows(path, columns, chosen)) as rows:
        for row in rows:
            try:
                counter.add(*row)
            except _UNREADABLE as error:
                raise ConfigError(
                    f"journal '{path}' holds an event that cannot be read: {error}"
                ) from error
    return counter.summary()


class _Row(msgspec.Struct):
    """Fields of headers that are counted; each kind has some of them."""

    at: int
    sample_rate: int
    segment: int = 0
    onset: int = 0
    unit: str = ""
    status: str = ""
    start: int = 0
    stop: int = 0
    reason: str = ""
    omitted: int = 0


_rows: JsonReader[_Row] = JsonReader(_Row, most_bytes=2**18)


class _Stream:
    """Last known position of a stream in a run, and its time of day."""

    __slots__ = ("base", "labelled", "position", "rate", "unlabelled")

    def __init__(self, position: int, rate: int) -> None:
        self.position = position
        self.rate = rate
        self.base: int | None = None  # UTC of sample 0
        # The newest segments with a label, and those that ended without one.
        self.labelled: OrderedDict[int, None] = OrderedDict()
        self.unlabelled: OrderedDict[int, None] = OrderedDict()

    def utc_ns(self, sample: int) -> int | None:
        return None if self.base is None else self.base + sample * NS // self.rate


class _Counter:
    """Adds rows in the order of writing."""

    def __init__(
        self,
        records: list[RunRecord],
        by: Literal["hour", "day"],
        timezone: tzinfo,
        since_ns: int | None,
    ) -> None:
        self._records = records
        self._by, self._timezone = by, timezone
        # Of these runs the beginning may be missing: what was before is not known.
        is_cut = since_ns is not None
        self._cut = {one.run for one in records if one.removed or is_cut}
        self._since_ns = -(2**63) if since_ns is None else since_ns
        self._streams: dict[tuple[str, str], _Stream] = {}
        self._quarters: dict[int, tuple[Period, Activity]] = {}
        self._periods: dict[str | None, Period] = {}
        self._activity = [Activity(hour) for hour in range(24)]
        self._by_stream: dict[str, Period] = {}
        self._last_ns: dict[str, int] = {}
        self._outages = _Longest()
        self._lost: defaultdict[str, list[float]] = defaultdict(lambda: [0, 0.0])

    def add(
        self,
        run: str,
        stream: str,
        kind: str,
        sample: int,
        utc_ns: int | None,
        header: str,
    ) -> None:
        row = _rows.read(header.encode())
        if row.sample_rate < 1:
            raise JsonError("'sample_rate' has to be at least 1")
        key = run, stream
        state = self._streams.get(key)
        if state is None:
            position = min(sample, row.at) if run in self._cut else 0
            state = self._streams[key] = _Stream(position, row.sample_rate)
        elif row.at < state.position - _BACK_S * state.rate:
            state = self._streams[key] = _Stream(0, row.sample_rate)
        if utc_ns is not None:
            state.base = utc_ns - sample * NS // state.rate
        match kind:
            case "gap":
                self._add_gap(run, stream, state, row)
            case "withheld":
                self._add_withheld(run, stream, utc_ns, row)
            case _:
                self._heard(run, stream, state, row.at)
                self._count(stream, state, kind, sample, row)

    # ---- what was heard --------------------------------------------------------------

    def _heard(self, run: str, stream: str, state: _Stream, stop: int) -> None:
        if stop > state.position:
            self._spread(stream, state, state.position, stop, "heard_s", 1)
            state.position = stop
            end_ns = state.utc_ns(stop)
            if end_ns is not None:
                self._last_ns[run] = max(end_ns, self._last_ns.get(run, end_ns))

    def _add_gap(self, run: str, stream: str, state: _Stream, row: _Row) -> None:
        """Count a gap; events within its step have its end as their position."""
        start, stop = row.start, row.stop
        if start > state.position:
            self._heard(run, stream, state, start)
        elif state.position > start:
            known = min(state.position, stop)
            self._spread(stream, state, start, known, "heard_s", -1)
        state.position = max(state.position, stop)
        if stop > start:
            self._spread(stream, state, start, stop, "lost_s", 1)
            seconds = (stop - start) / state.rate
            self._lose(row.reason, run, stream, state.utc_ns(start), start, seconds)

    def _add_withheld(
        self, run: str, stream: str, utc_ns: int | None, row: _Row
    ) -> None:
        seconds = max(0, row.stop - row.start) / row.sample_rate
        period, _ = self._at(utc_ns)
        for each in (period, self._stream(stream)):
            each.withheld_s += seconds
        self._lose(f"withheld: {row.reason}", run, stream, utc_ns, row.start, seconds)

    def _lose(
        self,
        reason: str,
        run: str,
        stream: str,
        utc_ns: int | None,
        sample: int | None,
        seconds: float,
    ) -> None:
        counts = self._lost[reason]
        counts[0] += 1
        counts[1] += seconds
        start = None if utc_ns is None else _iso(utc_ns, UTC)
        self._outages.add(Outage(reason, run, stream, start, sample, seconds))

    def _spread(
        self,
        stream: str,
        state: _Stream,
        start: int,
        stop: int,
        name: str,
        sign: int,
    ) -> None:
        """Add samples ``[start, stop)`` to the periods in which they lie."""
        whole = self._stream(stream)
        seconds = sign * (stop - start) / state.rate
        setattr(whole, name, getattr(whole, name) + seconds)
        first, last = state.utc_ns(start), state.utc_ns(stop)
        if first is None or last is None:
            period, _ = self._at(None)
            setattr(period, name, getattr(period, name) + seconds)
            return
        if (last - first) // _QUARTER_NS > _MOST_QUARTERS:
            raise JsonError(f"nothing happens from sample {start} to {stop}")
        while first < last:
            edge = min(last, (first // _QUARTER_NS + 1) * _QUARTER_NS)
            period, activity = self._at(first)
            seconds = sign * (edge - first) / NS
            setattr(period, name, getattr(period, name) + seconds)
            if name == "heard_s" and activity is not None:
                activity.heard_s += seconds
            first = edge

    # ---- counts ----------------------------------------------------------------------

    def _count(
        self, stream: str, state: _Stream, kind: str, sample: int, row: _Row
    ) -> None:
        if kind not in ("offset", "label", "near_miss"):
            return
        onset_ns = state.utc_ns(row.onset)
        if onset_ns is not None and onset_ns < self._since_ns:
            return  # its end was selected, its label was not
        period, activity = self._at(onset_ns)
        both = (period, self._stream(stream))
        if kind == "near_miss":
            for each in both:
                each.near_misses += 1 + row.omitted
        elif kind == "offset":
            is_labelled = row.segment in state.labelled
            if not is_labelled:
                _remember(state.unlabelled, row.segment)
            for each in both:
                each.segments += 1
                each.unlabelled += not is_labelled
            if activity is not None:
                activity.segments += 1
        elif row.status == "final":
            was_unlabelled = row.segment in state.unlabelled
            state.unlabelled.pop(row.segment, None)
            _remember(state.labelled, row.segment)
            for each in both:
                each.units[row.unit] = each.units.get(row.unit, 0) + 1
                each.unlabelled -= was_unlabelled

    # ---- where -----------------------------------------------------------------------

    def _stream(self, name: str) -> Period:
        found = self._by_stream.get(name)
        if found is None:
            found = self._by_stream[name] = Period(None)
        return found

    def _at(self, utc_ns: int | None) -> tuple[Period, Activity | None]:
        """Return the period and the hour of the day of an instant."""
        if utc_ns is None:
            return self._period(None), None
        quarter = utc_ns // _QUARTER_NS
        found = self._quarters.get(quarter)
        if found is None:
            local = datetime.fromtimestamp(quarter * 900, self._timezone)
            start = local.replace(minute=0)
            if self._by == "day":
                start = start.replace(hour=0, fold=0)
            activity = self._activity[local.hour]
            found = self._quarters[quarter] = self._period(start.isoformat()), activity
        return found

    def _period(self, start: str | None) -> Period:
        found = self._periods.get(start)
        if found is None:
            found = self._periods[start] = Period(start)
        return found

    # ---- the result ------------------------------------------------------------------

    def summary(self) -> Summary:
        records = [_run_summary(one, self._records[-1]) for one in self._records]
        self._add_pauses()
        total = Period(None)
        for each in self._by_stream.values():
            _add_period(total, each)
        dated = [start for start in self._periods if start is not None]
        dated.sort(key=datetime.fromisoformat)
        periods = [self._periods[start] for start in dated]
        undated = self._periods.get(None)
        return Summary(
            by=self._by,
            timezone=str(self._timezone),
            total=total,
            periods=[*periods, undated] if undated is not None else periods,
            activity=self._activity,
            streams=dict(sorted(self._by_stream.items())),
            outages=self._outages.in_order(),
            lost={
                reason: (int(number), seconds)
                for reason, (number, seconds) in sorted(self._lost.items())
            },
            runs=records,
        )

    def _add_pauses(self) -> None:
        """Add the times between runs that heard a live source."""
        for before, after in zip(self._records, self._records[1:], strict=False):
            last = self._last_ns.get(before.run)
            # Recordings of known date were made before the run: nothing was missed.
            if last is None or last < before.started_utc_ns:
                continue
            last = max(last, before.ended_utc_ns or last)
            seconds = (after.started_utc_ns - last) / NS
            if seconds > 0:
                reason = "killed" if before.ended_utc_ns is None else "not running"
                self._lose(reason, before.run, "", last, None, seconds)


class _Longest:
    """Keeps the longest outages, in the order in which they came."""

    most = 1000
    least_s = 1.0

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Outage]] = []
        self._number = 0

    def add(self, outage: Outage) -> None:
        if outage.seconds < self.least_s:
            return
        self._number += 1
        entry = (outage.seconds, self._number, outage)
        if len(self._heap) < self.most:
            heapq.heappush(self._heap, entry)
        else:
            heapq.heappushpop(self._heap, entry)

    def in_order(self) -> list[Outage]:
        return [one for _, _, one in sorted(self._heap, key=lambda entry: entry[1])]


def _remember(segments: OrderedDict[int, None], segment: int) -> None:
    segments[segment] = None
    if len(segments) > _MOST_REMEMBERED:
        segments.popitem(last=False)


def _add_period(total: Period, each: Period) -> None:
    for name in ("heard_s", "lost_s", "withheld_s"):
        setattr(total, name, getattr(total, name) + getattr(each, name))
    for name in ("segments", "unlabelled", "near_misses"):
        setattr(total, name, getattr(total, name) + getattr(each, name))
    for unit, number in each.units.items():
        total.units[unit] = total.units.get(unit, 0) + number


def _run_summary(record: RunRecord, newest: RunRecord) -> RunSummary:
    ended = record.ended_utc_ns
    state: Literal["ended", "killed", "open"] = "ended"
    if ended is None:
        state = "open" if record is newest else "killed"
    return RunSummary(
        run=record.run,
        started=_iso(record.started_utc_ns, UTC),
        ended=None if ended is None else _iso(ended, UTC),
        state=state,
        removed=record.removed,
    )


def _iso(utc_ns: int, timezone: tzinfo) -> str:
    return datetime.fromtimestamp(utc_ns // NS, timezone).isoformat()
