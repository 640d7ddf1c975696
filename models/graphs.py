"""ONNX graphs of the networks, written by hand with standard operators.

A hand-written graph says exactly what docs/bundle.md promises, whatever torch's
exporters do in the next version, and is made in milliseconds.
"""

from typing import Any, TypeAlias

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from neurovocal.models.classifier import (
    CausalConv,
    Classifier,
    ConvGruEncoder,
    GruEncoder,
    LstmEncoder,
    TcnEncoder,
)
from neurovocal.models.rnn_rbm import RecurrentLayer, RnnRbm

OPSET = 17
IR_VERSION = 8
Shape: TypeAlias = list[int | str]


class GraphWriter:
    """Collects nodes and constants; every method returns a tensor's name."""

    def __init__(self, name: str) -> None:
        self._name = name
        self.nodes: list[Any] = []
        self._constants: dict[str, NDArray[Any]] = {}
        self._count = 0

    def constant(self, name: str, value: Tensor | NDArray[Any] | list[int]) -> str:
        """Store a constant once; lists are int64, the rest keeps its type."""
        if isinstance(value, Tensor):
            value = value.detach().numpy()
        array = np.asarray(value, np.int64) if isinstance(value, list) else value
        self._constants[name] = array
        return name

    def axes(self, *axes: int) -> str:
        """Store an int64 list, such as the axes of a reduction."""
        name = "ints_" + "_".join(str(a).replace("-", "m") for a in axes)
        return self.constant(name, list(axes))

    def op(
        self, kind: str, *inputs: str, out: str | None = None, **options: Any
    ) -> str:
        """Append a node with one output."""
        return self.ops(kind, *inputs, outs=[out or self.new(kind)], **options)[0]

    def ops(
        self, kind: str, *inputs: str, outs: list[str], **options: Any
    ) -> list[str]:
        """Append a node with several outputs; an empty name drops one."""
        self.nodes.append(helper.make_node(kind, list(inputs), outs, **options))
        return outs

    def new(self, stem: str) -> str:
        """Invent a name that no other tensor has."""
        self._count += 1
        return f"{self._name}_{stem.lower()}_{self._count}"

    def model(self, inputs: dict[str, Shape], outputs: dict[str, Shape]) -> Any:
        """Finish the graph and check it against the ONNX specification."""
        graph = helper.make_graph(
            self.nodes,
            self._name,
            [value_info(name, shape) for name, shape in inputs.items()],
            [value_info(name, shape) for name, shape in outputs.items()],
            [
                numpy_helper.from_array(array, name)
                for name, array in self._constants.items()
            ],
        )
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
            producer_name="neurovocal",
        )
        onnx.checker.check_model(model, full_check=True)
        return model


def value_info(name: str, shape: Shape, kind: int = TensorProto.FLOAT) -> Any:
    """Type and shape of a tensor at the edge of a graph."""
    return helper.make_tensor_value_info(name, kind, shape)


def classifier_graph(model: Classifier) -> Any:
    """Graph of ``classifier.onnx`` (docs/bundle.md)."""
    g = GraphWriter("classifier")
    encoder = model.encoder
    match encoder:
        case GruEncoder():
            encoded = _gru(g, encoder, "frames")
        case LstmEncoder():
            encoded = _lstm(g, encoder, "frames")
        case TcnEncoder():
            encoded = _tcn(g, encoder, "frames")
        case ConvGruEncoder():
            columns = g.op("Transpose", "frames", perm=[1, 0])
            filtered = g.op("Relu", _conv(g, encoder.conv, columns, "p1"))
            rows = g.op("Transpose", filtered, perm=[1, 0])
            encoded = _gru(g, encoder.gru, rows)
    _linear(g, model.readout, encoded, out="logits")
    n_bins = _n_bins(encoder)
    states: dict[str, Shape] = {name: [*shape] for name, shape in model.shapes.items()}
    return g.model(
        {"frames": ["T", n_bins], **states},
        {
            "logits": ["T", model.readout.out_features],
            **{f"{name}_next": shape for name, shape in states.items()},
        },
    )


