"""Options of the `excess` detector that are fitted to examples.

The band comes from the spectrum of the examples, the frame from their duration; the
weights of bands from what tells them from the sound between; thresholds, the forward
mask and the durations come from a search. Band levels are computed once, and each try
runs the detector's own pooling, mask and segmenter over them: what is fitted is what
will run, causally. An example is judged by weights that were learned without it, and
must be found if it were fainter, too.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from neurovocal.models.toolkit.weights import Weights, learn_weights
from neurovocal.models.tuning.floors import floor_between
from neurovocal.models.tuning.heard import Heard, Span, Stretch
from neurovocal.models.tuning.kind import BUFFERS_MS, rounded
from neurovocal.models.tuning.kind import octaves as raised_octaves
from neurovocal.models.tuning.search import Values
from neurovocal.plugins.detectors.band_excess import FloorOptions
from neurovocal.plugins.detectors.band_level import default_band
from neurovocal.plugins.detectors.excess import (
    N_WEIGHTS,
    BandPool,
    ExcessOptions,
    ForwardMask,
    Pool,
    WeightedLevels,
    bands_in_use,
)

Scores: TypeAlias = list[NDArray[np.float64]]

# A frame is this part of the median duration, within limits (ms); its hop a quarter.
_FRAMES_IN_CALL = 10
_LEAST_FRAME_MS, _MOST_FRAME_MS = 0.5, 10.0
_MOST_NARROWBAND_FRAME_MS, _NARROWBAND_RATE = 20.0, 5000
_LEAST_FRAME_SAMPLES = 16
# Bands of this share of the largest excess of the examples, in dB, are theirs.
_BAND_SHARE = 0.25
# On-thresholds beyond this share of the examples' usual peak cost much: the next calls
# will be fainter.
_SHARE_OF_PEAK = 0.6
_USUAL_ON_DB: dict[Pool, float] = {"power": 8.0, "level": 6.0}
POOLS: tuple[Pool, ...] = ("power", "level")
# With weights there is no usual threshold but a part of the examples' usual peak.
_USUAL_SHARE, _LEAST_ON_DB = 0.35, 2.0
# Of fewer examples none can be spared to judge weights; of more nothing else is tried.
_LEAST_FOR_WEIGHTS, _MANY = 3, 40
# Part of all weights that does not depend on what differs between examples and other
# sound: other calls of the animal differ from the examples.
_UNLEARNED = 0.3
# Examples must be found, too, if they are nearer to the noise by this share.
_FAINTER = 0.3
_MOST_FOLDS = 10
_LEAST_PEAK_DB, _MOST_SCALE, _MOST_ZERO_DB = 0.1, 20.0, 190.0
_USUAL_BELOW_DB = 2.0
_USUAL_MASK_DB, _USUAL_DECAY = 16.0, 400.0


class ExcessParts:
    """Band levels of stretches, and the options that need no search.

    Parameters
    ----------
    stretches : sequence of Stretch
        Of one sample rate, with at least one example in all.

    Raises
    ------
    ValueError
        The stretches are too short to hold a frame.
    """

    def __init__(self, stretches: Sequence[Stretch]) -> None:
        durations = [stop - start for s in stretches for start, stop in s.spans]
        self.duration_s = float(np.median(durations))
        common = _frames(self.duration_s, stretches[0].sample_rate)
        common |= _lowest_edge(stretches, common)
        common |= _floor(stretches, common)
        self.heard = [Heard(each, FloorOptions(**common)) for each in stretches]
        self.common = common | _call_band(self.heard)


def _frames(duration_s: float, sample_rate: int) -> dict[str, Any]:
    """Return frame and hop in ms for calls of a duration."""
    most = _MOST_FRAME_MS
    if sample_rate < _NARROWBAND_RATE:
        most = _MOST_NARROWBAND_FRAME_MS
    least = max(_LEAST_FRAME_MS, 1000 * _LEAST_FRAME_SAMPLES / sample_rate)
    frame_ms = max(least, min(1000 * duration_s / _FRAMES_IN_CALL, most))
    hop_ms = max(frame_ms / 4, 1000 / sample_rate)
    return {"frame_ms": rounded(frame_ms), "hop_ms": rounded(hop_ms)}


def _lowest_edge(
    stretches: Sequence[Stretch], common: dict[str, Any]
) -> dict[str, Any]:
    """Return a lower `low_hz` than the default if the examples are loudest below it."""
    rate = stretches[0].sample_rate
    default = default_band(rate)[0]
    low = rounded(2000 / common["frame_ms"])
    if low >= default:
        return {}
    options = common | {"low_hz": low}
    options |= _floor(stretches, options)
    heard = [Heard(stretch, FloorOptions(**options)) for stretch in stretches]
    profile, edges = _profile(heard), heard[0].edges_hz
    loudest = int(np.argmax(profile))
    return {"low_hz": low} if edges[loudest + 1] <= default else {}


def _floor(stretches: Sequence[Stretch], common: dict[str, Any]) -> dict[str, Any]:
    """Return the prior noise floor as options; none of stretches of several rooms."""
    floor = floor_between(stretches, FloorOptions(**common))
    if floor is None:
        return {}
    return {"floor_db": floor, "floor_rate": stretches[0].sample_rate}


def _profile(heard: Sequence[Heard]) -> NDArray[np.float64]:
    """Return the mean excess of the examples in each band, each at its loud moments."""
    levels = [
        np.quantile(each.rows[hops], 0.75, axis=0)
        for each in heard
        for hops in each.of_example
        if len(each.rows[hops])
    ]
    return np.asarray(np.mean(levels, axis=0))


def _call_band(heard: Sequence[Heard]) -> dict[str, Any]:
    """Return the edges of the bands in which the examples are heard."""
    profile, edges = _profile(heard), heard[0].edges_hz
    if profile.max() <= 0:
        return {}
    loud = np.flatnonzero(profile >= _BAND_SHARE * profile.max())
    first, last = int(loud[0]), int(loud[-1])
    found = {}
    if first > 0:
        found["call_low_hz"] = rounded(edges[first], 4)
    if last < len(profile) - 1:
        found["call_high_hz"] = rounded(edges[last + 1], 4)
    return found


def _peaks(
    heard: Sequence[Heard], all_scores: Scores
) -> tuple[list[list[float]], float]:
    """Return the highest score in each example, and the median of other sound."""
    pairs = list(zip(heard, all_scores, strict=True))
    peaks = [
        [float(scores[hops].max(initial=0.0)) for hops in each.of_example]
        for each, scores in pairs
    ]
    noise = np.concatenate([scores[each.is_outside] for each, scores in pairs])
    return peaks, float(np.median(noise)) if len(noise) else 0.0


def _fainter(heard: Sequence[Heard], all_scores: Scores, noise_db: float) -> Scores:
    """Return scores as if each example were nearer to the noise by a share."""
    found = []
    for each, scores in zip(heard, all_scores, strict=True):
        fainter = scores.copy()
        for hops in each.of_example:
            own = scores[hops]
            less = _FAINTER * max(0.0, own.max(initial=0.0) - noise_db)
            fainter[hops] = np.maximum(own - less, np.minimum(own, noise_db))
        found.append(fainter)
    return found


class _WeightedScores:
    """Scores of stretches by weights, and of examples by weights learned without them.

    Parameters
    ----------
    heard : sequence of Heard
        With at least two examples in all.
    levels : WeightedLevels
        What is weighted.
    peak_db : float
        Score that examples usually reach by another way of pooling: weights are scaled
        to that, so that thresholds mean about the same.
    unlearned : float64[n_levels]
        What is added to weights whose magnitudes have the sum ``1 - unlearned.sum()``.

    Attributes
    ----------
    learned : Weights
        From all examples.
    scores, without : list of float64[n_hops]
        Scores of each stretch by these weights; and the same, but around each example
        by weights that were learned from others.
    """

    def __init__(
        self,
        heard: Sequence[Heard],
        levels: WeightedLevels,
        peak_db: float,
        unlearned: NDArray[np.float64],
    ) -> None:
        self._unlearned = unlearned
        self._rows = [levels(each.rows) for each in heard]
        places = [
            (number, hops) for number, e in enumerate(heard) for hops in e.of_example
        ]
        self._others = np.concatenate(
            [own[each.is_outside] for own, each in zip(self._rows, heard, strict=True)]
        )
        learned = self._learn(places)
        reached = [
            float(learned.scores(self._rows[number][hops]).max(initial=0.0))
            for number, hops in places
        ]
        usual_db = max(float(np.median(reached)), _LEAST_PEAK_DB)
        # So that the noise's score stays a possible option, whatever the noise.
        most = min(_MOST_SCALE, _MOST_ZERO_DB / max(abs(learned.zero_db), 1.0))
        self._scale = float(np.clip(peak_db / usual_db, 1 / _MOST_SCALE, most))
        self.learned = learned.scaled(self._scale)
        self.scores = [self.learned.scores(own) for own in self._rows]
        self.without = [scores.copy() for scores in self.scores]
        n_folds = min(len(places), _MOST_FOLDS)
        for fold in range(n_folds):
            kept = [place for k, place in enumerate(places) if k % n_folds != fold]
            learned = self._learn(kept).scaled(self._scale)
            for number, hops in places[fold::n_folds]:
                reach = hops.stop - hops.start
                near = slice(max(0, hops.start - reach), hops.stop + reach)
                self.without[number][near] = learned.scores(self._rows[number][near])

    def _learn(self, places: Sequence[tuple[int, slice]]) -> Weights:
        examples = [self._rows[number][hops] for number, hops in places]
        return learn_weights(examples, self._others, self._unlearned)


def _unlearned(bands: slice, share: float) -> NDArray[np.float64]:
    """Return weights of the sum `share`: half for the calls' bands, all alike.

    The other half is for the loudest of them.
    """
    weights = np.zeros(N_WEIGHTS)
    weights[: N_WEIGHTS - 1][bands] = 1.0
    weights *= share / 2 / weights.sum()
    weights[-1] = share / 2
    return weights


class ExcessKind:
    """The `excess` detector with one way of pooling.

    Parameters
    ----------
    parts : ExcessParts
        Band levels, and the options that need no search.
    pool : {'power', 'level', 'weights'}
        How bands are pooled.
    has_buffers : bool
        Whether buffers at both ends are searched for, too: where ends are annotated
        by rules that many segments tell.
    fainter : bool
        Judge the options as if the examples were fainter, too.
    unlearned : float
        Part of the weights that is the same whatever the examples, from 0 to 1.

    Attributes
    ----------
    peaks_db : list of list of float
        Highest score in each example.
    noise_db : float
        Median score of the sound outside of the examples.
    """

    plugin = "excess"

    def __init__(
        self,
        parts: ExcessParts,
        pool: Pool,
        *,
        has_buffers: bool = False,
        fainter: bool = False,
        unlearned: float = 0.0,
    ) -> None:
        heard = parts.heard
        self.pool = pool
        self._heard, self._common = heard, parts.common | {"pool": "power"}
        bands = bands_in_use(ExcessOptions(**self._common), heard[0].edges_hz)
        cells = heard[0].cells
        self._common["pool"] = pool
        # What is told of examples is in the same unit whatever the pool.
        powers = [BandPool(bands, cells, "power")(each.rows) for each in heard]
        self.peaks_db, self.noise_db = _peaks(heard, powers)
        if pool == "weights":
            usual_db = float(np.median(np.concatenate(self.peaks_db)))
            weighted = _WeightedScores(
                heard,
                WeightedLevels(bands, cells),
                usual_db,
                _unlearned(bands, unlearned),
            )
            self._common |= weighted.learned._asdict()
            self._scores, tried = weighted.scores, weighted.without
        else:
            pooled = BandPool(bands, cells, pool)
            self._scores = tried = [pooled(each.rows) for each in heard]
        peaks, noise_db = _peaks(heard, tried)
        self._peak_db = float(np.median(np.concatenate(peaks)))
        self._tried = [tried]
        if fainter:
            self._tried.append(_fainter(heard, tried, noise_db))
        usual_on_db = max(_LEAST_ON_DB, _USUAL_SHARE * self._peak_db)
        duration_ms = 1000 * parts.duration_s
        usual: Values = {
            "on_db": _USUAL_ON_DB.get(pool, usual_on_db),
            "below_db": _USUAL_BELOW_DB,
            "gap_fill_ms": rounded(min(0.1 * duration_ms, 6.0)),
            "min_duration_ms": rounded(min(0.2 * duration_ms, 20.0)),
            "mask_db": _USUAL_MASK_DB,
            "mask_db_per_s": _USUAL_DECAY,
        }
        self._buffers = BUFFERS_MS if has_buffers else {}
        usual |= dict.fromkeys(self._buffers, 0.0)
        self._usual = usual
        self._fixed: dict[str, Any] = {
            "lookback_ms": rounded(min(0.5 * duration_ms, 50.0)),
            "max_duration_ms": rounded(max(5000.0, 10 * duration_ms)),
        }
        self.starts: Sequence[Values] = [
            usual,
            usual | {"on_db": max(_LEAST_ON_DB, round(self._peak_db / 2, 1))},
            usual | {"mask_db": None},
        ]
        self.candidates: Mapping[str, Sequence[Any]] = self._candidates()

    def change(self, values: Values, name: str, value: Any) -> Values:
        """Return values of which one is changed."""
        return {**values, name: value}

    def options(self, values: Values) -> dict[str, Any] | None:
        """Return the options that differ from the defaults."""
        return self._checked(values).model_dump(exclude_defaults=True)

    def segments(self, values: Values) -> list[list[Span]]:
        """Return what the detector finds in each stretch, in seconds."""
        return self._segments(values, self._scores)

    def trials(self, values: Values) -> list[list[list[Span]]]:
        """Return what is found in each stretch, for each way that values are judged."""
        return [self._segments(values, scores) for scores in self._tried]

    def _segments(self, values: Values, all_scores: Scores) -> list[list[Span]]:
        options = self._checked(values)
        found = []
        for heard, scores in zip(self._heard, all_scores, strict=True):
            rate = heard.stretch.sample_rate
            decay_db = options.mask_db_per_s * heard.hop / rate
            mask = ForwardMask(options.mask_db, decay_db)
            rules = options.rules(options.on_db, options.off_db, rate)
            found.append(heard.segments(mask(0, scores), rules))
        return found

    def with_floor(self, values: Values) -> Values:
        """Return the values: the noise floor is among the options from the start."""
        return values

    def distance(self, values: Values) -> float:
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
        buffers = raised_octaves(values, usual, [*self._buffers])
        return float(levels + (durations + buffers) / 2 + masking + beyond)

    def _candidates(self) -> dict[str, Sequence[Any]]:
        usual, highest = self._usual, max(self._peak_db, 5.0)
        on_db = {*np.arange(3.0, 13.0), *np.linspace(0.15, 0.8, 10) * highest}
        return {
            "on_db": sorted(
                {max(_LEAST_ON_DB, round(float(value), 1)) for value in on_db}
            ),
            "below_db": (1.0, 2.0, 4.0, 8.0),
            "gap_fill_ms": [rounded(f * usual["gap_fill_ms"]) for f in (0.5, 1, 2, 4)],
            "min_duration_ms": [
                rounded(f * usual["min_duration_ms"]) for f in (0.5, 1, 2)
            ],
            "mask_db": (None, 10.0, 16.0, 22.0),
            "mask_db_per_s": (100.0, 400.0, 1600.0, 6400.0),
            **self._buffers,
        }

    def _checked(self, values: Values) -> ExcessOptions:
        rest = {name: value for name, value in values.items() if name != "below_db"}
        off_db = max(1.0, round(values["on_db"] - values["below_db"], 1))
        options = self._common | self._fixed | rest | {"off_db": off_db}
        return ExcessOptions(**options)


def excess_kinds(parts: ExcessParts) -> Iterator[list[ExcessKind]]:
    """Yield ways of pooling to compare, then others for examples that no weights tell.

    With few examples weights that are partly the same for all calls come first: the
    other calls are less like the examples than these are like each other. Many examples
    tell all that is needed, and fewer than three no weights.

    Parameters
    ----------
    parts : ExcessParts
        Of the examples.
    """
    n_examples = sum(len(heard.stretch.spans) for heard in parts.heard)
    if n_examples >= _LEAST_FOR_WEIGHTS:
        shares = (0.0,) if n_examples > _MANY else (_UNLEARNED, 0.0)
        yield [
            ExcessKind(parts, "weights", fainter=True, unlearned=share)
            for share in shares
        ]
    if n_examples <= _MANY:
        yield [ExcessKind(parts, pool, fainter=True) for pool in POOLS]
