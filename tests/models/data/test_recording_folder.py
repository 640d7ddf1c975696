"""Which recording an annotation belongs to: names, folders, links, copies, channels."""

import os
from pathlib import Path

import pytest

from neurovocal.models.data.datasets import read_dataset
from neurovocal.models.data.formats.segments import AnnotationChoice
from neurovocal.models.data.frames import read_samples
from tests.helpers.datasets.small_folders import (
    CSV,
    RATE,
    RAVEN,
    read,
    write_audio,
    write_files,
)

ONE = [(1.0, 1.2, "a")]
TRACK = "1.0\t1.2\ta\n"
MANY = (
    "Selection\tView\tChannel\tBegin Time (s)\tEnd Time (s)\tBegin File\t"
    "File Offset (s)\tAnnotation\n"
)


@pytest.mark.parametrize(
    ("table", "recording"),
    [
        ("song.txt", "song.wav"),
        ("song.txt", "song.WAV"),
        ("SONG.TXT", "song.flac"),
        ("song.wav.txt", "song.wav"),
        ("song.wav.txt", "song.flac"),
        ("song.Table.1.selections.txt", "song.wav"),
        ("song.BirdNET.results.txt", "song.wav"),
        ("song_labels.txt", "song.wav"),
        ("2024.05.01_c.txt", "2024.05.01_c.wav"),
        ("labels.song.wav.txt", "song.wav"),
        ("labels.my_song.wav.txt", "my song.wav"),
        ("labels.day_2_song.wav.txt", "day 2/song.wav"),
        ("labels/song.txt", "audio/song.wav"),
        ("labels/day1/song.txt", "audio/day1/song.wav"),
        ("so\u0301ng.txt", "s\u00f3ng.wav"),
    ],
)
def test_a_table_belongs_to_the_recording_of_its_name(
    tmp_path: Path, table: str, recording: str
) -> None:
    folder = write_files(tmp_path, {table: TRACK})
    write_audio(folder / recording)
    rows, problems, _ = read(folder, "audacity")
    assert not problems
    assert rows == {recording: ONE}


@pytest.mark.parametrize(
    ("table", "recording"),
    [
        ("2024.05.01_c.txt", "2024.05.wav"),
        ("song_c.txt", "song.wav"),
        ("song2.txt", "song.wav"),
        ("song.2.txt", "song.wav"),
        ("my_song.wav.txt", "song.wav"),
    ],
)
def test_a_table_of_an_absent_recording_is_given_to_no_other(
    tmp_path: Path, table: str, recording: str
) -> None:
    folder = write_files(tmp_path, {table: TRACK, recording: ""})
    rows, problems, _ = read(folder, "audacity")
    assert not rows
    assert table in problems[0]
    assert "no recording of the same name" in problems[0]


def test_the_recording_in_the_most_similar_folder_is_meant(tmp_path: Path) -> None:
    files = {f"audio/day{n}/song.wav": "" for n in (1, 2)}
    files |= {f"labels/day{n}/song.txt": f"1.0\t1.2\t{n}\n" for n in (1, 2)}
    rows, _, _ = read(write_files(tmp_path, files), "audacity")
    assert rows == {f"audio/day{n}/song.wav": [(1.0, 1.2, str(n))] for n in (1, 2)}


def test_two_recordings_that_may_be_meant_are_named(tmp_path: Path) -> None:
    files = {"song.txt": TRACK, "song.wav": "", "song.flac": ""}
    _, problems, _ = read(write_files(tmp_path, files), "audacity")
    assert "'song.txt' may mean several recordings" in problems[0]
    assert "'song.flac', 'song.wav'" in problems[0]


def test_files_that_are_no_tables_are_passed_over_and_told(tmp_path: Path) -> None:
    files: dict[str, str | bytes] = {"song.wav": "", "song.txt": TRACK}
    files |= {
        "README.txt": "Recorded by me.\n",
        "._song.txt": b"\0\5\x16\7",
        "x.txt": "",
    }
    files |= {".hidden/song.txt": TRACK, "notes/photo.txt": bytes(range(256))}
    rows, _, notes = read(write_files(tmp_path, files), "audacity")
    assert rows == {"song.wav": ONE}
    assert any("'README.txt'" in note and "passed over" in note for note in notes)


