"""Sources with a fault: one class per effect, each wrapping another source.

Blocks are cut at the samples where a fault starts and ends, so that the result depends
on the audio alone and not on the blocks in which it came.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Any, Generic, TypeAlias, TypeVar

import numpy as np

from neurovocal.engine.audio.resampler import Resampler, scaled
from neurovocal.engine.config.faults import (
    Clip,
    Crash,
    Drift,
    Drop,
    FaultBase,
    Hang,
    Jitter,
    LastingFault,
    Stall,
    Unplug,
    WrongRate,
)
from neurovocal.engine.contracts.clock import NS, Clock
from neurovocal.engine.contracts.errors import DeviceError, Disconnected, EndOfStream
from neurovocal.engine.contracts.stages import CaptureTimed, Source, SourceItem
from neurovocal.engine.contracts.types import Anchor, Block, Gap, Health, StreamInfo
from neurovocal.engine.faults.injection import (
    InjectedError,
    health_at_end,
    health_at_start,
)
from neurovocal.engine.faults.wrapper import Wrapper, wait

FaultT = TypeVar("FaultT", bound=FaultBase)
# Items with a place in the stream; the other ones pass a fault as they are.
Placed: TypeAlias = Block | Gap | Anchor
_MILLION = 1_000_000


class FaultySource(Wrapper, Generic[FaultT]):
    """Passes on the items of a source; subclasses change those within the fault.

    Parameters
    ----------
    source : Source
        The source that gets the fault.
    fault : AnyFault
        When it starts, how long it lasts, and its options.
    clock : Clock
        Measures times in which no sample comes.
    options : Options, optional
        Options of the source's plugin.
    """

    _ends_by_samples = True
    _not_forwarded = frozenset({"captured_ns"})

    def __init__(
        self, source: Source, fault: FaultT, clock: Clock, options: object = None
    ) -> None:
        super().__init__(source)
        self._fault = fault
        self._clock = clock
        self._options = options
        # Start and end of the fault that are still to come, in ns of audio since the
        # run began, over all streams and openings.
        self._edges_ns = [round(fault.at_s * NS)]
        if self._ends_by_samples and isinstance(fault, LastingFault):
            self._edges_ns.append(self._edges_ns[0] + round(fault.for_s * NS))
        self._before_ns = 0  # audio of earlier streams and openings, and outages
        self._last_item_ns = 0  # time of the source's last item
        self._rate = 0
        self._position = 0  # samples of this stream that the source has delivered
        self._active = False
        self._ready: deque[SourceItem | Callable[[], None]] = deque()
        self._end: Exception | None = None
        if isinstance(source, CaptureTimed):
            self.captured_ns = self._captured_ns

    def open(self) -> None:
        """Open the source; its samples count from 0 again."""
        self._ready.clear()
        self._end = None
        self._wrapped.open()
        if self._wrapped.live and self._last_item_ns:  # outages belong to the stream
            self._before_ns += self._clock.monotonic_ns() - self._last_item_ns
        try:
            self._begin_stream(self._wrapped.info)
        except RuntimeError:  # the first item will be a StreamInfo
            self._rate = 0

    def read(self, timeout: float) -> SourceItem | None:
        """Return the next item after the fault's effect, None after `timeout` s."""
        if not self._ready:
            if self._end is not None:
                raise self._end
            try:
                item = self._wrapped.read(timeout)
            except (EndOfStream, Disconnected) as error:
                self._end = error
                self._flush_pending()
            else:
                self._push(item)
        if not self._ready:
            if self._end is not None:
                raise self._end
            return None
        ready = self._ready.popleft()
        if callable(ready):
            ready()
            return None
        return ready

    # ---- the fault's effect, in subclasses -------------------------------------------

    def _start_fault(self) -> None:
        """Start the fault before the next sample."""
        self._ready.append(health_at_start(self._fault))

    def _alter(self, part: Block) -> None:
        """Handle samples within the fault; without a subclass they are lost."""

    def _end_fault(self) -> None:
        """End the fault after the last sample."""
        self._ready.append(health_at_end(self._fault))

    def _flush_pending(self) -> None:
        """Deliver items that are held back, at the end of the stream."""

    def _deliver_unchanged(self, item: Gap | Anchor) -> None:
        """Deliver a gap or an anchor, whether the fault is active or not."""
        self._ready.append(self._shifted(item))

    def _shifted(self, item: Placed) -> Placed:
        """Return an item at its place in the delivered stream."""
        return item

    def _captured_ns(self, sample: int) -> int | None:
        """Return `CaptureTimed.captured_ns` of a sample of the delivered stream."""
        captured_ns: int | None = self._wrapped.captured_ns(sample)
        return captured_ns

    # ---- position in the audio -------------------------------------------------------

    def _begin_stream(self, info: StreamInfo) -> None:
        if self._rate:
            self._before_ns += self._position * NS // self._rate
        self._rate, self._position = info.sample_rate, 0

    def _push(self, item: SourceItem | None) -> None:
        if item is None:
            return
        self._last_item_ns = self._clock.monotonic_ns()
        match item:
            case StreamInfo():
                self._flush_pending()
                self._begin_stream(item)
                self._ready.append(item)
            case Block():
                self._on_block(item)
            case Gap():
                self._position += item.stop - item.start
                self._deliver_unchanged(item)
            case Anchor():
                self._deliver_unchanged(item)
            case Health():
                self._ready.append(item)

    def _on_block(self, block: Block) -> None:
        samples, start = block.samples, block.start
        while len(samples):
            if (count := self._to_next_edge(len(samples))) == 0:
                continue  # the fault started or ended
            part = Block(start, samples[:count], block.arrived_ns)
            self._position += len(part.samples)
            if self._active:
                self._alter(part)
            else:
                self._ready.append(self._shifted(part))
            samples, start = samples[count:], part.stop

    def _to_next_edge(self, most: int) -> int:
        """Return the samples up to the fault's next edge, at most `most`.

        0 if an edge was reached: then the fault has been started or ended.
        """
        if not self._edges_ns:
            return most
        edge_ns = self._edges_ns[0] - self._before_ns
        left = -(-edge_ns * self._rate // NS) - self._position
        if left > 0:
            return min(left, most)
        del self._edges_ns[0]
        self._active = not self._active
        if self._active:
            self._start_fault()
        else:
            self._end_fault()
        return 0


class ClippedSource(FaultySource[Clip]):
    """Source with an overdriven input: louder samples are cut off at full scale."""

    def _alter(self, part: Block) -> None:
        level = np.float32(self._fault.level)
        samples = np.clip(part.samples, -level, level) / level
        self._ready.append(replace(part, samples=samples))


class JitterySource(FaultySource[Jitter]):
    """Source that holds blocks for a random time and delivers them in a burst."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._random = Random(self._fault.seed)
        self._held: list[Placed] = []
        self._due_ns = 0

    def open(self) -> None:
        """Open the source and drop blocks held from an earlier opening."""
        self._held = []
        super().open()

    def read(self, timeout: float) -> SourceItem | None:
        """Return the next item that is due, None after `timeout` s."""
        if self._held and not self._ready:
            left_s = (self._due_ns - self._clock.monotonic_ns()) / NS
            if left_s <= 0:
                self._flush_pending()
            else:
                timeout = min(timeout, left_s)
        return super().read(timeout)

    def _alter(self, part: Block) -> None:
        if not self._held:
            late_ns = round(self._random.uniform(0, self._fault.ms) * 1e6)
            self._due_ns = self._clock.monotonic_ns() + late_ns
        self._held.append(part)

    def _deliver_unchanged(self, item: Gap | Anchor) -> None:
        (self._held if self._held else self._ready).append(item)

    def _end_fault(self) -> None:
        self._flush_pending()
        super()._end_fault()

    def _flush_pending(self) -> None:
        now = self._clock.monotonic_ns()
        for item in self._held:
            if isinstance(item, Block) and item.arrived_ns:
                item = replace(item, arrived_ns=now)
            self._ready.append(item)
        self._held = []


class FailingSource(FaultySource[Crash | Hang]):
    """Source with reads that raise, or with one that does not return for a while."""

    _ends_by_samples = False

    def _start_fault(self) -> None:
        super()._start_fault()
        self._active = False
        if isinstance(self._fault, Crash):
            self._ready.extend([self._crash] * self._fault.times)
        else:
            self._ready += [self._hang, health_at_end(self._fault)]

    def _crash(self) -> None:
        raise InjectedError(f"injected: {self._fault.as_text}")

    def _hang(self) -> None:
        assert isinstance(self._fault, Hang), "a crash does not last"
        wait(self._clock, self._fault.for_s)


class SilencedSource(FaultySource[Drop | Stall]):
    """Source that loses samples and reports them as one gap afterwards."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._lost_from: int | None = None

    def open(self) -> None:
        """Open the source; samples lost before it belong to the outage."""
        self._lost_from = None
        super().open()

    def _alter(self, part: Block) -> None:
        if self._lost_from is None:
            self._lost_from = part.start

    def _deliver_unchanged(self, item: Gap | Anchor) -> None:
        if self._lost_from is None:
            super()._deliver_unchanged(item)

    def _end_fault(self) -> None:
        self._flush_pending()
        super()._end_fault()

    def _flush_pending(self) -> None:
        if self._lost_from is not None:
            reason = f"injected: {self._fault.name}"
            gap = Gap(self._lost_from, self._position, reason)
            self._ready.append(self._shifted(gap))
        self._lost_from = None


class StalledSource(SilencedSource):
    """Source that delivers nothing for a while and does not say why.

    A source with a timeout for that (`stall_timeout_s`) disconnects here, too. It can
    then be opened again, and delivers nothing until the fault is over.
    """

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._timeout_s: float | None = getattr(self._options, "stall_timeout_s", None)
        self._silent = 0  # samples withheld since the fault's start or the last `open`
        self._over_ns = 0
        self._timed_out = False  # from then on the clock says when the fault is over
        self._skipped = 0  # samples of this opening before the first one delivered

    def open(self) -> None:
        """Open the source; while the fault lasts it delivers nothing."""
        self._silent = self._skipped = 0
        super().open()

    def _captured_ns(self, sample: int) -> int | None:
        return super()._captured_ns(sample + self._skipped)

    def _shifted(self, item: Placed) -> Placed:
        return shifted(item, -self._skipped) if self._skipped else item

    def _start_fault(self) -> None:
        super()._start_fault()
        assert isinstance(self._fault, Stall), "only a stall ends by the clock"
        self._over_ns = self._clock.monotonic_ns() + round(self._fault.for_s * NS)

    def _alter(self, part: Block) -> None:
        super()._alter(part)
        self._count_silence(len(part.samples))

    def _push(self, item: SourceItem | None) -> None:
        if self._timed_out and isinstance(item, Block | Gap | Anchor):
            if self._clock.monotonic_ns() < self._over_ns:
                self._skip(item)
                return
            self._timed_out = self._active = False
            self._end_fault()
        super()._push(item)

    def _skip(self, item: Placed) -> None:
        if not isinstance(item, Anchor):
            self._position += item.stop - item.start
            self._skipped = item.stop
            self._count_silence(item.stop - item.start)

    def _count_silence(self, n_samples: int) -> None:
        """Disconnect once the silence is as long as the source's timeout."""
        self._silent += n_samples
        if self._timeout_s is None or self._silent < self._timeout_s * self._rate:
            return
        self._lost_from, self._edges_ns, self._timed_out = None, [], True
        text = f"injected: {self._fault.as_text}: nothing for {self._timeout_s:g} s"
        self._end = Disconnected(text)


class UnpluggedSource(FaultySource[Unplug]):
    """Source of a missing device, which cannot be opened before the fault is over."""

    _ends_by_samples = False

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._available_ns: int | None = None

    def open(self) -> None:
        """Open the source.

        Raises
        ------
        DeviceError
            The fault still lasts.
        """
        if self._available_ns is not None:
            left_s = (self._available_ns - self._clock.monotonic_ns()) / NS
            if left_s > 0:
                raise DeviceError(
                    f"injected: {self._fault.as_text}: back in {left_s:.1f} s"
                )
        super().open()
        if self._available_ns is not None:
            self._available_ns, self._active = None, False
            self._ready.append(health_at_end(self._fault))

    def _start_fault(self) -> None:
        super()._start_fault()
        self._ready.append(self._disconnect)

    def _disconnect(self) -> None:
        self._available_ns = self._clock.monotonic_ns() + round(self._fault.for_s * NS)
        self._end = Disconnected(f"injected: {self._fault.as_text}")
        raise self._end

    def _deliver_unchanged(self, item: Gap | Anchor) -> None:
        if not self._active:
            super()._deliver_unchanged(item)


class OffRateSource(FaultySource[Drift | WrongRate]):
    """Source of a device that samples at another rate than its nominal one.

    Within the fault the audio is resampled; positions, anchors and capture times
    follow, so that each sample keeps the time at which it was captured.
    """

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._resampler: Resampler | None = None
        # Where the fault starts and ends in this stream, in samples of the source.
        self._from = self._to = 0

    def _rates(self) -> tuple[int, int]:
        """Return samples of the source, and samples that are delivered for them."""
        if isinstance(self._fault, Drift):
            return _MILLION, _MILLION + self._fault.ppm
        return self._rate, self._fault.rate

    def _begin_stream(self, info: StreamInfo) -> None:
        super()._begin_stream(info)
        self._resampler = None
        self._from = self._to = 0

    def _captured_ns(self, sample: int) -> int | None:
        if sample > self._from:
            nominal, actual = self._rates()
            stop = self._from + scaled(self._to - self._from, nominal, actual)
            within = scaled(min(sample, stop) - self._from, actual, nominal)
            beyond = max(0, sample - stop)
            if self._active:  # the fault will last beyond the sample
                within, beyond = scaled(sample - self._from, actual, nominal), 0
            sample = self._from + within + beyond
        return super()._captured_ns(sample)

    def _start_fault(self) -> None:
        super()._start_fault()
        self._from = self._to = self._position

    def _alter(self, part: Block) -> None:
        self._to = part.stop
        self._convert(part)

    def _deliver_unchanged(self, item: Gap | Anchor) -> None:
        if not self._active or (isinstance(item, Anchor) and item.sample < self._from):
            super()._deliver_unchanged(item)
            return
        if isinstance(item, Gap):
            self._to = item.stop
        self._convert(item)

    def _convert(self, item: Placed) -> None:
        if self._resampler is None:
            # Counted from where the fault begins: there both counts are the same.
            channels = self._wrapped.info.channels
            self._resampler = Resampler(*self._rates(), channels)
        for converted in self._resampler.process(shifted(item, -self._from)):
            assert not isinstance(converted, StreamInfo)
            self._ready.append(shifted(converted, self._from))

    def _end_fault(self) -> None:
        self._flush_pending()
        super()._end_fault()

    def _flush_pending(self) -> None:
        if self._resampler is not None:
            for block in self._resampler.flush():
                self._ready.append(shifted(block, self._from))

    def _shifted(self, item: Placed) -> Placed:
        length = self._to - self._from
        return shifted(item, scaled(length, *self._rates()) - length)


def shifted(item: Placed, by: int) -> Placed:
    """Return `item` at a place `by` samples later."""
    match item:
        case Block():
            return Block(item.start + by, item.samples, item.arrived_ns)
        case Gap():
            return Gap(item.start + by, item.stop + by, item.reason)
        case Anchor():
            return Anchor(item.sample + by, item.utc_ns)


SOURCE_FAULTS: dict[str, Callable[..., FaultySource[Any]]] = {
    "drop": SilencedSource,
    "jitter": JitterySource,
    "stall": StalledSource,
    "unplug": UnpluggedSource,
    "clip": ClippedSource,
    "drift": OffRateSource,
    "wrong_rate": OffRateSource,
    "crash": FailingSource,
    "hang": FailingSource,
}
