"""Datasets: folders of recordings with annotated segments, read and validated."""

import math
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath

from neurovocal.engine.contracts.errors import AudioFileError, ConfigError
from neurovocal.engine.support.names import missing_folder
from neurovocal.engine.support.text import printable
from neurovocal.models.data.annotations import (
    Annotation,
    FoundRow,
    read_annotations,
    truncate_problems,
)
from neurovocal.models.data.files_table import FILES, is_files_table, read_files_table
from neurovocal.models.data.formats.segments import (
    AnnotationChoice,
    Findings,
    shown,
)
from neurovocal.models.data.formats.text_table import own_table
from neurovocal.models.data.recording_folder import NoRecordingError, RecordingFolder
from neurovocal.models.data.sound_files import read_header

# Annotations are often rounded to milliseconds: smaller differences are accepted.
TOLERANCE_S = 0.0015


@dataclass(frozen=True, slots=True)
class AnnotatedRecording:
    """A recording with its annotations, or the part ``[start_s, stop_s)`` of one.

    Parameters
    ----------
    file : str
        File name relative to the dataset's folder; with ``.chN`` behind it if several
        channels of the file are used.
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
    channel : int
        Channel of the file whose sound and annotations these are, from 1.
    group : str
        Name that the channels of a file share if several are used, else empty. A split
        keeps a group together.
    """

    file: str
    path: Path
    duration_s: float
    sample_rate: int
    annotations: tuple[Annotation, ...]
    columns: dict[str, str] = field(default_factory=dict)
    start_s: float = 0.0
    stop_s: float = math.inf
    channel: int = 1
    group: str = ""

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
    """A folder of annotated recordings, and what its user should know of it."""

    folder: Path
    recordings: tuple[AnnotatedRecording, ...]
    notes: tuple[str, ...] = ()


def read_dataset(
    folder: Path,
    annotation_format: str | None = None,
    choice: AnnotationChoice | None = None,
) -> Dataset:
    """Read and validate the annotations and audio headers of a dataset.

    Parameters
    ----------
    folder : Path
        Folder with ``annotations.csv`` (file, onset_s, offset_s, label) and the
        audio, or with annotation files of another format.
    annotation_format : str, optional
        Name of that format (``notmat``, ``raven``, ``textgrid``, ...).
    choice : AnnotationChoice, optional
        Which column, tier and channels are meant.

    Raises
    ------
    ConfigError
        Lists every problem of the data: missing folder or files, no labels, invalid
        times, overlapping segments, annotations past the end of a file.
    """
    dataset, problems = survey_dataset(folder, annotation_format, choice)
    if problems:
        raise ConfigError(truncate_problems(problems))
    return dataset


def survey_dataset(
    folder: Path,
    annotation_format: str | None = None,
    choice: AnnotationChoice | None = None,
) -> tuple[Dataset, list[str]]:
    """Read what can be read of a dataset, so that later checks add their mistakes.

    Parameters are those of `read_dataset`.

    Returns
    -------
    dataset : Dataset
        Recordings that can be opened.
    problems : list of str
        A sentence for each mistake.

    Raises
    ------
    ConfigError
        The folder does not exist, or no annotation is found.
    """
    if not folder.is_dir():
        raise ConfigError(f"dataset folder '{folder}' {missing_folder(folder)}")
    choice, findings = choice or AnnotationChoice(), Findings()
    files = RecordingFolder(folder)
    rows = read_annotations(files, annotation_format, choice, findings)
    columns = _read_columns(files, findings)
    # A file of files.csv without annotations holds silence, which training uses.
    recordings = [
        replace(recording, columns=columns.get(file, {}))
        for file in sorted({**dict.fromkeys(columns), **rows})
        for recording in _read_recording(
            folder, file, rows.get(file, []), choice, findings
        )
    ]
    for name in files.others:
        if PurePath(name).stem.casefold() == "files" and not is_files_table(name):
            findings.tell(
                f"tables that are not called {FILES} are not read", shown(name)
            )
    for file in files.recordings:
        if file not in rows and file not in columns:
            findings.tell("recordings without annotations are not used", shown(file))
    problems = findings.problems
    if not problems and not any(recording.annotations for recording in recordings):
        problems = [f"dataset '{folder}' has no labelled segments"]
    return Dataset(folder, tuple(recordings), tuple(findings.notes())), problems


