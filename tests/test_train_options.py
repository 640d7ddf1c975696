"""Options of a recipe, each from a dataset folder to a bundle that the engine runs."""

from pathlib import Path
from typing import Any

import pytest
import soundfile
from tone_dataset import make_tone_dataset

from neurovocal.engine.manifest import Bundle
from neurovocal.models.config import TrainConfig, load_config
from neurovocal.models.data import read_dataset
from neurovocal.models.evaluate import evaluate_bundle
from neurovocal.models.fit import StopFlag
from neurovocal.models.labelling import Labeller
from neurovocal.models.progress import Reporter
from neurovocal.models.train import Job, train_bundle

FRONT_END = {"options": {"frame_length": 128, "hop_length": 64, "scale": "log"}}
CONFIGS = Path(__file__).parents[1] / "configs"


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tone_dataset(tmp_path_factory.mktemp("tones"))


def trained(dataset: Path, out: Path, recipe: TrainConfig) -> Bundle:
    return train_bundle(Job(dataset, out), recipe, Reporter(), StopFlag())


def changed(recipe: TrainConfig, **parts: Any) -> TrainConfig:
    return TrainConfig.model_validate({**recipe.model_dump(), **parts})


def test_the_source_recipe_trains_a_bundle_that_labels(
    dataset: Path, tmp_path: Path
) -> None:
    """Its architecture and methods as they ship, at a smaller size."""
    source = load_config(CONFIGS / "train-source.yaml")
    assert source.classifier is not None
    assert source.rnn_rbm is not None
    assert (source.rnn_rbm.gates, source.rnn_rbm.n_layers) == ("tanh", 3)
    # Gates of tanh contract once L1 has made the weights small: here it must do so
    # in a few steps.
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
