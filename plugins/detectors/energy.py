"""The default detector: level of a band against a running noise floor."""

import math
from collections.abc import Iterable
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from neurovocal.engine.audio.segmenter import Segmenter, SegmenterRules
from neurovocal.engine.contracts.errors import ConfigError
from neurovocal.engine.contracts.options import Options
from neurovocal.engine.contracts.plugin import BuildContext, Plugin
from neurovocal.engine.contracts.types import Block, Gap, Mark, Onset, Posteriors
from neurovocal.plugins.detectors.band_level import EDGE, BandLevel, default_band
from neurovocal.plugins.detectors.noise_floor import RelativeLevel, RunningQuantile

LEARN_EVERY = 64  # hops between updates of the noise floor
CALM = 12.0  # least product of bandwidth and averaging time


class EnergyOptions(Options):
    """Options of the `energy` detector."""

    low_hz: float | None = Field(default=None, gt=0)
    """Lower edge of the band; by default 1/32 of the rate, at most 500 Hz, and
    20 kHz where the rate is above 96 kHz."""
    high_hz: float | None = Field(default=None, gt=0)
    """Upper edge of the band; by default 0.45 of the rate, at most 10 kHz where
    the rate is not above 96 kHz."""
    on_db: float = Field(default=10.0, gt=0)
    """A sound is a segment when it reaches this level above the noise floor."""
    off_db: float = Field(default=8.0, gt=0)
    """A segment lasts while the level is this far above the noise floor."""
    min_duration_ms: float = Field(default=10.0, ge=0)
    """Shorter sounds are ignored."""
    max_duration_ms: float = Field(default=5000.0, gt=0)
    """A longer sound is closed as truncated and a new segment begins."""
    gap_fill_ms: float = Field(default=6.0, ge=0)
    """Sounds that are less than this apart are one segment."""
    min_silence_ms: float = Field(default=0.0, ge=0)
    """For so long after a segment no new one begins."""
    pre_ms: float = Field(default=0.0, ge=0)
    """Buffer before each segment."""
    post_ms: float = Field(default=0.0, ge=0)
    """Buffer after each segment; its offset is told that much later."""
    lookback_ms: float = Field(default=10.0, ge=0)
    """How far before the level reached `on_db` an onset may lie."""
    early: bool = False
    """Tell onsets before `min_duration_ms` has passed; short sounds are then
    told, too."""
    hop_ms: float = Field(default=1.0, gt=0)
    """Time between two values of the level."""
    smooth_ms: float | None = Field(default=None, ge=0)
    """The level is averaged over about this time, half of it look-ahead; by
    default 2 ms, longer where the band is narrower than 6 kHz, so that the level
    of noise stays calm."""
    floor_quantile: float = Field(default=0.1, gt=0, lt=1)
    """The noise floor is this quantile of the levels heard lately."""
    memory_s: float = Field(default=5.0, gt=0)
    """How long levels are remembered (time constant)."""
    settle_s: float = Field(default=1.0, ge=0)
    """At the start of a stream, and after an interruption longer than the memory,
    marks are held back for so long, until the noise floor is known."""
    least_floor_db: float = -95.0
    """The noise floor is never taken to be lower than this (dB re full scale,
    mean square), as in digital silence."""


def band_problem(options: EnergyOptions, sample_rate: int) -> str | None:
    """What is wrong with the band at a sample rate, in one sentence."""
    low, high = band(options, sample_rate)
    if low >= high:
        return (
            f"the band from {low:g} to {high:g} Hz is empty at {sample_rate} Hz: "
            f"set low_hz below high_hz and below {EDGE * sample_rate:g} Hz"
        )
    return None


def band(options: EnergyOptions, sample_rate: int) -> tuple[float, float]:
    """Band in Hz: the options', else the rate's, never beyond 0.45 of the rate."""
    low, high = default_band(sample_rate)
    if options.low_hz is not None:
        low = options.low_hz
    if options.high_hz is not None:
        high = options.high_hz
    return low, min(high, EDGE * sample_rate)


