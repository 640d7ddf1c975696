"""Options of the `excess` detector, fitted to annotated stretches of recordings.

The band comes from the spectrum of the examples, the frame from their duration; the
thresholds, the forward mask and the durations come from a coordinate search. Band
levels are computed once, and each try runs the detector's own pooling, mask and
segmenter over them: what is fitted is what will run, causally.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neurovocal.engine.audio.segmenter import Segmenter
from neurovocal.engine.contracts.types import Block, Float32, Offset
from neurovocal.models.toolkit.progress import ProgressCallback
from neurovocal.models.toolkit.segment_scores import score_onsets, score_overlaps
from neurovocal.models.tuning.search import CoordinateSearch, Values
from neurovocal.plugins.detectors.band_excess import BandExcess, FloorOptions
from neurovocal.plugins.detectors.band_level import default_band
from neurovocal.plugins.detectors.excess import (
    BandPool,
    ExcessOptions,
    ForwardMask,
    Pool,
    bands_in_use,
)

Span = tuple[float, float]

# A frame is this part of the median duration, within limits (ms); its hop a quarter.
_FRAMES_IN_CALL = 10
_LEAST_FRAME_MS, _MOST_FRAME_MS = 0.5, 10.0
_MOST_NARROWBAND_FRAME_MS, _NARROWBAND_RATE = 20.0, 5000
_LEAST_FRAME_SAMPLES = 16
# Bands of this share of the largest excess of the examples, in dB, are theirs.
_BAND_SHARE = 0.25
# Costs of values that are further from the usual ones than the examples ask for, in
# units of F1 per factor of two: one example leaves nearly everything at its start.
_STRENGTH = 0.02
# On-thresholds beyond this share of the examples' usual peak cost much: the next calls
# will be fainter.
_SHARE_OF_PEAK = 0.6
_USUAL_ON_DB: dict[Pool, float] = {"power": 8.0, "level": 6.0}
_USUAL_BELOW_DB = 2.0
_USUAL_MASK_DB, _USUAL_DECAY = 16.0, 400.0
_ROUNDS = 3
_LEAST_NOISE_S = 0.05


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


@dataclass(frozen=True, slots=True)
class Fit:
    """Detector that was fitted to examples.

    Parameters
    ----------
    options : dict
        Options of the `excess` detector that differ from its defaults.
    found : list of list of (float, float)
        Segments of each stretch in seconds, where the annotation is complete.
    peaks_db : list of list of float
        Highest score in each example.
    noise_db : float
        Median score of the sound outside of the examples.
    """

    options: dict[str, Any]
    found: list[list[Span]]
    peaks_db: list[list[float]]
    noise_db: float


def fit(
    stretches: Sequence[Stretch],
    on_progress: ProgressCallback = lambda share, note: None,
) -> Fit:
    """Fit the `excess` detector to the examples in stretches of one sample rate.

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
    heard, common, duration_s = _prepare(stretches)
    tries = []
    for number, pool in enumerate(_USUAL_ON_DB):
        tries.append(_Try(heard, common | {"pool": pool}, duration_s))

        def tell(share: float, number: int = number) -> None:
            on_progress((number + share) / len(_USUAL_ON_DB), "")

        tries[-1].search(tell)
    best = min(tries, key=lambda each: each.cost)
    return best.fit()


def peaks_of(stretches: Sequence[Stretch]) -> tuple[list[list[float]], float]:
    """Return the highest score in each example, and the median of other sound, in dB.

    Without a search: by the band of the examples and the pooling of powers.

    Parameters
    ----------
    stretches : sequence of Stretch
        As for `fit`, which raises the same error.
    """
    heard, common, duration_s = _prepare(stretches)
    tried = _Try(heard, common | {"pool": "power"}, duration_s)
    return tried.peaks_db, tried.noise_db


def _prepare(
    stretches: Sequence[Stretch],
) -> tuple[list["_Heard"], dict[str, Any], float]:
    """Return band levels, the options that need no search, and the median duration."""
    durations = [stop - start for s in stretches for start, stop in s.spans]
    duration_s = float(np.median(durations))
    common = _frames(duration_s, stretches[0].sample_rate)
    common |= _lowest_edge(stretches, common)
    common["floor_db"] = _floor(stretches, common)
    common["floor_rate"] = stretches[0].sample_rate
    heard = [_Heard(stretch, common) for stretch in stretches]
    return heard, common | _call_band(heard), duration_s


def _frames(duration_s: float, sample_rate: int) -> dict[str, Any]:
    """Return frame and hop in ms for calls of a duration."""
    most = _MOST_FRAME_MS
    if sample_rate < _NARROWBAND_RATE:
        most = _MOST_NARROWBAND_FRAME_MS
    least = max(_LEAST_FRAME_MS, 1000 * _LEAST_FRAME_SAMPLES / sample_rate)
    frame_ms = max(least, min(1000 * duration_s / _FRAMES_IN_CALL, most))
    hop_ms = max(frame_ms / 4, 1000 / sample_rate)
    return {"frame_ms": _rounded(frame_ms), "hop_ms": _rounded(hop_ms)}


