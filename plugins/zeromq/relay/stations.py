"""Stations of a relay, and the station that each stream belongs to."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from neurovocal.engine import KINDS
from neurovocal.engine.wire.codec import WireError, decode

_MOST_STREAMS = 10_000
# A station publishes statistics each second: after so long without a message another
# station may publish a stream of the same name.
_SILENT_S = 10.0
_KINDS = frozenset(kind.encode() for kind in KINDS.values())
_PARTS = 3


class Station(NamedTuple):
    """Endpoints of an engine's live socket and of its replay socket, if it has one."""

    live: str
    replay: str | None


def parse_station(text: str) -> Station:
    """Read ``LIVE`` or ``LIVE,REPLAY``."""
    live, _, replay = text.partition(",")
    return Station(live, replay or None)


@dataclass(slots=True)
class _Owner:
    station: int
    published_s: float


class StreamOwners:
    """Station of each stream; the streams without a message for longest are forgotten.

    To a subscriber, two stations that publish one stream would be one engine that
    restarts with every message: the second station's messages are rejected.
    """

    def __init__(self) -> None:
        self._owners: dict[str, _Owner] = {}

    def add_published(self, station: int, stream: str, now_s: float) -> bool:
        """Record that a station published a message of a stream.

        Returns
        -------
        bool
            False where the stream belongs to another station.
        """
        owner = self._owners.pop(stream, None)
        if owner is None:
            self._drop_oldest()
            owner = _Owner(station, now_s)
        elif owner.station != station and now_s - owner.published_s > _SILENT_S:
            owner.station = station
        if owner.station == station:
            owner.published_s = now_s
        self._owners[stream] = owner
        return owner.station == station

    def add_recorded(self, station: int, stream: str) -> None:
        """Record that a station's journal has a stream, unless it has an owner."""
        if stream not in self._owners:
            self._drop_oldest()
            self._owners[stream] = _Owner(station, float("-inf"))

    def owner(self, stream: str) -> int | None:
        """Return the number of the station that a stream belongs to, if known."""
        owner = self._owners.get(stream)
        return None if owner is None else owner.station

    def _drop_oldest(self) -> None:
        if len(self._owners) >= _MOST_STREAMS:
            del self._owners[next(iter(self._owners))]


def stream_of(parts: Sequence[bytes]) -> str:
    """Return the stream of a message that a station published.

    Messages of kinds that this version does not know are accepted.

    Raises
    ------
    WireError
        The parts are not a valid message, and subscribers could not read it.
    """
    if len(parts) != _PARTS:
        raise WireError(f"a message has {_PARTS} parts, not {len(parts)}")
    _, kind, stream = (*parts[0].split(b"/", 2), b"", b"")[:3]
    if kind in _KINDS:
        return decode(parts).header.stream
    return unquote_to_bytes(stream).decode("utf-8", "replace")


def duplicate_problems(endpoints: Sequence[str | None]) -> list[str]:
    """Return a sentence for each endpoint that is given more than once."""
    given = [one for one in endpoints if one is not None]
    return [
        f"'{one}' is given twice: all that it publishes would come double"
        for one in dict.fromkeys(given)
        if given.count(one) > 1
    ]
