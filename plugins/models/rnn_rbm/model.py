"""RNN-RBM: how surprising each frame is, and frames as the model would go on.

The model is a restricted Boltzmann machine whose biases a recurrent network sets
anew for each frame, from all frames before it (Boulanger-Lewandowski, Bengio and
Vincent, 2012). Surprise is how far a frame lies from what the model expected after
its past (see `surprise`), over a running baseline. Its free energy
says the same only up to the log partition function, and can be had instead.
"""

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neurovocal.engine.contracts.errors import BundleError, ConfigError
from neurovocal.engine.contracts.options import Options
from neurovocal.engine.contracts.plugin import BuildContext, Plugin
from neurovocal.engine.contracts.stages import ModelItem
from neurovocal.engine.contracts.types import (
    Event,
    Float32,
    Frames,
    Gap,
    Offset,
    Onset,
    Surprise,
)
from neurovocal.plugins.features.inverse import InverseSpectrogram
from neurovocal.plugins.models.onnx.session import (
    Golden,
    bundle_of,
    finite,
    fit_problems,
)
from neurovocal.plugins.models.rnn_rbm.audio_output import AudioSynthesis
from neurovocal.plugins.models.rnn_rbm.graphs import (
    check_golden,
    error_variance,
    scoring_graph,
)
from neurovocal.plugins.models.rnn_rbm.options import FIXED, PrimeOptions, RnnRbmOptions
from neurovocal.plugins.models.rnn_rbm.sampler import Sampler, sampling_graph
from neurovocal.plugins.models.rnn_rbm.seed_audio import past_of_recording
from neurovocal.plugins.models.rnn_rbm.sequence import GenerationSeed
from neurovocal.plugins.models.rnn_rbm.surprise import Baseline, Divergence
from neurovocal.plugins.models.rnn_rbm.synthesis import Setting, Synthesizer

