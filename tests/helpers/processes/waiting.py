"""Waiting for what another thread or process does, however busy the machine is."""

from collections.abc import Callable
from threading import Event as Flag

PATIENCE_S = 60.0  # a wait that is this long has failed; no test depends on it


def until(condition: Callable[[], object]) -> None:
    """Wait for another thread or process, by its effects."""
    pause = Flag()
    for _ in range(int(PATIENCE_S / 0.01)):
        if condition():
            return
        pause.wait(0.01)
    raise AssertionError("it never came to be")
