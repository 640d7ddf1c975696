"""Noise floors of the rooms of annotated recordings."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from neurovocal.engine.contracts.types import Block, Float32
from neurovocal.models.tuning.heard import Stretch
from neurovocal.plugins.detectors.band_excess import BandExcess, FloorOptions
from neurovocal.plugins.detectors.band_level import BandLevel
from neurovocal.plugins.detectors.energy import EnergyOptions, band_level, hop_length

_LEAST_NOISE_S = 0.05
# Floors of recordings that are further apart are not those of one room and gain.
_ONE_ROOM_DB = 10.0
_LEAST_DB = -200.0


def floor_between(
    stretches: Sequence[Stretch], options: FloorOptions
) -> tuple[float, ...] | None:
    """Return the noise floor of each band between the examples, as `floor_db`.

    Below the examples where nothing is between them; None if the floors of the
    stretches are more than 10 dB apart: they have no common room.

    Parameters
    ----------
    stretches : sequence of Stretch
        Of one sample rate.
    options : FloorOptions
        Frames and bands.

    Raises
    ------
    ValueError
        The stretches are too short to hold a frame.
    """
    excess = BandExcess(options, stretches[0].sample_rate)
    hop, frame = excess.hop_length, excess.frame_length
    quiet, loud, floors = [], [], []
    least = _LEAST_NOISE_S * stretches[0].sample_rate / hop
    for stretch in stretches:
        levels = excess.levels(stretch.samples)
        between = levels[~_is_example(stretch, len(levels), hop, frame)]
        quiet.append(between)
        loud.append(levels)
        if len(between) >= least:
            floors.append(excess.floor_of(between))
    if not are_one_room(floors):
        return None
    between = np.concatenate(quiet)
    if len(between) < least:
        between = np.concatenate(loud)
    if len(between) == 0:
        raise ValueError("too short to hold a frame")
    return excess.floor_of(between)


def level_between(stretches: Sequence[Stretch], options: EnergyOptions) -> float | None:
    """Return the noise floor of the `energy` detector between the examples, in dB.

    None if there is nothing between them, or the stretches have no common room.

    Parameters
    ----------
    stretches : sequence of Stretch
        Of one sample rate.
    options : EnergyOptions
        Band and averaging.
    """
    floors, quiet = [], []
    for stretch in stretches:
        levels = _levels_between(stretch, options)
        if len(levels):
            quiet.append(levels)
            floors.append((_quantile_db(levels, options.floor_quantile),))
    if not floors or not are_one_room(floors):
        return None
    floor = _quantile_db(np.concatenate(quiet), options.floor_quantile)
    return round(max(floor, options.least_floor_db), 1)


def are_one_room(floors: Sequence[Sequence[float]]) -> bool:
    """Return True if floors in dB, one row per stretch, are at most 10 dB apart.

    The outermost tenths of the stretches are left out; the median band counts.
    """
    if len(floors) < 2:
        return True
    low, high = np.quantile(np.array(floors), (0.1, 0.9), axis=0)
    return bool(np.median(high - low) <= _ONE_ROOM_DB)


def _is_example(
    stretch: Stretch, n_rows: int, hop: int, frame: int
) -> NDArray[np.bool_]:
    """Return which rows touch an example."""
    times = np.arange(n_rows) * hop + frame / 2
    touches = np.zeros(n_rows, bool)
    for start, stop in stretch.spans:
        first, last = (at * stretch.sample_rate for at in (start, stop))
        touches |= (times >= first - frame) & (times < last + frame)
    return touches


def _levels_between(stretch: Stretch, options: EnergyOptions) -> NDArray[np.float64]:
    """Return the levels (mean squares) between the examples; none of few."""
    rate = stretch.sample_rate
    level, reach = band_level(options, rate)
    parts = [levels for _, levels in _pushed(level, stretch.samples)]
    levels = np.concatenate(parts)
    hop = hop_length(options, rate)
    frame = (2 * reach + 1) * hop
    between = levels[~_is_example(stretch, len(levels), hop, frame)]
    return between if len(between) * hop >= _LEAST_NOISE_S * rate else between[:0]


def _pushed(
    level: BandLevel, samples: Float32
) -> Iterator[tuple[int, NDArray[np.float64]]]:
    yield level.push(Block(0, samples[:, None]))
    yield level.flush()


def _quantile_db(levels: NDArray[np.float64], share: float) -> float:
    floor = float(np.quantile(levels, share))
    return max(10 * float(np.log10(max(floor, 1e-20))), _LEAST_DB)
