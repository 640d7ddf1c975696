"""Folds of a cross-validation: whole days or recordings, each left out once."""

from pathlib import Path

import pytest

from neurovocal.models.data.annotations import Annotation
from neurovocal.models.data.datasets import AnnotatedRecording
from neurovocal.models.data.split.folds import make_folds
from neurovocal.models.data.split.recordings import Split
from neurovocal.models.toolkit.recipe import SplitConfig


def recording(name: str, seconds: float = 10.0, **columns: str) -> AnnotatedRecording:
    found = (Annotation(1.0, 1.1, "a"),)
    return AnnotatedRecording(name, Path(name), seconds, 32_000, found, columns)


def split(*recordings: AnnotatedRecording, n_valid: int = 1) -> Split:
    return Split([*recordings[:-n_valid]], [*recordings[-n_valid:]], [], "by hand")


def test_every_recording_is_left_out_once_in_folds_of_similar_length() -> None:
    lengths = [30, 10, 10, 10, 25, 5, 20, 10]
    given = split(*(recording(f"{n}.wav", s) for n, s in enumerate(lengths)))
    folds = make_folds(given, SplitConfig(), seed=3)
    assert folds.left_out == list(range(8))
    seconds = [sum(lengths[n] for n in part) for part in folds.parts]
    assert len(seconds) == 4
    assert max(seconds) <= 35
    assert folds.rule == "4 parts, by recordings"


def test_a_day_is_never_on_both_sides() -> None:
    days = ["mon", "tue", "mon", "wed", "tue", "mon"]
    given = split(*(recording(f"{n}.wav", day=day) for n, day in enumerate(days)))
    folds = make_folds(given, SplitConfig(), seed=0)
    assert sorted(folds.parts) == [[0, 2, 5], [1, 4], [3]]
    assert folds.rule == "3 parts, by days (day)"
    assert "recordings" in make_folds(given, SplitConfig(day=""), seed=0).rule


@pytest.mark.parametrize("days", [["mon", "", "tue"], ["mon", "mon", "mon"]])
def test_without_a_day_for_each_recording_parts_are_recordings(days: list[str]) -> None:
    given = split(*(recording(f"{n}.wav", day=day) for n, day in enumerate(days)))
    folds = make_folds(given, SplitConfig(folds=3), seed=0)
    assert folds.rule == "3 parts, by recordings"


def test_channels_of_a_file_and_parts_of_a_recording_stay_together() -> None:
    one = recording("one.wav", 20.0)
    parts = [
        AnnotatedRecording(
            one.file, one.path, 20.0, 32_000, one.annotations, {}, start, start + 10
        )
        for start in (0.0, 10.0)
    ]
    rest = [recording(f"{n}.wav") for n in range(3)]
    folds = make_folds(split(*parts, *rest), SplitConfig(), seed=0)
    assert [0, 1] in folds.parts


def test_named_validation_recordings_are_the_only_fold() -> None:
    given = split(*(recording(f"{n}.wav") for n in range(6)), n_valid=2)
    named = Split(given.train, given.valid, [], "by hand", names_valid=True)
    assert make_folds(named, SplitConfig(), 0).parts == [[4, 5]]
    assert make_folds(given, SplitConfig(folds=1), 0).parts == [[4, 5]]
