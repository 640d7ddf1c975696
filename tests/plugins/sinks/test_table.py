"""Table sink: CSV, Raven, Audacity and JSON."""

import csv
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from repository import import_path

from neurovocal.engine.contracts.clock import SystemClock
from neurovocal.engine.contracts.errors import ConfigError, StageError
from neurovocal.engine.contracts.plugin import BuildContext
from neurovocal.engine.contracts.registry import Registry
from neurovocal.engine.contracts.types import Label, Message, Offset, Onset, StreamInfo
from neurovocal.engine.testing import check_sink
from neurovocal.plugins.sinks.table import TableOptions, TableSink, plugin

INFO = StreamInfo("day 1/bird.wav", 32000)
OTHER = StreamInfo("day 2/bird.wav", 1000)
CONTEXT = BuildContext(SystemClock(), "run")


def build(**options: object) -> TableSink:
    sink = plugin.build(TableOptions.model_validate(options), CONTEXT)
    assert isinstance(sink, TableSink)
    return sink


def label(
    unit: str, onset: int, offset: int | None, info: StreamInfo = INFO
) -> Message:
    status = "provisional" if offset is None else "final"
    event = Label(0, onset, offset, unit, 0.97654321, status, "m")  # type: ignore[arg-type]
    return Message(info, event, 0, 0)


def segment(number: int, onset: int, offset: int, score: float) -> list[Message]:
    return [
        Message(INFO, Onset(number, onset, score), number, 0),
        Message(INFO, Offset(number, onset, offset, truncated=False), number, 0),
    ]


LABELS = [
    label("a", 32000, None),
    label("a", 32000, 33600),
    label("b,\t2", 48000, 48001),
]
SEGMENTS = [*segment(0, 32000, 33600, 4.5), *segment(1, 48000, 48001, 1 / 3)]


def written(path: Path, messages: Sequence[Message], **options: object) -> str:
    sink = build(path=str(path), **options)
    sink.open()
    for message in messages:
        sink.write(message)
    sink.close()
    return path.read_bytes().decode()


def test_is_installed_under_its_name() -> None:
    assert Registry().get("sink", "table") is plugin


@pytest.mark.parametrize("form", ["csv", "raven", "audacity"])
@pytest.mark.parametrize("content", ["segments", "labels"])
def test_keeps_the_contract_of_sinks(tmp_path: Path, form: str, content: str) -> None:
    path = str(tmp_path / "out")
    check_sink(
        lambda: build(path=path, format=form, content=content), [*LABELS, *SEGMENTS]
    )


@pytest.mark.parametrize("form", ["csv", "raven", "audacity"])
@pytest.mark.parametrize("content", ["segments", "labels"])
def test_reopened_sink_appends(tmp_path: Path, form: str, content: str) -> None:
    """After a failure earlier rows stay, and the heading is not repeated."""
    messages = LABELS if content == "labels" else SEGMENTS
    options = {"format": form, "content": content}
    whole = written(tmp_path / "whole", messages, **options)
    path = tmp_path / "again"
    sink = build(path=str(path), **options)
    for message in messages:
        sink.open()
        sink.write(message)
        sink.close()
    assert path.read_bytes().decode() == whole


def test_csv_of_labels(tmp_path: Path) -> None:
    text = written(tmp_path / "out.csv", LABELS)
    assert text == (
        "file,onset_s,offset_s,label,posterior\n"
        "day 1/bird.wav,1.000000,1.050000,a,0.976543\n"
        'day 1/bird.wav,1.500000,1.500031,"b,\t2",0.976543\n'
    )


def test_csv_of_segments(tmp_path: Path) -> None:
    text = written(tmp_path / "out.csv", SEGMENTS, content="segments")
    assert text == (
        "file,onset_s,offset_s,score\n"
        "day 1/bird.wav,1.000000,1.050000,4.500000\n"
        "day 1/bird.wav,1.500000,1.500031,0.333333\n"
    )


def test_segment_without_onset_event_has_no_score(tmp_path: Path) -> None:
    text = written(tmp_path / "out.csv", SEGMENTS[1:], content="segments")
    assert text.splitlines()[1] == "day 1/bird.wav,1.000000,1.050000,"


def test_table_without_rows_is_a_heading(tmp_path: Path) -> None:
    assert written(tmp_path / "a", []) == "file,onset_s,offset_s,label,posterior\n"
    text = written(tmp_path / "b", [], content="segments")
    assert text == "file,onset_s,offset_s,score\n"
    assert written(tmp_path / "c", [], format="audacity") == ""


