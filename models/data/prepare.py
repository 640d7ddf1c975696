"""Preparation of a dataset: plan (split, units, front end) and scaled frames."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from neurovocal.engine.contracts.bundle import FrontEnd
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
    resampling_notes,
)
from neurovocal.models.data.split.recordings import Split, split_recordings
from neurovocal.models.data.targets import FrameGrid, Units, targets_of
from neurovocal.models.data.units import absent_units, choose_units
from neurovocal.models.toolkit.progress import ProgressCallback
from neurovocal.models.toolkit.recipe import TrainConfig
from neurovocal.models.toolkit.rows import Rows, StoredRows


@dataclass(frozen=True, slots=True, eq=False)
class DatasetPlan:
    """Split, units and front end of a training, before a sample is read.

    Parameters
    ----------
    split : Split
    units : Units
    front_end : FrontEnd
        Without scaling.
    warnings : list of str
        One sentence for everything that a user did not ask for.
    """

    split: Split
    units: Units
    front_end: FrontEnd
    warnings: list[str]

    @property
    def grid(self) -> FrameGrid:
        """Places of the frames."""
        front_end = self.front_end
        return FrameGrid(
            front_end.sample_rate, front_end.hop_length, front_end.frame_length
        )


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


def plan_dataset(dataset: Dataset, config: TrainConfig) -> DatasetPlan:
    """Split the recordings and choose units and front end.

    Raises
    ------
    ConfigError
        The dataset and the recipe cannot be used for training.
    """
    split = split_recordings(dataset, config.split, config.seed)
    common, mixed = common_rate(dataset.recordings)
    rate = config.front_end.sample_rate or common
    front_end = describe_front_end(config.front_end, rate)
    resampled = resampling_notes(dataset.recordings, rate) if rate != common else mixed
    grid = FrameGrid(rate, front_end.hop_length, front_end.frame_length)
    everything = [*split.train, *split.valid, *split.test]
    units, warnings = choose_units(split.train, everything, config.units, grid)
    warnings += absent_units(split, units, grid)
    return DatasetPlan(split, units, front_end, [*split.notes, *warnings, *resampled])


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
    plan = plan_dataset(dataset, config)
    return compute_frames(plan, config, on_progress, scaling, folder)


def compute_frames(
    plan: DatasetPlan,
    config: TrainConfig,
    on_progress: ProgressCallback,
    scaling: tuple[Float32, Float32] | None = None,
    folder: Path | None = None,
) -> PreparedDataset:
    """Compute the frames of training and validation; parameters as above.

    Raises
    ------
    ConfigError
        A recording cannot be read, or no segment holds a frame.
    """
    split, bare, units = plan.split, plan.front_end, plan.units
    rate = bare.sample_rate
    features = features_without_scaling(bare)
    used: Sequence[AnnotatedRecording] = [*split.train, *split.valid]
    raw: list[Rows] = []
    for number, recording in enumerate(used):
        frames = frames_of(features, read_samples(recording, rate))
        raw.append(_store(frames, folder, number))
        on_progress((number + 1) / len(used), "")
    offset, gain = scaling or fit_scaling(raw[: len(split.train)], config.front_end)
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
        plan.warnings,
    )


def _store(frames: Float32, folder: Path | None, number: int) -> Rows:
    """Return the frames themselves, or write them to ``<number>.npy`` in `folder`."""
    if folder is None:
        return frames
    return StoredRows.write(folder / f"{number}.npy", frames)
