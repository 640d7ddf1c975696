"""Detector and options with the fewest errors on annotated stretches of recordings.

The detectors of `families` are searched, each coordinate by coordinate. Five examples
cannot tell many options apart: values far from the usual ones, which are known to hold
for many animals, cost the more the fewer examples there are.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from neurovocal.models.toolkit.progress import ProgressCallback
from neurovocal.models.toolkit.segment_scores import (
    SegmentScore,
    score_onsets,
    score_overlaps,
    score_segments,
)
from neurovocal.models.tuning.families import BandsFamily, EnergyFamily, Family
from neurovocal.models.tuning.heard import (
    Span,
    Stretch,
    frames_of_duration,
    lowest_edge,
)
from neurovocal.models.tuning.search import CoordinateSearch, Values

# Cost of an option's value that is one step from the usual one, in units of F1, with
# one example; with n examples it is this / n.
_STRENGTH = 0.1
# The same of a threshold for each 5 % beyond this share of the examples' usual peak:
# the next calls will be fainter.
_SHARE_OF_PEAK, _PEAK_STEP = 0.6, 0.05
# The errors are a mean over recordings that are so much louder and quieter, too.
_GAINS_DB = ((0.0, 0.5), (-2.0, 0.25), (2.0, 0.25))
# Weights of onset, overlap, and both ends; and of the distance of the ends.
_WEIGHTS = 0.4, 0.4, 0.2
_ENDS_WEIGHT = 0.3
_ROUNDS = 3


@dataclass(frozen=True, slots=True)
class Fit:
    """Detector that was fitted to examples.

    Parameters
    ----------
    plugin : str
        Name of the detector.
    options : dict
        Its options that differ from its defaults.
    found : list of list of (float, float)
        Segments of each stretch in seconds, where the annotation is complete.
    peaks_db : list of list of float
        Highest score in each example, of the untuned `bands` detector.
    noise_db : float
        Median score of the sound outside of the examples.
    """

    plugin: str
    options: dict[str, Any]
    found: list[list[Span]]
    peaks_db: list[list[float]]
    noise_db: float


def fit(
    stretches: Sequence[Stretch],
    on_progress: ProgressCallback = lambda share, note: None,
) -> Fit:
    """Fit a detector to the examples in stretches of one sample rate.

    Parameters
    ----------
    stretches : sequence of Stretch
        With at least one example in all.
    on_progress : callable
        Receives the share that is done.

    Raises
    ------
    ValueError
        The stretches are digitally silent, or too short to hold a frame.
    """
    durations = [stop - start for s in stretches for start, stop in s.spans]
    duration_s = float(np.median(durations))
    rate = stretches[0].sample_rate
    frames = frames_of_duration(duration_s, rate)
    low = lowest_edge(stretches, frames)
    usual = BandsFamily(stretches, duration_s, low)
    families: list[Family] = [
        usual,
        BandsFamily(stretches, duration_s, frames | low),
        EnergyFamily(stretches, duration_s, low.get("low_hz"), usual.call_band),
    ]
    tolerance_s = max(0.002, min(0.2 * duration_s, 0.03))
    tries = []
    for number, family in enumerate(families):
        tries.append(_Try(stretches, family, tolerance_s, len(durations)))
        on_progress((number + 1) / len(families), "")
    best = min(tries, key=lambda each: each.cost)
    return Fit(
        best.family.plugin,
        _told(best.family, best.values),
        [
            stretch.judge(found)
            for stretch, found in zip(
                stretches, best.family.segments(best.values), strict=True
            )
        ],
        usual.peaks_db,
        usual.noise_db,
    )


def _told(family: Family, values: Values) -> dict[str, Any]:
    return family.checked(values).model_dump(exclude_defaults=True)


class _Try:
    """Best values of one detector."""

    def __init__(
        self,
        stretches: Sequence[Stretch],
        family: Family,
        tolerance_s: float,
        n_examples: int,
    ) -> None:
        self.family = family
        self._stretches = stretches
        self._tolerance_s = tolerance_s
        self._price = _STRENGTH / n_examples
        self._errors: dict[tuple[tuple[str, Any], ...], float] = {}
        search = CoordinateSearch(self._cost)
        usual = family.usual
        starts = [usual, usual | {"on_db": float(max(2, round(family.peak_db / 2)))}]
        found = [search.run(start, family.candidates, _ROUNDS) for start in starts]
        self.values = min(found, key=search.cost)
        self.cost = search.cost(self.values)

    def _cost(self, values: Values) -> float:
        """Return the errors of values, and the price of their distance."""
        on_db = values["on_db"]
        errors = [
            weight * self._error(values | {"on_db": max(0.1, round(on_db - gain, 1))})
            for gain, weight in _GAINS_DB
        ]
        share = on_db / max(self.family.peak_db, 1.0)
        beyond = max(0.0, share - _SHARE_OF_PEAK) / _PEAK_STEP
        price = self._price * (self.family.distance(values) + beyond)
        return float(sum(errors) + price)

    def _error(self, values: Values) -> float:
        """Return the errors of values, from 0 to 1.3; measured once."""
        key = tuple(sorted(values.items()))
        if key not in self._errors:
            self._errors[key] = self._measure(values)
        return self._errors[key]

    def _measure(self, values: Values) -> float:
        scores = [SegmentScore(0, 0, 0)] * 3
        ends: list[float] = []
        every = self.family.segments(values)
        for stretch, segments in zip(self._stretches, every, strict=True):
            found, spans = stretch.judge(segments), stretch.spans
            scores = [
                scores[0] + score_onsets(spans, found, self._tolerance_s),
                scores[1] + score_overlaps(spans, found, 0.5),
                scores[2] + score_segments(spans, found, self._tolerance_s / 2),
            ]
            ends += _distances(spans, found, 2 * self._tolerance_s)
        agreed = sum(w * each.f1 for w, each in zip(_WEIGHTS, scores, strict=True))
        return 1.0 - agreed + _ENDS_WEIGHT * float(np.mean(ends or [0.0]))


def _distances(
    spans: Sequence[Span], found: Sequence[Span], most_s: float
) -> list[float]:
    """Return how far both ends of found examples are away, as shares of a distance."""
    shares = []
    for start, stop in spans:
        apart = [
            abs(onset - start) + abs(offset - stop)
            for onset, offset in found
            if onset < stop and offset > start
        ]
        if apart:
            shares.append(min(1.0, min(apart) / most_s))
    return shares
