"""Model `onnx`: labels of segments from any audio classifier in an ONNX file.

The network hears windows of the stream. A segment is labelled by the windows whose
centres lie in it, or, where none does, by the window whose centre is nearest to its
middle: with windows of three seconds a call of 50 ms is labelled by all that is around.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from neurovocal.engine import (
    Block,
    BuildContext,
    ConfigError,
    Event,
    FileAccess,
    Float32,
    Gap,
    Label,
    Offset,
    Onset,
    Options,
    Plugin,
    SampleModelItem,
)
from neurovocal.engine.audio.resampler import scaled
from neurovocal.engine.contracts.options import OptionProblem
from neurovocal.plugins.models.any_onnx.manifest import LoadedManifest, load_manifest
from neurovocal.plugins.models.any_onnx.network import OnnxNetwork
from neurovocal.plugins.models.any_onnx.windows import WindowCutter

_UNKNOWN = "unknown"
# Windows that are kept in addition to those of the detector's look-ahead.
_MARGIN_S = 1.0


class OnnxOptions(Options):
    """Options of the ``onnx`` model."""

    manifest: str
    """YAML file that describes the network (docs/connect/onnx.md);
    `onnx/silero-vad.yaml` ships."""
    name: str | None = Field(
        default=None, min_length=1, max_length=64, pattern=r"^[\w.-]+$"
    )
    """Name of the model in labels; default: the manifest's."""
    threshold: float | None = Field(default=None, ge=0, le=1)
    """Posterior below which the label is `unknown`; default: the manifest's."""
    top_k: int | None = Field(default=None, ge=1, le=100)
    """Most labels of a segment; default: the manifest's."""
    only: list[str] = []
    """Labels that can be given, such as the species of a region; default: all."""


@dataclass(slots=True)
class _Segment:
    """A segment without its label yet; positions at the network's rate, doubled.

    `windows` of those that are no longer among the recent ones are `pooled`.
    """

    segment: int
    onset: int
    offset: int | None = None
    windows: int = 0
    pooled: NDArray[np.float64] | None = None


