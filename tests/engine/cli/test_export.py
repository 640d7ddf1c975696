"""``neurovocal export``: tables of a journal's events in each format."""

import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from processes.cli_process import neurovocal
from stages.journals import INFO, frames, label, write

from neurovocal.engine.contracts.types import Anchor, Gap, Health, Message, Offset
from neurovocal.engine.journal.reader import Selection, read_messages

DAY = "2023-11-14T22:13:2{}Z"  # 1_700_000_000 s
BASE_NS = 1_700_000_000 * 10**9


def at(message: Message, seconds: float) -> Message:
    return replace(message, utc_ns=BASE_NS + round(seconds * 1e9))


def provisional(seq: int) -> Message:
    message = label(seq)
    event = replace(message.event, status="provisional", offset=None)  # type: ignore[type-var]
    return replace(message, event=event)


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    path = tmp_path / "j.sqlite"
    write(path, [at(label(0), 0), provisional(1), at(label(2), 3)], "first")
    health = Message(INFO, Health("zmq", "lossy", "it cannot keep up"), 0, 9)
    gap = Message(INFO, Gap(10, 20, "overrun"), 0, 20)
    write(path, [at(label(0, float("nan")), 5), gap, health, frames(0)], "second")
    return path


def rows(*arguments: str) -> list[dict[str, str]]:
    done = neurovocal("export", *arguments)
    assert done.code == 0, done.err
    return list(csv.DictReader(io.StringIO(done.out)))


def test_final_labels_of_all_runs_by_default(journal: Path) -> None:
    found = rows(str(journal))
    assert [(r["run"], r["seq"]) for r in found] == [
        ("first", "0"),
        ("first", "2"),
        ("second", "0"),
    ]
    first = found[0]
    assert first["utc"] == "2023-11-14T22:13:20.000000Z"
    assert (first["unit"], first["posterior"], first["status"]) == ("b", "0.5", "final")
    assert float(first["offset_s"]) == pytest.approx(9 / 32000, abs=1e-6)
    assert found[2]["posterior"] == ""


def test_provisional_labels_on_request(journal: Path) -> None:
    found = rows(str(journal), "--provisional", "--run", "first")
    assert [r["status"] for r in found] == ["final", "provisional", "final"]
    assert found[1]["offset_s"] == ""


@pytest.mark.parametrize(
    ("options", "seqs"),
    [
        (["--since", DAY.format(3)], ["2", "0"]),
        (["--until", DAY.format(3)], ["0"]),
        (["--since", "2023-11-14T23:13:21+01:00", "--until", DAY.format(5)], ["2"]),
        (["--until", "1999-01-01T00:00Z"], []),
        (["--run", "second"], ["0"]),
    ],
)
def test_selections_by_option(
    journal: Path, options: list[str], seqs: list[str]
) -> None:
    chosen = [r["seq"] for r in rows(str(journal), *options) if r["utc"]]
    assert chosen == seqs


def test_several_kinds_share_one_table(journal: Path) -> None:
    found = rows(str(journal), "--kinds", "gap,health,label", "--run", "second")
    assert [r["kind"] for r in found] == ["label", "gap", "health"]
    assert found[1]["reason"] == "overrun"
    assert found[2]["detail"] == "it cannot keep up"


def test_parquet_columns_have_types(journal: Path, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    out = tmp_path / "labels.parquet"
    done = neurovocal("export", str(journal), "--format", "parquet", "-o", str(out))
    assert done.code == 0, done.err
    table = parquet.read_table(out)
    assert table["unit"].to_pylist() == ["b", "b", "b"]
    assert table["posterior"].to_pylist() == [0.5, 0.5, None]
    assert str(table.schema.field("utc").type) == "timestamp[ns, tz=UTC]"
    assert sorted(p.name for p in tmp_path.iterdir() if "part" in p.name) == []


def test_json_lines_raven_and_audacity_hold_one_run(journal: Path) -> None:
    lines = neurovocal("export", str(journal), "--format", "jsonl")
    assert [json.loads(line)["seq"] for line in lines.out.splitlines()] == [0]
    assert "run second, the newest of 2" in lines.err
    raven = neurovocal("export", str(journal), "--format", "raven", "--run", "first")
    assert raven.out.splitlines()[0].startswith("Selection\t")
    assert len(raven.out.splitlines()) == 3
    audacity = neurovocal("export", str(journal), "--format", "audacity")
    assert audacity.out == "0.000000\t0.000281\tb\n"


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--since", "2023-11-14"], "has no time zone"),
        (["--until", "yesterday"], "is no time such as"),
        (["--kinds", "lable"], "'lable' is none"),
        (["--run", "third"], "no run 'third' (it has: first, second)"),
        (["--format", "raven", "--kinds", "gap"], "leave out --kinds"),
        (["--stream", "hall"], "has no stream 'hall' ("),
        (["--format", "parquet"], "a Parquet table is a file"),
        (["--out", "no/such/folder.csv"], "does not exist"),
    ],
)
def test_each_mistake_is_one_sentence(
    journal: Path, options: list[str], sentence: str
) -> None:
    if "parquet" in options:
        pytest.importorskip("pyarrow")
    done = neurovocal("export", str(journal), *options)
    assert done.code == 1
    assert sentence in done.err
    assert done.out == ""


