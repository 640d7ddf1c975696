"""Comparison of the length in an audio file's header with the file's bytes.

A recorder that is killed never completes its header; one whose file exceeds 4 GiB
cannot; copies are cut. Every container is described by the same few facts, where the
sound begins and how much of it is stated, and judged by one rule. The decoder then
reads a view of the file whose header states what is there.
"""

import io
import os
import struct
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal, TypeAlias

from neurovocal.engine import AudioFileError
from neurovocal.plugins.sources.audio_files.chained import (
    ChainedSound,
    Link,
    links_of,
)
from neurovocal.plugins.sources.audio_files.compressed import (
    Compressed,
    examine_flac,
    examine_mp3,
    examine_ogg,
    flac_of_ogg,
    id3_length,
    starts_mp3,
)
from neurovocal.plugins.sources.audio_files.patched_file import (
    PatchedFile,
    Piece,
    replaced,
)

State: TypeAlias = Literal["complete", "unfinished", "cut"]

_KIB, _GIB4 = 1 << 10, 1 << 32
_MOST_32 = _GIB4 - (1 << 20)  # bytes of sound that a 32-bit size can state, with room
_MAX_CHUNKS = 256
_MAX_TEXT = 1 << 20
_RIFF = (b"RIFF", b"RF64", b"BW64")
_TAIL = 256 * _KIB
# Values of a 32-bit size that recorders write as long as they do not know it.
_UNKNOWN_32, _UNKNOWN_64 = 0x7FFFF000, 1 << 62
# Header bytes that programs count as sound by mistake.
_HEADER_ERRORS = (8, 36, 44)
_TAGS = (b"TAG", b"ID3", b"APETAGEX", b"LYRICSBEGIN", b"3DI")
_TRAILERS = {
    *(b"LIST", b"guan", b"bext", b"iXML", b"id3 ", b"ID3 ", b"wamd", b"axml", b"_PMX"),
    *(b"cue ", b"smpl", b"fact", b"PEAK", b"JUNK", b"afsp", b"inst", b"ANNO", b"NAME"),
    *(b"COMT", b"MARK", b"AUTH", b"(c) ", b"info", b"uuid", b"free"),
}
_W64_RIFF = bytes.fromhex("726966662e91cf11a5d628db04c10000")
_W64_CHUNK = "<4s12xQ"  # its size includes this header
_W64_TAIL = bytes.fromhex("f3acd3118cd100c04f8edb8a")
# Files that are no sound, or none that can be decoded, by their first bytes.
_SOUND = {
    (4, b"ftyp"): "an MPEG-4 file (AAC or ALAC)",
    (0, b"\x1a\x45\xdf\xa3"): "a Matroska or WebM file",
    (0, b"\x30\x26\xb2\x75"): "a Windows Media file",
    (0, b"#!AMR"): "an AMR file",
    (0, b"wvpk"): "a WavPack file",
    (0, b"MAC "): "a Monkey's Audio file",
    (0, b"TTA1"): "a True Audio file",
    (0, b"ADIF"): "an AAC file",
}
_NO_SOUND = {
    (0, b"PK\x03\x04"): "a ZIP archive",
    (0, b"%PDF"): "a PDF file",
    (0, b"\x89PNG"): "a picture",
    (0, b"\xff\xd8\xff"): "a picture",
    (0, b"<"): "a text file",
}


@dataclass(frozen=True, slots=True)
class Container:
    """Result of the comparison.

    Parameters
    ----------
    state : {'complete', 'unfinished', 'cut'}
        ``unfinished``: the header states less than there is, or nothing; all that is
        there can be read, and more may follow while the file is being written.
        ``cut``: the header states more than there is.
    pieces : tuple of Piece, optional
        View of the file that the decoder reads in place of the file.
    n_samples : int, optional
        Samples in the file where the comparison counts them (FLAC).
    sound : (int, int), optional
        Bytes ``[begin, end)`` of the sound in a container of chunks.
    links : sequence of (int, int)
        Bytes of complete files, one behind the other (Ogg); none if it is one.
    """

    state: State = "complete"
    pieces: tuple[Piece, ...] = ()
    n_samples: int | None = None
    sound: tuple[int, int] | None = None
    links: tuple[Link, ...] = ()

    def open(self, path: Path) -> Any:
        """Open the file for decoding; return a ``soundfile.SoundFile``, or the like.

        Raises
        ------
        OSError
            The file cannot be opened.
        soundfile.LibsndfileError
            The file cannot be decoded.
        """
        import soundfile

        if self.links:
            return ChainedSound(path, self.links)
        if not self.pieces:
            return soundfile.SoundFile(os.fsencode(path))
        return soundfile.SoundFile(PatchedFile(path, self.pieces))


