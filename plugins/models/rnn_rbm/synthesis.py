"""Modes of synthesis: which frames are generated when, and their audio."""

from dataclasses import dataclass

import numpy as np

from neurovocal.engine import (
    Audio,
    ConfigError,
    Event,
    Float32,
    Frames,
    Offset,
    Synthesis,
)
from neurovocal.plugins.models.history import RowHistory
from neurovocal.plugins.models.rnn_rbm.audio_output import AudioSynthesis
from neurovocal.plugins.models.rnn_rbm.options import RnnRbmOptions
from neurovocal.plugins.models.rnn_rbm.plan.sampler import PlannedSampler
from neurovocal.plugins.models.rnn_rbm.sampler import Sampler
from neurovocal.plugins.models.rnn_rbm.sequence import (
    GeneratedSequence,
    GenerationSeed,
    SilenceDetector,
)

# Modes that draw from the network with a plan; `say` is that of the command.
_PLANNED = frozenset({"planned", "say"})
# Frames drawn in one call, unless a tile is longer: a lane must not wait long for it.
_MOST_FRAMES = 16


@dataclass(frozen=True, slots=True, eq=False)
class SynthesisSetup:
    """Options with the objects prepared for them.

    Parameters
    ----------
    options : RnnRbmOptions
    sampler : Sampler
        Sampler with these options, not started.
    audio : AudioSynthesis or None
        Audio output, with the option ``sound``.
    recording_seed : GenerationSeed or None
        Seed of the mode ``prime``.
    planned : PlannedSampler or None
        Sampler after a plan, with these options; None until one is needed.
    units : tuple of int
        Units of the command ``say``, from 1.
    """

    options: RnnRbmOptions
    sampler: Sampler
    audio: AudioSynthesis | None
    recording_seed: GenerationSeed | None
    planned: PlannedSampler | None = None
    units: tuple[int, ...] = ()


