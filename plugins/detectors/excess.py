"""Detector of sounds in a band above the band's own noise, with fixed thresholds.

Its options are those that a few examples tell: `neurovocal tune` writes them.
"""

from collections.abc import Iterable, Sequence
from typing import Annotated, ClassVar, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from neurovocal.engine import (
    BuildContext,
    ConfigError,
    Float32,
    Plugin,
    SegmenterOptions,
)
from neurovocal.engine.audio.near_misses import NEAR_DB
from neurovocal.engine.audio.segmenter import DURATIONS
from neurovocal.engine.contracts.options import HIGHEST_HZ, OptionProblem, Order
from neurovocal.plugins.detectors.band_excess import (
    LEAST_DB,
    N_BANDS,
    BandExcess,
    FloorOptions,
)
from neurovocal.plugins.detectors.scored_excess import (
    ScoredExcessDetector,
    framing_problems,
    sample_rate_of,
    tell_foreign_floor,
)

Pool: TypeAlias = Literal["power", "level", "weights"]
Weight: TypeAlias = Annotated[float, Field(ge=-100, le=100)]
_UNIT = "dB above the noise floors"
_MOST_DB = 200.0
# Noise reaches the threshold 0 dB of pooled powers in one of so many frames.
_CHANCE = 1e-4
# One band counts for no more than this in a mean of levels.
_LOUDEST_DB = 40.0
# The same with weights, and for the mean of the loudest bands.
_WEIGHTED_DB, _PEAK_DB = 30.0, 40.0
_N_LOUDEST = 2
N_WEIGHTS = N_BANDS + 1


class ExcessOptions(SegmenterOptions, FloorOptions):
    """Options of the `excess` detector."""

    orders: ClassVar[tuple[Order, ...]] = (
        DURATIONS,
        Order("off_db", "on_db", "a segment would end as soon as it begins"),
        Order("low_hz", "high_hz", "the bands are empty", strict=True),
        Order("call_low_hz", "call_high_hz", "no band is left", strict=True),
    )
    call_low_hz: float | None = Field(default=None, gt=0, le=HIGHEST_HZ)
    """Lower edge of the sounds that are looked for: bands below are not used; by
    default all are."""
    call_high_hz: float | None = Field(default=None, gt=0, le=HIGHEST_HZ)
    """Upper edge of these sounds."""
    pool: Pool = "power"
    """What is compared with the thresholds. `power`: the mean power of the bands, each
    divided by its noise, above what noise alone reaches in one of 10,000 frames: for
    tones and narrow sweeps. `level`: the mean of the bands' levels above their noise,
    each from 0 to 40 dB: for sounds that fill the band, in rain or wind. `weights`:
    what `weights` say: for calls that other sounds differ from."""
    weights: tuple[Weight, ...] | None = None
    """What a dB counts, for `pool: weights`: of the level of each of the 32 bands above
    its noise, from 0 to 30 dB, and last of the mean of the two loudest bands of the
    calls, from 0 to 40 dB. What is negative speaks against a call."""
    zero_db: float = Field(default=0.0, ge=-_MOST_DB, le=_MOST_DB)
    """What the usual noise reaches with `weights`: it is subtracted."""
    on_db: float = Field(default=8.0, gt=0, le=_MOST_DB)
    """A sound is a segment when it reaches this score."""
    off_db: float = Field(default=6.0, gt=0, le=_MOST_DB)
    """A segment lasts while the score is at least this."""
    mask_db: float | None = Field(default=16.0, gt=0, le=_MOST_DB)
    """What is so much below a peak is not heard right after it: echoes and tails.
    None: everything is heard."""
    mask_db_per_s: float = Field(default=400.0, gt=0, le=1e6)
    """How fast a peak is forgotten."""


