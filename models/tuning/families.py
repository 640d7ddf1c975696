"""Detectors that may be fitted to examples: what their options find in stretches.

Levels of the stretches are computed once; each try runs the detector's own score and
segmenter over them: what is fitted is what will run, causally.
"""

from collections.abc import Sequence
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from neurovocal.engine.audio.segmenter import Segmenter, SegmenterOptions
from neurovocal.engine.contracts.types import Block, Float32, Mark, Offset
from neurovocal.models.tuning.heard import (
    HeardStretch,
    Span,
    Stretch,
    call_band,
    floor_between,
    rounded,
)
from neurovocal.models.tuning.search import Values
from neurovocal.plugins.detectors.band_level import EDGE
from neurovocal.plugins.detectors.bands import BandsOptions, band_score, recent_sounds
from neurovocal.plugins.detectors.energy import (
    EnergyOptions,
    band_level,
    hop_length,
    relative_level,
)

# A narrowed band is wider than the examples by this factor, at both ends.
_MARGIN = 1.1
_LEAST_PEAK_DB = 5.0
_LEAST_NOISE_S = 0.05
_LEAST_POWER = 1e-14
# A threshold so much lower, or higher, is as far as another option's value: higher is
# further, because the next calls will be fainter, and annotators leave out faint ones.
_LOWER_DB, _HIGHER_DB = 3.0, 1.5
_LONGEST_MS = 60.0  # of the shortest duration and of the pauses that are filled


class Family(Protocol):
    """A detector with options to be fitted.

    Attributes
    ----------
    plugin : str
        Its name.
    usual : dict
        Values that it has without examples.
    candidates : dict
        Values that are tried for each option.
    peak_db : float
        Median of the examples' highest scores.
    """

    plugin: ClassVar[str]
    usual: Values
    candidates: dict[str, Sequence[Any]]
    peak_db: float

    def checked(self, values: Values) -> SegmenterOptions:
        """Return the options of the detector."""

    def segments(self, values: Values) -> list[list[Span]]:
        """Return what is found in each stretch, in seconds."""

    def distance(self, values: Values) -> float:
        """Return how far values are from the usual ones, about 1 per option."""


class BandsFamily:
    """The detector `bands`.

    Parameters
    ----------
    stretches : sequence of Stretch
        Of one rate.
    duration_s : float
        Of a typical example.
    framing : dict
        `frame_ms`, `hop_ms` and `low_hz` where they are not the usual ones.
    """

    plugin: ClassVar[str] = "bands"

    def __init__(
        self, stretches: Sequence[Stretch], duration_s: float, framing: dict[str, Any]
    ) -> None:
        self._stretches, self._framing = stretches, framing
        self._rate = stretches[0].sample_rate
        self._fixed: Values = {"max_duration_ms": _longest_ms(duration_s)}
        self._heard: dict[bool, list[HeardStretch]] = {}
        self._common: dict[bool, dict[str, Any]] = {}
        self._scores: dict[tuple[Any, ...], list[NDArray[np.float64]]] = {}
        self.usual: Values = {
            "is_narrow": False,
            "n_loudest": 2,
            "on_db": 10.0,
            "below_db": 3.0,
            "mask_db": 16.0,
            "follow": True,
            "min_duration_ms": 4.0,
            "gap_fill_ms": 8.0,
        }
        heard = self._hear(False)
        self.call_band = call_band(heard)
        scores = self._scores_of(self.usual)
        self.peaks_db = [
            [float(rows[hops].max(initial=0.0)) for hops in each.of_example]
            for each, rows in zip(heard, scores, strict=True)
        ]
        noise = np.concatenate(
            [rows[e.is_outside] for e, rows in zip(heard, scores, strict=True)]
        )
        self.noise_db = float(np.median(noise)) if len(noise) else 0.0
        self.peak_db = float(np.median(np.concatenate(self.peaks_db)))
        call_ms = 1000 * duration_s
        self.candidates: dict[str, Sequence[Any]] = {
            "n_loudest": (1, 2, 4, 8, 16),
            "on_db": _thresholds(self.peak_db),
            "below_db": (1.0, 3.0, 5.0, 8.0),
            "mask_db": (10.0, 16.0, 22.0, 40.0),
            "follow": (True, False),
            "min_duration_ms": _durations(call_ms, (0.1, 0.2, 0.4), (2.0, 4.0)),
            "gap_fill_ms": _durations(call_ms, (0.05, 0.1, 0.2, 0.4), (4.0, 8.0)),
        }
        if self.call_band is not None:
            self.candidates["is_narrow"] = (False, True)

    def checked(self, values: Values) -> BandsOptions:
        """Return the options of the detector."""
        self._hear(values["is_narrow"])
        own = {k: v for k, v in values.items() if k not in ("is_narrow", "below_db")}
        off_db: Values = {"off_db": _off_db(values)}
        common = self._common[values["is_narrow"]]
        return BandsOptions(**common, **self._fixed, **own, **off_db)

    def segments(self, values: Values) -> list[list[Span]]:
        """Return what is found in each stretch, in seconds."""
        options = self.checked(values)
        rules = options.rules(options.on_db, options.off_db, self._rate)
        heard = self._hear(values["is_narrow"])
        found = []
        for each, scores in zip(heard, self._scores_of(values), strict=True):
            recent = recent_sounds(options, rules, self._rate)
            adapt = None if recent is None else recent.add
            segmenter = Segmenter(rules, each.hop, each.origin, adapt)
            found.append(_segments(segmenter, scores, each.stretch))
        return found

    def distance(self, values: Values) -> float:
        """Return how far values are from the usual ones, about 1 per option."""
        usual = self.usual
        return float(
            _from_threshold(values, usual)
            + _octaves(values, usual, "below_db") / 2
            + _octaves(values, usual, "n_loudest") / 3
            + abs(values["mask_db"] - usual["mask_db"]) / 12
            + 0.3 * (values["follow"] != usual["follow"])
            + values["is_narrow"]
            + _octaves(values, usual, "min_duration_ms") / 4
            + _octaves(values, usual, "gap_fill_ms") / 4
        )

    def _hear(self, is_narrow: bool) -> list[HeardStretch]:
        """Return the band levels, in all bands or around those of the examples."""
        if is_narrow not in self._heard:
            common = dict(self._framing)
            if is_narrow and self.call_band is not None:
                low, high = self.call_band
                common["low_hz"] = rounded(low / _MARGIN)
                common["high_hz"] = rounded(min(high * _MARGIN, EDGE * self._rate))
            common["floor_db"] = floor_between(self._stretches, common)
            common["floor_rate"] = self._rate
            self._common[is_narrow] = common
            self._heard[is_narrow] = [HeardStretch(s, common) for s in self._stretches]
        return self._heard[is_narrow]

    def _scores_of(self, values: Values) -> list[NDArray[np.float64]]:
        key = values["is_narrow"], values["n_loudest"], values["mask_db"]
        if key not in self._scores:
            options = BandsOptions(n_loudest=key[1], mask_db=key[2])
            self._scores[key] = [
                band_score(options, each.excess, self._rate).push(0, each.rows)
                for each in self._hear(key[0])
            ]
        return self._scores[key]


