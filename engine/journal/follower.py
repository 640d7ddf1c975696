"""Follower of a journal: events in the order of writing, from a kept position on."""

import sqlite3
from collections.abc import Collection
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import msgspec

from neurovocal.engine.contracts.errors import ConfigError
from neurovocal.engine.contracts.types import Message
from neurovocal.engine.journal.reader import message_of
from neurovocal.engine.journal.store import open_to_read, unreadable

_UNREADABLE = (msgspec.MsgspecError, ValueError, TypeError, AttributeError)
_NEWEST = (
    "SELECT run, kind, stream, seq, rowid FROM messages ORDER BY rowid DESC LIMIT 1"
)
_KEY = "run = ? AND kind = ? AND stream = ? AND seq = ?"


class Position(msgspec.Struct, frozen=True):
    """Place of an event in a journal: its number in a topic of a run, and its row.

    Retention may remove the row, and ``VACUUM`` may renumber it.
    """

    run: str
    kind: str
    stream: str
    seq: int
    row: int


class Entry(NamedTuple):
    """One event of a journal with its run and place."""

    position: Position
    message: Message


@dataclass(frozen=True, slots=True)
class _File:
    """Identity of a journal's file: another one may have its name later."""

    device: int
    inode: int


class JournalFollower:
    """Reads the events of some kinds that a journal gets, each once, in order.

    The engine may be writing the journal; it need not exist yet. A journal that was
    replaced by another one (a damaged one is set aside) is read from its beginning.

    Parameters
    ----------
    path : Path
        The journal.
    kinds : collection of str
        Kinds of events to read; none of them bulky.
    after : Position, optional
        Last event that is not read again; None: the whole journal is read.

    Attributes
    ----------
    removed : int
        Events of any kind that retention removed before they were read.
    reached : Position or None
        Newest event, of any kind, up to which the journal has been read.
    """

    def __init__(
        self, path: Path, kinds: Collection[str], after: Position | None = None
    ) -> None:
        self.removed = 0
        self.reached = after
        self._path = path
        self._kinds = sorted(kinds)
        self._after = after
        self._file: _File | None = None
        self._row = 0  # all rows up to this one were read, or are of other kinds

    def newest(self) -> Position | None:
        """Return the place of the newest event; None for a journal without events.

        Raises
        ------
        ConfigError
            The file is no journal, or cannot be read.
        """
        if not self._has_file():
            return None
        with closing(open_to_read(self._path)) as connection:
            try:
                found = connection.execute(_NEWEST).fetchone()
            except sqlite3.Error as error:
                raise unreadable(self._path, error) from error
        return None if found is None else Position(*found)

    def read(self, most: int) -> list[Entry]:
        """Return up to `most` events that follow those read before.

        Raises
        ------
        ConfigError
            The file is no journal, or holds an event that cannot be read.
        """
        if not self._has_file():
            return []
        with closing(open_to_read(self._path)) as connection:
            try:
                connection.execute("BEGIN")  # all queries see the same state
                self._resume(connection)
                return self._read(connection, most)
            except sqlite3.Error as error:
                raise unreadable(self._path, error) from error
            except _UNREADABLE as error:
                raise ConfigError(
                    f"journal '{self._path}' holds an event that cannot be read: "
                    f"{error}"
                ) from error

    def _has_file(self) -> bool:
        try:
            return self._path.stat().st_size > 0
        except FileNotFoundError:
            return False

    def _resume(self, connection: sqlite3.Connection) -> None:
        """Find the row to go on after in the file that has the name now."""
        status = self._path.stat()
        file = _File(status.st_dev, status.st_ino)
        if file != self._file:
            if self._file is None and self._after is not None:
                self._row = _row_of(connection, self._after)
            else:
                self._row = 0
            self._file = file
        lowest, highest = connection.execute(
            "SELECT min(rowid), max(rowid) FROM messages"
        ).fetchone()
        if highest is None or highest < self._row:
            self._row = 0  # retention removed all rows: they are counted from 1 again
        elif self._row and lowest > self._row + 1:
            self.removed += lowest - self._row - 1
            self._row = lowest - 1

    def _read(self, connection: sqlite3.Connection, most: int) -> list[Entry]:
        names = ", ".join("?" * len(self._kinds))
        # '+' keeps SQLite from an index of kinds, whose rows it would have to sort.
        query = (
            "SELECT run, kind, stream, seq, rowid, header, utc_ns, latency "
            f"FROM messages WHERE rowid > ? AND +kind IN ({names}) "
            "ORDER BY rowid LIMIT ?"
        )
        newest = connection.execute(_NEWEST).fetchone()
        found: list[Entry] = []
        for *place, header, utc_ns, latency in connection.execute(
            query, (self._row, *self._kinds, most)
        ):
            message = message_of(header, utc_ns, latency, b"")
            found.append(Entry(Position(*place), message))
        if len(found) == most:
            self.reached = found[-1].position
        else:
            self.reached = None if newest is None else Position(*newest)
        self._row = 0 if self.reached is None else self.reached.row
        return found


def _row_of(connection: sqlite3.Connection, position: Position) -> int:
    """Return the row of an event; 0 if the journal never held it.

    Retention removes the oldest rows: where the event was removed, the rows that are
    left are newer.
    """
    place = (position.run, position.kind, position.stream, position.seq)
    found = connection.execute(
        f"SELECT rowid FROM messages WHERE {_KEY}", place
    ).fetchone()
    if found is not None:
        return int(found[0])
    (lowest,) = connection.execute("SELECT min(rowid) FROM messages").fetchone()
    return position.row if lowest is not None and lowest > position.row else 0
