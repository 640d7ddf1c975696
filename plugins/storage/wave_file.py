"""WAV files that stay whole whatever happens to the program or the disk.

The form is RF64 (EBU Tech 3306) with one channel of float32: nothing is clipped, and
any length fits. libsndfile writes the same form, but it knows the length only when it
closes the file, and what a disk took of a piece that it could not take whole stays.
"""

import logging
import os
import struct
from contextlib import suppress
from errno import EEXIST
from pathlib import Path
from typing import Any

import numpy as np

from neurovocal.engine.contracts.types import Float32
from neurovocal.plugins.storage.folder import identity_of, write_all

log = logging.getLogger("neurovocal")

_HEAD = struct.Struct("<4sI4s 4sIQQQI 4sIHHIIHHH 4sI")
_UNKNOWN = 0xFFFFFFFF
_FLOAT = 3  # WAVE_FORMAT_IEEE_FLOAT
_BYTES = 4


class FloatWave:
    """One file: samples at any place, a header that is right at least every second.

    A write that fails leaves what was there before. Opened once more, the file goes on
    where it was; if it was deleted it begins again.

    Parameters
    ----------
    path : Path
        The file; what an earlier program left there is replaced.
    sample_rate : int
        Hz.

    Attributes
    ----------
    frames : int
        Samples in the file.
    """

    def __init__(self, path: Path, sample_rate: int) -> None:
        self.path = path
        self.frames = 0
        self._rate = sample_rate
        self._descriptor: int | None = None
        self._identity: tuple[int, int] | None = None
        self._begun = False
        self._told = 0  # samples of which the header knows

    def open(self) -> bool:
        """Open the file.

        Returns
        -------
        bool
            Whether it is a new one.

        Raises
        ------
        OSError
            It cannot be written, or a file that is not this one has its name.
        """
        try:
            again = self._begun and self.path.exists()
            how = os.O_RDWR | (0 if again else os.O_CREAT | os.O_TRUNC)
            self._descriptor = os.open(self.path, how, 0o666)
            if again:
                self._resume(self._descriptor)
            else:
                self.frames = 0
            os.ftruncate(self._descriptor, self._offset(self.frames))
            self._tell()
        except OSError:
            self.abandon()
            raise
        self._identity = identity_of(self.path)
        self._begun = True
        return not again

    @property
    def is_open(self) -> bool:
        """Whether it is open."""
        return self._descriptor is not None

    @property
    def in_place(self) -> bool:
        """Whether the file that is open still has its name."""
        return identity_of(self.path) == self._identity

    def write(self, start: int, samples: Float32) -> None:
        """Write float32[n_samples] at `start`; what lies between is silence.

        Raises
        ------
        OSError
            The disk does not take it; nothing has become longer.
        """
        descriptor = self._opened()
        end = max(self.frames, start + len(samples))
        # What makes the file longer comes first: where the disk is full that fails,
        # before anything was changed.
        split = min(max(self.frames - start, 0), len(samples))
        data = np.ascontiguousarray(samples, "<f4")
        try:
            write_all(descriptor, data[split:].tobytes(), self._offset(start + split))
            write_all(descriptor, data[:split].tobytes(), self._offset(start))
            if not len(samples):
                os.ftruncate(descriptor, self._offset(end))
        except OSError:
            with suppress(OSError):
                os.ftruncate(descriptor, self._offset(self.frames))
            raise
        self.frames = end
        if end - self._told >= self._rate:
            self._tell()

    def read(self, start: int, count: int) -> Float32:
        """Samples of the file, float32[count], from `start` on."""
        data = os.pread(self._opened(), count * _BYTES, self._offset(start))
        samples: Float32 = np.frombuffer(data, "<f4").astype(np.float32)
        return samples

    def flush(self) -> None:
        """Let the header know all samples."""
        if self._descriptor is not None and self._told != self.frames:
            self._tell()

    def close(self) -> None:
        """Finish the file. May be called twice; raises OSError as `write` does."""
        try:
            self.flush()
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Let go of the file as it is."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            with suppress(OSError):
                os.close(descriptor)

    def _resume(self, descriptor: int) -> None:
        """Find out how much of what was written the disk still has."""
        size = os.fstat(descriptor).st_size
        head = os.pread(descriptor, _HEAD.size, 0)
        if any(head) and not _is_ours(head, self._rate):
            raise FileExistsError(EEXIST, f"another file is at '{self.path}'")
        kept = max(0, size - _HEAD.size) // _BYTES
        if kept < self.frames:
            lost = self.frames - kept
            log.warning("'%s': the disk has lost %d samples", self.path, lost)
            self.frames = kept

    def _tell(self) -> None:
        write_all(self._opened(), _head(self._rate, self.frames), 0)
        self._told = self.frames

    def _opened(self) -> int:
        if self._descriptor is None:
            raise ValueError(f"'{self.path}' is not open")
        return self._descriptor

    @staticmethod
    def _offset(sample: int) -> int:
        return _HEAD.size + sample * _BYTES


def _head(rate: int, frames: int) -> bytes:
    size = frames * _BYTES
    form: tuple[Any, ...] = (b"fmt ", 18, _FLOAT, 1, rate, rate * _BYTES, _BYTES, 32, 0)
    sizes = (b"ds64", 28, _HEAD.size - 8 + size, size, frames, 0)
    return _HEAD.pack(b"RF64", _UNKNOWN, b"WAVE", *sizes, *form, b"data", _UNKNOWN)


def _is_ours(head: bytes, rate: int) -> bool:
    if len(head) < _HEAD.size:
        return False
    fields = _HEAD.unpack(head)
    return fields[0] == b"RF64" and fields[11:14] == (_FLOAT, 1, rate)
