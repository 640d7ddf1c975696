"""Options of the detectors `energy` and `bands` that are fitted to annotations."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from neurovocal.engine import Block, Offset, Segmenter, SegmenterOptions
from neurovocal.engine.contracts.errors import ConfigError
from neurovocal.models.tuning.floors import floor_between, level_between
from neurovocal.models.tuning.heard import Heard, Span, Stretch
from neurovocal.models.tuning.kind import BUFFERS_MS, octaves, rounded
from neurovocal.models.tuning.search import Values
from neurovocal.plugins.detectors.band_excess import BandExcess, FloorOptions
from neurovocal.plugins.detectors.bands import BandsOptions, band_score, recent_sounds
from neurovocal.plugins.detectors.energy import (
    EnergyDetector,
    EnergyOptions,
    band_level,
    hop_length,
    relative_level,
)

# Further starting points, for sounds with quiet parts, such as words, and for
# recordings that start within a sound.
_ENERGY_STARTS: tuple[Values, ...] = (
    {"gap_fill_ms": 30.0, "min_duration_ms": 20.0, "settle_s": 0.1},
    {
        "gap_fill_ms": 200.0,
        "min_duration_ms": 50.0,
        "smooth_ms": 10.0,
        "lookback_ms": 100.0,
        "settle_s": 0.1,
        "least_floor_db": -55.0,
    },
)
# Values to try, one option after another. `above_off_db` is on_db - off_db.
_ENERGY_VALUES: dict[str, Sequence[Any]] = {
    "off_db": (3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 12.0, 15.0),
    "above_off_db": (0.0, 1.0, 2.0, 4.0, 6.0, 10.0),
    "gap_fill_ms": (2.0, 4.0, 6.0, 8.0, 12.0, 20.0, 30.0, 60.0, 120.0, 200.0),
    "hop_ms": (0.5, 1.0),
    "smooth_ms": (2.0, 3.0, 5.0, 10.0),
    "min_duration_ms": (5.0, 10.0, 15.0, 20.0, 30.0, 50.0),
    **BUFFERS_MS,
}
Scores: TypeAlias = list[tuple[int, NDArray[np.float64]]]
"""Scores of a stretch in parts, each with the number of its first hop."""
_MOST_KNOWN = 3
_LEVELS = {"on_db": 10.0, "off_db": 8.0}  # of the `energy` detector
_BANDS_VALUES: dict[str, Sequence[Any]] = {
    "n_loudest": (1, 2, 4, 6, 8),
    "on_db": (6.0, 8.0, 9.0, 10.0, 11.0, 12.0, 14.0, 17.0, 20.0),
    "below_db": (1.0, 2.0, 3.0, 4.0, 6.0),
    "min_duration_ms": (4.0, 8.0, 16.0, 30.0, 50.0),
    "gap_fill_ms": (4.0, 8.0, 16.0, 30.0, 60.0, 120.0, 200.0),
    "mask_db": (12.0, 16.0, 22.0, 30.0),
    "follow": (True, False),
    **BUFFERS_MS,
}


class EnergyKind:
    """The `energy` detector.

    Parameters
    ----------
    stretches : sequence of Stretch
        Of one sample rate.
    start : dict
        Options at which the search starts; none is far from itself.
    """

    plugin = "energy"
    candidates: Mapping[str, Sequence[Any]] = _ENERGY_VALUES

    def __init__(self, stretches: Sequence[Stretch], start: Values) -> None:
        self._stretches = stretches
        self._known: dict[str, list[Scores]] = {}
        self._usual = EnergyOptions(**start).model_dump()
        self.starts: Sequence[Values] = [start, *_ENERGY_STARTS]

    def change(self, values: Values, name: str, value: Any) -> Values:
        """Return values of which one is changed; on_db moves along with off_db."""
        levels = {key: values.get(key, _LEVELS[key]) for key in _LEVELS}
        rest = {key: old for key, old in values.items() if key not in levels}
        match name:
            case "off_db":
                above = levels["on_db"] - levels["off_db"]
                levels = {"on_db": value + above, "off_db": value}
            case "above_off_db":
                levels["on_db"] = levels["off_db"] + value
            case _:
                rest[name] = value
        return {**{k: v for k, v in levels.items() if v != _LEVELS[k]}, **rest}

    def distance(self, values: Values) -> float:
        """Return how far values are from the start, in factors of two."""
        names = {*_LEVELS, *self.candidates} & self._usual.keys()
        return octaves(values, self._usual, sorted(names)) / 2

    def options(self, values: Values) -> dict[str, Any] | None:
        """Return the options; None if they contradict each other or the rate."""
        return None if self._detector(values) is None else values

    def trials(self, values: Values) -> list[list[list[Span]]]:
        """Return what `segments` returns, as the only way to judge values."""
        return [self.segments(values)]

    def segments(self, values: Values) -> list[list[Span]]:
        """Return what the detector finds in each stretch, in seconds."""
        options = EnergyOptions(**values)
        rate = self._stretches[0].sample_rate
        on, off = (10.0 ** (db / 10) for db in (options.on_db, options.off_db))
        segmenter = Segmenter(options.rules(on, off, rate), hop_length(options, rate))
        found = []
        for stretch, scores in zip(self._stretches, self._scores(options), strict=True):
            segmenter.reset()
            marks = [m for first, s in scores for m in segmenter.process(first, s)]
            marks += segmenter.close(len(stretch.samples))
            offsets = [mark for mark in marks if isinstance(mark, Offset)]
            found.append([(m.onset / rate, m.sample / rate) for m in offsets])
        return found

    def with_floor(self, values: Values) -> Values:
        """Return values with the noise floor between the examples, if it is one."""
        floor = level_between(self._stretches, EnergyOptions(**values))
        return values if floor is None else values | {"floor_db": floor}

    def _scores(self, options: EnergyOptions) -> list[Scores]:
        """Return the scores of each stretch, as the detector computes them.

        Most values of a search differ in what is made of them: the last ones are kept.
        """
        others = {*SegmenterOptions.model_fields, "on_db", "off_db"}
        key = options.model_dump_json(exclude=others)
        if key in self._known:
            return self._known[key]
        if len(self._known) >= _MOST_KNOWN:
            del self._known[next(iter(self._known))]
        rate = self._stretches[0].sample_rate
        level, relative = band_level(options, rate)[0], relative_level(options, rate)
        found = self._known[key] = []
        for stretch in self._stretches:
            level.reset()
            relative.reset()
            scores = relative.push(*level.push(Block(0, stretch.samples[:, None])))
            scores += relative.push(*level.flush())
            found.append(scores + relative.interrupt())
        return found

    def _detector(self, values: Values) -> EnergyDetector | None:
        try:
            options = EnergyOptions(**values)
            return EnergyDetector(options, self._stretches[0].sample_rate)
        except ConfigError:
            return None


class BandsKind:
    """The `bands` detector.

    Parameters
    ----------
    stretches : sequence of Stretch
        Of one sample rate.
    start : dict
        Options at which the search starts; none is far from itself.
    """

    plugin = "bands"
    candidates: Mapping[str, Sequence[Any]] = _BANDS_VALUES

    def __init__(self, stretches: Sequence[Stretch], start: Values) -> None:
        self._stretches = stretches
        rate = stretches[0].sample_rate
        self._fixed: dict[str, Any] = {}
        longest = [stop - on for s in stretches for on, stop in s.spans]
        most_ms = rounded(10_000 * float(np.median(longest)))
        if most_ms > BandsOptions().max_duration_ms:
            self._fixed["max_duration_ms"] = most_ms
        self._fixed |= start
        options = BandsOptions(**self._fixed)
        floor = {name: getattr(options, name) for name in FloorOptions.model_fields}
        self._excess = BandExcess(FloorOptions(**floor), rate)
        self._heard = [Heard(each, FloorOptions(**floor)) for each in stretches]
        self._scores: dict[tuple[Any, ...], list[NDArray[np.float64]]] = {}
        below = options.on_db - options.off_db
        usual = options.model_dump() | {"below_db": below}
        self._usual = {name: usual[name] for name in self.candidates}
        words = {"gap_fill_ms": 30.0, "min_duration_ms": 16.0, "n_loudest": 6}
        self.starts: Sequence[Values] = [self._usual, self._usual | words]

    def change(self, values: Values, name: str, value: Any) -> Values:
        """Return values of which one is changed."""
        return {**values, name: value}

    def distance(self, values: Values) -> float:
        """Return how far values are from the start, in factors of two."""
        return octaves(values, self._usual, [*self.candidates]) / 2

    def options(self, values: Values) -> dict[str, Any] | None:
        """Return the options that differ from the defaults."""
        return self._checked(values).model_dump(exclude_defaults=True)

    def trials(self, values: Values) -> list[list[list[Span]]]:
        """Return what `segments` returns, as the only way to judge values."""
        return [self.segments(values)]

    def segments(self, values: Values) -> list[list[Span]]:
        """Return what the detector finds in each stretch, in seconds."""
        options = self._checked(values)
        rate = self._stretches[0].sample_rate
        found = []
        for heard, scores in zip(self._heard, self._score(options), strict=True):
            rules = options.rules(options.on_db, options.off_db, rate)
            recent = recent_sounds(options, rules, rate)
            found.append(heard.segments(scores, rules, recent))
        return found

    def with_floor(self, values: Values) -> Values:
        """Return values with the noise floors between the examples, if they are one."""
        options = self._checked(values)
        floor = floor_between(self._stretches, options)
        if floor is None:
            return values
        rate = self._stretches[0].sample_rate
        return values | {"floor_db": floor, "floor_rate": rate}

    def _score(self, options: BandsOptions) -> list[NDArray[np.float64]]:
        """Return the scores of each stretch; the last ones are kept."""
        key = options.n_loudest, options.mask_db
        if key not in self._scores:
            rate = self._stretches[0].sample_rate
            self._scores = {
                key: [
                    band_score(options, self._excess, rate).push(0, heard.rows)
                    for heard in self._heard
                ]
            }
        return self._scores[key]

    def _checked(self, values: Values) -> BandsOptions:
        rest = {name: value for name, value in values.items() if name != "below_db"}
        off_db = max(1.0, round(values["on_db"] - values["below_db"], 1))
        return BandsOptions(**self._fixed | rest | {"off_db": off_db})
