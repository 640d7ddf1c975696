"""Frame-wise classifier network of a bundle, with its recurrent state."""

import numpy as np

from neurovocal.engine import Bundle, BundleError, Float32
from neurovocal.plugins.models.history import Float64
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
        self._zeros = {
            name: np.zeros(shape, np.float32) for name, shape in spec.state.items()
        }
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
        logits = self._graph.try_run({"frames": golden.frames, **self._zeros})[0]
        golden.check(self._graph, "logits", logits)
        if logits.shape[1] != len(spec.units):
            raise BundleError(
                f"{self._graph.where} gives {logits.shape[1]} logits, the manifest "
                f"names {len(spec.units)} units"
            )
        self.reset()

    def reset(self) -> None:
        """Set the state to zeros."""
        self._state = self._zeros

    def __call__(self, frames: Float32) -> Float64:
        """Return log-posteriors float64[n_frames, n_units], and update the state."""
        feed = {"frames": finite(frames), **self._state}
        logits, *states = self._graph.run(feed)
        self._state = dict(zip(self._zeros, states, strict=True))
        for state in states:
            # With `tanh` gates it is unbounded: restart from zeros if it overflows.
            if not np.logical_and.reduce(np.isfinite(state), axis=None):
                self._state = self._zeros
        return log_softmax(finite(logits))


def log_softmax(logits: Float32) -> Float64:
    """Return the log-posteriors float64[..., n_units] of logits."""
    scores = logits.astype(np.float64)
    scores -= np.maximum.reduce(scores, axis=-1, keepdims=True)
    scores -= np.log(np.add.reduce(np.exp(scores), axis=-1, keepdims=True))
    return scores
