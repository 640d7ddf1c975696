"""Datasets: recordings with annotated segments, read and checked before use."""

import csv
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TextIO

from neurovocal.engine.contracts.errors import ConfigError

ANNOTATIONS = "annotations.csv"
FILES = "files.csv"
AUDIO_SUFFIXES = (".wav", ".flac", ".ogg", ".aif", ".aiff", ".au", ".mp3", ".w64")
_COLUMNS = ("file", "onset_s", "offset_s", "label")
# Annotations are often rounded to milliseconds: less than this is no mistake.
TOLERANCE_S = 0.0015


@dataclass(frozen=True, slots=True)
class Annotation:
    """A labelled stretch of a recording, in seconds from the file's start."""

    onset_s: float
    offset_s: float
    unit: str


@dataclass(frozen=True, slots=True)
class AnnotatedRecording:
    """A recording, or with ``start_s``/``stop_s`` a part of one.

    Parameters
    ----------
    file : str
        Name relative to the dataset's folder.
    path : Path
        Where the audio is.
    duration_s : float
        Of the whole file.
    sample_rate : int
        Of the file, in Hz.
    annotations : tuple of Annotation
        In time order, not overlapping, for the whole file.
    columns : dict
        What files.csv says of the recording.
    start_s, stop_s : float
        The part that is meant; the whole file by default.
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
        """Annotations whose onset lies in the part that is meant."""
        return [a for a in self.annotations if self.start_s <= a.onset_s < self.stop_s]


@dataclass(frozen=True, slots=True)
class Dataset:
    """A folder of annotated recordings."""

    folder: Path
    recordings: tuple[AnnotatedRecording, ...]


def read_dataset(folder: Path, annotation_format: str | None = None) -> Dataset:
    """Read and check a dataset's annotations and the headers of its audio.

    Parameters
    ----------
    folder : Path
        Holds ``annotations.csv`` (file, onset_s, offset_s, label) and the audio,
        or files in a format that the crowsetta library reads.
    annotation_format : str, optional
        Name of that format (``notmat``, ``raven``, ``textgrid``, ...).

    Raises
    ------
    ConfigError
        One sentence for every mistake that the data holds: a missing folder or
        file, no labels, values that are no times, overlapping segments,
        annotations past the end.
    """
    if not folder.is_dir():
        raise ConfigError(f"dataset folder '{folder}' does not exist")
    if annotation_format is None:
        rows = _read_csv(folder)
    else:
        from neurovocal.models.data.crowsetta import read_crowsetta

        rows = read_crowsetta(folder, annotation_format)
    columns = _read_columns(folder)
    problems: list[str] = []
    recordings = []
    # A file without annotations holds silence, which is worth training on, when
    # files.csv vouches that it was annotated.
    for file in sorted({**dict.fromkeys(columns), **rows}):
        recording = _recording(folder, file, rows.get(file, []), problems)
        if recording:
            recordings.append(replace(recording, columns=columns.get(file, {})))
    if problems:
        raise ConfigError(_shortened(problems))
    if not any(recording.annotations for recording in recordings):
        raise ConfigError(f"dataset '{folder}' has no labelled segments")
    return Dataset(folder, tuple(recordings))


def _read_csv(folder: Path) -> dict[str, list[Annotation]]:
    path = folder / ANNOTATIONS
    if not path.is_file():
        raise ConfigError(
            f"dataset '{folder}' has no {ANNOTATIONS} with columns "
            f"{','.join(_COLUMNS)}; for another format say --format"
        )
    rows: dict[str, list[Annotation]] = {}
    problems: list[str] = []
    with _readable(path) as stream:
        reader = csv.DictReader(stream)
        missing = [name for name in _COLUMNS if name not in (reader.fieldnames or ())]
        if missing:
            found = ",".join(reader.fieldnames or ()) or "nothing"
            raise ConfigError(
                f"{path}: {', '.join(missing)} {'is' if len(missing) == 1 else 'are'} "
                f"missing: the first line must name the columns "
                f"{','.join(_COLUMNS)}, and names {found[:200]}"
            )
        for line, row in enumerate(reader, start=2):
            where = f"{path}:{line}"
            try:
                onset_s, offset_s = float(row["onset_s"]), float(row["offset_s"])
            except (TypeError, ValueError):
                problems.append(f"{where}: onset_s or offset_s is not a number")
                continue
            unit = (row["label"] or "").strip()
            if not math.isfinite(onset_s) or not math.isfinite(offset_s):
                problems.append(f"{where}: onset_s or offset_s is not finite")
            elif not unit:
                problems.append(f"{where}: the label is empty")
            else:
                annotation = Annotation(onset_s, offset_s, unit)
                rows.setdefault(row["file"], []).append(annotation)
    if problems:
        raise ConfigError(_shortened(problems))
    return rows


@contextmanager
def _readable(path: Path) -> Iterator[TextIO]:
    """A table's text; what is none is told in a sentence."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            yield stream
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{path} is not UTF-8 text: save it as CSV in UTF-8 ({error})"
        ) from error
    except (OSError, csv.Error) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error


def _read_columns(folder: Path) -> dict[str, dict[str, str]]:
    path = folder / FILES
    if not path.is_file():
        return {}
    with _readable(path) as stream:
        return {
            row["file"]: {key: value or "" for key, value in row.items() if key}
            for row in csv.DictReader(stream)
            if row.get("file")
        }


def _recording(
    folder: Path, file: str, annotations: list[Annotation], problems: list[str]
) -> AnnotatedRecording | None:
    import soundfile

    path = folder / file
    if not os.path.isfile(path):  # unlike pathlib, it takes any name for one
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


def _shortened(problems: list[str], limit: int = 20) -> list[str]:
    """The first problems; a systematic mistake would fill screens otherwise."""
    more = len(problems) - limit
    return [*problems[:limit], f"and {more} more like these"] if more > 0 else problems
