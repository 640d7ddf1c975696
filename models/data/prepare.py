"""From a dataset and a recipe to arrays that can be trained on."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from neurovocal.engine.contracts.bundle import FrontEnd
from neurovocal.engine.contracts.errors import ConfigError
from neurovocal.engine.contracts.types import Float32
from neurovocal.engine.lane.offline import frames_of
from neurovocal.models.data.datasets import AnnotatedRecording, Dataset
from neurovocal.models.data.frames import (
    SCALING_FILE,
    LabelledFrames,
    common_rate,
    describe_front_end,
    features_without_scaling,
    fit_scaling,
    frame_targets,
    read_samples,
)
from neurovocal.models.data.split import Split, Units, choose_units, split_recordings
from neurovocal.models.toolkit.progress import ProgressCallback
from neurovocal.models.toolkit.recipe import TrainConfig
from neurovocal.models.toolkit.rows import Rows, StoredRows


@dataclass(frozen=True, slots=True, eq=False)
class PreparedDataset:
    """A dataset, split and turned into scaled frames.

    ``front_end`` is the one that the bundle will carry, scaling included. The
    test split is only listed: nothing of it is read before the end.
    """

    split: Split
    units: Units
    front_end: FrontEnd
    offset: Float32
    gain: Float32
    train: list[LabelledFrames]
    valid: list[LabelledFrames]
    warnings: list[str]


def prepare_dataset(
    dataset: Dataset,
    config: TrainConfig,
    watch: ProgressCallback,
    scaling: tuple[Float32, Float32] | None = None,
    folder: Path | None = None,
) -> PreparedDataset:
    """Split the recordings and compute the frames of training and validation.

    Parameters
    ----------
    dataset : Dataset
    config : TrainConfig
    watch : callable
        Told the share that is done.
    scaling : (float32[n_bins], float32[n_bins]), optional
        Offset and gain; None: they are fitted on training frames alone.
    folder : Path, optional
        Where frames are stored, to be read piece by piece; None: in memory.

    Raises
    ------
    ConfigError
        The data or the recipe cannot be trained on; one sentence per reason.
    """
    split = split_recordings(dataset, config.split, config.seed)
    units, warnings = choose_units(split.train, dataset.recordings, config.units)
    rate, resampled = common_rate(dataset.recordings)
    rate = config.front_end.sample_rate or rate
    bare = describe_front_end(config.front_end, rate)
    features = features_without_scaling(bare)
    wanted: Sequence[AnnotatedRecording] = [*split.train, *split.valid]
    raw: list[Rows] = []
    for number, recording in enumerate(wanted):
        frames = frames_of(features, read_samples(recording, rate))
        raw.append(_kept(frames, folder, number))
        watch((number + 1) / len(wanted), "")
    fitted = scaling or fit_scaling(raw[: len(split.train)], config.front_end)
    offset, gain = fitted
    if len(offset) != bare.n_bins:
        raise ConfigError(
            f"the scaling is for {len(offset)} bins, the front end makes {bare.n_bins}"
        )
    examples = []
    for number, recording in enumerate(wanted):
        # Scaled one by one, and let go of: there may be hours.
        frames, raw[number] = raw[number][:], np.empty((0, bare.n_bins), np.float32)
        target, spans = frame_targets(
            recording, units, len(frames), rate, bare.hop_length, bare.frame_length
        )
        scaled = ((frames - offset) * gain).astype(np.float32)
        kept = _kept(scaled, folder, number)
        examples.append(LabelledFrames(recording, kept, target, spans))
    n_train = len(split.train)
    for name, part in (("train", examples[:n_train]), ("valid", examples[n_train:])):
        if not any(example.spans for example in part):
            raise ConfigError(
                f"the {name} split has no segment that is long enough to hold the "
                f"centre of a frame ({bare.hop_length / rate * 1000:.1f} ms apart)"
            )
    described = {"file": SCALING_FILE, "clip": [0.0, 1.0]}
    front_end = bare.model_copy(
        update={"options": {**bare.options, "scaling": described}}
    )
    return PreparedDataset(
        split,
        units,
        front_end,
        offset,
        gain,
        examples[:n_train],
        examples[n_train:],
        [*warnings, *resampled],
    )


def _kept(frames: Float32, folder: Path | None, number: int) -> Rows:
    """Frames in memory, or in a file of that number."""
    if folder is None:
        return frames
    return StoredRows.write(folder / f"{number}.npy", frames)
