"""Session of a manifest's graph: checks of its tensors, posteriors of a window."""

import logging
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neurovocal.engine import ConfigError, Float32
from neurovocal.engine.config.located_yaml import Location
from neurovocal.engine.support.text import did_you_mean
from neurovocal.plugins.models.any_onnx.log_mel import LogMelFrontEnd
from neurovocal.plugins.models.any_onnx.manifest import (
    LoadedInput,
    LoadedManifest,
    State,
)
from neurovocal.plugins.models.onnx.session import finite, open_session

log = logging.getLogger("neurovocal")

_TYPE_OF = {
    "float32": "tensor(float)",
    "float64": "tensor(double)",
    "int64": "tensor(int64)",
    "int32": "tensor(int32)",
    "bool": "tensor(bool)",
}
_FLOAT = _TYPE_OF["float32"]


class WindowGraph:
    """Graph that takes windows of samples, with constants and recurrent state.

    Parameters
    ----------
    loaded : LoadedInput
        What the graph takes.
    outputs : sequence of (Location, str)
        Places in the manifest that name outputs, and these names.
    state : sequence of State
        Recurrent states.

    Raises
    ------
    ConfigError
        The graph and the manifest do not agree: each problem with the line of the
        manifest, the tensor's name and the shapes found and expected.
    """

    def __init__(
        self,
        loaded: LoadedInput,
        outputs: Sequence[tuple[Location, str]],
        state: Sequence[State] = (),
    ) -> None:
        self._loaded, self._states = loaded, state
        manifest = loaded.manifest
        where = loaded.problem(("graph",), f"'{loaded.graph}'")
        self._session = open_session(loaded.graph, where, is_trusted=loaded.is_trusted)
        problems = list(_tensor_problems(loaded, outputs, state, self._session))
        if problems:
            raise ConfigError(problems)
        lengths = loaded.axis_lengths()
        self._axes = manifest.input.axes
        self._shape = [lengths[axis] for axis in self._axes]
        self._front_end = None
        if manifest.log_mel is not None:
            self._front_end = LogMelFrontEnd(manifest.log_mel, manifest.sample_rate)
        self._constants = {each.tensor: each.array() for each in manifest.constants}
        self._outputs = [*(name for _, name in outputs), *(s.output for s in state)]
        self._n_outputs = len(outputs)
        self._state: dict[str, Float32] = {}
        self.reset()

    def reset(self) -> None:
        """Set the recurrent states to zero."""
        self._state = {
            state.input: np.zeros(state.shape, np.float32) for state in self._states
        }

    def run(self, samples: Float32) -> list[NDArray[Any]]:
        """Return the outputs for a window, and keep the states after it.

        Parameters
        ----------
        samples : float32[context + window]
            Samples that are not finite count as 0.
        """
        given = finite(samples) * np.float32(self._loaded.manifest.scaling)
        found = self._session.run(self._outputs, self._feed(given))
        states = found[self._n_outputs :]
        for state, array in zip(self._states, states, strict=True):
            self._state[state.input] = finite(array)
        return list(found[: self._n_outputs])

    def try_out(self) -> tuple[list[NDArray[Any]], list[str]]:
        """Run the graph on silence; the states stay as they are.

        Returns
        -------
        outputs : list of array
            The outputs.
        problems : list of str
            States whose shape is not that of the manifest.

        Raises
        ------
        ConfigError
            The graph does not take the input.
        """
        loaded, manifest = self._loaded, self._loaded.manifest
        silence = np.zeros(manifest.context + manifest.window, np.float32)
        try:
            found = self._session.run(self._outputs, self._feed(silence))
        except Exception as error:  # onnxruntime has no common error class
            reason = " ".join(str(error).split())[-200:]
            raise ConfigError(
                loaded.problem(
                    ("input",),
                    f"the graph does not take '{manifest.input.tensor}' of shape "
                    f"{self._shape} ({reason})",
                )
            ) from error
        states = found[self._n_outputs :]
        problems = [
            loaded.problem(
                ("state", number, "shape"),
                f"output '{state.output}' has shape {list(array.shape)}, the "
                f"manifest says {state.shape}",
            )
            for number, (state, array) in enumerate(
                zip(self._states, states, strict=True)
            )
            if list(array.shape) != state.shape
        ]
        return list(found[: self._n_outputs]), problems

    def _feed(self, samples: Float32) -> dict[str, NDArray[Any]]:
        name = self._loaded.manifest.input.tensor
        return {**self._constants, **self._state, name: self._arranged(samples)}

    def _arranged(self, samples: Float32) -> NDArray[Any]:
        """Return samples, or their log-mel bands, with the axes of the input."""
        if self._front_end is None:
            present = ["samples"]
            values = samples
        else:
            present = ["time", "mel"]
            values = self._front_end(samples)
        order = [axis for axis in self._axes if axis in present]
        values = values.transpose([present.index(axis) for axis in order])
        for position, axis in enumerate(self._axes):
            if axis not in present:
                values = np.expand_dims(values, position)
        return np.ascontiguousarray(np.broadcast_to(values, self._shape))


