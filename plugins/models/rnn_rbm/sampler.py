"""Sampler that draws frames from an RNN-RBM, one at a time.

One step updates the recurrent state with a frame, runs K Gibbs steps of the RBM that
the state conditions, and gives the next frame, which is the input of the following
step (Boulanger-Lewandowski, Bengio and Vincent, 2012, section 4). Randomness comes
from one seeded generator and enters the graph as an input, so that a seed gives the
same frames in every run.
"""

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

import numpy as np

from neurovocal.engine import Bundle, Float32
from neurovocal.engine.contracts.bundle import PlanSpec, RnnRbmSpec
from neurovocal.plugins.models.onnx.session import Graph, finite
from neurovocal.plugins.models.rnn_rbm.plan.song import SongPlan
from neurovocal.plugins.models.rnn_rbm.residual import load_residual

Feedback: TypeAlias = Literal["mean", "sampled", "mean_residual"]


def sampling_graph(bundle: Bundle, spec: RnnRbmSpec | PlanSpec) -> Graph:
    """Open the bundle's graph of one step; its tensors: docs/reference/bundle.md."""
    state = (spec.n_layers, spec.n_recurrent)
    inputs: dict[str, Any] = {
        "frame": (1, spec.n_visible),
        "u": state,
        "noise": (None, spec.n_hidden),
        "temperature": (),
    }
    file = spec.file if isinstance(spec, PlanSpec) else spec.sample_file
    if isinstance(spec, PlanSpec):
        inputs["condition"] = (1, spec.n_condition)
    return Graph(bundle, file, inputs, {"mean": (1, spec.n_visible), "u_next": state})


class Sampler:
    """Draws frames that continue a given frame and state.

    Parameters
    ----------
    graph : Graph
        From `sampling_graph`.
    bundle : Bundle
        Bundle of the graph.
    feedback : {'mean', 'sampled', 'mean_residual'}
        Next frame, from its expectation: the expectation itself; a draw from the
        visible units (0 or 1 for Bernoulli units, Gaussian with the bundle's `sigma`
        otherwise); the expectation plus noise like the model's one-step errors in this
        state.
    temperature : float
        Divides the hidden units' input and scales what is added to the expectation.
    gibbs_steps : int, optional
        Gibbs steps per frame; the bundle's number by default.
    plan : SongPlan, optional
        Plan that the frames follow, with the graph of `planned_graph`.

    Attributes
    ----------
    frame : float32[n_visible]
        The last frame, given or drawn.
    state : float32[n_layers, n_recurrent]
        The recurrent state before `frame`.
    plan : SongPlan or None
        Plan that the frames follow.

    Raises
    ------
    BundleError
        The bundle's residual file does not fit.
    """

    def __init__(
        self,
        graph: Graph,
        bundle: Bundle,
        *,
        feedback: Feedback = "mean_residual",
        temperature: float = 1.0,
        gibbs_steps: int | None = None,
        plan: SongPlan | None = None,
    ) -> None:
        manifest = bundle.manifest
        assert manifest.rnn_rbm is not None
        spec = manifest.rnn_rbm if plan is None else manifest.plan
        assert spec is not None
        self.plan = plan
        self._graph = graph
        self._n_visible, self._n_hidden = spec.n_visible, spec.n_hidden
        self._bernoulli = manifest.rnn_rbm.visible == "bernoulli"
        self._feedback = feedback
        self._noise_rows = spec.gibbs_steps if gibbs_steps is None else gibbs_steps
        self._temperature = np.array(temperature, np.float32)
        path = bundle.path(spec.residual_file)
        self._residual = load_residual(path, spec.n_visible, spec.n_recurrent)
        self._clip = (0.0, 1.0) if self._bernoulli else _clip_of(bundle)
        self._rng = np.random.Generator(np.random.SFC64(0))
        self.frame = np.zeros(spec.n_visible, np.float32)
        self.state = np.zeros((spec.n_layers, spec.n_recurrent), np.float32)

    def start(self, frame: Float32, state: Float32, seed: Sequence[int]) -> None:
        """Start after `frame`.

        Parameters
        ----------
        frame : float32[n_visible]
            The last frame.
        state : float32[n_layers, n_recurrent]
            The recurrent state before it.
        seed : sequence of int
            Seed of the randomness.
        """
        self.frame, self.state = frame, state
        self._rng = np.random.Generator(np.random.SFC64(np.random.SeedSequence(seed)))

    def copy_state(self, other: "Sampler") -> None:
        """Continue the sequence of another sampler, with its generator and plan."""
        self.frame, self.state, self._rng = other.frame, other.state, other._rng
        self.plan = other.plan

    def step(self) -> Float32:
        """Draw the next frame, float32[n_visible]."""
        noise = self._rng.random((self._noise_rows, self._n_hidden), dtype=np.float32)
        feed = {
            "frame": self.frame[None],
            "u": self.state,
            "noise": noise,
            "temperature": self._temperature,
        }
        if self.plan is not None:
            feed["condition"] = self.plan.row()[None]
        mean, state = self._graph.run(feed)
        self.state = finite(state)
        self.frame = self._draw(finite(mean)[0])
        return self.frame

    def draw(self, n_frames: int) -> Float32:
        """Draw the next frames, float32[n_frames, n_visible]; fewer if a plan ends."""
        frames = np.empty((n_frames, self._n_visible), np.float32)
        for number, row in enumerate(frames):  # each frame depends on the one before
            if self.plan is not None and self.plan.has_ended:
                return frames[:number]
            row[:] = self.step()
        return frames

    def _draw(self, mean: Float32) -> Float32:
        if self._feedback == "mean":
            return mean
        if self._feedback == "sampled" and self._bernoulli:
            drawn = self._rng.random(self._n_visible, dtype=np.float32) < mean
            return drawn.astype(np.float32)
        chance = 0.0
        if self._feedback == "mean_residual" and self._residual.is_mixture:
            chance = float(self._rng.random(dtype=np.float32))
        normal = self._rng.standard_normal(self._n_visible, dtype=np.float32)
        if self._feedback == "mean_residual":
            noise = self._residual.draw(self.state[-1], normal, chance)
        else:
            noise = self._residual.sigma * normal
        frame: Float32 = mean + self._temperature * noise
        if self._clip is not None:
            low, high = self._clip
            np.maximum(frame, np.float32(low), out=frame)
            np.minimum(frame, np.float32(high), out=frame)
        return frame


def _clip_of(bundle: Bundle) -> tuple[float, float] | None:
    """Return the range that the front end clips frames to, if it does."""
    scaling = bundle.manifest.front_end.options.get("scaling") or {}
    clip = scaling.get("clip")
    return (float(clip[0]), float(clip[1])) if clip else None
