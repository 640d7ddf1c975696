"""Detector of segments in a score of band levels above their noise floors."""

import logging
from collections.abc import Iterable, Sequence
from copy import deepcopy
from dataclasses import replace
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from neurovocal.engine import (
    Block,
    BuildContext,
    ConfigError,
    Float32,
    Gap,
    Mark,
    Offset,
    Onset,
    Posteriors,
    Segmenter,
    SegmenterRules,
    Trace,
    TraceKeeper,
)
from neurovocal.engine.contracts.batches import StageBatch
from neurovocal.plugins.detectors.band_excess import (
    N_BANDS,
    BandExcess,
    FloorOptions,
    framing,
    prior_floor,
)
from neurovocal.plugins.detectors.band_level import unreachable_problems
from neurovocal.plugins.detectors.noise_floor import FirstLevels
from neurovocal.plugins.detectors.scores.recent_sounds import RecentSounds

if TYPE_CHECKING:
    from neurovocal.plugins.detectors.excess_network import ExcessNetwork

log = logging.getLogger("neurovocal")
_ALL_BANDS = slice(0, N_BANDS)


class Score(Protocol):
    """Converter of the rows of `BandExcess` to one score per row."""

    def push(self, first: int, excess: Float32) -> NDArray[np.float64]:
        """Return the scores of rows ``first, ...`` of one stream, float64[n_rows].

        Parameters
        ----------
        first : int
            Index of the first row; calls follow each other without holes.
        excess : float32[n_rows, 32]
            Rows of `BandExcess`.
        """

    def reset(self) -> None:
        """Forget all rows; the next ones may begin anywhere."""


