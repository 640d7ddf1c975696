"""Small, complete bundle for tests, with real graphs and golden vectors.

The classifier's labels are predictable: the spectrum is split into as many equal
bands as there are voiced units, and the unit whose band holds the loudest bin wins;
a frame with no bin above half of the scale is silence. A recurrent layer adds a
little, so that state matters.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import yaml
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from neurovocal.engine.contracts.bundle import sha256

FRAME_LENGTH, HOP_LENGTH, N_BINS = 256, 128, 129
N_CONTEXT = 4  # recurrent units of the classifier
N_HIDDEN, N_RECURRENT = 16, 8  # of the RNN-RBM
GIBBS_STEPS = 3
_OPSET = 17


def make_tiny_bundle(
    folder: Path,
    *,
    sample_rate: int = 32000,
    units: Sequence[str] = ("", "a", "b"),
    rnn_rbm: bool = True,
    **manifest: Any,
) -> Path:
    """Write a valid bundle and return its folder.

    Parameters
    ----------
    folder : Path
        Folder, which is made if it does not exist.
    sample_rate : int
        Rate of the front end in Hz.
    units : sequence of str
        Units, of which the first is silence.
    rnn_rbm : bool
        Whether the bundle also has an RNN-RBM.
    **manifest
        Top-level keys of the manifest to replace.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    _write_scaling(folder)
    frames = _burst_frames(rng, len(units) - 1)
    golden = {"frames": frames}
    onnx.save(classifier_graph(rng, len(units)), folder / "classifier.onnx")
    golden["logits"] = _run(
        folder / "classifier.onnx", frames=frames, h=np.zeros((1, N_CONTEXT))
    )["logits"]
    content: dict[str, Any] = {
        "version": 1,
        "name": "tiny",
        "species": "none",
        "licence": "CC0-1.0",
        "attribution": "made by a test",
        "front_end": front_end(sample_rate),
        "classifier": {
            "units": list(units),
            "silence": units[0],
            "state": {"h": [1, N_CONTEXT]},
        },
    }
    if rnn_rbm:
        content["rnn_rbm"] = _write_rnn_rbm(folder, rng, frames, golden)
    np.savez(folder / "golden.npz", **golden)
    write_manifest(folder, {**content, **manifest})
    return folder


def front_end(sample_rate: int) -> dict[str, Any]:
    """Return the manifest section of the tiny bundle's front end."""
    return {
        "plugin": "spectrogram",
        "sample_rate": sample_rate,
        "hop_length": HOP_LENGTH,
        "frame_length": FRAME_LENGTH,
        "n_bins": N_BINS,
        "options": {
            "frame_length": FRAME_LENGTH,
            "hop_length": HOP_LENGTH,
            "window": "hann",
            "scale": "log",
            "scaling": {"file": "scaling.npz", "clip": [0.0, 1.0]},
        },
    }


def write_manifest(folder: Path, content: dict[str, Any]) -> None:
    """Write a manifest with the checksums of all files in the folder."""
    files = {
        path.name: sha256(path)
        for path in sorted(folder.iterdir())
        if path.name != "manifest.yaml"
    }
    text = yaml.safe_dump({**content, "files": files}, sort_keys=False)
    (folder / "manifest.yaml").write_text(text, encoding="utf-8")


def edit_manifest(folder: Path, **changes: Any) -> None:
    """Change top-level keys of the manifest, and update its checksums."""
    content = yaml.safe_load((folder / "manifest.yaml").read_text(encoding="utf-8"))
    write_manifest(folder, {**content, **changes})


def _write_scaling(folder: Path) -> None:
    # Densities from 1e-9 to 1e-3 per Hz become 0 to 1.
    offset = np.full(N_BINS, -9.0, np.float32)
    gain = np.full(N_BINS, 1 / 6, np.float32)
    np.savez(folder / "scaling.npz", offset=offset, gain=gain)


def _burst_frames(rng: np.random.Generator, n_voiced: int) -> NDArray[np.float32]:
    """Make scaled frames float32[500, n_bins]: quiet, with bursts in each band."""
    frames = rng.uniform(0.0, 0.2, (500, N_BINS)).astype(np.float32)
    edges = np.linspace(0, N_BINS, n_voiced + 1).astype(int)
    for burst in range(0, 480, 40):
        band = rng.integers(n_voiced)
        peak = rng.integers(edges[band], edges[band + 1])
        frames[burst + 10 : burst + 30, peak] = 0.9
    return frames


