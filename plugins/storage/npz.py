"""Arrays of a bundle, read from npz files with a bound on their size."""

import math
import zipfile
from pathlib import Path
from typing import IO, Any
from zipfile import ZipFile

import numpy as np

from neurovocal.engine import BundleError, Float32

# Of all arrays of a file together, in the file and in memory. Shipped bundles have a
# hundredth of it; a compressed file of a few hundred KB can hold far more.
_MOST_BYTES = 256 * 2**20
_MOST_ARRAYS = 100
_MOST_AXES = 8


def read_npz(path: Path, what: str, *required: str) -> dict[str, Float32]:
    """Return all arrays of an npz file as float32; no pickled object is loaded.

    Sizes are bounded before anything is allocated, by the directory of the file and
    by the header of each array.

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
        with path.open("rb") as stream, ZipFile(stream) as archive:
            arrays = _read_arrays(archive)
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


def _read_arrays(archive: ZipFile) -> dict[str, Float32]:
    entries = archive.infolist()
    if len(entries) > _MOST_ARRAYS:
        raise ValueError(f"{len(entries)} arrays: {_MOST_ARRAYS} is the most")
    size = sum(entry.file_size for entry in entries)
    if size > _MOST_BYTES:
        raise ValueError(f"{size} bytes unpacked: {_MOST_BYTES} is the most")
    arrays: dict[str, Float32] = {}
    left = _MOST_BYTES // 4  # values
    for entry in entries:
        name = entry.filename.removesuffix(".npy")
        if name in arrays:
            raise ValueError(f"two arrays are named '{name}'")
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ValueError(f"'{name}' is compressed in another way than deflate")
        with archive.open(entry) as stream:
            arrays[name] = _read_array(stream, entry.file_size, name, left)
        left -= arrays[name].size
    return arrays


def _read_array(stream: IO[bytes], size: int, name: str, most: int) -> Float32:
    """Read an array of at most `most` values from an entry of `size` bytes."""
    version = np.lib.format.read_magic(stream)
    read_header: Any = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }[version]
    shape, is_fortran, dtype = read_header(stream)
    if dtype.kind not in "fiu" or dtype.itemsize > 8:
        raise ValueError(f"'{name}' holds {dtype}, not numbers")
    if len(shape) > _MOST_AXES or min(shape, default=0) < 0:
        raise ValueError(f"'{name}' has the shape {shape}")
    count = math.prod(shape)
    if count > most:
        raise ValueError(f"'{name}' has {count} values: {most} is the most here")
    length = count * dtype.itemsize
    content = stream.read(length) if length <= size else b""
    if len(content) < length:
        raise ValueError(f"'{name}' ends too early")
    if stream.read(1):  # and the checksum is compared
        raise ValueError(f"'{name}' is longer than its shape {shape}")
    values = np.frombuffer(content, dtype).reshape(
        shape, order="F" if is_fortran else "C"
    )
    return np.array(values, dtype=np.float32, order="C")
