"""Units of the classifier: reserved words, rare labels, segments without a frame."""

from pathlib import Path

import pytest

from neurovocal.engine.contracts.bundle import ClassifierSpec
from neurovocal.engine.contracts.errors import ConfigError
from neurovocal.models.data.annotations import Annotation
from neurovocal.models.data.datasets import AnnotatedRecording
from neurovocal.models.data.split.recordings import Split
from neurovocal.models.data.targets import FrameGrid, Units, targets_of
from neurovocal.models.data.units import absent_units, choose_units
from neurovocal.models.toolkit.measures import IGNORED
from neurovocal.models.toolkit.recipe import UnitsConfig

RATE = 8000
GRID = FrameGrid(RATE, 80, 160)  # centres 10 ms apart, the first at 10 ms


def song(labels: str | list[str], length_s: float = 0.05) -> AnnotatedRecording:
    """Annotate a recording with a segment every 100 ms, from 0.1 s on."""
    segments = [
        Annotation(0.1 + k / 10, 0.1 + k / 10 + length_s, label)
        for k, label in enumerate(labels)
    ]
    duration_s = 0.3 + len(labels) / 10
    return AnnotatedRecording("r", Path("r"), duration_s, RATE, tuple(segments))


@pytest.mark.parametrize("rare", ["ignore", "merge", "keep"])
@pytest.mark.parametrize("word", ["unknown", "-"])
def test_words_for_an_unknown_unit_are_no_unit(word: str, rare: str) -> None:
    one = song(["a", "b", word] * 6)
    config = UnitsConfig.model_validate({"rare": rare})
    units, (note,) = choose_units([one], [one], config)
    assert units.names == ["", "a", "b"]
    assert units.index[word] == IGNORED
    assert note.startswith(f"label '{word}' (6 segments) names no unit")


@pytest.mark.parametrize("n_other", [6, 1])
def test_rare_labels_join_a_unit_called_other(n_other: int) -> None:
    one = song(["a"] * 6 + ["other"] * n_other + ["x", "y"])
    units, notes = choose_units([one], [one], UnitsConfig(rare="merge"))
    assert sorted(units.names) == ["", "a", "other"]
    at = units.names.index("other")
    assert {units.index[label] for label in ("x", "y", "other")} == {at}
    assert len(notes) == 2
    assert all("counts as 'other'" in note for note in notes)


@pytest.mark.parametrize(
    ("onset_ms", "length_ms", "held"),
    [
        (12, 3, False),  # between two centres
        (9, 3, True),
        (10, 1, True),
        (20.1, 9.8, False),  # nearly a hop
        (20.1, 10, True),
        (0, 9, False),  # before the first centre
        (995, 4, False),  # behind the last one
        (985, 10, True),
    ],
)
def test_segments_hold_a_frame_or_not(
    onset_ms: float, length_ms: float, held: bool
) -> None:
    segment = Annotation(onset_ms / 1000, (onset_ms + length_ms) / 1000, "a")
    one = AnnotatedRecording("r", Path("r"), 1.0, RATE, (segment,))
    assert GRID.holds_frame(one, segment) == held
    units = Units(["", "a"], {"a": 1})
    _, spans = targets_of(one, units, GRID.n_frames(one), RATE, 80, 160)
    assert bool(spans) == held


def test_segments_without_a_frame_are_no_examples_and_told_with_number() -> None:
    clicks = [Annotation(0.1025 + k / 10, 0.1035 + k / 10, "click") for k in range(8)]
    calls = [Annotation(2 + k / 10, 2.05 + k / 10, "call") for k in range(8)]
    one = AnnotatedRecording("r", Path("r"), 3.0, RATE, (*clicks, *calls))
    units, notes = choose_units([one], [one], UnitsConfig(), GRID)
    assert units.names == ["", "call"]
    assert (
        "(10 ms apart) count as silence: 8 of 8 of 'click': choose a lower" in notes[0]
    )
    assert "label 'click' has 0 examples" in notes[1]
    only = AnnotatedRecording("r", Path("r"), 3.0, RATE, tuple(clicks))
    with pytest.raises(ConfigError, match="8 of 8 of 'click'"):
        choose_units([only], [only], UnitsConfig(), GRID)


def test_units_that_a_part_lacks_are_told() -> None:
    units = Units(["", "a", "b"], {"a": 1, "b": 2, "x": IGNORED})
    split = Split([song("ab")], [song("a")], [song("x")], "", names_valid=True)
    assert absent_units(split, units, GRID) == [
        "the validation split has no segment of 'b': these units are not calibrated",
        "the test split has no segment of 'a', 'b': these units have no figures",
    ]


@pytest.mark.parametrize("word", ["unknown", "other"])
def test_silence_is_called_by_no_other_word_of_the_program(word: str) -> None:
    with pytest.raises(ValueError, match="has another meaning"):
        UnitsConfig(silence=word)


def test_a_bundle_with_a_unit_called_unknown_is_refused() -> None:
    with pytest.raises(ValueError, match="segments that are none of them"):
        ClassifierSpec(units=["", "a", "unknown"], state={})
