"""Lane set: the lanes of one source's channels, whose stages process together.

Most of what a lane costs is the same for one channel and for many: calls, checks, the
overhead of a network's session. A set calls each stage once for all channels
(`Batches`). What differs between channels (segments, labels, failures) is left to their
lanes, and is looked at only where something happens.
"""

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from time import perf_counter_ns
from typing import TypeAlias

from neurovocal.engine.contracts.batches import Batches, ChannelFrames, StageBatch
from neurovocal.engine.contracts.errors import StageError
from neurovocal.engine.contracts.types import KINDS, Block, Event
from neurovocal.engine.lane.lane import Lane, Step
from neurovocal.engine.lane.stage import SupervisedStage, is_users_interrupt

log = logging.getLogger("neurovocal")

# Quanta after which the figures of a batch are shared out among the stages.
_SHARE_QUANTA = 64
# Events of a channel, by its place in the set, or the failure that ended its lane.
ChannelStep: TypeAlias = "tuple[int, Step | StageError]"


class _Slot:
    """Stages in one place of all lanes, with their batch if they have one."""

    def __init__(self, stages: Sequence[SupervisedStage]) -> None:
        self.stages = stages
        self.batch: StageBatch | None = None
        self.is_published = False  # somebody takes its rows
        self.busy_ns = self.n_items = self.n_events = 0

    @property
    def can_batch(self) -> bool:
        first = self.stages[0].stage
        return isinstance(first, Batches) and all(
            type(each.stage) is type(first) for each in self.stages
        )

    def join(self) -> bool:
        """Make the batch; return False if the stages are not in the same state."""
        if not self.can_batch:
            return True
        stages = [each.stage for each in self.stages]
        self.batch = stages[0].batch(stages)
        return self.batch is not None

    def compute(self, item: object) -> ChannelFrames | None:
        """Let the batch compute, timed and watched as a call of the first stage."""
        assert self.batch is not None
        calls, start = self.stages[0].calls, perf_counter_ns()
        calls.entered += 1
        try:
            return self.batch.compute(item)
        finally:
            calls.returned += 1
            self.busy_ns += perf_counter_ns() - start
            self.n_items += 1

    def share(self) -> None:
        """Add an equal share of the batch's figures to each stage's."""
        busy_ns = self.busy_ns // len(self.stages)
        for each in self.stages:
            each.metrics.items += self.n_items
            each.metrics.events += self.n_events
            each.metrics.busy_ns += busy_ns
        self.busy_ns = self.n_items = self.n_events = 0


