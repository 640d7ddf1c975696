"""Write events with all their fields as columns: CSV or Parquet."""

import csv
from collections.abc import Sequence
from typing import Literal, Protocol

from neurovocal.engine import (
    KINDS,
    BuildContext,
    ConfigError,
    FileAccess,
    Message,
    Options,
    Plugin,
)
from neurovocal.engine.support.names import at_home
from neurovocal.engine.support.text import utc_text, without_formula
from neurovocal.plugins.sinks.columns.parquet import (
    ParquetColumns,
    parquet_problems,
    part_path,
    rows_path,
)
from neurovocal.plugins.sinks.columns.rows import (
    Column,
    Value,
    columns_of,
    row_of,
)
from neurovocal.plugins.storage.existing import (
    FileKind,
    any_of,
    existing_problems,
    text_kind,
)
from neurovocal.plugins.storage.text_file import (
    Existing,
    TextTable,
    existing_policy,
    file_access,
    file_claim,
    output_problems,
)

_LEAST_BYTES = 64
_CSV = text_kind("a table of events in CSV", r"run,stream,kind,seq,utc,.*")
_PARQUET = any_of("a Parquet table", b"PAR1")
# A loss of power may leave a few other bytes of it.
_ROWS = FileKind(
    "rows that wait for a Parquet table",
    lambda head: b'{"kinds":' in head or len(head) < _LEAST_BYTES,
)


class ColumnsOptions(Options):
    """Options of the columns sink."""

    path: str = "-"
    """File to write; `-` is standard output (CSV only). A live run sets a CSV that an
    earlier run left aside, as `STEM.1.left.SUFFIX`; offline runs replace it."""
    format: Literal["csv", "parquet"] = "csv"
    """Parquet needs `pip install pyarrow`; its file appears when the run
    ends, and each further run adds its rows to it. Until then rows are in `PATH.rows`,
    a line of JSON each; what a killed run has left there the next run adds first."""
    kinds: list[str] = ["label"]
    """Kinds of events; together they decide which columns there are. The key `events`
    of any sink says the same: one of them is enough."""
    safe_csv: bool = False
    """CSV: whether texts that begin with `=`, `+`, `-` or `@`, which spreadsheets take
    for formulas, get an apostrophe before them."""


class EventTable(Protocol):
    """File with a row per event."""

    def open(self) -> None:
        """Open the file; raise ConfigError if it cannot be written."""
        ...

    def write(self, row: dict[str, Value]) -> None:
        """Write a row; raise StageError if that fails."""
        ...

    def flush(self) -> None:
        """Hand all rows to the operating system."""
        ...

    def commit(self) -> None:
        """Bring all rows to the disk."""
        ...

    def close(self) -> None:
        """Complete the file."""
        ...


class CsvColumns(TextTable):
    """CSV with a heading; values that are not known are empty cells."""

    def __init__(
        self, path: str, columns: list[Column], existing: Existing, *, safe: bool
    ) -> None:
        super().__init__(path, existing, _CSV)
        self._safe = safe
        self.heading = [column.name for column in columns]
        self._csv = csv.writer(self._output, lineterminator="\n")

    def write(self, row: dict[str, Value]) -> None:
        """Write a row."""
        utc = row["utc"]
        text = "" if utc is None else utc_text(int(utc), "microseconds")
        row = {**row, "utc": text}
        cells = [row.get(name, "") for name in self.heading]
        if self._safe:
            cells = [without_formula(c) if isinstance(c, str) else c for c in cells]
        self._csv.writerow(cells)

    def _write_cells(self, cells: Sequence[str]) -> None:
        self._csv.writerow(cells)


class ColumnsSink:
    """Writes a row per event.

    Parameters
    ----------
    options : ColumnsOptions
        Checked options.
    run : str
        Name of the run, the first column.
    existing : {'replace', 'append', 'set aside'}
        What happens to an existing CSV file.
    kinds : sequence of str, optional
        Kinds of events; default: those of the options.

    Attributes
    ----------
    run : str
        Name of the run; an export of several runs changes it between events.
    """

    def __init__(
        self,
        options: ColumnsOptions,
        run: str,
        existing: Existing = "replace",
        kinds: Sequence[str] | None = None,
    ) -> None:
        kinds = options.kinds if kinds is None else kinds
        self.wants = frozenset(kinds)
        self.run = run
        self._rows = 0
        self._table: EventTable
        if options.format == "parquet":
            self._table = ParquetColumns(options.path, kinds)
        else:
            self._table = CsvColumns(
                options.path, columns_of(kinds), existing, safe=options.safe_csv
            )

    def open(self) -> None:
        """Open the file; raise ConfigError if it cannot be written."""
        self._table.open()

    def write(self, message: Message) -> None:
        """Write a row."""
        self._table.write(row_of(self.run, message))
        self._rows += 1

    def flush(self, timeout: float) -> None:
        """Hand all rows to the operating system."""
        self._table.flush()

    @property
    def uncommitted(self) -> int:
        """Return 0: the operating system has every line."""
        return 0

    def commit(self) -> None:
        """Bring all lines to the disk; raise StageError if that fails."""
        self._table.commit()

    def close(self) -> None:
        """Complete the file."""
        self._table.close()

    def stats(self) -> dict[str, object]:
        """Return the number of rows."""
        return {"rows": self._rows}


def _build(options: ColumnsOptions, context: BuildContext) -> ColumnsSink:
    problems = _problems(options, context)
    if problems:
        raise ConfigError(problems)
    existing = existing_policy(context)
    return ColumnsSink(options, context.run, existing, context.events)


def _check(options: ColumnsOptions, context: BuildContext) -> list[str]:
    problems = _problems(options, context)
    path = at_home(options.path)
    is_other = path.exists() and not path.is_file()
    if options.format == "parquet" and is_other and not problems:
        problems.append(f"a Parquet table is a file: '{path}' is none")
    return problems


def _problems(options: ColumnsOptions, context: BuildContext) -> list[str]:
    kind = _CSV if options.format == "csv" else _PARQUET
    problems = list(output_problems(options.path, kind))
    known = sorted(KINDS.values())
    problems += [
        f"kind '{kind}' is none (there are: {', '.join(known)})"
        for kind in options.kinds
        if kind not in known
    ]
    events = context.events
    has_both = events is not None and "kinds" in options.model_fields_set
    if has_both and set(events or ()) != set(options.kinds):
        problems.append(
            "'events' and 'options.kinds' say the same and differ: leave one out"
        )
    if options.format == "parquet":
        if options.safe_csv:
            problems.append("safe_csv is for CSV, not for Parquet: leave it out")
        if "stdout" in file_claim(options.path):
            problems.append(f"a Parquet table is a file: '{options.path}' is none")
        problems += existing_problems(_ROWS, rows_path(options.path))
        problems += existing_problems(_PARQUET, part_path(options.path))
        problems += parquet_problems()
    return problems


def _resources(options: ColumnsOptions) -> frozenset[str]:
    if options.format == "csv":
        return file_claim(options.path)
    return file_claim(options.path) | file_claim(str(rows_path(options.path)))


def _writes(options: ColumnsOptions, context: BuildContext) -> list[FileAccess]:
    if options.format == "csv":
        return file_access(options.path)
    return file_access(options.path, rows_path(options.path), part_path(options.path))


plugin = Plugin(
    kind="sink",
    options=ColumnsOptions,
    build=_build,
    summary="writes events with all their fields as columns: CSV or Parquet",
    resources=_resources,
    check=_check,
    writes=_writes,
)
