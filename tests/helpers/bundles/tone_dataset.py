"""Small annotated dataset of tones, on which training takes seconds."""

import math
from pathlib import Path

import numpy as np
import soundfile

RATE = 16000
UNITS = {"a": 1500.0, "b": 3000.0, "c": 5000.0}


def song(rng: np.random.Generator) -> tuple[np.ndarray, list[tuple[float, float, str]]]:
    """Make two seconds with six tones, and (onset_s, offset_s, unit) of each."""
    samples = rng.normal(0, 0.001, 2 * RATE)
    segments, at_s = [], 1.1
    for unit in [*rng.permutation(list(UNITS)), *rng.permutation(list(UNITS))]:
        start, stop = round(at_s * RATE), round((at_s + 0.06) * RATE)
        t = np.arange(stop - start) / RATE
        samples[start:stop] += 0.3 * np.sin(2 * math.pi * UNITS[unit] * t)
        segments.append((start / RATE, stop / RATE, str(unit)))
        at_s += 0.13
    return samples.astype(np.float32), segments


def make_tone_dataset(folder: Path) -> Path:
    """Write eight recordings with annotations and a README."""
    rng = np.random.default_rng(0)
    rows = ["file,onset_s,offset_s,label"]
    for number in range(8):
        samples, segments = song(rng)
        name = f"song{number}.wav"
        soundfile.write(folder / name, samples, RATE, subtype="FLOAT")
        rows += [f"{name},{on:.6f},{off:.6f},{u}" for on, off, u in segments]
    (folder / "annotations.csv").write_text("\n".join(rows) + "\n")
    text = "# Tones\n\nTones: three units.\n\nLicence: CC0 1.0  \nAttribution: nobody\n"
    (folder / "README.md").write_text(text)
    return folder
