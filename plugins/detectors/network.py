"""Detector of segments by a network: that of a detector, or the lane's classifier."""

from collections.abc import Iterable
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from neurovocal.engine import (
    Block,
    BuildContext,
    Bundle,
    BundleError,
    ConfigError,
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
from neurovocal.engine.contracts.bundle import FrontEnd, load_bundle
from neurovocal.engine.contracts.errors import LackingBundleProblem
from neurovocal.engine.contracts.options import OptionProblem, Order
from neurovocal.plugins.detectors.bands import BandsOptions, detector_parts
from neurovocal.plugins.detectors.excess_network import (
    ExcessNetwork,
    ExcessNetworkDetector,
    level_of,
    probability_of,
)

_ON, _OFF = 0.6, 0.4  # of a classifier's P(not silence)


class ThresholdOptions(Options):
    """Thresholds of the `network` detector, listed before the durations."""

    orders: ClassVar[tuple[Order, ...]] = (
        Order("off", "on", "a segment would end as soon as it begins"),
    )
    bundle: str | None = Field(default=None, min_length=1)
    """Bundle with a detector network: a folder, or the name of one that ships. By
    default the lane's own bundle, and without a detector network in it the posteriors
    of its classifier."""
    on: float | None = Field(default=None, gt=0, le=1)
    """A sound is a segment when its score, P(not silence), reaches this; by default
    0.6. With a detector network `on`, `off`, `min_duration_ms`, `gap_fill_ms` and
    `lookback_ms` are by default those of `bands`: 10 dB are 0.61, 7 dB 0.39."""
    off: float | None = Field(default=None, gt=0, le=1)
    """A segment lasts while the score is at least this; by default 0.4."""


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
        on, off = _thresholds(options, _ON, _OFF)
        rules = options.rules(on, off, front_end.sample_rate, near_probability(on))
        self._hop = front_end.hop_length
        self._frame_length = front_end.frame_length
        self._silence = silence
        origin = (self._frame_length - self._hop) // 2
        self._segmenter = Segmenter(rules, self._hop, origin)
        self._trace = TraceKeeper(self._hop, self._frame_length, "P(not silence)")
        self._thresholds = on, off
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


def _lacking_classifier(context: BuildContext) -> LackingBundleProblem | None:
    """Return a sentence if the lane's bundle has no classifier."""
    if context.bundle is None:
        return LackingBundleProblem(
            "the network detector needs a bundle with a detector network or a "
            "classifier: name one in its option 'bundle', such as any-animal, or use "
            "the 'bands' detector"
        )
    if context.bundle.manifest.classifier is None:
        return LackingBundleProblem(
            f"bundle '{context.bundle.manifest.name}' has no classifier, which the "
            "network detector needs: use the 'bands' detector"
        )
    return None


def _build(
    options: NetworkOptions, context: BuildContext
) -> NetworkDetector | ExcessNetworkDetector:
    bundle = _detector_bundle(options, context)
    if bundle is not None:
        return _build_from_samples(options, context, bundle)
    if (problem := _lacking_classifier(context)) is not None:
        raise BundleError(problem)
    assert context.bundle is not None
    manifest = context.bundle.manifest
    spec = manifest.classifier
    assert spec is not None
    silence = spec.units.index(spec.silence)
    return NetworkDetector(options, manifest.front_end, silence)


def _detector_bundle(options: NetworkOptions, context: BuildContext) -> Bundle | None:
    """Return the bundle whose detector network is meant; None for a classifier."""
    if options.bundle is not None:
        return load_bundle(options.bundle, context.base)
    bundle = context.bundle
    if bundle is None or bundle.manifest.detector_network is None:
        return None
    return bundle


def _build_from_samples(
    options: NetworkOptions, context: BuildContext, bundle: Bundle
) -> ExcessNetworkDetector:
    if context.info is None:
        raise ConfigError("the network detector needs to know its stream's rate")
    network = ExcessNetwork(bundle, context.tile)
    parts = detector_parts(bands_options(options), context.info.sample_rate)
    return ExcessNetworkDetector(*parts, network)


def bands_options(options: NetworkOptions) -> BandsOptions:
    """Return the options of `bands` with what is set for a detector network.

    Raises
    ------
    ConfigError
        A threshold that is set and one of `bands` contradict each other.
    """
    usual = BandsOptions()
    on, off = _thresholds(
        options, probability_of(usual.on_db), probability_of(usual.off_db)
    )
    durations = options.model_fields_set & set(SegmenterOptions.model_fields)
    return BandsOptions(
        on_db=usual.on_db if options.on is None else level_of(on),
        off_db=usual.off_db if options.off is None else level_of(off),
        **{name: getattr(options, name) for name in durations},
    )


def _thresholds(options: NetworkOptions, on: float, off: float) -> tuple[float, float]:
    """Return the thresholds: the options, or else `on` and `off`.

    Raises
    ------
    ConfigError
        One that is set and the other contradict each other.
    """
    on = on if options.on is None else options.on
    off = off if options.off is None else options.off
    if off > on:
        raise ConfigError(
            f"off ({off:g}) is above on ({on:g}): a segment would end as soon as it "
            "begins; set both"
        )
    return on, off


def _check(options: NetworkOptions, context: BuildContext) -> Iterable[str]:
    try:
        bundle = _detector_bundle(options, context)
    except BundleError as error:
        yield from (OptionProblem("bundle", problem) for problem in error.problems)
        return
    if bundle is None:  # a classifier's posteriors
        if (problem := _lacking_classifier(context)) is not None:
            yield problem
        try:
            _thresholds(options, _ON, _OFF)
        except ConfigError as error:
            yield from error.problems
        return
    if bundle.manifest.detector_network is None:
        yield OptionProblem(
            "bundle",
            f"bundle '{options.bundle}' has no detector network: name another one, "
            "such as any-animal",
        )
        return
    try:
        bands_options(options)
    except ConfigError as error:
        yield from error.problems


plugin = Plugin(
    kind="detector",
    options=NetworkOptions,
    build=_build,
    summary="segments by a detector network, or from the classifier's own posteriors",
    check=_check,
)
