"""Audio of synthesized frames, as pieces with a beginning and an end."""

from neurovocal.engine import Audio, Synthesis
from neurovocal.plugins.features.inverse import InverseSpectrogram


class AudioSynthesis:
    """Turns the `Synthesis` of a model into `Audio`.

    Consecutive frames of one mode are one piece. Other frames end it and begin
    another piece.

    Parameters
    ----------
    inverse : InverseSpectrogram
        Inverse of the bundle's front end.
    """

    def __init__(self, inverse: InverseSpectrogram) -> None:
        self._inverse = inverse
        # Frame, mode, model and origin that continue the current piece.
        self._next: tuple[int, str, str, bool] | None = None
        self.reset()

    def process(self, synthesis: Synthesis) -> list[Audio]:
        """Return the audio that these frames complete."""
        origin = (synthesis.mode, synthesis.model, synthesis.from_live)
        piece = (synthesis.first, *origin)
        events = self.flush() if piece != self._next else []
        if self._next is None:
            self._next = piece
            self._start = synthesis.first * self._inverse.hop_length
        self._next = (synthesis.first + len(synthesis.values), *origin)
        samples = self._inverse.process(synthesis.values)
        if len(samples):
            audio = Audio(
                self._start,
                samples[:, None],
                synthesis.mode,
                synthesis.model,
                from_live=synthesis.from_live,
            )
            self._start = audio.stop
            events.append(audio)
        return events

    def flush(self) -> list[Audio]:
        """Return the end of the current piece, if there is one."""
        if self._next is None:
            return []
        _, mode, model, from_live = self._next
        samples = self._inverse.flush()[:, None]
        self._next = None
        end = Audio(self._start, samples, mode, model, last=True, from_live=from_live)
        return [end]

    def reset(self) -> None:
        """Drop the current piece."""
        self._inverse.reset()
        self._next = None
        self._start = 0
