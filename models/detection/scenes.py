"""Synthetic recordings: calls over backgrounds, as rows of excess with targets."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from neurovocal.engine import Block
from neurovocal.engine.contracts.types import Float32
from neurovocal.models.detection.calls import (
    Float64,
    Random,
    draw_call_type,
    place_calls,
)
from neurovocal.plugins.detectors.band_excess import (
    N_BANDS,
    BandExcess,
    FloorOptions,
    framing,
)

# Rates of recorders that are in use, and how often each is drawn.
RATES = {
    **{1000: 3, 2500: 7, 4000: 4, 8000: 9, 16000: 13, 22050: 10, 32000: 14},
    **{44100: 12, 48000: 4, 96000: 4, 192000: 5, 250000: 8, 384000: 5, 500000: 2},
}
SILENCE, CALL, UNKNOWN = 0, 1, 2  # targets; unknown rows do not count
_FAINTEST_DB = 7.0  # excess that a call reaches somewhere, or else its rows are unknown
_AT_ONCE = 2**18

Target = NDArray[np.int8]


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """Rows of a recording with their targets.

    Parameters
    ----------
    excess : float16[n_rows, n_bands]
        Level of each band above its floor, in dB.
    target : int8[n_rows]
        `SILENCE`, `CALL` or `UNKNOWN`.
    """

    excess: NDArray[np.float16]
    target: Target


def draw_scene(rng: Random, n_rows: int, recordings: Sequence[Float32]) -> Scene:
    """Draw calls of none, one or two imaginary animals over a background.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of all randomness.
    n_rows : int
        Length.
    recordings : sequence of float32[n_samples]
        Backgrounds. They are used sample for sample at any rate: rain at 44.1 kHz is a
        hiss with other clicks in it at 250 kHz.
    """
    rate = int(
        rng.choice(list(RATES), p=np.array([*RATES.values()]) / sum(RATES.values()))
    )
    frame_length, hop, edges_hz = framing(FloorOptions(), rate)
    n_samples = (n_rows - 1) * hop + frame_length
    samples = draw_background(rng, n_samples, hop, recordings)
    spans: list[tuple[int, int]] = []
    n_animals = 0 if rng.random() < 0.1 else 1 + int(rng.random() < 0.2)
    for _ in range(n_animals):
        of = draw_call_type(rng, float(edges_hz[0]) / rate)
        calls, own = place_calls(rng, of, n_samples, hop)
        samples += calls
        spans += own
    samples *= 10 ** (rng.uniform(-60, -10) / 20)
    excess = excess_of(samples.astype(np.float32), rate)
    target = targets_of(excess, sorted(spans), frame_length, hop)
    return Scene(excess.astype(np.float16), target)


def draw_background(
    rng: Random, n_samples: int, hop_length: int, recordings: Sequence[Float32]
) -> Float64:
    """Draw a background with a level of 1 (root mean square), float64[n_samples].

    It is a recording, or noise of some colour, with hum, gusts of wind, the noise of an
    amplifier and slow changes of level.
    """
    if recordings and rng.random() < 0.55:
        samples = _part_of(rng, recordings, n_samples)
    else:
        slope = rng.choice([0, 0, -1, -1, -2, rng.uniform(-3, 1)])
        samples = _coloured(rng, n_samples, slope)
    if rng.random() < 0.5:
        noise = rng.standard_normal(n_samples)
        samples = samples + 10 ** (rng.uniform(-30, -5) / 20) * noise
    if rng.random() < 0.35:
        change_hops, change_db = rng.choice([50, 200, 750]), rng.uniform(1, 5)
        samples = samples * _slow_gain(
            rng, n_samples, change_hops * hop_length, change_db
        )
    if rng.random() < 0.25:
        time = np.arange(n_samples)
        for _ in range(rng.integers(1, 5)):
            frequency = np.exp(rng.uniform(np.log(1 / 128), np.log(0.45)))
            hum = np.sin(2 * np.pi * (frequency * time + rng.random()))
            samples = samples + rng.uniform(0.05, 1) * hum
    if rng.random() < 0.25:
        gusts = _slow_gain(rng, n_samples, 150 * hop_length, 6.0)
        samples = samples + rng.uniform(0.2, 3) * gusts * _coloured(rng, n_samples, -3)
    return _levelled(samples)


def excess_of(samples: Float32, sample_rate: int) -> Float32:
    """Return the rows of a whole recording, float32[n_rows, n_bands] in dB."""
    front = BandExcess(FloorOptions(), sample_rate)
    column = np.ascontiguousarray(samples, np.float32)[:, None]
    parts = [
        front.push(Block(first, column[first : first + _AT_ONCE]))[1]
        for first in range(0, len(column), _AT_ONCE)
    ]
    return np.concatenate(
        [np.empty((0, N_BANDS), np.float32), *parts, front.flush()[1]]
    )


def targets_of(
    excess: Float32,
    spans: Sequence[tuple[float, float]],
    frame_length: int,
    hop_length: int,
) -> Target:
    """Return the target of each row: whether the centre of its frame lies in a call.

    Parameters
    ----------
    excess : float32[n_rows, n_bands]
        In dB; a call that never rises above the floors is unknown, not silence.
    spans : sequence of (onset, offset)
        In samples, sorted. A call between two centres gets the nearest row.
    frame_length, hop_length : int
        In samples.
    """
    target = np.zeros(len(excess), np.int8)
    centres = np.arange(len(excess)) * hop_length + frame_length / 2
    for onset, offset in spans:
        first, stop = np.searchsorted(centres, (onset, offset))
        if stop <= first:
            nearest = round(((onset + offset) / 2 - frame_length / 2) / hop_length)
            first = max(0, nearest)
            stop = first + 1
        if first < len(excess):
            is_audible = excess[first:stop].max() > _FAINTEST_DB
            target[first:stop] = CALL if is_audible else UNKNOWN
    return target


def _part_of(rng: Random, recordings: Sequence[Float32], n_samples: int) -> Float64:
    """Return a part of a recording, or of several shorter ones in a row, levelled."""
    chosen = recordings[int(rng.integers(len(recordings)))]
    start = int(rng.integers(len(chosen)))
    samples = np.resize(np.roll(chosen, -start), n_samples).astype(np.float64)
    if rng.random() < 0.3:
        samples = samples[::-1].copy()
    return _levelled(samples)


def _coloured(rng: Random, n_samples: int, slope: float) -> Float64:
    """Return noise with a power density of ``frequency ** slope``."""
    spectrum = np.fft.rfft(rng.standard_normal(n_samples))
    frequency = np.maximum(np.arange(len(spectrum)) / n_samples, 1 / 512)
    noise: Float64 = np.fft.irfft(spectrum * frequency ** (slope / 2), n_samples)
    return _levelled(noise)


def _slow_gain(rng: Random, n_samples: int, every: float, spread_db: float) -> Float64:
    count = max(4, int(n_samples / every) + 4)
    levels_db = spread_db * rng.standard_normal(count)
    at = np.linspace(0, n_samples, count)
    gain: Float64 = 10 ** (np.interp(np.arange(n_samples), at, levels_db) / 20)
    return gain


def _levelled(samples: Float64) -> Float64:
    level = np.sqrt(np.mean(np.square(samples)))
    return samples / max(float(level), 1e-12)
