"""Errors of labels by seconds of annotation: ``make bench-curves``.

For each set, amount and seed recordings are drawn from those that are not tested on
until they have that many seconds; a bundle is trained on them as a user would (no test
split, figures by cross-validation), and tested on the same later or other recordings.
Each finished cell is a JSON file under runs/curves and is not computed again; an
interrupted training is resumed. One thread.

    python bench/labels/learning_curves.py [--sets gy6or6 ...] [--seconds 60 ...]
        [--seeds 0 ...] [--quick]

Units that the drawn recordings lack count as errors.
"""

import argparse
import csv
import json
import os
import shutil
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(name, "1")

import numpy as np
from label_tables import TWEETYNET

from neurovocal.engine.contracts.errors import EXIT_CLEAN, NeurovocalError
from neurovocal.models.data.datasets import AnnotatedRecording, read_dataset
from neurovocal.models.evaluation.evaluate import evaluate_bundle
from neurovocal.models.toolkit.loop import stop_on_signal
from neurovocal.models.toolkit.progress import Reporter
from neurovocal.models.toolkit.recipe import TrainConfig, adapted, load_config
from neurovocal.models.training.train import train_bundle
from neurovocal.models.training.workspace import TrainingJob

ROOT = Path(__file__).resolve().parents[2]
SETS = {"gy6or6": "finch_gy6or6", "bird0": "finch_bird0", "G402": "zebra_finch_G402"}
SECONDS = (15, 30, 60, 120, 180, 300, 0)  # 0: all
DAY = "day_ddmmyy"
UNSURE = ("-", "x")  # labels of gy6or6 whose annotators were unsure


def main() -> int:
    """Compute the missing cells, then print the table."""
    options = read_options()
    reporter, code = Reporter(), EXIT_CLEAN
    try:
        for seconds in options.seconds:
            for name in options.sets:
                for seed in options.seeds:
                    make_cell(name, seconds, seed, options, reporter)
    except NeurovocalError as error:
        code = error.exit_code
        reporter.print_message(str(error))
    print("\n".join(table(options.out)))
    return code


