"""Compiled kernels: inner loops that numba compiles, where it is installed.

Each kernel has an equal in NumPy, which runs until the kernels are loaded and wherever
numba is not installed (extra ``fast``). A kernel is used only after it has given the
same bits as its equal, so that results never depend on it. Loading takes a second of
CPU time and 70 MB (on Linux); it pays for runs of minutes.
"""

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from threading import Event as Flag
from threading import Lock, Timer
from typing import Any, TypeVar, cast

from neurovocal.engine.support.platform import release_code

log = logging.getLogger("neurovocal")

Function = TypeVar("Function", bound=Callable[..., Any])
# Environment variable; 0: never load kernels, 1: load them with the plugins.
SWITCH = "NEUROVOCAL_COMPILED"
# Has LLVM in it, 50 MB when all kernels are linked, and is not called by them.
_LINKER = "libllvmlite"


def compiled(signature: Any = None) -> Callable[[Function], Function]:
    """Return a decorator that compiles a function, and keeps the result on disk.

    Parameters
    ----------
    signature : numba signature or str, optional
        Types; without them each caller compiles its own. Only what is in one file may
        call each other: a function that has been kept is not compiled again when
        another file changes.
    """
    from numba import njit

    options: dict[str, Any] = {"cache": True, "nogil": True, "error_model": "numpy"}
    decorate: Any = njit(**options) if signature is None else njit(signature, **options)
    return cast(Callable[[Function], Function], decorate)


class Kernel:
    """A function that is compiled on demand; `call` is None until then.

    Parameters
    ----------
    module, name : str
        Where the function is; the module imports numba.
    is_equal : callable
        Gets the compiled function; returns whether it gives the bits of its equal.

    Attributes
    ----------
    call : callable or None
        The compiled function, once it has been loaded and found equal.
    """

    def __init__(
        self, module: str, name: str, is_equal: Callable[[Callable[..., Any]], bool]
    ) -> None:
        self.call: Callable[..., Any] | None = None
        self._module, self.name = module, name
        self._is_equal = is_equal
        with _lock:
            _kernels.append(self)
        if _loaded:
            self.load()

    def load(self) -> None:
        """Load the function, compiling it the first time on this machine."""
        if self.call is not None:
            return
        try:
            function = getattr(import_module(self._module), self.name)
            if self._is_equal(function):
                self.call = function
            else:
                log.info("kernel %s is not used: other bits than NumPy", self.name)
        except Exception as error:  # numba fails in its own ways
            log.warning(
                "kernel %s is not used, NumPy is: %s: %s",
                *(self.name, type(error).__name__, error),
            )


_lock = Lock()
_ending = Flag()
_kernels: list[Kernel] = []
_loaded = False


def load_kernels() -> str | None:
    """Load all kernels; those of plugins that are imported later follow by themselves.

    Returns
    -------
    str or None
        The compiler and its version; None where it is not installed or switched off.
    """
    global _loaded
    if os.environ.get(SWITCH) == "0" or find_spec("numba") is None:
        return None
    with _lock:
        first, _loaded = not _loaded, True
        kernels = list(_kernels)
    for kernel in kernels:
        if _ending.is_set():
            return None
        kernel.load()
    release_code(_LINKER)
    name = f"numba {version('numba')}"
    if first:
        log.info("compiled kernels are in use (%s)", name)
    return name


@contextmanager
def kernels_after(delay_s: float) -> Iterator[None]:
    """Load the kernels in a thread, should the body last longer than `delay_s`.

    Where the environment asks for it, each is loaded with its plugin instead, before a
    source opens: a thread that loads them makes the others wait.
    """
    if os.environ.get(SWITCH) == "1":
        load_kernels()
        yield
        return
    timer = Timer(delay_s, load_kernels)
    timer.name = "nv-kernels"
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        # The compiler must not run while the interpreter ends.
        _ending.set()
        timer.cancel()
        timer.join()
        _ending.clear()
