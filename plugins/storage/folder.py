"""Output folder of a sink, and the names and identities of the files in it."""

import itertools
import logging
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from errno import ENODEV, ENOENT, ESTALE
from pathlib import Path
from tempfile import mkstemp
from urllib.parse import quote

from neurovocal.engine import ConfigError, FileAccess
from neurovocal.engine.support.names import at_home, beside, bounded_name, resolved
from neurovocal.engine.support.outputs import folder_problem
from neurovocal.engine.support.platform import write_at
from neurovocal.engine.support.text import plain_name
from neurovocal.plugins.storage.file_lock import FileIdentity, FileLock

log = logging.getLogger("neurovocal")


class OutputFolder:
    """Output folder of a sink, which may be deleted or unmounted during a run.

    A folder that was deleted is made again. A folder whose disk was unmounted is not:
    its path now belongs to the disk below, which the engine must not fill.

    Parameters
    ----------
    folder : Path
        Path of the folder.
    make : bool
        Whether the folder is made if it does not exist when it is first used.

    Attributes
    ----------
    remade : int
        Number of times that the folder was found deleted.
    """

    def __init__(self, folder: Path, *, make: bool = False) -> None:
        self.folder = folder
        self.remade = 0
        self._make = make
        self._mount: Path | None = None  # mount point of its disk
        self._lock: FileLock | None = None  # while the folder is open

    def ensure(self) -> None:
        """Make the folder if it is missing; call it before a file in it is opened.

        Raises
        ------
        OSError
            The disk is unmounted, or the folder does not exist and cannot be made; its
            ``strerror`` says which.
        """
        if self._mount is None:
            if self._make:
                self.folder.mkdir(parents=True, exist_ok=True)
            elif not self.folder.is_dir():
                raise OSError(ENOENT, f"folder '{self.folder}' does not exist")
            self._mount = _mount_of(resolved(self.folder))
            return
        self.require_mounted()
        if not self.folder.is_dir():
            self.folder.mkdir(parents=True, exist_ok=True)
            self.remade += 1
            if self._lock is not None:
                with suppress(ConfigError):
                    self._lock.acquire(self.folder)
            log.warning("folder '%s' was deleted and is made again", self.folder)

    def ensure_writable(self) -> None:
        """Make the folder if it is missing, and make and remove a file in it.

        Raises
        ------
        OSError
            As `ensure`, or no file can be made in the folder.
        """
        self.ensure()
        descriptor, probe = mkstemp(prefix=".probe-", dir=self.folder)
        os.close(descriptor)
        os.unlink(probe)

    def open(self, content: str) -> None:
        """Make sure that files can be written to the folder, and lock it.

        Parameters
        ----------
        content : str
            Plural noun for the files, for the error.

        Raises
        ------
        ConfigError
            The folder cannot be made or written to, or another process writes to it.
        """
        try:
            self.ensure_writable()
        except OSError as error:
            raise ConfigError(
                f"{content} cannot be written to '{self.folder}': {error.strerror}"
            ) from error
        self._lock = self._lock or FileLock()
        self._lock.acquire(self.folder)

    def close(self) -> None:
        """Release the lock that `open` has acquired. May be called twice."""
        if self._lock is not None:
            self._lock.release()

    def require_mounted(self) -> None:
        """Raise OSError if the disk of the folder is no longer mounted."""
        if self._mount is not None and not _is_mount(self._mount):
            raise OSError(ENODEV, f"the disk at '{self._mount}' is no longer mounted")

    def require_same(self, path: Path, identity: FileIdentity | None) -> None:
        """Raise OSError if an open file of the folder was removed or replaced.

        Parameters
        ----------
        path : Path
            Path of the file.
        identity : FileIdentity or None
            Identity of the file that is open.
        """
        if identity_of(path) != identity:
            raise OSError(ESTALE, self._reason_of_loss(path))

    def _reason_of_loss(self, path: Path) -> str:
        try:
            self.require_mounted()
            if not self.folder.is_dir():
                return f"folder '{self.folder}' was deleted while it was written"
            path.stat()
        except FileNotFoundError:
            pass
        except OSError as error:
            return str(error.strerror)
        return f"'{path.name}' was removed or replaced while it was written"


def identity_of(path: Path) -> FileIdentity | None:
    """Return device and inode of a file, which differ if the file was replaced.

    A file that is removed while it is open still takes what is written, and it is
    lost; compare before each write. None: there is no file.
    """
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def set_aside(*paths: Path) -> str:
    """Rename files that belong together, so that new ones can have their names.

    ``NAME.wav`` becomes ``NAME.1.left.wav``, or the next number that is free for all of
    them; the first of the new names is returned. Files may be missing.
    """
    numbers = itertools.count(1)
    free = (n for n in numbers if not any(_left(path, n).exists() for path in paths))
    number = next(free)
    for path in paths:
        with suppress(FileNotFoundError):
            path.rename(_left(path, number))
    return _left(paths[0], number).name


def is_set_aside(path: Path) -> bool:
    """Return True if a file has a name that `set_aside` gives."""
    return re.search(r"\.\d+\.left$", path.stem) is not None


def stream_file_name(stream: str) -> str:
    """Return the file name, without suffix, of a stream: quoted like a URL, bounded."""
    name = quote(plain_name(stream), safe=" ")
    # '.' and '..' are folders, and quoting leaves them as they are.
    name = name if name.strip(".") else name.replace(".", "%2E") or "%"
    return bounded_name(name)


def pwrite_all(descriptor: int, data: bytes | memoryview, offset: int) -> None:
    """Write all bytes at an offset; raise OSError if the disk takes fewer."""
    rest = memoryview(data)
    while rest:
        count = write_at(descriptor, rest, offset)
        rest, offset = rest[count:], offset + count


def folder_problems(path: str) -> Iterator[str]:
    """Yield a sentence if a folder cannot be made or written to; make nothing."""
    if not path:
        yield "an output needs a name: this one is empty"
    elif (problem := folder_problem(at_home(path))) is not None:
        yield f"folder '{path}' cannot be written: {problem}"


def folder_claim(path: str) -> frozenset[str]:
    """Return the resource name by which two stages that share a folder are found."""
    return frozenset({f"folder:{resolved(at_home(path))}"})


def folder_access(path: str, *patterns: str) -> list[FileAccess]:
    """Return the files that a sink writes into a folder, as patterns of names."""
    return [FileAccess(at_home(path), patterns)]


def _left(path: Path, number: int) -> Path:
    return beside(path, middle=f".{number}.left")


def _mount_of(folder: Path) -> Path:
    return next(p for p in (folder, *folder.parents) if _is_mount(p))


def _is_mount(folder: Path) -> bool:
    """Return True for a mount point; as `os.path.ismount`, but it may raise OSError."""
    try:
        own, above = os.lstat(folder), os.lstat(folder.parent)
    except FileNotFoundError:
        return False
    return own.st_dev != above.st_dev or folder == folder.parent
