"""A sound card made of software, for tests that need a real PortAudio stream.

PulseAudio's pipe source turns a FIFO into a microphone. What is written there
comes out of PortAudio bit for bit, at the pace of the writing. PortAudio reads
its configuration once per process, so capturing happens in a process of its own::

    with VirtualMicrophone(32_000) as microphone:
        process = microphone.start([sys.executable, "-c", SCRIPT])
        microphone.wait_until_heard()
        microphone.play(samples)
        process.wait()

Silence, or a background, is written whenever nothing is played: without data a
stream cannot always be stopped.
"""

import fcntl
import os
import shutil
import subprocess
import tempfile
import threading
import time
from collections import deque
from ctypes.util import find_library
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

DEVICE = "pipemic"
_BLOCKS_PER_S = 100

needs_virtual_audio = pytest.mark.skipif(
    shutil.which("pulseaudio") is None or find_library("portaudio") is None,
    reason="needs the programs pulseaudio and libportaudio2",
)


class VirtualMicrophone:
    """A PulseAudio daemon of its own with one microphone, named ``pipemic``.

    Parameters
    ----------
    sample_rate : int
        Hz.
    channels : int
        Channels of the microphone.
    background : int16 or float array, optional
        What is heard, over and over, while nothing is played; by default
        silence. Digital silence is something that no real microphone delivers.

    Attributes
    ----------
    env : dict
        Environment in which a process finds this microphone, and no other.
    home : Path
        Temporary home folder of the daemon.
    """

    def __init__(
        self,
        sample_rate: int,
        channels: int = 1,
        background: NDArray[Any] | None = None,
    ) -> None:
        self.sample_rate = sample_rate
        self.channels = channels
        quiet = np.zeros((1, channels), np.int16)
        self._background = quiet if background is None else self._as_int16(background)
        self.home = Path()
        self.env: dict[str, str] = {}
        self._daemon: subprocess.Popen[bytes] | None = None
        self._processes: list[subprocess.Popen[Any]] = []
        self._feeder: threading.Thread | None = None
        self._stop = threading.Event()
        self._paused = False
        # Samples that wait to be played, each with the event that it sets.
        self._queue: deque[tuple[NDArray[np.int16], threading.Event]] = deque()
        self._fifo = -1

    def __enter__(self) -> "VirtualMicrophone":
        self.home = Path(tempfile.mkdtemp(prefix="nv-audio-"))
        self.env = self._environment()
        try:
            self._start_daemon()
        except BaseException:
            self.close()
            raise
        self._feeder = threading.Thread(target=self._feed, daemon=True)
        self._feeder.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def start(self, command: list[str], **options: Any) -> subprocess.Popen[Any]:
        """Start a process that finds the microphone under the name ``pipemic``.

        `options` go to `subprocess.Popen`. It is killed when the microphone is
        closed.
        """
        env = {**self.env, **options.pop("env", {})}
        process: subprocess.Popen[Any] = subprocess.Popen(command, env=env, **options)
        self._processes.append(process)
        return process

    def run(
        self, command: list[str], timeout: float = 60, **options: Any
    ) -> subprocess.CompletedProcess[str]:
        """Run a process to its end while silence is heard; capture its output."""
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        process = self.start(command, **{**pipes, **options})
        stdout, stderr = process.communicate(timeout=timeout)
        return subprocess.CompletedProcess(command, process.returncode, stdout, stderr)

    def wait_until_heard(self, timeout: float = 60) -> None:
        """Wait until a process captures from the microphone.

        What is played from then on is heard from its first sample.
        """
        self._wait_for(self._is_heard, timeout, "nobody opened the microphone")
        quiet = np.resize(self._background, (self.sample_rate // 5, self.channels))
        self.play(quiet)

    def play(
        self, samples: NDArray[Any], *, at_once: bool = False, wait: bool = True
    ) -> None:
        """Let the microphone hear something, in real time or all at once.

        Parameters
        ----------
        samples : int16 or float array, [n_samples] or [n_samples, n_channels]
            Floats in [-1, 1) are scaled by 32768 and rounded.
        at_once : bool
            Write it into the FIFO as fast as it takes them.
        wait : bool
            Return only when all of it has been written.
        """
        samples = self._as_int16(samples)
        step = len(samples) if at_once else self.sample_rate // _BLOCKS_PER_S
        done = threading.Event()
        for first in range(0, len(samples), max(1, step)):
            done = threading.Event()
            self._queue.append((samples[first : first + step], done))
        while wait and len(samples) and not done.wait(0.5):
            if self._feeder is None or not self._feeder.is_alive():
                raise RuntimeError("the virtual microphone is closed")

    def _as_int16(self, samples: NDArray[Any]) -> NDArray[np.int16]:
        if samples.dtype != np.int16:
            scaled = np.round(np.asarray(samples, np.float64) * 32768)
            samples = np.clip(scaled, -32768, 32767).astype(np.int16)
        return np.ascontiguousarray(samples).reshape(-1, self.channels)

    def pause(self) -> None:
        """Deliver nothing at all any more, like a device that hangs."""
        self._paused = True

    def unplug(self) -> None:
        """Take the sound card away: whoever listens to it loses it."""
        self._pactl("unload-module", "module-pipe-source")

    def plug_in(self) -> None:
        """Let the sound card be there again, with an empty memory."""
        self._pactl("load-module", *self._module())
        fifo, self._fifo = self._fifo, self._open_fifo()
        os.close(fifo)

    def _pactl(self, *words: str) -> None:
        subprocess.run(
            ["pactl", *words], env=self.env, stdout=subprocess.DEVNULL, check=True
        )

    def close(self) -> None:
        """End the processes, the daemon, and remove all traces."""
        for process in self._processes:
            if process.poll() is None:
                process.kill()
            process.communicate()
        self._stop.set()
        if self._daemon is not None:
            self._daemon.kill()
            self._daemon.communicate()
        if self._feeder is not None:
            self._feeder.join(10)
        if self._fifo >= 0:
            os.close(self._fifo)
            self._fifo = -1
        shutil.rmtree(self.home, ignore_errors=True)

    def _environment(self) -> dict[str, str]:
        socket = self.home / "pulse.sock"
        (self.home / ".asoundrc").write_text(
            f'pcm.{DEVICE} {{ type pulse server "unix:{socket}" device "{DEVICE}" }}\n'
        )
        return {
            **os.environ,
            "HOME": str(self.home),
            "XDG_RUNTIME_DIR": str(self.home),
            "PULSE_SERVER": f"unix:{socket}",
        }

    def _start_daemon(self) -> None:
        socket = self.home / "pulse.sock"
        modules = [
            f"module-native-protocol-unix socket={socket} auth-anonymous=1",
            " ".join(self._module()),
        ]
        command = ["pulseaudio", "-n", "--daemonize=no", "--exit-idle-time=-1"]
        command += ["--use-pid-file=no", "-F", "/dev/null"]
        for module in modules:
            command += ["-L", module]
        self._daemon = subprocess.Popen(
            command,
            env=self.env,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._wait_for(
            lambda: socket.exists() and self._is_read(),
            *(30, "pulseaudio did not start"),
        )
        self._fifo = self._open_fifo()

    @property
    def _path(self) -> Path:
        return self.home / "microphone.fifo"

    def _module(self) -> list[str]:
        form = f"format=s16le rate={self.sample_rate} channels={self.channels}"
        name = f"source_name={DEVICE} file={self._path}"
        return ["module-pipe-source", *name.split(), *form.split()]

    def _is_read(self) -> bool:
        """Whether the FIFO is there and PulseAudio has opened it."""
        try:
            os.close(os.open(self._path, os.O_WRONLY | os.O_NONBLOCK))
        except OSError:
            return False
        return True

    def _open_fifo(self) -> int:
        fifo = os.open(self._path, os.O_WRONLY | os.O_NONBLOCK)
        # What waits in the FIFO is heard late: a quarter of a second, not one.
        frame_bytes = 2 * self.channels
        fcntl.fcntl(fifo, fcntl.F_SETPIPE_SZ, self.sample_rate * frame_bytes // 4)
        return fifo

    def _wait_for(self, condition: Any, timeout: float, problem: str) -> None:
        limit = time.monotonic() + timeout
        while not condition():
            dead = self._daemon is None or self._daemon.poll() is not None
            if dead or time.monotonic() > limit:
                raise RuntimeError(problem)
            time.sleep(0.02)

    def _is_heard(self) -> bool:
        listing = subprocess.run(
            ["pactl", "list", "source-outputs"],
            env={**self.env, "LC_ALL": "C"},
            capture_output=True,
            text=True,
            check=False,
        )
        return "Corked: no" in listing.stdout  # corked: opened, not yet started

    def _feed(self) -> None:
        """Write what is played, else the background, on a steady schedule."""
        length = self.sample_rate // _BLOCKS_PER_S
        at = 0
        due = time.monotonic()
        while not self._stop.is_set():
            if self._queue:
                samples, done = self._queue.popleft()
            else:
                rows = np.arange(at, at + length) % len(self._background)
                samples, done = self._background[rows], None
                at += length
            if not self._paused:
                written = self._write(samples.astype("<i2").tobytes(), done is not None)
                if not written:
                    due = time.monotonic()  # nobody listens: time stands still
            if done is not None:
                done.set()
            due += min(len(samples), length) / self.sample_rate
            self._stop.wait(max(0.0, due - time.monotonic()))

    def _deserted(self) -> bool:
        """Whether all who listened have gone: then nothing is ever read again."""
        gone = [process.poll() is not None for process in self._processes]
        return bool(gone) and all(gone)

    def _write(self, data: bytes, insist: bool) -> bool:
        """Write all of it; unless `insist`, nothing when the FIFO has no room."""
        view = memoryview(data)
        while view and not self._stop.is_set():
            try:
                view = view[os.write(self._fifo, view) :]
            except BlockingIOError:
                if not insist and len(view) == len(data):
                    return False
                if self._deserted():
                    return False
                self._stop.wait(0.001)
            except BrokenPipeError:
                return False
        return True
