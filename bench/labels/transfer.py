"""Benefit of starting from another bird's bundle: the table of docs/how-to/training.md.

About a minute of Bird0, a Bengalese finch outside of the shipped bundle's training, is
trained from that bundle (`neurovocal train --from`) and from scratch, with equally
many updates, and tested on twenty later recordings of Bird0. Every finished cell is a
JSON file and is not computed again.

    python bench/labels/transfer.py [--updates 150 900] [--seeds 0 1 2]
"""

import argparse
import csv
import json
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from neurovocal.engine.contracts.errors import EXIT_CLEAN, NeurovocalError
from neurovocal.models.toolkit.loop import stop_on_signal
from neurovocal.models.toolkit.progress import Reporter
from neurovocal.models.toolkit.recipe import TrainConfig
from neurovocal.models.training.train import train_bundle
from neurovocal.models.training.workspace import TrainingJob

BIRD, ORIGIN, LONG_ENOUGH_S = "finch_bird0", "bengalese-finch", 60.0
RECIPE = Path(__file__).resolve().parents[2] / "configs" / "train.yaml"
ALONE = 0.75  # share of the updates, as in the recipe
STARTS = {"from the bundle": ORIGIN, "from scratch": None}
MEASURES = {
    "frame error %": ("classifier", "frame_error_percent"),
    "syllable error %": ("classifier", "syllable_error_percent"),
    "wrong in true segments %": (
        "classifier",
        "syllable_error_in_true_segments_percent",
    ),
    "error of the next frame": ("rnn_rbm", "mse"),
    "relative to AR(8)": ("rnn_rbm", "mse_ratio_to_ar8"),
}


@dataclass(frozen=True)
class Cell:
    """One training."""

    start: str
    updates: int
    seed: int

    @property
    def name(self) -> str:
        """Stem of its files."""
        return f"{self.start.split()[-1]}-{self.updates}-{self.seed}"

    @property
    def recipe(self) -> TrainConfig:
        """Return the recommended recipe with fewer updates.

        Without initial weights, the recurrent part is trained alone first.
        """
        recipe = yaml.safe_load(RECIPE.read_text(encoding="utf-8"))
        del recipe["front_end"]  # that of the bundle, or the same by default
        every = max(1, self.updates // 6)
        recipe["seed"] = self.seed
        recipe["classifier"] |= {"updates": self.updates, "validate_every": every}
        alone, together = recipe["rnn_rbm"]["phases"]
        n_alone = 0 if STARTS[self.start] else round(self.updates * ALONE)
        phases = [together | {"updates": self.updates - n_alone}]
        if n_alone:
            phases.insert(0, alone | {"updates": n_alone})
        recipe["rnn_rbm"] |= {"phases": phases, "validate_every": every}
        return TrainConfig.model_validate(recipe)


def main() -> int:
    """Compute the missing cells, then print the table."""
    options = read_options()
    reporter, code = Reporter(), EXIT_CLEAN
    try:
        folder = minute_of_song(options.data / BIRD, options.out / "bird0-60s")
        for cell in cells(options):
            path = options.out / f"{cell.name}.json"
            if not path.exists():
                reporter.print_message(
                    f"{cell.start}, {cell.updates} updates, seed {cell.seed}"
                )
                store(path, figures_of(cell, folder, options.out, reporter))
    except NeurovocalError as error:  # an interrupted training among them
        code = error.exit_code
        reporter.print_message(str(error))
    print("\n".join(table(options)))
    return code


def read_options() -> argparse.Namespace:
    """Parse the arguments."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    data = Path(os.environ.get("NEUROVOCAL_DATA", "../shared/data"))
    parser.add_argument("--data", type=Path, default=data)
    parser.add_argument("--out", type=Path, default=Path("runs/transfer"))
    parser.add_argument("--updates", nargs="+", type=int, default=[150, 900])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    return parser.parse_args()


def cells(options: argparse.Namespace) -> Iterator[Cell]:
    """Return all requested cells, seed by seed."""
    for updates in options.updates:
        for seed in options.seeds:
            for start in STARTS:
                yield Cell(start, updates, seed)


def minute_of_song(source: Path, folder: Path) -> Path:
    """Write a dataset: first recordings for training, split valid for the test."""
    folder.mkdir(parents=True, exist_ok=True)
    rows, length_s = [], 0.0
    with (source / "files.csv").open(newline="", encoding="utf-8") as stream:
        for row in csv.DictReader(stream):
            later = row["split"] == "valid"
            if not later and length_s >= LONG_ENOUGH_S:
                continue
            length_s += 0.0 if later else float(row["duration_s"])
            rows.append((row["file"], "test" if later else "train"))
    kept = {file for file, _ in rows}
    with (source / "annotations.csv").open(newline="", encoding="utf-8") as stream:
        marks = [row for row in csv.reader(stream) if row[0] in (*kept, "file")]
    for name, content in (
        ("files.csv", [("file", "split"), *rows]),
        ("annotations.csv", marks),
    ):
        with (folder / name).open("w", newline="", encoding="utf-8") as stream:
            csv.writer(stream).writerows(content)
    shutil.copy(source / "README.md", folder / "README.md")
    if not (folder / "audio").exists():
        (folder / "audio").symlink_to((source / "audio").resolve())
    return folder


def figures_of(
    cell: Cell, folder: Path, out: Path, reporter: Reporter
) -> dict[str, Any]:
    """Train, and return the measures of the test split from the bundle."""
    job = TrainingJob(
        folder, out / cell.name, overwrite=True, origin=STARTS[cell.start]
    )
    with stop_on_signal() as stop:
        bundle = train_bundle(job, cell.recipe, reporter, stop)
    figures = bundle.manifest.figures
    return {name: figures[part][measure] for name, (part, measure) in MEASURES.items()}


def store(path: Path, cell: dict[str, Any]) -> None:
    """Write a cell atomically."""
    temporary = path.with_name(f"{path.name}.new")
    temporary.write_text(json.dumps(cell, indent=1) + "\n")
    temporary.replace(path)


def table(options: argparse.Namespace) -> list[str]:
    """Return the Markdown of all stored cells, with every seed's value."""
    lines = [
        f"| updates | start | {' | '.join(MEASURES)} |",
        f"| --: | --- |{' --: |' * len(MEASURES)}",
    ]
    for updates in options.updates:
        for start in STARTS:
            names = [Cell(start, updates, seed).name for seed in options.seeds]
            paths = [options.out / f"{name}.json" for name in names]
            found = [json.loads(p.read_text()) for p in paths if p.exists()]
            if found:
                values = (
                    " / ".join(f"{one[measure]:.3g}" for one in found)
                    for measure in MEASURES
                )
                lines.append(f"| {updates} | {start} | {' | '.join(values)} |")
    return lines


if __name__ == "__main__":
    sys.exit(main())
