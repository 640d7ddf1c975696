"""Reading arrays that a bundle carries."""

from pathlib import Path

import numpy as np

from neurovocal.engine.errors import BundleError
from neurovocal.engine.types import Float32


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
