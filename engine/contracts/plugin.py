"""Plugins: what one is, and how it is found by name without importing the others."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeAlias, TypeVar

from neurovocal.engine.contracts.options import Options
from neurovocal.engine.contracts.stages import API_VERSION
from neurovocal.engine.contracts.types import StreamInfo

if TYPE_CHECKING:
    from neurovocal.engine.contracts.bundle import Bundle
    from neurovocal.engine.contracts.clock import Clock


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
    dry_run : bool
        True where a recorded run is computed a second time (``neurovocal replay``):
        a sink with a watcher must not open devices, sockets or files, nor act.
    replaces_failed : bool
        True where a sink takes the place of a sink of the same run that hangs: files
        that the former has written must stay.
    unrepeatable : bool
        True where no later run gets the same audio (a live source): files that an
        earlier run has written must stay.
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
    dry_run: bool = False
    replaces_failed: bool = False
    unrepeatable: bool = False

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
        Which contract of `neurovocal.engine.contracts.stages` the stage keeps.
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
