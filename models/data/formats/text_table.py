"""Tables in text files: every cell is text, and every row knows its line."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from neurovocal.engine.contracts.errors import ConfigError
from neurovocal.engine.support.text import printable
from neurovocal.models.data.formats.segments import (
    Findings,
    NotOfFormatError,
    number_problem,
    shown,
    where,
)

_LINE_END = re.compile(r"\r\n|\n|\r")
# Control characters besides tab and line ends; and the separators that are no ends
# of a line in any table, but that look like one.
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029]")
_BYTE_ORDER = {
    b"\xef\xbb\xbf": "utf-8-sig",
    b"\xff\xfe": "utf-16",
    b"\xfe\xff": "utf-16",
}
# The first bytes of what spreadsheets write if they are not asked for text.
_SPREADSHEETS = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1")
_STRAY_MARK = (
    "a quotation mark too many: quote a whole cell, and double the marks inside it"
)
_SEP_LINE = re.compile(r'"?sep=(.)"?[,;\t ]*')  # quoted and filled up, perhaps
_LARGEST = 1 << 29
_MOST_LINES = 100  # of a cell
_SEPARATORS = {"\t": "tabs", ";": "semicolons", ",": "commas", "|": "bars"}


@dataclass(frozen=True, slots=True)
class Row:
    """Cells of a row, and the line on which it begins."""

    line: int
    cells: list[str]

    @property
    def is_blank(self) -> bool:
        """True if no cell holds anything."""
        return not "".join(self.cells).strip()


def own_table(folder: Path, name: str) -> Path:
    """Return the path of a dataset's own table, also if it is in other letters."""
    path = folder / name
    if path.exists():
        return path
    alike = (p for p in folder.iterdir() if p.name.casefold() == name)
    return min(alike, default=path)


def read_text(path: Path) -> str:
    """Read a text file in UTF-8, or in UTF-16 with its mark or of plain letters.

    Raises
    ------
    NotOfFormatError
        The file cannot be read, is not text, or has a byte or a control character
        that no table has; the text says in which line.
    """
    try:
        with path.open("rb") as stream:
            data = stream.read(_LARGEST + 1)
    except OSError as error:
        raise NotOfFormatError(f"cannot be read: {error.strerror}") from error
    if len(data) > _LARGEST:
        raise NotOfFormatError(f"is larger than {_LARGEST >> 20} MiB: it is no table")
    if data.startswith(_SPREADSHEETS):
        raise NotOfFormatError("is a spreadsheet: save it as text in UTF-8")
    try:
        text = data.decode(_encoding(data))
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise NotOfFormatError(
            f"line {line} is not UTF-8 text (byte 0x{data[error.start]:02x}): save "
            "the file in UTF-8"
        ) from error
    if bad := _CONTROL.search(text):
        line = len(_LINE_END.findall(text, 0, bad.start())) + 1
        what = "NUL" if bad[0] == "\0" else f"U+{ord(bad[0]):04X}"
        raise NotOfFormatError(
            f"line {line} holds the control character {what}, which no table has"
        )
    return text


def _encoding(data: bytes) -> str:
    """Return the encoding that the first bytes of a file tell."""
    for mark, encoding in _BYTE_ORDER.items():
        if data.startswith(mark):
            return encoding
    head = data[:64]
    if len(head) > 3 and not len(data) % 2:
        for encoding, zeros, letters in (
            ("utf-16-le", head[1::2], head[::2]),
            ("utf-16-be", head[::2], head[1::2]),
        ):
            if not any(zeros) and all(letters):
                return encoding
    return "utf-8"


def read_lines(path: Path) -> list[str]:
    """Read the lines of a text file; raises `NotOfFormatError` as `read_text` does."""
    lines = _LINE_END.split(read_text(path))
    return lines if lines[-1] else lines[:-1]


def literal_rows(lines: Sequence[str], separator: str = "\t") -> Iterator[Row]:
    """Yield the rows of a table without quoting; blank ones are passed over."""
    for number, line in enumerate(lines, 1):
        row = Row(number, line.split(separator))
        if not row.is_blank:
            yield row


def quoted_rows(
    path: Path, lines: Sequence[str], findings: Findings, separator: str = ","
) -> Iterator[Row]:
    """Yield the rows of a table whose cells may be quoted; blank ones are passed over.

    A quotation mark inside a cell that is not quoted, one behind a quoted cell, and one
    that is never closed are refused with their line.
    """
    apart = re.escape(separator)
    quoted = re.compile(rf' *"([^"]*(?:""[^"]*)*)" *(?={apart}|\n|$)')
    bare = re.compile(rf'[^"\n{apart}]*(?={apart}|\n|$)')
    number = 0
    while number < len(lines):
        line = number + 1
        text = lines[number]
        number += 1
        if '"' not in text:
            cells: list[str] | None = text.split(separator)
        else:
            cells, number = _quoted_cells(lines, number - 1, separator, quoted, bare)
        if cells is None:
            findings.refuse(path, line, _STRAY_MARK)
            continue
        row = Row(line, cells)
        if not row.is_blank:
            yield row


