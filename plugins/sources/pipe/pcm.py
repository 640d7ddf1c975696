"""Decoder of raw PCM: bytes, cut anywhere, to float samples."""

from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from neurovocal.engine import Float32

SampleFormat: TypeAlias = Literal[
    "u8",
    "s8",
    "s16le",
    "s16be",
    "s24le",
    "s24be",
    "s32le",
    "s32be",
    "f32le",
    "f32be",
    "f64le",
    "f64be",
]


class PcmDecoder:
    """Decoder of interleaved raw samples.

    Parameters
    ----------
    sample_format : str
        As ffmpeg names it: unsigned or signed integers or floats, their bits, and the
        order of their bytes.
    channels : int
        Number of interleaved channels.
    """

    def __init__(self, sample_format: SampleFormat, channels: int) -> None:
        self._kind = sample_format[0]
        self._bytes = int(sample_format[1:].removesuffix("le").removesuffix("be")) // 8
        self._order = ">" if sample_format.endswith("be") else "<"
        self._channels = channels
        self.sample_bytes = self._bytes * channels
        self._rest = b""

    @property
    def rest(self) -> int:
        """Number of bytes of an incomplete sample."""
        return len(self._rest)

    def decode(self, data: bytes) -> Float32:
        """Return the samples that `data` completes, float32[n_samples, n_channels].

        Integers are scaled by their full range to [-1, 1).
        """
        data = self._rest + data
        whole = len(data) // self.sample_bytes * self.sample_bytes
        self._rest = data[whole:]
        return self._values(data[:whole]).reshape(-1, self._channels)

    def _values(self, data: bytes) -> NDArray[np.float32]:
        if self._kind == "f":
            with np.errstate(over="ignore"):  # more than float32 holds is infinite
                floats = np.frombuffer(data, f"{self._order}f{self._bytes}")
                return floats.astype(np.float32)
        if self._bytes == 3:
            # The three bytes become the upper ones of four, which keeps the sign
            # and the full scale.
            wide = np.zeros((len(data) // 3, 4), np.uint8)
            place = slice(1, 4) if self._order == "<" else slice(3)
            wide[:, place] = np.frombuffer(data, np.uint8).reshape(-1, 3)
            integers = wide.view(f"{self._order}i4")[:, 0]
        else:
            dtype = f"{self._order}{'u' if self._kind == 'u' else 'i'}{self._bytes}"
            integers = np.frombuffer(data, dtype)
        bits = 8 * integers.dtype.itemsize
        values = integers.astype(np.float32)
        if self._kind == "u":
            values -= np.float32(2 ** (bits - 1))
        values *= np.float32(2.0 ** (1 - bits))
        return values
