"""Tables with a heading and a row per segment: CSV of several kinds, and Raven's."""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

from neurovocal.engine.contracts.errors import ConfigError
from neurovocal.engine.support.label_words import clean_label
from neurovocal.models.data.formats.segments import (
    FRACTION,
    AnnotationChoice,
    Findings,
    NotOfFormatError,
    SegmentRow,
    label_problem,
    shown,
    where,
)
from neurovocal.models.data.formats.text_table import (
    HeadedTable,
    Row,
    times_problem,
)

_BEGIN, _END = "Begin Time (s)", "End Time (s)"
_OFFSET = "File Offset (s)"
_SEVERAL_LINES = "the label runs over several lines: is a quotation mark too many?"
# Columns in which Raven's users and programs that write its tables keep labels.
_RAVEN_LABELS = ("Annotation", "Species", "Common Name", "Label", "Call Type")


def read_annotations_table(
    path: Path, choice: AnnotationChoice, findings: Findings
) -> list[SegmentRow]:
    """Read annotations.csv: file, onset_s, offset_s, label, perhaps channel."""
    return _read_csv(path, choice, findings, "file")


def read_simple_sequence(
    path: Path, choice: AnnotationChoice, findings: Findings
) -> list[SegmentRow]:
    """Read a CSV table of one recording: onset_s, offset_s, label."""
    return _read_csv(path, choice, findings, None)


def read_generic_sequence(
    path: Path, choice: AnnotationChoice, findings: Findings
) -> list[SegmentRow]:
    """Read crowsetta's own CSV table: label, times or samples, notated_path."""
    return _read_csv(path, choice, findings, "notated_path")


def _read_csv(
    path: Path,
    choice: AnnotationChoice,
    findings: Findings,
    name_column: str | None,
) -> list[SegmentRow]:
    """Read a CSV table of segments.

    Parameters
    ----------
    name_column : str, optional
        Column with the name of the recording; None if the table is named like it.

    Raises
    ------
    NotOfFormatError, ConfigError
        The file is no such table.
    """
    table = HeadedTable.read(path, findings, ",")
    label = choice.label_column or "label"
    times = ["onset_s", "offset_s"]
    in_samples = table.column(*times) is None and name_column == "notated_path"
    if in_samples:
        times = ["onset_sample", "offset_sample"]
    names = [name_column] if name_column else []
    is_labelled = choice.needs_labels or bool(choice.label_column)
    is_labelled |= table.column(label) is not None
    columns = table.require(*names, *times, *([label] if is_labelled else []))
    labels = columns.pop() if is_labelled else None
    reader = _RowReader(
        table, findings, times, columns[-2:], labels, choice.needs_labels
    )
    channel = table.column("channel")
    rows = []
    for row in table.rows:
        found = reader.read(row, channel)
        if found is None:
            continue
        onset, offset, text, number = found
        if in_samples and (onset % 1 or offset % 1):
            findings.refuse(path, row.line, FRACTION)
            continue
        name = row.cells[columns[0]] if name_column else ""
        if name_column and not name.strip():
            findings.refuse(path, row.line, "the name of the recording is missing")
            continue
        rows.append(
            SegmentRow(
                float(onset), float(offset), text, row.line, name, number, in_samples
            )
        )
    return rows


@dataclass(frozen=True, slots=True)
class _RowReader:
    """Reads times, label and channel of the rows of a table."""

    table: HeadedTable
    findings: Findings
    time_names: Sequence[str]
    times: Sequence[int]
    label: int | None
    needs_labels: bool

    def read(
        self, row: Row, channel: int | None
    ) -> tuple[Decimal, Decimal, str, int | None] | None:
        """Return onset, offset, label and channel; refuse a faulty row."""
        cells = row.cells
        text = "" if self.label is None else cells[self.label]
        label = clean_label(text)
        problems = [times_problem(row, self.times, self.time_names)]
        if "\n" in text:
            problems.append(_SEVERAL_LINES)
        elif (label or self.needs_labels) and (problem := label_problem(label)):
            problems.append(problem)
        number = None
        if channel is not None and (named := cells[channel].strip()):
            if named.isascii() and named.isdigit() and 0 < int(named) < 10_000:
                number = int(named)
            else:
                problems.append(f"channel {shown(named)} is no number from 1 on")
        if any(problems):
            for problem in filter(None, problems):
                self.findings.refuse(self.table.path, row.line, problem)
            return None
        onset, offset = (Decimal(cells[at].strip()) for at in self.times)
        return onset, offset, label, number


