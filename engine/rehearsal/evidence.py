"""What was recorded of an exercise, in samples of the recording and in words."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

from neurovocal.engine.contracts.clock import NS
from neurovocal.engine.contracts.types import FAULT_STAGE_PREFIX
from neurovocal.engine.rehearsal.baseline import sound_of
from neurovocal.engine.rehearsal.comparison import Delivery, Sound, Span
from neurovocal.engine.rehearsal.engine_process import Heard
from neurovocal.engine.rehearsal.scenarios import Exercise
from neurovocal.engine.rehearsal.trial import Record, key_of
from neurovocal.engine.wire.headers import (
    GapHeader,
    Header,
    HealthHeader,
    StatsHeader,
)

# What a kill may cost: events whose commit was still to come (docs/journal.md).
WINDOW_S = 1.0
_SHORTEST_S = 0.0005  # of a gap: an outage begins with an empty one


@dataclass(frozen=True, slots=True)
class Evidence:
    """An exercise with its record, seen on the recording's own time.

    Parameters
    ----------
    exercise : Exercise
        What was rehearsed.
    record : Record
        What came of it.
    labelled : bool
        Whether sounds are labels, or segments.
    sample_rate : int
        At which samples of the recording are counted, in Hz.
    tape_rate : int
        Of the recording, in Hz.
    """

    exercise: Exercise
    record: Record
    labelled: bool
    sample_rate: int
    tape_rate: int

    # ---- sounds --------------------------------------------------------------------

    def sent(self) -> list[Delivery]:
        """Sounds as the engine sent them to its sinks."""
        return self._deliveries((one.run, one.header) for one in self.record.told)

    def received(self) -> list[Delivery]:
        """Sounds that the subscriber has, in the order of their coming."""
        messages = self.record.received or ()
        return self._deliveries((one.run, one.header) for _, one in messages)

    def kept(self) -> list[Delivery]:
        """Sounds that the journal has."""
        return self._deliveries(self.record.journal or ())

    def known_missing(self) -> set[Sound]:
        """Sounds that were sent, and that the subscriber knows to be missing."""
        holes = set()
        for _, one in self.record.received or ():
            if one.missed is not None:
                first = one.missed.first_seq
                holes |= {
                    (one.run, one.kind, one.stream, first + i)
                    for i in range(one.missed.count)
                }
        return {each.sound for each in self.sent() if each.key in holes}

    def _deliveries(self, messages: Iterable[tuple[str, Header]]) -> list[Delivery]:
        found = []
        for run, header in messages:
            sound = sound_of(header, self.labelled, self.sample_rate)
            if sound is not None:
                place = self.place(run)
                moved = sound._replace(
                    onset=place(sound.onset), offset=place(sound.offset)
                )
                found.append(Delivery(key_of(run, header), moved))
        return found

    def at(self, one: Heard) -> int:
        """Sample of the recording at which an event was known."""
        sample = one.header.at * self.sample_rate // one.header.sample_rate
        return self.place(one.run)(sample)

    def place(self, run: str) -> Callable[[int], int]:
        """What turns a sample of a run into one of the recording.

        A run that was started again begins later in it. Within the fault of a clock
        that is off, the device brings more samples than it should, or fewer.
        """
        start_s = self.record.starts_s.get(run, 0.0)
        exercise, rate = self.exercise, self.sample_rate
        first_s, last_s = exercise.at_s, exercise.end_s
        speed = 1.0  # samples that the device brings for each one that it should
        again = start_s > 0  # what is started again runs without faults
        if exercise.fault == "drift" and not again:
            speed = 1 + float(exercise.options["ppm"]) / 1e6
        elif exercise.fault == "wrong_rate" and not again:
            speed = float(exercise.options["rate"]) / self.tape_rate

        def placed(sample: int) -> int:
            at_s = sample / rate + start_s
            inside_s = min(max(0.0, at_s - first_s), (last_s - first_s) * speed)
            return round((at_s - inside_s + inside_s / speed) * rate)

        return placed

    @property
    def retimed(self) -> bool:
        """Whether no sample of the recording was heard as it is."""
        return self.exercise.fault == "drift"

    # ---- spans -----------------------------------------------------------------------

    def told_spans(self) -> list[Span]:
        """Where the engine has said, or a run's end says, that samples are missing."""
        return [*self.gaps(), *self._spoilt(), *self._between_lives()]

    def gaps(self) -> list[Span]:
        """Gaps that were told."""
        found = []
        for one in self.record.events("gap"):
            assert isinstance(one.header, GapHeader)
            place, own = self.place(one.run), one.header.sample_rate
            ends = (one.header.start, one.header.stop)
            start, stop = (place(round(e * self.sample_rate / own)) for e in ends)
            found.append(Span(start, stop))
        return found

    def lost_s(self) -> dict[str, float]:
        """Seconds of all gaps that were told, by stream."""
        found: dict[str, float] = {}
        for one in self.record.events("gap"):
            assert isinstance(one.header, GapHeader)
            seconds = (one.header.stop - one.header.start) / one.header.sample_rate
            found[one.header.stream] = found.get(one.header.stream, 0.0) + seconds
        return found

    def _spoilt(self) -> Iterator[Span]:
        """Samples that were spoilt, or that a stage of the lane could not process."""
        fault = self.exercise.fault
        in_lane = fault in ("crash", "hang") and not self.exercise.of_sink
        if not (in_lane or fault in ("clip", "wrong_rate")):
            return
        changes = [one for one in self.record.events("health") if self._concerns(one)]
        begin = [
            o for o in changes if self._health(o).stage.startswith(FAULT_STAGE_PREFIX)
        ]
        if begin:
            yield Span(self.at(begin[0]), max(map(self.at, changes)))

    def _concerns(self, one: Heard) -> bool:
        """Whether a change of health is of the fault, or of the lane's stage."""
        stage = self._health(one).stage
        mine = self.exercise.stage
        return stage.startswith(FAULT_STAGE_PREFIX) or bool(mine and mine in stage)

    def _between_lives(self) -> Iterator[Span]:
        runs = list(self.record.starts_s)
        for before, after in pairwise(runs):
            last = max(self.at(one) for one in self.record.told if one.run == before)
            window = round(WINDOW_S * self.sample_rate)
            yield Span(last - window, self.place(after)(0))

    # ---- time ------------------------------------------------------------------------

    def struck(self) -> bool:
        """Whether the fault has been told to have struck, or has ended a run."""
        if self.exercise.fault in ("none", "kill"):
            return self.exercise.fault == "none" or len(self.record.exits) > 1
        return any(
            self._health(one).stage.startswith(FAULT_STAGE_PREFIX)
            for one in self.record.events("health")
        )

    def over(self) -> int:
        """Sample of the recording at which the fault was over."""
        struck = [
            self.at(one)
            for one in self.record.events("health")
            if self._health(one).stage.startswith(FAULT_STAGE_PREFIX)
        ]
        if len(self.record.starts_s) > 1:  # until a run ended
            first = next(iter(self.record.starts_s))
            return max(self.at(one) for one in self.record.told if one.run == first)
        begin = min(struck, default=round(self.exercise.at_s * self.sample_rate))
        return begin + round(self.exercise.for_s * self.sample_rate)

    def arrivals(self) -> list[tuple[Delivery, int]]:
        """Sounds with the monotonic time at which the reader had them, in ns."""
        found: list[tuple[str, Header, int]]
        found = [(one.run, one.header, one.heard_ns) for one in self.record.told]
        if self.record.received is not None:
            found = [(one.run, one.header, at) for at, one in self.record.received]
        return [
            (each, at)
            for run, header, at in found
            for each in self._deliveries([(run, header)])
        ]

    def played_ns(self, sample: int) -> int:
        """Monotonic time at which a sample of the recording was played."""
        began_ns = min(self.record.began_ns.values(), default=0)
        return began_ns + sample * NS // self.sample_rate

    # ---- words -----------------------------------------------------------------------

    def said(self) -> list[str]:
        """What the engine told besides sounds, each change once, in words."""
        words: list[str] = []
        states: dict[str, list[str]] = {}
        for one in self.record.told:
            header = one.header
            if isinstance(header, GapHeader):
                seconds = (header.stop - header.start) / header.sample_rate
                if seconds > _SHORTEST_S:
                    words.append(f"gap {seconds:.2f} s ({header.reason})")
            elif isinstance(header, HealthHeader) and not header.stage.startswith(
                FAULT_STAGE_PREFIX
            ):
                known = states.setdefault(header.stage, [])
                if not known or known[-1] != header.state:
                    known.append(header.state)
        words += [f"{stage}: {', '.join(each)}" for stage, each in states.items()]
        if self.exercise.fault == "drift" and self.drift_ppm() is not None:
            words.append(f"drift {self.drift_ppm():+.0f} ppm")
        words = list(dict.fromkeys(words))
        for code in self.record.exits[:-1]:
            how = f"signal {-code}" if code < 0 else f"exit code {code}"
            words.append(f"ended ({how}), started again")
        missed = sum(m.missed.count for _, m in self.record.received or () if m.missed)
        if missed:
            words.append(f"subscriber was told of {missed} missing messages")
        return words

    def states(self, stage: str) -> list[str]:
        """States of the stages whose name contains `stage`, in order."""
        found = (self._health(one) for one in self.record.events("health"))
        return [
            each.state
            for each in found
            if stage in each.stage and not each.stage.startswith(FAULT_STAGE_PREFIX)
        ]

    def drift_ppm(self) -> float | None:
        """The last estimate of drift that was published."""
        found = None
        for one in self.record.events("stats"):
            assert isinstance(one.header, StatsHeader)
            value = one.header.values.get("drift_ppm")
            found = float(value) if isinstance(value, int | float) else found
        return found

    @staticmethod
    def _health(one: Heard) -> HealthHeader:
        assert isinstance(one.header, HealthHeader)
        return one.header