class Synthesizer:
    """Generates frames as the modes require.

    The stream's position in frames is the clock. An unlimited sequence keeps up with
    it through silence, gaps and, by `advance`, a source that delivers nothing. Frames
    that were drawn ahead of the stream are not drawn again when the stream arrives.

    Parameters
    ----------
    setup : SynthesisSetup
        Initial options.
    model : str
        Name in events.
    hop_length, frame_length : int
        Of the frames, in samples.
    rest : GenerationSeed
        Seed of the mode ``free``: a frame and a state of zeros.
    keep : int
        Past frames that a continuation may need.
    tile : int
        Frames per tile of the lane.
    frames_per_s : float
        Frames of one second: a sequence that is further behind skips frames.
    """

    def __init__(
        self,
        setup: SynthesisSetup,
        model: str,
        hop_length: int,
        frame_length: int,
        rest: GenerationSeed,
        *,
        keep: int,
        tile: int,
        frames_per_s: float,
    ) -> None:
        self.setup = setup
        self._model = model
        self._hop, self._length = hop_length, frame_length
        self._rest = rest
        self._most_frames = max(_MOST_FRAMES, 2 * tile)
        self._most_behind = max(round(frames_per_s), self._most_frames)
        self._frames = RowHistory(rest.frame.shape, keep)
        self._states = RowHistory(rest.state.shape, keep + 1)
        self._margin = round(frames_per_s / 2)
        self.reset()

    def reset(self) -> None:
        """Drop the sequence and all past frames."""
        self._frames.reset()
        self._states.reset()
        self._sequence: GeneratedSequence | None = None
        self._last_segment: GenerationSeed | None = None
        self._position = 0
        self._n_said = 0
        self._ended_audio: list[Audio] = []
        if self.setup.audio:
            self.setup.audio.reset()

    def apply(self, setup: SynthesisSetup, *, restart: bool = False) -> None:
        """Use other options from the next frame on.

        A sequence continues when temperature, feedback and the like change, and when
        the mode becomes ``free``; it ends when the mode becomes another one.

        Parameters
        ----------
        setup : SynthesisSetup
        restart : bool
            Whether an unlimited sequence is to begin again from its seed.
        """
        before, self.setup = self.setup, setup
        sequence, mode = self._sequence, setup.options.synthesis
        if before.audio and before.audio is not setup.audio:
            self._ended_audio += before.audio.flush()
        if sequence is None:
            if mode != before.options.synthesis and setup.audio:
                self._ended_audio += setup.audio.flush()  # of predictions
            return
        if self._ends_with(before.options.synthesis, mode, sequence) or restart:
            self._stop()
            return
        planned = setup.planned
        is_planned = sequence.mode in _PLANNED and planned is not None
        sequence.use_sampler(planned if is_planned and planned else setup.sampler)
        sampler = sequence.sampler
        if setup.options.seed != before.options.seed:
            sampler.start(sampler.frame, sampler.state, (setup.options.seed,))
        if mode == "free" and sequence.mode != "free":
            self._sequence = GeneratedSequence(
                sampler,
                sequence.next,
                mode,
                self._model,
                from_live=sequence.from_live,
            )

    @staticmethod
    def _ends_with(before: str, mode: str, sequence: GeneratedSequence) -> bool:
        """Return whether a change of the mode ends the sequence."""
        if sequence.mode == "say":
            return mode != before
        # The networks of free and of planned song have different states.
        goes_on = mode == "free" and sequence.mode != "planned"
        return mode != sequence.mode and not goes_on

    def say(self, setup: SynthesisSetup) -> None:
        """Use other options, and sing the units of `setup` next.

        Raises
        ------
        ConfigError
            In the mode ``predict``, in which each live frame has a synthesized one.
        """
        if setup.options.synthesis == "predict":
            raise ConfigError(
                "say: mode 'predict' synthesizes every frame already: set "
                "synthesis=off, or planned, first"
            )
        assert setup.planned is not None
        self.setup = setup
        sequence = self._sequence
        if sequence is not None and sequence.mode in _PLANNED:
            plan = sequence.sampler.plan
            assert plan is not None
            plan.say(setup.units)
            return
        self._stop()
        self._n_said += 1
        self._start_planned("say", (setup.options.seed, self._n_said), setup.units)

    def prime_from_last_segment(self, setup: SynthesisSetup) -> None:
        """Use other options, and begin a sequence after the last live segment.

        Raises
        ------
        ConfigError
            No segment has ended yet.
        """
        if self._last_segment is None:
            raise ConfigError("prime: no segment has ended yet; name a recording")
        self.apply(setup, restart=True)
        self._start("prime", self._last_segment, self._position)

    def process_frames(
        self,
        frames: Frames,
        values: Float32,
        prediction: Float32,
        states: Float32,
        state: Float32,
    ) -> list[Event]:
        """Add live frames, and generate up to their position.

        Parameters
        ----------
        frames : Frames
        values : float32[n_frames, n_visible]
            Values of `frames`, all finite.
        prediction : float32[n_frames, n_visible]
            Expectation of the frame after each of them; it is copied if it is kept.
        states : float32[n_frames, n_layers, n_recurrent]
            States after each of them; they are copied.
        state : float32[n_layers, n_recurrent]
            State before the next frame: the last one, or zeros if that overflowed.
        """
        events = self._take_ended_audio()
        first, mode = frames.first, self.setup.options.synthesis
        if self._frames.stop == self._frames.first:
            self._states.append(first, self._rest.state[None])
        self._frames.append(first, values)
        rows = self._states.extend(first + 1, len(states))
        rows[...] = states
        rows[-1] = state
        if mode == "predict":
            made = prediction.copy()
            events += self._with_audio(
                Synthesis(first + 1, self._hop, made, mode, self._model)
            )
        elif mode == "off" and self._sequence is None:
            self._position = max(self._position, first + len(values))
            return events
        self._start_unlimited(frames.first)
        return events + self._generate(frames.first + len(values))

    def process_offset(self, offset: Offset) -> list[Event]:
        """Keep the end of a segment as a seed; in mode ``continue``, continue it."""
        last = (offset.sample - self._length) // self._hop
        frame, state = self._frames.get(last), self._states.get(last)
        if frame is None or state is None:
            return []  # the segment lies in the first frame after a gap
        self._last_segment = GenerationSeed(frame, state, from_live=True)
        options = self.setup.options
        if options.synthesis != "continue":
            return []
        if self._sequence is not None and self._sequence.mode == "say":
            return []
        self._stop()
        events = self._take_ended_audio()
        silence = None
        if options.continue_until == "silence":
            silence = SilenceDetector(self._silence_level(offset, last))
        self._start(
            "continue",
            self._last_segment,
            last + 1,
            random_seed=(options.seed, offset.segment),
            n_frames=options.continue_frames,
            silence=silence,
        )
        return events + self._generate(self._position)

    def process_gap(self, position: int) -> list[Event]:
        """Drop all past frames at a gap that ends at sample `position`.

        A sequence continues; the audio of predictions ends.
        """
        self._frames.reset()
        self._states.reset()
        if self._sequence is None and self.setup.audio:
            self._ended_audio += self.setup.audio.flush()
        return self.advance(position)

    def advance(self, position: int) -> list[Event]:
        """Generate up to sample `position`, whether or not audio has arrived."""
        events = self._take_ended_audio()
        self._start_unlimited(self._position)
        return events + self._generate(max(self._position, position // self._hop))

    def flush(self) -> list[Event]:
        """End the sequence, and return the end of its audio."""
        self._stop()
        return self._take_ended_audio()

    def _start_unlimited(self, first: int) -> None:
        """Start the sequence of the mode ``free`` or ``prime``, unless it runs."""
        mode = self.setup.options.synthesis
        if self._sequence is not None:
            return
        first = max(first, self._position)
        if mode == "free":
            self._start(mode, self._rest, first)
        elif mode == "prime":
            self._start(mode, self.setup.recording_seed or self._rest, first)
        elif mode == "planned":
            self._position = first
            self._start_planned(mode, (self.setup.options.seed,), ())

    def _start_planned(
        self, mode: str, random_seed: tuple[int, ...], units: tuple[int, ...]
    ) -> None:
        """Start a song after a plan; one without units has no end."""
        sampler = self.setup.planned
        assert sampler is not None
        sampler.begin(units, random_seed, free=mode == "planned")
        self._sequence = GeneratedSequence(sampler, self._position, mode, self._model)

    def _start(
        self,
        mode: str,
        seed: GenerationSeed,
        first: int,
        *,
        random_seed: tuple[int, ...] | None = None,
        n_frames: int | None = None,
        silence: SilenceDetector | None = None,
    ) -> None:
        sampler = self.setup.sampler
        numbers = random_seed or (self.setup.options.seed,)
        sampler.start(seed.frame, seed.state, numbers)
        self._sequence = GeneratedSequence(
            sampler,
            first,
            mode,
            self._model,
            n_frames=n_frames,
            from_live=seed.from_live,
            silence=silence,
        )

    def _generate(self, position: int) -> list[Event]:
        """Draw frames of the sequence up to a position in frames."""
        self._position = max(self._position, position)
        sequence = self._sequence
        if sequence is None:
            return []
        stop = self._position
        if sequence.mode != "continue" and self.setup.options.pace == "fast":
            stop = max(stop, sequence.next + self._most_frames)
        if stop - sequence.next > self._most_behind:
            sequence.skip_to(stop - self._most_frames)
        synthesis = sequence.draw(stop, self._most_frames, self._hop)
        events = [] if synthesis is None else self._with_audio(synthesis)
        if sequence.has_ended:
            self._stop()
            events += self._take_ended_audio()
        return events

    def _stop(self) -> None:
        """End the sequence; the end of its audio follows with the next events."""
        self._sequence = None
        if self.setup.audio:
            self._ended_audio += self.setup.audio.flush()

    def _with_audio(self, synthesis: Synthesis) -> list[Event]:
        audio = self.setup.audio
        return [synthesis, *(audio.process(synthesis) if audio else ())]

    def _take_ended_audio(self) -> list[Event]:
        events: list[Event] = [*self._ended_audio]
        self._ended_audio = []
        return events

    def _silence_level(self, offset: Offset, last: int) -> float:
        """Return the middle of a segment's mean level and the quietest around it."""
        first = min(last, offset.onset // self._hop)
        around = range(max(first, last - self._margin) - self._margin, self._position)
        rows = {frame: self._frames.get(frame) for frame in around}
        means = {k: float(row.mean()) for k, row in rows.items() if row is not None}
        loud = [mean for k, mean in means.items() if first <= k <= last]
        return float(np.mean([np.mean(loud), min(means.values())]))
