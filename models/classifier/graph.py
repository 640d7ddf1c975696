"""ONNX graph of the classifier, for all encoders."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from neurovocal.models.classifier.network import (
    CausalConv,
    Classifier,
    ConvGruEncoder,
    GruEncoder,
    LstmEncoder,
    TcnEncoder,
)
from neurovocal.models.toolkit.graph_writer import CHANNELS, GraphWriter, Shape

_COLUMNS, _ROWS = [1, 2, 0], [2, 0, 1]  # [T, C, n] to [C, n, T], and back


def classifier_graph(model: Classifier) -> Any:
    """Build the graph of ``classifier.onnx`` for any number of channels."""
    g = GraphWriter("classifier")
    encoder = model.encoder
    encoded = write_encoder(g, encoder, "frames")
    write_linear(g, model.readout, encoded, out="logits")
    n_bins = _n_bins(encoder)
    states: dict[str, Shape] = {
        name: [CHANNELS, *shape] for name, shape in model.shapes.items()
    }
    return g.build(
        {"frames": ["T", CHANNELS, n_bins], **states},
        {
            "logits": ["T", CHANNELS, model.readout.out_features],
            **{f"{name}_next": shape for name, shape in states.items()},
        },
    )


def write_encoder(g: GraphWriter, encoder: nn.Module, x: str) -> str:
    """Write an encoder of rows ``x`` [T, C, n_in]; returns the output's name."""
    match encoder:
        case GruEncoder():
            return _gru(g, encoder, x)
        case LstmEncoder():
            return _lstm(g, encoder, x)
        case TcnEncoder():
            return _tcn(g, encoder, x)
        case ConvGruEncoder():
            columns = g.op("Transpose", x, perm=_COLUMNS)
            filtered = g.op("Relu", _conv(g, encoder.conv, columns, "p1"))
            rows = g.op("Transpose", filtered, perm=_ROWS)
            return _gru(g, encoder.gru, rows)
    raise TypeError(f"no graph for {type(encoder).__name__}")


def _gru(g: GraphWriter, encoder: GruEncoder, x: str) -> str:
    """Write stacked GRU layers; returns the output's name."""
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
    """Write stacked LSTM layers; returns the output's name."""
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
    """Write one torch layer as an ONNX operator, with its state inputs and outputs.

    Parameters
    ----------
    kind : {'GRU', 'LSTM'}
        Operator.
    number : int
        Number of the layer, from 1.
    x : str
        Name of the input [T, C, n_in].
    order : int64[n_gates * n_hidden]
        Rows of torch's weights in the order of ONNX.
    """
    arrays = {name: value.detach().numpy() for name, value in layer.named_parameters()}
    bias = np.concatenate([arrays["bias_ih_l0"][order], arrays["bias_hh_l0"][order]])
    weights = [
        g.constant(f"weight_in_{number}", arrays["weight_ih_l0"][order][None]),
        g.constant(f"weight_recurrent_{number}", arrays["weight_hh_l0"][order][None]),
        g.constant(f"bias_{number}", bias[None]),
    ]
    kinds = "hc" if kind == "LSTM" else "h"
    initial = [g.op("Unsqueeze", f"{k}{number}", g.axes(0)) for k in kinds]
    outs = [g.unique_name("states"), *(g.unique_name("last") for _ in kinds)]
    g.ops(
        kind,
        x,
        *weights,
        "",
        *initial,
        outs=outs,
        hidden_size=layer.hidden_size,
        **options,
    )
    for k, last in zip(kinds, outs[1:], strict=True):
        g.op("Squeeze", last, g.axes(0), out=f"{k}{number}_next")
    return g.op("Squeeze", outs[0], g.axes(1))


def _tcn(g: GraphWriter, encoder: TcnEncoder, x: str) -> str:
    """Write the projection and the residual blocks of a TCN."""
    y = g.op("Relu", write_linear(g, encoder.project, x, stem="project"))
    y = g.op("Transpose", y, perm=_COLUMNS)
    for number, block in enumerate(encoder.blocks, start=1):
        assert isinstance(block, CausalConv)
        added = g.op("Relu", _conv(g, block, y, f"p{number}"))
        y = g.op("Add", y, added)
    return g.op("Transpose", y, perm=_ROWS)


def _conv(g: GraphWriter, layer: CausalConv, columns: str, state: str) -> str:
    """Write a causal convolution of [C, n_in, T] with its state input and output."""
    length = layer.shape[1]
    joined = g.op("Concat", state, columns, axis=2)
    end = g.axes(np.iinfo(np.int64).max)
    g.op("Slice", joined, g.axes(-length), end, g.axes(2), out=f"{state}_next")
    weight = g.constant(f"kernel_{state}", layer.conv.weight)
    assert layer.conv.bias is not None
    bias = g.constant(f"kernel_bias_{state}", layer.conv.bias)
    dilations = [int(layer.conv.dilation[0])]
    return g.op("Conv", joined, weight, bias, dilations=dilations)


def write_linear(
    g: GraphWriter,
    layer: nn.Linear,
    x: str,
    stem: str = "readout",
    out: str | None = None,
) -> str:
    """Write a linear layer."""
    weight = g.constant(f"{stem}_weight", np.ascontiguousarray(layer.weight.detach().T))
    bias = g.constant(f"{stem}_bias", layer.bias)
    return g.op("Add", g.op("MatMul", x, weight), bias, out=out)


def _n_bins(encoder: nn.Module) -> int:
    """Return the number of values per input frame."""
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
