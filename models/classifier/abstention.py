"""Choice of when a label is `unknown`, by what wrong names and no names cost.

Of the labels of detected segments in recordings that were left out of the training, a
wrong name costs `c`, no name where a syllable is costs 1, and a name where no
vocalization is costs `c`. So `unknown` costs 1 in place of a right name, and saves
`c - 1` in place of a wrong one and `c` in place of a false alarm.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from neurovocal.engine.contracts.bundle import ClassifierSpec, TypicalSpec
from neurovocal.models.toolkit.measures import Float64

# Margins of duration and agreement that are tried, as multiples of the least ones.
_WIDER = (1.0, 1.5, 2.0, 5.0, math.inf)
_MOST_ODDS = 1e9


@dataclass(frozen=True, slots=True, eq=False)
class NamedSegments:
    """Detected segments with the likeliest unit of each, and what was annotated.

    Segments that have voted for silence, or lie under a label that is no unit, are
    left out.

    Parameters
    ----------
    unit : int64[n_segments]
        Likeliest unit, never 0.
    posterior : float64[n_segments]
        Its posterior.
    true : int64[n_segments]
        Annotated unit under the middle; 0 where nothing is annotated.
    n_frames : int64[n_segments]
        Frames of the segment.
    agreement : float64[n_segments]
        Mean log-posterior of the likeliest unit.
    """

    unit: NDArray[np.int64]
    posterior: Float64
    true: NDArray[np.int64]
    n_frames: NDArray[np.int64]
    agreement: Float64

    @classmethod
    def of(cls, rows: Sequence[tuple[int, float, int, int, float]]) -> "NamedSegments":
        """Make columns of rows of unit, posterior, true unit, frames and agreement."""
        table = np.array(rows, np.float64).reshape(len(rows), 5)
        whole = table.astype(np.int64)
        return cls(whole[:, 0], table[:, 1], whole[:, 2], whole[:, 3], table[:, 4])

    def savings(self, cost: float) -> Float64:
        """Return what `unknown` saves in place of each name, float64[n_segments]."""
        wrong = np.where(self.true == 0, cost, cost - 1)
        saved: Float64 = np.where(self.unit == self.true, -1.0, wrong)
        return saved


def choose_threshold(segments: NamedSegments, cost: float, margin: float) -> float:
    """Choose the posterior below which a name costs more than none, for all units.

    Parameters
    ----------
    segments : NamedSegments
        Segments of recordings that were left out.
    cost : float
        What a wrong name costs against no name.
    margin : float
        Where no threshold saves anything, its odds ``p / (1 - p)`` are this many times
        below those of the least likely right name.

    Returns
    -------
    float
        Threshold; 0 without segments.
    """
    if not len(segments.unit):
        return 0.0
    order = np.argsort(segments.posterior, kind="stable")
    saved = np.cumsum(segments.savings(cost)[order])
    odds = _odds(segments.posterior[order])
    best = int(saved.argmax())
    if saved[best] <= 0:
        right = segments.unit == segments.true
        lowest = _odds(segments.posterior[right]).min() if right.any() else odds[-1]
        return _posterior(float(lowest) / margin)
    last, following = odds[best], odds[min(best + 1, len(odds) - 1)]
    return _posterior(float(np.sqrt(last * following)))


def choose_thresholds(
    segments: NamedSegments, names: Sequence[str], cost: float, margin: float
) -> dict[str, float]:
    """Choose the threshold of each unit: that of all units, or a higher one for free.

    A unit's own threshold has odds that are `margin` times below those of the least
    likely right name of the unit that is kept, so that it loses none of them. It
    rejects other animals and noises, which are in no cross-validation.

    Parameters
    ----------
    segments : NamedSegments
        Segments of recordings that were left out.
    names : sequence of str
        Unit names, silence first.
    cost : float
        What a wrong name costs against no name.
    margin : float
        As of `choose_threshold`.
    """
    shared = choose_threshold(segments, cost, margin)
    right = (segments.unit == segments.true) & (segments.posterior >= shared)
    thresholds = {}
    for unit, name in enumerate(names[1:], start=1):
        kept = segments.posterior[right & (segments.unit == unit)]
        own = _posterior(float(_odds(kept).min()) / margin) if len(kept) else 0.0
        thresholds[name] = max(shared, own)
    return thresholds


def choose_typical(
    segments: NamedSegments,
    names: Sequence[str],
    cost: float,
    fit: Callable[[float, float], dict[str, TypicalSpec]],
    least: tuple[float, float],
) -> dict[str, TypicalSpec]:
    """Choose the margins of typical segments that cost least, the narrowest of equals.

    Parameters
    ----------
    segments : NamedSegments
        Segments of recordings that were left out.
    names : sequence of str
        Unit names, silence first.
    cost : float
        What a wrong name costs against no name.
    fit : callable
        Maps a margin of duration and one of agreement to limits by unit.
    least : (float, float)
        Narrowest margins.
    """
    saved = segments.savings(cost)
    duration, agreement = least
    durations = [duration * f for f in _WIDER if math.isfinite(f)] + [1e6]
    agreements = [agreement * f for f in _WIDER if math.isfinite(f)] + [1e6]

    def total(both: tuple[float, float]) -> float:
        return -float(saved[_untypical(segments, names, fit(*both))].sum())

    # One after the other: the two rules seldom reject the same segments.
    duration = min(durations, key=lambda d: total((d, 1e6)))
    agreement = min(agreements, key=lambda a: total((duration, a)))
    return fit(duration, agreement)


def _untypical(
    segments: NamedSegments, names: Sequence[str], typical: dict[str, TypicalSpec]
) -> NDArray[np.bool_]:
    """Return which segments limits reject, bool[n_segments]."""
    rejected = np.zeros(len(segments.unit), bool)
    for unit, name in enumerate(names):
        limits = typical.get(name)
        if limits is None:
            continue
        n, own = segments.n_frames, segments.unit == unit
        fits = (limits.shortest <= n) & (n <= limits.longest)
        rejected |= own & (~fits | (segments.agreement < limits.agreement))
    return rejected


def accepted(segments: NamedSegments, spec: ClassifierSpec) -> NamedSegments:
    """Select the segments that are typical of their unit."""
    kept = ~_untypical(segments, spec.units, spec.typical)
    return NamedSegments(
        segments.unit[kept],
        segments.posterior[kept],
        segments.true[kept],
        segments.n_frames[kept],
        segments.agreement[kept],
    )


def _odds(posterior: Float64) -> Float64:
    bounded: Float64 = np.minimum(posterior, 1 - 1 / _MOST_ODDS)
    odds: Float64 = bounded / (1 - bounded)
    return odds


def _posterior(odds: float) -> float:
    return round(odds / (1 + odds), 4)
