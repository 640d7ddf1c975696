"""From a segment's summed log-posteriors to a posterior that can be believed."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from neurovocal.engine.contracts.bundle import TypicalSpec
from neurovocal.models.data.frames import FrameSpan

Float64 = NDArray[np.float64]
DecisionRule: TypeAlias = Literal["vote", "last"]


@dataclass(frozen=True, slots=True, eq=False)
class SegmentScores:
    """Segments of known units with the classifier's evidence for each unit.

    Parameters
    ----------
    scores : float64[n_segments, n_units]
        Log-posteriors summed over each segment's frames, or of its last one.
    unit : int64[n_segments]
        The unit that is right; never 0, which is silence.
    """

    scores: Float64
    unit: NDArray[np.int64]

    def posteriors(self, temperature: float) -> Float64:
        """Posterior of every unit but silence, float64[n_segments, n_units - 1]."""
        scaled = self.scores[:, 1:] / temperature
        scaled -= scaled.max(axis=1, keepdims=True)
        weights = np.exp(scaled)
        posteriors: Float64 = weights / weights.sum(axis=1, keepdims=True)
        return posteriors


def log_softmax(logits: NDArray[np.float32]) -> Float64:
    """Log-posteriors of each row, in double precision."""
    scores = logits.astype(np.float64)
    scores -= scores.max(axis=1, keepdims=True)
    scores -= np.log(np.exp(scores).sum(axis=1, keepdims=True))
    return scores


def score_segment(
    log_posteriors: Float64, span: FrameSpan, decision: DecisionRule
) -> Float64:
    """Log-posteriors that decide a segment's label, float64[n_units].

    Parameters
    ----------
    log_posteriors : float64[n_frames, n_units]
    span : FrameSpan
    decision : {'vote', 'last'}
        As in `neurovocal.engine.contracts.bundle.ClassifierSpec`.
    """
    if decision == "last":
        last: Float64 = log_posteriors[span.stop - 1]
        return last
    total: Float64 = log_posteriors[span.first : span.stop].sum(axis=0)
    return total


def collect_scores(
    log_posteriors: list[Float64],
    spans: list[list[FrameSpan]],
    decision: DecisionRule = "vote",
) -> SegmentScores:
    """Evidence for each unit in each of the recordings' segments."""
    return collect_early_scores(log_posteriors, spans, None, decision)


def collect_early_scores(
    log_posteriors: list[Float64],
    spans: list[list[FrameSpan]],
    n_frames: int | None,
    decision: DecisionRule = "vote",
) -> SegmentScores:
    """Evidence after `n_frames` of each segment that lasts longer (None: all)."""
    scores, units = [], []
    for rows, segments in zip(log_posteriors, spans, strict=True):
        for whole in segments:
            span = whole
            if n_frames is not None:
                if whole.stop - whole.first <= n_frames:
                    continue
                span = FrameSpan(whole.first, whole.first + n_frames, whole.unit)
            scores.append(score_segment(rows, span, decision))
            units.append(span.unit)
    width = log_posteriors[0].shape[1] if log_posteriors else 0
    stacked = np.array(scores, np.float64).reshape(len(scores), width)
    return SegmentScores(stacked, np.array(units, np.int64))


def fit_temperature(votes: SegmentScores) -> float:
    """Temperature that makes the right units most likely (Guo et al. 2017).

    Summed log-posteriors take frames as independent, which neighbours are not:
    without a temperature nearly every posterior is 1. The likelihood is concave
    in the inverse temperature; a golden-section search in its logarithm finds
    the maximum between 0.1 and 1000. Few segments without a single mistake have
    no maximum: one pseudo-mistake in 500 segments bounds it.
    """
    if not len(votes.unit):
        return 1.0
    rows = np.arange(len(votes.unit))

    def loss(log_temperature: float) -> float:
        posteriors = votes.posteriors(float(np.exp(log_temperature)))
        right = np.clip(posteriors[rows, votes.unit - 1], 1e-300, 1.0)
        wrong = np.clip(1.0 - right, 1e-300, 1.0)
        return -float(np.log(right).mean() + np.log(wrong).mean() / 500)

    low, high = float(np.log(0.1)), float(np.log(1000.0))
    ratio = (np.sqrt(5.0) - 1) / 2
    for _ in range(60):
        left, right = high - ratio * (high - low), low + ratio * (high - low)
        if loss(left) < loss(right):
            high = right
        else:
            low = left
    return float(np.exp((low + high) / 2))


def fit_thresholds(
    votes: SegmentScores,
    temperature: float,
    names: list[str],
    margin: float,
    cap: float,
) -> dict[str, float]:
    """Per unit, the posterior below which a label is answered with `unknown`.

    A right label of the unit has never been so unlikely on validation data, not
    even `margin` times as unlikely: a sound that is, is another sound. With few
    examples the smallest posterior is an accident, hence the margin and the cap.

    Parameters
    ----------
    votes : SegmentScores
    temperature : float
    names : list of str
        Unit names, silence first.
    margin : float
        Factor on the odds ``p / (1 - p)`` of the least likely right label.
    cap : float
        No threshold is higher.

    Returns
    -------
    dict of str to float
        A unit without a right label on validation data has none.
    """
    posteriors = votes.posteriors(temperature)
    thresholds = {}
    for unit, name in enumerate(names[1:]):
        chosen = votes.unit == unit + 1
        own = posteriors[chosen, unit]
        right = own[posteriors[chosen].argmax(axis=1) == unit]
        if not len(right):
            continue
        lowest = min(float(right.min()), 1 - 1e-9)
        odds = lowest / (1 - lowest) / margin
        thresholds[name] = round(min(odds / (1 + odds), cap), 4)
    return thresholds


def fit_typical_segments(
    log_posteriors: Iterable[Float64],
    spans: list[list[FrameSpan]],
    names: list[str],
    duration_margin: float,
    agreement_margin: float,
    decision: DecisionRule = "vote",
) -> dict[str, TypicalSpec]:
    """What annotated segments of each unit are like.

    Limits lie `duration_margin` and `agreement_margin` times beyond the 2nd and 98th
    percentiles: an odd annotation does not widen them.

    Parameters
    ----------
    log_posteriors : iterable of float64[n_frames, n_units]
    spans : list of list of FrameSpan
        Segments of each recording.
    names : list of str
        Unit names, silence first.
    duration_margin, agreement_margin : float
        At least 1.
    decision : {'vote', 'last'}

    Returns
    -------
    dict of str to TypicalSpec
        Of the units that occur.
    """
    lengths: dict[int, list[int]] = {}
    means: dict[int, list[float]] = {}
    for rows, segments in zip(log_posteriors, spans, strict=True):
        for span in segments:
            n = span.stop - span.first
            score = float(score_segment(rows, span, decision)[span.unit])
            lengths.setdefault(span.unit, []).append(n)
            means.setdefault(span.unit, []).append(
                score / n if decision == "vote" else score
            )
    typical = {}
    for unit in sorted(lengths):
        low, high = np.percentile(lengths[unit], [2, 98])
        agreement = agreement_margin * float(np.percentile(means[unit], 2))
        typical[names[unit]] = TypicalSpec(
            shortest=int(low / duration_margin),
            longest=int(np.ceil(high * duration_margin)),
            agreement=round(min(agreement, 0.0), 3),
        )
    return typical
