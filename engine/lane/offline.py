"""The front end of a bundle outside a lane: whole recordings to frames.

Training, golden vectors and checks compute frames here, with the very plugin
that the engine runs.
"""

from pathlib import Path

import numpy as np
from pydantic import ValidationError

from neurovocal.engine.contracts.bundle import Bundle, FrontEnd
from neurovocal.engine.contracts.clock import SystemClock
from neurovocal.engine.contracts.errors import BundleError
from neurovocal.engine.contracts.plugin import BuildContext
from neurovocal.engine.contracts.registry import Registry
from neurovocal.engine.contracts.stages import Features
from neurovocal.engine.contracts.types import Block, Float32, StreamInfo

_BLOCK_LENGTH = 2**18


def context_of(bundle: Bundle, purpose: str) -> BuildContext:
    """What stages of a bundle are built in outside a run.

    Parameters
    ----------
    bundle : Bundle
        Its front end says what they hear.
    purpose : str
        Stands for the names of run and stream.
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


def build_front_end(
    front_end: FrontEnd, folder: Path, registry: Registry | None = None
) -> Features:
    """Build the features stage that a manifest's front end describes.

    Parameters
    ----------
    front_end : FrontEnd
        Plugin, rate, options and the shape that must come out.
    folder : Path
        The bundle's folder, which the options' file names are relative to.
    registry : Registry, optional
        Where the plugin is looked up; the installed plugins by default.

    Raises
    ------
    PluginError
        No such features plugin.
    BundleError
        Options the plugin does not accept, or frames of another shape than the
        front end states.
    """
    plugin = (registry or Registry()).get("features", front_end.plugin, folder)
    try:
        options = plugin.options.model_validate(front_end.options)
    except ValidationError as error:
        raise BundleError(
            [
                f"front end of '{folder}': options."
                f"{'.'.join(str(part) for part in e['loc'])}: {e['msg']}"
                for e in error.errors()
            ]
        ) from error
    info = StreamInfo("front-end", front_end.sample_rate)
    context = BuildContext(clock=SystemClock(), run="", base=folder, info=info)
    features: Features = plugin.build(options, context)
    built = (features.n_bins, features.hop_length, features.frame_length)
    stated = (front_end.n_bins, front_end.hop_length, front_end.frame_length)
    if built != stated:
        raise BundleError(
            f"front end of '{folder}': its options make frames of (n_bins, "
            f"hop_length, frame_length) {built}, the manifest states {stated}"
        )
    return features


def frames_of(features: Features, samples: Float32) -> Float32:
    """All frames of a whole recording.

    Parameters
    ----------
    features : Features
        Any features stage; it is reset before and after.
    samples : float32[n_samples]
        One channel, from the recording's first sample.

    Returns
    -------
    float32[n_frames, n_bins]
        Frame ``k`` covers ``samples[k * hop_length:][:frame_length]``; a
        recording shorter than a frame has none.
    """
    column = np.ascontiguousarray(samples, dtype=np.float32)[:, None]
    features.reset()
    # In blocks, which change nothing: what lies between samples and frames is large.
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
