"""Frames that need not lie in memory: an hour of song is half a gigabyte of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from neurovocal.engine.contracts.types import Float32


class Rows(Protocol):
    """Frames float32[n_frames, n_bins], read where they are asked for.

    Arrays are such rows, too. A slice of rows is an array that is not to be written to.
    """

    @property
    def shape(self) -> tuple[int, ...]:
        """``(n_frames, n_bins)``."""
        ...

    def __len__(self) -> int:
        """Count frames."""
        ...

    def __getitem__(self, rows: slice, /) -> Float32:
        """Read consecutive frames."""
        ...


@dataclass(frozen=True, slots=True)
class StoredRows:
    """Frames in a ``.npy`` file.

    The file is mapped anew for every look, for pages that stay mapped would count as
    the process's own memory.

    Parameters
    ----------
    path : Path
    shape : (int, int)
        ``(n_frames, n_bins)``.
    """

    path: Path
    shape: tuple[int, ...]

    @classmethod
    def write(cls, path: Path, frames: Float32) -> "StoredRows":
        """Store frames; a file of that name is replaced."""
        np.save(path, np.ascontiguousarray(frames, np.float32), allow_pickle=False)
        return cls(path, frames.shape)

    def __len__(self) -> int:
        """Count frames."""
        return self.shape[0]

    def __getitem__(self, rows: slice, /) -> Float32:
        """Read consecutive frames, copied to memory."""
        mapped = np.lib.format.open_memmap(self.path, mode="r")
        return np.array(mapped[rows], np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class ClippedRows:
    """Some consecutive frames of `rows`, clipped to [0, 1] where they are read.

    Parameters
    ----------
    rows : Rows
    first, stop : int
        Which of them.
    """

    rows: Rows
    first: int
    stop: int

    @classmethod
    def of(cls, rows: Rows, first: int = 0, stop: int | None = None) -> "ClippedRows":
        """Frames ``rows[first:stop]``, as a slice names them."""
        return cls(rows, *slice(first, stop).indices(len(rows))[:2])

    @property
    def shape(self) -> tuple[int, ...]:
        """``(n_frames, n_bins)``."""
        return (len(self), self.rows.shape[1])

    def __len__(self) -> int:
        """Count frames."""
        return max(0, self.stop - self.first)

    def __getitem__(self, rows: slice, /) -> Float32:
        """Read consecutive frames, copied to memory."""
        first, stop, step = rows.indices(len(self))
        part = self.rows[slice(self.first + first, self.first + stop)]
        return np.clip(np.ascontiguousarray(part[::step], np.float32), 0.0, 1.0)


def spread_pieces(songs: Sequence[Rows], most: int, length: int) -> list[Rows]:
    """All songs, or, where they have too many frames, pieces spread evenly over them.

    Parameters
    ----------
    songs : sequence of Rows
        Clipped to [0, 1].
    most : int
        Frames that all pieces may have; a single piece may have more.
    length : int
        Frames of the longest piece. A song that is longer is cut.
    """
    pieces: list[Rows] = []
    for song in songs:
        if len(song) <= length:
            pieces.append(song)
            continue
        starts = range(0, len(song) - 1, length)
        pieces += [ClippedRows.of(song, first, first + length) for first in starts]
    share = most / max(1, sum(map(len, pieces)))
    if share >= 1:
        return pieces
    kept, n_kept, n_seen = [], 0, 0
    for piece in pieces:
        n_seen += len(piece)
        if n_kept + len(piece) <= share * n_seen:
            kept.append(piece)
            n_kept += len(piece)
    return kept or pieces[:1]


def mean_and_spread(songs: Sequence[Rows]) -> tuple[Float32, Float32]:
    """Mean and standard deviation of each bin over the frames of all songs.

    Returns
    -------
    mean, spread : float32[n_bins]
        The same to the last bit as of all frames in one array.
    """
    n = sum(len(song) for song in songs)
    mean = _total(songs, np.zeros(songs[0].shape[1], np.float32), squared=False) / n
    squares = _total(songs, mean.astype(np.float32), squared=True)
    return mean.astype(np.float32), np.sqrt(squares / n).astype(np.float32)


def _total(songs: Sequence[Rows], centre: Float32, *, squared: bool) -> Float32:
    total = np.zeros_like(centre)
    for song in songs:
        frames = song[:] - centre
        if squared:
            frames = np.square(frames)
        # Added up row by row: what came before is the first one.
        total = np.concatenate([total[None], frames]).sum(axis=0)
    return total
