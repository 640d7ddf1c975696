"""Place of the sound in containers of chunks: WAV, RF64, W64, AIFF, AU, CAF."""

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO, NamedTuple

from neurovocal.plugins.sources.audio_files.patched_file import Piece

RIFF = (b"RIFF", b"RF64", b"BW64")
MAX_CHUNKS = 256
_GIB4 = 1 << 32
# Values of a size of 64 bits from this on are beyond the end of any file.
UNKNOWN_64 = 1 << 62
# Chunks that stand behind sound.
TRAILERS = {
    *(b"LIST", b"guan", b"bext", b"iXML", b"id3 ", b"ID3 ", b"wamd", b"axml", b"_PMX"),
    *(b"cue ", b"smpl", b"fact", b"PEAK", b"JUNK", b"afsp", b"inst", b"ANNO", b"NAME"),
    *(b"COMT", b"MARK", b"AUTH", b"(c) ", b"info", b"uuid", b"free"),
}
_BEFORE_SOUND = {b"fmt ", b"data", *TRAILERS}
_W64_RIFF = bytes.fromhex("726966662e91cf11a5d628db04c10000")
W64_CHUNK = "<4s12xQ"  # its size includes this header


@dataclass(slots=True)
class Layout:
    """Place of the sound in a container of chunks, and fields that state its size.

    ``patches(n_bytes)`` returns the header's bytes for sound of that many bytes.
    """

    begin: int
    stated: int
    is_wide: bool  # the size has 64 bits
    patches: Callable[[int], list[tuple[int, bytes]]]
    chunk_head: str = ""  # struct format of a chunk's name and size; empty: none follow
    alignment: int = 2
    frame_bytes: int = 1
    wave_head: tuple[Piece, ...] = ()  # chunks of a RIFF file before its sound
    more: tuple[tuple[int, int], ...] = ()  # bytes of further sound, if it is stated
    is_regular: bool = True  # whether the decoder can read the file as it is


def layout_of(file: IO[bytes], head: bytes, size: int) -> Layout | None:
    """Return where the sound of a container lies; None if it is none of these."""
    magic = head[:4]
    if magic in (*RIFF, b"RIFX") and head[8:12] == b"WAVE":
        return _riff(file, magic, size)
    if head == _W64_RIFF:
        return _w64(file)
    if magic == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
        return _aiff(file)
    if magic in (b".snd", b"dns."):
        return _au(file, magic)
    return _caf(file) if magic == b"caff" else None


def lengths_of(layout: Layout, present: int) -> Iterator[int]:
    """Yield the lengths that a size can mean: one of 32 bits may have wrapped."""
    yield layout.stated
    if not layout.is_wide:
        yield from range(layout.stated + _GIB4, present + 1, _GIB4)


class Chunk(NamedTuple):
    """Chunk of a container: name, byte of its head and of its body, stated length."""

    name: bytes
    at: int
    body: int
    n_bytes: int

    @property
    def stop(self) -> int:
        """First byte behind the body, without padding."""
        return self.body + self.n_bytes


def chunks_from(file: IO[bytes], at: int, form: str, alignment: int) -> Iterator[Chunk]:
    """Yield the chunks of a container from a byte on.

    Parameters
    ----------
    file : binary file
        The container, which may be moved between two chunks.
    at : int
        Byte of the first chunk.
    form : str
        Format of a chunk's name and size, for `struct`.
    alignment : int
        Bodies are padded to a multiple of it; a single byte may be missing.
    """
    length = struct.calcsize(form)
    for _ in range(MAX_CHUNKS):
        file.seek(at)
        head = file.read(length)
        if len(head) < length:
            return
        name, count = parse_chunk(head, form)
        yield Chunk(name, at, at + length, count)
        count = min(count, UNKNOWN_64)  # beyond the end of any file
        at += length + count
        padding = -count % alignment
        if padding == 1:
            file.seek(at)
            padding = 0 if file.read(4) in _BEFORE_SOUND else 1
        at += padding