def _rounded(value: float, digits: int = 3) -> float:
    return float(f"{value:.{digits}g}")


def _lowest_edge(
    stretches: Sequence[Stretch], common: dict[str, Any]
) -> dict[str, Any]:
    """Return a lower `low_hz` than the default if the examples are loudest below it."""
    rate = stretches[0].sample_rate
    default = default_band(rate)[0]
    low = _rounded(2000 / common["frame_ms"])
    if low >= default:
        return {}
    options = common | {"low_hz": low}
    options["floor_db"] = _floor(stretches, options)
    heard = [_Heard(stretch, options) for stretch in stretches]
    profile, edges = _profile(heard), heard[0].edges_hz
    loudest = int(np.argmax(profile))
    return {"low_hz": low} if edges[loudest + 1] <= default else {}


def _floor(stretches: Sequence[Stretch], common: dict[str, Any]) -> tuple[float, ...]:
    """Return the noise floor between the examples, or below them if there is none."""
    excess = BandExcess(FloorOptions(**common), stretches[0].sample_rate)
    hop, frame = excess.hop_length, excess.frame_length
    quiet, loud = [], []
    for stretch in stretches:
        levels = excess.levels(stretch.samples)
        times = np.arange(len(levels)) * hop + frame / 2
        is_example = np.zeros(len(levels), bool)
        for start, stop in stretch.spans:
            first, last = (at * stretch.sample_rate for at in (start, stop))
            is_example |= (times >= first - frame) & (times < last + frame)
        quiet.append(levels[~is_example])
        loud.append(levels)
    between = np.concatenate(quiet)
    if len(between) * hop < _LEAST_NOISE_S * stretches[0].sample_rate:
        between = np.concatenate(loud)
    if len(between) == 0:
        raise ValueError("too short to hold a frame")
    return excess.floor_of(between)


class _Heard:
    """Band levels of a stretch above their floors, and which hops are examples."""

    def __init__(self, stretch: Stretch, common: dict[str, Any]) -> None:
        excess = BandExcess(FloorOptions(**common), stretch.sample_rate)
        _, rows = excess.push(Block(0, stretch.samples[:, None]))
        _, rest = excess.flush()
        self.stretch = stretch
        self.rows = np.concatenate((rows, rest))
        self.edges_hz, self.cells = excess.edges_hz, excess.cells
        self.hop, self.origin = (
            excess.hop_length,
            (excess.frame_length - excess.hop_length) // 2,
        )
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

    def judge(self, found: Sequence[Span]) -> list[Span]:
        """Return the segments that begin where the annotation is complete."""
        return [
            span
            for span in found
            if any(start <= span[0] < stop for start, stop in self.stretch.judged)
        ]


def _profile(heard: Sequence[_Heard]) -> NDArray[np.float64]:
    """Return the mean excess of the examples in each band, each at its loud moments."""
    levels = [
        np.quantile(each.rows[hops], 0.75, axis=0)
        for each in heard
        for hops in each.of_example
        if len(each.rows[hops])
    ]
    return np.asarray(np.mean(levels, axis=0))


def _call_band(heard: Sequence[_Heard]) -> dict[str, Any]:
    """Return the edges of the bands in which the examples are heard."""
    profile, edges = _profile(heard), heard[0].edges_hz
    if profile.max() <= 0:
        return {}
    loud = np.flatnonzero(profile >= _BAND_SHARE * profile.max())
    first, last = int(loud[0]), int(loud[-1])
    found = {}
    if first > 0:
        found["call_low_hz"] = _rounded(edges[first], 4)
    if last < len(profile) - 1:
        found["call_high_hz"] = _rounded(edges[last + 1], 4)
    return found


