"""Journal file: events of runs in SQLite (docs/reference/journal.md)."""

import os
import shutil
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple
from urllib.parse import quote

from neurovocal.engine.contracts.errors import ConfigError, StageError
from neurovocal.engine.support.text import printable

__all__ = [
    "DamagedJournalError",
    "RecordedEvent",
    "RunRecord",
    "open_journal",
    "open_to_read",
    "read_events",
    "runs",
    "without_runs",
]

SCHEMA_VERSION = 2
# The SQLite file format (sqlite.org/fileformat2.html), section 1.3.
_USER_VERSION = slice(60, 64)
_APPLICATION = slice(68, 72)
_HEADER_LENGTH = 100
# Marks a journal; SQLite keeps it in the header of the file.
APPLICATION_ID = int.from_bytes(b"NvJl")

_BUSY_S = 5.0
# Larger than any event, whose payload has 64 MiB at most.
_MOST_ROW_BYTES = 128 * 2**20
_SHOWN_CHARS = 64
# Up to this size every page is checked when a journal is opened, within a second.
_CHECKED_BYTES = 128 * 2**20
# Errors of reading a damaged file, of which SQLite checks little by itself.
_UNREADABLE = (sqlite3.Error, TypeError, AttributeError, UnicodeError)
# Size to which a checkpoint truncates the write-ahead log.
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
# Statements that convert a version to the next one.
_MIGRATIONS = {
    1: (
        "ALTER TABLE runs ADD COLUMN ended_utc_ns INTEGER",
        "ALTER TABLE runs ADD COLUMN removed INTEGER NOT NULL DEFAULT 0",
        "CREATE INDEX IF NOT EXISTS messages_by_topic ON messages (kind, stream)",
    )
}


class DamagedJournalError(ConfigError):
    """The file is a journal, but damaged."""


class RunRecord(NamedTuple):
    """One run of the engine in a journal.

    ``ended_utc_ns`` is None while the run lasts, and if it was killed; ``removed``
    counts the events that were removed because of their age or the journal's size.
    """

    run: str
    started_utc_ns: int
    version: str
    config: str
    ended_utc_ns: int | None = None
    removed: int = 0


class RecordedEvent(NamedTuple):
    """One event: canonical header (JSON) and payload, equal in every replay."""

    kind: str
    stream: str
    seq: int
    header: bytes
    payload: bytes


def open_journal(
    path: Path, *, synchronous: str = "FULL", thorough: bool = False
) -> sqlite3.Connection:
    """Open a journal for writing; create a missing one, update an older version.

    Transactions must be ended explicitly. Any thread may use the connection, one at a
    time.

    Parameters
    ----------
    path : Path
        The journal.
    synchronous : {'FULL', 'NORMAL'}
        FULL: committed events survive a power failure. NORMAL: they survive a crash of
        the program; a power failure loses those since the last checkpoint.
    thorough : bool
        Whether to check every page of a file of any size.

    Raises
    ------
    DamagedJournalError
        The file is a journal, but damaged.
    ConfigError
        The file is no journal, is of a newer version, or cannot be written. It is left
        unchanged.
    StageError
        Another program has had it locked for 5 s.
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
            _check_pages(connection, path)
        _check_schema(connection, path)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA synchronous = {synchronous}")
        connection.execute(f"PRAGMA journal_size_limit = {_WAL_BYTES}")
        _migrate(connection, path)
    except (sqlite3.Error, UnicodeError, ConfigError) as error:
        if connection is not None:
            connection.close()
        if isinstance(error, ConfigError):
            raise
        if isinstance(error, UnicodeError):  # SQLite's sentence quotes the damage
            raise DamagedJournalError(f"journal '{path}' is damaged") from error
        if is_locked(error):
            raise StageError(
                f"journal '{path}' is locked by another program, such as a browser of "
                "databases: close it there"
            ) from error
        if is_damage(error):
            raise DamagedJournalError(
                f"journal '{path}' is damaged: {error}"
            ) from error
        raise ConfigError(f"journal '{path}' cannot be written: {error}") from error
    return connection


def is_locked(error: sqlite3.Error) -> bool:
    """Return True if another program has the file locked."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    return code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def is_damage(error: sqlite3.Error) -> bool:
    """Return True if an error of SQLite means that the file is damaged."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    return code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def runs(path: str | Path) -> list[RunRecord]:
    """Return the runs of a journal, the oldest first.

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
            raise unreadable(path, error) from error
    if not all(isinstance(record.run, str) for record in found):
        raise ConfigError(f"journal '{path}' is damaged: a run has no name")
    for record in found:
        are_texts = isinstance(record.version, str) and isinstance(record.config, str)
        if not are_texts or not isinstance(record.started_utc_ns, int):
            raise ConfigError(
                f"journal '{path}' is damaged: the configuration of run "
                f"'{printable(record.run)}' is no text, or its time no number"
            )
    return found


