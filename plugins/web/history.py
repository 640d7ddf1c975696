"""Events of the past, page by page: from memory, then from a journal."""

import json
import os
import re
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec

from neurovocal.engine import KINDS, ConfigError
from neurovocal.engine.contracts.types import BULK_KINDS
from neurovocal.engine.journal.reader import Selection, message_of
from neurovocal.engine.journal.store import open_to_read, unreadable
from neurovocal.engine.journal.summary import summarize
from neurovocal.engine.wire.codec import encode
from neurovocal.plugins.web.viewers import Hub, KeptEvent

MOST_EVENTS = 1000
EVENT_KINDS = tuple(kind for kind in KINDS.values() if kind not in BULK_KINDS)
# Rows of a journal that one request looks at: about half a second.
_MOST_ROWS = 50_000
_ROWS = (
    "SELECT rowid, run, header, utc_ns, latency, payload FROM messages "
    "WHERE rowid < ? AND rowid >= ? AND kind IN ({kinds}){stream} "
    "ORDER BY rowid DESC LIMIT ?"
)
_ROW_OF = (
    "SELECT rowid FROM messages WHERE run = ? AND kind = ? AND stream = ? AND seq = ?"
)
_CURSOR = re.compile(r"(m)-([0-9a-f]{8})-(\d{1,18})|(j)-(\d{1,18})")
# Events at the old end of memory that are looked for in the journal.
_MOST_LOOKED_FOR = 200


class Page(NamedTuple):
    """Headers as JSON, the newest first, and where the next page begins."""

    headers: list[str]
    cursor: str | None

    def to_json(self) -> str:
        """Return the answer to a request."""
        events = ",".join(self.headers)
        return f'{{"events":[{events}],"cursor":{json.dumps(self.cursor)}}}'


class History:
    """Past events of one station.

    Parameters
    ----------
    hub : Hub
        Keeps the newest.
    station : str
        Id of the station.
    journal : Path, optional
        Journal of the engine, which may be writing it.
    """

    def __init__(self, hub: Hub, station: str, journal: Path | None = None) -> None:
        self._hub = hub
        self._station = station
        self.journal = journal
        # Cursors of memory are of no use to another process.
        self._process = os.urandom(4).hex()

    def before(
        self,
        cursor: str | None = None,
        *,
        stream: str | None = None,
        kinds: Sequence[str] = EVENT_KINDS,
        limit: int = 200,
    ) -> Page:
        """Return up to `limit` events before a cursor, the newest first.

        A page may be short, or empty, although there are earlier events: it looks at a
        limited part of a journal. Only a page without a cursor is the last.

        Parameters
        ----------
        cursor : str, optional
            That of the page before; None: begin with the newest event.
        stream : str, optional
            Stream of the events; None: all.
        kinds : sequence of str
            Their kinds.
        limit : int
            Their number.

        Raises
        ------
        ConfigError
            The cursor is malformed, or the journal cannot be read.
        """
        ticket, row = self._position(cursor)
        wanted = frozenset(kinds)
        headers: list[str] = []
        if row is None:
            for event in self._remembered(ticket):
                if event.kind in wanted and stream in (None, event.stream):
                    headers.append(event.header)
                    if len(headers) == limit:
                        return Page(headers, f"m-{self._process}-{event.ticket}")
        if self.journal is None or not self.journal.exists():
            return Page(headers, None)
        with closing(open_to_read(self.journal)) as connection:
            try:
                if row is None:
                    row = self._row_before_memory(connection)
                rest, next_row = _rows_before(
                    connection, row, stream, wanted, limit - len(headers)
                )
            except sqlite3.Error as error:
                raise unreadable(self.journal, error) from error
            except (msgspec.MsgspecError, ValueError, TypeError) as error:
                raise ConfigError(
                    f"journal '{self.journal}' holds an event that cannot be read: "
                    f"{error}"
                ) from error
        return Page(headers + rest, None if next_row is None else f"j-{next_row}")

    def summary(
        self,
        by: Literal["hour", "day"],
        since_ns: int | None,
        until_ns: int | None,
        streams: tuple[str, ...] | None,
    ) -> dict[str, Any]:
        """Return the counts of the journal by hour or day, as JSON values.

        Raises
        ------
        ConfigError
            There is no journal, or it cannot be read.
        """
        if self.journal is None or not self.journal.exists():
            raise ConfigError(
                "there is no journal: name it by the option 'journal' of the page"
            )
        selection = Selection(
            streams=streams, since_ns=since_ns, until_ns=until_ns, heard="last"
        )
        return summarize(self.journal, selection, by=by).as_dict()

    def _position(self, cursor: str | None) -> tuple[int | None, int | None]:
        """Return ticket or row of a cursor; of another process, the newest."""
        if cursor is None:
            return None, None
        match = _CURSOR.fullmatch(cursor)
        if match is None:
            raise ConfigError("'before' is no cursor of an earlier answer")
        if match[4]:
            return None, int(match[5])
        return (int(match[3]) if match[2] == self._process else None), None

    def _remembered(self, ticket: int | None) -> Iterator[KeptEvent]:
        for event in self._hub.events_before(ticket):
            if event.station == self._station:
                yield event

    def _row_before_memory(self, connection: sqlite3.Connection) -> int:
        """Return the row of the oldest event in memory, or one after all rows."""
        oldest = [*self._remembered(None)][: -_MOST_LOOKED_FOR - 1 : -1]
        for event in oldest:
            key = (event.run, event.kind, event.stream, event.seq)
            found = connection.execute(_ROW_OF, key).fetchone()
            if found is not None:
                return int(found[0])
        (last,) = connection.execute("SELECT max(rowid) FROM messages").fetchone()
        return int(last or 0) + 1


def _rows_before(
    connection: sqlite3.Connection,
    row: int,
    stream: str | None,
    kinds: frozenset[str],
    limit: int,
) -> tuple[list[str], int | None]:
    """Return headers of rows before one, and the row that the next page begins at."""
    chosen = sorted(kinds.intersection(EVENT_KINDS))
    if not chosen:
        return [], None
    lowest = max(0, row - _MOST_ROWS)
    one_stream = () if stream is None else (stream,)
    query = _ROWS.format(
        kinds=", ".join("?" * len(chosen)), stream=" AND stream = ?" * len(one_stream)
    )
    values = (row, lowest, *chosen, *one_stream, limit)
    headers = []
    for found, run, text, utc_ns, latency, payload in connection.execute(query, values):
        message = message_of(text, utc_ns, latency, payload)
        headers.append(encode(message, run, None)[1].decode())
        if len(headers) == limit:
            lowest = found
    first = connection.execute("SELECT min(rowid) FROM messages").fetchone()[0]
    return headers, lowest if first is not None and first < lowest else None


def utc_ns_of(text: str) -> int:
    """Return the time that an ISO 8601 text names, in ns; UTC where it names no zone.

    Raises
    ------
    ConfigError
        It is none.
    """
    try:
        time = datetime.fromisoformat(text)
        if time.tzinfo is None:
            time = time.replace(tzinfo=UTC)
        return round(time.timestamp() * 1e6) * 1000
    except (ValueError, OverflowError) as error:
        raise ConfigError(
            f"'{text[:40]}' is no time such as 2026-12-01T06:00"
        ) from error
