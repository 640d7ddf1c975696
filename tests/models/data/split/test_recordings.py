"""Splits that files.csv declares: words, headings, mistakes, and what is told."""

from pathlib import Path

import pytest

from neurovocal.engine.contracts.errors import ConfigError
from neurovocal.models.data.annotations import Annotation
from neurovocal.models.data.datasets import AnnotatedRecording, Dataset
from neurovocal.models.data.files_table import part_of, read_files_table
from neurovocal.models.data.split.recordings import Split, split_recordings
from neurovocal.models.data.targets import FrameGrid, Units, targets_of
from neurovocal.models.toolkit.recipe import SplitConfig

SEGMENTS = tuple(Annotation(t / 2, t / 2 + 0.1, "ab"[t % 2]) for t in range(10))


def recording(name: str, **columns: str) -> AnnotatedRecording:
    return AnnotatedRecording(name, Path(name), 10.0, 8000, SEGMENTS, columns)


def split_of(
    words: list[str], folder: Path = Path(), heading: str = "split", **options: object
) -> Split:
    """Split recordings r0, r1, ... with these words in a column."""
    found = tuple(recording(f"r{i}", **{heading: w}) for i, w in enumerate(words))
    config = SplitConfig.model_validate(options)
    return split_recordings(Dataset(folder, found), config, 0)


def parts(split: Split) -> tuple[str, str, str]:
    return tuple(
        "".join(r.file for r in part).replace("r", "")
        for part in (split.train, split.valid, split.test)
    )


@pytest.mark.parametrize("train", ["train", "Train", "TRAINING", "training set"])
@pytest.mark.parametrize(
    ("valid", "test"),
    [
        ("val", "test"),
        ("Valid", "Test"),
        ("validation", "TEST"),
        ("dev", "eval"),
        ("validation_set", "Test set"),
        ("valid.", "held-out"),
    ],
)
def test_words_of_other_programs_name_the_parts(
    train: str, valid: str, test: str
) -> None:
    split = split_of([train, train, valid, test])
    assert parts(split) == ("01", "2", "3")
    assert f"split is {test}" in split.rule
    assert f"split is {valid}" in split.rule


@pytest.mark.parametrize("word", ["None", "unused", "exclude", "-", "not used", "n/a"])
def test_recordings_that_are_not_to_be_used_are_left_out_and_told(word: str) -> None:
    split = split_of(["train", word, "valid", "test", word])
    assert parts(split) == ("0", "2", "3")
    assert split.notes == [f"split is '{word}' for 2 recordings (r1, r4): not used"]


def test_recordings_without_a_word_are_trained_on_and_told() -> None:
    split = split_of(["train", "", "valid", "test"])
    assert parts(split) == ("01", "2", "3")
    assert split.notes == [
        "files.csv has no split for 1 recording (r1): used for training"
    ]


@pytest.mark.parametrize("heading", ["subset", "set", "partition", "train/test"])
def test_a_column_of_another_name_is_known_by_its_words(heading: str) -> None:
    split = split_of(["train", "train", "dev", "test"], heading=heading)
    assert parts(split) == ("01", "2", "3")
    assert f"test: {heading} is test" in split.rule
    with pytest.raises(ConfigError, match="no column 'split'"):
        split_of(["train", "a", "test"], heading="subset", test=["test"])


def test_two_columns_that_name_parts_are_refused() -> None:
    columns = [{"set": word, "fold": word} for word in ("train", "valid", "test")]
    found = tuple(recording(f"r{i}", **c) for i, c in enumerate(columns))
    with pytest.raises(ConfigError, match=r"columns set and fold.*say split.column"):
        split_recordings(Dataset(Path(), found), SplitConfig(), 0)


def test_a_table_without_a_split_is_told_in_the_rule() -> None:
    split = split_of(["male", "female"] * 4, heading="sex")
    assert split.rule.endswith("at random, for files.csv has no column split")


def test_rule_says_what_was_done_where_all_are_for_training() -> None:
    split = split_of(["train"] * 6)
    assert split.rule.startswith("by recording, at random, for split names no")
    assert len(split.train) + len(split.valid) + len(split.test) == 6


@pytest.mark.parametrize("test", ["test", "valid"])
def test_validation_recordings_are_drawn_where_none_are_named(test: str) -> None:
    split = split_of(["train"] * 4 + [test])
    assert [r.file for r in split.test] == ["r4"]
    assert len(split.train) + len(split.valid) == 4
    assert split.rule == (
        f"by recording; test: split is {test}; validation: some of the training "
        "recordings, at random"
    )


def test_each_unknown_word_is_refused_with_its_line(tmp_path: Path) -> None:
    table = "file,split\nr0,train\n\nr1,trian\nr2,fold 3\nr3,test\n"
    (tmp_path / "files.csv").write_text(table)
    with pytest.raises(ConfigError) as refused:
        split_of(["train", "trian", "fold 3", "test"], tmp_path)
    first, second = refused.value.problems
    assert first.startswith(f"{tmp_path / 'files.csv'}:4: split is 'trian'")
    assert "did you mean 'train'?" in first
    assert second.startswith(f"{tmp_path / 'files.csv'}:5: split is 'fold 3'")


def test_a_word_with_two_meanings_is_refused() -> None:
    with pytest.raises(ConfigError, match="split is 'eval' and 'test'"):
        split_of(["train", "eval", "test"])
    with pytest.raises(ConfigError, match="'a' is named for the test and for valid"):
        split_of(["a", "b"], test=["a"], valid=["a"])


