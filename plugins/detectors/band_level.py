"""Sound level in a band, one value per hop of the stream's grid."""

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neurovocal.engine import Block, Float32, Options
from neurovocal.engine.contracts.options import OptionProblem
from neurovocal.engine.support.compiled import Kernel
from neurovocal.plugins.features.recursive_filter import (
    band_pass,
    load_recursion,
    steady_state,
)

ULTRASONIC_RATE = 96_000
EDGE = 0.45  # highest usable frequency as a share of the sample rate
# Bins of a Hann window that are further apart are independent.
_CORRELATED_BINS = 8


def default_band(sample_rate: int) -> tuple[float, float]:
    """Return the default band in Hz for a sample rate.

    Up to 96 kHz the microphone is taken to be for audible sound: from 1/32 of the
    rate, at most 500 Hz (below lie wind, hum and handling), up to 0.45 of the
    rate, at most 10 kHz. Above 96 kHz it is for ultrasound: from 20 kHz up to
    0.45 of the rate.
    """
    if sample_rate > ULTRASONIC_RATE:
        return 20_000.0, EDGE * sample_rate
    return min(500.0, sample_rate / 32), min(10_000.0, EDGE * sample_rate)


def unreachable_problems(
    options: Options, names: Iterable[str], sample_rate: int
) -> Iterable[OptionProblem]:
    """Yield a mistake for each edge of a band that lies above half the sample rate.

    Parameters
    ----------
    options : Options
        Options of a detector.
    names : iterable of str
        Options that are frequencies in Hz, or None.
    sample_rate : int
        In Hz.
    """
    highest = sample_rate / 2
    for name in names:
        value = getattr(options, name)
        if value is not None and value > highest:
            yield OptionProblem(
                name,
                f"{value:g} Hz is above half the rate of the stream: at {sample_rate} "
                f"Hz there is nothing above {highest:g} Hz",
            )


def empty_band_problem(low_hz: float, high_hz: float, sample_rate: int) -> str | None:
    """Return a sentence if a band in Hz is empty at a sample rate, else None.

    Parameters
    ----------
    low_hz, high_hz : float
        Edges of the band, the upper one at most 0.45 of the rate.
    sample_rate : int
        Rate of the samples in Hz.
    """
    if low_hz < high_hz:
        return None
    if low_hz >= EDGE * sample_rate:
        return (
            f"a band from {low_hz:g} Hz on needs a sample rate of more than "
            f"{math.floor(low_hz / EDGE)} Hz, not {sample_rate} Hz: record at a higher "
            "rate, choose another preset or lower low_hz"
        )
    return (
        f"the band from {low_hz:g} to {high_hz:g} Hz is empty: set low_hz below "
        f"{high_hz:g} Hz or high_hz above {low_hz:g} Hz"
    )


