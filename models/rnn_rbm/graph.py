"""ONNX graphs of the RNN-RBM: scoring of frames and sampling of the next frame."""

from typing import Any

import numpy as np
from onnx import TensorProto, helper

from neurovocal.models.rnn_rbm.network import RecurrentLayer, RnnRbm
from neurovocal.models.toolkit.graph_writer import GraphWriter, Shape, value_info


def scoring_graph(model: RnnRbm) -> Any:
    """Build the graph of ``rnn_rbm.onnx`` (docs/reference/bundle.md)."""
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
    return g.build(
        {"frames": ["T", model.n_visible], "u": state},
        {
            "free_energy": ["T"],
            "prediction": ["T", model.n_visible],
            "states": ["T", *state],
            "u_next": state,
        },
    )


def sampling_graph(model: RnnRbm) -> Any:
    """Build the graph of ``rnn_rbm_sample.onnx`` (docs/reference/bundle.md).

    One step of the recurrent part, followed by a loop of Gibbs steps, one per row of
    `noise`.
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
    scaled_input = body.op("Div", inner.hidden_input("v", bh), "temperature")
    fired = body.op("Greater", body.op("Sigmoid", scaled_input), row)
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
    return g.build(
        {
            "frame": frame,
            "u": state,
            "noise": ["K", model.n_hidden],
            "temperature": [],
        },
        {"mean": frame, "u_next": state},
    )


class _RbmWriter:
    """Write the products of the RBM.

    A loop body uses the constants of its outer graph.
    """

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
        """Write the visible and hidden biases given the state `u`."""
        g = self._g
        return (
            g.op("Add", g.op("MatMul", u, "Wuv"), "bv"),
            g.op("Add", g.op("MatMul", u, "Wuh"), "bh"),
        )

    def hidden_input(self, v: str, bh: str) -> str:
        """Write the pre-activations of the hidden units given the frame `v`."""
        g = self._g
        scaled = g.op("Mul", v, "inverse_sigma") if self._gaussian else v
        return g.op("Add", g.op("MatMul", scaled, "W"), bh)

    def visible(self, h: str, bv: str) -> str:
        """Write the expectation of the frame given the hidden units `h`."""
        g = self._g
        product = g.op("MatMul", h, "W_t")
        if self._gaussian:
            return g.op("Add", g.op("Mul", product, "sigma"), bv)
        return g.op("Sigmoid", g.op("Add", product, bv))


def _recurrent(g: GraphWriter, model: RnnRbm, frames: str) -> list[str]:
    """Write all layers and ``u_next``; returns each layer's states [T, 1, n]."""
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
        outs = [g.unique_name("states"), g.unique_name("last")]
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
