"""Tables of annotations as people, spreadsheets and programs write them."""

import os
from pathlib import Path

import pytest

from neurovocal.models.data.datasets import read_dataset
from tests.helpers.datasets.small_folders import CSV, RAVEN, read, write_files

ONE = [(1.0, 1.2, "a")]
TWO = [(1.0, 1.2, "a"), (2.0, 2.2, "b")]


def csv(folder: Path, text: str | bytes, heading: str = CSV):
    if isinstance(text, str):
        text = (heading + text).encode()
    return read(write_files(folder, {"song.wav": "", "annotations.csv": text}))


def track(folder: Path, text: str | bytes, form: str = "audacity"):
    files = {"song.wav": "", "song.txt": text}
    return read(write_files(folder, files), form)


def raven(folder: Path, text: str | bytes, heading: str = RAVEN):
    if isinstance(text, str):
        text = (heading + text).encode()
    return read(write_files(folder, {"song.wav": "", "song.txt": text}), "raven")


def selection(number, begin, end, label, *, view="S 1", channel="1"):
    return f"{number}\t{view}\t{channel}\t{begin}\t{end}\t0\t4000\t{label}\n"


# ---- what is read ----


@pytest.mark.parametrize(
    "data",
    [
        b"file,onset_s,offset_s,label\r\nsong.wav,1.0,1.2,a\r\n",
        b"file,onset_s,offset_s,label\rsong.wav,1.0,1.2,a\r",
        b"\xef\xbb\xbffile,onset_s,offset_s,label\nsong.wav,1.0,1.2,a",
        "\ufefffile,onset_s,offset_s,label\nsong.wav,1.0,1.2,a\n".encode("utf-16-le"),
        "\ufefffile,onset_s,offset_s,label\nsong.wav,1.0,1.2,a\n".encode("utf-16-be"),
        "file,onset_s,offset_s,label\nsong.wav,1.0,1.2,a\n".encode("utf-16-le"),
        b'"file","onset_s","offset_s","label"\n"song.wav","1.0","1.2","a"\n',
        b'file, onset_s, offset_s, label\nsong.wav, 1.0, 1.2, "a"\n',
        b"File,Onset_S,OFFSET_S,Label\nsong.wav,1.0,1.2,a\n",
        b"label,offset_s,note,onset_s,file\na,1.2,x,1.0,song.wav\n",
        b"file,onset_s,offset_s,label,,\nsong.wav,1.0,1.2,a,,\n,,,,,\n",
        b"sep=,\r\nfile,onset_s,offset_s,label\r\nsong.wav,1.0,1.2,a\r\n",
        b'"sep=,",,,\nfile,onset_s,offset_s,label\nsong.wav,1.0,1.2,a\n',
        b"\n\nfile,onset_s,offset_s,label\n\nsong.wav,1.0,1.2,a\n   \n",
        b"file,onset_s,offset_s,label\n./song.wav,+1,12e-1,a\n",
        b"file,onset_s,offset_s,label\nSONG.WAV,1.0,1.2,a\n",
        b"file,onset_s,offset_s,label\n.\\song.wav,1.0,1.2,a\n",
        b"file,onset_s,offset_s,label\nsong.wav ,1.0,1.2, a \n",
        b"file,onset_s,offset_s,label\nsong.wav,\xc2\xa01.0,1.2,a\xc2\xa0\n",
        b'file,onset_s,offset_s,label,note\nsong.wav,1.0,1.2,a,"two\nlines"\n',
        b"file,onset_s,offset_s,label,channel\nsong.wav,1.0,1.2,a,1\n",
    ],
)
def test_csv_tables_that_say_the_same(tmp_path: Path, data: bytes) -> None:
    rows, problems, _ = csv(tmp_path, data)
    assert not problems
    assert rows == {"song.wav": ONE}


@pytest.mark.parametrize(
    "label",
    ["01", "1e3", "NA", "None", "null", "nan", "True", "+1", "a b", "#1", "\u9ce5"],
)
def test_a_label_stays_the_text_that_it_is(tmp_path: Path, label: str) -> None:
    rows = {"song.wav": [(1.0, 1.2, label)]}
    assert csv(tmp_path / "c", f"song.wav,1.0,1.2,{label}\n")[0] == rows
    assert track(tmp_path / "t", f"1.0\t1.2\t{label}\n")[0] == rows
    assert raven(tmp_path / "r", selection(1, 1.0, 1.2, label))[0] == rows