def _quoted_cells(
    lines: Sequence[str],
    first: int,
    separator: str,
    quoted: re.Pattern[str],
    bare: re.Pattern[str],
) -> tuple[list[str] | None, int]:
    """Split a row with quoted cells, which may run over several lines.

    Returns
    -------
    cells : list of str, optional
        None if a quotation mark is misplaced.
    number : int
        Index of the line after the row; after a mistake, of the next line.
    """
    text, stop = lines[first], first + 1
    cells: list[str] = []
    at = 0
    while True:
        found = quoted.match(text, at) or bare.match(text, at)
        if found is None:
            # The cell may go on in the next line, if its marks do not pair here.
            is_open = text.count('"', at) % 2 and text[at:].lstrip(" ")[:1] == '"'
            if is_open and stop < len(lines) and stop - first < _MOST_LINES:
                text, stop = f"{text}\n{lines[stop]}", stop + 1
                continue
            return None, first + 1
        if found.re is quoted:
            cells.append(found[1].replace('""', '"'))
        else:
            cells.append(found[0])
        at = found.end()
        if at >= len(text):
            return cells, stop
        at += len(separator)


@dataclass(frozen=True, slots=True)
class HeadedTable:
    """Table whose first row names the columns.

    Rows have as many cells as there are columns. ``faults`` are the other rows: they
    are told once the heading is known to be one. ``other_separator`` is what seems to
    separate the columns instead.
    """

    path: Path
    heading: list[str]
    rows: list[Row]
    faults: Findings
    findings: Findings
    other_separator: str = ""

    @classmethod
    def read(cls, path: Path, findings: Findings, separator: str) -> "HeadedTable":
        """Read a table; `require` adds the faults of its rows to `findings`.

        A table with commas may have quoted cells. In one with tabs quotation marks
        are letters, unless the heading has quoted names. A first line ``sep=,``, by
        which spreadsheets are told the separator, is no heading.

        Raises
        ------
        NotOfFormatError
            The file is no text, or empty.
        """
        lines, faults = read_lines(path), Findings()
        said = _SEP_LINE.fullmatch(lines[0]) if lines else None
        if said is not None and said[1] == separator:
            lines[0] = ""
        first = next((line for line in lines if line.strip()), None)
        if first is None:
            raise NotOfFormatError("is empty: its first line must name the columns")
        if separator == "," or first.lstrip().startswith('"'):
            rows = quoted_rows(path, lines, faults, separator)
        else:
            rows = literal_rows(lines, separator)
        head = next(rows, Row(1, []))
        heading = [" ".join(cell.split()) for cell in head.cells]
        while heading and not heading[-1]:
            heading.pop()
        others = [s for s in _SEPARATORS if len(head.cells) == 1 and s in first]
        table = cls(path, heading, [], faults, findings, "".join(others[:1]))
        for row in rows:
            if table._swallows_rows(row, separator):
                faults.refuse(path, row.line, _STRAY_MARK)
            elif table._has_all_cells(row):
                table.rows.append(row)
        return table

    def column(self, *names: str) -> int | None:
        """Return the position of the first of several columns that is there."""
        folded = [name.casefold() for name in self.heading]
        for name in names:
            if name.casefold() in folded:
                return folded.index(name.casefold())
        return None

    def require(self, *names: str) -> list[int]:
        """Return the positions of columns, and tell the faults of the rows.

        Raises
        ------
        NotOfFormatError
            The columns have another separator, or all of them are missing.
        ConfigError
            Some are missing, or named twice; the sentence says which, and what is
            there.
        """
        counts = Counter(name.casefold() for name in self.heading if name)
        if doubles := [name for name, n in counts.items() if n > 1]:
            raise ConfigError(
                f"{where(self.path)}: the heading names {shown(doubles[0])} twice"
            )
        missing = [name for name in names if self.column(name) is None]
        if not missing:
            self.findings.problems += self.faults.problems
            return [at for name in names if (at := self.column(name)) is not None]
        if self.other_separator:
            raise NotOfFormatError(
                f"its columns are separated by {_SEPARATORS[self.other_separator]}: "
                "save it with commas between them and points in the numbers (the "
                f"columns {', '.join(names)})"
            )
        there = printable(", ".join(self.heading)[:200]) or "no column"
        sentence = (
            f"{_columns(missing)} missing; there "
            f"{'is' if len(self.heading) == 1 else 'are'} {there}"
        )
        if len(missing) == len(names):
            raise NotOfFormatError(sentence)
        raise ConfigError(f"{where(self.path)}: {sentence}")

    def _swallows_rows(self, row: Row, separator: str) -> bool:
        """Return True if a cell holds whole rows: they lie between two stray marks."""
        most = max(1, len(self.heading) - 1)
        return any(
            line.count(separator) >= most
            for cell in row.cells
            if "\n" in cell
            for line in cell.split("\n")[1:]
        )

    def _has_all_cells(self, row: Row) -> bool:
        """Cut blank surplus cells off; refuse rows of another length."""
        wanted, cells = len(self.heading), row.cells
        while len(cells) > wanted and not cells[-1].strip():
            cells.pop()
        if len(cells) == wanted:
            return True
        hint = ""
        if len(cells) > wanted:
            hint = ": write decimal points, and a comma inside a cell in quotes"
        self.faults.refuse(
            self.path,
            row.line,
            f"{_counted(len(cells), 'cell')}, but the heading names "
            f"{_counted(wanted, 'column')}{hint}",
        )
        return False


def _counted(n: int, noun: str) -> str:
    return f"{n} {noun}{'' if n == 1 else 's'}"


def _columns(names: Sequence[str]) -> str:
    listed = ", ".join(f"'{name}'" for name in names)
    return f"column {listed} is" if len(names) == 1 else f"columns {listed} are"


def times_problem(row: Row, positions: Sequence[int], names: Sequence[str]) -> str:
    """Return why cells of a row are no numbers, in a sentence; empty if they are."""
    if not any(number_problem(row.cells[at]) for at in positions):
        return ""
    return " and ".join(
        f"{name} {shown(row.cells[at])} {problem}"
        for name, at in zip(names, positions, strict=True)
        if (problem := number_problem(row.cells[at]))
    )
