"""Parquet tables: rows wait in a text file and are converted when the run ends.

A Parquet file can be read only once its end is written. Rows are therefore appended to
``NAME.rows``, a line of JSON each, as they come. When the sink closes, or when the next
run finds what a killed one has left, the existing table and the waiting rows are
written to ``.NAME.part``, which then replaces the table.

The steps of the replacement: the part is synchronized, the file of rows is removed, the
part is renamed. A part without a file of rows is therefore complete and only lacks its
name; a part beside a file of rows is written again.
"""

import importlib.util
import io
import logging
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from errno import EINVAL, ESTALE
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import msgspec

from neurovocal.engine import KINDS, ConfigError, NeurovocalError, StageError
from neurovocal.engine.support.names import at_home, beside, resolved
from neurovocal.engine.support.platform import lock_file
from neurovocal.engine.support.strict_json import JsonError, JsonReader
from neurovocal.plugins.sinks.columns.rows import Form, Value, columns_of
from neurovocal.plugins.storage.durable import durable_file, remove_file, sync_folder
from neurovocal.plugins.storage.file_lock import FileIdentity
from neurovocal.plugins.storage.folder import (
    OutputFolder,
    identity_of,
    set_aside,
)
from neurovocal.plugins.storage.text_file import TextOutput

if TYPE_CHECKING:
    import pyarrow

log = logging.getLogger("neurovocal")

# Rows that are converted at a time, and so the memory that conversion takes.
BATCH_ROWS = 10_000
_HEADER = b'{"kinds":'


class _Header(msgspec.Struct):
    """Line that each opening of a file of rows begins with: the kinds that follow."""

    kinds: list[str]


_headers = JsonReader(_Header)


def parquet_problems() -> Iterator[str]:
    """Yield a sentence if pyarrow is not installed."""
    if importlib.util.find_spec("pyarrow") is None:
        yield "Parquet needs pyarrow, which is not installed: pip install pyarrow"


def rows_path(path: str) -> Path:
    """Return the path of the file in which the rows of a table wait."""
    target = resolved(at_home(path))
    return beside(target, after=".rows")


def part_path(path: str) -> Path:
    """Return the path of the file that replaces a table once it is complete."""
    target = resolved(at_home(path))
    return beside(target, before=".", after=".part")