class WeightedLevels:
    """Levels of all bands, and of the loudest ones of the calls, as weights count them.

    Parameters
    ----------
    bands : slice
        Bands of the calls.
    cells : float64[32]
        Independent values in each band, as `BandExcess.cells`.
    """

    def __init__(self, bands: slice, cells: NDArray[np.float64]) -> None:
        from scipy.special import chdtri  # slow to import

        self._bands = bands
        degrees = 2 * cells[bands]
        usual = 10 * np.log10(chdtri(degrees, _CHANCE) / degrees)
        self._usual_db = usual.astype(np.float32)

    def __call__(self, excess: Float32) -> NDArray[np.float64]:
        """Return the levels of hops in dB, float64[n_hops, 33].

        Parameters
        ----------
        excess : float32[n_hops, 32]
            Rows of `BandExcess`.
        """
        levels = np.empty((len(excess), N_WEIGHTS))
        np.clip(excess, 0, _WEIGHTED_DB, out=levels[:, :N_BANDS])
        used = excess[:, self._bands] - self._usual_db
        count = min(_N_LOUDEST, used.shape[1])
        if count < used.shape[1]:
            used = np.partition(used, -count, axis=1)[:, -count:]
        loudest = np.add.reduce(used, axis=1, dtype=np.float64) / count
        levels[:, N_BANDS] = np.clip(loudest, 0, _PEAK_DB)
        return levels


class BandPool:
    """One score per hop from the excesses of the bands.

    Parameters
    ----------
    bands : slice
        Bands in use.
    cells : float64[32]
        Independent values in each band, as `BandExcess.cells`.
    pool : {'power', 'level', 'weights'}
        What is averaged over the bands.
    weights : sequence of float, optional
        33 numbers, for the pool `weights`.
    zero_db : float
        What is subtracted from scores by weights.
    """

    def __init__(
        self,
        bands: slice,
        cells: NDArray[np.float64],
        pool: Pool,
        weights: Sequence[float] | None = None,
        zero_db: float = 0.0,
    ) -> None:
        from scipy.special import gammaincinv  # slow to import

        self._bands = bands
        self._pool = pool
        used = cells[bands]
        self._shares = used / used.sum()
        degrees = 2 * used.sum()
        usual = 2 * gammaincinv(degrees / 2, 1 - _CHANCE) / degrees
        self._chance_db = 10 * np.log10(usual)
        self._levels = WeightedLevels(bands, cells)
        self._weights = np.zeros(N_WEIGHTS) if weights is None else np.array(weights)
        self._zero_db = zero_db

    def __call__(self, excess: Float32) -> NDArray[np.float64]:
        """Return the scores of hops in dB, float64[n_hops].

        Parameters
        ----------
        excess : float32[n_hops, 32]
            Rows of `BandExcess`.
        """
        if self._pool == "weights":
            levels = self._levels(excess)
            levels *= self._weights
            # Row by row, whatever their number, and therefore bit-stable.
            return np.asarray(np.add.reduce(levels, axis=1) - self._zero_db)
        rows = excess[:, self._bands].astype(np.float64)
        if self._pool == "level":
            np.clip(rows, 0, _LOUDEST_DB, out=rows)
            return np.asarray(np.add.reduce(rows, axis=1) / rows.shape[1])
        rows *= np.log(10) / 10
        np.exp(rows, out=rows)
        rows *= self._shares
        power = np.add.reduce(rows, axis=1)
        return np.asarray(10 * np.log10(power) - self._chance_db)


