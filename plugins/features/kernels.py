"""Compiled loops of spectrogram and band level; importing this module imports numba.

Every loop adds and rounds in the order of its equal in NumPy. All are in one file:
what numba has cached is compiled again when its own file changes, not when a function
in another file does.
"""

from math import exp, inf
from typing import Any

import numpy as np
from numba import float64, int64, types

from neurovocal.engine.support.compiled import compiled

# A source may lend samples that must not be changed, and that are not contiguous.
_SAMPLES = types.Array(types.float32, 1, "A", readonly=True)
_VALUES = types.Array(types.float64, 1, "C", readonly=True)
_WORK = float64[::1]


@compiled()
def _short_sum(values: Any, start: int, count: int) -> Any:
    """Return the sum of up to 128 values: eight partial sums, then the rest."""
    if count < 8:
        total = values[start]
        for i in range(start + 1, start + count):
            total += values[i]
        return total
    r0, r1 = values[start], values[start + 1]
    r2, r3 = values[start + 2], values[start + 3]
    r4, r5 = values[start + 4], values[start + 5]
    r6, r7 = values[start + 6], values[start + 7]
    whole = count - count % 8
    for i in range(start + 8, start + whole, 8):
        r0 += values[i]
        r1 += values[i + 1]
        r2 += values[i + 2]
        r3 += values[i + 3]
        r4 += values[i + 4]
        r5 += values[i + 5]
        r6 += values[i + 6]
        r7 += values[i + 7]
    total = ((r0 + r1) + (r2 + r3)) + ((r4 + r5) + (r6 + r7))
    for i in range(start + whole, start + count):
        total += values[i]
    return total


@compiled()
def pairwise_sum(values: Any, start: int, count: int) -> Any:
    """Return the sum of ``values[start : start + count]`` as ``np.add.reduce`` adds.

    Of more than 128 values it is the sum of the sums of both halves, of which the left
    has a multiple of 8 (pairwise summation: Higham, Accuracy and Stability of Numerical
    Algorithms, section 4.2).
    """
    if count <= 128:
        return _short_sum(values, start, count)
    if count == 256:
        return _short_sum(values, start, 128) + _short_sum(values, start + 128, 128)
    # No recursion: one that numba has cached cannot be linked from another module.
    starts, counts = np.empty(64, np.int64), np.empty(64, np.int64)  # right halves
    lefts = np.empty(64, values.dtype)
    has_left = np.zeros(64, np.bool_)
    depth = 0
    while True:
        while count > 128:
            half = count // 2
            half -= half % 8
            starts[depth], counts[depth] = start + half, count - half
            has_left[depth] = False
            depth += 1
            count = half
        total = _short_sum(values, start, count)
        while depth > 0 and has_left[depth - 1]:
            depth -= 1
            total = lefts[depth] + total
        if depth == 0:
            return total
        lefts[depth - 1], has_left[depth - 1] = total, True
        start, count = starts[depth - 1], counts[depth - 1]


@compiled("(float32[::1], int64, float32[::1], float64[:, ::1])")
def window_frames(samples: Any, hop: int, window: Any, out: Any) -> None:
    """Write frames without their mean, times the window, to float64[n_frames, n_fft].

    Frame k is ``samples[k * hop : k * hop + len(window)]``. Values are float32: NumPy
    transforms them in float64, too, and would convert them first.
    """
    length = len(window)
    for k in range(out.shape[0]):
        start = k * hop
        mean = pairwise_sum(samples, start, length) / np.float32(length)
        for i in range(length):
            out[k, i] = (samples[start + i] - mean) * window[i]


@compiled("(complex128[:, ::1], int64, float32[::1], float32, float32[:, ::1])")
def power_above(spectrum: Any, first: int, gain: Any, floor: Any, out: Any) -> None:
    """Write ``|spectrum|^2 * gain + floor`` to float32[n_frames, n_bins].

    Bin 0 of `out` is bin `first` of the spectrum.
    """
    for k in range(out.shape[0]):
        for i in range(out.shape[1]):
            value = spectrum[k, first + i]
            real, imaginary = np.float32(value.real), np.float32(value.imag)
            out[k, i] = (real * real + imaginary * imaginary) * gain[i] + floor


@compiled("(float32[:, ::1], float32, float32[::1], float32[::1], float32, float32)")
def scale_and_clip(
    values: Any, factor: float, offset: Any, gain: Any, low: float, high: float
) -> None:
    """Replace values by ``(values * factor - offset) * gain``, clipped; NaN stays."""
    for k in range(values.shape[0]):
        for i in range(values.shape[1]):
            value = (values[k, i] * factor - offset[i]) * gain[i]
            value = low if value < low else value
            values[k, i] = high if value > high else value


