"""Run an exported graph with ONNX Runtime and compare it with torch."""

from pathlib import Path
from typing import Any

import numpy as np

from neurovocal.engine.contracts.errors import BundleError
from neurovocal.engine.contracts.types import Float32
from neurovocal.plugins.models.onnx.session import open_session

STATE_TOLERANCE = 1e-5
OUTPUT_TOLERANCE = 1e-4


class Session:
    """An exported graph, run by name."""

    def __init__(self, path: Path) -> None:
        self._session = open_session(path)
        self._outputs = [output.name for output in self._session.get_outputs()]

    def run(self, **inputs: Any) -> dict[str, Float32]:
        """Run once; all outputs by name."""
        results = self._session.run(self._outputs, inputs)
        return dict(zip(self._outputs, results, strict=True))


def check_outputs(
    path: Path,
    inputs: dict[str, Float32],
    state: str,
    expected: dict[str, Float32],
    after: Float32,
) -> dict[str, float]:
    """Same as `check_classifier`, for a graph with rows in, rows out and one state.

    Parameters
    ----------
    path : Path
    inputs : dict of str to float32[T, ...]
    state : str
        Name of the state, which begins with zeros.
    expected : dict of str to float32[T, ...]
        What torch says of the same rows.
    after : float32
        State after them, as torch says.
    """
    session = Session(path)
    whole = session.run(**inputs, **{state: np.zeros_like(after)})
    carried = np.zeros_like(after)
    rows: dict[str, list[Float32]] = {name: [] for name in expected}
    for at in range(len(next(iter(inputs.values())))):
        step = session.run(
            **{name: row[at : at + 1] for name, row in inputs.items()},
            **{state: carried},
        )
        carried = step[f"{state}_next"]
        for name in expected:
            rows[name].append(step[name])
    found = {"states": _absolute(carried, after)}
    found["states_whole"] = _absolute(whole[f"{state}_next"], carried)
    for name, values in expected.items():
        single = np.concatenate(rows[name])
        found[name] = _relative(single, values)
        found[f"{name}_whole"] = _relative(whole[name], single)
    _refuse(path, found, np.inf)
    return found


def _absolute(found: Float32, expected: Float32) -> float:
    return float(np.abs(found - expected).max(initial=0.0))


def _relative(found: Float32, expected: Float32) -> float:
    scale = np.maximum(1.0, np.abs(expected))
    return float((np.abs(found - expected) / scale).max(initial=0.0))


def _refuse(path: Path, found: dict[str, float], contracted: float) -> None:
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


PERTURBATION = 1e-4
CONTRACTION_FRAMES = 1000