@pytest.mark.parametrize("label", ['"x', 'b"', '"a"', 'a"b', "a,b", "a;b"])
def test_quotation_marks_are_letters_where_nothing_is_quoted(
    tmp_path: Path, label: str
) -> None:
    assert track(tmp_path / "t", f"1\t2\t{label}\n")[0]["song.wav"] == [(1, 2, label)]
    found = raven(tmp_path / "r", selection(1, 1, 2, label))[0]
    assert found["song.wav"] == [(1, 2, label)]


def test_a_quoted_cell_may_hold_commas_and_doubled_marks(tmp_path: Path) -> None:
    rows, _, _ = csv(tmp_path, 'song.wav,1.0,1.2,"a, ""b"""\n')
    assert rows == {"song.wav": [(1.0, 1.2, 'a, "b"')]}


def test_rows_are_ordered_and_may_touch_or_overlap_by_a_rounding(
    tmp_path: Path,
) -> None:
    text = "song.wav,2.0,2.2,b\nsong.wav,1.0,2.001,a\n"
    rows, _, _ = csv(tmp_path, text)
    assert rows == {"song.wav": [(1.0, 2.001, "a"), (2.0, 2.2, "b")]}


@pytest.mark.parametrize(
    "text",
    [
        "1.0\t1.2\ta\n\\\t500.0\t8000.0\n2.0\t2.2\tb\n\\\t500.0\t8000.0\n",
        "1.0\t1.2\ta\n2.0\t2.2\tb\n\\\t500.0\t8000.0\n",
        "\ufeff1.0\t1.2\ta\r\n2.0\t2.2\tb\r\n",
        "\ufeff1.0\t1.2\ta\n\\\t500.0\t8000.0\n2.0\t2.2\tb\n\\\t500\t8000\n",
        "1\t1.2\ta\r2\t2.2\tb",
        "1.0\t1.2\ta \n\n2.0\t2.2\tb\u200b\n",
    ],
)
@pytest.mark.parametrize("form", ["audacity", "aud-seq", "aud-bbox"])
def test_label_tracks_that_say_the_same(tmp_path: Path, text: str, form: str) -> None:
    rows, problems, _ = track(tmp_path, text, form)
    assert not problems
    assert rows == {"song.wav": TWO}


def test_a_label_of_no_length_in_a_track_is_left_out_and_told(tmp_path: Path) -> None:
    rows, _, notes = track(tmp_path, "0.5\t0.5\train\n1.0\t1.2\ta\n")
    assert rows == {"song.wav": ONE}
    assert any("'rain'" in note and "song.txt:1" in note for note in notes)


def test_words_for_silence_are_no_units_and_are_told(tmp_path: Path) -> None:
    rows, _, notes = track(tmp_path, "0.1\t1.0\tsil\n1.0\t1.2\ta\n1.2\t3\t<SIL>\n")
    assert rows == {"song.wav": ONE}
    assert any("silence" in note and "'sil', '<SIL>'" in note for note in notes)


