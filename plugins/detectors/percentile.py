"""Detector of runs in which the smoothed waveform exceeds a percentile of itself."""

from collections.abc import Iterable
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from neurovocal.engine import (
    Block,
    BuildContext,
    ConfigError,
    Gap,
    Mark,
    Offset,
    Onset,
    Plugin,
    Posteriors,
    Segmenter,
    SegmenterRules,
    StageError,
    to_samples,
)
from neurovocal.engine.audio.near_misses import NEAR_DB
from neurovocal.engine.contracts.options import OptionProblem
from neurovocal.plugins.detectors.noise_floor import (
    Interruption,
    RelativeLevel,
    RunningQuantile,
)
from neurovocal.plugins.detectors.percentile_method import (
    PercentileOptions,
    percentile_segments,
)

__all__ = ["PercentileOptions", "percentile_segments", "plugin"]

UPDATE_EVERY_S = 0.064  # running scope: between two updates of the threshold
LEAST_THRESHOLD_DB = -120.0  # running scope: below any 16-bit signal


class FilePercentileDetector:
    """Percentile method on a whole recording: buffers audio up to a gap or the end.

    Parameters
    ----------
    options : PercentileOptions
        Percentile and durations.
    sample_rate : int
        Rate of the samples in Hz.
    """

    consumes: Literal["samples", "posteriors"] = "samples"

    def __init__(self, options: PercentileOptions, sample_rate: int) -> None:
        self._options = options
        self._rate = sample_rate
        self.latency = round(options.max_file_s * sample_rate)
        self.reset()

    def reset(self) -> None:
        """Reset to the state of a new detector."""
        self._segment = 0
        self._clear()

    def process(self, item: Block | Posteriors | Gap, /) -> Iterable[Mark]:
        """Buffer a block; at a gap return the marks of the buffered audio.

        Raises
        ------
        StageError
            More than `max_file_s` of audio came without a gap.
        """
        if isinstance(item, Gap):
            return self.flush()
        assert isinstance(item, Block)
        if self._length == 0:
            self._start = item.start
        self._length += len(item.samples)
        if self._length > self.latency:
            self._clear()
            raise StageError(
                "percentile detector: the recording is longer than max_file_s "
                f"({self._options.max_file_s:g} s): raise max_file_s, or set "
                "scope to 'running', which needs no end"
            )
        self._parts.append(item.samples[:, 0].copy())
        return ()

    def flush(self) -> Iterable[Mark]:
        """Return the marks of the buffered audio."""
        if not self._parts:
            return []
        samples = np.concatenate(self._parts)
        start = self._start
        self._clear()
        marks: list[Mark] = []
        for onset, offset, score in percentile_segments(
            samples, self._rate, self._options
        ):
            # A segment at the end of the audio may have lasted longer.
            truncated = offset == len(samples)
            marks.append(Onset(self._segment, start + onset, score))
            marks.append(
                Offset(self._segment, start + onset, start + offset, truncated)
            )
            self._segment += 1
        return marks

    def _clear(self) -> None:
        self._parts: list[NDArray[np.float32]] = []
        self._length = 0
        self._start = 0