def test_table_subscribes_to_the_kinds_of_its_rows() -> None:
    assert build(content="labels").wants == {"label"}
    assert build(content="segments").wants == {"onset", "offset"}


def test_raven_selections(tmp_path: Path) -> None:
    path = tmp_path / "out.txt"
    messages = [*LABELS, label("c", 500, 600, OTHER)]
    written(path, messages, format="raven")
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    assert [row["Selection"] for row in rows] == ["1", "2", "3"]
    assert [row["Annotation"] for row in rows] == ["a", "b, 2", "c"]
    assert [row["Begin Time (s)"] for row in rows] == [
        "1.000000",
        "1.500000",
        "2.000031",
    ]
    assert rows[2]["End Time (s)"] == "2.100031"
    assert rows[2]["File Offset (s)"] == "0.500000"
    assert rows[2]["High Freq (Hz)"] == "500.0"
    assert rows[2]["Begin File"] == "bird.wav"
    assert rows[2]["Begin Path"] == "day 2/bird.wav"


def test_raven_times_count_on_through_the_recordings(tmp_path: Path) -> None:
    path = tmp_path / "out.txt"
    streams = [
        StreamInfo(f"{name}.wav.ch{n}", 1000, 1, (n,), 4.0)
        for name in "abc"
        for n in (1, 2)
    ]
    written(path, [label("x", 500, 600, s) for s in streams], format="raven")
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    begins = [float(row["Begin Time (s)"]) for row in rows]
    assert begins == [0.5, 0.5, 4.5, 4.5, 8.5, 8.5]
    assert [row["Channel"] for row in rows] == ["1", "2"] * 3
    assert [row["Begin File"] for row in rows[::2]] == ["a.wav", "b.wav", "c.wav"]


def test_a_channel_without_a_number_is_that_of_the_stream(tmp_path: Path) -> None:
    path = tmp_path / "out.txt"
    written(path, [label("x", 5, 6, StreamInfo("a.wav.ch3", 1000))], format="raven")
    with path.open(newline="") as file:
        (row,) = csv.DictReader(file, delimiter="\t")
    assert (row["Begin File"], row["Channel"]) == ("a.wav", "3")


def test_another_channel_than_the_first_is_named(tmp_path: Path) -> None:
    message = label("x", 5, 6, StreamInfo("a.wav", 1000, 1, (2,)))
    text = written(tmp_path / "out.csv", [message])
    assert text.splitlines()[1].startswith("a.wav.ch2,")


def test_tracks_apart_are_all_named_by_their_recording(tmp_path: Path) -> None:
    streams = [StreamInfo(name, 1000) for name in ("a.wav", "b.wav", "a.wav")]
    messages = [label("x", i * 1000, i * 1000 + 1, s) for i, s in enumerate(streams)]
    path = tmp_path / "out.txt"
    sink = build(path=str(path), format="audacity", apart=True)
    sink.open()
    for message in messages:
        sink.write(message)
    sink.close()
    found = {p.name: len(p.read_text().splitlines()) for p in tmp_path.iterdir()}
    assert found == {"out.a.wav.txt": 2, "out.b.wav.txt": 1}


@pytest.mark.filterwarnings("ignore:The inplace keyword")  # pandas, in crowsetta
def test_crowsetta_reads_the_raven_table(tmp_path: Path) -> None:
    crowsetta = pytest.importorskip("crowsetta")
    path = tmp_path / "out.txt"
    written(path, LABELS, format="raven")
    raven = crowsetta.formats.bbox.Raven.from_file(path, annot_col="Annotation")
    boxes = raven.to_annot().bboxes
    assert [(box.onset, box.offset, box.label) for box in boxes] == [
        (1.0, 1.05, "a"),
        (1.5, 1.500031, "b, 2"),
    ]


def test_audacity_labels(tmp_path: Path) -> None:
    text = written(tmp_path / "out.txt", LABELS, format="audacity")
    assert text == "1.000000\t1.050000\ta\n1.500000\t1.500031\tb, 2\n"


