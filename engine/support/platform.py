"""What only some systems have, behind functions that every system has.

No other module imports ``fcntl``, ``resource`` or another module that Windows lacks; a
test compares. Where a system lacks something, the function here does what is next to
it, and its docstring says what that is.
"""

import errno
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import ModuleType
from typing import Any


def _optional(name: str) -> ModuleType | None:
    """Return a module of the standard library, None where the system lacks it."""
    try:
        return __import__(name)
    except ImportError:
        return None


_fcntl: Any = _optional("fcntl")
_resource: Any = _optional("resource")
_msvcrt: Any = _optional("msvcrt")

IS_LINUX = sys.platform == "linux"
IS_WINDOWS = sys.platform == "win32"

# What Python assumes where nothing is known of the limit.
_USUAL_HANDLES = 512
_PROC = "/proc/self"
# Windows locks ranges of bytes: one behind every file hinders no reader.
_LOCKED_BYTE = 2**62


# Added to the flags of `os.open`: Windows would change line ends otherwise.
OPEN_BINARY = getattr(os, "O_BINARY", 0)
# Of `mallopt` in glibc's <malloc.h>.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_DONT_NEED = 4  # of Linux's `madvise`
_HAS_THREAD_CLOCKS = all(
    hasattr(time, name) for name in ("pthread_getcpuclockid", "clock_gettime")
)
# Linux's monotonic clock stops while the machine is suspended; this one goes on.
_BOOT_CLOCK = getattr(time, "CLOCK_BOOTTIME", getattr(time, "CLOCK_MONOTONIC", None))


# ---- time --------------------------------------------------------------------------


def monotonic_ns() -> int:
    """Return monotonic time in ns, which goes on while a Linux machine is suspended."""
    if _BOOT_CLOCK is None:
        return time.monotonic_ns()
    return time.clock_gettime_ns(_BOOT_CLOCK)


# ---- locks -------------------------------------------------------------------------


def thread_clock() -> int | None:
    """Return the clock of the CPU time of this thread; None where there is none."""
    if not _HAS_THREAD_CLOCKS:
        return None
    return time.pthread_getcpuclockid(threading.get_ident())


def read_clock(clock: int) -> float:
    """Return a clock's time in s; OSError if its thread has ended."""
    return time.clock_gettime(clock)


def lock_file(descriptor: int, *, shared: bool = False) -> None:
    """Lock an open file against other processes, without waiting.

    The system releases the lock when the descriptor is closed. Windows has no shared
    locks: there nothing is locked with `shared`, and an exclusive lock is one of a byte
    behind the file.

    Raises
    ------
    BlockingIOError
        Another process holds a lock that excludes this one.
    OSError
        The file system has no locks.
    """
    if _fcntl is not None:
        wanted = _fcntl.LOCK_SH if shared else _fcntl.LOCK_EX | _fcntl.LOCK_NB
        _fcntl.flock(descriptor, wanted)
    elif _msvcrt is not None and not shared:
        before = os.lseek(descriptor, 0, os.SEEK_CUR)
        try:
            os.lseek(descriptor, _LOCKED_BYTE, os.SEEK_SET)
            _msvcrt.locking(descriptor, _msvcrt.LK_NBLCK, 1)
        except PermissionError as error:
            raise BlockingIOError(errno.EAGAIN, "the file is locked") from error
        finally:
            os.lseek(descriptor, before, os.SEEK_SET)


# ---- limits and usage --------------------------------------------------------------


def handle_limit() -> int:
    """Return how many descriptors this process may open; 512 where that is unknown."""
    if _resource is None:
        return _USUAL_HANDLES
    soft, _ = _resource.getrlimit(_resource.RLIMIT_NOFILE)
    return 2**20 if soft == _resource.RLIM_INFINITY else int(soft)


def raise_handle_limit() -> None:
    """Allow this process as many descriptors as the system lets it have."""
    if _resource is None:
        return
    _, hard = _resource.getrlimit(_resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):  # macOS refuses an unlimited number
        _resource.setrlimit(_resource.RLIMIT_NOFILE, (hard, hard))


