"""What a replay socket is asked for: the messages of a topic after a position."""

import sqlite3
from collections.abc import Sequence
from typing import NamedTuple

from neurovocal.engine.journal_reading import message_of
from neurovocal.engine.types import Message


class Page(NamedTuple):
    """Messages with their runs, the oldest first, and whether there are more."""

    messages: list[tuple[str, Message]]
    more: bool


def topics(
    connection: sqlite3.Connection, kinds: Sequence[str]
) -> list[tuple[str, str]]:
    """Kinds and streams of which the journal holds messages."""
    query = (
        "SELECT DISTINCT kind, stream FROM messages "
        f"WHERE kind IN ({', '.join('?' * len(kinds))})"
    )
    return list(connection.execute(query, list(kinds)))


def page_after(
    connection: sqlite3.Connection,
    topic: tuple[str, str],
    after: tuple[str, int] | None,
    *,
    newest_run: bool,
    most: int,
    most_bytes: int,
) -> Page:
    """Messages of a topic after a position, of that run and of all later ones.

    Parameters
    ----------
    connection : Connection
        From `neurovocal.engine.journal.open_to_read`.
    topic : (str, str)
        Kind and stream.
    after : (str, int) or None
        Run and number of the last message that is known. None, or a run that the
        journal does not hold (any more): from the beginning.
    newest_run : bool
        Whether the beginning is that of the newest run, rather than the oldest.
    most, most_bytes : int
        Bounds of the page; it holds at least one message if there is one.
    """
    row = _row_before(connection, topic, after, newest_run)
    query = (
        "SELECT run, header, utc_ns, latency, payload FROM messages "
        "WHERE kind = ? AND stream = ? AND rowid > ? ORDER BY rowid LIMIT ?"
    )
    found: list[tuple[str, Message]] = []
    size = 0
    rows = connection.execute(query, (*topic, row, most + 1))
    for run, header, utc_ns, latency, payload in rows:
        size += len(header) + len(payload)
        if len(found) == most or (found and size > most_bytes):
            rows.close()
            return Page(found, more=True)
        found.append((run, message_of(header, utc_ns, latency, payload)))
    return Page(found, more=False)


def _row_before(
    connection: sqlite3.Connection,
    topic: tuple[str, str],
    after: tuple[str, int] | None,
    newest_run: bool,
) -> int:
    """Row after which to begin; rows are numbered in the order of writing."""
    if after is not None:
        run, seq = after
        # Of the topic itself, or, where the message was never kept, of its run.
        for query, values in (
            (
                "SELECT max(rowid) FROM messages WHERE run = ? AND kind = ? "
                "AND stream = ? AND seq <= ?",
                (run, *topic, seq),
            ),
            ("SELECT min(rowid) - 1 FROM messages WHERE run = ?", (run,)),
        ):
            (row,) = connection.execute(query, values).fetchone()
            if row is not None:
                return int(row)
    if newest_run:
        query = (
            "SELECT min(rowid) - 1 FROM messages WHERE run = "
            "(SELECT run FROM runs ORDER BY rowid DESC LIMIT 1)"
        )
        (row,) = connection.execute(query).fetchone()
        if row is not None:
            return int(row)
        (row,) = connection.execute("SELECT max(rowid) FROM messages").fetchone()
        return int(row or 0)
    return 0
