"""Accuracy of labels by data set, network and seed: ``make bench-labels``.

Each cell (set, network, seed) is a classifier trained with the recommended recipe,
tested once and stored under runs/labels; stored cells are not computed again, and an
interrupted training is resumed. One thread. The tables of docs/performance/labels.md
are printed as Markdown on stdout, progress on stderr.
"""

import argparse
import os

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

import csv
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from label_tables import draw, tables

from neurovocal.engine.contracts.bundle import Bundle, load_bundle
from neurovocal.engine.contracts.errors import EXIT_CLEAN, NeurovocalError
from neurovocal.models.data.datasets import read_dataset
from neurovocal.models.data.frames import read_samples
from neurovocal.models.evaluation.labelling import Labeller
from neurovocal.models.toolkit.loop import stop_on_signal
from neurovocal.models.toolkit.onnx_session import Session
from neurovocal.models.toolkit.progress import Reporter
from neurovocal.models.toolkit.recipe import (
    DetectorConfig,
    SplitConfig,
    TrainConfig,
    load_config,
)
from neurovocal.models.training.train import train_bundle
from neurovocal.models.training.workspace import TrainingJob

ROOT = Path(__file__).resolve().parents[2]
# Folder, and the options of the recipe for its recordings.
SETS: dict[str, dict[str, Any]] = {
    "gy6or6": {"folder": "finch_gy6or6"},
    "bird0": {"folder": "finch_bird0"},
    "zebra": {
        "folder": "zebra_finch_G402",
        "split": {"only": {"label_kind": ["syllable_types"]}},
    },
    "digits": {"folder": "spoken_digits"},
    "digits-new-speaker": {
        "folder": "spoken_digits",
        "split": {"column": "speaker", "test": ["yweweler"]},
    },
}
NETWORKS: dict[str, dict[str, Any]] = {
    "gru": {},
    "lstm": {"architecture": "lstm", "n_hidden": 128},
    "lstm-last": {},  # the classifier of train-source.yaml
    "tcn": {"architecture": "tcn", "n_hidden": 64, "n_layers": 7},
    "conv_gru": {"architecture": "conv_gru"},
}
# Fitted with the recipe's network on gy6or6, for every seed: all networks get the
# same segments.
SAME_DETECTOR = DetectorConfig(fit=False, options={"hop_ms": 0.5})
# Sounds that the bundle of gy6or6 must label `unknown`.
FOREIGN = {
    "song of another Bengalese finch": ("finch_bird0", ("split", "valid")),
    "zebra finch, song, calls and noise": ("zebra_finch_G402", None),
    "speech": ("spoken_digits", ("index", "0")),
    "dog, rooster, baby, rain, sea, helicopter": ("env_sounds", None),
}
TIMED_FRAMES, TILE = 4000, 8


def main() -> int:
    """Compute the missing cells, then print the tables."""
    options = read_options()
    options.out.mkdir(parents=True, exist_ok=True)
    reporter, code = Reporter(), EXIT_CLEAN
    try:
        for name in options.sets:
            for network in options.networks if name == "gy6or6" else ["gru"]:
                for seed in options.seeds:
                    make_cell(name, network, seed, options, reporter)
        if options.foreign:
            measure_foreign(options, reporter)
    except NeurovocalError as error:
        code = error.exit_code
        reporter.print_message(str(error))
    print("\n".join(tables(options.out)))
    if options.picture:
        draw(options.out, options.picture)
    return code


