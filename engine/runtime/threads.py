"""Threads of a run: how soon they give way to each other, and what ends them."""

import gc
import logging
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from neurovocal.engine.runtime.workers.lanes.running import RunningLane

log = logging.getLogger("neurovocal")

# A thread that computes gives the interpreter to one that waits for it after so long.
_SWITCH_S = 0.0005


@contextmanager
def prompt_threads() -> Iterator[None]:
    """Let events pass from thread to thread without pauses of the interpreter.

    A lane's thread that goes on computing would keep a sink's thread waiting for 5 ms,
    and a garbage collection would search all that was loaded at the start.
    """
    before = sys.getswitchinterval()
    sys.setswitchinterval(min(before, _SWITCH_S))
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
        sys.setswitchinterval(before)


@contextmanager
def reporting_thread_failures(lanes: Sequence[RunningLane]) -> Iterator[None]:
    """Log and publish exceptions that end threads which plugins have started."""

    def failed(end: threading.ExceptHookArgs) -> None:
        if end.exc_type is SystemExit:
            return
        name = end.thread.name if end.thread else "?"
        sentence = f"it ended: {end.exc_type.__name__}: {end.exc_value}"
        log.error("thread '%s': %s", name, sentence, exc_info=end.exc_value)
        for lane in lanes:
            lane.note(f"thread '{name}'", "failed", sentence)

    before, threading.excepthook = threading.excepthook, failed
    try:
        yield
    finally:
        threading.excepthook = before
