"""ONNX graph of the RNN-RBM over units, and its weight as a prior."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from neurovocal.engine.contracts.bundle import ForecastSpec
from neurovocal.models.classifier.forecast.network import (
    Phrase,
    UnitRnnRbm,
    phrase_inputs,
    split_phrases,
)
from neurovocal.models.classifier.forecast.prior import (
    ClassifiedRecordings,
    choose_weights,
    collect_scores_by_delay,
    early_weights,
    forecast_units,
)
from neurovocal.models.toolkit.graph_writer import GraphWriter
from neurovocal.models.toolkit.onnx_session import GraphExport, check_outputs
from neurovocal.models.toolkit.recipe import ForecastConfig

_GOLDEN_ROWS = 200


def forecast_graph(model: UnitRnnRbm) -> Any:
    """Build the graph of ``forecast.onnx`` (docs/reference/bundle.md)."""
    g = GraphWriter("forecast")
    layer, n = model.layer, model.n_recurrent
    bias = layer.bias.detach().numpy()
    weights = [
        g.constant("weight_in", layer.weight_in[None]),
        g.constant("weight_recurrent", layer.weight_recurrent[None]),
        g.constant("bias", np.concatenate([bias, np.zeros_like(bias)])[None]),
    ]
    sequence = g.op("Unsqueeze", "tokens", g.axes(1))
    initial = g.op("Unsqueeze", "u", g.axes(0, 1))
    states, last = g.ops(
        "GRU",
        *(sequence, *weights, "", initial),
        outs=[g.unique_name("states"), g.unique_name("last")],
        hidden_size=n,
        linear_before_reset=0,
    )
    g.op("Squeeze", last, g.axes(0, 1), out="u_next")
    rows = g.op("Squeeze", states, g.axes(1, 2))
    biases = {}
    for kind in "vh":
        from_state = g.op(
            "MatMul", rows, g.constant(f"Wu{kind}", getattr(model, f"Wu{kind}"))
        )
        from_gap = g.op(
            "MatMul", "gaps", g.constant(f"Wg{kind}", getattr(model, f"Wg{kind}"))
        )
        fixed = g.constant(f"b{kind}", getattr(model, f"b{kind}"))
        biases[kind] = g.op("Add", g.op("Add", from_state, from_gap), fixed)
    per_unit = g.op("Unsqueeze", biases["h"], g.axes(1))
    softplus = g.op("Softplus", g.op("Add", per_unit, g.constant("W", model.W)))
    hidden = g.op("ReduceSum", softplus, g.axes(2), keepdims=0)
    g.op("LogSoftmax", g.op("Add", biases["v"], hidden), out="log_posteriors", axis=1)
    return g.build(
        {
            "tokens": ["T", model.n_units + model.n_gaps],
            "gaps": ["T", model.n_gaps],
            "u": [n],
        },
        {"log_posteriors": ["T", model.n_units], "u_next": [n]},
    )


@dataclass(frozen=True, slots=True, eq=False)
class TrainedForecast:
    """A trained forecast with the data that its manifest entry needs.

    Parameters
    ----------
    model : UnitRnnRbm
        Trained network.
    edges : list of float
        Edges of the bins of silence, in ms.
    train : list of Phrase
        Training phrases, in which pairs of units are counted.
    """

    model: UnitRnnRbm
    edges: list[float]
    train: list[Phrase]


def write_forecast(
    export: GraphExport,
    trained: TrainedForecast,
    config: ForecastConfig,
    recordings: ClassifiedRecordings,
) -> ForecastSpec:
    """Write and check ``forecast.onnx``, and choose its weights beside the classifier.

    Parameters
    ----------
    export : GraphExport
        Bundle that receives the graph, golden vectors and differences.
    trained : TrainedForecast
        Forecast to write.
    config : ForecastConfig
        Options of the training.
    recordings : ClassifiedRecordings
        Validation recordings, to which the weights are fitted.

    Raises
    ------
    BundleError
        torch and ONNX Runtime disagree.
    """
    model = trained.model.eval()
    phrases = split_phrases(recordings.examples, recordings.frame_ms, config.pause_ms)
    rows = [phrase_inputs(phrase, model.n_units, trained.edges) for phrase in phrases]
    tokens = np.concatenate([token for token, _ in rows])[:_GOLDEN_ROWS]
    gaps = np.concatenate([gap for _, gap in rows])[:_GOLDEN_ROWS]
    with torch.no_grad():
        expected, state = model(
            torch.from_numpy(tokens)[:, None], torch.from_numpy(gaps)[:, None]
        )
    export.parity["forecast"] = check_outputs(
        export.save(forecast_graph(model), "forecast.onnx"),
        {"tokens": tokens, "gaps": gaps},
        {"log_posteriors": expected[:, 0].numpy()},
        {"u": state[0].numpy()},
    )
    export.golden.update(
        {
            "forecast_tokens": tokens,
            "forecast_gaps": gaps,
            "forecast": expected[:, 0].numpy(),
        }
    )
    predicted = forecast_units(
        model.predict, model.n_units, trained.edges, recordings, config.pause_ms
    )
    weights = choose_weights(collect_scores_by_delay(recordings, predicted))
    return ForecastSpec(
        n_recurrent=model.n_recurrent,
        gap_edges_ms=trained.edges,
        pause_ms=config.pause_ms,
        early=early_weights(weights, recordings.front_end),
        prior_weight=weights[-1],
        followed=count_successors(trained.train, model.n_units),
    )


def count_successors(phrases: Sequence[Phrase], n_units: int) -> list[list[int]]:
    """Count units after each unit, [n_units + 1][n_units]; last row: first units."""
    counts = np.zeros((n_units + 1, n_units), int)
    for phrase in phrases:
        before = np.concatenate([[n_units], phrase.units[:-1]])
        np.add.at(counts, (before, phrase.units), 1)
    return [[int(n) for n in row] for row in counts]
