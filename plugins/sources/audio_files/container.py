"""Comparison of the length in an audio file's header with the file's bytes.

A recorder that is killed never completes its header; one whose file exceeds 4 GiB
cannot; copies are cut. Every container is described by the same few facts, where the
sound begins and how much of it is stated, and judged by one rule. The decoder then
reads a view of the file whose header states what is there.
"""

import io
import os
import struct
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, Literal, TypeAlias

from neurovocal.engine import AudioFileError
from neurovocal.engine.support.process import mute_libraries
from neurovocal.plugins.sources.audio_files.chained import (
    ChainedSound,
    Link,
    joined_files,
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
from neurovocal.plugins.sources.audio_files.layouts import (
    MAX_CHUNKS,
    RIFF,
    TRAILERS,
    UNKNOWN_64,
    Layout,
    chunks_from,
    is_chunk_name,
    layout_of,
    lengths_of,
    parse_chunk,
)
from neurovocal.plugins.sources.audio_files.patched_file import (
    PatchedFile,
    Piece,
    replaced,
)

State: TypeAlias = Literal["complete", "unfinished", "cut"]

_KIB, _GIB4 = 1 << 10, 1 << 32
_MOST_32 = _GIB4 - (1 << 20)  # bytes of sound that a 32-bit size can state, with room
_MAX_TEXT = 1 << 20
_TAIL = 256 * _KIB
# Values of a 32-bit size that recorders write as long as they do not know it.
_UNKNOWN_32 = 0x7FFFF000
# Header bytes that programs count as sound by mistake.
_HEADER_ERRORS = (8, 36, 44)
_TAGS = (b"TAG", b"ID3", b"APETAGEX", b"LYRICSBEGIN", b"3DI")
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
        Bytes of complete files, one behind the other; none if it is one.
    note : str
        What is unusual, to follow the file's name in a sentence; empty: nothing.
    unread : str
        What of the file is not read, likewise.
    is_known : bool
        False for a format that was not examined: the decoder of MPEG audio, which
        writes notes to stderr, may be asked.
    """

    state: State = "complete"
    pieces: tuple[Piece, ...] = ()
    n_samples: int | None = None
    sound: tuple[int, int] | None = None
    links: tuple[Link, ...] = ()
    note: str = ""
    unread: str = ""
    is_known: bool = True

    def decoding(self) -> AbstractContextManager[None]:
        """Return the context in which the decoder is called."""
        return nullcontext() if self.is_known else mute_libraries()

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
        if self.pieces:
            return soundfile.SoundFile(PatchedFile(path, self.pieces))
        if path.suffix.lower() == ".raw":  # of samples, it would be taken, by its name
            whole = PatchedFile(path, [(0, path.stat().st_size)])
            return soundfile.SoundFile(whole)
        return soundfile.SoundFile(os.fsencode(path))


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
            links = joined_files(path, size, None)
            first = links[0][1]
            found = _container(examine_flac(file, first, skipped), first)
            return found if len(links) == 1 else _joined(path, found, links)
        if magic[:4] == b"OggS":
            return _examine_ogg(path, file, size)
        layout = layout_of(file, head, size)
        if layout is not None:
            links = joined_files(path, size, layout)
            container = _judge(file, layout, links[0][1])
            return container if len(links) == 1 else _joined(path, container, links)
        if starts_mp3(file, skipped, size):
            container = _container(examine_mp3(file, size, skipped), size)
            return replace(container, is_known=False)
        if path.suffix.lower() == ".mp3":
            raise AudioFileError(f"'{path}' is no MP3 file: it holds no MPEG frames")
    return Container(is_known=False)


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
            f"'{path}' is {kind}, which cannot be read: convert it to WAV or FLAC "
            "(ffmpeg -i FILE FILE.wav)"
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
    """Return the container of a chain, as far as its links have one form."""
    with suppress(OSError, RuntimeError), ChainedSound(path, links) as sound:
        unread = (
            ""
            if sound.is_whole
            else f"has another file behind {sound.frames / sound.samplerate:.3f} s of "
            "sound, of another rate or form, which is not heard: save it by itself"
        )
        return replace(
            container,
            pieces=(),
            n_samples=sound.frames,
            links=tuple(links),
            unread=unread,
        )
    return container


def _joined(path: Path, container: Container, links: list[Link]) -> Container:
    """Return the container of files that were joined, with a note if all are heard."""
    chain = _chain(path, container, links)
    if chain.unread:
        return chain
    note = f"is {len(links)} files, one behind the other: they are heard as one"
    return replace(chain, note=note)


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
        if file.read(4) not in RIFF or container.sound is None:
            return found
        begin, end = container.sound
        # Behind sound of odd length a byte is missing at times.
        for first, stop in ((12, begin - 8), (end, None), (end + 1, None)):
            for chunk in chunks_from(file, first, "<4sI", 2):
                if not is_chunk_name(chunk.name):
                    break
                if stop is not None and chunk.at >= stop:
                    break
                if chunk.name in wanted:
                    file.seek(chunk.body)
                    content = file.read(min(chunk.n_bytes, _MAX_TEXT))
                    found.setdefault(chunk.name, content)
    return found


# ---- containers of chunks ----------------------------------------------------------


def _judge(file: BinaryIO, layout: Layout, size: int) -> Container:
    """Compare the stated bytes of sound with those that are there."""
    begin, present = layout.begin, max(0, size - layout.begin)
    stated = layout.stated
    unknown = stated >= (UNKNOWN_64 if layout.is_wide else _UNKNOWN_32)

    def result(state: State, length: int, *, as_stated: bool = False) -> Container:
        is_view = not as_stated or layout.more or not layout.is_regular
        pieces = _view(layout, length, size, as_stated) if is_view else ()
        return Container(state, pieces, None, (begin, begin + length))

    if stated > present:
        if not unknown and not _counts_header(layout, stated - present):
            return result("cut", present)
        length = _before_trailer(file, layout, size)
        return result("unfinished" if unknown else "complete", length)
    for length in lengths_of(layout, present):
        if _is_trailer(file, layout, begin + length, size):
            if length == stated:
                return result("complete", length, as_stated=True)
            return result("unfinished", length)
    length = _before_trailer(file, layout, size)
    container = result("unfinished", length)
    if stated and length - stated > max(_HEADER_ERRORS):
        # A recorder that went on, or what a disk held before: nobody can tell.
        note = (
            f"has {length - stated} bytes behind the {stated} bytes of sound that its "
            "header states: they are heard as sound, too"
        )
        container = replace(container, note=note)
    return container


def _counts_header(layout: Layout, missing: int) -> bool:
    """Return True if the stated size is that of the file, or off by such a mistake."""
    wrong = (layout.begin, layout.begin - 8, *_HEADER_ERRORS)
    return missing in wrong or missing < layout.frame_bytes or missing == 1


def _is_trailer(file: BinaryIO, layout: Layout, at: int, size: int) -> bool:
    """Return True if nothing but chunks, tags or padding stands behind the sound."""
    if size - at <= layout.alignment:
        return True
    for start in {at, -(-at // layout.alignment) * layout.alignment}:
        file.seek(start)
        head = file.read(32)
        if head.startswith(_TAGS):
            return True
        if not layout.chunk_head or not is_chunk_name(head[:4]):
            continue
        length = struct.calcsize(layout.chunk_head)
        if len(head) < length:
            return True
        name, count = parse_chunk(head, layout.chunk_head)
        if name in TRAILERS or start + length + count <= size:
            return True
    rest = size - at
    if rest > 64 * _KIB or at == layout.begin:
        return False
    file.seek(at)
    return not file.read(rest).strip(b"\0")


def _before_trailer(file: BinaryIO, layout: Layout, size: int) -> int:
    """Return the bytes of sound up to the chunks at the end of a file, if any."""
    window = max(layout.begin, size - _TAIL)
    if layout.chunk_head:
        file.seek(window)
        tail = file.read(size - window)
        length = struct.calcsize(layout.chunk_head)
        found = sorted(
            at for name in TRAILERS for at in _positions(tail, name) if at >= 0
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


def _ends_exactly(tail: bytes, at: int, layout: Layout, length: int) -> bool:
    """Return True if chunks lead from a byte exactly to the end."""
    for _ in range(MAX_CHUNKS):
        head = tail[at : at + length]
        if len(head) < length or not is_chunk_name(head[:4]):
            return False
        _, count = parse_chunk(head, layout.chunk_head)
        stop = at + length + count
        at = -(-stop // layout.alignment) * layout.alignment
        if len(tail) in (stop, at):
            return True
    return False


def _view(layout: Layout, length: int, size: int, is_stated: bool) -> tuple[Piece, ...]:
    """Return the pieces of a file with a header of `length` bytes of sound.

    Further chunks of sound count where that length is the stated one.
    """
    end = min(size, layout.begin + length)
    more = layout.more if is_stated else ()
    if layout.wave_head and (length >= _MOST_32 or more or not layout.is_regular):
        length += sum(stop - begin for begin, stop in more)
        counts = struct.pack("<QQQI", length + layout.begin, length, 0, 0)
        head, n_bytes = b"RF64\xff\xff\xff\xffWAVEds64\x1c\0\0\0" + counts, b"\xff" * 4
        if length < _MOST_32:
            n_bytes = struct.pack("<I", length)
            head = b"RIFF" + struct.pack("<I", length + layout.begin) + b"WAVE"
        sound: tuple[Piece, ...] = ((layout.begin, end), *more)
        return (head, *layout.wave_head, b"data" + n_bytes, *sound)
    return tuple(replaced(end, layout.patches(length)))