class LaneSet:
    """Lanes of several channels that process together, from one block to the next.

    While they are joined only the set calls them; `release` makes each a lane again
    that can be used by itself. They have the same events as by themselves.

    Parameters
    ----------
    lanes : sequence of Lane
        As `join` accepts them.
    slots : sequence of _Slot
        Front end (if any), detector and models, joined.
    wants : callable
        ``wants(kind)`` tells whether anybody takes this kind of event: rows that nobody
        takes are not published.

    Attributes
    ----------
    lanes : list of Lane
        In the order of the columns of a block.
    is_released : bool
        The lanes are by themselves again.
    failed : bool
        A batch could not compute: its stages are to be called one by one.
    """

    def __init__(
        self,
        lanes: Sequence[Lane],
        features: "_Slot | None",
        detector: _Slot,
        models: "Sequence[_Slot]",
        wants: Callable[[str], bool],
    ) -> None:
        self.lanes = list(lanes)
        self.is_released = self.failed = False
        self._features, self._detector, self._models = features, detector, models
        slots = [features, detector, *models] if features else [detector, *models]
        self._batched = [slot for slot in slots if slot.batch is not None]
        watched = any(lane.is_watched for lane in lanes)
        for slot in self._batched:
            assert slot.batch is not None
            rows = slot.batch.rows_type
            slot.is_published = rows is not None and (watched or wants(KINDS[rows]))
        # Channels in which something is to be done at each quantum: all, or those that
        # a batch names.
        self._visits_all = watched or any(
            slot.is_published or slot.batch is None for slot in slots
        )
        self._reblocker = lanes[0].reblocker.joined([x.reblocker for x in lanes])
        self._position = lanes[0].position
        self._left_out: set[int] = set()  # lanes that have failed
        self._unpublished: Counter[str] = Counter()
        self._quanta = 0

    @classmethod
    def can_join(cls, lanes: Sequence[Lane]) -> bool:
        """Return whether these lanes, of one source, can ever process together."""
        if len(lanes) < 2:
            return False
        if not all(lane.is_plain for lane in lanes):
            return False
        features, detector, models = _slots(lanes)
        if features is not None and not features.can_batch:
            return False
        slots = [detector, *models] if features is None else [features]
        return any(slot.can_batch for slot in slots)

    @classmethod
    def prepare(cls, lanes: Sequence[Lane]) -> None:
        """Load the code that new lanes will need to process together."""
        if cls.can_join(lanes):
            features, detector, models = _slots(lanes)
            for slot in [features, detector, *models]:
                if slot is not None and slot.join() and slot.batch is not None:
                    slot.batch.release()

    @classmethod
    def join(
        cls, lanes: Sequence[Lane], wants: Callable[[str], bool]
    ) -> "LaneSet | None":
        """Join lanes for which `can_join` holds; None: they are not in one state yet.

        Parameters
        ----------
        lanes : sequence of Lane
            Of all columns of the blocks that follow.
        wants : callable
            As the parameter of the class.
        """
        first = lanes[0]
        if any(
            (lane.position, lane.processed) != (first.position, first.processed)
            or not lane.reblocker.is_like(first.reblocker)
            for lane in lanes
        ):
            return None
        features, detector, models = _slots(lanes)
        slots = [features, detector, *models] if features else [detector, *models]
        for number, slot in enumerate(slots):
            if not slot.join():
                for joined in slots[:number]:
                    if joined.batch is not None:
                        joined.batch.release()
                return None
        return cls(lanes, features, detector, models, wants)

    def process(self, block: Block) -> Iterator[list[ChannelStep]]:
        """Yield the steps of all channels in which something happened, per quantum.

        A channel whose lane has failed has its StageError instead of a step and is left
        out from then on. The set may be released between two quanta.

        Parameters
        ----------
        block : Block
            At the lanes' rate, float32[n_samples, n_lanes].

        Raises
        ------
        StageError
            The source left a hole that it did not declare.
        """
        if block.start != self._position:
            raise StageError(
                f"{self.lanes[0].info.stream}: block starts at {block.start}, expected "
                f"{self._position}: a source must declare missing samples as a Gap"
            )
        quanta = self._reblocker.push(block)
        self._position = block.stop
        left_out = self._left_out
        try:
            for quantum in quanta:
                if self.is_released:
                    steps = list(self._one_by_one(quantum))
                else:
                    steps = self._together(quantum)
                yield steps
        except BaseException:
            for lane in self.lanes:
                lane.interrupted = True
            raise
        for index, lane in enumerate(self.lanes):
            if index not in left_out:
                lane.position = block.stop

    def release(self) -> None:
        """Make each lane one that can be used by itself."""
        if self.is_released:
            return
        self.is_released = True
        self._share()
        for slot in self._batched:
            assert slot.batch is not None
            slot.batch.release()
        self._reblocker.divide([lane.reblocker for lane in self.lanes])

    def take_unpublished(self) -> Counter[str]:
        """Return how many events of each kind were not published in each channel."""
        taken, self._unpublished = self._unpublished, Counter()
        return taken

    # ---- one quantum -----------------------------------------------------------------

    def _together(self, quantum: Block) -> list[ChannelStep]:
        try:
            frames = self._compute(quantum)
        except BaseException as error:
            if is_users_interrupt(error):
                raise
            log.debug("channels are processed one by one: %r", error, exc_info=error)
            self.failed = True
            self.release()
            return list(self._one_by_one(quantum))
        for slot in self._batched:
            assert slot.batch is not None
            if frames is not None or slot not in self._models:
                slot.batch.commit()
        steps = self._answer(quantum, frames)
        stop = quantum.stop
        for index, lane in enumerate(self.lanes):
            lane.position = stop
            if index not in self._left_out:
                lane.processed = stop
        self._quanta += 1
        if self._quanta % _SHARE_QUANTA == 0:
            self._share()
        return steps

    def _compute(self, quantum: Block) -> ChannelFrames | None:
        """Let all batches compute; none of them changes its state."""
        frames = None
        if self._features is not None:
            frames = self._features.compute(quantum)
        if frames is not None:
            for slot in self._models:
                if slot.batch is not None:
                    slot.compute(frames)
        if self._detector.batch is not None:
            self._detector.compute(quantum)
        return frames

    def _answer(
        self, quantum: Block, frames: ChannelFrames | None
    ) -> list[ChannelStep]:
        """Return the steps of the channels in which something happened."""
        row_slots = [] if frames is None else [self._features, *self._models]
        for slot in row_slots:
            if slot is not None and slot.batch is not None:
                slot.n_events += slot.batch.rows_type is not None
                if slot.batch.rows_type is not None and not slot.is_published:
                    self._unpublished[KINDS[slot.batch.rows_type]] += 1
        active = {
            id(slot): frozenset(slot.batch.active())
            for slot in self._batched
            if slot.batch is not None
        }
        visited: Iterable[int] = range(len(self.lanes))
        if not self._visits_all:
            visited = sorted(frozenset().union(*active.values()))
        steps: list[ChannelStep] = []
        for index in visited:
            try:
                step = self._step_of(index, quantum, frames, active)
            except StageError as error:
                self.release()
                self._left_out.add(index)
                steps.append((index, error))
                continue
            if step is not None:
                steps.append((index, step))
        return steps

    def _step_of(
        self,
        index: int,
        quantum: Block,
        frames: ChannelFrames | None,
        active: dict[int, frozenset[int]],
    ) -> Step | None:
        """Return the events of one channel, None if there are none.

        Raises
        ------
        StageError
            A stage failed whose policy is to fail.
        """
        lane = self.lanes[index]
        events: list[Event] = []
        for model in self._models:
            stage = model.stages[index]
            if stage.consumes_samples:
                events += stage.process(_column(quantum, index))
        if frames is not None:
            slot = self._features
            assert slot is not None
            assert slot.batch is not None
            if slot.is_published:
                events.append(slot.batch.rows(index))
            for slot in self._models:
                if slot.stages[index].consumes_samples:
                    continue
                if slot.batch is None:
                    events += slot.stages[index].process(frames.of(index))
                    continue
                if slot.is_published:
                    events.append(slot.batch.rows(index))
                if index in active[id(slot)]:
                    events += self._answers(slot, index)
        slot = self._detector
        marks: list[Event] = []
        if slot.batch is None:
            marks = slot.stages[index].process(_column(quantum, index))
        elif index in active[id(slot)]:
            marks = self._answers(slot, index)
        if marks:
            lane.on_marks(marks, events)
        if not events and not lane.is_watched:
            return None
        return lane.make_step(quantum.stop, events, quantum.arrived_ns)

    def _answers(self, slot: _Slot, index: int) -> list[Event]:
        """Return a channel's further events; its stage contains their failure."""
        batch, stage = slot.batch, slot.stages[index]
        assert batch is not None

        def answers() -> Iterable[Event]:
            try:
                return list(batch.answers(index))
            except BaseException:
                self.release()  # a stage that restarts must not get the state again
                raise

        stage.metrics.items -= 1  # counted with the others of the batch
        return stage.call(answers)

    def _one_by_one(self, quantum: Block) -> Iterator[ChannelStep]:
        """Yield the steps of lanes that are by themselves."""
        for index, lane in enumerate(self.lanes):
            if index in self._left_out:
                continue
            try:
                yield index, lane.process_quantum(_column(quantum, index))
            except StageError as error:
                self._left_out.add(index)
                yield index, error

    def _share(self) -> None:
        for slot in self._batched:
            slot.share()


def _slots(lanes: Sequence[Lane]) -> tuple[_Slot | None, _Slot, list[_Slot]]:
    """Return the front ends (if any), detectors and models of lanes."""
    fronts = [lane.features for lane in lanes if lane.features is not None]
    models = zip(*(lane.models for lane in lanes), strict=True)
    return (
        _Slot(fronts) if fronts else None,
        _Slot([lane.detector for lane in lanes]),
        [_Slot(stages) for stages in models],
    )


def _column(quantum: Block, index: int) -> Block:
    samples = quantum.samples[:, index : index + 1]
    return Block(quantum.start, samples, quantum.arrived_ns)
