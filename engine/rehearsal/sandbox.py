"""Sandboxed copy of a configuration: same stages, temporary files and free ports."""

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
from neurovocal.engine.config.validation import validation_problems
from neurovocal.engine.contracts.errors import ConfigError
from neurovocal.engine.contracts.options import Options
from neurovocal.engine.contracts.plugin import Kind, Plugin
from neurovocal.engine.contracts.registry import Registry
from neurovocal.engine.rehearsal.recording import LaneRecording
from neurovocal.engine.support.names import at_home, resolved
from neurovocal.engine.wire.keys import add_client, make_engine_keys

PLAYBACK = "playback"
# Options of other sources that the playback has, too.
_COMMON_OPTIONS = ("buffer_s",)
_OWN_DISTRIBUTION = "neurovocal"
_ENDPOINT = re.compile(r"(tcp://)?(\[[^\[\]/]+\]|[^:\[\]/]+):(\d{1,5}|\*)")
_STDOUT = "stdout"
_OUTPUT_DEVICE = "output device:"
_SERVICE = "service:"  # another program, to which a sink sends

# Kinds of claims on something outside the process.
_OUTSIDE = ("file:", "folder:", "tcp:", "ipc:", "device:", _OUTPUT_DEVICE, _STDOUT)


# ---- options that name resources -----------------------------------------------------


@dataclass(frozen=True, slots=True)
class RedirectedOptions:
    """Options of a stage that claims nothing of the user's any more.

    Parameters
    ----------
    options : dict
        Value of ``options`` in the configuration.
    not_redirected : frozenset of str
        Claims that no option accounts for.
    values : dict
        New value of each redirected option, by its location.
    on_disk : bool
        Whether some of them are files.
    """

    options: dict[str, Any]
    not_redirected: frozenset[str]
    values: dict[Location, str]
    on_disk: bool


@dataclass(slots=True)
class TemporaryResources:
    """A temporary folder and free ports of this machine.

    Parameters
    ----------
    folder : Path
        Existing folder for files.
    """

    folder: Path
    _count: int = 0
    _ports: list[socket.socket] = field(default_factory=list)

    def path(self, name: str) -> str:
        """Return a path that no other call returned."""
        self._count += 1
        return str(self.folder / f"{self._count}-{name or 'output'}")

    def port(self) -> int:
        """Return a free port, which stays reserved until `release`."""
        reserved = socket.socket()
        reserved.bind(("127.0.0.1", 0))
        self._ports.append(reserved)
        port: int = reserved.getsockname()[1]
        return port

    def release(self) -> None:
        """Free the reserved ports, just before the engine binds them."""
        for reserved in self._ports:
            reserved.close()
        self._ports.clear()


def redirect(
    plugin: Plugin[Any],
    options: Options,
    given: dict[str, Any],
    to: TemporaryResources,
) -> RedirectedOptions:
    """Return options with every claimed path and endpoint replaced.

    Parameters
    ----------
    plugin, options
        The stage's plugin and its checked options, defaults included.
    given : dict
        The options as the user gave them; only what is replaced is added.
    to : TemporaryResources
        Folder and ports to use instead.
    """
    claims = plugin.resources(options)
    values: dict[Location, str] = {}
    on_disk = False
    whole = options.model_dump(mode="json")
    for loc, value in _texts(whole, ()):
        new = _replacement(value, claims, to)
        if new is not None:
            values[loc] = new
            on_disk |= new.startswith(str(to.folder))
    result = dict(given)
    for loc, new in values.items():
        _put(whole, loc, new)
    for loc in values:
        result[str(loc[0])] = whole[str(loc[0])]
    after = plugin.resources(plugin.options.model_validate(result))
    rest = frozenset(c for c in claims & after if c.startswith(_OUTSIDE))
    return RedirectedOptions(result, rest, values, on_disk)


def _texts(value: Any, loc: Location) -> Iterator[tuple[Location, str]]:
    """Yield every text in nested options with its location."""
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


def _replacement(
    value: str, claims: frozenset[str], to: TemporaryResources
) -> str | None:
    """Return the replacement of a claimed path or endpoint, None for other texts."""
    if value == "-" and _STDOUT in claims:
        return to.path("stdout")
    if value.startswith("ipc://") and value in claims:
        return f"ipc://{to.path('socket')}"
    path = at_home(value)
    if value and {f"file:{resolved(path)}", f"folder:{resolved(path)}"} & claims:
        return to.path(path.name)
    match = _ENDPOINT.fullmatch(value)
    if match is None:
        return None
    scheme, _, port = match.groups()
    # A port that the system is to choose is not claimed, but is a socket.
    any_port = port == "*" if scheme else port == "0" and value.startswith("127.")
    if f"tcp:{port}" in claims or any_port:
        return f"{scheme or ''}127.0.0.1:{to.port()}"
    return None


