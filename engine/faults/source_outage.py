"""Sources that lose samples, fall silent or go away for a while."""

from typing import Any, TypeVar

from neurovocal.engine.errors import DeviceError, Disconnected
from neurovocal.engine.faults.herald import ends
from neurovocal.engine.faults.options import Drop, LastingFault, Stall, Unplug
from neurovocal.engine.faults.source import FaultySource, moved
from neurovocal.engine.protocols import SourceItem
from neurovocal.engine.timebase import NS
from neurovocal.engine.types import Anchor, Block, Gap

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

    def _heard_ns(self, sample: int) -> int | None:
        return super()._heard_ns(sample + self._skipped)

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
