"""Text output of sinks: a file or standard output, written line by line."""

import logging
import os
import stat
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal, TextIO, TypeAlias

from neurovocal.engine import BuildContext, ConfigError, FileAccess, StageError
from neurovocal.engine.support.names import at_home, resolved
from neurovocal.engine.support.platform import OPEN_BINARY
from neurovocal.engine.support.text import escaped
from neurovocal.plugins.storage.existing import FileKind
from neurovocal.plugins.storage.file_lock import FileIdentity, FileLock
from neurovocal.plugins.storage.folder import OutputFolder, set_aside

log = logging.getLogger("neurovocal")

STDOUT = "-"

# What a sink does with a file that exists when it opens it for the first time.
Existing: TypeAlias = Literal["replace", "append", "set aside"]


def existing_policy(context: BuildContext, *, append: bool = False) -> Existing:
    """Return the policy for an existing file: data that no run repeats stay."""
    if append or context.replaces_failed:
        return "append"
    return "set aside" if context.unrepeatable else "replace"


def output_problems(path: str, kind: FileKind | None = None) -> Iterator[str]:
    """Yield a sentence if a file may not be written; open nothing.

    Parameters
    ----------
    path : str
        File name; ``-`` is standard output.
    kind : FileKind, optional
        Kind of file that is written: an existing file of another kind must stay.
    """
    if path == STDOUT:
        return
    if not path:
        yield "an output needs a name: this one is empty"
        return
    target = at_home(path)
    folder = target.parent
    if not folder.is_dir():
        yield f"'{path}' cannot be written: {_missing(folder)}"
    elif resolved(target).is_symlink():
        yield f"'{path}' cannot be written: the link leads to itself"
    elif target.is_dir():
        yield f"'{path}' cannot be written: it is a folder"
    elif not os.access(target if target.exists() else folder, os.W_OK):
        yield f"'{path}' cannot be written: permission denied"
    elif _is_stdout(target):
        return  # what has been printed is no file of before
    elif kind is not None and (problem := kind.problem(target)) is not None:
        yield problem


def _missing(folder: Path) -> str:
    """Return why nothing can be written below a path that is no folder."""
    there = (path for path in (folder, *folder.parents) if os.path.lexists(path))
    if (existing := next(there, None)) is None or existing.is_dir():
        return f"folder '{folder}' does not exist"
    return f"'{existing}' is no folder"


def file_claim(path: str) -> frozenset[str]:
    """Return the resource name by which two stages that write one file are found."""
    if path == STDOUT or _is_stdout(at_home(path)):
        return frozenset({"stdout"})
    return frozenset({f"file:{resolved(at_home(path))}"})


def file_access(*paths: str | Path) -> list[FileAccess]:
    """Return the files that an output writes; standard output is none."""
    named = [path for path in paths if path != STDOUT]
    return [FileAccess(at_home(path)) for path in named]


def _is_stdout(path: Path) -> bool:
    """Return True if a path leads to the file or pipe that standard output is."""
    try:
        status = os.fstat(sys.stdout.fileno())
        same = os.path.samestat(path.stat(), status)
    except (OSError, ValueError):
        return False
    return same and not os.path.samefile(path, os.devnull)