# ---- what is refused ----


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("song.wav,0,5,0,8,a", 2, "6 cells, but the heading names 4 columns"),
        ("song.wav,1.0,1.2", 2, "3 cells"),
        ('song.wav,"1,0","1,2",a', 2, "has a comma: write a decimal point"),
        ('song.wav,"1,234.5",1300,a', 2, "is not a number"),
        ("song.wav,1.0,1.2,", 2, "the label is empty"),
        ("song.wav,1.0,1.2,\u200b", 2, "the label is empty"),
        ('song.wav,1.0,1.2,"a\nsong.wav,2.0,2.2,b', 2, "a quotation mark too many"),
        ('song.wav,1.0,1.2,"a\nsong.wav,2.0,2.2,b"', 2, "a quotation mark too many"),
        ('song.wav,1.0,1.2,a"', 2, "a quotation mark too many"),
        ('song.wav,1.0,1.2,"a"b', 2, "a quotation mark too many"),
        ('song.wav,1.0,1.2,"a\nb"', 2, "runs over several lines"),
        ("song.wav,1.0,1.2,a\0", 0, "line 2 holds the control character NUL"),
        ("song.wav,1.0,1.2,\x1b[31ma", 0, "the control character U+001B"),
        ("song.wav,1.0,1.2,a\u2028b", 0, "the control character U+2028"),
        ("song.wav,-1,1.2,a", 2, "begins before the recording"),
        ("song.wav,1.2,1.0,a", 2, "ends at 1 s, before it begins"),
        ("song.wav,1.0,1.0,a", 2, "has no length"),
        ("song.wav,3.0,4.2,a", 2, "past the end of the recording (4 s)"),
        ("song.wav,inf,1,a", 2, "onset_s 'inf' is not finite"),
        ("song.wav,1,1e400,a", 2, "offset_s '1e400' is too large"),
        ("song.wav,,1,a", 2, "onset_s '' is empty"),
        ("song.wav,0:01,1,a", 2, "onset_s '0:01' is not a number"),
        ("song.wav,\u0661,1.2,a", 2, "is not a number"),
        ("song.wav,1_0,1.2,a", 2, "is not a number"),
        ("song.wav,1,1.2," + "a" * 5000, 2, "the label has 5000 letters"),
        (",1.0,1.2,a", 2, "the name of the recording is missing"),
        ("lost.wav,1.0,1.2,a", 2, "recording 'lost.wav' does not exist"),
        ("\x7f.wav,1.0,1.2,a", 0, "the control character U+007F"),
        (".,1.0,1.2,a", 2, "'.' is a folder, not a recording"),
        ("song.wav,1,1.5,a\nsong.wav,1,1.5,a", 3, "overlaps 'a'"),
        ("song.wav,1,1.5,a\nsong.wav,1.2,1.7,b", 3, "overlaps 'a', which ends at 1.5"),
        ("\n\nsong.wav,x,1.2,b", 4, "onset_s 'x' is not a number"),
    ],
)
def test_each_fault_of_a_csv_row_is_told_with_its_line(
    tmp_path: Path, text: str, line: int, words: str
) -> None:
    _, problems, _ = csv(tmp_path, f"{text}\n")
    place = f"annotations.csv:{line}: " if line else "annotations.csv: "
    assert [p for p in problems if place in p and words in p], problems
    assert len(problems) == 1


def test_lines_are_counted_behind_a_cell_of_two_lines(tmp_path: Path) -> None:
    heading = "file,onset_s,offset_s,label,note\n"
    text = 'song.wav,1.0,1.2,a,"two\nlines"\nsong.wav,x,1.2,b,\n'
    (problem,) = csv(tmp_path, text, heading)[1]
    assert "annotations.csv:4: onset_s 'x' is not a number" in problem


@pytest.mark.parametrize(
    ("heading", "words"),
    [
        ("file;onset_s;offset_s;label\n", "separated by semicolons"),
        ("file\tonset_s\toffset_s\tlabel\n", "separated by tabs"),
        ("sep=;\nfile;onset_s\na;0,5\n", "separated by semicolons"),
        ("PK\x03\x04", "is a spreadsheet"),
        ("file,start,stop,label\n", "'onset_s', 'offset_s' are missing; there are"),
        ("file,onset_s,offset_s,label,Label\n", "names 'label' twice"),
        ("", "is empty"),
        (" \n", "is empty"),
    ],
)
def test_a_heading_that_does_not_fit_is_told(
    tmp_path: Path, heading: str, words: str
) -> None:
    _, problems, _ = csv(tmp_path, "", heading)
    assert len(problems) == 1
    assert words in problems[0]


def test_rows_are_not_blamed_for_a_faulty_heading(tmp_path: Path) -> None:
    rows = "song.wav,1.0,1.2,a\n" * 30
    (problem,) = csv(tmp_path / "csv", rows, "file,onset_s,offset_s\n")[1]
    assert "column 'label' is missing" in problem
    heading = RAVEN.replace("\tAnnotation", "")
    (problem,) = raven(tmp_path / "raven", selection(1, 1.0, 1.2, "a"), heading)[1]
    assert "has no column 'Annotation' with labels" in problem


