"""Detectors on band excesses of several channels that process together."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from neurovocal.engine import Block, Event, Mark
from neurovocal.plugins.detectors.channels.band_excess import BandExcesses
from neurovocal.plugins.detectors.channels.excess_network import ChannelNetworkScores
from neurovocal.plugins.detectors.channels.segments import ChannelSegments
from neurovocal.plugins.detectors.scores.band_score import BandScore, Peaks

if TYPE_CHECKING:
    from neurovocal.plugins.detectors.scored_excess import ScoredExcessDetector


class ScoredExcessBatch:
    """Detectors such as `bands` of several channels (a `StageBatch`).

    Spectra, levels and noise floors are computed for all channels at once, and so are
    the scores of `bands` and their corrections by a network: segments are looked for
    only in channels that are loud, or have a segment that is open. Detectors with other
    scores compute their own.

    Parameters
    ----------
    stages : sequence of ScoredExcessDetector
        With the same options, at the same sample.
    """

    rows_type: type[Event] | None = None

    def __init__(self, stages: "Sequence[ScoredExcessDetector]") -> None:
        self._stages = list(stages)
        networks = [stage.network for stage in stages if stage.network is not None]
        self._network = ChannelNetworkScores(networks) if networks else None
        self._excesses = BandExcesses(
            [stage._excess for stage in stages], self._can_adopt
        )
        self._stop = self._then = stages[0]._stop
        self._first, n = 0, len(stages)
        self._excess = np.empty((n, 0, 0), np.float32)
        self._scores: list[tuple[int, NDArray[np.float64]]] = []
        self._score: BandScore | None = None
        score = stages[0]._score
        if type(score) is BandScore:
            self._score = score
            n_bands = len(score.usual_db)
            self._peaks: Peaks = np.full((n, n_bands), -np.inf), np.full(n, -np.inf)
            self._next_peaks = self._peaks
            self._segments = ChannelSegments([stage._segmenter for stage in stages])

    @classmethod
    def of(cls, stages: "Sequence[ScoredExcessDetector]") -> "ScoredExcessBatch | None":
        """Return a batch; None as long as the stages are not in the same state."""
        stop = stages[0]._stop
        if not all(stage._has_audio and stage._stop == stop for stage in stages):
            return None
        if not BandExcesses.are_alike([stage._excess for stage in stages]):
            return None
        return cls(stages)

    def compute(self, item: Block, /) -> None:
        """Compute the scores of a block float32[n_samples, n_channels]."""
        for channel in self._excesses.adopt():
            self._adopt(channel)
        self._first, self._excess = self._excesses.compute(item)
        self._then = item.stop
        self._scores = []
        if self._score is None:
            return
        self._next_peaks = self._peaks
        if self._excess.shape[1]:
            scores, self._next_peaks = self._score.scored(
                self._first, self._excess, self._peaks
            )
            self._scores = [(self._first, scores)]
            if self._network is not None:
                levels = self._excess - self._score.usual_db
                self._scores = self._network.push(levels, scores)

    def _adopt(self, channel: int) -> None:
        """Take over the peaks and the network of a channel."""
        score = self._stages[channel]._score
        if isinstance(score, BandScore):
            self._peaks[0][channel], self._peaks[1][channel] = score.peaks
        if self._network is not None:
            self._network.adopt(channel)

    def _can_adopt(self, channel: int) -> bool:
        return self._network is None or self._network.can_adopt(channel)

    def commit(self) -> None:
        """Let the state be that after the last block."""
        self._excesses.commit()
        self._stop = self._then
        if self._score is not None:
            self._peaks = self._next_peaks
            if self._network is not None:
                self._network.commit()
            self._segments.add(self._scores, self._excesses.apart)

    def rows(self, channel: int, /) -> Event:
        """Raise: there are no events that all channels have."""
        raise NotImplementedError

    def active(self) -> Iterable[int]:
        """Return the channels with sound, an open segment or floors not settled."""
        if self._score is None:
            return range(len(self._stages))
        return self._segments.active

    def answers(self, channel: int, /) -> list[Mark]:
        """Return the marks of one channel."""
        stage = self._stages[channel]
        first, excess = self._first, self._excess[channel]
        if self._excesses.apart[channel] and len(excess):
            levels = self._excesses.levels[channel]
            first, excess = stage._excess.above_floor(first, levels)
        if self._score is None:
            return stage.revised(stage._marks(first, excess))
        if self._excesses.apart[channel]:
            rows = [stage.scored(first, excess)] if len(excess) else []
        else:
            rows = [(start, scores[channel]) for start, scores in self._scores]
        marks = self._segments.process(channel, rows)
        return stage.revised(marks)

    def release(self) -> None:
        """Give each stage its state."""
        self._excesses.release()
        apart = self._excesses.apart
        for channel, stage in enumerate(self._stages):
            stage._stop = self._stop
            if self._score is not None and not apart[channel]:
                score = stage._score
                assert isinstance(score, BandScore)
                peaks = self._peaks
                score.peaks = peaks[0][channel].copy(), float(peaks[1][channel])
                if self._network is not None:
                    self._network.release(channel)
        if self._score is not None:
            self._segments.release()
