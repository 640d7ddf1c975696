"""Journals that others made: copied in part, read-only, locked, or made to harm."""

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from processes.cli_process import neurovocal
from stages.journals import build, label, write

from neurovocal.engine.contracts.errors import ConfigError, StageError
from neurovocal.engine.journal import store
from neurovocal.engine.journal.reader import Selection, read_messages
from neurovocal.engine.journal.store import (
    DamagedJournalError,
    open_journal,
    open_to_read,
    read_events,
    runs,
)

CONFIG = """version: 1
source: {plugin: file, options: {path: a.wav}}
sinks: [{plugin: journal, options: {path: run.sqlite}}]
"""


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    path = tmp_path / "run.sqlite"
    write(path, [label(seq) for seq in range(3)])
    return path


def change(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)


def not_writable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let SQLite fail as in a folder in which it may make no file."""
    connect = sqlite3.connect

    class Refusing(sqlite3.Connection):
        def execute(self, *arguments: object) -> sqlite3.Cursor:  # type: ignore[override]
            error = sqlite3.OperationalError("unable to open database file")
            error.sqlite_errorcode = sqlite3.SQLITE_CANTOPEN
            raise error

    def refuse(database: str | Path, **options: object) -> sqlite3.Connection:
        name = str(database)
        is_refused = name.endswith(("mode=ro", "mode=rw"))
        factory = Refusing if is_refused else sqlite3.Connection
        return connect(database, factory=factory, **options)  # type: ignore[call-overload,no-any-return]

    monkeypatch.setattr(sqlite3, "connect", refuse)


def test_a_journal_in_a_folder_that_cannot_be_written_is_read(
    journal: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    not_writable(monkeypatch)
    assert [event.seq for event in read_events(journal)] == [0, 1, 2]


def test_a_read_only_copy_of_a_running_journal_is_read_with_its_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = build(tmp_path / "run.sqlite", commit_ms=0)
    sink.open()
    for seq in range(3):
        sink.write(label(seq))
    sink.flush(1.0)
    card = tmp_path / "card"
    card.mkdir()
    for end in ("", "-wal"):
        shutil.copy(tmp_path / f"run.sqlite{end}", card)
    sink.close()
    not_writable(monkeypatch)
    assert [event.seq for event in read_events(card / "run.sqlite")] == [0, 1, 2]
    assert sorted(path.name for path in card.iterdir()) == [
        "run.sqlite",
        "run.sqlite-wal",
    ]


@pytest.mark.parametrize("command", ["export", "replay"])
def test_a_journal_copied_without_its_log_hints_at_it(
    tmp_path: Path, command: str
) -> None:
    sink = build(tmp_path / "run.sqlite", commit_ms=0)
    sink.open()
    sink.write(label(0))
    shutil.copy(tmp_path / "run.sqlite", tmp_path / "copy.sqlite")
    sink.close()
    done = neurovocal(command, str(tmp_path / "copy.sqlite"))
    assert done.code == 1
    assert "copy 'copy.sqlite-wal' beside it" in done.err


def test_a_locked_journal_is_a_failure_that_may_pass(
    journal: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "_BUSY_S", 0.05)
    with closing(sqlite3.connect(journal, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StageError, match="locked by another program"):
            build(journal).open()
        other.execute("ROLLBACK")
    assert StageError.exit_code == 2


ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)"
COLUMNS = "'r' AS run, 1 AS started_utc_ns, 'v' AS version, '' AS config, 1, 0"


@pytest.mark.parametrize(
    "statements",
    [
        (
            "DROP TABLE messages",
            f"CREATE VIEW messages AS {ENDLESS} SELECT i AS seq FROM n",
        ),
        ("DROP TABLE runs", f"CREATE VIEW runs AS {ENDLESS} SELECT {COLUMNS} FROM n"),
        (f"CREATE VIEW other AS {ENDLESS} SELECT i FROM n",),
        ("CREATE TRIGGER t AFTER INSERT ON runs BEGIN DELETE FROM messages; END",),
        ("DROP TABLE messages",),
    ],
    ids=["events", "runs", "unused", "trigger", "no table"],
)
@pytest.mark.parametrize("opener", [open_to_read, open_journal])
def test_a_journal_that_computes_is_refused(
    journal: Path,
    statements: tuple[str, ...],
    opener: Callable[[Path], sqlite3.Connection],
) -> None:
    change(journal, *statements)
    with pytest.raises(ConfigError, match="is no journal of this program"):
        opener(journal)


@pytest.mark.parametrize(
    "config",
    ["'[1, 2]'", "'7'", "7", "NULL_TEXT", "'version: 1\nsinks: 3'", "x'00ff'", "''"],
)
@pytest.mark.parametrize("command", ["replay", "export"])
def test_a_recorded_configuration_that_is_none_is_one_sentence(
    journal: Path, command: str, config: str
) -> None:
    value = "'~'" if config == "NULL_TEXT" else config
    change(journal, f"UPDATE runs SET config = {value}")
    done = neurovocal(command, str(journal))
    assert done.code in (0, 1)
    assert "Traceback" not in done.err
    assert command == "export" or done.err.startswith("error: ")


@pytest.mark.parametrize(
    "assignment",
    ["header = 5", "header = x'ff'", "utc_ns = 'soon'", "payload = 'text'"],
)
def test_an_event_of_another_type_is_one_sentence(
    journal: Path, assignment: str
) -> None:
    change(journal, f"UPDATE messages SET {assignment}")
    done = neurovocal("export", str(journal))
    assert done.code == 1
    assert done.err.startswith("error: ")
    assert "Traceback" not in done.err


@pytest.mark.parametrize(
    "names",
    [
        "detector: {plugin: 'mine.py:plugin'}",
        "models: [{plugin: 'mine.py:plugin'}]",
        "privacy: {gate: {plugin: './mine.py:plugin'}}",
    ],
)
def test_a_replay_runs_no_python_file_unless_it_is_trusted(
    journal: Path, tmp_path: Path, names: str
) -> None:
    mark = tmp_path / "ran"
    (tmp_path / "mine.py").write_text(f"open({str(mark)!r}, 'w')\n")
    text = f"# configuration: {tmp_path}/c.yaml\n{CONFIG}{names}\n"
    with closing(sqlite3.connect(journal, isolation_level=None)) as connection:
        connection.execute("UPDATE runs SET config = ?", (text,))
    done = neurovocal("replay", str(journal))
    assert done.code == 1
    assert not mark.exists()
    if "privacy" not in names:
        assert "--trust" in done.err
        neurovocal("replay", str(journal), "--trust")
        assert mark.exists()


def test_a_schema_that_is_no_utf_8_is_damage(journal: Path) -> None:
    with closing(sqlite3.connect(journal)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.execute("PRAGMA journal_mode = DELETE")
    data = journal.read_bytes()
    where = data.index(b"CREATE INDEX messages_by_topic")
    for bad in (b"CREATE INDEX \xbf", b"\xbfREATE INDEX m"):
        journal.write_bytes(data[:where] + bad + data[where + len(bad) :])
        for use in (open_to_read, open_journal):
            with pytest.raises(ConfigError, match=r"damaged|cannot be read") as caught:
                use(journal)
            assert "codec" not in str(caught.value)


@pytest.mark.parametrize("length", [4096, 9000])
def test_a_journal_that_was_cut_short_is_damaged_and_no_other_file(
    journal: Path, length: int
) -> None:
    journal.write_bytes(journal.read_bytes()[:length])
    for _ in range(2):
        with pytest.raises(DamagedJournalError, match=r"sqlite3 .*\.recover' prints"):
            runs(journal)
    with pytest.raises(DamagedJournalError):
        open_journal(journal)


@pytest.mark.parametrize(
    "change_of",
    ["header = x'ff00'", "payload = 'text'", "latency = x'ff'"],
)
def test_events_of_another_type_are_one_sentence(journal: Path, change_of: str) -> None:
    change(journal, f"UPDATE messages SET {change_of}")
    with pytest.raises(ConfigError, match=r"is no text|no bytes"):
        list(read_messages(journal, Selection()))
    if "latency" not in change_of:  # of which a replay makes nothing
        with pytest.raises(ConfigError, match=r"is no text|no bytes"):
            list(read_events(journal))


def test_an_empty_file_is_told_from_a_missing_one(tmp_path: Path) -> None:
    (tmp_path / "empty.sqlite").touch()
    with pytest.raises(ConfigError, match="is empty"):
        open_to_read(tmp_path / "empty.sqlite")
    with pytest.raises(ConfigError, match="does not exist"):
        open_to_read(tmp_path / "missing.sqlite")
