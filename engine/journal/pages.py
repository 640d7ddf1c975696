"""Queries of the replay socket: topics, and pages of a topic after a position."""

import sqlite3
from collections.abc import Sequence
from typing import NamedTuple

from neurovocal.engine.contracts.types import Message
from neurovocal.engine.journal.reader import message_of

# A query must take the same time in a journal of a day and in one of a year: each of
# these seeks in an index instead of scanning rows.
_STREAMS = """
    WITH RECURSIVE known (stream) AS (
        SELECT (SELECT min(stream) FROM messages WHERE kind = ?1)
        UNION ALL
        SELECT (SELECT min(stream) FROM messages
                WHERE kind = ?1 AND stream > known.stream)
        FROM known WHERE known.stream IS NOT NULL
    )
    SELECT stream FROM known WHERE stream IS NOT NULL
"""
_RUN = "SELECT rowid FROM runs WHERE run = ?"
_LAST_KNOWN = (
    "SELECT rowid FROM messages WHERE run = ? AND kind = ? AND stream = ? "
    "AND seq <= ? ORDER BY seq DESC LIMIT 1"
)
_FIRST_SINCE = (
    "SELECT messages.rowid FROM runs CROSS JOIN messages ON messages.run = runs.run "
    "AND kind = ? AND stream = ? WHERE runs.rowid >= ? "
    "ORDER BY runs.rowid, seq LIMIT 1"
)


class Page(NamedTuple):
    """Messages of a topic with their runs, the oldest first."""

    messages: list[tuple[str, Message]]
    more: bool  # whether the journal holds further messages after these


def topics(
    connection: sqlite3.Connection, kinds: Sequence[str]
) -> list[tuple[str, str]]:
    """Return the topics (kind and stream) with messages in the journal."""
    return [
        (kind, stream)
        for kind in dict.fromkeys(kinds)
        for (stream,) in connection.execute(_STREAMS, (kind,))
    ]


def page_after(
    connection: sqlite3.Connection,
    topic: tuple[str, str],
    after: tuple[str, int] | None,
    *,
    newest_run: bool,
    most: int,
    most_bytes: int,
) -> Page:
    """Return messages of a topic after a position, from that run and later ones.

    Parameters
    ----------
    connection : Connection
        From `neurovocal.engine.journal.store.open_to_read`.
    topic : (str, str)
        Kind and stream.
    after : (str, int) or None
        Run and number of the last message that the client has. None, or a run that the
        journal does not hold (any more), means from the start.
    newest_run : bool
        Whether the start is that of the newest run instead of the oldest.
    most, most_bytes : int
        Limits of the page; it has at least one message if there is one.
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
    """Return the row after which the page starts; rows are numbered as written."""
    if after is not None:
        run, seq = after
        found = connection.execute(_LAST_KNOWN, (run, *topic, seq)).fetchone()
        if found is not None:
            return int(found[0])
        # The message was never recorded, or was removed: start with its run.
        known = connection.execute(_RUN, (run,)).fetchone()
        if known is not None:
            return _row_before_run(connection, topic, known[0])
    if newest_run:
        (newest,) = connection.execute("SELECT max(rowid) FROM runs").fetchone()
        return _row_before_run(connection, topic, newest)
    return 0


def _row_before_run(
    connection: sqlite3.Connection, topic: tuple[str, str], run: int | None
) -> int:
    found = connection.execute(_FIRST_SINCE, (*topic, run)).fetchone()
    if found is not None:
        return int(found[0]) - 1
    (last,) = connection.execute("SELECT max(rowid) FROM messages").fetchone()
    return int(last or 0)
