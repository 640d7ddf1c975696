"""Recordings with three kinds of sounds, whose order is known."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

RATE = 16_000
KINDS = ("tone", "sweep", "buzz")
_DURATION_S = {"tone": 0.08, "sweep": 0.15, "buzz": 0.11}
STEP_S = 0.4


def sound(kind: str, rate: int = RATE) -> NDArray[np.float64]:
    """Return a sound with soft edges; its frequencies go with the rate."""
    n = round(_DURATION_S[kind] * rate)
    at = np.arange(n) / rate
    base = rate / 16
    if kind == "tone":
        wave = np.sin(2 * np.pi * base * at)
    elif kind == "sweep":
        wave = np.sin(2 * np.pi * (2 * base * at + 3 * base * at**2 / at[-1]))
    else:
        wave = sum(np.sin(2 * np.pi * k * base / 2.5 * at) / 3 for k in range(3, 12))
    edge = np.minimum(1.0, np.minimum(at, at[::-1]) / 0.01)
    return 0.3 * wave * edge


def order(count: int, seed: int) -> list[str]:
    """Return the kinds of `count` sounds in a random order."""
    rng = np.random.default_rng(seed)
    return [KINDS[k % 3] for k in rng.permutation(count)]


def write_kinds(
    path: Path, kinds: Sequence[str], rate: int = RATE, channels: int = 1
) -> None:
    """Write a recording of quiet noise with a sound each `STEP_S`."""
    rng = np.random.default_rng(len(kinds))
    step = round(STEP_S * rate)
    samples = rng.normal(0, 0.0005, (step * (len(kinds) + 1), channels))
    for number, kind in enumerate(kinds):
        wave = sound(kind, rate) * rng.uniform(0.7, 1.0)
        first = step * number + step // 2
        samples[first : first + len(wave), -1] += wave
    subtype = "PCM_16"
    soundfile.write(path, samples, rate, subtype=subtype)


def kind_at(kinds: Sequence[str], onset_s: float) -> str:
    """Return the kind of the sound that begins at about a time of such a recording."""
    return kinds[round(onset_s / STEP_S - 0.5)]
