"""A configuration that does what the user's does and touches nothing of the user's."""

import re
import socket
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from neurovocal.engine.config.located_yaml import Located, Location
from neurovocal.engine.config.schema import parse_config
from neurovocal.engine.config.validation import explain
from neurovocal.engine.contracts.errors import ConfigError
from neurovocal.engine.contracts.options import Options
from neurovocal.engine.contracts.plugin import Kind, Plugin
from neurovocal.engine.contracts.registry import Registry
from neurovocal.engine.rehearsal.recording import Tape
from neurovocal.engine.wire.keys import add_client, make_engine_keys

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


PLAYBACK = "playback"
_OWN = "neurovocal"
_OUTPUT = "output device:"

# Options that a source of another kind and the playback have in common.
_COMMON = ("buffer_s",)


@dataclass(slots=True)
class StandIn:
    """What is run in place of the user's configuration.

    Parameters
    ----------
    data : dict
        The configuration, to be written as YAML.
    endpoint, replay : str, optional
        Where a subscriber listens and asks; None: there is no such socket.
    keys : Path, optional
        The subscriber's keys.
    journal : Path, optional
        Where the journal is written.
    on_disk : bool
        Whether a sink writes files.
    notes : list of str
        What differs from the user's configuration, for people.
    """

    data: dict[str, Any]
    endpoint: str | None = None
    replay: str | None = None
    keys: Path | None = None
    journal: Path | None = None
    on_disk: bool = False
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Stage:
    """A stage as it stands in the configuration's data."""

    kind: Kind
    data: dict[str, Any]
    loc: Location

    @property
    def name(self) -> str:
        """Name of its plugin."""
        return str(self.data["plugin"])


class StandInMaker:
    """Makes a stand-in of one configuration, as often as it is needed.

    Parameters
    ----------
    located : Located
        The user's configuration, which is left as it is.
    registry : Registry
        Plugins say what they own.
    base : Path
        Folder that relative names of plugins start from.

    Raises
    ------
    ConfigError
        It has mistakes, or faults of its own.
    """

    def __init__(self, located: Located, registry: Registry, base: Path) -> None:
        self._located = located
        self._registry = registry
        self._base = base
        if located.data.get("faults"):
            raise ConfigError(
                located.problem(
                    ("faults",),
                    "a configuration with faults of its own cannot be rehearsed: a "
                    "rehearsal brings its own, so leave this key out",
                )
            )
        parse_config(located)
        self._checked: dict[Location, tuple[Plugin[Any], Options]] = {}
        problems: list[str] = []
        for stage in stages(located.data):
            self._check(stage, problems)
        if problems:
            raise ConfigError(problems)

    def sources(self) -> list[tuple[Plugin[Any], Options]]:
        """Plugin and options of each lane's source."""
        found = [s for s in stages(self._located.data) if s.kind == "source"]
        return [self._checked[stage.loc] for stage in found]

    def source_names(self) -> list[str]:
        """Names of the lanes' sources, as the configuration has them."""
        return [f"'{s.name}'" for s in stages(self._located.data) if s.kind == "source"]

    def make(self, folder: Path, tapes: Sequence[Tape]) -> StandIn:
        """A stand-in that plays `tapes`, one per lane; none: the real sources.

        Parameters
        ----------
        folder : Path
            Takes everything that is written.
        tapes : sequence of Tape
            What each lane hears.

        Raises
        ------
        ConfigError
            A stage owns something that cannot be moved.
        """
        elsewhere = Elsewhere(folder)
        try:
            return self._made(folder, tapes, elsewhere)
        finally:
            elsewhere.release()

    def _made(
        self, folder: Path, tapes: Sequence[Tape], elsewhere: Elsewhere
    ) -> StandIn:
        made = StandIn(deepcopy(self._located.data))
        sources = iter(tapes)
        left_out = []
        for stage in list(stages(made.data)):
            if stage.kind == "source":
                if tapes:
                    self._play(stage, next(sources))
                else:
                    self._keep(stage, made, elsewhere)
            elif stage.kind == "sink" and self._leave_out(stage, made):
                left_out.append(stage.data)
            else:
                self._move(stage, made, elsewhere)
        _take_out(made.data, left_out)
        if not any(stage.kind == "sink" for stage in stages(made.data)):
            path = elsewhere.path("events.jsonl")
            made.data["sinks"] = [{"plugin": "jsonl", "options": {"path": path}}]
        if made.data.get("keys") is not None:
            self._make_keys(made, folder)
        return made

    def _check(self, stage: Stage, problems: list[str]) -> None:
        try:
            plugin = self._registry.get(stage.kind, stage.name, self._base)
            given = stage.data.get("options") or {}
            self._checked[stage.loc] = plugin, plugin.options.model_validate(given)
        except ConfigError as error:
            problem = self._located.problem((*stage.loc, "plugin"), str(error))
            problems.append(problem)
        except ValidationError as error:
            loc = (*stage.loc, "options")
            problems += explain(error, plugin.options, self._located, loc)

    def _play(self, stage: Stage, tape: Tape) -> None:
        _, options = self._checked[stage.loc]
        common = {name: getattr(options, name, None) for name in _COMMON}
        stage.data["plugin"] = PLAYBACK
        stage.data["options"] = {
            "path": str(tape.path),
            "channels": list(range(1, tape.channels + 1)),
            **{name: value for name, value in common.items() if value is not None},
        }

    def _keep(self, stage: Stage, made: StandIn, elsewhere: Elsewhere) -> None:
        """The real source; of one that takes what it finds, only the ways of it.

        A device can be listened to beside others. Files and folders that a source
        owns are changed by it: it gets empty ones.
        """
        plugin, options = self._checked[stage.loc]
        given = stage.data.get("options") or {}
        new = moved(plugin, options, given, elsewhere)
        if left := sorted(c for c in new.left if c.startswith(("file:", "folder:"))):
            raise ConfigError(self._immovable(stage, left))
        if "stdin" in plugin.resources(options):
            raise ConfigError(
                self._located.problem(
                    stage.loc,
                    f"source '{stage.name}' reads standard input, which many runs "
                    "cannot share: give it a command, or rehearse without --live",
                )
            )
        if new.on_disk:
            claims = plugin.resources(plugin.options.model_validate(new.options))
            for place in new.places.values():
                if f"folder:{Path(place).resolve()}" in claims:
                    Path(place).mkdir()
            made.notes.append(
                f"source '{stage.name}' finds an empty folder: what lies in yours "
                "would be taken"
            )
            stage.data["options"] = new.options

    def _leave_out(self, stage: Stage, made: StandIn) -> bool:
        """Whether a sink takes no part, because it would be heard or is unknown."""
        plugin, options = self._checked[stage.loc]
        claims = plugin.resources(options)
        if any(claim.startswith(_OUTPUT) for claim in claims):
            made.notes.append(f"sink '{stage.name}' is muted: left out")
            return True
        foreign = self._registry.origin("sink", stage.name) != _OWN
        if foreign and not claims:
            made.notes.append(
                f"sink '{stage.name}' does not say what it writes to "
                "(Plugin.resources): left out"
            )
            return True
        if plugin.watch is not None:
            made.notes.append(f"sink '{stage.name}' decides, and acts on nothing")
        return False

    def _move(self, stage: Stage, made: StandIn, elsewhere: Elsewhere) -> None:
        plugin, options = self._checked[stage.loc]
        new = moved(plugin, options, stage.data.get("options") or {}, elsewhere)
        if new.left:
            raise ConfigError(self._immovable(stage, sorted(new.left)))
        stage.data["options"] = new.options
        if stage.kind == "sink":
            _note_places(stage, new, made)

    def _immovable(self, stage: Stage, claims: Sequence[str]) -> str:
        return self._located.problem(
            stage.loc,
            f"{stage.kind} '{stage.name}' owns {', '.join(claims)}, and no option of "
            "it says so: the rehearsal cannot put that elsewhere; leave this stage out",
        )

    def _make_keys(self, made: StandIn, folder: Path) -> None:
        engine, made.keys = folder / "keys", folder / "subscriber-keys"
        make_engine_keys(engine)
        add_client(engine, "rehearsal", "read", made.keys)
        made.data["keys"] = str(engine)
        made.notes.append("keys were made for the rehearsal; yours were not used")


