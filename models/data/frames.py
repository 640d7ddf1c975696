"""Frames of recordings, computed with the engine's features plugins."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from neurovocal.engine.contracts.bundle import FrontEnd
from neurovocal.engine.contracts.clock import SystemClock
from neurovocal.engine.contracts.errors import AudioFileError, ConfigError
from neurovocal.engine.contracts.plugin import BuildContext
from neurovocal.engine.contracts.refusals import sentences_of
from neurovocal.engine.contracts.registry import Registry
from neurovocal.engine.contracts.stages import Features
from neurovocal.engine.contracts.types import Float32, StreamInfo
from neurovocal.engine.lane.offline import resampled
from neurovocal.models.data.datasets import AnnotatedRecording
from neurovocal.models.data.sound_files import opened
from neurovocal.models.data.targets import FrameSpan
from neurovocal.models.toolkit.recipe import FrontEndConfig
from neurovocal.models.toolkit.rows import Rows

SCALING_FILE = "scaling.npz"
_BINS_AT_ONCE = 8
# Decoders of MP3 find the delay of the encoder in the header alone.
TOLERANCE_S = 0.1


@dataclass(frozen=True, slots=True, eq=False)
class LabelledFrames:
    """Frames of a recording with targets and segments, for training or evaluation.

    Parameters
    ----------
    recording : AnnotatedRecording
        Recording that the frames are computed from.
    frames : Rows of float32[n_frames, n_bins]
        Scaled frames, not clipped: augmentation may bring values back into range.
    target : int64[n_frames]
        Index of the unit of each frame, 0 for silence, `IGNORED` for labels that are
        left out.
    spans : list of FrameSpan
        Segments of the classifier's units in time order.
    """

    recording: AnnotatedRecording
    frames: Rows
    target: NDArray[np.int64]
    spans: list[FrameSpan]

    @property
    def clipped(self) -> Float32:
        """Frames clipped to [0, 1], as the networks receive them in the engine."""
        return np.clip(self.frames[:], 0.0, 1.0)


def describe_front_end(config: FrontEndConfig, sample_rate: int) -> FrontEnd:
    """Describe a front end without scaling, with the frame shape of its plugin."""
    features = _build(config.plugin, config.options, sample_rate)
    return FrontEnd(
        plugin=config.plugin,
        sample_rate=sample_rate,
        hop_length=features.hop_length,
        frame_length=features.frame_length,
        n_bins=features.n_bins,
        options=config.options,
    )


def features_without_scaling(front_end: FrontEnd) -> Features:
    """Build the features stage of a front end before its scaling is fitted."""
    return _build(front_end.plugin, front_end.options, front_end.sample_rate)


def _build(name: str, options: object, sample_rate: int) -> Features:
    """Build a features plugin; raises ConfigError if its options are invalid."""
    plugin = Registry().get("features", name)
    context = BuildContext(
        clock=SystemClock(),
        run="training",
        base=Path.cwd(),
        info=StreamInfo("training", sample_rate),
    )
    try:
        checked = plugin.options.model_validate(options)
    except ValidationError as error:
        sentences = sentences_of(error, plugin.options, "front_end.options.")
        raise ConfigError(sentences) from error
    return cast(Features, plugin.build(checked, context))


def common_rate(recordings: Iterable[AnnotatedRecording]) -> tuple[int, list[str]]:
    """Return the most common sample rate, and a warning if recordings differ.

    The highest of equally common rates is returned.
    """
    rates = Counter(recording.sample_rate for recording in recordings)
    rate = max(rates, key=lambda r: (rates[r], r))
    if len(rates) == 1:
        return rate, []
    others = ", ".join(f"{n} at {r} Hz" for r, n in sorted(rates.items()) if r != rate)
    return rate, [
        f"recordings are resampled to {rate} Hz, the most common rate: {others}"
    ]


def resampling_notes(
    recordings: Iterable[AnnotatedRecording], sample_rate: int
) -> list[str]:
    """Return a sentence on recordings that are resampled to a front end's rate."""
    rates = Counter(recording.sample_rate for recording in recordings)
    others = {rate: n for rate, n in sorted(rates.items()) if rate != sample_rate}
    if not others:
        return []
    listed = ", ".join(f"{n} at {rate} Hz" for rate, n in others.items())
    sentence = f"recordings are resampled to {sample_rate} Hz, the front end's rate: "
    sentence += listed
    if min(others) < sample_rate:
        sentence += (
            f"; those of {min(others)} Hz hold nothing above {min(others) // 2} Hz, "
            "where the front end listens, too"
        )
    return [sentence]


def read_samples(recording: AnnotatedRecording, sample_rate: int) -> Float32:
    """Read the channel of a recording, or of its selected part.

    Returns
    -------
    float32[n_samples]
        Samples at `sample_rate`.

    Raises
    ------
    ConfigError
        The file cannot be read, or holds values that are not finite.
    """
    start = round(recording.start_s * recording.sample_rate)
    stop = round(
        (recording.start_s + recording.part_duration_s) * recording.sample_rate
    )
    try:
        with opened(recording.path) as file:
            file.seek(start)
            samples = file.read(stop - start)
    except AudioFileError as error:
        raise ConfigError(f"{recording.path}: {error}") from error
    if len(samples) < stop - start - TOLERANCE_S * recording.sample_rate:
        raise ConfigError(
            f"{recording.path}: is damaged, {len(samples)} of {stop - start} samples "
            "can be read: repair it or leave it out"
        )
    mono = np.ascontiguousarray(samples[:, recording.channel - 1])
    bad = np.flatnonzero(~np.isfinite(mono))
    if len(bad):
        at_s = recording.start_s + bad[0] / recording.sample_rate
        raise ConfigError(
            f"{recording.path}: {len(bad)} samples are not finite (the first at "
            f"{at_s:.3f} s): repair the file or leave it out"
        )
    return resampled(mono, recording.sample_rate, sample_rate)


def fit_scaling(
    frames: Iterable[Rows], config: FrontEndConfig
) -> tuple[Float32, Float32]:
    """Fit the scaling that maps the percentiles of each bin to 0 and 1.

    Parameters
    ----------
    frames : iterable of Rows
        Training frames before scaling.
    config : FrontEndConfig
        Percentiles that become 0 and 1.

    Returns
    -------
    offset, gain : float32[n_bins]
        Scaled frames are ``(x - offset) * gain``.

    Raises
    ------
    ConfigError
        There is no frame to fit to.
    """
    parts = list(frames)
    if not any(len(part) for part in parts):
        raise ConfigError("the training recordings are shorter than one frame")
    # A few bins at a time: np.percentile sorts copies of the data.
    found = []
    for first in range(0, parts[0].shape[1], _BINS_AT_ONCE):
        bins = slice(first, first + _BINS_AT_ONCE)
        stacked = np.concatenate([np.ascontiguousarray(p[:][:, bins]) for p in parts])
        found.append(np.percentile(stacked, [config.low, config.high], axis=0))
    low, high = np.concatenate(found, axis=1)
    # A constant bin (digital silence, a low-pass) stays at 0.
    spread = np.where(high - low > 1e-6, high - low, np.inf)
    return low.astype(np.float32), (1.0 / spread).astype(np.float32)
