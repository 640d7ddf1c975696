"""Detector of level in a band above a running noise floor."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from neurovocal.engine import (
    Block,
    BuildContext,
    ConfigError,
    Gap,
    Mark,
    NearMiss,
    Onset,
    Options,
    Plugin,
    Posteriors,
    Segmenter,
    SegmenterOptions,
    Trace,
    TraceKeeper,
    to_samples,
)
from neurovocal.engine.audio.near_misses import near_level_db
from neurovocal.engine.contracts.batches import StageBatch
from neurovocal.engine.contracts.options import (
    DAY_S,
    HIGHEST_HZ,
    Order,
)
from neurovocal.plugins.detectors.band_level import (
    EDGE,
    BandLevel,
    default_band,
    empty_band_problem,
    unreachable_problems,
)
from neurovocal.plugins.detectors.noise_floor import (
    Interruption,
    RelativeLevel,
    RunningQuantile,
)

UPDATE_EVERY = 64  # hops between updates of the noise floor
# A prior counts for so much sound: the floor of another room is known in 0.1 s where
# it is quieter, in 2.2 s where it is louder, and a sound that began before the stream
# and lasts for 2 s is still one.
_PRIOR_S = 0.3
_MOST_HOPS = 2000
_MOST_DB = 200.0  # beyond the range of 32-bit samples
_LOWEST_SCORE_DB = -60.0  # of a trace: digital silence has no level
LEAST_BANDWIDTH_TIME = 12.0  # least product of bandwidth and averaging time


class LevelOptions(Options):
    """Band and thresholds of the `energy` detector, listed before the durations."""

    orders: ClassVar[tuple[Order, ...]] = (
        Order("off_db", "on_db", "a segment would end as soon as it begins"),
        Order("low_hz", "high_hz", "the band is empty", strict=True),
    )
    low_hz: float | None = Field(default=None, gt=0, le=HIGHEST_HZ)
    """Lower edge of the band; by default 1/32 of the rate, at most 500 Hz, and
    20 kHz where the rate is above 96 kHz."""
    high_hz: float | None = Field(default=None, gt=0, le=HIGHEST_HZ)
    """Upper edge of the band; by default 0.45 of the rate, at most 10 kHz where
    the rate is not above 96 kHz."""
    on_db: float = Field(default=10.0, gt=0, le=_MOST_DB)
    """A sound is a segment when it reaches this level above the noise floor."""
    off_db: float = Field(default=8.0, gt=0, le=_MOST_DB)
    """A segment lasts while the level is this far above the noise floor."""


class EnergyOptions(SegmenterOptions, LevelOptions):
    """Options of the `energy` detector."""

    lookback_ms: float = Field(default=10.0, ge=0, le=60_000)
    """How far before the level reached `on_db` an onset may lie."""
    hop_ms: float = Field(default=1.0, ge=0.01, le=1000)
    """Time between two values of the level."""
    smooth_ms: float | None = Field(default=None, ge=0, le=10_000)
    """The level is averaged over about this time, half of it look-ahead; by
    default 2 ms, longer where the band is narrower than 6 kHz, so that the level
    of noise stays calm."""
    floor_quantile: float = Field(default=0.1, gt=0, lt=1)
    """The noise floor is this quantile of the recent levels."""
    memory_s: float = Field(default=5.0, ge=0.01, le=DAY_S)
    """How long levels are remembered (time constant)."""
    settle_s: float = Field(default=1.0, ge=0, le=3600)
    """At the start of a stream, and after an interruption longer than the memory,
    marks are held back for so long, until the noise floor is known."""
    floor_db: float | None = Field(default=None, ge=-_MOST_DB, le=20)
    """Noise floor of the room with which a stream starts (dB re full scale, mean square
    in the band): nothing is held back then."""
    least_floor_db: float = Field(default=-95.0, ge=-_MOST_DB, le=0)
    """The noise floor is never taken to be lower than this (dB re full scale,
    mean square), as in digital silence."""


def band(options: EnergyOptions, sample_rate: int) -> tuple[float, float]:
    """Return the band in Hz: the options or the defaults, up to 0.45 of the rate."""
    low, high = default_band(sample_rate)
    if options.low_hz is not None:
        low = options.low_hz
    if options.high_hz is not None:
        high = options.high_hz
    return low, min(high, EDGE * sample_rate)


def hop_length(options: EnergyOptions, sample_rate: int) -> int:
    """Return the samples between two levels at a rate in Hz."""
    return max(1, to_samples(options.hop_ms, sample_rate))


def band_level(options: EnergyOptions, sample_rate: int) -> tuple[BandLevel, int]:
    """Return what measures the level, and how many hops on either side it averages.

    Parameters
    ----------
    options : EnergyOptions
        Band and averaging.
    sample_rate : int
        Rate of the samples in Hz.
    """
    low, high = band(options, sample_rate)
    hop = hop_length(options, sample_rate)
    reach = round(_smoothing_s(options, high - low) * sample_rate / hop / 2)
    return BandLevel(low, high, sample_rate, hop, reach), reach


def relative_level(options: EnergyOptions, sample_rate: int) -> RelativeLevel:
    """Return what divides levels by their running noise floor.

    Parameters
    ----------
    options : EnergyOptions
        Memory of the floor, and the one it begins with.
    sample_rate : int
        Rate of the samples in Hz.
    """
    hops_per_s = sample_rate / hop_length(options, sample_rate)
    floor = RunningQuantile(
        options.floor_quantile,
        options.memory_s * hops_per_s,
        10.0 ** (options.least_floor_db / 10),
    )
    settle = _settle_hops(options, sample_rate)
    prior = None if options.floor_db is None else 10.0 ** (options.floor_db / 10)
    return RelativeLevel(floor, settle, UPDATE_EVERY, prior, _PRIOR_S * hops_per_s)


def _settle_hops(options: EnergyOptions, sample_rate: int) -> int:
    hops_per_s = sample_rate / hop_length(options, sample_rate)
    return max(1, round(options.settle_s * hops_per_s))


class EnergyDetector:
    """Detector of segments in which a band is louder than the background.

    The score of a hop is its level (smoothed mean square in the band) divided by the
    noise floor as it was at the last multiple of 64 hops; onsets carry it in dB.

    Parameters
    ----------
    options : EnergyOptions
        Band, thresholds and durations.
    sample_rate : int
        Rate of the samples in Hz.

    Raises
    ------
    ConfigError
        The band is empty at this rate, or thresholds or durations contradict
        each other.
    """

    consumes: Literal["samples", "posteriors"] = "samples"

    def __init__(self, options: EnergyOptions, sample_rate: int) -> None:
        problems = list(_problems(options, sample_rate))
        if problems:
            raise ConfigError(problems)
        self._level, reach = band_level(options, sample_rate)
        hop = hop_length(options, sample_rate)
        on, off = 10.0 ** (options.on_db / 10), 10.0 ** (options.off_db / 10)
        near = 10.0 ** (near_level_db(options.on_db) / 10)
        rules = options.rules(on, off, sample_rate, near)
        self._interruption = Interruption(round(options.memory_s * sample_rate))
        self._relative = relative_level(options, sample_rate)
        self._segmenter = Segmenter(rules, hop)
        self._trace = TraceKeeper(hop, hop, "dB above the noise floor")
        self._thresholds = options.on_db, options.off_db
        settle = _settle_hops(options, sample_rate)
        is_prior = options.floor_db is not None
        while_settling = 0 if is_prior else (settle + reach + 1) * hop
        afterwards = rules.latency + (reach + 2) * hop
        self.latency = max(while_settling, afterwards)
        self._has_audio = False  # since the start or the last gap
        self._stop = 0  # sample after the last one received
        self.reset()

    def reset(self) -> None:
        """Reset to the state of a new detector."""
        self._segmenter.reset()
        self._trace.reset()
        self._reset_levels()

    def process(self, item: Block | Posteriors | Gap, /) -> Iterable[Mark]:
        """Return the marks that `item` completes; a gap truncates an open segment."""
        if isinstance(item, Gap):
            return self._on_gap(item)
        assert isinstance(item, Block)
        if not self._has_audio and len(item.samples):
            self._segmenter.begin(item.start)
            self._interruption.end()
            self._has_audio = True
        self._stop = item.start + len(item.samples)
        first, levels = self._level.push(item)
        if self._trace.is_asked:
            scores = self._relative.push(first, levels, with_references=True)
        else:
            scores = self._relative.push(first, levels)
        return self._marks(scores)

    def flush(self) -> Iterable[Mark]:
        """Return the last marks at the end of the stream, truncating a segment."""
        marks = self._finish()
        self._reset_levels()
        return marks

    def trace(self) -> Iterable[Trace]:
        """Return score, thresholds and noise floor of the hops since the last call."""
        return self._trace.take()

    def batch(self, stages: Sequence["EnergyDetector"], /) -> StageBatch | None:
        """Return a batch of the detectors of several channels (`Batches`)."""
        from neurovocal.plugins.detectors.channels.energy import EnergyBatch

        return EnergyBatch.of(stages)

    def _on_gap(self, gap: Gap) -> list[Mark]:
        """Return the last marks before a gap."""
        marks = self._finish()
        if self._interruption.is_too_long(gap):
            self._reset_levels()
        return marks

    def _finish(self) -> list[Mark]:
        """Process the levels that are held back and close the open segment."""
        if not self._has_audio:
            return []
        first, levels = self._level.flush()
        asked = self._trace.is_asked
        marks = self._marks(self._relative.push(first, levels, with_references=asked))
        marks += self._marks(self._relative.interrupt())
        marks += in_db(self._segmenter.close(self._stop))
        self._level.reset()
        self._has_audio = False
        return marks

    def _reset_levels(self) -> None:
        """Reset the band's level and the noise floor."""
        self._level.reset()
        self._relative.reset()
        self._interruption.end()
        self._has_audio = False
        self._stop = 0

    def _marks(self, scores: list[tuple[int, NDArray[np.float64]]]) -> list[Mark]:
        marks: list[Mark] = []
        for first, ratios in scores:
            marks += self._segmenter.process(first, ratios)
        if self._trace.is_asked:
            self._add_trace(scores)
        return in_db(marks) if marks else marks

    def _add_trace(self, scores: list[tuple[int, NDArray[np.float64]]]) -> None:
        lowest = 10.0 ** (_LOWEST_SCORE_DB / 10)
        parts = iter(self._relative.references)
        for _, ratios in scores:
            taken = 0
            while taken < len(ratios):
                hop, count, floor = next(parts)
                part = np.maximum(ratios[taken : taken + count], lowest)
                taken += count
                score_db = 10 * np.log10(part)
                self._trace.add(hop, score_db, *self._thresholds, _db(floor))


