"""Recordings that a journal holds twice, because an earlier run did not finish them.

A folder source that was killed or stopped within a recording reads all of it in the
next run, and publishes a `Health` event with a sentence that this module writes and
parses. By that sentence a reader of the journal leaves out the events of the incomplete
reading.
"""

import re
import sqlite3
from collections.abc import Collection, Sequence
from typing import NamedTuple

from neurovocal.engine.contracts.types import SOURCE_STAGE
from neurovocal.engine.support.strict_json import JsonError
from neurovocal.engine.wire.headers import HealthHeader, decoder

__all__ = [
    "RepeatedRecording",
    "incomplete_recordings",
    "repeat_sentence",
    "replacement_sentence",
]

_AGAIN = re.compile(
    r"is heard again, whole: runs? (?P<runs>\S+(?:, \S+)*) did not get to its end"
    r"(?P<renamed> \(there was another of this name before\))?$"
)
_OTHER = re.compile(r"is another recording than the one of this name before$")
_MARKS = (
    "SELECT rowid, run, stream, header FROM messages WHERE kind = 'health' "
    "AND header LIKE '%\"source\"%' ORDER BY rowid"
)


def repeat_sentence(path: object, runs: Sequence[str], *, name_was_used: bool) -> str:
    """Return the health sentence at the start of a recording that is read again.

    Parameters
    ----------
    path : object
        Path of the recording.
    runs : sequence of str
        Runs that began to read it, the oldest first.
    name_was_used : bool
        Whether an earlier recording had the same name.
    """
    before = " (there was another of this name before)" if name_was_used else ""
    which = f"run{'s' * (len(runs) > 1)} {', '.join(runs)}"
    return f"'{path}' is heard again, whole: {which} did not get to its end{before}"


def replacement_sentence(path: object) -> str:
    """Return the health sentence at the start of a second recording of one name."""
    return f"'{path}' is another recording than the one of this name before"


class RepeatedRecording(NamedTuple):
    """Events of an incomplete reading: rows ``[first, stop)`` of a stream of a run."""

    run: str
    stream: str
    first: int
    stop: int


def incomplete_recordings(
    connection: sqlite3.Connection, runs: Collection[str] | None = None
) -> list[RepeatedRecording]:
    """Return the incomplete readings that a complete one in a later run replaces.

    Parameters
    ----------
    connection : Connection
        From `neurovocal.engine.journal.store.open_to_read`.
    runs : collection of str, optional
        Runs to consider, for both readings; None means all.
    """
    found = []
    # Row at which the newest recording of each run and stream began.
    began: dict[tuple[str, str], int] = {}
    for row, run, stream, text in connection.execute(_MARKS):
        header = _health(text)
        if header is None or header.stage != SOURCE_STAGE:
            continue
        again = _AGAIN.search(header.detail)
        if again is not None and (runs is None or run in runs):
            for earlier in again["runs"].split(", "):
                if runs is not None and earlier not in runs:
                    continue
                first = began.get((earlier, stream))
                if first is None and again["renamed"]:
                    continue  # this run has read another recording of that name
                found.append(RepeatedRecording(earlier, stream, first or 0, row))
        if again is not None or _OTHER.search(header.detail):
            began[run, stream] = row
    return found


def _health(text: str) -> HealthHeader | None:
    try:
        header = decoder.read(text.encode())
    except JsonError:
        return None  # reading the event itself reports it
    return header if isinstance(header, HealthHeader) else None