@compiled(int64(_SAMPLES, _VALUES, _VALUES, _WORK, _WORK, _WORK, int64[::1], _WORK))
def push_levels(
    samples: Any,
    b: Any,
    a: Any,
    state: Any,
    power: Any,
    hops: Any,
    sizes: Any,
    out: Any,
) -> Any:
    """Filter samples, and write the smoothed power of the hops that they complete.

    Parameters
    ----------
    samples : float32[n_samples]
    b, a : float64[5]
        Coefficients of the filter.
    state : float64[4]
        State of the filter; changed.
    power : float64[hop_length]
        Powers of the samples of the incomplete hop; changed.
    hops : float64[n]
        Raw values that smoothing still needs, with room for those of this call;
        changed.
    sizes : int64[3]
        Number of values in `power` and in `hops`, both changed, and the number of hops
        before and after a hop that smoothing includes.
    out : float64[m]
        Gets the levels.

    Returns
    -------
    int
        Number of levels. ``hops[: sizes[1]]`` is still needed.
    """
    n_power, n_hops, reach = sizes[0], sizes[1], sizes[2]
    b0, b1, b2, b3, b4 = b[0], b[1], b[2], b[3], b[4]
    a1, a2, a3, a4 = a[1], a[2], a[3], a[4]
    z0, z1, z2, z3 = state[0], state[1], state[2], state[3]
    hop = len(power)
    for i in range(len(samples)):
        x = np.float64(samples[i])
        y = z0 + b0 * x
        z0 = z1 + x * b1 - y * a1
        z1 = z2 + x * b2 - y * a2
        z2 = z3 + x * b3 - y * a3
        z3 = x * b4 - y * a4
        power[n_power] = y * y
        n_power += 1
        if n_power == hop:
            value = pairwise_sum(power, 0, hop) / hop
            n_power = 0
            if n_hops == 0:
                for k in range(reach):
                    hops[k] = value
                n_hops = reach
            hops[n_hops] = value
            n_hops += 1
    state[0], state[1], state[2], state[3] = z0, z1, z2, z3
    width = 2 * reach + 1
    count = max(n_hops - width + 1, 0)
    for k in range(count):
        level = hops[k]
        for shift in range(1, width):
            level += hops[k + shift]
        out[k] = level / width
    for k in range(count, n_hops):
        hops[k - count] = hops[k]
    sizes[0], sizes[1] = n_power, n_hops - count
    return count


@compiled()
def _cell(edges: Any, level: float) -> int:
    """Return the number of edges that are not above `level`; all for NaN."""
    low, high = 0, len(edges)
    while low < high:
        middle = (low + high) // 2
        if level < edges[middle]:
            high = middle
        else:
            low = middle + 1
    return low


@compiled()
def _quantile(counts: Any, added: Any, n_levels: int, rules: Any) -> Any:
    """Add levels to the histogram, and return its quantile as a power."""
    forget = exp(-n_levels / rules[1])
    total = 0.0
    for k in range(len(counts)):
        counts[k] = counts[k] * forget + added[k]
        total += counts[k]
    wanted = rules[0] * total
    below = before = 0.0
    found = 0
    for k in range(len(counts)):
        before = below
        below += counts[k]
        found = k
        if below >= wanted:
            break
    share = (wanted - before) / counts[found]
    level_db = rules[4] + rules[5] * (found + share)
    # Two variables: a compiler may replace a power of the constant 10.
    return max(rules[6] ** (level_db / rules[7]), rules[2])


@compiled(
    types.Tuple((int64, float64))(  # type: ignore[no-untyped-call]
        *(int64, _VALUES, int64, _WORK, int64),
        *(_WORK, _VALUES, _VALUES, float64, _WORK),
    )
)
def divide_levels(
    first: int,
    levels: Any,
    every: int,
    pending: Any,
    n_pending: int,
    counts: Any,
    edges: Any,
    rules: Any,
    value: float,
    ratios: Any,
) -> Any:
    """Divide levels by the running quantile of those before them, and update it.

    Parameters
    ----------
    first : int
        Hop of the first level.
    levels : float64[n]
    every : int
        Hops between updates.
    pending : float64[every]
        Levels since the last update; changed.
    n_pending : int
        Their number.
    counts : float64[n_cells]
        Histogram of the remembered levels; changed.
    edges : float64[n_cells - 1]
        Between the cells.
    rules : float64[8]
        Quantile; memory; least value; level below which one is left out (-inf: none);
        dB of the first cell; dB per cell; 10; 10.
    value : float
        The quantile.
    ratios : float64[n]
        Gets levels / quantile.

    Returns
    -------
    n_pending : int
    value : float
    """
    for i in range(len(levels)):
        ratios[i] = levels[i] / value
        pending[n_pending] = levels[i]
        n_pending += 1
        if (first + i + 1) % every:
            continue
        n_levels = 0
        added = np.zeros(len(counts), np.int64)
        for k in range(n_pending):
            if rules[3] == -inf or pending[k] >= rules[3]:
                added[_cell(edges, pending[k])] += 1
                n_levels += 1
        n_pending = 0
        if n_levels:
            value = _quantile(counts, added, n_levels, rules)
    return n_pending, value
