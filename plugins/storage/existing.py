"""Kinds of existing files: no output replaces a file of another kind."""

import os
import re
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from neurovocal.engine import OutputProblem

_HEAD_BYTES = 65_536
# First bytes of files that people have beside recordings.
_RECORDING = re.compile(
    rb"RIFF....WAVE|RF64|BW64|riff\x2e\x91|fLaC|OggS|ID3|caff|FORM....AIF|\.snd|dns\."
    rb"|\xff[\xe0-\xff]|....ftyp",
    re.DOTALL,
)
_NOUNS = (
    (re.compile(rb"SQLite format 3\0"), "a journal or another database"),
    (re.compile(rb"PAR1"), "a Parquet file"),
    (re.compile(rb"\x89PNG|\xff\xd8\xff|GIF8"), "a picture"),
    (re.compile(rb"PK\x03\x04|\x1f\x8b"), "an archive"),
    (_RECORDING, "a recording"),
)


@dataclass(frozen=True, slots=True)
class FileKind:
    """Kind of file that an output writes.

    Parameters
    ----------
    noun : str
        Such as ``"a table of labels"``.
    matches : callable
        ``matches(head)`` returns True if the first bytes of a file are of this kind.
    """

    noun: str
    matches: Callable[[bytes], bool]

    def problem(self, path: Path) -> str | None:
        """Return a sentence if a file exists that is of another kind.

        Empty files, pipes, devices and files that may not be read have no kind.
        """
        head = _head(path)
        if not head or self.matches(head):
            return None
        return OutputProblem(
            f"'{path}' exists and is {_noun_of(head)}, not {self.noun}: it would be "
            "lost; choose another path"
        )


def text_kind(noun: str, first_line: str) -> FileKind:
    """Return the kind of text files with a first line that a pattern matches."""
    pattern = re.compile(first_line.encode())
    return FileKind(
        noun, lambda head: pattern.fullmatch(head.split(b"\n")[0]) is not None
    )


def any_of(noun: str, *begins: bytes) -> FileKind:
    """Return the kind of files that begin with one of some bytes."""
    return FileKind(noun, lambda head: head.startswith(begins))


def existing_problems(kind: FileKind, *paths: Path) -> Iterator[str]:
    """Yield a sentence for each existing file that is of another kind."""
    for path in paths:
        if (problem := kind.problem(path)) is not None:
            yield problem


def _head(path: Path) -> bytes:
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            return b""
        with path.open("rb") as file:
            return file.read(_HEAD_BYTES)
    except OSError:
        return b""


def _noun_of(head: bytes) -> str:
    for pattern, noun in _NOUNS:
        if pattern.match(head):
            return noun
    if b"\0" in head:
        return "a file of another kind"
    return "a text file of another kind"
