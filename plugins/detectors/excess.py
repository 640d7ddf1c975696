"""Detector of sounds in a band above the band's own noise, with fixed thresholds.

Its options are those that a few examples tell: `neurovocal tune` writes them.
"""

from collections.abc import Iterable
from typing import ClassVar, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy.stats import chi2

from neurovocal.engine import (
    Block,
    BuildContext,
    ConfigError,
    Float32,
    Gap,
    Mark,
    Plugin,
    Posteriors,
    Segmenter,
    SegmenterOptions,
    Trace,
    TraceKeeper,
)
from neurovocal.engine.audio.near_misses import NEAR_DB
from neurovocal.engine.audio.segmenter import DURATIONS
from neurovocal.engine.contracts.options import HIGHEST_HZ, Order
from neurovocal.plugins.detectors.band_excess import (
    LEAST_DB,
    BandExcess,
    FloorOptions,
    framing,
)
from neurovocal.plugins.detectors.band_level import unreachable_problems

Pool: TypeAlias = Literal["power", "level"]
_MOST_DB = 200.0
# Noise reaches the threshold 0 dB of pooled powers in one of so many frames.
_CHANCE = 1e-4
# One band counts for no more than this in a mean of levels.
_LOUDEST_DB = 40.0


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
    each from 0 to 40 dB: for sounds that fill the band, in rain or wind."""
    on_db: float = Field(default=8.0, gt=0, le=_MOST_DB)
    """A sound is a segment when it reaches this score."""
    off_db: float = Field(default=6.0, gt=0, le=_MOST_DB)
    """A segment lasts while the score is at least this."""
    mask_db: float | None = Field(default=16.0, gt=0, le=_MOST_DB)
    """What is so much below a peak is not heard right after it: echoes and tails.
    None: everything is heard."""
    mask_db_per_s: float = Field(default=400.0, gt=0, le=1e6)
    """How fast a peak is forgotten."""


class BandPool:
    """One score per hop from the excesses of the bands in use.

    Parameters
    ----------
    bands : slice
        Bands in use.
    cells : float64[32]
        Independent values in each band, as `BandExcess.cells`.
    pool : {'power', 'level'}
        What is averaged over the bands.
    """

    def __init__(self, bands: slice, cells: NDArray[np.float64], pool: Pool) -> None:
        self._bands = bands
        self._pool = pool
        used = cells[bands]
        self._weights = used / used.sum()
        degrees = 2 * used.sum()
        self._chance_db = 10 * np.log10(chi2.ppf(1 - _CHANCE, degrees) / degrees)

    def __call__(self, excess: Float32) -> NDArray[np.float64]:
        """Return the scores of hops in dB, float64[n_hops].

        Parameters
        ----------
        excess : float32[n_hops, 32]
            Rows of `BandExcess`.
        """
        rows = excess[:, self._bands].astype(np.float64)
        if self._pool == "level":
            np.clip(rows, 0, _LOUDEST_DB, out=rows)
            return np.asarray(np.add.reduce(rows, axis=1) / rows.shape[1])
        rows *= np.log(10) / 10
        np.exp(rows, out=rows)
        rows *= self._weights
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


class ExcessDetector:
    """Detector of sounds whose bands rise above their own running noise floors.

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
        The options are impossible at this rate.
    """

    consumes: Literal["samples", "posteriors"] = "samples"

    def __init__(self, options: ExcessOptions, sample_rate: int) -> None:
        self._excess = BandExcess(options, sample_rate)
        hop, frame = self._excess.hop_length, self._excess.frame_length
        self._bands = bands_in_use(options, self._excess.edges_hz)
        self._pool = BandPool(self._bands, self._excess.cells, options.pool)
        self._mask = ForwardMask(
            options.mask_db, options.mask_db_per_s * hop / sample_rate
        )
        near = options.on_db - NEAR_DB
        rules = options.rules(options.on_db, options.off_db, sample_rate, near)
        self._segmenter = Segmenter(rules, hop, (frame - hop) // 2)
        self._trace = TraceKeeper(hop, frame, "dB above the noise floors")
        self._thresholds = options.on_db, options.off_db
        self.latency = rules.latency + self._excess.latency + 2 * hop
        self._has_audio = False  # since the start or the last gap
        self._stop = 0  # sample after the last one received
        self.reset()

    def reset(self) -> None:
        """Reset to the state of a new detector."""
        self._segmenter.reset()
        self._trace.reset()
        self._excess.reset()
        self._mask.reset()
        self._has_audio = False
        self._stop = 0

    def process(self, item: Block | Posteriors | Gap, /) -> Iterable[Mark]:
        """Return the marks that `item` completes; a gap truncates an open segment."""
        if isinstance(item, Gap):
            return self._finish(*self._excess.gap(item))
        assert isinstance(item, Block)
        if not self._has_audio and len(item.samples):
            self._segmenter.begin(item.start)
            self._has_audio = True
        self._stop = item.start + len(item.samples)
        return self._marks(*self._excess.push(item))

    def flush(self) -> Iterable[Mark]:
        """Return the last marks at the end of the stream, truncating a segment."""
        marks = self._finish(*self._excess.flush())
        self._stop = 0
        return marks

    def trace(self) -> Iterable[Trace]:
        """Return score, thresholds and noise floor of the hops since the last call."""
        return self._trace.take()

    def _finish(self, first: int, excess: Float32) -> list[Mark]:
        """Process rows that were held back and close the open segment."""
        if not self._has_audio:
            return []
        marks = self._marks(first, excess)
        marks += self._segmenter.close(self._stop)
        self._mask.reset()
        self._has_audio = False
        return marks

    def _marks(self, first: int, excess: Float32) -> list[Mark]:
        if len(excess) == 0:
            return []
        scores = self._mask(first, self._pool(excess))
        if self._trace.is_asked:
            powers = 10.0 ** (self._excess.floor_db[self._bands] / 10)
            floor_db = 10 * np.log10(powers.sum())
            self._trace.add(first, scores, *self._thresholds, floor_db)
        return self._segmenter.process(first, scores)


def _build(options: ExcessOptions, context: BuildContext) -> ExcessDetector:
    if context.info is None:
        raise ConfigError("the excess detector needs to know its stream's rate")
    return ExcessDetector(options, context.info.sample_rate)


def _check(options: ExcessOptions, context: BuildContext) -> Iterable[str]:
    if context.info is None:
        return
    rate = context.info.sample_rate
    yield from unreachable_problems(
        options, ("high_hz", "call_high_hz", "call_low_hz"), rate
    )
    try:
        framing(options, rate)
    except ConfigError as error:
        yield from error.problems


plugin = Plugin(
    kind="detector",
    options=ExcessOptions,
    build=_build,
    summary="band above its own noise, thresholds fixed by examples (tune)",
    check=_check,
)
