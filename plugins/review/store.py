"""Events of a review in an SQLite file that is only ever added to.

Each event holds what a person did, and the segments that it changed as they were before
and after it. The segments as they are now follow from the events in their order.
"""

import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, TypeAlias

import msgspec

from neurovocal.engine import ConfigError, StageError
from neurovocal.engine.support.outputs import folder_problem
from neurovocal.engine.support.text import printable
from neurovocal.plugins.review.segments import Image

Action: TypeAlias = Literal[
    "label", "confirm", "move", "split", "merge", "delete", "add", "undo", "redo"
]

APPLICATION_ID = int.from_bytes(b"NvRv")
SCHEMA_VERSION = 1
_BUSY_S = 5.0
_LONGEST_AUTHOR = 80

# The triggers hold the promise that nothing is overwritten.
_STATEMENTS = (
    """CREATE TABLE events (
        event INTEGER PRIMARY KEY AUTOINCREMENT,
        utc_ns INTEGER NOT NULL,
        author TEXT NOT NULL,
        action TEXT NOT NULL,
        of INTEGER,
        changes TEXT NOT NULL
    )""",
    "CREATE TRIGGER events_stay BEFORE UPDATE ON events "
    "BEGIN SELECT raise(ABORT, 'events are only added'); END",
    "CREATE TRIGGER events_remain BEFORE DELETE ON events "
    "BEGIN SELECT raise(ABORT, 'events are only added'); END",
)


class Change(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A segment before and after an event; ``before`` None: it was added."""

    segment: str
    before: Image | None
    after: Image


class ReviewEvent(msgspec.Struct, frozen=True):
    """One thing that a person did.

    Parameters
    ----------
    event : int
        Its number, counted from 1 in the file.
    utc_ns : int
        When, by the clock of the machine.
    author : str
        Who.
    action : str
        What, such as ``label``.
    of : int or None
        Number of the event that was undone or done again.
    changes : tuple of Change
        The segments that it changed.
    """

    event: int
    utc_ns: int
    author: str
    action: Action
    of: int | None
    changes: tuple[Change, ...]


_changes = msgspec.json.Decoder(tuple[Change, ...])


class ReviewStore:
    """Events in a file; several programs may add to it at the same time.

    Parameters
    ----------
    path : Path
        The file, ``NAME.review.sqlite``. It is made with the first event.

    Raises
    ------
    ConfigError
        The file is no review, of a newer version, damaged, or cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.RLock()
        self._connection: sqlite3.Connection | None = None
        if path.exists():
            self._connection = self._open()
        else:
            self._require_folder()

    def after(self, event: int) -> list[ReviewEvent]:
        """Return the events with a larger number, in their order.

        Raises
        ------
        StageError
            The file cannot be read, or holds an event that is none.
        """
        with self._lock:
            if self._connection is None:
                if not self.path.exists():
                    return []
                self._connection = self._open()  # another program has made it
            query = "SELECT * FROM events WHERE event > ? ORDER BY event"
            try:
                rows = self._connection.execute(query, (event,)).fetchall()
                return [_event_of(row) for row in rows]
            except (sqlite3.Error, msgspec.MsgspecError, TypeError) as error:
                raise StageError(
                    f"review '{self.path}' cannot be read: {printable(str(error))}"
                ) from error

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Let no other program add events meanwhile; what is added is kept at the end.

        Raises
        ------
        StageError
            The disk does not take the events: none of them is kept.
        """
        with self._lock:
            try:
                connection = self._connection = self._connection or self._open()
                connection.execute("BEGIN IMMEDIATE")
                try:
                    yield
                    connection.execute("COMMIT")
                except BaseException:
                    if connection.in_transaction:
                        connection.execute("ROLLBACK")
                    raise
            except sqlite3.Error as error:
                raise StageError(
                    f"nothing was changed: '{self.path}' cannot be written "
                    f"({printable(str(error))})"
                ) from error

    def add(
        self,
        author: str,
        action: Action,
        changes: Iterable[Change],
        of: int | None = None,
    ) -> int:
        """Add an event, within `exclusive`, and return its number."""
        assert self._connection is not None
        text = msgspec.json.encode(tuple(changes)).decode()
        cursor = self._connection.execute(
            "INSERT INTO events (utc_ns, author, action, of, changes) "
            "VALUES (?, ?, ?, ?, ?)",
            (time.time_ns(), author, action, of, text),
        )
        assert cursor.lastrowid is not None
        return cursor.lastrowid

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def _require_folder(self) -> None:
        if (problem := folder_problem(self.path.parent)) is not None:
            raise ConfigError(
                f"the review cannot be kept in '{self.path}': {problem}: name another "
                "file with --events F"
            )

    def _open(self) -> sqlite3.Connection:
        connection = None
        try:
            if self.path.is_dir():
                raise ConfigError(f"'{self.path}' is a folder, and a review is a file")
            connection = sqlite3.connect(
                self.path,
                timeout=_BUSY_S,
                isolation_level=None,
                check_same_thread=False,
            )
            self._prepare(connection)
        except (sqlite3.Error, OSError, ConfigError) as error:
            if connection is not None:
                connection.close()
            if isinstance(error, ConfigError):
                raise
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF
            if code in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
                raise ConfigError(
                    f"'{self.path}' is no review, or is damaged: move it away, or "
                    "name another file with --events F"
                ) from error
            raise ConfigError(
                f"the review cannot be kept in '{self.path}': {error}: name another "
                "file with --events F"
            ) from error
        return connection

    def _prepare(self, connection: sqlite3.Connection) -> None:
        """Make the table of a new file; refuse a file of another kind or version."""
        connection.execute("PRAGMA trusted_schema = OFF")
        connection.execute("BEGIN IMMEDIATE")
        try:
            (application,) = connection.execute("PRAGMA application_id").fetchone()
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            (tables,) = connection.execute(
                "SELECT count(*) FROM sqlite_schema"
            ).fetchone()
            if not tables and not application:
                for statement in _STATEMENTS:
                    connection.execute(statement)
                connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            elif application != APPLICATION_ID:
                raise ConfigError(
                    f"'{self.path}' is no review: name another file with --events F"
                )
            elif version != SCHEMA_VERSION:
                raise ConfigError(
                    f"review '{self.path}' has version {version}, this program knows "
                    f"{SCHEMA_VERSION}: update, or name another file with --events F"
                )
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")
        connection.execute("PRAGMA synchronous = FULL")


def checked_author(text: str) -> str:
    """Return the name of an author as it is stored: one line, 80 letters at most."""
    name = " ".join(printable(text).split())[:_LONGEST_AUTHOR]
    return name or "somebody"


def review_path(reviewed: Path) -> Path:
    """Return the file of the review of a journal or folder: beside it.

    ``run.sqlite`` has ``run.review.sqlite``, the folder ``songs`` has
    ``songs.review.sqlite``.
    """
    path = reviewed.absolute()
    stem = path.stem if path.is_file() else path.name
    return path.with_name(f"{stem or 'root'}.review.sqlite")


def _event_of(row: tuple[int, int, str, Action, int | None, str]) -> ReviewEvent:
    event, utc_ns, author, action, of, changes = row
    return ReviewEvent(event, utc_ns, author, action, of, _changes.decode(changes))
