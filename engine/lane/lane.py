"""Lane: the stages of one stream, samples in, events out.

No thread, clock, queue or I/O lives here: live use, replay, tests and the
benchmark run the very same object.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

from neurovocal.engine.audio.reblocker import Reblocker
from neurovocal.engine.audio.resampler import Resampler
from neurovocal.engine.contracts.errors import StageError
from neurovocal.engine.contracts.stages import StepEvents
from neurovocal.engine.contracts.types import (
    Anchor,
    Block,
    Event,
    Forecast,
    Frames,
    Gap,
    Label,
    Latent,
    Offset,
    Onset,
    Posteriors,
    StreamInfo,
    Suggestion,
    Surprise,
    Synthesis,
    Trace,
    Trigger,
)
from neurovocal.engine.lane.stage import SupervisedStage

Part: TypeAlias = Block | Gap | Anchor

# Kinds of events that consist of rows on the stream's frame grid.
FRAME_KINDS = (Frames, Posteriors, Trace, Surprise, Synthesis)
# Kinds of events that carry the number of a segment.
SEGMENT_KINDS = (Onset, Offset, Label, Forecast, Suggestion, Latent, Trigger)


@dataclass(frozen=True, slots=True)
class Step:
    """Events that became known together.

    ``at`` is the stream position (at the lane's rate) up to which audio had been
    processed; ``arrived_ns`` is when the last of it arrived (monotonic; 0 offline).
    """

    at: int
    events: list[Event]
    arrived_ns: int = 0


@dataclass(frozen=True, slots=True)
class Continuation:
    """How the events of a lane continue those of another lane in the same stream.

    Parameters
    ----------
    shift : int
        Added to the numbers of segments.
    first_segment : int
        Events of segments with lower numbers (before the shift) are dropped: the
        other lane has published those segments.
    published : mapping of type to int
        Stream position up to which the other lane has published rows of each of
        `FRAME_KINDS`; rows that begin before it are dropped.
    """

    shift: int
    first_segment: int = 0
    published: Mapping[type, int] = field(default_factory=dict)

    def apply(self, events: Iterable[Any]) -> list[Event]:
        """Return the events to publish, with the stream's segment numbers."""
        kept: list[Event] = []
        for event in events:
            if isinstance(event, FRAME_KINDS):
                first = event.first * event.hop_length
                if first < self.published.get(type(event), 0):
                    continue
            elif isinstance(event, SEGMENT_KINDS):
                if event.segment < self.first_segment:
                    continue
                event = replace(event, segment=event.segment + self.shift)
            kept.append(event)
        return kept


class Lane:
    """Stages of one channel.

    Audio is cut into quanta of ``tile`` hops on the stream's grid before any stage
    gets it. All results therefore depend on the audio and the tile alone, never on
    the blocks in which the audio came.

    Parameters
    ----------
    info : StreamInfo
        Stream at the lane's rate (after resampling), one channel.
    quantum : int
        Samples that are processed at a time: tile * hop_length.
    features : SupervisedStage, optional
        Absent when neither a model nor a sink needs frames.
    detector : SupervisedStage
        Its stage consumes samples, or the posteriors that a model emits.
    models : sequence of SupervisedStage
        Called in order; those that consume samples get blocks instead of frames.
    resampler : Resampler, optional
        Present when the source's rate is not the lane's.
    watchers : sequence of SupervisedStage
        Called at the end of each step with all of its events.
    wants_trace : bool
        A sink takes the values from which the detector decides, should it show them.

    Attributes
    ----------
    stages : list of SupervisedStage
        All stages, in the order in which they are called.
    position : int
        Samples of the stream, at the lane's rate, received or lost.
    processed : int
        Samples that the stages have processed: up to a quantum less than `position`,
        and always on the stream's grid of quanta, or at a gap. A command applied here
        takes effect at the same sample in every run, however the audio is cut.
    is_open : bool
        A segment has begun and not ended.
    interrupted : bool
        Parts of the last item have not been processed: they are dropped.
    reblocker : Reblocker
        Holds the samples of the unfinished quantum.
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
        *,
        wants_trace: bool = False,
    ) -> None:
        self.info = info
        self.quantum = quantum
        self.features = features
        self.detector = detector
        self.models = list(models)
        self._sample_models = [m for m in self.models if m.consumes_samples]
        self._frame_models = [m for m in self.models if not m.consumes_samples]
        self.watchers = list(watchers)
        self._followers = [m for m in self.models if m.follows]
        first = [features] if features else []
        self.stages = [*first, detector, *self.models, *self.watchers]
        self.position = self.processed = 0
        self.is_open = False
        self.interrupted = False
        self._detects_posteriors = detector.stage.consumes == "posteriors"
        self._resampler = resampler
        self.reblocker = Reblocker(quantum)
        self._continuation: Continuation | None = None
        # Numbers of the lane's own detector, before the continuation's shift.
        self._next_segment = self._onset = 0
        self._traces = wants_trace and detector.traces
        self._begin_trace()

    @property
    def is_plain(self) -> bool:
        """True if the detector gets samples and is not asked for its values."""
        return not (self._detects_posteriors or self._traces)

    @property
    def is_watched(self) -> bool:
        """True if a stage takes all events of each step."""
        return bool(self.watchers or self._followers)

    @property
    def is_resampled(self) -> bool:
        """True if the source's rate is not the lane's."""
        return self._resampler is not None

    @property
    def next_segment(self) -> int:
        """Number that the next segment of this stream will have."""
        shift = self._continuation.shift if self._continuation else 0
        return self._next_segment + shift

    # ---- a whole stream ------------------------------------------------------------

    def process(self, item: Part) -> Iterator[Step]:
        """Yield the steps that `item` completes.

        If the caller stops iterating part-way, the stream ends there: the rest of
        `item` is dropped, and only `flush` or `reset` may follow.

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
        if self._resampler is None:
            return self.process_part(item)
        return self._process_resampled(item)

    def flush(self) -> Iterator[Step]:
        """Yield the last steps of the stream: the rest of the audio, closed segments.

        Raises
        ------
        StageError
            A stage failed whose policy is to fail.
        """
        for part in self.flush_resampler():
            yield from self.process_part(part)
        yield from self.end()

    def reset(self) -> None:
        """Begin a new stream at sample 0."""
        self.reblocker.flush()  # drops the unfinished block of the stream before
        if self._resampler:
            self._resampler.reset()
        for stage in self.stages:
            stage.reset()
        self._begin_trace()
        self._continuation = None
        self.position = self.processed = self._next_segment = 0
        self.interrupted = self.is_open = False

    def advance(self, position: int) -> Step:
        """Return the events that models generate while no audio arrives.

        `self.position` does not change: audio, or a gap, that comes later begins
        where it would have begun anyway.

        Parameters
        ----------
        position : int
            Samples that the stream would have, had the source not stopped.
        """
        events: list[Event] = []
        for model in self.models:
            if model.advances:
                events += model.advance(position)
        if self._continuation is not None:
            events = self._continuation.apply(events)
        return Step(self.processed, events)

    # ---- in another lane's place -----------------------------------------------------

    def continue_from(self, old: "Lane", published: Mapping[type, int]) -> None:
        """Take the place of `old` in its stream, from the sample that both reached.

        Parameters
        ----------
        old : Lane
            Has ended at the same sample; its resampler delivers to this lane now.
        published : mapping of type to int
            Stream position up to which `old` has published rows of each of
            `FRAME_KINDS`.
        """
        self._resampler, self.interrupted = old._resampler, old.interrupted
        earlier = old._continuation.published if old._continuation else {}
        self._continuation = Continuation(
            old.next_segment - self._next_segment,
            self._next_segment,
            {**earlier, **published},
        )

    def number_from(self, segment: int) -> None:
        """Number the segments of this lane, which has none yet, from `segment` on."""
        self._continuation = Continuation(segment)

    def abandon(self, reason: str) -> Step:
        """End at `processed` because the front end or the detector has failed.

        An open segment is closed as truncated, and a gap with `reason` begins. No
        other method may be called afterwards.
        """
        events: list[Event] = []
        if self.is_open:
            last = self._next_segment - 1
            self.on_marks([Offset(last, self._onset, self.processed, True)], events)
        for model in self.models:
            events += model.flush()
        events.append(Gap(self.processed, self.processed, reason))
        return self.make_step(self.processed, events)

    # ---- the parts of a stream, for lanes that run side by side ----------------------

    def resample(self, item: Part) -> Iterable[Part]:
        """Return `item` at the lane's rate, to be processed part by part.

        Raises
        ------
        StageError
            The source left a hole that it did not declare.
        """
        if self._resampler is None:
            yield item
            return
        parts: Iterable[Any] = self._resampler.process(item)
        try:
            yield from parts
        except ValueError as error:
            raise StageError(f"{self.info.stream}: {error}") from error

    def flush_resampler(self) -> Iterable[Part]:
        """Return the samples that the resampler holds at the end of the stream."""
        # After an interruption the resampler is ahead of what was processed: its rest
        # does not follow, and nothing may be computed across the hole.
        if self._resampler is None or self.interrupted:
            return ()
        return self._resampler.flush()

    def process_part(self, part: Part) -> Iterator[Step]:
        """Yield the steps that a part at the lane's rate completes.

        Raises
        ------
        StageError
            As `process`.
        """
        if isinstance(part, Anchor):
            yield Step(self.position, [part])
            return
        if part.start != self.position:
            what = "block" if isinstance(part, Block) else "gap"
            raise StageError(
                f"{self.info.stream}: {what} starts at {part.start}, expected "
                f"{self.position}: a source must declare missing samples as a Gap"
            )
        before, self.interrupted = self.interrupted, True
        if isinstance(part, Block):
            for quantum in self.reblocker.push(part):
                yield self.process_quantum(quantum)
            self.position = part.start + len(part.samples)
        else:
            for rest in self.reblocker.flush():
                yield self.process_quantum(rest)
            yield self._process_gap(part)
        self.interrupted = before

    def end(self) -> Iterator[Step]:
        """Yield the last steps, after the rest of the resampler was processed."""
        rests = self.reblocker.flush()
        if not self.interrupted:
            for rest in rests:
                yield self.process_quantum(rest)
        yield self.make_step(self.position, self._close())

    def end_at_boundary(self) -> Step:
        """End at `processed`: another lane continues from that very sample."""
        self.reblocker.flush()  # the other lane has these samples, too
        return self.make_step(self.processed, self._close())

    # ---- stages ----------------------------------------------------------------------

    def _process_resampled(self, item: Part) -> Iterator[Step]:
        self.interrupted = True
        for part in self.resample(item):
            yield from self.process_part(part)
        self.interrupted = False

    def process_quantum(self, quantum: Block) -> Step:
        """Process a block of the stream's grid of quanta, and return its events.

        Raises
        ------
        StageError
            A stage failed whose policy is to fail.
        """
        events: list[Event] = []
        stop = quantum.start + len(quantum.samples)
        self.position = stop
        for model in self._sample_models:
            events += model.process(quantum)
        if self.features is not None:
            for frames in self.features.process(quantum):
                self._on_frames(frames, events)
        if not self._detects_posteriors:
            marks = self.detector.process(quantum)
            if marks:
                self.on_marks(marks, events)
        if self._traces:
            events += self.detector.trace()
        self.processed = stop
        if self.is_watched or self._continuation is not None:
            return self.make_step(stop, events, quantum.arrived_ns)
        return Step(stop, events, quantum.arrived_ns)

    def _process_gap(self, gap: Gap) -> Step:
        events: list[Event] = []
        if self.features is not None:
            for frames in self.features.process(gap):
                self._on_frames(frames, events)
        self.on_marks(self.detector.process(gap), events)
        if self._traces:
            events += self.detector.trace()
        for model in self.models:
            events += model.process(gap)
        events.append(gap)
        self.position = self.processed = gap.stop
        return self.make_step(gap.stop, events)

    def _close(self) -> list[Event]:
        """Return the events of all stages at the end of the stream."""
        events: list[Event] = []
        if self.features is not None:
            for frames in self.features.flush():
                self._on_frames(frames, events)
        self.on_marks(self.detector.flush(), events)
        if self._traces:
            events += self.detector.trace()
        for model in self.models:
            events += model.flush()
        return events

    def _on_frames(self, frames: Event, events: list[Event]) -> None:
        events.append(frames)
        if not isinstance(frames, Frames):
            return  # the Health event of a failed feature stage
        answers: list[Event] = []
        for model in self._frame_models:
            answers += model.process(frames)
        events += answers
        if self._detects_posteriors:
            for answer in answers:
                if isinstance(answer, Posteriors):
                    self.on_marks(self.detector.process(answer), events)

    def _begin_trace(self) -> None:
        if self._traces:
            self.detector.trace()

    def on_marks(self, marks: list[Event], events: list[Event]) -> None:
        """Add marks of the detector, each followed by the answers of the models."""
        for mark in marks:
            events.append(mark)
            if isinstance(mark, Onset):
                self.is_open = True
                self._next_segment, self._onset = mark.segment + 1, mark.sample
            elif isinstance(mark, Offset):
                self.is_open = False
            else:
                continue  # a near miss, or the Health event of a failed detector
            for model in self.models:
                events += model.process(mark)

    def make_step(self, at: int, events: list[Event], arrived_ns: int = 0) -> Step:
        """Return events of this lane as a step, with the answers to them."""
        if self._followers:
            known = StepEvents(self.info, at, tuple(events))
            for model in self._followers:
                events += model.follow(known)
        if self.watchers:
            known = StepEvents(self.info, at, tuple(events))
            for watcher in self.watchers:
                events += watcher.process(known)
        if self._continuation is not None:
            events = self._continuation.apply(events)
        return Step(at, events, arrived_ns)
