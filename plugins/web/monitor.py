"""Command ``neurovocal monitor``: the live page for engines elsewhere."""

import logging
import signal
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from threading import Event as Flag
from threading import Thread
from types import FrameType
from typing import Annotated, NamedTuple

import msgspec
import typer

from neurovocal.engine import KINDS, ConfigError, NeurovocalError
from neurovocal.engine.client import Received, Subscriber
from neurovocal.engine.client.resume import Position, TopicKey
from neurovocal.engine.support.endpoints import Address, endpoint_problem
from neurovocal.engine.support.text import printable, utc_text
from neurovocal.engine.wire.headers import encoder
from neurovocal.plugins.web.access import Access
from neurovocal.plugins.web.encoding import Station, message_text
from neurovocal.plugins.web.feed import Origin, StationFeed
from neurovocal.plugins.web.history import History
from neurovocal.plugins.web.options import (
    BehindProxy,
    Host,
    PasswordFile,
    TokenFile,
    User,
    page_access,
)
from neurovocal.plugins.web.sound import SoundKeeper
from neurovocal.plugins.web.steering import EngineControl
from neurovocal.plugins.web.viewers import SCALE_WAIT_S, Hub
from neurovocal.plugins.zeromq.discovery.finder import find_stations

log = logging.getLogger("neurovocal")

_KINDS = frozenset(KINDS.values()) - {"posteriors", "audio"}
_STEP_S = 0.5
_RETRY_S = 5.0
# An engine publishes statistics each second.
_SILENT_S = 5.0
_FLUSH_S = 0.05
_FIND_S = 5.0
_EXAMPLES = ("tcp://station-1:5556", "tcp://station-1:5558", "tcp://station-1:5557")


class Watched(NamedTuple):
    """Engine to show: its name, and its live, replay and control socket."""

    name: str
    live: str
    replay: str | None
    control: str | None


def parse_watched(text: str) -> Watched:
    """Read ``[NAME=]LIVE[,REPLAY[,CONTROL]]``.

    Raises
    ------
    ConfigError
        An endpoint is malformed, or there are more than three.
    """
    name, separator, rest = text.partition("=")
    if not separator or "://" in name:
        name, rest = "", text
    ends = [part.strip() or None for part in rest.split(",")]
    if len(ends) > len(_EXAMPLES):
        raise ConfigError(f"'{text}': give LIVE, LIVE,REPLAY or LIVE,REPLAY,CONTROL")
    problems = [
        problem
        for end, example in zip(ends, _EXAMPLES, strict=False)
        if end is not None
        and (problem := endpoint_problem(end, binds=False, example=example))
    ]
    live, replay, control = (*ends, None, None)[:3]
    if live is None:
        problems.append(f"'{text}' names no live endpoint, such as {_EXAMPLES[0]}")
    if live is None or problems:
        raise ConfigError(problems)
    return Watched(name or live.partition("://")[2], live, replay, control)


class StationReader:
    """Reads the messages of one engine in a thread, and goes on after its restarts.

    Parameters
    ----------
    hub : Hub
        Takes the messages.
    station : Station
        As the page shows it at first.
    watched : Watched
        Endpoints of the engine.
    keys : Path, optional
        Keys of this client.
    sound : SoundKeeper, optional
        Takes the sound, should the engine publish it.

    Attributes
    ----------
    received, lost : int
        Messages that came, and that were lost for good.
    """

    def __init__(
        self,
        hub: Hub,
        station: Station,
        watched: Watched,
        keys: Path | None,
        sound: SoundKeeper | None,
    ) -> None:
        self.received = self.lost = 0
        self._hub = hub
        self._station = station
        self._watched = watched
        self._keys = keys
        self._kinds = _KINDS if sound is not None else _KINDS - {"block"}
        self._feed = StationFeed(hub, station.id, sound)
        self._stopping = Flag()
        self._heard_s = 0.0
        self._thread = Thread(target=self._run, name=f"nv-{station.id}", daemon=True)

    def start(self) -> None:
        """Begin to read."""
        self._thread.start()

    def stop(self) -> None:
        """Stop reading, and wait for that."""
        self._stopping.set()
        self._thread.join(2 * _STEP_S + 1.0)

    def _run(self) -> None:
        watched = self._watched
        positions: Mapping[TopicKey, Position] = {}
        while not self._stopping.is_set():
            try:
                with Subscriber(
                    watched.live,
                    self._kinds,
                    replay=watched.replay,
                    positions=positions,
                    keys=self._keys,
                ) as subscriber:
                    positions = subscriber.positions
                    self._read(subscriber)
            except NeurovocalError as error:
                self._tell(connected=False, detail=printable(str(error)))
            except Exception as error:
                log.exception("the messages of %s cannot be shown", watched.live)
                self._tell(connected=False, detail=printable(repr(error)))
            self._stopping.wait(_RETRY_S)

    def _read(self, subscriber: Subscriber) -> None:
        told_s = 0.0
        while not self._stopping.is_set():
            received = subscriber.receive(_STEP_S)
            if received is not None:
                self._take(received)
            if time.monotonic() - told_s >= _STEP_S or not self._station.connected:
                told_s = time.monotonic()
                self._tell_connection(subscriber.replay_problem)

    def _take(self, received: Received) -> None:
        self.received += 1
        self._heard_s = time.monotonic()
        missed = received.missed
        if missed is not None:
            self.lost += missed.count
            self._hub.tell(
                message_text(
                    "lost",
                    station=self._station.id,
                    topic=missed.topic,
                    count=missed.count,
                )
            )
        origin = Origin(
            received.kind,
            received.stream,
            received.run,
            received.seq,
            received.sample_rate,
        )
        self._feed.put(
            origin, received.event, lambda: encoder.encode(received.header).decode()
        )
        if received.kind == "block" and not self._station.sound:
            self._station = msgspec.structs.replace(self._station, sound=True)

    def _tell_connection(self, replay_problem: str) -> None:
        """Tell the viewers when messages come or stop, and what cannot be replayed."""
        silent_s = time.monotonic() - self._heard_s
        if self._heard_s and silent_s < _SILENT_S:
            self._tell(connected=True, detail=replay_problem)
        elif self._station.connected or not self._station.detail:
            since = utc_text(time.time_ns() - round(silent_s * 1e9), "seconds")
            detail = f"no message since {since}" if self._heard_s else "no message yet"
            where = f"is an engine running at {self._watched.live}?"
            self._tell(connected=False, detail=f"{detail}: {where}")

    def _tell(self, *, connected: bool, detail: str) -> None:
        self._station = msgspec.structs.replace(
            self._station, connected=connected, detail=detail
        )
        self._hub.update_station(self._station)


