"""What keeps a journal from growing for ever: its oldest events go."""

import sqlite3
from collections import Counter

# Per step: deleting so many takes a few hundredths of a second.
_MOST_ROWS = 2000
_MOST_PAGES = 2000


def remove_older(connection: sqlite3.Connection, before_utc_ns: int) -> int:
    """Remove events of a time before `before_utc_ns`: the oldest, a bounded number.

    Events go in the order in which they were written, up to the first that is
    young enough. One without a time of its own is as old as its run.

    Returns
    -------
    int
        How many were removed; call again until it is 0.
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
    """Remove the oldest events of a journal that is too large: a bounded number.

    Returns
    -------
    int
        How many were removed; call again until it is 0.
    """
    if used_bytes(connection) <= most_bytes:
        return 0
    query = "SELECT max(rowid) FROM (SELECT rowid FROM messages ORDER BY rowid LIMIT ?)"
    (last,) = connection.execute(query, (_MOST_ROWS,)).fetchone()
    return 0 if last is None else _remove_up_to(connection, last)


def used_bytes(connection: sqlite3.Connection) -> int:
    """Size of what the journal holds, without free pages and write-ahead log."""
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    (free,) = connection.execute("PRAGMA freelist_count").fetchone()
    (size,) = connection.execute("PRAGMA page_size").fetchone()
    return int((pages - free) * size)


def _remove_up_to(connection: sqlite3.Connection, last: int) -> int:
    """Remove rows up to `last` and note in each run how many it lost."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        gone = Counter(
            run
            for (run,) in connection.execute(
                "DELETE FROM messages WHERE rowid <= ? RETURNING run", (last,)
            )
        )
        connection.executemany(
            "UPDATE runs SET removed = removed + ? WHERE run = ?",
            [(number, run) for run, number in gone.items()],
        )
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")
    connection.execute(f"PRAGMA incremental_vacuum({_MOST_PAGES})").fetchall()
    return gone.total()
