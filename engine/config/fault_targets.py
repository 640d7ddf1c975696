"""Stages and endpoints of a plan to which each fault applies."""

from collections.abc import Iterator
from typing import Any, TypeAlias

from neurovocal.engine.config.faults import (
    LIVE_FAULTS,
    FaultBase,
    NetworkCut,
    SourceFault,
    StageFault,
    SubscriberStall,
)
from neurovocal.engine.config.plan import Plan, StagePlan
from neurovocal.engine.contracts.abilities import HasEndpoint
from neurovocal.engine.support.endpoints import IPC, parse_tcp
from neurovocal.engine.support.text import did_you_mean

# A stage and the name of its lane; None: the stage belongs to all lanes.
FaultTarget: TypeAlias = tuple[StagePlan, str | None]

# A mistake: the option that is wrong, if it is one alone, and a sentence.
TargetProblem: TypeAlias = tuple[str | None, str]
_ENDPOINTS = ("endpoint", "replay")  # options of sinks that name a socket

# Kinds of which a lane, or a run, has one: a fault can name these by the kind, too.
_SINGLE = ("source", "features", "detector", "gate")


def targets_of(fault: FaultBase, plan: Plan) -> list[FaultTarget]:
    """Return the stages to which a fault applies; none for faults of the process."""
    return [
        (stage, lane)
        for stage, lane in _stages(plan)
        if fault.lane in (None, lane) and _applies(fault, stage, plan)
    ]


def target_problems(fault: FaultBase, plan: Plan) -> Iterator[TargetProblem]:
    """Yield the reasons why a fault can have no effect in a plan."""
    lanes = [lane.name for lane in plan.lanes]
    if fault.lane is not None and fault.lane not in lanes:
        yield (
            "lane",
            f"there is no lane '{fault.lane}' ({did_you_mean(fault.lane, lanes)})",
        )
        return
    has_targets = isinstance(
        fault, SourceFault | StageFault | NetworkCut | SubscriberStall
    )
    if not has_targets:
        if fault.lane is not None:
            yield "lane", f"'{fault.name}' is for the whole process: remove this key"
        return
    if not targets_of(fault, plan):
        yield _without_target(fault, plan)
    elif isinstance(fault, SubscriberStall) and plan.context.keys and not fault.keys:
        yield (
            None,
            "the engine asks for keys: name the folder of a client's by 'keys' "
            "('neurovocal keys add' makes one)",
        )


def tcp_endpoints(options: Any) -> dict[str, tuple[str, int]]:
    """Return (host, port) of the options that name a TCP socket, by their names."""
    found: dict[str, tuple[str, int]] = {}
    for name in _ENDPOINTS:
        address = parse_tcp(str(getattr(options, name, "")))
        if address is not None and address.port:
            found[name] = address
    return found


def live_endpoint(options: Any) -> str | None:
    """Return the endpoint that a sink's subscribers can connect to, or None."""
    if not isinstance(options, HasEndpoint):
        return None
    endpoint = str(options.endpoint)
    address = parse_tcp(endpoint)
    known = endpoint.startswith(IPC) or (address is not None and address.port)
    return endpoint if known else None


def _stages(plan: Plan) -> Iterator[FaultTarget]:
    for lane in plan.lanes:
        for stage in (lane.source, lane.features, lane.detector, *lane.models):
            yield stage, lane.name
        for sink in lane.sinks:
            yield sink.stage, lane.name
    for sink in plan.sinks:
        yield sink.stage, None
    if plan.gate is not None:
        yield plan.gate, None


def _applies(fault: FaultBase, stage: StagePlan, plan: Plan) -> bool:
    if isinstance(fault, SourceFault):
        if stage.kind != "source":
            return False
        return not isinstance(fault, LIVE_FAULTS) or _is_live(stage, plan)
    if isinstance(fault, StageFault):
        return fault.stage in _names(stage)
    if stage.kind != "sink":
        return False
    if isinstance(fault, NetworkCut):
        return bool(tcp_endpoints(stage.options))
    return isinstance(fault, SubscriberStall) and bool(live_endpoint(stage.options))


def _names(stage: StagePlan) -> list[str]:
    names = [stage.config.plugin]
    return [*names, stage.kind] if stage.kind in _SINGLE else names


def _is_live(stage: StagePlan, plan: Plan) -> bool:
    """Return whether a stage is a live source, which depends on its options."""
    try:
        return bool(stage.build(plan.context).live)
    except Exception:  # the run itself will report it
        return False


def _without_target(fault: FaultBase, plan: Plan) -> TargetProblem:
    """Return why a fault applies to no stage."""
    match fault:
        case StageFault():
            elsewhere = [s for s, lane in _stages(plan) if fault.stage in _names(s)]
            if elsewhere:
                what = f"lane '{fault.lane}' has no stage '{fault.stage}' of its own"
                return "lane", f"{what}: remove this key"
            known = sorted({n for stage, _ in _stages(plan) for n in _names(stage)})
            meant = did_you_mean(fault.stage, known)
            return "stage", f"there is no stage '{fault.stage}' ({meant})"
        case NetworkCut():
            return None, (
                "no sink has a TCP endpoint with a port of its own, such as "
                "tcp://127.0.0.1:5556, that could be cut off"
            )
        case SubscriberStall():
            return None, (
                "no sink has an endpoint, such as tcp://127.0.0.1:5556, to which a "
                "subscriber could connect"
            )
        case _:
            return None, (
                f"'{fault.name}' needs a live source: audio that waits for its reader "
                "comes late or not at all without any loss (drop, clip and wrong_rate "
                "strike every source)"
            )
