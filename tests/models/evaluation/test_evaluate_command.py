"""`neurovocal evaluate`: what is refused and told before anything is computed."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
from bundles.tiny_bundle import edit_manifest, make_tiny_bundle

from neurovocal.engine.contracts.bundle import load_bundle
from neurovocal.engine.contracts.errors import ConfigError
from neurovocal.models.commands.evaluate import evaluate
from neurovocal.models.data.datasets import read_dataset
from neurovocal.models.evaluation.evaluate import left_out_notes, trained_notes

BUNDLE = "bengalese-finch"
RATE = 32_000


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    folder = tmp_path / "songs"
    folder.mkdir()
    known = load_bundle(BUNDLE).manifest.classifier.units[1]
    rows = ["file,onset_s,offset_s,label"]
    for name in ("r0", "r1"):
        noise = np.random.default_rng(0).normal(0, 0.01, RATE)
        noise[0] = len(name) + int(name[1]) / 10
        soundfile.write(folder / f"{name}.wav", noise, RATE, subtype="FLOAT")
        labels = (known, "w1", "w2", "w1")
        rows += [f"{name}.wav,{k / 5},{k / 5 + 0.1},{u}" for k, u in enumerate(labels)]
    (folder / "annotations.csv").write_text("\n".join(rows) + "\n")
    (folder / "files.csv").write_text("File,Split\nr0.wav,Train\nr1.wav,Val\n")
    return folder


def refused(*arguments: object, **options: object) -> list[str]:
    with pytest.raises(ConfigError) as error:
        evaluate(*arguments, **options)
    return error.value.problems


def test_labels_that_are_left_out_are_told_with_their_number(dataset: Path) -> None:
    recordings = read_dataset(dataset).recordings
    assert left_out_notes(load_bundle(BUNDLE), recordings) == [
        "6 of 8 segments are left out of the measures, for their labels are no units "
        "of the bundle: 'w1' (4), 'w2' (2)"
    ]


def test_recordings_of_the_training_are_told_by_name(tmp_path: Path) -> None:
    bundle = load_bundle(BUNDLE)
    trained = bundle.manifest.training["recordings"]["train"][0]
    tested = bundle.manifest.training["recordings"]["test"][0]
    for name in (trained, tested, "new.wav"):
        path = tmp_path / Path(name).name
        noise = np.random.default_rng(0).normal(0, 0.01, RATE)
        soundfile.write(path, noise, RATE)
    names = sorted(path.name for path in tmp_path.iterdir())
    rows = [f"{name},0.1,0.2,a" for name in names]
    (tmp_path / "annotations.csv").write_text(
        "\n".join(["file,onset_s,offset_s,label", *rows])
    )
    recordings = read_dataset(tmp_path).recordings
    assert trained_notes(bundle, recordings) == [
        "1 of 3 recordings have names of recordings that this bundle was trained on, "
        f"such as '{Path(trained).name}': their figures are better than those of new "
        "recordings"
    ]
    assert trained_notes(bundle, [r for r in recordings if r.file == "new.wav"]) == []


def test_damaged_recordings_and_foreign_labels_are_told_together(dataset: Path) -> None:
    samples, _ = soundfile.read(dataset / "r0.wav")
    samples[5] = np.nan
    soundfile.write(dataset / "r0.wav", samples, RATE, subtype="FLOAT")
    table = (dataset / "annotations.csv").read_text()
    known = load_bundle(BUNDLE).manifest.classifier.units[1]
    (dataset / "annotations.csv").write_text(table.replace(f",{known}\n", ",w3\n"))
    first, second = refused(BUNDLE, dataset)
    assert "the bundle knows none of the dataset's labels" in first
    assert "r0.wav: 1 samples are not finite" in second


def test_all_mistakes_of_the_arguments_are_told_together(
    dataset: Path, tmp_path: Path
) -> None:
    found = refused(
        "no-such-bundle",
        dataset / "gone",
        picture=tmp_path / "no" / "p.png",
        report=dataset / "r0.wav",
    )
    assert len(found) == 5
    for word in (
        "--synthesis",
        "'no-such-bundle'",
        "gone",
        "no' does not",
        "is a file",
    ):
        assert any(word in one for one in found), word


@pytest.mark.parametrize("value", ["valid", "Val", "validation"])
def test_a_split_is_selected_by_its_meaning(dataset: Path, value: str) -> None:
    for name in ("r0.wav", "r1.wav"):
        samples = np.full(RATE, np.nan, np.float32)
        soundfile.write(dataset / name, samples, RATE, subtype="FLOAT")
    (problem,) = refused(BUNDLE, dataset, split=f"split={value}")
    assert "r1.wav: 32000 samples are not finite" in problem


def test_a_value_that_no_recording_has_is_told_with_those_there_are(
    dataset: Path,
) -> None:
    (problem,) = refused(BUNDLE, dataset, split="Split=test")
    assert problem.endswith("no such recording (there is Train, Val)")
    (problem,) = refused(BUNDLE, dataset, split="day=3")
    assert problem.endswith("(there is no column 'day')")


def test_a_picture_of_another_format_is_refused_first(
    dataset: Path, tmp_path: Path
) -> None:
    picture = tmp_path / "songs.jpg"
    (problem,) = refused(BUNDLE, dataset, synthesis=True, picture=picture)
    assert problem.endswith("songs.jpg': a picture is a PNG: end it in .png")


@pytest.mark.parametrize("kind", ["same", "link", "symbolic link"])
def test_a_picture_never_replaces_a_recording(dataset: Path, kind: str) -> None:
    recording = dataset / "r0.wav"
    before = recording.read_bytes()
    picture = recording
    if kind != "same":
        picture = dataset / "p.png"
        if kind == "link":
            picture.hardlink_to(recording)
        else:
            picture.symlink_to(recording)
    (problem,) = refused(BUNDLE, dataset, synthesis=True, picture=picture)
    assert "exists and is a recording, not a PNG picture" in problem
    assert recording.read_bytes() == before


def test_a_report_replaces_no_page_of_another_kind(dataset: Path) -> None:
    page = dataset / "index.html"
    page.write_text("<html><title>My songs</title></html>")
    (problem,) = refused(BUNDLE, dataset, report=dataset)
    assert "not a report: it would be lost" in problem
    assert "My songs" in page.read_text()


def test_recordings_that_are_too_short_are_told(dataset: Path) -> None:
    for name in ("r0.wav", "r1.wav"):
        soundfile.write(dataset / name, np.ones(1500), RATE)
    units = load_bundle(BUNDLE).manifest.classifier.units
    rows = [f"{name}.wav,0.01,0.03,{units[1]}" for name in ("r0", "r1")]
    text = "\n".join(["file,onset_s,offset_s,label", *rows])
    (dataset / "annotations.csv").write_text(text + "\n")
    found = refused(BUNDLE, dataset)
    assert "too short to predict a frame of them" in found[0]
    assert "2 of 2 recordings hold no sound" in found[1]


def test_fast_labels_need_a_classifier(dataset: Path, tmp_path: Path) -> None:
    folder = make_tiny_bundle(tmp_path / "tiny")
    edit_manifest(folder, classifier=None)
    found = refused(str(folder), dataset, fast=True, synthesis=True)
    assert found == [
        "--fast stands alone: leave --synthesis and --report out",
        f"--fast: bundle '{folder}' has no classifier",
    ]
