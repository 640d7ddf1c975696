"""Small bundle that is a detector alone: it lowers the scores of faint rows."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from bundles.tiny_bundle import write_manifest
from onnx import TensorProto, helper, numpy_helper

N_BANDS, LOOK_AHEAD = 32, 1
LEAST_DB, LOWERED_DB = 6.0, -5.0  # rows without a band this loud are lowered


def make_tiny_detector(folder: Path, **manifest: Any) -> Path:
    """Write a bundle with a detector network and return its folder.

    The correction of a row is -5 dB where no band reaches 6 dB, and 0 elsewhere; the
    network tells it one row later, so that its state, the row before, matters.

    Parameters
    ----------
    folder : Path
        Folder, which is made if it does not exist.
    **manifest
        Top-level keys of the manifest to replace.
    """
    folder.mkdir(parents=True, exist_ok=True)
    onnx.save(detector_graph(), folder / "detector.onnx")
    rng = np.random.default_rng(0)
    levels = rng.normal(-2, 4, (20, N_BANDS)).astype(np.float32)
    scores = levels.max(axis=1)
    session = ort.InferenceSession(str(folder / "detector.onnx"))
    state = np.zeros((1, N_BANDS), np.float32)
    inputs = {"levels": levels, "scores": scores, "row": state}
    corrections = session.run(["corrections"], inputs)[0]
    np.savez(
        folder / "golden.npz", levels=levels, scores=scores, corrections=corrections
    )
    content: dict[str, Any] = {
        "version": 1,
        "name": "tiny-detector",
        "species": "none",
        "licence": "CC0-1.0",
        "attribution": "made by a test",
        "detector": {"plugin": "network"},
        "detector_network": {
            "n_bands": N_BANDS,
            "state": {"row": [1, N_BANDS]},
            "look_ahead": LOOK_AHEAD,
        },
    }
    write_manifest(folder, {**content, **manifest})
    return folder


def detector_graph(n_bands: int = N_BANDS) -> Any:
    """Build the graph."""
    constants = {
        "least": np.array(LEAST_DB, np.float32),
        "lowered": np.array(LOWERED_DB, np.float32),
        "none": np.array(0, np.float32),
        "zero": np.array([0], np.int64),
        "last": np.array([-1], np.int64),
        "end": np.array([2**31], np.int64),
        "axis": np.array([0], np.int64),
    }
    nodes = [
        helper.make_node("Concat", ["row", "levels"], ["joined"], axis=0),
        helper.make_node("Slice", ["joined", "zero", "last", "axis"], ["used"]),
        helper.make_node("Slice", ["joined", "last", "end", "axis"], ["row_next"]),
        helper.make_node("ReduceMax", ["used"], ["peak"], axes=[1], keepdims=0),
        helper.make_node("Less", ["peak", "least"], ["is_faint"]),
        helper.make_node("Where", ["is_faint", "lowered", "none"], ["values"]),
        # An input that nothing reads would be left out.
        helper.make_node("Sub", ["scores", "scores"], ["nothing"]),
        helper.make_node("Add", ["values", "nothing"], ["corrections"]),
    ]

    def value(name: str, *shape: int | str) -> Any:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape))

    graph = helper.make_graph(
        nodes,
        "detector",
        [value("levels", "T", n_bands), value("scores", "T"), value("row", 1, n_bands)],
        [value("corrections", "T"), value("row_next", 1, n_bands)],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    opset = helper.make_opsetid("", 17)
    return helper.make_model(graph, opset_imports=[opset], ir_version=8)