def in_db(marks: list[Mark]) -> list[Mark]:
    """Convert the scores of marks from ratios to dB, in place."""
    for i, mark in enumerate(marks):
        if isinstance(mark, Onset):
            marks[i] = Onset(mark.segment, mark.sample, _db(mark.score))
        elif isinstance(mark, NearMiss):
            threshold = _db(mark.threshold)
            marks[i] = replace(mark, score=_db(mark.score), threshold=threshold)
    return marks


def _db(ratio: float) -> float:
    return 10 * math.log10(ratio)


def _smoothing_s(options: EnergyOptions, width_hz: float) -> float:
    """Return the averaging time in seconds for a band of a width in Hz.

    The mean square of noise of bandwidth B over a time T scatters as
    1 / sqrt(B * T) (Bendat and Piersol, Random Data, section 8.3): B * T >= 12
    keeps it more than five standard deviations below the default threshold.
    """
    if options.smooth_ms is not None:
        return options.smooth_ms / 1000
    return max(0.002, LEAST_BANDWIDTH_TIME / width_hz)


def _problems(options: EnergyOptions, sample_rate: int) -> Iterable[str]:
    low, high = band(options, sample_rate)
    if empty := empty_band_problem(low, high, sample_rate):
        yield empty
        return
    hop_s = max(1, to_samples(options.hop_ms, sample_rate)) / sample_rate
    n_hops = _smoothing_s(options, high - low) / hop_s
    if n_hops > _MOST_HOPS:
        yield (
            f"each level would be averaged over {n_hops:.0f} hops, at most "
            f"{_MOST_HOPS} are possible: raise hop_ms, lower smooth_ms or widen the "
            "band"
        )


def _build(options: EnergyOptions, context: BuildContext) -> EnergyDetector:
    if context.info is None:
        raise ConfigError("the energy detector needs to know its stream's rate")
    return EnergyDetector(options, context.info.sample_rate)


def _check(options: EnergyOptions, context: BuildContext) -> Iterable[str]:
    if context.info is None:
        return
    rate = context.info.sample_rate
    yield from unreachable_problems(options, ("high_hz",), rate)
    yield from _problems(options, rate)


plugin = Plugin(
    kind="detector",
    options=EnergyOptions,
    build=_build,
    summary="level of a band against a running noise floor",
    check=_check,
)
