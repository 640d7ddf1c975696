"""What a run's faults are to the runner; of most runs, nothing."""

from collections.abc import Sequence
from typing import Protocol

from neurovocal.engine.faults.herald import Notable
from neurovocal.engine.plan import Plan


class Injection(Protocol):
    """Spoils a plan, and does what comes by the clock."""

    plan: Plan

    def open(self, lanes: Sequence[Notable], /) -> None:
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

    def open(self, lanes: Sequence[Notable], /) -> None:
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
    from neurovocal.engine.faults.apply import PlannedFaults

    return PlannedFaults(plan)
