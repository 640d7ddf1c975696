"""Stages and endpoints of a plan that each fault concerns."""

import re
from collections.abc import Iterator
from typing import Any, TypeAlias

from neurovocal.engine.config.faults import (
    LIVE_ONLY,
    AnyFault,
    NetworkCut,
    SourceFault,
    StageFault,
    SubscriberStall,
)
from neurovocal.engine.config.plan import Plan, StagePlan
from neurovocal.engine.contracts.stages import HasEndpoint
from neurovocal.engine.support.text import did_you_mean

# A stage, and the name of its lane; None: it belongs to all of them.
Target: TypeAlias = tuple[StagePlan, str | None]

# A mistake: the option that it is about, if it is about one, and a sentence.
Problem: TypeAlias = tuple[str | None, str]
_ENDPOINTS = ("endpoint", "replay")  # options of sinks that name a socket
_TCP = re.compile(r"tcp://(\[[^\[\]]+\]|[^:\[\]/]+):(\d{1,5})")

# Kinds of which a lane, or a run, has one: these can be named by the kind, too.
_SINGLE = ("source", "features", "detector", "gate")


def targets(fault: AnyFault, plan: Plan) -> list[Target]:
    """Stages that a fault strikes; none for faults of the whole process."""
    return [
        (stage, lane)
        for stage, lane in _stages(plan)
        if fault.lane in (None, lane) and _hits(fault, stage, plan)
    ]


def problems(fault: AnyFault, plan: Plan) -> Iterator[Problem]:
    """What keeps a fault from doing anything."""
    lanes = [lane.name for lane in plan.lanes]
    if fault.lane is not None and fault.lane not in lanes:
        yield (
            "lane",
            f"there is no lane '{fault.lane}' ({did_you_mean(fault.lane, lanes)})",
        )
        return
    aimed = isinstance(fault, SourceFault | StageFault | NetworkCut | SubscriberStall)
    if not aimed:
        if fault.lane is not None:
            yield "lane", f"'{fault.name}' is for the whole process: remove this key"
        return
    if not targets(fault, plan):
        yield _miss(fault, plan)
    elif isinstance(fault, SubscriberStall) and plan.context.keys and not fault.keys:
        yield (
            None,
            "the engine asks for keys: name the folder of a client's by 'keys' "
            "('neurovocal keys add' makes one)",
        )


def tcp_endpoints(options: Any) -> dict[str, tuple[str, int]]:
    """Options that name a TCP socket with a known port: (host, port) by name."""
    found = {}
    for name in _ENDPOINTS:
        match = _TCP.fullmatch(str(getattr(options, name, "")))
        if match is not None:
            found[name] = (match[1].strip("[]"), int(match[2]))
    return found


def live_endpoint(options: Any) -> str | None:
    """Where subscribers of a sink connect, if they can."""
    if not isinstance(options, HasEndpoint):
        return None
    endpoint = str(options.endpoint)
    known = endpoint.startswith("ipc://") or _TCP.fullmatch(endpoint)
    return endpoint if known else None


def _stages(plan: Plan) -> Iterator[Target]:
    for lane in plan.lanes:
        for stage in (lane.source, lane.features, lane.detector, *lane.models):
            yield stage, lane.name
        for sink in lane.sinks:
            yield sink.stage, lane.name
    for sink in plan.sinks:
        yield sink.stage, None
    if plan.gate is not None:
        yield plan.gate, None


def _hits(fault: AnyFault, stage: StagePlan, plan: Plan) -> bool:
    if isinstance(fault, SourceFault):
        if stage.kind != "source":
            return False
        return not isinstance(fault, LIVE_ONLY) or _is_live(stage, plan)
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
    """Building a source touches nothing: only it knows what its options make of it."""
    try:
        return bool(stage.build(plan.context).live)
    except Exception:  # whatever it is, the run itself will say it
        return False


def _miss(fault: AnyFault, plan: Plan) -> Problem:
    """Why there is nothing to hit."""
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