class TextOutput:
    """A text file or standard output; each line reaches the operating system at once.

    A killed run thus leaves all its lines. File names in them that are not UTF-8 are
    written as their bytes.

    Parameters
    ----------
    path : str
        File name; ``-`` is standard output.
    existing : {'replace', 'append', 'set aside'}
        What happens to an existing file at the first `open`. Each further `open`
        appends: a sink is opened again after a failure, and keeps what it wrote.
    folder : OutputFolder, optional
        Folder of the file, if several files share it.
    kind : FileKind, optional
        Kind of the file: an existing file of another kind is refused.
    locks : bool
        Whether a file that another process writes is refused.
    """

    def __init__(
        self,
        path: str,
        *,
        existing: Existing = "replace",
        folder: OutputFolder | None = None,
        kind: FileKind | None = None,
        locks: bool = True,
    ) -> None:
        self.path = path
        self._kind = kind
        self._lock = FileLock() if locks else None
        self._target = at_home(path)
        self._folder = folder or OutputFolder(self._target.parent)
        self._existing: Existing = existing
        self._file: TextIO | None = None  # standard output
        self._descriptor: int | None = None
        self._identity: FileIdentity | None = None
        # Length of all complete lines; None for a pipe or a device.
        self._length: int | None = None

    def open(self) -> bool:
        """Open the file.

        Returns
        -------
        bool
            True at the beginning of the file, where a heading belongs.

        Raises
        ------
        ConfigError
            The file cannot be written, another process writes it, or an existing file
            is of another kind.
        """
        begins = self._existing != "append"
        if self.path == STDOUT:
            self._file = sys.stdout
            self._existing = "append"
            return begins
        try:
            self._folder.ensure()
            self._refuse_other_file()
            if self._existing == "set aside":
                self._set_aside()
            begins = self._open_file()
        except ConfigError:
            self.close()
            raise
        except OSError as error:
            self.close()
            raise ConfigError(
                f"'{self.path}' cannot be written: {error.strerror}"
            ) from error
        self._existing = "append"
        return begins

    def write(self, line: str) -> None:
        """Write a line that ends with a line feed, as a whole or not at all.

        Raises
        ------
        StageError
            The line cannot be written.
        BrokenPipeError
            The reader of standard output has closed it.
        """
        if self._file is not None:
            with self._stage_errors():
                text = line.encode("utf-8", "surrogateescape").decode(errors="replace")
                encoding = self._file.encoding or "utf-8"
                text = escaped(text, kept="\t\r\n")  # it may be a terminal
                text = text.encode(encoding, "backslashreplace").decode(encoding)
                self._file.write(text)
                self._file.flush()
            return
        if self._descriptor is None:
            raise StageError(f"'{self.path}' is not open")
        with self._stage_errors():
            self._folder.require_same(self._target, self._identity)
            self._write_line(line.encode("utf-8", "surrogateescape"))

    def flush(self) -> None:
        """Flush standard output; raise as `write` does."""
        if self._file is not None:
            with self._stage_errors():
                self._file.flush()

    def commit(self) -> None:
        """Bring all lines to the disk; raise as `write` does."""
        if self._descriptor is not None and self._length is not None:
            with self._stage_errors():
                os.fsync(self._descriptor)

    def close(self) -> None:
        """Close the file; standard output stays open for others."""
        if self._lock is not None:
            self._lock.release()
        descriptor, self._descriptor, self._file = self._descriptor, None, None
        if descriptor is not None:
            with self._stage_errors():
                os.close(descriptor)

    def _acquire_lock(self) -> None:
        if self._lock is not None:
            self._lock.acquire(self._target)

    def _refuse_other_file(self) -> None:
        """Raise ConfigError if the file is not this output's to write."""
        self._acquire_lock()
        if self._identity is not None or self._kind is None:
            return
        if (problem := self._kind.problem(self._target)) is not None:
            raise ConfigError(problem)

    def _set_aside(self) -> None:
        """Rename the file of an earlier run, unless it is empty or a device."""
        path = resolved(self._target)
        if path.is_file() and path.stat().st_size:
            log.warning("'%s' of an earlier run is now '%s'", path, set_aside(path))

    def _open_file(self) -> bool:
        begins = self._existing != "append"
        how = os.O_WRONLY | os.O_CREAT | os.O_APPEND | OPEN_BINARY
        self._descriptor = os.open(self._target, how, 0o666)
        self._acquire_lock()
        if begins and stat.S_ISREG(os.fstat(self._descriptor).st_mode):
            os.ftruncate(self._descriptor, 0)
        status = os.fstat(self._descriptor)
        identity = (status.st_dev, status.st_ino)
        if not stat.S_ISREG(status.st_mode):
            self._length = None
        else:
            if identity == self._identity and self._length is not None:
                if status.st_size < self._length:
                    lost = self._length - status.st_size
                    log.warning("'%s': the disk has lost %d bytes", self.path, lost)
                # A full disk may have taken a part of the last line.
                os.ftruncate(self._descriptor, min(self._length, status.st_size))
            self._length = os.fstat(self._descriptor).st_size
            begins = self._length == 0
            self._end_line()
        self._identity = identity
        return begins

    def _end_line(self) -> None:
        """End a line that a loss of power cut off: the next one must stay readable."""
        if not self._length:
            return
        try:
            with self._target.open("rb") as file:
                file.seek(-1, os.SEEK_END)
                is_cut = file.read() != b"\n"
        except OSError:  # the file may be written, but not read
            return
        if is_cut:
            self._write_line(b"\n")

    def _write_line(self, data: bytes) -> None:
        assert self._descriptor is not None
        rest = data
        try:
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
        except OSError:
            if self._length is not None:
                with suppress(OSError):  # the next `open` truncates it
                    os.ftruncate(self._descriptor, self._length)
            raise
        if self._length is not None:
            self._length += len(data)

    @contextmanager
    def _stage_errors(self) -> Iterator[None]:
        try:
            yield
        except BrokenPipeError:
            raise
        except OSError as error:
            raise StageError(
                f"'{self.path}' cannot be written: {error.strerror}"
            ) from error


class TextTable:
    """Base of tables in a text file: a heading, then a line for each row.

    Parameters
    ----------
    path : str
        File name; ``-`` is standard output.
    existing : {'replace', 'append', 'set aside'}
        What happens to an existing file, see `TextOutput`.
    kind : FileKind, optional
        Kind of the file, see `TextOutput`.
    """

    heading: Sequence[str] = ()

    def __init__(
        self, path: str, existing: Existing = "replace", kind: FileKind | None = None
    ) -> None:
        self._output = TextOutput(path, existing=existing, kind=kind)

    def open(self) -> None:
        """Open the file, and write the heading at its beginning.

        Raises
        ------
        ConfigError
            The file cannot be written.
        """
        if self._output.open() and self.heading:
            self._write_cells(self.heading)

    def flush(self) -> None:
        """Hand all lines to the operating system."""
        self._output.flush()

    def commit(self) -> None:
        """Bring all lines to the disk."""
        self._output.commit()

    def close(self) -> None:
        """Close the file."""
        self._output.close()

    def _write_cells(self, cells: Sequence[str]) -> None:
        """Write the cells of a row as a line."""
        self._output.write("\t".join(cells) + "\n")
