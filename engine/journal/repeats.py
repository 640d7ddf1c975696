"""Recordings that a journal holds twice, because one hearing of them was cut short.

A folder source that was killed, or stopped, in the midst of a recording hears it again,
whole, in the next run, and says so in `health`, in the sentence that is written and
read here. By that sentence a reader of the journal leaves the earlier hearing out.
"""

import re
import sqlite3
from collections.abc import Collection, Sequence
from typing import NamedTuple

import msgspec

from neurovocal.engine.contracts.types import SOURCE_STAGE
from neurovocal.engine.wire.headers import HealthHeader, decoder

__all__ = ["RepeatedRecording", "earlier_hearings", "heard_again", "other_recording"]

_AGAIN = re.compile(
    r"is heard again, whole: runs? (?P<runs>\S+(?:, \S+)*) did not get to its end"
    r"(?P<renamed> \(there was another of this name before\))?$"
)
_OTHER = re.compile(r"is another recording than the one of this name before$")
_MARKS = (
    "SELECT rowid, run, stream, header FROM messages WHERE kind = 'health' "
    "AND header LIKE '%\"source\"%' ORDER BY rowid"
)


def heard_again(path: object, runs: Sequence[str], *, name_was_used: bool) -> str:
    """What `health` says where a recording begins that earlier runs did not finish.

    Parameters
    ----------
    path : object
        The recording.
    runs : sequence of str
        Those that began it, the oldest first.
    name_was_used : bool
        Whether another recording of this name had been heard before.
    """
    before = " (there was another of this name before)" if name_was_used else ""
    which = f"run{'s' * (len(runs) > 1)} {', '.join(runs)}"
    return f"'{path}' is heard again, whole: {which} did not get to its end{before}"


def other_recording(path: object) -> str:
    """What `health` says where a name is used for a second recording."""
    return f"'{path}' is another recording than the one of this name before"


class RepeatedRecording(NamedTuple):
    """Events of a recording that was heard again: rows `[first, stop)` of a stream."""

    run: str
    stream: str
    first: int
    stop: int


def earlier_hearings(
    connection: sqlite3.Connection, runs: Collection[str] | None = None
) -> list[RepeatedRecording]:
    """Hearings that a later one, in one of some runs, made superfluous.

    Parameters
    ----------
    connection : Connection
        From `neurovocal.engine.journal.store.open_to_read`.
    runs : collection of str, optional
        Runs that are read: what was heard again in another run is not left out.
    """
    found = []
    # Where the hearing of each run and stream began that is the last until here.
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
                    continue  # what this run has of the name is the other recording
                found.append(RepeatedRecording(earlier, stream, first or 0, row))
        if again is not None or _OTHER.search(header.detail):
            began[run, stream] = row
    return found


def _health(text: str) -> HealthHeader | None:
    try:
        header = decoder.decode(text)
    except msgspec.MsgspecError:
        return None  # whoever reads the event itself is told
    return header if isinstance(header, HealthHeader) else None
