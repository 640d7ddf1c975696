"""Last minute of the audio of each stream, to listen to what was labelled."""

import io
import wave
from collections import OrderedDict, deque
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from neurovocal.engine import Block, NeurovocalError

# All streams together: 8 of 48 kHz for a minute have 46 MB.
_MOST_BYTES = 256 * 2**20
_LONGEST_S = 120.0
SLOWEST, FASTEST = 0.01, 4.0
_MOST_WITHHELD = 1000


class NoSoundError(NeurovocalError):
    """The sound of an interval cannot be had; the message says why."""


class _StreamSound:
    """Blocks of one stream as int16, the oldest first."""

    def __init__(self, sample_rate: int) -> None:
        self.sample_rate = sample_rate
        self.parts: deque[tuple[int, NDArray[np.int16]]] = deque()
        self.withheld: deque[tuple[int, int]] = deque(maxlen=_MOST_WITHHELD)
        self.n_bytes = 0

    @property
    def stop(self) -> int:
        """Stream index after the newest sample."""
        if not self.parts:
            return 0
        start, samples = self.parts[-1]
        return start + len(samples)

    def clear(self) -> None:
        self.parts.clear()
        self.withheld.clear()
        self.n_bytes = 0

    def drop_oldest(self) -> None:
        _, samples = self.parts.popleft()
        self.n_bytes -= samples.nbytes


class SoundKeeper:
    """Keeps the newest seconds of all streams of one station.

    Parameters
    ----------
    seconds : float
        Length of what is kept of a stream.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._streams: OrderedDict[str, _StreamSound] = OrderedDict()
        self._n_bytes = 0
        self._lock = Lock()

    def add(self, stream: str, sample_rate: int, block: Block) -> None:
        """Keep a block; one that goes back in the stream begins it anew."""
        values = np.clip(block.samples[:, 0], -1.0, 1.0) * np.float32(32767)
        samples = np.rint(values).astype("<i2")
        with self._lock:
            sound = self._stream(stream, sample_rate)
            if block.start < sound.stop:
                self._n_bytes -= sound.n_bytes
                sound.clear()
            sound.parts.append((block.start, samples))
            sound.n_bytes += samples.nbytes
            self._n_bytes += samples.nbytes
            oldest = sound.stop - round(self._seconds * sample_rate)
            while sound.parts and sound.parts[0][0] + len(sound.parts[0][1]) <= oldest:
                self._drop_oldest(sound)
            while self._n_bytes > _MOST_BYTES:
                name, first = next(iter(self._streams.items()))
                if first.parts:
                    self._drop_oldest(first)
                else:
                    del self._streams[name]

    def note_withheld(
        self, stream: str, sample_rate: int, start: int, stop: int
    ) -> None:
        """Note that privacy withholds samples ``[start, stop)`` of a stream."""
        with self._lock:
            self._stream(stream, sample_rate).withheld.append((start, stop))

    def wav(
        self, stream: str, start: int, stop: int, rate: int, speed: float = 1.0
    ) -> bytes:
        """Return an interval as a WAV file, mono, 16 bits; what was lost is silent.

        Parameters
        ----------
        stream : str
            Name of the stream.
        start, stop : int
            Interval, in samples at `rate`.
        rate : int
            Rate of `start` and `stop` in Hz, that of the stream's events; 0: that of
            the audio.
        speed : float
            0.1: ten times slower, by a lower rate in the file's header.

        Raises
        ------
        NoSoundError
            There is none of this audio, or it is withheld.
        """
        if not SLOWEST <= speed <= FASTEST:
            raise NoSoundError(f"speed {speed:g} is not from {SLOWEST} to {FASTEST}")
        with self._lock:
            sound = self._streams.get(stream)
            if sound is None:
                raise NoSoundError("no sound of this stream is kept")
            own = sound.sample_rate
            first, last = (round(s * own / (rate or own)) for s in (start, stop))
            if not 0 <= first < last:
                raise NoSoundError(
                    "the interval is empty: 'start' must be below 'stop'"
                )
            if last - first > _LONGEST_S * own:
                raise NoSoundError(f"ask for {_LONGEST_S:g} s at most")
            samples = self._cut(sound, first, last)
        file = io.BytesIO()
        with wave.open(file, "wb") as writer:
            writer.setnchannels(1)
            writer.setsampwidth(2)
            writer.setframerate(max(1, round(own * speed)))
            writer.writeframes(samples.tobytes())
        return file.getvalue()

    def _cut(self, sound: _StreamSound, start: int, stop: int) -> NDArray[np.int16]:
        """Return samples ``[start, stop)``, with silence where some are missing.

        The newest samples of a segment may be on their way still: they are left out.
        """
        stop = max(start, min(stop, sound.stop))
        samples = np.zeros(stop - start, "<i2")
        n_found = 0
        for begin, part in sound.parts:
            first, last = max(begin, start), min(begin + len(part), stop)
            if first < last:
                samples[first - start : last - start] = part[
                    first - begin : last - begin
                ]
                n_found += last - first
        if n_found:
            return samples
        if any(begin < stop and start < end for begin, end in sound.withheld):
            raise NoSoundError("privacy withholds this sound (docs/how-to/clips.md)")
        if start >= sound.stop:
            raise NoSoundError("this sound has not arrived yet, or never will")
        raise NoSoundError(
            f"this sound is gone: {self._seconds:g} s are kept (option 'sound_s')"
        )

    def _stream(self, stream: str, sample_rate: int) -> _StreamSound:
        sound = self._streams.pop(stream, None)
        if sound is None or sound.sample_rate != sample_rate:
            self._n_bytes -= 0 if sound is None else sound.n_bytes
            sound = _StreamSound(sample_rate)
        self._streams[stream] = sound
        return sound

    def _drop_oldest(self, sound: _StreamSound) -> None:
        self._n_bytes -= sound.parts[0][1].nbytes
        sound.drop_oldest()