class ForwardMask:
    """Scores without what follows a peak too closely and too quietly.

    Parameters
    ----------
    depth_db : float, optional
        How far below the decaying peak a score is heard; None: all are.
    decay_db : float
        What the peak loses per hop.
    """

    def __init__(self, depth_db: float | None, decay_db: float) -> None:
        self._depth_db = depth_db
        self._decay_db = decay_db
        self.reset()

    def reset(self) -> None:
        """Forget the peak."""
        self._peak = -np.inf  # had it not decayed since hop 0

    def __call__(self, first: int, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the scores of hops ``first, ...``; masked ones are -20 dB."""
        if self._depth_db is None or len(scores) == 0:
            return scores
        lost = self._decay_db * np.arange(first, first + len(scores))
        peaks = scores + lost
        peaks[0] = max(peaks[0], self._peak)
        np.maximum.accumulate(peaks, out=peaks)
        self._peak = peaks[-1]
        return np.where(scores >= peaks - lost - self._depth_db, scores, LEAST_DB)


def bands_in_use(options: ExcessOptions, edges_hz: NDArray[np.float64]) -> slice:
    """Return the bands whose centres lie between the edges of the calls.

    At least the band next to them is in use.

    Parameters
    ----------
    options : ExcessOptions
        Edges of the calls.
    edges_hz : float64[33]
        Edges of all bands.
    """
    centres = np.sqrt(edges_hz[:-1] * edges_hz[1:])
    low, high = options.call_low_hz or 0.0, options.call_high_hz or np.inf
    first = int(np.searchsorted(centres, low))
    stop = int(np.searchsorted(centres, high, "right"))
    first = min(first, len(centres) - 1)
    return slice(first, max(stop, first + 1))


class PooledScore:
    """Score of the `excess` detector: pooled bands without echoes.

    Parameters
    ----------
    pool : BandPool
        What is averaged.
    mask : ForwardMask
        What is not heard after a peak.
    """

    def __init__(self, pool: BandPool, mask: ForwardMask) -> None:
        self._pool, self._mask = pool, mask

    def push(self, first: int, excess: Float32) -> NDArray[np.float64]:
        """Return the scores of hops ``first, ...`` in dB, float64[n_hops]."""
        return self._mask(first, self._pool(excess))

    def reset(self) -> None:
        """Forget the peak."""
        self._mask.reset()


def make_detector(options: ExcessOptions, sample_rate: int) -> ScoredExcessDetector:
    """Return a detector of sounds whose bands rise above their noise floors.

    The score of a hop is pooled over the bands in use (`BandPool`), echoes are masked
    (`ForwardMask`), and thresholds are fixed: they do not follow what was heard.

    Parameters
    ----------
    options : ExcessOptions
        Bands, thresholds and durations.
    sample_rate : int
        Rate of the samples in Hz.

    Raises
    ------
    ConfigError
        The options are impossible at this rate, or there are no weights.
    """
    if problems := list(_weight_problems(options)):
        raise ConfigError(problems)
    excess = BandExcess(options, sample_rate)
    bands = bands_in_use(options, excess.edges_hz)
    score = PooledScore(
        BandPool(bands, excess.cells, options.pool, options.weights, options.zero_db),
        ForwardMask(
            options.mask_db, options.mask_db_per_s * excess.hop_length / sample_rate
        ),
    )
    near = options.on_db - NEAR_DB
    rules = options.rules(options.on_db, options.off_db, sample_rate, near)
    return ScoredExcessDetector(excess, score, rules, _UNIT, bands=bands)


def _weight_problems(options: ExcessOptions) -> Iterable[OptionProblem]:
    """Yield a sentence if the weights that are needed are missing or too many."""
    count = 0 if options.weights is None else len(options.weights)
    if count != N_WEIGHTS and (options.pool == "weights" or count):
        yield OptionProblem(
            "weights",
            f"there are {count or 'no'} weights, {N_WEIGHTS} are needed: let "
            "`neurovocal tune` write them",
        )


def _build(options: ExcessOptions, context: BuildContext) -> ScoredExcessDetector:
    rate = sample_rate_of(context, "excess")
    tell_foreign_floor(options, rate)
    return make_detector(options, rate)


def _check(options: ExcessOptions, context: BuildContext) -> Iterable[str]:
    yield from _weight_problems(options)
    yield from framing_problems(
        options, ("high_hz", "call_high_hz", "call_low_hz"), context
    )


plugin = Plugin(
    kind="detector",
    options=ExcessOptions,
    build=_build,
    summary="band above its own noise, thresholds fixed by examples (tune)",
    check=_check,
)
