"""Threads that plugins start for themselves: their ends are told."""

import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from neurovocal.engine.lane_worker import LaneWorker

log = logging.getLogger("neurovocal")


@contextmanager
def telling_of_threads(lanes: Sequence[LaneWorker]) -> Iterator[None]:
    """Let health and the log say when an exception ends a thread of a plugin's own."""

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
