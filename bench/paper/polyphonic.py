"""Likelihood and accuracy on piano rolls: ``make bench-polyphonic``.

The table of the RNN-RBM's paper. Each cell (set, row, seed) is trained, chosen on the
validation set, measured on the test set and stored under runs/polyphonic; stored cells
are not computed again, and an interrupted training is resumed. One thread of torch.
The table is printed as Markdown on stdout, progress on stderr.
"""

import argparse
import os

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

import hashlib
import json
import math
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from piano_model import PianoModel, joined_predictors
from piano_rolls import (
    RECIPES,
    ROWS,
    Recipe,
    Rolls,
    load_rolls,
    recipe_for,
)
from piano_table import plain, table
from piano_training import PianoTask

from neurovocal.engine.contracts.errors import EXIT_CLEAN, EXIT_LOSS, NeurovocalError
from neurovocal.models.rnn_rbm.annealing import AnnealingOptions
from neurovocal.models.rnn_rbm.likelihood import (
    LikelihoodError,
    accuracy_of,
    conditional_rbms,
    expected_accuracy,
    log_likelihood,
    match_counts,
)
from neurovocal.models.toolkit.loop import Budget, History, fit, stop_on_signal
from neurovocal.models.toolkit.progress import Reporter

EFFORTS = (
    AnnealingOptions(1000, 1),
    AnnealingOptions(3000, 1),
    AnnealingOptions(8000, 2),
)
ENOUGH_DRAWS = 90_000


def main() -> int:
    """Compute the missing cells, then print the table."""
    options = read_options()
    torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    say = Reporter().print_message
    code = EXIT_CLEAN
    try:
        for name in [] if options.only_print else options.sets:
            rolls = load_rolls(options.data, name)
            for row in options.rows:
                for seed in seeds_of(name, row, options.seeds):
                    make_cell(name, row, seed, rolls, options, say)
    except KeyboardInterrupt:
        code = EXIT_LOSS
        say("stopped while measuring: run the same command again to measure again")
    except NeurovocalError as error:
        code = error.exit_code
        say(str(error))
    print("\n".join(table(options.out, options.sets)))
    return code


