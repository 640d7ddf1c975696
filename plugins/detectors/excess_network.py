"""Detector network of a bundle, which corrects the score of the `bands` detector."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from neurovocal.engine import (
    Bundle,
    BundleError,
    Float32,
    Mark,
    SegmenterRules,
)
from neurovocal.plugins.detectors.band_excess import N_BANDS, BandExcess
from neurovocal.plugins.detectors.scored_excess import ScoredExcessDetector
from neurovocal.plugins.detectors.scores.band_score import BandScore
from neurovocal.plugins.detectors.scores.recent_sounds import RecentSounds
from neurovocal.plugins.models.onnx.session import Golden, Graph, finite


@dataclass(frozen=True, slots=True, eq=False)
class ScoredRows:
    """Rows that a detector network gets, one for each hop.

    Parameters
    ----------
    levels : float32[n_rows, n_bands]
        Level of each band in dB above what steady noise exceeds in one of 10 000 rows.
    scores : float64[n_rows]
        Scores of the `bands` detector in dB.
    """

    levels: Float32
    scores: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.scores)

    def __getitem__(self, part: slice) -> "ScoredRows":
        return ScoredRows(self.levels[part], self.scores[part])

    def __add__(self, other: "ScoredRows") -> "ScoredRows":
        return ScoredRows(
            np.concatenate((self.levels, other.levels)),
            np.concatenate((self.scores, other.scores)),
        )


# A score of 8.5 dB, between both thresholds of `bands`, is a probability of one half;
# the logarithm of the odds rises by so much per dB.
MIDDLE_DB, ODDS_PER_DB = 8.5, 0.3

_NO_ROWS = ScoredRows(np.empty((0, N_BANDS), np.float32), np.empty(0))


def corrected(scores: NDArray[np.float64], corrections: Float32) -> NDArray[np.float64]:
    """Return the scores of a detector network in dB, float64[n_rows].

    What is masked or below the usual noise counts as 0 dB, so that a correction can
    lift it.
    """
    return np.maximum(scores, 0.0) + corrections


def probability_of(score_db: float) -> float:
    """Return the probability of a call that a corrected score in dB stands for."""
    return float(1 / (1 + np.exp(-ODDS_PER_DB * (score_db - MIDDLE_DB))))


def level_of(probability: float) -> float:
    """Return the corrected score in dB that stands for a probability of a call.

    It is within 0.1 and 200 dB, as thresholds of `bands` are.
    """
    odds = probability / max(1 - probability, 1e-12)
    level = MIDDLE_DB + np.log(max(odds, 1e-12)) / ODDS_PER_DB
    return float(np.clip(level, 0.1, 200.0))


class ExcessNetwork:
    """Runs ``detector.onnx`` in tiles of the hop grid, and keeps its state.

    Parameters
    ----------
    bundle : Bundle
        Bundle with a detector network.
    tile : int
        Rows per call of the network. Results depend on it in their last bits, and
        never on how rows are divided into calls of `push`.

    Raises
    ------
    BundleError
        There is no network, it does not fit, or it does not reproduce its golden
        vectors.
    """

    def __init__(self, bundle: Bundle, tile: int) -> None:
        spec = bundle.manifest.detector_network
        if spec is None:
            raise BundleError(
                f"bundle '{bundle.manifest.name}' has no detector network: name "
                "another one, or train one with `neurovocal train --detector`"
            )
        if spec.n_bands != N_BANDS:
            raise BundleError(
                f"bundle '{bundle.folder}': the detector network has {spec.n_bands} "
                f"bands, this neurovocal makes {N_BANDS}: train it again"
            )
        self.look_ahead = spec.look_ahead
        self.tile = tile
        self._zeros = {
            name: np.zeros(shape, np.float32) for name, shape in spec.state.items()
        }
        states = {name: tuple(shape) for name, shape in spec.state.items()}
        self.graph = Graph(
            bundle,
            spec.file,
            {"levels": (None, spec.n_bands), "scores": (None,), **states},
            {
                "corrections": (None,),
                **{f"{name}_next": shape for name, shape in states.items()},
            },
        )
        golden = Golden(bundle, "levels")
        found = self.graph.try_run(
            {"levels": golden.frames, "scores": golden["scores"], **self._zeros}
        )
        golden.check(self.graph, "corrections", found[0])
        self.reset()

    def reset(self) -> None:
        """Forget all rows; the next ones may begin anywhere."""
        self._state = self._zeros
        self._held = _NO_ROWS  # rows of an unfinished tile
        self._last = _NO_ROWS  # the row received last
        self._unscored = np.empty(0)  # scores of rows without a correction yet
        self._next = 0  # index of the first row that the network has not had
        self._to_skip = self.look_ahead  # outputs that belong to rows before the first

    def push(self, first: int, rows: ScoredRows) -> tuple[int, NDArray[np.float64]]:
        """Return the corrected scores that rows complete.

        Parameters
        ----------
        first : int
            Index of the first row; calls follow each other without holes.
        rows : ScoredRows
            Levels and scores.

        Returns
        -------
        first : int
            Index of the row that the first score belongs to.
        scores : float64[n_scores]
            In dB.
        """
        if len(rows) == 0:
            return first, np.empty(0)
        if len(self._last) == 0:
            self._next = first
        self._last = rows[-1:]
        self._unscored = np.concatenate((self._unscored, rows.scores))
        known = self._held + rows if len(self._held) else rows
        parts, done, at = [], 0, self._next
        while len(known) - done >= (size := self.tile - at % self.tile):
            parts.append(self._run(known[done : done + size]))
            done, at = done + size, at + size
        self._held = known[done:]
        return self._scored(parts)

    def flush(self) -> tuple[int, NDArray[np.float64]]:
        """Return the last scores, as if the last row were repeated; then reset."""
        parts = [self._run(self._held)] if len(self._held) else []
        if len(self._last):
            parts += [self._run(self._last) for _ in range(self.look_ahead)]
        scored = self._scored(parts)
        self.reset()
        return scored

    def _run(self, rows: ScoredRows) -> Float32:
        """Return the network's outputs for rows that follow the ones before."""
        corrections, *states = self.graph.run(
            {
                "levels": finite(rows.levels),
                "scores": rows.scores.astype(np.float32),
                **self._state,
            }
        )
        self._state = {
            name: finite(state) for name, state in zip(self._zeros, states, strict=True)
        }
        return finite(corrections)

    def _scored(self, parts: list[Float32]) -> tuple[int, NDArray[np.float64]]:
        """Return the scores of the rows that outputs belong to."""
        corrections = np.concatenate([np.empty(0, np.float32), *parts])
        self._next += len(corrections)
        skipped = min(self._to_skip, len(corrections))
        self._to_skip -= skipped
        corrections = corrections[skipped:]
        count = len(corrections)
        scores = corrected(self._unscored[:count], corrections)
        self._unscored = self._unscored[count:]
        return self._next - self.look_ahead - count, scores