class EnergyFamily:
    """The detector `energy`.

    Parameters
    ----------
    stretches : sequence of Stretch
        Of one rate.
    duration_s : float
        Of a typical example.
    low_hz : float, optional
        Lower edge of the band where it is not the usual one.
    call_band : (float, float), optional
        Edges in Hz of the bands in which the examples are heard.
    """

    plugin: ClassVar[str] = "energy"

    def __init__(
        self,
        stretches: Sequence[Stretch],
        duration_s: float,
        low_hz: float | None,
        call_band: Span | None,
    ) -> None:
        self._stretches, self._low_hz, self._call_band = stretches, low_hz, call_band
        self._rate = stretches[0].sample_rate
        self._levels: dict[bool, tuple[dict[str, Any], list[NDArray[np.float64]]]] = {}
        call_ms = 1000 * duration_s
        self._fixed: Values = {
            "max_duration_ms": _longest_ms(duration_s),
            "lookback_ms": rounded(max(10.0, min(0.3 * call_ms, 50.0))),
        }
        self.usual: Values = {
            "is_narrow": False,
            "on_db": 10.0,
            "below_db": 2.0,
            "min_duration_ms": rounded(min(10.0, 0.2 * call_ms)),
            "gap_fill_ms": 6.0,
        }
        hop_s = hop_length(EnergyOptions(), self._rate) / self._rate
        peaks = [
            ratios[int(start / hop_s) : int(stop / hop_s) + 1].max(initial=1.0)
            for stretch, ratios in zip(stretches, self._hear(False)[1], strict=True)
            for start, stop in stretch.spans
        ]
        self.peak_db = float(10 * np.log10(np.median(peaks)))
        shortest = self.usual["min_duration_ms"]
        self.candidates: dict[str, Sequence[Any]] = {
            "on_db": _thresholds(self.peak_db),
            "below_db": (0.0, 1.0, 2.0, 4.0, 6.0),
            "min_duration_ms": _durations(call_ms, (0.1, 0.2, 0.4), (shortest,)),
            "gap_fill_ms": _durations(call_ms, (0.05, 0.1, 0.2, 0.4), (2.0, 6.0)),
        }
        if call_band is not None:
            self.candidates["is_narrow"] = (False, True)

    def checked(self, values: Values) -> EnergyOptions:
        """Return the options of the detector."""
        common, _ = self._hear(values["is_narrow"])
        own = {k: v for k, v in values.items() if k not in ("is_narrow", "below_db")}
        return EnergyOptions(**common, **self._fixed, **own, off_db=_off_db(values))

    def segments(self, values: Values) -> list[list[Span]]:
        """Return what is found in each stretch, in seconds."""
        options = self.checked(values)
        on, off = (10.0 ** (each / 10) for each in (options.on_db, options.off_db))
        rules = options.rules(on, off, self._rate)
        hop = hop_length(options, self._rate)
        _, ratios = self._hear(values["is_narrow"])
        return [
            _segments(Segmenter(rules, hop), each, stretch)
            for stretch, each in zip(self._stretches, ratios, strict=True)
        ]

    def distance(self, values: Values) -> float:
        """Return how far values are from the usual ones, about 1 per option."""
        usual = self.usual
        return float(
            _from_threshold(values, usual)
            + abs(values["below_db"] - usual["below_db"]) / 4
            + 0.2 * values["is_narrow"]
            + _octaves(values, usual, "min_duration_ms") / 4
            + _octaves(values, usual, "gap_fill_ms") / 4
        )

    def _hear(
        self, is_narrow: bool
    ) -> tuple[dict[str, Any], list[NDArray[np.float64]]]:
        """Return options of band and floor, and levels divided by the noise."""
        if is_narrow not in self._levels:
            common = self._band(is_narrow)
            options = EnergyOptions(**common)
            levels = [self._level(options, s.samples) for s in self._stretches]
            least = options.least_floor_db
            floor_db = max(least, self._floor_db(options, levels))
            common["floor_db"] = round(floor_db, 1)
            options = EnergyOptions(**common)
            ratios = []
            for each in levels:
                parts = relative_level(options, self._rate).push(0, each)
                ratios.append(np.concatenate([np.empty(0), *(p for _, p in parts)]))
            self._levels[is_narrow] = common, ratios
        return self._levels[is_narrow]

    def _band(self, is_narrow: bool) -> dict[str, Any]:
        if is_narrow and self._call_band is not None:
            low, high = self._call_band
            high = min(high * _MARGIN, EDGE * self._rate)
            return {"low_hz": rounded(low / _MARGIN), "high_hz": rounded(high)}
        return {} if self._low_hz is None else {"low_hz": self._low_hz}

    def _level(self, options: EnergyOptions, samples: Float32) -> NDArray[np.float64]:
        level, _ = band_level(options, self._rate)
        _, most = level.push(Block(0, samples[:, None]))
        _, rest = level.flush()
        return np.concatenate((most, rest))

    def _floor_db(
        self, options: EnergyOptions, levels: Sequence[NDArray[np.float64]]
    ) -> float:
        """Return the noise floor between the examples, or of all if there is none."""
        hop_s = hop_length(options, self._rate) / self._rate
        between = np.concatenate(
            [
                each[s.between_examples((np.arange(len(each)) + 0.5) * hop_s, 0.002)]
                for s, each in zip(self._stretches, levels, strict=True)
            ]
        )
        if len(between) * hop_s < _LEAST_NOISE_S:
            between = np.concatenate(levels)
        floor = np.quantile(between, options.floor_quantile) if len(between) else 0.0
        return float(10 * np.log10(max(floor, _LEAST_POWER)))