# A row of frame and state costs about a kilobyte: the past to continue from is
# limited, where posteriors need not be.
_LONGEST_LATENCY_S = 30.0
_MARGIN_S = 0.5


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
    adjustable = frozenset(RnnRbmOptions.model_fields) - FIXED
    commands: Mapping[str, type[Options]] = MappingProxyType({"prime": PrimeOptions})

    def __init__(self, options: RnnRbmOptions, context: BuildContext) -> None:
        bundle = bundle_of(context, "rnn_rbm")
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
        self._graph = scoring_graph(bundle, spec)
        self._drawing = sampling_graph(bundle, spec)
        golden = Golden(bundle)
        prediction = check_golden(golden, self._graph, self._drawing, zeros)
        frames_per_s = front_end.sample_rate / self._hop
        self._divergence: Divergence | None = None
        start = (spec.free_energy_mean, spec.free_energy_std)
        if options.surprise == "divergence":
            self._divergence = Divergence(error_variance(bundle, spec))
            known = self._divergence(golden.frames, prediction)[1:]
            start = (float(known.mean()), max(float(known.std()), 1e-3))
        self._baseline = Baseline(*start, options.baseline_s * frames_per_s)
        self._warm_up = round(options.warm_up_ms / 1000 * frames_per_s)
        if self._divergence is not None:
            self._warm_up = max(1, self._warm_up)  # nothing predicted the first frame
        latency_s = min(_latency_s(context), _LONGEST_LATENCY_S)
        look_back_s = latency_s + front_end.frame_length / front_end.sample_rate
        self._synthesis = Synthesizer(
            self._setting(options, None),
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
        """What it is set to now."""
        return self._synthesis.setting.options

    def prepare(self, command: str, arguments: Options, /) -> Setting:
        """Make new options ready; nothing changes yet.

        Raises
        ------
        ConfigError
            They do not fit this lane, or there is no such recording.
        """
        options = arguments
        if isinstance(arguments, PrimeOptions):
            # Without a recording, `free` goes on from the last segment.
            mode = "free" if arguments.path is None else "prime"
            path = arguments.path or self.options.prime
            changes = {"synthesis": mode, "prime": path}
            options = self.options.model_copy(update=changes)
        assert isinstance(options, RnnRbmOptions)
        problems = [
            *_late_offsets(options, _latency_s(self._context)),
            *_no_voice(options, self._context),
        ]
        if problems:
            raise ConfigError(problems)
        return self._setting(options, self._synthesis.setting)

    def apply(self, command: str, prepared: Setting, /) -> None:
        """Take over new options.

        Raises
        ------
        ConfigError
            To be primed from a segment, and none has ended yet.
        """
        if command == "prime" and prepared.options.synthesis == "free":
            self._synthesis.prime_from_last_segment(prepared)
            return
        primed = prepared.options.prime != self.options.prime
        self._synthesis.adopt(prepared, afresh=primed or command == "prime")

    def process(self, item: ModelItem, /) -> Iterable[Event]:
        """Surprise for frames, synthesis as asked; a gap resets the state."""
        match item:
            case Frames():
                return self._hear(item)
            case Offset():
                return self._synthesis.mark(item)
            case Gap():
                self._forget()
                return self._synthesis.gap(item.stop)
            case Onset():
                return ()

    def advance(self, position: int) -> Iterable[Event]:
        """Time has passed without audio, to a position in samples: songs go on."""
        return self._synthesis.advance(position)

    def flush(self) -> Iterable[Event]:
        """The rest of the sound; nothing else is held back."""
        return self._synthesis.end()

    def reset(self) -> None:
        """Forget state, baseline, history and song; options stay as they are."""
        self._forget()
        self._synthesis.reset()

    def _forget(self) -> None:
        self._state = self._rest.state
        self._cold = self._warm_up  # frames of the warm-up that are still to come
        self._next: int | None = None
        self._baseline.reset()
        if self._divergence is not None:
            self._divergence.reset()

    def _setting(self, options: RnnRbmOptions, now: Setting | None) -> Setting:
        """Options with sampler, voice and past; what has not changed is kept."""
        sampler = Sampler(
            self._drawing,
            self._bundle,
            feedback=options.feedback,
            temperature=options.temperature,
            gibbs_steps=options.gibbs_steps,
        )
        sounding = now.sounding if now and options.sound else None
        if options.sound and sounding is None:
            manifest = self._bundle.manifest
            sounding = AudioSynthesis(
                InverseSpectrogram(manifest.front_end, self._bundle.folder)
            )
        same = now is not None and now.options.prime == options.prime
        primed = now.primed if now and same else None
        if options.synthesis == "prime" and options.prime and primed is None:
            path = self._context.path(options.prime)
            primed = past_of_recording(path, self._bundle, self._graph, self._rest)
        return Setting(options, sampler, sounding, primed)

    def _hear(self, frames: Frames) -> list[Event]:
        self._expect(frames)
        values = finite(frames.values)
        free_energy, prediction, states, state = self._graph.run(
            {"frames": values, "u": self._state}
        )
        prediction = finite(prediction)
        measured: NDArray[np.floating[Any]] = free_energy
        if self._divergence is not None:
            measured = self._divergence(values, prediction)
        surprise = Surprise(frames.first, self._hop, self._judge(measured))
        before = np.concatenate([self._state[None], states[:-1]])
        # `tanh` gates leave the state unbounded: better forgetful than silent.
        self._state = state if np.isfinite(state).all() else self._rest.state
        self._next = frames.first + len(values)
        return [surprise, *self._synthesis.hear(frames, values, prediction, before)]

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


def _check(options: RnnRbmOptions, context: BuildContext) -> Iterable[str]:
    yield from fit_problems(context, "rnn_rbm")
    yield from _late_offsets(options, _latency_s(context))
    yield from _no_voice(options, context)
    if options.prime is not None and not context.path(options.prime).is_file():
        yield f"prime: there is no recording '{options.prime}'"


def _no_voice(options: RnnRbmOptions, context: BuildContext) -> Iterable[str]:
    if options.sound and context.bundle is not None:
        try:
            InverseSpectrogram(context.bundle.manifest.front_end, context.bundle.folder)
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