# ---- the configuration ---------------------------------------------------------------


@dataclass(slots=True)
class SandboxedConfig:
    """A configuration to run in place of the user's.

    Parameters
    ----------
    data : dict
        The configuration, to be written as YAML.
    endpoint, replay : str, optional
        Where a subscriber connects, and asks for missed messages; None: there is no
        such socket.
    keys : Path, optional
        Folder with the subscriber's keys.
    journal : Path, optional
        File of the journal.
    on_disk : bool
        Whether a sink writes files.
    notes : list of str
        Sentences: what differs from the user's configuration.
    """

    data: dict[str, Any]
    endpoint: str | None = None
    replay: str | None = None
    keys: Path | None = None
    journal: Path | None = None
    on_disk: bool = False
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class StageData:
    """A stage in the data of a configuration, with its location."""

    kind: Kind
    data: dict[str, Any]
    loc: Location

    @property
    def name(self) -> str:
        """Name of its plugin."""
        return str(self.data["plugin"])


class SandboxMaker:
    """Makes sandboxed copies of one configuration.

    Parameters
    ----------
    located : Located
        The user's configuration; it is not changed.
    registry : Registry
        Finds the plugins, which name the resources that they claim.
    base : Path
        Folder that relative names of plugins start from.

    Raises
    ------
    ConfigError
        The configuration has mistakes, or faults of its own.
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
        for stage in stages_of(located.data):
            self._check(stage, problems)
        if problems:
            raise ConfigError(problems)

    def sources(self) -> list[tuple[Plugin[Any], Options]]:
        """Return plugin and options of each lane's source."""
        found = [s for s in stages_of(self._located.data) if s.kind == "source"]
        return [self._checked[stage.loc] for stage in found]

    def source_names(self) -> list[str]:
        """Return the quoted names of the lanes' sources."""
        found = stages_of(self._located.data)
        return [f"'{stage.name}'" for stage in found if stage.kind == "source"]

    def make(
        self, folder: Path, recordings: Sequence[LaneRecording]
    ) -> SandboxedConfig:
        """Return a copy that plays `recordings` and writes to `folder`.

        Parameters
        ----------
        folder : Path
            Existing folder that everything is written to.
        recordings : sequence of LaneRecording
            One per lane; empty: the real sources stay.

        Raises
        ------
        ConfigError
            A stage claims something that cannot be redirected.
        """
        temporary = TemporaryResources(folder)
        try:
            return self._make(recordings, temporary)
        finally:
            temporary.release()

    def _make(
        self, recordings: Sequence[LaneRecording], temporary: TemporaryResources
    ) -> SandboxedConfig:
        made = SandboxedConfig(deepcopy(self._located.data))
        playing = iter(recordings)
        left_out = []
        for stage in list(stages_of(made.data)):
            if stage.kind == "source":
                if recordings:
                    self._play(stage, next(playing))
                else:
                    self._keep_source(stage, made, temporary)
            elif stage.kind == "sink" and self._leaves_out(stage, made):
                left_out.append(stage.data)
            else:
                self._redirect(stage, made, temporary)
        # The files of a rehearsal may be kept: they hold no secrets.
        self._located.put_variables(made.data)
        _remove(made.data, left_out)
        if not any(stage.kind == "sink" for stage in stages_of(made.data)):
            path = temporary.path("events.jsonl")
            made.data["sinks"] = [{"plugin": "jsonl", "options": {"path": path}}]
        if made.data.pop("workers", 1) != 1:
            made.notes.append("all lanes run in one process, into which faults go")
        if made.data.get("keys") is not None:
            _make_keys(made, temporary.folder)
        return made

    def _check(self, stage: StageData, problems: list[str]) -> None:
        try:
            plugin = self._registry.get(stage.kind, stage.name, self._base)
            given = stage.data.get("options") or {}
            self._checked[stage.loc] = plugin, plugin.options.model_validate(given)
        except ConfigError as error:
            problem = self._located.problem((*stage.loc, "plugin"), str(error))
            problems.append(problem)
        except ValidationError as error:
            loc = (*stage.loc, "options")
            problems += validation_problems(error, plugin.options, self._located, loc)

    def _play(self, stage: StageData, recording: LaneRecording) -> None:
        _, options = self._checked[stage.loc]
        common = {name: getattr(options, name, None) for name in _COMMON_OPTIONS}
        stage.data["plugin"] = PLAYBACK
        stage.data["options"] = {
            "path": str(recording.path),
            "channels": list(range(1, recording.channels + 1)),
            **{name: value for name, value in common.items() if value is not None},
        }

    def _keep_source(
        self, stage: StageData, made: SandboxedConfig, temporary: TemporaryResources
    ) -> None:
        """Keep a real source, with empty folders in place of those that it claims.

        A device can be shared with other programs; a source that claims files and
        folders changes them.
        """
        plugin, options = self._checked[stage.loc]
        given = stage.data.get("options") or {}
        new = redirect(plugin, options, given, temporary)
        on_disk = ("file:", "folder:")
        if rest := sorted(c for c in new.not_redirected if c.startswith(on_disk)):
            raise ConfigError(self._fixed_claims(stage, rest))
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
            for value in new.values.values():
                if f"folder:{resolved(Path(value))}" in claims:
                    Path(value).mkdir()
            made.notes.append(
                f"source '{stage.name}' finds an empty folder: what lies in yours "
                "would be taken"
            )
            stage.data["options"] = new.options

    def _leaves_out(self, stage: StageData, made: SandboxedConfig) -> bool:
        """Return whether a sink is left out: audible, sending, or of unknown claims."""
        plugin, options = self._checked[stage.loc]
        claims = plugin.resources(options)
        if any(claim.startswith(_OUTPUT_DEVICE) for claim in claims):
            made.notes.append(f"sink '{stage.name}' is muted: left out")
            return True
        if any(claim.startswith(_SERVICE) for claim in claims):
            made.notes.append(f"sink '{stage.name}' sends to others: left out")
            return True
        foreign = self._registry.origin("sink", stage.name) != _OWN_DISTRIBUTION
        if foreign and not claims:
            made.notes.append(
                f"sink '{stage.name}' does not say what it writes to "
                "(Plugin.resources): left out"
            )
            return True
        if plugin.watch is not None:
            made.notes.append(f"sink '{stage.name}' decides, and acts on nothing")
        return False

    def _redirect(
        self, stage: StageData, made: SandboxedConfig, temporary: TemporaryResources
    ) -> None:
        plugin, options = self._checked[stage.loc]
        new = redirect(plugin, options, stage.data.get("options") or {}, temporary)
        if new.not_redirected:
            raise ConfigError(self._fixed_claims(stage, sorted(new.not_redirected)))
        stage.data["options"] = new.options
        if stage.kind == "sink":
            _note_addresses(stage, new, made)

    def _fixed_claims(self, stage: StageData, claims: Sequence[str]) -> str:
        return self._located.problem(
            stage.loc,
            f"{stage.kind} '{stage.name}' owns {', '.join(claims)}, and no option of "
            "it says so: the rehearsal cannot put that elsewhere; leave this stage out",
        )


