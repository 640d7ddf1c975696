"""Wait for other threads and processes, on however busy a machine."""

from collections.abc import Callable
from threading import Event as Flag

PATIENCE_S = 120.0  # a wait that is this long has failed; no test depends on it
PROCESS_S = 300.0  # the same for a program, from its start to its end


def until(condition: Callable[[], object]) -> None:
    """Wait until `condition()` is true, at most `PATIENCE_S`."""
    pause = Flag()
    for _ in range(int(PATIENCE_S / 0.01)):
        if condition():
            return
        pause.wait(0.01)
    raise AssertionError("the condition never became true")
