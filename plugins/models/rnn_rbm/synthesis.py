"""Modes of synthesis: which frames are drawn when, and their sound."""

from dataclasses import dataclass

import numpy as np

from neurovocal.engine.contracts.errors import ConfigError
from neurovocal.engine.contracts.types import (
    Audio,
    Event,
    Float32,
    Frames,
    Offset,
    Synthesis,
)
from neurovocal.plugins.models.history import RowHistory
from neurovocal.plugins.models.rnn_rbm.audio_output import AudioSynthesis
from neurovocal.plugins.models.rnn_rbm.options import RnnRbmOptions
from neurovocal.plugins.models.rnn_rbm.sampler import Sampler
from neurovocal.plugins.models.rnn_rbm.sequence import (
    GeneratedSequence,
    GenerationSeed,
    SilenceDetector,
)

# Frames drawn in one go, unless a tile is longer: nothing waits long for a song.
_MOST = 16


@dataclass(frozen=True, slots=True, eq=False)
class Setting:
    """Options with what they need, made ready beforehand.

    Parameters
    ----------
    options : RnnRbmOptions
    sampler : Sampler
        With these options, not started.
    sounding : Sounding or None
        If there is to be sound.
    primed : Past or None
        What mode ``prime`` goes on from.
    """

    options: RnnRbmOptions
    sampler: Sampler
    sounding: AudioSynthesis | None
    primed: GenerationSeed | None


