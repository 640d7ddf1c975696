"""Loading of graphs: bounded in time and memory, refused in a sentence."""

import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import pytest
from bundles.tiny_bundle import edit_manifest, make_tiny_bundle
from onnx import TensorProto, helper, numpy_helper

from neurovocal.engine.contracts.bundle import load_bundle
from neurovocal.engine.contracts.errors import BundleError
from neurovocal.engine.support.process import process_usage
from neurovocal.plugins.models.onnx import session
from neurovocal.plugins.models.onnx.session import Graph, open_session

INFO = helper.make_tensor_value_info


def bundle_graph(
    folder: Path, nodes: list[onnx.NodeProto], **constants: object
) -> Graph:
    """Return a graph from x to y, both float32[1], in a bundle."""
    given = [
        numpy_helper.from_array(np.asarray(value), name)
        for name, value in constants.items()
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [INFO("x", TensorProto.FLOAT, [1])],
        [INFO("y", TensorProto.FLOAT, [1])],
        given,
    )
    opset = [helper.make_opsetid("", 17)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=8)
    make_tiny_bundle(folder, rnn_rbm=False)
    (folder / "classifier.onnx").write_bytes(model.SerializeToString())
    edit_manifest(folder)
    return Graph(load_bundle(folder), "classifier.onnx", {"x": (1,)}, {"y": (1,)})


def loop(rounds: str) -> onnx.NodeProto:
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["go_on"]),
            helper.make_node("Add", ["v", "v"], ["w"]),
        ],
        "body",
        [
            INFO("i", TensorProto.INT64, []),
            INFO("go", TensorProto.BOOL, []),
            INFO("v", TensorProto.FLOAT, [1]),
        ],
        [INFO("go_on", TensorProto.BOOL, []), INFO("w", TensorProto.FLOAT, [1])],
    )
    return helper.make_node("Loop", [rounds, "", "x"], ["y"], body=body)


def refusal(graph: Graph) -> str:
    with pytest.raises(BundleError) as caught:
        graph.try_run({"x": np.ones(1, np.float32)})
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert len(sentence) < 400
    return sentence


def test_a_loop_that_never_ends_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "_MOST_S", 0.2)
    graph = bundle_graph(tmp_path, [loop("n")], n=np.int64(2**40))
    assert "it is too slow for this machine, or it never ends" in refusal(graph)


def test_a_loop_that_ends_is_run(tmp_path: Path) -> None:
    graph = bundle_graph(tmp_path, [loop("n")], n=np.int64(10))
    assert graph.try_run({"x": np.ones(1, np.float32)})[0] == [1024]


def summed(name: str) -> list[onnx.NodeProto]:
    return [
        helper.make_node("ReduceSum", [name], ["total"], keepdims=0),
        helper.make_node("Add", ["x", "total"], ["y"]),
    ]


HUGE = {
    "filled": (
        [helper.make_node("ConstantOfShape", ["size"], ["much"])],
        {"size": np.array([2**40])},
    ),
    "tiled": (
        [helper.make_node("Tile", ["x", "size"], ["much"])],
        {"size": np.array([2**40])},
    ),
    "expanded": (
        [helper.make_node("Expand", ["x", "size"], ["much"])],
        {"size": np.array([2**20, 2**20])},
    ),
    "counted": (
        [helper.make_node("Range", ["low", "high", "step"], ["much"])],
        {"low": np.float32(0), "high": np.float32(2**40), "step": np.float32(1)},
    ),
    "padded": (
        [helper.make_node("Pad", ["x", "size"], ["much"])],
        {"size": np.array([2**40, 0])},
    ),
}


@pytest.mark.parametrize(("nodes", "constants"), HUGE.values(), ids=HUGE)
def test_tensors_larger_than_memory_are_refused(
    tmp_path: Path,
    nodes: list[onnx.NodeProto],
    constants: dict[str, object],
) -> None:
    before_mb = process_usage().rss_mb
    graph = bundle_graph(tmp_path, [*nodes, *summed("much")], **constants)
    assert refusal(graph)
    assert process_usage().rss_mb - before_mb < 500


def test_nothing_is_computed_before_the_first_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Constants that were folded would leave nothing to do within the limit."""
    monkeypatch.setattr(session, "_MOST_S", 0.2)
    names = ["a", *(f"a{n}" for n in range(40))]
    nodes = [helper.make_node("MatMul", [a, a], [b]) for a, b in pairwise(names)]
    large = np.zeros((1500, 1500), np.float32)
    graph = bundle_graph(tmp_path, [*nodes, *summed("a39")], a=large)
    assert "it is too slow for this machine" in refusal(graph)


@pytest.mark.parametrize("change", ["ir_version", "opset"])
def test_a_graph_of_a_newer_program_names_the_remedy(
    tmp_path: Path, change: str
) -> None:
    make_tiny_bundle(tmp_path, rnn_rbm=False)
    model = onnx.load(tmp_path / "classifier.onnx")
    if change == "opset":
        model.opset_import[0].version = 99
    else:
        model.ir_version = 99
    path = tmp_path / "newer.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(BundleError, match="update the package onnxruntime") as caught:
        open_session(path)
    assert re.search(
        r"is 99, newer than ONNX Runtime \S+, which reads \d+ at most",
        str(caught.value),
    )
    assert "to one that reads 99" in str(caught.value)
    assert "onnxruntime::" not in str(caught.value)
