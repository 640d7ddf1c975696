"""Sound of a file that is a chain: complete files one behind the other.

The decoder reads the first link of a chain only, or refuses it. Recorders and servers
make chains of Ogg files where a recording goes on after a pause, and people make them
of all kinds by joining files.
"""

import io
import mmap
import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import IO, Any

from neurovocal.engine import Float32
from neurovocal.plugins.sources.audio_files.layouts import (
    RIFF,
    Layout,
    chunks_from,
    is_chunk_name,
    layout_of,
    lengths_of,
)
from neurovocal.plugins.sources.audio_files.patched_file import PatchedFile

# First page of a stream, up to the codec's own first bytes: one segment is in it.
_FIRST_PAGE = re.compile(
    rb"OggS\x00[\x02\x06].{8}.{8}.{4}\x01.(?:\x01vorbis|OpusHead|Speex   )", re.DOTALL
)

# First bytes of a container, the last of them behind a size.
_FIRST_BYTES = re.compile(
    rb"(?:RIFF|RF64|BW64|RIFX).{4}WAVE|FORM.{4}AIF[FC]|riff\x2e\x91\xcf\x11"
    rb"|caff\x00\x01\x00\x00|\.snd\x00\x00|fLaC\x00\x00\x00\x22",
    re.DOTALL,
)
_FLAC = b"fLaC\x00\x00\x00\x22"
_WAVE, _WAVE_AT = b"WAVEfmt ", 8
_MOST_LINKS = 10_000

Link = tuple[int, int]


def joined_files(path: Path, size: int, layout: Layout | None) -> list[Link]:
    """Return the bytes of each of several files that were joined; of one, if it is one.

    Parameters
    ----------
    path : Path
        A FLAC file or a container of chunks.
    size : int
        Its length in bytes.
    layout : Layout, optional
        Place of the sound in the first of them; None: it is FLAC.

    Raises
    ------
    OSError
        The file cannot be read.
    """
    begins = [0]
    while len(begins) < _MOST_LINKS:
        begin = begins[-1]
        with io.BufferedReader(PatchedFile(path, [(begin, size)])) as rest:
            if begin:
                layout = layout_of(rest, rest.read(16), size - begin)
            if layout is None:
                behind = _find(path, begin + len(_FLAC)) - begin
            else:
                behind = _behind_sound(rest, layout, size - begin)
        if behind <= 0:
            break
        begins.append(begin + behind)
    return list(pairwise([*begins, size]))


def _find(path: Path, at: int) -> int:
    """Return the first byte of a FLAC or WAV file from `at` on, or -1."""
    with (
        path.open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content,
    ):
        flac, wave = content.find(_FLAC, at), content.find(_WAVE, at) - _WAVE_AT
        if wave < 0 or content[wave : wave + 4] not in RIFF:
            return flac
        return wave if flac < 0 else min(flac, wave)


def _behind_sound(file: IO[bytes], layout: Layout, size: int) -> int:
    """Return the byte at which another file begins behind the sound, or 0."""
    present = size - layout.begin
    for length in lengths_of(layout, present):
        end = layout.begin + length
        if not 0 < length < present:
            continue
        for at in {end, end + -length % layout.alignment}:
            file.seek(at)
            if _FIRST_BYTES.match(file.read(16)):
                return at
            if not layout.chunk_head:
                continue
            for chunk in chunks_from(file, at, layout.chunk_head, layout.alignment):
                file.seek(chunk.at)
                if _FIRST_BYTES.match(file.read(16)):
                    return chunk.at
                if not is_chunk_name(chunk.name) or chunk.name in RIFF:
                    break
    return 0


def links_of(file: IO[bytes], size: int) -> list[Link]:
    """Return the bytes ``[begin, end)`` of each link, in order; one if it is no chain.

    Streams that are multiplexed, whose first pages follow each other, are one link.
    """
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        begins: list[int] = []
        end = 0  # of the last first page
        for found in _FIRST_PAGE.finditer(content):
            if not begins or found.start() != end:
                begins.append(found.start())
            end = found.end() - len(_body(found[0])) + found[0][27]
    return list(pairwise([*begins, size])) if len(begins) > 1 else [(0, size)]


def _body(page: bytes) -> bytes:
    """Return what the pattern has matched behind the page's header."""
    return page[28:]


class ChainedSound:
    """All links of a chain as one sound, as far as rate and channels stay the same.

    It has what `soundfile.SoundFile` has, as far as recordings are read by it, and
    ``is_whole``: False where links are left out.

    Parameters
    ----------
    path : Path
        The file.
    links : sequence of (int, int)
        Bytes of the links.
    """

    def __init__(self, path: Path, links: Sequence[Link]) -> None:
        self._path, self._links = path, list(links)
        self._index = self._position = 0
        self._file = self._opened(0)
        self.samplerate, self.channels = self._file.samplerate, self._file.channels
        self.comment, self.date = self._file.comment, self._file.date
        self._starts = [0]
        self.is_whole = all(self._append(index) for index in range(len(self._links)))

    @property
    def frames(self) -> int:
        """Samples of all links that are read."""
        return self._starts[-1]

    def read(self, n_samples: int, out: Float32) -> Float32:
        """Read samples into `out`; return those that were read."""
        n_read = 0
        while n_read < n_samples:
            left = self._starts[self._index + 1] - self._position
            if left <= 0:
                if self._index + 2 >= len(self._starts):
                    break
                self._open(self._index + 1)
                continue
            wanted = out[n_read : n_read + min(left, n_samples - n_read)]
            count = len(self._file.read(len(wanted), out=wanted))
            if not count:
                break
            n_read += count
            self._position += count
        return out[:n_read]

    def seek(self, sample: int) -> int:
        """Continue at a sample, and return it."""
        found = [i for i, start in enumerate(self._starts[:-1]) if start <= sample]
        self._open(found[-1])
        self._position = sample
        self._file.seek(sample - self._starts[found[-1]])
        return sample

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> "ChainedSound":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _append(self, index: int) -> bool:
        """Add the length of a link; return False if it cannot be read on with it."""
        import soundfile

        try:
            with self._opened(index) as file:
                if (file.samplerate, file.channels) != (self.samplerate, self.channels):
                    return False
                self._starts.append(self._starts[-1] + int(file.frames))
        except soundfile.LibsndfileError:  # it is cut off in its header
            return False
        return True

    def _open(self, index: int) -> None:
        self._file.close()
        self._file = self._opened(index)
        self._index, self._position = index, self._starts[index]

    def _opened(self, index: int) -> Any:
        import soundfile

        return soundfile.SoundFile(PatchedFile(self._path, [self._links[index]]))
