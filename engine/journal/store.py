"""The journal's file: events in SQLite, one file for many runs (docs/journal.md)."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from neurovocal.engine.contracts.errors import ConfigError

__all__ = [
    "DamagedJournalError",
    "Recorded",
    "RunRecord",
    "open_journal",
    "open_to_read",
    "read_events",
    "runs",
]

SCHEMA_VERSION = 2
# Marks the file as ours: SQLite keeps it in the file's first bytes.
APPLICATION_ID = int.from_bytes(b"NvJl")

_MAGIC = b"SQLite format 3\0"
# The SQLite file format (sqlite.org/fileformat2.html), section 1.3.
_USER_VERSION = slice(60, 64)
_APPLICATION = slice(68, 72)
_HEADER_LENGTH = 100
_BUSY_S = 5.0
# Up to here every page is looked at when a journal is opened (a second or less).
_CHECKED_BYTES = 128 * 2**20
# What reading a damaged file may come to: SQLite looks at little of it by itself.
_UNREADABLE = (sqlite3.Error, TypeError, AttributeError, UnicodeError)
# What a checkpoint leaves of the write-ahead log's file.
_WAL_BYTES = 16 * 2**20

_TABLES = """
CREATE TABLE runs (
    run TEXT PRIMARY KEY,
    started_utc_ns INTEGER NOT NULL,
    version TEXT NOT NULL,
    config TEXT NOT NULL,
    ended_utc_ns INTEGER,
    removed INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE messages (
    run TEXT NOT NULL REFERENCES runs (run),
    kind TEXT NOT NULL,
    stream TEXT NOT NULL,
    seq INTEGER NOT NULL,
    sample INTEGER NOT NULL,
    utc_ns INTEGER,
    header TEXT NOT NULL,
    latency TEXT,
    payload BLOB NOT NULL,
    UNIQUE (run, kind, stream, seq)
);
CREATE INDEX messages_by_topic ON messages (kind, stream);
"""
# What leads from a version to the next one.
_MIGRATIONS = {
    1: (
        "ALTER TABLE runs ADD COLUMN ended_utc_ns INTEGER",
        "ALTER TABLE runs ADD COLUMN removed INTEGER NOT NULL DEFAULT 0",
        "CREATE INDEX IF NOT EXISTS messages_by_topic ON messages (kind, stream)",
    )
}


class DamagedJournalError(ConfigError):
    """The file is a journal, but its content is not whole."""


class RunRecord(NamedTuple):
    """One run of the engine, as its journal knows it.

    ``ended_utc_ns`` is None while the run goes on, and for ever if it was killed;
    ``removed`` counts events that were removed because of their age or size.
    """

    run: str
    started_utc_ns: int
    version: str
    config: str
    ended_utc_ns: int | None = None
    removed: int = 0


class Recorded(NamedTuple):
    """One event: canonical header (JSON) and payload, the same in every run."""

    kind: str
    stream: str
    seq: int
    header: bytes
    payload: bytes


def open_journal(
    path: Path, *, synchronous: str = "FULL", thorough: bool = False
) -> sqlite3.Connection:
    """Open a journal for writing; make it if there is none, update an older one.

    A transaction ends when it is told to. The connection may pass from thread to
    thread, but only one may use it at a time.

    Parameters
    ----------
    path : Path
    synchronous : {'FULL', 'NORMAL'}
        FULL: what is committed survives a loss of power. NORMAL: it survives the
        death of the program, and a loss of power takes what was committed since
        the last checkpoint, which may be long ago.
    thorough : bool
        Whether to look at every page, however large the file is.

    Raises
    ------
    DamagedJournalError
        The file is a journal, but not whole.
    ConfigError
        The file is no journal, is of a newer version, or cannot be written. It
        is left as it was.
    """
    exists = is_journal(path)
    connection = None
    try:
        connection = sqlite3.connect(
            path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False
        )
        if not exists:
            _create(connection)
        elif thorough or path.stat().st_size <= _CHECKED_BYTES:
            _look_through(connection, path)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA synchronous = {synchronous}")
        connection.execute(f"PRAGMA journal_size_limit = {_WAL_BYTES}")
        _migrate(connection, path)
    except (sqlite3.Error, ConfigError) as error:
        if connection is not None:
            connection.close()
        if isinstance(error, ConfigError):
            raise
        if is_damage(error):
            raise DamagedJournalError(
                f"journal '{path}' is damaged: {error}"
            ) from error
        raise ConfigError(f"journal '{path}' cannot be written: {error}") from error
    return connection


def is_damage(error: sqlite3.Error) -> bool:
    """Whether SQLite says that the file's content is not whole."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    return code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def runs(path: str | Path) -> list[RunRecord]:
    """Runs that a journal holds, oldest first.

    Raises
    ------
    ConfigError
        The file does not exist, is no journal or cannot be read.
    """
    with closing(open_to_read(Path(path))) as connection:
        query = "SELECT * FROM runs ORDER BY rowid"
        try:
            found = [RunRecord(*row) for row in connection.execute(query)]
        except _UNREADABLE as error:
            raise ConfigError(f"journal '{path}' cannot be read: {error}") from error
    if not all(isinstance(record.run, str) for record in found):
        raise ConfigError(f"journal '{path}' is damaged: a run has no name")
    return found


def read_events(path: str | Path, run: str | None = None) -> Iterator[Recorded]:
    """Events of a run in the order in which they were written.

    Parameters
    ----------
    path : path
        A journal; it may be in use.
    run : str, optional
        Name of the run; None means the newest.

    Raises
    ------
    ConfigError
        The file does not exist, is no journal, cannot be read or has no such run.
    """
    known = [record.run for record in runs(path)]
    if run is None and known:
        run = known[-1]
    if run is None or run not in known:
        names = ", ".join(known) or "none"
        raise ConfigError(f"journal '{path}' has no run '{run}' (it has: {names})")
    return _events(Path(path), run)


def _events(path: Path, run: str) -> Iterator[Recorded]:
    query = (
        "SELECT kind, stream, seq, header, payload FROM messages WHERE run = ? "
        "ORDER BY rowid"
    )
    with closing(open_to_read(path)) as connection:
        try:
            for kind, stream, seq, header, payload in connection.execute(query, (run,)):
                yield Recorded(kind, stream, seq, header.encode(), payload)
        except _UNREADABLE as error:
            raise ConfigError(f"journal '{path}' cannot be read: {error}") from error


def open_to_read(path: Path) -> sqlite3.Connection:
    """Open a journal for reading, also while an engine writes it.

    Raises
    ------
    ConfigError
        The file does not exist, is no journal, or cannot be read.
    """
    if not is_journal(path):
        raise ConfigError(f"there is no journal '{path}'")
    try:
        return sqlite3.connect(
            f"file:{quote(str(path.absolute()))}?mode=ro", uri=True, timeout=_BUSY_S
        )
    except sqlite3.Error as error:
        raise ConfigError(f"journal '{path}' cannot be read: {error}") from error


def is_journal(path: Path) -> bool:
    """Whether there is a journal to go on with; reads bytes, opens no database.

    Raises
    ------
    ConfigError
        The file is no journal, is of a newer version, or cannot be read.
    """
    try:
        with path.open("rb") as file:
            head = file.read(_HEADER_LENGTH)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise ConfigError(
            f"journal '{path}' cannot be read: {error.strerror}"
        ) from error
    if not head:
        return False
    application = int.from_bytes(head[_APPLICATION])
    if not head.startswith(_MAGIC) or application != APPLICATION_ID:
        raise ConfigError(f"'{path}' is not a journal: choose another path")
    _check_version(path, int.from_bytes(head[_USER_VERSION]))
    return True


def _check_version(path: Path, version: int) -> None:
    if not 1 <= version <= SCHEMA_VERSION:
        raise ConfigError(
            f"journal '{path}' has version {version}, this program knows 1 to "
            f"{SCHEMA_VERSION}: choose another path, or update"
        )


def _look_through(connection: sqlite3.Connection, path: Path) -> None:
    (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if verdict != "ok":
        raise DamagedJournalError(f"journal '{path}' is damaged: {verdict}")


def _migrate(connection: sqlite3.Connection, path: Path) -> None:
    """Bring an older journal to this version, in one transaction."""
    connection.execute("BEGIN IMMEDIATE")
    # Asked within the transaction: another program may have been quicker.
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    try:
        _check_version(path, version)
        for old in range(version, SCHEMA_VERSION):
            for statement in _MIGRATIONS[old]:
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def _create(connection: sqlite3.Connection) -> None:
    """Make tables and marks at once: no reader ever sees half a journal."""
    # So that what is removed later gives its space back, a little at a time.
    connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
    connection.execute("BEGIN IMMEDIATE")
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    if not tables:  # another program may have been quicker
        for statement in _TABLES.split(";")[:-1]:
            connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    connection.execute("COMMIT")
