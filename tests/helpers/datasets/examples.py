"""Recordings of tones in noise, and tables of some of them as examples."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray

RATE = 32_000


def calls(
    starts: Sequence[float],
    seconds: float = 4.0,
    rate: int = RATE,
    duration: float = 0.06,
    pitch: float = 0.15,
    level: float = 0.1,
) -> NDArray[np.float64]:
    """Noise with a tone at each of some times; `pitch` is in parts of the rate."""
    samples = 0.003 * np.random.default_rng(3).standard_normal(round(seconds * rate))
    for at_s in starts:
        first, count = round(at_s * rate), round(duration * rate)
        samples[first : first + count] += level * np.sin(
            2 * np.pi * pitch * np.arange(count)
        )
    return samples


STARTS = (0.5, 0.9, 1.4, 1.8, 2.1, 2.5, 3.0, 3.3)


def write_calls(path: Path, starts: Sequence[float] = STARTS, **more: Any) -> Path:
    rate = more.get("rate", RATE)
    soundfile.write(path, calls(starts, **more), rate, "FLOAT")
    return path


def write_table(path: Path, rows: Sequence[Sequence[object]], heading: str) -> Path:
    lines = [heading, *(",".join(map(str, row)) for row in rows)]
    path.write_text("\n".join(lines) + "\n")
    return path


def five(path: Path, n: int = 5, duration: float = 0.06) -> Path:
    rows = [(at, at + duration) for at in STARTS[:n]]
    return write_table(path, rows, "onset_s,offset_s")
