"""PulseAudio daemon in a temporary home folder, for virtual audio devices."""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any


class PulseAudio:
    """PulseAudio daemon with its home folder; `load` starts it.

    Parameters
    ----------
    devices : mapping of str to str
        Sources or sinks of PulseAudio by the names of their ALSA devices.

    Attributes
    ----------
    home : Path
        Temporary folder, removed by `close`.
    env : dict
        Environment in which a process finds this daemon alone.
    """

    def __init__(self, devices: Mapping[str, str]) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="nv-audio-"))
        self._socket = self.home / "pulse.sock"
        server = f"unix:{self._socket}"
        self.env = {
            **os.environ,
            "HOME": str(self.home),
            "XDG_RUNTIME_DIR": str(self.home),
            "PULSE_SERVER": server,
        }
        (self.home / ".asoundrc").write_text(
            "".join(
                f'pcm.{name} {{ type pulse server "{server}" device "{device}" }}\n'
                for name, device in devices.items()
            )
        )
        self._processes: list[subprocess.Popen[Any]] = []

    def load(self, module: str) -> None:
        """Start the daemon with a module, and wait until it has loaded."""
        protocol = f"module-native-protocol-unix socket={self._socket} auth-anonymous=1"
        command = ["pulseaudio", "-n", "--daemonize=no", "--exit-idle-time=-1"]
        command += [
            "--use-pid-file=no",
            "--no-cpu-limit=yes",  # it would end itself on a machine that is busy
            "-F",
            "/dev/null",
            "-L",
            protocol,
            "-L",
            module,
        ]
        self.start(command)
        self.wait(lambda: bool(self.listed("modules")), "pulseaudio started")

    def start(self, command: list[str], **options: Any) -> subprocess.Popen[Any]:
        """Start a process that finds the devices; `close` ends it."""
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        env = {**self.env, **options.pop("env", {})}
        process: subprocess.Popen[Any] = subprocess.Popen(
            command, env=env, **{**quiet, **options}
        )
        self._processes.append(process)
        return process

    def record(self, sink: str, path: Path, *form: str) -> subprocess.Popen[Any]:
        """Start recording a sink to a file of raw float32; return the process."""
        command = ["parec", "-d", f"{sink}.monitor", "--raw", "--format=float32le"]
        with path.open("wb") as file:
            recorder = self.start([*command, *form, "--latency-msec=20"], stdout=file)
        self.wait(lambda: path.stat().st_size > 0, "parec recorded")
        return recorder

    def listed(self, what: str) -> str:
        """Return the items of a kind that `pactl` lists, one per line."""
        return subprocess.run(
            ["pactl", "list", "short", what],
            env=self.env,
            capture_output=True,
            text=True,
            check=False,
        ).stdout

    def wait(self, condition: Callable[[], bool], what: str) -> None:
        """Wait until a condition is true; raise RuntimeError after a minute."""
        limit = time.monotonic() + 60
        while not condition():
            if any(p.poll() is not None for p in self._processes[:1]):
                raise RuntimeError(f"pulseaudio ended before {what}")
            if time.monotonic() > limit:
                raise RuntimeError(f"not within a minute: {what}")
            time.sleep(0.02)

    def close(self) -> None:
        """End all processes, the daemon last, and remove the home folder."""
        for process in reversed(self._processes):
            if process.poll() is None:
                process.kill()
            process.communicate()
        shutil.rmtree(self.home, ignore_errors=True)
