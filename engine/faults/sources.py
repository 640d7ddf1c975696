"""Sources whose audio is spoilt for a while: one class per fault, one around another.

Blocks are cut where a fault begins and ends, so that what is heard depends on the audio
alone and never on the blocks in which it came.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Any, Generic, TypeVar

import numpy as np

from neurovocal.engine.config.faults import (
    AnyFault,
    Clip,
    Crash,
    Drop,
    Hang,
    Jitter,
    LastingFault,
    Stall,
    Unplug,
)
from neurovocal.engine.contracts.clock import NS, Clock
from neurovocal.engine.contracts.errors import DeviceError, Disconnected, EndOfStream
from neurovocal.engine.contracts.stages import CaptureTimed, Source, SourceItem
from neurovocal.engine.contracts.types import Anchor, Block, Gap, Health, StreamInfo
from neurovocal.engine.faults.injection import InjectedError, begins, ends

FaultT = TypeVar("FaultT", bound=AnyFault)


def forward_attributes(wrapper: object, wrapped: object) -> None:
    """Give `wrapper` each public attribute of `wrapped` that it does not have itself.

    They become properties of a class of its own: `isinstance` with a protocol asks the
    class, and from Python 3.12 on never `__getattr__`.
    """
    kind = type(wrapper)
    properties = {
        name: property(lambda _, name=name: getattr(wrapped, name))  # type: ignore[misc]
        for name in {*dir(wrapped)} - {*dir(wrapper)}
        if not name.startswith("_")
    }
    wrapper.__class__ = type(kind.__name__, (kind,), properties)


class FaultySource(Generic[FaultT]):
    """Passes on what a source brings; subclasses say what becomes of the rest.

    Parameters
    ----------
    source : Source
        What is spoilt. All of its attributes show through.
    fault : AnyFault
        When, for how long, and how.
    clock : Clock
        Measures what no sample can measure.
    options : Options, optional
        Of the source's plugin.
    """

    _ends_by_samples = True

    def __init__(
        self, source: Source, fault: FaultT, clock: Clock, options: object = None
    ) -> None:
        self._source = source
        self._fault = fault
        self._clock = clock
        self._options = options
        # Edges still to come, in nanoseconds of the audio since the run began, whatever
        # streams and openings it came in.
        self._edges_ns = [round(fault.at_s * NS)]
        if self._ends_by_samples and isinstance(fault, LastingFault):
            self._edges_ns.append(self._edges_ns[0] + round(fault.for_s * NS))
        self._before_ns = 0  # audio of earlier streams and openings, and outages
        self._taken_ns = 0  # when the source last brought something
        self._rate = 0
        self._here = 0  # samples of this stream that were taken
        self._active = False
        self._ready: deque[SourceItem | Callable[[], None]] = deque()
        self._end: Exception | None = None
        if isinstance(source, CaptureTimed):
            self.captured_ns = self._captured_ns
        forward_attributes(self, source)

    @property
    def info(self) -> StreamInfo:
        """As the source's."""
        return self._source.info

    @property
    def live(self) -> bool:
        """As the source's."""
        return self._source.live

    def open(self) -> None:
        """Open the source; it counts from 0 again."""
        self._ready.clear()
        self._end = None
        self._source.open()
        if self._source.live and self._taken_ns:  # an outage is part of the stream
            self._before_ns += self._clock.monotonic_ns() - self._taken_ns
        try:
            self._begin(self._source.info)
        except RuntimeError:  # it begins with a StreamInfo
            self._rate = 0

    def read(self, timeout: float) -> SourceItem | None:
        """Return the next item of what is left of the source."""
        if not self._ready:
            if self._end is not None:
                raise self._end
            try:
                item = self._source.read(timeout)
            except (EndOfStream, Disconnected) as error:
                self._end = error
                self._give_out()
            else:
                self._take(item)
        if not self._ready:
            if self._end is not None:
                raise self._end
            return None
        ready = self._ready.popleft()
        if callable(ready):
            ready()
            return None
        return ready

    def close(self) -> None:
        """Close the source."""
        self._source.close()

    # ---- what subclasses make of it ------------------------------------------------

    def _strike(self) -> None:
        """The fault begins with the next sample."""
        self._ready.append(begins(self._fault))

    def _spoil(self, part: Block) -> None:
        """Samples within the fault."""

    def _recover(self) -> None:
        """The fault ended with the last sample."""
        self._ready.append(ends(self._fault))

    def _give_out(self) -> None:
        """The stream ends here: what was kept back comes now."""

    def _placed(self, item: Block | Gap | Anchor) -> SourceItem:
        """An item outside the fault, at its place in what is given out."""
        return item

    def _captured_ns(self, sample: int) -> int | None:
        """As `CaptureTimed.captured_ns`, of what is given out."""
        assert isinstance(self._source, CaptureTimed)
        return self._source.captured_ns(sample)

    # ---- where in the audio it is ----------------------------------------------------

    def _begin(self, info: StreamInfo) -> None:
        if self._rate:
            self._before_ns += self._here * NS // self._rate
        self._rate, self._here = info.sample_rate, 0

    def _take(self, item: SourceItem | None) -> None:
        if item is None:
            return
        self._taken_ns = self._clock.monotonic_ns()
        match item:
            case StreamInfo():
                self._give_out()
                self._begin(item)
                self._ready.append(item)
            case Block():
                self._hear(item)
            case Gap():
                self._here += item.stop - item.start
                self._lose(item)
            case Anchor():
                self._time(item)
            case Health():
                self._ready.append(item)

    def _hear(self, block: Block) -> None:
        samples, start = block.samples, block.start
        while len(samples):
            if (count := self._to_next_edge(len(samples))) == 0:
                continue  # an edge was passed
            part = Block(start, samples[:count], block.arrived_ns)
            self._here += len(part.samples)
            if self._active:
                self._spoil(part)
            else:
                self._ready.append(self._placed(part))
            samples, start = samples[count:], part.stop

    def _lose(self, gap: Gap) -> None:
        self._ready.append(self._placed(gap))

    def _time(self, anchor: Anchor) -> None:
        self._ready.append(self._placed(anchor))

    def _to_next_edge(self, most: int) -> int:
        """Samples until the next edge, at most `most`; 0: one was passed just now."""
        if not self._edges_ns:
            return most
        edge_ns = self._edges_ns[0] - self._before_ns
        left = -(-edge_ns * self._rate // NS) - self._here
        if left > 0:
            return min(left, most)
        del self._edges_ns[0]
        self._active = not self._active
        if self._active:
            self._strike()
        else:
            self._recover()
        return 0


class ClippedSource(FaultySource[Clip]):
    """Louder samples reach full scale and are cut off there."""

    def _spoil(self, part: Block) -> None:
        level = np.float32(self._fault.level)
        samples = np.clip(part.samples, -level, level) / level
        self._ready.append(replace(part, samples=samples))


class JitterySource(FaultySource[Jitter]):
    """Blocks are kept for a while drawn by chance, then come in a burst."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._random = Random(self._fault.seed)
        self._kept: list[SourceItem] = []
        self._due_ns = 0

    def open(self) -> None:
        """Open the source; what was kept of an earlier opening is gone."""
        self._kept = []
        super().open()

    def read(self, timeout: float) -> SourceItem | None:
        """Return the next item that is due."""
        if self._kept and not self._ready:
            left_s = (self._due_ns - self._clock.monotonic_ns()) / NS
            if left_s <= 0:
                self._give_out()
            else:
                timeout = min(timeout, left_s)
        return super().read(timeout)

    def _spoil(self, part: Block) -> None:
        if not self._kept:
            late_ns = round(self._random.uniform(0, self._fault.ms) * 1e6)
            self._due_ns = self._clock.monotonic_ns() + late_ns
        self._kept.append(part)

    def _lose(self, gap: Gap) -> None:
        self._wait_or_pass(gap)

    def _time(self, anchor: Anchor) -> None:
        self._wait_or_pass(anchor)

    def _wait_or_pass(self, item: Gap | Anchor) -> None:
        (self._kept if self._kept else self._ready).append(item)

    def _recover(self) -> None:
        self._give_out()
        super()._recover()

    def _give_out(self) -> None:
        now = self._clock.monotonic_ns()
        for item in self._kept:
            if isinstance(item, Block) and item.arrived_ns:
                item = replace(item, arrived_ns=now)
            self._ready.append(item)
        self._kept = []


def moved(item: Block | Gap | Anchor, by: int) -> Block | Gap | Anchor:
    """`item`, so many samples later."""
    match item:
        case Block():
            return Block(item.start + by, item.samples, item.arrived_ns)
        case Gap():
            return Gap(item.start + by, item.stop + by, item.reason)
        case Anchor():
            return Anchor(item.sample + by, item.utc_ns)


class CrashingSource(FaultySource[Crash]):
    """A read raises."""

    def _strike(self) -> None:
        super()._strike()
        self._ready.extend([self._crash] * self._fault.times)
        self._active = False

    def _crash(self) -> None:
        raise InjectedError(f"injected: {self._fault.words}")


class HangingSource(FaultySource[Hang]):
    """A read does not return for a while."""

    _ends_by_samples = False

    def _strike(self) -> None:
        super()._strike()
        self._ready.append(lambda: wait(self._clock, self._fault.for_s))
        self._ready.append(ends(self._fault))
        self._active = False


def wait(clock: Clock, seconds: float) -> None:
    """Return after `seconds`, whatever happens."""
    until_ns = clock.monotonic_ns() + round(seconds * NS)
    while not clock.wait_until(until_ns, 1.0):
        pass


LastingT = TypeVar("LastingT", bound=LastingFault)


class SilencedSource(FaultySource[LastingT]):
    """Samples are lost, and told as one gap when it is over."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._lost_from: int | None = None

    def open(self) -> None:
        """Open the source: what was lost before is part of the outage."""
        self._lost_from = None
        super().open()

    def _spoil(self, part: Block) -> None:
        if self._lost_from is None:
            self._lost_from = part.start

    def _lose(self, gap: Gap) -> None:
        if self._lost_from is None:
            super()._lose(gap)

    def _time(self, anchor: Anchor) -> None:
        if self._lost_from is None:
            super()._time(anchor)

    def _recover(self) -> None:
        self._give_out()
        super()._recover()

    def _give_out(self) -> None:
        if self._lost_from is not None:
            reason = f"injected: {self._fault.name}"
            self._ready.append(self._placed(Gap(self._lost_from, self._here, reason)))
        self._lost_from = None


class DroppingSource(SilencedSource[Drop]):
    """The device has lost samples, and says so."""


class StalledSource(SilencedSource[Stall]):
    """Nothing comes; the device does not say why.

    A source that takes silence for a loss (`stall_timeout_s`) does so here, too. It can
    then be opened again, and goes on to bring nothing until the time is over.
    """

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._patience_s: float | None = getattr(self._options, "stall_timeout_s", None)
        self._silent = 0  # samples since it fell silent or was opened
        self._over_ns = 0
        self._mute = False  # opened again before it was over: the clock says when
        self._skipped = 0  # samples of this opening before the first one given out

    def open(self) -> None:
        """Open the source, which may still be silent."""
        self._silent = self._skipped = 0
        super().open()

    def _captured_ns(self, sample: int) -> int | None:
        return super()._captured_ns(sample + self._skipped)

    def _placed(self, item: Block | Gap | Anchor) -> SourceItem:
        return moved(item, -self._skipped) if self._skipped else item

    def _strike(self) -> None:
        super()._strike()
        self._over_ns = self._clock.monotonic_ns() + round(self._fault.for_s * NS)

    def _spoil(self, part: Block) -> None:
        super()._spoil(part)
        self._silent += len(part.samples)
        self._lose_patience()

    def _take(self, item: SourceItem | None) -> None:
        if self._mute and isinstance(item, Block | Gap | Anchor):
            if self._clock.monotonic_ns() < self._over_ns:
                self._skip(item)
                return
            self._mute = self._active = False
            self._recover()
        super()._take(item)

    def _skip(self, item: Block | Gap | Anchor) -> None:
        if not isinstance(item, Anchor):
            self._here += item.stop - item.start
            self._silent += item.stop - item.start
            self._skipped = item.stop
            self._lose_patience()

    def _lose_patience(self) -> None:
        if self._patience_s is None or self._silent < self._patience_s * self._rate:
            return
        self._lost_from, self._edges_ns, self._mute = None, [], True
        words = f"injected: {self._fault.words}: nothing for {self._patience_s:g} s"
        self._end = Disconnected(words)


class UnpluggedSource(FaultySource[Unplug]):
    """The device is gone, and cannot be opened before the time is over."""

    _ends_by_samples = False

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._back_ns: int | None = None

    def open(self) -> None:
        """Open the source, if it is there.

        Raises
        ------
        DeviceError
            It is still away.
        """
        if self._back_ns is not None:
            left_s = (self._back_ns - self._clock.monotonic_ns()) / NS
            if left_s > 0:
                raise DeviceError(
                    f"injected: {self._fault.words}: back in {left_s:.1f} s"
                )
        super().open()
        if self._back_ns is not None:
            self._back_ns, self._active = None, False
            self._ready.append(ends(self._fault))

    def _strike(self) -> None:
        super()._strike()
        self._ready.append(self._leave)

    def _leave(self) -> None:
        self._back_ns = self._clock.monotonic_ns() + round(self._fault.for_s * NS)
        self._end = Disconnected(f"injected: {self._fault.words}")
        raise self._end

    def _lose(self, gap: Gap) -> None:
        if not self._active:
            super()._lose(gap)

    def _time(self, anchor: Anchor) -> None:
        if not self._active:
            super()._time(anchor)
