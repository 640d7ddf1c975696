"""Rows as a Parquet file that no kill empties: by way of pyarrow, and of a file beside.

A Parquet file can be read only when its end is written. So each row goes at once, as a
line of JSON, into ``NAME.rows``; the Parquet file is made from there, group by group
while the run goes on, and gets its name when the run ends in order. What a killed run
has left in ``NAME.rows`` becomes part of the next one's table.
"""

import fcntl
import importlib.util
import logging
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from errno import ESTALE
from pathlib import Path

from neurovocal.engine.errors import ConfigError, NeurovocalError, StageError
from neurovocal.plugins._columns import Value
from neurovocal.plugins._output import TextOutput
from neurovocal.plugins._parquet_groups import (
    ParquetGroups,
    head_line,
    is_whole,
    row_line,
)
from neurovocal.plugins._place import Place, identity_of

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
        self._place = Place(self._path.parent)
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
