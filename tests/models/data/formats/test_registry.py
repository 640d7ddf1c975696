"""Formats of other programs: TextGrid, .not.mat, TIMIT, CSV tables, crowsetta's."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import scipy.io

from neurovocal.models.data.formats.segments import AnnotationChoice
from tests.helpers.datasets.small_folders import RAVEN, read, write_files

TWO = [(1.0, 1.2, "a"), (2.0, 2.2, "b")]
CHOICE = AnnotationChoice


def grid(*tiers: str, n: int | None = None) -> str:
    head = 'File type = "ooTextFile"\nObject class = "TextGrid"\n\n'
    head += "xmin = 0 \nxmax = 4 \ntiers? <exists> \n"
    return f"{head}size = {n or len(tiers)} \nitem []: \n" + "".join(tiers)


def intervals(name: str, *items: tuple[float, float, str], n: int | None = None) -> str:
    text = f'    item [1]:\n        class = "IntervalTier" \n        name = "{name}" \n'
    text += "        xmin = 0 \n        xmax = 4 \n"
    text += f"        intervals: size = {n or len(items)}\n"
    for k, (onset, offset, label) in enumerate(items, 1):
        text += f"        intervals [{k}]:\n            xmin = {onset} \n"
        text += f'            xmax = {offset} \n            text = "{label}" \n'
    return text


def points(name: str, *items: tuple[float, str]) -> str:
    text = f'    item [1]:\n        class = "TextTier" \n        name = "{name}" \n'
    text += (
        f"        xmin = 0 \n        xmax = 4 \n        points: size = {len(items)}\n"
    )
    for k, (at, label) in enumerate(items, 1):
        text += f"        points [{k}]:\n            number = {at} \n"
        text += f'            mark = "{label}" \n'
    return text


UNITS = intervals("units", (0, 1, ""), (1.0, 1.2, "a"), (1.2, 2, ""), (2.0, 2.2, "b"))
SHORT = (
    'File type = "ooTextFile"\nObject class = "TextGrid"\n\n0\n4\n<exists>\n1\n'
    '"IntervalTier"\n"units"\n0\n4\n4\n0\n1\n""\n1\n1.2\n"a"\n1.2\n2\n""\n2\n2.2\n"b"\n'
)


def textgrid(folder: Path, text: str | bytes, name: str = "song.TextGrid", tier=None):
    folder = write_files(folder, {"song.wav": "", name: text})
    return read(folder, "textgrid", CHOICE(tier=tier))


@pytest.mark.parametrize(
    "text",
    [
        grid(UNITS),
        grid(UNITS).replace("\n", "\r\n"),
        SHORT,
        ("\ufeff" + grid(UNITS)).encode("utf-16-be"),
        grid(UNITS, points("clicks", (0.5, "x"))),
        grid(points("clicks", (0.5, "x")), UNITS),
        grid(UNITS).replace("item []:", "! a comment with 1 number\nitem []:"),
    ],
)
def test_textgrids_that_say_the_same(tmp_path: Path, text: str | bytes) -> None:
    rows, problems, _ = textgrid(tmp_path, text)
    assert not problems
    assert rows == {"song.wav": TWO}


def test_labels_of_a_textgrid_are_read_as_they_are_meant(tmp_path: Path) -> None:
    tier = intervals(
        "units", (0, 1, 'say ""a""'), (1, 2, "two\nlines"), (2, 3, "1 = 2")
    )
    rows, _, _ = textgrid(tmp_path, grid(tier), "song.textgrid")
    assert [unit for *_, unit in rows["song.wav"]] == ['say "a"', "two lines", "1 = 2"]


@pytest.mark.parametrize("tier", ["units", "Units", "2"])
def test_a_tier_is_chosen_by_name_or_number(tmp_path: Path, tier: str) -> None:
    text = grid(intervals("song", (0, 4, "motif")), UNITS)
    assert textgrid(tmp_path, text, tier=tier)[0] == {"song.wav": TWO}


@pytest.mark.parametrize(
    ("text", "tier", "words"),
    [
        (
            grid(points("p", (1, "a"))),
            None,
            "an interval tier with the labels is missing",
        ),
        (grid(n=0).replace("size = 0", "size = 0"), None, "holds no tier"),
        (grid(UNITS, UNITS), None, "2 interval tiers ('units', 'units'): choose"),
        (grid(UNITS, UNITS), "units", "several tiers 'units'"),
        (grid(UNITS), "song", "no interval tier 'song' (--tier takes"),
        (grid(UNITS).replace("size = 4", "size = 7"), None, "interval 5 of 7"),
        (
            grid(UNITS).replace("size = 4", "size = 3"),
            None,
            "holds more than its counts",
        ),
        (grid(UNITS)[:250], None, "is missing (the file is cut off"),
        (grid(UNITS)[:-5], None, "is missing (the file is cut off"),
        (grid(UNITS).replace('"IntervalTier"', '"Other"'), None, "the unknown class"),
        ("no TextGrid", None, "is no TextGrid"),
        (b"ooBinaryFile\x08TextGrid", None, "Save as text file"),
        ("", None, "is no TextGrid"),
    ],
)
def test_faults_of_a_textgrid(
    tmp_path: Path, text: str | bytes, tier: str | None, words: str
) -> None:
    _, problems, _ = textgrid(tmp_path, text, tier=tier)
    assert len(problems) == 1
    assert "song.TextGrid" in problems[0]
    assert words in problems[0]


def notmat(folder: Path, onsets, offsets, labels, **options):
    folder = write_files(folder, {"song.wav": ""})
    content = {
        "onsets": np.array(onsets),
        "offsets": np.array(offsets),
        "labels": labels,
    }
    content["Fs"], content["other"] = 32000.0, {"a struct": [1.0, "x"]}
    scipy.io.savemat(folder / "song.wav.not.mat", content, **options)
    return read(folder, "notmat")


@pytest.mark.parametrize(
    ("labels", "units"),
    [
        ("ab", ["a", "b"]),
        (np.array([1.0, 2.0]), ["1", "2"]),
        (np.array([1.5, 2.0]), ["1.5", "2"]),
        (np.array(["a", "b"]), ["a", "b"]),
        (np.array(["long", "call"], object), ["long", "call"]),
    ],
)
def test_labels_of_a_not_mat_file(tmp_path: Path, labels, units: list[str]) -> None:
    wanted = {"song.wav": [(1.0, 1.2, units[0]), (2.0, 2.2, units[1])]}
    for times in ([1000.0, 2000.0], [[1000], [2000]]):
        ends = np.array(times) + 200
        for compressed in (False, True):
            rows, problems, _ = notmat(
                tmp_path, times, ends, labels, do_compression=compressed
            )
            assert not problems
            assert rows == wanted


def test_one_segment_or_none_in_a_not_mat_file(tmp_path: Path) -> None:
    assert notmat(tmp_path / "1", [1000.0], [1200.0], np.array([7.0]))[0] == {
        "song.wav": [(1.0, 1.2, "7")]
    }
    _, problems, _ = notmat(tmp_path / "0", [], [], "")
    assert problems == [f"dataset '{tmp_path / '0'}' has no labelled segments"]


def test_a_not_mat_file_needs_a_label_per_segment(tmp_path: Path) -> None:
    _, problems, _ = notmat(tmp_path, [1000.0, 2000.0], [1200.0, 2200.0], "a")
    assert "has 2 onsets, 2 offsets and 1 labels" in problems[0]
    folder = write_files(tmp_path, {"song.wav.not.mat": b"no MATLAB file"})
    _, problems, _ = read(folder, "notmat")
    assert "is no .not.mat file with onsets, offsets and labels" in problems[0]


def test_timit_transcriptions_count_in_samples(tmp_path: Path) -> None:
    text = "0 8000 h#\n8000 9600 a\n16000 17600 b\n17600 32000 h#\n"
    files = {"song.WAV": "", "song.PHN": text, "song.WRD": "8000 17600 word\n"}
    folder = write_files(tmp_path, files)
    assert read(folder, "timit", CHOICE(tier="phn"))[0] == {"song.WAV": TWO}
    _, problems, _ = read(folder, "timit")
    assert "choose by --tier phn or --tier wrd" in problems[0]
    folder = write_files(tmp_path / "x", {"song.wav": "", "song.phn": "0 a b\n"})
    assert "song.phn:1" in read(folder, "timit")[1][0]


def test_samples_are_whole_numbers(tmp_path: Path) -> None:
    files = {"song.wav": "", "song.phn": "1.0 1.2 a\n"}
    _, problems, _ = read(write_files(tmp_path, files), "timit")
    assert "song.phn:1: first and last sample must be whole numbers" in problems[0]


def test_csv_tables_of_crowsetta(tmp_path: Path) -> None:
    simple = "onset_s,offset_s,label\n1,1.2,01\n2,2.2,1e3\n"
    files = {
        "song.wav": "",
        "song.csv": simple,
        "files.csv": "file,split\nsong.wav,x\n",
    }
    folder = write_files(tmp_path / "s", files)
    assert read(folder, "simple-seq")[0] == {
        "song.wav": [(1.0, 1.2, "01"), (2.0, 2.2, "1e3")]
    }
    (folder / "song.csv").write_text("name,start_seconds,stop_seconds\na,1,1.2\n")
    (problem,) = read(folder, "simple-seq")[1]
    assert "there are name, start_seconds, stop_seconds" in problem
    generic = "label,onset_sample,offset_sample,notated_path,annot_path,sequence\n"
    generic += "a,8000,9600,/x/song.wav,y,0\nb,16000,17600,/x/song.wav,y,0\n"
    folder = write_files(tmp_path / "g", {"song.wav": "", "all.csv": generic})
    assert read(folder, "generic-seq")[0] == {"song.wav": TWO}


def test_the_xml_of_a_public_dataset(tmp_path: Path) -> None:
    notes = "".join(
        f"<Note><Position>{at}</Position><Length>1600</Length><Label>{label}</Label>"
        "</Note>"
        for at, label in ((8000, "0"), (16000, "1"))
    )
    xml = (
        "<Sequences><NumSequence>1</NumSequence><Sequence><WaveFileName>song.wav"
        "</WaveFileName><Position>0</Position><Length>32000</Length><NumNote>2"
        f"</NumNote>{notes}</Sequence></Sequences>"
    )
    folder = write_files(tmp_path, {"song.wav": "", "Annotation.xml": xml})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rows, _, _ = read(folder, "birdsong-recognition-dataset")
    assert rows == {"song.wav": [(1.0, 1.2, "0"), (2.0, 2.2, "1")]}
    (folder / "Annotation.xml").write_text(xml[:100])
    _, problems, _ = read(folder, "birdsong-recognition-dataset")
    assert problems == [
        f"{folder}/Annotation.xml:1: the XML is damaged: unclosed token",
    ]


def test_mistakes_in_the_xml_are_told_with_their_lines(tmp_path: Path) -> None:
    xml = """<Sequences>
