"""WAV files that stay readable after a kill or a failure of the disk.

The format is RF64 (EBU Tech 3306) with one channel of float32 samples: no clipping, no
limit of length. libsndfile writes the same format, but its header has the length only
after closing, and a part of a block that did not fit on the disk stays in the file.
"""

import logging
import os
import struct
from contextlib import suppress
from errno import EEXIST
from pathlib import Path
from typing import Any

import numpy as np

from neurovocal.engine import Float32
from neurovocal.engine.support.platform import OPEN_BINARY, read_at
from neurovocal.plugins.storage.existing import FileKind
from neurovocal.plugins.storage.file_lock import FileIdentity
from neurovocal.plugins.storage.folder import (
    OutputFolder,
    identity_of,
    pwrite_all,
)

log = logging.getLogger("neurovocal")

_HEADER = struct.Struct("<4sI4s 4sIQQQI 4sIHHIIHHH 4sI")
_UNKNOWN = 0xFFFFFFFF  # of a 32-bit length: the ds64 chunk has it
_IEEE_FLOAT = 3  # WAVE_FORMAT_IEEE_FLOAT
_SAMPLE_BYTES = 4


# Files that this module has written, which a sink may replace.
_FORM = b"WAVEds64"
_FORMAT = b"fmt " + struct.pack("<IH", 18, _IEEE_FLOAT)
FLOAT_WAVE = FileKind(
    "sound that this program has written",
    lambda head: (head[:4], head[8:16], head[48:58]) == (b"RF64", _FORM, _FORMAT),
)


class FloatWave:
    """Growing WAV file; its header is updated every second of sound.

    A write that fails leaves the file as it was. Opened again, the file is continued;
    if it was deleted it is begun again.

    Parameters
    ----------
    path : Path
        Path of the file; a file of an earlier run is replaced.
    sample_rate : int
        Sample rate in Hz.

    Attributes
    ----------
    n_samples : int
        Number of samples in the file.
    """

    def __init__(self, path: Path, sample_rate: int) -> None:
        self.path = path
        self.n_samples = 0
        self._rate = sample_rate
        self._descriptor: int | None = None
        self._identity: FileIdentity | None = None
        self._was_opened = False
        self._header_samples = 0  # length that the header has

    def open(self) -> bool:
        """Open the file, or continue it.

        Returns
        -------
        bool
            True if the file is new.

        Raises
        ------
        OSError
            The file cannot be written, or another file has its name.
        """
        try:
            is_continued = self._was_opened and self.path.exists()
            how = (
                os.O_RDWR
                | OPEN_BINARY
                | (0 if is_continued else os.O_CREAT | os.O_TRUNC)
            )
            self._descriptor = os.open(self.path, how, 0o666)
            if is_continued:
                self._resume(self._descriptor)
            else:
                self.n_samples = 0
            os.ftruncate(self._descriptor, self._offset(self.n_samples))
            self._write_header()
        except OSError:
            self.release()
            raise
        self._identity = identity_of(self.path)
        self._was_opened = True
        return not is_continued

    @property
    def is_open(self) -> bool:
        """True while the file is open."""
        return self._descriptor is not None

    def require_in(self, folder: OutputFolder) -> None:
        """Raise OSError if the open file was removed from its folder, or replaced."""
        folder.require_same(self.path, self._identity)

    def write(self, start: int, samples: Float32) -> None:
        """Write float32[n_samples] at `start`; silence fills the file up to there.

        Raises
        ------
        OSError
            The disk does not take the samples; the file is as long as before.
        """
        descriptor = self._opened()
        end = max(self.n_samples, start + len(samples))
        # Samples beyond the end come first: a full disk refuses them before anything
        # was changed.
        split = min(max(self.n_samples - start, 0), len(samples))
        data = np.ascontiguousarray(samples, "<f4")
        try:
            pwrite_all(descriptor, data[split:].tobytes(), self._offset(start + split))
            pwrite_all(descriptor, data[:split].tobytes(), self._offset(start))
            if not len(samples):
                os.ftruncate(descriptor, self._offset(end))
        except OSError:
            with suppress(OSError):
                os.ftruncate(descriptor, self._offset(self.n_samples))
            raise
        self.n_samples = end
        if end - self._header_samples >= self._rate:
            self._write_header()

    def read(self, start: int, count: int) -> Float32:
        """Return float32[count] samples from `start` on."""
        data = read_at(self._opened(), count * _SAMPLE_BYTES, self._offset(start))
        samples: Float32 = np.frombuffer(data, "<f4").astype(np.float32)
        return samples

    def flush(self) -> None:
        """Write the length of all samples to the header."""
        if self._descriptor is not None and self._header_samples != self.n_samples:
            self._write_header()

    def close(self) -> None:
        """Complete the file; raise OSError as `write` does. May be called twice."""
        try:
            self.flush()
        finally:
            self.release()

    def release(self) -> None:
        """Close the file without updating the header."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            with suppress(OSError):
                os.close(descriptor)

    def _resume(self, descriptor: int) -> None:
        """Set the length to the samples that the disk still has."""
        size = os.fstat(descriptor).st_size
        head = read_at(descriptor, _HEADER.size, 0)
        if any(head) and not _is_own_header(head, self._rate):
            raise FileExistsError(EEXIST, f"another file is at '{self.path}'")
        kept = max(0, size - _HEADER.size) // _SAMPLE_BYTES
        if kept < self.n_samples:
            lost = self.n_samples - kept
            log.warning("'%s': the disk has lost %d samples", self.path, lost)
            self.n_samples = kept

    def _write_header(self) -> None:
        pwrite_all(self._opened(), _header(self._rate, self.n_samples), 0)
        self._header_samples = self.n_samples

    def _opened(self) -> int:
        if self._descriptor is None:
            raise ValueError(f"'{self.path}' is not open")
        return self._descriptor

    @staticmethod
    def _offset(sample: int) -> int:
        return _HEADER.size + sample * _SAMPLE_BYTES


def _header(rate: int, n_samples: int) -> bytes:
    size = n_samples * _SAMPLE_BYTES
    form: tuple[Any, ...] = (
        b"fmt ",
        18,
        _IEEE_FLOAT,
        1,
        rate,
        rate * _SAMPLE_BYTES,
        _SAMPLE_BYTES,
        32,
        0,
    )
    sizes = (b"ds64", 28, _HEADER.size - 8 + size, size, n_samples, 0)
    return _HEADER.pack(b"RF64", _UNKNOWN, b"WAVE", *sizes, *form, b"data", _UNKNOWN)


def _is_own_header(head: bytes, rate: int) -> bool:
    if len(head) < _HEADER.size:
        return False
    fields = _HEADER.unpack(head)
    return fields[0] == b"RF64" and fields[11:14] == (_IEEE_FLOAT, 1, rate)
