"""Reader of messages: rows of a journal as the engine published them."""

import sqlite3
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np

from neurovocal.engine.contracts.errors import ConfigError
from neurovocal.engine.contracts.types import Ledger, Message, StreamInfo
from neurovocal.engine.journal.repeats import incomplete_recordings
from neurovocal.engine.journal.store import open_to_read, unreadable
from neurovocal.engine.support.strict_json import JsonReader
from neurovocal.engine.wire.codec import Latency, to_event
from neurovocal.engine.wire.headers import AnchorHeader, ArrayHeader, decoder


@dataclass(frozen=True, slots=True)
class Selection:
    """Filter for the events of a journal; None means all.

    Parameters
    ----------
    runs, kinds, streams : tuple of str, optional
        Names to select.
    since_ns, until_ns : int, optional
        Interval ``[since_ns, until_ns)`` of the event's UTC. An event without a time,
        as in a recording of unknown date, has that of the start of its run.
    heard : {'all', 'last'}
        `last` leaves out the incomplete reading of a recording that was read again
        after a kill or stop, if the runs of both are selected.
    """

    runs: tuple[str, ...] | None = None
    kinds: tuple[str, ...] | None = None
    streams: tuple[str, ...] | None = None
    since_ns: int | None = None
    until_ns: int | None = None
    heard: Literal["all", "last"] = "all"


def count_messages(path: str | Path, selection: Selection) -> int:
    """Count the messages that `read_messages` would yield now."""
    where, values = _where(selection)
    with closing(open_to_read(Path(path))) as connection:
        query = f"SELECT count(*) FROM messages {where}"
        try:
            _create_exclusions(connection, selection)
            (number,) = connection.execute(query, values).fetchone()
        except sqlite3.Error as error:
            raise unreadable(path, error) from error
    return int(number)


def streams_of(path: str | Path, runs: Sequence[str] | None = None) -> list[str]:
    """Return the sorted names of the streams of a journal, or of some of its runs."""
    where, values = _where(Selection(runs=tuple(runs) if runs else None))
    with closing(open_to_read(Path(path))) as connection:
        query = f"SELECT DISTINCT stream FROM messages {where} ORDER BY stream"
        try:
            return [name for (name,) in connection.execute(query, values)]
        except sqlite3.Error as error:
            raise unreadable(path, error) from error


def read_messages(
    path: str | Path, selection: Selection
) -> Iterator[tuple[str, Message]]:
    """Yield the run and the message of each selected event, in order of writing.

    Rows are read one at a time: memory does not grow with the journal. Rows that are
    written after the first has been read are not included.

    Raises
    ------
    ConfigError
        The file does not exist, is no journal, or cannot be read.
    """
    columns = "run, header, utc_ns, latency, payload"
    with closing(select_rows(path, columns, selection)) as rows:
        try:
            for run, header, utc_ns, latency, payload in rows:
                yield run, message_of(header, utc_ns, latency, payload)
        except (msgspec.MsgspecError, ValueError, TypeError, AttributeError) as error:
            raise ConfigError(
                f"journal '{path}' holds an event that cannot be read: {error}"
            ) from error


def select_rows(
    path: str | Path, columns: str, selection: Selection
) -> Generator[tuple[Any, ...]]:
    """Yield `columns` of the rows of the selected events, in order of writing.

    The values are as the file has them, unchecked. Memory does not grow with the
    journal.

    Raises
    ------
    ConfigError
        The file does not exist, is no journal, or cannot be read.
    """
    where, values = _where(selection, in_order=True)
    query = f"SELECT {columns} FROM messages {where} ORDER BY rowid"
    with closing(open_to_read(Path(path))) as connection:
        try:
            _create_exclusions(connection, selection)
            yield from connection.execute(query, values)
        except (sqlite3.Error, UnicodeError) as error:
            raise unreadable(path, error) from error


def count_incomplete_recordings(path: str | Path, selection: Selection) -> int:
    """Count the incomplete readings, which the choice "last" leaves out."""
    with closing(open_to_read(Path(path))) as connection:
        try:
            found = incomplete_recordings(connection, selection.runs)
        except sqlite3.Error as error:
            raise unreadable(path, error) from error
    streams = selection.streams
    return len({one[:3] for one in found if streams is None or one.stream in streams})


def _create_exclusions(connection: sqlite3.Connection, selection: Selection) -> None:
    """Fill a temporary table with the rows to leave out; the journal is unchanged."""
    if selection.heard == "all":
        return
    connection.execute("PRAGMA temp_store = MEMORY")
    connection.execute("CREATE TEMP TABLE earlier (run, stream, first, stop)")
    connection.execute("CREATE INDEX temp.earlier_by_stream ON earlier (run, stream)")
    connection.executemany(
        "INSERT INTO earlier VALUES (?, ?, ?, ?)",
        incomplete_recordings(connection, selection.runs),
    )


def _where(selection: Selection, *, in_order: bool = False) -> tuple[str, list[object]]:
    """Return the condition of a query and its values.

    Parameters
    ----------
    selection : Selection
        What to select.
    in_order : bool
        Whether the query reads rows in the order of writing. It then uses no index of
        names, whose rows SQLite would have to sort in memory.
    """
    conditions: list[str] = []
    no_index = "+" if in_order else ""
    values: list[object] = []
    chosen = {
        "run": selection.runs,
        "kind": selection.kinds,
        "stream": selection.streams,
    }
    for column, names in chosen.items():
        if names is not None:
            conditions.append(f"{no_index}{column} IN ({', '.join('?' * len(names))})")
            values += names
    time = (
        "coalesce(utc_ns, (SELECT started_utc_ns FROM runs "
        "WHERE runs.run = messages.run))"
    )
    for sign, limit in ((">=", selection.since_ns), ("<", selection.until_ns)):
        if limit is not None:
            conditions.append(f"{time} {sign} ?")
            # SQLite takes 64 bits: times beyond select all events, or none.
            values.append(max(-(2**63), min(limit, 2**63 - 1)))
    if selection.heard == "last":
        conditions.append(
            "NOT EXISTS (SELECT 1 FROM temp.earlier AS earlier "
            "WHERE earlier.run = messages.run AND earlier.stream = messages.stream "
            "AND messages.rowid >= earlier.first AND messages.rowid < earlier.stop)"
        )
    return (f"WHERE {' AND '.join(conditions)}" if conditions else ""), values


def message_of(
    text: str, utc_ns: int | None, latency: str | None, payload: bytes
) -> Message:
    """Return the message of one row."""
    if not isinstance(text, str) or not isinstance(latency, str | None):
        raise ValueError("its header or its latency is no text")
    header = decoder.read(text.encode())
    if not isinstance(utc_ns, int | None) or not isinstance(payload, bytes):
        raise ValueError("its time is no number, or its payload no bytes")
    values = None
    if isinstance(header, ArrayHeader):
        values = np.frombuffer(payload, header.dtype).reshape(header.shape)
    if isinstance(header, AnchorHeader):
        header.utc_ns = utc_ns
    return Message(
        info=StreamInfo(header.stream, header.sample_rate),
        event=to_event(header, values),
        seq=header.seq,
        at=header.at,
        utc_ns=utc_ns,
        ledger=_ledger(latency),
    )


_latencies = JsonReader(Latency)


def _ledger(text: str | None) -> Ledger | None:
    if text is None:
        return None
    parts = _latencies.read(text.encode())
    if parts.wait_ms is None or parts.queue_ms is None or parts.compute_ms is None:
        return None
    return Ledger(parts.wait_ms, parts.queue_ms, parts.compute_ms)
