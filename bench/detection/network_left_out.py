"""What the detector network finds in animals that it was not trained on.

For each group of animals a network is trained by ``configs/train-detector.yaml`` on
all other datasets (seed 0) and measured on the group. Mixes and meerkats are in no
training, nor are the noise clips of the mixes: there the bundle that ships is measured,
which knows the birds in the mixes; the network without birds does not.
Where it was trained on recordings of the set, its figures are in brackets.

It takes four trainings, about half an hour of one core. The folder ``--work`` keeps
scenes and bundles: the same command goes on where it was stopped.
"""

import argparse
import os

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

import sys
from collections.abc import Iterable
from functools import partial
from pathlib import Path

import numpy as np
from annotated_sets import ROOT, SETS, data_folder, read_set
from detect import Result, detect, evaluate

from neurovocal.models.detection.recipe import load_recipe
from neurovocal.models.detection.train import train_detector
from neurovocal.models.toolkit.loop import TrainingInterrupted, stop_on_signal
from neurovocal.models.toolkit.progress import Reporter
from neurovocal.models.training.workspace import TrainingJob

SHIPPED = "any-animal"
RECIPE = ROOT / "configs" / "train-detector.yaml"
LEFT_OUT = {
    "birds": ("finch_gy6or6", "finch_bird0", "zebra_finch_G402"),
    "rodents": ("mouse_usv",),
    "bats": ("bats_europe",),
    "insects": ("fly_song",),
}


def train_without(group: str, data: Path, work: Path) -> Path:
    """Train a network without the datasets of a group, and return its bundle."""
    out = work / f"without-{group}"
    if (out / "manifest.yaml").is_file():
        return out
    recipe = load_recipe(RECIPE)
    names = [name for name in recipe.datasets if name not in LEFT_OUT[group]]
    folders = [data / name for name in names]
    datasets = {name: recipe.datasets[name] for name in names}
    scenes = work / "scenes"
    scenes.mkdir(parents=True, exist_ok=True)
    with stop_on_signal() as stop:
        train_detector(
            folders,
            TrainingJob(folders[0], out, command=f"without {group}"),
            recipe.model_copy(update={"datasets": datasets}),
            Reporter(),
            stop,
            scenes,
        )
    return out


def in_brackets(result: Result, is_known: bool) -> str:
    """Return F1 of onsets and of overlaps of a half."""
    scores = result.scores
    text = f"{scores['onset'].f1:.2f} / {scores['IoU 0.5'].f1:.2f}"
    return f"({text})" if is_known else text


def print_rows(data: Path, bundles: dict[str, Path]) -> None:
    """Print a row for each set, and the means over groups of sets."""
    print(f"| set | left out | bands | network, left out | {SHIPPED} |")
    print("| --- | --- | --- | --- | --- |")
    means: dict[str, list[list[tuple[float, float]]]] = {}
    for which in SETS:
        if not which.group:
            continue
        group = next((g for g, of in LEFT_OUT.items() if which.folder in of), None)
        if group is not None and group not in bundles:
            continue
        recordings = read_set(which, data)
        measured = partial(evaluate, recordings, onset_ms=which.onset_ms)
        compared: Iterable[tuple[str, dict[str, object]]] = (
            ("bands", {}),
            ("network", {"bundle": str(bundles[group]) if group else SHIPPED}),
            ("network", {"bundle": SHIPPED}),
        )
        results = [
            measured(lambda _, x, rate, n=name, o=values: detect(n, o, x, rate))
            for name, values in compared
        ]
        means.setdefault(which.group, []).append(
            [(r.scores["onset"].f1, r.scores["IoU 0.5"].f1) for r in results]
        )
        cells = [
            in_brackets(result, is_known)
            for result, is_known in zip(
                results, (False, False, group is not None), strict=True
            )
        ]
        print(
            f"| {which.name} | {group or 'always'} | {' | '.join(cells)} |", flush=True
        )
        if which.group == "mixes" and "birds" in bundles:
            options = {"bundle": str(bundles["birds"])}
            result = measured(
                lambda _, x, rate, o=options: detect("network", o, x, rate)
            )
            row = f"birds, too | | {in_brackets(result, False)}"
            print(f"| {which.name} | {row} | |", flush=True)
    over = np.mean([np.mean(rows, axis=0) for rows in means.values()], axis=0)
    cells = [f"{onset:.3f} / {overlap:.3f}" for onset, overlap in over]
    print(f"| mean of {len(means)} groups | | {' | '.join(cells)} |")


def main() -> int:
    """Train the networks that are missing, each without a group; print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="folder to keep")
    parser.add_argument("--groups", nargs="*", choices=LEFT_OUT, default=[*LEFT_OUT])
    arguments = parser.parse_args()
    data = data_folder()
    try:
        bundles = {
            group: train_without(group, data, arguments.work)
            for group in arguments.groups
        }
    except TrainingInterrupted as error:
        print(error, file=sys.stderr)
        return 3
    print_rows(data, bundles)
    return 0


if __name__ == "__main__":
    sys.exit(main())