def _riff(file: IO[bytes], magic: bytes, size: int) -> Layout | None:
    end = ">" if magic == b"RIFX" else "<"
    form = f"{end}4sI"
    wide_at, wide, frame = 0, 0, 1
    before: list[Piece] = []  # chunks before the sound, with their padding
    is_padded, odd_stop = True, 0
    for chunk in chunks_from(file, 12, form, 2):
        is_padded = is_padded and chunk.at != odd_stop
        odd_stop = chunk.stop if chunk.n_bytes % 2 else 0
        file.seek(chunk.body)
        content = file.read(16)
        if chunk.name == b"data":
            break
        if chunk.name == b"ds64" and magic in RIFF[1:] and len(content) == 16:
            wide_at, wide = chunk.body, struct.unpack("<8xQ", content)[0]
        elif chunk.name == b"fmt " and len(content) >= 14:
            frame = max(1, struct.unpack_from(f"{end}12xH", content)[0])
        if chunk.name in (b"fmt ", b"LIST"):  # what the decoder needs of them
            before += [(chunk.at, chunk.stop), b"\0" * (chunk.n_bytes % 2)]
    else:
        return None
    body, count = chunk.body, chunk.n_bytes
    uses_wide = wide_at > 0 and count == 0xFFFFFFFF
    size_at = chunk.at + 4

    def patches(n_bytes: int) -> list[tuple[int, bytes]]:
        total = body + n_bytes - 8
        if uses_wide:
            found = [(wide_at, struct.pack("<QQ", total, n_bytes))]
            samples = struct.pack("<Q", n_bytes // frame)
            return [(0, b"RF64"), *found, (wide_at + 16, samples)]
        if n_bytes >= _GIB4:
            return []
        return [
            (0, b"RIFX" if end == ">" else b"RIFF"),
            (4, struct.pack(f"{end}I", min(total, 0xFFFFFFFF))),
            (size_at, struct.pack(f"{end}I", n_bytes)),
        ]

    return Layout(
        body,
        wide if uses_wide else count,
        uses_wide,
        patches,
        form,
        2,
        frame,
        tuple(before) if magic == b"RIFF" else (),
        _more_sound(file, chunk, form, size),
        magic != b"BW64" and is_padded,
    )


def _more_sound(
    file: IO[bytes], sound: Chunk, form: str, size: int
) -> tuple[tuple[int, int], ...]:
    """Return the bytes of further chunks of sound, behind the end of the first."""
    found: list[tuple[int, int]] = []
    for chunk in chunks_from(file, sound.stop + sound.n_bytes % 2, form, 2):
        if not is_chunk_name(chunk.name) or chunk.name in RIFF:
            break
        if chunk.name == b"data":
            found.append((chunk.body, min(size, chunk.stop)))
    return tuple(found)


def _w64(file: IO[bytes]) -> Layout | None:
    for chunk in chunks_from(file, 40, W64_CHUNK, 8):
        if chunk.name == b"data":
            break
    else:
        return None
    begin = chunk.body

    def patches(n_bytes: int) -> list[tuple[int, bytes]]:
        return [
            (16, struct.pack("<Q", begin + n_bytes)),
            (begin - 8, struct.pack("<Q", n_bytes + 24)),
        ]

    return Layout(begin, chunk.n_bytes, True, patches, W64_CHUNK, 8)


def _aiff(file: IO[bytes]) -> Layout | None:
    frames_at, frame = 0, 1
    for chunk in chunks_from(file, 12, ">4sI", 2):
        file.seek(chunk.body)
        content = file.read(8)
        if chunk.name == b"SSND":
            break
        if chunk.name == b"COMM" and len(content) == 8:
            frames_at = chunk.body + 2
            channels, bits = struct.unpack(">H4xH", content)
            frame = max(1, channels * -(-bits // 8))
    else:
        return None
    offset = struct.unpack(">I4x", content)[0] if len(content) == 8 else 0
    begin, size_at, count = chunk.body + 8 + offset, chunk.at + 4, chunk.n_bytes

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
    return Layout(begin, stated, False, patches, ">4sI", 2, frame)


def _au(file: IO[bytes], magic: bytes) -> Layout | None:
    end = ">" if magic == b".snd" else "<"
    file.seek(4)
    head = file.read(8)
    if len(head) < 8:
        return None
    begin, count = struct.unpack(f"{end}II", head)

    def patches(n_bytes: int) -> list[tuple[int, bytes]]:
        return [(8, struct.pack(f"{end}I", min(n_bytes, 0xFFFFFFFF)))]

    return Layout(begin, count, False, patches)


def _caf(file: IO[bytes]) -> Layout | None:
    for chunk in chunks_from(file, 8, ">4sQ", 1):
        if chunk.name == b"data":
            break
    else:
        return None
    begin, size_at, count = chunk.body + 4, chunk.at + 4, chunk.n_bytes

    def patches(n_bytes: int) -> list[tuple[int, bytes]]:
        return [(size_at, struct.pack(">Q", n_bytes + 4))]

    stated = count - 4 if count >= 4 else 0
    return Layout(begin, stated, True, patches, ">4sQ", 1)


def is_chunk_name(text: bytes) -> bool:
    """Return True for four characters that can name a chunk."""
    return len(text) == 4 and all(32 <= byte < 127 for byte in text)


def parse_chunk(head: bytes, form: str) -> tuple[bytes, int]:
    """Return name and size in bytes from the beginning of a chunk."""
    name, count = struct.unpack(form, head[: struct.calcsize(form)])
    return name, max(0, count - 24) if form == W64_CHUNK else count
