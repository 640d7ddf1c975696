"""Options of the spectrogram: shape of the frames and scale of their values."""

from typing import Annotated, Literal, TypeAlias

from pydantic import Field, field_validator

from neurovocal.engine import ConfigError, Options, to_samples
from neurovocal.engine.contracts.options import HIGHEST_HZ, Order

# Samples of a frame: a second at 250 kHz.
_LONGEST = 2**18
_ClipLevel: TypeAlias = Annotated[float, Field(ge=-1e9, le=1e9)]


class ScalingOptions(Options):
    """Scaling per bin, as a last step: ``clip((x - offset) * gain)``."""

    file: str = "scaling.npz"
    """File with `offset` and `gain`, relative to the bundle's folder."""
    clip: tuple[_ClipLevel, _ClipLevel] | None = None
    """Smallest and largest value after scaling; null: no limit."""

    @field_validator("clip")
    @classmethod
    def _rising(cls, clip: tuple[float, float] | None) -> tuple[float, float] | None:
        if clip is not None and clip[0] >= clip[1]:
            raise ValueError("the first value must be below the second")
        return clip


class SpectrogramOptions(Options):
    """What a frame is and how its power is written."""

    orders = (
        Order("low_hz", "high_hz", "no frequency is kept", strict=True),
        Order("frame_length", "n_fft", "the transform is shorter than a frame"),
    )
    alternatives = (
        ("frame_length", "frame_length_ms"),
        ("hop_length", "overlap"),
        ("n_fft", "padding"),
    )
    frame_length: int | None = Field(default=None, ge=2, le=_LONGEST)
    """Samples per frame; 256 where frame_length_ms is absent, too."""
    frame_length_ms: float | None = Field(default=None, gt=0, le=60_000)
    """Length of a frame in milliseconds, in place of frame_length."""
    hop_length: int | None = Field(default=None, ge=1, le=_LONGEST)
    """Samples from one frame to the next."""
    overlap: float | None = Field(default=None, ge=0, lt=1)
    """Share of a frame that the next one repeats, in place of hop_length; 0.5
    where both are absent."""
    n_fft: int | None = Field(default=None, ge=2, le=_LONGEST)
    """Length of the transform; a frame is padded with zeros to it."""
    padding: int = Field(default=1, ge=1, le=64)
    """Length of the transform as a multiple of the frame, in place of n_fft."""
    window: Literal["hann", "hamming", "tukey"] = "tukey"
    """Window, in its periodic form."""
    tukey_alpha: float = Field(default=0.25, ge=0, le=1)
    """Tapered share of the Tukey window."""
    detrend: Literal["constant", "none"] = "constant"
    """`constant` takes the mean from each frame."""
    power: Literal["density", "magnitude"] | None = None
    """`density`: one-sided power per Hz; `magnitude`: |S|^2 of the plain transform.
    By default mel takes `magnitude`, the other scales `density`."""
    scale: Literal["linear", "log", "mel"] = "linear"
    """`linear`: power; `log`: log10(power + floor); `mel`: log10(1 + power in mel
    bands)."""
    floor: float = Field(default=1e-12, ge=1e-37, le=1)
    """Power that `log` adds, so that silence has a finite value."""
    n_mels: int = Field(default=40, ge=1, le=4096)
    """Number of mel bands."""
    low_hz: float = Field(default=0.0, ge=0, le=HIGHEST_HZ)
    """Lowest frequency kept."""
    high_hz: float | None = Field(default=None, gt=0, le=HIGHEST_HZ)
    """Highest frequency kept; half the sample rate by default."""
    scaling: ScalingOptions | None = None
    """Scaling that the networks were trained with."""

    def lengths(self, sample_rate: int) -> tuple[int, int, int]:
        """Return ``(frame_length, hop_length, n_fft)`` in samples at a rate in Hz.

        Raises
        ------
        ConfigError
            A frame has less than two samples, or the transform is shorter than it.
        """
        length = self.frame_length or 256
        if self.frame_length_ms is not None:
            length = to_samples(self.frame_length_ms, sample_rate)
        if length < 2:
            raise ConfigError(
                f"frame_length_ms {self.frame_length_ms:g} is less than two samples "
                f"at {sample_rate} Hz"
            )
        share = 0.5 if self.overlap is None else self.overlap
        hop = self.hop_length or max(1, round(length * (1 - share)))
        n_fft = self.n_fft or length * self.padding
        if n_fft < length:
            raise ConfigError(f"n_fft {n_fft} is shorter than a frame of {length}")
        if max(hop, n_fft) > _LONGEST:
            raise ConfigError(
                f"frames of {length} samples every {hop}, transformed over {n_fft}, "
                f"are too long: {_LONGEST} samples at most"
            )
        return length, hop, n_fft

    @property
    def power_kind(self) -> Literal["density", "magnitude"]:
        """Kind of power, with the default of the scale."""
        return self.power or ("magnitude" if self.scale == "mel" else "density")
