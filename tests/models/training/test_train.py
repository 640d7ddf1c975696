"""A training's refusals, all at once, and what outlives a failure at its end."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
from bundles.tone_dataset import make_tone_dataset

from neurovocal.engine.contracts.bundle import load_bundle
from neurovocal.engine.contracts.errors import ConfigError
from neurovocal.models.toolkit.loop import StopFlag
from neurovocal.models.toolkit.progress import Reporter
from neurovocal.models.toolkit.recipe import TrainConfig
from neurovocal.models.training.train import train_bundle
from neurovocal.models.training.workspace import TrainingJob

RECIPE = TrainConfig.model_validate(
    {
        "classifier": {"n_hidden": 8, "updates": 6, "sequence_length": 60},
        "detector": {"fit": False},
        "rnn_rbm": None,
        "forecast": None,
    }
)
SPLIT = ["train"] * 6 + ["valid", "test"]


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    folder = tmp_path / "tones"
    folder.mkdir()
    make_tone_dataset(folder)
    declare(folder, SPLIT)
    return folder


def declare(folder: Path, words: list[str]) -> None:
    rows = [f"song{n}.wav,{word}" for n, word in enumerate(words)]
    (folder / "files.csv").write_text("\n".join(["file,split", *rows]) + "\n")


class DamageWhileTraining(StopFlag):
    """Empties a recording while the classifier is trained: nobody stops."""

    def __init__(self, path: Path) -> None:
        self._path, self._checks = path, 0

    @property
    def raised(self) -> bool:
        self._checks += 1
        if self._checks == 18:  # 8 recordings were read, 7 became frames
            self._path.write_bytes(self._path.read_bytes()[:100])
        return False

    @raised.setter
    def raised(self, value: bool) -> None: ...


def test_a_finished_training_outlives_a_damaged_test_recording(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    test = dataset / "song7.wav"
    content = test.read_bytes()
    job = TrainingJob(dataset, tmp_path / "b")
    with pytest.raises(ConfigError, match=r"song7.wav") as failed:
        train_bundle(job, RECIPE, Reporter(), DamageWhileTraining(test))
    assert "the same command goes on from it" in failed.value.problems[-1]
    assert (job.work_path / "classifier.pt").is_file()
    trained = (job.work_path / "classifier.pt").read_bytes()
    # Still damaged: refused before anything is computed, and nothing is lost.
    with pytest.raises(ConfigError, match=r"song7.wav"):
        train_bundle(job, RECIPE, Reporter(), StopFlag())
    assert (job.work_path / "classifier.pt").read_bytes() == trained
    # Mended, though not to the byte: the training goes on where it was.
    test.write_bytes(content)
    samples, rate = soundfile.read(test)
    soundfile.write(test, samples * 0.5, rate, subtype="FLOAT")
    capsys.readouterr()
    bundle = train_bundle(job, RECIPE, Reporter(), StopFlag())
    assert bundle.manifest.training["networks"]["classifier"]["updates"] == 6
    assert "classifier: " not in capsys.readouterr().err
    assert load_bundle(job.out).manifest.figures["recordings"] == 1
    assert not job.work_path.exists()


def test_mistakes_of_every_kind_are_told_at_once(dataset: Path, tmp_path: Path) -> None:
    declare(dataset, ["train", "trian", *SPLIT[2:]])
    table = (dataset / "annotations.csv").read_text() + "song0.wav,soon,3,a\n"
    (dataset / "annotations.csv").write_text(table)
    samples = np.full(32_000, np.nan, np.float32)
    soundfile.write(dataset / "song3.wav", samples, 16_000, subtype="FLOAT")
    (tmp_path / "b").write_text("mine")
    job = TrainingJob(dataset, tmp_path / "b", origin="no-such-bundle")
    with pytest.raises(ConfigError) as refused:
        train_bundle(job, RECIPE, Reporter(), StopFlag())
    for part in (
        "b' is a file",
        "bundle 'no-such-bundle' does not exist",
        "onset_s",
        "song3.wav: 32000 samples are not finite",
        "files.csv:3: split is 'trian'",
    ):
        assert any(part in one for one in refused.value.problems), part
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b", "tones"]


def test_without_a_named_test_all_recordings_train_and_are_left_out_once(
    dataset: Path, tmp_path: Path
) -> None:
    """Figures are those of the cross-validation, run in the engine."""
    (dataset / "files.csv").unlink()
    more = tmp_path / "more"
    more.mkdir()
    (dataset / "song7.wav").rename(more / "song7.wav")
    table = (dataset / "annotations.csv").read_text().splitlines()
    kept = [line for line in table if not line.startswith("song7")]
    (dataset / "annotations.csv").write_text("\n".join(kept) + "\n")
    phase = {"objective": "deterministic", "updates": 2, "learning_rate": 0.01}
    rnn_rbm = {"phases": [phase], "sequence_length": 20, "recurrent_scalar": 0.1}
    recipe = TrainConfig.model_validate(
        {**RECIPE.model_dump(), "rnn_rbm": rnn_rbm, "split": {"folds": 2}}
    )
    job = TrainingJob(dataset, tmp_path / "b", unlabelled=more)
    bundle = train_bundle(job, recipe, Reporter(), StopFlag())
    training, figures = bundle.manifest.training, bundle.manifest.figures
    assert training["seconds"]["test"] == 0
    assert training["cross_validation"] == "2 parts, by recordings"
    assert figures["recordings"] == figures["cross_validation"]["recordings"] == 7
    assert figures["measured_on"].startswith("recordings left out of the training")
    assert figures["classifier"]["reference_syllables"] == len(kept) - 1
    low, high = (
        figures["cross_validation"][f"syllable_error_{end}_percent"]
        for end in ("low", "high")
    )
    assert low <= figures["cross_validation"]["syllable_error_percent"] <= high
    assert figures["rnn_rbm"]["mse_ar1"] > 0
    assert "left out of the training in turn" in (job.out / "README.md").read_text()
    assert sorted(job.out.parent.iterdir()) == [job.out, more, dataset]
