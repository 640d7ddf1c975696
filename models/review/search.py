"""Similarity of texts to the sounds of a collection, by a pair of ONNX encoders."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from neurovocal.engine.audio.resampler import scaled
from neurovocal.engine.contracts.errors import AudioFileError, StageError
from neurovocal.engine.contracts.types import Float32
from neurovocal.plugins.models.audio_text.encoders import EncodesAudio, resample_whole
from neurovocal.plugins.review.audio import RecordingAudio
from neurovocal.plugins.review.segments import Collection, Recording


@dataclass(frozen=True, slots=True)
class Heard:
    """Sound that can be found.

    Parameters
    ----------
    recording : Recording
        Where it is.
    onset, offset : int
        The sound, in samples at the rate of the recording.
    unit : str
        Its label; empty: it has none, or it is a window of a recording alone.
    """

    recording: Recording
    onset: int
    offset: int
    unit: str = ""


@dataclass(frozen=True, slots=True)
class Match:
    """Sound with the text that is nearest to it.

    Parameters
    ----------
    sound : Heard
        The sound.
    text : str
        That of the texts asked for which it is most similar to.
    similarity : float
        Cosine of the angle between their vectors, -1 to 1.
    """

    sound: Heard
    text: str
    similarity: float


def sounds_of(collection: Collection, window_s: float) -> Iterator[Heard]:
    """Yield the segments of a collection; of recordings without any, windows.

    Parameters
    ----------
    collection : Collection
        What a journal or folder holds.
    window_s : float
        Length of a window in seconds.
    """
    with_segments = set()
    for each in collection.segments:
        recording = collection.recordings.get(each.recording)
        if recording is None or each.kind != "segment" or not each.alive:
            continue
        with_segments.add(recording.id)
        yield Heard(recording, each.onset, each.offset, each.unit)
    for recording in collection.recordings.values():
        if recording.id in with_segments or not recording.n_samples:
            continue
        length = max(1, round(window_s * recording.sample_rate))
        for onset in range(0, recording.n_samples, length):
            offset = min(onset + length, recording.n_samples)
            yield Heard(recording, onset, offset)


class SoundSearch:
    """Ranks sounds by their similarity to texts.

    Parameters
    ----------
    encode : EncodesAudio
        Encoder of audio.
    vectors : mapping of str to float32[n_values]
        Unit vector of each text.

    Attributes
    ----------
    problems : dict of str to int
        Why sounds could not be heard, with their numbers.
    """

    def __init__(self, encode: EncodesAudio, vectors: dict[str, Float32]) -> None:
        self._encode = encode
        self._texts = list(vectors)
        self._vectors = np.stack(list(vectors.values())).astype(np.float64)
        self._audio = RecordingAudio()
        self.problems: dict[str, int] = {}

    def close(self) -> None:
        """Close the recordings."""
        self._audio.close()

    def matches(
        self, sounds: Sequence[Heard], on_progress: Callable[[int], None]
    ) -> list[Match]:
        """Return all sounds that can be heard, the most similar first.

        Parameters
        ----------
        sounds : sequence of Heard
            The sounds.
        on_progress : callable
            Called with the number of sounds heard so far.
        """
        found = []
        for number, sound in enumerate(sounds):
            on_progress(number)
            try:
                vector = self._vector(sound)
            except (AudioFileError, StageError) as error:
                self.problems[str(error)] = self.problems.get(str(error), 0) + 1
                continue
            similar = self._vectors @ vector.astype(np.float64)
            best = int(similar.argmax())
            found.append(Match(sound, self._texts[best], float(similar[best])))
        found.sort(key=lambda match: -match.similarity)
        return found

    def _vector(self, sound: Heard) -> Float32:
        """Return the vector of a sound, with as much around it as the window holds."""
        recording, encode = sound.recording, self._encode
        rate, own_rate = recording.audio_rate, encode.sample_rate
        onset, offset = self._audio.range_of(recording, sound.onset, sound.offset)
        window = -(-encode.window * rate // own_rate) if rate else 0
        if offset - onset > window:  # its middle is all that is heard
            onset = (onset + offset - window) // 2
            offset = onset + window
        first = max(0, onset - window)
        samples = self._audio.read(recording, first, offset + window)
        samples = resample_whole(samples, rate, own_rate)
        return encode(
            samples,
            scaled(onset - first, rate, own_rate),
            scaled(offset - first, rate, own_rate),
        )
