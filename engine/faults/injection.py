"""What a run's faults are to the runner; of most runs, nothing."""

import logging
from collections.abc import Sequence
from typing import Protocol

from neurovocal.engine.config.faults import AnyFault
from neurovocal.engine.config.plan import Plan
from neurovocal.engine.contracts.types import FAULT_STAGE_PREFIX, Health, HealthState

log = logging.getLogger("neurovocal")


class InjectedError(RuntimeError):
    """What a stage raises that was told to fail."""


class FaultEvent(Protocol):
    """What a lane is here."""

    @property
    def name(self) -> str:
        """Name of the lane."""
        ...

    def note(self, stage: str, state: HealthState, detail: str) -> None:
        """Publish a health event in the lane's streams."""
        ...


def begins(fault: AnyFault) -> Health:
    """The fault strikes."""
    return Health(
        f"{FAULT_STAGE_PREFIX}{fault.name}", "degraded", f"injected: {fault.words}"
    )


def ends(fault: AnyFault) -> Health:
    """The fault is over."""
    return Health(
        f"{FAULT_STAGE_PREFIX}{fault.name}", "healthy", f"injected: {fault.words}: over"
    )


class FaultReporter:
    """Publishes in the lanes what strikes outside their sources.

    Attributes
    ----------
    lanes : list
        Empty until the run has any.
    """

    def __init__(self) -> None:
        self.lanes: list[FaultEvent] = []

    def tell(self, health: Health, lane: str | None = None) -> None:
        """Publish in one lane, or in all; from any thread."""
        log.warning("%s", health.detail)
        for each in self.lanes:
            if lane in (None, each.name):
                each.note(health.stage, health.state, health.detail)


class Injection(Protocol):
    """Spoils a plan, and does what comes by the clock."""

    plan: Plan

    def open(self, lanes: Sequence[FaultEvent], /) -> None:
        """Before anything else is opened; `lanes` tell what strikes."""
        ...

    def start(self) -> None:
        """The run has begun."""
        ...

    def close(self) -> None:
        """The run has ended, or never began; undo whatever lasts."""
        ...


class NoInjection:
    """A plan as it is.

    Parameters
    ----------
    plan : Plan
        Without faults.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan

    def open(self, lanes: Sequence[FaultEvent], /) -> None:
        """Nothing is to come."""

    def start(self) -> None:
        """Nothing comes."""

    def close(self) -> None:
        """Nothing came."""


def injection_of(plan: Plan) -> Injection:
    """The faults that a plan asks for."""
    if not plan.config.shared.faults:
        return NoInjection(plan)
    # No other run needs any of it.
    from neurovocal.engine.faults.plan import PlannedFaults

    return PlannedFaults(plan)