@dataclass(slots=True)
class _Layout:
    """Place of the sound in a container of chunks, and fields that state its size.

    ``patches(n_bytes)`` returns the header's bytes for sound of that many bytes;
    ``endian`` and ``chunk_size`` describe the chunks behind the sound.
    """

    begin: int
    stated: int
    is_wide: bool  # the size has 64 bits
    patches: Callable[[int], list[tuple[int, bytes]]]
    chunk_head: str = ""  # struct format of a chunk's name and size; empty: none follow
    alignment: int = 2
    frame_bytes: int = 1
    wave_head: tuple[int, int] | None = None  # chunks of a RIFF file before its sound


def examine(path: Path) -> Container:
    """Compare the length in the header of an audio file with the file's bytes.

    Raises
    ------
    AudioFileError
        The file holds no sound that can be decoded.
    OSError
        The file cannot be read.
    """
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        head = file.read(16)
        skipped = id3_length(file)
        file.seek(skipped)
        magic = file.read(16) if skipped else head
        _refuse_foreign(path, magic)
        if magic[:4] == b"fLaC":
            return _container(examine_flac(file, size, skipped), size)
        if magic[:4] == b"OggS":
            return _examine_ogg(path, file, size)
        layout = _layout(file, head, size)
        if layout is not None:
            return _judge(file, layout, size)
        if starts_mp3(file, skipped, size):
            return _container(examine_mp3(file, size, skipped), size)
        if path.suffix.lower() == ".mp3":
            raise AudioFileError(f"'{path}' is no MP3 file: it holds no MPEG frames")
    return Container()


def _refuse_foreign(path: Path, head: bytes) -> None:
    """Raise AudioFileError if a file is known to be none that can be decoded."""

    def kind_in(known: dict[tuple[int, bytes], str]) -> str | None:
        return next(
            (k for (at, m), k in known.items() if head[at:].startswith(m)), None
        )

    if (kind := kind_in(_NO_SOUND)) is not None:
        raise AudioFileError(f"'{path}' is {kind}, no recording")
    kind = kind_in(_SOUND)
    if kind is None and len(head) > 1 and head[0] == 0xFF and head[1] & 0xF6 == 0xF0:
        kind = "an AAC file"
    if kind is not None:
        raise AudioFileError(
            f"'{path}' is {kind}, which cannot be read: convert it to WAV or FLAC"
        )


def _container(found: Compressed, size: int) -> Container:
    end = size if found.end is None else found.end
    if not found.patches and end == size:
        return Container(found.state, (), found.n_samples)
    pieces = replaced(end, found.patches)
    return Container(found.state, tuple(pieces), found.n_samples)


def _examine_ogg(path: Path, file: BinaryIO, size: int) -> Container:
    pieces = flac_of_ogg(file, size)
    if pieces is None:
        container = _container(examine_ogg(file, size), size)
        links = links_of(file, size)
        return container if len(links) == 1 else _chain(path, container, links)
    # FLAC in Ogg, without the pages around it, is a FLAC file.
    with io.BufferedReader(PatchedFile(path, pieces)) as view:
        length = view.seek(0, os.SEEK_END)
        found = examine_flac(view, length, 0)
    end = length if found.end is None else found.end
    return Container(
        found.state, tuple(_patched(pieces, found.patches, end)), found.n_samples
    )