class ScoredExcessDetector:
    """Detector of segments in a score of band levels above their noise floors.

    The score of row k of `BandExcess` stands for the `hop_length` samples around its
    frame's centre. Until the noise floors are settled onsets are provisional, and their
    offsets carry the score by the floors as they are by then.

    Parameters
    ----------
    excess : BandExcess
        Bands and noise floors of the stream.
    score : Score
        What is compared with the thresholds.
    rules : SegmenterRules
        Thresholds and durations.
    unit : str
        Unit of the scores, for traces.
    recent : RecentSounds, optional
        Makes the rules follow what was found.
    bands : slice, optional
        Bands whose noise is the level of a trace; by default all.

    Attributes
    ----------
    band_edges_hz : float64[33]
        Edges of the bands.
    network : ExcessNetwork or None
        Corrects the scores, in a subclass.
    """

    consumes: Literal["samples", "posteriors"] = "samples"

    def __init__(
        self,
        excess: BandExcess,
        score: Score,
        rules: SegmenterRules,
        unit: str,
        *,
        recent: RecentSounds | None = None,
        bands: slice = _ALL_BANDS,
    ) -> None:
        hop, frame_length = excess.hop_length, excess.frame_length
        self.band_edges_hz = excess.edges_hz
        slowest = rules if recent is None else recent.slowest
        self.latency = slowest.latency + excess.latency + hop
        self._excess = excess
        self._score = score
        self._recent = recent
        adapt = None if recent is None else recent.add
        self._hop, self._origin = hop, (frame_length - hop) // 2
        self._segmenter = Segmenter(rules, hop, self._origin, adapt)
        # For segments of the first second, again.
        self._revised, self._slowest = deepcopy(score), slowest
        self._trace = TraceKeeper(hop, frame_length, unit)
        self._bands = bands
        self.network: ExcessNetwork | None = None
        self._has_audio = False  # since the start or the last gap
        self._stop = 0  # sample after the last one received

    def reset(self) -> None:
        """Reset to the state of a new detector."""
        if self._recent is not None:
            self._recent.reset()
        self._segmenter.reset()
        self._trace.reset()
        self._excess.reset()
        self._begin_anew()

    def process(self, item: Block | Posteriors | Gap, /) -> Iterable[Mark]:
        """Return the marks that `item` completes; a gap truncates an open segment."""
        if isinstance(item, Gap):
            levels = self._excess.first_levels
            return self._finish(levels, *self._excess.gap(item))
        assert isinstance(item, Block)
        if not self._has_audio and len(item.samples):
            self._segmenter.begin(item.start)
            self._has_audio = True
        self._stop = item.start + len(item.samples)
        return self.revised(self._marks(*self._excess.push(item)))

    def revised(self, marks: list[Mark]) -> list[Mark]:
        """Return marks with what later noise floors say of them (see `_revise`)."""
        return self._revise(marks, self._excess.first_levels) if marks else marks

    def flush(self) -> Iterable[Mark]:
        """Return the last marks at the end of the stream, truncating a segment."""
        levels = self._excess.first_levels
        return self._finish(levels, *self._excess.flush())

    def trace(self) -> Iterable[Trace]:
        """Return score, thresholds and noise floor of the hops since the last call."""
        return self._trace.take()

    def batch(self, stages: Sequence["ScoredExcessDetector"], /) -> StageBatch | None:
        """Return a batch of the detectors of several channels (`Batches`)."""
        from neurovocal.plugins.detectors.channels.scored_excess import (
            ScoredExcessBatch,
        )

        return ScoredExcessBatch.of(stages)

    def _begin_anew(self) -> None:
        self._score.reset()
        self._has_audio = False
        self._stop = 0

    def _finish(self, levels: FirstLevels, first: int, excess: Float32) -> list[Mark]:
        """Process the rows that were held back and close the open segment."""
        if not self._has_audio:
            return []
        marks = self._marks(first, excess)
        marks += self._held_back()
        marks += self._segmenter.close(self._stop)
        self._begin_anew()
        return self._revise(marks, levels)

    def _revise(self, marks: list[Mark], levels: FirstLevels) -> list[Mark]:
        """Mark onsets of the first second, and add later scores to their offsets."""
        for place, mark in enumerate(marks):
            if isinstance(mark, Onset):
                if levels.is_provisional(self._hop_of(mark.sample)):
                    marks[place] = replace(mark, provisional=True)
            elif isinstance(mark, Offset):
                first, stop = self._hop_of(mark.onset), self._hop_of(mark.sample)
                if levels.is_provisional(first):
                    score = self._score_again(*levels.excess(first, stop))
                    marks[place] = replace(mark, revised_score=score)
        return marks

    def _hop_of(self, sample: int) -> int:
        return (sample - self._origin) // self._hop

    def _score_again(self, first: int, excess: Float32) -> float | None:
        if len(excess) == 0:
            return None
        self._revised.reset()
        scores = self._revised.push(first, excess)
        # As the score of an onset: until the sound is loud and long enough.
        is_loud = scores >= self._slowest.on
        reached = int(is_loud.argmax() if is_loud.any() else scores.argmax())
        stop = max(reached, self._slowest.min_duration // self._hop) + 1
        return float(scores[:stop].max())

    def _held_back(self) -> list[Mark]:
        """Return the marks of scores that wait for rows that never come: none here."""
        return []

    def _marks(self, first: int, excess: Float32) -> list[Mark]:
        if len(excess) == 0:
            return []
        return self._marks_of(*self.scored(first, excess))

    def scored(self, first: int, excess: Float32) -> tuple[int, NDArray[np.float64]]:
        """Return the scores that rows complete, and the row of the first of them.

        Parameters
        ----------
        first : int
            Index of the first row.
        excess : float32[n_rows, 32]
            At least one row of `BandExcess`.
        """
        return first, self._score.push(first, excess)

    def _marks_of(self, first: int, scores: NDArray[np.float64]) -> list[Mark]:
        if len(scores) == 0:
            return []
        if self._trace.is_asked:
            self._add_trace(first, scores)
        return self._segmenter.process(first, scores)

    def _add_trace(self, first: int, scores: NDArray[np.float64]) -> None:
        powers = 10.0 ** (self._excess.floor_db[self._bands] / 10)
        floor_db = float(10 * np.log10(powers.sum()))
        rules = self._segmenter.rules
        self._trace.add(first, scores, rules.on, rules.off, floor_db)


def sample_rate_of(context: BuildContext, detector: str) -> int:
    """Return the rate of the stream in Hz.

    Raises
    ------
    ConfigError
        It is not known.
    """
    if context.info is None:
        raise ConfigError(f"the {detector} detector needs to know its stream's rate")
    return context.info.sample_rate


def tell_foreign_floor(options: FloorOptions, sample_rate: int) -> None:
    """Warn if the prior noise floor belongs to another rate than the stream (Hz)."""
    if options.floor_db is not None and prior_floor(options, sample_rate) is None:
        log.warning(
            "detector: floor_db was measured at %d Hz and the stream has %d Hz: it "
            "starts without a noise floor; tune on a recording of its rate",
            options.floor_rate,
            sample_rate,
        )


def framing_problems(
    options: FloorOptions, edges: Sequence[str], context: BuildContext
) -> Iterable[str]:
    """Yield what is impossible at the rate of the stream, if that is known.

    Parameters
    ----------
    options : FloorOptions
        Frames and bands.
    edges : sequence of str
        Options that are frequencies in Hz, or None.
    context : BuildContext
        States the rate.
    """
    if context.info is None:
        return
    rate = context.info.sample_rate
    yield from unreachable_problems(options, edges, rate)
    try:
        framing(options, rate)
    except ConfigError as error:
        yield from error.problems