def test_words_of_the_recipe_come_first() -> None:
    words = ["train", "train", "valid", "test", "late"]
    assert parts(split_of(words, test=["late"], valid=["valid"])) == ("013", "2", "4")
    # Of another column only the recipe's words have a meaning: Val is a name here.
    speakers = ["Val", "theo", "yweweler", "Val"]
    options = {"column": "Speaker", "test": ["yweweler"], "valid": ["theo"]}
    split = split_of(speakers, heading="speaker", **options)
    assert parts(split) == ("03", "1", "2")


def test_a_recording_that_cannot_be_cut_is_told() -> None:
    whole = tuple(Annotation(t / 10, (t + 1) / 10, "a") for t in range(50))
    one = AnnotatedRecording("r", Path("r"), 5.0, 8000, whole)
    with pytest.raises(ConfigError, match="cannot be cut into enough parts"):
        split_recordings(Dataset(Path(), (one,)), SplitConfig(), 0)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("file;split\na.wav;train\n", "separated by semicolons"),
        ("file\tsplit\na.wav\ttrain\n", "separated by tabs"),
        (
            "name,split\na.wav,train\n",
            "column 'file' is missing; there are name, split",
        ),
        ("", "is empty: its first line must name the columns"),
        ("file,split\n\n", "names no recording"),
        ("file,split,Split\n", "names 'split' twice"),
        ("file,split\na.wav,train\n./a.wav,test\n", ":3: 'a.wav' is named in line 2"),
        ("file,split\na.wav,train,x\n", ":2: 3 cells, but the heading names 2 columns"),
        ("file,split\n,train\n", ":2: the name of the recording is missing"),
        ('file,split\n"a.wav,train\n', "files.csv:2: a quotation mark too many"),
    ],
)
def test_each_mistake_in_files_csv_is_a_sentence(
    tmp_path: Path, text: str, sentence: str
) -> None:
    (tmp_path / "files.csv").write_text(text)
    with pytest.raises(ConfigError, match=sentence.replace("(", r"\(")):
        read_files_table(tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "File,Split\na.wav,train\n",
        "\ufeffFILE , SPLIT\n./a.wav , train\n,\n",
        "split,filename\ntrain,a.wav\n\n",
        "file,day,split\na.wav,,train\n",
    ],
)
def test_headings_and_names_are_read_as_people_write_them(
    tmp_path: Path, text: str
) -> None:
    (tmp_path / "files.csv").write_text(text, encoding="utf-8")
    assert read_files_table(tmp_path)["a.wav"].columns["split"] == "train"


@pytest.mark.parametrize(
    ("word", "part"), [("Train", "train"), ("fold", None), ("", None), ("-", "unused")]
)
def test_words_are_understood_or_not(word: str, part: str | None) -> None:
    assert part_of(word) == part


def grouped(name: str, group: str, split: str = "") -> AnnotatedRecording:
    columns = {"split": split} if split else {}
    segments = tuple(Annotation(t, t + 0.1, "a") for t in (1.0, 2.0, 3.0))
    return AnnotatedRecording(
        name, Path(name), 10.0, 8000, segments, columns, group=group
    )


@pytest.mark.parametrize("seed", range(8))
def test_recordings_of_the_same_sound_stay_together(seed: int) -> None:
    data = [grouped(f"{n}{k}", n) for n in "abcdef" for k in range(3)]
    split = split_recordings(Dataset(Path(), tuple(data)), SplitConfig(), seed)
    parts = [{r.group for r in part} for part in (split.train, split.valid, split.test)]
    assert sum(map(len, parts)) == 6
    assert not split.notes


def test_the_same_sound_in_two_declared_parts_is_told() -> None:
    words = ("train", "train", "valid", "test")
    data = [
        grouped(f"r{k}", "a" if k in (0, 3) else "", w) for k, w in enumerate(words)
    ]
    split = split_recordings(Dataset(Path(), tuple(data)), SplitConfig(), 0)
    assert any("r0, r3" in note for note in split.notes)


class CountedAnnotation(Annotation):
    """Annotation that counts how often any of them is looked at."""

    looks = 0

    def __getattribute__(self, name: str) -> object:
        CountedAnnotation.looks += 1
        return super().__getattribute__(name)


def looks_of_a_split(n_segments: int) -> int:
    """Split a recording of so many segments, find its targets, count the looks."""
    segments = tuple(
        CountedAnnotation(t / 2, t / 2 + 0.1, "abcd"[t % 4]) for t in range(n_segments)
    )
    whole = AnnotatedRecording("r", Path("r"), n_segments / 2, 8000, segments)
    CountedAnnotation.looks = 0
    split = split_recordings(Dataset(Path(), (whole,)), SplitConfig(), 0)
    grid = FrameGrid(8000, 400, 400)
    units = Units(["", *"abcd"], {label: k for k, label in enumerate("abcd", 1)})
    for part in (*split.train, *split.valid, *split.test):
        _, spans = targets_of(part, units, grid.n_frames(part), 8000, 400, 400)
        assert spans
    return CountedAnnotation.looks


def test_work_grows_no_faster_than_the_number_of_segments() -> None:
    assert looks_of_a_split(16_000) < 6 * looks_of_a_split(4000)