def limit_file_size(n_bytes: int | None) -> int | None:
    """Set the largest size of a file that this process writes; None: keep it.

    Returns
    -------
    int or None
        The limit before.

    Raises
    ------
    OSError
        The system has no such limit (Windows).
    """
    if _resource is None:
        raise OSError(errno.ENOTSUP, "this system cannot limit the size of files")
    before, hard = _resource.getrlimit(_resource.RLIMIT_FSIZE)
    if n_bytes is not None:
        _resource.setrlimit(_resource.RLIMIT_FSIZE, (n_bytes, hard))
    return int(before)


def resident_bytes() -> int:
    """Return the memory of this process: its peak on macOS, 0 on Windows."""
    with suppress(OSError), open(f"{_PROC}/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    if _resource is None:
        return 0
    peak = int(_resource.getrusage(_resource.RUSAGE_SELF).ru_maxrss)
    return peak if sys.platform == "darwin" else peak * 1024


def total_memory_bytes() -> int:
    """Return the memory of this machine; 4 GiB where the system does not tell."""
    with suppress(AttributeError, OSError, ValueError):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return 4 * 2**30


def keep_freed_memory(n_bytes: int) -> bool:
    """Let this process keep freed memory for what it allocates next.

    Otherwise arrays of 128 KiB and more may come from the system anew each time, which
    clears them: so it is in workers of Dask, whose environment sets a threshold.

    Parameters
    ----------
    n_bytes : int
        What each heap may keep; smaller blocks are not returned one by one.

    Returns
    -------
    bool
        Whether the system has such a setting (glibc has).
    """
    import ctypes  # few programs need it

    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    thresholds = (_TRIM_THRESHOLD, _MMAP_THRESHOLD)
    return all([mallopt(threshold, n_bytes) == 1 for threshold in thresholds])


def release_code(library: str) -> int:
    """Release the resident code of a library that has done its work.

    Only code is released, which is never written; what is called all the same comes
    from the file again.

    Parameters
    ----------
    library : str
        Part of the name of its file.

    Returns
    -------
    int
        Bytes of the mapped code, resident or not; 0 where the system cannot do it.
    """
    import ctypes  # few programs need it

    if not IS_LINUX:
        return 0
    n_bytes = 0
    with suppress(AttributeError, OSError, ValueError):
        madvise = ctypes.CDLL(None).madvise
        madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
        with open(f"{_PROC}/maps", encoding="utf-8", errors="replace") as maps:
            lines = [line.split(maxsplit=5) for line in maps]
        for place, access, *_, path in (line for line in lines if len(line) == 6):
            if access == "r-xp" and library in os.path.basename(path):
                start, stop = (int(edge, 16) for edge in place.split("-"))
                if madvise(start, stop - start, _DONT_NEED) == 0:
                    n_bytes += stop - start
    return n_bytes


def usable_cores() -> int:
    """Return the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def open_handles() -> list[int]:
    """Return the open descriptors; none where the system does not list them."""
    for folder in (f"{_PROC}/fd", "/dev/fd"):
        with suppress(OSError):
            return [int(name) for name in os.listdir(folder)]
    return []


def n_threads() -> int:
    """Return the number of threads; where the system does not tell, Python's own."""
    with suppress(OSError):
        return len(os.listdir(f"{_PROC}/task"))
    return threading.active_count()


# ---- waiting -----------------------------------------------------------------------


def readable(*handles: Any, timeout_s: float | None = None) -> list[int]:
    """Wait until some descriptors can be read, or have ended; return those.

    Where the system has `poll` it takes descriptors of 1024 and above. On Windows only
    sockets can be waited for.
    """
    numbers = [one if isinstance(one, int) else one.fileno() for one in handles]
    if not hasattr(select, "poll"):
        found, _, _ = select.select(numbers, [], [], timeout_s)
        return [int(number) for number in found]
    poll = select.poll()
    for number in numbers:
        poll.register(number, select.POLLIN)
    ready = poll.poll(None if timeout_s is None else timeout_s * 1000)
    return [number for number, _ in ready]


def is_closed_by_reader(handle: int) -> bool:
    """Return whether nobody reads a pipe any more; False where that is unknown."""
    if not hasattr(select, "poll"):
        return False
    poll = select.poll()
    poll.register(handle, select.POLLOUT)
    return any(state & select.POLLERR for _, state in poll.poll(0))


# ---- processes ---------------------------------------------------------------------


def is_stdout_closed_by_reader() -> bool:
    """Return whether the reader of a pipe at standard output has closed it."""
    try:
        return is_closed_by_reader(sys.stdout.fileno())
    except (OSError, ValueError):  # closed, or not a file at all
        return False


def reload_signal() -> int | None:
    """Return the signal to read a configuration again; None: there is none."""
    return getattr(signal, "SIGHUP", None)


@contextmanager
def signals_held() -> Iterator[None]:
    """Hold back Ctrl-C and what ends services, here and in processes started here.

    This process gets them afterwards; one that was started gets none until it takes
    them itself. Windows has nothing like it.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    held = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, held)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def ignore_signals() -> None:
    """Ignore Ctrl-C and what ends services from now on, also those held back."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        if (number := getattr(signal, name, None)) is not None:
            signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_SETMASK, ())


