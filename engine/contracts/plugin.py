"""Plugins: what one is, and how it is found by name without importing the others."""

import importlib.util
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeAlias, TypeVar

from pydantic import BaseModel, ConfigDict

from neurovocal.engine.errors import PluginError
from neurovocal.engine.protocols import API_VERSION
from neurovocal.engine.types import StreamInfo

if TYPE_CHECKING:
    from neurovocal.engine.manifest import Bundle
    from neurovocal.engine.timebase import Clock

Kind: TypeAlias = Literal[
    "source", "features", "detector", "model", "sink", "control", "gate"
]
GROUPS: dict[Kind, str] = {
    "source": "neurovocal.sources",
    "features": "neurovocal.features",
    "detector": "neurovocal.detectors",
    "model": "neurovocal.models",
    "sink": "neurovocal.sinks",
    "control": "neurovocal.controls",
    "gate": "neurovocal.gates",
}


class Options(BaseModel):
    """Base of all option models: unknown keys are errors, values never change.

    A docstring under a field is its help text in ``neurovocal plugins NAME`` and
    in the JSON Schema.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True
    )


OptionsT = TypeVar("OptionsT", bound=Options)


@dataclass(frozen=True, slots=True)
class BuildContext:
    """What the engine tells a plugin when it builds a stage.

    Parameters
    ----------
    clock : Clock
        The only way to the time of day.
    run : str
        Name of this run, the same in every message.
    base : Path
        Folder that relative input paths are resolved against.
    stream : str
        Name of the lane: what a source calls its stream when the audio itself
        has no better name.
    info : StreamInfo, optional
        What the stage will hear (one channel, at the lane's rate); None for
        sources and sinks.
    bundle : Bundle, optional
        The model bundle of the lane.
    tile : int
        Frames per network call (DESIGN, first guarantee).
    n_bins, hop_length, frame_length : int
        Shape of the frames that models will hear; 0 before features are built.
    detector_latency : int
        Look-ahead of the lane's detector in samples, for models that keep
        history until a segment closes.
    models : tuple of str
        Plugin names of the lane's models, in order, for those who watch it.
    config_text : str
        The whole configuration, for sinks that keep a record of it.
    keys : Path, optional
        Folder of the engine's keys: every socket asks for one.
    acting : bool
        False where a recorded run is only computed again: a sink that watches lanes
        then acquires nothing and acts on nothing.
    again : bool
        True where a sink takes the place of one of this run that hangs: what that one
        wrote must stay.
    heard_once : bool
        True where no run hears the same audio again, and what an earlier run wrote
        must stay.
    """

    clock: "Clock"
    run: str
    base: Path = field(default_factory=Path.cwd)
    stream: str = "audio"
    info: StreamInfo | None = None
    bundle: "Bundle | None" = None
    tile: int = 8
    n_bins: int = 0
    hop_length: int = 0
    frame_length: int = 0
    detector_latency: int = 0
    models: tuple[str, ...] = ()
    config_text: str = ""
    keys: Path | None = None
    acting: bool = True
    again: bool = False
    heard_once: bool = False

    def path(self, name: str | Path) -> Path:
        """`name` as found from the working folder or else from `base`."""
        path = Path(name).expanduser()
        if path.is_absolute() or path.exists() or not (self.base / path).exists():
            return path
        return self.base / path


def _nothing(options: Any) -> frozenset[str]:
    return frozenset()


def _no_problems(options: Any, context: Any) -> Iterable[str]:
    return ()


@dataclass(frozen=True, slots=True)
class Plugin(Generic[OptionsT]):
    """One stage that a configuration can name.

    Parameters
    ----------
    kind : {'source', 'features', 'detector', 'model', 'sink', 'control', 'gate'}
        Which contract of `neurovocal.engine.protocols` the stage keeps.
    options : type of Options
        The stage's options with their help texts.
    build : callable
        ``build(options, context)`` makes a stage. For a source or sink it must
        touch no device, file or port: `open` does.
    summary : str
        One line for ``neurovocal plugins``.
    resources : callable
        Names of what the stage will own, such as ``"tcp:5556"``: two stages
        that claim the same are refused before anything is opened.
    check : callable
        ``check(options, context)`` yields a sentence per problem that can be
        found without opening anything, such as a missing file.
    devices : callable, optional
        For a source: what it could listen to, one dict per device, for
        ``neurovocal devices``.
    watch : callable, optional
        For a sink: ``watch(options, context)`` makes the `Watcher` that decides, in
        each lane that the sink hears, what the sink is to act on.
    check_lane : callable
        For such a sink: as `check`, once per lane, with its bundle and models.
    check_lanes : callable
        For a sink: as `check`, with the contexts of all lanes that it hears: what
        none of them can ever bring is a mistake.
    api : int
        Version of the contracts the plugin was written for.
    """

    kind: Kind
    options: type[OptionsT]
    build: Callable[[OptionsT, BuildContext], Any]
    summary: str
    resources: Callable[[OptionsT], frozenset[str]] = _nothing
    check: Callable[[OptionsT, BuildContext], Iterable[str]] = _no_problems
    devices: Callable[[], list[dict[str, Any]]] | None = None
    watch: Callable[[OptionsT, BuildContext], Any] | None = None
    check_lane: Callable[[OptionsT, BuildContext], Iterable[str]] = _no_problems
    check_lanes: Callable[[OptionsT, Sequence[BuildContext]], Iterable[str]] = (
        _no_problems
    )
    api: int = API_VERSION


class Registry:
    """Plugins by kind and name: installed ones, and local ``file.py:plugin``.

    Parameters
    ----------
    extra : mapping, optional
        ``{(kind, name): plugin}`` to use beside the installed ones (tests).
    """

    def __init__(
        self, extra: Mapping[tuple[Kind, str], "Plugin[Any]"] | None = None
    ) -> None:
        self._extra = dict(extra or {})
        self._points: dict[tuple[Kind, str], list[EntryPoint]] = {}
        for kind, group in GROUPS.items():
            for point in entry_points(group=group):
                self._points.setdefault((kind, point.name), []).append(point)

    def names(self, kind: Kind) -> list[str]:
        """Names of all plugins of a kind, sorted; none of them is imported."""
        keys = [*self._points, *self._extra]
        return sorted({name for k, name in keys if k == kind})

    def origin(self, kind: Kind, name: str) -> str:
        """Distribution that a plugin comes from."""
        points = self._points.get((kind, name))
        dist = points[0].dist if points else None
        return dist.name if dist else "local"

    def get(self, kind: Kind, name: str, base: Path | None = None) -> "Plugin[Any]":
        """Import and check the plugin of that name.

        Parameters
        ----------
        kind : str
            Kind that is asked for.
        name : str
            Name of an installed plugin, or ``path/to/file.py:attribute``.
        base : Path, optional
            Folder that a relative ``file.py`` is resolved against.

        Raises
        ------
        PluginError
            Unknown, claimed by two distributions, not importable, of another
            kind or written for another API version.
        """
        if ".py:" in name:
            plugin = _load_file(name, base or Path.cwd())
        elif (kind, name) in self._extra:
            plugin = self._extra[kind, name]
        else:
            plugin = self._load_point(kind, name)
        if not isinstance(plugin, Plugin):
            raise PluginError(f"{kind} '{name}' is not a neurovocal Plugin object")
        if plugin.kind != kind:
            raise PluginError(f"'{name}' is a {plugin.kind} plugin, not a {kind}")
        if plugin.api != API_VERSION:
            raise PluginError(
                f"{kind} '{name}' was written for plugin API {plugin.api}, this "
                f"engine has {API_VERSION}: install a matching version of it"
            )
        return plugin

    def _load_point(self, kind: Kind, name: str) -> Any:
        points = self._points.get((kind, name), [])
        if not points:
            raise PluginError(
                f"unknown {kind} plugin '{name}' ({self._hint(kind, name)})"
            )
        if len(points) > 1:
            owners = " and ".join(p.dist.name if p.dist else "?" for p in points)
            raise PluginError(
                f"{kind} plugin '{name}' is claimed by {owners}: uninstall one"
            )
        try:
            return points[0].load()
        except Exception as error:  # whatever someone else's module does
            raise PluginError(f"{kind} '{name}' cannot be loaded: {error}") from error

    def _hint(self, kind: Kind, name: str) -> str:
        known = self.names(kind)
        if close := get_close_matches(name, known, n=1):
            return f"did you mean '{close[0]}'?"
        for other in GROUPS:
            if name in self.names(other):
                return f"it is a {other} plugin"
        return f"known: {', '.join(known)}" if known else "none is installed"


def _load_file(name: str, base: Path) -> Any:
    """Load ``file.py:attribute``; the module is cached under its full path."""
    filename, _, attribute = name.rpartition(":")
    path = Path(filename).expanduser()
    path = path if path.is_absolute() or path.exists() else base / path
    if not path.is_file():
        raise PluginError(f"plugin file '{path}' does not exist")
    module_name = f"neurovocal_local_{path.resolve().as_posix()}"
    module = sys.modules.get(module_name)
    if module is None:
        spec = importlib.util.spec_from_file_location(module_name, path)
        if spec is None or spec.loader is None:
            raise PluginError(f"plugin file '{path}' cannot be loaded")
        module = importlib.util.module_from_spec(spec)
        sys.modules[module_name] = module
        try:
            spec.loader.exec_module(module)
        except Exception as error:
            del sys.modules[module_name]
            raise PluginError(f"plugin file '{path}' fails: {error!r}") from error
    if not hasattr(module, attribute):
        raise PluginError(f"plugin file '{path}' has no '{attribute}'")
    return getattr(module, attribute)
