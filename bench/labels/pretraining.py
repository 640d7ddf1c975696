"""Starts of a classifier on left-out birds: the tables of docs/research/pretraining.md.

For each bird, encoders are trained on the song of the other animals, in several ways,
and from each of them, and from scratch, a classifier as by `train --quick` on about a
minute of annotated song. Tested on recordings of the bird that nothing was trained on
(of gy6or6 another day), without a detector. Encoders and finished cells are files
under --out and are not computed again. One thread.

    python bench/labels/pretraining.py [--birds gy6or6 ...] [--seeds 0 1 2]
        [--seconds 60] [--updates 400] [--starts ...]
"""

import argparse
import json
import os
import sys
from functools import cache
from pathlib import Path
from typing import Any

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(name, "1")

import numpy as np
import torch
from learning_curves import SETS, UNSURE, divided, draw, recipe_of
from pretraining_starts import STARTS, augmenter, pretrained

from neurovocal.engine.contracts.types import Float32
from neurovocal.engine.lane.offline import frames_of
from neurovocal.models.classifier.calibration import log_softmax, score_segment
from neurovocal.models.classifier.network import Classifier
from neurovocal.models.classifier.training import ClassifierTask
from neurovocal.models.data.datasets import (
    AnnotatedRecording,
    read_dataset,
    survey_dataset,
)
from neurovocal.models.data.frames import (
    LabelledFrames,
    describe_front_end,
    features_without_scaling,
    fit_scaling,
    read_samples,
)
from neurovocal.models.data.targets import Units, targets_of
from neurovocal.models.toolkit.measures import IGNORED
from neurovocal.models.toolkit.recipe import FrontEndConfig

ROOT = Path(__file__).resolve().parents[2]
RATE = 32_000
# Slowed down, so that calls lie where song does.
MORE = {"mouse_usv": 8, "bats_europe": 12, "field_spinetail": 1}
LONGEST_S = 200.0  # of each animal
LEAST_EXAMPLES = 5


def main() -> int:
    """Compute the missing encoders and cells, then print the tables."""
    options = read_options()
    options.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    for seed in options.seeds:
        for bird in options.birds:
            for start in options.starts:
                make_cells(bird, start, seed, options)
    print("\n".join(table(options)))
    return 0