def read_options() -> argparse.Namespace:
    """Parse the arguments."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    data = Path(os.environ.get("NEUROVOCAL_DATA", "../shared/data"))
    parser.add_argument(
        "--data", type=Path, default=data / "piano_rolls" / "piano_rolls.npz"
    )
    parser.add_argument("--out", type=Path, default=Path("runs/polyphonic"))
    parser.add_argument("--sets", nargs="+", choices=RECIPES, default=list(RECIPES))
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument(
        "--seeds",
        nargs="+",
        type=int,
        help="default: 0, and 0 to 2 for the RNN-RBM of the two smaller sets",
    )
    parser.add_argument(
        "--only-train",
        action="store_true",
        help="measure nothing yet: the validation figures are in the checkpoints",
    )
    parser.add_argument(
        "--only-print", action="store_true", help="the cells that are there, no more"
    )
    parser.add_argument("--minutes", type=float, help="of training per cell, at most")
    parser.add_argument(
        "--frames",
        type=int,
        default=2500,
        help="test frames whose likelihood is bracketed, drawn at random; 0: all",
    )
    parser.add_argument(
        "--split",
        choices=["valid", "test"],
        default="test",
        help="frames to measure; recipes are chosen by those of 'valid', whose cells "
        "lie in a folder of their own",
    )
    options = parser.parse_args()
    options.checkpoints = options.out
    if options.split == "valid":
        options.out = options.out / "valid"
    return options


def seeds_of(name: str, row: str, wanted: list[int] | None) -> list[int]:
    """Return the seeds of one row of the table."""
    if row == "copy":
        return [0]
    if wanted is not None:
        return wanted
    repeated = row == "rnn_rbm" and name in ("JSB_Chorales", "Nottingham")
    return [0, 1, 2] if repeated else [0]


def make_cell(
    name: str,
    row: str,
    seed: int,
    rolls: Rolls,
    options: argparse.Namespace,
    say: Any,
) -> None:
    """Train, measure and store one cell, unless it is stored already."""
    recipe = recipe_for(name, row)
    path = options.out / f"{name}-{row}-{seed}.json"
    if row == "copy":
        store(
            path,
            {
                "set": name,
                "row": row,
                "seed": seed,
                "test": copied(getattr(rolls, options.split)),
            },
        )
        return
    wanted = plain(recipe)
    if path.is_file() and json.loads(path.read_text())["recipe"] == wanted:
        return
    say(f"{name} {row} seed {seed}: training")
    task, histories = trained(name, recipe, seed, rolls, options)
    if options.only_train:
        for history in histories:
            say(f"  {history.best_row}")
        return
    spent = sum(history.spent_s for history in histories)
    say(f"{name} {row} seed {seed}: measuring after {spent:.0f} s")
    task.module.sharpen(recipe.sharpness)
    began = time.monotonic()
    frames = getattr(rolls, options.split)
    if recipe.nade:
        measured = measure_nade(task.module, frames)
    else:
        model = task.module.read_out() if row == "rnn" else task.module.rbm
        measured = measure(model, frames, options.frames, say)
    cell = {
        "set": name,
        "row": row,
        "seed": seed,
        "recipe": wanted,
        "updates": sum(history.update for history in histories),
        "planned": recipe.planned,
        "training_s": round(spent, 1),
        "valid": histories[-1].best_row,
        "test": measured,
        "measuring_s": round(time.monotonic() - began, 1),
    }
    store(path, cell)


def trained(
    name: str, recipe: Recipe, seed: int, rolls: Rolls, options: argparse.Namespace
) -> tuple[PianoTask, list[History]]:
    """Train by a recipe; cells of a seed with equal predictors share them."""
    limit = None if options.minutes is None else 60 * options.minutes
    histories = []

    def train(part: Recipe, seed: int, start: dict[str, Any] | None) -> PianoTask:
        task = PianoTask(part, rolls, seed, start)
        with stop_on_signal() as stop:
            path = options.checkpoints / f"{name}-{seed}-{digest(part)}.pt"
            histories.append(fit(task, path, Budget(limit), stop, 15.0))
        return task

    start = None
    if recipe.first.phases:
        # Seeds of further predictors are far from those that a user names.
        seeds = [seed + 1000 * i for i in range(recipe.predictors)]
        tasks = [train(recipe.first, s, None) for s in seeds]
        start = joined_predictors([task.module.state_dict() for task in tasks])
        if not recipe.rest.phases:
            return tasks[0], histories
    return train(recipe.rest, seed, start), histories


def digest(recipe: Recipe) -> str:
    """Return a short name of a recipe's training."""
    # How sharp it is afterwards is no part of the training. Defaults are left out, so
    # that a new field leaves the names of older trainings as they are.
    usual = asdict(Recipe()) | {"sharpness": recipe.sharpness}
    fields = {k: v for k, v in asdict(recipe).items() if v != usual[k]}
    text = json.dumps(fields, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def measure(model: Any, rolls: list[np.ndarray], n_frames: int, say: Any) -> dict:
    """Measure likelihood and accuracy; anneal more where the bracket is wide."""
    rng = np.random.Generator(np.random.SFC64(1))
    rbms, frames, previous = conditional_rbms(model, rolls)
    n_samples = samples_of(len(frames))
    found: dict[str, Any] = {"n_frames": len(frames), "n_samples": n_samples}
    found |= asdict(expected_accuracy(rbms, frames, previous, rng, n_samples=n_samples))
    if 0 < n_frames < len(frames):
        some = torch.from_numpy(np.sort(rng.permutation(len(frames))[:n_frames]))
        rbms, frames, previous = rbms[some], frames[some], previous[some]
    # The Gibbs runs of the paper hardly mix on a strong model: here are samples that
    # come nearer to what the model says.
    nearer = expected_accuracy(
        rbms, frames, previous, rng, n_samples=1, annealing=AnnealingOptions(1000, 1)
    )
    found["annealed"] = asdict(nearer)
    for annealing in EFFORTS:
        try:
            likelihood = log_likelihood(rbms, frames, annealing, rng)
        except LikelihoodError as error:
            say(f"  {annealing.n_temperatures} temperatures: {error}")
            found["refused"] = str(error)
            continue
        found.pop("refused", None)
        return found | {
            "low": likelihood.bracket.low,
            "high": likelihood.bracket.high,
            "standard_error": likelihood.standard_error,
            "bracketed_frames": likelihood.n_frames,
            "annealing": asdict(annealing),
        }
    return found


def measure_nade(model: PianoModel, rolls: list[np.ndarray]) -> dict:
    """Measure the exact likelihood and the accuracy of independent samples."""
    frames, bv, bh = model.nade_biases(rolls)
    likely = model.nade_likelihood(rolls).double()
    n_samples = samples_of(len(frames))
    generator = torch.Generator().manual_seed(1)
    counts = [
        match_counts(model.nade.sample(*part[1:], generator), part[0])
        for _ in range(n_samples)
        for part in zip(*(x.split(4000) for x in (frames, bv, bh)), strict=True)
    ]
    return {
        "n_frames": len(frames),
        "n_samples": n_samples,
        **asdict(accuracy_of(torch.cat(counts))),
        "low": float(likely.mean()),
        "high": float(likely.mean()),
        "standard_error": float(likely.std()) / math.sqrt(len(likely)),
        "bracketed_frames": len(likely),
    }


def samples_of(n_frames: int) -> int:
    """Return the samples of a frame: 20 as in the paper; of large sets fewer do."""
    return min(20, max(3, math.ceil(ENOUGH_DRAWS / n_frames)))


def copied(rolls: list[np.ndarray]) -> dict[str, float]:
    """Return the accuracy of repeating the last frame, with silence at first."""
    wanted = torch.from_numpy(np.concatenate(rolls))
    before = [np.concatenate([np.zeros_like(r[:1]), r[:-1]]) for r in rolls]
    drawn = torch.from_numpy(np.concatenate(before))
    return asdict(accuracy_of(match_counts(drawn, wanted)))


def store(path: Path, cell: dict) -> None:
    """Write a cell atomically."""
    temporary = path.with_name(f"{path.name}.new")
    temporary.write_text(json.dumps(cell, indent=1) + "\n")
    temporary.replace(path)


if __name__ == "__main__":
    sys.exit(main())
