"""RNN-RBM: how surprising each frame is, and frames as the model would go on.

The model is a restricted Boltzmann machine whose biases a recurrent network sets
anew for each frame, from all frames before it (Boulanger-Lewandowski, Bengio and
Vincent, 2012). Surprise is how far a frame lies from what the model expected after
its past (`neurovocal.plugins._divergence`), over a running baseline. Its free energy
says the same only up to the log partition function, and can be had instead.
"""

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator

from neurovocal.engine.errors import BundleError, ConfigError
from neurovocal.engine.manifest import Bundle, RnnRbmSpec
from neurovocal.engine.protocols import ModelItem
from neurovocal.engine.registry import BuildContext, Options, Plugin
from neurovocal.engine.types import (
    Event,
    Float32,
    Frames,
    Gap,
    Offset,
    Onset,
    Surprise,
    Synthesis,
)
from neurovocal.plugins._baseline import Baseline
from neurovocal.plugins._divergence import Divergence
from neurovocal.plugins._npz import read_npz
from neurovocal.plugins._onnx import Golden, Graph, bundle_of, finite, fit_problems
from neurovocal.plugins._row_history import RowHistory
from neurovocal.plugins._sampler import Feedback, Sampler, sampling_graph
from neurovocal.plugins._sounding import Sounding
from neurovocal.plugins._voice import Voice

# A row of frame and state costs about a kilobyte: the past to continue from is
# limited, where posteriors need not be.
_LONGEST_LATENCY_S = 30.0
_MARGIN_S = 0.5


class RnnRbmOptions(Options):
    """What the RNN-RBM gives besides surprise."""

    synthesis: Literal["off", "predict", "continue"] = "off"
    """`predict`: the expectation of the next frame at each live frame; `continue`:
    after each segment, frames drawn as the model would go on."""
    temperature: float = Field(default=1.0, gt=0)
    """Randomness of drawn frames: 1 is the model's own."""
    gibbs_steps: int | None = Field(default=None, ge=1)
    """Gibbs steps per drawn frame; the bundle's number by default."""
    seed: int = Field(default=0, ge=0)
    """Of all draws; a segment's frames depend on it and the segment alone."""
    continue_frames: int = Field(default=50, ge=1)
    """Frames that `continue` draws after a segment."""
    feedback: Feedback = "mean_residual"
    """What a drawn frame is, and what the next one follows: the expectation
    (`mean`), a draw from the visible units (`sampled`), or the expectation plus
    noise like the model's errors (`mean_residual`)."""
    surprise: Literal["divergence", "free_energy"] = "divergence"
    """What surprise is made of: how far a frame lies from the expected one, or its
    free energy, which tells foreign sounds from the bird's own less well."""
    sound: bool = False
    """Whether synthesized frames are turned into sound, too (`audio` events); this
    takes a fifth of a core for frames at 250 a second."""
    baseline_s: float = Field(default=60.0, gt=0)
    """Time constant of the running baseline of the surprise."""
    warm_up_ms: float = Field(default=100.0, ge=0)
    """Time after the start, and after a gap, in which the recurrent state is still
    settling: surprise is 0 there, and the baseline does not move."""

    @field_validator("synthesis", mode="before")
    @classmethod
    def _yaml_off(cls, value: object) -> object:
        # YAML 1.1 reads a bare `off` as false.
        return "off" if value is False else value


