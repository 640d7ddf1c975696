"""A room made of software: what is played in it is heard in it, on one sample clock.

PulseAudio's null sink with two channels stands for the air. The left one carries what
the animal does, the right one what answers it; its monitor is the microphone and the
recorder of both.
"""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

RATE = 32_000
MICROPHONE, LOUDSPEAKER = "room_in", "room_out"


class Room:
    """A PulseAudio daemon of its own, and the processes that know of it."""

    def __init__(self) -> None:
        self.home = Path()
        self.env: dict[str, str] = {}
        self._processes: list[subprocess.Popen[Any]] = []

    def __enter__(self) -> "Room":
        self.home = Path(tempfile.mkdtemp(prefix="nv-room-"))
        socket = self.home / "pulse.sock"
        server = f"unix:{socket}"
        self.env = {
            **os.environ,
            "HOME": str(self.home),
            "XDG_RUNTIME_DIR": str(self.home),
            "PULSE_SERVER": server,
        }
        devices = {MICROPHONE: "room.monitor", LOUDSPEAKER: "room"}
        (self.home / ".asoundrc").write_text(
            "".join(
                f'pcm.{name} {{ type pulse server "{server}" device "{device}" }}\n'
                for name, device in devices.items()
            )
        )
        form = f"rate={RATE} channels=2 format=float32le"
        modules = [
            f"module-native-protocol-unix socket={socket} auth-anonymous=1",
            f"module-null-sink sink_name=room {form}",
        ]
        command = ["pulseaudio", "-n", "--daemonize=no", "--exit-idle-time=-1"]
        command += ["--use-pid-file=no", "-F", "/dev/null"]
        for module in modules:
            command += ["-L", module]
        try:
            self.start(command)
            self.wait(lambda: "room" in self._pactl("sinks"), "pulseaudio started")
            recorder = ["parec", "-d", "room.monitor", *_form(20)]
            with self._recording.open("wb") as file:
                self.start(recorder, stdout=file)
            self.wait(lambda: self._recording.stat().st_size > 0, "parec recorded")
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

    def start(self, command: list[str], **options: Any) -> subprocess.Popen[Any]:
        """Start a process that finds the room's devices; it ends with the room."""
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        process: subprocess.Popen[Any] = subprocess.Popen(
            command, env=self.env, **{**quiet, **options}
        )
        self._processes.append(process)
        return process

    def wait_for_listener(self) -> None:
        """Wait until somebody else than the recorder listens."""
        self.wait(
            lambda: self._pactl("source-outputs").count("\n") >= 2, "anybody listened"
        )
        time.sleep(1.0)

    def play(self, samples: NDArray[np.float32]) -> subprocess.Popen[Any]:
        """Begin to play float32[n_samples] on the left channel."""
        path = self.home / "played.f32"
        np.stack([samples, np.zeros_like(samples)], axis=1).astype("<f4").tofile(path)
        with path.open("rb") as file:
            return self.start(["pacat", "-d", "room", *_form(200)], stdin=file)

    def heard(self) -> NDArray[np.float32]:
        """All that was heard until now, float32[n_samples, 2]."""
        found = np.fromfile(self._recording, "<f4")
        return found[: len(found) // 2 * 2].reshape(-1, 2)

    def wait(self, condition: Callable[[], bool], what: str) -> None:
        """Wait for something to become true; RuntimeError after a minute."""
        limit = time.monotonic() + 60
        while not condition():
            if time.monotonic() > limit:
                raise RuntimeError(f"a minute went by before {what}")
            time.sleep(0.05)

    def close(self) -> None:
        """End all processes and remove all traces."""
        for process in reversed(self._processes):
            if process.poll() is None:
                process.kill()
            process.communicate()
        shutil.rmtree(self.home, ignore_errors=True)

    @property
    def _recording(self) -> Path:
        return self.home / "heard.f32"

    def _pactl(self, what: str) -> str:
        return subprocess.run(
            ["pactl", "list", "short", what],
            env=self.env,
            capture_output=True,
            text=True,
            check=False,
        ).stdout


def _form(latency_ms: int) -> list[str]:
    return [
        *("--raw", "--format=float32le", f"--rate={RATE}", "--channels=2"),
        f"--latency-msec={latency_ms}",
    ]
