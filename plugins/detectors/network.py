"""Segments from the posteriors of the lane's own classifier."""

from collections.abc import Iterable
from typing import Literal

import numpy as np
from pydantic import Field

from neurovocal.engine.audio.segmenter import Segmenter, SegmenterRules
from neurovocal.engine.contracts.bundle import FrontEnd
from neurovocal.engine.contracts.errors import BundleError, ConfigError, StageError
from neurovocal.engine.contracts.options import Options
from neurovocal.engine.contracts.plugin import BuildContext, Plugin
from neurovocal.engine.contracts.types import Block, Gap, Mark, Posteriors


class NetworkOptions(Options):
    """Options of the `network` detector."""

    on: float = Field(default=0.6, gt=0, le=1)
    """A sound is a segment when P(not silence) reaches this."""
    off: float = Field(default=0.4, gt=0, le=1)
    """A segment lasts while P(not silence) is at least this."""
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
    """How far before P reached `on` an onset may lie."""
    early: bool = False
    """Tell onsets before `min_duration_ms` has passed; short sounds are then
    told, too."""


class NetworkDetector:
    """Segments where the classifier hears something other than silence.

    The score of frame k is 1 - P(silence). It speaks of the `hop_length` samples
    around the frame's centre, ``k * hop_length + frame_length / 2``.

    Parameters
    ----------
    options : NetworkOptions
        Thresholds and durations.
    front_end : FrontEnd
        Rate, hop and length of the frames that the posteriors belong to.
    silence : int
        Column of the posteriors that is silence.
    """

    consumes: Literal["samples", "posteriors"] = "posteriors"

    def __init__(
        self, options: NetworkOptions, front_end: FrontEnd, silence: int
    ) -> None:
        def samples(milliseconds: float) -> int:
            return round(milliseconds * front_end.sample_rate / 1000)

        rules = SegmenterRules(
            on=options.on,
            off=options.off,
            min_duration=samples(options.min_duration_ms),
            max_duration=max(1, samples(options.max_duration_ms)),
            gap_fill=samples(options.gap_fill_ms),
            min_silence=samples(options.min_silence_ms),
            lookback=samples(options.lookback_ms),
            pre=samples(options.pre_ms),
            post=samples(options.post_ms),
            early=options.early,
        )
        self._hop = front_end.hop_length
        self._frame_length = front_end.frame_length
        self._silence = silence
        origin = (self._frame_length - self._hop) // 2
        self._segmenter = Segmenter(rules, self._hop, origin)
        self.latency = rules.latency + self._frame_length + self._hop
        self.reset()

    def reset(self) -> None:
        """Forget everything, as if newly built."""
        self._segmenter.reset()
        self._next: int | None = None

    def process(self, item: Block | Posteriors | Gap, /) -> Iterable[Mark]:
        """Marks known after `item`; a gap closes an open segment as truncated.

        Raises
        ------
        StageError
            The posteriors are not on the bundle's frame grid.
        """
        if isinstance(item, Gap):
            return self.flush()
        assert isinstance(item, Posteriors)
        if (item.hop_length, item.frame_length) != (self._hop, self._frame_length):
            raise StageError(
                f"network detector: posteriors come every {item.hop_length} samples "
                f"over {item.frame_length}, the bundle says {self._hop} over "
                f"{self._frame_length}"
            )
        if self._next is None:
            self._segmenter.begin(item.first * self._hop)
        self._next = item.first + len(item.values)
        scores = 1.0 - item.values[:, self._silence].astype(np.float64)
        return self._segmenter.process(item.first, scores)

    def flush(self) -> Iterable[Mark]:
        """End of the stream: an open segment is closed as truncated."""
        if self._next is None:
            return []
        # The end of the last frame is the end of what the classifier has heard.
        heard = (self._next - 1) * self._hop + self._frame_length
        self._next = None
        return self._segmenter.close(heard)


def _problems(options: NetworkOptions, context: BuildContext) -> Iterable[str]:
    if options.off > options.on:
        yield (
            f"off ({options.off:g}) is above on ({options.on:g}): a segment would "
            "end before it begins"
        )
    if options.max_duration_ms < options.min_duration_ms:
        yield (
            f"max_duration_ms ({options.max_duration_ms:g}) is below "
            f"min_duration_ms ({options.min_duration_ms:g})"
        )


def _build(options: NetworkOptions, context: BuildContext) -> NetworkDetector:
    problems = list(_problems(options, context))
    if problems:
        raise ConfigError(problems)
    if context.bundle is None:
        raise BundleError(
            "the network detector listens to a bundle's classifier: name a bundle, "
            "or use the 'energy' detector"
        )
    manifest = context.bundle.manifest
    spec = manifest.classifier
    if spec is None:
        raise BundleError(
            f"bundle '{manifest.name}' has no classifier, which the network detector "
            "needs: use the 'energy' detector"
        )
    silence = spec.units.index(spec.silence)
    return NetworkDetector(options, manifest.front_end, silence)


plugin = Plugin(
    kind="detector",
    options=NetworkOptions,
    build=_build,
    summary="segments from the classifier's own posteriors",
    check=_problems,
)
