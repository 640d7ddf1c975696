"""Backgrounds that are laid under calls: recordings, noise, weather and machines."""

from collections.abc import Callable, Sequence

import numpy as np
from scipy.signal import butter, fftconvolve, sosfilt

from neurovocal.engine.contracts.types import Float32
from neurovocal.models.detection.calls import Float64, Random, log_uniform

_WITH_WEATHER = 0.7  # share of the backgrounds
_HIGHEST = 0.47  # of the sample rate


def draw_background(
    rng: Random, n_samples: int, hop_length: int, recordings: Sequence[Float32]
) -> Float64:
    """Draw a background with a level of 1 (root mean square), float64[n_samples].

    It is a recording, or noise of some colour, with hum, gusts of wind, the noise of an
    amplifier, slow changes of level, and synthetic rain, waves and rotors.
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
    if rng.random() < _WITH_WEATHER:
        samples = _levelled(samples)
        for number in rng.integers(len(_WEATHER), size=rng.integers(1, 3)):
            gain = 10 ** (rng.uniform(-25, 3) / 20)
            samples = gain * samples + _WEATHER[number](rng, n_samples, hop_length)
    return _levelled(samples)


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


def _rain(rng: Random, n_samples: int, hop_length: int) -> Float64:
    """Return drops of up to three kinds that fall at random."""
    samples = np.zeros(n_samples)
    for _ in range(rng.integers(1, 4)):
        count = rng.poisson(log_uniform(rng, 0.08, 4) * n_samples / hop_length)
        drops = np.zeros(n_samples)
        spread = rng.uniform(0.3, 1.5)
        sizes = rng.choice([-1, 1], count) * np.exp(rng.normal(0, spread, count))
        np.add.at(drops, rng.integers(0, n_samples, count), sizes)
        sound = _drop(rng, max(8, int(hop_length * log_uniform(rng, 0.1, 4))))
        rain = _levelled(fftconvolve(drops, sound)[:n_samples])
        samples += rng.uniform(0.3, 1) * rain
    return _levelled(samples)


def _drop(rng: Random, length: int) -> Float64:
    """Return a tone or a burst of noise that decays."""
    time = np.arange(length)
    fading = np.exp(-time / length * rng.uniform(3, 7))
    if rng.random() < 0.5:
        turns = log_uniform(rng, 0.01, 0.35) * time + rng.random()
        return np.asarray(fading * np.cos(2 * np.pi * turns))
    low = log_uniform(rng, 0.01, 0.2)
    high = min(_HIGHEST, low * np.exp(rng.uniform(0.7, 2.5)))
    band = butter(2, (2 * low, 2 * high), "bandpass", output="sos")
    return np.asarray(fading * sosfilt(band, rng.standard_normal(length)))


def _waves(rng: Random, n_samples: int, hop_length: int) -> Float64:
    """Return noise of up to three colours that swells and ebbs."""
    samples = np.zeros(n_samples)
    for _ in range(rng.integers(1, 4)):
        every = hop_length * log_uniform(rng, 60, 1500)
        gain = _slow_gain(rng, n_samples, every, rng.uniform(2, 8))
        samples += gain * _coloured(rng, n_samples, rng.uniform(-3, 0.5))
    return _levelled(samples)


def _rotor(rng: Random, n_samples: int, hop_length: int) -> Float64:
    """Return noise and a hum that beat with the turns of blades."""
    period = hop_length * log_uniform(rng, 8, 120)
    pace = _slow_gain(rng, n_samples, 200 * hop_length, 0.3)
    turns = np.cumsum(pace) / period + rng.random()
    beat = np.exp(rng.uniform(1, 5) * (np.cos(2 * np.pi * turns) - 1))
    noise = _coloured(rng, n_samples, rng.uniform(-2.5, 0.5))
    samples = (rng.uniform(0.1, 0.6) + beat) * noise
    slope = rng.uniform(0.2, 1.2)
    hum = np.zeros(n_samples)
    for number in range(1, 12):
        hum += np.cos(2 * np.pi * number * turns) * number**-slope
    samples += rng.uniform(0, 1.5) * _levelled(hum)
    level = _slow_gain(rng, n_samples, 300 * hop_length, rng.uniform(0.5, 3))
    return _levelled(samples * level)


_WEATHER: tuple[Callable[[Random, int, int], Float64], ...] = (
    _rain,
    _rain,
    _waves,
    _rotor,
)
