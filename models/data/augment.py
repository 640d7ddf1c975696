"""Augmentation of training frames: level, spectral tilt and noise floor."""

import numpy as np

from neurovocal.engine.contracts.types import Float32
from neurovocal.models.toolkit.recipe import AugmentConfig


class Augmenter:
    """Change level, tilt and noise floor of scaled frames, and add noise.

    Level, tilt and floor are changed only if the frames are logarithmic, where a
    change of level is a sum.

    Parameters
    ----------
    config : AugmentConfig
        Strength of each change.
    offset, gain : float32[n_bins]
        Scaling of the frames, ``(x - offset) * gain``.
    logarithmic : bool
        True if x is log10 of power.
    """

    def __init__(
        self, config: AugmentConfig, offset: Float32, gain: Float32, logarithmic: bool
    ) -> None:
        self._config = config
        self._offset = offset
        self._gain = gain
        self._logarithmic = logarithmic
        self._slope = np.linspace(-0.5, 0.5, len(gain), dtype=np.float32)

    def __call__(self, frames: Float32, rng: np.random.Generator) -> Float32:
        """Return a changed copy of float32[batch, T, n_bins], clipped to [0, 1]."""
        config, batch_size = self._config, len(frames)
        if self._logarithmic:
            level_db = rng.normal(0, config.level_db, (batch_size, 1, 1))
            tilt_db = rng.normal(0, config.tilt_db, (batch_size, 1, 1)) * self._slope
            change = ((level_db + tilt_db) / 10).astype(np.float32)
            frames = frames + change * self._gain
            self._raise_floor(frames, rng)
        if config.noise:
            noise = rng.standard_normal(frames.shape, dtype=np.float32)
            frames = frames + np.float32(config.noise) * noise
        return np.clip(frames, 0.0, 1.0)

    def _raise_floor(self, frames: Float32, rng: np.random.Generator) -> None:
        """Add noise of random power and tilt to a share of the sequences, in place.

        The power of Gaussian noise in a bin of a frame is distributed exponentially.
        """
        config = self._config
        for sequence in frames:
            if rng.random() >= config.floor:
                continue
            rise = rng.uniform(0, config.floor_db) / 10
            tilt = rng.normal(0, 1.0) * self._slope
            mean = self._offset + rise + tilt
            power = rng.standard_exponential(sequence.shape, dtype=np.float32)
            power_before = np.power(10.0, sequence / self._gain_or_one + self._offset)
            total = power_before + power * np.power(10.0, mean)
            sequence[:] = (np.log10(total) - self._offset) * self._gain

    @property
    def _gain_or_one(self) -> Float32:
        """Gain, with 1 in place of the zeros of constant bins."""
        return np.where(self._gain > 0, self._gain, np.float32(1.0))
