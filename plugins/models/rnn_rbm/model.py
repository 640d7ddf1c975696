"""RNN-RBM: surprise of each frame, and frames that the model generates.

The model is a restricted Boltzmann machine whose biases a recurrent network sets for
each frame, from all frames before it (Boulanger-Lewandowski, Bengio and Vincent,
2012). Surprise is the divergence of a frame from its expectation after the frames
before it (see `surprise`), normalised by a running baseline. The free energy, which
equals it up to the log partition function, can be used instead.
"""

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neurovocal.engine import (
    BuildContext,
    BundleError,
    ConfigError,
    Event,
    Float32,
    Frames,
    Gap,
    ModelItem,
    Offset,
    Onset,
    Options,
    Plugin,
    Surprise,
)
from neurovocal.engine.contracts.batches import StageBatch
from neurovocal.plugins.features.inverse import InverseSpectrogram
from neurovocal.plugins.models.onnx.bound_call import RowStream
from neurovocal.plugins.models.onnx.session import (
    Golden,
    bundle_problems,
    finite,
    is_finite,
    require_bundle,
)
from neurovocal.plugins.models.rnn_rbm.audio_output import AudioSynthesis
from neurovocal.plugins.models.rnn_rbm.graphs import (
    check_golden,
    error_variance,
    scoring_graph,
)
from neurovocal.plugins.models.rnn_rbm.options import (
    FIXED,
    PrimeOptions,
    RnnRbmOptions,
    SayOptions,
)
from neurovocal.plugins.models.rnn_rbm.plan.sampler import (
    PlannedSampler,
    Planner,
    no_plan,
    parse_units,
)
from neurovocal.plugins.models.rnn_rbm.sampler import Sampler, sampling_graph
from neurovocal.plugins.models.rnn_rbm.seed_audio import seed_from_recording
from neurovocal.plugins.models.rnn_rbm.sequence import GenerationSeed
from neurovocal.plugins.models.rnn_rbm.surprise import Baseline, Divergence
from neurovocal.plugins.models.rnn_rbm.synthesis import SynthesisSetup, Synthesizer

# A frame with its state takes about a kilobyte: the past frames that a continuation
# may need are limited.
_FROM_LIVE = frozenset({"predict", "continue"})
_LONGEST_LATENCY_S = 30.0
_MARGIN_S = 0.5


