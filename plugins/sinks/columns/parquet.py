"""Rows as a Parquet file that no kill empties: by way of pyarrow, and of a file beside.

A Parquet file can be read only when its end is written. So each row goes at once, as a
line of JSON, into ``NAME.rows``; the Parquet file is made from there, group by group
while the run goes on, and gets its name when the run ends in order. What a killed run
has left in ``NAME.rows`` becomes part of the next one's table.
"""

import fcntl
import importlib.util
import io
import logging
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from errno import ESTALE
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from neurovocal.engine.contracts.errors import ConfigError, NeurovocalError, StageError
from neurovocal.engine.contracts.types import KINDS
from neurovocal.plugins.sinks.columns.rows import Form, Value, columns_of
from neurovocal.plugins.storage.folder import OutputFolder, identity_of
from neurovocal.plugins.storage.text_file import TextOutput

if TYPE_CHECKING:
    import pyarrow.parquet


# Rows of a row group: what is in memory while they are turned.
_GROUP = 10_000
_HEAD = b'{"kinds":'


class _Head(msgspec.Struct):
    """What every opening of a file of rows notes: which kinds of events follow."""

    kinds: list[str]


def head_line(kinds: Iterable[str]) -> str:
    """Line that begins the rows of one opening."""
    return msgspec.json.encode(_Head(sorted(kinds))).decode() + "\n"


def row_line(row: dict[str, Value]) -> str:
    """Line of one row; floats that are not finite are null."""
    try:
        return msgspec.json.encode(row).decode() + "\n"
    except UnicodeEncodeError:  # a file's name that is no UTF-8: Parquet has no other
        return (
            msgspec.json.encode({k: _utf8(v) for k, v in row.items()}).decode() + "\n"
        )


def is_whole(path: Path) -> bool:
    """Whether a file is a Parquet file that was finished."""
    import pyarrow.parquet

    try:
        pyarrow.parquet.read_metadata(path)
    except (ValueError, OSError):
        return False
    return True


