"""All lanes of a swap take over, or none does."""

from threading import Lock
from typing import Any


class Decision:
    """Whether all lanes of a swap take over: once, and for all of them the same.

    Attributes
    ----------
    failure : str
        Why none does; empty as long as they may.
    report : dict or None
        What is published where a lane takes over; None: not promoted yet.
    """

    def __init__(self) -> None:
        self.failure = ""
        self.report: dict[str, Any] | None = None
        self._lock = Lock()

    def promote(self, report: dict[str, Any]) -> bool:
        """Let all take over, each at its next boundary; False if it was called off."""
        with self._lock:
            if self.failure:
                return False
            self.report = report
            return True

    def cancel(self, reason: str) -> bool:
        """Call it off; False if they were promoted before."""
        with self._lock:
            if self.report is not None:
                return False
            self.failure = self.failure or reason
            return True