@pytest.mark.parametrize("text", ["12.5\t13.0\n", "3\t5 birds\n", "1\t2\t3\t4\n"])
def test_notes_with_numbers_are_passed_over_and_told(tmp_path: Path, text: str) -> None:
    files = {"song.wav": "", "song.txt": TRACK, "notes.txt": text}
    rows, problems, notes = read(write_files(tmp_path, files), "audacity")
    assert (rows, problems) == ({"song.wav": ONE}, [])
    assert any("'notes.txt'" in note and "passed over" in note for note in notes)


def test_faults_are_told_where_no_table_belongs_to_a_recording(tmp_path: Path) -> None:
    files = {"song.wav": "", "other.wav": "", "notes.txt": "12.5\t13.0\n"}
    _, problems, _ = read(write_files(tmp_path, files), "audacity")
    assert "notes.txt:1: the label is missing" in problems[0]


def test_recordings_without_annotations_are_told(tmp_path: Path) -> None:
    files = {f"{name}.wav": "" for name in "abc"} | {"a.txt": TRACK}
    rows, _, notes = read(write_files(tmp_path, files), "audacity")
    assert list(rows) == ["a.wav"]
    assert "recordings without annotations are not used: 'b.wav', 'c.wav'" in notes


def test_a_recording_that_must_be_converted_is_named(tmp_path: Path) -> None:
    files = {"song.cbin.txt": TRACK, "song.cbin": b"\0\0"}
    _, problems, _ = read(write_files(tmp_path, files), "audacity")
    assert "'song.cbin' is of a format that is not read: convert it" in problems[0]


@pytest.mark.parametrize(
    "name",
    [
        "song.wav",
        "./song.wav",
        "day/../song.wav",
        ".\\song.wav",
        " song.wav",
        "SONG.wav",
    ],
)
def test_names_of_one_recording_are_one(tmp_path: Path, name: str) -> None:
    text = f"{CSV}song.wav,1.0,1.2,a\n{name},2.0,2.2,b\n"
    (tmp_path / "day").mkdir()
    files = {"song.wav": "", "annotations.csv": text}
    rows, problems, _ = read(write_files(tmp_path, files))
    assert not problems
    assert rows == {"song.wav": [*ONE, (2.0, 2.2, "b")]}


def test_an_absolute_name_is_that_of_the_recording(tmp_path: Path) -> None:
    text = f"{CSV}{tmp_path}/song.wav,1.0,1.2,a\n"
    files = {"song.wav": "", "annotations.csv": text}
    assert read(write_files(tmp_path, files))[0] == {"song.wav": ONE}


def test_a_name_of_another_folder_says_where_the_recording_is(tmp_path: Path) -> None:
    files = {"day/song.wav": "", "annotations.csv": f"{CSV}C:\\x\\song.wav,1,1.2,a\n"}
    _, problems, _ = read(write_files(tmp_path, files))
    assert "in the folder there is 'day/song.wav'" in problems[0]


def test_names_that_are_not_utf8_are_matched(tmp_path: Path) -> None:
    folder = write_files(tmp_path, {"x.txt": TRACK, "x.wav": ""})
    for suffix in (b".txt", b".wav"):
        os.rename(
            folder / f"x{suffix.decode()}", os.fsencode(folder) + b"/x\xe9" + suffix
        )
    (found,) = read_dataset(folder, "audacity").recordings
    assert os.fsencode(found.file) == b"x\xe9.wav"
    assert len(read_samples(found, RATE)) == 4 * RATE


# ---- channels ----


def raven(channel: int, label: str = "a", begin: float = 1.0) -> str:
    return f"1\tS 1\t{channel}\t{begin}\t{begin + 0.2}\t0\t4000\t{label}\n"


@pytest.mark.parametrize("named", ["d/caf\\xe9.wav", "d/caf\\xe9.wav.ch2"])
@pytest.mark.parametrize("form", [None, "raven"])
def test_names_that_our_tables_escape_are_matched(
    tmp_path: Path, named: str, form: str | None
) -> None:
    name = os.fsdecode(b"d/caf\xe9.wav")
    heading = RAVEN.replace("\n", "\tBegin Path\tFile Offset (s)\n")
    row = f"1\tS 1\t\t1.0\t1.2\t0\t4000\ta\t/x/{named}\t1.0\n"
    files = {
        name: "2",
        "annotations.csv": f"{CSV}{named},1.0,1.2,a\n",
        "all.txt": heading + row,
    }
    dataset = read_dataset(write_files(tmp_path, files), form)
    assert [len(r.annotations) for r in dataset.recordings] == [1]
    assert dataset.recordings[0].channel == (2 if named.endswith("2") else 1)