def _segments(
    segmenter: Segmenter, scores: NDArray[np.float64], stretch: Stretch
) -> list[Span]:
    """Return the segments in the scores of a stretch, in seconds."""
    segmenter.begin(0)
    marks: list[Mark] = segmenter.process(0, scores)
    marks += segmenter.close(len(stretch.samples))
    rate = stretch.sample_rate
    return [(m.onset / rate, m.sample / rate) for m in marks if isinstance(m, Offset)]


def _thresholds(peak_db: float) -> list[float]:
    """Return whole numbers: 2 dB more or less is then another one of them."""
    usual = (5, 6, 7, 8, 9, 10, 11, 12, 14)
    loud = np.linspace(0.2, 0.6, 4) * max(peak_db, _LEAST_PEAK_DB)
    return sorted({float(max(2, round(value))) for value in (*usual, *loud)})


def _durations(
    call_ms: float, shares: Sequence[float], usual: Sequence[float]
) -> list[float]:
    """Return durations in ms that are shares of a call's, and usual ones."""
    own = {rounded(min(share * call_ms, _LONGEST_MS)) for share in shares}
    return sorted({*usual, *own})


def _longest_ms(duration_s: float) -> float:
    return rounded(max(5000.0, 10_000 * duration_s))


def _off_db(values: Values) -> float:
    on_db = values["on_db"]
    return float(min(on_db, max(1.0, round(on_db - values["below_db"], 1))))


def _octaves(values: Values, usual: Values, name: str) -> float:
    return abs(float(np.log2(values[name] / usual[name])))


def _from_threshold(values: Values, usual: Values) -> float:
    above = float(values["on_db"] - usual["on_db"])
    return max(above / _HIGHER_DB, -above / _LOWER_DB)
