"""Shadow lane: a new lane that runs beside the present one and may take its place.

The new lane processes the same audio; its events are compared with those of the present
lane and dropped. Once it is promoted it takes over at a sample that both have reached,
with segment numbers that follow, and no sample is processed twice or never.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from threading import Event as Flag
from threading import Lock
from typing import Any, NamedTuple

from neurovocal.engine.contracts.types import (
    Anchor,
    Block,
    Comparison,
    Control,
    Event,
    Gap,
    Health,
    Label,
    Offset,
)
from neurovocal.engine.lane.comparison import SAME_S, LaneComparison, Side
from neurovocal.engine.lane.lane import FRAME_KINDS, Lane, Part, Step


class SwapDecision:
    """Barrier of a model swap: all lanes take over, or none does.

    Attributes
    ----------
    failure : str
        Why none takes over; empty as long as they may.
    report : dict or None
        Arguments of the `Control` event where a lane takes over; None: not promoted.
    """

    def __init__(self) -> None:
        self.failure = ""
        self.report: dict[str, Any] | None = None
        self._lock = Lock()

    def promote(self, report: dict[str, Any]) -> bool:
        """Let all lanes take over, each at its next boundary; False if cancelled."""
        with self._lock:
            if self.failure:
                return False
            self.report = report
            return True

    def cancel(self, reason: str) -> bool:
        """Let no lane take over; False if they have been promoted before."""
        with self._lock:
            if self.report is not None:
                return False
            self.failure = self.failure or reason
            return True


_Named = tuple[int, int, str]  # onset, offset, unit


class Agreement:
    """Segments and final labels of the present and of the new lane, compared.

    Parameters
    ----------
    sample_rate : int
        Of both lanes, in Hz.
    """

    def __init__(self, sample_rate: int) -> None:
        self._near = round(SAME_S * sample_rate)
        self._events: tuple[list[Event], list[Event]] = ([], [])
        # Of streams that have ended: number in the old, in the new, in both.
        self._counts: dict[type, list[int]] = {Offset: [0, 0, 0], Label: [0, 0, 0]}

    def add_old(self, events: Iterable[Event]) -> None:
        """Add events of the present lane."""
        self._events[0].extend(e for e in events if isinstance(e, Offset | Label))

    def add_new(self, events: Iterable[Event]) -> None:
        """Add events of the new lane."""
        self._events[1].extend(e for e in events if isinstance(e, Offset | Label))

    def end_stream(self, since: int) -> None:
        """Count the compared events: positions of the next stream begin at 0."""
        self._counts = {kind: self._count(kind, since) for kind in self._counts}
        for events in self._events:
            events.clear()

    def compare(self, kind: type, since: int) -> dict[str, Any]:
        """Compare segments (`Offset`) or labels (`Label`).

        Parameters
        ----------
        kind : type
            `Offset` or `Label`.
        since : int
            Sample after which both lanes have processed this stream.

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
        old, new = (_named(events, kind, since) for events in self._events)
        here = [len(old), len(new), _equal(old, new, self._near)]
        return [a + b for a, b in zip(self._counts[kind], here, strict=True)]


def _named(events: list[Event], kind: type, since: int) -> list[_Named]:
    """Return segments or final labels with an onset after `since`, sorted."""
    found = []
    for event in events:
        if isinstance(event, Label) and kind is Label:
            if event.status == "final":
                found.append((event.onset, event.offset or event.onset, event.unit))
        elif isinstance(event, Offset) and kind is Offset:
            found.append((event.onset, event.sample, ""))
    return sorted(each for each in found if each[0] > since)


def _equal(old: list[_Named], new: list[_Named], near: int) -> int:
    """Count the segments that are in both, at the same place and of the same unit."""
    equal, at = 0, 0
    for onset, _, unit in old:
        while at < len(new) and new[at][0] < onset - near:
            at += 1
        if at < len(new) and new[at][0] <= onset + near:
            equal += new[at][2] == unit
            at += 1
    return equal


class RecordedTakeover(NamedTuple):
    """Where the shadow of a recorded run began, and where it took over.

    Parameters
    ----------
    since : int
        First sample that it processed in its stream.
    sample : int
        Sample at which it took over.
    at_end : bool
        It took over at the end of the stream.
    """

    since: int
    sample: int
    at_end: bool


