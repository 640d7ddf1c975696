"""Frame-wise classifier network of a bundle, with its recurrent state."""

import numpy as np

from neurovocal.engine import Bundle, BundleError, Float32
from neurovocal.plugins.models.onnx.bound_call import RowStream
from neurovocal.plugins.models.onnx.session import Golden, Graph, finite


class FrameNetwork:
    """Runs ``classifier.onnx`` and keeps its recurrent state.

    Parameters
    ----------
    bundle : Bundle
        Bundle with a classifier.

    Raises
    ------
    BundleError
        The graph does not fit, or does not reproduce its golden vectors.
    """

    def __init__(self, bundle: Bundle) -> None:
        spec, n_bins = bundle.manifest.classifier, bundle.manifest.front_end.n_bins
        assert spec is not None
        states = {name: tuple(shape) for name, shape in spec.state.items()}
        self._graph = Graph(
            bundle,
            spec.file,
            {"frames": (None, n_bins), **states},
            {
                "logits": (None, len(spec.units)),
                **{f"{name}_next": shape for name, shape in states.items()},
            },
        )
        golden = Golden(bundle)
        zeros = {name: np.zeros(shape, np.float32) for name, shape in states.items()}
        logits = self._graph.try_run({"frames": golden.frames, **zeros})[0]
        golden.check(self._graph, "logits", logits)
        if logits.shape[1] != len(spec.units):
            raise BundleError(
                f"{self._graph.where} gives {logits.shape[1]} logits, the manifest "
                f"names {len(spec.units)} units"
            )
        self._stream = RowStream(self._graph, ["logits"])

    def reset(self) -> None:
        """Set the state to zeros."""
        self._stream.reset()

    @property
    def _state(self) -> dict[str, Float32]:
        """State by name; read and set where channels run together."""
        return self._stream.states

    @_state.setter
    def _state(self, state: dict[str, Float32]) -> None:
        self._stream.states = state

    def __call__(self, frames: Float32) -> Float32:
        """Return logits float32[n_frames, n_units], and update the state.

        All are finite. They are valid until the next call.
        """
        stream = self._stream
        (logits,) = stream.run(finite(frames))
        return logits if stream.are_finite else finite(logits)
