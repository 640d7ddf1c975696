"""Tiny ONNX classifiers with the signatures of well-known ones, and their manifests."""

from pathlib import Path

import numpy as np
import onnx
import yaml
from onnx import TensorProto, helper, numpy_helper

INFO = helper.make_tensor_value_info


def save_graph(path, nodes, inputs, outputs, **constants):
    """Write a graph of nodes; `inputs` and `outputs` are (name, type, shape)."""
    given = [
        numpy_helper.from_array(np.asarray(value), name)
        for name, value in constants.items()
    ]
    graph = helper.make_graph(
        nodes, "g", [INFO(*i) for i in inputs], [INFO(*o) for o in outputs], given
    )
    opset = [helper.make_opsetid("", 17)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=8)
    onnx.checker.check_model(model)
    Path(path).write_bytes(model.SerializeToString())


def save_band_classifier(path, window, n_labels, *, name="input", output="output"):
    """Write a classifier of raw samples: how much each of some tones is in a window.

    Label ``k`` is the tone with ``8 * (k + 1)`` periods per window; values are logits,
    positive for a sine of an amplitude above 0.1 or so.
    """
    phase = 2 * np.pi * np.arange(window)[:, None] / window
    tones = 8 * (1 + np.arange(n_labels))[None, :]
    weights = np.concatenate([np.cos(phase * tones), np.sin(phase * tones)], axis=1)
    save_graph(
        path,
        [
            helper.make_node("MatMul", [name, "weights"], ["parts"]),
            helper.make_node("Mul", ["parts", "parts"], ["powers"]),
            helper.make_node("Split", ["powers"], ["cosines", "sines"], axis=1),
            helper.make_node("Add", ["cosines", "sines"], ["sums"]),
            helper.make_node("Mul", ["sums", "gain"], ["scaled"]),
            helper.make_node("Sub", ["scaled", "limit"], [output]),
        ],
        [(name, TensorProto.FLOAT, ["batch", window])],
        [(output, TensorProto.FLOAT, ["batch", n_labels])],
        weights=(weights / window).astype(np.float32),
        gain=np.float32(2000.0),
        limit=np.float32(5.0),
    )


def tone(label, window, n_samples, amplitude=0.5):
    """A sine that `save_band_classifier` takes for a label, float32[n_samples]."""
    phase = 2 * np.pi * np.arange(n_samples) * 8 * (label + 1) / window
    return (amplitude * np.sin(phase)).astype(np.float32)


def save_counter(path, window):
    """Write a recurrent classifier: the share of 100 windows since its state was 0."""
    save_graph(
        path,
        [
            helper.make_node("Add", ["memory", "one"], ["memory_next"]),
            helper.make_node("ReduceMax", ["audio"], ["m"], axes=[1], keepdims=1),
            helper.make_node("Mul", ["m", "zero"], ["nothing"]),
            helper.make_node("Div", ["memory_next", "hundred"], ["share"]),
            helper.make_node("Add", ["share", "nothing"], ["posterior"]),
        ],
        [
            ("audio", TensorProto.FLOAT, [1, window]),
            ("memory", TensorProto.FLOAT, [1, 1]),
        ],
        [
            ("posterior", TensorProto.FLOAT, [1, 1]),
            ("memory_next", TensorProto.FLOAT, [1, 1]),
        ],
        one=np.float32(1),
        zero=np.float32(0),
        hundred=np.float32(100),
    )


def write_manifest(path, **entries):
    """Write a manifest, a key a line, in the order given."""
    entries = {"version": 1, "name": path.stem, **entries}
    text = yaml.safe_dump(entries, sort_keys=False, default_flow_style=None, width=1000)
    path.write_text(text)
    return path
