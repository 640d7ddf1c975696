"""Channel: a lane, its shadow while a model swap runs, and its counters."""

import math
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

from neurovocal.engine.audio.signal_checks import SignalHealth
from neurovocal.engine.audio.timeline import TimeBase
from neurovocal.engine.contracts.stages import CommandedModel
from neurovocal.engine.contracts.types import Block, Message, StreamInfo
from neurovocal.engine.lane.lane import Lane, Part, Step
from neurovocal.engine.lane.shadow import ShadowLane
from neurovocal.engine.lane.stage import SupervisedStage
from neurovocal.engine.runtime.shadow.thread import ShadowThread
from neurovocal.engine.runtime.workers.lanes.running import Settings
from neurovocal.engine.runtime.workers.privacy import AudioGate, NoAudio

_NO_STREAM = StreamInfo("", 1)
ChannelPart: TypeAlias = "tuple[Channel, Part]"


@dataclass(slots=True, eq=False)
class Channel:
    """One channel of a source: its lane, its time and its counters.

    Attributes
    ----------
    lane : Lane
        The present lane.
    timebase : TimeBase
        UTC of the lane's samples.
    index : int
        Column of the source's blocks, from 0.
    shadow : ShadowLane, ShadowThread or None
        New lane that gets the same audio and may take the place of `lane`; in a thread
        of its own as long as it stays.
    recorded : deque of callable
        Makes the shadows that took over in this stream of a recorded run, in order.
    counts : Counter
        Published events by kind.
    omitted : int
        Near misses that were not published because there were too many.
    peak : float
        Largest absolute sample of the last block.
    lag_ms : float
        Time from the arrival of audio to the publication of its events.
    signal : SignalHealth or None
        Checks of the samples of a live source.
    source_info : StreamInfo
        The lane's stream at the source's rate.
    gate : AudioGate, NoAudio or None
        Decides about audio; None releases all of it. Until it is set, all is withheld.
    anchored : Message or None
        Message of the newest anchor.
    jumped_ns : int or None
        Monotonic time at which a jump of its time was last reported.
    is_uneven : bool
        That jump was reported, and not yet that it is over.
    """

    lane: Lane
    timebase: TimeBase
    index: int = 0
    shadow: ShadowLane | ShadowThread | None = None
    recorded: deque[Callable[[], ShadowLane]] = field(default_factory=deque)
    counts: Counter[str] = field(default_factory=Counter)
    omitted: int = 0
    peak: float = 0.0
    lag_ms: float = 0.0
    signal: SignalHealth | None = None
    source_info: StreamInfo = _NO_STREAM
    gate: AudioGate | NoAudio | None = field(default_factory=lambda: NoAudio(1))
    anchored: Message | None = None
    jumped_ns: int | None = None
    is_uneven: bool = False

    @property
    def level_db(self) -> float:
        """Peak level of the last block in dB of full scale."""
        return 20.0 * math.log10(self.peak) if self.peak > 0 else -math.inf

    @property
    def stages(self) -> list[SupervisedStage]:
        """Stages of the lane, and of a shadow in the same thread."""
        if not isinstance(self.shadow, ShadowLane):
            return self.lane.stages
        return [*self.lane.stages, *self.shadow.lane.stages]

    def begin(self, stream: str) -> None:
        """Begin another stream of the same kind at sample 0, with the same stages."""
        if self.shadow is not None:
            self.shadow.reset()
        self.lane.reset()
        self.lane.info = replace(self.lane.info, stream=stream)
        self.source_info = replace(self.source_info, stream=stream)
        self.timebase = TimeBase(self.lane.info.sample_rate)
        self.anchored = None

    def process(self, item: Part) -> Iterator[Step]:
        """Yield the steps of the lane that `item` completes; the shadow gets it, too.

        Raises
        ------
        StageError
            A stage of the lane failed whose policy is to fail.
        """
        lane = self.lane
        lane.interrupted = True
        # Both get the same samples: those of the present lane's resampler.
        for part in lane.resample(item):
            shadow = self._active_shadow()
            if shadow is None:
                yield from self.lane.process_part(part)
                continue
            if isinstance(shadow, ShadowThread):
                yield from self._process_before(shadow, part)
                continue
            for piece in shadow.cut(part):
                yield from self._process_piece(piece)
        self.lane.interrupted = False

    def flush(self) -> Iterator[Step]:
        """Yield the last steps of the stream; the shadow ends it, too."""
        shadow = self._active_shadow()
        if isinstance(shadow, ShadowThread):
            return self._flush_before(shadow)
        return self.lane.flush() if shadow is None else self._flush_both(shadow)

    def _process_before(self, shadow: ShadowThread, part: Part) -> Iterator[Step]:
        """Yield the steps of the lane, then hand over to the shadow's thread."""
        steps = []
        for step in self.lane.process_part(part):
            steps.append(step)
            yield step
        own = self._rejoined(shadow)
        if own is None:
            shadow.feed(part, steps, self.lane.info, self.timebase)
            return
        own.join(part)
        for step in steps:
            own.observe(step)
        own.follow(part)

    def _rejoined(self, thread: ShadowThread) -> ShadowLane | None:
        """Return the shadow if it left its thread for a promotion, else None.

        Commands are applied between the steps of a part: the thread may have been given
        up before it was fed the part.
        """
        own = self.shadow
        return own if isinstance(own, ShadowLane) and own is thread.shadow else None

    def _flush_before(self, shadow: ShadowThread) -> Iterator[Step]:
        for part in self.lane.flush_resampler():
            yield from self._process_before(shadow, part)
        steps = []
        for step in self.lane.end():
            steps.append(step)
            yield step
        own = self._rejoined(shadow)
        if own is None:
            shadow.end(steps)
            return
        for step in steps:
            own.observe(step)
        yield from self._replaced_by(own, own.end())

    def _process_piece(self, piece: Part) -> Iterator[Step]:
        shadow = self._active_shadow()
        if not isinstance(shadow, ShadowLane):  # it took over, or was cancelled
            yield from self.lane.process_part(piece)
            return
        yield from self._feed_both(shadow, piece)
        yield from self._replaced_by(shadow, shadow.take_over())

    def _flush_both(self, shadow: ShadowLane) -> Iterator[Step]:
        for part in self.lane.flush_resampler():
            yield from self._feed_both(shadow, part)
        for step in self.lane.end():
            shadow.observe(step)
            yield step
        yield from self._replaced_by(shadow, shadow.end())

    def _feed_both(self, shadow: ShadowLane, part: Part) -> Iterator[Step]:
        shadow.join(part)
        for step in self.lane.process_part(part):
            shadow.observe(step)
            yield step
        shadow.follow(part)

    def _replaced_by(self, shadow: ShadowLane, last: Step | None) -> Iterator[Step]:
        """Yield the last step of the lane, if `shadow` has replaced it."""
        if last is not None:
            self.lane = shadow.lane
            yield last
            shadow.done.set()
            self.shadow = None

    def _active_shadow(self) -> ShadowLane | ShadowThread | None:
        if self.shadow is not None and self.shadow.cancelled:
            self.shadow = None
        if self.shadow is None and self.recorded:
            self.shadow = self.recorded.popleft()()
        return self.shadow


