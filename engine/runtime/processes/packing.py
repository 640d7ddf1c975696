"""Packing: plans, messages and errors on their way to and from a worker process.

They cross anonymous pipes between a process and those that it started itself, as
pickles. A plugin does not travel: the other process finds it by its name.
"""

import copyreg
import pickle
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from io import BytesIO
from operator import attrgetter
from typing import Any, TypeAlias

from neurovocal.engine.audio.signal_checks import SignalOptions
from neurovocal.engine.config.located_yaml import Location
from neurovocal.engine.config.plan import LanePlan, Plan, StagePlan
from neurovocal.engine.config.schema import Config, StageConfig
from neurovocal.engine.contracts.bundle import Bundle
from neurovocal.engine.contracts.errors import (
    AudioFileError,
    ConfigError,
    DeviceError,
    Disconnected,
    NeurovocalError,
    StageError,
)
from neurovocal.engine.contracts.options import Options
from neurovocal.engine.contracts.plugin import BuildContext, Kind
from neurovocal.engine.contracts.registry import Registry
from neurovocal.engine.contracts.types import KINDS, Ledger, Message, StreamInfo

_Reducer: TypeAlias = Callable[[Any], tuple[type, tuple[Any, ...]]]
PackedError: TypeAlias = tuple[type[NeurovocalError], tuple[Any, ...]]

_PLAIN_ERRORS = (AudioFileError, DeviceError, Disconnected)


# ---- plans -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _PackedStage:
    """Stage without its plugin; the state of its options is pickled apart."""

    name: str
    kind: Kind
    options: bytes
    config: StageConfig
    loc: Location


@dataclass(frozen=True, slots=True)
class _PackedLane:
    name: str
    bundle: Bundle | None
    source: _PackedStage
    features: _PackedStage
    detector: _PackedStage
    models: Sequence[_PackedStage]
    watchers: Sequence[_PackedStage]
    signal: SignalOptions


@dataclass(frozen=True, slots=True)
class PackedPlan:
    """Plan of some lanes, without sinks and control, that can be pickled."""

    config: Config
    lanes: Sequence[_PackedLane]
    context: BuildContext
    gate: _PackedStage | None
    name: str


def pack_plan(plan: Plan, lanes: Sequence[LanePlan]) -> PackedPlan:
    """Return some lanes of a plan in a form that can be pickled."""
    packed = [
        _PackedLane(
            lane.name,
            lane.bundle,
            _packed(lane.source),
            _packed(lane.features),
            _packed(lane.detector),
            [*map(_packed, lane.models)],
            [*map(_packed, lane.watchers)],
            lane.signal,
        )
        for lane in lanes
    ]
    gate = None if plan.gate is None else _packed(plan.gate)
    return PackedPlan(plan.config, packed, plan.context, gate, plan.name)


def unpack_plan(packed: PackedPlan) -> Plan:
    """Return the plan of some lanes; it has neither sinks nor a control.

    Raises
    ------
    PluginError
        A plugin cannot be found or loaded in this process.
    """
    registry, base = Registry(), packed.context.base

    def stage(each: _PackedStage) -> StagePlan:
        plugin = registry.get(each.kind, each.config.plugin, base)
        kind: type[Options] = plugin.options
        options = kind.__new__(kind)
        options.__setstate__(pickle.loads(each.options))
        return StagePlan(each.name, each.kind, plugin, options, each.config, each.loc)

    lanes = [
        LanePlan(
            name=lane.name,
            bundle=lane.bundle,
            source=stage(lane.source),
            features=stage(lane.features),
            detector=stage(lane.detector),
            models=[stage(model) for model in lane.models],
            watchers=[stage(watcher) for watcher in lane.watchers],
            sinks=[],
            signal=lane.signal,
        )
        for lane in packed.lanes
    ]
    gate = None if packed.gate is None else stage(packed.gate)
    return Plan(packed.config, lanes, [], packed.context, name=packed.name, gate=gate)


def _packed(stage: StagePlan) -> _PackedStage:
    state = pickle.dumps(stage.options.__getstate__())
    return _PackedStage(stage.name, stage.kind, state, stage.config, stage.loc)


# ---- messages ----------------------------------------------------------------------


def _reducer(kind: type) -> _Reducer:
    names = [field.name for field in fields(kind)]
    if len(names) == 1:
        (name,) = names
        return lambda one: (kind, (getattr(one, name),))
    values = attrgetter(*names)
    return lambda one: (kind, values(one))


# By their constructors, which is quicker than the state of a frozen data class.
_REDUCERS: dict[type, _Reducer] = {
    kind: _reducer(kind) for kind in (*KINDS, Message, StreamInfo, Ledger)
}


class _Pickler(pickle.Pickler):
    dispatch_table: Mapping[type, Any] = {**copyreg.dispatch_table, **_REDUCERS}


def dumps(items: Sequence[object]) -> memoryview:
    """Return messages and marks as bytes."""
    buffer = BytesIO()
    _Pickler(buffer, pickle.HIGHEST_PROTOCOL).dump(items)
    return buffer.getbuffer()


def loads(data: bytes) -> list[Any]:
    """Return the messages and marks that `dumps` was given."""
    items: list[Any] = pickle.loads(data)
    return items


# ---- errors ------------------------------------------------------------------------


def pack_error(error: BaseException) -> PackedError:
    """Return class and arguments of the error that stands for `error`."""
    if isinstance(error, ConfigError):
        return ConfigError, ([str(problem) for problem in error.problems],)
    if isinstance(error, StageError):
        return StageError, (str(error), error.stage)
    if isinstance(error, NeurovocalError):
        plain = next((k for k in _PLAIN_ERRORS if isinstance(error, k)), StageError)
        return plain, (str(error),)
    return StageError, (f"{type(error).__name__}: {error}",)


def unpack_error(packed: PackedError) -> NeurovocalError:
    """Return the error."""
    kind, arguments = packed
    return kind(*arguments)
