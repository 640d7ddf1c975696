"""Where a sink keeps its files: one folder, on the disk on which it first was."""

import itertools
import logging
import os
import re
from contextlib import suppress
from errno import ENODEV, ENOENT
from pathlib import Path
from urllib.parse import quote

log = logging.getLogger("neurovocal")


class OutputFolder:
    """A folder that may be deleted, or whose disk may be taken away, at any time.

    A folder that was deleted is made again. One whose disk is gone is not: what
    is left of a disk is an empty folder on the disk below, which nobody looks
    after, and which the engine must not fill.

    Parameters
    ----------
    folder : Path
        The folder.
    make : bool
        Whether to make it the first time, too, if it does not exist.

    Attributes
    ----------
    remade : int
        How often it was found deleted.
    """

    def __init__(self, folder: Path, *, make: bool = False) -> None:
        self.folder = folder
        self.remade = 0
        self._make = make
        self._mount: Path | None = None  # where its disk is mounted

    def enter(self) -> None:
        """Make sure of the folder; call it before a file in it is opened.

        Raises
        ------
        OSError
            Its ``strerror`` is a clause that says why nothing can be written: the
            disk is gone, or the folder does not exist and cannot be made.
        """
        if self._mount is None:
            if self._make:
                self.folder.mkdir(parents=True, exist_ok=True)
            elif not self.folder.is_dir():
                raise OSError(ENOENT, f"folder '{self.folder}' does not exist")
            self._mount = _mount_of(self.folder.resolve())
            return
        self.require_disk()
        if not self.folder.is_dir():
            self.folder.mkdir(parents=True, exist_ok=True)
            self.remade += 1
            log.warning("folder '%s' was deleted and is made again", self.folder)

    def probe(self) -> None:
        """Make sure of the folder, and that a file can be made in it.

        Raises
        ------
        OSError
            As `enter`, or the folder takes no files.
        """
        self.enter()
        probe = self.folder / ".probe"
        probe.touch()
        probe.unlink()

    def require_disk(self) -> None:
        """Raise OSError if the disk on which the folder was is mounted no more."""
        if self._mount is not None and not _is_mount(self._mount):
            raise OSError(ENODEV, f"the disk at '{self._mount}' is no longer mounted")

    def lost(self, path: Path) -> str:
        """Clause that says why a file of ours is not there, or not ours, any more."""
        try:
            self.require_disk()
            if not self.folder.is_dir():
                return f"folder '{self.folder}' was deleted while it was written"
            path.stat()
        except FileNotFoundError:
            pass
        except OSError as error:
            return str(error.strerror)
        return f"'{path.name}' was removed or replaced while it was written"


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


def set_aside(*paths: Path) -> str:
    """Give files that belong together names under which nothing is written any more.

    ``NAME.wav`` becomes ``NAME.1.left.wav``, or another number if one of these names
    is taken; the first of the new names is returned. Files may be gone.
    """
    numbers = itertools.count(1)
    free = (n for n in numbers if not any(_left(path, n).exists() for path in paths))
    number = next(free)
    for path in paths:
        with suppress(FileNotFoundError):
            path.rename(_left(path, number))
    return _left(paths[0], number).name


def is_set_aside(path: Path) -> bool:
    """Whether a file's name is one that `set_aside` gives."""
    return re.search(r"\.\d+\.left$", path.stem) is not None


def track_name(stream: str) -> str:
    """File name, without its ending, that a stream is recorded under."""
    name = quote(stream, safe=" ")
    # '.' and '..' are folders, and quoting leaves them as they are.
    return name if name.strip(".") else name.replace(".", "%2E") or "%"


def write_all(descriptor: int, data: bytes | memoryview, offset: int) -> None:
    """Write all bytes at an offset; OSError when the disk takes fewer."""
    rest = memoryview(data)
    while rest:
        count = os.pwrite(descriptor, rest, offset)
        rest, offset = rest[count:], offset + count


def _left(path: Path, number: int) -> Path:
    return path.with_name(f"{path.stem}.{number}.left{path.suffix}")


def _mount_of(folder: Path) -> Path:
    return next(p for p in (folder, *folder.parents) if _is_mount(p))


def _is_mount(folder: Path) -> bool:
    """Whether another disk begins here; as `os.path.ismount`, but it may raise."""
    try:
        own, above = os.lstat(folder), os.lstat(folder.parent)
    except FileNotFoundError:
        return False
    return own.st_dev != above.st_dev or folder == folder.parent
