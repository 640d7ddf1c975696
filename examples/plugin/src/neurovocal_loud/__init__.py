"""Detector of loud samples: template of a plugin in a distribution of its own."""

from collections.abc import Iterable
from typing import Literal

from neurovocal.engine import (
    Block,
    BuildContext,
    Gap,
    Mark,
    Options,
    Plugin,
    Segmenter,
    SegmenterRules,
)


class LoudOptions(Options):
    """Options of the detector. The text under a field is its help text."""

    level: float = 0.05
    """Absolute value of a sample at which a segment begins."""


class Loud:
    """Detector of loud segments; the `Segmenter` turns levels into marks."""

    consumes: Literal["samples"] = "samples"

    def __init__(self, level: float, sample_rate: int) -> None:
        ms = sample_rate // 1000
        rules = SegmenterRules(
            on=level, off=level / 2, min_duration=10 * ms, gap_fill=6 * ms
        )
        self.latency = rules.latency
        self._segmenter = Segmenter(rules, hop_length=1)
        self._stop = 0

    def process(self, item: Block | Gap) -> Iterable[Mark]:
        """Return the marks known after `item`; a gap closes an open segment."""
        if isinstance(item, Gap):
            marks = self._segmenter.close(item.start)
            self._segmenter.begin(item.stop)
            return marks
        self._stop = item.stop
        return self._segmenter.process(item.start, abs(item.samples[:, 0]))

    def flush(self) -> Iterable[Mark]:
        """Close an open segment at the end of the stream."""
        return self._segmenter.close(self._stop)

    def reset(self) -> None:
        """Return to the state of a new detector."""
        self._segmenter.reset()
        self._stop = 0


def _build(options: LoudOptions, context: BuildContext) -> Loud:
    assert context.info is not None  # set for every stage of a lane
    return Loud(options.level, context.info.sample_rate)


plugin = Plugin(
    kind="detector",
    options=LoudOptions,
    build=_build,
    summary="Segments of samples above an absolute level",
)
