"""ONNX graphs of the RNN-RBM: scoring of frames and sampling of the next frame."""

from typing import Any

import numpy as np
from onnx import TensorProto, helper

from neurovocal.models.rnn_rbm.network import RecurrentLayer, RnnRbm
from neurovocal.models.toolkit.graph_writer import (
    CHANNELS,
    GraphWriter,
    Shape,
    value_info,
)


def scoring_graph(model: RnnRbm) -> Any:
    """Build the graph of ``rnn_rbm.onnx`` for any number of channels.

    The RBM has no memory: it computes the frames of all channels as rows.
    """
    g = GraphWriter("rnn_rbm")
    rbm = _RbmWriter(g, model)
    frames = g.op("Reshape", "frames", g.axes(-1, model.n_visible))
    per_layer, last_states = _recurrent(g, model, "frames", "u")
    g.op("Identity", last_states, out="u_next")
    per_frame = [g.op("Unsqueeze", states, g.axes(2)) for states in per_layer]
    g.op("Concat", *per_frame, out="states", axis=2)
    rows = g.axes(-1, model.n_recurrent)
    last = g.op("Reshape", per_layer[-1], rows)

    top = g.op("Gather", "u", g.constant("top", np.array(model.n_layers - 1)), axis=1)
    shifted = g.op("Concat", g.op("Unsqueeze", top, g.axes(0)), per_layer[-1], axis=0)
    earlier = g.op("Slice", shifted, g.axes(0), g.axes(-1), g.axes(0))
    before = g.op("Reshape", earlier, rows)
    bv, bh = rbm.biases(before)
    softplus = g.op("Softplus", rbm.hidden_input(frames, bh))
    hidden = g.op("ReduceSum", softplus, g.axes(1), keepdims=0)
    if model.gaussian:
        distance = g.op("Mul", g.op("Sub", frames, bv), rbm.inverse_sigma)
        squares = g.op("Mul", distance, distance)
        total = g.op("ReduceSum", squares, g.axes(1), keepdims=0)
        half = g.constant("half", np.array(0.5, np.float32))
        visible = g.op("Mul", total, half)
        energy = g.op("Sub", visible, hidden)
    else:
        products = g.op("Mul", frames, bv)
        visible = g.op("ReduceSum", products, g.axes(1), keepdims=0)
        energy = g.op("Neg", g.op("Add", visible, hidden))
    g.op("Reshape", energy, g.op("Shape", "frames", end=2), out="free_energy")

    bv, bh = rbm.biases(last)
    v = frames
    for _ in range(model.prediction_steps):
        v = rbm.visible(g.op("Sigmoid", rbm.hidden_input(v, bh)), bv)
    g.op("Reshape", v, g.op("Shape", "frames"), out="prediction")
    state: Shape = [model.n_layers, model.n_recurrent]
    return g.build(
        {"frames": ["T", CHANNELS, model.n_visible], "u": [CHANNELS, *state]},
        {
            "free_energy": ["T", CHANNELS],
            "prediction": ["T", CHANNELS, model.n_visible],
            "states": ["T", CHANNELS, *state],
            "u_next": [CHANNELS, *state],
        },
    )


def sampling_graph(model: RnnRbm) -> Any:
    """Build the graph of ``rnn_rbm_sample.onnx`` (docs/reference/bundle.md).

    One step of the recurrent part, followed by a loop of Gibbs steps, one per row of
    `noise`, for one channel: each draws its own noise. A model with a plan has the
    plan of the next frame as a further input.
    """
    g = GraphWriter("rnn_rbm_sample")
    rbm = _RbmWriter(g, model)
    has_plan = model.n_condition > 0
    row = g.op("Concat", "frame", "condition", axis=1) if has_plan else "frame"
    one_frame = g.op("Unsqueeze", row, g.axes(1))
    one_state = g.op("Unsqueeze", "u", g.axes(0))
    per_layer, after = _recurrent(g, model, one_frame, one_state)
    g.op("Squeeze", after, g.axes(0), out="u_next")
    bv, bh = rbm.biases(g.op("Squeeze", per_layer[-1], g.axes(1)))
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
    plan: dict[str, Shape] = {"condition": [1, model.n_condition]} if has_plan else {}
    return g.build(
        {
            "frame": frame,
            "u": state,
            "noise": ["K", model.n_hidden],
            "temperature": [],
            **plan,
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


def _recurrent(
    g: GraphWriter, model: RnnRbm, frames: str, u: str
) -> tuple[list[str], str]:
    """Write all layers, for frames [T, C, n_visible] and a state [C, n_layers, n].

    Returns
    -------
    states : list of str
        Each layer's states [T, C, n].
    after : str
        The states after the last frame, [C, n_layers, n].
    """
    x, states, last = frames, [], []
    n = model.n_recurrent
    for number, module in enumerate(model.layers):
        assert isinstance(module, RecurrentLayer)
        layer = g.constant(f"layer_{number}", np.array(number))
        before = g.op("Gather", u, layer, axis=1)
        initial = g.op("Unsqueeze", before, g.axes(0))
        weights = [
            g.constant(f"weight_in_{number}", module.weight_in[None]),
            g.constant(f"weight_recurrent_{number}", module.weight_recurrent[None]),
        ]
        bias = module.bias.detach().numpy()
        both = np.concatenate([bias, np.zeros_like(bias)])[None]
        weights.append(g.constant(f"bias_{number}", both))
        outs = [g.unique_name("states"), g.unique_name("last")]
        operands = (x, *weights, "", initial)
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
        x = g.op("Squeeze", outs[0], g.axes(1))
        states.append(x)
        last.append(g.op("Transpose", outs[1], perm=[1, 0, 2]))
    return states, g.op("Concat", *last, axis=1)
