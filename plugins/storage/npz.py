"""Reading arrays that a bundle carries."""

from pathlib import Path
from typing import BinaryIO
from zipfile import ZipFile

import numpy as np

from neurovocal.engine.contracts.errors import BundleError
from neurovocal.engine.contracts.types import Float32

# What shipped bundles carry is a hundredth of it; a few hundred KB of zeros, packed,
# can stand for much more.
_MOST_BYTES = 256 * 2**20


def read_npz(path: Path, what: str, *required: str) -> dict[str, Float32]:
    """All arrays of an npz file, as float32; nothing in it is executed.

    Parameters
    ----------
    path : Path
        The file.
    what : str
        How errors call it, such as ``'scaling file'``.
    *required : str
        Names that must be in it.

    Raises
    ------
    BundleError
        The file is missing, damaged, not numeric, or lacks a required array.
    """
    try:
        # Opened here, because NumPy leaves a damaged file open.
        with path.open("rb") as stream:
            size = _unpacked(stream)
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


def _unpacked(stream: BinaryIO) -> int:
    """Bytes that reading all arrays takes; zipfile reads no more than is declared."""
    with ZipFile(stream) as archive:
        return sum(entry.file_size for entry in archive.infolist())