def _chain(path: Path, container: Container, links: list[Link]) -> Container:
    """Return the container of a chain; it is cut where a link has another form."""
    with suppress(OSError, RuntimeError), ChainedSound(path, links) as sound:
        state = container.state if sound.is_whole else "cut"
        return Container(state, n_samples=sound.frames, links=tuple(links))
    return container


def _patched(
    pieces: list[Piece], patches: list[tuple[int, bytes]], end: int
) -> Iterator[Piece]:
    """Yield the pieces of a view, up to byte `end` and with bytes replaced."""
    outer = replaced(end, patches)
    for part in outer:
        if isinstance(part, bytes):
            yield part
            continue
        position = 0
        for piece in pieces:
            length = len(piece) if isinstance(piece, bytes) else piece[1] - piece[0]
            first, stop = max(part[0], position), min(part[1], position + length)
            if first < stop:
                if isinstance(piece, bytes):
                    yield piece[first - position : stop - position]
                else:
                    yield piece[0] + first - position, piece[0] + stop - position
            position += length


def riff_chunks(
    path: Path, container: Container, wanted: set[bytes]
) -> dict[bytes, bytes]:
    """Read the chunks of these names before and behind the sound of a RIFF file.

    Raises
    ------
    OSError
        The file cannot be read.
    """
    found: dict[bytes, bytes] = {}
    with path.open("rb") as file:
        if file.read(4) not in _RIFF or container.sound is None:
            return found
        begin, end = container.sound
        # Behind sound of odd length a byte is missing at times.
        for first, stop in ((12, begin - 8), (end, None), (end + 1, None)):
            at = first
            for _ in range(_MAX_CHUNKS):
                file.seek(at)
                head = file.read(8)
                if len(head) < 8 or not _is_name(head[:4]):
                    break
                if stop is not None and at >= stop:
                    break
                name, count = _chunk(head, "<4sI")
                if name in wanted:
                    found.setdefault(name, file.read(min(count, _MAX_TEXT)))
                at += 8 + count + count % 2
    return found


# ---- containers of chunks ----------------------------------------------------------


def _judge(file: BinaryIO, layout: _Layout, size: int) -> Container:
    """Compare the stated bytes of sound with those that are there."""
    begin, present = layout.begin, max(0, size - layout.begin)
    stated = layout.stated
    unknown = stated >= (_UNKNOWN_64 if layout.is_wide else _UNKNOWN_32)

    def result(state: State, length: int, *, as_stated: bool = False) -> Container:
        pieces = () if as_stated else _view(layout, length, size)
        return Container(state, pieces, None, (begin, begin + length))

    if stated > present:
        if not unknown and not _counts_header(layout, stated - present):
            return result("cut", present)
        length = _before_trailer(file, layout, size)
        return result("unfinished" if unknown else "complete", length)
    for length in _candidates(layout, stated, present):
        if _is_trailer(file, layout, begin + length, size):
            if length == stated:
                return result("complete", length, as_stated=True)
            return result("unfinished", length)
    return result("unfinished", _before_trailer(file, layout, size))


def _counts_header(layout: _Layout, missing: int) -> bool:
    """Return True if the stated size is that of the file, or off by such a mistake."""
    wrong = (layout.begin, layout.begin - 8, *_HEADER_ERRORS)
    return missing in wrong or missing < layout.frame_bytes or missing == 1


def _candidates(layout: _Layout, stated: int, present: int) -> Iterator[int]:
    """Yield the lengths that a size can mean: one of 32 bits may have wrapped."""
    yield stated
    if not layout.is_wide:
        yield from range(stated + _GIB4, present + 1, _GIB4)


