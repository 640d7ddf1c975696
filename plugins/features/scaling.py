"""Scaling of frames with a bundle's offset and gain per bin, then a clip."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from neurovocal.engine import Bundle, BundleError, Float32
from neurovocal.engine.contracts.bundle import file_in
from neurovocal.plugins.storage.npz import read_npz


@dataclass(frozen=True, slots=True, eq=False)
class Scaling:
    """Scaling ``clip((x - offset) * gain)`` per bin.

    Parameters
    ----------
    offset, gain : float32[n_bins]
        Constants of each bin.
    clip : tuple of float, optional
        Smallest and largest value after scaling.
    """

    offset: Float32
    gain: Float32
    clip: tuple[float, float] | None

    def apply(self, values: Float32) -> None:
        """Scale float32[n_frames, n_bins] in place."""
        np.subtract(values, self.offset, out=values)
        np.multiply(values, self.gain, out=values)
        if self.clip is not None:
            low, high = self.clip
            np.maximum(values, np.float32(low), out=values)
            np.minimum(values, np.float32(high), out=values)


def load_scaling(
    place: Bundle | Path, name: str, n_bins: int, clip: tuple[float, float] | None
) -> Scaling:
    """Read `offset` and `gain` from the npz file `name` in a bundle or folder.

    Raises
    ------
    BundleError
        The file is missing, unreadable, outside the folder or not listed by the
        bundle, or does not fit `n_bins`.
    """
    path = file_in(place, name)
    arrays = read_npz(path, "scaling file", "offset", "gain")
    offset, gain = arrays["offset"], arrays["gain"]
    if offset.shape != (n_bins,) or gain.shape != (n_bins,):
        raise BundleError(
            f"scaling file '{path}' is for {offset.size} bins, the front end makes "
            f"{n_bins}"
        )
    if not (np.isfinite(offset).all() and np.isfinite(gain).all()):
        raise BundleError(f"scaling file '{path}' holds values that are not finite")
    return Scaling(offset, gain, clip)
