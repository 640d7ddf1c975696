"""Lines of rows, as they wait in a file, turned into groups of a Parquet file."""

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

from neurovocal.engine.types import KINDS
from neurovocal.plugins._columns import Form, Value, columns_of
from neurovocal.plugins._place import identity_of

if TYPE_CHECKING:
    import pyarrow.parquet

log = logging.getLogger("neurovocal")

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
