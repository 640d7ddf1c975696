r"""Patches of frames in principal components: Fréchet distance, spread, repeats.

A patch is `PATCH_FRAMES` successive frames (64 ms at the shipped front end: about a
syllable or a gap), flattened. Principal components fitted on real training song
keep the directions in which real song varies; in them, two sets of patches are
compared as Gaussians:

.. math::
    d^2 = |m_a - m_b|^2 + \mathrm{tr}(C_a + C_b - 2 (C_a C_b)^{1/2})

(D. C. Dowson and B. V. Landau, "The Fréchet distance between multivariate normal
distributions", Journal of Multivariate Analysis 12, 1982; used on features of
generated images by M. Heusel et al., "GANs trained by a two time-scale update rule
converge to a local Nash equilibrium", NeurIPS 2017). The components are not
whitened: the unit is the front end's scaled level, squared and summed over a patch.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from neurovocal.engine.contracts.errors import ConfigError
from neurovocal.engine.contracts.types import Float32

PATCH_FRAMES = 16
N_COMPONENTS = 32
STRIDE = 4

Points = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class PatchSpace:
    """Principal components of real patches.

    Parameters
    ----------
    centre : float64[n_values]
        Mean patch; `n_values` is `PATCH_FRAMES` times the number of bins.
    axes : float64[n_values, n_components]
        Orthonormal, by falling variance.
    """

    centre: Points
    axes: Points

    @classmethod
    def fit(cls, songs: Sequence[Float32]) -> "PatchSpace":
        """Fit the components to the patches of real song.

        Raises
        ------
        ConfigError
            There are less than twice as many patches as components.
        """
        patches = patches_of(songs)
        if len(patches) < 2 * N_COMPONENTS:
            raise ConfigError(
                f"{len(patches)} stretches of {PATCH_FRAMES} frames are too few to "
                f"compare song by: at least {2 * N_COMPONENTS} are needed"
            )
        centre = patches.mean(0)
        centred = patches - centre
        _, vectors = np.linalg.eigh(centred.T @ centred)
        axes: Points = np.ascontiguousarray(vectors[:, ::-1][:, :N_COMPONENTS])
        return cls(centre, axes)

    def project(self, songs: Sequence[Float32]) -> Points:
        """Return the patches of all songs, float64[n_patches, n_components]."""
        return (patches_of(songs) - self.centre) @ self.axes


def patches_of(songs: Sequence[Float32]) -> Points:
    """Return every `STRIDE`-th patch of each song, float64[n_patches, n_values]."""
    n_bins = songs[0].shape[1] if songs else 0
    parts = [np.zeros((0, PATCH_FRAMES * n_bins))]
    for song in songs:
        if len(song) >= PATCH_FRAMES:
            windows = np.lib.stride_tricks.sliding_window_view(song, PATCH_FRAMES, 0)
            rows = windows[::STRIDE].transpose(0, 2, 1)
            parts.append(rows.reshape(len(rows), -1).astype(np.float64))
    return np.concatenate(parts)


def frechet_distance(a: Points, b: Points) -> float:
    """Return the squared Fréchet distance of two sets of points as Gaussians.

    Parameters
    ----------
    a, b : float64[n, n_dimensions]
        At least two points each.
    """
    covariance_a, covariance_b = (np.atleast_2d(np.cov(x.T)) for x in (a, b))
    values, vectors = np.linalg.eigh(covariance_a)
    root = (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T
    # tr (Ca Cb)^(1/2) = tr (Ca^(1/2) Cb Ca^(1/2))^(1/2), which is symmetric.
    product = np.linalg.eigvalsh(root @ covariance_b @ root)
    shared = np.sqrt(np.maximum(product, 0.0)).sum()
    spread = np.trace(covariance_a) + np.trace(covariance_b) - 2 * shared
    shift = np.square(a.mean(0) - b.mean(0)).sum()
    return float(max(0.0, shift + spread))


def spread(parts: Sequence[Points]) -> float:
    """Return the mean distance of patches of different parts, a measure of variety.

    Parameters
    ----------
    parts : sequence of float64[n, n_dimensions]
        Patches of each song or sequence; NaN when there are fewer than two.
    """
    thinned = [part[:: max(1, len(part) // 200)] for part in parts if len(part)]
    distances = [
        _distances(a, b).ravel()
        for number, a in enumerate(thinned)
        for b in thinned[:number]
    ]
    return float(np.concatenate(distances).mean()) if distances else float("nan")


def nearest_patch_distances(parts: Sequence[Points]) -> Points:
    """Return the distance of each patch to the most similar other one of its part.

    Overlapping patches are left out. A periodic song has distances near 0. The
    distance falls with the length of a part, so compare parts of one length.
    """
    rows = [np.zeros(0)]
    apart = PATCH_FRAMES // STRIDE
    for part in parts:
        if len(part) > apart:
            distances = _distances(part, part)
            i = np.arange(len(part))
            distances[np.abs(i[:, None] - i) < apart] = np.inf
            rows.append(distances.min(1))
    return np.concatenate(rows)


def _distances(a: Points, b: Points) -> Points:
    squares = np.square(a).sum(1)[:, None] + np.square(b).sum(1) - 2 * a @ b.T
    distances: Points = np.sqrt(np.maximum(squares, 0.0))
    return distances
