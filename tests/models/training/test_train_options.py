"""Options of a recipe, each from a dataset folder to a bundle that the engine runs."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
import soundfile
import torch
from bundles.tone_dataset import make_tone_dataset
from repository import ROOT

from neurovocal.engine.contracts.bundle import Bundle, Manifest, sha256
from neurovocal.engine.contracts.errors import ConfigError
from neurovocal.models.classifier.graph import classifier_graph
from neurovocal.models.classifier.network import Classifier
from neurovocal.models.commands import options as commands
from neurovocal.models.data.datasets import read_dataset
from neurovocal.models.evaluation.evaluate import evaluate_bundle
from neurovocal.models.evaluation.labelling import Labeller
from neurovocal.models.rnn_rbm.graph import scoring_graph
from neurovocal.models.rnn_rbm.network import RnnRbm
from neurovocal.models.toolkit.loop import StopFlag
from neurovocal.models.toolkit.onnx_session import Session
from neurovocal.models.toolkit.progress import Reporter
from neurovocal.models.toolkit.recipe import (
    ClassifierConfig,
    RnnRbmConfig,
    TrainConfig,
    load_config,
)
from neurovocal.models.training.train import train_bundle
from neurovocal.models.training.transfer import Origin
from neurovocal.models.training.workspace import TrainingJob

FRONT_END = {"options": {"frame_length": 128, "hop_length": 64, "scale": "log"}}
CONFIGS = ROOT / "configs"


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tone_dataset(tmp_path_factory.mktemp("tones"))


def trained(dataset: Path, out: Path, recipe: TrainConfig) -> Bundle:
    return train_bundle(TrainingJob(dataset, out), recipe, Reporter(), StopFlag())


def changed(recipe: TrainConfig, **parts: Any) -> TrainConfig:
    return TrainConfig.model_validate({**recipe.model_dump(), **parts})


@pytest.mark.long
def test_the_source_recipe_trains_a_bundle_that_labels_correctly(
    dataset: Path, tmp_path: Path
) -> None:
    """Its architecture and methods as in the recipe, at a smaller size."""
    source = load_config(CONFIGS / "train-source.yaml")
    assert source.classifier is not None
    assert source.rnn_rbm is not None
    assert (source.rnn_rbm.gates, source.rnn_rbm.n_layers) == ("tanh", 3)
    # The state of tanh gates contracts when L1 makes the weights small: here in a
    # few steps.
    phases = [
        phase.model_copy(update={"updates": 6, "learning_rate": 0.01})
        for phase in source.rnn_rbm.phases
    ]
    smaller = {"phases": phases, "l1": 0.1, "sequence_length": 50}
    smaller["recurrent_scalar"] = 0.3
    quicker = {"updates": 60, "learning_rate": 0.01, "sequence_length": 120}
    recipe = changed(
        source,
        front_end=FRONT_END,
        classifier=source.classifier.model_copy(update=quicker).model_dump(),
        rnn_rbm=source.rnn_rbm.model_copy(update=smaller).model_dump(),
    )
    bundle = trained(dataset, tmp_path / "source", recipe)
    spec = bundle.manifest.classifier
    assert spec is not None
    assert spec.decision == "last"
    (recording,) = [
        r for r in read_dataset(dataset).recordings if r.file == "song3.wav"
    ]
    samples, _ = soundfile.read(recording.path, dtype="float32")
    found = [label.unit for label in Labeller(bundle)(samples).labels]
    assert found == [a.unit for a in recording.annotations]
    figures = evaluate_bundle(bundle, [recording])["classifier"]
    assert figures["syllable_error_in_true_segments_percent"] == 0


# One network less to train, and figures of the bundle itself.
SPLIT = {"folds": 1, "draw_test": True}
RECIPE = TrainConfig.model_validate(
    {
        "front_end": FRONT_END,
        "split": SPLIT,
        "classifier": {
            "n_hidden": 16,
            "updates": 60,
            "sequence_length": 120,
            "learning_rate": 0.01,
        },
        "rnn_rbm": {
            "hidden_scalar": 0.3,
            "recurrent_scalar": 0.3,
            "phases": [
                {"objective": "deterministic", "updates": 20, "learning_rate": 0.01},
                {"objective": "contrastive", "updates": 10, "learning_rate": 0.001},
            ],
        },
    }
)
# Too few updates to change the weights.
SHORT: dict[str, Any] = {
    "split": SPLIT,
    "classifier": {"updates": 1, "learning_rate": 1e-9},
    "forecast": {"updates": 40, "batch_size": 4},
    "rnn_rbm": {
        "phases": [{"objective": "contrastive", "updates": 1, "learning_rate": 1e-9}]
    },
}


@pytest.fixture(scope="module")
def origin(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return trained(dataset, tmp_path_factory.mktemp("origin") / "old", RECIPE)


def test_a_training_starts_from_the_weights_of_a_bundle(
    origin: Bundle, dataset: Path, tmp_path: Path
) -> None:
    recipe = TrainConfig.model_validate(SHORT)
    job = TrainingJob(dataset, tmp_path / "new", origin=str(origin.folder))
    bundle = train_bundle(job, recipe, Reporter(), StopFlag())
    assert bundle.manifest.front_end == origin.manifest.front_end
    assert bundle.manifest.training["from"]["name"] == "old"
    # The final test runs the bundle with its forecast in the engine's lane.
    figures = bundle.manifest.figures
    assert figures["forecast"]["segments"] > 0
    assert figures["label_in_time"][-1]["forced_right_percent"] > 50
    with np.load(origin.path("golden.npz")) as old:
        frames, expected = old["frames"], dict(old)
    spec = bundle.manifest.classifier
    assert spec is not None
    state = {n: np.zeros(shape, np.float32) for n, shape in spec.state.items()}
    logits = Session(bundle.path("classifier.onnx")).run(frames=frames, **state)
    np.testing.assert_allclose(logits["logits"], expected["logits"], atol=1e-4)
    rbm = bundle.manifest.rnn_rbm
    assert rbm is not None
    outputs = Session(bundle.path("rnn_rbm.onnx")).run(
        frames=frames, u=np.zeros((rbm.n_layers, rbm.n_recurrent), np.float32)
    )
    np.testing.assert_allclose(outputs["prediction"], expected["prediction"], atol=1e-4)


@pytest.mark.parametrize("architecture", ["gru", "lstm", "tcn", "conv_gru"])
def test_classifier_weights_are_read_from_every_graph(
    tmp_path: Path, architecture: str
) -> None:
    torch.manual_seed(0)
    config = ClassifierConfig(architecture=architecture, n_hidden=6, n_layers=2)
    old, new = Classifier(config, 9, 4), Classifier(config, 9, 3)
    onnx.save(classifier_graph(old), tmp_path / "classifier.onnx")
    manifest = Manifest.model_validate(
        {
            "name": "old",
            "species": "",
            "licence": "",
            "attribution": "",
            "front_end": {
                "sample_rate": 1,
                "hop_length": 1,
                "frame_length": 1,
                "n_bins": 9,
            },
            "classifier": {"units": ["", "a", "b", "c"], "state": {}},
            "files": {"classifier.onnx": sha256(tmp_path / "classifier.onnx")},
        }
    )
    before = new.readout.weight[2].clone()
    Origin(Bundle(tmp_path, manifest)).initialize_classifier(new, ["", "c", "another"])
    frames = torch.randn(1, 30, 9)
    with torch.no_grad():
        expected, actual = old.eval()(frames)[0], new.eval()(frames)[0]
    torch.testing.assert_close(actual[..., :2], expected[..., [0, 3]])
    assert torch.equal(
        new.readout.weight[2], before
    )  # a unit that the bundle does not have


@pytest.mark.parametrize("visible", ["bernoulli", "gaussian"])
def test_rnn_rbm_weights_are_read_from_the_graph(tmp_path: Path, visible: str) -> None:
    torch.manual_seed(0)
    config = RnnRbmConfig(visible=visible, n_layers=2)
    old, new = RnnRbm(config, 5), RnnRbm(config, 5)
    torch.nn.init.normal_(old.log_sigma)
    onnx.save(scoring_graph(old), tmp_path / "rnn_rbm.onnx")
    spec = SimpleNamespace(file="rnn_rbm.onnx")
    bundle: Any = SimpleNamespace(
        folder=tmp_path,
        manifest=SimpleNamespace(rnn_rbm=spec),
        path=lambda name: tmp_path / name,
    )
    Origin(bundle).initialize_rnn_rbm(new)
    for name, value in old.state_dict().items():
        if visible == "gaussian" or name != "log_sigma":
            torch.testing.assert_close(new.state_dict()[name], value)


def test_shapes_that_do_not_match_are_an_error(
    origin: Bundle, dataset: Path, tmp_path: Path
) -> None:
    other = {"options": {"frame_length": 256, "hop_length": 64, "scale": "log"}}
    recipe = TrainConfig.model_validate({**SHORT, "front_end": other})
    job = TrainingJob(dataset, tmp_path / "new", origin=str(origin.folder))
    with pytest.raises(ConfigError, match="leave front_end to the bundle"):
        train_bundle(job, recipe, Reporter(), StopFlag())


def test_a_missing_library_of_training_is_got_by_the_extra(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(commands, "find_spec", lambda name: None)
    with pytest.raises(ConfigError) as error:
        commands.require_modules("torch", "onnx", "jinja2")
    assert str(error.value) == (
        "this command needs torch, onnx and jinja2, which are not installed: "
        "pip install 'neurovocal[train]'"
    )
    with pytest.raises(ConfigError, match="needs torch, which is not installed"):
        commands.require_modules("torch")
