"""Detector networks of several channels: one call for all of them."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from neurovocal.engine import Float32
from neurovocal.plugins.detectors.excess_network import (
    ExcessNetwork,
    ScoredRows,
    corrected,
)
from neurovocal.plugins.models.onnx.channel_network import ChannelNetwork
from neurovocal.plugins.models.onnx.session import finite

Float64 = NDArray[np.float64]


class _State(NamedTuple):
    """State of `ExcessNetwork` in all channels."""

    levels: Float32  # [n_channels, n, n_bands]: rows of an unfinished tile
    scores: Float64  # [n_channels, n]
    last_levels: Float32  # [n_channels, 1, n_bands]: the row received last
    last_scores: Float64  # [n_channels, 1]
    unscored: Float64  # [n_channels, n]: scores of rows without a correction
    next: int
    states: Mapping[str, Float32]  # [n_channels, ...]


class ChannelNetworkScores:
    """Corrected scores of several channels, each as `ExcessNetwork` computes them.

    Parameters
    ----------
    networks : sequence of ExcessNetwork
        Of the same bundle, with the same tile.
    """

    def __init__(self, networks: Sequence[ExcessNetwork]) -> None:
        self._networks = list(networks)
        first = networks[0]
        self._tile, self._look_ahead = first.tile, first.look_ahead
        self._graph = ChannelNetwork(
            first.graph, [network._state for network in networks]
        )
        self._state: _State | None = None  # None: no channel has been adopted
        self._next: _State | None = None

    def can_adopt(self, channel: int) -> bool:
        """Return whether a channel's network has had its first rows."""
        network = self._networks[channel]
        return network._to_skip == 0 and len(network._last) > 0

    def adopt(self, channel: int) -> None:
        """Take over the state of a channel's network.

        All networks have had the rows up to the same one, and hold those since the last
        multiple of the tile.
        """
        network = self._networks[channel]
        held, last, unscored = network._held, network._last, network._unscored
        if self._state is None:
            n = len(self._networks)
            self._state = _State(
                np.zeros((n, *held.levels.shape), np.float32),
                np.zeros((n, len(held))),
                np.zeros((n, *last.levels.shape), np.float32),
                np.zeros((n, 1)),
                np.zeros((n, len(unscored))),
                network._next,
                {
                    name: np.zeros((n, *state.shape), np.float32)
                    for name, state in network._state.items()
                },
            )
        state = self._state
        state.levels[channel], state.scores[channel] = held.levels, held.scores
        state.last_levels[channel] = last.levels
        state.last_scores[channel] = last.scores
        state.unscored[channel] = unscored
        for name, values in network._state.items():
            state.states[name][channel] = values

    def push(self, levels: Float32, scores: Float64) -> list[tuple[int, Float64]]:
        """Return the corrected scores that rows of all channels complete.

        Parameters
        ----------
        levels : float32[n_channels, n_rows, n_bands]
        scores : float64[n_channels, n_rows]
            At least one row.

        Returns
        -------
        list of (int, float64[n_channels, n_scores])
            First row and scores, of one call at most; no state changes before `commit`.
        """
        state = self._state
        if state is None:
            return []
        last = levels[:, -1:], scores[:, -1:]
        unscored = np.concatenate((state.unscored, scores), axis=1)
        levels = np.concatenate((state.levels, levels), axis=1)
        scores = np.concatenate((state.scores, scores), axis=1)
        parts, done, states = [], 0, state.states
        n_rows = scores.shape[1]
        while (stop := done + self._tile - (state.next + done) % self._tile) <= n_rows:
            rows = levels[:, done:stop], scores[:, done:stop].astype(np.float32)
            found, states = self._run(*rows, states)
            parts.append(found)
            done = stop
        self._next = _State(
            levels[:, done:],
            scores[:, done:],
            *last,
            unscored[:, done:],
            state.next + done,
            states,
        )
        if not parts:
            return []
        corrections = np.concatenate(parts, axis=1)
        found_scores = corrected(unscored[:, :done], corrections)
        return [(state.next - self._look_ahead, found_scores)]

    def commit(self) -> None:
        """Let the state be that after the rows of the last `push`."""
        if self._next is not None:
            self._state, self._next = self._next, None

    def release(self, channel: int) -> None:
        """Give a channel that was adopted its state."""
        network, state = self._networks[channel], self._state
        assert state is not None
        network._held = ScoredRows(
            state.levels[channel].copy(), state.scores[channel].copy()
        )
        network._last = ScoredRows(
            state.last_levels[channel].copy(), state.last_scores[channel].copy()
        )
        network._unscored = state.unscored[channel].copy()
        network._next = state.next
        network._state = {n: s[channel].copy() for n, s in state.states.items()}

    def _run(
        self, levels: Float32, scores: Float32, states: Mapping[str, Float32]
    ) -> tuple[Float32, Mapping[str, Float32]]:
        """Return the corrections of rows, and the states after them."""
        feed = {"levels": finite(np.ascontiguousarray(levels)), "scores": scores}
        corrections, *after = self._graph.run({**feed, **states})
        kept = [finite(np.ascontiguousarray(state)) for state in after]
        corrections = finite(np.ascontiguousarray(corrections))
        return corrections, dict(zip(states, kept, strict=True))