class Synthesizer:
    """Draws frames as the modes want it.

    The song clock is the stream's position in frames. A song without end keeps up
    with it, whatever happens to the live sound: silence, a gap, or, by `advance`, a
    source that delivers nothing. What was drawn ahead of the stream is not drawn
    again when the stream comes along.

    Parameters
    ----------
    setting : Setting
        To begin with.
    model : str
        Name in events.
    hop_length, frame_length : int
        Of the frames.
    rest : Past
        What ``free`` begins from.
    keep : int
        Frames of the past that a continuation may have to look back.
    tile : int
        Frames per quantum.
    frames_per_s : float
        How far a song may fall behind before it leaps: a second.
    """

    def __init__(
        self,
        setting: Setting,
        model: str,
        hop_length: int,
        frame_length: int,
        rest: GenerationSeed,
        *,
        keep: int,
        tile: int,
        frames_per_s: float,
    ) -> None:
        self.setting = setting
        self._model = model
        self._hop, self._length = hop_length, frame_length
        self._rest = rest
        self._most = max(_MOST, 2 * tile)
        self._leap = max(round(frames_per_s), self._most)
        self._frames = RowHistory(rest.frame.shape, keep)
        self._states = RowHistory(rest.state.shape, keep)
        self._margin = round(frames_per_s / 2)
        self.reset()

    def reset(self) -> None:
        """Forget the song and everything heard."""
        self._frames.clear()
        self._states.clear()
        self._song: GeneratedSequence | None = None
        self._last_segment: GenerationSeed | None = None
        self._clock = 0
        self._ending: list[Audio] = []
        if self.setting.sounding:
            self.setting.sounding.reset()

    def adopt(self, setting: Setting, *, afresh: bool = False) -> None:
        """Other options from the next frame on.

        A song goes on through changes of temperature, feedback and the like, and from
        any song into ``free``; it ends where the new mode has none.

        Parameters
        ----------
        setting : Setting
        afresh : bool
            Whether a song without end is to begin anew.
        """
        before, self.setting = self.setting, setting
        song, mode = self._song, setting.options.synthesis
        if before.sounding and before.sounding is not setting.sounding:
            self._ending += before.sounding.end()
        if song is None:
            if mode != before.options.synthesis and setting.sounding:
                self._ending += setting.sounding.end()  # of predictions
            return
        if afresh or (mode != song.mode and mode != "free"):
            self._stop()
            return
        song.follow(setting.sampler)
        if setting.options.seed != before.options.seed:
            song.sampler.start(
                song.sampler.frame, song.sampler.state, (setting.options.seed,)
            )
        if mode == "free" and song.mode != "free":
            self._song = GeneratedSequence(song.sampler, song.next, mode, self._model)

    def prime_from_last_segment(self, setting: Setting) -> None:
        """As `adopt`, going on from where the live animal stopped last.

        Raises
        ------
        ConfigError
            No segment has ended yet.
        """
        if self._last_segment is None:
            raise ConfigError("prime: no segment has ended yet; name a recording")
        self.adopt(setting, afresh=True)
        self._begin("prime", self._last_segment, self._clock)

    def hear(
        self, frames: Frames, values: Float32, prediction: Float32, states: Float32
    ) -> list[Event]:
        """What live frames bring about.

        Parameters
        ----------
        frames : Frames
        values : float32[n_frames, n_visible]
            Its values, all finite.
        prediction : float32[n_frames, n_visible]
            Expectation of the frame after each.
        states : float32[n_frames, n_layers, n_recurrent]
            States before each.
        """
        events = self._rest_of_the_sound()
        self._frames.append(frames.first, values)
        self._states.append(frames.first, states)
        if self.setting.options.synthesis == "predict":
            first = frames.first + 1
            events += self._give(
                Synthesis(first, self._hop, prediction, "predict", self._model)
            )
        self._begin_if_wanted(frames.first)
        return events + self._draw(frames.first + len(values))

    def mark(self, offset: Offset) -> list[Event]:
        """A segment ended: remember it, and continue it if asked to."""
        last = (offset.sample - self._length) // self._hop
        frame, state = self._frames.get(last), self._states.get(last)
        if frame is None or state is None:
            return []  # the segment lies in the first frame after a gap
        self._last_segment = GenerationSeed(frame, state)
        options = self.setting.options
        if options.synthesis != "continue":
            return []
        self._stop()
        events = self._rest_of_the_sound()
        hush = None
        if options.continue_until == "silence":
            hush = SilenceDetector(self._silence_level(offset, last))
        seed = (options.seed, offset.segment)
        self._begin(
            "continue",
            self._last_segment,
            last + 1,
            seed=seed,
            n_frames=options.continue_frames,
            hush=hush,
        )
        return events + self._draw(self._clock)

    def advance(self, position: int) -> list[Event]:
        """Time has passed, to a position in samples, heard or not."""
        events = self._rest_of_the_sound()
        self._begin_if_wanted(self._clock)
        return events + self._draw(max(self._clock, position // self._hop))

    def end(self) -> list[Event]:
        """The end of the sound, if there is one."""
        self._stop()
        return self._rest_of_the_sound()

    def gap(self, position: int) -> list[Event]:
        """Samples are missing, up to a position: a song goes on, all else ends."""
        self._frames.clear()
        self._states.clear()
        if self._song is None and self.setting.sounding:
            self._ending += self.setting.sounding.end()
        return self.advance(position)

    def _begin_if_wanted(self, first: int) -> None:
        """Begin a song without end, unless it has begun."""
        mode = self.setting.options.synthesis
        if self._song is not None:
            return
        first = max(first, self._clock)
        if mode == "free":
            self._begin(mode, self._rest, first)
        elif mode == "prime":
            self._begin(mode, self.setting.primed or self._rest, first)

    def _begin(
        self,
        mode: str,
        past: GenerationSeed,
        first: int,
        *,
        seed: tuple[int, ...] | None = None,
        n_frames: int | None = None,
        hush: SilenceDetector | None = None,
    ) -> None:
        sampler = self.setting.sampler
        sampler.start(past.frame, past.state, seed or (self.setting.options.seed,))
        self._song = GeneratedSequence(
            sampler, first, mode, self._model, n_frames=n_frames, hush=hush
        )

    def _draw(self, clock: int) -> list[Event]:
        """Let the song come up to the clock."""
        self._clock = max(self._clock, clock)
        song = self._song
        if song is None:
            return []
        until = self._clock
        if song.mode != "continue" and self.setting.options.pace == "fast":
            until = max(until, song.next + self._most)
        if until - song.next > self._leap:
            song.leap(until - self._most)
        synthesis = song.draw(until, self._most, self._hop)
        events = [] if synthesis is None else self._give(synthesis)
        if song.over:
            self._stop()
            events += self._rest_of_the_sound()
        return events

    def _stop(self) -> None:
        """End the song; its sound fades out with the next events."""
        self._song = None
        if self.setting.sounding:
            self._ending += self.setting.sounding.end()

    def _give(self, synthesis: Synthesis) -> list[Event]:
        sounding = self.setting.sounding
        return [synthesis, *(sounding.hear(synthesis) if sounding else ())]

    def _rest_of_the_sound(self) -> list[Event]:
        events: list[Event] = [*self._ending]
        self._ending = []
        return events

    def _silence_level(self, offset: Offset, last: int) -> float:
        """Half way between the segment's mean and the quietest frame around it."""
        first = min(last, offset.onset // self._hop)
        around = range(max(first, last - self._margin) - self._margin, self._clock)
        rows = {frame: self._frames.get(frame) for frame in around}
        means = {k: float(row.mean()) for k, row in rows.items() if row is not None}
        loud = [mean for k, mean in means.items() if first <= k <= last]
        return float(np.mean([np.mean(loud), min(means.values())]))