def stages(data: dict[str, Any]) -> Iterator[Stage]:
    """Sources, sinks and the control of a configuration's data."""
    whole: tuple[Location, dict[str, Any]] = ((), data)
    lanes: list[tuple[Location, dict[str, Any]]] = [
        (("lanes", i), lane) for i, lane in enumerate(data.get("lanes") or [])
    ]
    for prefix, lane in lanes or [whole]:
        yield Stage("source", lane["source"], (*prefix, "source"))
    for prefix, part in [whole, *lanes]:
        for index, sink in enumerate(part.get("sinks") or []):
            yield Stage("sink", sink, (*prefix, "sinks", index))
    if data.get("control"):
        yield Stage("control", data["control"], ("control",))


def _take_out(data: dict[str, Any], left_out: Sequence[dict[str, Any]]) -> None:
    """Leave out these very sinks: of two that are alike, one may take part."""
    gone = {id(sink) for sink in left_out}
    for part in [data, *(data.get("lanes") or [])]:
        if part.get("sinks"):
            part["sinks"] = [sink for sink in part["sinks"] if id(sink) not in gone]


def _note_places(stage: Stage, new: Moved, made: StandIn) -> None:
    """Remember where the first socket, journal and replay socket are."""
    made.on_disk |= new.on_disk
    if stage.name == "zmq" and made.endpoint is None and _carries_labels(stage):
        made.endpoint = new.places.get(("endpoint",))
    if stage.name == "journal" and made.journal is None and _carries_labels(stage):
        made.journal = Path(new.options["path"])
        made.replay = new.places.get(("replay",))


def _carries_labels(stage: Stage) -> bool:
    events = stage.data.get("events")
    return events is None or bool({"label", "offset"} & set(events))