class RnnRbm:
    """Streaming RNN-RBM with explicit state.

    Parameters
    ----------
    options : RnnRbmOptions
    context : BuildContext
        Its bundle must have an RNN-RBM.

    Attributes
    ----------
    latency : int
        0: a frame's surprise is known with the frame.

    Raises
    ------
    BundleError
        No bundle, none that fits, or one whose golden vectors are not met.
    ConfigError
        Continuing segments of a detector that announces them too late; sound for
        a front end that has no inverse.
    """

    latency = 0
    adjustable = frozenset(
        {
            "continue_frames",
            "feedback",
            "gibbs_steps",
            "seed",
            "synthesis",
            "temperature",
        }
    )
    commands: Mapping[str, type[Options]] = MappingProxyType({})

    def __init__(self, options: RnnRbmOptions, context: BuildContext) -> None:
        bundle = bundle_of(context, "rnn_rbm")
        spec, front_end = bundle.manifest.rnn_rbm, bundle.manifest.front_end
        assert spec is not None
        if spec.n_visible != front_end.n_bins:
            raise BundleError(
                f"bundle '{bundle.folder}': rnn_rbm has n_visible {spec.n_visible}, "
                f"the front end makes {front_end.n_bins} bins"
            )
        self.options = options
        self._bundle, self._latency_s = bundle, _latency_s(context)
        self._name = f"{bundle.manifest.name}/rnn_rbm"
        self._hop, self._length = front_end.hop_length, front_end.frame_length
        self._zeros = np.zeros((spec.n_layers, spec.n_recurrent), np.float32)
        self._graph = _scoring_graph(bundle, spec)
        drawing = sampling_graph(bundle, spec)
        golden = Golden(bundle)
        prediction = _check_golden(golden, self._graph, drawing, self._zeros)
        self._drawing = drawing
        self._sampler = self._sampler_for(options)
        self._sounding = None
        if options.sound:
            self._sounding = Sounding(Voice(front_end, bundle.folder))
        frames_per_s = front_end.sample_rate / self._hop
        self._divergence: Divergence | None = None
        start = (spec.free_energy_mean, spec.free_energy_std)
        if options.surprise == "divergence":
            self._divergence = Divergence(_error_variance(bundle, spec))
            known = self._divergence(golden.frames, prediction)[1:]
            start = (float(known.mean()), max(float(known.std()), 1e-3))
        self._baseline = Baseline(*start, options.baseline_s * frames_per_s)
        self._warm_up = round(options.warm_up_ms / 1000 * frames_per_s)
        if self._divergence is not None:
            self._warm_up = max(1, self._warm_up)  # nothing predicted the first frame
        look_back = context.detector_latency + self._length
        keep = round(_MARGIN_S * frames_per_s) + look_back // self._hop + context.tile
        self._frames = RowHistory((spec.n_visible,), keep)
        self._states = RowHistory(self._zeros.shape, keep)
        self.reset()

    def prepare(
        self, command: str, arguments: Options, /
    ) -> tuple[RnnRbmOptions, Sampler]:
        """Sampler for new options; nothing changes yet.

        Raises
        ------
        ConfigError
            The new options do not fit this lane.
        """
        assert isinstance(arguments, RnnRbmOptions)
        problems = list(_late_offsets(arguments, self._latency_s))
        if problems:
            raise ConfigError(problems)
        return arguments, self._sampler_for(arguments)

    def obey(self, command: str, prepared: tuple[RnnRbmOptions, Sampler], /) -> None:
        """Take over new options."""
        self.options, self._sampler = prepared
        # Nothing was kept while nobody was to continue: begin anew.
        self._frames.clear()
        self._states.clear()

    def _sampler_for(self, options: RnnRbmOptions) -> Sampler:
        return Sampler(
            self._drawing,
            self._bundle,
            feedback=options.feedback,
            temperature=options.temperature,
            gibbs_steps=options.gibbs_steps,
        )

    def process(self, item: ModelItem, /) -> Iterable[Event]:
        """Surprise for frames, synthesis as asked; a gap resets the state."""
        match item:
            case Frames():
                return self._hear(item)
            case Offset() if self.options.synthesis == "continue":
                return self._continue(item)
            case Gap():
                events = self._silence()
                self.reset()
                return events
            case Onset() | Offset():
                pass
        return ()

    def flush(self) -> Iterable[Event]:
        """The rest of the sound; nothing else is held back."""
        return self._silence()

    def reset(self) -> None:
        """Forget state, baseline and history."""
        self._state = self._zeros
        self._cold = self._warm_up  # frames of the warm-up that are still to come
        self._next: int | None = None
        self._baseline.reset()
        if self._divergence is not None:
            self._divergence.reset()
        self._frames.clear()
        self._states.clear()
        if self._sounding:
            self._sounding.reset()

    def _hear(self, frames: Frames) -> list[Event]:
        self._expect(frames)
        values = finite(frames.values)
        free_energy, prediction, states, state = self._graph.run(
            {"frames": values, "u": self._state}
        )
        measured: NDArray[np.floating[Any]] = free_energy
        if self._divergence is not None:
            measured = self._divergence(values, finite(prediction))
        events: list[Event] = [Surprise(frames.first, self._hop, self._judge(measured))]
        if self.options.synthesis == "predict":
            first = frames.first + 1
            events += self._give(
                Synthesis(first, self._hop, finite(prediction), "predict", self._name)
            )
        else:
            events += self._silence()  # it was switched off
        if self.options.synthesis == "continue":
            self._frames.append(frames.first, values)
            before = np.concatenate([self._state[None], states[:-1]])
            self._states.append(frames.first, before)
        # `tanh` gates leave the state unbounded: better forgetful than silent.
        self._state = state if np.isfinite(state).all() else self._zeros
        self._next = frames.first + len(values)
        return events

    def _expect(self, frames: Frames) -> None:
        """Refuse frames that do not follow; what comes after them may go on."""
        expected = self._next
        if expected is not None and frames.first != expected:
            self.reset()
            raise ValueError(
                f"frames begin at {frames.first}, expected {expected}: missing frames "
                "must be declared as a Gap"
            )

    def _judge(self, measured: NDArray[np.floating[Any]]) -> Float32:
        """Surprise per frame, 0 while the state is cold."""
        cold = min(self._cold, len(measured))
        self._cold -= cold
        surprise = np.zeros(len(measured), np.float32)
        if cold < len(measured):
            warm = finite(measured[cold:].astype(np.float32)).astype(np.float64)
            surprise[cold:] = self._baseline.judge(warm)
        return surprise

    def _continue(self, mark: Offset) -> list[Event]:
        """Frames drawn after the last one that lies before the offset."""
        last = (mark.sample - self._length) // self._hop
        frame, state = self._frames.get(last), self._states.get(last)
        if frame is None or state is None:
            return []  # the segment lies in the first frame after a gap
        self._sampler.start(frame, state, (self.options.seed, mark.segment))
        drawn = self._sampler.draw(self.options.continue_frames)
        continuation = Synthesis(last + 1, self._hop, drawn, "continue", self._name)
        return [*self._give(continuation), *self._silence()]

    def _give(self, synthesis: Synthesis) -> list[Event]:
        sound = self._sounding.hear(synthesis) if self._sounding else ()
        return [synthesis, *sound]

    def _silence(self) -> list[Event]:
        """The end of the piece that sounds, if one does."""
        return [*self._sounding.end()] if self._sounding else []