def classifier_graph(rng: np.random.Generator, n_units: int) -> onnx.ModelProto:
    """Make the graph of logits: the loudest bin of each band, plus a small GRU."""
    weights = {
        "W": rng.normal(0, 0.3, (1, 3 * N_CONTEXT, N_BINS)),
        "R": rng.normal(0, 0.5, (1, 3 * N_CONTEXT, N_CONTEXT)),
        "say": rng.normal(0, 0.1, (N_CONTEXT, n_units)),
        "quiet": np.full((1, 1), 6.0),
        "steep": np.full((), 12.0),
    }
    edges = np.linspace(0, N_BINS, n_units).astype(np.int64)
    nodes, bands = [], []
    for i in range(n_units - 1):
        ends = {f"from{i}": edges[i : i + 1], f"to{i}": edges[i + 1 : i + 2]}
        weights |= ends
        nodes.append(_node("Slice", "frames", *ends, "columns", to=f"band{i}"))
        nodes.append(_node("ReduceMax", f"band{i}", to=f"top{i}", axes=[1], keepdims=1))
        bands.append(f"top{i}")
    weights |= {"columns": np.array([1], np.int64)}
    nodes += [
        _node("Concat", *bands, to="tops", axis=1),
        _node("Mul", "tops", "steep", to="voiced"),
        # Silence has the same logit in every frame.
        _node("Mul", "top0", "nought", to="noughts"),
        _node("Add", "noughts", "quiet", to="silence"),
        _node("Concat", "silence", "voiced", to="loudness", axis=1),
        *_gru("h", N_CONTEXT),
        _node("MatMul", "h_rows", "say", to="said"),
        _node("Add", "loudness", "said", to="logits"),
    ]
    weights |= {"nought": np.zeros(()), **_AXES}
    return _model(
        nodes,
        weights,
        {"frames": ["T", N_BINS], "h": [1, N_CONTEXT]},
        {"logits": ["T", n_units], "h_next": [1, N_CONTEXT]},
    )


_AXES = {"axis0": np.array([0], np.int64), "axis1": np.array([1], np.int64)}


def _gru(state: str, size: int, frames: str = "frames") -> list[onnx.NodeProto]:
    """Make a GRU over `frames` with outputs ``STATE_rows``, ``STATE_next``."""
    return [
        _node("Unsqueeze", frames, "axis1", to=f"{state}_in"),
        _node("Unsqueeze", state, "axis0", to=f"{state}_0"),
        helper.make_node(
            "GRU",
            [f"{state}_in", "W", "R", "", "", f"{state}_0"],
            [f"{state}_all", f"{state}_last"],
            hidden_size=size,
            linear_before_reset=0,
        ),
        _node("Squeeze", f"{state}_all", "axis1", to=f"{state}_all2"),
        _node("Squeeze", f"{state}_all2", "axis1", to=f"{state}_rows"),
        _node("Squeeze", f"{state}_last", "axis0", to=f"{state}_next"),
    ]


def _rbm_weights(rng: np.random.Generator) -> dict[str, NDArray[Any]]:
    return {
        "W": rng.normal(0, 0.2, (1, 3 * N_RECURRENT, N_BINS)),
        "R": rng.normal(0, 0.4, (1, 3 * N_RECURRENT, N_RECURRENT)),
        "Wvh": rng.normal(0, 0.3, (N_BINS, N_HIDDEN)),
        "Whv": np.zeros((N_HIDDEN, N_BINS)),
        "Wuv": rng.normal(0, 0.3, (N_RECURRENT, N_BINS)),
        "Wuh": rng.normal(0, 0.3, (N_RECURRENT, N_HIDDEN)),
        "bv": rng.normal(-1.0, 0.3, (N_BINS,)),
        "bh": rng.normal(0, 0.3, (N_HIDDEN,)),
        **_AXES,
    }


def scoring_graph(weights: dict[str, NDArray[Any]]) -> onnx.ModelProto:
    """Make the graph of free energy (state before t) and prediction (after t)."""
    nodes = [
        *_gru("u", N_RECURRENT),
        _node("Concat", "u", "u_rows", to="u_both", axis=0),
        _node("Slice", "u_both", "zero", "minus1", "axis0", to="u_before"),
        _node("MatMul", "u_before", "Wuv", to="cv"),
        _node("Add", "cv", "bv", to="visible_bias"),
        _node("MatMul", "u_before", "Wuh", to="ch"),
        _node("Add", "ch", "bh", to="hidden_bias"),
        _node("MatMul", "frames", "Wvh", to="drive"),
        _node("Add", "drive", "hidden_bias", to="net"),
        _node("Softplus", "net", to="soft"),
        _node("ReduceSum", "soft", "axis1", to="hidden_part", keepdims=0),
        _node("Mul", "frames", "visible_bias", to="vb"),
        _node("ReduceSum", "vb", "axis1", to="visible_part", keepdims=0),
        _node("Add", "hidden_part", "visible_part", to="negative"),
        _node("Neg", "negative", to="free_energy"),
        _node("MatMul", "u_rows", "Wuv", to="pv"),
        _node("Add", "pv", "bv", to="next_bias"),
        _node("Sigmoid", "next_bias", to="prediction"),
        _node("Unsqueeze", "u_rows", "axis1", to="states"),
    ]
    ends = {"zero": np.array([0], np.int64), "minus1": np.array([-1], np.int64)}
    return _model(
        nodes,
        {**{k: w for k, w in weights.items() if k != "Whv"}, **ends},
        {"frames": ["T", N_BINS], "u": [1, N_RECURRENT]},
        {
            "free_energy": ["T"],
            "prediction": ["T", N_BINS],
            "states": ["T", 1, N_RECURRENT],
            "u_next": [1, N_RECURRENT],
        },
    )