def read_raven(
    path: Path, choice: AnnotationChoice, findings: Findings
) -> list[SegmentRow]:
    """Read a Raven selection table, of one or several recordings.

    A selection that is listed once per view is read once. Rows with a "Begin File" or
    "Begin Path" belong to that recording; with a "File Offset (s)" times count on
    through all recordings, and the offset is the onset in the row's own.

    Raises
    ------
    NotOfFormatError, ConfigError
        The file is no Raven table, or a column is missing.
    """
    table = HeadedTable.read(path, findings, "\t")
    if table.column(_BEGIN) is None and table.column(_END) is None:
        raise NotOfFormatError(
            f"is no Raven selection table: its first line has no column '{_BEGIN}', "
            "with tabs between the columns"
        )
    label = _label_column(table, choice, findings)
    times = table.require(_BEGIN, _END)
    reader = _RowReader(
        table, findings, (_BEGIN, _END), times, label, choice.needs_labels
    )
    file_column = table.column("Begin Path", "Begin File")
    offset_column, channel_column = table.column(_OFFSET), table.column("Channel")
    views = _Views(table)
    rows: list[SegmentRow] = []
    names: dict[str, int] = {}
    for row in table.rows:
        found = reader.read(row, channel_column)
        if found is None:
            continue
        if (listed := views.listed(row, found[2])) is not None:
            if listed.label != found[2]:
                findings.refuse(path, row.line, listed.contradiction(found[2]))
            continue
        begin, end, text, channel = found
        name = "" if file_column is None else row.cells[file_column].strip()
        if offset_column is not None and row.cells[offset_column].strip():
            problem = times_problem(row, [offset_column], [_OFFSET])
            if problem:
                findings.refuse(path, row.line, problem)
                continue
            onset = Decimal(row.cells[offset_column].strip())
            begin, end = onset, onset + (end - begin)
        else:
            names.setdefault(name, row.line)
        rows.append(SegmentRow(float(begin), float(end), text, row.line, name, channel))
    if len(names) > 1:
        first, second = [*names][:2]
        findings.refuse(
            path,
            names[second],
            f"the table has rows of several recordings ({shown(first)}, "
            f"{shown(second)}), and times that count on through all of them: export "
            f"it with the column '{_OFFSET}'",
        )
        return []
    return rows


def _label_column(
    table: HeadedTable, choice: AnnotationChoice, findings: Findings
) -> int | None:
    """Return the column of a Raven table that holds the labels.

    None if there is none, and none is needed.
    """
    wanted = (choice.label_column,) if choice.label_column else _RAVEN_LABELS
    there = [at for name in wanted if (at := table.column(name)) is not None]
    if not there and not choice.needs_labels and not choice.label_column:
        return None
    if not there:
        raise ConfigError(
            f"{where(table.path)}: has no column {shown(wanted[0])} with labels: "
            f"name one with --label-column: {', '.join(table.heading)[:300]}"
        )
    # Raven's own column is empty where labels are kept in another.
    filled = [at for at in there if any(row.cells[at].strip() for row in table.rows)]
    at = (filled or there)[0]
    if table.heading[at].casefold() != wanted[0].casefold():
        findings.tell(
            "labels are read from another column than 'Annotation' (--label-column "
            "names one)",
            shown(table.heading[at]),
        )
    return at


class _Views:
    """Finds selections that a Raven table lists again in another view."""

    def __init__(self, table: HeadedTable) -> None:
        self._view = table.column("View")
        self._number = table.column("Selection")
        names = (_BEGIN, _END, "Channel", "Begin File", "Begin Path", _OFFSET)
        self._same = [at for name in names if (at := table.column(name)) is not None]
        self._listed: dict[tuple[str, ...], _Listed] = {}

    def listed(self, row: Row, label: str) -> "_Listed | None":
        """Return the selection of a row if another view has listed it already."""
        if self._view is None or self._number is None:
            return None
        cells = row.cells
        if not cells[self._number].strip():
            return None
        key = (cells[self._number], *(cells[at] for at in self._same))
        own = _Listed(cells[self._view], label, row.line)
        first = self._listed.setdefault(key, own)
        return first if first.view != own.view else None


@dataclass(frozen=True, slots=True)
class _Listed:
    """A selection in the view that lists it first."""

    view: str
    label: str
    line: int

    def contradiction(self, label: str) -> str:
        """Return a sentence on another label of the same selection."""
        return (
            f"the selection is labelled {shown(label)} here, and {shown(self.label)} "
            f"in the view {shown(self.view)} in line {self.line}"
        )
