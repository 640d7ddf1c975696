"""Says aloud what was done on purpose: a journal must tell it from the real thing."""

import logging
from typing import Protocol

from neurovocal.engine.faults.options import AnyFault
from neurovocal.engine.types import Health, HealthState

log = logging.getLogger("neurovocal")


class InjectedError(RuntimeError):
    """What a stage raises that was told to fail."""


class Notable(Protocol):
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
    return Health(f"fault {fault.name}", "degraded", f"injected: {fault.words}")


def ends(fault: AnyFault) -> Health:
    """The fault is over."""
    return Health(f"fault {fault.name}", "healthy", f"injected: {fault.words}: over")


class Herald:
    """Publishes in the lanes what strikes outside their sources.

    Attributes
    ----------
    lanes : list
        Empty until the run has any.
    """

    def __init__(self) -> None:
        self.lanes: list[Notable] = []

    def tell(self, health: Health, lane: str | None = None) -> None:
        """Publish in one lane, or in all; from any thread."""
        log.warning("%s", health.detail)
        for each in self.lanes:
            if lane in (None, each.name):
                each.note(health.stage, health.state, health.detail)
