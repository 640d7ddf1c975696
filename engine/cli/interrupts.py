"""Ctrl-C and SIGTERM outside of a run: one sentence and exit code 3.

While modules are loaded, the process ends at once: a library that is being loaded would
turn an exception into an error of its own, or lose it. While a command works, the first
signal is a `KeyboardInterrupt`, so that the command can close what it has opened, and
the second one ends the process at once. So does any signal once the command has
returned, since nothing would handle an exception there. While the interpreter shuts
down, signals are ignored. Runs and trainings have handlers of their own.
"""

import os
import signal
import sys
from types import FrameType

_STOPPED = 3  # EXIT_LOSS; its module is not loaded yet when this one is needed
_working = False
_asked = False
_exit_code: int | None = None  # of a command that has ended
_told = False


def install() -> None:
    """Handle the signals from now on; call it before anything large is imported."""
    for number in (signal.SIGINT, signal.SIGTERM):
        # A shell starts background jobs with interrupts ignored.
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _on_signal)
    sys.unraisablehook = _on_lost_exception


def begin_work() -> None:
    """Raise `KeyboardInterrupt` at the next signal: the command is about to start."""
    global _working
    _working = True


def stop_raising() -> None:
    """Exit with code 3 at once at the next signal: the command has returned."""
    global _working
    _working = False


def end_work(code: int) -> None:
    """Exit with `code` at once at the next signal: the command has ended."""
    global _exit_code
    _exit_code = code


def ignore() -> None:
    """Ignore the signals from now on; call it right before the interpreter exits.

    Its shutdown gives every signal that has a handler its default action again, and
    then unloads modules, for some 0.1 s: a second Ctrl-C would kill the process there.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def asked() -> bool:
    """Return whether a signal has asked the command to stop."""
    return _asked


def tell(sentence: str = "stopped") -> int:
    """Print that the command was stopped, once; return the exit code."""
    global _told
    if not _told:
        _told = True
        os.write(_stderr(), f"{sentence}\n".encode())
    return _STOPPED


def _stderr() -> int:
    """Return the descriptor of `sys.stderr`: 2 may be muted, for libraries of C."""
    try:
        return sys.stderr.fileno()
    except (AttributeError, OSError, ValueError):  # there is none, or it is no file
        return 2


def _on_signal(number: int, frame: FrameType | None) -> None:
    global _asked
    if _exit_code is not None:
        os._exit(_exit_code)
    if _asked or not _working:
        os._exit(tell())
    _asked = True
    raise KeyboardInterrupt


def _on_lost_exception(lost: "sys.UnraisableHookArgs") -> None:
    """End the process if the interrupt was raised where no caller can see it."""
    if lost.exc_type is not None and issubclass(lost.exc_type, KeyboardInterrupt):
        os._exit(tell())
    sys.__unraisablehook__(lost)