class RunningPercentileDetector:
    """Percentile method with a running percentile, for a stream without an end.

    The percentile is that of recent samples (exponential forgetting with time
    constant `memory_s`), updated every 64 ms.

    Parameters
    ----------
    options : PercentileOptions
        Percentile, durations and memory.
    sample_rate : int
        Rate of the samples in Hz.
    """

    consumes: Literal["samples", "posteriors"] = "samples"

    def __init__(self, options: PercentileOptions, sample_rate: int) -> None:
        self._width = max(1, to_samples(options.smooth_ms, sample_rate))
        self._before = self._width // 2
        self._after = (self._width - 1) // 2
        memory = round(options.memory_s * sample_rate)
        self._interruption = Interruption(memory)
        settle = max(1, round(options.settle_s * sample_rate))
        buffer = to_samples(options.buffer_ms, sample_rate)
        rules = SegmenterRules(
            on=1.0,
            off=1.0,
            min_duration=to_samples(options.min_duration_ms, sample_rate),
            max_duration=max(1, to_samples(options.max_duration_ms, sample_rate)),
            gap_fill=to_samples(options.min_spacing_ms, sample_rate),
            pre=buffer,
            post=buffer,
            near=10.0 ** (-NEAR_DB / 10) if options.near_misses else None,
            second=sample_rate,
        )
        # `RunningQuantile` takes powers: levels are squared.
        threshold = RunningQuantile(
            options.percentile / 100, memory, 10 ** (LEAST_THRESHOLD_DB / 10)
        )
        every = max(1, round(UPDATE_EVERY_S * sample_rate))
        self._relative = RelativeLevel(threshold, settle, every)
        self._segmenter = Segmenter(rules, hop_length=1)
        self.latency = max(settle, rules.latency) + self._after + 1
        self._stop: int | None = None  # sample after the last one received
        self.reset()

    def reset(self) -> None:
        """Reset to the state of a new detector."""
        self._segmenter.reset()
        self._relative.reset()
        self._interruption.end()
        self._begin(None)

    def process(self, item: Block | Posteriors | Gap, /) -> Iterable[Mark]:
        """Return the marks that `item` completes; a gap truncates an open segment."""
        if isinstance(item, Gap):
            marks = self._finish()
            if self._interruption.is_too_long(item):
                self._relative.reset()
            return marks
        assert isinstance(item, Block)
        if self._stop is None:
            self._begin(item.start)
            self._segmenter.begin(item.start)
            self._interruption.end()
        self._stop = item.stop
        return self._push(np.abs(item.samples[:, 0], dtype=np.float64))

    def flush(self) -> Iterable[Mark]:
        """Return the last marks at the end of the stream, truncating a segment."""
        marks = self._finish()
        self._relative.reset()
        self._interruption.end()
        return marks

    def _begin(self, start: int | None) -> None:
        self._stop = start
        self._next = start or 0  # sample of the next smoothed value
        # Running sums up to each of the last `width` samples, zeros before.
        self._sums = np.zeros(self._before + 1)

    def _finish(self) -> list[Mark]:
        if self._stop is None:
            return []
        marks = self._push(np.zeros(self._after))
        for first, ratios in self._relative.interrupt():
            marks += self._segmenter.process(first, ratios)
        marks += self._segmenter.close(self._stop)
        self._begin(None)
        return marks

    def _push(self, rectified: NDArray[np.float64]) -> list[Mark]:
        marks: list[Mark] = []
        for first, ratios in self._relative.push(*self._smooth(rectified)):
            marks += self._segmenter.process(first, ratios)
        return marks

    def _smooth(
        self, rectified: NDArray[np.float64]
    ) -> tuple[int, NDArray[np.float64]]:
        """Return the squared moving average, float64[n], and the sample of its first.

        Running sums are added in one order, so that the values do not depend on how
        the samples are cut into calls.
        """
        rectified = rectified.copy()
        if len(rectified):
            rectified[0] += self._sums[-1]
        sums = np.concatenate((self._sums, np.cumsum(rectified)))
        count = max(len(sums) - self._width, 0)
        level = (sums[self._width :] - sums[:count]) / self._width
        self._sums = sums[count:]
        first, self._next = self._next, self._next + count
        return first, level * level


def _build(
    options: PercentileOptions, context: BuildContext
) -> FilePercentileDetector | RunningPercentileDetector:
    if context.info is None:
        raise ConfigError("the percentile detector needs to know its stream's rate")
    if options.scope == "file":
        return FilePercentileDetector(options, context.info.sample_rate)
    return RunningPercentileDetector(options, context.info.sample_rate)


def _check(options: PercentileOptions, context: BuildContext) -> Iterable[str]:
    if options.near_misses and options.scope == "file":
        yield OptionProblem(
            "near_misses",
            "a percentile of the whole recording (scope 'file') has no near misses: "
            "set scope to 'running', or leave it out",
        )


plugin = Plugin(
    kind="detector",
    options=PercentileOptions,
    build=_build,
    check=_check,
    summary="smoothed amplitude above a percentile, of the file or running",
)
