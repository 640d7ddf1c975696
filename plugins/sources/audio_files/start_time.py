"""Start time of a recording, from its metadata or its name.

A local time of an unknown zone may be wrong by hours: it is used only if the user
has named the zone.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from pathlib import Path
from typing import Annotated, TypeAlias
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator

from neurovocal.engine import NS
from neurovocal.engine.support.text import utc_text
from neurovocal.plugins.sources.audio_files.container import (
    Container,
    examine,
    riff_chunks,
)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# Comment that AudioMoth recorders write into each file.
_AUDIOMOTH = re.compile(
    r"Recorded at (\d\d):(\d\d):(\d\d)(?:\.(\d{3}))? (\d\d)/(\d\d)/(\d{4}) "
    r"\(UTC(?:([+-])(\d{1,2})(?::(\d\d))?)?\)"
)
_GUANO_TE = re.compile(r"^TE\s*:\s*(\d{1,4}(?:\.\d+)?)\s*$", re.MULTILINE)
_GUANO_RATE = re.compile(r"^Samplerate\s*:\s*(\d{1,9})\s*$", re.MULTILINE)
_GUANO_TIME = re.compile(r"^Timestamp:\s*(\S.*?)\s*$", re.MULTILINE)
# 20210513_190000, 20210513T190000.250+0200, 2021-05-13_19-00-00, 2021-05-13T19:00:00Z
_NAME_TIME = re.compile(
    r"(?<!\d)(\d{4})(-?)(\d\d)\2(\d\d)([_T \-])"
    r"(\d\d)([-:.]?)(\d\d)\7(\d\d)(?:\.(\d{1,9})(?!\d))?"
    r"(Z|[+-]\d\d:?\d\d(?!\d))?(?!\d)"
)
# Offsets from UTC that are in use lie between these, at whole hours or such parts.
_ZONES = timedelta(hours=-12), timedelta(hours=14)
_ZONE_PARTS = [timedelta(minutes=minutes) for minutes in (0, 30, 45)]
_MOST_HOURS = 14
# Two times in a name that are not further apart are begin and end.
_LONGEST = timedelta(days=7)
# Days at which clocks begin that were never set.
_UNSET_DAYS = {(1980, 1, 1), (1980, 1, 6), (2000, 1, 1), (2001, 1, 1)}
# Name that the first AudioMoths gave: seconds since 1970, in hexadecimal.
_HEX_NAME = re.compile(r"(?=.*[A-F])[0-9A-F]{8}")
_HEX_YEARS = range(2016, 2041)
# BWF, EBU Tech 3285: description, originator, reference; then date and time.
_BEXT_DATE, _BEXT_END = 256 + 32 + 32, 256 + 32 + 32 + 10 + 8


def _check_zone(text: str | None) -> str | None:
    if text is not None:
        zone_of(text)
    return text


# Option of sources that read recordings: checked, and kept as it was written.
TimeZone: TypeAlias = Annotated[str | None, AfterValidator(_check_zone)]


@dataclass(frozen=True, slots=True)
class StartTime:
    """Time of the first sample of a recording, if it is known.

    Parameters
    ----------
    utc_ns : int or None
        Nanoseconds since the epoch.
    origin : str
        Where the time was read, such as ``file name``; empty if none was found.
    problem : str or None
        Why a time that was found is not used.
    """

    utc_ns: int | None = None
    origin: str = ""
    problem: str | None = None

    def __str__(self) -> str:
        """Return the start as ``neurovocal check`` shows it."""
        if self.utc_ns is None:
            return self.problem or "not known"
        return f"{utc_text(self.utc_ns)} ({self.origin})"


def zone_of(text: str) -> tzinfo:
    """Return the time zone named ``Europe/Berlin``, ``UTC``, ``+02:00`` or alike.

    Raises
    ------
    ValueError
        There is no such zone.
    """
    if match := re.fullmatch(r"(?:UTC)?([+-])(\d{1,2}):?(\d\d)?", text):
        hours, minutes = int(match[2]), int(match[3] or 0)
        if minutes > 59 or hours * 60 + minutes > _MOST_HOURS * 60:
            raise ValueError(
                f"'{text}' is no time zone: offsets lie between -{_MOST_HOURS}:00 and "
                f"+{_MOST_HOURS}:00"
            )
        span = timedelta(hours=hours, minutes=minutes)
        return timezone(-span if match[1] == "-" else span)
    try:
        return UTC if text in ("UTC", "Z") else ZoneInfo(text)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError(
            f"no time zone is called '{text}': give one such as Europe/Berlin, UTC or "
            "+02:00"
        ) from error


def find_start(
    path: Path,
    comment: str,
    date: str,
    zone: tzinfo | None = None,
    container: Container | None = None,
) -> StartTime:
    """Find the time of the first sample of a recording.

    The first unambiguous one of these is used: a ``Timestamp`` in a GUANO chunk (the
    metadata format of bat recorders), an AudioMoth comment, a bext chunk (BWF), an
    ISO 8601 date, the file's name.

    Parameters
    ----------
    path : Path
        Path of the recording.
    comment, date : str
        Its text metadata of these names; may be empty.
    zone : tzinfo, optional
        Zone of times without one; without it they are not used.
    container : Container, optional
        Result of `examine` for the recording.
    """
    unused = StartTime()
    container = container or examine(path)
    for time, origin in _times(path, comment, date, container):
        start = _start_of(time, origin, zone)
        if start.utc_ns is not None:
            return start
        unused = unused if unused.problem else start
    return unused


def utc_ns(time: datetime) -> int:
    """Convert a time with a zone to nanoseconds since the epoch, exactly."""
    return (time - _EPOCH) // timedelta(microseconds=1) * (NS // 1_000_000)


def time_problem(time: datetime) -> str | None:
    """Return why a time cannot be that of a recording; None if it can.

    Clocks that are broken or were never set give such times.
    """
    if not 1980 <= time.year <= 2100:
        return "which is not between the years 1980 and 2100"
    if (time.year, time.month, time.day) in _UNSET_DAYS:
        return "the day at which a clock begins that was never set"
    if (offset := time.utcoffset()) is not None and not _is_in_use(offset):
        return "at an offset from UTC that no place uses"
    return None


def expansion(path: Path, sample_rate: int, container: Container) -> float | None:
    """Return how many times slower than recorded a recording plays, by its GUANO.

    None if it plays as it was recorded, or if the header has the true rate.
    """
    text = _guano(path, container)
    factor, true_rate = _number(_GUANO_TE, text), _number(_GUANO_RATE, text)
    if factor is None or factor <= 1:
        return None
    if true_rate is not None and abs(true_rate / (sample_rate * factor) - 1) > 0.01:
        return None
    return factor


def _guano(path: Path, container: Container) -> str:
    chunks = riff_chunks(path, container, {b"guan"})
    return chunks.get(b"guan", b"").decode("utf-8", "replace")


def _number(pattern: re.Pattern[str], text: str) -> float | None:
    match = pattern.search(text)
    return None if match is None else float(match[1])


def _times(
    path: Path, comment: str, date: str, container: Container
) -> Iterator[tuple[datetime, str]]:
    """Yield every time that is found, with or without a zone, and its origin."""
    chunks = riff_chunks(path, container, {b"guan", b"bext"})
    match = _GUANO_TIME.search(chunks.get(b"guan", b"").decode("utf-8", "replace"))
    found = [
        (_parse_iso(match[1]) if match else None, "GUANO"),
        (_parse_audiomoth(comment), "AudioMoth comment"),
        (_parse_bext(chunks.get(b"bext", b"")), "bext"),
        (_parse_iso(date.strip()), "date"),
        (_parse_name(path.stem), "file name"),
    ]
    return ((time, origin) for time, origin in found if time is not None)


def _start_of(time: datetime, origin: str, zone: tzinfo | None) -> StartTime:
    found = f"{time.isoformat(' ')} by its {origin}"
    if (problem := time_problem(time)) is not None:
        return StartTime(None, origin, f"{found}, {problem}")
    if time.tzinfo is not None:
        return StartTime(utc_ns(time), origin)
    if zone is None:
        return StartTime(None, origin, f"{found}, of an unknown zone (give timezone)")
    early, late = time.replace(tzinfo=zone), time.replace(tzinfo=zone, fold=1)
    if early.utcoffset() != late.utcoffset():
        return StartTime(
            None, origin, f"{found}, in an hour that the change of clocks makes unclear"
        )
    return StartTime(utc_ns(early), f"{origin}, {zone}")


def _parse_iso(text: str) -> datetime | None:
    """Parse a date with a time of day; None for a date alone."""
    if len(text) <= len("2021-05-13"):
        return None
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None


def _parse_audiomoth(comment: str) -> datetime | None:
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


def _parse_bext(chunk: bytes) -> datetime | None:
    text = chunk[_BEXT_DATE:_BEXT_END].decode("ascii", "replace")
    # The standard leaves the separators open.
    match = re.fullmatch(r"(\d{4}).(\d\d).(\d\d)(\d\d).(\d\d).(\d\d)", text)
    try:
        return datetime(*map(int, match.groups())) if match else None  # type: ignore[arg-type]  # noqa: DTZ001
    except ValueError:
        return None


def _parse_name(stem: str) -> datetime | None:
    """Return the begin of a recording by the name of its file, if that has one."""
    if _HEX_NAME.fullmatch(stem):
        time = _EPOCH + timedelta(seconds=int(stem, 16))
        return time if time.year in _HEX_YEARS else None
    times = list(filter(None, map(_name_time, _NAME_TIME.finditer(stem))))
    if len({time.tzinfo is None for time in times}) > 1:
        return None
    if any(not timedelta(0) <= time - times[0] <= _LONGEST for time in times):
        return None  # neither begin and end
    return times[0] if times else None


def _name_time(match: re.Match[str]) -> datetime | None:
    year, _, month, day, separator, hour, _, minute, second, part, zone = match.groups()
    text = f"{year}-{month}-{day}T{hour}:{minute}:{second}.{part or '000'}"
    # What follows a minus may be the number of a segment.
    counter = zone and zone[0] == "-" and ":" not in zone and separator != "T"
    return _parse_iso(text + ("" if counter or not _is_zone(zone) else zone or ""))


def _is_zone(text: str | None) -> bool:
    """Return True if an offset from UTC, such as ``+0530``, is in use."""
    if text is None or text == "Z":
        return True
    span = timedelta(hours=int(text[1:3]), minutes=int(text[-2:]))
    return _is_in_use(-span if text[0] == "-" else span)


def _is_in_use(offset: timedelta) -> bool:
    hours, rest = divmod(abs(offset), timedelta(hours=1))
    if not _ZONES[0] <= offset <= _ZONES[1] or (hours == 0 and rest):
        return False
    return rest in _ZONE_PARTS
