"""Exported graphs in ONNX Runtime, and their differences from torch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from neurovocal.engine.contracts.errors import BundleError
from neurovocal.engine.contracts.types import Float32
from neurovocal.models.toolkit.files import write_file
from neurovocal.plugins.models.onnx.channels import (
    CHANNELS,
    add_channel,
    without_channel,
)
from neurovocal.plugins.models.onnx.session import open_session

STATE_TOLERANCE = 1e-5
OUTPUT_TOLERANCE = 1e-4
PERTURBATION = 1e-4
CONTRACTION_FRAMES = 1000


@dataclass(frozen=True, slots=True, eq=False)
class GraphExport:
    """Graphs of a bundle in writing, with their golden vectors and parity checks.

    Parameters
    ----------
    folder : Path
        Folder of the bundle.
    golden : dict of str to float32 array
        Inputs and expected outputs, the content of ``golden.npz``.
    parity : dict of str to dict
        Largest differences between torch and ONNX Runtime, by network.
    """

    folder: Path
    golden: dict[str, Float32] = field(default_factory=dict)
    parity: dict[str, dict[str, float]] = field(default_factory=dict)

    def save(self, graph: Any, name: str) -> Path:
        """Write a graph to the file `name` and return its path."""
        path = self.folder / name
        write_file(path, graph.SerializeToString())
        return path


class Session:
    """ONNX Runtime session of a graph, with inputs and outputs by name."""

    def __init__(self, path: Path) -> None:
        self._session = open_session(path)
        outputs = self._session.get_outputs()
        self._outputs = [output.name for output in outputs]
        self._in_shapes = {t.name: list(t.shape) for t in self._session.get_inputs()}
        self._out_axes = [_channel_axis(output.shape) for output in outputs]

    def run(self, **inputs: Any) -> dict[str, Float32]:
        """Run the graph once, for one channel, and return all outputs by name."""
        axes = {
            name: axis
            for name, values in inputs.items()
            if (axis := _channel_axis(self._in_shapes[name])) is not None
            and values.ndim < len(self._in_shapes[name])
        }
        results = self._session.run(self._outputs, add_channel(inputs, axes))
        if axes:
            results = without_channel(results, self._out_axes)
        return dict(zip(self._outputs, results, strict=True))


def _channel_axis(shape: Sequence[int | str | None]) -> int | None:
    return shape.index(CHANNELS) if CHANNELS in shape else None


def check_outputs(
    path: Path,
    inputs: dict[str, Float32],
    expected: dict[str, Float32],
    after: Mapping[str, Float32],
) -> dict[str, float]:
    """Compare a graph of rows and states with torch, over a state-threaded run.

    Parameters
    ----------
    path : Path
        File of the graph.
    inputs : dict of str to float32[T, ...]
        Input rows by the graph's names.
    expected : dict of str to float32[T, ...]
        Outputs that torch computes from the same rows.
    after : mapping of str to float32
        States that torch computes after the last row, by the names of the state
        inputs, which start at zeros.

    Returns
    -------
    dict
        Largest difference of each output and of the states, run row by row and in
        one call (``..._whole``), relative where values are above 1.

    Raises
    ------
    BundleError
        A difference exceeds its tolerance.
    """
    session = Session(path)
    state = {name: np.zeros_like(values) for name, values in after.items()}
    whole = session.run(**inputs, **state)
    rows: dict[str, list[Float32]] = {name: [] for name in expected}
    for row in range(len(next(iter(inputs.values())))):
        step = session.run(
            **{name: values[row : row + 1] for name, values in inputs.items()},
            **state,
        )
        state = {name: step[f"{name}_next"] for name in after}
        for name in expected:
            rows[name].append(step[name])
    found = {
        "states": max(max_relative_difference(state[n], after[n]) for n in after),
        "states_whole": max(
            max_relative_difference(whole[f"{n}_next"], state[n]) for n in after
        ),
    }
    for name, values in expected.items():
        single = np.concatenate(rows[name])
        found[name] = max_relative_difference(single, values)
        found[f"{name}_whole"] = max_relative_difference(whole[name], single)
    check_limits(path, found, np.inf)
    return found


def max_difference(found: Float32, expected: Float32) -> float:
    """Return the largest absolute difference; 0 for empty arrays."""
    return float(np.abs(found - expected).max(initial=0.0))


def max_relative_difference(found: Float32, expected: Float32) -> float:
    """Return the largest difference relative to max(1, abs(expected))."""
    scale = np.maximum(1.0, np.abs(expected))
    return float((np.abs(found - expected) / scale).max(initial=0.0))


def check_limits(path: Path, found: dict[str, float], contracted: float) -> None:
    """Raise if a difference exceeds its tolerance.

    Parameters
    ----------
    path : Path
        File of the graph, named in the error.
    found : dict of str to float
        Largest differences by name; names with ``state`` have the tolerance of
        states, ``contraction`` has the limit `contracted`.
    contracted : float
        Largest remainder of a perturbed state after `CONTRACTION_FRAMES` frames.

    Raises
    ------
    BundleError
        One sentence per exceeded tolerance.
    """
    problems = []
    for name, value in found.items():
        limit = OUTPUT_TOLERANCE
        if "state" in name:
            limit = STATE_TOLERANCE
        elif name == "contraction":
            limit = contracted
        if value <= limit:  # NaN is not
            continue
        if name == "contraction":
            problems.append(
                f"{path.name}: the recurrent state does not forget: a perturbation of "
                f"{PERTURBATION:g} is {value:.2g} after {CONTRACTION_FRAMES} frames "
                f"(at most {limit:g}): train longer or with stronger dropout, and an "
                "RNN-RBM with gates: sigmoid"
            )
        else:
            problems.append(
                f"{path.name}: torch and ONNX Runtime differ in {name} by "
                f"{value:.2g} ({limit:g} is allowed)"
            )
    if problems:
        raise BundleError(problems)
