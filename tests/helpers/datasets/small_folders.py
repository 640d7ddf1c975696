"""Small datasets, and what is read of them."""

import os
from pathlib import Path

import numpy as np
import soundfile

from neurovocal.engine.contracts.errors import ConfigError
from neurovocal.models.data.datasets import Dataset, read_dataset
from neurovocal.models.data.formats.segments import AnnotationChoice

RATE = 8000
RAVEN = "Selection\tView\tChannel\tBegin Time (s)\tEnd Time (s)\tLow Freq (Hz)\t"
RAVEN += "High Freq (Hz)\tAnnotation\n"
CSV = "file,onset_s,offset_s,label\n"

Rows = dict[str, list[tuple[float, float, str]]]


def write_audio(path: Path, seconds: float = 4.0, channels: int = 1) -> None:
    """Write noise that is another for each name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(list(os.fsencode(path)))
    noise = rng.normal(0, 0.1, (round(seconds * RATE), channels))
    if path.suffix.lower() == ".flac":
        soundfile.write(os.fsencode(path), noise, RATE, subtype="PCM_16")
    else:
        soundfile.write(
            os.fsencode(path), noise.astype(np.float32), RATE, subtype="FLOAT"
        )


def write_files(folder: Path, files: dict[str, str | bytes]) -> Path:
    """Write a folder: audio where a name is of audio and the text empty, or text."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            path.write_bytes(content)
        elif path.suffix.lower() in (".wav", ".flac") and content in ("", "2"):
            write_audio(path, channels=int(content or 1))
        else:
            path.write_bytes(content.encode())
    return folder


def rows_of(dataset: Dataset) -> Rows:
    """Return onset, offset and unit of all segments by recording."""
    return {
        r.file: [
            (round(a.onset_s, 9), round(a.offset_s, 9), a.unit) for a in r.annotations
        ]
        for r in dataset.recordings
    }


def read(
    folder: Path,
    annotation_format: str | None = None,
    choice: AnnotationChoice | None = None,
) -> tuple[Rows, list[str], tuple[str, ...]]:
    """Read a dataset: its segments, or the problems; and the notes."""
    try:
        dataset = read_dataset(folder, annotation_format, choice)
    except ConfigError as error:
        return {}, list(error.problems), ()
    return rows_of(dataset), [], dataset.notes
