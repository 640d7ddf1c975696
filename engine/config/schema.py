"""Schema of the configuration: pydantic models, and the first check of a file."""

from collections.abc import Iterable
from importlib.resources import files
from os.path import isfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from pydantic import Field, ValidationError, field_validator

from neurovocal.engine.audio.signal_checks import SignalOptions
from neurovocal.engine.config.faults import Fault
from neurovocal.engine.config.located_yaml import Located, Location, read_located
from neurovocal.engine.config.validation import validated, validation_problems
from neurovocal.engine.contracts.errors import ConfigError
from neurovocal.engine.contracts.options import (
    DAY_S,
    MOST_MB,
    Mode,
    OnError,
    Options,
    WhenFull,
)
from neurovocal.engine.contracts.types import KINDS
from neurovocal.engine.support.names import at_home
from neurovocal.engine.support.text import did_you_mean

if TYPE_CHECKING:
    EventKind: TypeAlias = str
else:
    EventKind = Literal[tuple(KINDS.values())]

_MOST_FAULTS = 100  # each wraps its stage once more


class StageConfig(Options):
    """A stage: which plugin, with which options."""

    plugin: str
    """Name of an installed plugin, or `path/to/file.py:plugin`."""
    options: dict[str, Any] = {}
    """Options of the plugin; `neurovocal plugins NAME` lists them."""
    on_error: OnError | None = None
    """What a failure means: `fail` ends the lane (a sink's: the run) and the run's exit
    code is 2; `skip` (models, sinks) drops what
    failed, counts it and goes on; `restart` also resets a model, closes a source
    or sink and opens it again, or rebuilds the lane of a front end or detector, with
    growing pauses. Default: `restart` for models, and for live sources, their lanes and
    sinks; `fail` for all else."""


class QueueConfig(Options):
    """The bounded queues before a sink; by default they grow with the channels."""

    events: int | None = Field(default=None, ge=1, le=10_000_000)
    """Labels, marks, gaps and other small messages that may wait; default: 1024 for
    each channel."""
    bulk: int | None = Field(default=None, ge=1, le=10_000_000)
    """Frames and other bulky messages that may wait, in a queue of their own;
    default: 64 for each channel."""
    when_full: WhenFull | None = None
    """`block` (the source waits; only for a source that can) or `drop_oldest`
    (counted and published). Default: by whether the source is live."""


class SinkConfig(StageConfig):
    """A sink: a stage with a queue and a choice of events."""

    events: list[EventKind] | None = None
    """Kinds of events that the sink gets; default: those that its plugin selects."""
    queue: QueueConfig = QueueConfig()
    """Bounds of its queues."""


class LaneConfig(Options):
    """One source with its stages."""

    name: str = ""
    """Name of the stream where the source has no better one; default: station."""
    source: StageConfig
    """Where the audio comes from."""
    signal: SignalOptions = SignalOptions()
    """Checks of a live source's signal: flat, clipped, with an offset, too quiet, of
    another rate (docs/reference/sources.md)."""
    bundle: str | None = None
    """Model bundle: a folder, or the name of one that ships."""
    profile: Literal["normal", "fast"] = "normal"
    """`fast`, for closed loops: early onsets, and labels as soon as they are sure
    (docs/how-to/closed-loop.md); options that are given stay. With `tile: 1`."""
    features: StageConfig | None = None
    """Only without a bundle; a bundle brings its own."""
    detector: StageConfig | None = None
    """Finds onsets and offsets; default: the detector that the bundle recommends, or
    `bands`."""
    models: list[StageConfig] = []
    """Models that publish labels, surprise and synthesis, in order."""
    sinks: list[SinkConfig] = []
    """Sinks of this lane alone."""


class SuperviseConfig(Options):
    """Limits of the watchdog."""

    hang_s: float | None = Field(default=30.0, gt=0, le=DAY_S)
    """Seconds after which a plugin that does not return counts as hanging: a sink is
    replaced, a lane given up, and the others go on; null: never."""
    max_rss_mb: float | None = Field(default=None, gt=0, le=MOST_MB)
    """Resident memory in MiB above which the run ends in order with exit code 2, so
    that a service manager restarts it; null: no limit."""


class GateConfig(StageConfig):
    """The stage that finds human voices."""

    plugin: str = "silero"
    """Name of an installed plugin, or `path/to/file.py:plugin`."""


class PrivacyConfig(Options):
    """Which audio may reach the sinks; labels always do."""

    mode: Mode = "gate"
    """`gate`: audio in which the gate found no human voice; `labels_only`: none at all;
    `off`: all."""
    gate: GateConfig = GateConfig()
    """Finds human voices."""
    before_s: float = Field(default=2.0, ge=0, le=60)
    """Audio that is withheld before a voice; all audio is late by as much."""
    after_s: float = Field(default=2.0, ge=0, le=600)
    """Audio that is withheld after a voice."""
    all_channels: bool = True
    """Whether a voice in one channel withholds all channels of its source."""

    @field_validator("mode", mode="before")
    @classmethod
    def _yaml_off(cls, value: Any) -> Any:
        """Read `false` as `off`: journals of older versions hold it."""
        return "off" if value is False else value