class BandLevel:
    """Smoothed power of a band, one value per hop.

    Hop k covers samples ``[k * hop_length, (k + 1) * hop_length)`` of the stream;
    its value is the mean square of the band over the hop and `reach` hops on
    either side. An incomplete hop at the start is left out.

    Parameters
    ----------
    low_hz, high_hz : float
        Edges of a second-order Butterworth band-pass (12 dB per octave).
    sample_rate : int
        Rate of the samples in Hz.
    hop_length : int
        Samples per value.
    reach : int
        Number of hops before and after a hop that smoothing includes.

    Notes
    -----
    The filter is a recursion in float64 and sums run over hops of the stream's
    grid in one order: the values do not depend on how blocks are cut. The filter
    starts in the steady state of its first sample, so that a constant offset of the
    input makes no click.
    """

    def __init__(
        self,
        low_hz: float,
        high_hz: float,
        sample_rate: int,
        hop_length: int,
        reach: int,
    ) -> None:
        # Second order at each edge is well conditioned as one fraction; the
        # cascaded form costs three times the call.
        self._b, self._a = band_pass(low_hz, high_hz, sample_rate)
        self._steady_state = steady_state(self._b, self._a)
        self._recursion = load_recursion()
        self._hop = hop_length
        self._reach = reach
        # Of the compiled kernel: powers of a hop, raw values, and their numbers.
        self._partial = np.empty(hop_length)
        self._work = np.empty(0)
        self._sizes = np.array([0, 0, reach])
        self.reset()

    def reset(self) -> None:
        """Reset the filter and the grid; the next block may start anywhere."""
        self._state: NDArray[np.float64] | None = None
        self._skip = 0
        self._next_hop = 0
        self._power = np.empty(0)  # of the incomplete hop
        self._hops = np.empty(0)  # raw values that smoothing still needs

    def push(self, block: Block) -> tuple[int, NDArray[np.float64]]:
        """Return the first hop and values that `block` completes, float64[n_hops]."""
        kernel = _KERNEL.call
        if kernel is None or self._state is None or self._skip:
            return self._push(block)
        return self._push_compiled(kernel, block.samples[:, 0])

    def _push(self, block: Block) -> tuple[int, NDArray[np.float64]]:
        samples = block.samples[:, 0].astype(np.float64)
        if self._state is None:
            if len(samples) == 0:
                return 0, samples
            self._state = self._steady_state * samples[0]
            self._next_hop = -(-block.start // self._hop)
            self._skip = self._next_hop * self._hop - block.start
        power, self._state = self._recursion(self._b, self._a, samples, -1, self._state)
        np.multiply(power, power, out=power)
        if self._skip:
            skipped = min(self._skip, len(power))
            power, self._skip = power[skipped:], self._skip - skipped
        if len(self._power):
            power = np.concatenate((self._power, power))
        whole = len(power) // self._hop
        self._power = power[whole * self._hop :]
        rows = power[: whole * self._hop].reshape(whole, self._hop)
        hops = np.add.reduce(rows, axis=1)
        hops /= self._hop
        return self._smooth(hops)

    def _push_compiled(
        self, kernel: Callable[..., int], samples: Float32
    ) -> tuple[int, NDArray[np.float64]]:
        """Return the same as `push` after the first hop's start, in one call."""
        sizes = self._sizes
        n_power, n_hops = len(self._power), len(self._hops)
        most = (n_power + len(samples)) // self._hop
        if len(self._work) < n_hops + most + self._reach:
            self._work = np.empty(n_hops + most + self._reach)
        sizes[0], sizes[1] = n_power, n_hops
        if n_power:
            self._partial[:n_power] = self._power
        self._work[:n_hops] = self._hops
        levels = np.empty(n_hops + most)
        count = kernel(
            *(samples, self._b, self._a, self._state),
            *(self._partial, self._work, sizes, levels),
        )
        self._power = self._partial[: sizes[0]].copy() if sizes[0] else _NONE
        self._hops = self._work[: sizes[1]].copy()
        first, self._next_hop = self._next_hop, self._next_hop + count
        return first, levels[:count]

    def flush(self) -> tuple[int, NDArray[np.float64]]:
        """Return the first hop and the last `reach` values, repeating the last hop."""
        if len(self._hops) == 0:
            return self._next_hop, self._hops
        return self._smooth(np.repeat(self._hops[-1:], self._reach))

    def _smooth(self, hops: NDArray[np.float64]) -> tuple[int, NDArray[np.float64]]:
        width = 2 * self._reach + 1
        if len(self._hops) == 0 and len(hops):
            self._hops = np.repeat(hops[:1], self._reach)
        known = np.concatenate((self._hops, hops))
        count = max(len(known) - width + 1, 0)
        if count == 0:
            self._hops = known
            return self._next_hop, np.empty(0)
        # Slice by slice: the order of additions is always the same.
        level = known[:count].copy()
        for shift in range(1, width):
            level += known[shift : shift + count]
        level /= width
        first, self._next_hop = self._next_hop, self._next_hop + count
        self._hops = known[count:]
        return first, level


def _is_equal(kernel: Callable[..., Any]) -> bool:
    """Return whether the compiled kernel gives the bits of NumPy for noise."""
    samples = np.random.default_rng(0).standard_normal((4000, 1)).astype(np.float32)
    for hop, reach, step in ((16, 2, 1024), (250, 1, 777)):
        plain, fast = (BandLevel(500.0, 9e3, 32_000, hop, reach) for _ in range(2))
        for start in range(0, len(samples), step):
            block = Block(start, samples[start : start + step])
            first, levels = plain._push(block)
            if fast._state is None:
                found = fast._push(block)
            else:
                found = fast._push_compiled(kernel, block.samples[:, 0])
            if found[0] != first or not np.array_equal(found[1], levels):
                return False
            states = plain._state, fast._state
            if states[0] is None or not np.array_equal(*states):  # type: ignore[arg-type]
                return False
    return True


_NONE = np.empty(0)
_KERNEL = Kernel("neurovocal.plugins.features.kernels", "push_levels", _is_equal)


def noise_quantile_db(share: float, cells: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return a quantile of Gaussian noise re its mean in each band, dB float64[32]."""
    from scipy.special import gammaincinv  # slow to import

    # The quantile of chi squared with 2 * cells degrees of freedom, over their number.
    return np.asarray(10 * np.log10(2 * gammaincinv(cells, share) / (2 * cells)))


def bin_shares(edges: NDArray[np.float64], n_bins: int) -> Float32:
    """Return the share of each bin in each band, float32[n_bins, n_bands].

    A bin is a cell of constant density around its frequency, which edges (in bins) cut.
    The lowest cell is that of bin 1 and reaches down to 0: bin 0 has lost its mean.
    """
    bins = np.arange(n_bins)[:, None]
    lower = np.where(bins <= 1, 0.0, bins - 0.5)
    stop = np.minimum(bins + 0.5, edges[None, 1:])
    start = np.maximum(lower, edges[None, :-1])
    shares: Float32 = np.maximum(stop - start, 0.0).astype(np.float32)
    shares[0] = 0
    return shares


def independent_cells(
    shares: Float32, window: NDArray[np.float64], n_fft: int
) -> NDArray[np.float64]:
    """Return how many independent values the power in each band is a sum of.

    Square of the mean by variance, with the correlation of the bins of windowed white
    noise (Welch, 1967).
    """
    correlation = np.square(np.abs(np.fft.rfft(np.square(window), n_fft)))
    correlation /= correlation[0]
    weights = shares.astype(np.float64)
    variance = np.square(weights).sum(axis=0)
    for lag in range(1, min(_CORRELATED_BINS, len(weights))):
        products = (weights[lag:] * weights[:-lag]).sum(axis=0)
        variance += 2 * correlation[lag] * products
    cells: NDArray[np.float64] = np.square(weights.sum(axis=0)) / variance
    return np.maximum(cells, 1.0)
