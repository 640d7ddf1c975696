"""Command ``neurovocal relay``: publish many stations at one endpoint."""

import signal
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from neurovocal.engine import ConfigError
from neurovocal.engine.support.endpoints import endpoint_problem
from neurovocal.engine.wire.keys import key_problems
from neurovocal.plugins.zeromq.endpoint import endpoint_problems
from neurovocal.plugins.zeromq.relay.relay import Relay
from neurovocal.plugins.zeromq.relay.stations import duplicate_problems, parse_station

_STEP_S = 0.5
_EXAMPLES = ("tcp://station-1:5556", "tcp://station-1:5558")


def relay(
    station: Annotated[
        list[str],
        typer.Option(
            "--from",
            metavar="LIVE[,REPLAY]",
            help="Endpoint of an engine, and of its journal's replay socket; may be "
            "repeated.",
        ),
    ],
    to: Annotated[
        str, typer.Option("--to", metavar="ENDPOINT", help="Where to publish it all.")
    ] = "tcp://127.0.0.1:5600",
    replay_to: Annotated[
        str | None,
        typer.Option(
            metavar="ENDPOINT", help="Where to answer for all replay sockets."
        ),
    ] = None,
    keys: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="The relay's own keys: whom it lets in."),
    ] = None,
    station_keys: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Keys by which the stations let it in."),
    ] = None,
    allow_remote: Annotated[
        bool, typer.Option(help="Let other machines connect, unencrypted.")
    ] = False,
) -> None:
    """Publish the messages of several engines at one endpoint, for many subscribers.

    Whoever comes late hears the last anchor, health and statistics of each stream
    at once. With --replay-to, subscribers get back what they missed, as from the
    engines themselves. Runs until Ctrl-C.
    """
    stations = [parse_station(text) for text in station]
    problems = [] if keys is None else key_problems(keys)
    for endpoint in (to, replay_to):
        if endpoint is not None:
            problems += endpoint_problems(
                endpoint, allow_remote=allow_remote, keyed=keys is not None
            )
    for one in stations:
        for end, example in zip(one, _EXAMPLES, strict=True):
            if end is not None:
                problem = endpoint_problem(end, binds=False, example=example)
                problems += [] if problem is None else [problem]
    problems += duplicate_problems([end for one in stations for end in one])
    if replay_to is not None and not any(one.replay for one in stations):
        problems.append("--replay-to needs a station with one: --from LIVE,REPLAY")
    if problems:
        raise ConfigError(problems)
    running = Relay(stations, to, replay_to, keys=keys, station_keys=station_keys)
    _run(running, len(stations))


def _run(running: Relay, number: int) -> None:
    stopping = False

    def stop(signal_number: int, frame: FrameType | None) -> None:
        nonlocal stopping
        stopping = True

    for asked in (signal.SIGINT, signal.SIGTERM):
        signal.signal(asked, stop)
    running.open()
    typer.echo(f"{number} station(s) at {running.endpoint}", err=True)
    if running.replay_endpoint:
        typer.echo(f"what was missed at {running.replay_endpoint}", err=True)
    with suppress(KeyboardInterrupt):
        while not stopping:
            running.step(_STEP_S)
    running.close()
    typer.echo(f"{running.forwarded} messages were passed on", err=True)
    if running.left_out:
        typer.echo(f"{running.left_out} were left out", err=True)