class OnnxModel:
    """Labels of segments by the posteriors of windows.

    Parameters
    ----------
    options : OnnxOptions
    loaded : LoadedManifest
        The network's manifest.
    context : BuildContext
        Context with the stream and the detector's look-ahead.

    Attributes
    ----------
    latency : int
        Samples after an offset at which its label is known at the latest: half a
        window, half a hop and what the resampler holds back.

    Raises
    ------
    ConfigError
        Graph and manifest do not agree.
    """

    consumes: Literal["samples"] = "samples"

    def __init__(
        self, options: OnnxOptions, loaded: LoadedManifest, context: BuildContext
    ) -> None:
        if context.info is None:
            raise ConfigError("model 'onnx' needs to know its stream's rate")
        manifest = loaded.manifest
        self._network = OnnxNetwork(loaded)
        self._name = options.name or manifest.name
        self._labels = loaded.labels
        self._threshold = (
            manifest.threshold if options.threshold is None else options.threshold
        )
        self._top_k = options.top_k or manifest.top_k
        self._pools_largest = manifest.pool == "max"
        chosen = set(options.only or loaded.labels) - set(manifest.background)
        self._allowed = [i for i, name in enumerate(loaded.labels) if name in chosen]
        self._rate, self._own_rate = context.info.sample_rate, manifest.sample_rate
        self._length, self._hop = manifest.window, loaded.hop
        self._cutter = WindowCutter(
            self._rate, self._own_rate, self._length, self._hop, manifest.context
        )
        reach = (self._length + self._hop + 1) // 2
        self.latency = self._cutter.latency + -(-reach * self._rate // self._own_rate)
        look_ahead = scaled(context.detector_latency, self._rate, self._own_rate)
        margin = round(_MARGIN_S * self._own_rate) + self._length
        self._most_recent = -(-(look_ahead + margin) // self._hop) + 2
        self._recent: deque[tuple[int, Float32]] = deque()
        self._open: dict[int, _Segment] = {}
        self._closed: list[tuple[_Segment, Offset]] = []

    def process(self, item: SampleModelItem, /) -> Iterable[Event]:
        """Return the labels known after `item`; a gap resets the network's state."""
        match item:
            case Block():
                for number, samples in self._cutter.process(item):
                    self._on_window(number, samples)
                return self._pop_complete()
            case Onset():
                self._open[item.segment] = self._begin(item.segment, item.sample)
                return []
            case Offset():
                known = self._open.pop(item.segment, None)
                segment = known or self._begin(item.segment, item.onset)
                segment.offset = 2 * scaled(item.sample, self._rate, self._own_rate)
                self._closed.append((segment, item))
                return self._pop_complete()
            case Gap():
                labels = self.flush()
                self.reset()
                return labels

    def flush(self) -> list[Event]:
        """Return the labels of all segments that have ended, by the audio so far."""
        labels: list[Event] = []
        if self._closed:
            for number, samples in self._cutter.end_run():
                self._on_window(number, samples)
        while self._closed:
            labels += self._label(*self._closed.pop(0))
        return labels

    def reset(self) -> None:
        """Drop windows, segments and the network's state."""
        self._network.reset()
        self._cutter.reset()
        self._recent.clear()
        self._open.clear()
        self._closed.clear()

    # ---- windows ---------------------------------------------------------------------

    def _on_window(self, number: int, samples: Float32) -> None:
        self._recent.append((number, self._network(samples)))
        if len(self._recent) > self._most_recent:
            # No offset that is still to come lies before it.
            old, posteriors = self._recent.popleft()
            for segment in self._open.values():
                self._add(segment, old, posteriors)

    def _add(self, segment: _Segment, number: int, posteriors: Float32) -> None:
        """Add a window to a segment if its centre lies in it."""
        centre = self._centre(number)
        if centre < segment.onset:
            return
        if segment.offset is not None and centre >= segment.offset:
            return
        segment.windows += 1
        if segment.pooled is None:
            segment.pooled = posteriors.astype(np.float64)
        elif self._pools_largest:
            np.maximum(segment.pooled, posteriors, out=segment.pooled)
        else:
            segment.pooled += posteriors

    def _centre(self, number: int) -> int:
        """Return twice the centre of a window."""
        return 2 * number * self._hop + self._length

    # ---- segments --------------------------------------------------------------------

    def _begin(self, number: int, onset: int) -> _Segment:
        return _Segment(number, 2 * scaled(onset, self._rate, self._own_rate))

    def _pop_complete(self) -> list[Event]:
        labels: list[Event] = []
        while self._closed and self._is_complete(self._closed[0][0]):
            labels += self._label(*self._closed.pop(0))
        return labels

    def _is_complete(self, segment: _Segment) -> bool:
        """Return whether all windows are known that a segment's label depends on."""
        assert segment.offset is not None
        if self._centre(self._cutter.next) < segment.offset:
            return False
        if self._cutter.next > self._nearest(segment) or segment.windows:
            return True
        centres = (self._centre(number) for number, _ in self._recent)
        return any(segment.onset <= centre < segment.offset for centre in centres)

    def _nearest(self, segment: _Segment) -> int:
        """Return the window whose centre is nearest to the middle of a segment."""
        assert segment.offset is not None
        twice = segment.onset + segment.offset - 2 * self._length
        return max(0, (twice + 2 * self._hop) // (4 * self._hop))

    def _label(self, segment: _Segment, mark: Offset) -> list[Event]:
        """Return the labels of a segment, the most probable one last."""
        for number, window in self._recent:
            self._add(segment, number, window)
        posteriors = self._posteriors(segment)
        best = sorted(self._allowed, key=lambda i: (-posteriors[i], i))[: self._top_k]
        found = [i for i in best if posteriors[i] >= self._threshold]
        labels = [(self._labels[i], float(posteriors[i])) for i in reversed(found)]
        if not labels:
            highest = float(posteriors[best[0]]) if best else 0.0
            labels = [(_UNKNOWN, highest)]
        return [
            Label(
                mark.segment, mark.onset, mark.sample, unit, value, "final", self._name
            )
            for unit, value in labels
        ]

    def _posteriors(self, segment: _Segment) -> NDArray[np.float64]:
        if segment.pooled is not None:
            count = 1 if self._pools_largest else segment.windows
            return segment.pooled / count
        if not self._recent:  # audio that is shorter than a sample of the network
            return np.zeros(len(self._labels))
        nearest = self._nearest(segment)
        _, posteriors = min(self._recent, key=lambda each: abs(each[0] - nearest))
        return posteriors.astype(np.float64)


def _load(options: OnnxOptions, context: BuildContext) -> LoadedManifest:
    return load_manifest(context.path(options.manifest))


def _check(options: OnnxOptions, context: BuildContext) -> Iterable[str]:
    try:
        loaded = _load(options, context)
        OnnxNetwork(loaded)
    except ConfigError as error:
        yield from error.problems
        return
    for label in options.only:
        if label not in loaded.labels:
            yield OptionProblem("only", f"the network has no label '{label}'")


def _build(options: OnnxOptions, context: BuildContext) -> OnnxModel:
    return OnnxModel(options, _load(options, context), context)


def _reads(options: OnnxOptions, context: BuildContext) -> Iterable[FileAccess]:
    path = context.path(options.manifest)
    yield FileAccess(path)
    try:
        yield FileAccess(load_manifest(path).graph)
    except ConfigError:
        return


def _label_name(options: OnnxOptions, context: BuildContext) -> str | None:
    if options.name is not None:
        return options.name
    try:
        return _load(options, context).manifest.name
    except ConfigError:  # told by the check of the options
        return None


plugin = Plugin(
    kind="model",
    options=OnnxOptions,
    build=_build,
    summary="labels of segments from any audio classifier in an ONNX file",
    check=_check,
    reads=_reads,
    label_name=_label_name,
)