def copy_settings(before: Lane, after: Lane) -> None:
    """Give the models of a new lane the options that commands have set before."""
    for old, new in zip(before.models, after.models, strict=False):
        if isinstance(old.stage, CommandedModel) and old.plugin == new.plugin:
            new.stage.apply("set", new.stage.prepare("set", old.stage.options))


def settings_of(lane: Lane) -> Settings:
    """Return the options of each model that commands may set, for another process."""
    found: list[tuple[str, dict[str, Any]]] = []
    for model in lane.models:
        values = {}
        if isinstance(model.stage, CommandedModel):
            options = model.stage.options.model_dump()
            values = {name: options[name] for name in model.stage.adjustable}
        found.append((model.plugin, values))
    return tuple(found)


def apply_settings(lane: Lane, settings: Settings) -> None:
    """Give the models of a lane the options that `settings_of` returned elsewhere."""
    for model, (plugin, values) in zip(lane.models, settings, strict=False):
        stage = model.stage
        if isinstance(stage, CommandedModel) and model.plugin == plugin:
            options = {**stage.options.model_dump(), **values}
            wanted = type(stage.options).model_validate(options)
            stage.apply("set", stage.prepare("set", wanted))


def split(item: Part, channels: Sequence[Channel]) -> Sequence[ChannelPart]:
    """Return each channel with its column of `item`, float32[n_samples, 1]."""
    if len(channels) == 1:
        return ((channels[0], item),)
    if not isinstance(item, Block):
        return [(channel, item) for channel in channels]
    return [
        (channel, Block(item.start, item.samples[:, i : i + 1], item.arrived_ns))
        for i, channel in enumerate(channels)
    ]
