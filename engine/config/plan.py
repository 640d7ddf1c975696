"""Plan of a run: stages with existing plugins and valid options."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from neurovocal.engine.audio.signal_checks import SignalOptions
from neurovocal.engine.config.located_yaml import Location
from neurovocal.engine.config.schema import Config, SinkConfig, StageConfig
from neurovocal.engine.contracts.abilities import SelectsKinds
from neurovocal.engine.contracts.bundle import Bundle
from neurovocal.engine.contracts.options import OnError
from neurovocal.engine.contracts.plugin import BuildContext, Kind, Plugin
from neurovocal.engine.contracts.types import (
    ASKED_KINDS,
    KINDS,
    StreamInfo,
    channel_of,
    stream_of,
)
from neurovocal.engine.support.names import resolved

_DEFAULT_KINDS = frozenset(KINDS.values()) - ASKED_KINDS - {"posteriors"}


def selected_kinds(sink: object) -> frozenset[str]:
    """Kinds of events that a sink gets where its configuration does not list any."""
    return sink.wants if isinstance(sink, SelectsKinds) else _DEFAULT_KINDS


@dataclass(frozen=True, slots=True)
class StagePlan:
    """Stage with an existing plugin and valid options."""

    name: str
    kind: Kind
    plugin: Plugin[Any]
    options: Any
    config: StageConfig
    loc: Location

    @property
    def resources(self) -> frozenset[str]:
        """Names of the stage's resources, such as ``"tcp:5556"`` or ``"stdout"``."""
        return self.plugin.resources(self.options)

    def build(self, context: BuildContext) -> Any:
        """Build the stage for a context."""
        return self.plugin.build(self.options, context)


@dataclass(frozen=True, slots=True)
class SinkPlan:
    """A sink with its queues and the kinds of events that it gets."""

    stage: StagePlan
    config: SinkConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneStages:
    """Stages that a lane is built of."""

    name: str
    bundle: Bundle | None
    features: StagePlan
    detector: StagePlan
    models: Sequence[StagePlan]
    watchers: Sequence[StagePlan] = ()  # sinks with a watcher in this lane

    @property
    def model_names(self) -> tuple[str, ...]:
        """Plugin names of the models, in order."""
        return tuple(model.config.plugin for model in self.models)


@dataclass(frozen=True, slots=True, kw_only=True)
class LanePlan(LaneStages):
    """One source with the lane behind it and the sinks of that lane alone."""

    source: StagePlan
    sinks: Sequence[SinkPlan]
    signal: SignalOptions
    is_fast: bool = False  # its profile
    is_labelled: bool = False  # whether one of its models gives labels

    def rebuilds_lane(self, live: bool) -> bool:
        """Return whether a lane is rebuilt when its front end or detector fails."""
        default: OnError = "restart" if live else "fail"
        asked = [stage.config.on_error for stage in (self.features, self.detector)]
        return all((policy or default) == "restart" for policy in asked)


@dataclass(frozen=True, slots=True)
class Plan:
    """All lanes, the sinks that they share, and the context that they are built in."""

    config: Config
    lanes: Sequence[LanePlan]
    sinks: Sequence[SinkPlan]
    context: BuildContext
    control: StagePlan | None = None
    name: str = ""  # of the file that the configuration came from
    gate: StagePlan | None = None
    absent: Sequence[str] = ()  # devices that a start would need

    @property
    def all_sinks(self) -> list[SinkPlan]:
        """Sinks that all lanes share, and those of each lane."""
        own = [sink for lane in self.lanes for sink in lane.sinks]
        return [*self.sinks, *own]

    def notes(self) -> list[str]:
        """Return a sentence for each thing that is allowed and may surprise."""
        return [*self._empty_tables(), *self._slow_lanes()]

    def _slow_lanes(self) -> list[str]:
        """Return a sentence for each lane that the profile ``fast`` does not hasten."""
        fast = [lane for lane in self.lanes if lane.is_fast]
        tile = self.config.shared.tile
        notes = [
            f"lane '{lane.name}': profile 'fast' hastens onsets alone, no model "
            "publishes labels: add 'models: [{plugin: classifier}]' and its bundle"
            for lane in fast
            if not any(model.plugin.options.fast for model in lane.models)
        ]
        notes += [
            f"lane '{lane.name}': profile 'fast' is undone by the option '{name}' of "
            f"{model.name}: leave it out"
            for lane in fast
            for model in lane.models
            for name in model.plugin.options.fast
            if getattr(model.options, name)
            == model.plugin.options.model_fields[name].default
        ]
        return notes + [
            f"lane '{lane.name}': profile 'fast' with tile {tile}: labels wait until "
            f"{tile} frames are complete; 'tile: 1' labels with every frame"
            for lane in fast
            if tile > 1 and any(model.plugin.options.fast for model in lane.models)
        ]

    def _empty_tables(self) -> list[str]:
        """Return a sentence for each table of labels whose lanes give none."""
        lanes_of = [(sink, self.lanes) for sink in self.sinks]
        lanes_of += [(sink, [lane]) for lane in self.lanes for sink in lane.sinks]
        return [
            f"{sink.stage.name} writes labels, and no model gives any: it stays empty; "
            "its option 'content: segments' writes what the detector finds"
            for sink, lanes in lanes_of
            if getattr(sink.stage.options, "content", None) == "labels"
            and not any(lane.is_labelled for lane in lanes)
        ]


def lane_info(source: StreamInfo, bundle: Bundle | None, channel: int) -> StreamInfo:
    """Return the stream of a lane: one channel of the source, at the bundle's rate.

    A source with several channels becomes several streams, named by the channel's
    number in the device or file.
    """
    rate = source.sample_rate
    if bundle is not None:
        rate = bundle.manifest.rate_of(rate)
    numbers = (channel_of(source, channel),) if source.numbers else ()
    return StreamInfo(stream_of(source, channel), rate, 1, numbers, source.duration_s)


def base_of(located_name: str) -> Path:
    """Return the folder that relative input paths in a configuration start from."""
    return resolved(Path(located_name)).parent
