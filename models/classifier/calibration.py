"""Calibration of segment posteriors: temperature, thresholds, typical segments."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from neurovocal.engine.contracts.bundle import TypicalSpec
from neurovocal.models.data.targets import FrameSpan
from neurovocal.models.toolkit.measures import Float64

DecisionRule: TypeAlias = Literal["vote", "last"]


@dataclass(frozen=True, slots=True, eq=False)
class SegmentScores:
    """Annotated segments with the classifier's score of each unit.

    Parameters
    ----------
    scores : float64[n_segments, n_units]
        Log-posteriors summed over the frames of each segment, or those of its last
        frame.
    unit : int64[n_segments]
        Annotated unit; never 0, which is silence.
    """

    scores: Float64
    unit: NDArray[np.int64]

    def posteriors(self, temperature: float) -> Float64:
        """Return the posteriors without silence, float64[n_segments, n_units - 1]."""
        scaled = self.scores[:, 1:] / temperature
        scaled -= scaled.max(axis=1, keepdims=True)
        weights = np.exp(scaled)
        posteriors: Float64 = weights / weights.sum(axis=1, keepdims=True)
        return posteriors


def log_softmax(logits: NDArray[np.float32]) -> Float64:
    """Return the log-posteriors of each row of logits in double precision."""
    scores = logits.astype(np.float64)
    scores -= scores.max(axis=1, keepdims=True)
    scores -= np.log(np.exp(scores).sum(axis=1, keepdims=True))
    return scores


def score_segment(
    log_posteriors: Float64, span: FrameSpan, rule: DecisionRule
) -> Float64:
    """Return the scores that decide a segment's label, float64[n_units].

    Parameters
    ----------
    log_posteriors : float64[n_frames, n_units]
        Log-posteriors of a recording.
    span : FrameSpan
        Frames of the segment.
    rule : {'vote', 'last'}
        Sum over the segment's frames, or its last frame, as
        `neurovocal.engine.contracts.bundle.ClassifierSpec.decision`.
    """
    if rule == "last":
        last: Float64 = log_posteriors[span.stop - 1]
        return last
    total: Float64 = log_posteriors[span.first : span.stop].sum(axis=0)
    return total


def collect_scores(
    log_posteriors: list[Float64],
    spans: list[list[FrameSpan]],
    rule: DecisionRule = "vote",
) -> SegmentScores:
    """Collect the scores of all segments of all recordings."""
    return collect_early_scores(log_posteriors, spans, None, rule)


def collect_early_scores(
    log_posteriors: list[Float64],
    spans: list[list[FrameSpan]],
    n_frames: int | None,
    rule: DecisionRule = "vote",
) -> SegmentScores:
    """Collect the scores of the first `n_frames` of each longer segment.

    Segments that are not longer are left out; None collects whole segments.
    """
    scores, units = [], []
    for rows, segments in zip(log_posteriors, spans, strict=True):
        for whole in segments:
            span = whole
            if n_frames is not None:
                if whole.stop - whole.first <= n_frames:
                    continue
                span = FrameSpan(whole.first, whole.first + n_frames, whole.unit)
            scores.append(score_segment(rows, span, rule))
            units.append(span.unit)
    width = log_posteriors[0].shape[1] if log_posteriors else 0
    stacked = np.array(scores, np.float64).reshape(len(scores), width)
    return SegmentScores(stacked, np.array(units, np.int64))


def fit_temperature(segments: SegmentScores) -> float:
    """Fit the temperature of greatest likelihood (Guo et al. 2017); 1 if no segments.

    Summed log-posteriors assume independent frames, but neighbours depend on each
    other: without a temperature nearly every posterior is 1. The likelihood is
    concave in the inverse temperature; a golden-section search in its logarithm
    finds the maximum between 0.1 and 1000. Segments without any error have no
    maximum: one pseudo-error in 500 segments bounds it.
    """
    if not len(segments.unit):
        return 1.0
    rows = np.arange(len(segments.unit))

    def loss(log_temperature: float) -> float:
        posteriors = segments.posteriors(float(np.exp(log_temperature)))
        correct = np.clip(posteriors[rows, segments.unit - 1], 1e-300, 1.0)
        wrong = np.clip(1.0 - correct, 1e-300, 1.0)
        return -float(np.log(correct).mean() + np.log(wrong).mean() / 500)

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
    segments: SegmentScores,
    temperature: float,
    names: list[str],
    margin: float,
    cap: float,
) -> dict[str, float]:
    """Fit the posterior of each unit below which a label becomes `unknown`.

    A threshold lies below the smallest posterior of a correct label on validation
    data. With few examples this minimum is uncertain, hence the margin and the cap.

    Parameters
    ----------
    segments : SegmentScores
        Segments of the validation recordings.
    temperature : float
        Temperature of the posteriors.
    names : list of str
        Unit names, silence first.
    margin : float
        Divisor of the odds ``p / (1 - p)`` of the least likely correct label.
    cap : float
        Largest threshold.

    Returns
    -------
    dict of str to float
        Thresholds of the units that have a correct label on validation data.
    """
    posteriors = segments.posteriors(temperature)
    thresholds = {}
    for unit, name in enumerate(names[1:]):
        chosen = segments.unit == unit + 1
        own = posteriors[chosen, unit]
        correct = own[posteriors[chosen].argmax(axis=1) == unit]
        if not len(correct):
            continue
        lowest = min(float(correct.min()), 1 - 1e-9)
        odds = lowest / (1 - lowest) / margin
        thresholds[name] = round(min(odds / (1 + odds), cap), 4)
    return thresholds


def fit_typical_segments(
    log_posteriors: Iterable[Float64],
    spans: list[list[FrameSpan]],
    names: list[str],
    duration_margin: float,
    agreement_margin: float,
    rule: DecisionRule = "vote",
) -> dict[str, TypicalSpec]:
    """Fit the limits of duration and agreement of annotated segments of each unit.

    Limits lie `duration_margin` and `agreement_margin` times beyond the 2nd and 98th
    percentiles, so that single odd annotations do not widen them.

    Parameters
    ----------
    log_posteriors : iterable of float64[n_frames, n_units]
        Log-posteriors of each recording.
    spans : list of list of FrameSpan
        Segments of each recording.
    names : list of str
        Unit names, silence first.
    duration_margin, agreement_margin : float
        Factors of the percentiles, at least 1.
    rule : {'vote', 'last'}
        Sum over a segment's frames, or its last frame.

    Returns
    -------
    dict of str to TypicalSpec
        Limits of the units that occur.
    """
    lengths: dict[int, list[int]] = {}
    means: dict[int, list[float]] = {}
    for rows, segments in zip(log_posteriors, spans, strict=True):
        for span in segments:
            n = span.stop - span.first
            score = float(score_segment(rows, span, rule)[span.unit])
            lengths.setdefault(span.unit, []).append(n)
            means.setdefault(span.unit, []).append(
                score / n if rule == "vote" else score
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
