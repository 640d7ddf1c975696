"""Examples of calls: read from a table of any annotation format, and checked."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from neurovocal.engine.contracts.errors import ConfigError
from neurovocal.engine.support.label_words import is_silence
from neurovocal.engine.support.text import plain
from neurovocal.models.data.annotations import truncate_problems
from neurovocal.models.data.formats.column_tables import read_annotations_table
from neurovocal.models.data.formats.registry import Reader, find_format
from neurovocal.models.data.formats.segments import (
    AnnotationChoice,
    Findings,
    NotOfFormatError,
    SegmentRow,
    shown,
    where,
)
from neurovocal.models.data.formats.text_table import HeadedTable, read_lines
from neurovocal.plugins.sinks.table import track_name
from neurovocal.plugins.sources.audio_files.file import SUFFIXES

# Times in tables are often rounded.
_TOLERANCE_S = 0.0015
_CHANNEL = re.compile(r"(.+)\.ch([1-9][0-9]{0,3})", re.S)
_FORMATS = {".textgrid": "textgrid", ".phn": "timit", ".wrd": "timit"}


@dataclass(frozen=True, slots=True)
class Example:
    """A call in a recording, in seconds from the start of the file.

    Parameters
    ----------
    onset_s, offset_s : float
        Its ends.
    label : str
        Its label, perhaps empty.
    channel : int, optional
        Channel of the recording, from 1; None if the table does not say.
    where : str
        File and line that say so, for messages.
    """

    onset_s: float
    offset_s: float
    label: str
    channel: int | None
    where: str

    @property
    def duration_s(self) -> float:
        """Duration in seconds."""
        return self.offset_s - self.onset_s


@dataclass(frozen=True, eq=False)
class ExampleTable:
    """Rows of a table of examples.

    Parameters
    ----------
    path : Path
        The table.
    rows : sequence of SegmentRow
        Its rows, without those that mean silence.
    notes : sequence of str
        What the user is told.
    """

    path: Path
    rows: Sequence[SegmentRow]
    notes: Sequence[str]

    def recordings(self) -> list[str]:
        """Return the names of recordings in the table, in their order."""
        return list(dict.fromkeys(row.recording for row in self.rows if row.recording))

    def of_recording(self, recording: Path) -> tuple[list[SegmentRow], int]:
        """Return the rows of a recording, and how many rows belong to others.

        Rows that name no recording belong to every one.
        """
        own = [
            row
            for row in self.rows
            if not row.recording or is_name_of(row.recording, recording)
        ]
        return own, len(self.rows) - len(own)


def read_examples(
    path: Path,
    annotation_format: str | None = None,
    choice: AnnotationChoice | None = None,
    label: str | None = None,
) -> ExampleTable:
    """Read a table of examples.

    Parameters
    ----------
    path : Path
        A file of any annotation format.
    annotation_format : str, optional
        Name of the format; by default it is seen from the file.
    choice : AnnotationChoice, optional
        Column and tier of the labels. Segments need no labels.
    label : str, optional
        Only segments with this label are examples.

    Raises
    ------
    ConfigError
        The table cannot be read, or holds no example; all mistakes at once.
    """
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise ConfigError(f"table of examples '{path}' {what}")
    if path.suffix.casefold() in SUFFIXES:
        raise ConfigError(
            f"'{path}' is a recording, and no table of examples: the table is CSV, "
            "Raven, Audacity, TextGrid, ..."
        )
    choice = choice or AnnotationChoice()
    choice = AnnotationChoice(
        choice.label_column, choice.tier, choice.channels, needs_labels=False
    )
    findings = Findings()
    try:
        rows = _reader(path, annotation_format)(path, choice, findings)
    except NotOfFormatError as error:
        raise ConfigError(f"{where(path)}: {error}") from error
    if findings.problems:
        raise ConfigError(truncate_problems(findings.problems))
    there = {row.label for row in rows}
    rows = [row for row in rows if not (row.label and is_silence(row.label))]
    if label is not None:
        rows = [row for row in rows if row.label == label]
        if not rows:
            known = ", ".join(shown(each) for each in sorted(there - {""})[:10])
            raise ConfigError(
                f"{where(path)}: no segment has the label {shown(label)} "
                f"({f'there are {known}' if known else 'none has any label'})"
            )
    notes = tuple(findings.notes())
    if not rows:
        told = f" ({notes[0]})" if notes else ""
        raise ConfigError(f"{where(path)}: holds no example{told}")
    return ExampleTable(path, rows, notes)


def _reader(path: Path, annotation_format: str | None) -> Reader:
    """Return the reader of a named format, or of what the file seems to be."""
    if annotation_format is not None:
        return find_format(annotation_format).read
    name = path.name.casefold()
    if name.endswith(".not.mat"):
        return find_format("notmat").read
    if path.suffix.casefold() in _FORMATS:
        return find_format(_FORMATS[path.suffix.casefold()]).read
    first = next((line for line in read_lines(path) if line.strip()), "")
    if "Begin Time (s)" in first or "End Time (s)" in first:
        return find_format("raven").read
    if "onset" not in first.casefold() and len(first.split("\t")) > 1:
        return find_format("audacity").read
    table = HeadedTable.read(path, Findings(), ",")
    if table.column("notated_path") is not None:
        return find_format("generic-seq").read
    if table.column("file") is not None:
        return read_annotations_table
    has_columns = table.column("onset_s", "offset_s") is not None
    if not has_columns and not table.other_separator:
        raise NotOfFormatError(
            "is no table of segments that is known: a CSV has the columns onset_s and "
            "offset_s; name another format with --format"
        )
    return find_format("simple-seq").read


def is_name_of(name: str, recording: Path) -> bool:
    """Return True if a table may call a recording so.

    Folders in front of the name are those of another machine; letters may be small or
    capital, the recording may have been converted, and ``.chN`` may follow.
    """
    text = name.strip().replace("\\", "/")
    if parts := _CHANNEL.fullmatch(text):
        text = parts[1]
    own = recording.name
    if text.rpartition("/")[2] in (own, plain(own), track_name(own)):
        return True
    named = Path(text.rpartition("/")[2]).name.casefold()
    stem, _, suffix = named.rpartition(".")
    return named == own.casefold() or bool(
        suffix and stem == recording.stem.casefold() and stem
    )


def examples_of(
    table: ExampleTable,
    rows: Iterable[SegmentRow],
    recording: Path,
    sample_rate: int,
    duration_s: float | None,
) -> list[Example]:
    """Return rows as examples in time order.

    Parameters
    ----------
    table : ExampleTable
        Names the file in messages.
    rows : iterable of SegmentRow
        Rows of the recording.
    recording : Path
        Names the recording in messages.
    sample_rate : int
        Of the recording, in Hz.
    duration_s : float, optional
        Of the recording; None if it is not known.

    Raises
    ------
    ConfigError
        Examples have no length, or lie outside of the recording; all at once.
    """
    found, problems = [], []
    for row in rows:
        scale = sample_rate if row.in_samples else 1
        onset_s, offset_s = row.onset / scale, row.offset / scale
        at = where(table.path, row.line)
        example = f"{at}: the example at {onset_s:g} s"
        if onset_s < -_TOLERANCE_S:
            problems.append(f"{example} begins before the recording")
        elif offset_s <= onset_s:
            what = "has no length" if offset_s == onset_s else "ends before it begins"
            problems.append(f"{example} {what}: write its end behind its beginning")
        elif duration_s is not None and offset_s > duration_s + _TOLERANCE_S:
            problems.append(
                f"{example} ends at {offset_s:g} s, and '{recording}' at "
                f"{duration_s:.3f} s: is it of another recording, or in other units?"
            )
        else:
            channel = row.channel or _channel_in(row.recording)
            found.append(Example(max(0.0, onset_s), offset_s, row.label, channel, at))
    if problems:
        raise ConfigError(truncate_problems(problems))
    return sorted(found, key=lambda each: (each.onset_s, each.offset_s))


def _channel_in(name: str) -> int | None:
    parts = _CHANNEL.fullmatch(name.strip())
    return int(parts[2]) if parts else None


def joined(examples: Sequence[Example]) -> tuple[list[Example], list[str]]:
    """Return the examples of a channel without overlaps, and a sentence for each.

    Examples that overlap are one sound to a detector.
    """
    kept: list[Example] = []
    notes = []
    for example in examples:
        last = kept[-1] if kept else None
        if last is None or example.onset_s >= last.offset_s - _TOLERANCE_S:
            kept.append(example)
            continue
        if (example.onset_s, example.offset_s) == (last.onset_s, last.offset_s):
            notes.append(
                f"{example.where}: is the example of {last.where} again: it is used "
                "once"
            )
            continue
        notes.append(
            f"{example.where}: overlaps the example of {last.where}: they are taken as "
            "one sound"
        )
        stop = max(last.offset_s, example.offset_s)
        kept[-1] = Example(last.onset_s, stop, last.label, last.channel, last.where)
    # Rounded ends may cross by a millisecond.
    return [
        Example(
            each.onset_s,
            min(each.offset_s, after.onset_s) if after else each.offset_s,
            each.label,
            each.channel,
            each.where,
        )
        for each, after in pairwise([*kept, None])
        if each is not None
    ], notes
