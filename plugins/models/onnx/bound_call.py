"""Calls of a graph in memory that is bound to its tensors once."""

import math
from collections.abc import Sequence

import numpy as np

from neurovocal.engine import Float32
from neurovocal.plugins.models.onnx.channels import Shape
from neurovocal.plugins.models.onnx.session import Graph, is_finite

# Numbers of rows whose memory is kept: a tile, and the parts of one at a gap.
_MOST_KEPT = 4
_MOST_ROWS_KEPT = 4096


class BoundCall:
    """Call of a graph for fixed numbers of rows and channels, which allocates nothing.

    ONNX Runtime reads and writes the same memory in each call (IO binding).

    Parameters
    ----------
    graph : Graph
        The graph.
    outputs : sequence of str
        Outputs that are wanted.
    n_rows : int
        Length of the axes that are free.
    n_channels : int, optional
        Channels of a graph that has several; default: one, without an axis.

    Attributes
    ----------
    inputs, outputs : dict of str to float32
        Memory of the tensors: of one channel, or ``[n_channels, ...]``.
    results : float32[n]
        Memory of all outputs, one after the other, with zeros between them.
    """

    def __init__(
        self,
        graph: Graph,
        outputs: Sequence[str],
        n_rows: int = 1,
        n_channels: int | None = None,
    ) -> None:
        self._session = graph.session
        self._binding = binding = graph.session.io_binding()
        self.inputs: dict[str, Float32] = {}
        self.outputs: dict[str, Float32] = {}
        # The binding has the addresses alone.
        self._memory: list[Float32] = []
        for bind, views, names, shapes in (
            (binding.bind_input, self.inputs, graph.inputs, graph.inputs),
            (binding.bind_output, self.outputs, outputs, graph.output_shapes),
        ):
            lengths = [
                _lengths(shapes[name], graph.axes.get(name), n_rows, n_channels or 1)
                for name in names
            ]
            memory, wholes = _divided(lengths)
            self._memory.append(memory)
            for name, whole in zip(names, wholes, strict=True):
                bind(name, "cpu", 0, np.float32, whole.shape, whole.ctypes.data)
                axis = graph.axes.get(name)
                view = whole if axis is None else np.moveaxis(whole, axis, 0)
                is_one = axis is not None and n_channels is None
                views[name] = view[0] if is_one else view
        self.results = self._memory[-1]

    def run(self) -> bool:
        """Compute the outputs from the inputs; return whether all are finite."""
        self._session.run_with_iobinding(self._binding)
        return is_finite(self.results)


def _lengths(
    shape: Shape, axis: int | None, n_rows: int, n_channels: int
) -> tuple[int, ...]:
    lengths = [n_rows if length is None else length for length in shape]
    if axis is not None:
        lengths.insert(axis, n_channels)
    return tuple(lengths)


def _divided(shapes: Sequence[tuple[int, ...]]) -> tuple[Float32, list[Float32]]:
    """Return zeros, and the parts of them that have these shapes, 64 bytes apart."""
    sizes = [math.prod(shape) for shape in shapes]
    starts = [0]
    for size in sizes:
        starts.append(starts[-1] + -(-size // 16) * 16)
    memory = np.zeros(starts[-1], np.float32)
    parts = zip(starts, sizes, shapes, strict=False)
    return memory, [memory[at : at + n].reshape(shape) for at, n, shape in parts]


class RowStream:
    """Runs a graph over consecutive rows of one channel, and keeps its states.

    Parameters
    ----------
    graph : Graph
        Graph with one input of rows; all other inputs are states, which come back as
        the outputs ``NAME_next``.
    outputs : sequence of str
        Outputs to return, none of them a state.

    Attributes
    ----------
    are_finite : bool
        All outputs and states of the last call were finite.
    """

    def __init__(self, graph: Graph, outputs: Sequence[str]) -> None:
        self.are_finite = True
        self._graph = graph
        self._outputs = list(outputs)
        self._states = [n for n, shape in graph.inputs.items() if shape[:1] != (None,)]
        self._kept: dict[int, _Step] = {}
        self._last: _Step | None = None
        self._before: dict[str, Float32] = {}

    def reset(self) -> None:
        """Set all states to zeros."""
        self.states = {}

    @property
    def states(self) -> dict[str, Float32]:
        """States before the next row, by name; valid until the next call."""
        if self._last is not None:
            after = [state for state, _ in self._last.states]
            return dict(zip(self._states, after, strict=True))
        if self._before:
            return self._before
        shapes = self._graph.inputs
        return {
            n: np.zeros([k or 0 for k in shapes[n]], np.float32) for n in self._states
        }

    @states.setter
    def states(self, states: dict[str, Float32]) -> None:
        """Set the states before the next row."""
        self._before, self._last = states, None

    def run(self, rows: Float32) -> list[Float32]:
        """Return the outputs for rows that follow those of the last call.

        If a state is not finite afterwards, all states restart from zeros: with `tanh`
        gates they are unbounded.

        Parameters
        ----------
        rows : float32[n_rows, ...]
            At least one row, all finite.

        Returns
        -------
        list of float32[n_rows, ...]
            Valid until the next call, which writes to the same memory.
        """
        step = self._step_of(len(rows))
        if step is not self._last:
            before = self.states
            for name, (state, _) in zip(self._states, step.states, strict=True):
                state[...] = before[name]
            self._last = step
        step.rows[...] = rows
        self.are_finite = step.call.run()
        for state, after in step.states:
            state[...] = after
        if not self.are_finite and not all(is_finite(s) for s, _ in step.states):
            for state, _ in step.states:
                state[...] = 0.0
        return step.outputs

    def _step_of(self, n_rows: int) -> "_Step":
        step = self._kept.get(n_rows)
        if step is None:
            step = _Step(self._graph, self._states, self._outputs, n_rows)
            if len(self._kept) >= _MOST_KEPT:
                self._kept.clear()
            if n_rows <= _MOST_ROWS_KEPT:
                self._kept[n_rows] = step
        return step


class _Step:
    """Call for a number of rows: its rows, outputs, and states with their next ones."""

    def __init__(
        self, graph: Graph, states: Sequence[str], outputs: Sequence[str], n_rows: int
    ) -> None:
        after = [f"{name}_next" for name in states]
        self.call = BoundCall(graph, [*outputs, *after], n_rows)
        inputs, results = self.call.inputs, self.call.outputs
        (rows,) = inputs.keys() - set(states)
        self.rows = inputs[rows]
        self.outputs = [results[name] for name in outputs]
        self.states = [
            (inputs[n], results[m]) for n, m in zip(states, after, strict=True)
        ]
