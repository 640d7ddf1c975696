"""A bundle's stages outside a run: recordings to frames, and lanes without a source.

Training, evaluation, golden vectors and checks build their stages here, with the
plugins and the builder that the engine uses. Samples are handed in: this module reads
no audio files.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from neurovocal.engine.audio.resampler import Resampler
from neurovocal.engine.config.plan import LaneStages, StagePlan
from neurovocal.engine.config.schema import StageConfig
from neurovocal.engine.contracts.bundle import Bundle, DetectorSpec, FrontEnd
from neurovocal.engine.contracts.clock import SystemClock
from neurovocal.engine.contracts.errors import BundleError
from neurovocal.engine.contracts.options import Options
from neurovocal.engine.contracts.plugin import BuildContext, Kind, Plugin
from neurovocal.engine.contracts.refusals import sentences_of
from neurovocal.engine.contracts.registry import Registry
from neurovocal.engine.contracts.stages import Detector, Features
from neurovocal.engine.contracts.types import Block, Float32, StreamInfo
from neurovocal.engine.lane.builder import build_lane
from neurovocal.engine.lane.lane import Lane

_BLOCK_LENGTH = 2**18


def context_of(bundle: Bundle, purpose: str) -> BuildContext:
    """Return the context in which a bundle's stages are built outside a run.

    Parameters
    ----------
    bundle : Bundle
        Its front end gives the sample rate and the shape of the frames.
    purpose : str
        Name of the run and of the stream, such as ``evaluation``.
    """
    front_end = bundle.manifest.front_end
    return BuildContext(
        clock=SystemClock(),
        run=purpose,
        info=StreamInfo(purpose, front_end.sample_rate),
        bundle=bundle,
        n_bins=front_end.n_bins,
        hop_length=front_end.hop_length,
        frame_length=front_end.frame_length,
    )


def build_front_end(front_end: FrontEnd, place: Bundle | Path) -> Features:
    """Build the features stage that a manifest's front end describes.

    Parameters
    ----------
    front_end : FrontEnd
        Plugin, sample rate, options and shape of the frames.
    place : Bundle or Path
        The bundle whose files the options name, or the folder of one that is being
        made.

    Raises
    ------
    PluginError
        No such features plugin is installed.
    BundleError
        The plugin does not accept the options, or makes frames of another shape
        than the front end states.
    """
    bundle = place if isinstance(place, Bundle) else None
    folder = place.folder if isinstance(place, Bundle) else place
    plugin = Registry().get("features", front_end.plugin, folder)
    options = _checked(plugin, front_end.options, f"front end of '{folder}'")
    info = StreamInfo("front-end", front_end.sample_rate)
    context = BuildContext(SystemClock(), "", base=folder, info=info, bundle=bundle)
    features: Features = plugin.build(options, context)
    wrong = [
        f"{name} {built} (the manifest states {stated})"
        for name in ("n_bins", "hop_length", "frame_length")
        if (built := getattr(features, name)) != (stated := getattr(front_end, name))
    ]
    if wrong:
        raise BundleError(
            f"front end of '{folder}': its options make frames with "
            f"{', '.join(wrong)}: correct the manifest, or copy the bundle again"
        )
    return features


def _checked(plugin: Plugin[Any], options: Mapping[str, object], where: str) -> Options:
    try:
        checked: Options = plugin.options.model_validate(options)
        return checked
    except ValidationError as error:
        sentences = sentences_of(error, plugin.options, f"{where}: options.")
        raise BundleError(sentences) from error


def build_offline_lane(
    bundle: Bundle,
    detector: DetectorSpec,
    models: Mapping[str, Mapping[str, object]],
    *,
    purpose: str,
    tile: int,
) -> Lane:
    """Build a lane with a bundle's front end, for samples at the bundle's rate.

    Parameters
    ----------
    bundle : Bundle
        The bundle of all stages.
    detector : DetectorSpec
        Plugin and options of the detector.
    models : mapping of str to mapping
        Options of each model by the name of its plugin. A failing model ends the
        processing with its error.
    purpose : str
        Name of the run and of the stream.
    tile : int
        Frames per network call, as in the engine's configuration.
    """
    registry = Registry()

    def stage(kind: Kind, name: str, options: Mapping[str, object]) -> StagePlan:
        plugin = registry.get(kind, name, bundle.folder)
        config = StageConfig(plugin=name, options=dict(options), on_error="fail")
        checked = _checked(plugin, config.options, f"{kind} of '{bundle.folder}'")
        return StagePlan(f"{kind} '{name}'", kind, plugin, checked, config, ())

    front_end = bundle.manifest.front_end
    stages = LaneStages(
        name=purpose,
        bundle=bundle,
        features=stage("features", front_end.plugin, front_end.options),
        detector=stage("detector", detector.plugin, detector.options),
        models=[stage("model", name, options) for name, options in models.items()],
    )
    source = StreamInfo(purpose, front_end.sample_rate)
    context = replace(context_of(bundle, purpose), tile=tile)
    return build_lane(stages, source, 0, context, wants_frames=True)


def build_detector(
    bundle: Bundle, detector: DetectorSpec, sample_rate: int, purpose: str
) -> Detector:
    """Build a detector of samples with a bundle's network, without a lane.

    Parameters
    ----------
    bundle : Bundle
        The bundle; it may have no front end.
    detector : DetectorSpec
        Plugin and options.
    sample_rate : int
        Rate of the samples in Hz.
    purpose : str
        Name of the run and of the stream.
    """
    plugin = Registry().get("detector", detector.plugin, bundle.folder)
    options = _checked(plugin, detector.options, f"detector of '{bundle.folder}'")
    info = StreamInfo(purpose, sample_rate)
    built: Detector = plugin.build(
        options, BuildContext(SystemClock(), purpose, info=info, bundle=bundle)
    )
    return built


def resampled(samples: Float32, in_rate: int, out_rate: int) -> Float32:
    """Convert a whole recording, float32[n_samples], from one rate in Hz to another.

    The result is what the streaming `Resampler` of a lane makes of it.
    """
    if in_rate == out_rate:
        return samples
    resampler = Resampler(in_rate, out_rate)
    block = Block(0, np.ascontiguousarray(samples, dtype=np.float32)[:, None])
    items = [*resampler.process(block), *resampler.flush()]
    parts = [item.samples[:, 0] for item in items if isinstance(item, Block)]
    return np.concatenate([np.empty(0, np.float32), *parts])


def frames_of(features: Features, samples: Float32) -> Float32:
    """Compute all frames of a whole recording.

    Parameters
    ----------
    features : Features
        Any features stage; it is reset before and after.
    samples : float32[n_samples]
        One channel at the stage's rate, from the recording's first sample.

    Returns
    -------
    float32[n_frames, n_bins]
        Frame ``k`` covers ``samples[k * hop_length:][:frame_length]``; a recording
        shorter than a frame has none.
    """
    column = np.ascontiguousarray(samples, dtype=np.float32)[:, None]
    features.reset()
    # Block by block, which bounds the memory and does not change the frames.
    parts = [
        frames.values
        for first in range(0, len(column), _BLOCK_LENGTH)
        for frames in features.process(
            Block(first, column[first : first + _BLOCK_LENGTH])
        )
    ]
    parts += [frames.values for frames in features.flush()]
    features.reset()
    if len(parts) == 1:
        return parts[0]
    return np.concatenate([np.empty((0, features.n_bins), np.float32), *parts])


def bundle_frames(bundle: Bundle, samples: Float32, sample_rate: int) -> Float32:
    """Compute the frames of a whole recording with a bundle's front end.

    Parameters
    ----------
    bundle : Bundle
        Its front end says what the frames are.
    samples : float32[n_samples]
        One channel; samples that are not finite count as 0.
    sample_rate : int
        Rate of the samples in Hz; they are resampled to the bundle's rate.

    Returns
    -------
    float32[n_frames, n_bins]
    """
    front_end = bundle.manifest.front_end
    clean = np.nan_to_num(samples, posinf=0.0, neginf=0.0)
    at_rate = resampled(clean, sample_rate, front_end.sample_rate)
    return frames_of(build_front_end(front_end, bundle), at_rate)