class _Try:
    """Search with one way of pooling."""

    def __init__(
        self, heard: Sequence[_Heard], common: dict[str, Any], duration_s: float
    ) -> None:
        self._heard, self._common = heard, common
        self._pool: Pool = common["pool"]
        options = ExcessOptions(**common)
        bands = bands_in_use(options, heard[0].edges_hz)
        pool = BandPool(bands, heard[0].cells, self._pool)
        self._scores = [pool(each.rows) for each in heard]
        self.peaks_db = [
            [float(scores[hops].max(initial=0.0)) for hops in each.of_example]
            for each, scores in zip(heard, self._scores, strict=True)
        ]
        outside = [
            scores[each.is_outside]
            for each, scores in zip(heard, self._scores, strict=True)
        ]
        noise = np.concatenate(outside)
        self.noise_db = float(np.median(noise)) if len(noise) else 0.0
        self._peak_db = float(np.median(np.concatenate(self.peaks_db)))
        duration_ms = 1000 * duration_s
        self._usual: Values = {
            "on_db": _USUAL_ON_DB[self._pool],
            "below_db": _USUAL_BELOW_DB,
            "gap_fill_ms": _rounded(min(0.1 * duration_ms, 6.0)),
            "min_duration_ms": _rounded(min(0.2 * duration_ms, 20.0)),
            "mask_db": _USUAL_MASK_DB,
            "mask_db_per_s": _USUAL_DECAY,
        }
        self._fixed = {
            "lookback_ms": _rounded(min(0.5 * duration_ms, 50.0)),
            "max_duration_ms": _rounded(max(5000.0, 10 * duration_ms)),
        }
        self._tolerance_s = max(0.002, min(0.2 * duration_s, 0.03))
        self._search = CoordinateSearch(self._measure)
        self.best = self._usual

    @property
    def cost(self) -> float:
        """Cost of the best options so far."""
        return self._search.cost(self.best)

    def search(self, on_progress: Callable[[float], None]) -> None:
        """Search from a few starting points."""
        usual = self._usual
        highest = max(self._peak_db, 5.0)
        on_db = {*np.arange(3.0, 13.0), *np.linspace(0.15, 0.8, 10) * highest}
        candidates: dict[str, Sequence[Any]] = {
            "on_db": sorted({max(2.0, round(float(value), 1)) for value in on_db}),
            "below_db": (1.0, 2.0, 4.0, 8.0),
            "gap_fill_ms": [_rounded(f * usual["gap_fill_ms"]) for f in (0.5, 1, 2, 4)],
            "min_duration_ms": [
                _rounded(f * usual["min_duration_ms"]) for f in (0.5, 1, 2)
            ],
            "mask_db": (None, 10.0, 16.0, 22.0),
            "mask_db_per_s": (100.0, 400.0, 1600.0, 6400.0),
        }
        starts = [
            usual,
            usual | {"on_db": max(2.0, round(self._peak_db / 2, 1))},
            usual | {"mask_db": None},
        ]
        found = []
        for number, start in enumerate(starts):
            found.append(self._search.run(start, candidates, _ROUNDS))
            on_progress((number + 1) / len(starts))
        self.best = min(found, key=self._search.cost)

    def fit(self) -> Fit:
        """Return the best options, and what they find."""
        options = ExcessOptions(**self._all_options(self.best))
        return Fit(
            options.model_dump(exclude_defaults=True),
            [
                each.judge(self._segments(each, scores, options))
                for each, scores in zip(self._heard, self._scores, strict=True)
            ],
            self.peaks_db,
            self.noise_db,
        )

    def _all_options(self, values: Values) -> dict[str, Any]:
        rest = {name: value for name, value in values.items() if name != "below_db"}
        off_db = max(1.0, round(values["on_db"] - values["below_db"], 1))
        return {**self._common, **self._fixed, **rest, "off_db": off_db}

    def _measure(self, values: Values) -> float:
        """Return the errors of options and what they cost beside the usual ones."""
        options = ExcessOptions(**self._all_options(values))
        onsets = overlaps = None
        for each, scores in zip(self._heard, self._scores, strict=True):
            found = each.judge(self._segments(each, scores, options))
            spans = each.stretch.spans
            one = score_onsets(spans, found, self._tolerance_s)
            other = score_overlaps(spans, found, 0.5)
            onsets = one if onsets is None else onsets + one
            overlaps = other if overlaps is None else overlaps + other
        assert onsets is not None
        assert overlaps is not None
        error = 1.0 - (onsets.f1 + overlaps.f1) / 2
        return error + _STRENGTH * self._distance(values)

    def _distance(self, values: Values) -> float:
        """Return how far values are from the usual ones, in factors of two."""
        usual = self._usual

        def octaves(name: str) -> float:
            return abs(float(np.log2(values[name] / usual[name])))

        durations = octaves("gap_fill_ms") + octaves("min_duration_ms")
        mask = values["mask_db"]
        masking = 1.0 if mask is None else abs(mask - _USUAL_MASK_DB) / 8
        masking += abs(float(np.log10(values["mask_db_per_s"] / _USUAL_DECAY))) / 2
        share = values["on_db"] / max(self._peak_db, 1.0)
        beyond = max(0.0, share - _SHARE_OF_PEAK) / 0.05
        levels = octaves("on_db") + octaves("below_db") / 2
        return float(levels + durations / 2 + masking + beyond)

    def _segments(
        self, heard: _Heard, scores: NDArray[np.float64], options: ExcessOptions
    ) -> list[Span]:
        """Return the segments of a stretch, by the detector's own parts."""
        rate = heard.stretch.sample_rate
        mask = ForwardMask(options.mask_db, options.mask_db_per_s * heard.hop / rate)
        rules = options.rules(options.on_db, options.off_db, rate)
        segmenter = Segmenter(rules, heard.hop, heard.origin)
        segmenter.begin(0)
        marks = segmenter.process(0, mask(0, scores))
        marks += segmenter.close(len(heard.stretch.samples))
        return [
            (mark.onset / rate, mark.sample / rate)
            for mark in marks
            if isinstance(mark, Offset)
        ]