def test_bytes_that_are_no_text_are_told_with_their_line(tmp_path: Path) -> None:
    _, problems, _ = csv(tmp_path, CSV.encode() + b"song.wav,1.0,1.2,caf\xe9\n")
    assert "line 2 is not UTF-8 text (byte 0xe9)" in problems[0]
    _, problems, _ = csv(tmp_path, bytes(range(256)) * 10)
    assert len(problems) == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("1.0\t1.2\n", "song.txt:1: the label is missing"),
        ("1.0\t1.2\t\n", "song.txt:1: the label is empty"),
        ("1.0\t1.2\ta\tb\n", "song.txt:1: 4 cells"),
        ("1,0\t1,2\ta\n", "song.txt:1: onset '1,0' has a comma"),
        ("1.0 1.2 a\n", "with tabs between them"),
        ("1.0\t1.2\ta\nx\t1.3\tb\n", "song.txt:2: onset 'x' is not a number"),
        ("inf\t1.2\ta\n", "song.txt:1: onset 'inf' is not finite"),
        ("Recorded by me.\n", "is no Audacity label track"),
    ],
)
def test_faults_of_a_label_track(tmp_path: Path, text: str, words: str) -> None:
    _, problems, _ = track(tmp_path, text)
    assert len(problems) == 1
    assert words in problems[0]


def test_scores_of_detect_are_no_labels(tmp_path: Path) -> None:
    text = "0.5\t0.6\ta\n1.0\t1.2\t27.803229\n1.3\t1.4\t-0.120000\n1.5\t1.6\t0.5\n"
    (problem,) = track(tmp_path, text)[1]
    assert "song.txt:2: label '27.803229' is a score that `detect` wrote" in problem
    assert "(so are 1 more): give each sound its label first" in problem


def test_all_mistakes_of_all_tables_are_told_at_once(tmp_path: Path) -> None:
    files = {f"{n}.wav": "" for n in "abc"}
    files |= {"a.txt": RAVEN + selection(1, 1, 1.2, "a"), "b.txt": RAVEN + "x\n"}
    files |= {
        "c.txt": RAVEN.replace("Annotation", "Note"),
        "files.csv": "file\nz.wav\n",
    }
    _, problems, _ = read(write_files(tmp_path, files), "raven")
    assert len(problems) == 3
    assert all(name in "".join(problems) for name in ("b.txt:2", "c.txt", "z.wav"))


# ---- Raven ----


def test_a_selection_that_stands_in_two_views_is_read_once(tmp_path: Path) -> None:
    text = "".join(
        selection(n, n, n + 0.2, label, view=view)
        for n, label in ((1, "a"), (2, "b"))
        for view in ("Waveform 1", "Spectrogram 1")
    )
    assert raven(tmp_path, text)[0] == {"song.wav": TWO}


def test_views_that_label_a_selection_differently_are_refused(tmp_path: Path) -> None:
    text = selection(1, 1.0, 1.2, "a") + selection(1, 1.0, 1.2, "b", view="W 1")
    _, problems, _ = raven(tmp_path, text)
    assert len(problems) == 1
    assert "song.txt:3: the selection is labelled 'b' here, and 'a'" in problems[0]


@pytest.mark.parametrize(
    ("form", "table", "name", "stranger"),
    [
        (
            "raven",
            RAVEN + selection(1, 1.0, 1.2, "a"),
            "song.txt",
            "day\tby\n1\t2\t3\n",
        ),
        (
            "simple-seq",
            "onset_s,offset_s,label\n1,1.2,a\n",
            "song.csv",
            'a,"b\n1,2,3\n',
        ),
    ],
)
def test_tables_of_another_kind_are_passed_over_whatever_their_rows_are(
    tmp_path: Path, form: str, table: str, name: str, stranger: str
) -> None:
    files = {"song.wav": "", name: table, f"notes{name[-4:]}": stranger}
    rows, problems, notes = read(write_files(tmp_path, files), form)
    assert (rows, problems) == ({"song.wav": ONE}, [])
    assert "passed over" in notes[0]


