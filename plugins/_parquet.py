"""Rows as a Parquet file, by way of pyarrow."""

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neurovocal.engine.errors import ConfigError, StageError
from neurovocal.plugins._columns import Column, Form, Value

if TYPE_CHECKING:
    import pyarrow.parquet

# Rows of a row group: what is kept in memory.
_GROUP = 10_000


def parquet_problems() -> Iterator[str]:
    """Yield a sentence if Parquet cannot be written here."""
    if importlib.util.find_spec("pyarrow") is None:
        yield "Parquet needs pyarrow: install neurovocal[parquet]"


class ParquetColumns:
    """A Parquet file that is complete once it is closed.

    Parameters
    ----------
    path : str
        File to write; one that exists is replaced.
    columns : list of Column
    """

    def __init__(self, path: str, columns: list[Column]) -> None:
        self._path = Path(path).expanduser()
        self._columns = columns
        self._rows: list[dict[str, Value]] = []
        self._schema: Any = None
        self._writer: pyarrow.parquet.ParquetWriter | None = None

    def open(self) -> None:
        """Open the file.

        Raises
        ------
        ConfigError
            It cannot be written.
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
            self._writer = pyarrow.parquet.ParquetWriter(self._path, self._schema)
        except OSError as error:
            raise ConfigError(f"'{self._path}' cannot be written: {error}") from error

    def write(self, row: dict[str, Value]) -> None:
        """Take a row; a full group is written."""
        self._rows.append(row)
        if len(self._rows) >= _GROUP:
            self._write_group()

    def flush(self) -> None:
        """Nothing: small row groups would make a slow file."""

    def close(self) -> None:
        """Write what waits, and the index without which the file cannot be read."""
        writer = self._writer
        if writer is None:
            return
        if self._rows:
            self._write_group()
        self._writer = None
        writer.close()

    def _write_group(self) -> None:
        import pyarrow

        if self._writer is None:
            raise StageError(f"'{self._path}' is not open")
        batch = pyarrow.RecordBatch.from_pylist(self._rows, schema=self._schema)
        try:
            self._writer.write_batch(batch)
        except OSError as error:
            raise StageError(f"'{self._path}' cannot be written: {error}") from error
        self._rows.clear()