def test_labels_of_the_second_channel_belong_to_its_sound(tmp_path: Path) -> None:
    files = {"song.wav": "2", "song.txt": RAVEN + raven(2)}
    dataset = read_dataset(write_files(tmp_path, files), "raven")
    (found,) = dataset.recordings
    assert (found.file, found.channel) == ("song.wav", 2)
    assert any("channel 2 is used" in note for note in dataset.notes)
    import soundfile

    both, _ = soundfile.read(tmp_path / "song.wav", dtype="float32")
    assert (read_samples(found, RATE) == both[:, 1]).all()


def test_each_annotated_channel_is_a_recording(tmp_path: Path) -> None:
    files = {"song.wav": "2", "song.txt": RAVEN + raven(1) + raven(2, "b")}
    dataset = read_dataset(write_files(tmp_path, files), "raven")
    found = [(r.file, r.channel, r.annotations[0].unit) for r in dataset.recordings]
    assert found == [("song.wav.ch1", 1, "a"), ("song.wav.ch2", 2, "b")]
    assert len({r.group for r in dataset.recordings}) == 1


def test_chosen_channels_leave_the_labels_of_others_out(tmp_path: Path) -> None:
    files = {"song.wav": "2", "song.txt": RAVEN + raven(1) + raven(2, "b")}
    choice = AnnotationChoice(channels=(2,))
    rows, _, notes = read(write_files(tmp_path, files), "raven", choice)
    assert rows == {"song.wav": [(1.0, 1.2, "b")]}
    assert "labels of channel 1 are not used: 'song.wav'" in notes


def test_a_channel_that_the_recording_lacks_is_a_mistake(tmp_path: Path) -> None:
    files = {"song.wav": "", "song.txt": TRACK}
    choice = AnnotationChoice(channels=(2,))
    _, problems, _ = read(write_files(tmp_path, files), "audacity", choice)
    assert "song.wav: has 1 channel, no channel 2" in problems[0]


@pytest.mark.parametrize("text", [f"{CSV}song.wav.ch2,1.0,1.2,a\n"])
def test_a_stream_name_tells_the_channel(tmp_path: Path, text: str) -> None:
    folder = write_files(tmp_path, {"song.wav": "2", "annotations.csv": text})
    (found,) = read_dataset(folder).recordings
    assert (found.file, found.channel) == ("song.wav", 2)


# ---- one Raven table of many recordings ----


def many(number: int, begin: float, name: str, offset: str, label: str = "a") -> str:
    return f"{number}\tS 1\t1\t{begin}\t{begin + 0.2:.6f}\t{name}\t{offset}\t{label}\n"


@pytest.mark.parametrize("table", ["all.txt", "a.txt"])
def test_rows_go_to_the_recordings_that_they_name(tmp_path: Path, table: str) -> None:
    text = MANY + many(1, 1.0, "a.wav", "1.0") + many(2, 5.0, "b.wav", "1.0", "b")
    files = {"a.wav": "", "sub/b.wav": "", table: text}
    rows, _, _ = read(write_files(tmp_path, files), "raven")
    assert rows == {"a.wav": ONE, "sub/b.wav": [(1.0, 1.2, "b")]}


def test_several_recordings_without_offsets_are_refused(tmp_path: Path) -> None:
    text = MANY + many(1, 1.0, "a.wav", "") + many(2, 3.0, "b.wav", "", "b")
    files = {"a.wav": "", "b.wav": "", "a.txt": text}
    rows, problems, _ = read(write_files(tmp_path, files), "raven")
    assert not rows
    assert "a.txt:3" in problems[0]
    assert "File Offset (s)" in problems[0]


def test_a_renamed_recording_is_that_of_its_table(tmp_path: Path) -> None:
    files = {"new.wav": "", "new.txt": MANY + many(1, 1.0, "old.wav", "1.0")}
    assert read(write_files(tmp_path, files), "raven")[0] == {"new.wav": ONE}


def test_recordings_that_a_table_names_and_that_are_absent_are_told(
    tmp_path: Path,
) -> None:
    text = MANY + many(1, 1.0, "a.wav", "1.0") + many(2, 5.0, "b.wav", "1.0", "b")
    _, problems, _ = read(
        write_files(tmp_path, {"a.wav": "", "all.txt": text}), "raven"
    )
    assert problems == [f"{tmp_path}/all.txt:3: recording 'b.wav' does not exist"]
