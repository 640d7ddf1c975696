"""Graphs in bound memory: the same results as without, states threaded and reset."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from bundles.tiny_bundle import edit_manifest, make_tiny_bundle
from onnx import TensorProto, helper

from neurovocal.engine.contracts.bundle import load_bundle
from neurovocal.plugins.models.onnx.bound_call import BoundCall, RowStream
from neurovocal.plugins.models.onnx.session import Graph


def running_sum(folder: Path, *, channels: bool) -> Graph:
    """Return a graph whose rows `y` are the sums of the rows `x` so far, and `u`."""
    tensor, axis = helper.make_tensor_value_info, ["C"] if channels else []
    nodes = [
        helper.make_node("Unsqueeze", ["u", "first"], ["before"]),
        helper.make_node("Concat", ["before", "x"], ["rows"], axis=0),
        helper.make_node("CumSum", ["rows", "axis"], ["sums"]),
        helper.make_node("Slice", ["sums", "one", "end"], ["y"]),
        helper.make_node("Gather", ["sums", "last"], ["u_next"], axis=0),
    ]
    constants = {
        "first": np.array([0]),
        "axis": np.array(0),
        "one": np.array([1]),
        "end": np.array([2**31]),
        "last": np.array(-1),
    }
    graph = helper.make_graph(
        nodes,
        "sums",
        [
            tensor("x", TensorProto.FLOAT, ["T", *axis, 3]),
            tensor("u", TensorProto.FLOAT, [*axis, 3]),
        ],
        [
            tensor("y", TensorProto.FLOAT, ["T", *axis, 3]),
            tensor("u_next", TensorProto.FLOAT, [*axis, 3]),
        ],
        [onnx.numpy_helper.from_array(v, name) for name, v in constants.items()],
    )
    opset = [helper.make_opsetid("", 17)]
    make_tiny_bundle(folder, rnn_rbm=False)
    onnx.save(
        helper.make_model(graph, opset_imports=opset, ir_version=8),
        folder / "classifier.onnx",
    )
    edit_manifest(folder)
    return Graph(
        load_bundle(folder),
        "classifier.onnx",
        {"x": (None, 3), "u": (3,)},
        {"y": (None, 3), "u_next": (3,)},
    )


@pytest.mark.parametrize("channels", [False, True])
def test_rows_cut_in_any_way_give_the_same(tmp_path: Path, channels: bool) -> None:
    stream = RowStream(running_sum(tmp_path, channels=channels), ["y"])
    rows = np.arange(60, dtype=np.float32).reshape(20, 3)
    for cuts in ([], [1, 2, 4], [5, 10, 15], list(range(1, 20))):
        stream.reset()
        parts = [stream.run(part)[0].copy() for part in np.split(rows, cuts)]
        np.testing.assert_array_equal(np.concatenate(parts), rows.cumsum(axis=0))
        np.testing.assert_array_equal(stream.states["u"], rows.sum(axis=0))


def test_a_state_that_overflows_restarts_from_zeros(tmp_path: Path) -> None:
    stream = RowStream(running_sum(tmp_path, channels=True), ["y"])
    stream.run(np.full((2, 3), 3e38, np.float32))
    np.testing.assert_array_equal(stream.states["u"], 0)
    (sums,) = stream.run(np.ones((2, 3), np.float32))
    np.testing.assert_array_equal(sums, [[1, 1, 1], [2, 2, 2]])


def test_one_call_computes_several_channels(tmp_path: Path) -> None:
    graph = running_sum(tmp_path, channels=True)
    call = BoundCall(graph, ["y"], n_rows=2, n_channels=4)
    call.inputs["u"][...] = np.arange(4)[:, None]
    call.inputs["x"][...] = 1
    for _ in range(2):  # the second call reads and writes the same memory
        call.run()
        for channel, sums in enumerate(call.outputs["y"]):
            np.testing.assert_array_equal(sums[:, 0], [channel + 1, channel + 2])