class ParquetGroups:
    """A Parquet file that follows a file of rows, a group behind at most.

    Parameters
    ----------
    rows : Path
        Lines of rows; heads among them say which kinds of events, and so which
        columns, there are.
    part : Path
        Parquet file to write; what has its name is removed.

    Raises
    ------
    OSError
        A disk does not do what it should; any method may raise it.
    """

    def __init__(self, rows: Path, part: Path) -> None:
        self._part = part
        self._writer: pyarrow.parquet.ParquetWriter | None = None
        self._identity: tuple[int, int] | None = None
        self._unreadable = 0
        self._rows = rows.open("rb")
        kinds, self._waiting = _heads_in(self._rows)
        self._forms = {c.name: c.form for c in columns_of(kinds)}

    def note_row(self) -> None:
        """A row was added to the file of rows: write a group if there are enough.

        What a killed run has left is caught up with group by group.
        """
        self._waiting += 1
        if self._waiting >= _GROUP:
            self._write_group(list(islice(self._rows, _GROUP)))
            self._waiting -= _GROUP

    def finish(self) -> None:
        """Write all rows that wait, complete the file and bring it to the disk."""
        while lines := list(islice(self._rows, _GROUP)):
            self._write_group(lines)
        writer = self._opened()
        self._writer = None
        writer.close()
        descriptor = os.open(self._part, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if self._unreadable:
            log.warning(
                "'%s': %d lines were cut off and are left out",
                self._rows.name,
                self._unreadable,
            )

    def close(self) -> None:
        """Let go of both files; one that is not finished is removed."""
        self._rows.close()
        writer, self._writer = self._writer, None
        if writer is None:
            return
        with suppress(OSError):
            writer.close()
        if identity_of(self._part) == self._identity:
            with suppress(OSError):
                self._part.unlink()

    def _opened(self) -> "pyarrow.parquet.ParquetWriter":
        import pyarrow.parquet

        if self._writer is None:
            # Not written over: a sink that hangs may hold the file that was there.
            self._part.unlink(missing_ok=True)
            self._writer = pyarrow.parquet.ParquetWriter(self._part, self._schema(None))
            self._identity = identity_of(self._part)
        if identity_of(self._part) != self._identity:
            raise OSError(ESTALE, f"'{self._part.name}' was removed or replaced")
        return self._writer

    def _write_group(self, lines: list[bytes]) -> None:
        import pyarrow

        rows = [line for line in lines if not line.startswith(_HEAD)]
        tables = [table.cast(self._schema(None)) for table in self._read(rows)]
        if tables:
            self._opened().write_table(
                pyarrow.concat_tables(tables), row_group_size=_GROUP
            )

    def _read(self, lines: list[bytes]) -> Iterator[Any]:
        """Tables of lines; one that a kill or a loss of power cut off is left out."""
        import pyarrow.json

        if not lines:
            return
        data = b"".join(lines)
        try:
            table = pyarrow.json.read_json(
                io.BytesIO(data),
                pyarrow.json.ReadOptions(use_threads=False, block_size=len(data) + 1),
                pyarrow.json.ParseOptions(
                    explicit_schema=self._schema("int"),
                    unexpected_field_behavior="ignore",
                ),
            )
        except ValueError:
            if len(lines) == 1:
                self._unreadable += 1
                return
            half = len(lines) // 2
            yield from self._read(lines[:half])
            yield from self._read(lines[half:])
        else:
            yield table.select(list(self._forms))

    def _schema(self, time: Form | None) -> Any:
        """Columns of the table; times as something else where they are not known."""
        import pyarrow

        types: dict[Form, Any] = {
            "int": pyarrow.int64(),
            "float": pyarrow.float64(),
            "bool": pyarrow.bool_(),
            "str": pyarrow.string(),
            "time": pyarrow.timestamp("ns", "UTC"),
        }
        if time is not None:
            types["time"] = types[time]
        return pyarrow.schema([(name, types[f]) for name, f in self._forms.items()])


def _heads_in(rows: io.BufferedReader) -> tuple[set[str], int]:
    """Kinds of events in a file of rows, and its number of lines."""
    kinds: set[str] = set()
    number = 0
    for line in rows:
        number += 1
        if line.startswith(_HEAD):
            with suppress(msgspec.MsgspecError):
                kinds.update(msgspec.json.decode(line, type=_Head).kinds)
    rows.seek(0)
    return kinds & set(KINDS.values()), number


def _utf8(value: Value) -> Value:
    if not isinstance(value, str):
        return value
    return value.encode("utf-8", "surrogateescape").decode(errors="replace")


log = logging.getLogger("neurovocal")


def parquet_problems() -> Iterator[str]:
    """Yield a sentence if Parquet cannot be written here."""
    if importlib.util.find_spec("pyarrow") is None:
        yield "Parquet needs pyarrow: install neurovocal[parquet]"


def rows_path(path: str) -> Path:
    """Where the rows of a table wait until it is finished."""
    target = Path(path).expanduser()
    return target.with_name(f"{target.name}.rows")


class ParquetColumns:
    """A Parquet file that gets its name once it is complete.

    The file of rows is removed between the last byte of the table and its name, so that
    whoever finds one knows: with the file of rows there the table is to be made anew,
    without it the table is whole.

    Parameters
    ----------
    path : str
        File to write; one that exists is replaced. A further one of the same object is
        ``STEM-2.parquet``.
    kinds : iterable of str
        Kinds of events; they decide which columns there are.
    """

    def __init__(self, path: str, kinds: Iterable[str]) -> None:
        self._path = Path(path).expanduser()
        self._part = self._path.with_name(f".{self._path.name}.part")
        self._rows = rows_path(path)
        self._head = head_line(kinds)
        self._place = OutputFolder(self._path.parent)
        self._output = TextOutput(str(self._rows), existing="append", place=self._place)
        self._groups: ParquetGroups | None = None
        self._held: int | None = None  # descriptor of the file of rows, locked
        self._files = 0
        self._failed = False  # the last write: this is no end, the sink will go on

    def open(self) -> None:
        """Go on in the file of rows, whoever began it.

        Raises
        ------
        ConfigError
            It cannot be written.
        """
        try:
            self._place.enter()
            self._name_what_is_whole()
            self._held = self._hold_rows()
            self._output.open()
            self._output.write(self._head)
            self._groups = ParquetGroups(self._rows, self._part)
        except OSError as error:
            self._let_go()
            reason = error.strerror or str(error)
            raise ConfigError(f"'{self._path}' cannot be written: {reason}") from error
        except NeurovocalError:
            self._let_go()
            raise
        self._failed = False

    def write(self, row: dict[str, Value]) -> None:
        """Write a row where no kill takes it.

        Raises
        ------
        StageError
            The disk does not take it; nothing of it is in the file.
        """
        try:
            self._output.write(row_line(row))
        except StageError:
            self._failed = True
            raise
        self._failed = False
        if self._groups is None:
            return
        try:
            self._groups.note_row()
        except Exception as error:
            # The row is safe, and must not be given again: at the end the table is made
            # of all rows once more.
            log.warning("'%s' is made at the end: %s", self._path, error)
            self._groups.close()
            self._groups = None

    def flush(self) -> None:
        """Nothing: the operating system has every row."""
        self._output.flush()

    def close(self) -> None:
        """Finish the file, and give it its name, unless a write has just failed.

        Raises
        ------
        StageError
            The disk does not take it. The rows are kept for the next run.
        """
        if self._held is None:
            return
        try:
            self._output.close()
            if not self._failed:
                self._finish(self._held)
        except OSError as error:
            raise StageError(
                f"'{self._path}' cannot be written: {error.strerror or error}; its "
                f"rows are kept in '{self._rows.name}' for the next run's table"
            ) from error
        finally:
            self._let_go()

    def _finish(self, held: int) -> None:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.warning(
                "'%s' is left to another, who still writes rows of it", self._path
            )
            return
        except OSError:  # a file system without locks: nobody can tell
            pass
        if self._groups is None:
            self._groups = ParquetGroups(self._rows, self._part)
        self._groups.finish()
        if identity_of(self._rows) != _identity(held):
            raise OSError(ESTALE, self._place.lost(self._rows))
        self._rows.unlink()
        self._give_name()

    def _give_name(self) -> None:
        """One of this run is never replaced."""
        name = self._path
        if self._files:
            name = name.with_stem(f"{name.stem}-{self._files + 1}")
        self._part.replace(name)
        self._files += 1

    def _name_what_is_whole(self) -> None:
        """Do what a run that was killed at its very end could not do."""
        if not self._rows.exists() and self._part.exists():
            if is_whole(self._part):
                self._part.replace(self._path)
            else:
                self._part.unlink()

    def _hold_rows(self) -> int:
        """Hold the file of rows together with others who write it.

        There may be one in this process: a sink that hangs, and was replaced. Who is
        the last makes the table; while it does, nobody else begins.
        """
        while True:
            held = os.open(self._rows, os.O_RDWR | os.O_CREAT, 0o666)
            with suppress(OSError):  # a file system without locks
                fcntl.flock(held, fcntl.LOCK_SH)
            if identity_of(self._rows) == _identity(held):
                return held
            os.close(held)  # it was finished meanwhile

    def _let_go(self) -> None:
        if self._groups is not None:
            self._groups.close()
            self._groups = None
        held, self._held = self._held, None
        if held is not None:
            os.close(held)
        with suppress(NeurovocalError):
            self._output.close()


def _identity(descriptor: int) -> tuple[int, int]:
    status = os.fstat(descriptor)
    return status.st_dev, status.st_ino
