"""Agreement of discovered clusters with annotated labels: ``make bench-discover``.

Adjusted mutual information of clusters and labels (0: no better than chance, 1: the
same), for the annotated segments and for those that the detector finds, beside k-means
on mean spectra and durations. Recordings are read from ``../shared/data`` or the folder
NEUROVOCAL_DATA. Rows and columns, and the recordings used for choices:
docs/how-to/discover.md.
"""

import argparse
import json
import os
import sys
import time
import warnings
from collections import defaultdict
from collections.abc import Sequence
from csv import DictReader
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

import numpy as np
import soundfile
import torch
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_mutual_info_score, silhouette_score

from neurovocal.engine.contracts.bundle import load_bundle
from neurovocal.models.discovery.clusters import (
    UNKNOWN,
    default_size,
    find_clusters,
    joined_features,
    make_map,
)
from neurovocal.models.discovery.patches import spec_of, write_patches
from neurovocal.models.discovery.segments import (
    DetectorChoice,
    Segments,
    SourceRecording,
    detect_recording,
)
from neurovocal.models.discovery.states import StateAverager
from neurovocal.models.discovery.vae import VaeSettings, VaeTask
from neurovocal.plugins.features.patches import N_BINS, N_COLUMNS, PatchMaker

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "runs" / "bench-discover.jsonl"
BUNDLE = "bengalese-finch"
WITH_BUNDLE = "with_rnn_rbm"
KINDS = ("annotated", "detected", WITH_BUNDLE)
_LEAST_MEMBERSHIP = 0.05
_MOST_K = 30
_SILHOUETTE_OF = 1000
_STARTS = 4


@dataclass(frozen=True)
class LabelledSet:
    """Annotated recordings that clusters are compared with."""

    name: str
    folder: str
    chosen_on: bool = False
    """Whether choices were made by this set."""
    row: dict[str, str] = field(default_factory=dict)
    """Keep the rows of files.csv with these values."""
    label_of_file: str | None = None
    """Column of files.csv that is the label, in place of the annotations'."""
    with_bundle: bool = False


SETS = [
    LabelledSet("gy6or6 23+24", "finch_gy6or6", True, {"split": "train"}),
    LabelledSet("spoken digits", "spoken_digits", True),
    LabelledSet("gy6or6 25", "finch_gy6or6", row={"split": "valid"}, with_bundle=True),
    LabelledSet("bird0", "finch_bird0", with_bundle=True),
    LabelledSet(
        "zebra typed", "zebra_finch_G402", row={"label_kind": "syllable_types"}
    ),
    LabelledSet("mixes", "noise_mixes"),
    LabelledSet("fly", "fly_song"),
    LabelledSet("bats, species", "bats_europe", label_of_file="species"),
    LabelledSet("spinetail", "field_spinetail"),
]


@dataclass(frozen=True, eq=False)
class Labelled:
    """Segments with labels."""

    recordings: list[SourceRecording]
    segments: Segments
    labels: list[str]
    share: float
    """Of the annotated segments, those that are among them."""


def data_folder() -> Path:
    """Return the folder of the annotated recordings; end the program without one."""
    data = Path(os.environ.get("NEUROVOCAL_DATA", ROOT.parent / "shared" / "data"))
    if not data.is_dir():
        sys.exit(f"no recordings in {data}: set NEUROVOCAL_DATA")
    return data


def annotated(which: LabelledSet, data: Path, most: int) -> Labelled:
    """Read the annotated segments of a set, at most `most` drawn ones."""
    folder = data / which.folder
    files = {
        row["file"]: row
        for row in _rows(folder / "files.csv")
        if all(row[key] == value for key, value in which.row.items())
    }
    recordings, number = [], {}
    for name in files:
        header = soundfile.info(folder / name)
        number[name] = len(recordings)
        recordings.append(
            SourceRecording(
                str(folder / name), header.samplerate, header.channels, header.frames
            )
        )
    found = []
    for row in _rows(folder / "annotations.csv"):
        if row["file"] in files:
            at = number[row["file"]]
            rate = recordings[at].sample_rate
            onset = round(float(row["onset_s"]) * rate)
            offset = round(float(row["offset_s"]) * rate)
            label = row["label"]
            if which.label_of_file:
                label = files[row["file"]][which.label_of_file]
            if offset > onset and label != "-":
                found.append((at, 1, onset, offset, label))
    kept = _drawn(sorted(found), most)
    segments = Segments.of_rows([each[:4] for each in kept])
    return Labelled(recordings, segments, [each[4] for each in kept], 1.0)


