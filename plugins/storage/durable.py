"""Files that survive a loss of power: written completely and synchronized."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from errno import EACCES, EINVAL, ENOTSUP
from pathlib import Path
from typing import BinaryIO

from neurovocal.engine.support.platform import sync_folder_names


@contextmanager
def durable_file(path: Path) -> Iterator[BinaryIO]:
    """Open a new binary file and bring it to the disk when the block ends.

    What has the name is removed first, not truncated: another program may still
    have it open. If the block or the disk fails, the new file is removed.

    Raises
    ------
    OSError
        The disk does not take the file.
    """
    with suppress(FileNotFoundError):
        os.unlink(path)
    file = path.open("xb")
    try:
        with file:
            yield file
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        remove_file(path)
        raise


def remove_file(path: Path) -> None:
    """Remove a file that may be gone, or out of reach, already."""
    with suppress(OSError):
        os.unlink(path)


def sync_folder(folder: Path) -> None:
    """Bring the names in a folder to the disk: new, renamed and removed files.

    Does nothing where the file system cannot synchronize folders, or where the folder
    may not be read.

    Raises
    ------
    OSError
        The disk fails.
    """
    try:
        sync_folder_names(folder)
    except OSError as error:
        if error.errno not in (EACCES, EINVAL, ENOTSUP):
            raise