def scoring_graph(model: RnnRbm) -> Any:
    """Graph of ``rnn_rbm.onnx`` (docs/bundle.md)."""
    g = GraphWriter("rnn_rbm")
    rbm = _RbmWriter(g, model)
    per_layer = _recurrent(g, model, "frames")
    last = g.op("Squeeze", per_layer[-1], g.axes(1))
    g.op("Concat", *per_layer, out="states", axis=1)

    top = g.op("Slice", "u", g.axes(model.n_layers - 1), g.axes(model.n_layers))
    shifted = g.op("Concat", top, last, axis=0)
    before = g.op("Slice", shifted, g.axes(0), g.axes(-1), g.axes(0))
    bv, bh = rbm.biases(before)
    softplus = g.op("Softplus", rbm.hidden_input("frames", bh))
    hidden = g.op("ReduceSum", softplus, g.axes(1), keepdims=0)
    if model.gaussian:
        distance = g.op("Mul", g.op("Sub", "frames", bv), rbm.inverse_sigma)
        squares = g.op("Mul", distance, distance)
        total = g.op("ReduceSum", squares, g.axes(1), keepdims=0)
        half = g.constant("half", np.array(0.5, np.float32))
        visible = g.op("Mul", total, half)
        g.op("Sub", visible, hidden, out="free_energy")
    else:
        products = g.op("Mul", "frames", bv)
        visible = g.op("ReduceSum", products, g.axes(1), keepdims=0)
        g.op("Neg", g.op("Add", visible, hidden), out="free_energy")

    bv, bh = rbm.biases(last)
    v = "frames"
    for _ in range(model.prediction_steps):
        v = rbm.visible(g.op("Sigmoid", rbm.hidden_input(v, bh)), bv)
    g.op("Identity", v, out="prediction")
    state: Shape = [model.n_layers, model.n_recurrent]
    return g.model(
        {"frames": ["T", model.n_visible], "u": state},
        {
            "free_energy": ["T"],
            "prediction": ["T", model.n_visible],
            "states": ["T", *state],
            "u_next": state,
        },
    )


def sampling_graph(model: RnnRbm) -> Any:
    """Graph of ``rnn_rbm_sample.onnx`` (docs/bundle.md).

    One step of the recurrent part, then a loop whose number of Gibbs steps is
    the number of rows of `noise`.
    """
    g = GraphWriter("rnn_rbm_sample")
    rbm = _RbmWriter(g, model)
    last = g.op("Squeeze", _recurrent(g, model, "frame")[-1], g.axes(1))
    bv, bh = rbm.biases(last)
    steps = g.op("Slice", g.op("Shape", "noise"), g.axes(0), g.axes(1))
    trips = g.op("Squeeze", steps, g.axes(0))
    # The loop's body reads W, biases, noise and temperature of the outer graph.
    body = GraphWriter("gibbs_step")
    inner = _RbmWriter(body, model, outer=rbm)
    row = body.op("Gather", "noise", "step", axis=0)
    heated = body.op("Div", inner.hidden_input("v", bh), "temperature")
    fired = body.op("Greater", body.op("Sigmoid", heated), row)
    h = body.op("Cast", fired, to=TensorProto.FLOAT)
    body.op("Identity", inner.visible(h, bv), out="v_next")
    body.op("Identity", "go_on", out="go_on_next")
    frame: Shape = [1, model.n_visible]
    loop = helper.make_graph(
        body.nodes,
        "gibbs_step",
        [
            value_info("step", [], TensorProto.INT64),
            value_info("go_on", [], TensorProto.BOOL),
            value_info("v", frame),
        ],
        [value_info("go_on_next", [], TensorProto.BOOL), value_info("v_next", frame)],
    )
    go_on = g.constant("always", np.array(True))
    g.op("Loop", trips, go_on, "frame", out="mean", body=loop)
    state: Shape = [model.n_layers, model.n_recurrent]
    return g.model(
        {
            "frame": frame,
            "u": state,
            "noise": ["K", model.n_hidden],
            "temperature": [],
        },
        {"mean": frame, "u_next": state},
    )


