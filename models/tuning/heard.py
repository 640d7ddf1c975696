"""Annotated stretches of recordings, and what detectors find in them."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from neurovocal.engine import SegmenterRules
from neurovocal.engine.contracts.stages import Detector
from neurovocal.engine.contracts.types import Block, Float32, Offset
from neurovocal.plugins.detectors.band_excess import BandExcess, FloorOptions
from neurovocal.plugins.detectors.noise_floor import FirstLevels
from neurovocal.plugins.detectors.scored_excess import ScoredExcessDetector
from neurovocal.plugins.detectors.scores.recent_sounds import RecentSounds

Span: TypeAlias = tuple[float, float]


@dataclass(frozen=True, eq=False)
class Stretch:
    """Annotated stretch of a recording.

    Parameters
    ----------
    samples : float32[n_samples]
        One channel.
    sample_rate : int
        In Hz.
    spans : sequence of (float, float)
        Examples in seconds from the first sample, in order, without overlaps.
    judged : sequence of (float, float)
        Where the annotation is complete: what is found there and is no example is a
        false alarm.
    """

    samples: Float32
    sample_rate: int
    spans: Sequence[Span]
    judged: Sequence[Span]


def spans_of(detector: Detector, stretch: Stretch) -> list[Span]:
    """Return what a detector finds in a stretch, in seconds; it is reset before."""
    detector.reset()
    marks = [*detector.process(Block(0, stretch.samples[:, None]))]
    marks += detector.flush()
    rate = stretch.sample_rate
    return [
        (mark.onset / rate, mark.sample / rate)
        for mark in marks
        if isinstance(mark, Offset)
    ]


class Heard:
    """Band levels of a stretch above their floors, and which hops are examples.

    Parameters
    ----------
    stretch : Stretch
        Annotated sound.
    options : FloorOptions
        Frames, bands and noise floors.

    Attributes
    ----------
    rows : float32[n_hops, 32]
        As `BandExcess` returns them.
    edges_hz, cells, hop
        Those of the `BandExcess`; the hop in samples.
    times_s : float64[n_hops]
        Centres of the frames.
    """

    def __init__(self, stretch: Stretch, options: FloorOptions) -> None:
        excess = BandExcess(options, stretch.sample_rate)
        _, rows = excess.push(Block(0, stretch.samples[:, None]))
        _, rest = excess.flush()
        self.stretch = stretch
        self.rows = np.concatenate((rows, rest))
        self.edges_hz, self.cells = excess.edges_hz, excess.cells
        self.hop = excess.hop_length
        self._known = _KnownRows(options, stretch.sample_rate, len(self.rows))
        self.times_s = (
            np.arange(len(self.rows)) * self.hop + excess.frame_length / 2
        ) / stretch.sample_rate
        self.frame_s = excess.frame_length / stretch.sample_rate

    @cached_property
    def of_example(self) -> list[slice]:
        """Hops whose centres lie in each example; at least one."""
        found = []
        for start, stop in self.stretch.spans:
            first, last = np.searchsorted(self.times_s, (start, stop))
            first = min(first, max(len(self.rows) - 1, 0))
            found.append(slice(int(first), int(max(last, first + 1))))
        return found

    @cached_property
    def is_outside(self) -> NDArray[np.bool_]:
        """Hops that are judged and touch no example."""
        outside = np.zeros(len(self.rows), bool)
        for start, stop in self.stretch.judged:
            outside |= (self.times_s >= start) & (self.times_s < stop)
        for start, stop in self.stretch.spans:
            near = self.times_s >= start - self.frame_s
            outside &= ~(near & (self.times_s < stop + self.frame_s))
        return outside

    def segments(
        self,
        scores: NDArray[np.float64],
        rules: SegmenterRules,
        recent: RecentSounds | None = None,
    ) -> list[Span]:
        """Return what the detector of known scores finds, in seconds.

        Parameters
        ----------
        scores : float64[n_hops]
            One for each row.
        rules : SegmenterRules
            Thresholds and durations.
        recent : RecentSounds, optional
            Makes the rules follow what was found.
        """
        detector = ScoredExcessDetector(
            self._known, _KnownScore(scores), rules, "dB", recent=recent
        )
        return spans_of(detector, self.stretch)


class _KnownRows(BandExcess):
    """Grid of rows whose scores are known: the rows themselves are empty."""

    def __init__(self, options: FloorOptions, sample_rate: int, n_rows: int) -> None:
        super().__init__(options, sample_rate)
        self._empty = np.empty((n_rows, 0), np.float32)

    def reset(self) -> None:
        """Forget nothing; the floors count as settled."""
        super().reset()
        self.first_levels = FirstLevels(is_settled=True)

    def push(self, block: Block) -> tuple[int, Float32]:
        """Return all rows."""
        return 0, self._empty

    def flush(self) -> tuple[int, Float32]:
        """Return no row: there are no others."""
        return len(self._empty), self._empty[:0]


class _KnownScore:
    """Score of rows that is known already."""

    def __init__(self, scores: NDArray[np.float64]) -> None:
        self._scores = scores

    def push(self, first: int, excess: Float32) -> NDArray[np.float64]:
        """Return the scores of the rows ``first, ...``."""
        return self._scores[first : first + len(excess)]

    def reset(self) -> None:
        """Do nothing: scores are known from the beginning."""