class OnnxNetwork:
    """Graph that turns a window of samples into posteriors, with recurrent state.

    Parameters
    ----------
    loaded : LoadedManifest
        The manifest.

    Raises
    ------
    ConfigError
        The graph and the manifest do not agree: each problem with the line of the
        manifest, the tensor's name and the shapes found and expected.
    """

    def __init__(self, loaded: LoadedManifest) -> None:
        self._loaded = loaded
        manifest = loaded.manifest
        outputs: list[tuple[Location, str]] = [
            (("output", "tensor"), manifest.output.tensor)
        ]
        self._graph = WindowGraph(loaded, outputs, manifest.state)
        self.reset = self._graph.reset
        self._told_not_finite = False
        self._try_out()

    def __call__(self, samples: Float32) -> Float32:
        """Return the posteriors of a window with its context, float32[n_labels].

        Samples and outputs that are not finite count as 0; of the latter, the first
        is told.

        Parameters
        ----------
        samples : float32[context + window]
        """
        manifest = self._loaded.manifest
        (values,) = self._graph.run(samples)
        if not self._told_not_finite and not np.isfinite(values).all():
            self._told_not_finite = True
            problem = f"'{manifest.output.tensor}' has values that are not finite"
            log.warning(
                "%s",
                self._loaded.problem(
                    ("output", "tensor"),
                    f"{problem}, which count as 0: compare input and scaling with "
                    "what the network was trained with",
                ),
            )
        rows = _activated(values, manifest.output.activation)
        rows = rows.reshape(-1, rows.shape[-1])
        pooled = rows.max(axis=0) if manifest.pool == "max" else rows.mean(axis=0)
        return np.clip(finite(pooled), 0.0, 1.0).astype(np.float32)

    def _try_out(self) -> None:
        """Run the graph on silence, and compare what comes out with the manifest."""
        loaded, manifest = self._loaded, self._loaded.manifest
        (values,), problems = self._graph.try_out()
        if values.ndim < 1 or values.shape[-1] != len(loaded.labels):
            labels = "labels" if manifest.labels else "labels_file"
            problems.insert(
                0,
                loaded.problem(
                    (labels,),
                    f"{_count(len(loaded.labels))}, but output "
                    f"'{manifest.output.tensor}' has shape {list(values.shape)}: its "
                    "last axis must have a value per label",
                ),
            )
        if problems:
            raise ConfigError(problems)


def _count(n_labels: int) -> str:
    return "there is 1 label" if n_labels == 1 else f"there are {n_labels} labels"


def _activated(values: NDArray[Any], activation: str) -> NDArray[Any]:
    given: NDArray[Any] = values.astype(np.float64)
    if activation == "sigmoid":
        halved: NDArray[Any] = np.tanh(0.5 * given)
        return 0.5 * (1.0 + halved)
    if activation == "softmax":
        powers: NDArray[Any] = np.exp(given - given.max(axis=-1, keepdims=True))
        sums: NDArray[Any] = powers.sum(axis=-1, keepdims=True)
        given = powers / sums
    return given


def _tensor_problems(
    loaded: LoadedInput,
    named: Sequence[tuple[Location, str]],
    states: Sequence[State],
    session: Any,
) -> Iterator[str]:
    """Yield a sentence per tensor in which graph and manifest differ."""
    manifest = loaded.manifest
    inputs = {tensor.name: tensor for tensor in session.get_inputs()}
    outputs = {tensor.name: tensor for tensor in session.get_outputs()}
    lengths = loaded.axis_lengths()
    stated: list[tuple[Location, str, str, list[int]]] = [
        (
            ("input",),
            manifest.input.tensor,
            _FLOAT,
            [lengths[axis] for axis in manifest.input.axes],
        )
    ]
    for number, constant in enumerate(manifest.constants):
        loc: Location = ("constants", number)
        kind = _TYPE_OF[constant.type]
        stated.append((loc, constant.tensor, kind, constant.shape))
    for number, state in enumerate(states):
        stated.append((("state", number), state.input, _FLOAT, state.shape))
    for loc, name, kind, shape in stated:
        key = "input" if loc[0] == "state" else "tensor"
        tensor = inputs.get(name)
        if tensor is None:
            yield loaded.problem((*loc, key), no_tensor("input", name, inputs))
        elif tensor.type != kind:
            yield loaded.problem(
                (*loc, key),
                f"input '{name}' is a {tensor.type}, the manifest gives a {kind}",
            )
        elif not _fits(tensor.shape, shape):
            yield loaded.problem(
                (*loc, key),
                f"input '{name}' has shape {_text(tensor.shape)}, the manifest gives "
                f"{shape}",
            )
    given = [name for _, name, _, _ in stated]
    for name in sorted({name for name in given if given.count(name) > 1}):
        yield loaded.problem((), f"input '{name}' is given twice")
    left = [name for name in inputs if name not in given]
    if left:
        yield loaded.problem(
            (),
            f"the graph has the input{'s' * (len(left) > 1)} "
            f"{', '.join(repr(n) for n in left)}, which the manifest does not give: "
            "add it under 'constants' or 'state'",
        )
    wanted = list(named)
    for number, state in enumerate(states):
        wanted.append((("state", number, "output"), state.output))
    for loc, name in wanted:
        if name not in outputs:
            yield loaded.problem(loc, no_tensor("output", name, outputs))
        elif outputs[name].type != _FLOAT:
            yield loaded.problem(
                loc, f"output '{name}' is a {outputs[name].type}, not {_FLOAT}"
            )


def no_tensor(role: str, name: str, known: dict[str, Any]) -> str:
    """Return a sentence about a tensor that a graph lacks, with those that it has."""
    meant = did_you_mean(name, sorted(known), "it has:")
    return f"the graph has no {role} '{name}' ({meant})"


def _fits(found: Sequence[int | str | None], stated: Sequence[int]) -> bool:
    """Return True if a graph's shape, with names for free lengths, can be `stated`."""
    return len(found) == len(stated) and all(
        not isinstance(length, int) or length == wanted
        for length, wanted in zip(found, stated, strict=True)
    )


def _text(shape: Sequence[int | str | None]) -> str:
    return f"[{', '.join(str(n) if isinstance(n, int) else 'any' for n in shape)}]"
