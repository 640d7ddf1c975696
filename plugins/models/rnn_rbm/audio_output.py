"""Synthesized frames to events of sound: pieces begin, go on and end."""

from neurovocal.engine.contracts.types import Audio, Synthesis
from neurovocal.plugins.features.inverse import InverseSpectrogram


class AudioSynthesis:
    """Turns the `Synthesis` of a model into `Audio`.

    Frames that follow each other in one mode are one piece; any others begin another
    one, after the one before was brought to its end.

    Parameters
    ----------
    voice : Voice
        Inverse of the bundle's front end.
    """

    def __init__(self, voice: InverseSpectrogram) -> None:
        self._voice = voice
        # Frame, mode and model that would go on with the piece that sounds.
        self._next: tuple[int, str, str] | None = None
        self.reset()

    def hear(self, synthesis: Synthesis) -> list[Audio]:
        """Sound that more frames make known."""
        follows = (synthesis.first, synthesis.mode, synthesis.model)
        events = self.end() if follows != self._next else []
        if self._next is None:
            self._next = follows
            self._start = synthesis.first * self._voice.hop_length
        self._next = (
            synthesis.first + len(synthesis.values),
            synthesis.mode,
            synthesis.model,
        )
        samples = self._voice.process(synthesis.values)
        if len(samples):
            audio = Audio(
                self._start, samples[:, None], synthesis.mode, synthesis.model
            )
            self._start = audio.stop
            events.append(audio)
        return events

    def end(self) -> list[Audio]:
        """Bring the piece to its end, if there is one."""
        if self._next is None:
            return []
        _, mode, model = self._next
        audio = Audio(self._start, self._voice.flush()[:, None], mode, model, last=True)
        self._next = None
        return [audio]

    def reset(self) -> None:
        """Forget the piece."""
        self._voice.reset()
        self._next = None
        self._start = 0