def stages_of(data: dict[str, Any]) -> Iterator[StageData]:
    """Yield sources, sinks and the control of a configuration's data."""
    whole: tuple[Location, dict[str, Any]] = ((), data)
    lanes: list[tuple[Location, dict[str, Any]]] = [
        (("lanes", i), lane) for i, lane in enumerate(data.get("lanes") or [])
    ]
    for prefix, lane in lanes or [whole]:
        yield StageData("source", lane["source"], (*prefix, "source"))
    for prefix, part in [whole, *lanes]:
        for index, sink in enumerate(part.get("sinks") or []):
            yield StageData("sink", sink, (*prefix, "sinks", index))
    if data.get("control"):
        yield StageData("control", data["control"], ("control",))


def _remove(data: dict[str, Any], sinks: Sequence[dict[str, Any]]) -> None:
    """Remove these very sinks: another one may have equal data."""
    removed = {id(sink) for sink in sinks}
    for part in [data, *(data.get("lanes") or [])]:
        if part.get("sinks"):
            part["sinks"] = [sink for sink in part["sinks"] if id(sink) not in removed]


def _make_keys(made: SandboxedConfig, folder: Path) -> None:
    engine, made.keys = folder / "keys", folder / "subscriber-keys"
    make_engine_keys(engine)
    add_client(engine, "rehearsal", "read", made.keys)
    made.data["keys"] = str(engine)
    made.notes.append("keys were made for the rehearsal; yours were not used")


def _note_addresses(
    stage: StageData, new: RedirectedOptions, made: SandboxedConfig
) -> None:
    """Note the first socket, journal and replay socket."""
    made.on_disk |= new.on_disk
    if stage.name == "zmq" and made.endpoint is None and _carries_labels(stage):
        made.endpoint = new.values.get(("endpoint",))
    if stage.name == "journal" and made.journal is None and _carries_labels(stage):
        made.journal = Path(new.options["path"])
        made.replay = new.values.get(("replay",))


def _carries_labels(stage: StageData) -> bool:
    events = stage.data.get("events")
    return events is None or bool({"label", "offset"} & set(events))
