"""Annotation files of MATLAB's evsonganaly (.not.mat).

scipy reads a type's number in a damaged file as an index without a check, and ends the
process: the few kinds of arrays in these files are read here.
"""

import math
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np

from neurovocal.engine.support.label_words import clean_label
from neurovocal.models.data.formats.segments import (
    AnnotationChoice,
    Findings,
    NotOfFormatError,
    SegmentRow,
    label_problem,
)

# Element types and array classes of the format ("MAT-File Level 5").
_MATRIX, _COMPRESSED = 14, 15
_CELL, _CHAR, _FIRST_NUMERIC, _LAST_NUMERIC = 1, 4, 6, 15
_NUMBERS = {
    **{1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4"},
    **{7: "f4", 9: "f8", 12: "i8", 13: "u8"},
}
_TEXTS = {1: "latin-1", 2: "latin-1", 4: "utf-16", 16: "utf-8", 17: "utf-16"}
_HEADER = 128  # bytes
_LARGEST = 1 << 26

Order: TypeAlias = Literal["<", ">"]


def read_notmat(
    path: Path, choice: AnnotationChoice, findings: Findings
) -> list[SegmentRow]:
    """Read onsets and offsets in milliseconds, and a letter or number for each.

    Raises
    ------
    NotOfFormatError
        The file cannot be read, or does not have as many labels as segments.
    """
    del choice
    try:
        with path.open("rb") as stream:
            data = stream.read(_LARGEST)
    except OSError as error:
        raise NotOfFormatError(f"cannot be read: {error.strerror}") from error
    if data[124:126] in (b"\x00\x02", b"\x02\x00"):
        raise NotOfFormatError(
            "is of MATLAB 7.3, which cannot be read: save it with the option -v7"
        )
    try:
        content = {name: values for name, values in _variables(data)}
        onsets, offsets = map(_numbers, (content["onsets"], content["offsets"]))
        labels = _labels(content["labels"])
    except (KeyError, ValueError, struct.error, zlib.error, RecursionError) as error:
        raise NotOfFormatError(
            "is no .not.mat file with onsets, offsets and labels"
        ) from error
    if not len(onsets) == len(offsets) == len(labels):
        raise NotOfFormatError(
            f"has {len(onsets)} onsets, {len(offsets)} offsets and {len(labels)} "
            "labels: each segment needs one of each"
        )
    rows = []
    segments = zip(onsets, offsets, labels, strict=True)
    for number, (onset, offset, text) in enumerate(segments, 1):
        label = clean_label(text)
        problem = label_problem(label)
        if not (math.isfinite(onset) and math.isfinite(offset)):
            problem = "onset or offset is not finite"
        if problem:
            findings.refuse(path, 0, f"segment {number}: {problem}")
            continue
        rows.append(SegmentRow(onset / 1000, offset / 1000, label))
    return rows


# A variable: numbers, the rows of a text, or a list of such arrays.
_Values: TypeAlias = "list[float] | list[str] | list[_Values]"


def _numbers(values: _Values) -> list[float]:
    """Return values that must be numbers; raises ValueError for others."""
    numbers = [value for value in values if isinstance(value, float)]
    if len(numbers) < len(values):
        raise ValueError("not all values are numbers")
    return numbers


def _labels(values: _Values) -> list[str]:
    """Return a label per segment: letters of a text, texts of a list, or numbers."""
    if len(values) == 1 and isinstance(values[0], str):
        return list(values[0])
    labels = []
    for value in values:
        parts = value if isinstance(value, list) else [value]
        labels.append(
            "".join(
                p if isinstance(p, str) else f"{p:.15g}" for p in map(_single, parts)
            )
        )
    return labels


def _single(value: object) -> str | float:
    if isinstance(value, str | float):
        return value
    raise ValueError("a list in a list is no label")


def _variables(data: bytes) -> Iterator[tuple[str, _Values]]:
    """Yield name and values of each variable of a file that can be read here."""
    order: Order = ">" if data[126:128] == b"MI" else "<"
    if data[126:128] not in (b"MI", b"IM"):
        raise ValueError("no MATLAB file")
    for kind, content in _elements(data[_HEADER:], order):
        if kind == _COMPRESSED:
            unpacked = zlib.decompressobj().decompress(content, _LARGEST)
            found = list(_elements(unpacked, order))
        else:
            found = [(kind, content)]
        for inner, part in found:
            if inner == _MATRIX and (variable := _variable(part, order)) is not None:
                yield variable


def _elements(data: bytes, order: Order) -> Iterator[tuple[int, bytes]]:
    """Yield type and content of the elements that follow each other."""
    at = 0
    while at + 8 <= len(data):
        kind, size = struct.unpack_from(f"{order}II", data, at)
        if kind >> 16:  # a short element has its size and content in the same bytes
            size, kind = kind >> 16, kind & 0xFFFF
            yield kind, data[at + 4 : at + 4 + min(size, 4)]
            at += 8
            continue
        if at + 8 + size > len(data):
            raise ValueError("an element is longer than the file")
        yield kind, data[at + 8 : at + 8 + size]
        at += 8 + size + (0 if kind == _COMPRESSED else -size % 8)


def _variable(data: bytes, order: Order) -> tuple[str, _Values] | None:
    """Return name and values of an array; None for one of another class."""
    parts = list(_elements(data, order))
    if len(parts) < 3:
        raise ValueError("an array without a name")
    flags = struct.unpack_from(f"{order}I", parts[0][1])[0] & 0xFF
    name = parts[2][1].decode("latin-1")
    if flags == _CELL:
        cells = [_variable(part, order) for kind, part in parts[3:] if kind == _MATRIX]
        return name, [cell[1] for cell in cells if cell is not None]
    if flags != _CHAR and not _FIRST_NUMERIC <= flags <= _LAST_NUMERIC:
        return None
    if len(parts) < 4:
        return name, []
    kind, content = parts[3]
    if flags == _CHAR:
        sizes = np.frombuffer(parts[1][1], f"{order}i4")
        return name, _text_rows(
            kind, content, order, int(sizes[0]) if len(sizes) else 0
        )
    if kind not in _NUMBERS:
        raise ValueError("an array of numbers holds something else")
    return name, np.frombuffer(content, order + _NUMBERS[kind]).astype(float).tolist()


def _text_rows(kind: int, content: bytes, order: Order, n_rows: int) -> list[str]:
    """Return the rows of a matrix of letters, which are stored column by column."""
    encoding = _TEXTS.get(kind)
    if encoding is None:
        raise ValueError("a text holds something else")
    if encoding == "utf-16":
        encoding = "utf-16-le" if order == "<" else "utf-16-be"
    letters = content.decode(encoding)
    return [letters[row::n_rows] for row in range(min(n_rows, len(letters)))]
