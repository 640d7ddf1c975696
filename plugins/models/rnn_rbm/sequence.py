"""Generated sequence of frames, its seed, and the detection of its end."""

from dataclasses import dataclass

import numpy as np

from neurovocal.engine import Float32, Synthesis
from neurovocal.plugins.models.rnn_rbm.sampler import Sampler

# Consecutive silent frames after which a sequence has ended.
_SILENT_FRAMES = 10


@dataclass(frozen=True, slots=True, eq=False)
class GenerationSeed:
    """Frame and state that a generated sequence continues.

    Parameters
    ----------
    frame : float32[n_visible]
        The last frame.
    state : float32[n_layers, n_recurrent]
        The recurrent state before it.
    from_live : bool
        Whether they come from live audio.
    """

    frame: Float32
    state: Float32
    from_live: bool = False


class SilenceDetector:
    """Detects that a generated sequence has become silent after sound.

    Parameters
    ----------
    level : float
        Mean over a frame's bins up to which the frame is silent.
    """

    def __init__(self, level: float) -> None:
        self._level = level
        self._had_sound = False
        self._silent = 0

    def push(self, frame: Float32) -> bool:
        """Return True if the sequence has ended with this frame."""
        is_silent = float(frame.mean()) <= self._level
        self._had_sound |= not is_silent
        self._silent = self._silent + 1 if is_silent else 0
        return self._had_sound and self._silent >= _SILENT_FRAMES


class GeneratedSequence:
    """Frames that a sampler draws up to a position that advances.

    No call draws more than `most` frames: a sequence that is behind catches up over
    several calls. One that is too far behind skips frame numbers: its next frame is
    drawn as before, for a later position.

    Parameters
    ----------
    sampler : Sampler
        Already started; the sequence ends with its plan, if it has one that ends.
    first : int
        Number, on the stream's frame grid, of the first frame to be drawn.
    mode, model : str
        Mode and model of its events.
    n_frames : int, optional
        Length; None: unlimited.
    from_live : bool
        Whether its seed comes from live audio.
    silence : SilenceDetector, optional
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
        from_live: bool = False,
        silence: SilenceDetector | None = None,
    ) -> None:
        self.sampler = sampler
        self.from_live = from_live
        self.mode = mode
        self._model = model
        self._next = first
        self._left = n_frames
        self._silence = silence

    @property
    def has_ended(self) -> bool:
        """True if all frames have been drawn."""
        plan = self.sampler.plan
        return self._left == 0 or (plan is not None and plan.has_ended)

    @property
    def next(self) -> int:
        """Number of the frame that is drawn next."""
        return self._next

    def use_sampler(self, sampler: Sampler) -> None:
        """Draw from another sampler, with the same frame, state and randomness."""
        sampler.copy_state(self.sampler)
        self.sampler = sampler

    def skip_to(self, first: int) -> None:
        """Continue at a later frame number, if the length is unlimited."""
        if self._left is None:
            self._next = max(self._next, first)

    def draw(self, stop: int, most: int, hop_length: int) -> Synthesis | None:
        """Draw the frames before `stop`, at most `most`; None if there are none."""
        count = min(stop - self._next, most)
        if self._left is not None:
            count = min(count, self._left)
        if count <= 0 or self.has_ended:
            return None
        values = self._draw(count)
        first, self._next = self._next, self._next + len(values)
        if self._left is not None:
            self._left = max(0, self._left - len(values))
        return Synthesis(
            first, hop_length, values, self.mode, self._model, self.from_live
        )

    def _draw(self, count: int) -> Float32:
        if self._silence is None:
            return self.sampler.draw(count)  # fewer where its plan ends
        frames = []
        for _ in range(count):
            frames.append(self.sampler.step())
            if self._silence.push(frames[-1]):
                self._left = 0
                break
        return np.array(frames)