def _read_columns(
    files: RecordingFolder, findings: Findings
) -> dict[str, dict[str, str]]:
    """Return the columns of files.csv by recording, relative to the folder."""
    try:
        table = read_files_table(files.folder)
    except ConfigError as error:
        findings.problems += error.problems
        return {}
    path = own_table(files.folder, FILES)
    columns: dict[str, dict[str, str]] = {}
    for name, row in table.items():
        try:
            file, _ = files.named(name)
        except NoRecordingError as error:
            findings.refuse(path, row.line, str(error))
            continue
        if file in columns:
            findings.refuse(path, row.line, f"{shown(name)} is named twice")
        columns[file] = row.columns
    return columns


def _read_recording(
    folder: Path,
    file: str,
    rows: Sequence[FoundRow],
    choice: AnnotationChoice,
    findings: Findings,
) -> Iterator[AnnotatedRecording]:
    """Yield a recording for each channel that is used; its mistakes go to `findings`.

    Those are the chosen channels, or else those that rows name, or else the first.
    Rows that name no channel belong to all of them.
    """
    path = folder / file
    try:
        header = read_header(path)
    except AudioFileError as error:
        findings.refuse(path, 0, str(error))
        return
    named = {found.row.channel: found for found in reversed(rows) if found.row.channel}
    for channel, found in sorted(named.items()):
        if channel > header.channels:
            findings.problems.append(
                f"{found.where}: channel {channel} is named, and {shown(file)} has "
                f"{_channels(header.channels)}"
            )
    if too_many := [c for c in choice.channels if c > header.channels]:
        findings.refuse(
            path, 0, f"has {_channels(header.channels)}, no channel {too_many[0]}"
        )
        return
    used = choice.channels or sorted(named) or [1]
    _tell_channels(file, header.channels, used, set(named), findings)
    duration_s = header.duration_s or 0.0
    for channel in used:
        own = [found for found in rows if found.row.channel in (None, channel)]
        ordered = sorted(
            (_annotation(found, header.sample_rate) for found in own),
            key=lambda a: (a.onset_s, a.offset_s),
        )
        findings.problems += _time_problems(file, ordered, duration_s)
        several = len(used) > 1
        yield AnnotatedRecording(
            f"{file}.ch{channel}" if several else file,
            path,
            duration_s,
            header.sample_rate,
            tuple(ordered),
            channel=channel,
            group=file if several else "",
        )


def _channels(n: int) -> str:
    return f"{n} channel{'' if n == 1 else 's'}"


def _tell_channels(
    file: str, n: int, used: Sequence[int], named: set[int], findings: Findings
) -> None:
    """Tell which channels of a recording with several are used, and which are not."""
    if n > 1:
        numbers = " and ".join(map(str, used))
        verb = f"s {numbers} are" if len(used) > 1 else f" {numbers} is"
        findings.tell(
            f"of recordings with several channels channel{verb} used (--channels)",
            shown(file),
        )
    for channel in sorted(named - set(used)):
        findings.tell(f"labels of channel {channel} are not used", shown(file))


def _annotation(found: FoundRow, sample_rate: int) -> Annotation:
    """Return a row as an annotation in seconds."""
    row = found.row
    scale = sample_rate if row.in_samples else 1
    onset_s = row.onset / scale
    if -TOLERANCE_S <= onset_s < 0:
        onset_s = 0.0
    return Annotation(onset_s, row.offset / scale, row.label, found.where)


def _time_problems(
    file: str, ordered: Sequence[Annotation], duration_s: float
) -> Iterator[str]:
    """Yield a sentence for every annotation with invalid times."""
    stop_s, stop_unit, at = 0.0, "", ""
    for a in ordered:
        problem = ""
        if a.onset_s < -TOLERANCE_S:
            problem = "begins before the recording"
        elif a.offset_s == a.onset_s:
            problem = "has no length: it ends where it begins"
        elif a.offset_s < a.onset_s:
            problem = f"ends at {a.offset_s:g} s, before it begins"
        elif a.offset_s > duration_s + TOLERANCE_S:
            problem = (
                f"ends at {a.offset_s:g} s, past the end of the recording "
                f"({duration_s:g} s)"
            )
        elif a.onset_s < stop_s - TOLERANCE_S:
            line = f" ({at})" if at else ""
            problem = f"overlaps {shown(stop_unit)}, which ends at {stop_s:g} s{line}"
        if problem:
            name = printable(file)
            yield (
                f"{a.where}: segment {shown(a.unit)} of {name} at {a.onset_s:g} s "
                f"{problem}"
            )
        if a.offset_s > stop_s:
            stop_s, stop_unit, at = a.offset_s, a.unit, a.where
