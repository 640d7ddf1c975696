"""Rows as a Parquet file, by way of pyarrow."""

import importlib.util
from collections.abc import Iterator
from contextlib import suppress
from errno import ESTALE
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neurovocal.engine.errors import ConfigError, StageError
from neurovocal.plugins._columns import Column, Form, Value
from neurovocal.plugins._place import Place, identity_of

if TYPE_CHECKING:
    import pyarrow.parquet

# Rows of a row group: what is kept in memory.
_GROUP = 10_000


def parquet_problems() -> Iterator[str]:
    """Yield a sentence if Parquet cannot be written here."""
    if importlib.util.find_spec("pyarrow") is None:
        yield "Parquet needs pyarrow: install neurovocal[parquet]"


class ParquetColumns:
    """A Parquet file that gets its name once it is complete.

    Rows wait in memory until there are enough for a group; the groups wait in a file
    of another name, beside, until the file is closed. A disk that fails takes that
    file with it: its rows are counted as lost, and what comes then goes into another.

    Parameters
    ----------
    path : str
        File to write; one that exists is replaced. A further one of the same run, after
        a failure, is ``STEM-2.parquet``.
    columns : list of Column

    Attributes
    ----------
    lost : int
        Rows in files that could not be finished.
    """

    def __init__(self, path: str, columns: list[Column]) -> None:
        self._path = Path(path).expanduser()
        self._part = self._path.with_name(f".{self._path.name}.part")
        self._place = Place(self._path.parent)
        self._columns = columns
        self._rows: list[dict[str, Value]] = []
        self._schema: Any = None
        self._writer: pyarrow.parquet.ParquetWriter | None = None
        self._identity: tuple[int, int] | None = None
        self._files = self._grouped = self.lost = 0
        self._is_open = self._out_of_reach = False

    def open(self) -> None:
        """Try whether files can be made there.

        Raises
        ------
        ConfigError
            They cannot.
        """
        import pyarrow
        import pyarrow.parquet

        forms: dict[Form, Any] = {
            "int": pyarrow.int64(),
            "float": pyarrow.float64(),
            "bool": pyarrow.bool_(),
            "str": pyarrow.string(),
            "time": pyarrow.timestamp("ns", "UTC"),
        }
        self._schema = pyarrow.schema([(c.name, forms[c.form]) for c in self._columns])
        try:
            self._place.enter()
            self._adopt()
            self._part.write_bytes(b"?")
            self._part.unlink()
        except OSError as error:
            raise ConfigError(
                f"'{self._path}' cannot be written: {error.strerror}"
            ) from error
        self._is_open = True

    def write(self, row: dict[str, Value]) -> None:
        """Take a row; a full group is written.

        Raises
        ------
        StageError
            The disk does not take the group. Its rows are kept, but for this one.
        """
        if not self._is_open:
            raise StageError(f"'{self._path}' is not open")
        self._rows.append(row)
        if len(self._rows) < _GROUP:
            return
        try:
            self._write_group()
        except OSError as error:
            self._rows.pop()  # whoever gave it knows that it was not taken
            raise self._failure(error) from error
        self._grouped += len(self._rows)
        self._rows.clear()

    def flush(self) -> None:
        """Nothing: small row groups would make a slow file."""

    def close(self) -> None:
        """Write what waits, finish the file, and give it its name.

        Raises
        ------
        StageError
            The disk does not take it. Rows that wait are kept for the next file.
        """
        if not self._is_open:
            return
        self._is_open = False
        try:
            self._finish()
        except OSError as error:
            raise self._failure(error) from error

    def _finish(self) -> None:
        if self._rows or not (self._files or self._out_of_reach):
            self._write_group()
        if self._writer is None:
            return
        self._require_part()
        writer, self._writer = self._writer, None
        writer.close()
        self._part.replace(self._name())
        self._files += 1
        self._grouped = 0
        self._rows.clear()

    def _name(self) -> Path:
        """The next file's: one of this run is never replaced."""
        if not self._files:
            return self._path
        return self._path.with_stem(f"{self._path.stem}-{self._files + 1}")

    def _write_group(self) -> None:
        import pyarrow
        import pyarrow.parquet

        if self._writer is None:
            self._place.enter()
            self._adopt()
            self._writer = pyarrow.parquet.ParquetWriter(self._part, self._schema)
            self._identity = identity_of(self._part)
        self._require_part()
        batch = pyarrow.RecordBatch.from_pylist(self._rows, schema=self._schema)
        self._writer.write_batch(batch)

    def _require_part(self) -> None:
        if identity_of(self._part) != self._identity:
            raise OSError(ESTALE, self._place.lost(self._part))

    def _failure(self, error: OSError) -> StageError:
        """Let go of the file that is being written; the sentence of why."""
        writer, self._writer = self._writer, None
        if writer is not None:
            with suppress(OSError):
                writer.close()
                # Out of reach it is whole; one that took half a group is not.
                self._out_of_reach = error.errno == ESTALE
        if not self._out_of_reach:
            self._lose()
        reason = error.strerror or str(error)
        return StageError(f"'{self._path}' cannot be written: {reason}")

    def _adopt(self) -> None:
        """Name the file that a failure has put out of reach, if it is there again."""
        if not self._out_of_reach:
            return
        with suppress(FileNotFoundError):
            self._part.stat()  # it may still be out of reach
        if identity_of(self._part) == self._identity:
            self._part.replace(self._name())
            self._files += 1
            self._grouped = 0
        else:
            self._lose()
        self._out_of_reach = False

    def _lose(self) -> None:
        self.lost += self._grouped
        self._grouped = 0
        with suppress(OSError):
            self._part.unlink(missing_ok=True)