def detected(truth: Labelled, most: int) -> Labelled:
    """Detect segments, and give those the labels that overlap an annotation best.

    A segment and an annotation belong together if the intersection is at least half of
    the union; each is used once.
    """
    choice = DetectorChoice("bands")
    by_recording = defaultdict(list)
    for k, at in enumerate(truth.segments.recording):
        by_recording[int(at)].append(k)
    found = []
    for at, recording in enumerate(truth.recordings):
        own = by_recording[at]
        if not own:
            continue
        _, rows = detect_recording(Path(recording.path), at, (1,), choice)
        pairs = []
        for row_number, row in enumerate(rows):
            for k in own:
                onset = int(truth.segments.onset[k])
                offset = int(truth.segments.offset[k])
                common = min(offset, row[3]) - max(onset, row[2])
                union = max(offset, row[3]) - min(onset, row[2])
                if common >= union / 2:
                    pairs.append((common / union, row_number, k))
        used: set[tuple[str, int]] = set()
        for _, row_number, k in sorted(pairs, reverse=True):
            if {("row", row_number), ("truth", k)} & used:
                continue
            used |= {("row", row_number), ("truth", k)}
            found.append((*rows[row_number], truth.labels[k]))
    kept = _drawn(sorted(found), most)
    segments = Segments.of_rows([each[:4] for each in kept])
    share = len(found) / len(truth.segments)
    return Labelled(truth.recordings, segments, [e[4] for e in kept], share)


def _drawn(rows: list[tuple], most: int) -> list[tuple]:  # type: ignore[type-arg]
    if len(rows) <= most:
        return rows
    chosen = np.random.default_rng(0).permutation(len(rows))[:most]
    return [rows[k] for k in np.sort(chosen)]