class _RbmWriter:
    """The RBM's products; a loop body shares the constants of its outer graph."""

    def __init__(
        self, g: GraphWriter, model: RnnRbm, outer: "_RbmWriter | None" = None
    ) -> None:
        self._g = g
        self._gaussian = model.gaussian
        if outer is None:
            g.constant("W", model.W)
            g.constant("W_t", np.ascontiguousarray(model.W.detach().numpy().T))
            for name in ("bv", "bh", "Wuv", "Wuh"):
                g.constant(name, getattr(model, name))
            if model.gaussian:
                g.constant("sigma", model.log_sigma.exp())
                g.constant("inverse_sigma", (-model.log_sigma).exp())
        self.inverse_sigma = "inverse_sigma"

    def biases(self, u: str) -> tuple[str, str]:
        g = self._g
        return (
            g.op("Add", g.op("MatMul", u, "Wuv"), "bv"),
            g.op("Add", g.op("MatMul", u, "Wuh"), "bh"),
        )

    def hidden_input(self, v: str, bh: str) -> str:
        g = self._g
        seen = g.op("Mul", v, "inverse_sigma") if self._gaussian else v
        return g.op("Add", g.op("MatMul", seen, "W"), bh)

    def visible(self, h: str, bv: str) -> str:
        g = self._g
        heard = g.op("MatMul", h, "W_t")
        if self._gaussian:
            return g.op("Add", g.op("Mul", heard, "sigma"), bv)
        return g.op("Sigmoid", g.op("Add", heard, bv))


def _recurrent(g: GraphWriter, model: RnnRbm, frames: str) -> list[str]:
    """States of each layer [T, 1, n_recurrent]; writes ``u_next``."""
    x, after, last = frames, [], []
    n = model.n_recurrent
    rows = g.axes(1, n)
    for number, module in enumerate(model.layers):
        assert isinstance(module, RecurrentLayer)
        before = g.op("Slice", "u", g.axes(number), g.axes(number + 1))
        initial = g.op("Unsqueeze", before, g.axes(0))
        weights = [
            g.constant(f"weight_in_{number}", module.weight_in[None]),
            g.constant(f"weight_recurrent_{number}", module.weight_recurrent[None]),
        ]
        bias = module.bias.detach().numpy()
        both = np.concatenate([bias, np.zeros_like(bias)])[None]
        weights.append(g.constant(f"bias_{number}", both))
        outs = [g.new("states"), g.new("last")]
        sequence = g.op("Unsqueeze", x, g.axes(1))
        operands = (sequence, *weights, "", initial)
        if module.gates == "simple":
            g.ops("RNN", *operands, outs=outs, hidden_size=n, activations=["Tanh"])
        else:
            gate = "Sigmoid" if module.gates == "sigmoid" else "Tanh"
            g.ops(
                "GRU",
                *operands,
                outs=outs,
                hidden_size=n,
                activations=[gate, "Tanh"],
                linear_before_reset=0,
            )
        states = g.op("Squeeze", outs[0], g.axes(1))
        after.append(states)
        last.append(g.op("Reshape", outs[1], rows))
        x = g.op("Squeeze", states, g.axes(1))
    g.op("Concat", *last, out="u_next", axis=0)
    return after


def _gru(g: GraphWriter, encoder: GruEncoder, x: str) -> str:
    for number, layer in enumerate(encoder.layers, start=1):
        assert isinstance(layer, nn.GRU)
        n = layer.hidden_size
        # torch stacks (r, z, n), ONNX (z, r, h).
        order = np.concatenate(
            [np.arange(n, 2 * n), np.arange(n), np.arange(2 * n, 3 * n)]
        )
        x = _cell(g, "GRU", layer, number, x, order, linear_before_reset=1)
    return x