def _scoring_graph(bundle: Bundle, spec: RnnRbmSpec) -> Graph:
    state = (spec.n_layers, spec.n_recurrent)
    return Graph(
        bundle,
        spec.file,
        {"frames": (None, spec.n_visible), "u": state},
        {
            "free_energy": (None,),
            "prediction": (None, spec.n_visible),
            "states": (None, *state),
            "u_next": state,
        },
    )


def _error_variance(bundle: Bundle, spec: RnnRbmSpec) -> Float32 | None:
    """Variance of the prediction's errors per bin, where units are Gaussian."""
    if spec.visible == "bernoulli":
        return None
    chol = read_npz(bundle.path(spec.residual_file), "residual file", "chol")["chol"]
    variance: Float32 = np.square(chol).sum(axis=1, dtype=np.float32)
    return variance


def _check_golden(
    golden: Golden, scoring: Graph, drawing: Graph, zeros: Float32
) -> Float32:
    """Compare all outputs with the golden ones; returns the predictions."""
    free_energy, prediction, states, last = scoring.try_run(
        {"frames": golden.frames, "u": zeros}
    )
    golden.check(scoring, "free_energy", free_energy)
    golden.check(scoring, "prediction", prediction)
    golden.check(scoring, "states_last", last)
    mean, _ = drawing.try_run(
        {
            "frame": golden.frames[-1:],
            "u": states[-2],
            "noise": golden["noise"],
            "temperature": np.array(1.0, np.float32),
        }
    )
    golden.check(drawing, "mean", mean)
    return finite(prediction)


def _check(options: RnnRbmOptions, context: BuildContext) -> Iterable[str]:
    yield from fit_problems(context, "rnn_rbm")
    yield from _late_offsets(options, _latency_s(context))
    yield from _no_voice(options, context)


def _no_voice(options: RnnRbmOptions, context: BuildContext) -> Iterable[str]:
    if options.sound and context.bundle is not None:
        try:
            Voice(context.bundle.manifest.front_end, context.bundle.folder)
        except ConfigError as error:
            yield from error.problems


def _latency_s(context: BuildContext) -> float:
    if context.info is None:
        return 0.0
    return context.detector_latency / context.info.sample_rate


def _late_offsets(options: RnnRbmOptions, latency_s: float) -> Iterable[str]:
    if options.synthesis != "continue":
        return
    if latency_s > _LONGEST_LATENCY_S:
        yield (
            "synthesis 'continue' needs a detector that announces an offset within "
            f"{_LONGEST_LATENCY_S:g} s, this one takes up to {latency_s:g} s"
        )


def _build(options: RnnRbmOptions, context: BuildContext) -> RnnRbm:
    problems = list(_late_offsets(options, _latency_s(context)))
    if problems:
        raise ConfigError(problems)
    return RnnRbm(options, context)


plugin = Plugin(
    kind="model",
    options=RnnRbmOptions,
    build=_build,
    summary="surprise per frame and synthesized frames from a bundle's RNN-RBM",
    check=_check,
)
