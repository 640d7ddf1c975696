"""What the page shows of an engine: its messages, its past and its sound."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from starlette.routing import BaseRoute

from neurovocal.engine import (
    Block,
    Event,
    Frames,
    Health,
    Latent,
    Message,
    Stats,
    Surprise,
    Synthesis,
    Trace,
    Withheld,
)
from neurovocal.engine.contracts.types import BULK_KINDS
from neurovocal.plugins.web.encoding import FrameScale, Station
from neurovocal.plugins.web.history import History
from neurovocal.plugins.web.live import Live, StationParts
from neurovocal.plugins.web.sound import SoundKeeper
from neurovocal.plugins.web.steering import EngineControl
from neurovocal.plugins.web.viewers import SCALE_WAIT_S, Hub

_STATION = "s0"


class Origin(NamedTuple):
    """Kind, stream and run of a message, and its number in its topic."""

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
        if isinstance(event, Latent):
            return  # numbers that no part of the page shows
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


class Show:
    """Hub of one engine's messages, and the routes of its page.

    Parameters
    ----------
    run, station : str
        Name of the run, and of the engine.
    sound_s : float
        Seconds of sound that are kept; 0: none.
    journal : Path, optional
        Journal of the engine.
    control : EngineControl, optional
        Takes commands.

    Attributes
    ----------
    hub : Hub
        Queues messages for the viewers.
    """

    def __init__(
        self,
        run: str,
        station: str,
        sound_s: float,
        journal: Path | None,
        control: EngineControl | None,
    ) -> None:
        self._run = run
        known = Station(
            id=_STATION,
            name=station,
            sound=sound_s > 0,
            history=journal is not None,
            control=control is not None,
        )
        self.hub = Hub([known], scale_wait_s=SCALE_WAIT_S)
        sound = SoundKeeper(sound_s) if sound_s > 0 else None
        self._feed = StationFeed(self.hub, _STATION, sound)
        self._parts = StationParts(History(self.hub, _STATION, journal), sound, control)

    def routes(self, pages: Sequence[str]) -> list[BaseRoute]:
        """Return the routes of the page; `pages` names the server's further ones."""
        return Live(self.hub, {_STATION: self._parts}, pages).routes()

    def put(self, message: Message, header: Callable[[], str]) -> None:
        """Pass a message on to all viewers; `header` encodes its header."""
        info = message.info
        origin = Origin(
            message.kind, info.stream, self._run, message.seq, info.sample_rate
        )
        self._feed.put(origin, message.event, header)
