"""Where sinks write text: a file, line by line, or standard output."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from neurovocal.engine.errors import ConfigError, StageError

STDOUT = "-"


def output_problems(path: str) -> Iterator[str]:
    """Yield a sentence if a file can surely not be written; opens nothing."""
    if path == STDOUT:
        return
    target = Path(path).expanduser()
    folder = target.parent
    if not folder.is_dir():
        yield f"'{path}' cannot be written: folder '{folder}' does not exist"
    elif target.is_dir():
        yield f"'{path}' cannot be written: it is a folder"
    elif not os.access(target if target.exists() else folder, os.W_OK):
        yield f"'{path}' cannot be written: permission denied"


def claim(path: str) -> frozenset[str]:
    """Name under which two stages that write the same file are found out."""
    if path == STDOUT:
        return frozenset({"stdout"})
    return frozenset({f"file:{Path(path).expanduser().resolve()}"})


def identity_of(path: Path) -> tuple[int, int] | None:
    """What tells a file from another of the same name; None: there is none.

    A file that is removed while it is open goes on taking what nobody will ever
    read: whoever writes for months must notice.
    """
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


class TextOutput:
    """A text file or standard output; every line is handed on at once.

    An interrupted run thus leaves all rows so far. Names of files that are no
    UTF-8 are written as the bytes that they are.

    Parameters
    ----------
    path : str
        File name; ``-`` is standard output.
    append : bool
        Whether to go on behind what the file holds. Whoever opens the same
        output once more goes on in any case: a sink is opened again when it has
        failed, and what it wrote before must stay.
    """

    def __init__(self, path: str, *, append: bool = False) -> None:
        self.path = path
        self._append = append
        self._file: TextIO | None = None
        self._identity: tuple[int, int] | None = None
        self._failed = False

    def open(self) -> bool:
        """Open the file.

        Returns
        -------
        bool
            Whether this is its beginning, where a heading belongs.

        Raises
        ------
        ConfigError
            It cannot be written.
        """
        self._failed = False
        begins = not self._append
        if self.path == STDOUT:
            self._file = sys.stdout
            self._append = True
            return begins
        try:
            self._file = (
                Path(self.path)
                .expanduser()
                .open(
                    "a" if self._append else "w",
                    buffering=1,
                    encoding="utf-8",
                    errors="surrogateescape",
                    newline="",
                )
            )
        except OSError as error:
            raise ConfigError(
                f"'{self.path}' cannot be written: {error.strerror}"
            ) from error
        self._append = True
        self._identity = identity_of(Path(self.path).expanduser())
        return begins

    def write(self, line: str) -> None:
        """Write a line, its end included.

        Raises
        ------
        StageError
            The file cannot take it.
        BrokenPipeError
            Whoever read standard output has gone.
        """
        if self._file is None:
            raise StageError(f"'{self.path}' is not open")
        if self.path == STDOUT:
            line = line.encode("utf-8", "surrogateescape").decode(errors="replace")
        elif identity_of(Path(self.path).expanduser()) != self._identity:
            self._failed = True
            raise StageError(
                f"'{self.path}' was removed or replaced while it was written"
            )
        with self._sentences():
            self._file.write(line)
            if self.path == STDOUT:
                self._file.flush()

    def flush(self) -> None:
        """Hand everything to the operating system; raises as `write` does."""
        if self._file is not None:
            with self._sentences():
                self._file.flush()

    def close(self) -> None:
        """Close the file; standard output stays open for others."""
        file, self._file = self._file, None
        if file is None or self.path == STDOUT:
            return
        said = self._failed
        try:
            with self._sentences():
                file.close()
        except StageError:
            if not said:
                raise

    @contextmanager
    def _sentences(self) -> Iterator[None]:
        try:
            yield
        except BrokenPipeError:
            raise
        except OSError as error:
            self._failed = True
            raise StageError(
                f"'{self.path}' cannot be written: {error.strerror}"
            ) from error