def _rows(path: Path) -> Sequence[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as stream:
        return list(DictReader(stream))


def patches_of(labelled: Labelled) -> np.ndarray:
    """Return the patches of all segments."""
    segments = labelled.segments
    patches = np.zeros((len(segments), N_COLUMNS, N_BINS), np.uint8)
    spec = spec_of(labelled.recordings, segments.durations_s(labelled.recordings), {})
    for number in np.unique(segments.recording):
        problem = write_patches(
            patches, labelled.recordings, segments, spec, int(number)
        )
        assert problem is None, problem
    return patches


def mean_spectra(labelled: Labelled) -> np.ndarray:
    """Return mean levels of each bin and log duration, standardised."""
    segments = labelled.segments
    durations_s = segments.durations_s(labelled.recordings)
    spec = spec_of(labelled.recordings, durations_s, {})
    rows = np.zeros((len(segments), N_BINS + 1))
    for number in np.unique(segments.recording):
        recording = labelled.recordings[int(number)]
        samples, rate = soundfile.read(recording.path, dtype="float32")
        maker = PatchMaker(spec, rate)
        for k in np.flatnonzero(segments.recording == number):
            onset, offset = int(segments.onset[k]), int(segments.offset[k])
            centres = np.arange(onset, offset, max(1, maker.frame_length // 2))
            rows[k, :-1] = maker.levels(samples, centres.astype(float)).mean(0)
    rows[:, -1] = np.log(durations_s)
    return (rows - rows.mean(0)) / np.maximum(rows.std(0), 1e-9)


def k_means(points: np.ndarray, k: int, seed: int) -> np.ndarray:
    """Return the clusters of k-means."""
    return KMeans(k, n_init=_STARTS, random_state=seed).fit_predict(points)


def k_by_silhouette(points: np.ndarray, seed: int) -> int:
    """Return the number of clusters with the best mean silhouette."""
    best, chosen = -np.inf, 2
    for k in range(2, min(_MOST_K, len(points) - 1) + 1):
        found = KMeans(k, n_init=1, random_state=seed).fit_predict(points)
        sample = min(_SILHOUETTE_OF, len(points))
        score = silhouette_score(points, found, sample_size=sample, random_state=seed)
        if score > best:
            best, chosen = score, k
    return chosen


def discovered(
    patches: np.ndarray, more: list[np.ndarray], seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the clusters as ``neurovocal discover`` finds them, and the features."""
    task = VaeTask(patches, VaeSettings(), seed)
    task.module.train()
    for update in range(task.updates):
        task.begin(update / task.updates)
        task.step(update / task.updates)
    task.module.eval()
    features = joined_features([task.features(), *more], seed)
    places = make_map(features, seed)
    found = find_clusters(places, features, default_size(len(features)), seed)
    labels = np.where(found.membership < _LEAST_MEMBERSHIP, UNKNOWN, found.labels)
    return labels, features


def measure(which: LabelledSet, data: Path, kind: str, seed: int, most: int) -> dict:
    """Return the figures of a set for one seed."""
    began = time.monotonic()
    labelled = annotated(which, data, most if kind == "annotated" else 10**9)
    if kind == "detected":
        labelled = detected(labelled, most)
    truth = labelled.labels
    k = len(set(truth))
    row = {
        "set": which.name,
        "kind": kind,
        "seed": seed,
        "segments": len(truth),
        "labels": k,
        "share": labelled.share,
    }
    if len(truth) < 10 or k < 2:
        return row
    spectra, patches = mean_spectra(labelled), patches_of(labelled)
    row["k_means"] = _ami(truth, k_means(spectra, k, seed))
    chosen = k_by_silhouette(spectra, seed)
    row["k_silhouette"] = chosen
    row["k_means_silhouette"] = _ami(truth, k_means(spectra, chosen, seed))
    flat = patches.reshape(len(patches), -1).astype(float)
    row["k_means_patches"] = _ami(truth, k_means(flat, k, seed))
    row |= _figures(truth, discovered(patches, [], seed)[0], "discover")
    row["seconds"] = round(time.monotonic() - began, 1)
    return row


def measure_with_bundle(which: LabelledSet, data: Path, seed: int, most: int) -> dict:
    """Return the figures with the states of a bundle's RNN-RBM as further features."""
    labelled = annotated(which, data, most)
    truth, patches = labelled.labels, patches_of(labelled)
    row = {"set": which.name, "kind": WITH_BUNDLE, "seed": seed}
    averager = StateAverager(load_bundle(BUNDLE))
    states = np.zeros((len(truth), averager.n_features), np.float32)
    for number in np.unique(labelled.segments.recording):
        averager.write(states, labelled.recordings, labelled.segments, int(number))
    return row | _figures(truth, discovered(patches, [states], seed)[0], WITH_BUNDLE)


def _figures(truth: list[str], found: np.ndarray, name: str) -> dict:
    known = found != UNKNOWN
    return {
        name: _ami(truth, found),
        f"{name}_clusters": len(set(found[known])),
        f"{name}_unknown": float(1 - known.mean()),
    }


def _ami(truth: list[str], found: np.ndarray) -> float:
    return float(adjusted_mutual_info_score(truth, found))


def print_table(rows: list[dict]) -> None:
    """Print means over seeds, then means over sets."""
    columns = ("k_means", "k_means_silhouette", "k_means_patches", "discover")
    print(
        "| set | segments | labels | of annotated | k-means, true k | k by silhouette "
        "| k-means on patches, true k | discover | range | clusters | unknown | "
        "with RNN-RBM |"
    )
    print("| --- |" + " --: |" * 11)
    means = defaultdict(list)
    chosen = {each.name: each.chosen_on for each in SETS}
    for kind in ("annotated", "detected"):
        for which in SETS:
            own = [r for r in rows if (r["set"], r["kind"]) == (which.name, kind)]
            own = [r for r in own if "discover" in r]
            if not own:
                continue
            mean = {c: float(np.mean([r[c] for r in own])) for c in columns}
            for group in ("all", "chosen" if chosen[which.name] else "others"):
                means[kind, group].append([mean[c] for c in columns])
            low, high = (f([r["discover"] for r in own]) for f in (min, max))
            more = [
                r[WITH_BUNDLE]
                for r in rows
                if (r["set"], r["kind"]) == (which.name, WITH_BUNDLE)
                and kind == "annotated"
            ]
            n_clusters = np.mean([r["discover_clusters"] for r in own])
            unknown = np.mean([r["discover_unknown"] for r in own])
            cells = " | ".join(f"{mean[c]:.3f}" for c in columns)
            star = "*" if chosen[which.name] else ""
            print(
                f"| {which.name}{star}, {kind} | {own[0]['segments']} "
                f"| {own[0]['labels']} | {100 * own[0]['share']:.0f} % | {cells} "
                f"| {low:.3f} to {high:.3f} | {n_clusters:.0f} "
                f"| {100 * unknown:.0f} % | {f'{np.mean(more):.3f}' if more else ''} |"
            )
    for (kind, group), values in means.items():
        cells = " | ".join(f"{value:.3f}" for value in np.mean(values, axis=0))
        print(f"| mean of {len(values)}: {group}, {kind} | | | | {cells} | | | | |")


def main() -> int:
    """Measure the sets that have no result yet, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="sets whose name contains this")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--most", type=int, default=1000, help="segments of a set")
    parser.add_argument("--results", type=Path, default=RESULTS, help="kept rows")
    parser.add_argument("--print", action="store_true", help="print kept rows only")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    kept = arguments.results
    kept.parent.mkdir(parents=True, exist_ok=True)
    rows = (
        [json.loads(line) for line in kept.read_text().splitlines()]
        if kept.is_file()
        else []
    )
    if not arguments.print:
        data = data_folder()
        done = {(r["set"], r["kind"], r["seed"]) for r in rows}
        for seed in range(arguments.seeds):
            for kind, which in product(KINDS, SETS):
                if arguments.only not in which.name:
                    continue
                if (which.name, kind, seed) in done:
                    continue
                if kind != WITH_BUNDLE:
                    row = measure(which, data, kind, seed, arguments.most)
                elif which.with_bundle:
                    row = measure_with_bundle(which, data, seed, arguments.most)
                else:
                    continue
                print(json.dumps(row), file=sys.stderr, flush=True)
                rows.append(row)
                with kept.open("a") as file:
                    file.write(json.dumps(row) + "\n")
    print_table(rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