def test_an_empty_table_is_noted_on_stderr(journal: Path) -> None:
    done = neurovocal("export", str(journal), "--until", "1999-01-01T00:00Z")
    assert (done.code, len(done.out.splitlines())) == (0, 1)
    assert done.err == "note: no event of the journal is what was asked for\n"


@pytest.mark.parametrize("form", ["csv", "raven", "audacity"])
def test_a_run_without_a_model_has_no_labels_and_its_segments_are_named(
    tmp_path: Path, form: str
) -> None:
    path = tmp_path / "segments.sqlite"
    write(path, [Message(INFO, Offset(7, 10, 90, False), 0, 99)])
    done = neurovocal("export", str(path), "--format", form)
    assert done.code == 0
    assert done.err == (
        "note: no event of the journal is what was asked for: no label, but 1 segment "
        "(--format csv --kinds offset)\n"
    )
    assert len(rows(str(path), "--kinds", "offset")) == 1


def test_each_recording_has_an_audacity_track_and_all_are_named(tmp_path: Path) -> None:
    path, table = tmp_path / "two.sqlite", tmp_path / "labels.txt"
    other = replace(INFO, stream="other.wav")
    write(path, [label(0), replace(label(2), info=other), label(4)], "first")
    done = neurovocal(
        *("export", str(path), "--format", "audacity", "--out", str(table))
    )
    refused = neurovocal("export", str(path), "--format", "audacity")
    assert (refused.code, refused.out) == (1, "")
    assert "add --out FILE" in refused.err
    beside = tmp_path / "labels.other.wav.txt"
    assert done.code == 0
    first = tmp_path / f"labels.{INFO.stream}.txt"
    assert done.err.splitlines() == [
        f"wrote '{first}'",
        f"wrote '{beside}'",
        "wrote 3 events to a track for each recording",
    ]
    assert len(first.read_text().splitlines()) == 2
    assert len(beside.read_text().splitlines()) == 1
    left = [p for p in tmp_path.iterdir() if not p.name.startswith("two.")]
    assert sorted(left) == sorted([first, beside])


def test_an_existing_file_is_replaced_by_a_complete_one_only(journal: Path) -> None:
    out = journal.with_name("labels.csv")
    out.write_text("precious")
    other = neurovocal("export", str(journal), "-o", str(out))
    assert (other.code, out.read_text()) == (1, "precious")
    assert "is a text file of another kind" in other.err
    out.unlink()
    assert neurovocal("export", str(journal), "-o", str(out)).code == 0
    table = out.read_text()
    bad = neurovocal("export", str(journal), "--run", "third", "-o", str(out))
    assert (bad.code, out.read_text()) == (1, table)
    good = neurovocal("export", str(journal), "-o", str(out))
    assert good.code == 0
    assert out.read_text().startswith("run,stream,kind")


def test_read_messages_equal_the_written_ones(tmp_path: Path) -> None:
    path = tmp_path / "j.sqlite"
    messages = [label(0), frames(0), Message(INFO, Anchor(5, 77), 0, 5)]
    write(path, messages)
    found = [message for _, message in read_messages(path, Selection())]
    assert [m.event for m in found if m.kind != "frames"] == [
        messages[0].event,
        messages[2].event,
    ]
    assert found[0].ledger == messages[0].ledger
    assert found[1].event.values.tolist() == messages[1].event.values.tolist()  # type: ignore[union-attr]
