"""The tables of docs/prior.md, from finished cells."""

from collections import defaultdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

_DRAWS = 2000
_WHEN = ("0 ms", "5 ms", "10 ms", "20 ms", "30 ms", "50 ms", "offset")


def print_tables(cells: dict[str, dict[str, Any]]) -> None:
    """Print Markdown tables: forecasts, then labels by delay."""
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
    """Compute the pooled rate and its bootstrap interval over recordings."""
    rng = np.random.default_rng(0)
    drawn = rng.integers(len(n), size=(_DRAWS, len(n)))
    rates = sums[drawn].sum(axis=1) / n[drawn].sum(axis=1)
    low, high = np.percentile(rates, [2.5, 97.5])
    rate = sums.sum() / n.sum()
    return f"{rate:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"