def read_options() -> argparse.Namespace:
    """Parse the arguments."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    data = Path(os.environ.get("NEUROVOCAL_DATA", ROOT / "../shared/data"))
    parser.add_argument("--data", type=Path, default=data)
    parser.add_argument("--out", type=Path, default=ROOT / "runs/curves")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument(
        "--seconds", nargs="+", type=int, default=list(SECONDS), help="0 means all"
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--quick", action="store_true", help="as train --quick")
    return parser.parse_args()


def make_cell(
    name: str, seconds: int, seed: int, options: argparse.Namespace, reporter: Reporter
) -> None:
    """Draw recordings, train, test and store one cell, unless it is stored already."""
    mode = "quick" if options.quick else "full"
    path = options.out / f"{name}-{mode}-{seconds}-{seed}.json"
    if path.is_file():
        return
    reporter.print_message(f"{name}: {seconds or 'all'} s, seed {seed}, {mode}")
    pool, test = divided(name, list(read_dataset(options.data / SETS[name]).recordings))
    drawn = draw(pool, seconds, seed)
    folder = options.out / "datasets" / path.stem
    write_dataset(folder, drawn)
    recipe = recipe_of(options.quick, seed)
    began = time.process_time()
    job = TrainingJob(folder, options.out / "bundles" / path.stem, overwrite=True)
    with stop_on_signal() as stop:
        bundle = train_bundle(job, recipe, reporter, stop)
    cpu_s = time.process_time() - began
    figures = evaluate_bundle(bundle, test)["classifier"]
    known = set(figures["units"])
    labels = [a.unit for r in test for a in r.own_annotations]
    every = Counter(label for label in labels if label not in UNSURE)
    absent = sum(n for unit, n in every.items() if unit not in known)
    right = figures["reference_syllables"]
    edits = figures["syllable_error_percent"] * right / 100 + absent
    cell = {
        **{"set": name, "mode": mode, "wanted_s": seconds, "seed": seed},
        "seconds": round(sum(r.duration_s for r in drawn), 1),
        "cpu_s": round(cpu_s, 1),
        "frame_error_final_percent": figures["frame_error_final_percent"],
        "syllable_error_percent": round(100 * edits / (right + absent), 3),
        "unknown_percent": figures["unknown_percent"],
        "units_missing": sorted(set(every) - known),
        "cross_validation": bundle.manifest.figures.get("cross_validation"),
        "recipe": recipe.model_dump(mode="json"),
    }
    path.with_suffix(".new").write_text(json.dumps(cell, indent=1) + "\n")
    path.with_suffix(".new").replace(path)


def recipe_of(quick: bool, seed: int) -> TrainConfig:
    """Return the recommended recipe without the RNN-RBM."""
    recipe = load_config(ROOT / "configs/train.yaml")
    return adapted(recipe.model_copy(update={"rnn_rbm": None}), {"seed": seed}, quick)


def divided(
    name: str, recordings: list[AnnotatedRecording]
) -> tuple[list[AnnotatedRecording], list[AnnotatedRecording]]:
    """Return recordings to draw from, and those that are tested on.

    Tested on are the recordings that files.csv names for validation, of G402 every
    fifth with syllable types.
    """
    if name == "G402":
        typed = [
            r for r in recordings if r.columns.get("label_kind") == "syllable_types"
        ]
        return [r for n, r in enumerate(typed) if n % 5], typed[::5]
    tested = [r for r in recordings if r.columns.get("split") == "valid"]
    return [r for r in recordings if r.columns.get("split") == "train"], tested


def draw(
    pool: list[AnnotatedRecording], seconds: int, seed: int
) -> list[AnnotatedRecording]:
    """Draw recordings until they have `seconds`; all of them for 0."""
    drawn: list[AnnotatedRecording] = []
    for number in np.random.default_rng(seed).permutation(len(pool)):
        if seconds and sum(r.duration_s for r in drawn) >= seconds:
            break
        drawn.append(pool[number])
    return drawn


def write_dataset(folder: Path, recordings: list[AnnotatedRecording]) -> None:
    """Write a folder as a user has it: recordings, annotations, days if known."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with (
        (folder / "annotations.csv").open("w", newline="") as labels,
        (folder / "files.csv").open("w", newline="") as files,
    ):
        rows, about = csv.writer(labels), csv.writer(files)
        rows.writerow(["file", "onset_s", "offset_s", "label"])
        about.writerow(["file", "day"])
        for recording in recordings:
            name = Path(recording.file).name
            (folder / name).symlink_to(recording.path.resolve())
            about.writerow([name, recording.columns.get(DAY, "")])
            for a in recording.annotations:
                rows.writerow([name, a.onset_s, a.offset_s, a.unit])


def table(out: Path) -> list[str]:
    """Return the Markdown of all stored cells, one row per set, mode and amount."""
    cells = [json.loads(path.read_text()) for path in sorted(out.glob("*.json"))]
    groups: dict[tuple[str, str, int], list[dict[str, Any]]] = {}
    for cell in cells:
        key = (cell["set"], cell["mode"], cell["wanted_s"] or 10**6)
        groups.setdefault(key, []).append(cell)
    lines = [
        "| set | recipe | annotated s | seeds | frame error, final % | "
        "syllable error % | unknown % | CPU s |",
        "| --- | --- | --: | --- | --: | --: | --: | --: |",
    ]
    for (name, mode, _), found in sorted(groups.items()):

        def each(key: str, digits: int, found: list[dict[str, Any]] = found) -> str:
            return " / ".join(f"{cell[key]:.{digits}f}" for cell in found)

        seeds = " / ".join(str(cell["seed"]) for cell in found)
        lines.append(
            f"| {name} | {mode} | {each('seconds', 0)} | {seeds} | "
            f"{each('frame_error_final_percent', 2)} | "
            f"{each('syllable_error_percent', 2)} | {each('unknown_percent', 1)} | "
            f"{each('cpu_s', 0)} |"
        )
    for name, published in TWEETYNET.items():
        for train_s, frames, syllables, _ in published:
            lines.append(
                f"| {name} | TweetyNet, published, not causal | {train_s} | mean of 10 "
                f"| {frames:.2f} | {syllables:.2f} | | |"
            )
    return lines


if __name__ == "__main__":
    sys.exit(main())