class EnergyDetector:
    """Segments where a band is louder than the background.

    The score of a hop is its level (smoothed mean square in the band) over the
    noise floor as known at the last multiple of 64 hops; onsets carry it in dB.

    Parameters
    ----------
    options : EnergyOptions
        Band, thresholds and durations.
    sample_rate : int
        Hz.

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
        low, high = band(options, sample_rate)
        hop = max(1, round(options.hop_ms * sample_rate / 1000))
        per_s = sample_rate / hop
        reach = round(_smooth_s(options, high - low) * per_s / 2)
        rules = _rules(options, sample_rate)
        self._hop = hop
        self._memory = round(options.memory_s * sample_rate)
        self._level = BandLevel(low, high, sample_rate, hop, reach)
        floor = RunningQuantile(
            options.floor_quantile,
            options.memory_s * per_s,
            10.0 ** (options.least_floor_db / 10),
        )
        settle = max(1, round(options.settle_s * per_s))
        self._relative = RelativeLevel(floor, settle, LEARN_EVERY)
        self._segmenter = Segmenter(rules, hop)
        settling = (settle + reach + 1) * hop
        steady = rules.latency + (reach + 2) * hop
        self.latency = max(settling, steady)
        self._hears = False  # whether audio has come since the start or a gap
        self._heard = 0
        self.reset()

    def reset(self) -> None:
        """Forget everything, as if newly built."""
        self._segmenter.reset()
        self._forget()

    def process(self, item: Block | Posteriors | Gap, /) -> Iterable[Mark]:
        """Marks known after `item`; a gap closes an open segment as truncated."""
        if isinstance(item, Gap):
            return self._break(item)
        assert isinstance(item, Block)
        if not self._hears and len(item.samples):
            self._segmenter.begin(item.start)
            self._hears = True
        self._heard = item.stop
        return self._judge(self._relative.push(*self._level.push(item)))

    def flush(self) -> Iterable[Mark]:
        """End of the stream: an open segment is closed as truncated."""
        marks = self._end()
        self._forget()
        return marks

    def _break(self, gap: Gap) -> list[Mark]:
        """Close at a gap. The background outlives an interruption, not a change.

        An empty gap is a change of recording.
        """
        marks = self._end()
        if not 0 < gap.stop - gap.start <= self._memory:
            self._forget()
        return marks

    def _end(self) -> list[Mark]:
        """Judge what is still held back and close the open segment."""
        if not self._hears:
            return []
        marks = self._judge(self._relative.push(*self._level.flush()))
        marks += self._judge(self._relative.interrupt())
        marks += _in_db(self._segmenter.close(self._heard))
        self._level.begin()
        self._hears = False
        return marks

    def _forget(self) -> None:
        """Forget the background, too."""
        self._level.begin()
        self._relative.reset()
        self._hears = False
        self._heard = 0

    def _judge(self, pieces: list[tuple[int, NDArray[np.float64]]]) -> list[Mark]:
        marks: list[Mark] = []
        for first, ratios in pieces:
            marks += self._segmenter.process(first, ratios)
        return _in_db(marks)


def _in_db(marks: list[Mark]) -> list[Mark]:
    return [
        Onset(mark.segment, mark.sample, 10 * math.log10(mark.score))
        if isinstance(mark, Onset)
        else mark
        for mark in marks
    ]


def _smooth_s(options: EnergyOptions, width_hz: float) -> float:
    """Time to average over.

    The mean square of noise of bandwidth B over a time T scatters as
    1 / sqrt(B * T) (Bendat and Piersol, Random Data, section 8.3): B * T >= 12
    keeps it more than five standard deviations below the default threshold.
    """
    if options.smooth_ms is not None:
        return options.smooth_ms / 1000
    return max(0.002, CALM / width_hz)


def _rules(options: EnergyOptions, sample_rate: int) -> SegmenterRules:
    def samples(milliseconds: float) -> int:
        return round(milliseconds * sample_rate / 1000)

    return SegmenterRules(
        on=10.0 ** (options.on_db / 10),
        off=10.0 ** (options.off_db / 10),
        min_duration=samples(options.min_duration_ms),
        max_duration=max(1, samples(options.max_duration_ms)),
        gap_fill=samples(options.gap_fill_ms),
        min_silence=samples(options.min_silence_ms),
        lookback=samples(options.lookback_ms),
        pre=samples(options.pre_ms),
        post=samples(options.post_ms),
        early=options.early,
    )


def _problems(options: EnergyOptions, sample_rate: int) -> Iterable[str]:
    problem = band_problem(options, sample_rate)
    if problem:
        yield problem
    if options.off_db > options.on_db:
        yield (
            f"off_db ({options.off_db:g}) is above on_db ({options.on_db:g}): a "
            "segment would end before it begins"
        )
    if options.max_duration_ms < options.min_duration_ms:
        yield (
            f"max_duration_ms ({options.max_duration_ms:g}) is below "
            f"min_duration_ms ({options.min_duration_ms:g})"
        )


def _build(options: EnergyOptions, context: BuildContext) -> EnergyDetector:
    if context.info is None:
        raise ConfigError("the energy detector needs to know its stream's rate")
    return EnergyDetector(options, context.info.sample_rate)


def _check(options: EnergyOptions, context: BuildContext) -> Iterable[str]:
    rate = context.info.sample_rate if context.info else None
    return _problems(options, rate) if rate else ()


plugin = Plugin(
    kind="detector",
    options=EnergyOptions,
    build=_build,
    summary="level of a band against a running noise floor (the default)",
    check=_check,
)
