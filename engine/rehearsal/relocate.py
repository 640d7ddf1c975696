"""Finds what a stage would write to or bind, and puts it elsewhere.

What a stage owns it says itself (`Plugin.resources`): an option whose value is a file,
folder or port that is claimed is one to be moved, whatever it is called and whoever
wrote the plugin. What is still claimed afterwards cannot be moved.
"""

import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from neurovocal.engine.located import Location
from neurovocal.engine.registry import Options, Plugin

_ENDPOINT = re.compile(r"(tcp://)?(\[[^\[\]/]+\]|[^:\[\]/]+):(\d{1,5}|\*)")
_STDOUT = "stdout"
# Kinds of claims that lie outside the process.
_OUTSIDE = ("file:", "folder:", "tcp:", "ipc:", "device:", "output device:", _STDOUT)


@dataclass(frozen=True, slots=True)
class Moved:
    """Options of a stage that touches nothing of the user's any more.

    Parameters
    ----------
    options : dict
        As they stand in a configuration.
    left : frozenset of str
        Claims that could not be moved.
    places : dict
        Where each moved option stands, and its new value.
    on_disk : bool
        Whether some of them are files.
    """

    options: dict[str, Any]
    left: frozenset[str]
    places: dict[Location, str]
    on_disk: bool


@dataclass(slots=True)
class Elsewhere:
    """A temporary folder and free ports of this machine.

    Parameters
    ----------
    folder : Path
        Where files go.
    """

    folder: Path
    _count: int = 0
    _ports: list[socket.socket] = field(default_factory=list)

    def path(self, name: str) -> str:
        """A path that nothing else has."""
        self._count += 1
        return str(self.folder / f"{self._count}-{name or 'output'}")

    def port(self) -> int:
        """A port that is free; it is kept until `release`."""
        held = socket.socket()
        held.bind(("127.0.0.1", 0))
        self._ports.append(held)
        port: int = held.getsockname()[1]
        return port

    def release(self) -> None:
        """Let go of the ports, just before somebody binds them."""
        for held in self._ports:
            held.close()
        self._ports.clear()


def moved(
    plugin: Plugin[Any], options: Options, given: dict[str, Any], to: Elsewhere
) -> Moved:
    """Options with all that the stage owns put elsewhere.

    Parameters
    ----------
    plugin, options
        The stage's plugin and its checked options, defaults included.
    given : dict
        The options as the user gave them; the new ones say no more than needed.
    to : Elsewhere
        Folder and ports.
    """
    claims = plugin.resources(options)
    places: dict[Location, str] = {}
    on_disk = False
    whole = options.model_dump(mode="json")
    for loc, value in _texts(whole, ()):
        new = _instead_of(value, claims, to)
        if new is not None:
            places[loc] = new
            on_disk |= new.startswith(str(to.folder))
    result = dict(given)
    for loc, new in places.items():
        _put(whole, loc, new)
    for loc in places:
        result[str(loc[0])] = whole[str(loc[0])]
    after = plugin.resources(plugin.options.model_validate(result))
    left = frozenset(c for c in claims & after if c.startswith(_OUTSIDE))
    return Moved(result, left, places, on_disk)


def _texts(value: Any, loc: Location) -> Iterator[tuple[Location, str]]:
    """Every text in nested options, and where it stands."""
    if isinstance(value, str):
        yield loc, value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _texts(inner, (*loc, key))
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            yield from _texts(inner, (*loc, index))


def _put(target: Any, loc: Location, value: str) -> None:
    for part in loc[:-1]:
        target = target[part]
    target[loc[-1]] = value


def _instead_of(value: str, claims: frozenset[str], to: Elsewhere) -> str | None:
    """What stands for a claimed path or endpoint; None: the text claims nothing."""
    if value == "-" and _STDOUT in claims:
        return to.path("stdout")
    if value.startswith("ipc://") and value in claims:
        return f"ipc://{to.path('socket')}"
    path = Path(value).expanduser()
    if value and {f"file:{path.resolve()}", f"folder:{path.resolve()}"} & claims:
        return to.path(path.name)
    match = _ENDPOINT.fullmatch(value)
    if match is None:
        return None
    scheme, _, port = match.groups()
    # A port that the system is to choose is claimed by nobody, but is a socket.
    any_port = port == "*" if scheme else port == "0" and value.startswith("127.")
    if f"tcp:{port}" in claims or any_port:
        return f"{scheme or ''}127.0.0.1:{to.port()}"
    return None