def monitor(
    endpoint: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME=]LIVE[,REPLAY[,CONTROL]]...",
            help="Where an engine publishes; with REPLAY nothing is missed, with "
            "CONTROL the page may steer.",
            show_default=False,
        ),
    ] = None,
    keys: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Keys that `neurovocal keys add` made."),
    ] = None,
    find: Annotated[
        bool,
        typer.Option(
            "--find", help="Show all stations that announce themselves here, too."
        ),
    ] = False,
    host: Host = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port; 0: any that is free.")
    ] = 8420,
    token_file: TokenFile = None,
    user: User = None,
    password_file: PasswordFile = None,
    behind_proxy: BehindProxy = False,
    sound_s: Annotated[
        float,
        typer.Option(min=0, max=600, help="Seconds of sound to keep; 0: none."),
    ] = 60.0,
) -> None:
    """Show running engines on a page in the browser, until Ctrl-C.

    Without an endpoint it shows the engine at tcp://127.0.0.1:5556. A relay's
    endpoints will do, too. With --find it searches the local network for stations
    with `announce: true`, for 5 s. Other machines may open the page only with a
    token, or a user and a password.
    """
    watched = list(_checked(endpoint or ([] if find else ["tcp://127.0.0.1:5556"])))
    if find:
        known = {one.live for one in watched}
        watched += [one for one in _found() if one.live not in known]
    problems: list[str] = []
    try:
        address, access = page_access(
            host, port, token_file, user, password_file, behind_proxy
        )
    except ConfigError as error:
        problems += error.problems
    if keys is not None and not keys.is_dir():
        problems.append(f"'{keys}' is no folder: make it by 'neurovocal keys add'")
    if problems:
        raise ConfigError(problems)
    _serve(watched, address, access, keys, sound_s)


def _found() -> list[Watched]:
    """Return the stations of the local network that publish events.

    Raises
    ------
    ConfigError
        There is none, or the network cannot be searched.
    """
    found = [one for one in find_stations(_FIND_S) if one.what == "events"]
    if not found:
        raise ConfigError(
            f"--find: no station was found within {_FIND_S:g} s: name its endpoint, "
            "or say 'announce: true' in its sink zmq"
        )
    for one in found:
        typer.echo(printable(f"found {one.station} at {one.address}"), err=True)
    return [Watched(one.station, one.address, None, None) for one in found]


def _serve(
    watched: list[Watched],
    address: Address,
    access: Access,
    keys: Path | None,
    sound_s: float,
) -> None:
    from neurovocal.plugins.web.live import Live, StationParts
    from neurovocal.plugins.web.server import PageServer

    stations = [
        Station(
            id=f"s{number}",
            name=each.name,
            endpoint=each.live,
            connected=False,
            control=each.control is not None,
        )
        for number, each in enumerate(watched)
    ]
    hub = Hub(stations, scale_wait_s=SCALE_WAIT_S)
    parts, readers = {}, []
    for station, each in zip(stations, watched, strict=True):
        sound = SoundKeeper(sound_s) if sound_s else None
        control = None if each.control is None else EngineControl(each.control, keys)
        parts[station.id] = StationParts(History(hub, station.id), sound, control)
        readers.append(StationReader(hub, station, each, keys, sound))
    server = PageServer(
        address,
        access,
        Live(hub, parts).routes(),
        every_s=_FLUSH_S,
        task=hub.flush_columns,
    )
    stopping = Flag()

    def stop(number: int, frame: FrameType | None) -> None:
        stopping.set()

    for asked in (signal.SIGINT, signal.SIGTERM):
        signal.signal(asked, stop)
    server.start()
    typer.echo(f"page: {server.url} (open it in a browser)", err=True)
    for reader in readers:
        reader.start()
    while not stopping.wait(_STEP_S) and server.failure is None:
        pass
    for reader in readers:
        reader.stop()
    hub.close()
    server.stop()
    for part in parts.values():
        if part.control is not None:
            part.control.close()
    received = sum(reader.received for reader in readers)
    lost = sum(reader.lost for reader in readers)
    typer.echo(f"{received} messages came, {lost} were lost", err=True)
    if server.failure is not None:
        raise NeurovocalError(f"the page ended: {server.failure!r}")


def _checked(texts: list[str]) -> Iterator[Watched]:
    """Yield the engines that are named; ConfigError with all mistakes."""
    problems: list[str] = []
    found: list[Watched] = []
    for text in texts:
        try:
            found.append(parse_watched(text))
        except ConfigError as error:
            problems += error.problems
    live = [one.live for one in found]
    problems += [
        f"'{one}' is given twice" for one in dict.fromkeys(live) if live.count(one) > 1
    ]
    if problems:
        raise ConfigError(problems)
    yield from found
