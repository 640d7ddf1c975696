"""One lane takes over from another in the middle of a stream, or does not.

The new lane hears the same audio in the shadow of the old one; what it answers is
compared and thrown away. Promoted, it goes on where the old one is made to end: at the
same sample, with segment numbers that follow, and no sample heard twice or never.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from threading import Event as Flag
from typing import Any

from neurovocal.engine.lane import Lane, Step
from neurovocal.engine.supervise import StageShell
from neurovocal.engine.types import (
    Anchor,
    Block,
    Control,
    Event,
    Frames,
    Gap,
    Label,
    Offset,
    Posteriors,
    Surprise,
    Synthesis,
)

# Onsets that are as close as this are of the same segment.
_SAME_S = 0.02
_FRAMED = (Frames, Posteriors, Surprise, Synthesis)


class Succession(Lane):
    """A lane that is the old one, then the new one.

    Parameters
    ----------
    old, new : Lane
        ``new`` has heard nothing yet.
    shadow_s : float
        Seconds of audio after which ``new`` has heard enough.
    patience_s : float
        Seconds for which a promotion waits for silence; then it cuts a segment.
    promoted : callable
        Called on the lane's thread when ``new`` has taken over.
    """

    def __init__(
        self,
        old: Lane,
        new: Lane,
        shadow_s: float,
        patience_s: float,
        promoted: Callable[[], None],
    ) -> None:
        self.info = old.info
        self._old, self._new = old, new
        self._now = old
        self.predecessor = old  # in whose place this is put
        self._adopt(old)
        self._shadow = round(shadow_s * old.info.sample_rate)
        self._patience = round(patience_s * old.info.sample_rate)
        self._told = promoted
        self._since: int | None = None  # where the new lane began to hear
        self._asked: int | None = None  # where the promotion was asked for
        self._report: dict[str, Any] = {}
        self._shift = self._first = 0  # of the new lane's segment numbers
        self._marks: dict[type, int] = {}  # end of the last frames of each kind
        self._heard_old: list[Event] = []
        self._heard_new: list[Event] = []
        self.ready, self.done = Flag(), Flag()
        self.failure = ""  # why there will be no promotion
        self._wanted = False

    # ---- what whoever swaps asks for, from any thread ---------------------------

    def promote(self, report: dict[str, Any]) -> None:
        """Let the new lane take over at the next boundary; `report` is published."""
        self._report = report
        self._wanted = True

    def cancel(self, reason: str) -> None:
        """Stay with the old lane for ever."""
        self.failure = self.failure or reason

    def agreement(self) -> dict[str, Any]:
        """How alike both lanes' segments and labels are, and what they cost.

        Returns
        -------
        dict
            ``segments`` and ``labels``: how many of the old lane's and of the new
            one's, and the share that is the same in both (None: there are none);
            ``load``: share of real time of each.
        """
        heard = max(1, self._old.heard - (self._since or 0))
        seconds = heard / self.info.sample_rate
        result: dict[str, Any] = {"seconds": round(seconds, 2)}
        for name, kind in (("segments", Offset), ("labels", Label)):
            both = (self._heard_old, self._heard_new)
            old, new = (_named(events, kind, self._since or 0) for events in both)
            share = _share(old, new, round(_SAME_S * self.info.sample_rate))
            result[name] = {"old": len(old), "new": len(new), "equal": share}
        busy = sum(stage.metrics.busy_ns for stage in self._new.stages)
        result["load"] = round(busy / 1e9 / seconds, 4)
        return result

    # ---- a lane -------------------------------------------------------------------

    @property
    def shadowed(self) -> list[StageShell]:
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
        for step in self._now.process(item):
            yield self._passed(step)
        if self._alone:
            return
        try:
            self._follow(item)
        except Exception as error:
            self.cancel(f"the new lane failed: {type(error).__name__}: {error}")
        if self._alone or not (self._wanted and self._fits()):
            return
        yield from self._hand_over()

    def advance(self, position: int) -> Step:
        """As `Lane.advance`."""
        return self._passed(self._now.advance(position))

    def flush(self) -> Iterator[Step]:
        """As `Lane.flush`."""
        self._stay("the stream ended before the new lane took over")
        for step in self._now.flush():
            yield self._passed(step)

    def leave(self) -> Iterator[Step]:
        """As `Lane.leave`."""
        for step in self._now.leave():
            yield self._passed(step)

    def reset(self) -> None:
        """As `Lane.reset`."""
        self._stay("a new stream began before the new lane took over")
        self._shift = self._first = 0
        self._marks = {}
        self._now.reset()

    # ---- in between -----------------------------------------------------------------

    @property
    def _alone(self) -> bool:
        return bool(self.failure) or self._now is self._new

    def _stay(self, reason: str) -> None:
        if not self._alone:
            self.cancel(reason)

    def _adopt(self, lane: Lane) -> None:
        self.features, self.detector = lane.features, lane.detector
        self.models, self.watchers = lane.models, lane.watchers

    def _follow(self, item: Block | Gap | Anchor) -> None:
        """Let the new lane hear `item`, from wherever the stream is."""
        if isinstance(item, Anchor):
            return
        if self._since is None:
            if item.start > 0:
                for _ in self._new.process(Gap(0, item.start, "not heard yet")):
                    pass
            self._since = self._new.position
        for step in self._new.process(item):
            self._heard_new += [e for e in step.events if isinstance(e, Offset | Label)]
        if self._old.position != self._new.position:
            self.cancel(
                f"the new lane is at sample {self._new.position}, the old one at "
                f"{self._old.position}"
            )
        elif self._old.heard - self._since >= self._shadow:
            self.ready.set()

    def _fits(self) -> bool:
        """Whether both are at one boundary, in silence or after long enough."""
        here = self._old.heard
        self._asked = here if self._asked is None else self._asked
        if here != self._new.heard:
            return False
        quiet = not (self._old.is_open or self._new.is_open)
        return quiet or here - self._asked >= self._patience

    def _hand_over(self) -> Iterator[Step]:
        report = {**self._report, "agreement": self.agreement()}
        for step in self._old.leave():
            yield self._passed(step)
        self._first = self._new.next_segment
        self._shift = self._old.next_segment - self._first
        self._now, self._old = self._new, self._new
        self._heard_old, self._heard_new = [], []
        self._adopt(self._new)
        self._told()
        sample = self._now.heard
        yield Step(sample, [Control(sample, "swap", "", report)])
        self.done.set()

    def _passed(self, step: Step) -> Step:
        if self._now is not self._new:
            if not self.failure:
                self._note(step.events)
            return step
        events = [e for event in step.events for e in self._renumbered(event)]
        return replace(step, events=events)

    def _note(self, events: Iterable[Any]) -> None:
        """Remember what the old lane said, to compare it and to go on after it."""
        for event in events:
            if isinstance(event, Offset | Label):
                self._heard_old.append(event)
            elif isinstance(event, _FRAMED):
                stop = (event.first + len(event.values)) * event.hop_length
                self._marks[type(event)] = stop

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


def _named(events: list[Event], kind: type, since: int) -> list[tuple[int, int, str]]:
    """(onset, offset, unit) of segments or of final labels that began since then."""
    found = []
    for event in events:
        if isinstance(event, Label) and kind is Label:
            if event.status == "final":
                found.append((event.onset, event.offset or event.onset, event.unit))
        elif isinstance(event, Offset) and kind is Offset:
            found.append((event.onset, event.sample, ""))
    return sorted(each for each in found if each[0] > since)


def _share(
    old: list[tuple[int, int, str]], new: list[tuple[int, int, str]], near: int
) -> float | None:
    """Share of segments that are in both, at the same place and of the same unit."""
    if not old and not new:
        return None
    equal, at = 0, 0
    for onset, _, unit in old:
        while at < len(new) and new[at][0] < onset - near:
            at += 1
        if at < len(new) and new[at][0] <= onset + near:
            equal += new[at][2] == unit
            at += 1
    return round(equal / max(len(old), len(new)), 4)
