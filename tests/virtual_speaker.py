"""A loudspeaker made of software, and a recorder of all that it plays.

PulseAudio's null sink plays into nothing, at the pace of a real card; its monitor is
recorded, sample for sample, by ``parec``.
"""

import os
import shutil
import subprocess
import tempfile
import time
from ctypes.util import find_library
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

DEVICE = "nullspeaker"

needs_virtual_speaker = pytest.mark.skipif(
    any(shutil.which(name) is None for name in ("pulseaudio", "parec", "pactl"))
    or find_library("portaudio") is None,
    reason="needs the programs pulseaudio, parec, pactl and libportaudio2",
)


class VirtualSpeaker:
    """A PulseAudio daemon of its own with one mono loudspeaker, ``nullspeaker``.

    Parameters
    ----------
    sample_rate : int
        Hz.
    """

    def __init__(self, sample_rate: int) -> None:
        self.sample_rate = sample_rate
        self.home = Path()
        self.env: dict[str, str] = {}
        self._processes: list[subprocess.Popen[Any]] = []

    def __enter__(self) -> "VirtualSpeaker":
        self.home = Path(tempfile.mkdtemp(prefix="nv-audio-"))
        socket = self.home / "pulse.sock"
        self.env = {
            **os.environ,
            "HOME": str(self.home),
            "XDG_RUNTIME_DIR": str(self.home),
            "PULSE_SERVER": f"unix:{socket}",
        }
        (self.home / ".asoundrc").write_text(
            f'pcm.{DEVICE} {{ type pulse server "unix:{socket}" device "{DEVICE}" }}\n'
        )
        form = f"rate={self.sample_rate} channels=1 format=float32le"
        command = ["pulseaudio", "-n", "--daemonize=no", "--exit-idle-time=-1"]
        command += ["--use-pid-file=no", "-F", "/dev/null"]
        command += [
            "-L",
            f"module-native-protocol-unix socket={socket} auth-anonymous=1",
        ]
        command += ["-L", f"module-null-sink sink_name={DEVICE} {form}"]
        try:
            self._start(command)
            self._wait(lambda: DEVICE in self._pactl("sinks"), "pulseaudio")
            self._recorded = (self.home / "played.f32").open("wb")
            self._recorder = self._start(
                [
                    *("parec", "-d", f"{DEVICE}.monitor", "--raw", "--channels=1"),
                    *("--format=float32le", f"--rate={self.sample_rate}"),
                    "--latency-msec=20",
                ],
                stdout=self._recorded,
            )
            recorded = self.home / "played.f32"
            self._wait(lambda: recorded.stat().st_size > 0, "parec")
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def run(self, command: list[str], timeout: float = 90) -> str:
        """Run a process that finds the loudspeaker, to its end; return its output."""
        process = self._start(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        stdout, stderr = process.communicate(timeout=timeout)
        assert process.returncode == 0, stderr
        return str(stdout)

    def played(self) -> NDArray[np.float32]:
        """All that was heard until now, float32[n_samples]; ends the recording."""
        path = self.home / "played.f32"
        size = path.stat().st_size
        # What was played last is still on its way to the recorder.
        more = size + self.sample_rate * 4 // 2
        self._wait(lambda: path.stat().st_size >= more, "parec")
        self._recorder.terminate()
        self._recorder.communicate()
        return np.fromfile(path, "<f4")

    def close(self) -> None:
        """End the processes and remove all traces."""
        for process in reversed(self._processes):
            if process.poll() is None:
                process.kill()
            process.communicate()
        if hasattr(self, "_recorded"):
            self._recorded.close()
        shutil.rmtree(self.home, ignore_errors=True)

    def _start(self, command: list[str], **options: Any) -> subprocess.Popen[Any]:
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        process: subprocess.Popen[Any] = subprocess.Popen(
            command, env=self.env, **{**quiet, **options}
        )
        self._processes.append(process)
        return process

    def _pactl(self, what: str) -> str:
        return subprocess.run(
            ["pactl", "list", "short", what],
            env=self.env,
            capture_output=True,
            text=True,
            check=False,
        ).stdout

    def _wait(self, condition: Any, program: str) -> None:
        limit = time.monotonic() + 30
        while not condition():
            dead = any(p.poll() is not None for p in self._processes[:1])
            if dead or time.monotonic() > limit:
                raise RuntimeError(f"{program} did not do what was expected")
            time.sleep(0.02)