class ParquetColumns:
    """A Parquet table that takes the rows of one run after the other.

    Parameters
    ----------
    path : str
        Table to write. Rows are added to a table of events that exists there; any other
        file is set aside under another name.
    kinds : iterable of str
        Kinds of events; they decide which columns the table gets.
    """

    def __init__(self, path: str, kinds: Iterable[str]) -> None:
        # A link to a table stays a link.
        self._table = resolved(at_home(path))
        self._part = part_path(path)
        self._rows = rows_path(path)
        self._folder = OutputFolder(self._table.parent)
        self._output = self._new_output()
        header = msgspec.json.encode(_Header(sorted(kinds)))
        self._header = header.decode() + "\n"
        self._lock: int | None = None  # descriptor of the file of rows, locked
        self._was_open = False
        self._write_failed = False

    def open(self) -> None:
        """Convert the rows of a killed run, then open the file of rows.

        Raises
        ------
        ConfigError
            The file of rows cannot be written. Rows that cannot be converted are no
            such error: they wait for the end of this run.
        """
        try:
            self._folder.ensure()
            self._complete_replacement()
            if not self._was_open:
                self._convert_left_rows()
            self._lock = self._lock_rows()
            self._output.open()
            self._output.write(self._header)
        except OSError as error:
            self._release()
            raise ConfigError(
                f"'{self._table}' cannot be written: {_reason(error)}"
            ) from error
        except NeurovocalError:
            self._release()
            raise
        self._was_open = True
        self._write_failed = False

    def write(self, row: dict[str, Value]) -> None:
        """Append a row to the file of rows.

        Raises
        ------
        StageError
            The disk does not take it; nothing of it is in the file.
        """
        self._write_failed = True
        self._output.write(_row_line(row))
        self._write_failed = False

    def flush(self) -> None:
        """Do nothing: the operating system has every row."""
        self._output.flush()

    def commit(self) -> None:
        """Bring the waiting rows to the disk; raise StageError if that fails."""
        self._output.commit()

    def close(self) -> None:
        """Convert the rows, unless the last write has failed and will be repeated.

        Raises
        ------
        StageError
            The table cannot be written. The rows are kept, and the next run converts
            them.
        """
        if self._lock is None:
            return
        try:
            self._output.close()
            if not self._write_failed:
                self._convert(self._lock)
        except (OSError, ValueError) as error:
            raise StageError(
                f"'{self._table}' cannot be written: {_reason(error)}; its rows are "
                f"kept in '{self._rows.name}' for the next run's table"
            ) from error
        finally:
            self._release()

    def _new_output(self) -> TextOutput:
        output = TextOutput(
            str(self._rows), existing="append", folder=self._folder, locks=False
        )
        output.path = str(self._table)  # what is told is the name that a user gave
        return output

    def _convert_left_rows(self) -> None:
        """Convert the rows of an earlier run, if there are any and the disk allows."""
        lock = self._lock_rows()
        try:
            if os.fstat(lock).st_size:
                self._convert(lock)
        except (OSError, ValueError) as error:
            log.warning(
                "'%s' cannot be written: %s; rows of an earlier run are kept in '%s' "
                "until this run ends",
                self._table,
                _reason(error),
                self._rows.name,
            )
        finally:
            os.close(lock)

    def _convert(self, lock: int) -> None:
        """Add the rows to the table, unless another sink still writes rows."""
        try:
            lock_file(lock)
        except BlockingIOError:
            log.warning(
                "'%s' is written by another sink, which still adds rows", self._table
            )
            return
        except OSError:  # a file system without locks
            pass
        self._set_aside_other_file()
        before = _version_of(self._table)
        existing = _event_schema(self._table)
        with self._rows.open("rb") as rows:
            kinds, n_rows = _scan(rows)
            if n_rows or existing is None:
                part = self._write_part(rows, kinds, existing)
            else:
                part = None
                remove_file(self._part)  # a killed run has left it
        try:
            self._folder.require_same(self._rows, _identity(lock))
            if part is not None:
                self._folder.require_same(self._part, part)
                if _version_of(self._table) != before:
                    raise OSError(ESTALE, "it was replaced while it was read")
        except OSError:
            remove_file(self._part)
            raise
        sync_folder(self._table.parent)
        self._rows.unlink()
        sync_folder(self._table.parent)
        if part is not None:
            self._replace_table()
        self._output = self._new_output()

    def _write_part(
        self, rows: BinaryIO, kinds: set[str], existing: "pyarrow.Schema | None"
    ) -> FileIdentity:
        """Write the existing table and the rows to the part, in batches."""
        import pyarrow
        import pyarrow.parquet

        forms = {column.name: column.form for column in columns_of(kinds)}
        schema = _schema(forms)
        if existing is not None:
            schema = pyarrow.unify_schemas([existing.remove_metadata(), schema])
        reader = _RowReader(forms)
        with (
            durable_file(self._part) as file,
            pyarrow.parquet.ParquetWriter(file, schema) as writer,
        ):
            if existing is not None:
                with pyarrow.parquet.ParquetFile(self._table) as table:
                    for batch in table.iter_batches(BATCH_ROWS, use_threads=False):
                        writer.write_table(_widened(batch, schema))
            for table in reader.tables(rows):
                writer.write_table(_widened(table, schema))
            identity = _identity(file.fileno())
        if reader.unreadable:
            log.warning(
                "'%s': %d lines were cut off and are left out",
                self._rows,
                reader.unreadable,
            )
        return identity

    def _set_aside_other_file(self) -> None:
        """Rename a file with the table's name that is not a table of events."""
        if not self._table.exists() or _event_schema(self._table) is not None:
            return
        if not self._table.is_file():
            raise OSError(EINVAL, "it is no regular file")
        if self._table.stat().st_size:
            log.warning(
                "'%s' is no table of events and is now '%s'",
                self._table,
                set_aside(self._table),
            )

    def _replace_table(self) -> None:
        self._part.replace(self._table)
        sync_folder(self._table.parent)

    def _complete_replacement(self) -> None:
        """Rename the part of a run that was killed between its last two steps."""
        if self._rows.exists() or not self._part.exists():
            return
        if _event_schema(self._part) is None:
            self._part.unlink()
        else:
            self._set_aside_other_file()
            self._replace_table()

    def _lock_rows(self) -> int:
        """Open the file of rows and lock it together with others that write it.

        There may be one in this process: a sink that hangs, and was replaced. The last
        one to close converts the rows; while it does, none is opened.
        """
        while True:
            lock = os.open(self._rows, os.O_RDWR | os.O_CREAT, 0o666)
            with suppress(OSError):  # a file system without locks
                lock_file(lock, shared=True)
            if identity_of(self._rows) == _identity(lock):
                return lock
            os.close(lock)  # it was converted meanwhile

    def _release(self) -> None:
        lock, self._lock = self._lock, None
        if lock is not None:
            os.close(lock)
        with suppress(NeurovocalError):
            self._output.close()


