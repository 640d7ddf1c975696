"""Read-only view of a file with some of its bytes replaced."""

import io
import os
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, TypeAlias

# Bytes that stand in the view themselves, or an interval [start, stop) of the file.
Piece: TypeAlias = bytes | tuple[int, int]


class PatchedFile(io.RawIOBase):
    """Concatenation of byte strings and of parts of a file.

    Parameters
    ----------
    path : Path
        The file.
    pieces : sequence of bytes or (int, int)
        Byte strings, and intervals ``[start, stop)`` of the file, in their order.

    Raises
    ------
    OSError
        The file cannot be opened.
    """

    def __init__(self, path: Path, pieces: Sequence[Piece]) -> None:
        super().__init__()
        self._pieces = [piece for piece in pieces if _length(piece)]
        self._stops = list(accumulate(_length(piece) for piece in self._pieces))
        self._position = 0
        self._file = path.open("rb")

    @property
    def size(self) -> int:
        """Length of the view in bytes."""
        return self._stops[-1] if self._stops else 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the position in bytes."""
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to a byte and return the position."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self.size}
        self._position = max(0, base[whence] + offset)
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer; return the number of bytes, fewer at the end only."""
        target = memoryview(buffer).cast("B")
        done = 0
        while done < len(target) and self._position < self.size:
            index = bisect_right(self._stops, self._position)
            piece, stop = self._pieces[index], self._stops[index]
            count = min(len(target) - done, stop - self._position)
            at = self._position - (stop - _length(piece))
            if isinstance(piece, bytes):
                part = piece[at : at + count]
            else:
                self._file.seek(piece[0] + at)
                part = self._file.read(count)
                if not part:
                    break
            target[done : done + len(part)] = part
            done += len(part)
            self._position += len(part)
        return done

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        super().close()


def replaced(size: int, patches: Sequence[tuple[int, bytes]]) -> list[Piece]:
    """Return the pieces of a file of `size` bytes with bytes replaced at offsets."""
    pieces: list[Piece] = []
    position = 0
    for offset, content in sorted(patches):
        pieces += [(position, offset), content]
        position = offset + len(content)
    return [*pieces, (position, size)]


def _length(piece: Piece) -> int:
    return len(piece) if isinstance(piece, bytes) else piece[1] - piece[0]