def without_runs(path: Path) -> ConfigError:
    """Return the error for a journal that holds no run, with its likely reason."""
    hint = ""
    if not _size_of(path.with_name(path.name + "-wal")):
        hint = (
            f": if it was copied from a running engine, copy '{path.name}-wal' beside "
            "it, too, which holds the newest events"
        )
    return ConfigError(f"journal '{path}' holds no run{hint}")


def read_events(path: str | Path, run: str | None = None) -> Iterator[RecordedEvent]:
    """Yield the events of a run in the order in which they were written.

    Parameters
    ----------
    path : path
        The journal, which an engine may be writing.
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


def _events(path: Path, run: str) -> Iterator[RecordedEvent]:
    query = (
        "SELECT kind, stream, seq, header, payload FROM messages WHERE run = ? "
        "ORDER BY rowid"
    )
    with closing(open_to_read(path)) as connection:
        try:
            for kind, stream, seq, header, payload in connection.execute(query, (run,)):
                if not isinstance(header, str) or not isinstance(payload, bytes):
                    raise ConfigError(
                        f"journal '{path}' holds an event that cannot be read: its "
                        "header is no text, or its payload no bytes"
                    )
                yield RecordedEvent(kind, stream, seq, header.encode(), payload)
        except _UNREADABLE as error:
            raise unreadable(path, error) from error


def open_to_read(path: Path) -> sqlite3.Connection:
    """Open a journal for reading, which is possible while an engine writes it.

    Raises
    ------
    ConfigError
        The file does not exist, is no journal, or cannot be read.
    """
    if not is_journal(path):
        problem = "is empty (0 bytes)" if path.exists() else "does not exist"
        raise ConfigError(f"journal '{path}' {problem}")
    connection = None
    try:
        connection = _connect_to_read(path)
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _MOST_ROW_BYTES)
        connection.execute("PRAGMA trusted_schema = OFF")
        _check_schema(connection, path)
    except (sqlite3.Error, OSError, UnicodeError, ConfigError) as error:
        if connection is not None:
            connection.close()
        if isinstance(error, ConfigError):
            raise
        raise unreadable(path, error) from error
    return connection


def unreadable(path: str | Path, error: Exception) -> ConfigError:
    """Return the error for a journal that cannot be read, with a way out."""
    is_damaged = isinstance(error, sqlite3.Error) and is_damage(error)
    if is_damaged or isinstance(error, UnicodeError):
        # The sentence of an error of text would quote the damage.
        cause = f": {error}" if is_damaged else ""
        return DamagedJournalError(
            f"journal '{path}' is damaged{cause}; 'sqlite3 {path} .recover' prints "
            "what is left of it"
        )
    return ConfigError(f"journal '{path}' cannot be read: {error}")


def _connect_to_read(path: Path) -> sqlite3.Connection:
    """Connect to a journal, also where its folder cannot be written.

    SQLite makes two files beside a journal. A connection that may write, as the last
    one, removes them again; it is not used where the write-ahead log holds events,
    because it would move these into the journal. Where SQLite cannot make the files,
    no program writes the journal: it is read as it is, or as a copy if its write-ahead
    log holds events.
    """
    log_path = path.with_name(path.name + "-wal")
    mode = "ro" if _size_of(log_path) else "rw"
    connection = _connect(path, f"mode={mode}")
    try:
        connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    except sqlite3.OperationalError as error:
        connection.close()
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code not in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY):
            raise
    else:
        return connection
    if not _size_of(log_path):
        return _connect(path, "mode=ro&immutable=1")
    with TemporaryDirectory(prefix="neurovocal-") as folder:
        for part in (path, log_path):
            shutil.copyfile(part, Path(folder) / part.name)
        connection = sqlite3.connect(Path(folder) / path.name)
        connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        return connection  # the kernel keeps its files until it is closed


def _connect(path: Path, parameters: str) -> sqlite3.Connection:
    uri = f"file:{quote(os.fsencode(path.absolute()))}?{parameters}"
    return sqlite3.connect(uri, uri=True, timeout=_BUSY_S)


def _size_of(path: Path) -> int:
    """Return the size of a file in bytes; 0 if it is missing."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _check_schema(connection: sqlite3.Connection, path: Path) -> None:
    """Refuse a journal that computes instead of holding events.

    Raises
    ------
    ConfigError
        It holds a view, a trigger or a virtual table, or lacks a table.
    """
    tables = set()
    query = "SELECT type, name, sql FROM sqlite_schema"
    for kind, name, text in connection.execute(query):
        if str(text).lower().startswith("create table"):
            tables.add(name)
        elif kind != "index":
            is_virtual = "virtual" in str(text)[:_SHOWN_CHARS].lower()
            raise ConfigError(
                f"'{path}' is no journal of this program: it holds a "
                f"{'virtual ' * is_virtual}{printable(str(kind))}, "
                f"'{printable(str(name)[:_SHOWN_CHARS])}'"
            )
    if missing := {"runs", "messages"} - tables:
        raise ConfigError(
            f"'{path}' is no journal of this program: it has no table '{min(missing)}'"
        )


