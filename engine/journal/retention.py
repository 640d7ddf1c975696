"""Retention: remove the oldest events of a journal by age or size."""

import sqlite3
from collections import Counter

# Limits of one step, which then takes a few hundredths of a second.
_MOST_ROWS = 2000
_MOST_PAGES = 2000


def remove_older(connection: sqlite3.Connection, before_utc_ns: int) -> int:
    """Remove events from before `before_utc_ns`, a bounded number per call.

    Events are removed in the order in which they were written, up to the first that is
    young enough. An event without a time has that of the start of its run.

    Returns
    -------
    int
        Number of removed events; call again until it is 0.
    """
    query = (
        "SELECT rowid, coalesce(utc_ns, (SELECT started_utc_ns FROM runs "
        "WHERE runs.run = messages.run)) FROM messages ORDER BY rowid LIMIT ?"
    )
    last = None
    for row, utc_ns in connection.execute(query, (_MOST_ROWS,)):
        if utc_ns >= before_utc_ns:
            break
        last = row
    return 0 if last is None else _remove_up_to(connection, last)


def remove_above(connection: sqlite3.Connection, most_bytes: int) -> int:
    """Remove the oldest events of a journal above a size, a bounded number per call.

    Returns
    -------
    int
        Number of removed events; call again until it is 0.
    """
    if used_bytes(connection) <= most_bytes:
        return 0
    query = "SELECT max(rowid) FROM (SELECT rowid FROM messages ORDER BY rowid LIMIT ?)"
    (last,) = connection.execute(query, (_MOST_ROWS,)).fetchone()
    return 0 if last is None else _remove_up_to(connection, last)


def used_bytes(connection: sqlite3.Connection) -> int:
    """Return the size of the journal without free pages and write-ahead log."""
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    (free,) = connection.execute("PRAGMA freelist_count").fetchone()
    (size,) = connection.execute("PRAGMA page_size").fetchone()
    return int((pages - free) * size)


def _remove_up_to(connection: sqlite3.Connection, last: int) -> int:
    """Remove rows up to `last` and add their number to `removed` of each run."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        removed = Counter(
            run
            for (run,) in connection.execute(
                "DELETE FROM messages WHERE rowid <= ? RETURNING run", (last,)
            )
        )
        connection.executemany(
            "UPDATE runs SET removed = removed + ? WHERE run = ?",
            [(number, run) for run, number in removed.items()],
        )
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")
    connection.execute(f"PRAGMA incremental_vacuum({_MOST_PAGES})").fetchall()
    return removed.total()
