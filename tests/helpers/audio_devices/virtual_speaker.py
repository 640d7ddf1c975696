"""Virtual loudspeaker with a recorder.

PulseAudio's null sink discards samples at the pace of a real card; ``parec`` records
its monitor, sample for sample.
"""

import shutil
import subprocess
from ctypes.util import find_library
from pathlib import Path
from types import TracebackType

import numpy as np
import pytest
from audio_devices.pulses import PulseAudio
from numpy.typing import NDArray

DEVICE = "nullspeaker"

needs_virtual_speaker = pytest.mark.skipif(
    any(shutil.which(name) is None for name in ("pulseaudio", "parec", "pactl"))
    or find_library("portaudio") is None,
    reason="needs the programs pulseaudio, parec, pactl and libportaudio2",
)


class VirtualSpeaker:
    """PulseAudio daemon with one mono loudspeaker, ``nullspeaker``.

    Parameters
    ----------
    sample_rate : int
        Rate of the loudspeaker in Hz.
    """

    def __init__(self, sample_rate: int) -> None:
        self.sample_rate = sample_rate

    def __enter__(self) -> "VirtualSpeaker":
        self._pulse = PulseAudio({DEVICE: DEVICE})
        form = f"rate={self.sample_rate} channels=1 format=float32le"
        try:
            self._pulse.load(f"module-null-sink sink_name={DEVICE} {form}")
            self._recorder = self._pulse.record(
                DEVICE, self._recording, f"--rate={self.sample_rate}", "--channels=1"
            )
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
        """Temporary home folder of the daemon."""
        return self._pulse.home

    def run(self, command: list[str], timeout: float = 90) -> str:
        """Run a process that finds the loudspeaker; return its standard output."""
        process = self._pulse.start(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        stdout, stderr = process.communicate(timeout=timeout)
        assert process.returncode == 0, stderr
        return str(stdout)

    def played(self) -> NDArray[np.float32]:
        """End the recording and return it, float32[n_samples]."""
        path = self._recording
        # The last samples reach the recorder with a delay.
        more = path.stat().st_size + self.sample_rate * 4 // 2
        self._pulse.wait(lambda: path.stat().st_size >= more, "parec recorded more")
        self._recorder.terminate()
        self._recorder.communicate()
        return np.fromfile(path, "<f4")

    @property
    def _recording(self) -> Path:
        return self.home / "played.f32"
