"""`neurovocal train` and `evaluate` on a small dataset, from folder to bundle."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import typer
import yaml
from bundles.tone_dataset import make_tone_dataset
from repository import ROOT
from typer.testing import CliRunner

from neurovocal.engine.contracts.bundle import load_bundle
from neurovocal.engine.contracts.errors import ConfigError, NeurovocalError
from neurovocal.engine.lane.offline import build_front_end, frames_of
from neurovocal.models.commands.evaluate import evaluate
from neurovocal.models.commands.train import train
from neurovocal.models.data.datasets import read_dataset
from neurovocal.models.data.prepare import prepare_dataset
from neurovocal.models.evaluation.evaluate import evaluate_bundle
from neurovocal.models.evaluation.labelling import Labeller
from neurovocal.models.report.history import read_history
from neurovocal.models.toolkit.loop import StopFlag, TrainingInterrupted
from neurovocal.models.toolkit.progress import Reporter
from neurovocal.models.toolkit.recipe import TrainConfig, load_config
from neurovocal.models.training.train import train_bundle
from neurovocal.models.training.workspace import TrainingJob

RECIPE: dict[str, Any] = {
    "front_end": {"options": {"frame_length": 128, "hop_length": 64, "scale": "log"}},
    # The choice among detectors has tests of its own.
    "detector": {"others": False},
    "split": {"folds": 2},
    "classifier": {
        "n_hidden": 24,
        "updates": 120,
        "sequence_length": 120,
        "learning_rate": 0.01,
        "validate_every": 30,
    },
    "rnn_rbm": {
        "hidden_scalar": 0.5,
        "recurrent_scalar": 0.5,
        "phases": [
            {"objective": "deterministic", "updates": 60, "learning_rate": 0.01},
            {"objective": "contrastive", "updates": 10, "learning_rate": 0.001},
        ],
        "validate_every": 20,
    },
    "card": {"species": "test tone"},
}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tone_dataset(tmp_path_factory.mktemp("tones"))


@pytest.fixture(scope="module")
def recipe() -> TrainConfig:
    return TrainConfig.model_validate(RECIPE)


@pytest.fixture(scope="module")
def bundle_folder(
    dataset: Path, recipe: TrainConfig, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    out = tmp_path_factory.mktemp("out") / "tones"
    train_bundle(TrainingJob(dataset, out), recipe, Reporter(), StopFlag())
    return out


@pytest.fixture(scope="module")
def cli() -> typer.Typer:
    app = typer.Typer()
    app.command()(train)
    app.command()(evaluate)
    return app


def test_a_bundle_labels_its_training_recording(
    bundle_folder: Path, dataset: Path
) -> None:
    bundle = load_bundle(bundle_folder)
    labeller = Labeller(bundle)  # builds the engine's stages and checks golden vectors
    samples, _ = soundfile.read(dataset / "song3.wav", dtype="float32")
    (recording,) = [
        r for r in read_dataset(dataset).recordings if r.file == "song3.wav"
    ]
    found = [label.unit for label in labeller(samples).labels]
    assert found == [a.unit for a in recording.annotations]


def test_the_manifest_describes_data_splits_and_figures(bundle_folder: Path) -> None:
    manifest = load_bundle(bundle_folder).manifest
    assert manifest.licence == "CC0 1.0"
    assert manifest.attribution == "nobody"
    assert manifest.species == "test tone"
    assert manifest.classifier is not None
    assert manifest.classifier.units == ["", "a", "b", "c"]
    split = manifest.training["recordings"]
    files = [name for part in split.values() for name in part]
    assert len(files) == len(set(files)) == 8
    assert manifest.figures["classifier"]["reference_syllables"] > 0
    assert split["test"] == []
    left_out = manifest.figures["cross_validation"]
    assert left_out["recordings"] == manifest.figures["recordings"] == 8
    assert manifest.forecast is not None
    rbm = manifest.figures["rnn_rbm"]
    assert rbm["mse"] < rbm["mse_persistence"]
    assert set(manifest.files) >= {"classifier.onnx", "rnn_rbm.onnx", "README.md"}
    assert not bundle_folder.with_name("tones.partial").exists()


def test_labels_are_measured_by_delay_after_the_onset(
    bundle_folder: Path, dataset: Path
) -> None:
    bundle = load_bundle(bundle_folder)
    recordings = list(read_dataset(dataset).recordings)[:2]
    figures = evaluate_bundle(bundle, recordings)
    rows = {row["ms"]: row for row in figures["label_in_time"]}
    assert list(rows) == [0, 5, 10, 20, 30, 50, "offset"]
    answers = ("right", "wrong", "unknown", "unlabelled")
    for row in rows.values():
        total = sum(row[f"{answer}_percent"] for answer in answers)
        assert total == pytest.approx(100, abs=0.05)
    # The detector reports an onset after 10 ms of sound.
    assert rows[0]["unlabelled_percent"] == rows[5]["unlabelled_percent"] == 100
    assert rows[50]["right_percent"] > 90
    assert rows["offset"]["right_percent"] == 100
    assert rows["offset"]["forced_right_percent"] == 100
    measures = figures["classifier"]
    assert measures["syllable_error_percent"] == 0
    # Boundaries are within a frame of the annotated ones: 2 of 15 frames in 32.
    assert measures["frame_error_final_percent"] < 6


def test_the_manifest_has_a_detector_and_early_calibrations(
    bundle_folder: Path,
) -> None:
    manifest = load_bundle(bundle_folder).manifest
    assert manifest.detector is not None
    assert manifest.detector.plugin == "energy"
    assert manifest.classifier is not None
    frames = [entry.frames for entry in manifest.classifier.early]
    assert frames == sorted(set(frames))
    assert frames[0] == 1


def test_training_frames_equal_those_of_the_bundle(
    bundle_folder: Path, dataset: Path, recipe: TrainConfig
) -> None:
    bundle = load_bundle(bundle_folder)
    data = prepare_dataset(read_dataset(dataset), recipe, lambda share, note: None)
    features = build_front_end(bundle.manifest.front_end, bundle_folder)
    for example in data.train[:2]:
        samples, _ = soundfile.read(example.recording.path, dtype="float32")
        np.testing.assert_allclose(
            example.clipped, frames_of(features, samples), atol=1e-6
        )


def test_a_bundle_has_a_report_and_a_history(bundle_folder: Path) -> None:
    bundle = load_bundle(bundle_folder)
    page = (bundle_folder / "report" / "index.html").read_text(encoding="utf-8")
    for title in ("Learning", "Classifier", "RNN-RBM"):
        assert f"<h2>{title}</h2>" in page
    assert "CC0 1.0" in page
    # The manifest does not list the report, which may be removed.
    assert not [name for name in bundle.manifest.files if "report" in name]
    curves = read_history(bundle)
    assert [row["update"] for row in curves["classifier"].rows] == [30, 60, 90, 120]
    assert [at for at, _ in curves["rnn_rbm"].phases] == [0, 60]
    assert curves["rnn_rbm"].phases[1][1].startswith("contrastive")
    for name, network in bundle.manifest.training["networks"].items():
        assert curves[name].chosen_at == network["chosen_at"]
        assert network["chosen_at"] in [row["update"] for row in curves[name].rows]


def test_a_failed_training_leaves_no_folders(
    dataset: Path, recipe: TrainConfig, tmp_path: Path
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    changed = recipe.model_dump()
    changed["rnn_rbm"]["sequence_length"] = 10**5
    changed["classifier"] = None
    too_long = TrainConfig.model_validate(changed)
    for songs, config in ((empty, recipe), (dataset, too_long)):
        job = TrainingJob(songs, tmp_path / "made" / "too" / "b")
        with pytest.raises(ConfigError):
            train_bundle(job, config, Reporter(), StopFlag())
        assert [p.name for p in tmp_path.iterdir()] == ["empty"]
    # Existing files stay.
    (tmp_path / "b.partial").mkdir()
    (tmp_path / "b.partial" / "mine").write_text("notes")
    with pytest.raises(ConfigError):
        train_bundle(TrainingJob(empty, tmp_path / "b"), recipe, Reporter(), StopFlag())
    assert (tmp_path / "b.partial" / "mine").exists()


class StopAfter(StopFlag):
    """Flag that is raised after a number of checks."""

    def __init__(self, checks: int) -> None:
        self._left = checks

    @property
    def raised(self) -> bool:
        self._left -= 1
        return self._left < 0

    @raised.setter
    def raised(self, value: bool) -> None: ...


@pytest.mark.parametrize("checks", [25, pytest.param(270, marks=pytest.mark.long)])
def test_a_resumed_training_ends_with_the_same_weights(
    dataset: Path, recipe: TrainConfig, bundle_folder: Path, tmp_path: Path, checks: int
) -> None:
    job = TrainingJob(dataset, tmp_path / "tones")
    with pytest.raises(TrainingInterrupted, match="run the same command again"):
        train_bundle(job, recipe, Reporter(), StopAfter(checks))
    assert not job.out.exists()
    train_bundle(job, recipe, Reporter(), StopFlag())
    for name in ("classifier.onnx", "rnn_rbm.onnx", "rnn_rbm_sample.onnx"):
        resumed = (job.out / name).read_bytes()
        assert resumed == (bundle_folder / name).read_bytes()


def test_existing_bundles_files_and_trainings_are_not_overwritten(
    dataset: Path, recipe: TrainConfig, bundle_folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="already is a bundle"):
        train_bundle(
            TrainingJob(dataset, bundle_folder), recipe, Reporter(), StopFlag()
        )
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(ConfigError, match="holds other files"):
        train_bundle(TrainingJob(dataset, tmp_path), recipe, Reporter(), StopFlag())
    job = TrainingJob(dataset, tmp_path / "b")
    with pytest.raises(TrainingInterrupted):
        train_bundle(job, recipe, Reporter(), StopAfter(18))
    other = recipe.model_copy(update={"seed": 5})
    with pytest.raises(ConfigError, match="another recipe or other data"):
        train_bundle(job, other, Reporter(), StopFlag())
    mark = job.work_path / "fingerprint"
    marked = mark.read_bytes()
    mark.write_bytes(b"\xff\x00")
    with pytest.raises(ConfigError, match="another recipe or other data"):
        train_bundle(job, recipe, Reporter(), StopFlag())
    mark.write_bytes(marked)
    whole = (job.work_path / "fold1.pt").read_bytes()
    middle = len(whole) // 2
    flipped = whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
    for content, cause in (
        (b"torn", "it is damaged"),
        (b"", "it is empty"),
        (flipped, "it is damaged"),
    ):
        (job.work_path / "fold1.pt").write_bytes(content)
        with pytest.raises(ConfigError, match=f"cannot be resumed from, {cause}"):
            train_bundle(job, recipe, Reporter(), StopFlag())


def test_a_time_budget_ends_the_training(
    dataset: Path, recipe: TrainConfig, tmp_path: Path
) -> None:
    changed = recipe.model_dump()
    changed["classifier"]["updates"] = 10**6
    changed["rnn_rbm"] = None
    config = TrainConfig.model_validate(changed)
    job = TrainingJob(dataset, tmp_path / "short", minutes=0.02)
    manifest = train_bundle(job, config, Reporter(), StopFlag()).manifest
    assert manifest.rnn_rbm is None
    assert manifest.training["networks"]["classifier"]["updates"] < 10**5


def test_evaluate_prints_figures_and_json(
    cli: typer.Typer, bundle_folder: Path, dataset: Path
) -> None:
    result = CliRunner().invoke(
        cli, ["evaluate", str(bundle_folder), str(dataset), "--json"]
    )
    figures = json.loads(result.stdout)
    assert figures["recordings"] == 8
    assert figures["classifier"]["syllable_error_in_true_segments_percent"] == 0
    assert figures["classifier"]["frame_error_percent"] < 10
    plain = CliRunner().invoke(cli, ["evaluate", str(bundle_folder), str(dataset)])
    assert "frame error percent" in plain.stdout


def test_wrong_arguments_are_errors_with_a_sentence(
    cli: typer.Typer, dataset: Path, bundle_folder: Path, tmp_path: Path
) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text("version: 1\nclassifier:\n  learning_rat: 1\n")
    cases = [
        (["train", str(tmp_path / "no"), "--out", str(tmp_path / "b")], "not exist"),
        (
            ["train", str(dataset), f"--out={tmp_path / 'b'}", f"--config={recipe}"],
            "r.yaml:3: classifier.learning_rat: unknown option "
            "(did you mean 'learning_rate'?)",
        ),
        (
            ["evaluate", str(bundle_folder), str(dataset), "--split", "day=1"],
            "no such recording",
        ),
    ]
    for arguments, expected in cases:
        error = CliRunner().invoke(cli, arguments).exception
        assert isinstance(error, NeurovocalError)
        assert expected in str(error)


def test_an_interrupted_report_leaves_the_bundle(
    dataset: Path, recipe: TrainConfig, tmp_path: Path
) -> None:
    job = TrainingJob(dataset, tmp_path / "tones")
    changed = recipe.model_dump()
    changed["classifier"]["updates"] = changed["rnn_rbm"]["phases"][0]["updates"] = 20
    config = TrainConfig.model_validate(changed)

    class StopWhenFinished(StopFlag):
        raised = property(lambda self: job.out.exists(), lambda self, value: None)

    with pytest.raises(TrainingInterrupted, match="is finished, but not its report"):
        train_bundle(job, config, Reporter(), StopWhenFinished())
    load_bundle(job.out)
    assert not job.work_path.exists()


@pytest.mark.parametrize(
    "name", ["train", "train-source", "train-spoken-digits", "train-zebra-finch"]
)
def test_built_in_recipes_are_valid(name: str) -> None:
    path = ROOT / "configs" / f"{name}.yaml"
    config = load_config(path)
    assert yaml.safe_load(path.read_text())["version"] == config.version