def end_at_once() -> None:
    """End this process as a loss of power would: without any cleanup."""
    if hasattr(signal, "SIGKILL"):
        os.kill(os.getpid(), signal.SIGKILL)
    os._exit(1)


def own_group() -> dict[str, Any]:
    """Return arguments of `subprocess.Popen`: a process group that Ctrl-C spares."""
    if IS_WINDOWS:
        flag = getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)
        return {"creationflags": flag}
    return {"start_new_session": True}


def end_group(process: "subprocess.Popen[Any]", within_s: float) -> None:
    """End a process that `own_group` started, and all that it started in its group.

    It is asked first and killed after `within_s`. On Windows only the process itself
    is ended.
    """
    for number in (signal.SIGTERM, getattr(signal, "SIGKILL", signal.SIGTERM)):
        with suppress(ProcessLookupError, PermissionError):
            if hasattr(os, "killpg"):
                os.killpg(process.pid, number)
            else:
                process.kill()
        with suppress(subprocess.TimeoutExpired):
            process.wait(within_s)
            return


# ---- files -------------------------------------------------------------------------


def sync_folder_names(folder: str | os.PathLike[str]) -> None:
    """Bring the names in a folder to the disk; Windows does so by itself.

    Raises
    ------
    OSError
        The disk fails, or the file system cannot synchronize folders.
    """
    if not hasattr(os, "O_DIRECTORY"):
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_at(descriptor: int, n_bytes: int, offset: int) -> bytes:
    """Return at most `n_bytes` of a file from an offset on.

    Without ``pread`` (Windows) the file's position moves: one thread may read.
    """
    if hasattr(os, "pread"):
        return os.pread(descriptor, n_bytes, offset)
    os.lseek(descriptor, offset, os.SEEK_SET)
    return os.read(descriptor, n_bytes)


def write_at(descriptor: int, data: bytes | memoryview, offset: int) -> int:
    """Write at an offset of a file; return the bytes that were written.

    Without ``pwrite`` (Windows) the file's position moves: one thread may write.
    """
    if hasattr(os, "pwrite"):
        return os.pwrite(descriptor, data, offset)
    os.lseek(descriptor, offset, os.SEEK_SET)
    return os.write(descriptor, data)


def reserve_bytes(descriptor: int, n_bytes: int) -> None:
    """Reserve room for a file on the disk; its size is `n_bytes` afterwards.

    Without ``posix_fallocate`` (Windows, macOS) the size is set, and a full disk is
    told only when it is written.
    """
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, n_bytes)
    else:
        os.ftruncate(descriptor, n_bytes)
