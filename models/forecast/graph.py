"""The RNN-RBM over units as a graph, with what it is worth as a prior."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

from neurovocal.engine.contracts.bundle import ForecastSpec
from neurovocal.engine.contracts.types import Float32
from neurovocal.models.forecast.network import (
    Phrase,
    UnitRnnRbm,
    phrase_inputs,
    split_phrases,
)
from neurovocal.models.forecast.prior import (
    ClassifiedRecordings,
    choose_weights,
    collect_scores_by_delay,
    early_weights,
    forecast_units,
)
from neurovocal.models.toolkit.graph_writer import GraphWriter
from neurovocal.models.toolkit.onnx_session import check_outputs
from neurovocal.models.toolkit.recipe import ForecastConfig

_GOLDEN_ROWS = 200


def forecast_graph(model: UnitRnnRbm) -> Any:
    """Graph of ``forecast.onnx`` (docs/bundle.md)."""
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
        heard = g.op(
            "MatMul", rows, g.constant(f"Wu{kind}", getattr(model, f"Wu{kind}"))
        )
        told = g.op(
            "MatMul", "gaps", g.constant(f"Wg{kind}", getattr(model, f"Wg{kind}"))
        )
        fixed = g.constant(f"b{kind}", getattr(model, f"b{kind}"))
        biases[kind] = g.op("Add", g.op("Add", heard, told), fixed)
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
    """What training of the forecast leaves behind.

    Parameters
    ----------
    model : UnitRnnRbm
    edges : list of float
        Bins of silence that it was trained with, ms.
    train : list of Phrase
    """

    model: UnitRnnRbm
    edges: list[float]
    train: list[Phrase]


def write_forecast(
    folder: Path,
    trained: TrainedForecast,
    config: ForecastConfig,
    heard: ClassifiedRecordings,
    golden: dict[str, Float32],
    parity: dict[str, dict[str, float]],
) -> ForecastSpec:
    """Write ``forecast.onnx``, prove it, and weigh it against the classifier.

    Parameters
    ----------
    folder : Path
    trained : TrainedForecast
    config : ForecastConfig
    heard : ClassifiedRecordings
        The validation recordings, as the classifier hears them.
    golden, parity : dict
        Filled in.

    Raises
    ------
    BundleError
        torch and ONNX Runtime disagree.
    """
    model = trained.model.eval()
    phrases = split_phrases(heard.examples, heard.frame_ms, config.pause_ms)
    rows = [phrase_inputs(phrase, model.n_units, trained.edges) for phrase in phrases]
    tokens = np.concatenate([token for token, _ in rows])[:_GOLDEN_ROWS]
    gaps = np.concatenate([gap for _, gap in rows])[:_GOLDEN_ROWS]
    with torch.no_grad():
        expected, state = model(
            torch.from_numpy(tokens)[:, None], torch.from_numpy(gaps)[:, None]
        )
    path = folder / "forecast.onnx"
    onnx.save(forecast_graph(model), path)
    parity["forecast"] = check_outputs(
        path,
        {"tokens": tokens, "gaps": gaps},
        "u",
        {"log_posteriors": expected[:, 0].numpy()},
        state[0].numpy(),
    )
    golden |= {
        "forecast_tokens": tokens,
        "forecast_gaps": gaps,
        "forecast": expected[:, 0].numpy(),
    }
    foretold = forecast_units(
        model.predict, model.n_units, trained.edges, heard, config.pause_ms
    )
    weights = choose_weights(collect_scores_by_delay(heard, foretold))
    return ForecastSpec(
        n_recurrent=model.n_recurrent,
        gap_edges_ms=trained.edges,
        pause_ms=config.pause_ms,
        early=early_weights(weights, heard.front_end),
        prior_weight=weights[-1],
        followed=count_successors(trained.train, model.n_units),
    )


def count_successors(phrases: Sequence[Phrase], n_units: int) -> list[list[int]]:
    """Counts of unit k after each unit; the last row counts first units."""
    counts = np.zeros((n_units + 1, n_units), int)
    for phrase in phrases:
        before = np.concatenate([[n_units], phrase.units[:-1]])
        np.add.at(counts, (before, phrase.units), 1)
    return [[int(n) for n in row] for row in counts]
