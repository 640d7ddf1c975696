"""Virtual room: played sound is recorded on one sample clock.

PulseAudio's null sink with two channels replaces the air. The left one carries the
stimulus, the right one the answer; its monitor is the microphone and is recorded.
"""

import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests" / "helpers"))
from audio_devices.pulses import PulseAudio

RATE = 32_000
MICROPHONE, LOUDSPEAKER = "room_in", "room_out"
_FORM = (f"--rate={RATE}", "--channels=2")


class Room:
    """A PulseAudio daemon of its own, and the processes that use it."""

    def __enter__(self) -> "Room":
        self._pulse = PulseAudio({MICROPHONE: "room.monitor", LOUDSPEAKER: "room"})
        form = f"rate={RATE} channels=2 format=float32le"
        try:
            self._pulse.load(f"module-null-sink sink_name=room {form}")
            self._pulse.record("room", self._recording, *_FORM)
        except BaseException:
            self._pulse.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._pulse.close()

    @property
    def home(self) -> Path:
        """Temporary folder."""
        return self._pulse.home

    def start(self, command: list[str], **options: Any) -> subprocess.Popen[Any]:
        """Start a process with the room's devices; it ends with the room."""
        return self._pulse.start(command, **options)

    def wait_for_recorder(self) -> None:
        """Wait until a second process records the room."""
        self._pulse.wait(
            lambda: self._pulse.listed("source-outputs").count("\n") >= 2,
            "anybody listened",
        )
        time.sleep(1.0)

    def play(self, samples: NDArray[np.float32]) -> subprocess.Popen[Any]:
        """Start to play float32[n_samples] on the left channel."""
        path = self.home / "played.f32"
        np.stack([samples, np.zeros_like(samples)], axis=1).astype("<f4").tofile(path)
        with path.open("rb") as file:
            command = ["pacat", "-d", "room", "--raw", "--format=float32le", *_FORM]
            return self.start([*command, "--latency-msec=200"], stdin=file)

    def recorded(self) -> NDArray[np.float32]:
        """Return the recording until now, float32[n_samples, 2]."""
        found = np.fromfile(self._recording, "<f4")
        return found[: len(found) // 2 * 2].reshape(-1, 2)

    @property
    def _recording(self) -> Path:
        return self.home / "recorded.f32"
