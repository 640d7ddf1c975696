"""Detector of segments in the posteriors of the lane's classifier."""

from collections.abc import Iterable
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from neurovocal.engine import (
    Block,
    BuildContext,
    BundleError,
    Gap,
    Mark,
    Options,
    Plugin,
    Posteriors,
    Segmenter,
    SegmenterOptions,
    StageError,
    Trace,
    TraceKeeper,
)
from neurovocal.engine.audio.near_misses import near_probability
from neurovocal.engine.contracts.bundle import FrontEnd
from neurovocal.engine.contracts.options import Order


class ThresholdOptions(Options):
    """Thresholds of the `network` detector, listed before the durations."""

    orders: ClassVar[tuple[Order, ...]] = (
        Order("off", "on", "a segment would end as soon as it begins"),
    )
    on: float = Field(default=0.6, gt=0, le=1)
    """A sound is a segment when P(not silence) reaches this."""
    off: float = Field(default=0.4, gt=0, le=1)
    """A segment lasts while P(not silence) is at least this."""


class NetworkOptions(SegmenterOptions, ThresholdOptions):
    """Options of the `network` detector."""

    lookback_ms: float = Field(default=10.0, ge=0, le=60_000)
    """How far before P reached `on` an onset may lie."""


class NetworkDetector:
    """Detector of segments in which the classifier finds no silence.

    The score of frame k is 1 - P(silence). It stands for the `hop_length` samples
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
        near = near_probability(options.on)
        rules = options.rules(options.on, options.off, front_end.sample_rate, near)
        self._hop = front_end.hop_length
        self._frame_length = front_end.frame_length
        self._silence = silence
        origin = (self._frame_length - self._hop) // 2
        self._segmenter = Segmenter(rules, self._hop, origin)
        self._trace = TraceKeeper(self._hop, self._frame_length, "P(not silence)")
        self._thresholds = options.on, options.off
        self.latency = rules.latency + self._frame_length + self._hop
        self.reset()

    def reset(self) -> None:
        """Reset to the state of a new detector."""
        self._segmenter.reset()
        self._trace.reset()
        self._next: int | None = None  # frame after the last one received

    def process(self, item: Block | Posteriors | Gap, /) -> Iterable[Mark]:
        """Return the marks that `item` completes; a gap truncates an open segment.

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
        self._trace.add(item.first, scores, *self._thresholds)
        return self._segmenter.process(item.first, scores)

    def trace(self) -> Iterable[Trace]:
        """Return score and thresholds of the frames since the last call."""
        return self._trace.take()

    def flush(self) -> Iterable[Mark]:
        """Return the last mark at the end of the stream, truncating a segment."""
        if self._next is None:
            return []
        stop = (self._next - 1) * self._hop + self._frame_length
        self._next = None
        return self._segmenter.close(stop)


def _build(options: NetworkOptions, context: BuildContext) -> NetworkDetector:
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
)
