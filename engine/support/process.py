"""Resources that this process uses, from /proc of Linux."""

import os
import resource
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

_MIB = 1 << 20
_last_acts: list[Callable[[], None]] = []


class ProcessUsage(NamedTuple):
    """Resident memory in MiB, open file descriptors, threads, seconds of CPU time."""

    rss_mb: float
    handles: int
    threads: int
    cpu_s: float


def raise_handle_limit() -> None:
    """Allow this process as many open descriptors as the system lets it have."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def process_usage() -> ProcessUsage:
    """Measure the present usage of the process, in about 50 us."""
    with open("/proc/self/statm") as file:
        pages = int(file.read().split()[1])
    return ProcessUsage(
        rss_mb=round(pages * os.sysconf("SC_PAGE_SIZE") / _MIB, 1),
        handles=len(os.listdir("/proc/self/fd")) - 1,  # without that of the listing
        threads=len(os.listdir("/proc/self/task")),
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