class RnnRbm:
    """Streaming RNN-RBM with explicit state.

    Parameters
    ----------
    options : RnnRbmOptions
    context : BuildContext
        Context whose bundle has an RNN-RBM.

    Attributes
    ----------
    latency : int
        0: a frame's surprise is known with the frame.
    graph : Graph
        The network over frames.

    Raises
    ------
    BundleError
        There is no bundle, it does not fit, or it does not reproduce its golden
        vectors.
    ConfigError
        Mode ``continue`` with a detector that reports offsets too late; ``sound``
        with a front end that has no inverse.
    """

    latency = 0
    adjustable = frozenset(RnnRbmOptions.model_fields) - FIXED
    commands: Mapping[str, type[Options]] = MappingProxyType(
        {"prime": PrimeOptions, "say": SayOptions}
    )

    def __init__(self, options: RnnRbmOptions, context: BuildContext) -> None:
        bundle = require_bundle(context, "rnn_rbm")
        spec, front_end = bundle.manifest.rnn_rbm, bundle.manifest.front_end
        assert spec is not None
        if spec.n_visible != front_end.n_bins:
            raise BundleError(
                f"bundle '{bundle.folder}': rnn_rbm has n_visible {spec.n_visible}, "
                f"the front end makes {front_end.n_bins} bins"
            )
        self._bundle, self._context = bundle, context
        self._hop = front_end.hop_length
        zeros = np.zeros((spec.n_layers, spec.n_recurrent), np.float32)
        self._rest = GenerationSeed(np.zeros(spec.n_visible, np.float32), zeros)
        self.graph = scoring_graph(bundle, spec)
        self._sampling = sampling_graph(bundle, spec)
        self._planner: Planner | None = None
        golden = Golden(bundle)
        prediction = check_golden(golden, self.graph, self._sampling, zeros)
        frames_per_s = front_end.sample_rate / self._hop
        self._divergence: Divergence | None = None
        start = (spec.free_energy_mean, spec.free_energy_std)
        if options.surprise == "divergence":
            self._divergence = Divergence(error_variance(bundle, spec))
            known = self._divergence(golden.frames, prediction)[1:]
            start = (float(known.mean()), max(float(known.std()), 1e-3))
        self._stream = RowStream(self.graph, ["free_energy", "prediction", "states"])
        self._baseline = Baseline(*start, options.baseline_s * frames_per_s)
        self._warm_up = round(options.warm_up_ms / 1000 * frames_per_s)
        if self._divergence is not None:
            self._warm_up = max(1, self._warm_up)  # the first frame has no prediction
        latency_s = min(_latency_s(context), _LONGEST_LATENCY_S)
        look_back_s = latency_s + front_end.frame_length / front_end.sample_rate
        self._synthesis = Synthesizer(
            self._set_up(options, None),
            f"{bundle.manifest.name}/rnn_rbm",
            self._hop,
            front_end.frame_length,
            self._rest,
            keep=round((_MARGIN_S + look_back_s) * frames_per_s) + context.tile,
            tile=context.tile,
            frames_per_s=frames_per_s,
        )
        self.reset()

    @property
    def options(self) -> RnnRbmOptions:
        """Options in use."""
        return self._synthesis.setup.options

    def prepare(self, command: str, arguments: Options, /) -> SynthesisSetup:
        """Prepare new options; nothing changes yet.

        Raises
        ------
        ConfigError
            They do not fit this lane, or there is no such recording.
        """
        options = arguments
        units: tuple[int, ...] = ()
        if isinstance(arguments, SayOptions):
            units, options = self._units(arguments.units), self.options
        if isinstance(arguments, PrimeOptions):
            # Without a recording, the last segment is the seed, and the mode `free`.
            mode = "free" if arguments.path is None else "prime"
            path = arguments.path or self.options.prime
            changes = {"synthesis": mode, "prime": path}
            options = self.options.model_copy(update=changes)
        assert isinstance(options, RnnRbmOptions)
        problems = [
            *_latency_problems(options, _latency_s(self._context)),
            *_inverse_problems(options, self._context),
            *_privacy_problems(options, self._context),
            *_plan_problems(options, self._context),
        ]
        if problems:
            raise ConfigError(problems)
        return self._set_up(options, self._synthesis.setup, units)

    def _units(self, text: str) -> tuple[int, ...]:
        """Return the numbers of units in the bundle's plan."""
        spec = self._bundle.manifest.plan
        if spec is None:
            raise ConfigError(f"say: {no_plan(self._bundle)}")
        return parse_units(text, spec.units)

    def apply(self, command: str, prepared: SynthesisSetup, /) -> None:
        """Use new options from the next item on.

        Raises
        ------
        ConfigError
            The last segment is to be the seed, and no segment has ended yet; units
            are to be sung in mode ``predict``.
        """
        if command == "say":
            self._synthesis.say(prepared)
            return
        if command == "prime" and prepared.options.synthesis == "free":
            self._synthesis.prime_from_last_segment(prepared)
            return
        restart = command == "prime" or prepared.options.prime != self.options.prime
        self._synthesis.apply(prepared, restart=restart)

    def process(self, item: ModelItem, /) -> Iterable[Event]:
        """Return surprise of frames, and synthesis; a gap resets the state."""
        match item:
            case Frames():
                return self._process_frames(item)
            case Offset():
                return self._synthesis.process_offset(item)
            case Gap():
                self._reset_state()
                return self._synthesis.process_gap(item.stop)
            case Onset():
                return ()

    def advance(self, position: int) -> Iterable[Event]:
        """Generate frames up to sample `position` while no audio arrives."""
        return self._synthesis.advance(position)

    def flush(self) -> Iterable[Event]:
        """Return the end of the synthesized audio; nothing else is held back."""
        return self._synthesis.flush()

    def reset(self) -> None:
        """Drop state, baseline, past frames and sequence; keep the options."""
        self._reset_state()
        self._synthesis.reset()

    def _reset_state(self) -> None:
        self._stream.reset()
        self._warm_up_left = self._warm_up
        self._next: int | None = None
        self._baseline.reset()
        if self._divergence is not None:
            self._divergence.reset()

    def _set_up(
        self,
        options: RnnRbmOptions,
        now: SynthesisSetup | None,
        units: tuple[int, ...] = (),
    ) -> SynthesisSetup:
        """Prepare samplers, audio output and seed; keep those that stay the same."""
        sampler = Sampler(
            self._sampling,
            self._bundle,
            feedback=options.feedback,
            temperature=options.temperature,
            gibbs_steps=options.gibbs_steps,
        )
        audio = now.audio if now and options.sound else None
        if options.sound and audio is None:
            front_end = self._bundle.manifest.front_end
            audio = AudioSynthesis(InverseSpectrogram(front_end, self._bundle))
        is_same = now is not None and now.options.prime == options.prime
        seed = now.recording_seed if now and is_same else None
        if options.synthesis == "prime" and options.prime and seed is None:
            path = self._context.path(options.prime)
            seed = seed_from_recording(path, self._bundle, self.graph, self._rest)
        planned = None
        before = now.planned if now else None
        if options.synthesis == "planned" or units or before:
            planned = self._planned(options, before)
        return SynthesisSetup(options, sampler, audio, seed, planned, units)

    def _planned(
        self, options: RnnRbmOptions, before: PlannedSampler | None
    ) -> PlannedSampler:
        """Return a sampler after a plan; its network is opened when one is needed."""
        if self._planner is None:
            self._planner = Planner(self._bundle)
        plan = before.plan if before else None
        return PlannedSampler(
            self._planner,
            plan or self._planner.song_plan(),
            feedback=options.feedback,
            temperature=options.temperature,
            gibbs_steps=options.gibbs_steps,
        )

    @property
    def expected(self) -> int | None:
        """Next frame; None: any."""
        return self._next

    @property
    def state(self) -> Float32:
        """State before the next frame, float32[n_layers, n_recurrent]."""
        return self._stream.states["u"]

    def batch(self, stages: Sequence["RnnRbm"], /) -> StageBatch | None:
        """Return a batch of the models of several channels (`Batches`)."""
        from neurovocal.plugins.models.rnn_rbm.channels import RnnRbmBatch

        return RnnRbmBatch.of(stages)

    def _process_frames(self, frames: Frames) -> list[Event]:
        self.check_first(frames)
        values = finite(frames.values)
        outputs = self._stream.run(values)
        return self._publish(frames, values, outputs, self._stream.states["u"])

    def take_outputs(
        self, frames: Frames, values: Float32, outputs: Sequence[Float32]
    ) -> list[Event]:
        """Return surprise and synthesis of frames from the outputs of the graph.

        Parameters
        ----------
        frames : Frames
            As they came.
        values : float32[n_frames, n_visible]
            Their values, all finite.
        outputs : sequence
            Free energy, predictions, states and last state, with the stage's state
            before these frames as the input `u`.
        """
        # With `tanh` gates the state is unbounded: restart from zeros if it overflows.
        state = outputs[-1] if is_finite(outputs[-1]) else self._rest.state
        self._stream.states = {"u": state}
        return self._publish(frames, values, outputs[:-1], state)

    def _publish(
        self,
        frames: Frames,
        values: Float32,
        outputs: Sequence[Float32],
        state: Float32,
    ) -> list[Event]:
        """Return surprise and synthesis; `state` is the one before the next frame."""
        free_energy, prediction, states = outputs
        prediction = finite(prediction)
        measured: NDArray[np.floating[Any]] = free_energy
        if self._divergence is not None:
            measured = self._divergence(values, prediction)
        surprise = Surprise(frames.first, self._hop, self._surprise(measured))
        self._next = frames.first + len(values)
        synthesis = self._synthesis.process_frames(
            frames, values, prediction, states, state
        )
        return [surprise, *synthesis]

    def check_first(self, frames: Frames) -> None:
        """Raise ValueError, after a reset, for frames that do not follow the last."""
        expected = self._next
        if expected is not None and frames.first != expected:
            self.reset()
            raise ValueError(
                f"frames begin at {frames.first}, expected {expected}: missing frames "
                "must be declared as a Gap"
            )

    def _surprise(self, measured: NDArray[np.floating[Any]]) -> Float32:
        """Return the surprise of each frame, 0 during the warm-up."""
        if not self._warm_up_left:
            warm = finite(measured.astype(np.float32)).astype(np.float64)
            return self._baseline.normalise(warm)
        cold = min(self._warm_up_left, len(measured))
        self._warm_up_left -= cold
        surprise = np.zeros(len(measured), np.float32)
        if cold < len(measured):
            warm = finite(measured[cold:].astype(np.float32)).astype(np.float64)
            surprise[cold:] = self._baseline.normalise(warm)
        return surprise


