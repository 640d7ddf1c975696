"""Recursive filters: the compiled recursion of SciPy and a Butterworth band-pass.

Importing ``scipy.signal`` takes longer than all other steps of a start together, for
one compiled function. That function is loaded from its file alone where it is found.
"""

import importlib.util
import sys
from collections.abc import Callable
from functools import cache
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Float64: TypeAlias = NDArray[np.float64]
# (b, a, samples, axis, state): the filtered samples and the state after them
Recursion: TypeAlias = Callable[
    [Float64, Float64, Float64, int, Float64], tuple[Float64, Float64]
]


@cache
def load_recursion() -> Recursion:
    """Return the function that ``scipy.signal.lfilter`` calls for float64 arrays.

    It takes ``(b, a, samples, axis, state)`` with float64[n] coefficients, of which
    ``a`` has at least two, and returns the filtered samples and the next state.
    """
    function = getattr(_compiled_part(), "_linear_filter", None)
    if function is None:  # another version of SciPy
        from scipy.signal import lfilter

        return lambda b, a, x, axis, zi: lfilter(b, a, x, axis, zi)
    recursion: Recursion = function
    return recursion


def _compiled_part() -> Any:
    """Return SciPy's module of compiled filters without its package; None: not found.

    It does not stay in ``sys.modules``, where a later import of ``scipy.signal`` puts
    its own.
    """
    name = "scipy.signal._sigtools"
    if name in sys.modules:
        return sys.modules[name]
    package = importlib.util.find_spec("scipy")
    for folder in (package and package.submodule_search_locations) or ():
        for suffix in EXTENSION_SUFFIXES:
            path = Path(folder) / "signal" / f"_sigtools{suffix}"
            if not path.exists():
                continue
            spec = importlib.util.spec_from_file_location(name, path)
            if spec is None or spec.loader is None:
                continue
            try:
                module = importlib.util.module_from_spec(spec)
                spec.loader.exec_module(module)
            except ImportError:
                return None
            finally:
                sys.modules.pop(name, None)
            return module
    return None


def band_pass(
    low_hz: float, high_hz: float, sample_rate: int
) -> tuple[Float64, Float64]:
    """Return ``b`` and ``a``, float64[5], of a second-order Butterworth band-pass.

    The analog prototype has poles on the unit circle; it is shifted to the band and
    mapped by the bilinear transform with prewarped edges (Oppenheim and Schafer,
    Discrete-Time Signal Processing, 2010, ch. 7). The values are those of
    ``scipy.signal.butter(2, (low_hz, high_hz), "bandpass", fs=sample_rate)``.

    Parameters
    ----------
    low_hz, high_hz : float
        Edges of the band, between 0 and half the sample rate.
    sample_rate : int
        In Hz.
    """
    edges = np.array([low_hz, high_hz]) / (sample_rate / 2)
    low, high = 4.0 * np.tan(np.pi * edges / 2.0)
    width, centre = float(high - low), float(np.sqrt(low * high))
    poles = -np.exp(1j * np.pi * np.array([-1.0, 1.0]) / 4)
    halves = poles * width / 2
    roots = np.sqrt(halves**2 - centre**2)
    analog = np.concatenate((halves + roots, halves - roots))
    # The sample rate of the transform is 2: frequencies are shares of half the rate.
    gain = width**2 * np.real(16.0 / np.prod(4.0 - analog))
    zeros = np.array([1.0, 1.0, -1.0, -1.0])
    b, a = gain * np.poly(zeros), np.poly((4.0 + analog) / (4.0 - analog)).real
    return b.astype(np.float64), a.astype(np.float64)


def steady_state(b: Float64, a: Float64) -> Float64:
    """Return the state of a filter after endless ones, float64[len(a) - 1].

    Parameters
    ----------
    b, a : float64[n]
        Coefficients with ``a[0] == 1``.
    """
    n_states = len(a) - 1
    companion = np.zeros((n_states, n_states))
    companion[0] = -a[1:]
    companion[np.arange(1, n_states), np.arange(n_states - 1)] = 1.0
    state: Float64 = np.linalg.solve(
        np.eye(n_states) - companion.T, b[1:] - a[1:] * b[0]
    )
    return state
