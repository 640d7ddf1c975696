"""Options of the spectrogram: shape of the frames and scale of their values."""

from typing import Literal

from pydantic import Field, model_validator

from neurovocal.engine import ConfigError, Options, to_samples


class ScalingOptions(Options):
    """Scaling per bin, as a last step: ``clip((x - offset) * gain)``."""

    file: str = "scaling.npz"
    """File with `offset` and `gain`, relative to the bundle's folder."""
    clip: tuple[float, float] | None = None
    """Smallest and largest value after scaling; null: no limit."""


class SpectrogramOptions(Options):
    """What a frame is and how its power is written."""

    frame_length: int | None = Field(default=None, ge=2)
    """Samples per frame; 256 where frame_length_ms is absent, too."""
    frame_length_ms: float | None = Field(default=None, gt=0)
    """Length of a frame in milliseconds, in place of frame_length."""
    hop_length: int | None = Field(default=None, ge=1)
    """Samples from one frame to the next."""
    overlap: float | None = Field(default=None, ge=0, lt=1)
    """Share of a frame that the next one repeats, in place of hop_length; 0.5
    where both are absent."""
    n_fft: int | None = Field(default=None, ge=2)
    """Length of the transform; a frame is padded with zeros to it."""
    padding: int = Field(default=1, ge=1)
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
    floor: float = Field(default=1e-12, gt=0)
    """Power that `log` adds, so that silence has a finite value."""
    n_mels: int = Field(default=40, ge=1)
    """Number of mel bands."""
    low_hz: float = Field(default=0.0, ge=0)
    """Lowest frequency kept."""
    high_hz: float | None = Field(default=None, gt=0)
    """Highest frequency kept; half the sample rate by default."""
    scaling: ScalingOptions | None = None
    """Scaling that the networks were trained with."""

    @model_validator(mode="after")
    def _reject_conflicts(self) -> "SpectrogramOptions":
        if self.frame_length is not None and self.frame_length_ms is not None:
            raise ValueError("give frame_length or frame_length_ms, not both")
        if self.hop_length is not None and self.overlap is not None:
            raise ValueError("give hop_length or overlap, not both")
        if self.n_fft is not None and self.padding != 1:
            raise ValueError("give n_fft or padding, not both")
        if self.high_hz is not None and self.high_hz <= self.low_hz:
            raise ValueError("high_hz must be above low_hz")
        return self

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
        return length, hop, n_fft

    @property
    def power_kind(self) -> Literal["density", "magnitude"]:
        """Kind of power, with the default of the scale."""
        return self.power or ("magnitude" if self.scale == "mel" else "density")