def _check(options: RnnRbmOptions, context: BuildContext) -> Iterable[str]:
    yield from bundle_problems(context, "rnn_rbm")
    yield from _latency_problems(options, _latency_s(context))
    yield from _inverse_problems(options, context)
    yield from _privacy_problems(options, context)
    yield from _plan_problems(options, context)
    if options.prime is not None and not context.path(options.prime).is_file():
        yield f"prime: there is no recording '{options.prime}'"


def _inverse_problems(options: RnnRbmOptions, context: BuildContext) -> Iterable[str]:
    if options.sound and context.bundle is not None:
        try:
            InverseSpectrogram(context.bundle.manifest.front_end, context.bundle)
        except ConfigError as error:
            yield from error.problems


def _latency_s(context: BuildContext) -> float:
    if context.info is None:
        return 0.0
    return context.detector_latency / context.info.sample_rate


def _privacy_problems(options: RnnRbmOptions, context: BuildContext) -> Iterable[str]:
    if context.privacy != "off" and options.synthesis in _FROM_LIVE:
        yield (
            f"synthesis '{options.synthesis}' is drawn from live audio, which "
            f"privacy.mode '{context.privacy}' withholds, so that nothing of it would "
            "leave: choose synthesis 'free' or 'prime', or privacy.mode 'off'"
        )


def _plan_problems(options: RnnRbmOptions, context: BuildContext) -> Iterable[str]:
    bundle = context.bundle
    if options.synthesis == "planned" and bundle and bundle.manifest.plan is None:
        yield f"synthesis 'planned': {no_plan(bundle)}"


def _latency_problems(options: RnnRbmOptions, latency_s: float) -> Iterable[str]:
    if options.synthesis != "continue":
        return
    if latency_s > _LONGEST_LATENCY_S:
        yield (
            "synthesis 'continue' needs a detector that announces an offset within "
            f"{_LONGEST_LATENCY_S:g} s, this one takes up to {latency_s:g} s"
        )


def _build(options: RnnRbmOptions, context: BuildContext) -> RnnRbm:
    problems = list(_latency_problems(options, _latency_s(context)))
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
