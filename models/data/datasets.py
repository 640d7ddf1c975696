"""Datasets: folders of recordings with annotated segments, read and validated."""

import math
import os
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from neurovocal.engine.contracts.errors import ConfigError
from neurovocal.models.data.annotations import (
    Annotation,
    read_annotations,
    truncate_problems,
)
from neurovocal.models.data.crowsetta import read_crowsetta
from neurovocal.models.data.files_table import read_files_table

# Annotations are often rounded to milliseconds: smaller differences are accepted.
TOLERANCE_S = 0.0015


@dataclass(frozen=True, slots=True)
class AnnotatedRecording:
    """A recording with its annotations, or the part ``[start_s, stop_s)`` of one.

    Parameters
    ----------
    file : str
        File name relative to the dataset's folder.
    path : Path
        Path of the audio file.
    duration_s : float
        Duration of the whole file.
    sample_rate : int
        Sample rate of the file in Hz.
    annotations : tuple of Annotation
        Annotations of the whole file in time order, without overlaps.
    columns : dict
        Columns of files.csv for this recording.
    start_s, stop_s : float
        Selected part, in seconds; the whole file by default.
    """

    file: str
    path: Path
    duration_s: float
    sample_rate: int
    annotations: tuple[Annotation, ...]
    columns: dict[str, str] = field(default_factory=dict)
    start_s: float = 0.0
    stop_s: float = math.inf

    @property
    def part_duration_s(self) -> float:
        """Duration of the selected part, in seconds."""
        return min(self.stop_s, self.duration_s) - self.start_s

    @property
    def own_annotations(self) -> list[Annotation]:
        """Annotations with an onset in the selected part."""
        first, stop = (
            bisect_left(self.annotations, at_s, key=lambda a: a.onset_s)
            for at_s in (self.start_s, self.stop_s)
        )
        return list(self.annotations[first:stop])


@dataclass(frozen=True, slots=True)
class Dataset:
    """A folder of annotated recordings."""

    folder: Path
    recordings: tuple[AnnotatedRecording, ...]


def read_dataset(folder: Path, annotation_format: str | None = None) -> Dataset:
    """Read and validate the annotations and audio headers of a dataset.

    Parameters
    ----------
    folder : Path
        Folder with ``annotations.csv`` (file, onset_s, offset_s, label) and the
        audio, or with files in a format that the crowsetta library reads.
    annotation_format : str, optional
        Name of that format (``notmat``, ``raven``, ``textgrid``, ...).

    Raises
    ------
    ConfigError
        Lists every problem of the data: missing folder or files, no labels, invalid
        times, overlapping segments, annotations past the end of a file.
    """
    if not folder.is_dir():
        raise ConfigError(f"dataset folder '{folder}' does not exist")
    if annotation_format is None:
        rows = read_annotations(folder)
    else:
        rows = read_crowsetta(folder, annotation_format)
    columns = {file: row.columns for file, row in read_files_table(folder).items()}
    problems: list[str] = []
    recordings = []
    # A file of files.csv without annotations holds silence, which training uses.
    for file in sorted({**dict.fromkeys(columns), **rows}):
        recording = _read_recording(folder, file, rows.get(file, []), problems)
        if recording:
            recordings.append(replace(recording, columns=columns.get(file, {})))
    if problems:
        raise ConfigError(truncate_problems(problems))
    if not any(recording.annotations for recording in recordings):
        raise ConfigError(f"dataset '{folder}' has no labelled segments")
    return Dataset(folder, tuple(recordings))


def _read_recording(
    folder: Path, file: str, annotations: list[Annotation], problems: list[str]
) -> AnnotatedRecording | None:
    """Read a recording's header; on error append to `problems` and return None."""
    import soundfile

    path = folder / file
    if not os.path.isfile(path):  # unlike pathlib, os.path accepts names of any kind
        problems.append(
            f"{str(path)[:200]}: named in the annotations, but does not exist"
        )
        return None
    try:
        header = soundfile.info(path)
    except (soundfile.LibsndfileError, RuntimeError) as error:
        problems.append(f"{path}: cannot be read as audio ({error})")
        return None
    if header.frames == 0:
        problems.append(f"{path}: holds no samples")
        return None
    duration_s = header.frames / header.samplerate
    ordered = sorted(annotations, key=lambda a: (a.onset_s, a.offset_s))
    problems += _time_problems(path, ordered, duration_s)
    return AnnotatedRecording(file, path, duration_s, header.samplerate, tuple(ordered))


def _time_problems(
    path: Path, ordered: Sequence[Annotation], duration_s: float
) -> Iterable[str]:
    """Yield a sentence for every annotation with invalid times."""
    stop_s, stop_unit = 0.0, ""
    for a in ordered:
        what = f"{path}: segment '{a.unit}' at {a.onset_s:g} s"
        if a.onset_s < 0:
            yield f"{what} begins before the recording"
        elif a.offset_s <= a.onset_s:
            yield f"{what} ends at {a.offset_s:g} s, before it begins"
        elif a.offset_s > duration_s + TOLERANCE_S:
            yield (
                f"{what} ends at {a.offset_s:g} s, past the end of the recording "
                f"({duration_s:g} s)"
            )
        elif a.onset_s < stop_s - TOLERANCE_S:
            yield f"{what} overlaps '{stop_unit}', which ends at {stop_s:g} s"
        if a.offset_s > stop_s:
            stop_s, stop_unit = a.offset_s, a.unit
