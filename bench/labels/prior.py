"""Accuracy of forecasts and of labels with them: the tables of docs/research/prior.md.

    .venv/bin/python bench/labels/prior.py [--sets finch_gy6or6 ...] [--seeds 0 1 2]

Each finished cell is a JSON file under runs/prior and is not computed again.
"""

import argparse
import json
import os
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(name, "1")

import numpy as np
import torch
from numpy.typing import NDArray
from prior_models import (
    Data,
    choose_recordings,
    load,
    n_gram,
    rnn_rbm,
    train_classifier,
    trained_forecast,
)

from neurovocal.models.classifier.adjust import calibrate
from neurovocal.models.classifier.forecast.evaluation import score_predictions
from neurovocal.models.classifier.forecast.network import split_phrases
from neurovocal.models.classifier.forecast.prior import (
    ClassifiedRecordings,
    choose_weights,
    collect_scores_by_delay,
    forecast_units,
)
from neurovocal.models.data.frames import LabelledFrames
from neurovocal.models.toolkit.recipe import (
    ClassifierConfig,
    ForecastConfig,
)

SETS = ("finch_gy6or6", "finch_bird0")
SECONDS = (15, 30, 60, 120)
_DRAWS = 2000
_WHEN = ("0 ms", "5 ms", "10 ms", "20 ms", "30 ms", "50 ms", "offset")


def per_recording(data: Data, right: Any, nats: Any) -> dict[str, list[float]]:
    """Return sums per test recording, for the bootstrap over recordings."""
    ends = np.cumsum([len(m.spans) for m in data.test])[:-1]
    return {
        "n": [len(m.spans) for m in data.test],
        "right": [float(part.sum()) for part in np.split(right, ends)],
        "nats": [float(part.sum()) for part in np.split(nats, ends)],
    }


def forecast_cell(data: Data, seed: int, path: Path) -> dict[str, Any]:
    """Measure forecasts of the test recordings' units, given the true previous ones."""
    config = ForecastConfig()
    unit = np.array([s.unit - 1 for m in data.test for s in m.spans])
    result: dict[str, Any] = {}
    parts = {
        name: split_phrases(part, data.frame_ms, config.pause_ms)
        for name, part in (
            ("train", data.prepared.train),
            ("valid", data.prepared.valid),
            ("test", data.test),
        )
    }
    for order in range(5 if seed == 0 else 0):  # nothing random in them
        best = min(
            (
                n_gram(order, data.n_units, parts["train"], s)
                for s in (0.1, 0.5, 1, 2, 5)
            ),
            key=lambda logs: sum(
                score_predictions(logs(p), p.units)[1].sum() for p in parts["valid"]
            ),
        )
        logs = np.concatenate([best(p) for p in parts["test"]])
        result[f"{order} units before"] = per_recording(
            data, *score_predictions(logs, unit)
        )
    for label, hidden in (("RNN, no RBM", 0), ("RNN-RBM", config.n_hidden)):
        sized = config.model_copy(update={"n_hidden": hidden})
        task = trained_forecast(data, data.prepared.train, sized, seed, path)
        for when, at_onset in (("after the offset", False), ("at the onset", True)):
            logs = forecast_units(
                *(
                    task.module.predict,
                    data.n_units,
                    task.edges,
                    data.silent,
                ),
                config.pause_ms,
                at_onset=at_onset,
            )
            result[f"{label}, {when}"] = per_recording(
                data, *score_predictions(logs, unit)
            )
    return result


def labels_cell(
    data: Data, seconds: float, seed: int, network: Callable, path: Path
) -> dict[str, Any]:
    """Measure labels of annotated test segments by delay, with and without forecast."""
    config = ForecastConfig()
    train = choose_recordings(data, seconds, seed)
    logs = network(train)
    valid = [logs(m) for m in data.prepared.valid]
    test = [logs(m) for m in data.test]
    spec = calibrate(
        {},
        ClassifierConfig(),
        data.prepared.units.names,
        data.frame_ms,
        valid,
        [m.spans for m in data.prepared.valid],
    )
    task = trained_forecast(data, train, config, seed, path)

    def scores_by_delay(examples: list[LabelledFrames], rows: list[Any]) -> Any:
        classified = ClassifiedRecordings(examples, rows, data.prepared.front_end, spec)
        forecasts = forecast_units(
            task.module.predict, data.n_units, task.edges, classified, config.pause_ms
        )
        return collect_scores_by_delay(classified, forecasts)

    weights = choose_weights(scores_by_delay(data.prepared.valid, valid))
    found = scores_by_delay(data.test, test)
    ends = np.cumsum([len(m.spans) for m in data.test])[:-1]

    def wrong(chosen: list[float]) -> list[list[int]]:
        rows = ~found.correct(chosen)
        return [[int(p.sum()) for p in np.split(row, ends)] for row in rows]

    frames = [
        [
            int((r.argmax(1) != m.target)[m.target >= 0].sum()),
            int((m.target >= 0).sum()),
        ]
        for r, m in zip(test, data.test, strict=True)
    ]
    return {
        "n": [len(m.spans) for m in data.test],
        "weights": weights,
        "labelled_syllables": sum(len(m.spans) for m in train),
        "alone": wrong([0.0] * len(weights)),
        "with forecast": wrong(weights),
        "frames": frames,
    }


