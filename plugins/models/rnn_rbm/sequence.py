"""A song that a model draws: frame by frame, as far as the song clock has come."""

from dataclasses import dataclass

import numpy as np

from neurovocal.engine.contracts.types import Float32, Synthesis
from neurovocal.plugins.models.rnn_rbm.sampler import Sampler

# Frames that are silent in a row before a song counts as over.
_SILENT_FRAMES = 10


@dataclass(frozen=True, slots=True, eq=False)
class GenerationSeed:
    """What a song goes on from.

    Parameters
    ----------
    frame : float32[n_visible]
        The last frame.
    state : float32[n_layers, n_recurrent]
        The recurrent state before it.
    """

    frame: Float32
    state: Float32


class SilenceDetector:
    """Notices that a song, once it has sounded, has fallen silent.

    Parameters
    ----------
    level : float
        Mean over a frame's bins up to which the frame is silent.
    """

    def __init__(self, level: float) -> None:
        self._level = level
        self._sounded = False
        self._silent = 0

    def take(self, frame: Float32) -> bool:
        """Whether the song is over with this frame."""
        silent = float(frame.mean()) <= self._level
        self._sounded |= not silent
        self._silent = self._silent + 1 if silent else 0
        return self._sounded and self._silent >= _SILENT_FRAMES


class GeneratedSequence:
    """Frames of one song, drawn up to a position that moves on.

    No call draws more than `most` frames: a song that is behind catches up over
    several calls. One that is hopelessly behind leaps: its frames go on where they
    were, at a later position.

    Parameters
    ----------
    sampler : Sampler
        Already started.
    first : int
        Frame of the stream's grid that the first drawn frame stands for.
    mode, model : str
        As its events say.
    n_frames : int, optional
        Length; None: without end.
    hush : Hush, optional
        Ends it before its length.
    """

    def __init__(
        self,
        sampler: Sampler,
        first: int,
        mode: str,
        model: str,
        *,
        n_frames: int | None = None,
        hush: SilenceDetector | None = None,
    ) -> None:
        self.sampler = sampler
        self.mode = mode
        self._model = model
        self._next = first
        self._left = n_frames
        self._hush = hush

    @property
    def over(self) -> bool:
        """Whether all frames have been drawn."""
        return self._left == 0

    @property
    def next(self) -> int:
        """Frame that will be drawn next."""
        return self._next

    def follow(self, sampler: Sampler) -> None:
        """Go on with another sampler: same frame, state and randomness."""
        sampler.follow(self.sampler)
        self.sampler = sampler

    def leap(self, first: int) -> None:
        """Go on at a later frame, if this is a song without end."""
        if self._left is None:
            self._next = max(self._next, first)

    def draw(self, clock: int, most: int, hop_length: int) -> Synthesis | None:
        """Frames before `clock` that are still to be drawn, at most `most`."""
        count = min(clock - self._next, most)
        if self._left is not None:
            count = min(count, self._left)
        if count <= 0:
            return None
        values = self._drawn(count)
        first, self._next = self._next, self._next + len(values)
        if self._left is not None:
            self._left = max(0, self._left - len(values))
        return Synthesis(first, hop_length, values, self.mode, self._model)

    def _drawn(self, count: int) -> Float32:
        if self._hush is None:
            return self.sampler.draw(count)
        frames = []
        for _ in range(count):
            frames.append(self.sampler.step())
            if self._hush.take(frames[-1]):
                self._left = 0  # it is over, whatever was left
                break
        return np.array(frames)
