"""Command ``neurovocal stations``: list the stations of the local network."""

import json
from dataclasses import asdict
from typing import Annotated

import typer

from neurovocal.engine.support.text import printable
from neurovocal.plugins.zeromq.discovery.finder import FoundStation, find_stations


def stations(
    seconds: Annotated[
        float, typer.Option(min=0.1, max=600, help="How long to search.")
    ] = 5.0,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object a line.")
    ] = False,
) -> None:
    """List the stations that announce themselves in the local network.

    A station does so with `announce: true` in its sink zmq or web. Anyone in the
    network can announce anything: keys tell whether a station is the one you mean.
    """
    found = find_stations(seconds)
    if as_json:
        for each in found:
            typer.echo(json.dumps(asdict(each)))
    elif found:
        for line in _lines(found):
            typer.echo(printable(line))
    if not found:
        typer.echo(
            f"no station was found within {seconds:g} s: those with 'announce: true' "
            "in sink zmq or web, in a network that passes multicast, are",
            err=True,
        )


def _lines(found: list[FoundStation]) -> list[str]:
    rows = [("station", "what", "address", "keys")]
    rows += [
        (one.station, one.what, one.address, "needed" if one.keys else "none")
        for one in found
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return [
        "  ".join([*map(str.ljust, row[:3], widths), row[3]]).rstrip() for row in rows
    ]
