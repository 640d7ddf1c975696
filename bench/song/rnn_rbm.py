"""Prediction, decoding, surprise and density of the RNN-RBM: ``make bench-song``.

The tables of docs/research/song.md: trained on two days of a Bengalese finch, measured
on a third. Every finished cell is a JSON file and is not computed again.

    python bench/song/rnn_rbm.py [--cells step decode surprise density] [--seeds 0 1 2]
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from rnn_rbm_cells import CELLS, BenchOptions, load_song_data

from neurovocal.engine.contracts.errors import EXIT_CLEAN, EXIT_LOSS, NeurovocalError
from neurovocal.models.toolkit.progress import Reporter
from neurovocal.models.toolkit.recipe import load_config


def main() -> int:
    """Compute the missing cells, then print the table."""
    options = read_options()
    torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    place = BenchOptions(options.data, options.out, load_config(options.config))
    reporter, code = Reporter(), EXIT_CLEAN
    try:
        for seed in options.seeds:
            missing = [
                c for c in options.cells if not cell_path(options, c, seed).exists()
            ]
            song = load_song_data(place, seed, reporter) if missing else None
            for cell in missing:
                assert song is not None
                reporter.print_message(f"{cell}, seed {seed}")
                began = time.monotonic()
                found = CELLS[cell](song, place, reporter)
                found["seconds"] = round(time.monotonic() - began, 1)
                store(cell_path(options, cell, seed), found)
    except KeyboardInterrupt:
        code = EXIT_LOSS
        reporter.print_message("stopped: run the same command again to go on")
    except NeurovocalError as error:
        code = error.exit_code
        reporter.print_message(str(error))
    print("\n".join(table(options)))
    return code


def read_options() -> argparse.Namespace:
    """Parse the arguments."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    data = Path(os.environ.get("NEUROVOCAL_DATA", "../shared/data"))
    parser.add_argument("--data", type=Path, default=data)
    parser.add_argument("--out", type=Path, default=Path("runs/song"))
    recipe = Path(__file__).resolve().parents[2] / "configs" / "train.yaml"
    parser.add_argument("--config", type=Path, default=recipe, help="recipe")
    parser.add_argument("--cells", nargs="+", choices=CELLS, default=list(CELLS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    return parser.parse_args()


def cell_path(options: argparse.Namespace, cell: str, seed: int) -> Path:
    """Return the file of a cell."""
    return options.out / f"{cell}-{seed}.json"


def store(path: Path, cell: dict[str, Any]) -> None:
    """Write a cell atomically."""
    temporary = path.with_name(f"{path.name}.new")
    temporary.write_text(json.dumps(cell, indent=1) + "\n")
    temporary.replace(path)


def table(options: argparse.Namespace) -> list[str]:
    """Return the Markdown of all stored cells, with the values of the seeds."""
    lines = []
    for cell in CELLS:
        found = [
            json.loads(cell_path(options, cell, seed).read_text())
            for seed in options.seeds
            if cell_path(options, cell, seed).exists()
        ]
        costs = " / ".join(f"{one.pop('seconds'):.0f}" for one in found)
        values: dict[tuple[str, str], list[str]] = {}
        for one in found:
            for key, value in flatten(one):
                values.setdefault(key, []).append(value)
        rows, columns = ([*dict.fromkeys(k[i] for k in values)] for i in (0, 1))
        if rows:
            lines += ["", f"### {cell} ({costs} s)", "", f"| | {' | '.join(columns)} |"]
            lines += [f"| --- |{' --: |' * len(columns)}"]
        for row in rows:
            cells = (summarise(values.get((row, column), [])) for column in columns)
            lines.append(f"| {row} | {' | '.join(cells)} |")
    return lines


def summarise(values: list[str]) -> str:
    """Return every seed's value, or one if all are equal."""
    return " / ".join(values if len(set(values)) > 1 else values[:1])


def flatten(cell: Any, *names: str) -> Iterator[tuple[tuple[str, str], str]]:
    """Yield row, column and value of a cell's leaves, rounded."""
    if isinstance(cell, dict):
        for name, inner in cell.items():
            yield from flatten(inner, *names, name)
    else:
        key = (", ".join(names[:-1]), names[-1]) if len(names) > 1 else (names[0], "")
        yield key, f"{cell:.5g}" if isinstance(cell, float) else str(cell)


if __name__ == "__main__":
    sys.exit(main())
