"""One lane takes over from another in the middle of a stream, or does not.

The new lane hears the same audio in the shadow of the old one; what it answers is
compared and thrown away. Promoted, it goes on where the old one is made to end: at the
same sample, with segment numbers that follow, and no sample heard twice or never.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from threading import Event as Flag
from threading import Lock
from typing import Any

from neurovocal.engine.contracts.types import (
    Anchor,
    Block,
    Control,
    Event,
    Frames,
    Gap,
    Health,
    Label,
    Offset,
    Posteriors,
    Surprise,
    Synthesis,
)
from neurovocal.engine.lane.lane import Lane, Step
from neurovocal.engine.lane.stage import SupervisedStage


class Decision:
    """Whether all lanes of a swap take over: once, and for all of them the same.

    Attributes
    ----------
    failure : str
        Why none does; empty as long as they may.
    report : dict or None
        What is published where a lane takes over; None: not promoted yet.
    """

    def __init__(self) -> None:
        self.failure = ""
        self.report: dict[str, Any] | None = None
        self._lock = Lock()

    def promote(self, report: dict[str, Any]) -> bool:
        """Let all take over, each at its next boundary; False if it was called off."""
        with self._lock:
            if self.failure:
                return False
            self.report = report
            return True

    def cancel(self, reason: str) -> bool:
        """Call it off; False if they were promoted before."""
        with self._lock:
            if self.report is not None:
                return False
            self.failure = self.failure or reason
            return True


# Onsets that are as close as this are of the same segment.
_SAME_S = 0.02
_Named = tuple[int, int, str]  # onset, offset, unit


class Agreement:
    """Segments and final labels of an old and of a new lane, compared.

    Parameters
    ----------
    sample_rate : int
        Of both lanes, in Hz.
    """

    def __init__(self, sample_rate: int) -> None:
        self._near = round(_SAME_S * sample_rate)
        self._heard: tuple[list[Event], list[Event]] = ([], [])
        # Of streams that have ended: number in the old, in the new, in both.
        self._counts: dict[type, list[int]] = {Offset: [0, 0, 0], Label: [0, 0, 0]}

    def note_old(self, events: Iterable[Event]) -> None:
        """Take what the old lane said."""
        self._heard[0].extend(e for e in events if isinstance(e, Offset | Label))

    def note_new(self, events: Iterable[Event]) -> None:
        """Take what the new lane said."""
        self._heard[1].extend(e for e in events if isinstance(e, Offset | Label))

    def end_stream(self, since: int) -> None:
        """Positions begin anew: settle what was compared so far."""
        self._counts = {kind: self._count(kind, since) for kind in self._counts}
        for events in self._heard:
            events.clear()

    def of(self, kind: type, since: int) -> dict[str, Any]:
        """Compare segments (`Offset`) or labels (`Label`).

        Parameters
        ----------
        kind : type
            `Offset` or `Label`.
        since : int
            Sample after which both lanes heard this stream.

        Returns
        -------
        dict
            ``old`` and ``new``: how many; ``equal``: the share that is the same in
            both, None if there are none.
        """
        old, new, equal = self._count(kind, since)
        most = max(old, new)
        share = round(equal / most, 4) if most else None
        return {"old": old, "new": new, "equal": share}

    def _count(self, kind: type, since: int) -> list[int]:
        old, new = (_named(events, kind, since) for events in self._heard)
        here = [len(old), len(new), _equal(old, new, self._near)]
        return [a + b for a, b in zip(self._counts[kind], here, strict=True)]


def _named(events: list[Event], kind: type, since: int) -> list[_Named]:
    """Segments or final labels that began since then."""
    found = []
    for event in events:
        if isinstance(event, Label) and kind is Label:
            if event.status == "final":
                found.append((event.onset, event.offset or event.onset, event.unit))
        elif isinstance(event, Offset) and kind is Offset:
            found.append((event.onset, event.sample, ""))
    return sorted(each for each in found if each[0] > since)


def _equal(old: list[_Named], new: list[_Named], near: int) -> int:
    """How many are in both, at the same place and of the same unit."""
    equal, at = 0, 0
    for onset, _, unit in old:
        while at < len(new) and new[at][0] < onset - near:
            at += 1
        if at < len(new) and new[at][0] <= onset + near:
            equal += new[at][2] == unit
            at += 1
    return equal


_FRAMED = (Frames, Posteriors, Surprise, Synthesis)


class ShadowLane(Lane):
    """A lane that is the old one, then the new one.

    Parameters
    ----------
    name : str
        Of the lane, for sentences.
    old, new : Lane
        ``new`` has heard nothing yet. Both are at one rate, and so are their sources.
    decision : Decision
        Of the swap; whoever swaps promotes or cancels it, from any thread.
    shadow_s : float
        Seconds of audio after which ``new`` has heard enough.
    patience_s : float
        Seconds for which a promotion waits for silence; then it cuts a segment.
    """

    def __init__(
        self,
        name: str,
        old: Lane,
        new: Lane,
        decision: Decision,
        shadow_s: float,
        patience_s: float,
    ) -> None:
        self.info = old.info
        self.predecessor = old  # in whose place this is put
        self.ready, self.done = Flag(), Flag()
        self._name = name
        self._shift = self._first = 0  # of the present lane's segment numbers
        self._marks: dict[type, int] = {}  # up to where frames were told before it
        if isinstance(old, ShadowLane):
            # Swapped before: what it does is done here, or every swap would cost
            # all audio another step for ever.
            self._shift, self._first, self._marks = old._shift, old._first, old._marks
            old = old._now
        self._old, self._new = old, new
        self._now: Lane = old
        self._adopt(old)
        self._decision = decision
        self._shadow = round(shadow_s * old.info.sample_rate)
        self._patience = round(patience_s * old.info.sample_rate)
        self._since: int | None = None  # where the new lane began to hear
        self._asked: int | None = None  # where the promotion was asked for
        self._ended = 0  # samples that it heard of streams that have ended
        self._ends: dict[type, int] = {}  # end of the last frames of each kind
        self._agreement = Agreement(old.info.sample_rate)

    def agreement(self) -> dict[str, Any]:
        """How alike both lanes' segments and labels are, and what they cost.

        Returns
        -------
        dict
            ``segments`` and ``labels``: how many of the old lane's and of the new
            one's, and the share that is the same in both (None: there are none);
            ``load``: share of real time of the new one.
        """
        seconds = max(1, self._shadowed) / self.info.sample_rate
        since = self._since or -1  # from a stream's beginning on, all of it
        busy = sum(stage.metrics.busy_ns for stage in self._new.stages)
        return {
            "seconds": round(seconds, 2),
            "segments": self._agreement.of(Offset, since),
            "labels": self._agreement.of(Label, since),
            "load": round(busy / 1e9 / seconds, 4),
        }

    # ---- a lane -------------------------------------------------------------------

    @property
    def shadowed(self) -> list[SupervisedStage]:
        """Stages that work beside the lane's own."""
        return [] if self._alone else self._new.stages

    @property
    def position(self) -> int:
        """As `Lane.position`."""
        return self._now.position

    @property
    def heard(self) -> int:
        """As `Lane.heard`."""
        return self._now.heard

    @property
    def next_segment(self) -> int:
        """As `Lane.next_segment`."""
        return self._now.next_segment + self._shift

    @property
    def is_open(self) -> bool:
        """As `Lane.is_open`."""
        return self._now.is_open

    def process(self, item: Block | Gap | Anchor) -> Iterator[Step]:
        """As `Lane.process`."""
        self._now.info = self._new.info = self.info
        # Both hear the same samples: those of the old one's resampler.
        for part in self._now.parts(item):
            for piece in self._pieces(part):
                if not self._alone:
                    self._join(piece)
                for step in self._now.take(piece):
                    yield self._passed(step)
                if not self._alone:
                    self._follow(piece)
                    if self._fits():
                        yield self._hand_over(self._old.leave())
                        self.done.set()
        self._now.settle()

    def advance(self, position: int) -> Step:
        """As `Lane.advance`."""
        return self._passed(self._now.advance(position))

    def flush(self) -> Iterator[Step]:
        """As `Lane.flush`."""
        for part in self._now.rest():
            if not self._alone:
                self._join(part)
            for step in self._now.take(part):
                yield self._passed(step)
            if not self._alone:
                self._follow(part)
        for step in self._now.end():
            yield self._passed(step)
        if self._alone:
            return
        self._try(lambda: self._compare(self._new.end()))
        if not self._alone and self._decision.report is not None:
            yield self._hand_over(iter(()))
            self.done.set()

    def abandon(self, reason: str) -> Step:
        """As `Lane.abandon`."""
        return self._passed(self._now.abandon(reason))

    def leave(self) -> Iterator[Step]:
        """As `Lane.leave`."""
        for step in self._now.leave():
            yield self._passed(step)

    def reset(self) -> None:
        """As `Lane.reset`: the shadow goes on in the new stream."""
        if not self._alone:
            self._ended, since = self._shadowed, self._since or -1
            self._agreement.end_stream(since)
            self._since = self._asked = None
            self._try(self._new.reset)
        self._shift = self._first = 0
        self._marks, self._ends = {}, {}
        self._now.reset()

    # ---- in between -----------------------------------------------------------------

    @property
    def _alone(self) -> bool:
        return bool(self._decision.failure) or self._now is self._new

    @property
    def _shadowed(self) -> int:
        """Samples that the new lane has heard beside the old one."""
        here = 0 if self._since is None else self._old.heard - self._since
        return self._ended + max(0, here)

    def _adopt(self, lane: Lane) -> None:
        self.features, self.detector = lane.features, lane.detector
        self.models, self.watchers = lane.models, lane.watchers

    def _pieces(self, part: Block | Gap | Anchor) -> Iterator[Block | Gap | Anchor]:
        """A long block in short ones, while a boundary of both lanes is sought."""
        sought = not self._alone and self._decision.report is not None
        step = min(self._old.quantum, self._new.quantum) if sought else 0
        if not (step and isinstance(part, Block)):
            yield part
            return
        for first in range(0, len(part.samples), step):
            samples = part.samples[first : first + step]
            yield replace(part, start=part.start + first, samples=samples)

    def _try(self, work: Callable[[], None]) -> None:
        """Let the new lane do something: should it fail, none takes over.

        Once they are promoted the new one's failures are those of the lane.
        """
        try:
            work()
        except Exception as error:
            if not self._call_off(f"failed: {type(error).__name__}: {error}"):
                raise

    def _call_off(self, reason: str) -> bool:
        return self._decision.cancel(f"lane '{self._name}': the new lane {reason}")

    def _join(self, part: Block | Gap | Anchor) -> None:
        """Let the new lane begin to hear, wherever the stream is."""
        if self._since is not None or isinstance(part, Anchor):
            return
        self._since = part.start
        if part.start > 0:
            before = Gap(0, part.start, "not heard yet")
            self._try(lambda: self._compare(self._new.take(before)))

    def _follow(self, part: Block | Gap | Anchor) -> None:
        """Let the new lane hear `part`, too."""
        if not isinstance(part, Anchor):
            self._try(lambda: self._compare(self._new.take(part)))
        if not self._alone and self._shadowed >= self._shadow:
            self.ready.set()

    def _compare(self, steps: Iterable[Step]) -> None:
        """Note what the new lane says; a stage that fails is not to take over."""
        for step in steps:
            self._agreement.note_new(step.events)
            for event in step.events:
                if isinstance(event, Health) and self._errors():
                    self._call_off(f"failed: {event.stage}: {event.detail}")

    def _errors(self) -> int:
        return sum(stage.metrics.errors for stage in self._new.stages)

    def _fits(self) -> bool:
        """Whether to take over here: at one boundary, in silence or after long."""
        if self._alone or self._decision.report is None:
            return False
        here = self._old.heard
        self._asked = here if self._asked is None else self._asked
        if here != self._new.heard:
            return False
        quiet = not (self._old.is_open or self._new.is_open)
        return quiet or here - self._asked >= self._patience

    def _hand_over(self, last: Iterator[Step]) -> Step:
        """The old lane's last words, and that the new one goes on."""
        report = {**(self._decision.report or {}), "agreement": self.agreement()}
        events = [e for step in last for e in self._passed(step).events]
        # What was switched off is no more: let nobody believe it still is.
        for stage in self._old.stages:
            if stage.failed:
                events.append(Health(stage.name, "healthy", "another took its place"))
        new, next_segment = self._new, self.next_segment
        new.succeed(self._old)
        self._first = new.next_segment
        self._shift = next_segment - self._first
        self._marks = {**self._marks, **self._ends}
        self._now = self._old = new
        self._adopt(new)
        sample = new.heard
        return Step(sample, [*events, Control(sample, "swap", "", report)])

    def _passed(self, step: Step) -> Step:
        if self._shift or self._first or self._marks:
            events = [e for event in step.events for e in self._renumbered(event)]
            step = replace(step, events=events)
        if not self._alone:
            if self._since is not None:
                self._agreement.note_old(step.events)
            for event in step.events:
                if isinstance(event, _FRAMED):
                    stop = (event.first + len(event.values)) * event.hop_length
                    self._ends[type(event)] = stop
        return step

    def _renumbered(self, event: Any) -> Iterator[Event]:
        """Without what the old lane has said already, and numbered after it."""
        if isinstance(event, _FRAMED):
            mark = self._marks.get(type(event), 0)
            if event.first * event.hop_length < mark:
                return
        if hasattr(event, "segment"):
            if event.segment < self._first:
                return
            event = replace(event, segment=event.segment + self._shift)
        yield event
