"""Detector of sounds that stand out in any band, whatever the animal."""

from collections.abc import Iterable
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

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
    to_samples,
)
from neurovocal.engine.audio.near_misses import NEAR_DB
from neurovocal.engine.contracts.options import Order
from neurovocal.plugins.detectors.band_excess import (
    N_BANDS,
    BandExcess,
    FloorOptions,
    framing,
)
from neurovocal.plugins.detectors.band_level import unreachable_problems
from neurovocal.plugins.detectors.band_score import BandScore
from neurovocal.plugins.detectors.recent_sounds import RecentSounds

_MOST_DB = 200.0  # beyond the range of 32-bit samples
_DECAY_DB_S = 100.0  # of the peaks below which sound is masked
_BROAD_MASK_DB = 12.0  # by so much less does a score mask what follows in other bands
# How far the threshold, the shortest duration and the filled pauses follow.
_FOLLOW_DB, _FOLLOW_DURATION_MS, _FOLLOW_GAP_MS = 3.0, 20.0, 10.0


class ScoreOptions(FloorOptions):
    """Thresholds of the `bands` detector, listed before the durations."""

    orders: ClassVar[tuple[Order, ...]] = (
        Order("off_db", "on_db", "a segment would end as soon as it begins"),
        Order("low_hz", "high_hz", "the bands are empty", strict=True),
    )
    on_db: float = Field(default=10.0, gt=0, le=_MOST_DB)
    """A sound is a segment when its loudest bands reach this level. 0 dB is what steady
    noise exceeds in one of 10 000 frames."""
    off_db: float = Field(default=7.0, gt=0, le=_MOST_DB)
    """A segment lasts while its loudest bands have this level."""
    n_loudest: int = Field(default=2, ge=1, le=N_BANDS)
    """The score is the mean over so many loudest bands: fewer for whistles, more for
    harsh or harmonic calls."""
    mask_db: float = Field(default=16.0, gt=0, le=_MOST_DB)
    """In each band a sound this far below the one before it is its echo or tail."""
    follow: bool = True
    """Let the threshold (up to 3 dB), the shortest duration (up to 20 ms) and the
    pauses that are filled (up to 10 ms) rise with the loudness and length of recent
    sounds."""


class BandsOptions(SegmenterOptions, ScoreOptions):
    """Options of the `bands` detector."""

    min_duration_ms: float = Field(default=4.0, ge=0, le=60_000)
    """Shorter sounds are ignored."""
    gap_fill_ms: float = Field(default=8.0, ge=0, le=60_000)
    """Sounds that are less than this apart are one segment."""
    lookback_ms: float = Field(default=30.0, ge=0, le=60_000)
    """How far before the score reached its threshold an onset may lie."""


class BandsDetector:
    """Detector of sounds in whichever of 32 bands they are, untuned.

    Parameters
    ----------
    options : BandsOptions
        Bands, thresholds and durations.
    sample_rate : int
        Rate of the samples in Hz.

    Attributes
    ----------
    band_edges_hz : float64[33]
        Edges of the bands.

    Raises
    ------
    ConfigError
        The bands are empty at this rate, or options contradict each other.
    """

    consumes: Literal["samples", "posteriors"] = "samples"

    def __init__(self, options: BandsOptions, sample_rate: int) -> None:
        self._excess = BandExcess(options, sample_rate)
        self.band_edges_hz = self._excess.edges_hz
        hop, frame_length = self._excess.hop_length, self._excess.frame_length
        hop_s = hop / sample_rate
        self._score = BandScore(
            self._excess.cells,
            options.n_loudest,
            options.mask_db,
            _DECAY_DB_S * hop_s,
            options.mask_db + _BROAD_MASK_DB,
        )
        near = options.on_db - NEAR_DB
        rules = options.rules(options.on_db, options.off_db, sample_rate, near)
        self._recent = RecentSounds(
            rules,
            options.on_db + _FOLLOW_DB,
            to_samples(_FOLLOW_DURATION_MS, sample_rate),
            to_samples(_FOLLOW_GAP_MS, sample_rate),
        )
        origin = (frame_length - hop) // 2
        adapt = self._recent.add if options.follow else None
        self._segmenter = Segmenter(rules, hop, origin, adapt)
        slowest = self._recent.slowest if options.follow else rules
        self.latency = slowest.latency + self._excess.latency + hop
        self._trace = TraceKeeper(hop, frame_length, "dB above the usual noise")
        self._off_db = options.off_db
        self._has_audio = False  # since the start or the last gap
        self._stop = 0  # sample after the last one received
        self.reset()

    def reset(self) -> None:
        """Reset to the state of a new detector."""
        self._recent.reset()
        self._segmenter.reset()
        self._trace.reset()
        self._excess.reset()
        self._begin_anew()

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
        return self._finish(*self._excess.flush())

    def trace(self) -> Iterable[Trace]:
        """Return score, thresholds and noise floor of the hops since the last call."""
        return self._trace.take()

    def _finish(self, first: int, excess: Float32) -> list[Mark]:
        """Process the rows that were held back and close the open segment."""
        if not self._has_audio:
            return []
        marks = self._marks(first, excess)
        marks += self._segmenter.close(self._stop)
        self._begin_anew()
        return marks

    def _begin_anew(self) -> None:
        self._score.reset()
        self._has_audio = False
        self._stop = 0

    def _marks(self, first: int, excess: Float32) -> list[Mark]:
        scores = self._score.push(first, excess)
        if self._trace.is_asked:
            self._add_trace(first, scores)
        return self._segmenter.process(first, scores)

    def _add_trace(self, first: int, scores: NDArray[np.float64]) -> None:
        floor_db = 10 * np.log10((10 ** (self._excess.floor_db / 10)).sum())
        on_db = self._segmenter.rules.on
        self._trace.add(first, scores, on_db, self._off_db, float(floor_db))


def _build(options: BandsOptions, context: BuildContext) -> BandsDetector:
    if context.info is None:
        raise ConfigError("the bands detector needs to know its stream's rate")
    return BandsDetector(options, context.info.sample_rate)


def _check(options: BandsOptions, context: BuildContext) -> Iterable[str]:
    if context.info is None:
        return
    rate = context.info.sample_rate
    yield from unreachable_problems(options, ("high_hz",), rate)
    try:
        framing(options, rate)
    except ConfigError as error:
        yield from error.problems


plugin = Plugin(
    kind="detector",
    options=BandsOptions,
    build=_build,
    summary="sounds in any of 32 bands, each over its noise floor (the default)",
    check=_check,
)
