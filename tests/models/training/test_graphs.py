"""Exported graphs against torch, over state-threaded runs."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from neurovocal.engine.contracts.errors import BundleError
from neurovocal.models.classifier.graph import classifier_graph
from neurovocal.models.classifier.network import Classifier
from neurovocal.models.rnn_rbm.graph import sampling_graph, scoring_graph
from neurovocal.models.rnn_rbm.network import RnnRbm
from neurovocal.models.toolkit.onnx_session import Session
from neurovocal.models.toolkit.recipe import ClassifierConfig, RnnRbmConfig
from neurovocal.models.training.export.parity import (
    check_classifier,
    check_rnn_rbm,
    stable_noise,
    torch_outputs,
)

N_BINS = 12


@pytest.fixture
def frames() -> np.ndarray:
    return np.random.default_rng(0).random((500, N_BINS), dtype=np.float32)


def export_rbm(model: RnnRbm, folder: Path) -> tuple[Path, Path]:
    scoring, sampling = folder / "rnn_rbm.onnx", folder / "rnn_rbm_sample.onnx"
    onnx.save(scoring_graph(model), scoring)
    onnx.save(sampling_graph(model), sampling)
    return scoring, sampling


@pytest.mark.parametrize("architecture", ["gru", "lstm", "tcn", "conv_gru"])
@pytest.mark.parametrize("n_layers", [1, 3])
def test_classifier_graphs_agree_with_torch(
    tmp_path: Path, frames: np.ndarray, architecture: str, n_layers: int
) -> None:
    torch.manual_seed(0)
    config = ClassifierConfig(
        architecture=architecture, n_hidden=10, n_layers=n_layers, kernel_length=3
    )
    model = Classifier(config, N_BINS, 4).eval()
    path = tmp_path / "classifier.onnx"
    onnx.save(classifier_graph(model), path)
    found = check_classifier(model, path, frames)
    assert found["states"] <= 1e-5
    assert found["logits"] <= 1e-5


@pytest.mark.parametrize("visible", ["bernoulli", "gaussian"])
@pytest.mark.parametrize("gates", ["sigmoid", "tanh", "simple"])
@pytest.mark.parametrize("n_layers", [1, 2])
def test_rnn_rbm_graphs_agree_with_torch(
    tmp_path: Path, frames: np.ndarray, visible: str, gates: str, n_layers: int
) -> None:
    torch.manual_seed(0)
    config = RnnRbmConfig(visible=visible, gates=gates, n_layers=n_layers)
    model = RnnRbm(config, N_BINS).eval()
    for name, parameter in model.named_parameters():
        if name in ("W", "Wuv", "Wuh"):
            parameter.data *= 20  # so that the outputs depend on the state
        elif gates != "sigmoid" and name.endswith("recurrent"):
            parameter.data *= 0.5  # contracting, as after training
    noise = stable_noise(model, frames, 20, np.random.default_rng(0))
    found = check_rnn_rbm(model, *export_rbm(model, tmp_path), frames, noise)
    assert found["states"] <= 1e-5
    assert found["contraction"] <= 1e-5
    assert found["mean"] <= 1e-5
    assert found["prediction"] <= 1e-5


def test_a_state_that_does_not_contract_is_an_error(
    tmp_path: Path, frames: np.ndarray
) -> None:
    torch.manual_seed(0)
    model = RnnRbm(RnnRbmConfig(gates="tanh", n_layers=3), N_BINS).eval()
    for name, parameter in model.named_parameters():
        if name.startswith("layers"):
            parameter.data *= 4
    noise = np.full((1, model.n_hidden), 0.5, np.float32)
    with pytest.raises(BundleError, match="the recurrent state does not forget"):
        check_rnn_rbm(model, *export_rbm(model, tmp_path), frames, noise)


def test_a_graph_with_other_weights_is_an_error(
    tmp_path: Path, frames: np.ndarray
) -> None:
    torch.manual_seed(0)
    model = Classifier(ClassifierConfig(n_hidden=6), N_BINS, 3).eval()
    path = tmp_path / "classifier.onnx"
    onnx.save(classifier_graph(model), path)
    model.readout.bias.data += 0.01
    with pytest.raises(BundleError, match="differ in logits"):
        check_classifier(model, path, frames)


def test_the_number_of_gibbs_steps_is_the_number_of_noise_rows(
    tmp_path: Path, frames: np.ndarray
) -> None:
    torch.manual_seed(0)
    model = RnnRbm(RnnRbmConfig(), N_BINS).eval()
    model.W.data *= 30
    _, path = export_rbm(model, tmp_path)
    session = Session(path)
    zeros = np.zeros((1, model.n_recurrent), np.float32)
    rng = np.random.default_rng(0)
    for n_steps in (0, 1, 7):
        noise = stable_noise(model, frames[:1], n_steps, rng)
        one = np.array(1.0, np.float32)
        drawn = session.run(frame=frames[:1], u=zeros, noise=noise, temperature=one)
        expected = torch_outputs(model, frames[:1], noise)["mean"]
        np.testing.assert_allclose(drawn["mean"], expected, atol=1e-6)
        if n_steps == 0:
            np.testing.assert_array_equal(drawn["mean"], frames[:1])


def test_a_higher_temperature_makes_hidden_units_more_random(
    tmp_path: Path, frames: np.ndarray
) -> None:
    torch.manual_seed(0)
    model = RnnRbm(RnnRbmConfig(), N_BINS).eval()
    model.W.data *= 100
    _, path = export_rbm(model, tmp_path)
    session = Session(path)
    zeros = np.zeros((1, model.n_recurrent), np.float32)

    def spread(temperature: float) -> float:
        rng = np.random.default_rng(1)
        means = [
            session.run(
                frame=frames[:1],
                u=zeros,
                noise=rng.random((1, model.n_hidden), dtype=np.float32),
                temperature=np.array(temperature, np.float32),
            )["mean"]
            for _ in range(40)
        ]
        return float(np.std(means, axis=0).mean())

    assert spread(0.02) < spread(1.0) < spread(5.0)


def test_golden_noise_is_robust_against_rounding(frames: np.ndarray) -> None:
    torch.manual_seed(0)
    model = RnnRbm(RnnRbmConfig(), N_BINS).eval()
    model.W.data *= 50
    noise = stable_noise(model, frames, 50, np.random.default_rng(0))
    shifted = noise + np.float32(1e-4)
    same = torch_outputs(model, frames, noise)["mean"]
    np.testing.assert_array_equal(torch_outputs(model, frames, shifted)["mean"], same)
