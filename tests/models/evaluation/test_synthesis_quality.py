"""``neurovocal evaluate --synthesis``: measures of real and generated song."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from processes.cli_process import RECORDING, ROOT, neurovocal

from neurovocal.engine.contracts.bundle import load_bundle
from neurovocal.engine.contracts.errors import ConfigError
from neurovocal.models.data.annotations import Annotation
from neurovocal.models.data.datasets import AnnotatedRecording
from neurovocal.models.evaluation.labelling import Labeller
from neurovocal.models.evaluation.synthesis.quality import split_dataset
from neurovocal.models.evaluation.synthesis.songs import generate_songs, unit_sequences

BUNDLE = ROOT / "models" / "pretrained" / "bengalese-finch"


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the two halves of the shipped recording, labelled by the shipped bundle."""
    folder = tmp_path_factory.mktemp("song")
    samples, rate = soundfile.read(RECORDING, dtype="float32")
    label = Labeller(load_bundle(BUNDLE))
    rows = []
    for name, half in zip("ab", np.array_split(samples, 2), strict=True):
        soundfile.write(folder / f"{name}.wav", half, rate)
        for found in label(half).labels:
            assert found.offset is not None
            times = found.onset / rate, found.offset / rate
            rows.append([f"{name}.wav", *times, found.unit])
    with (folder / "annotations.csv").open("w", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(["file", "onset_s", "offset_s", "label"])
        table.writerows(rows)
    return folder


def test_command_measures_real_generated_and_baseline_song(dataset: Path) -> None:
    done = neurovocal(
        "evaluate", BUNDLE, dataset, "--synthesis", "--seconds", 1, "--json"
    )
    assert done.code == 0, done.err
    quality = json.loads(done.out)
    rows = quality["rows"]
    assert {"real", "mean", "sampled", "mean_residual", "shuffled", "ar8"} <= set(rows)
    assert quality["seconds"] == 32
    drawn, mixed = rows["mean_residual"], rows["shuffled"]
    assert rows["real"]["frechet_distance"] < mixed["frechet_distance"]
    assert rows["real"]["modulation_correlation"] > mixed["modulation_correlation"]
    assert rows["mean"]["repeats_percent"] > drawn["repeats_percent"]
    assert all(row["units_per_s"] > 0 for row in rows.values())
    assert 0 < quality["order_0_divergence_bits"] < 1


def test_generated_song_depends_on_the_seed_alone() -> None:
    bundle = load_bundle(BUNDLE)
    starts = [np.zeros((20, 129), np.float32)] * 2

    def draw(seed: int) -> list[np.ndarray]:
        return generate_songs(
            bundle, "mean_residual", starts, 300, seed, lambda s: None
        )

    first, again, other = draw(1), draw(1), draw(2)
    np.testing.assert_array_equal(first, again)
    assert np.abs(first[0] - other[0]).max() > 0.01
    assert np.abs(first[0] - first[1]).max() > 0.01


def recordings(*files: str) -> list[AnnotatedRecording]:
    segment = (Annotation(0.1, 0.2, "a"),)
    return [AnnotatedRecording(file, Path(file), 1.0, 32000, segment) for file in files]


def test_dataset_is_split_by_the_recordings_of_the_manifest() -> None:
    bundle = load_bundle(BUNDLE)
    named = bundle.manifest.training["recordings"]
    files = [named[part][0] for part in ("train", "valid", "test")]
    split = split_dataset(bundle, recordings(*files), "test")
    assert [[r.file for r in p] for p in (split.known, split.held_out)] == [
        [files[0]],
        [files[2]],
    ]
    assert (
        split_dataset(bundle, recordings(*files), "valid").held_out[0].file == files[1]
    )
    with pytest.raises(ConfigError, match=r"training\.recordings\.test"):
        split_dataset(bundle, recordings(files[0]), "test")


def test_recordings_unknown_to_the_manifest_are_halved() -> None:
    split = split_dataset(load_bundle(BUNDLE), recordings("1", "2", "3"), "test")
    assert [r.file for r in split.known] == ["1", "3"]
    assert [r.file for r in split.held_out] == ["2"]


def test_unknown_unit_ends_a_sequence() -> None:
    units = "ab?ba"
    annotations = tuple(
        Annotation(i / 10, i / 10 + 0.05, unit) for i, unit in enumerate(units)
    )
    recording = AnnotatedRecording("x", Path("x"), 1.0, 32000, annotations)
    assert unit_sequences([recording], {"a": 0, "b": 1}) == [[0, 1], [1, 0]]


def test_bundle_without_rnn_rbm_is_refused(dataset: Path, tmp_path: Path) -> None:
    from bundles.tiny_bundle import make_tiny_bundle

    folder = make_tiny_bundle(tmp_path / "silent", rnn_rbm=False)
    done = neurovocal("evaluate", folder, dataset, "--synthesis")
    assert done.code == 1
    assert "has no rnn_rbm to draw song from" in done.err
