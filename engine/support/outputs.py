"""Output files that are written whole: complete under their name, or not there."""

import os
import stat
from contextlib import suppress
from errno import ELOOP, ENOENT
from pathlib import Path

from neurovocal.engine.support.names import beside, resolved


def followed(path: Path) -> Path:
    """Return the path of the file that a link leads to, which may be missing.

    Raises
    ------
    OSError
        The name is empty, or the link leads to itself.
    """
    if not str(path) or path == Path():
        raise OSError(ENOENT, "the name is empty", str(path))
    target = resolved(path)
    if target.is_symlink():
        raise OSError(ELOOP, "the link leads to itself", str(path))
    return target


def folder_problem(folder: Path) -> str | None:
    """Return why a folder cannot be made or written to; None if it can."""
    paths = (folder, *folder.absolute().parents)
    existing = next(path for path in paths if os.path.lexists(path))
    if not existing.exists():
        return f"'{existing}' is a link that leads nowhere"
    if not existing.is_dir():
        return f"'{existing}' is a file"
    if not os.access(existing, os.W_OK | os.X_OK):
        return "permission denied"
    return None


def write_whole(path: Path, content: bytes) -> None:
    """Write a file under a temporary name, bring it to the disk, then rename it.

    A link is followed, so that it stays; other names of the file keep the old content.
    A pipe or device is no file to be replaced: it is written to.

    Raises
    ------
    OSError
        The disk does not take the file; what was there before is unchanged.
    """
    target = followed(path)
    if target.exists() and not stat.S_ISREG(target.stat().st_mode):
        with target.open("wb") as stream:
            stream.write(content)
        return
    temporary = beside(target, before=".", after=".new")
    with suppress(FileNotFoundError):
        os.unlink(temporary)
    try:
        with temporary.open("xb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(target)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise
