"""Detector of sounds that stand out in any band, whatever the animal."""

from collections.abc import Iterable
from typing import ClassVar

from pydantic import Field

from neurovocal.engine import (
    BuildContext,
    Plugin,
    SegmenterOptions,
    SegmenterRules,
    to_samples,
)
from neurovocal.engine.audio.near_misses import NEAR_DB
from neurovocal.engine.contracts.options import Order
from neurovocal.plugins.detectors.band_excess import (
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
from neurovocal.plugins.detectors.scores.band_score import BandScore
from neurovocal.plugins.detectors.scores.recent_sounds import RecentSounds

_UNIT = "dB above the usual noise"
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
    lookback_ms: float = Field(default=60.0, ge=0, le=60_000)
    """How far before the score reached its threshold an onset may lie."""


def band_score(
    options: ScoreOptions, excess: BandExcess, sample_rate: int
) -> BandScore:
    """Return what the `bands` detector compares with its thresholds, in dB.

    Parameters
    ----------
    options : ScoreOptions
        Loudest bands and masking.
    excess : BandExcess
        Makes the rows that are scored.
    sample_rate : int
        Rate of its samples in Hz.
    """
    return BandScore(
        excess.cells,
        options.n_loudest,
        options.mask_db,
        _DECAY_DB_S * excess.hop_length / sample_rate,
        options.mask_db + _BROAD_MASK_DB,
    )


def detector_parts(
    options: BandsOptions, sample_rate: int, excess: BandExcess | None = None
) -> tuple[BandExcess, BandScore, SegmenterRules, RecentSounds | None]:
    """Return noise floors, score, rules, and what makes the rules follow, if at all.

    Parameters
    ----------
    options : BandsOptions
        Bands, thresholds and durations.
    sample_rate : int
        Rate of the samples in Hz.
    excess : BandExcess, optional
        Bands and noise floors; by default those of the options.

    Raises
    ------
    ConfigError
        The bands are empty at this rate, or options contradict each other.
    """
    excess = excess or BandExcess(options, sample_rate)
    score = band_score(options, excess, sample_rate)
    near = options.on_db - NEAR_DB
    rules = options.rules(options.on_db, options.off_db, sample_rate, near)
    return excess, score, rules, recent_sounds(options, rules, sample_rate)


def make_detector(
    options: BandsOptions, sample_rate: int, excess: BandExcess | None = None
) -> ScoredExcessDetector:
    """Return a detector of sounds in whichever of 32 bands they are, untuned.

    It is made of `detector_parts`, which has the same parameters and errors.
    """
    excess, score, rules, recent = detector_parts(options, sample_rate, excess)
    return ScoredExcessDetector(excess, score, rules, _UNIT, recent=recent)


def recent_sounds(
    options: BandsOptions, rules: SegmenterRules, sample_rate: int
) -> RecentSounds | None:
    """Return what makes rules follow what was found, or None if they do not.

    Parameters
    ----------
    options : BandsOptions
        Whether they follow.
    rules : SegmenterRules
        Of the first sound, from the same options.
    sample_rate : int
        In Hz.
    """
    if not options.follow:
        return None
    return RecentSounds(
        rules,
        options.on_db + _FOLLOW_DB,
        to_samples(_FOLLOW_DURATION_MS, sample_rate),
        to_samples(_FOLLOW_GAP_MS, sample_rate),
    )


def _build(options: BandsOptions, context: BuildContext) -> ScoredExcessDetector:
    rate = sample_rate_of(context, "bands")
    tell_foreign_floor(options, rate)
    return make_detector(options, rate)


def _check(options: BandsOptions, context: BuildContext) -> Iterable[str]:
    return framing_problems(options, ("high_hz",), context)


plugin = Plugin(
    kind="detector",
    options=BandsOptions,
    build=_build,
    summary="sounds in any of 32 bands, each over its noise floor (the default)",
    check=_check,
)
