"""Files that a training or measurement writes: complete on the disk, or not there."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from errno import EDQUOT, ENOSPC
from pathlib import Path
from typing import Any

import numpy as np

from neurovocal.engine.contracts.errors import NeurovocalError
from neurovocal.engine.support.outputs import write_whole


class DiskError(NeurovocalError):
    """A file cannot be written; the exit code is that of a failure at run time."""


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Raise DiskError with the name of a file, where writing it fails.

    Parameters
    ----------
    path : Path
        File or folder that the user knows; not a temporary name.
    """
    try:
        yield
    except OSError as error:
        raise DiskError(f"'{path}' cannot be written: {reason_of(error)}") from error


def reason_of(error: OSError) -> str:
    """Return why a file cannot be read or written, in words."""
    if error.errno in (ENOSPC, EDQUOT):
        return f"the disk is full ({error.strerror})"
    return error.strerror or "input or output failed"


def write_file(path: Path, content: bytes) -> None:
    """Write a file as `write_whole` does: completely, or not at all.

    Raises
    ------
    DiskError
        The disk does not take the file; what was there before is unchanged.
    """
    with writing(path):
        write_whole(path, content)


def write_npz(path: Path, arrays: dict[str, Any], *, compressed: bool = True) -> None:
    """Write arrays to an npz file, as `write_file`."""
    # In memory first: NumPy reports a full disk in several exceptions at once.
    stream = io.BytesIO()
    save = np.savez_compressed if compressed else np.savez
    save(stream, allow_pickle=False, **arrays)
    write_file(path, stream.getvalue())
