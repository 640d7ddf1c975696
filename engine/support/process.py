"""Resources that this process uses, its standard error, and its last acts."""

import gc
import io
import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from threading import Lock
from typing import NamedTuple

from neurovocal.engine.support.platform import (
    n_threads,
    open_handles,
    resident_bytes,
)

_MIB = 1 << 20
_last_acts: list[Callable[[], None]] = []
_STDERR = 2
_muting = Lock()
_mutes = 0
_unmuted = -1  # where descriptor 2 led before it was muted


class ProcessUsage(NamedTuple):
    """Resident memory in MiB, open file descriptors, threads, seconds of CPU time."""

    rss_mb: float
    handles: int
    threads: int
    cpu_s: float


class _StandardError(io.TextIOWrapper):
    """Text stream that a full disk does not turn into a failure of the work."""

    def write(self, text: str, /) -> int:
        """Write text, as far as the disk takes it."""
        with suppress(OSError):
            return super().write(text)
        return len(text)

    def flush(self) -> None:
        """Write what is buffered, as far as the disk takes it."""
        with suppress(OSError):
            super().flush()


def keep_stderr() -> None:
    """Let Python write to a copy of descriptor 2, which `mute_libraries` spares."""
    stream = sys.stderr
    if isinstance(stream, io.TextIOWrapper) and stream.fileno() == _STDERR:
        stream.flush()
        sys.stderr = _StandardError(
            open(os.dup(_STDERR), "wb"),  # noqa: SIM115  # while the process lives
            encoding=stream.encoding,
            errors=stream.errors,
            line_buffering=True,
        )


@contextmanager
def mute_libraries() -> Iterator[None]:
    """Discard what libraries of C write to descriptor 2; threads may overlap.

    It is kept where debugging is logged (``--verbose``): then it may explain a crash.
    """
    global _mutes, _unmuted
    if _may_speak() or _python_writes_there():
        yield
        return
    with _muting:
        if not _mutes:
            _unmuted = _copy_of_stderr()
            silent = os.open(os.devnull, os.O_WRONLY)
            if silent != _STDERR:
                os.dup2(silent, _STDERR)
                os.close(silent)
        _mutes += 1
    try:
        yield
    finally:
        with _muting:
            _mutes -= 1
            if not _mutes:
                if _unmuted < 0:
                    os.close(_STDERR)
                else:
                    os.dup2(_unmuted, _STDERR)
                    os.close(_unmuted)


def mute_for_good() -> None:
    """Discard what libraries of C write to descriptor 2 while the process exits.

    Some report there what the interpreter has not freed, which is of no use to a user.
    """
    if not _may_speak():
        with suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), _STDERR)


def _may_speak() -> bool:
    return logging.getLogger("neurovocal").isEnabledFor(logging.DEBUG)


def _python_writes_there() -> bool:
    """Return True if Python's own errors go to descriptor 2 (no `keep_stderr`)."""
    try:
        return sys.stderr.fileno() == _STDERR
    except (AttributeError, OSError, ValueError):
        return False


def _copy_of_stderr() -> int:
    """Return a copy of descriptor 2; -1 if it is closed."""
    try:
        return os.dup(_STDERR)
    except OSError:
        return -1


@contextmanager
def uncollected() -> Iterator[None]:
    """Pause the garbage collector while modules are loaded and stages are built.

    They leave hardly any garbage, and a sixth of the time would go into the search.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def process_usage() -> ProcessUsage:
    """Measure the present usage of the process, in about 50 us."""
    handles = len(open_handles())
    return ProcessUsage(
        rss_mb=round(resident_bytes() / _MIB, 1),
        handles=max(0, handles - 1),  # without that of the listing
        threads=n_threads(),
        cpu_s=round(sum(os.times()[:2]), 2),
    )


def before_exit(act: Callable[[], None]) -> None:
    """Call `act`, which takes a bounded time, when the command line is about to exit.

    Unlike `atexit`, it is called while threads that do not end can still be given up.
    """
    _last_acts.append(act)


def do_last_acts() -> None:
    """Call what `before_exit` was given, the latest first, once."""
    while _last_acts:
        _last_acts.pop()()
