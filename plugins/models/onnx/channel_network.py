"""Network of a bundle, run for several channels at once, with their states."""

from collections.abc import Mapping, Sequence

import numpy as np

from neurovocal.engine import Float32
from neurovocal.plugins.models.onnx.session import Graph

State = dict[str, Float32]


class ChannelNetwork:
    """Graph whose outputs ``NAME_next`` are its next inputs ``NAME``, per channel.

    Whether results of several channels in one call are those of calls for each, to the
    last bit, depends on the operators and on the processor. The first item is computed
    both ways; where they differ there is a call for each channel.

    Parameters
    ----------
    graph : Graph
        Its other outputs come first.
    states : sequence of dict
        State of each channel, by the name of the input.

    Attributes
    ----------
    is_exact : bool or None
        One call computes all channels; None: that is not known yet.
    """

    def __init__(self, graph: Graph, states: Sequence[Mapping[str, Float32]]) -> None:
        self._graph = graph
        self._names = list(states[0])
        self._state = {
            name: np.array([state[name] for state in states]) for name in self._names
        }
        self._next = self._state
        self.is_exact: bool | None = None if graph.has_channels else False

    def compute(self, feed: Mapping[str, Float32]) -> list[Float32]:
        """Return the outputs that are no state, float32[n_channels, ...]."""
        results = self.run({**feed, **self._state})
        n_outputs = len(results) - len(self._names)
        outputs, states = results[:n_outputs], results[n_outputs:]
        states = [np.ascontiguousarray(state) for state in states]
        self._next = dict(zip(self._names, states, strict=True))
        # With `tanh` gates it is unbounded: restart from zeros if it overflows.
        if not all(np.isfinite(state).all() for state in states):
            self._restart_overflown(states)
        return outputs

    def run(self, inputs: Mapping[str, Float32]) -> list[Float32]:
        """Return all outputs of all inputs, float32[n_channels, ...]; keep no state."""
        if self.is_exact:
            return self._graph.run_channels(inputs)
        results = self._run_each(inputs)
        if self.is_exact is None:
            together = self._graph.run_channels(inputs)
            self.is_exact = all(
                np.array_equal(a, b, equal_nan=True)
                for a, b in zip(together, results, strict=True)
            )
        return results

    def commit(self) -> None:
        """Let the state be that after the frames that were last computed."""
        self._state = self._next

    def states(self) -> list[State]:
        """Return the state of each channel."""
        n_channels = len(next(iter(self._state.values())))
        return [
            {name: state[channel].copy() for name, state in self._state.items()}
            for channel in range(n_channels)
        ]

    def _restart_overflown(self, states: Sequence[Float32]) -> None:
        for channel in range(len(states[0])):
            if not all(np.isfinite(state[channel]).all() for state in states):
                for state in states:
                    state[channel] = 0

    def _run_each(self, inputs: Mapping[str, Float32]) -> list[Float32]:
        n_channels = len(next(iter(inputs.values())))
        results = [
            self._graph.run({name: each[channel] for name, each in inputs.items()})
            for channel in range(n_channels)
        ]
        return [np.stack(outputs) for outputs in zip(*results, strict=True)]
