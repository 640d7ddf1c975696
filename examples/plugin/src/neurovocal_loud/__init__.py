"""A detector of loud samples: the template of a plugin in a distribution of its own."""

from collections.abc import Iterable
from typing import Literal

from neurovocal.engine.audio.segmenter import Segmenter, SegmenterRules
from neurovocal.engine.contracts.options import Options
from neurovocal.engine.contracts.plugin import BuildContext, Plugin
from neurovocal.engine.contracts.types import Block, Gap, Mark


class LoudOptions(Options):
    """What counts as loud. The text under a field is its help text."""

    level: float = 0.05
    """Absolute value of a sample at which a segment begins."""


class Loud:
    """Segments of loud samples; the shared Segmenter does onsets and offsets."""

    consumes: Literal["samples"] = "samples"

    def __init__(self, level: float, sample_rate: int) -> None:
        ms = sample_rate // 1000
        rules = SegmenterRules(
            on=level, off=level / 2, min_duration=10 * ms, gap_fill=6 * ms
        )
        self.latency = rules.latency
        self._segmenter = Segmenter(rules, hop_length=1)
        self._heard = 0

    def process(self, item: Block | Gap) -> Iterable[Mark]:
        """Marks known after a block; a gap closes what is open."""
        if isinstance(item, Gap):
            marks = self._segmenter.close(item.start)
            self._segmenter.begin(item.stop)
            return marks
        self._heard = item.stop
        return self._segmenter.process(item.start, abs(item.samples[:, 0]))

    def flush(self) -> Iterable[Mark]:
        """End of the stream."""
        return self._segmenter.close(self._heard)

    def reset(self) -> None:
        """Forget everything."""
        self._segmenter.reset()
        self._heard = 0


def _build(options: LoudOptions, context: BuildContext) -> Loud:
    assert context.info is not None  # a lane always says what it hears
    return Loud(options.level, context.info.sample_rate)


plugin = Plugin(
    kind="detector",
    options=LoudOptions,
    build=_build,
    summary="Segments of samples above an absolute level",
)
