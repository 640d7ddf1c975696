"""Graphs that compute the channels of an array in one call."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import onnx
import pytest
import torch
from bundles.tiny_bundle import make_tiny_bundle
from onnx import TensorProto, helper

from neurovocal.engine.contracts.bundle import Bundle, load_bundle
from neurovocal.engine.contracts.errors import BundleError
from neurovocal.models.classifier.graph import classifier_graph
from neurovocal.models.classifier.network import Classifier
from neurovocal.models.detection.network import DetectorNetwork, detector_graph
from neurovocal.models.rnn_rbm.graph import scoring_graph
from neurovocal.models.rnn_rbm.network import RnnRbm
from neurovocal.models.toolkit.recipe import ClassifierConfig, RnnRbmConfig
from neurovocal.plugins.detectors.band_excess import N_BANDS
from neurovocal.plugins.models.onnx.channels import Shape
from neurovocal.plugins.models.onnx.session import Graph

N_BINS, N_CHANNELS, N_FRAMES, CUTS = 12, 3, 40, [1, 9, 30, 31]
Arrays = Mapping[str, np.ndarray]
Shapes = dict[str, Shape]


class ArrayGraph:
    """A graph over rows, run part by part with its states fed back.

    Parameters
    ----------
    path : Path
        File of the graph.
    rows, states, outputs : dict of str to tuple
        Shapes of one channel.
    """

    def __init__(
        self, path: Path, rows: Shapes, states: Shapes, outputs: Shapes
    ) -> None:
        folder = SimpleNamespace(folder=path.parent, path=path.parent.joinpath)
        after = {f"{name}_next": shape for name, shape in states.items()}
        self.graph = Graph(
            cast(Bundle, folder), path.name, {**rows, **states}, {**outputs, **after}
        )
        self.states = states

    def run(self, rows: Arrays) -> list[np.ndarray]:
        """Return the outputs and the last states of one channel."""
        return self._in_parts(self.graph.run, rows, axis=0, channels=())

    def run_channels(self, rows: Arrays) -> list[np.ndarray]:
        """Return the same for all channels."""
        n_channels = len(next(iter(rows.values())))
        run = self.graph.run_channels
        return self._in_parts(run, rows, axis=1, channels=(n_channels,))

    def _in_parts(
        self,
        run: Callable[[Arrays], list[np.ndarray]],
        rows: Arrays,
        *,
        axis: int,
        channels: tuple[int, ...],
    ) -> list[np.ndarray]:
        state = {
            name: np.zeros((*channels, *cast(Sequence[int], shape)), np.float32)
            for name, shape in self.states.items()
        }
        cut = {name: np.split(values, CUTS, axis) for name, values in rows.items()}
        parts: list[list[np.ndarray]] = []
        for number in range(len(CUTS) + 1):
            feed = {name: pieces[number] for name, pieces in cut.items()}
            results = run({**feed, **state})
            state = dict(zip(state, results[-len(state) :], strict=True))
            parts.append(results[: -len(state)])
        whole = [np.concatenate(part, axis) for part in zip(*parts, strict=True)]
        return [*whole, *state.values()]


def check_channels(graph: ArrayGraph, rows: Arrays) -> None:
    assert graph.graph.has_channels
    together = graph.run_channels(rows)
    for channel in range(N_CHANNELS):
        alone = graph.run({name: values[channel] for name, values in rows.items()})
        for found, expected in zip(together, alone, strict=True):
            np.testing.assert_allclose(found[channel], expected, rtol=1e-5, atol=2e-6)
    for found in together:
        assert not np.allclose(found[0], found[1], atol=1e-4)


@pytest.fixture
def frames() -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.random((N_CHANNELS, N_FRAMES, N_BINS), dtype=np.float32)


@pytest.mark.parametrize("architecture", ["gru", "lstm", "tcn", "conv_gru"])
def test_a_classifier_runs_all_channels_in_one_call(
    tmp_path: Path, frames: np.ndarray, architecture: str
) -> None:
    torch.manual_seed(0)
    config = ClassifierConfig(
        architecture=architecture, n_hidden=10, n_layers=2, kernel_length=3
    )
    model = Classifier(config, N_BINS, 4).eval()
    onnx.save(classifier_graph(model), path := tmp_path / "classifier.onnx")
    states: Shapes = {name: tuple(shape) for name, shape in model.shapes.items()}
    outputs: Shapes = {"logits": (None, 4)}
    graph = ArrayGraph(path, {"frames": (None, N_BINS)}, states, outputs)
    check_channels(graph, {"frames": frames})


@pytest.mark.parametrize("visible", ["bernoulli", "gaussian"])
@pytest.mark.parametrize("gates", ["sigmoid", "simple"])
@pytest.mark.parametrize("n_layers", [1, 2])
def test_an_rnn_rbm_runs_all_channels_in_one_call(
    tmp_path: Path, frames: np.ndarray, visible: str, gates: str, n_layers: int
) -> None:
    torch.manual_seed(0)
    config = RnnRbmConfig(visible=visible, gates=gates, n_layers=n_layers)
    model = RnnRbm(config, N_BINS).eval()
    for name, parameter in model.named_parameters():
        if name in ("W", "Wuv", "Wuh"):
            parameter.data *= 20  # so that the outputs depend on the state
    onnx.save(scoring_graph(model), path := tmp_path / "rnn_rbm.onnx")
    state = (n_layers, model.n_recurrent)
    outputs: Shapes = {
        "free_energy": (None,),
        "prediction": (None, N_BINS),
        "states": (None, *state),
    }
    graph = ArrayGraph(path, {"frames": (None, N_BINS)}, {"u": state}, outputs)
    check_channels(graph, {"frames": frames})


def test_a_detector_network_runs_all_channels_in_one_call(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = DetectorNetwork(6, 3).eval()
    torch.nn.init.normal_(model.readout.weight)
    onnx.save(detector_graph(model), path := tmp_path / "detector.onnx")
    states: Shapes = {name: tuple(shape) for name, shape in model.shapes.items()}
    rows: Shapes = {"levels": (None, N_BANDS), "scores": (None,)}
    graph = ArrayGraph(path, rows, states, {"corrections": (None,)})
    rng = np.random.default_rng(1)
    levels = rng.normal(4, 6, (N_CHANNELS, N_FRAMES, N_BANDS)).astype(np.float32)
    scores = rng.normal(2, 4, (N_CHANNELS, N_FRAMES)).astype(np.float32)
    check_channels(graph, {"levels": levels, "scores": scores})


def test_a_graph_of_one_channel_runs_once_for_each(tmp_path: Path) -> None:
    bundle = load_bundle(make_tiny_bundle(tmp_path, rnn_rbm=False))
    spec = bundle.manifest.classifier
    assert spec is not None
    states: Shapes = {name: tuple(shape) for name, shape in spec.state.items()}
    n_bins = bundle.manifest.front_end.n_bins
    graph = ArrayGraph(
        bundle.path("classifier.onnx"),
        {"frames": (None, n_bins)},
        states,
        {"logits": (None, len(spec.units))},
    )
    assert not graph.graph.has_channels
    rng = np.random.default_rng(0)
    frames = rng.random((N_CHANNELS, N_FRAMES, n_bins), dtype=np.float32)
    together = graph.run_channels({"frames": frames})
    for channel, values in enumerate(frames):
        for found, expected in zip(
            together, graph.run({"frames": values}), strict=True
        ):
            np.testing.assert_array_equal(found[channel], expected)


def test_channels_in_some_tensors_only_are_refused(tmp_path: Path) -> None:
    tensor = helper.make_tensor_value_info
    graph = helper.make_graph(
        [
            helper.make_node("Identity", ["frames"], ["logits"]),
            helper.make_node("Identity", ["h1"], ["h1_next"]),
        ],
        "g",
        [
            tensor("frames", TensorProto.FLOAT, ["T", "C", 4]),
            tensor("h1", TensorProto.FLOAT, [2]),
        ],
        [
            tensor("logits", TensorProto.FLOAT, ["T", "C", 4]),
            tensor("h1_next", TensorProto.FLOAT, [2]),
        ],
    )
    opset = [helper.make_opsetid("", 17)]
    onnx.save(
        helper.make_model(graph, opset_imports=opset, ir_version=8),
        path := tmp_path / "classifier.onnx",
    )
    with pytest.raises(BundleError, match="h1, h1_next must have a length C, as its"):
        ArrayGraph(path, {"frames": (None, 4)}, {"h1": (2,)}, {"logits": (None, 4)})