class _RowReader:
    """Reads lines of rows as tables of at most `BATCH_ROWS` rows.

    Parameters
    ----------
    forms : dict of str to Form
        Columns of the tables.

    Attributes
    ----------
    unreadable : int
        Lines left out: a kill or a loss of power has cut them off.
    """

    def __init__(self, forms: dict[str, Form]) -> None:
        self._schema = _schema(forms)
        # Times are numbers in the lines, and become times in the table.
        self._read_schema = _schema(
            {n: "int" if f == "time" else f for n, f in forms.items()}
        )
        self.unreadable = 0

    def tables(self, rows: BinaryIO) -> "Iterator[pyarrow.Table]":
        """Yield all rows of a file, in order."""
        while lines := list(islice(rows, BATCH_ROWS)):
            yield from self._read([x for x in lines if not x.startswith(_HEADER)])

    def _read(self, lines: list[bytes]) -> "Iterator[pyarrow.Table]":
        """Yield tables of lines, in halves where one cannot be read."""
        import pyarrow.json

        if not lines:
            return
        data = b"".join(lines)
        try:
            table = pyarrow.json.read_json(
                io.BytesIO(data),
                pyarrow.json.ReadOptions(use_threads=False, block_size=len(data) + 1),
                pyarrow.json.ParseOptions(
                    explicit_schema=self._read_schema,
                    unexpected_field_behavior="ignore",
                ),
            )
        except ValueError:
            if len(lines) == 1:
                self.unreadable += 1
                return
            half = len(lines) // 2
            yield from self._read(lines[:half])
            yield from self._read(lines[half:])
        else:
            yield table.select(self._schema.names).cast(self._schema)


def _row_line(row: dict[str, Value]) -> str:
    """Return the line of a row; floats that are not finite become null."""
    try:
        return msgspec.json.encode(row).decode() + "\n"
    except UnicodeEncodeError:  # a file name that is not UTF-8, as Parquet requires
        valid = {
            name: value.encode("utf-8", "surrogateescape").decode(errors="replace")
            if isinstance(value, str)
            else value
            for name, value in row.items()
        }
        return msgspec.json.encode(valid).decode() + "\n"


def _scan(rows: BinaryIO) -> tuple[set[str], int]:
    """Return the kinds of events and the number of rows in a file of rows."""
    kinds: set[str] = set()
    n_rows = 0
    for line in rows:
        if not line.startswith(_HEADER):
            n_rows += 1
            continue
        with suppress(JsonError):
            kinds.update(_headers.read(line).kinds)
    rows.seek(0)
    return kinds & set(KINDS.values()), n_rows


def _schema(forms: dict[str, Form]) -> "pyarrow.Schema":
    import pyarrow

    types: dict[Form, pyarrow.DataType] = {
        "int": pyarrow.int64(),
        "float": pyarrow.float64(),
        "bool": pyarrow.bool_(),
        "str": pyarrow.string(),
        "time": pyarrow.timestamp("ns", "UTC"),
    }
    return pyarrow.schema([(name, types[form]) for name, form in forms.items()])


def _event_schema(path: Path) -> "pyarrow.Schema | None":
    """Return the schema of a table that this sink has written; None: it is another.

    Such a table has the columns that all events have, and others of events only.
    """
    import pyarrow.parquet

    if not path.is_file():  # to open a pipe would wait for its writer
        return None
    try:
        schema = pyarrow.parquet.read_schema(path)
    except ValueError:
        return None
    except OSError as error:
        if error.errno is not None:  # the disk has failed, not the format
            raise
        return None
    required = _schema({c.name: c.form for c in columns_of(())})
    known = _schema({c.name: c.form for c in columns_of(KINDS.values())})
    fields = set(schema)
    return schema if set(required) <= fields <= set(known) else None


def _widened(rows: Any, schema: "pyarrow.Schema") -> "pyarrow.Table":
    """Return rows with all columns of a schema; those that they lack are null."""
    import pyarrow

    columns = [
        rows.column(name)
        if name in rows.schema.names
        else pyarrow.nulls(rows.num_rows, schema.field(name).type)
        for name in schema.names
    ]
    return pyarrow.table(columns, schema=schema)


def _identity(descriptor: int) -> FileIdentity:
    status = os.fstat(descriptor)
    return status.st_dev, status.st_ino


def _version_of(path: Path) -> tuple[int, int, int] | None:
    """Return a key that changes if a file is replaced; its inode may be used again."""
    if not path.exists():
        return None
    status = path.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