def read_options() -> argparse.Namespace:
    """Parse the arguments."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    data = Path(os.environ.get("NEUROVOCAL_DATA", ROOT / "../shared/data"))
    parser.add_argument("--data", type=Path, default=data)
    parser.add_argument("--out", type=Path, default=ROOT / "runs/labels")
    parser.add_argument("--sets", nargs="*", choices=SETS, default=list(SETS))
    parser.add_argument(
        "--networks",
        nargs="+",
        choices=NETWORKS,
        default=list(NETWORKS),
        help="on gy6or6; the other sets are for the recipe's own network",
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument(
        "--picture", type=Path, metavar="SVG", help="draw labels in time, too"
    )
    parser.add_argument(
        "--no-foreign", dest="foreign", action="store_false", help="skip that table"
    )
    return parser.parse_args()


def recipe_of(name: str, network: str, seed: int) -> TrainConfig:
    """Return the recommended recipe without the RNN-RBM, with the changes of a cell."""
    recipe = load_config(ROOT / "configs/train.yaml")
    classifier = recipe.classifier
    assert classifier is not None
    if network == "lstm-last":
        classifier = load_config(ROOT / "configs/train-source.yaml").classifier
    else:
        changes = {**classifier.model_dump(), **NETWORKS[network]}
        classifier = type(classifier).model_validate(changes)
    return recipe.model_copy(
        update={
            "seed": seed,
            "classifier": classifier,
            "rnn_rbm": None,
            "detector": recipe.detector if network == "gru" else SAME_DETECTOR,
            "split": SplitConfig.model_validate(SETS[name].get("split", {})),
        }
    )


def make_cell(
    name: str, network: str, seed: int, options: argparse.Namespace, reporter: Reporter
) -> None:
    """Train, test and store one cell, unless it is stored already."""
    recipe = recipe_of(name, network, seed)
    path = options.out / f"{name}-{network}-{seed}.json"
    wanted = recipe.model_dump(mode="json")
    if path.is_file() and json.loads(path.read_text())["recipe"] == wanted:
        return
    reporter.print_message(f"{name} {network} seed {seed}")
    began = time.process_time()
    folder = options.out / "bundles" / path.stem
    job = TrainingJob(options.data / SETS[name]["folder"], folder, overwrite=True)
    with stop_on_signal() as stop:
        bundle = train_bundle(job, recipe, reporter, stop)
    manifest = bundle.manifest
    cell = {
        "set": name,
        "network": network,
        "seed": seed,
        "recipe": wanted,
        "cpu_s": round(time.process_time() - began, 1),
        "seconds": manifest.training["seconds"],
        "trained": manifest.training["networks"]["classifier"],
        "detector": manifest.detector.options if manifest.detector else {},
        "parameters": parameters_of(bundle),
        "us_per_frame": round(us_per_frame(bundle), 1),
        "figures": manifest.figures,
    }
    temporary = path.with_name(f"{path.name}.new")
    temporary.write_text(json.dumps(cell, indent=1) + "\n")
    temporary.replace(path)


def parameters_of(bundle: Bundle) -> int:
    """Count the parameters in the classifier's graph."""
    import onnx

    graph = onnx.load(bundle.path("classifier.onnx")).graph
    return sum(int(np.prod(t.dims)) for t in graph.initializer if len(t.dims))


def us_per_frame(bundle: Bundle) -> float:
    """Measure the CPU time of the graph per frame, in us: one thread, tiles of 8."""
    spec = bundle.manifest.classifier
    assert spec is not None
    session = Session(bundle.path(spec.file))
    rng = np.random.default_rng(0)
    tile = rng.random((TILE, bundle.manifest.front_end.n_bins), np.float32)
    state = {name: np.zeros(shape, np.float32) for name, shape in spec.state.items()}
    best = float("inf")
    for _ in range(5):
        began = time.process_time()
        for _ in range(TIMED_FRAMES // TILE):
            session.run(frames=tile, **state)
        best = min(best, (time.process_time() - began) / TIMED_FRAMES)
    return best * 1e6


def measure_foreign(options: argparse.Namespace, reporter: Reporter) -> None:
    """Label foreign sounds and the bird's own song; store the posteriors."""
    folder = options.out / "bundles" / "gy6or6-gru-0"
    path = options.out / "foreign.json"
    if not folder.is_dir():
        reporter.print_message("no cell gy6or6 gru 0: no table of foreign sounds")
        return
    bundle = load_bundle(folder)
    digest = bundle.manifest.files["classifier.onnx"]
    if path.is_file() and json.loads(path.read_text())["bundle"] == digest:
        return
    labeller = Labeller(bundle)
    rows = {"own song, another day": ("finch_gy6or6", ("split", "valid")), **FOREIGN}
    found = {}
    for title, (name, only) in rows.items():
        reporter.print_message(f"foreign: {title}")
        source = Path(options.data) / name
        recordings = _recordings(source, only)
        labels = [
            (label.unit, label.posterior)
            for recording in recordings
            for label in labeller(
                read_samples(recording, bundle.manifest.front_end.sample_rate)
            ).labels
        ]
        found[title] = {
            "seconds": round(sum(r.part_duration_s for r in recordings), 1),
            "unknown": [p for unit, p in labels if unit == "unknown"],
            "named": [p for unit, p in labels if unit != "unknown"],
        }
    path.write_text(json.dumps({"bundle": digest, "sounds": found}) + "\n")


def _recordings(source: Path, only: tuple[str, str] | None) -> list[Any]:
    """Read the recordings of a folder, with or without annotations."""
    if (source / "annotations.csv").is_file():
        recordings = list(read_dataset(source).recordings)
    else:
        import soundfile

        from neurovocal.models.data.datasets import AnnotatedRecording

        recordings = []
        with (source / "files.csv").open(newline="") as stream:
            for row in csv.DictReader(stream):
                about = soundfile.info(source / row["file"])
                recordings.append(
                    AnnotatedRecording(
                        row["file"],
                        source / row["file"],
                        about.duration,
                        about.samplerate,
                        (),
                        dict(row),
                    )
                )
    if only is None:
        return recordings
    return [r for r in recordings if r.columns.get(only[0]) == only[1]]


if __name__ == "__main__":
    sys.exit(main())
