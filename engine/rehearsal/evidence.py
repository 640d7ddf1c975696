"""Recorded events of a trial, in samples of the recording and as text."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

from neurovocal.engine.contracts.clock import NS
from neurovocal.engine.contracts.types import FAULT_STAGE_PREFIX
from neurovocal.engine.rehearsal.baseline import vocalization_of
from neurovocal.engine.rehearsal.comparison import (
    PublishedVocalization,
    SampleSpan,
    Vocalization,
)
from neurovocal.engine.rehearsal.engine_process import ReceivedEvent
from neurovocal.engine.rehearsal.scenarios import NO_FAULT, Scenario
from neurovocal.engine.rehearsal.trial import TrialRecord, message_key
from neurovocal.engine.wire.headers import (
    GapHeader,
    Header,
    HealthHeader,
    StatsHeader,
)

# What a kill may cost: events whose commit was still to come: see
# docs/reference/journal.md.
WINDOW_S = 1.0
_SHORTEST_S = 0.0005  # of a gap that counts: an outage begins with an empty one


@dataclass(frozen=True, slots=True)
class TrialEvidence:
    """A scenario and its record, in the time of the recording that was played.

    Parameters
    ----------
    scenario : Scenario
        The fault that was rehearsed.
    record : TrialRecord
        The events, messages and exit codes of the trial.
    labelled : bool
        Whether vocalizations are labels; if not, they are segments.
    sample_rate : int
        Rate at which samples of the recording are counted, in Hz.
    recording_rate : int
        Rate of the recording itself, in Hz.
    """

    scenario: Scenario
    record: TrialRecord
    labelled: bool
    sample_rate: int
    recording_rate: int

    # ---- vocalizations ---------------------------------------------------------------

    def sent(self) -> list[PublishedVocalization]:
        """Return the vocalizations that the engine passed to its sinks."""
        return self._published((one.run, one.header) for one in self.record.events)

    def received(self) -> list[PublishedVocalization]:
        """Return the subscriber's vocalizations, in the order in which they came."""
        messages = self.record.received or ()
        return self._published((one.run, one.header) for _, one in messages)

    def journaled(self) -> list[PublishedVocalization]:
        """Return the journal's vocalizations."""
        return self._published(self.record.journal or ())

    def known_missing(self) -> set[Vocalization]:
        """Return those sent in messages that the subscriber reports as missing."""
        holes = set()
        for _, one in self.record.received or ():
            if one.missed is not None:
                first = one.missed.first_seq
                holes |= {
                    (one.run, one.kind, one.stream, first + i)
                    for i in range(one.missed.count)
                }
        return {each.vocalization for each in self.sent() if each.key in holes}

    def arrivals(self) -> list[tuple[PublishedVocalization, int]]:
        """Return vocalizations with the monotonic time of their message, in ns."""
        found: list[tuple[str, Header, int]]
        found = [(one.run, one.header, one.time_ns) for one in self.record.events]
        if self.record.received is not None:
            found = [(one.run, one.header, at) for at, one in self.record.received]
        return [
            (each, at)
            for run, header, at in found
            for each in self._published([(run, header)])
        ]

    def _published(
        self, messages: Iterable[tuple[str, Header]]
    ) -> list[PublishedVocalization]:
        found = []
        for run, header in messages:
            one = vocalization_of(header, self.labelled, self.sample_rate)
            if one is not None:
                convert = self.to_recording(run)
                placed = one._replace(
                    onset=convert(one.onset), offset=convert(one.offset)
                )
                found.append(PublishedVocalization(message_key(run, header), placed))
        return found

    # ---- positions in the recording --------------------------------------------------

    def sample_of(self, event: ReceivedEvent) -> int:
        """Return the sample of the recording at which an event was known."""
        sample = event.header.at * self.sample_rate // event.header.sample_rate
        return self.to_recording(event.run)(sample)

    def to_recording(self, run: str) -> Callable[[int], int]:
        """Return a function that turns samples of a run into those of the recording.

        A run after a restart begins later in it. Within a fault of the device's clock
        the device delivers more samples than are played, or fewer.
        """
        start_s = self.record.run_starts_s.get(run, 0.0)
        scenario, rate = self.scenario, self.sample_rate
        first_s, last_s = scenario.at_s, scenario.end_s
        speed = 1.0  # samples that the device delivers for each one that is played
        restarted = start_s > 0  # a run after a restart has no faults
        if scenario.fault == "drift" and not restarted:
            speed = 1 + float(scenario.options["ppm"]) / 1e6
        elif scenario.fault == "wrong_rate" and not restarted:
            speed = float(scenario.options["rate"]) / self.recording_rate

        def convert(sample: int) -> int:
            at_s = sample / rate + start_s
            inside_s = min(max(0.0, at_s - first_s), (last_s - first_s) * speed)
            return round((at_s - inside_s + inside_s / speed) * rate)

        return convert

    @property
    def is_resampled(self) -> bool:
        """Whether the lane got no sample of the recording unchanged."""
        return self.scenario.fault == "drift"

    def played_ns(self, sample: int) -> int:
        """Return the monotonic time at which a sample of the recording was played."""
        origin_ns = min(self.record.origins_ns.values(), default=0)
        return origin_ns + sample * NS // self.sample_rate

    # ---- the fault -------------------------------------------------------------------

    def fault_started(self) -> bool:
        """Return whether the fault was announced, or has ended a run."""
        if self.scenario.fault in (NO_FAULT, "kill"):
            return self.scenario.fault == NO_FAULT or len(self.record.exits) > 1
        return bool(self._announcements())

    def fault_end(self) -> int:
        """Return the sample of the recording at which the fault was over."""
        if len(self.record.run_starts_s) > 1:  # it lasted until a run ended
            return self._last_sample(next(iter(self.record.run_starts_s)))
        start = min(
            map(self.sample_of, self._announcements()),
            default=round(self.scenario.at_s * self.sample_rate),
        )
        return start + round(self.scenario.for_s * self.sample_rate)

    def _announcements(self) -> list[ReceivedEvent]:
        """Return the health events with which the engine announces injected faults."""
        return [e for e in self.record.of_kind("health") if _is_announcement(e)]

    def _last_sample(self, run: str) -> int:
        return max(self.sample_of(one) for one in self.record.events if one.run == run)

    # ---- damaged spans ---------------------------------------------------------------

    def reported_spans(self) -> list[SampleSpan]:
        """Return where samples are reported as missing or damaged, or a run ended."""
        return [*self.gaps(), *self._damaged(), *self._between_runs()]

    def gaps(self) -> list[SampleSpan]:
        """Return the gaps that the engine published."""
        found = []
        for run, gap in self._gaps():
            convert = self.to_recording(run)
            start, stop = (
                convert(round(edge * self.sample_rate / gap.sample_rate))
                for edge in (gap.start, gap.stop)
            )
            found.append(SampleSpan(start, stop))
        return found

    def lost_s(self) -> dict[str, float]:
        """Return the seconds of all published gaps, by stream."""
        found: dict[str, float] = {}
        for _, gap in self._gaps():
            seconds = (gap.stop - gap.start) / gap.sample_rate
            found[gap.stream] = found.get(gap.stream, 0.0) + seconds
        return found

    def _gaps(self) -> Iterator[tuple[str, GapHeader]]:
        for one in self.record.of_kind("gap"):
            assert isinstance(one.header, GapHeader)
            yield one.run, one.header

    def _damaged(self) -> Iterator[SampleSpan]:
        """Yield the samples that were altered, or that a failed stage left out."""
        fault = self.scenario.fault
        in_lane = fault in ("crash", "hang") and not self.scenario.is_sink_fault
        if not (in_lane or fault in ("clip", "wrong_rate")):
            return
        stage = self.scenario.stage
        changes = [
            one
            for one in self.record.of_kind("health")
            if _is_announcement(one) or (stage and stage in _health(one).stage)
        ]
        if announced := self._announcements():
            last = max(map(self.sample_of, changes))
            yield SampleSpan(self.sample_of(announced[0]), last)

    def _between_runs(self) -> Iterator[SampleSpan]:
        window = round(WINDOW_S * self.sample_rate)
        for before, after in pairwise(self.record.run_starts_s):
            start = self._last_sample(before) - window
            yield SampleSpan(start, self.to_recording(after)(0))

    # ---- reports of the engine -------------------------------------------------------

    def reports(self) -> list[str]:
        """Return gaps, changes of health and restarts as text, each change once."""
        texts: list[str] = []
        for one in self.record.events:
            if isinstance(one.header, GapHeader):
                gap = one.header
                seconds = (gap.stop - gap.start) / gap.sample_rate
                if seconds > _SHORTEST_S:
                    texts.append(f"gap {seconds:.2f} s ({gap.reason})")
        states: dict[str, list[str]] = {}
        for one in self.record.of_kind("health"):
            health = _health(one)
            known = states.setdefault(health.stage, [])
            if not _is_announcement(one) and known[-1:] != [health.state]:
                known.append(health.state)
        texts += [f"{stage}: {', '.join(s)}" for stage, s in states.items() if s]
        if self.scenario.fault == "drift" and self.drift_ppm() is not None:
            texts.append(f"drift {self.drift_ppm():+.0f} ppm")
        texts = list(dict.fromkeys(texts))
        for code in self.record.exits[:-1]:
            how = f"signal {-code}" if code < 0 else f"exit code {code}"
            texts.append(f"ended ({how}), started again")
        missed = sum(m.missed.count for _, m in self.record.received or () if m.missed)
        if missed:
            texts.append(f"subscriber was told of {missed} missing messages")
        return texts

    def states(self, stage: str) -> list[str]:
        """Return the health states of stages with `stage` in their name, in order."""
        return [
            _health(one).state
            for one in self.record.of_kind("health")
            if stage in _health(one).stage and not _is_announcement(one)
        ]

    def drift_ppm(self) -> float | None:
        """Return the last published estimate of drift, None if there is none."""
        found = None
        for one in self.record.of_kind("stats"):
            assert isinstance(one.header, StatsHeader)
            value = one.header.values.get("drift_ppm")
            found = float(value) if isinstance(value, int | float) else found
        return found


def _health(event: ReceivedEvent) -> HealthHeader:
    assert isinstance(event.header, HealthHeader)
    return event.header


def _is_announcement(event: ReceivedEvent) -> bool:
    """Return whether a health event announces an injected fault, or its end."""
    return _health(event).stage.startswith(FAULT_STAGE_PREFIX)
