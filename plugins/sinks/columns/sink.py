"""Writes events with all their fields as columns: CSV, or Parquet."""

import csv
from typing import Literal, Protocol

from neurovocal.engine.contracts.errors import ConfigError
from neurovocal.engine.contracts.options import Options
from neurovocal.engine.contracts.plugin import BuildContext, Plugin
from neurovocal.engine.contracts.types import KINDS, Message
from neurovocal.plugins.sinks.columns.rows import (
    Column,
    Value,
    columns_of,
    row_of,
    utc_text,
)
from neurovocal.plugins.storage.text_file import (
    STDOUT,
    Existing,
    TextOutput,
    claim,
    on_existing,
    output_problems,
)


class ColumnsOptions(Options):
    """Options of the columns sink."""

    path: str = "-"
    """File to write; `-` is standard output (CSV only). A live run sets a CSV that an
    earlier run left aside, as `STEM.1.left.SUFFIX`; offline runs replace it."""
    format: Literal["csv", "parquet"] = "csv"
    """Parquet needs `pip install neurovocal[parquet]`; its file appears when the run
    ends, and each further run adds its rows to it. Until then rows are in `PATH.rows`,
    a line of JSON each; what a killed run has left there the next run adds first."""
    kinds: list[str] = ["label"]
    """Kinds of events; together they decide which columns there are."""


class Table(Protocol):
    """A file of rows."""

    def open(self) -> None:
        """Open the file; ConfigError when it cannot be written."""
        ...

    def write(self, row: dict[str, Value]) -> None:
        """Take a row."""
        ...

    def flush(self) -> None:
        """Hand everything to the operating system."""
        ...

    def close(self) -> None:
        """Finish the file."""
        ...


class CsvColumns:
    """A heading, then a line per row; what is not known is an empty cell."""

    def __init__(self, path: str, columns: list[Column], existing: Existing) -> None:
        self._output = TextOutput(path, existing=existing)
        names = [column.name for column in columns]
        self._csv = csv.DictWriter(self._output, names, lineterminator="\n")

    def open(self) -> None:
        """Open the file and write the heading, unless it was open before."""
        if self._output.open():
            self._csv.writeheader()

    def write(self, row: dict[str, Value]) -> None:
        """Write a line."""
        utc = row["utc"]
        self._csv.writerow({**row, "utc": "" if utc is None else utc_text(int(utc))})

    def flush(self) -> None:
        """Hand everything to the operating system."""
        self._output.flush()

    def close(self) -> None:
        """Close the file."""
        self._output.close()


class ColumnsSink:
    """One row per event.

    Parameters
    ----------
    options : ColumnsOptions
        Checked options.
    run : str
        Name of the run, the first column.
    existing : {'replace', 'append', 'set aside'}
        What becomes of a file that is there.

    Attributes
    ----------
    run : str
        May be changed between events, by who exports several runs.
    """

    def __init__(
        self, options: ColumnsOptions, run: str, existing: Existing = "replace"
    ) -> None:
        self.wants = frozenset(options.kinds)
        self.run = run
        self._rows = 0
        self._table: Table
        if options.format == "parquet":
            from neurovocal.plugins.sinks.columns.parquet import ParquetColumns

            self._table = ParquetColumns(options.path, options.kinds)
        else:
            self._table = CsvColumns(options.path, columns_of(options.kinds), existing)

    def open(self) -> None:
        """Open the file; ConfigError when it cannot be written."""
        self._table.open()

    def write(self, message: Message) -> None:
        """Write one row."""
        self._table.write(row_of(self.run, message))
        self._rows += 1

    def flush(self, timeout: float) -> None:
        """Hand everything to the operating system."""
        self._table.flush()

    def close(self) -> None:
        """Finish the file."""
        self._table.close()

    def stats(self) -> dict[str, object]:
        """Rows so far."""
        return {"rows": self._rows}


def _build(options: ColumnsOptions, context: BuildContext) -> ColumnsSink:
    problems = _problems(options, context)
    if problems:
        raise ConfigError(problems)
    return ColumnsSink(options, context.run, on_existing(context))


def _problems(options: ColumnsOptions, context: BuildContext) -> list[str]:
    problems = list(output_problems(options.path))
    known = sorted(KINDS.values())
    problems += [
        f"kind '{kind}' is none (there are: {', '.join(known)})"
        for kind in options.kinds
        if kind not in known
    ]
    if options.format == "parquet":
        from neurovocal.plugins.sinks.columns.parquet import parquet_problems

        if options.path == STDOUT:
            problems.append("a Parquet table is a file: '-' is none")
        problems += parquet_problems()
    return problems


def _claims(options: ColumnsOptions) -> frozenset[str]:
    if options.format == "csv":
        return claim(options.path)
    from neurovocal.plugins.sinks.columns.parquet import rows_path

    return claim(options.path) | claim(str(rows_path(options.path)))


plugin = Plugin(
    kind="sink",
    options=ColumnsOptions,
    build=_build,
    summary="writes events with all their fields as columns: CSV or Parquet",
    resources=_claims,
    check=_problems,
)
