"""Frames in memory or in files, read in slices.

An hour of song takes half a gigabyte of frames.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from neurovocal.engine.contracts.types import Float32
from neurovocal.models.toolkit.files import writing


class Rows(Protocol):
    """Frames float32[n_frames, n_bins] that are read when they are sliced.

    A NumPy array satisfies this protocol. The array that a slice returns must not be
    written to.
    """

    @property
    def shape(self) -> tuple[int, ...]:
        """``(n_frames, n_bins)``."""
        ...

    def __len__(self) -> int:
        """Return the number of frames."""
        ...

    def __getitem__(self, rows: slice, /) -> Float32:
        """Read consecutive frames as float32[n, n_bins]."""
        ...


@dataclass(frozen=True, slots=True)
class StoredRows:
    """Frames in a ``.npy`` file, which is mapped for each read.

    Pages that stayed mapped would count as memory of the process.

    Parameters
    ----------
    path : Path
        File of the frames.
    shape : (int, int)
        ``(n_frames, n_bins)``.
    """

    path: Path
    shape: tuple[int, ...]

    @classmethod
    def write(cls, path: Path, frames: Float32) -> "StoredRows":
        """Write frames to a file, which is replaced if it exists.

        Raises
        ------
        DiskError
            The disk does not take them.
        """
        stored = np.ascontiguousarray(frames, np.float32)
        layout = np.lib.format.header_data_from_array_1_0(stored)
        # Not np.save, which does not say why a disk takes nothing more.
        with writing(path), path.open("wb") as stream:
            np.lib.format.write_array_header_1_0(stream, layout)
            stream.write(stored.reshape(-1).view(np.uint8).data)
        return cls(path, frames.shape)

    def __len__(self) -> int:
        """Return the number of frames."""
        return self.shape[0]

    def __getitem__(self, rows: slice, /) -> Float32:
        """Read a copy of consecutive frames."""
        mapped = np.lib.format.open_memmap(self.path, mode="r")
        return np.array(mapped[rows], np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class ClippedRows:
    """Consecutive frames of `rows`, clipped to [0, 1] when they are read.

    Parameters
    ----------
    rows : Rows
        Frames to read from.
    first, stop : int
        Range of frames, ``[first, stop)``.
    """

    rows: Rows
    first: int
    stop: int

    @classmethod
    def select(
        cls, rows: Rows, first: int = 0, stop: int | None = None
    ) -> "ClippedRows":
        """Select ``rows[first:stop]``; negative indices count from the end."""
        return cls(rows, *slice(first, stop).indices(len(rows))[:2])

    @property
    def shape(self) -> tuple[int, ...]:
        """``(n_frames, n_bins)``."""
        return (len(self), self.rows.shape[1])

    def __len__(self) -> int:
        """Return the number of frames."""
        return max(0, self.stop - self.first)

    def __getitem__(self, rows: slice, /) -> Float32:
        """Read a copy of consecutive frames."""
        first, stop, step = rows.indices(len(self))
        part = self.rows[slice(self.first + first, self.first + stop)]
        return np.clip(np.ascontiguousarray(part[::step], np.float32), 0.0, 1.0)


def spread_pieces(
    songs: Sequence[Rows], max_frames: int, max_length: int
) -> list[Rows]:
    """Cut songs into pieces and keep evenly spread ones, up to `max_frames` in all.

    Parameters
    ----------
    songs : sequence of Rows
        Songs, clipped to [0, 1].
    max_frames : int
        Frames of all pieces together; a single piece may exceed it.
    max_length : int
        Frames of the longest piece; longer songs are cut.
    """
    pieces: list[Rows] = []
    for song in songs:
        if len(song) <= max_length:
            pieces.append(song)
            continue
        starts = range(0, len(song) - 1, max_length)
        pieces += [
            ClippedRows.select(song, first, first + max_length) for first in starts
        ]
    share = max_frames / max(1, sum(map(len, pieces)))
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
    """Return mean and standard deviation of each bin over all frames of all songs.

    Returns
    -------
    mean, spread : float32[n_bins]
        Bit-identical to the result for one array of all frames.
    """
    n = sum(len(song) for song in songs)
    mean = _total(songs, np.zeros(songs[0].shape[1], np.float32), squared=False) / n
    squares = _total(songs, mean.astype(np.float32), squared=True)
    return mean.astype(np.float32), np.sqrt(squares / n).astype(np.float32)


def _total(songs: Sequence[Rows], centre: Float32, *, squared: bool) -> Float32:
    """Add up the frames less `centre`, or their squares."""
    total = np.zeros_like(centre)
    for song in songs:
        frames = song[:] - centre
        if squared:
            frames = np.square(frames)
        # The total so far is the first row: the order of additions stays the same.
        total = np.concatenate([total[None], frames]).sum(axis=0)
    return total
