"""Checks before a training: all mistakes at once, and what is told."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from neurovocal.engine.contracts.errors import ConfigError
from neurovocal.models.data.datasets import read_dataset
from neurovocal.models.toolkit.recipe import TrainConfig
from neurovocal.models.training.checks import check_training

RATE = 8000


def make_dataset(
    folder: Path,
    n_files: int = 6,
    seconds: float = 3.0,
    split: list[str] | None = None,
    labels: str = "ab",
) -> Path:
    rows = ["file,onset_s,offset_s,label"]
    for n in range(n_files):
        samples = np.random.default_rng(n).normal(0, 0.1, round(seconds * RATE))
        soundfile.write(folder / f"r{n}.wav", samples, RATE)
        onsets = np.arange(0.05, seconds - 0.1, 0.2)
        rows += [
            f"r{n}.wav,{t:.3f},{t + 0.1:.3f},{labels[k % len(labels)]}"
            for k, t in enumerate(onsets)
        ]
    (folder / "annotations.csv").write_text("\n".join(rows) + "\n")
    if split:
        table = ["file,split", *(f"r{n}.wav,{word}" for n, word in enumerate(split))]
        (folder / "files.csv").write_text("\n".join(table) + "\n")
    return folder


def check(folder: Path, n_bins: int | None = None, **recipe: Any) -> list[str]:
    config = TrainConfig.model_validate(recipe)
    plan, _ = check_training(read_dataset(folder), config, n_bins, lambda share: None)
    return plan.warnings


def refused(folder: Path, n_bins: int | None = None, **recipe: Any) -> list[str]:
    with pytest.raises(ConfigError) as error:
        check(folder, n_bins, **recipe)
    return error.value.problems


def test_a_good_dataset_has_no_notes(tmp_path: Path) -> None:
    assert check(make_dataset(tmp_path)) == []


def test_mistakes_of_sound_and_split_are_told_together(tmp_path: Path) -> None:
    make_dataset(tmp_path, split=["train", "train", "trian", "valid", "test", "test"])
    samples = np.full(RATE * 3, np.nan, np.float32)
    soundfile.write(tmp_path / "r5.wav", samples, RATE, subtype="FLOAT")
    found = refused(tmp_path)
    assert any("r5.wav: 24000 samples are not finite" in one for one in found)
    assert any("files.csv:4: split is 'trian'" in one for one in found)


@pytest.mark.parametrize("n_bins", [None, 129])
def test_recordings_too_short_for_the_rnn_rbm_are_told_before(
    tmp_path: Path, n_bins: int | None
) -> None:
    make_dataset(tmp_path, seconds=1.0)
    found = refused(tmp_path, n_bins)
    assert "no training recording has 81 frames of song, the longest has" in found[0]
    assert "rnn_rbm: null" in found[0]
    assert check(tmp_path, n_bins, rnn_rbm=None) == []


def test_a_test_recording_too_short_to_be_measured_is_told(tmp_path: Path) -> None:
    make_dataset(tmp_path, split=["train"] * 4 + ["valid", "test"])
    samples = np.random.default_rng(9).normal(0, 0.1, 2000)
    soundfile.write(tmp_path / "r5.wav", samples, RATE)
    table = (tmp_path / "annotations.csv").read_text().splitlines()
    kept = [row for row in table if not row.startswith("r5.wav")]
    rows = "\n".join([*kept, "r5.wav,0.05,0.15,a"])
    (tmp_path / "annotations.csv").write_text(rows + "\n")
    assert "more than 16 frames" in refused(tmp_path)[-1]


def test_a_part_without_segments_of_a_unit_is_told(tmp_path: Path) -> None:
    make_dataset(tmp_path, split=["train"] * 4 + ["valid", "test"])
    table = (tmp_path / "annotations.csv").read_text()
    rows = [
        row.rpartition(",")[0] + ",z" if row.startswith("r5.wav") else row
        for row in table.splitlines()
    ]
    (tmp_path / "annotations.csv").write_text("\n".join(rows) + "\n")
    (problem,) = refused(tmp_path)
    assert problem.startswith("the test split has no segment of a unit")


def test_a_bundle_with_another_number_of_bins_is_refused_before(tmp_path: Path) -> None:
    (problem,) = refused(make_dataset(tmp_path), 64)
    assert (
        "the bundle of --from has 64 bins, the recipe's front_end makes 129" in problem
    )


@pytest.mark.parametrize("rate", [RATE, 4 * RATE])
def test_recordings_of_another_rate_than_the_front_end_are_told(
    tmp_path: Path, rate: int
) -> None:
    options = {"frame_length": 256, "hop_length": 128}
    notes = check(
        make_dataset(tmp_path), front_end={"sample_rate": rate, "options": options}
    )
    told = [note for note in notes if "6 at 8000 Hz" in note]
    assert bool(told) == (rate != RATE)
    if told:
        assert "hold nothing above 4000 Hz" in told[0]


def test_one_sound_in_two_parts_is_refused(tmp_path: Path) -> None:
    make_dataset(tmp_path, split=["train"] * 4 + ["valid", "test"])
    (tmp_path / "r5.wav").write_bytes((tmp_path / "r0.wav").read_bytes())
    assert "'r0.wav' and 'r5.wav' hold the same sound" in refused(tmp_path)[0]


def test_silent_recordings_are_told(tmp_path: Path) -> None:
    make_dataset(tmp_path)
    soundfile.write(tmp_path / "r2.wav", np.zeros(3 * RATE), RATE)
    assert any("1 of 6 recordings hold no sound" in note for note in check(tmp_path))
