"""The pure core: one stream's stages, samples in, events out.

No thread, clock, queue or I/O lives here: live use, replay, tests and the
benchmark run the very same object.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from neurovocal.engine.audio.reblocker import Reblocker
from neurovocal.engine.audio.resampler import Resampler
from neurovocal.engine.contracts.errors import StageError
from neurovocal.engine.contracts.stages import StepEvents
from neurovocal.engine.contracts.types import (
    Anchor,
    Block,
    Event,
    Frames,
    Gap,
    Offset,
    Onset,
    Posteriors,
    StreamInfo,
)
from neurovocal.engine.lane.stage import SupervisedStage


@dataclass(frozen=True, slots=True)
class Step:
    """Events that became known together.

    ``at`` is the stream position (at the lane's rate) up to which audio had been
    heard; ``arrived_ns`` is when the last of it arrived (monotonic; 0 offline).
    """

    at: int
    events: list[Event]
    arrived_ns: int = 0


class Lane:
    """One channel's stages.

    Audio is cut anew into quanta of ``tile`` hops on the stream's grid before
    any stage sees it. All that follows therefore depends on the audio and the
    tile alone, never on the blocks in which the audio came.

    Parameters
    ----------
    info : StreamInfo
        The stream at the lane's rate (after resampling), one channel.
    quantum : int
        Samples that are processed at a time: tile * hop_length.
    features : StageShell, optional
        Absent when nobody wants frames.
    detector : StageShell
        Its stage consumes samples, or the posteriors that a model emits.
    models : sequence of StageShell
        Asked in order.
    resampler : Resampler, optional
        Present when the source's rate is not the lane's.
    watchers : sequence of StageShell
        Asked at the end of each step about all of its events.
    """

    def __init__(
        self,
        info: StreamInfo,
        quantum: int,
        features: SupervisedStage | None,
        detector: SupervisedStage,
        models: Sequence[SupervisedStage] = (),
        resampler: Resampler | None = None,
        watchers: Sequence[SupervisedStage] = (),
    ) -> None:
        self.info = info
        self.features = features
        self.detector = detector
        self.models = list(models)
        self.watchers = list(watchers)
        self._hears_posteriors = detector.stage.consumes == "posteriors"
        self._resampler = resampler
        self.quantum = quantum
        self._recutter = Reblocker(quantum)
        self._position = self._heard = 0
        self._interrupted = False
        self._next_segment = self._shift = self._onset = 0
        self._open = False

    @property
    def next_segment(self) -> int:
        """Number that the next segment of this stream will have."""
        return self._next_segment

    @property
    def is_open(self) -> bool:
        """Whether a segment has begun and not ended."""
        return self._open

    @property
    def shadowed(self) -> list[SupervisedStage]:
        """Stages of another lane that hears the same for the time being."""
        return []

    @property
    def stages(self) -> list[SupervisedStage]:
        """All stages in order."""
        first = [self.features] if self.features else []
        return [*first, self.detector, *self.models, *self.watchers]

    @property
    def position(self) -> int:
        """Samples of the stream, at the lane's rate, that were heard or lost."""
        return self._position

    @property
    def heard(self) -> int:
        """Samples that the stages have heard: what starts here is still to come.

        Up to a quantum less than `position`, and always on the stream's grid of
        quanta, or at a gap: what happens here happens at the same sample in
        every run, however the audio is cut.
        """
        return self._heard

    def process(self, item: Block | Gap | Anchor) -> Iterator[Step]:
        """Steps that `item` completes.

        Who stops taking them part-way ends the stream there: what is left of
        `item` counts as not heard, and only `flush` or `reset` may follow.

        Parameters
        ----------
        item : Block, Gap or Anchor
            At the source's rate; blocks have one channel.

        Raises
        ------
        StageError
            A stage failed whose policy is to fail, or the source left a hole
            that it did not declare.
        """
        for part in self.parts(item):
            yield from self.take(part)
        self.settle()

    def parts(self, item: Block | Gap | Anchor) -> Iterator[Any]:
        """What `item` is at the lane's rate: `take` each, then `settle`."""
        self._interrupted = True
        yield from self._resampled(item)

    def settle(self) -> None:
        """All that the last item was has been taken."""
        self._interrupted = False

    def succeed(self, old: "Lane") -> None:
        """Go on from `old` in its stream: what its resampler holds comes next."""
        self._resampler, self._interrupted = old._resampler, old._interrupted

    def number_from(self, segment: int) -> None:
        """Give the next segments these numbers, after those of a lane before."""
        self._next_segment = self._shift = segment

    def abandon(self, reason: str) -> Step:
        """End at `heard` although the front end or the detector has failed.

        An open segment ends there; nothing else of the lane may be called any more.
        """
        events: list[Event] = []
        if self._open:
            last = self._next_segment - 1
            self._tell(Offset(last, self._onset, self._heard, True), events)
        for model in self.models:
            events += model.flush()
        events.append(Gap(self._heard, self._heard, reason))
        return self._step(self._heard, events)

    def advance(self, position: int) -> Step:
        """Let time pass without audio: what models bring forth by themselves.

        The stream stands still: audio, or a gap, that comes later begins where
        it would have begun anyway.

        Parameters
        ----------
        position : int
            Samples that the stream would have, had the source not stopped.
        """
        events: list[Event] = []
        for model in self.models:
            if model.sings:
                events += model.advance(position)
        return Step(self._heard, events)

    def flush(self) -> Iterator[Step]:
        """End of the stream: the rest is heard, open segments are closed."""
        for part in self.rest():
            yield from self.take(part)
        yield from self.end()

    def rest(self) -> Iterator[Any]:
        """What the resampler still holds at the end of the stream."""
        # After an interruption the resampler is ahead of what was heard: its rest
        # does not follow, and nothing may be computed across the hole.
        if self._resampler and not self._interrupted:
            yield from self._resampler.flush()

    def end(self) -> Iterator[Step]:
        """End of the stream, once its `rest` was taken."""
        yield from self._finish_quantum()
        yield self._step(self._position, self._close())

    def leave(self) -> Iterator[Step]:
        """End at `heard`: another lane goes on from that very sample."""
        for _ in self._recutter.flush():
            pass  # the other lane has it, too
        yield self._step(self._heard, self._close())

    def _close(self) -> list[Event]:
        events: list[Event] = []
        if self.features:
            for frames in self.features.flush():
                self._hear_frames(frames, events)
        self._take_marks(self.detector.flush(), events)
        for model in self.models:
            events += model.flush()
        return events

    def reset(self) -> None:
        """Begin a new stream at sample 0."""
        for _ in self._recutter.flush():
            pass  # what the stream before left unfinished
        if self._resampler:
            self._resampler.reset()
        for stage in self.stages:
            stage.reset()
        self._position = self._heard = self._next_segment = self._shift = 0
        self._interrupted = self._open = False

    def _resampled(self, item: Block | Gap | Anchor) -> Iterator[Any]:
        if self._resampler is None:
            yield item
            return
        try:
            yield from self._resampler.process(item)
        except ValueError as error:
            raise StageError(f"{self.info.stream}: {error}") from error

    def take(self, part: Block | Gap | Anchor) -> Iterator[Step]:
        """Steps that a part at the lane's rate completes."""
        if isinstance(part, Anchor):
            yield Step(self._position, [part])
            return
        if part.start != self._position:
            what = "block" if isinstance(part, Block) else "gap"
            raise StageError(
                f"{self.info.stream}: {what} starts at {part.start}, expected "
                f"{self._position}: a source must declare missing samples as a Gap"
            )
        if isinstance(part, Gap):
            yield from self._finish_quantum()
            yield self._break(part)
            return
        for quantum in self._recutter.push(part):
            self._position = quantum.stop
            yield self._hear(quantum)
        self._position = part.stop

    def _finish_quantum(self) -> Iterator[Step]:
        for rest in self._recutter.flush():
            yield self._hear(rest)

    def _hear(self, quantum: Block) -> Step:
        events: list[Event] = []
        if self.features:
            for frames in self.features.process(quantum):
                self._hear_frames(frames, events)
        if not self._hears_posteriors:
            self._take_marks(self.detector.process(quantum), events)
        self._heard = quantum.stop
        return self._step(quantum.stop, events, quantum.arrived_ns)

    def _hear_frames(self, frames: Event, events: list[Event]) -> None:
        events.append(frames)
        if not isinstance(frames, Frames):
            return  # the Health event of a failed feature stage
        answers: list[Event] = []
        for model in self.models:
            answers += model.process(frames)
        events += answers
        if self._hears_posteriors:
            for answer in answers:
                if isinstance(answer, Posteriors):
                    self._take_marks(self.detector.process(answer), events)

    def _take_marks(self, marks: list[Event], events: list[Event]) -> None:
        for mark in marks:
            if isinstance(mark, Onset | Offset):
                if self._shift:
                    mark = replace(mark, segment=mark.segment + self._shift)
                self._tell(mark, events)
            else:
                events.append(mark)

    def _tell(self, mark: Onset | Offset, events: list[Event]) -> None:
        """Let the models answer to a segment's beginning or end."""
        events.append(mark)
        self._open = isinstance(mark, Onset)
        if isinstance(mark, Onset):
            self._next_segment, self._onset = mark.segment + 1, mark.sample
        for model in self.models:
            events += model.process(mark)

    def _break(self, gap: Gap) -> Step:
        events: list[Event] = []
        if self.features:
            for frames in self.features.process(gap):
                self._hear_frames(frames, events)
        self._take_marks(self.detector.process(gap), events)
        for model in self.models:
            events += model.process(gap)
        events.append(gap)
        self._position = self._heard = gap.stop
        return self._step(gap.stop, events)

    def _step(self, at: int, events: list[Event], arrived_ns: int = 0) -> Step:
        if self.watchers:
            known = StepEvents(self.info, at, tuple(events))
            for watcher in self.watchers:
                events += watcher.process(known)
        return Step(at, events, arrived_ns)