def sampling_graph(weights: dict[str, NDArray[Any]]) -> onnx.ModelProto:
    """Make the graph of K Gibbs steps from `frame` with hidden units by `noise`."""
    body = helper.make_graph(
        [
            _node("Gather", "noise", "i", to="draw", axis=0),
            _node("MatMul", "v", "Wvh", to="drive"),
            _node("Add", "drive", "hidden_bias", to="net"),
            _node("Div", "net", "temperature", to="cooled"),
            _node("Sigmoid", "cooled", to="p"),
            _node("Less", "draw", "p", to="on"),
            helper.make_node("Cast", ["on"], ["hidden"], to=TensorProto.FLOAT),
            _node("MatMul", "hidden", "Whv", to="back"),
            _node("Add", "back", "visible_bias", to="total"),
            _node("Sigmoid", "total", to="v_out"),
            _node("Identity", "go", to="go_out"),
        ],
        "gibbs_step",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v", TensorProto.FLOAT, [1, N_BINS]),
        ],
        [
            helper.make_tensor_value_info("go_out", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v_out", TensorProto.FLOAT, [1, N_BINS]),
        ],
    )
    nodes = [
        *_gru("u", N_RECURRENT, "frame"),
        _node("MatMul", "u_next", "Wuv", to="cv"),
        _node("Add", "cv", "bv", to="visible_bias"),
        _node("MatMul", "u_next", "Wuh", to="ch"),
        _node("Add", "ch", "bh", to="hidden_bias"),
        _node("Shape", "noise", to="noise_shape"),
        _node("Gather", "noise_shape", "first", to="steps", axis=0),
        helper.make_node("Loop", ["steps", "", "frame"], ["mean"], body=body),
    ]
    return _model(
        nodes,
        {**weights, "first": np.array(0, np.int64)},
        {
            "frame": [1, N_BINS],
            "u": [1, N_RECURRENT],
            "noise": ["K", N_HIDDEN],
            "temperature": [],
        },
        {"mean": [1, N_BINS], "u_next": [1, N_RECURRENT]},
    )


def _write_rnn_rbm(
    folder: Path,
    rng: np.random.Generator,
    frames: NDArray[np.float32],
    golden: dict[str, NDArray[np.float32]],
) -> dict[str, Any]:
    weights = _rbm_weights(rng)
    weights["Whv"] = weights["Wvh"].T.copy()
    onnx.save(scoring_graph(weights), folder / "rnn_rbm.onnx")
    onnx.save(sampling_graph(weights), folder / "rnn_rbm_sample.onnx")
    chol = 0.05 * np.eye(N_BINS, dtype=np.float32)
    np.savez(folder / "residual.npz", chol=chol)
    scored = _run(folder / "rnn_rbm.onnx", frames=frames, u=np.zeros((1, N_RECURRENT)))
    noise = rng.random((GIBBS_STEPS, N_HIDDEN))
    drawn = _run(
        folder / "rnn_rbm_sample.onnx",
        frame=frames[-1:],
        u=scored["states"][-2],
        noise=noise,
        temperature=np.array(1.0),
    )
    golden |= {
        "free_energy": scored["free_energy"],
        "prediction": scored["prediction"],
        "states_last": scored["u_next"],
        "noise": noise.astype(np.float32),
        "mean": drawn["mean"],
    }
    return {
        "visible": "bernoulli",
        "n_visible": N_BINS,
        "n_hidden": N_HIDDEN,
        "n_recurrent": N_RECURRENT,
        "n_layers": 1,
        "gibbs_steps": GIBBS_STEPS,
        "free_energy_mean": float(scored["free_energy"].mean()),
        "free_energy_std": float(scored["free_energy"].std()),
    }


def _node(op: str, *inputs: str, to: str, **attributes: Any) -> onnx.NodeProto:
    node = helper.make_node(op, list(inputs), [to])
    node.attribute.extend(
        helper.make_attribute(name, value) for name, value in attributes.items()
    )
    return node


def _model(
    nodes: Sequence[onnx.NodeProto],
    weights: dict[str, NDArray[Any]],
    inputs: dict[str, list[Any]],
    outputs: dict[str, list[Any]],
) -> onnx.ModelProto:
    def info(tensors: dict[str, list[Any]]) -> list[onnx.ValueInfoProto]:
        return [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
            for name, shape in tensors.items()
        ]

    constants = [
        numpy_helper.from_array(
            array if array.dtype == np.int64 else array.astype(np.float32), name
        )
        for name, array in weights.items()
    ]
    graph = helper.make_graph(nodes, "tiny", info(inputs), info(outputs), constants)
    opset = [helper.make_opsetid("", _OPSET)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return model


def _run(path: Path, **feed: NDArray[Any]) -> dict[str, NDArray[np.float32]]:
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    arrays = {name: np.asarray(value, np.float32) for name, value in feed.items()}
    return dict(zip(names, session.run(names, arrays), strict=True))