def read_options() -> argparse.Namespace:
    """Parse the arguments."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    data = Path(os.environ.get("NEUROVOCAL_DATA", ROOT / "../shared/data"))
    parser.add_argument("--data", type=Path, default=data)
    parser.add_argument("--out", type=Path, default=ROOT / "runs/pretraining")
    parser.add_argument("--birds", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--starts", nargs="+", choices=STARTS, default=list(STARTS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--seconds", nargs="+", type=int, default=[60])
    parser.add_argument("--updates", nargs="+", type=int, default=[400])
    parser.add_argument(
        "--pretraining", type=int, default=300, help="updates of the encoder"
    )
    return parser.parse_args()


def make_cells(bird: str, start: str, seed: int, options: argparse.Namespace) -> None:
    """Train and test one start of one bird, with each amount of song and of updates."""
    for seconds in options.seconds:
        for updates in options.updates:
            path = options.out / f"{bird}-{start}-{seconds}-{updates}-{seed}.json"
            if path.exists():
                continue
            weights = None
            if start != "scratch":
                weights = encoder_of(bird, start, options)
            cell = figures_of(bird, weights, seconds, updates, seed, options)
            cell |= {"bird": bird, "start": start, "updates": updates, "seed": seed}
            path.with_suffix(".new").write_text(json.dumps(cell, indent=1) + "\n")
            path.with_suffix(".new").replace(path)
            print(path.stem, cell["frame_error"], cell["wrong"], flush=True)


def encoder_of(bird: str, start: str, options: argparse.Namespace) -> dict[str, Any]:
    """Return the weights of an encoder that was trained without a bird."""
    path = options.out / f"encoder-{bird}-{start}-{options.pretraining}.pt"
    if not path.exists():
        others = [name for name in SETS if name != bird]
        song = [song_of(name, options.data, n) for n, name in enumerate(others)]
        if start != "supervised":
            song += [song_of(name, options.data) for name in MORE]
        config = recipe_of(True, 0).classifier
        assert config is not None
        made = pretrained(start, song, config, options.pretraining, seed=0)
        torch.save(made, path)
    loaded: dict[str, Any] = torch.load(path, weights_only=True)
    return loaded


@cache
def song_of(name: str, data: Path, number: int = 0) -> list[LabelledFrames]:
    """Return the scaled frames of an animal; units of number 1 follow those of 0."""
    folder, slower = data / SETS.get(name, name), MORE.get(name, 1)
    # Without labels it does not matter whether annotations overlap.
    recordings = list(survey_dataset(folder)[0].recordings)
    if name in SETS:
        recordings, _ = divided(name, recordings)
    drawn = draw(recordings, round(LONGEST_S / slower), 0)
    units = units_of(drawn, first=1 + 20 * number)
    return scaled([raw_frames(r, slower) for r in drawn], drawn, units)[0]


def units_of(recordings: list[AnnotatedRecording], first: int = 1) -> Units:
    """Return the labels with enough examples, as the default recipe chooses them."""
    labels = [a.unit for r in recordings for a in r.annotations]
    names = sorted({u for u in labels if labels.count(u) >= LEAST_EXAMPLES} - {*UNSURE})
    index = dict.fromkeys(labels, IGNORED)
    index |= {unit: first + n for n, unit in enumerate(names)}
    return Units(["", *names], index)


FRONT_END = describe_front_end(FrontEndConfig(), RATE)
FEATURES = features_without_scaling(FRONT_END)


@cache
def recordings_of(
    bird: str, data: Path
) -> tuple[list[AnnotatedRecording], list[AnnotatedRecording]]:
    """Return recordings of a bird to train on, and those that are tested on."""
    return divided(bird, list(read_dataset(data / SETS[bird]).recordings))


_FRAMES: dict[tuple[Path, int], Float32] = {}


def raw_frames(recording: AnnotatedRecording, slower: int = 1) -> Float32:
    """Return the frames of a recording before scaling, slowed down by a factor.

    They are kept: a quarter of an hour in all, 130 MB.
    """
    key = (recording.path, slower)
    if key not in _FRAMES:
        _FRAMES[key] = frames_of(FEATURES, read_samples(recording, RATE * slower))
    return _FRAMES[key]


def scaled(
    raw: list[Float32],
    recordings: list[AnnotatedRecording],
    units: Units,
    scaling: tuple[Float32, Float32] | None = None,
) -> tuple[list[LabelledFrames], tuple[Float32, Float32]]:
    """Return frames with targets, and their scaling, fitted where none is given."""
    offset, gain = scaling or fit_scaling(raw, FrontEndConfig())
    grid = (RATE, FRONT_END.hop_length, FRONT_END.frame_length)
    examples = []
    for frames, recording in zip(raw, recordings, strict=True):
        target, spans = targets_of(recording, units, len(frames), *grid)
        values = ((frames - offset) * gain).astype(np.float32)
        examples.append(LabelledFrames(recording, values, target, spans))
    return examples, (offset, gain)


def figures_of(
    bird: str,
    weights: dict[str, Any] | None,
    seconds: int,
    updates: int,
    seed: int,
    options: argparse.Namespace,
) -> dict[str, Any]:
    """Train a classifier from an encoder, and return its errors in percent."""
    pool, tested = recordings_of(bird, options.data)
    drawn = draw(pool, seconds, seed)
    units = units_of(drawn)
    train, scaling = scaled([raw_frames(r) for r in drawn], drawn, units)
    config = recipe_of(True, seed).classifier
    assert config is not None
    config = config.model_copy(update={"updates": updates})
    augment = augmenter(FRONT_END.n_bins, *scaling)
    task = ClassifierTask(config, train, [], len(units.names), augment, seed)
    if weights is not None:
        task.module.encoder.load_state_dict(weights)
    for update in range(updates):
        task.begin(update / updates)
        task.step(update / updates)
    task.module.eval()
    return {
        "seconds": round(sum(r.duration_s for r in drawn), 1),
        **errors(task.module, tested, units, scaling),
    }


def errors(
    model: Classifier,
    recordings: list[AnnotatedRecording],
    units: Units,
    scaling: tuple[Float32, Float32],
) -> dict[str, float]:
    """Return wrong frames and wrong annotated segments in percent.

    Units that are not among those of the training count as wrong.
    """
    labels = {a.unit for r in recordings for a in r.annotations} - {*UNSURE}
    known = {name: n for n, name in enumerate(units.names)}
    absent = sorted(labels - set(known))
    index = dict.fromkeys(UNSURE, IGNORED) | {u: known[u] for u in labels & set(known)}
    index |= {unit: len(known) + n for n, unit in enumerate(absent)}
    every = Units([*units.names, *absent], index)
    raw = [raw_frames(r) for r in recordings]
    wrong = frames = missed = segments = 0
    for example in scaled(raw, recordings, every, scaling)[0]:
        with torch.no_grad():
            logits = model(torch.from_numpy(example.clipped)[None])[0][0].numpy()
        counts = example.target != IGNORED
        wrong += int((logits.argmax(1) != example.target)[counts].sum())
        frames += int(counts.sum())
        logs = log_softmax(logits)
        for span in example.spans:
            best = 1 + int(score_segment(logs, span, "vote")[1:].argmax())
            missed += best != span.unit
            segments += 1
    return {
        "frame_error": round(100 * wrong / frames, 3),
        "wrong": round(100 * missed / segments, 3),
    }


def table(options: argparse.Namespace) -> list[str]:
    """Return the Markdown of all stored cells, with every seed's value."""
    lines = [
        "| left out | updates | start | frame error % | mean "
        "| wrong in true segments % | mean |",
        "| --- | --: | --- | --: | --: | --: | --: |",
    ]
    for bird in SETS:
        for seconds in options.seconds:
            for updates in options.updates:
                for start in STARTS:
                    pattern = f"{bird}-{start}-{seconds}-{updates}-*.json"
                    paths = sorted(options.out.glob(pattern))
                    cells = [json.loads(path.read_text()) for path in paths]
                    if not cells:
                        continue
                    row = f"| {bird}, {seconds} s | {updates} | {start} |"
                    for key in ("frame_error", "wrong"):
                        values = [cell[key] for cell in cells]
                        each = " / ".join(f"{value:.2f}" for value in values)
                        row += f" {each} | {np.mean(values):.2f} |"
                    lines.append(row)
    return lines


if __name__ == "__main__":
    sys.exit(main())
