"""Detector `windows`: segments of equal length, one after another, whatever sounds.

For models that label whole windows of audio, such as exports of BirdNET: every few
seconds get a label.
"""

from collections.abc import Iterable
from typing import Literal

from pydantic import Field

from neurovocal.engine import (
    Block,
    BuildContext,
    ConfigError,
    Gap,
    Offset,
    Onset,
    Options,
    Plugin,
    Posteriors,
    to_samples,
)
from neurovocal.engine.contracts.types import Mark

_SCORE = 0.0  # nothing is measured


class WindowsOptions(Options):
    """Options of the ``windows`` detector."""

    length_s: float = Field(default=3.0, ge=0.01, le=3600)
    """Length of a segment; they follow each other without holes."""


class WindowsDetector:
    """Segments ``[k * length, (k + 1) * length)`` of the stream.

    At a gap the segment ends, truncated; the next one begins behind it and ends on the
    stream's grid.

    Parameters
    ----------
    length : int
        Samples per segment.
    """

    consumes: Literal["samples", "posteriors"] = "samples"
    latency = 0

    def __init__(self, length: int) -> None:
        self._length = length
        self._segment = self._stop = 0
        self._onset: int | None = None

    def process(self, item: Block | Posteriors | Gap, /) -> Iterable[Mark]:
        """Return the marks that `item` completes; a gap truncates the segment."""
        if isinstance(item, Gap):
            return self.flush()
        assert isinstance(item, Block)
        marks: list[Mark] = []
        if len(item.samples) and self._onset is None:
            marks.append(self._begin(item.start))
        while self._onset is not None:
            end = (self._onset // self._length + 1) * self._length
            if end > item.stop:
                break
            marks.append(Offset(self._segment, self._onset, end, False))
            self._segment += 1
            self._onset = None
            if end < item.stop:
                marks.append(self._begin(end))
        self._stop = item.stop
        return marks

    def flush(self) -> Iterable[Mark]:
        """Truncate the segment at the end of the stream."""
        if self._onset is None:
            return []
        mark = Offset(self._segment, self._onset, self._stop, True)
        self._segment += 1
        self._onset = None
        return [mark]

    def reset(self) -> None:
        """Reset to the state of a new detector."""
        self._segment = self._stop = 0
        self._onset = None

    def _begin(self, sample: int) -> Mark:
        self._onset = sample
        return Onset(self._segment, sample, _SCORE)


def _build(options: WindowsOptions, context: BuildContext) -> WindowsDetector:
    if context.info is None:
        raise ConfigError("the windows detector needs to know its stream's rate")
    rate = context.info.sample_rate
    return WindowsDetector(max(1, to_samples(1000 * options.length_s, rate)))


plugin = Plugin(
    kind="detector",
    options=WindowsOptions,
    build=_build,
    summary="segments of equal length, one after another, for models of whole windows",
)
