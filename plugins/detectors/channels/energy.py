"""Energy detectors of several channels that process together."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from neurovocal.engine import Block, Event, Mark
from neurovocal.plugins.detectors.channels.band_level import BandLevels, RelativeLevels
from neurovocal.plugins.detectors.channels.segments import ChannelSegments
from neurovocal.plugins.detectors.energy import in_db

if TYPE_CHECKING:
    from neurovocal.plugins.detectors.energy import EnergyDetector

Float64 = NDArray[np.float64]


class EnergyBatch:
    """Energy detectors of several channels (a `StageBatch`).

    Levels and noise floors are computed for all channels at once; segments are looked
    for only in channels that are loud, or have a segment that is open.

    Parameters
    ----------
    stages : sequence of EnergyDetector
        With the same options, at the same sample.
    """

    rows_type: type[Event] | None = None

    def __init__(self, stages: "Sequence[EnergyDetector]") -> None:
        self._stages = list(stages)
        self._levels = BandLevels([stage._level for stage in stages])
        self._relative = RelativeLevels([stage._relative for stage in stages])
        segmenters = [stage._segmenter for stage in stages]
        self._segments = ChannelSegments(segmenters)
        self._stop = stages[0]._stop
        self._first, self._found = 0, np.empty((len(stages), 0))
        self._ratios: list[tuple[int, Float64]] = []

    @classmethod
    def of(cls, stages: "Sequence[EnergyDetector]") -> "EnergyBatch | None":
        """Return a batch; None as long as the stages are not in the same state."""
        stop = stages[0]._stop
        if not all(stage._has_audio and stage._stop == stop for stage in stages):
            return None
        if not BandLevels.are_alike([stage._level for stage in stages]):
            return None
        return cls(stages)

    def compute(self, item: Block, /) -> None:
        """Compute levels and ratios of a block float32[n_samples, n_channels]."""
        self._first, self._found = self._levels.compute(item)
        self._ratios = self._relative.compute(self._first, self._found)
        self._then = item.stop

    def commit(self) -> None:
        """Let the state be that after the last block."""
        self._levels.commit()
        self._relative.commit()
        self._stop = self._then
        self._segments.add(self._ratios, self._relative.apart)

    def rows(self, channel: int, /) -> Event:
        """Raise: there are no events that all channels have."""
        raise NotImplementedError

    def active(self) -> Iterable[int]:
        """Return the channels with sound, an open segment or an unknown floor."""
        return self._segments.active

    def answers(self, channel: int, /) -> list[Mark]:
        """Return the marks of one channel."""
        stage = self._stages[channel]
        ratios = [(first, rows[channel]) for first, rows in self._ratios]
        if self._relative.apart[channel]:
            ratios = stage._relative.push(self._first, self._found[channel])
        marks = self._segments.process(channel, ratios)
        return in_db(marks) if marks else marks

    def release(self) -> None:
        """Give each stage its state."""
        self._levels.release()
        self._relative.release()
        self._segments.release()
        for stage in self._stages:
            stage._stop = self._stop