<Sequence><WaveFileName>song.wav</WaveFileName><Position>0</Position><Length>9</Length>
<Note><Position>8000</Position><Length>long</Length><Label>0</Label></Note>
<Note><Position>8000</Position><Label>0</Label></Note>
</Sequence>
<Sequence><Position>0</Position><Length>9</Length></Sequence>
</Sequences>
"""
    folder = write_files(tmp_path, {"song.wav": "", "Annotation.xml": xml})
    _, problems, _ = read(folder, "birdsong-recognition-dataset")
    file = f"{folder}/Annotation.xml"
    assert problems[:3] == [
        f"{file}:3: <Length> of <Note> is 'long': write a whole number of samples",
        f"{file}:4: <Note> has no <Length>",
        f"{file}:6: <Sequence> has no <WaveFileName>",
    ]
    (folder / "Annotation.xml").write_text(xml.replace("</Note>", "", 1))
    _, problems, _ = read(folder, "birdsong-recognition-dataset")
    assert f"{file}:5: the XML is damaged: mismatched tag" in problems
    # Another program's file is passed over.
    (folder / "Annotation.xml").write_text("<html>\n<p>\n</html>\n")
    _, problems, _ = read(folder, "birdsong-recognition-dataset")
    assert not any("damaged" in problem for problem in problems)


def test_a_file_that_a_library_cannot_read_says_why(tmp_path: Path) -> None:
    folder = write_files(tmp_path, {"song.wav": "", "song.mat": "no table"})
    _, problems, _ = read(folder, "yarden")
    file = f"{folder}/song.mat: cannot be read as yarden: "
    assert problems == [f"{file}mat file appears to be truncated"]
    scipy.io.savemat(folder / "song.mat", {"x": 1})
    _, problems, _ = read(folder, "yarden")
    assert problems == [f"{file}it has no 'keys'"]
    scipy.io.savemat(folder / "song.mat", {"keys": 1, "elements": 2})
    _, problems, _ = read(folder, "yarden")
    assert problems == [f"{file}it has another structure"]


def test_the_column_of_the_labels_is_found_or_named(tmp_path: Path) -> None:
    heading = RAVEN.replace(
        "Annotation", "Common Name\tMine\tBegin Path\tFile Offset (s)"
    )
    text = (
        heading + "1\tS 1\t1\t1.0\t1.2\t0\t4000\tEurasian Wren\tx\t/d/song.wav\t1.0\n"
    )
    folder = write_files(tmp_path, {"song.wav": "", "song.txt": text})
    rows, _, notes = read(folder, "raven")
    assert rows == {"song.wav": [(1.0, 1.2, "Eurasian Wren")]}
    assert any("'Common Name'" in note for note in notes)
    rows, _, _ = read(folder, "raven", CHOICE(label_column="mine"))
    assert rows == {"song.wav": [(1.0, 1.2, "x")]}
    _, problems, _ = read(folder, "raven", CHOICE(label_column="other"))
    assert "has no column 'other' with labels" in problems[0]
    assert "Common Name, Mine" in problems[0]


@pytest.mark.parametrize(
    ("form", "choice", "words"),
    [
        ("audacity", CHOICE(label_column="x"), "--label-column: files of the format"),
        ("raven", CHOICE(tier="x"), "--tier: files of the format raven"),
        (None, CHOICE(tier="x"), "--tier: annotations.csv has no tiers"),
        ("audacty", None, "(did you mean 'audacity'?)"),
        ("textgrid", None, "has no .textgrid file (format textgrid)"),
    ],
)
def test_options_that_do_not_go_with_a_format(
    tmp_path: Path, form: str | None, choice: AnnotationChoice | None, words: str
) -> None:
    folder = write_files(tmp_path, {"song.wav": "", "song.txt": "1\t2\ta\n"})
    _, problems, _ = read(folder, form, choice)
    assert words in problems[0]


def test_an_empty_column_of_labels_gives_way_to_another(tmp_path: Path) -> None:
    heading = RAVEN.replace("Annotation", "Annotation\tSpecies")
    text = heading + "1\tS 1\t1\t1.0\t1.2\t0\t4000\t\twren\n"
    folder = write_files(tmp_path, {"song.wav": "", "song.txt": text})
    rows, _, notes = read(folder, "raven")
    assert rows == {"song.wav": [(1.0, 1.2, "wren")]}
    assert any("'Species'" in note for note in notes)


def test_faults_of_a_raven_heading(tmp_path: Path) -> None:
    for heading, words in (
        (RAVEN.replace("\t", ","), "with tabs between the columns"),
        (RAVEN.replace("Annotation", "Annotation\tannotation"), "'annotation' twice"),
        (RAVEN.replace("End Time (s)", "End"), "column 'End Time (s)' is missing"),
        ("", "is empty: its first line must name the columns"),
    ):
        folder = write_files(tmp_path, {"song.wav": "", "song.txt": heading})
        _, problems, _ = read(folder, "raven")
        assert len(problems) == 1
        assert words in problems[0]