class ShadowLane:
    """New lane that processes the audio of a present one, part by part after it.

    The caller feeds both lanes: ``join(part)``, then the present lane, whose steps go
    to `observe`, then ``follow(part)``. A failure of the new lane cancels the swap and
    never disturbs the present lane.

    Parameters
    ----------
    name : str
        Name of the lane, for sentences.
    old : Lane
        The present lane.
    new : Lane
        Lane that has processed nothing yet; same rate as `old`, and same source.
    decision : SwapDecision
        Shared by all lanes of the swap; promoted or cancelled from any thread.
    shadow_s : float
        Seconds of audio after which ``new`` is ready to take over.
    patience_s : float
        Seconds of audio for which a promotion waits for silence; then it cuts a
        segment.
    stays : str
        Name of a shadow that stays until it is promoted or dropped: its comparisons
        with the present lane are counted by `comparison`, in flat memory, and given to
        `tell`. Empty: the shadow is compared once.
    recorded : RecordedTakeover, optional
        Where the shadow of a recorded run began and took over, to be done again there.

    Attributes
    ----------
    lane : Lane
        The new lane.
    present : Lane
        The lane whose audio it gets.
    ready : Flag
        Set when the new lane has processed `shadow_s` of audio.
    done : Flag
        Set when it has taken over.
    comparison : LaneComparison or None
        Of a shadow that stays.
    tell : callable
        ``tell(comparison, at)`` publishes a comparison that was known at a position.
    """

    def __init__(
        self,
        name: str,
        old: Lane,
        new: Lane,
        decision: SwapDecision,
        shadow_s: float,
        patience_s: float,
        *,
        stays: str = "",
        recorded: RecordedTakeover | None = None,
    ) -> None:
        self.lane = new
        self.ready, self.done = Flag(), Flag()
        self._name = name
        self.present = old
        self._decision = decision
        self._shadow = round(shadow_s * old.info.sample_rate)
        self._patience = round(patience_s * old.info.sample_rate)
        self._since: int | None = None  # where the new lane began
        self._promoted: int | None = None  # where the promotion was noticed
        self._ended = 0  # samples that it processed of streams that have ended
        self._published: dict[type, int] = {}  # end of the last rows of each kind
        self._agreement = Agreement(old.info.sample_rate)
        self.comparison = LaneComparison(stays, old.info.sample_rate) if stays else None
        self.tell: Callable[[Comparison, int], None] = _tell_nothing
        self._recorded = recorded

    @property
    def cancelled(self) -> bool:
        """True if the new lane will not take over."""
        return bool(self._decision.failure)

    def agreement(self) -> dict[str, Any]:
        """Compare the segments and labels of both lanes.

        Returns
        -------
        dict
            ``segments`` and ``labels``: how many of the old lane's and of the new
            one's, and the share that is the same in both (None: there are none);
            ``load``: share of real time of the new one.
        """
        seconds = max(1, self._processed) / self.lane.info.sample_rate
        busy = sum(stage.metrics.busy_ns for stage in self.lane.stages)
        figures = {"seconds": round(seconds, 2), "load": round(busy / 1e9 / seconds, 4)}
        if self.comparison is not None:
            return {**figures, **self.comparison.counts()}
        since = self._since or -1  # from a stream's beginning on, all of it
        return {
            **figures,
            "segments": self._agreement.compare(Offset, since),
            "labels": self._agreement.compare(Label, since),
        }

    # ---- beside the present lane -----------------------------------------------------

    def cut(self, part: Part) -> Iterator[Part]:
        """Yield `part`; once promoted, in short parts, to find a common boundary.

        The shadow of a recorded run begins and takes over where it did: `part` is cut
        there.
        """
        if self._recorded is not None:
            yield from _cut_at(part, (self._recorded.since, self._recorded.sample))
            return
        if not isinstance(part, Block) or self._decision.report is None:
            yield part
            return
        step = min(self.present.quantum, self.lane.quantum)
        edges = range(part.start + step, part.start + len(part.samples), step)
        yield from _cut_at(part, edges)

    def join(self, part: Part) -> None:
        """Let the new lane begin at `part`, wherever the stream is; once a stream."""
        if self.cancelled or self._since is not None or isinstance(part, Anchor):
            return
        if self._recorded is not None and part.start < self._recorded.since:
            return
        self._since = part.start
        self.lane.info = self.present.info
        if part.start > 0:
            self._try(self._process, Gap(0, part.start, "not heard yet"))

    def observe(self, step: Step) -> None:
        """Note a step of the present lane, to be compared."""
        if self.cancelled:
            return
        if self._since is not None:
            if self.comparison is None:
                self._agreement.add_old(step.events)
            else:
                self._compare_sides("present", step)
        for event in step.events:
            if isinstance(event, FRAME_KINDS):
                stop = (event.first + len(event.values)) * event.hop_length
                self._published[type(event)] = stop

    def follow(self, part: Part) -> None:
        """Process a part that the present lane has processed."""
        if self.cancelled or self._since is None:
            return
        if not isinstance(part, Anchor):
            self._try(self._process, part)
        if not self.cancelled and self._processed >= self._shadow:
            self.ready.set()

    def take_over(self) -> Step | None:
        """Take the present lane's place if it is promoted and both are at a boundary.

        Returns
        -------
        Step or None
            Last events of the present lane, and the `Control` event of the swap.
            None: the present lane goes on.
        """
        if self.cancelled or self._decision.report is None:
            return None
        here = self.present.processed
        if self._recorded is not None:
            is_there = not self._recorded.at_end and here == self._recorded.sample
            if self._since is None or not is_there:
                return None
            return self._hand_over(self._decision.report, at_end=False)
        self._promoted = here if self._promoted is None else self._promoted
        if here != self.lane.processed:
            return None
        silent = not (self.present.is_open or self.lane.is_open)
        if not silent and here - self._promoted < self._patience:
            return None
        return self._hand_over(self._decision.report, at_end=False)

    def end(self) -> Step | None:
        """End the stream after the present lane; as `take_over`, if it is promoted."""
        if self.cancelled:
            return None
        self._try(self._compare, self.lane.end())
        self._tell(self.comparison.end_stream() if self.comparison else ())
        if self.cancelled or self._decision.report is None:
            return None
        return self._hand_over(self._decision.report, at_end=True)

    def reset(self) -> None:
        """Begin another stream, before the present lane is reset."""
        if self.cancelled:
            return
        self._ended = self._processed
        self._tell(self.comparison.end_stream() if self.comparison else ())
        self._agreement.end_stream(self._since or -1)
        self._since = self._promoted = None
        self._published = {}
        self._try(self.lane.reset)

    # ---- the new lane ----------------------------------------------------------------

    @property
    def _processed(self) -> int:
        """Samples that the new lane has processed beside the present one."""
        here = 0 if self._since is None else self.lane.processed - self._since
        return self._ended + max(0, here)

    def _try(self, method: Callable[..., None], *arguments: object) -> None:
        """Call the new lane; if it fails, no lane of the swap takes over.

        Once they are promoted its failures are those of the lane.
        """
        try:
            method(*arguments)
        except Exception as error:
            if not self._cancel(f"failed: {type(error).__name__}: {error}"):
                raise

    def _cancel(self, reason: str) -> bool:
        return self._decision.cancel(f"lane '{self._name}': the new lane {reason}")

    def _process(self, part: Part) -> None:
        self._compare(self.lane.process_part(part))

    def _compare(self, steps: Iterable[Step]) -> None:
        """Note steps of the new lane; cancel the swap if a stage of it has failed."""
        for step in steps:
            if self.comparison is None:
                self._agreement.add_new(step.events)
            else:
                self._compare_sides("shadow", step)
            for event in step.events:
                if isinstance(event, Health) and self._has_errors():
                    self._cancel(f"failed: {event.stage}: {event.detail}")

    def _compare_sides(self, side: Side, step: Step) -> None:
        assert self.comparison is not None
        since = self._since or -1
        self._tell(self.comparison.add(side, step.events, step.at, since))

    def _tell(self, found: Iterable[tuple[Comparison, int]]) -> None:
        for comparison, at in found:
            self.tell(comparison, at)

    def _has_errors(self) -> bool:
        return any(stage.metrics.errors for stage in self.lane.stages)

    def _hand_over(self, report: dict[str, Any], *, at_end: bool) -> Step:
        """End the present lane; return its last events and the `Control` event."""
        old, new = self.present, self.lane
        if self._recorded is None:
            report |= {"agreement": self.agreement(), "since": self._since}
            report |= {"at_end": True} if at_end else {}
        events: list[Event] = []
        if not at_end:
            last = old.end_at_boundary()
            self.observe(last)
            events += last.events
        # A stage that was switched off is gone: its failure must not seem to last.
        for stage in old.stages:
            if stage.failed:
                events.append(Health(stage.name, "healthy", "another took its place"))
        new.continue_from(old, self._published)
        sample = new.processed
        return Step(sample, [*events, Control(sample, "swap", "", report)])


def _cut_at(part: Part, edges: Iterable[int]) -> Iterator[Part]:
    """Yield a part in pieces that begin at those edges, in order, that lie in it."""
    if not isinstance(part, Block):
        yield part
        return
    first, stop = part.start, part.start + len(part.samples)
    for edge in (*(edge for edge in edges if part.start < edge < stop), stop):
        samples = part.samples[first - part.start : edge - part.start]
        yield replace(part, start=first, samples=samples)
        first = edge


def _tell_nothing(comparison: Comparison, at: int) -> None:
    """Publish nothing."""
