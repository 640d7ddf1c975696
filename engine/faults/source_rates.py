"""Sources whose clock is not what they say: too fast, too slow, or of another rate."""

from typing import Any, TypeVar

from neurovocal.engine.audio.resampler import Resampler, scaled
from neurovocal.engine.config.faults import Drift, LastingFault, WrongRate
from neurovocal.engine.contracts.stages import SourceItem
from neurovocal.engine.contracts.types import Anchor, Block, Gap, StreamInfo
from neurovocal.engine.faults.sources import FaultySource, moved

LastingT = TypeVar("LastingT", bound=LastingFault)

_MILLION = 1_000_000


class OffRateSource(FaultySource[LastingT]):
    """What is heard takes more samples, or fewer, than it should.

    Within the fault the audio is resampled; positions, anchors and times of capture
    follow, so that each sample keeps the time at which it was heard.
    """

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._resampler: Resampler | None = None
        self._from = self._to = 0  # of the fault in this stream, as the source counts

    def _rates(self) -> tuple[int, int]:
        """Samples that the source brings, and those that are given out for them."""
        raise NotImplementedError

    def _begin(self, info: StreamInfo) -> None:
        super()._begin(info)
        self._resampler = None
        self._from = self._to = 0

    def _captured_ns(self, sample: int) -> int | None:
        if sample > self._from:
            there, here = self._rates()
            stop = self._from + scaled(self._to - self._from, there, here)
            within = scaled(min(sample, stop) - self._from, here, there)
            beyond = max(0, sample - stop)
            if self._active:  # it goes on like this
                within, beyond = scaled(sample - self._from, here, there), 0
            sample = self._from + within + beyond
        return super()._captured_ns(sample)

    def _strike(self) -> None:
        super()._strike()
        self._from = self._to = self._here

    def _spoil(self, part: Block) -> None:
        self._to = part.stop
        self._convert(part)

    def _lose(self, gap: Gap) -> None:
        if self._active:
            self._to = gap.stop
            self._convert(gap)
        else:
            super()._lose(gap)

    def _time(self, anchor: Anchor) -> None:
        if self._active and anchor.sample >= self._from:
            self._convert(anchor)
        else:
            super()._time(anchor)

    def _convert(self, item: Block | Gap | Anchor) -> None:
        if self._resampler is None:
            # Counted from where the fault begins: there both counts are the same.
            self._resampler = Resampler(*self._rates(), self.info.channels)
        for converted in self._resampler.process(moved(item, -self._from)):
            assert not isinstance(converted, StreamInfo)
            self._ready.append(moved(converted, self._from))

    def _recover(self) -> None:
        self._give_out()
        super()._recover()

    def _give_out(self) -> None:
        if self._resampler is not None:
            for block in self._resampler.flush():
                self._ready.append(moved(block, self._from))

    def _placed(self, item: Block | Gap | Anchor) -> SourceItem:
        there, here = self._rates()
        return moved(
            item, scaled(self._to - self._from, there, here) - (self._to - self._from)
        )


class DriftingSource(OffRateSource[Drift]):
    """The device's clock is off by some parts per million."""

    def _rates(self) -> tuple[int, int]:
        return _MILLION, _MILLION + self._fault.ppm


class WrongRateSource(OffRateSource[WrongRate]):
    """The device does not bring the rate that it says."""

    def _rates(self) -> tuple[int, int]:
        return self._rate, self._fault.rate
