"""Morphs between two renditions: sounds that lie between them by equal steps.

Frames of the two are aligned by dynamic time warping (H. Sakoe and S. Chiba, IEEE
Transactions on Acoustics, Speech and Signal Processing 26, 1978), so that an attack
meets an attack and a sweep a sweep. A step takes each aligned pair at its time between
the two, mixes their frames, and is turned into sound as generated song is: all steps,
the first and last included, have gone through the same resynthesis.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from neurovocal.engine.contracts.bundle import Bundle
from neurovocal.engine.contracts.errors import ConfigError
from neurovocal.engine.contracts.types import Float32
from neurovocal.models.generation.generator import read_seed_frames
from neurovocal.plugins.features.inverse import InverseSpectrogram

MOST_S = 5.0
_MOST_CELLS = 2**21


@dataclass(frozen=True, slots=True, eq=False)
class Morph:
    """One step between two renditions.

    Parameters
    ----------
    share : float
        Share of the second rendition, 0 to 1.
    frames : float32[n_frames, n_bins]
        Frames of the bundle's front end.
    samples : float32[n_samples]
        The sound.
    """

    share: float
    frames: Float32
    samples: Float32


def read_rendition(bundle: Bundle, path: Path) -> Float32:
    """Return the frames of a recording of one vocalization.

    Returns
    -------
    float32[n_frames, n_bins]

    Raises
    ------
    AudioFileError
        The recording cannot be read.
    ConfigError
        It is silent, too short, or too long to be one vocalization.
    """
    frames = read_seed_frames(bundle, path)
    if np.ptp(frames) == 0:
        raise ConfigError(f"'{path}' is silent from beginning to end: nothing to morph")
    front_end = bundle.manifest.front_end
    seconds = len(frames) * front_end.hop_length / front_end.sample_rate
    if seconds > MOST_S:
        raise ConfigError(
            f"'{path}' lasts {seconds:.1f} s: a morph is between two vocalizations of "
            f"{MOST_S:g} s at most: cut out one"
        )
    return frames


def align(first: Float32, second: Float32) -> NDArray[np.int64]:
    """Return the pairs of frames that belong together, int64[n_pairs, 2].

    They begin with both first frames, end with both last ones, and go forward in one of
    the two or both from pair to pair, such that the sum of distances is least.

    Parameters
    ----------
    first, second : float32[n_frames, n_bins]
        Frames of the two renditions.
    """
    rows, columns = len(first), len(second)
    if rows * columns > _MOST_CELLS:
        raise ConfigError("the renditions have too many frames: cut out shorter ones")
    a, b = first.astype(np.float64), second.astype(np.float64)
    squares = np.square(a).sum(1)[:, None] + np.square(b).sum(1) - 2 * a @ b.T
    distance = np.sqrt(np.maximum(squares, 0.0))
    total = np.full((rows + 1, columns + 1), np.inf)
    total[0, 0] = 0.0
    for i in range(1, rows + 1):
        for j in range(1, columns + 1):
            # A step in both counts twice, so that detours do not pay.
            total[i, j] = min(
                total[i - 1, j - 1] + 2 * distance[i - 1, j - 1],
                total[i - 1, j] + distance[i - 1, j - 1],
                total[i, j - 1] + distance[i - 1, j - 1],
            )
    pairs, (i, j) = [], (rows, columns)
    while (i, j) != (0, 0):
        pairs.append((i - 1, j - 1))
        cost = distance[i - 1, j - 1]
        ways = [
            (total[i - 1, j - 1] + 2 * cost, (i - 1, j - 1)),
            (total[i - 1, j] + cost, (i - 1, j)),
            (total[i, j - 1] + cost, (i, j - 1)),
        ]
        i, j = min(ways, key=lambda way: way[0])[1]
    return np.array(pairs[::-1], np.int64)


def mix(
    first: Float32, second: Float32, pairs: NDArray[np.int64], share: float
) -> Float32:
    """Return frames between two renditions, float32[n_frames, n_bins].

    Their number lies between those of the two likewise.

    Parameters
    ----------
    first, second : float32[n_frames, n_bins]
        Frames of the two.
    pairs : int64[n_pairs, 2]
        Result of `align`.
    share : float
        Share of the second, 0 to 1; 0 and 1 give the frames of one of them.
    """
    n_frames = max(1, round((1 - share) * len(first) + share * len(second)))
    # When each pair sounds, in frames of the step.
    times = (1 - share) * pairs[:, 0] + share * pairs[:, 1]
    places = np.linspace(0, len(pairs) - 1, 8 * len(pairs))
    at = np.interp(places, np.arange(len(pairs)), times)
    wanted = np.linspace(0, max(float(times[-1]), 1e-9), n_frames)
    along = np.interp(wanted, at + 1e-9 * places, places)
    of_first = np.interp(along, np.arange(len(pairs)), pairs[:, 0])
    of_second = np.interp(along, np.arange(len(pairs)), pairs[:, 1])
    mixed = (1 - share) * _between(first, of_first)
    mixed += share * _between(second, of_second)
    return mixed.astype(np.float32)


def _between(frames: Float32, places: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return frames at places between frames, by linear interpolation."""
    low = np.clip(np.floor(places).astype(np.int64), 0, len(frames) - 1)
    high = np.minimum(low + 1, len(frames) - 1)
    part = (places - low)[:, None]
    mixed: NDArray[np.float64] = (1 - part) * frames[low] + part * frames[high]
    return mixed


def morphs(
    bundle: Bundle, first: Float32, second: Float32, shares: Sequence[float]
) -> Iterator[Morph]:
    """Yield the steps between two renditions.

    Parameters
    ----------
    bundle : Bundle
        Its front end made the frames, and its inverse makes the sound.
    first, second : float32[n_frames, n_bins]
        Frames of the two.
    shares : sequence of float
        Share of the second in each step.
    """
    inverse = InverseSpectrogram(bundle.manifest.front_end, bundle)
    pairs = align(first, second)
    for share in shares:
        frames = mix(first, second, pairs, share)
        inverse.reset()
        samples = np.concatenate([inverse.process(frames), inverse.flush()])
        yield Morph(share, frames, samples)