def cells(args: argparse.Namespace) -> Iterator[tuple[str, Callable[[Path], Any]]]:
    """Yield the name of each cell, and the function that computes it."""
    for name in args.sets:
        for seed in args.seeds:
            data = load(name, args.data)
            yield (
                f"{name}-forecast-{seed}",
                lambda path, d=data, s=seed: forecast_cell(d, s, path),
            )
    for name in args.sets:
        for seconds in args.seconds:
            for seed in args.seeds:
                for arm in ("started", "frames"):
                    yield (
                        f"{name}-{arm}-{seconds}-{seed}",
                        lambda path, n=name, w=seconds, s=seed, a=arm: one_classifier(
                            load(n, args.data), w, s, a, path, args.runs / f"{n}-u.pt"
                        ),
                    )


def one_classifier(
    data: Data, seconds: float, seed: int, arm: str, path: Path, shared: Path
) -> dict[str, Any]:
    """Compute a cell of labels; arm "started" starts from the RNN-RBM's weights."""
    start = rnn_rbm(data, shared) if arm == "started" else None
    return labels_cell(
        data,
        seconds,
        seed,
        lambda train: train_classifier(data, train, seed, path, start),
        path,
    )


def print_tables(cells: dict[str, dict[str, Any]]) -> None:
    """Print the tables as Markdown: forecasts, then labels by delay."""
    forecasts: dict[str, dict[str, list[dict[str, Any]]]] = defaultdict(dict)
    labels: dict[tuple[str, str, int], list[dict[str, Any]]] = defaultdict(list)
    for name, cell in cells.items():
        dataset, kind, *rest = name.split("-")
        if kind == "forecast":
            for row, sums in cell.items():
                forecasts[dataset].setdefault(row, []).append(sums)
        else:
            labels[dataset, kind, int(rest[0])].append(cell)
    for dataset, rows in forecasts.items():
        print(f"\n{dataset}: next unit, test recordings, 95 % interval\n")
        print("| given | seeds | right % | nats per unit |")
        print("| --- | --- | --- | --- |")
        for row, found in sorted(rows.items()):
            n = np.array(found[0]["n"], float)
            right = 100 * np.mean([f["right"] for f in found], axis=0)
            nats = np.mean([f["nats"] for f in found], axis=0)
            print(
                f"| {row} | {len(found)} | {_interval(right, n, 1)} "
                f"| {_interval(nats, n, 3)} |"
            )
    for (dataset, kind, seconds), found in sorted(labels.items()):
        n = np.array(found[0]["n"], float)
        syllables = round(float(np.mean([f["labelled_syllables"] for f in found])))
        frames = np.mean([np.sum(f["frames"], axis=0) for f in found], axis=0)
        print(
            f"\n{dataset}, {kind}, {seconds} s of labels ({syllables} syllables), "
            f"{len(found)} seeds: wrong labels in %; frame error "
            f"{100 * frames[0] / frames[1]:.2f} %\n"
        )
        print(f"| after the onset | {' | '.join(_WHEN)} |")
        print("| --- |" + " --- |" * len(_WHEN))
        for row in ("alone", "with forecast"):
            wrong = 100 * np.mean([f[row] for f in found], axis=0)
            print(f"| {row} | {' | '.join(_interval(w, n, 1) for w in wrong)} |")


def _interval(sums: NDArray[Any], n: NDArray[Any], digits: int) -> str:
    """Return the pooled rate with its bootstrap interval over recordings."""
    rng = np.random.default_rng(0)
    drawn = rng.integers(len(n), size=(_DRAWS, len(n)))
    rates = sums[drawn].sum(axis=1) / n[drawn].sum(axis=1)
    low, high = np.percentile(rates, [2.5, 97.5])
    rate = sums.sum() / n.sum()
    return f"{rate:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def main() -> int:
    """Compute the missing cells, then print all tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--runs", type=Path, default=Path("runs/prior"))
    parser.add_argument("--sets", nargs="+", default=SETS, choices=SETS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--seconds", nargs="*", type=int, default=SECONDS)
    args = parser.parse_args()
    if not all((args.data / name).is_dir() for name in args.sets):
        print(f"prior: no data in '{args.data}' (--data)", file=sys.stderr)
        return 1
    torch.set_num_threads(1)
    args.runs.mkdir(parents=True, exist_ok=True)
    done: dict[str, Any] = {}
    try:
        for name, compute in cells(args):
            path = args.runs / f"{name}.json"
            if not path.is_file():
                print(f"prior: {name} ...", file=sys.stderr, flush=True)
                result = compute(path.with_suffix(".pt"))
                partial = path.with_suffix(".partial")
                partial.write_text(json.dumps(result))
                partial.replace(path)
            done[name] = json.loads(path.read_text())
    except KeyboardInterrupt:
        print("prior: stopped; finished cells are kept", file=sys.stderr)
    print_tables(done)
    return 0


if __name__ == "__main__":
    sys.exit(main())
