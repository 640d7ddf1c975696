"""Daily summary of a journal, due once at a local time of day."""

import json
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from pathlib import Path

from neurovocal.engine import NS, Clock
from neurovocal.engine.journal import Selection, Summary, summarize
from neurovocal.plugins.sinks.integrations.delivery.items import (
    SUMMARY,
    Outgoing,
    id_of,
    utf8,
)
from neurovocal.plugins.sinks.integrations.delivery.state import StateFile

# Days that are caught up on, and outages and runs that a summary lists, at most.
_MOST_DAYS = 7
_MOST_LISTED = 20
_MOST_UNITS = 8
_DAY = timedelta(days=1)


class DailySummary:
    """Counts of the 24 hours up to a time of day, once a day, also after restarts.

    The first one is due a day, at most, after the first start. A day whose summary
    could not be sent is caught up on, up to a week.

    Parameters
    ----------
    journal : Path
        The journal to count.
    station : str
        Name in the summary.
    at : time
        Local time of day at which it is due.
    zone : tzinfo
        Time zone of `at` and of the hours.
    file : StateFile
        Keeps the date of the last one.
    clock : Clock
        Gives UTC.
    render : callable, optional
        ``render(summary)`` returns the text to deliver in place of JSON.
    """

    def __init__(
        self,
        journal: Path,
        station: str,
        at: time,
        zone: tzinfo,
        file: StateFile,
        clock: Clock,
        render: Callable[[Summary], str] | None = None,
    ) -> None:
        self._render = render
        self._journal, self._station = journal, station
        self._at, self._zone = at, zone
        self._file, self._clock = file, clock
        self._due: tuple[date, Outgoing] | None = None

    def begin(self) -> None:
        """Let the first summary be the next one, if there was none before."""
        newest, last = self._newest(), _date(self._file.state.summary)
        # Later than now: the clock of the machine had been in the future.
        if last is None or last > newest + _DAY:
            self._file.state.summary = newest.isoformat()
            self._file.save()

    def due(self) -> Outgoing | None:
        """Return the summary that is due and not sent, or None.

        Raises
        ------
        ConfigError
            The journal cannot be read.
        """
        day = self._day()
        if day is None:
            self._due = None
        elif self._due is None or self._due[0] != day:
            self._due = day, self._item(day)
        return None if self._due is None else self._due[1]

    def sent(self) -> None:
        """Note that the summary of `due` was taken or refused."""
        if self._due is not None:
            self._file.state.summary = self._due[0].isoformat()
            self._file.save()
            self._due = None

    def _day(self) -> date | None:
        """Return the day whose summary is due, the oldest first."""
        self.begin()
        newest, last = self._newest(), _date(self._file.state.summary)
        if last is None or last >= newest:
            return None
        return max(last + _DAY, newest - (_MOST_DAYS - 1) * _DAY)

    def _newest(self) -> date:
        """Return the last day whose time has come."""
        now_s = self._clock.utc_ns() / NS
        today = datetime.fromtimestamp(now_s, self._zone).date()
        return today if self._instant(today).timestamp() <= now_s else today - _DAY

    def _instant(self, day: date) -> datetime:
        return datetime.combine(day, self._at, self._zone)

    def _item(self, day: date) -> Outgoing:
        start, stop = self._instant(day - _DAY), self._instant(day)
        selection = Selection(
            since_ns=round(start.timestamp()) * NS,
            until_ns=round(stop.timestamp()) * NS,
            heard="last",
        )
        counted = summarize(self._journal, selection, by="hour", timezone=self._zone)
        name = id_of(SUMMARY, self._station, day.isoformat())
        if self._render is not None:
            return Outgoing(name, SUMMARY, "", self._render(counted).encode())
        body = {
            "id": name,
            "kind": SUMMARY,
            "station": utf8(self._station),
            "time": f"{stop.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}",
            "since": start.isoformat(),
            "until": stop.isoformat(),
            "text": _sentence(counted),
            **_shortened(counted),
        }
        return Outgoing(name, SUMMARY, "", json.dumps(body).encode())


def _shortened(summary: Summary) -> dict[str, object]:
    """Return the summary as JSON values; of outages the longest, of runs the newest."""
    values = summary.as_dict()
    longest = sorted(values["outages"], key=lambda one: -one["seconds"])
    values["outages"] = longest[:_MOST_LISTED]
    values["runs"] = values["runs"][-_MOST_LISTED:]
    return values


def _sentence(summary: Summary) -> str:
    """Return the counts as one line for people."""
    total = summary.total
    parts = [f"heard {total.heard_s / 3600:.1f} h", f"{total.segments} segments"]
    if total.lost_s >= 1:
        parts.append(f"lost {total.lost_s:.0f} s")
    units = summary.units()
    counts = [f"{unit} {total.units[unit]}" for unit in units[:_MOST_UNITS]]
    if more := len(units) - len(counts):
        counts.append(f"{more} more units")
    return f"{', '.join(parts)}{': ' * bool(counts)}{', '.join(counts)}"


def _date(text: str | None) -> date | None:
    try:
        return None if text is None else date.fromisoformat(text)
    except ValueError:
        return None
