"""Fault injection as the runner sees it; a no-op without a fault plan."""

import logging
from collections.abc import Sequence
from typing import Protocol

from neurovocal.engine.config.faults import FaultBase
from neurovocal.engine.config.plan import Plan
from neurovocal.engine.contracts.types import FAULT_STAGE_PREFIX, Health, HealthState

log = logging.getLogger("neurovocal")


class InjectedError(RuntimeError):
    """The exception of a stage that a fault plan lets crash."""


class ReportingLane(Protocol):
    """A lane in which health events can be published."""

    @property
    def name(self) -> str:
        """Name of the lane."""
        ...

    def note(self, stage: str, state: HealthState, detail: str) -> None:
        """Publish a health event in the lane's streams."""
        ...


def health_at_start(fault: FaultBase) -> Health:
    """Return the health event that announces a fault."""
    stage = FAULT_STAGE_PREFIX + fault.name
    return Health(stage, "degraded", f"injected: {fault.as_text}")


def health_at_end(fault: FaultBase) -> Health:
    """Return the health event for the end of a fault."""
    stage = FAULT_STAGE_PREFIX + fault.name
    return Health(stage, "healthy", f"injected: {fault.as_text}: over")


class FaultReporter:
    """Publishes a health event for every fault that is injected outside a source.

    Attributes
    ----------
    lanes : list of ReportingLane
        Empty until the run has any.
    """

    def __init__(self) -> None:
        self.lanes: list[ReportingLane] = []

    def report(self, health: Health, lane: str | None = None) -> None:
        """Publish `health` in one lane, or in all; from any thread."""
        log.warning("%s", health.detail)
        for each in self.lanes:
            if lane in (None, each.name):
                each.note(health.stage, health.state, health.detail)


class Injection:
    """Faults of a run: none. `PlannedFaults` overrides each method.

    Parameters
    ----------
    plan : Plan
        The checked configuration.

    Attributes
    ----------
    plan : Plan
        What the runner builds from: `plan` itself, or one with faulty stages.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan

    def open(self, lanes: Sequence[ReportingLane], /) -> None:
        """Acquire the faults' resources, before anything else is opened."""

    def start(self) -> None:
        """Count the time of timed faults from now on."""

    def close(self) -> None:
        """End every fault that still lasts. May be called without `open`."""


def injection_of(plan: Plan) -> Injection:
    """Return the faults that a plan asks for."""
    if not plan.config.shared.faults:
        return Injection(plan)
    # Runs without faults import none of it.
    from neurovocal.engine.faults.plan import PlannedFaults

    return PlannedFaults(plan)
