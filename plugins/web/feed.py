"""Feed of one station: its messages, on their way to the hub and to the kept sound."""

from collections.abc import Callable
from typing import NamedTuple

from neurovocal.engine import (
    Block,
    Event,
    Frames,
    Health,
    Stats,
    Surprise,
    Synthesis,
    Trace,
    Withheld,
)
from neurovocal.engine.contracts.types import BULK_KINDS
from neurovocal.plugins.web.encoding import FrameScale
from neurovocal.plugins.web.sound import SoundKeeper
from neurovocal.plugins.web.viewers import Hub


class Origin(NamedTuple):
    """Where a message comes from, and its number in its topic."""

    kind: str
    stream: str
    run: str
    seq: int
    sample_rate: int


class StationFeed:
    """Passes the messages of one station on, each to where the page finds it.

    Parameters
    ----------
    hub : Hub
        Takes events and columns.
    station : str
        Id of the station.
    sound : SoundKeeper, optional
        Takes audio; None: audio is left out.
    """

    def __init__(self, hub: Hub, station: str, sound: SoundKeeper | None) -> None:
        self._hub = hub
        self._station = station
        self._sound = sound

    def put(self, origin: Origin, event: Event, header: Callable[[], str]) -> None:
        """Pass a message on.

        Parameters
        ----------
        origin : Origin
            Where it comes from.
        event : Event
            Its event.
        header : callable
            Returns its header as JSON; called for kinds without a payload.
        """
        kind, stream, run, seq, rate = origin
        if isinstance(event, Frames | Synthesis | Surprise | Trace):
            self._hub.add_columns(self._station, stream, run, rate, event)
            return
        if kind in BULK_KINDS:
            if isinstance(event, Block) and self._sound is not None:
                self._sound.add(stream, rate, event)
            return
        if isinstance(event, Withheld) and self._sound is not None:
            self._sound.note_withheld(stream, rate, event.start, event.stop)
        if isinstance(event, Stats):
            scale = FrameScale.of_stats(event.values)
            self._hub.set_scale(self._station, stream, scale)
        self._hub.add_event(
            self._station,
            kind,
            stream,
            run,
            seq,
            header(),
            # Withheld audio counts at the rate of the source.
            sample_rate=0 if isinstance(event, Withheld) else rate,
            state=event.stage if isinstance(event, Health) else "",
        )
