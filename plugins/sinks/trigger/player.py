"""Playback of one sound, at once or at an exact sample of the output device."""

from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np

from neurovocal.engine import NS, Clock, ConfigError, Float32, StageError
from neurovocal.plugins.devices.choice import find_device
from neurovocal.plugins.devices.portaudio import open_output

# Overlapping sounds at most; a further one is not played.
_MOST_AT_ONCE = 8
# A device has stopped if its callback was not called for so long.
_STALL_S = 1.0
# Time at the end of a run for the sound that has begun.
_DRAIN_S = 5.0
_POLL_S = 0.005


@dataclass(slots=True, eq=False)
class PlaybackRequest:
    """Requested sound and its outcome; times are monotonic nanoseconds.

    Parameters
    ----------
    due_ns : int
        Earliest time of the first sample at the output.
    deadline_ns : int
        Latest time of the first sample; after it the sound is not played.
    outcome : str
        ``played``, ``late``, ``busy`` or ``stopped``; empty until it is known.
    callback_ns : int
        Time of the callback that began the sound.
    output_ns : int
        Time at which PortAudio expects the first sample at the output.
    position : int
        Number of that sample since the device was opened.
    """

    due_ns: int
    deadline_ns: int
    outcome: str = ""
    callback_ns: int = 0
    output_ns: int = 0
    position: int = 0


class Player:
    """Open output stream with one loaded sound.

    The device's callback begins requested sounds itself: no other thread is between a
    request and its sound.

    Parameters
    ----------
    path : str
        Sound file.
    device : str, int or None
        Name or number of the output device; None: the system's default.
    gain : float
        Linear gain.
    block_ms : float
        Length of a callback's block in milliseconds.
    clock : Clock
        Monotonic time.

    Attributes
    ----------
    underflows : int
        Number of output underflows that the device has reported.
    """

    def __init__(
        self,
        path: str,
        device: str | int | None,
        gain: float,
        block_ms: float,
        clock: Clock,
    ) -> None:
        self.underflows = 0
        self._path, self._device = path, device
        self._gain, self._block_ms = gain, block_ms
        self._clock = clock
        self._stream: Any = None
        self._sound = np.empty((0, 1), np.float32)
        self._name = ""
        self._rate = self._block_length = 0
        # Only the callback uses these two; the deques connect the threads.
        self._due: list[PlaybackRequest] = []
        self._playing: list[int] = []
        self._requested: deque[PlaybackRequest] = deque()
        self._done: deque[PlaybackRequest] = deque()
        self._position = 0
        self._called_ns = 0

    def open(self) -> None:
        """Load the sound and open the device, which plays silence.

        Raises
        ------
        NeurovocalError
            The sound cannot be read or would be clipped, or there is no such device.
        """
        self.close()
        device = find_device(self._device, "output")
        self._name, self._rate = device["name"], device["sample_rate"]
        channels = min(2, device["channels"])
        self._sound = self._load(channels)
        self._block_length = max(16, round(self._block_ms / 1000 * self._rate))
        self._position = 0
        self._called_ns = self._clock.monotonic_ns()
        self._stream = open_output(
            device,
            self._rate,
            channels,
            blocksize=self._block_length,
            latency="low",
            callback=self._on_output,
        )

    def play(self, request: PlaybackRequest) -> None:
        """Request the sound.

        Raises
        ------
        StageError
            The device has stopped.
        """
        silent_ns = self._clock.monotonic_ns() - self._called_ns
        if self._stream is None or silent_ns > _STALL_S * NS:
            raise StageError(
                f"device '{self._name}' has stopped asking for sound: is it still "
                "connected?"
            )
        self._requested.append(request)

    def pop_done(self) -> list[PlaybackRequest]:
        """Remove and return the requests with a known outcome."""
        found = []
        while self._done:
            found.append(self._done.popleft())
        return found

    def close(self) -> None:
        """Play begun sounds to their end, for a bounded time, and close the device."""
        stream, self._stream = self._stream, None
        if stream is not None:
            self._drain(stream.latency)
            stream.close()
        for request in [*self._due, *self._requested]:
            request.outcome = "stopped"
            self._done.append(request)
        self._due.clear()
        self._requested.clear()
        self._playing.clear()

    def _load(self, channels: int) -> Float32:
        """Return the sound as float32[n_samples, channels] at the device's rate."""
        import soundfile
        import soxr

        try:
            sound, rate = soundfile.read(self._path, dtype="float32", always_2d=True)
        except (OSError, soundfile.LibsndfileError) as error:
            raise ConfigError(f"'{self._path}' cannot be read: {error}") from error
        if len(sound) == 0:
            raise ConfigError(f"'{self._path}' holds no sound")
        if sound.shape[1] != channels:
            sound = np.repeat(sound.mean(axis=1, keepdims=True), channels, axis=1)
        if rate != self._rate:
            sound = soxr.resample(sound, rate, self._rate)
        sound = np.ascontiguousarray(sound * np.float32(self._gain), np.float32)
        peak = float(np.abs(sound).max())
        if peak > 1.0:
            raise ConfigError(
                f"'{self._path}' would be clipped: its peak is "
                f"{20 * np.log10(peak):.1f} dB beyond full scale; lower 'gain_db'"
            )
        return sound

    def _on_output(self, out: Any, n_samples: int, time: Any, status: Any) -> None:
        """Fill float32[n_samples, channels] with begun and due sounds (callback)."""
        now = self._clock.monotonic_ns()
        self._called_ns = now
        self.underflows += bool(status.output_underflow)
        output_ns = now + round((time.outputBufferDacTime - time.currentTime) * NS)
        out[:] = 0
        if self._playing:
            for position in self._playing:
                self._mix(out, 0, position)
            continued = (position + n_samples for position in self._playing)
            self._playing = [p for p in continued if p < len(self._sound)]
        while self._requested:
            self._due.append(self._requested.popleft())
        if self._due:
            self._due = [
                s for s in self._due if not self._begin(s, out, now, output_ns)
            ]
        self._position += n_samples

    def _begin(
        self, request: PlaybackRequest, out: Any, now: int, output_ns: int
    ) -> bool:
        """Begin a sound in this block or drop it; return False if it is due later."""
        offset = max(0, -(-(request.due_ns - output_ns) * self._rate // NS))
        if offset >= len(out):
            return False
        request.callback_ns = now
        request.output_ns = output_ns + offset * NS // self._rate
        request.position = self._position + offset
        if request.output_ns > request.deadline_ns:
            request.outcome = "late"
        elif len(self._playing) == _MOST_AT_ONCE:
            request.outcome = "busy"
        else:
            request.outcome = "played"
            self._mix(out, offset, 0)
            if len(out) - offset < len(self._sound):
                self._playing.append(len(out) - offset)
        self._done.append(request)
        return True

    def _mix(self, out: Any, offset: int, position: int) -> None:
        part = self._sound[position : position + len(out) - offset]
        out[offset : offset + len(part)] += part

    def _drain(self, device_s: float) -> None:
        """Wait until all sound was output: sound servers drop the rest at closing."""
        began = self._clock.monotonic_ns()
        rest = round(device_s * self._rate) + 2 * self._block_length
        end = self._position + rest
        while True:
            now = self._clock.monotonic_ns()
            if self._requested or self._due or self._playing:
                end = self._position + rest
            elif self._position >= end:
                return
            if now - began > _DRAIN_S * NS or now - self._called_ns > _STALL_S * NS:
                return
            self._clock.wait_until(now + round(_POLL_S * NS), _POLL_S)