class GlobalConfig(Options):
    """Keys that all lanes share."""

    version: Literal[1]
    """Version of this format."""
    station: str = "neurovocal"
    """Name of this installation."""
    tile: int = Field(default=8, ge=1, le=1024)
    """Frames per network call: 1 answers soonest, 25 or more costs least."""
    workers: int = Field(default=1, ge=1, le=256)
    """Processes that the lanes are spread over, at most one for each lane; 1: all run
    in this process (docs/station/operation.md)."""
    stop_timeout_s: float = Field(default=1.5, gt=0, le=3600)
    """Time for an orderly stop; then waiting messages are dropped and counted."""
    control: StageConfig | None = None
    """Takes commands during the run, such as `{plugin: zmq}`; none by default."""
    supervise: SuperviseConfig = SuperviseConfig()
    """Limits of the watchdog (docs/station/operation.md)."""
    keys: str | None = None
    """Folder of keys that `neurovocal keys new` made: every socket then encrypts, and
    accepts only clients that `neurovocal keys add` added."""

    privacy: PrivacyConfig | None = None
    """What audio may leave the lanes (docs/how-to/clips.md); all of it by default."""
    faults: list[Fault] = Field(default=[], max_length=_MOST_FAULTS)
    """Faults to inject, 100 at most; for rehearsals only.

    See docs/performance/reliability.md."""

    @field_validator("version", mode="before")
    @classmethod
    def _number(cls, value: Any) -> Any:
        """Tell `true` from 1, which equal each other in Python."""
        return "true" if value is True else value


class SingleConfig(GlobalConfig, LaneConfig):
    """A configuration with one lane."""


class MultiConfig(GlobalConfig):
    """A configuration with several lanes."""

    lanes: list[LaneConfig] = Field(min_length=1)
    """The lanes; sinks given beside them get the messages of all."""
    sinks: list[SinkConfig] = []
    """Sinks that all lanes share."""


class Config(Options):
    """The checked configuration, in the same form for one lane and for several."""

    shared: GlobalConfig
    lanes: list[LaneConfig]
    lane_locs: list[tuple[str | int, ...]]
    """Location of each lane in the file, for messages."""
    sinks: list[SinkConfig]


def find_config(name: str) -> Path:
    """Return the path of a configuration: a file, or the name of one that ships.

    Raises
    ------
    ConfigError
        Neither exists; the message lists those that ship.
    """
    path = at_home(name)
    if isfile(path):
        return path
    folder = Path(str(files("neurovocal.configs"))).resolve()
    shipped = folder / f"{path.name.removesuffix('.yaml')}.yaml"
    if isfile(shipped) and path.parent in (Path(), Path("configs")):
        return shipped
    recipes = set(folder.glob("train*.yaml"))  # for `train`, not for `run`
    names = sorted(p.stem for p in set(folder.glob("*.yaml")) - recipes)
    meant = did_you_mean(path.name.removesuffix(".yaml"), names, "shipped:")
    raise ConfigError(f"configuration '{name}' does not exist ({meant})")


def load_config(name: str, overrides: Iterable[str] = ()) -> tuple[Config, Located]:
    """Read a configuration and check its envelope; plugin options come later.

    Raises
    ------
    ConfigError
        All mistakes at once, each with file and line.
    """
    located = locate_config(name, overrides)
    return parse_config(located), located


def locate_config(name: str, overrides: Iterable[str] = ()) -> Located:
    """Read a configuration, a file or the name of one that ships, unchecked."""
    return read_located(find_config(name), overrides)


def parse_config(located: Located) -> Config:
    """Check the envelope of configuration data.

    Raises
    ------
    ConfigError
        All mistakes at once, each with file and line.
    """
    form = form_of(located.data)
    own = LaneConfig.model_fields.keys() - form.model_fields.keys()
    misplaced = [key for key in located.data if key in own]
    problems = [
        located.problem((key,), "belongs to a lane: write it in each of 'lanes'")
        for key in misplaced
    ]
    data = {key: located.data[key] for key in located.data if key not in misplaced}
    try:
        parsed: SingleConfig | MultiConfig
        if form is MultiConfig:
            parsed = validated(MultiConfig, data, located)
        else:
            parsed = validated(SingleConfig, data, located)
    except ValidationError as error:
        raise ConfigError(
            [*problems, *validation_problems(error, form, located)]
        ) from error
    if problems:
        raise ConfigError(problems)
    return config_of(parsed)


def form_of(data: dict[str, Any]) -> type[SingleConfig] | type[MultiConfig]:
    """Return the model of a configuration: with one lane or with several."""
    return MultiConfig if "lanes" in data else SingleConfig


def config_of(parsed: SingleConfig | MultiConfig) -> Config:
    """Return a checked configuration in the form for any number of lanes."""
    if isinstance(parsed, MultiConfig):
        locs: list[Location] = [("lanes", i) for i in range(len(parsed.lanes))]
        return Config(
            shared=parsed, lanes=parsed.lanes, lane_locs=locs, sinks=parsed.sinks
        )
    return Config(shared=parsed, lanes=[parsed], lane_locs=[()], sinks=[])
