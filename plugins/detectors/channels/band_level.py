"""Band levels and their noise floors for several channels, computed together."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter

from neurovocal.engine import Block
from neurovocal.plugins.detectors.band_level import BandLevel
from neurovocal.plugins.detectors.noise_floor import (
    DIGITAL_SILENCE,
    LOWEST_DB,
    STEP_DB,
    RelativeLevel,
)

Float64 = NDArray[np.float64]


class _LevelState(NamedTuple):
    """State of `BandLevel` in all channels."""

    filter: Float64  # [n_channels, order]
    power: Float64  # [n_channels, n]: of the incomplete hop
    hops: Float64  # [n_channels, 2 * reach]: raw values that smoothing still needs
    next_hop: int


class BandLevels:
    """Levels of a band in several channels, each as `BandLevel` measures it.

    Parameters
    ----------
    parts : sequence of BandLevel
        With the same band and grid, for which `are_alike` holds.
    """

    def __init__(self, parts: Sequence[BandLevel]) -> None:
        first = self._first = parts[0]
        self._parts = list(parts)
        self._state = _LevelState(
            np.array([part._state for part in parts]),
            np.array([part._power for part in parts]),
            np.array([part._hops for part in parts]),
            first._next_hop,
        )
        self._next = self._state

    @staticmethod
    def are_alike(parts: Sequence[BandLevel]) -> bool:
        """Return whether all have heard enough, up to the same sample."""
        first = parts[0]
        return len(first._hops) == 2 * first._reach and all(
            part._state is not None
            and part._skip == 0
            and part._next_hop == first._next_hop
            and len(part._power) == len(first._power)
            and len(part._hops) == len(first._hops)
            for part in parts
        )

    def compute(self, block: Block) -> tuple[int, Float64]:
        """Return the first hop and the levels, float64[n_channels, n_hops]."""
        band, state = self._first, self._state
        samples = np.array(block.samples.T, np.float64, order="C")
        power, filtered = lfilter(band._b, band._a, samples, zi=state.filter)
        np.multiply(power, power, out=power)
        if state.power.shape[1]:
            power = np.concatenate((state.power, power), axis=1)
        n_channels, n_samples = power.shape
        whole = n_samples // band._hop
        rows = power[:, : whole * band._hop].reshape(n_channels, whole, band._hop)
        hops = np.add.reduce(rows, axis=2)
        hops /= band._hop
        known = np.concatenate((state.hops, hops), axis=1)
        width = 2 * band._reach + 1
        level = known[:, :whole].copy()
        for shift in range(1, width):
            level += known[:, shift : shift + whole]
        level /= width
        self._next = _LevelState(
            filtered, power[:, whole * band._hop :], known[:, whole:], 0
        )._replace(next_hop=state.next_hop + whole)
        return state.next_hop, level

    def commit(self) -> None:
        """Let the state be that after the block that was last computed."""
        self._state = self._next

    def release(self) -> None:
        """Give each part its state."""
        state = self._state
        for channel, part in enumerate(self._parts):
            part._state = state.filter[channel].copy()
            part._power = state.power[channel].copy()
            part._hops = state.hops[channel].copy()
            part._next_hop = state.next_hop


class _FloorState(NamedTuple):
    """State of `RelativeLevel` in all channels, where it is settled."""

    counts: Float64  # [n_channels, n_cells]
    values: Float64  # [n_channels]: noise floors
    pending: Float64  # [n_channels, n]: levels since the last update


class RelativeLevels:
    """Levels over their noise floors in several channels, as `RelativeLevel` has them.

    Channels whose floor is not settled yet are `apart`: the caller lets them process
    their levels one by one.

    Parameters
    ----------
    parts : sequence of RelativeLevel
        With the same options, up to the same hop.

    Attributes
    ----------
    apart : bool[n_channels]
        Channels that are not computed here.
    """

    def __init__(self, parts: Sequence[RelativeLevel]) -> None:
        self._parts = list(parts)
        self._every = parts[0]._every
        n = len(parts)
        reference = parts[0]._reference
        self._edges, self._n_cells = reference._edges, len(reference._counts)
        self._quantile, self._memory = reference._quantile, reference._memory
        self._least = reference._least
        self.apart = np.ones(n, np.bool_)
        # Those that settled since the last update have fewer levels than others.
        length = max(
            (_n_pending(part) for part in parts if _is_steady(part)), default=0
        )
        self._state = _FloorState(
            np.zeros((n, self._n_cells)), np.ones(n), np.zeros((n, length))
        )
        self._next = self._state
        self._adopt()

    def compute(self, first: int, levels: Float64) -> list[tuple[int, Float64]]:
        """Return the ratios ``(first hop, float64[n_channels, n_hops])`` of levels."""
        if self.apart.any():
            self._adopt()
        ratios = []
        state, done, n_hops = self._state, 0, levels.shape[1]
        while done < n_hops:
            stop = min(n_hops, done + self._every - (first + done) % self._every)
            pending = levels[:, done:stop]
            ratios.append((first + done, pending / state.values[:, None]))
            if state.pending.shape[1]:
                pending = np.concatenate((state.pending, pending), axis=1)
            state = state._replace(pending=pending)
            done = stop
            if (first + done) % self._every == 0:
                state = self._updated(state)
        self._next = state
        return ratios

    def commit(self) -> None:
        """Let the state be that after the levels that were last computed."""
        self._state = self._next

    def release(self) -> None:
        """Give each part its state."""
        for channel in (~self.apart).nonzero()[0]:
            part = self._parts[channel]
            part._reference._counts = self._state.counts[channel].copy()
            part._reference.value = float(self._state.values[channel])
            pending = self._state.pending[channel]
            part._pending = [pending.copy()] if len(pending) else []

    def _adopt(self) -> None:
        """Take over the channels that are apart and now in the state of the others."""
        state = self._state
        for channel in self.apart.nonzero()[0]:
            part = self._parts[channel]
            if not _is_steady(part) or _n_pending(part) != state.pending.shape[1]:
                continue
            state.counts[channel] = part._reference._counts
            state.values[channel] = part._reference.value
            if part._pending:
                state.pending[channel] = np.concatenate(part._pending)
            self.apart[channel] = False

    def _updated(self, state: _FloorState) -> _FloorState:
        """Return the state with the pending levels in the histograms."""
        levels = state.pending
        n_channels, n_levels = levels.shape
        cells = self._edges.searchsorted(levels, side="right")
        cells += np.arange(n_channels)[:, None] * self._n_cells
        counts = state.counts * math.exp(-n_levels / self._memory)
        added = np.bincount(cells.ravel(), minlength=counts.size)
        counts += added.reshape(counts.shape)
        below = counts.cumsum(axis=1)
        wanted = self._quantile * below[:, -1]
        found = np.add.reduce(below < wanted[:, None], axis=1, dtype=np.intp)
        channels = np.arange(n_channels)
        before = np.where(found > 0, below[channels, found - 1], 0.0)
        share = (wanted - before) / counts[channels, found]
        levels_db = LOWEST_DB + STEP_DB * (found + share)
        # Not NumPy's power, whose last bit may differ.
        powers = [10.0 ** (level_db / 10) for level_db in levels_db.tolist()]
        values = np.array([max(power, self._least) for power in powers])
        silent = np.logical_or.reduce(levels < DIGITAL_SILENCE, axis=1) & ~self.apart
        for channel in silent.nonzero()[0]:
            self._update_alone(int(channel), state, counts, values)
        return _FloorState(counts, values, np.empty((n_channels, 0)))

    def _update_alone(
        self, channel: int, state: _FloorState, counts: Float64, values: Float64
    ) -> None:
        """Update a channel with digital silence, which may be left out."""
        part = self._parts[channel]
        levels = state.pending[channel]
        if part._has_noise:
            levels = levels[levels >= DIGITAL_SILENCE]
        reference = part._reference
        reference._counts = state.counts[channel].copy()
        reference.value = float(state.values[channel])
        reference.update(levels)
        counts[channel], values[channel] = reference._counts, reference.value


def _is_steady(part: RelativeLevel) -> bool:
    """Return whether nothing but the histogram changes from here on."""
    return part.settled and (part._prior is None or part._has_noise)


def _n_pending(part: RelativeLevel) -> int:
    return sum(map(len, part._pending))
