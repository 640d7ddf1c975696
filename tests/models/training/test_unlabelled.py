"""Recordings without labels: which are found, and what networks make of them."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from bundles.tone_dataset import make_tone_dataset

from neurovocal.engine.contracts.errors import ConfigError
from neurovocal.models.classifier.cross_validation import CrossValidated
from neurovocal.models.classifier.network import Classifier
from neurovocal.models.classifier.training import ClassifierTask
from neurovocal.models.data.augment import Augmenter
from neurovocal.models.data.datasets import read_dataset
from neurovocal.models.data.frames import LabelledFrames
from neurovocal.models.data.prepare import PreparedDataset, prepare_dataset
from neurovocal.models.data.split.folds import make_folds
from neurovocal.models.toolkit.measures import IGNORED
from neurovocal.models.toolkit.progress import Reporter
from neurovocal.models.toolkit.recipe import (
    AugmentConfig,
    ClassifierConfig,
    TrainConfig,
)
from neurovocal.models.training.unlabelled import (
    label_confidently,
    leave_out_known,
    read_unlabelled,
)
from neurovocal.models.training.workspace import TrainingJob

RECIPE = TrainConfig(rnn_rbm=None)


def job(tmp_path: Path, folder: Path) -> TrainingJob:
    return TrainingJob(tmp_path / "data", tmp_path / "b", unlabelled=folder)


def test_what_cannot_be_trained_on_is_told(tmp_path: Path) -> None:
    folder = tmp_path / "more"
    with pytest.raises(ConfigError, match="there is no folder"):
        read_unlabelled(job(tmp_path, folder), RECIPE)
    folder.mkdir()
    with pytest.raises(ConfigError, match="holds no recording"):
        read_unlabelled(job(tmp_path, folder), RECIPE)
    for name in ("one.wav", "two.wav"):
        (folder / name).write_bytes(b"RIFF")
    with pytest.raises(ConfigError) as refused:
        read_unlabelled(job(tmp_path, folder), RECIPE)
    told = refused.value.problems
    assert ["one.wav" in told[0], "two.wav" in told[1]] == [True, True]
    last = RECIPE.model_copy(update={"classifier": ClassifierConfig(objective="last")})
    with pytest.raises(ConfigError, match="objective: frames"):
        read_unlabelled(job(tmp_path, folder), last)


def test_recordings_of_the_dataset_are_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset, folder = tmp_path / "tones", tmp_path / "more"
    dataset.mkdir()
    folder.mkdir()
    make_tone_dataset(dataset)
    known = read_dataset(dataset).recordings
    shutil.copy(known[0].path, folder / "copy.wav")
    rate = known[0].sample_rate
    soundfile.write(folder / "new.wav", np.zeros(rate), rate)
    found = read_unlabelled(job(tmp_path, folder), RECIPE)
    left = leave_out_known(found, known, Reporter())
    assert [each.file for each in left] == ["new.wav"]
    assert "1 of its recordings are left out" in capsys.readouterr().err
    assert leave_out_known(known, known, Reporter()) == []


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> PreparedDataset:
    folder = make_tone_dataset(tmp_path_factory.mktemp("tones"))
    return prepare_dataset(read_dataset(folder), RECIPE, lambda share, note: None)


def certain(data: PreparedDataset, unit: int, odds: float) -> CrossValidated:
    """Return a network that says `unit` of every frame, with these odds."""
    network = Classifier(ClassifierConfig(n_hidden=4), data.front_end.n_bins, 4).eval()
    with torch.no_grad():
        network.readout.weight.zero_()
        network.readout.bias.zero_()
        network.readout.bias[unit] = float(np.log(3 * odds))
    folds = make_folds(data.split, RECIPE.split, 0)
    return CrossValidated(folds, [*data.train, *data.valid], [network], [])


@pytest.mark.parametrize(("odds", "target"), [(20.0, 2), (5.0, None)])
def test_only_frames_that_the_networks_are_sure_of_count(
    prepared: PreparedDataset, tmp_path: Path, odds: float, target: int | None
) -> None:
    rate = prepared.front_end.sample_rate
    noise = np.random.default_rng(0).normal(0, 0.1, rate)
    soundfile.write(tmp_path / "more.wav", noise, rate)
    found = read_unlabelled(job(tmp_path, tmp_path), RECIPE)
    labelled = label_confidently(certain(prepared, 2, odds), found, prepared)
    if target is None:
        assert labelled == []
    else:
        (example,) = labelled
        assert {*example.target.tolist()} == {target}
        assert example.frames.shape[1] == prepared.front_end.n_bins


def test_recordings_without_labels_are_drawn_at_most_as_often(
    prepared: PreparedDataset,
) -> None:
    frames = np.zeros((100_000, prepared.front_end.n_bins), np.float32)
    target = np.full(len(frames), IGNORED, np.int64)
    long = LabelledFrames(prepared.train[0].recording, frames, target, [])
    augmenter = Augmenter(AugmentConfig(), prepared.offset, prepared.gain, True)
    config = ClassifierConfig(n_hidden=4, batch_size=64, sequence_length=20)
    task = ClassifierTask(config, prepared.train, [], 4, augmenter, 0, [long])
    _, targets, weights = task._batch()
    from_it = float((targets == IGNORED).all(dim=1).float().mean())
    assert 0.25 < from_it < 0.75
    assert float(weights[(targets == IGNORED)].sum()) == 0.0
