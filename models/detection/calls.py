"""Synthetic calls of every shape: tones, sweeps, harmonics, trills, clicks, bursts.

Times are in hops and frequencies in shares of the sample rate: the same call is a bat's
at 384 kHz and a bird's at 32 kHz, which is how a detector network learns to hear both.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.signal import butter, fftconvolve, sosfilt

Float64 = NDArray[np.float64]
Random = np.random.Generator

_KINDS = ("tone", "sweep", "wave", "harmonics", "harmonics", "trill", "burst", "click")
_HIGHEST = 0.47  # of the sample rate
_AUDIBLE = 0.1  # share of the largest amplitude at which a call begins and ends
_MOST_HARMONICS = 24
_MOST_HOPS, _MOST_CLICK_HOPS = 600.0, 4.0


class Call(NamedTuple):
    """Samples of a call, and where in them it begins and ends.

    The level of ``samples[onset:offset]`` is 1 (root mean square).
    """

    samples: Float64
    onset: int
    offset: int


@dataclass(frozen=True, slots=True)
class CallType:
    """Range of the calls of one imaginary animal.

    Parameters
    ----------
    kinds : tuple of str
        Shapes that its calls have.
    low, high : float
        Range of frequencies, as shares of the sample rate.
    duration, duration_spread : float
        Typical duration in hops; standard deviation of its logarithm.
    attack, decay : float
        Shares of a call in which its amplitude rises and falls.
    gap, pause : float
        Typical silence between calls of a bout, and between bouts, in hops.
    bout : int
        Most calls of a bout.
    snr_db, snr_spread_db : float
        Level above the background, and its standard deviation.
    echo_hops, echo_db : float
        Time in which echoes fall by 60 dB, 0 without echoes; their level.
    """

    kinds: tuple[str, ...]
    low: float
    high: float
    duration: float
    duration_spread: float
    attack: float
    decay: float
    gap: float
    pause: float
    bout: int
    snr_db: float
    snr_spread_db: float
    echo_hops: float
    echo_db: float


def draw_call_type(rng: Random, lowest: float) -> CallType:
    """Draw an imaginary animal with frequencies from `lowest`, a share of the rate."""
    kinds = rng.choice(_KINDS, size=rng.integers(1, 5))
    low = log_uniform(rng, 1.1 * lowest, 0.3)
    return CallType(
        kinds=tuple(map(str, kinds)),
        low=low,
        high=min(0.43, low * np.exp(rng.uniform(0.2, 2.2))),
        duration=log_uniform(rng, 1, 300),
        duration_spread=rng.uniform(0.1, 0.6),
        attack=log_uniform(rng, 0.01, 0.5),
        decay=log_uniform(rng, 0.03, 0.8),
        gap=log_uniform(rng, 4, 300),
        pause=log_uniform(rng, 100, 1500),
        bout=int(rng.integers(1, 30)),
        snr_db=rng.uniform(-3, 30),
        snr_spread_db=rng.uniform(0, 6),
        echo_hops=log_uniform(rng, 5, 250) if rng.random() < 0.5 else 0.0,
        echo_db=rng.uniform(-30, -8),
    )


def draw_call(rng: Random, of: CallType, hop_length: int) -> Call:
    """Draw one call of an animal, for hops of `hop_length` samples."""
    kind = str(rng.choice(of.kinds))
    hops = of.duration * np.exp(rng.normal(0, of.duration_spread))
    most = _MOST_CLICK_HOPS if kind == "click" else _MOST_HOPS
    hops = float(np.clip(hops, 0.5, most))
    n = max(8, round(hops * hop_length))
    samples = _wave(rng, kind, of, hops, n)
    envelope = _envelope(rng, kind, of, n)
    samples *= envelope
    audible = np.flatnonzero(envelope >= _AUDIBLE * envelope.max())
    onset, offset = int(audible[0]), int(audible[-1]) + 1
    level = np.sqrt(np.mean(np.square(samples[onset:offset])))
    return Call(samples / max(float(level), 1e-12), onset, offset)


def place_calls(
    rng: Random, of: CallType, n_samples: int, hop_length: int
) -> tuple[Float64, list[tuple[int, int]]]:
    """Place bouts of calls, with pauses and echoes, on a silent recording.

    Returns
    -------
    samples : float64[n_samples]
        Level 1 is that of the background.
    spans : list of (int, int)
        First sample of each call, and the sample after its last.
    """
    samples, spans = np.zeros(n_samples), []
    at = 0 if rng.random() < 0.2 else int(rng.random() * of.pause * hop_length)
    while at < n_samples:
        for _ in range(rng.integers(1, of.bout + 1)):
            call = draw_call(rng, of, hop_length)
            if at >= n_samples:
                break
            gain = 10 ** ((of.snr_db + rng.normal(0, of.snr_spread_db)) / 20)
            part = call.samples[: n_samples - at]
            samples[at : at + len(part)] += gain * part
            if at + call.onset < n_samples:
                spans.append((at + call.onset, min(at + call.offset, n_samples)))
            gap = max(4.0, of.gap * np.exp(rng.normal(0, 0.4)))
            at += len(call.samples) + int(gap * hop_length)
        at += int(of.pause * np.exp(rng.normal(0, 0.6)) * hop_length)
    if of.echo_hops:
        samples += _echoes(rng, of, samples, hop_length)
    return samples, spans


def _wave(rng: Random, kind: str, of: CallType, hops: float, n: int) -> Float64:
    """Return `n` samples of a call with constant amplitude."""
    share = np.arange(n) / n
    shapes: dict[str, Callable[[], Float64]] = {
        "tone": lambda: np.cos(_phase(rng, np.full(n, _frequency(rng, of)))),
        "wave": lambda: np.cos(_phase(rng, _waving(rng, of, hops, share))),
        "trill": lambda: _trill(rng, of, hops, share),
        "harmonics": lambda: _harmonics(rng, of, share),
        "burst": lambda: _burst(rng, of, n),
    }
    if kind in shapes:
        return shapes[kind]()
    first, last = _frequency(rng, of), _frequency(rng, of)
    if kind == "sweep" and rng.random() < 0.3:  # in steps, as mice do
        count = int(rng.integers(2, 6))
        steps = np.array([_frequency(rng, of) for _ in range(count)])
        frequency = steps[np.minimum((share * count).astype(int), count - 1)]
    else:
        frequency = first * (last / first) ** share
    return np.cos(_phase(rng, frequency))


def _frequency(rng: Random, of: CallType) -> float:
    return log_uniform(rng, of.low, of.high)


def _phase(rng: Random, frequency: Float64) -> Float64:
    turns = np.cumsum(np.minimum(frequency, _HIGHEST))
    phase: Float64 = 2 * np.pi * (turns + rng.random())
    return phase


def _waving(rng: Random, of: CallType, hops: float, share: Float64) -> Float64:
    """Return a frequency that swings around one that rises or falls."""
    first, last = _frequency(rng, of), _frequency(rng, of)
    swings = rng.uniform(0.5, max(1.0, hops / 15))
    swing = rng.uniform(0.02, 0.3) * np.sin(2 * np.pi * (swings * share + rng.random()))
    frequency: Float64 = first * np.exp(swing) * (last / first) ** (0.3 * share)
    return frequency


def _contour(rng: Random, of: CallType, share: Float64) -> Float64:
    """Return a frequency that wanders a little."""
    points = rng.normal(0, 0.15, 4)
    contour: Float64 = _frequency(rng, of) * np.exp(
        np.interp(share, np.linspace(0, 1, 4), points)
    )
    return contour


def _trill(rng: Random, of: CallType, hops: float, share: Float64) -> Float64:
    period = log_uniform(rng, 2, max(3.0, hops / 3))
    beat = 0.5 + 0.5 * np.cos(2 * np.pi * hops * share / period)
    carrier = np.cos(_phase(rng, _contour(rng, of, share)))
    trill: Float64 = carrier * beat ** rng.uniform(0.5, 3)
    return trill


def _harmonics(rng: Random, of: CallType, share: Float64) -> Float64:
    """Return a fundamental with harmonics, some noise and a resonance."""
    fundamental = np.minimum(_contour(rng, of, share), _HIGHEST) * rng.uniform(0.1, 0.6)
    phase = 2 * np.pi * np.cumsum(fundamental)
    slope, resonance = rng.uniform(0, 1.2), rng.uniform(of.low, of.high)
    width = rng.uniform(0.2, 2)
    samples = np.zeros(len(share))
    for number in range(1, _MOST_HARMONICS + 1):
        if number * fundamental.max() > _HIGHEST:
            break
        distance = np.log(number * fundamental.mean() / resonance)
        amplitude = number**-slope * np.exp(-(distance**2) / width)
        samples += amplitude * np.cos(number * phase)
    noise = rng.uniform(0, 0.3) * samples.std()
    samples += noise * rng.standard_normal(len(share))
    return samples


def _burst(rng: Random, of: CallType, n: int) -> Float64:
    low = max(of.low * rng.uniform(0.7, 1), 0.005)
    high = min(_HIGHEST, max(of.high, 1.3 * low))
    band = butter(2, (2 * low, 2 * high), "bandpass", output="sos")
    burst: Float64 = sosfilt(band, rng.standard_normal(n))
    return burst


def _envelope(rng: Random, kind: str, of: CallType, n: int) -> Float64:
    share = np.arange(n) / n
    attack = np.clip(of.attack * np.exp(rng.normal(0, 0.2)), 2 / n, 0.9)
    decay = np.clip(of.decay * np.exp(rng.normal(0, 0.2)), 2 / n, 0.9)
    if kind == "click":
        envelope = np.minimum(share / 0.05, 1) * np.exp(-share * rng.uniform(3, 6))
    elif rng.random() < 0.3:
        envelope = np.minimum(share / attack, 1) * np.exp(-share * rng.uniform(0.5, 5))
    else:
        ramps = np.minimum(np.minimum(share / attack, (1 - share) / decay), 1)
        envelope = np.sin(np.pi / 2 * ramps) ** rng.choice([1, 1, 2])
    if rng.random() < 0.3:
        levels_db = np.interp(share, np.linspace(0, 1, 6), rng.normal(0, 3, 6))
        envelope *= 10 ** (levels_db / 20)
    return np.asarray(envelope)


def _echoes(rng: Random, of: CallType, samples: Float64, hop_length: int) -> Float64:
    """Return the reverberation of samples: noise that decays exponentially."""
    n = max(2, int(of.echo_hops * hop_length))
    response = rng.standard_normal(n) * 10 ** (-3 * np.arange(n) / n)
    response *= 10 ** (of.echo_db / 20) / np.sqrt(np.square(response).sum())
    delay = np.zeros(int(rng.integers(0, max(2, 5 * hop_length))))
    echoes: Float64 = fftconvolve(samples, np.concatenate((delay, response)))
    return echoes[: len(samples)]


def log_uniform(rng: Random, low: float, high: float) -> float:
    """Draw a number whose logarithm is uniform between those of `low` and `high`."""
    return float(np.exp(rng.uniform(np.log(low), np.log(max(low, high)))))
