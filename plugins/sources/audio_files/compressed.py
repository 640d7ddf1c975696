"""Ends of compressed recordings: the last frames of FLAC and MP3, pages of Ogg."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO, Literal, NamedTuple

from neurovocal.plugins.sources.audio_files.patched_file import Piece

_WINDOW, _WINDOW_MOST = 1 << 16, 1 << 22
_MP3_SEARCH = 1 << 16
_MP3_IN_A_ROW = 3
_MP3_TAGS = 1 << 16  # bytes of tags that may stand behind the last frame
_MP3_ENDS = (b"TAG", b"APETAGEX", b"LYRICS", b"ID3", bytes(8))


@dataclass(slots=True)
class Compressed:
    """What the bytes of a compressed recording hold, compared with its header.

    ``end`` is the byte behind the last complete frame, None if it is not known.
    """

    state: Literal["complete", "unfinished", "cut"] = "complete"
    patches: list[tuple[int, bytes]] = field(default_factory=list)
    end: int | None = None
    n_samples: int | None = None


def id3_length(file: IO[bytes]) -> int:
    """Return the bytes of the ID3v2 tags at the beginning of a file."""
    at = 0
    while True:
        file.seek(at)
        head = file.read(10)
        if len(head) < 10 or head[:3] != b"ID3" or max(head[6:10]) > 127:
            return at
        a, b, c, d = head[6:10]
        footer = 10 if head[5] & 16 else 0
        at += 10 + (a << 21 | b << 14 | c << 7 | d) + footer


# ---- FLAC ----------------------------------------------------------------------------


class _FlacFrame(NamedTuple):
    """First sample and length of a frame in samples, from its header."""

    first: int
    length: int


def _table(polynomial: int, bits: int) -> list[int]:
    top, mask = 1 << (bits - 1), (1 << bits) - 1
    table = []
    for byte in range(256):
        value = byte << (bits - 8)
        for _ in range(8):
            value = (value << 1 ^ polynomial if value & top else value << 1) & mask
        table.append(value)
    return table


_CRC8, _CRC16 = _table(0x07, 8), _table(0x8005, 16)
_FLAC_LENGTHS = {1: 192, **{2 + n: 576 << n for n in range(4)}}
_FLAC_LENGTHS |= {8 + n: 256 << n for n in range(8)}


def examine_flac(file: IO[bytes], size: int, skipped: int) -> Compressed:
    """Count the samples of a FLAC stream by the header of its last frame.

    Parameters
    ----------
    file : binary file
        The file.
    size : int
        Its length in bytes.
    skipped : int
        Byte at which the stream begins.
    """
    file.seek(skipped + 4)
    at, info = skipped + 4, b""
    while True:
        head = file.read(4)
        if len(head) < 4:
            return Compressed()
        count = int.from_bytes(head[1:])
        if head[0] & 127 == 0:
            info = file.read(count)
            info_at = at + 4
        at += 4 + count
        file.seek(at)
        if head[0] & 128:
            break
    if len(info) < 34:
        return Compressed()
    stated = int.from_bytes(info[13:18]) & (1 << 36) - 1
    fixed = int.from_bytes(info[2:4])
    first = _flac_frame(file, at, fixed)
    last = _last_flac_frame(file, at, size, fixed)
    if first is None or last is None:
        return Compressed()
    frame, end, follows = last
    total = frame.first + frame.length - first.first
    patches = []
    if total != stated:
        top = info[13] & 0xF0 | total >> 32
        patches = [(info_at + 13, bytes([top]) + struct.pack(">I", total & 0xFFFFFFFF))]
    state: Literal["complete", "unfinished", "cut"] = "complete"
    if follows or total < stated:
        state = "cut"
    elif total > stated:
        state = "unfinished"
    return Compressed(state, patches, end, total)


def _last_flac_frame(
    file: IO[bytes], begin: int, size: int, fixed: int
) -> tuple[_FlacFrame, int, bool] | None:
    """Return the last complete frame, its end, and whether an incomplete follows."""
    if begin >= size:
        return None
    window = _WINDOW
    while True:
        start = max(begin, size - window)
        file.seek(start)
        data = file.read(size - start)
        limit = None  # begin of a frame that is incomplete
        for at in _syncs(data):
            frame = _parse_flac_frame(data[at : at + 16], fixed)
            if frame is None:
                continue
            stop = _flac_end(data, at, limit)
            if stop is not None:
                return frame, start + stop, stop == limit
            limit = at
        if start == begin or window >= _WINDOW_MOST:
            return None
        window *= 4


def _syncs(data: bytes) -> Iterator[int]:
    """Yield the places of frame synchronisation codes, the last first."""
    at = len(data)
    while (at := data.rfind(b"\xff", 0, at)) >= 0:
        if data[at + 1 : at + 2] in (b"\xf8", b"\xf9"):
            yield at


def _flac_frame(file: IO[bytes], at: int, fixed: int) -> _FlacFrame | None:
    file.seek(at)
    return _parse_flac_frame(file.read(16), fixed)


def _parse_flac_frame(head: bytes, fixed: int) -> _FlacFrame | None:
    """Parse the header of a FLAC frame; None if there is none (RFC 9639, 9.1)."""
    if len(head) < 6 or head[0] != 0xFF or head[1] not in (0xF8, 0xF9):
        return None
    code, rate = head[2] >> 4, head[2] & 15
    if code == 0 or rate == 15 or head[3] & 1 or head[3] >> 4 > 10:
        return None
    extra = 8 - (head[4] ^ 0xFF).bit_length()  # leading ones
    if extra == 1 or extra > 7:
        return None
    count = max(1, extra)
    number = head[4] & (0x7F >> extra)
    for byte in head[5 : 4 + count]:
        if byte & 0xC0 != 0x80:
            return None
        number = number << 6 | byte & 0x3F
    at = 4 + count
    length = _FLAC_LENGTHS.get(code, 0)
    if code in (6, 7):
        width = code - 5
        length = int.from_bytes(head[at : at + width]) + 1
        at += width
    at += {12: 1, 13: 2, 14: 2}.get(rate, 0)
    if at >= len(head):
        return None
    crc = 0
    for byte in head[: at + 1]:
        crc = _CRC8[crc ^ byte]
    if crc:
        return None
    return _FlacFrame(number if head[1] & 1 else number * fixed, length)


def _flac_end(data: bytes, at: int, limit: int | None) -> int | None:
    """Return the end of the frame at a byte; None if it is incomplete.

    The checksum over a frame and its footer is zero, and stays so over zeros. By chance
    it is zero within the frame, too: of several ends the last one counts, or `limit`,
    where an incomplete frame seems to begin.
    """
    crc, before, found = 0, 1, None
    for index in range(at, len(data)):
        crc = crc << 8 & 0xFFFF ^ _CRC16[crc >> 8 ^ data[index]]
        if crc == 0 and before != 0:
            found = index + 1
            if found == limit:
                return limit
        before = crc
    return found if limit is None or (found or 0) > limit else None


# ---- Ogg -----------------------------------------------------------------------------


class _Page(NamedTuple):
    """Header of an Ogg page: flags, serial number, begin and end of its body."""

    flags: int
    serial: bytes
    begin: int
    end: int


def _page(file: IO[bytes], at: int) -> _Page | None:
    file.seek(at)
    head = file.read(27)
    if len(head) < 27 or head[:4] != b"OggS":
        return None
    lengths = file.read(head[26])
    if len(lengths) < head[26]:
        return None
    begin = at + 27 + head[26]
    return _Page(head[5], head[14:18], begin, begin + sum(lengths))


def examine_ogg(file: IO[bytes], size: int) -> Compressed:
    """Find out whether the last page of an Ogg file is complete and ends its stream."""
    start = max(0, size - (1 << 17))
    file.seek(start)
    data = file.read(size - start)
    at = data.rfind(b"OggS")
    if at < 0:
        return Compressed()
    page = _page(file, start + at)
    if page is None or page.end > size:
        return Compressed("cut")
    return Compressed("complete" if page.flags & 4 else "unfinished")


def flac_of_ogg(file: IO[bytes], size: int) -> list[Piece] | None:
    """Return the FLAC stream inside an Ogg file; None if it holds another codec."""
    page = _page(file, 0)
    if page is None:
        return None
    file.seek(page.begin)
    head = file.read(13)
    if head[:5] != b"\x7fFLAC" or head[9:13] != b"fLaC":
        return None
    serial, pieces = page.serial, list[Piece]([(page.begin + 9, page.end)])
    while (page := _page(file, page.end)) is not None:
        if page.serial == serial:
            pieces.append((page.begin, min(page.end, size)))
    return pieces


# ---- MP3 -----------------------------------------------------------------------------

_BITRATES = {
    (3, 3): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (3, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (3, 1): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (2, 3): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (2, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_RATES = (44100, 48000, 32000)


def _mp3_length(head: bytes) -> int:
    """Return the bytes of an MPEG audio frame by its header; 0 if there is none."""
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return 0
    version, layer = head[1] >> 3 & 3, head[1] >> 1 & 3
    rate, code, padding = head[2] >> 2 & 3, head[2] >> 4, head[2] >> 1 & 1
    if version == 1 or layer == 0 or rate == 3 or code in (0, 15):
        return 0
    hz = _RATES[rate] >> {3: 0, 2: 1, 0: 2}[version]
    table = (3, layer) if version == 3 else (2, 3 if layer == 3 else 2)
    bits = _BITRATES[table][code - 1] * 1000
    if layer == 3:
        return (12 * bits // hz + padding) * 4
    return (72 if layer == 1 and version != 3 else 144) * bits // hz + padding


def starts_mp3(file: IO[bytes], skipped: int, size: int) -> bool:
    """Return True if MPEG audio frames stand near a byte, one behind the other."""
    return _first_mp3_frame(file, skipped, size) is not None


def _first_mp3_frame(file: IO[bytes], skipped: int, size: int) -> int | None:
    file.seek(skipped)
    data = file.read(_MP3_SEARCH)
    at = data.find(b"\xff")
    while at >= 0:
        place = skipped + at
        for _ in range(_MP3_IN_A_ROW):
            file.seek(place)
            length = _mp3_length(file.read(4))
            if not length:
                break
            place += length
            if place >= size:
                return skipped + at
        else:
            return skipped + at
        at = data.find(b"\xff", at + 1)
    return None


def examine_mp3(file: IO[bytes], size: int, skipped: int) -> Compressed:
    """Count the frames of an MP3 file, and compare them with its Xing header."""
    begin = _first_mp3_frame(file, skipped, size)
    if begin is None:
        return Compressed()
    file.seek(begin)
    head = file.read(256)
    at = max(head.find(b"Xing", 0, 64), head.find(b"Info", 0, 64))
    if at < 0 or len(head) < at + 16:
        _, cut, _ = _count_mp3_frames(file, begin, size)
        return Compressed("cut" if cut else "complete")
    flags, *values = struct.unpack(">III", head[at + 4 : at + 16])
    stated = dict(zip([flag for flag in (1, 2) if flags & flag], values, strict=False))
    present = size - begin
    if 2 in stated and stated[2] <= present <= stated[2] + _MP3_TAGS:
        file.seek(begin + stated[2])
        if not _mp3_length(file.read(4)):  # no frame of another file that was joined
            return Compressed()
    frames, cut, end = _count_mp3_frames(file, begin, size)
    # The header's own frame is no sound.
    there = {1: max(0, frames - 1), 2: min(end - begin, 0xFFFFFFFF)}
    patches = [
        (begin + at + 8 + 4 * index, struct.pack(">I", there[flag]))
        for index, flag in enumerate(stated)
    ]
    more = there[1] - stated.get(1, there[1])
    if cut or more < -1:
        return Compressed("cut", patches, end)
    return Compressed("unfinished", patches, end) if more > 1 else Compressed()


def _count_mp3_frames(file: IO[bytes], begin: int, size: int) -> tuple[int, bool, int]:
    """Return the number of frames, whether the last is cut, and where they end."""
    count, at = 0, begin
    while at + 4 <= size:
        file.seek(at)
        length = _mp3_length(file.read(4))
        if length and at + length > size:
            return count, True, at
        if length:
            count, at = count + 1, at + length
            continue
        file.seek(at)
        if file.read(8).startswith(_MP3_ENDS):
            break
        following = _first_mp3_frame(file, at + 1, size)
        if following is None:
            break
        at = following
    return count, False, at
