"""When a recording was made, where its metadata says so without doubt.

Only times with a zone count: a wall-clock time of an unknown zone would be
wrong by hours in silence.
"""

import re
import struct
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

from neurovocal.engine.timebase import NS

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# What AudioMoth recorders write into the comment of each file.
_AUDIOMOTH = re.compile(
    r"Recorded at (\d\d):(\d\d):(\d\d)(?:\.(\d{3}))? (\d\d)/(\d\d)/(\d{4}) "
    r"\(UTC(?:([+-])(\d{1,2})(?::(\d\d))?)?\)"
)
_GUANO_TIME = re.compile(r"^Timestamp:\s*(\S.*?)\s*$", re.MULTILINE)
_MAX_CHUNKS = 64
_MAX_TEXT = 1 << 20


def recorded_at(path: Path, comment: str, date: str) -> int | None:
    """UTC of the first sample in ns, or None when it is not known.

    Looks for a ``Timestamp`` in a GUANO chunk (the metadata format of bat
    recorders), an AudioMoth comment, and an ISO 8601 date, in this order.

    Parameters
    ----------
    path : Path
        The recording.
    comment, date : str
        Its text metadata of these names, may be empty.
    """
    match = _GUANO_TIME.search(_chunk(path, b"guan"))
    for time in (
        _iso(match[1]) if match else None,
        _audiomoth(comment),
        _iso(date.strip()),
    ):
        if time is not None:
            return utc_ns(time)
    return None


def utc_ns(time: datetime) -> int:
    """Nanoseconds since the epoch of a time with a zone, exactly."""
    return (time - _EPOCH) // timedelta(microseconds=1) * (NS // 1_000_000)


def _iso(text: str) -> datetime | None:
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return None
    return time if time.tzinfo is not None else None


def _audiomoth(comment: str) -> datetime | None:
    match = _AUDIOMOTH.search(comment)
    if match is None:
        return None
    hour, minute, second, milli, day, month, year, sign, zone_h, zone_m = match.groups()
    zone = timedelta(hours=int(zone_h or 0), minutes=int(zone_m or 0))
    try:
        return datetime(
            int(year),
            int(month),
            int(day),
            int(hour),
            int(minute),
            int(second),
            int(milli or 0) * 1000,
            tzinfo=timezone(-zone if sign == "-" else zone),
        )
    except ValueError:
        return None


def _chunk(path: Path, wanted: bytes) -> str:
    """Text of a RIFF chunk, empty when the file has none."""
    with path.open("rb") as file:
        if file.read(12)[:4] not in (b"RIFF", b"RF64"):
            return ""
        for _ in range(_MAX_CHUNKS):
            head = file.read(8)
            if len(head) < 8:
                return ""
            name, size = struct.unpack("<4sI", head)
            if name == wanted:
                return file.read(min(size, _MAX_TEXT)).decode("utf-8", "replace")
            file.seek(size + size % 2, 1)
    return ""
