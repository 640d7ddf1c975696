"""Where sinks write text: a file, line by line, or standard output."""

import logging
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal, TextIO, TypeAlias

from neurovocal.engine.contracts.errors import ConfigError, StageError
from neurovocal.engine.contracts.plugin import BuildContext
from neurovocal.plugins.storage.folder import OutputFolder, identity_of, set_aside

log = logging.getLogger("neurovocal")

STDOUT = "-"

# What becomes of a file that is there when a sink first opens it.
Existing: TypeAlias = Literal["replace", "append", "set aside"]


def on_existing(context: BuildContext, *, append: bool = False) -> Existing:
    """What becomes of the file: what cannot be had again must stay."""
    if append or context.replaces_failed:
        return "append"
    return "set aside" if context.unrepeatable else "replace"


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


def folder_problems(path: str) -> Iterator[str]:
    """The same for a folder, which is made with those above it if it is not there."""
    folder = Path(path).expanduser()
    there = next(p for p in (folder, *folder.absolute().parents) if p.exists())
    if not there.is_dir():
        yield f"folder '{path}' cannot be written: '{there}' is a file"
    elif not os.access(there, os.W_OK | os.X_OK):
        yield f"folder '{path}' cannot be written: permission denied"


def claim(path: str) -> frozenset[str]:
    """Name under which two stages that write the same file are found out."""
    if path == STDOUT:
        return frozenset({"stdout"})
    return frozenset({f"file:{Path(path).expanduser().resolve()}"})


class TextOutput:
    """A text file or standard output; every line is handed on at once.

    An interrupted run thus leaves all rows so far. Names of files that are no
    UTF-8 are written as the bytes that they are.

    Parameters
    ----------
    path : str
        File name; ``-`` is standard output.
    existing : {'replace', 'append', 'set aside'}
        What becomes of a file that is there. Whoever opens the same output once
        more goes on behind it in any case: a sink is opened again when it has
        failed, and what it wrote before must stay.
    place : Place, optional
        The folder, where several files share it.
    """

    def __init__(
        self,
        path: str,
        *,
        existing: Existing = "replace",
        place: OutputFolder | None = None,
    ) -> None:
        self.path = path
        self._target = Path(path).expanduser()
        self._place = place or OutputFolder(self._target.parent)
        self._existing: Existing = existing
        self._file: TextIO | None = None  # standard output
        self._descriptor: int | None = None
        self._identity: tuple[int, int] | None = None
        # Length of what was written whole; None where there is no such thing, as
        # in a pipe.
        self._whole: int | None = None

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
        begins = self._existing != "append"
        if self.path == STDOUT:
            self._file = sys.stdout
            self._existing = "append"
            return begins
        try:
            self._place.enter()
            if self._existing == "set aside":
                self._set_aside()
            begins = self._open_file()
        except OSError as error:
            self.close()
            raise ConfigError(
                f"'{self.path}' cannot be written: {error.strerror}"
            ) from error
        self._existing = "append"
        return begins

    def write(self, line: str) -> None:
        """Write a line, its end included, or nothing.

        Raises
        ------
        StageError
            The file cannot take it.
        BrokenPipeError
            Whoever read the output has gone.
        """
        if self._file is not None:
            with self._sentences():
                text = line.encode("utf-8", "surrogateescape")
                self._file.write(text.decode(errors="replace"))
                self._file.flush()
            return
        if self._descriptor is None:
            raise StageError(f"'{self.path}' is not open")
        if identity_of(self._target) != self._identity:
            raise StageError(
                f"'{self.path}' cannot be written: {self._place.lost(self._target)}"
            )
        with self._sentences():
            self._write_whole(line.encode("utf-8", "surrogateescape"))

    def flush(self) -> None:
        """Hand everything to the operating system; raises as `write` does."""
        if self._file is not None:
            with self._sentences():
                self._file.flush()

    def close(self) -> None:
        """Close the file; standard output stays open for others."""
        descriptor, self._descriptor, self._file = self._descriptor, None, None
        if descriptor is not None:
            with self._sentences():
                os.close(descriptor)

    def _set_aside(self) -> None:
        """Keep what an earlier run wrote; a device or an empty file is nothing."""
        path = self._target.resolve()
        if path.is_file() and path.stat().st_size:
            log.warning("'%s' of an earlier run is now '%s'", path, set_aside(path))

    def _open_file(self) -> bool:
        begins = self._existing != "append"
        how = os.O_WRONLY | os.O_CREAT | os.O_APPEND | (os.O_TRUNC if begins else 0)
        self._descriptor = os.open(self._target, how, 0o666)
        status = os.fstat(self._descriptor)
        identity = (status.st_dev, status.st_ino)
        if not stat.S_ISREG(status.st_mode):
            self._whole = None
        else:
            if identity == self._identity and self._whole is not None:
                if status.st_size < self._whole:
                    lost = self._whole - status.st_size
                    log.warning("'%s': the disk has lost %d bytes", self.path, lost)
                # What a full disk took of a line that it could not take whole.
                os.ftruncate(self._descriptor, min(self._whole, status.st_size))
            self._whole = os.fstat(self._descriptor).st_size
            begins = self._whole == 0
            self._end_line()
        self._identity = identity
        return begins

    def _end_line(self) -> None:
        """End a line that a loss of power cut off: it must not spoil the next one."""
        if not self._whole:
            return
        try:
            with self._target.open("rb") as file:
                file.seek(-1, os.SEEK_END)
                cut = file.read() != b"\n"
        except OSError:  # it may be written, but not read: nobody can tell
            return
        if cut:
            self._write_whole(b"\n")

    def _write_whole(self, data: bytes) -> None:
        assert self._descriptor is not None
        rest = data
        try:
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
        except OSError:
            if self._whole is not None:
                with suppress(OSError):  # then it is done when it is opened again
                    os.ftruncate(self._descriptor, self._whole)
            raise
        if self._whole is not None:
            self._whole += len(data)

    @contextmanager
    def _sentences(self) -> Iterator[None]:
        try:
            yield
        except BrokenPipeError:
            raise
        except OSError as error:
            raise StageError(
                f"'{self.path}' cannot be written: {error.strerror}"
            ) from error
