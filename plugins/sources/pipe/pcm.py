"""Decoder of raw PCM: bytes, cut anywhere, to float samples."""

from typing import Literal, TypeAlias

import numpy as np

from neurovocal.engine import Float32

SampleFormat: TypeAlias = Literal["s16le", "s24le", "s32le", "f32le"]
_BYTES: dict[SampleFormat, int] = {"s16le": 2, "s24le": 3, "s32le": 4, "f32le": 4}


class PcmDecoder:
    """Decoder of interleaved raw samples.

    Parameters
    ----------
    sample_format : {'s16le', 's24le', 's32le', 'f32le'}
        Little-endian integers or floats, as ffmpeg names them.
    channels : int
        Number of interleaved channels.
    """

    def __init__(self, sample_format: SampleFormat, channels: int) -> None:
        self._format: SampleFormat = sample_format
        self._channels = channels
        self.sample_bytes = _BYTES[sample_format] * channels
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
        match self._format:
            case "s16le":
                values = np.frombuffer(data, "<i2", whole // 2).astype(np.float32)
                values *= np.float32(2**-15)
            case "s24le":
                # The three bytes become the upper ones of four, which keeps the sign
                # and the full scale.
                wide = np.zeros((whole // 3, 4), np.uint8)
                wide[:, 1:] = np.frombuffer(data, np.uint8, whole).reshape(-1, 3)
                values = wide.view("<i4")[:, 0].astype(np.float32)
                values *= np.float32(2**-31)
            case "s32le":
                values = np.frombuffer(data, "<i4", whole // 4).astype(np.float32)
                values *= np.float32(2**-31)
            case "f32le":
                values = np.frombuffer(data, "<f4", whole // 4).astype(np.float32)
        return values.reshape(-1, self._channels)
