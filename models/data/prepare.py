"""Preparation of a dataset: split, units, front end and scaled frames."""

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
    read_samples,
)
from neurovocal.models.data.split.recordings import Split, split_recordings
from neurovocal.models.data.targets import targets_of
from neurovocal.models.data.units import Units, choose_units
from neurovocal.models.toolkit.progress import ProgressCallback
from neurovocal.models.toolkit.recipe import TrainConfig
from neurovocal.models.toolkit.rows import Rows, StoredRows


@dataclass(frozen=True, slots=True, eq=False)
class PreparedDataset:
    """Scaled frames of the training and validation splits of a dataset.

    ``front_end`` is that of the bundle, including its scaling. Recordings of the test
    split are listed but not read.
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
    on_progress: ProgressCallback,
    scaling: tuple[Float32, Float32] | None = None,
    folder: Path | None = None,
) -> PreparedDataset:
    """Split the recordings and compute the frames of training and validation.

    Parameters
    ----------
    dataset : Dataset
        Recordings with annotations.
    config : TrainConfig
        Recipe: split, units and front end.
    on_progress : callable
        Receives the share of recordings that is done.
    scaling : (float32[n_bins], float32[n_bins]), optional
        Offset and gain; None fits them to the training frames.
    folder : Path, optional
        Folder in which frames are stored; None keeps them in memory.

    Raises
    ------
    ConfigError
        The dataset and the recipe cannot be used for training.
    """
    split = split_recordings(dataset, config.split, config.seed)
    used: Sequence[AnnotatedRecording] = [*split.train, *split.valid]
    units, warnings = choose_units(split.train, [*used, *split.test], config.units)
    rate, resampled = common_rate(dataset.recordings)
    rate = config.front_end.sample_rate or rate
    bare = describe_front_end(config.front_end, rate)
    features = features_without_scaling(bare)
    raw: list[Rows] = []
    for number, recording in enumerate(used):
        frames = frames_of(features, read_samples(recording, rate))
        raw.append(_store(frames, folder, number))
        on_progress((number + 1) / len(used), "")
    fitted = scaling or fit_scaling(raw[: len(split.train)], config.front_end)
    offset, gain = fitted
    if len(offset) != bare.n_bins:
        raise ConfigError(
            f"the scaling is for {len(offset)} bins, the front end makes {bare.n_bins}"
        )
    examples = []
    for number, recording in enumerate(used):
        # Release raw frames one by one: hours of them would not fit into memory.
        frames, raw[number] = raw[number][:], np.empty((0, bare.n_bins), np.float32)
        target, spans = targets_of(
            recording, units, len(frames), rate, bare.hop_length, bare.frame_length
        )
        scaled = ((frames - offset) * gain).astype(np.float32)
        stored = _store(scaled, folder, number)
        examples.append(LabelledFrames(recording, stored, target, spans))
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
        [*split.notes, *warnings, *resampled],
    )


def _store(frames: Float32, folder: Path | None, number: int) -> Rows:
    """Return the frames themselves, or write them to ``<number>.npy`` in `folder`."""
    if folder is None:
        return frames
    return StoredRows.write(folder / f"{number}.npy", frames)
