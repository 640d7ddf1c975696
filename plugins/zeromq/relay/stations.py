"""Stations of a relay, and which of them a stream is of."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from neurovocal.engine.contracts.types import KINDS
from neurovocal.engine.wire.codec import WireError, decode

_MOST_STREAMS = 10_000
# A station tells of itself each second: so long without a word, and another one may
# publish a stream of the same name.
_SILENT_S = 10.0
_KINDS = frozenset(kind.encode() for kind in KINDS.values())
_PARTS = 3


class Station(NamedTuple):
    """Where an engine publishes, and where its journal answers, if anywhere."""

    live: str
    replay: str | None


def station_of(text: str) -> Station:
    """Read ``LIVE`` or ``LIVE,REPLAY``."""
    live, _, replay = text.partition(",")
    return Station(live, replay or None)


@dataclass(slots=True)
class _Owner:
    station: int
    heard_s: float


class Streams:
    """Streams and the station that each one is of; the stalest are forgotten.

    Two stations with one name for their streams would be one engine to subscribers,
    which is started anew with every message: the second one is not heard.
    """

    def __init__(self) -> None:
        self._owners: dict[str, _Owner] = {}

    def publishes(self, station: int, stream: str, now_s: float) -> bool:
        """Note that a station publishes a stream; False: it is another station's."""
        owner = self._owners.pop(stream, None)
        if owner is None:
            self._make_room()
            owner = _Owner(station, now_s)
        elif owner.station != station and now_s - owner.heard_s > _SILENT_S:
            owner.station = station
        if owner.station == station:
            owner.heard_s = now_s
        self._owners[stream] = owner
        return owner.station == station

    def keeps(self, station: int, stream: str) -> None:
        """Note that a station's journal has a stream; who publishes it counts more."""
        if stream not in self._owners:
            self._make_room()
            self._owners[stream] = _Owner(station, float("-inf"))

    def owner(self, stream: str) -> int | None:
        """Number of the station that a stream is of."""
        owner = self._owners.get(stream)
        return None if owner is None else owner.station

    def _make_room(self) -> None:
        if len(self._owners) >= _MOST_STREAMS:
            del self._owners[next(iter(self._owners))]


def stream_of(parts: Sequence[bytes]) -> str:
    """Stream of a message that a station published.

    Kinds that this version does not know may be right and are passed on.

    Raises
    ------
    WireError
        It is no message: whoever subscribed would stumble over it.
    """
    if len(parts) != _PARTS:
        raise WireError(f"a message has {_PARTS} parts, not {len(parts)}")
    _, kind, stream = (*parts[0].split(b"/", 2), b"", b"")[:3]
    if kind in _KINDS:
        return decode(parts).header.stream
    return unquote_to_bytes(stream).decode("utf-8", "replace")


def named_twice(endpoints: Sequence[str | None]) -> list[str]:
    """A sentence for each endpoint that is there more than once."""
    given = [one for one in endpoints if one is not None]
    return [
        f"'{one}' is given twice: all that it publishes would come double"
        for one in dict.fromkeys(given)
        if given.count(one) > 1
    ]