@pytest.mark.parametrize("name", ["Files.csv", "FILES.CSV", "files.tsv"])
def test_a_table_of_the_split_is_found_or_told(tmp_path: Path, name: str) -> None:
    text = f"{CSV}song.wav,1.0,1.2,a\n"
    files = {
        "song.wav": "",
        "Annotations.csv": text,
        name: "file,split\nsong.wav,test\n",
    }
    dataset = read_dataset(write_files(tmp_path, files))
    is_read = dataset.recordings[0].columns.get("split") == "test"
    assert is_read != any(name in note for note in dataset.notes)


def test_labels_that_may_mean_background_are_units_and_are_told(tmp_path: Path) -> None:
    rows, _, notes = track(tmp_path, "1.0\t1.2\tnoise\n")
    assert rows == {"song.wav": [(1.0, 1.2, "noise")]}
    assert "'noise'" in notes[0]


def test_a_selection_that_stands_twice_in_a_view_is_refused(tmp_path: Path) -> None:
    text = selection(1, 1, 1.2, "a") + selection(2, 1, 1.2, "a")
    assert "song.txt:3" in raven(tmp_path, text)[1][0]


def test_a_heading_alone_says_that_nothing_was_sung(tmp_path: Path) -> None:
    files = {"song.wav": "", "song.txt": RAVEN, "b.wav": ""}
    files["b.txt"] = RAVEN + selection(1, 1.0, 1.2, "a")
    rows, _, _ = read(write_files(tmp_path, files), "raven")
    assert rows == {"song.wav": [], "b.wav": ONE}


def test_an_empty_label_track_says_that_nothing_was_sung(tmp_path: Path) -> None:
    files = {"song.wav": "", "song.txt": b"", "b.wav": "", "b.txt": "1.0\t1.2\ta\n"}
    rows, _, _ = read(write_files(tmp_path, files), "audacity")
    assert rows == {"song.wav": [], "b.wav": ONE}


def test_quoted_headings_mean_quoted_cells(tmp_path: Path) -> None:
    heading = '"Selection"\t"Begin Time (s)"\t"End Time (s)"\t"Annotation"\n'
    rows, _, _ = raven(tmp_path, '1\t1.0\t1.2\t"a"\n', heading)
    assert rows == {"song.wav": ONE}


def test_faults_of_a_raven_table(tmp_path: Path) -> None:
    _, problems, _ = raven(tmp_path, "", RAVEN.replace("Annotation", "Note"))
    assert len(problems) == 1
    assert "song.txt" in problems[0]
    for text, words in (
        (selection(1, "1,0", "1,2", "a"), "has a comma"),
        (selection(1, 1, 1.2, ""), "song.txt:2: the label is empty"),
        (selection(1, 1, 1.2, "a", channel="x"), "channel 'x' is no number"),
        (selection(1, 1, 1.2, "a", channel="2"), "'song.wav' has 1 channel"),
        ("1\tS 1\t1\t1.0\n", "song.txt:2: 4 cells"),
    ):
        _, problems, _ = raven(tmp_path, text)
        assert len(problems) == 1
        assert words in problems[0]


# ---- large tables, links ----


def test_a_hundred_thousand_rows_are_read(tmp_path: Path) -> None:
    text = "".join(
        f"{k / 30000:.6f}\t{(k + 1) / 30000:.6f}\ta\n" for k in range(100_000)
    )
    rows, problems, _ = track(tmp_path, text)
    assert not problems
    assert len(rows["song.wav"]) == 100_000


def test_tables_and_recordings_may_be_links(tmp_path: Path) -> None:
    write_files(tmp_path, {"store/x": "1.0\t1.2\ta\n", "store/song.wav": ""})
    (tmp_path / "set").mkdir()
    for name, target in (("song.txt", "x"), ("song.wav", "song.wav")):
        os.symlink(tmp_path / "store" / target, tmp_path / "set" / name)
    assert read(tmp_path / "set", "audacity")[0] == {"song.wav": ONE}
