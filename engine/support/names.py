"""File names that every file system takes: shortened with a hash where too long."""

import os
import re
import stat
from hashlib import blake2b
from pathlib import Path

_NAME_MAX = 255  # bytes, of Linux's file systems
_MOST_STREAM_BYTES = 160
_MOST_SUFFIX_BYTES = 16
_SHOWN = 60  # characters of a path in a sentence


def bounded_name(name: str, most: int = _MOST_STREAM_BYTES) -> str:
    """Return a file name of at most `most` bytes; a longer one ends in its hash.

    By default room is left for what sinks put around the names of streams.
    """
    content = os.fsencode(name)
    if len(content) <= most:
        return name
    digest = blake2b(content, digest_size=6).hexdigest()
    kept = content[: max(0, most - len(digest) - 1)].decode(errors="ignore")
    return f"{re.sub('%[0-9A-F]?$', '', kept)}~{digest}"


def beside(path: Path, *, before: str = "", middle: str = "", after: str = "") -> Path:
    """Return the path of a file in the same folder, named after this one.

    ``song.wav`` becomes ``{before}song{middle}.wav{after}``; the stem is shortened
    where the name would be too long.
    """
    stem, suffix = path.stem, path.suffix
    if len(os.fsencode(suffix)) > _MOST_SUFFIX_BYTES:
        stem, suffix = path.name, ""
    added = len(os.fsencode(before + middle + suffix + after))
    name = bounded_name(stem, _NAME_MAX - added)
    return path.with_name(f"{before}{name}{middle}{suffix}{after}")


def at_home(path: str | Path) -> Path:
    """Return a path with ``~`` replaced by the home folder, where there is one.

    `Path.expanduser` raises RuntimeError for a file such as ``~1.wav``.
    """
    return Path(os.path.expanduser(path))


def resolved(path: Path) -> Path:
    """Return a path with its links followed; one that leads to itself stays.

    `Path.resolve` raises RuntimeError for such a link.
    """
    return Path(os.path.realpath(path))


def may_never_end(path: Path) -> bool:
    """Return whether a path is a pipe or device, whose reading may wait for ever.

    A pipe that the shell has made for this program (``/dev/stdin``, ``/dev/fd/63``) is
    none.

    Raises
    ------
    OSError
        There is nothing under this name.
    """
    kind = path.stat().st_mode
    if stat.S_ISREG(kind) or stat.S_ISDIR(kind):
        return False
    return not (path.is_relative_to("/dev/fd") or path == Path("/dev/stdin"))


def missing_folder(path: Path) -> str:
    """Return why a path is no folder, as the end of a sentence."""
    return "is a file: name its folder" if path.is_file() else "does not exist"


def path_problem(error: OSError) -> str:
    """Return a sentence about a path that the system does not take."""
    name = os.fsdecode(error.filename) if error.filename else "a path"
    shown = name if len(name) <= _SHOWN else f"{name[:_SHOWN]}..."
    return f"'{shown}' cannot be used: {(error.strerror or 'unknown reason').lower()}"