def test_each_recording_has_its_own_audacity_track(tmp_path: Path) -> None:
    streams = [StreamInfo(name, 1000) for name in ("a", "b/1", "b 1", "a", "b/1")]
    messages = [label("x", i * 1000, i * 1000 + 1, s) for i, s in enumerate(streams)]
    written(tmp_path / "out.txt", messages, format="audacity")
    found = {
        path.name: [line.split("\t")[0] for line in path.read_text().splitlines()]
        for path in tmp_path.iterdir()
    }
    assert found == {
        "out.txt": ["0.000000", "3.000000"],
        "out.b_1.txt": ["1.000000", "4.000000"],
        "out.b_1-2.txt": ["2.000000"],
    }


def test_second_audacity_track_on_stdout_is_refused() -> None:
    sink = build(format="audacity")
    sink.open()
    sink.write(label("a", 0, 1))
    with pytest.raises(StageError, match="holds one recording"):
        sink.write(label("a", 0, 1, OTHER))
    sink.close()


def test_stdout_stays_open(capsys: pytest.CaptureFixture[str]) -> None:
    sink = build()
    sink.open()
    sink.write(LABELS[1])
    sink.close()
    print("after")
    assert capsys.readouterr().out.splitlines() == [
        "file,onset_s,offset_s,label,posterior",
        "day 1/bird.wav,1.000000,1.050000,a,0.976543",
        "after",
    ]


def test_rows_are_flushed_at_once(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    sink = build(path=str(path))
    sink.open()
    sink.write(LABELS[1])
    assert len(path.read_text().splitlines()) == 2
    sink.close()


def test_file_names_that_are_not_utf8_keep_their_bytes(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    sink = build(path=str(path))
    sink.open()
    sink.write(label("a", 0, 1, StreamInfo("b\udcffrd.wav", 1000)))
    sink.close()
    assert path.read_bytes().splitlines()[1].startswith(b"b\xffrd.wav,0.000000")


def test_full_disk_raises_a_clear_error() -> None:
    sink = build(path="/dev/full")
    with pytest.raises(StageError, match="'/dev/full' cannot be written: No space"):
        sink.open()
    sink.close()


def test_closed_stdout_raises_broken_pipe() -> None:
    script = """
import sys
sys.path[:0] = sys.argv[1].split(":")
from test_table import LABELS, build
sink = build()
sink.open()
try:
    while True:
        sink.write(LABELS[1])
except BrokenPipeError:
    sys.stderr.write("gone")
    sys.stderr.flush()
    import os
    os._exit(0)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", script, import_path(__file__)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == "gone"


@pytest.mark.parametrize(
    ("name", "sentence"), [("no/such/out.csv", "does not exist"), ("", "is a folder")]
)
def test_unwritable_paths_are_refused(tmp_path: Path, name: str, sentence: str) -> None:
    path = str(tmp_path / name)
    (problem,) = plugin.check(TableOptions(path=path), CONTEXT)
    assert sentence in problem
    with pytest.raises(ConfigError, match="cannot be written"):
        build(path=path).open()


def test_names_that_are_formulas_get_an_apostrophe_if_asked(tmp_path: Path) -> None:
    info = StreamInfo("=cmd.wav", 32000)
    rows = [label("-2", 32000, 33600, info), label("a", 48000, 48001, INFO)]
    raw = written(tmp_path / "raw.csv", rows).splitlines()
    safe = written(tmp_path / "safe.csv", rows, safe_csv=True).splitlines()
    assert raw[1].startswith("=cmd.wav,1.000000,1.050000,-2,")
    assert safe[1].startswith("'=cmd.wav,1.000000,1.050000,'-2,")
    assert safe[0::2] == raw[0::2]
    (problem,) = plugin.check(
        TableOptions(path=str(tmp_path / "x"), format="raven", safe_csv=True), CONTEXT
    )
    assert "leave it out" in problem


def test_control_characters_never_reach_standard_output(
    capsys: pytest.CaptureFixture[str],
) -> None:
    sink = build(path="-")
    sink.open()
    sink.write(label("\x1b]0;title\x07", 32000, 33600))
    sink.close()
    row = capsys.readouterr().out.splitlines()[1]
    assert ",\\x1b]0;title\\x07," in row


def test_label_tracks_with_the_longest_names_lie_beside_each_other(
    tmp_path: Path,
) -> None:
    path = tmp_path / f"{'k' * 251}.txt"
    streams = ["x" * 300, "x" * 301, "y" * 300]
    rows = [label("a", 32000, 33600, StreamInfo(name, 32000)) for name in streams]
    written(path, rows, format="audacity")
    assert len(list(tmp_path.iterdir())) == 3
