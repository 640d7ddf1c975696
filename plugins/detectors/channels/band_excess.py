"""Band levels above their noise floors for several channels, computed together."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from neurovocal.engine import Block, Float32
from neurovocal.plugins.detectors.band_excess import (
    LEAST_DB,
    N_BANDS,
    SILENT_DB,
    BandExcess,
)
from neurovocal.plugins.detectors.noise_floor import BandFloors

Float64 = NDArray[np.float64]


class _State(NamedTuple):
    """State of `BandExcess` in all channels; of floors where they are settled."""

    tail: Float32  # [n_channels, n]: samples of the next frames
    next: int
    counts: Float64  # [n_channels * n_bands, n_cells]
    floor: Float32  # [n_channels, n_bands]
    heard: NDArray[np.intp]  # [n_channels]: hops that the floors are known from
    pending: tuple[Float32, ...]  # [n_channels, n, n_bands]: since the last update


class BandExcesses:
    """Excesses in several channels, each as `BandExcess` computes it.

    Channels whose floors are not settled yet are `apart`: levels are computed for them,
    too, and the caller lets each compute its floors and excesses.

    Parameters
    ----------
    parts : sequence of BandExcess
        With the same options, for which `are_alike` holds.

    can_adopt : callable
        Tells whether the caller can take over a channel.

    Attributes
    ----------
    apart : bool[n_channels]
        Channels whose floors are not kept here.
    levels : float32[n_channels, n_hops, 32]
        Of the hops that were last computed, in dB re full scale.
    """

    def __init__(
        self, parts: Sequence[BandExcess], can_adopt: Callable[[int], bool]
    ) -> None:
        first, n = parts[0], len(parts)
        self._can_adopt = can_adopt
        self._first, self._parts = first, list(parts)
        self._floors = BandFloors(n * N_BANDS, first.memory_hops)
        self._alone = BandFloors(N_BANDS, first.memory_hops)
        self._state = self._next = _State(
            np.array([part._tail for part in parts]),
            first._next,
            np.zeros_like(self._floors.counts),
            np.zeros((n, N_BANDS), np.float32),
            np.array([part._n_heard for part in parts], np.intp),
            (),
        )
        self.apart = np.ones(n, np.bool_)
        self._has_noise = np.zeros(n, np.bool_)
        self.levels = np.empty((n, 0, N_BANDS), np.float32)

    @staticmethod
    def are_alike(parts: Sequence[BandExcess]) -> bool:
        """Return whether all have samples, up to the same one."""
        first = parts[0]
        return first._tail is not None and all(
            part._tail is not None
            and part._skip == 0
            and part._next == first._next
            and len(part._tail) == len(first._tail)
            for part in parts
        )

    def compute(self, block: Block) -> tuple[int, Float32]:
        """Return the first hop, and the excesses, of the frames that a block completes.

        Returns
        -------
        first : int
        excess : float32[n_channels, n_hops, 32]
            In dB; of channels that are apart it has no meaning.
        """
        part, state = self._first, self._state
        known = np.concatenate((state.tail, block.samples.T), axis=1)
        hop, length = part.hop_length, part.frame_length
        count = max(0, (known.shape[1] - length) // hop + 1)
        frames = np.lib.stride_tricks.as_strided(
            known,
            (len(known), count, length),
            (known.strides[0], hop * known.strides[1], known.strides[1]),
            writeable=False,
        )
        # A sample that is not finite affects its own frames only: no warning.
        with np.errstate(all="ignore"):
            self.levels = part.levels_of(frames)
        first = state.next
        state = state._replace(tail=known[:, count * hop :].copy(), next=first + count)
        excess = np.empty_like(self.levels)
        every, done = part.update_hops, 0
        while done < count:
            stop = min(count, done + every - (first + done) % every)
            rows = self.levels[:, done:stop]
            np.subtract(rows, state.floor[:, None], out=excess[:, done:stop])
            if not self.apart.all():
                state = state._replace(pending=(*state.pending, rows))
            done = stop
            if (first + done) % every == 0 and state.pending:
                state = self._updated(state)
        np.maximum(excess, np.float32(LEAST_DB), out=excess)
        self._next = state
        return first, excess

    def commit(self) -> None:
        """Let the state be that after the block that was last computed."""
        self._state = self._next

    def release(self) -> None:
        """Give each part its state."""
        state = self._state
        counts = state.counts.reshape(len(self._parts), N_BANDS, -1)
        for channel, part in enumerate(self._parts):
            part._tail, part._next = state.tail[channel].copy(), state.next
            if self.apart[channel]:
                continue
            part._floors.counts = counts[channel].copy()
            part._floor = state.floor[channel].copy()
            part._n_heard = int(state.heard[channel])
            pending = [rows[channel].copy() for rows in state.pending]
            part._pending = [rows for rows in pending if len(rows)]

    def adopt(self) -> list[int]:
        """Take over the channels that are apart and now settled, and return them."""
        apart, state = self.apart.nonzero()[0].tolist(), self._state
        candidates = [
            c for c in apart if self._parts[c].is_steady and self._can_adopt(c)
        ]
        if not candidates:
            return []
        # All that are settled have the same levels since the last update, but those
        # that have settled since then.
        waiting = [np.empty((len(self._parts), 0, N_BANDS), np.float32)]
        pending = np.concatenate([*waiting, *state.pending], axis=1)
        counts = state.counts.reshape(len(self._parts), N_BANDS, -1)
        adopted = []
        for channel in candidates:
            part = self._parts[channel]
            n_pending = sum(map(len, part._pending))
            if self.apart.all():
                pending = np.zeros((len(self._parts), n_pending, N_BANDS), np.float32)
            elif n_pending != pending.shape[1]:
                continue
            if n_pending:
                pending[channel] = np.concatenate(part._pending)
            counts[channel] = part._floors.counts
            state.floor[channel] = part._floor
            state.heard[channel] = part._n_heard
            self._has_noise[channel] = part._has_noise
            self.apart[channel] = False
            adopted.append(channel)
        self._state = state._replace(pending=(pending,))
        return adopted

    def _updated(self, state: _State) -> _State:
        """Return the state with the pending levels in the floors."""
        levels = np.concatenate(state.pending, axis=1)
        n_channels, n_hops, _ = levels.shape
        floors, first = self._floors, self._first
        floors.counts = state.counts.copy()
        by_hop = levels.swapaxes(0, 1).reshape(n_hops, -1)
        floors.update(by_hop)
        values = floors.values(first.quantile).reshape(n_channels, N_BANDS)
        floor = first.floor_from(values)
        heard = state.heard + n_hops
        is_silent = levels.max(axis=2) < SILENT_DB
        # Where silence is no background it is left out: fewer levels, more memory.
        counts = floors.counts.reshape(n_channels, N_BANDS, -1)
        before = state.counts.reshape(counts.shape)
        left_out = is_silent.any(axis=1) & self._has_noise & ~self.apart
        for channel in left_out.nonzero()[0].tolist():
            kept = levels[channel][~is_silent[channel]]
            alone = self._alone
            alone.counts = before[channel].copy()
            heard[channel] = state.heard[channel] + len(kept)
            if len(kept):
                alone.update(kept)
                floor[channel] = first.floor_from(alone.values(first.quantile))
            else:
                floor[channel] = state.floor[channel]
            counts[channel] = alone.counts
        return state._replace(
            counts=floors.counts, floor=floor, heard=heard, pending=()
        )
