"""Weights of a bundle's RNN-RBM, and traces of its variables over a song."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from neurovocal.engine.contracts.bundle import Bundle
from neurovocal.engine.contracts.registry import Registry
from neurovocal.engine.contracts.types import Float32, Frames, Surprise
from neurovocal.engine.lane.offline import context_of
from neurovocal.models.toolkit.onnx_session import Session
from neurovocal.plugins.models.onnx.session import graph_content

_NAMES = ("W", "bv", "bh", "Wuv", "Wuh")
_CHECKED_FRAMES = 50


@dataclass(frozen=True, slots=True, eq=False)
class Weights:
    """Parameters of the RBM and of its conditional biases.

    Parameters
    ----------
    W : float32[n_visible, n_hidden]
    bv, bh : float32[n_visible], float32[n_hidden]
    Wuv, Wuh : float32[n_recurrent, n_visible], float32[n_recurrent, n_hidden]
    sigma : float32[n_visible]
        Standard deviations of Gaussian visible units; ones otherwise.
    gaussian : bool
        Whether the visible units are Gaussian.
    """

    W: Float32
    bv: Float32
    bh: Float32
    Wuv: Float32
    Wuh: Float32
    sigma: Float32
    gaussian: bool

    def biases(self, before: Float32) -> tuple[Float32, Float32]:
        """Return the biases for the states before each frame.

        `before` is float32[n_frames, n_recurrent].
        ``bv_t = bv + u_{t-1} Wuv`` and ``bh_t = bh + u_{t-1} Wuh``
        (Boulanger-Lewandowski, Bengio and Vincent 2012, eq. 10 and 11).
        """
        return self.bv + before @ self.Wuv, self.bh + before @ self.Wuh

    def hidden(self, frames: Float32, bh: Float32) -> Float32:
        """Return E[h_t | v_t], float32[n_frames, n_hidden]."""
        return _sigmoid(frames / self.sigma @ self.W + bh)

    def visible(self, hidden: Float32, bv: Float32) -> Float32:
        """Return E[v_t | h_t], float32[n_frames, n_visible]."""
        field = hidden @ self.W.T
        if self.gaussian:
            return np.asarray(field * self.sigma + bv, np.float32)
        return _sigmoid(field + bv)

    def free_energy(self, frames: Float32, bv: Float32, bh: Float32) -> Float32:
        """Return F(v_t), float32[n_frames], as in the bundle's scoring graph."""
        soft = np.logaddexp(0, frames / self.sigma @ self.W + bh).sum(1)
        if self.gaussian:
            visible = 0.5 * np.square((frames - bv) / self.sigma).sum(1)
        else:
            visible = -(frames * bv).sum(1)
        return np.asarray(visible - soft, np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class NetworkTrace:
    """Variables of the RNN-RBM over the frames of a song.

    Parameters
    ----------
    frames : float32[n_frames, n_visible]
    prediction : float32[n_frames, n_visible]
        Row t is the prediction of frame t; row 0 is frame 0 itself.
    state_before, state_after : float32[n_frames, n_layers, n_recurrent]
        States before and after each frame.
    free_energy, surprise : float32[n_frames]
    """

    frames: Float32
    prediction: Float32
    state_before: Float32
    state_after: Float32
    free_energy: Float32
    surprise: Float32

    def slice(self, first: int, stop: int) -> "NetworkTrace":
        """Return the trace of frames `first` to `stop`."""
        names = self.__slots__
        return NetworkTrace(*(getattr(self, name)[first:stop] for name in names))


class TracedNetwork:
    """A bundle's RNN-RBM that records its variables, computed as in the engine.

    Parameters
    ----------
    bundle : Bundle
        Must have an RNN-RBM.
    """

    def __init__(self, bundle: Bundle) -> None:
        spec, front_end = bundle.manifest.rnn_rbm, bundle.manifest.front_end
        assert spec is not None
        self._session = Session(bundle.path(spec.file))
        self._zeros = np.zeros((spec.n_layers, spec.n_recurrent), np.float32)
        self._front_end = front_end
        plugin = Registry().get("model", "rnn_rbm")
        context = context_of(bundle, "report")
        self._model = plugin.build(plugin.options(), context)

    def __call__(self, frames: Float32) -> NetworkTrace:
        """Process float32[n_frames, n_visible] from the initial state of a stream."""
        found = self._session.run(frames=frames, u=self._zeros)
        prediction = np.concatenate([frames[:1], found["prediction"][:-1]])
        before = np.concatenate([self._zeros[None], found["states"][:-1]])
        self._model.reset()
        item = Frames(
            0, self._front_end.hop_length, self._front_end.frame_length, frames
        )
        surprise = [
            event.values
            for event in self._model.process(item)
            if isinstance(event, Surprise)
        ]
        return NetworkTrace(
            frames,
            prediction,
            before,
            found["states"],
            found["free_energy"],
            np.concatenate(surprise),
        )


def read_weights(bundle: Bundle, trace: NetworkTrace) -> Weights | None:
    """Read the weights from the graph of a bundle that this project's training wrote.

    Graphs of other exporters may have other names or meanings, so the free energy
    of the weights is compared with that of `trace`.

    Returns
    -------
    Weights or None
        None where names are missing or the free energy differs.
    """
    spec = bundle.manifest.rnn_rbm
    assert spec is not None
    path = bundle.path(spec.file)
    model = onnx.load_model_from_string(graph_content(path, f"'{path}'"))
    arrays = {
        tensor.name: numpy_helper.to_array(tensor)
        for tensor in model.graph.initializer
        if tensor.name in (*_NAMES, "sigma")
    }
    if not set(_NAMES) <= set(arrays):
        return None
    weights = Weights(
        arrays["W"],
        arrays["bv"],
        arrays["bh"],
        arrays["Wuv"],
        arrays["Wuh"],
        arrays.get("sigma", np.ones(spec.n_visible, np.float32)),
        spec.visible == "gaussian",
    )
    part = trace.slice(0, _CHECKED_FRAMES)
    try:
        biases = weights.biases(part.state_before[:, -1])
        computed = weights.free_energy(part.frames, *biases)
    except ValueError:  # shapes that do not fit each other
        return None
    agree = np.allclose(computed, part.free_energy, rtol=1e-3, atol=1e-2)
    return weights if agree else None


def _sigmoid(x: NDArray[Any]) -> Float32:
    return np.asarray(0.5 * (1 + np.tanh(0.5 * x)), np.float32)
