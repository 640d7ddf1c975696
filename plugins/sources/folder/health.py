"""What a folder source tells of itself: troubles that last, recordings that fail."""

from collections import deque
from typing import Literal

from neurovocal.engine.contracts.types import SOURCE_STAGE, Health


class FolderHealth:
    """Health events in the order in which they come up.

    Parameters
    ----------
    endless : bool
        Whether the source never ends: then it keeps no list of failures, which would
        never end either.

    Attributes
    ----------
    failures : list of str
        Recordings that were set aside or are damaged.
    """

    def __init__(self, *, endless: bool) -> None:
        self.failures: list[str] = []
        self._endless = endless
        self._sound = True  # whether the last recording could be used, whole
        self._troubles: dict[str, str] = {}  # that were told and go on
        self._told: deque[Health] = deque()

    def next(self) -> Health | None:
        """The next event, if there is one."""
        return self._told.popleft() if self._told else None

    def forget(self) -> None:
        """The source is opened anew: troubles that still go on are told again."""
        self._troubles.clear()
        self.failures.clear()

    def watch(self, what: str, trouble: str | None) -> None:
        """Tell of a trouble when it begins or changes, and when it is over."""
        before = self._troubles.pop(what, None)
        if trouble is not None:
            self._troubles[what] = trouble
        if trouble not in (None, before):
            self.tell("lossy", trouble or "")
        elif before is not None and trouble is None:
            self.tell("healthy", f"no longer: {before}")

    def fail(self, problem: str) -> None:
        """A recording is of no use, or damaged."""
        self._sound = False
        if not self._endless:
            self.failures.append(problem)
        self.tell("lossy", problem)

    def succeed(self, sentence: str) -> None:
        """A recording could be used, whole: tell it after one that could not."""
        if not self._sound:
            self._sound = True
            self.tell("healthy", sentence)

    def tell(self, state: Literal["healthy", "lossy"], sentence: str) -> None:
        """Tell a sentence once."""
        self._told.append(Health(SOURCE_STAGE, state, sentence))