def is_journal(path: Path) -> bool:
    """Return True if the file is a journal, False if it is missing or empty.

    SQLite reads the header, and only that: if this process opened and closed the file
    itself, the kernel would release the locks of a journal that the process writes
    (sqlite.org/howtocorrupt.html, section 2.2), and any other program that then closes
    the journal would remove its write-ahead log with all newer events.

    Raises
    ------
    ConfigError
        The file is no journal, is of a newer version, or cannot be read.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            kind = "a folder" if stat.S_ISDIR(status.st_mode) else "a pipe or device"
            raise ConfigError(f"'{path}' is {kind}, and a journal is a file")
        if not status.st_size:
            return False
        application, version = _header_of(path)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise ConfigError(
            f"journal '{path}' cannot be read: {error.strerror}"
        ) from error
    except sqlite3.OperationalError as error:
        raise ConfigError(f"journal '{path}' cannot be read: {error}") from error
    except sqlite3.DatabaseError:
        application, version = 0, 0
    if application != APPLICATION_ID:
        raise ConfigError(f"'{path}' is not a journal: choose another path")
    _check_version(path, version)
    return True


def _header_of(path: Path) -> tuple[int, int]:
    """Return application number and version, without locks and further files."""
    with closing(_connect(path, "mode=ro&immutable=1")) as connection:
        try:
            (application,) = connection.execute("PRAGMA application_id").fetchone()
            (version,) = connection.execute("PRAGMA user_version").fetchone()
        except sqlite3.DatabaseError as error:
            if getattr(error, "sqlite_errorcode", 0) & 0xFF != sqlite3.SQLITE_CORRUPT:
                raise
        else:
            return application, version
    # Cut short or damaged: no run of this process has it open any more.
    with path.open("rb") as file:
        head = file.read(_HEADER_LENGTH)
    return int.from_bytes(head[_APPLICATION]), int.from_bytes(head[_USER_VERSION])


def _check_version(path: Path, version: int) -> None:
    if not 1 <= version <= SCHEMA_VERSION:
        raise ConfigError(
            f"journal '{path}' has version {version}, this program knows 1 to "
            f"{SCHEMA_VERSION}: choose another path, or update"
        )


def _check_pages(connection: sqlite3.Connection, path: Path) -> None:
    (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if verdict != "ok":
        raise DamagedJournalError(f"journal '{path}' is damaged: {verdict}")


def _migrate(connection: sqlite3.Connection, path: Path) -> None:
    """Convert an older journal to this version, in one transaction."""
    connection.execute("BEGIN IMMEDIATE")
    # Within the transaction: another program may have converted it meanwhile.
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
    """Create tables and marks in one transaction: no reader sees half a journal."""
    # Lets retention return the space of removed events step by step.
    connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
    connection.execute("BEGIN IMMEDIATE")
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    if not tables:  # another program may have created them meanwhile
        for statement in _TABLES.split(";")[:-1]:
            connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    connection.execute("COMMIT")
