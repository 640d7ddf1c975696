"""Health events of a folder source: lasting problems and recordings that fail."""

from collections import deque
from typing import Literal

from neurovocal.engine import Health
from neurovocal.engine.contracts.types import SOURCE_STAGE
from neurovocal.engine.support.text import plain


class FolderHealth:
    """Queue of health events in the order in which they arise.

    Parameters
    ----------
    endless : bool
        True if the source never ends: it then keeps no list of failures, which would
        grow without end.

    Attributes
    ----------
    failures : list of str
        A sentence for each recording that was set aside or is damaged.
    """

    def __init__(self, *, endless: bool) -> None:
        self.failures: list[str] = []
        self._endless = endless
        self._last_failed = False  # whether the last recording failed
        self._problems: dict[str, str] = {}  # reported and lasting, by what they affect
        self._events: deque[Health] = deque()

    def next(self) -> Health | None:
        """Return the next event, or None if there is none."""
        return self._events.popleft() if self._events else None

    def reset(self) -> None:
        """Forget all problems, so that those which last are reported again."""
        self._problems.clear()
        self.failures.clear()

    def update(self, key: str, problem: str | None) -> None:
        """Report a lasting problem when it begins, changes or ends (None)."""
        before = self._problems.pop(key, None)
        if problem is not None:
            self._problems[key] = problem
            if problem != before:
                self.report("lossy", problem)
        elif before is not None:
            self.report("healthy", f"no longer: {before}")

    def fail(self, problem: str) -> None:
        """Report a recording that is unusable or damaged."""
        self._last_failed = True
        if not self._endless:
            self.failures.append(plain(problem))
        self.report("lossy", problem)

    def succeed(self, sentence: str) -> None:
        """Report a recording that was read in whole, if the one before failed."""
        if self._last_failed:
            self._last_failed = False
            self.report("healthy", sentence)

    def report(self, state: Literal["healthy", "lossy"], sentence: str) -> None:
        """Append an event."""
        self._events.append(Health(SOURCE_STAGE, state, sentence))
