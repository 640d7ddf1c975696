"""Arrays of a bundle, read from npz files with a bound on their size."""

from pathlib import Path
from typing import BinaryIO
from zipfile import ZipFile

import numpy as np

from neurovocal.engine import BundleError, Float32

# Shipped bundles have a hundredth of it; a compressed file of a few hundred KB can hold
# far more.
_MOST_BYTES = 256 * 2**20


def read_npz(path: Path, what: str, *required: str) -> dict[str, Float32]:
    """Return all arrays of an npz file as float32; no pickled object is loaded.

    Parameters
    ----------
    path : Path
        Path of the file.
    what : str
        Noun for the file in errors, such as ``'scaling file'``.
    *required : str
        Names of arrays that the file must have.

    Raises
    ------
    BundleError
        The file is missing, damaged, not numeric, or lacks a required array.
    """
    try:
        # Opened here, because NumPy leaves a damaged file open.
        with path.open("rb") as stream:
            size = _unpacked_size(stream)
        if size > _MOST_BYTES:
            raise ValueError(f"{size} bytes unpacked: {_MOST_BYTES} is the most")
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as npz:
            arrays = {
                name: np.ascontiguousarray(npz[name], dtype=np.float32)
                for name in npz.files
            }
    except FileNotFoundError as error:
        raise BundleError(f"{what} '{path}' does not exist") from error
    except Exception as error:  # OSError, zipfile, zlib, NumPy: all mean damage
        reason = " ".join(str(error).split())
        raise BundleError(
            f"{what} '{path}' cannot be read as an npz file ({reason})"
        ) from error
    missing = [name for name in required if name not in arrays]
    if missing:
        raise BundleError(f"{what} '{path}' holds no '{missing[0]}'")
    return arrays


def _unpacked_size(stream: BinaryIO) -> int:
    """Return the size of all arrays in bytes; zipfile reads no more than declared."""
    with ZipFile(stream) as archive:
        return sum(entry.file_size for entry in archive.infolist())
