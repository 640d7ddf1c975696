"""Virtual microphone for tests that need a real PortAudio stream.

PulseAudio's pipe source turns a FIFO into a microphone. PortAudio captures what is
written there bit for bit, at the pace of the writing. PortAudio reads its configuration
once per process, so that a test captures in another process::

    with VirtualMicrophone(32_000) as microphone:
        process = microphone.start([sys.executable, "-c", SCRIPT])
        microphone.wait_until_captured()
        microphone.play(samples)
        process.wait()

Silence, or a background, is written while nothing is played: without data a stream
cannot always be stopped.
"""

import fcntl
import os
import shutil
import subprocess
import threading
import time
from collections import deque
from ctypes.util import find_library
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pytest
from audio_devices.pulses import PulseAudio
from numpy.typing import NDArray

DEVICE = "pipemic"
_BLOCKS_PER_S = 100

needs_virtual_audio = pytest.mark.skipif(
    shutil.which("pulseaudio") is None or find_library("portaudio") is None,
    reason="needs the programs pulseaudio and libportaudio2",
)


class VirtualMicrophone:
    """PulseAudio daemon with one microphone, named ``pipemic``.

    Parameters
    ----------
    sample_rate : int
        Rate of the microphone in Hz.
    channels : int
        Channels of the microphone.
    background : int16 or float array, optional
        Samples that are repeated while nothing is played; by default digital silence,
        which no real microphone delivers.
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
        self._pulse: PulseAudio
        self._processes: list[subprocess.Popen[Any]] = []
        self._feeder: threading.Thread | None = None
        self._stop = threading.Event()
        self._paused = False
        # Samples that wait to be played, each with the event that it sets.
        self._queue: deque[tuple[NDArray[np.int16], threading.Event]] = deque()
        self._fifo = -1

    def __enter__(self) -> "VirtualMicrophone":
        self._pulse = PulseAudio({DEVICE: DEVICE})
        try:
            self._pulse.load(" ".join(self._module()))
            self._pulse.wait(self._has_reader, "the FIFO is open")
            self._fifo = self._open_fifo()
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

    @property
    def env(self) -> dict[str, str]:
        """Environment in which a process finds this microphone alone."""
        return self._pulse.env

    @property
    def home(self) -> Path:
        """Temporary home folder of the daemon."""
        return self._pulse.home

    def start(self, command: list[str], **options: Any) -> subprocess.Popen[Any]:
        """Start a process that finds the microphone; `close` kills it.

        `options` go to `subprocess.Popen`; ``env`` is added to the environment.
        """
        inherited = {"stdout": None, "stderr": None}
        process = self._pulse.start(command, **{**inherited, **options})
        self._processes.append(process)
        return process

    def run(
        self, command: list[str], timeout: float = 60, **options: Any
    ) -> subprocess.CompletedProcess[str]:
        """Run a process to its end while the background plays; capture its output."""
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        process = self.start(command, **{**pipes, **options})
        stdout, stderr = process.communicate(timeout=timeout)
        return subprocess.CompletedProcess(command, process.returncode, stdout, stderr)

    def wait_until_captured(self) -> None:
        """Wait until a process captures from the microphone.

        It captures all samples that are played afterwards.
        """
        self._pulse.wait(self._is_captured, "a process captures")
        quiet = np.resize(self._background, (self.sample_rate // 5, self.channels))
        self.play(quiet)

    def play(
        self, samples: NDArray[Any], *, at_once: bool = False, wait: bool = True
    ) -> None:
        """Play samples into the microphone, in real time or all at once.

        Parameters
        ----------
        samples : int16 or float array, [n_samples] or [n_samples, n_channels]
            Floats in [-1, 1) are scaled by 32768 and rounded.
        at_once : bool
            Write as fast as the FIFO accepts samples.
        wait : bool
            Return only when all samples have been written.
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
        """Stop delivering samples, like a device that hangs."""
        self._paused = True

    def unplug(self) -> None:
        """Unload the sound card, which ends all streams from it."""
        self._pactl("unload-module", "module-pipe-source")

    def plug_in(self) -> None:
        """Load the sound card again, with empty buffers."""
        self._pactl("load-module", *self._module())
        fifo, self._fifo = self._fifo, self._open_fifo()
        os.close(fifo)

    def _pactl(self, *words: str) -> None:
        subprocess.run(
            ["pactl", *words], env=self.env, stdout=subprocess.DEVNULL, check=True
        )

    def close(self) -> None:
        """End the processes and the daemon, and remove the home folder."""
        self._stop.set()
        self._pulse.close()
        if self._feeder is not None:
            self._feeder.join(10)
        if self._fifo >= 0:
            os.close(self._fifo)
            self._fifo = -1

    @property
    def _path(self) -> Path:
        return self.home / "microphone.fifo"

    def _module(self) -> list[str]:
        form = f"format=s16le rate={self.sample_rate} channels={self.channels}"
        name = f"source_name={DEVICE} file={self._path}"
        return ["module-pipe-source", *name.split(), *form.split()]

    def _has_reader(self) -> bool:
        """Return True if the FIFO exists and PulseAudio has opened it."""
        try:
            os.close(os.open(self._path, os.O_WRONLY | os.O_NONBLOCK))
        except OSError:
            return False
        return True

    def _open_fifo(self) -> int:
        fifo = os.open(self._path, os.O_WRONLY | os.O_NONBLOCK)
        # The FIFO delays samples: by at most a quarter of a second.
        frame_bytes = 2 * self.channels
        fcntl.fcntl(fifo, fcntl.F_SETPIPE_SZ, self.sample_rate * frame_bytes // 4)
        return fifo

    def _is_captured(self) -> bool:
        listing = subprocess.run(
            ["pactl", "list", "source-outputs"],
            env={**self.env, "LC_ALL": "C"},
            capture_output=True,
            text=True,
            check=False,
        )
        return "Corked: no" in listing.stdout  # corked: opened, not yet started

    def _feed(self) -> None:
        """Write played samples, or else the background, in real time."""
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
                    due = time.monotonic()  # no process captures: the schedule waits
            if done is not None:
                done.set()
            due += min(len(samples), length) / self.sample_rate
            self._stop.wait(max(0.0, due - time.monotonic()))

    def _all_ended(self) -> bool:
        """Return True if all processes that captured have ended."""
        ended = [process.poll() is not None for process in self._processes]
        return bool(ended) and all(ended)

    def _write(self, data: bytes, insist: bool) -> bool:
        """Write all data; unless `insist`, write nothing while the FIFO is full."""
        view = memoryview(data)
        while view and not self._stop.is_set():
            try:
                view = view[os.write(self._fifo, view) :]
            except BlockingIOError:
                if not insist and len(view) == len(data):
                    return False
                if self._all_ended():
                    return False
                self._stop.wait(0.001)
            except BrokenPipeError:
                return False
        return True
