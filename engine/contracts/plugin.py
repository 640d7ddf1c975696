"""Plugin objects: kind, options and builder of a stage, and the context of a build."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from os.path import exists, isfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeAlias, TypeVar

from neurovocal.engine.contracts.options import Mode, Options
from neurovocal.engine.contracts.stages import API_VERSION
from neurovocal.engine.contracts.types import StreamInfo
from neurovocal.engine.support.names import at_home

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
class FileAccess:
    """A file, or the files in a folder, that a stage reads or writes.

    Parameters
    ----------
    path : Path
        The file or folder; it need not exist.
    holds : tuple of str
        Patterns of the files in a folder, relative to it, such as ``"*.wav"``, or
        ``"**/*.wav"`` at any depth; empty: `path` is a file.
    """

    path: Path
    holds: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class BuildContext:
    """Environment of a stage, passed to its plugin when the stage is built.

    Parameters
    ----------
    clock : Clock
        The only source of the time of day.
    run : str
        Name of this run, the same in every message.
    base : Path
        Folder that relative input paths start from.
    stream : str
        Name of the lane, and of a source's stream unless the audio has a better one;
        for what belongs to no lane, such as a sink of all, the name of the station.
    info : StreamInfo, optional
        Stream that the stage will process (one channel, at the lane's rate); None for
        sources and sinks.
    bundle : Bundle, optional
        Model bundle of the lane.
    tile : int
        Frames per network call; results may depend on it, but never on the blocks.
    n_bins, hop_length, frame_length : int
        Shape of the frames that models will get; 0 before the features are built.
    detector_latency : int
        Look-ahead of the lane's detector in samples, for models that keep history
        until a segment ends.
    models : tuple of str
        Plugin names of the lane's models, in order, for watchers.
    config_text : str
        The whole configuration, for sinks that record it.
    keys : Path, optional
        Folder of the engine's keys; with one, every socket requires a client's key.
    dry_run : bool
        True where a recorded run is computed a second time (``neurovocal replay``):
        a sink with a watcher must not open devices, sockets or files, nor act.
    replaces_failed : bool
        True where a sink takes the place of a sink of the same run that hangs: files
        that the former has written must stay.
    privacy : {'off', 'gate', 'labels_only'}
        What audio may leave the lanes; what is drawn from live audio never does,
        except with ``'off'``.
    unrepeatable : bool
        True where no later run gets the same audio (a live source): files that an
        earlier run has written must stay.
    events : tuple of str, optional
        For a sink: the kinds of events that its configuration lists; None: it lists
        none, and the sink gets those that it asks for.
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
    privacy: Mode = "off"
    unrepeatable: bool = False
    events: tuple[str, ...] | None = None

    def path(self, name: str | Path) -> Path:
        """Return the path of an input: here, else in `base`, else a file that ships."""
        path = at_home(name)
        if path.is_absolute() or exists(path):
            return path
        if exists(self.base / path):
            return self.base / path
        # A copy of a configuration that ships finds its recording. A missing folder
        # is never taken for the one that ships.
        shipped = Path(str(files("neurovocal.configs"))).resolve() / path
        return shipped if isfile(shipped) else path


def _nothing(options: Any) -> frozenset[str]:
    return frozenset()


def _no_problems(options: Any, context: Any) -> Iterable[str]:
    return ()


def _unknown_rate(options: Any, context: Any) -> int | None:
    return None


def _no_name(options: Any, context: Any) -> str | None:
    return None


def _no_files(options: Any, context: Any) -> Iterable[FileAccess]:
    return ()


@dataclass(frozen=True, slots=True)
class Plugin(Generic[OptionsT]):
    """Description and builder of one kind of stage that a configuration can name.

    Parameters
    ----------
    kind : {'source', 'features', 'detector', 'model', 'sink', 'control', 'gate'}
        Contract of `neurovocal.engine.contracts.stages` that the stage fulfils.
    options : type of Options
        Options of the stage with their help texts.
    build : callable
        ``build(options, context)`` returns a stage. For a source or sink it must not
        touch a device, file or port; `open` does.
    summary : str
        One line for ``neurovocal plugins``.
    resources : callable
        ``resources(options)`` returns names of what the stage will own, such as
        ``"tcp:5556"``: two stages that claim the same name are a mistake of the
        configuration.
    check : callable
        ``check(options, context)`` yields a sentence per problem that can be found
        without opening anything, such as a missing file.
    reads, writes : callable
        ``reads(options, context)`` yields the files and folders that the stage reads,
        ``writes`` those that it writes: what one stage reads no other may write.
    sample_rate : callable
        For a source: ``sample_rate(options, context)`` returns the rate of its stream
        in Hz if it is known before it opens, such as an option, or None.
    devices : callable, optional
        For a source: ``devices()`` returns one dict per available device, for
        ``neurovocal devices``.
    watch : callable, optional
        For a sink: ``watch(options, context)`` returns the `Watcher` that decides, in
        each lane whose messages the sink gets, when the sink acts.
    check_lane : callable
        For a sink with a watcher: as `check`, once per lane, with the lane's bundle and
        models.
    check_lanes : callable
        For a sink: as `check`, with the contexts of all lanes whose messages it gets;
        to ask for events that none of them can produce is a mistake.
    label_name : callable
        For a model: ``label_name(options, context)`` returns the name of the model in
        its labels if it gives labels, or None: two models of a lane have two names.
    api : int
        Version of the contracts for which the plugin was written.
    """

    kind: Kind
    options: type[OptionsT]
    build: Callable[[OptionsT, BuildContext], Any]
    summary: str
    resources: Callable[[OptionsT], frozenset[str]] = _nothing
    check: Callable[[OptionsT, BuildContext], Iterable[str]] = _no_problems
    reads: Callable[[OptionsT, BuildContext], Iterable[FileAccess]] = _no_files
    writes: Callable[[OptionsT, BuildContext], Iterable[FileAccess]] = _no_files
    sample_rate: Callable[[OptionsT, BuildContext], int | None] = _unknown_rate
    devices: Callable[[], list[dict[str, Any]]] | None = None
    watch: Callable[[OptionsT, BuildContext], Any] | None = None
    check_lane: Callable[[OptionsT, BuildContext], Iterable[str]] = _no_problems
    check_lanes: Callable[[OptionsT, Sequence[BuildContext]], Iterable[str]] = (
        _no_problems
    )
    label_name: Callable[[OptionsT, BuildContext], str | None] = _no_name
    api: int = API_VERSION