def _lstm(g: GraphWriter, encoder: LstmEncoder, x: str) -> str:
    for number, layer in enumerate(encoder.layers, start=1):
        assert isinstance(layer, nn.LSTM)
        n = layer.hidden_size
        # torch stacks (i, f, g, o), ONNX (i, o, f, c).
        blocks = [np.arange(k * n, (k + 1) * n) for k in (0, 3, 1, 2)]
        x = _cell(g, "LSTM", layer, number, x, np.concatenate(blocks))
    return x


def _cell(
    g: GraphWriter,
    kind: str,
    layer: nn.GRU | nn.LSTM,
    number: int,
    x: str,
    order: NDArray[np.int64],
    **options: int,
) -> str:
    """One torch layer as an ONNX operator; reads and writes its states."""
    arrays = {name: value.detach().numpy() for name, value in layer.named_parameters()}
    bias = np.concatenate([arrays["bias_ih_l0"][order], arrays["bias_hh_l0"][order]])
    weights = [
        g.constant(f"weight_in_{number}", arrays["weight_ih_l0"][order][None]),
        g.constant(f"weight_recurrent_{number}", arrays["weight_hh_l0"][order][None]),
        g.constant(f"bias_{number}", bias[None]),
    ]
    kinds = "hc" if kind == "LSTM" else "h"
    initial = [g.op("Unsqueeze", f"{k}{number}", g.axes(0, 1)) for k in kinds]
    outs = [g.new("states"), *(g.new("last") for _ in kinds)]
    sequence = g.op("Unsqueeze", x, g.axes(1))
    g.ops(
        kind,
        sequence,
        *weights,
        "",
        *initial,
        outs=outs,
        hidden_size=layer.hidden_size,
        **options,
    )
    for k, last in zip(kinds, outs[1:], strict=True):
        g.op("Squeeze", last, g.axes(0, 1), out=f"{k}{number}_next")
    return g.op("Squeeze", outs[0], g.axes(1, 2))


def _tcn(g: GraphWriter, encoder: TcnEncoder, x: str) -> str:
    y = g.op("Relu", _linear(g, encoder.project, x, stem="project"))
    y = g.op("Transpose", y, perm=[1, 0])
    for number, block in enumerate(encoder.blocks, start=1):
        assert isinstance(block, CausalConv)
        added = g.op("Relu", _conv(g, block, y, f"p{number}"))
        y = g.op("Add", y, added)
    return g.op("Transpose", y, perm=[1, 0])


def _conv(g: GraphWriter, layer: CausalConv, columns: str, state: str) -> str:
    """Causal convolution of [n_in, T]; reads and writes its state."""
    length = layer.shape[1]
    joined = g.op("Concat", state, columns, axis=1)
    end = g.axes(np.iinfo(np.int64).max)
    g.op("Slice", joined, g.axes(-length), end, g.axes(1), out=f"{state}_next")
    batch = g.op("Unsqueeze", joined, g.axes(0))
    weight = g.constant(f"kernel_{state}", layer.conv.weight)
    assert layer.conv.bias is not None
    bias = g.constant(f"kernel_bias_{state}", layer.conv.bias)
    dilations = [int(layer.conv.dilation[0])]
    filtered = g.op("Conv", batch, weight, bias, dilations=dilations)
    return g.op("Squeeze", filtered, g.axes(0))


def _linear(
    g: GraphWriter,
    layer: nn.Linear,
    x: str,
    stem: str = "readout",
    out: str | None = None,
) -> str:
    weight = g.constant(f"{stem}_weight", np.ascontiguousarray(layer.weight.detach().T))
    bias = g.constant(f"{stem}_bias", layer.bias)
    return g.op("Add", g.op("MatMul", x, weight), bias, out=out)


def _n_bins(encoder: nn.Module) -> int:
    match encoder:
        case TcnEncoder():
            return encoder.project.in_features
        case ConvGruEncoder():
            return encoder.conv.shape[0]
        case GruEncoder() | LstmEncoder():
            first = encoder.layers[0]
            assert isinstance(first, nn.RNNBase)
            return int(first.input_size)
    raise TypeError(f"no graph for {type(encoder).__name__}")
