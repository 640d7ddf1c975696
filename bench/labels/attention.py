"""Forecasts with an attention head over past units, beside the present ones.

    .venv/bin/python bench/labels/attention.py [--sets finch_gy6or6 ...] [--seeds 0 1 2]

The table of docs/research/prior.md: nats per unit and right forecasts of validation
recordings, by which a variant is chosen, and of test recordings. Finished cells are
JSON files under runs/attention, which are not computed again.
"""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(name, "1")

import numpy as np
import torch
from prior_models import Data, load
from torch import Tensor, nn
from torch.nn import functional

from neurovocal.models.classifier.forecast.evaluation import score_predictions
from neurovocal.models.classifier.forecast.network import (
    Phrase,
    UnitRnnRbm,
    phrase_inputs,
    split_phrases,
)
from neurovocal.models.classifier.forecast.training import ForecastTask
from neurovocal.models.toolkit.loop import Budget, StopFlag, fit
from neurovocal.models.toolkit.recipe import ForecastConfig

SETS = ("finch_gy6or6", "finch_bird0")
WINDOW = 64
_DRAWS = 2000


class AttentiveRnnRbm(UnitRnnRbm):
    """RNN-RBM over units with one causal attention head over the last `WINDOW` units.

    The head looks for past places whose state before a unit was like the present one,
    and returns the units that followed there (`state`), or it chooses past units by
    themselves and their distance (`unit`).

    Parameters
    ----------
    config : ForecastConfig
        As of `UnitRnnRbm`.
    n_units, n_gaps : int
        Units, and bins of silence.
    keys : {'state', 'unit'}
        What past units are found by.
    recurrent : bool
        Whether the recurrent state conditions the biases, too.
    n_key : int
        Length of queries and keys.
    """

    def __init__(
        self,
        config: ForecastConfig,
        n_units: int,
        n_gaps: int,
        keys: str,
        recurrent: bool,
        n_key: int = 16,
    ) -> None:
        super().__init__(config, n_units, n_gaps)
        n_tokens, n_state = n_units + n_gaps, config.n_recurrent
        self.keys, self.recurrent, self.n_key = keys, recurrent, n_key
        n_in = n_state if keys == "state" else n_tokens
        n_query = n_state if recurrent or keys == "state" else n_tokens
        self.Wq = nn.Parameter(torch.randn(n_query, n_key) / n_query**0.5)
        self.Wk = nn.Parameter(torch.randn(n_in, n_key) / n_in**0.5)
        self.Wv = nn.Parameter(0.1 * torch.randn(n_tokens, 2 * n_key))
        self.distance = nn.Parameter(torch.zeros(WINDOW))
        self.nothing = nn.Parameter(torch.zeros(1))
        self.Wcv = nn.Parameter(torch.zeros(2 * n_key, n_units))
        self.Wch = nn.Parameter(0.1 * torch.randn(2 * n_key, config.n_hidden))

    def forward(
        self, tokens: Tensor, gaps: Tensor, u: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Compute the log-probabilities, as `UnitRnnRbm.forward`."""
        before = tokens.new_zeros(tokens.shape[1], self.n_recurrent) if u is None else u
        states = self.layer(tokens, before)
        context, _ = self.attend(tokens, states, before)
        conditioning = self.dropout(states) * float(self.recurrent)
        context = self.dropout(context)
        bv = self.bv + conditioning @ self.Wuv + gaps @ self.Wgv + context @ self.Wcv
        bh = self.bh + conditioning @ self.Wuh + gaps @ self.Wgh + context @ self.Wch
        hidden = functional.softplus(bh.unsqueeze(-2) + self.W).sum(-1)
        return (bv + hidden).log_softmax(-1), states[-1]

    def attend(
        self, tokens: Tensor, states: Tensor, before: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return what the head found [T, batch, n], and its weights [batch, T, T]."""
        n = len(tokens)
        earlier = torch.cat([before[None], states[:-1]])
        key_source = earlier if self.keys == "state" else tokens
        query_source = states if self.Wq.shape[0] == self.n_recurrent else tokens
        query = (query_source @ self.Wq).transpose(0, 1)
        key = (key_source @ self.Wk).transpose(0, 1)
        value = (tokens @ self.Wv).transpose(0, 1)
        scores = query @ key.transpose(1, 2) / self.n_key**0.5
        back = torch.arange(n)[:, None] - torch.arange(n)
        scores = scores + self.distance[back.clamp(0, WINDOW - 1)]
        scores = scores.masked_fill((back < 0) | (back >= WINDOW), -torch.inf)
        nothing = self.nothing.expand(*scores.shape[:2], 1)
        weights = torch.cat([scores, nothing], -1).softmax(-1)[..., :-1]
        return (weights @ value).transpose(0, 1), weights


VARIANTS: dict[str, dict[str, Any] | None] = {
    "RNN-RBM": None,
    "attention alone": {"keys": "unit", "recurrent": False},
    "RNN-RBM, head by unit": {"keys": "unit", "recurrent": True},
    "RNN-RBM, head by state": {"keys": "state", "recurrent": True},
}


def trained(
    data: Data, config: ForecastConfig, variant: str, seed: int, path: Path
) -> ForecastTask:
    """Train one variant on the training recordings."""
    phrases = (
        split_phrases(part, data.frame_ms, config.pause_ms)
        for part in (data.prepared.train, data.prepared.valid)
    )
    task = ForecastTask(config, *phrases, data.n_units, seed)
    options = VARIANTS[variant]
    if options is not None:
        torch.manual_seed(seed)
        n_gaps = len(task.edges) + 2
        task.module = AttentiveRnnRbm(config, data.n_units, n_gaps, **options)
        rate = config.learning_rate
        groups = [{"params": list(task.module.parameters()), "initial_lr": rate}]
        task.optimizer = torch.optim.AdamW(
            groups, lr=rate, weight_decay=config.weight_decay
        )
    fit(task, path, Budget(None), StopFlag(), 1e9)
    path.unlink()
    task.module.eval()
    return task


def measure(task: ForecastTask, phrases: Sequence[Phrase]) -> dict[str, list[float]]:
    """Return sums per phrase: units, right forecasts and nats, by what is known."""
    found: dict[str, list[float]] = {"n": []}
    n = task.module.n_units
    for phrase in phrases:
        tokens, gaps = phrase_inputs(phrase, n, task.edges)
        found["n"].append(len(phrase.units))
        for when, known in (("offset", np.zeros_like(gaps)), ("onset", gaps)):
            logs = task.module.predict(tokens, known).astype(np.float64)
            right, nats = score_predictions(logs, phrase.units)
            found.setdefault(f"right at {when}", []).append(float(right.sum()))
            found.setdefault(f"nats at {when}", []).append(float(nats.sum()))
    return found


def cell(
    data: Data, config: ForecastConfig, variant: str, seed: int, path: Path
) -> dict[str, Any]:
    """Train a variant and measure it on validation and test recordings."""
    task = trained(data, config, variant, seed, path)
    parts = {"valid": data.prepared.valid, "test": data.test}
    phrases = {
        name: split_phrases(part, data.frame_ms, config.pause_ms)
        for name, part in parts.items()
    }
    found: dict[str, Any] = {n: measure(task, part) for n, part in phrases.items()}
    if isinstance(task.module, AttentiveRnnRbm):
        found["weights"] = mean_weights(task, phrases["test"])
    return found


def mean_weights(task: ForecastTask, phrases: Sequence[Phrase]) -> list[float]:
    """Return the head's mean weight on each unit back, the last one first.

    Only of forecasts with `WINDOW` units before them or all of a phrase's; the rest of
    the sum to 1 lies on none of them.
    """
    module = task.module
    assert isinstance(module, AttentiveRnnRbm)
    sums, n = np.zeros(WINDOW), 0
    for phrase in phrases:
        tokens, _ = phrase_inputs(phrase, module.n_units, task.edges)
        with torch.no_grad():
            rows = torch.from_numpy(tokens)[:, None]
            before = rows.new_zeros(1, module.n_recurrent)
            _, weights = module.attend(rows, module.layer(rows, before), before)
        for at, row in enumerate(weights[0].numpy()):
            back = row[: at + 1][::-1][:WINDOW]
            sums[: len(back)] += back
            n += 1
    return [float(value) for value in sums / max(1, n)]


def print_table(cells: dict[tuple[str, str], list[dict[str, Any]]]) -> None:
    """Print means over seeds; test figures with the 95 % interval over phrases."""
    print("| bird | forecast | seeds | valid: nats | test: nats | test: right % |")
    print("| --- | --- | --- | --- | --- | --- |")
    for (dataset, variant), found in cells.items():
        valid = [_rate(f["valid"], "nats") for f in found]
        row = [dataset, variant, str(len(found)), f"{np.mean(valid):.3f}"]
        for what, scale, digits in (("nats", 1.0, 3), ("right", 100.0, 1)):
            row.append(_interval([f["test"] for f in found], what, scale, digits))
        print(f"| {' | '.join(row)} |")


def _rate(sums: dict[str, list[float]], what: str) -> float:
    both = sum(sums[f"{what} at offset"]) + sum(sums[f"{what} at onset"])
    return both / 2 / sum(sums["n"])


def _interval(parts: list[Any], what: str, scale: float, digits: int) -> str:
    n = np.array(parts[0]["n"], float)
    sums = np.mean(
        [
            np.add(p[f"{what} at offset"], p[f"{what} at onset"]) / 2 * scale
            for p in parts
        ],
        axis=0,
    )
    drawn = np.random.default_rng(0).integers(len(n), size=(_DRAWS, len(n)))
    low, high = np.percentile(sums[drawn].sum(1) / n[drawn].sum(1), [2.5, 97.5])
    rate = sums.sum() / n.sum()
    return f"{rate:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def main() -> int:
    """Compute the missing cells, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--runs", type=Path, default=Path("runs/attention"))
    parser.add_argument("--sets", nargs="+", default=SETS, choices=SETS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument(
        "--variants", nargs="+", default=list(VARIANTS), choices=list(VARIANTS)
    )
    parser.add_argument(
        "--pause-ms",
        type=float,
        default=ForecastConfig().pause_ms,
        help="Silence that ends a phrase, over which no forecast looks back.",
    )
    args = parser.parse_args()
    if not all((args.data / name).is_dir() for name in args.sets):
        print(f"attention: no data in '{args.data}' (--data)", file=sys.stderr)
        return 1
    torch.set_num_threads(1)
    args.runs.mkdir(parents=True, exist_ok=True)
    config = ForecastConfig(pause_ms=args.pause_ms)
    done: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for dataset in args.sets:
        for variant in args.variants:
            for seed in args.seeds:
                name = f"{dataset} {variant} {args.pause_ms:g} {seed}"
                path = args.runs / (name.replace(" ", "-").replace(",", "") + ".json")
                if not path.is_file():
                    print(f"attention: {name} ...", file=sys.stderr, flush=True)
                    data = load(dataset, args.data)
                    found = cell(data, config, variant, seed, path.with_suffix(".pt"))
                    partial = path.with_suffix(".partial")
                    partial.write_text(json.dumps(found))
                    partial.replace(path)
                rows = done.setdefault((dataset, variant), [])
                rows.append(json.loads(path.read_text()))
    print_table(done)
    return 0


if __name__ == "__main__":
    sys.exit(main())
