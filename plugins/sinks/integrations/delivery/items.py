"""Items of a delivery: events as JSON with a name by which repeats are recognized."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import quote

from neurovocal.engine import NS, Label, Message
from neurovocal.engine.journal.follower import Position
from neurovocal.engine.wire.codec import encode

SUMMARY = "summary"


@dataclass(frozen=True, slots=True)
class Outgoing:
    """Something to deliver: an event, or a daily summary.

    Parameters
    ----------
    id : str
        Name of the event, the same whenever it is delivered: ASCII without '.'.
    kind, stream : str
        Kind and stream of the event; a summary has no stream.
    body : bytes
        JSON object.
    position : Position, optional
        Place in the journal; None: it is not from a journal.
    """

    id: str
    kind: str
    stream: str
    body: bytes
    position: Position | None = None


def outgoing(
    message: Message, run: str, station: str, position: Position | None = None
) -> Outgoing:
    """Return what is sent of a message: its header on the wire and three fields more.

    These are ``id``, ``station`` and ``time`` (UTC of the event, ISO 8601, or null).
    """
    _, header, _ = encode(message, run, None)
    name = id_of(run, message.kind, message.info.stream, str(message.seq))
    more = {
        "id": name,
        "station": utf8(station),
        "time": iso_time(message.utc_ns),
    }
    # Both are JSON objects: the second goes on where the first ends.
    body = json.dumps(more)[:-1].encode() + b"," + header[1:]
    return Outgoing(name, message.kind, message.info.stream, body, position)


def id_of(*parts: str) -> str:
    """Return a name of letters, digits, '/', '-', '_', '~' and '%' made of parts."""
    quoted = (quote(part, safe="", errors="surrogateescape") for part in parts)
    return "/".join(quoted).replace(".", "%2E")


def utf8(name: str) -> str:
    """Return a name that is UTF-8: names of files may hold other bytes."""
    return name.encode("utf-8", "backslashreplace").decode()


def iso_time(utc_ns: int | None) -> str | None:
    """Return a time in UTC with milliseconds; None where there is none."""
    if utc_ns is None:
        return None
    try:
        when = datetime.fromtimestamp(utc_ns // NS, UTC)
    except (OverflowError, ValueError, OSError):  # beyond the calendar
        return None
    milliseconds = utc_ns % NS // 1_000_000
    return f"{when:%Y-%m-%dT%H:%M:%S}.{milliseconds:03d}Z"


def is_provisional(message: Message) -> bool:
    """Return True for a label that a later one of its segment replaces."""
    return isinstance(message.event, Label) and message.event.status != "final"
