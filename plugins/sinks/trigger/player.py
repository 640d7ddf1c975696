"""One sound, played as soon as it is asked for, or at an exact moment."""

from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np

from neurovocal.engine.contracts.clock import NS, Clock
from neurovocal.engine.contracts.errors import ConfigError, StageError
from neurovocal.engine.contracts.types import Float32
from neurovocal.plugins.devices.choice import find_device
from neurovocal.plugins.devices.portaudio import close_output, open_output

# So many sounds at once; what comes on top of them is not played.
_MOST_AT_ONCE = 8
# A device that has asked for nothing for so long has stopped.
_STALL_S = 1.0
# When a run ends, the sound that has begun is heard for at most so long.
_PLAY_OUT_S = 5.0
_POLL_S = 0.005


@dataclass(slots=True, eq=False)
class PlaybackRequest:
    """A sound that was asked for, and what became of it; times are monotonic ns.

    Parameters
    ----------
    due_ns : int
        It is to be heard then, or as soon after as possible.
    deadline_ns : int
        Rather not at all than later.
    outcome : str
        ``played``, ``late``, ``busy`` or ``stopped``; empty until it is known.
    taken_ns : int
        When the device asked for the samples among which it began.
    heard_ns : int
        When PortAudio expects its first sample at the output.
    position : int
        That sample's number, counted from the opening of the device.
    """

    due_ns: int
    deadline_ns: int
    outcome: str = ""
    taken_ns: int = 0
    heard_ns: int = 0
    position: int = 0


class Player:
    """An output stream that is always open, and one sound that is always loaded.

    The device's callback takes what was asked for by itself: between asking and
    playing there is no thread to wait for but the device's own.

    Parameters
    ----------
    path : str
        Sound file.
    device : str, int or None
        Name or number of the output device; None: the system's.
    gain : float
        Factor.
    block_ms : float
        How much the device asks for at a time.
    clock : Clock
        Monotonic time.

    Attributes
    ----------
    underflows : int
        How often the device was not served in time.
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
        self._path, self._wanted = path, device
        self._gain, self._block_ms = gain, block_ms
        self._clock = clock
        self._stream: Any = None
        self._sound = np.empty((0, 1), np.float32)
        self._name = ""
        self._rate = self._block_length = 0
        # Only the callback touches these two; the deques lie between the threads.
        self._due: list[PlaybackRequest] = []
        self._voices: list[int] = []
        self._asked: deque[PlaybackRequest] = deque()
        self._done: deque[PlaybackRequest] = deque()
        self._position = 0
        self._called_ns = 0

    def open(self) -> None:
        """Load the sound and open the device; it plays silence.

        Raises
        ------
        NeurovocalError
            The sound cannot be read or is too loud, or the device cannot be opened.
        """
        self.close()
        device = find_device(self._wanted, "output")
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
            callback=self._play,
        )

    def play(self, shot: PlaybackRequest) -> None:
        """Ask for the sound.

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
        self._asked.append(shot)

    def done(self) -> list[PlaybackRequest]:
        """Those of whom it is known by now what became of them."""
        found = []
        while self._done:
            found.append(self._done.popleft())
        return found

    def close(self) -> None:
        """Let what has begun be heard to its end, within limits."""
        stream, self._stream = self._stream, None
        if stream is not None:
            self._play_out(stream.latency)
            close_output(stream)
        for shot in [*self._due, *self._asked]:
            shot.outcome = "stopped"
            self._done.append(shot)
        self._due.clear()
        self._asked.clear()
        self._voices.clear()

    def _load(self, channels: int) -> Float32:
        """float32[n_samples, channels] at the device's rate."""
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

    def _play(self, out: Any, n_samples: int, time: Any, status: Any) -> None:
        """PortAudio's callback: begin what is due, copy, return."""
        now = self._clock.monotonic_ns()
        self._called_ns = now
        self.underflows += bool(status.output_underflow)
        heard_ns = now + round((time.outputBufferDacTime - time.currentTime) * NS)
        out[:] = 0
        if self._voices:
            for position in self._voices:
                self._mix(out, 0, position)
            going_on = (position + n_samples for position in self._voices)
            self._voices = [p for p in going_on if p < len(self._sound)]
        while self._asked:
            self._due.append(self._asked.popleft())
        if self._due:
            self._due = [s for s in self._due if not self._begin(s, out, now, heard_ns)]
        self._position += n_samples

    def _begin(self, shot: PlaybackRequest, out: Any, now: int, heard_ns: int) -> bool:
        """Whether it is settled: begun in this block, or never."""
        offset = max(0, -(-(shot.due_ns - heard_ns) * self._rate // NS))
        if offset >= len(out):
            return False
        shot.taken_ns = now
        shot.heard_ns = heard_ns + offset * NS // self._rate
        shot.position = self._position + offset
        if shot.heard_ns > shot.deadline_ns:
            shot.outcome = "late"
        elif len(self._voices) == _MOST_AT_ONCE:
            shot.outcome = "busy"
        else:
            shot.outcome = "played"
            self._mix(out, offset, 0)
            if len(out) - offset < len(self._sound):
                self._voices.append(len(out) - offset)
        self._done.append(shot)
        return True

    def _mix(self, out: Any, offset: int, position: int) -> None:
        part = self._sound[position : position + len(out) - offset]
        out[offset : offset + len(part)] += part

    def _play_out(self, device_s: float) -> None:
        """Wait until all was heard: sound servers forget what they still hold."""
        began = self._clock.monotonic_ns()
        rest = round(device_s * self._rate) + 2 * self._block_length
        end = self._position + rest
        while True:
            now = self._clock.monotonic_ns()
            if self._asked or self._due or self._voices:
                end = self._position + rest
            elif self._position >= end:
                return
            if now - began > _PLAY_OUT_S * NS or now - self._called_ns > _STALL_S * NS:
                return
            self._clock.wait_until(now + round(_POLL_S * NS), _POLL_S)