class ExcessNetworkDetector(ScoredExcessDetector):
    """Detector of segments in the score of `bands`, corrected by a network.

    Parameters
    ----------
    excess : BandExcess
        Bands and noise floors of the stream.
    score : BandScore
        Score of the `bands` detector.
    rules : SegmenterRules
        Thresholds and durations.
    recent : RecentSounds or None
        Makes the rules follow what was found.
    network : ExcessNetwork
        The network.
    """

    def __init__(
        self,
        excess: BandExcess,
        score: BandScore,
        rules: SegmenterRules,
        recent: RecentSounds | None,
        network: ExcessNetwork,
    ) -> None:
        super().__init__(excess, score, rules, "dB, corrected", recent=recent)
        self.latency += (network.tile + network.look_ahead) * excess.hop_length
        self.network = network
        self._usual_db = score.usual_db

    def _begin_anew(self) -> None:
        super()._begin_anew()
        if self.network is not None:
            self.network.reset()

    def _held_back(self) -> list[Mark]:
        assert self.network is not None
        return self._marks_of(*self.network.flush())

    def scored(self, first: int, excess: Float32) -> tuple[int, NDArray[np.float64]]:
        """Return the corrected scores that rows complete, and the row of the first."""
        scores = self._score.push(first, excess)
        assert self.network is not None
        return self.network.push(first, ScoredRows(excess - self._usual_db, scores))