def _is_trailer(file: BinaryIO, layout: _Layout, at: int, size: int) -> bool:
    """Return True if nothing but chunks, tags or padding stands behind the sound."""
    if size - at <= layout.alignment:
        return True
    for start in {at, -(-at // layout.alignment) * layout.alignment}:
        file.seek(start)
        head = file.read(32)
        if head.startswith(_TAGS):
            return True
        if not layout.chunk_head or not _is_name(head[:4]):
            continue
        length = struct.calcsize(layout.chunk_head)
        if len(head) < length:
            return True
        name, count = _chunk(head, layout.chunk_head)
        if name in _TRAILERS or start + length + count <= size:
            return True
    rest = size - at
    if rest > 64 * _KIB or at == layout.begin:
        return False
    file.seek(at)
    return not file.read(rest).strip(b"\0")


def _before_trailer(file: BinaryIO, layout: _Layout, size: int) -> int:
    """Return the bytes of sound up to the chunks at the end of a file, if any."""
    window = max(layout.begin, size - _TAIL)
    if layout.chunk_head:
        file.seek(window)
        tail = file.read(size - window)
        length = struct.calcsize(layout.chunk_head)
        found = sorted(
            at for name in _TRAILERS for at in _positions(tail, name) if at >= 0
        )
        for at in found:
            if _ends_exactly(tail, at, layout, length):
                return window + at - layout.begin
    return max(0, size - layout.begin)


def _positions(text: bytes, name: bytes) -> Iterator[int]:
    at = text.find(name)
    while at >= 0:
        yield at
        at = text.find(name, at + 1)


def _ends_exactly(tail: bytes, at: int, layout: _Layout, length: int) -> bool:
    """Return True if chunks lead from a byte exactly to the end."""
    for _ in range(_MAX_CHUNKS):
        head = tail[at : at + length]
        if len(head) < length or not _is_name(head[:4]):
            return False
        _, count = _chunk(head, layout.chunk_head)
        stop = at + length + count
        at = -(-stop // layout.alignment) * layout.alignment
        if len(tail) in (stop, at):
            return True
    return False


def _is_name(text: bytes) -> bool:
    return len(text) == 4 and all(32 <= byte < 127 for byte in text)


def _chunk(head: bytes, form: str) -> tuple[bytes, int]:
    name, count = struct.unpack(form, head[: struct.calcsize(form)])
    return name, max(0, count - 24) if form == _W64_CHUNK else count


def _view(layout: _Layout, length: int, size: int) -> tuple[Piece, ...]:
    """Return the pieces of a file with a header of `length` bytes of sound."""
    end = min(size, layout.begin + length)
    if layout.wave_head is not None and length >= _MOST_32:
        first, stop = layout.wave_head
        counts = struct.pack("<QQQI", length + stop, length, 0, 0)
        head = b"RF64\xff\xff\xff\xffWAVEds64" + struct.pack("<I", 28) + counts
        return (head, (first, stop), b"data\xff\xff\xff\xff", (layout.begin, end))
    return tuple(replaced(end, layout.patches(length)))


def _layout(file: BinaryIO, head: bytes, size: int) -> _Layout | None:
    """Return where the sound of a container lies; None if it is none of these."""
    magic = head[:4]
    if magic in (*_RIFF, b"RIFX") and head[8:12] == b"WAVE":
        return _riff(file, magic, size)
    if head == _W64_RIFF:
        return _w64(file)
    if magic == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
        return _aiff(file)
    if magic in (b".snd", b"dns."):
        return _au(file, magic)
    return _caf(file) if magic == b"caff" else None


def _riff(file: BinaryIO, magic: bytes, size: int) -> _Layout | None:
    end = ">" if magic == b"RIFX" else "<"
    wide_at, wide, frame = 0, 0, 1
    at = 12
    for _ in range(_MAX_CHUNKS):
        file.seek(at)
        head = file.read(8)
        if len(head) < 8:
            return None
        name, count = _chunk(head, f"{end}4sI")
        body = at + 8
        if name == b"ds64" and magic in (b"RF64", b"BW64"):
            content = file.read(16)
            if len(content) == 16:
                wide_at, wide = body, struct.unpack("<8xQ", content)[0]
        elif name == b"fmt ":
            content = file.read(14)
            if len(content) == 14:
                frame = max(1, struct.unpack(f"{end}12xH", content)[0])
        elif name == b"data":
            break
        at = body + count + count % 2
    else:
        return None
    uses_wide = wide_at > 0 and count == 0xFFFFFFFF
    size_at = at + 4

    def patches(n_bytes: int) -> list[tuple[int, bytes]]:
        total = body + n_bytes - 8
        if uses_wide:
            found = [(wide_at, struct.pack("<QQ", total, n_bytes))]
            samples = struct.pack("<Q", n_bytes // frame)
            found.append((wide_at + 16, samples))
            return [(0, b"RF64"), *found] if magic == b"BW64" else found
        if n_bytes >= _GIB4:
            return []
        return [
            (4, struct.pack(f"{end}I", min(total, 0xFFFFFFFF))),
            (size_at, struct.pack(f"{end}I", n_bytes)),
        ]

    return _Layout(
        body,
        wide if uses_wide else count,
        uses_wide,
        patches,
        f"{end}4sI",
        2,
        frame,
        (12, at) if magic == b"RIFF" else None,
    )


def _w64(file: BinaryIO) -> _Layout | None:
    at = 40
    for _ in range(_MAX_CHUNKS):
        file.seek(at)
        head = file.read(24)
        if len(head) < 24:
            return None
        name, count = struct.unpack("<16sQ", head)
        if name[:4] == b"data" and name[4:] == _W64_TAIL:
            break
        at += -(-min(max(24, count), _UNKNOWN_64) // 8) * 8
    else:
        return None
    begin = at + 24

    def patches(n_bytes: int) -> list[tuple[int, bytes]]:
        return [
            (16, struct.pack("<Q", begin + n_bytes)),
            (begin - 8, struct.pack("<Q", n_bytes + 24)),
        ]

    stated = count - 24 if count >= 24 else 0
    return _Layout(begin, stated, True, patches, _W64_CHUNK, 8)


def _aiff(file: BinaryIO) -> _Layout | None:
    at, frames_at, frame = 12, 0, 1
    for _ in range(_MAX_CHUNKS):
        file.seek(at)
        head = file.read(8)
        if len(head) < 8:
            return None
        name, count = _chunk(head, ">4sI")
        if name == b"COMM":
            content = file.read(8)
            if len(content) == 8:
                frames_at = at + 10
                channels, bits = struct.unpack(">H4xH", content)
                frame = max(1, channels * -(-bits // 8))
        elif name == b"SSND":
            break
        at += 8 + count + count % 2
    else:
        return None
    content = file.read(8)
    offset = struct.unpack(">I4x", content)[0] if len(content) == 8 else 0
    begin, size_at = at + 16 + offset, at + 4

    def patches(n_bytes: int) -> list[tuple[int, bytes]]:
        most = 0xFFFFFFFF
        found = [
            (4, struct.pack(">I", min(most, begin + n_bytes - 8))),
            (size_at, struct.pack(">I", min(most, n_bytes + 8 + offset))),
        ]
        if frames_at:
            found.append((frames_at, struct.pack(">I", min(most, n_bytes // frame))))
        return found

    # A size that was never filled in does not even hold its own two fields.
    stated = count - 8 - offset if count >= 8 + offset else 0
    return _Layout(begin, stated, False, patches, ">4sI", 2, frame)


def _au(file: BinaryIO, magic: bytes) -> _Layout | None:
    end = ">" if magic == b".snd" else "<"
    file.seek(4)
    head = file.read(8)
    if len(head) < 8:
        return None
    begin, count = struct.unpack(f"{end}II", head)

    def patches(n_bytes: int) -> list[tuple[int, bytes]]:
        return [(8, struct.pack(f"{end}I", min(n_bytes, 0xFFFFFFFF)))]

    return _Layout(begin, count, False, patches)


def _caf(file: BinaryIO) -> _Layout | None:
    at = 8
    for _ in range(_MAX_CHUNKS):
        file.seek(at)
        head = file.read(12)
        if len(head) < 12:
            return None
        name, count = _chunk(head, ">4sQ")
        if name == b"data":
            break
        at += 12 + min(count, _UNKNOWN_64)  # beyond the end of any file
    else:
        return None
    begin, size_at = at + 16, at + 4

    def patches(n_bytes: int) -> list[tuple[int, bytes]]:
        return [(size_at, struct.pack(">Q", n_bytes + 4))]

    stated = count - 4 if count >= 4 else 0
    return _Layout(begin, stated, True, patches, ">4sQ", 1)
