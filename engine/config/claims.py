"""Claims on files: a run or a command may not write a file that it reads.

Files are compared by device and inode, links followed, and by resolved path where one
does not exist yet; files that a folder will receive are compared by their patterns.
"""

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TypeAlias

from neurovocal.engine.config.located_yaml import Location
from neurovocal.engine.contracts.errors import ConfigError
from neurovocal.engine.contracts.plugin import FileAccess

# Location of a stage in its configuration, or a noun for what has none.
Owner: TypeAlias = Location | str
_Identity: TypeAlias = tuple[int, int]
_Parts: TypeAlias = tuple["_RunPart", ...]
_ANY_FOLDERS = "**"


@dataclass(frozen=True, slots=True)
class _RunPart:
    """A part of a path: a name, or a pattern of names."""

    text: str
    is_pattern: bool = False


@dataclass(frozen=True, slots=True)
class _Claim:
    owner: Owner
    access: FileAccess
    paths: tuple[_Parts, ...]


class FileClaims:
    """Files that the parts of a run or command read and write.

    Owners are compared by equality: a part may write what it reads itself, such as
    a state that it keeps.
    """

    def __init__(self) -> None:
        self._reads: list[_Claim] = []
        self._writes: list[_Claim] = []
        self._parents: dict[str, str] = {}

    def add(
        self,
        owner: Owner,
        reads: Iterable[FileAccess] = (),
        writes: Iterable[FileAccess] = (),
    ) -> None:
        """Add the files that a part of the run reads and writes."""
        self._reads += [self._claim(owner, access) for access in reads]
        self._writes += [self._claim(owner, access) for access in writes]

    def conflicts(self) -> Iterator[tuple[Owner, FileAccess, Owner, FileAccess]]:
        """Yield (writer, output, reader, input): the first input of each reader."""
        files: defaultdict[_Identity, list[_Claim]] = defaultdict(list)
        named: defaultdict[_Parts, list[_Claim]] = defaultdict(list)
        folders: list[_Claim] = []
        for claim in self._reads:
            if claim.access.holds:
                folders.append(claim)
                continue
            named[claim.paths[0]].append(claim)
            if (identity := _identity(claim.access.path)) is not None:
                files[identity].append(claim)
        for written in self._writes:
            found: list[_Claim] = []
            if written.access.holds:
                found += [c for c in self._reads if _meet(written, c)]
            else:
                found += named.get(written.paths[0], [])
                identity = _identity(written.access.path)
                if identity is not None:
                    found += files.get(identity, [])
                found += [c for c in folders if _meet(written, c)]
            readers = set()
            for read in found:
                if read.owner != written.owner and read.owner not in readers:
                    readers.add(read.owner)
                    yield written.owner, written.access, read.owner, read.access

    def _claim(self, owner: Owner, access: FileAccess) -> _Claim:
        if not access.holds:
            return _Claim(owner, access, (self._parts(access.path),))
        folder = self._parts(access.path / "x")[:-1]
        paths = [
            folder + tuple(_RunPart(part, True) for part in pattern.split("/"))
            for pattern in access.holds
        ]
        return _Claim(owner, access, tuple(paths))

    def _parts(self, path: Path) -> _Parts:
        """Return the parts of a resolved path; folders are resolved once."""
        text = os.path.abspath(path)
        if os.path.islink(text):
            text = os.path.realpath(text)
        parent, name = os.path.split(text)
        if parent not in self._parents:
            self._parents[parent] = os.path.realpath(parent)
        parts = Path(self._parents[parent], name).parts
        return tuple(map(_RunPart, parts))


_SHARED = {
    "stdout": "write to standard output: give all but one a file",
    "stdin": "read standard input: only one can",
    "file": "write the file '{name}': give each a path of its own",
    "folder": "use the folder '{name}': give each one of its own",
    "tcp": "bind the TCP port {name}: give each a port of its own",
    "device": "open the device '{name}': only one can",
    "output device": "play on the device '{name}': only one can",
}


def shared_sentence(one: str, other: str, resource: str) -> str:
    """Return the mistake of two stages that claim a resource, ``KIND:NAME``."""
    kind, _, name = resource.partition(":")
    clause = _SHARED.get(kind, "claim '{resource}', which one alone can have")
    what = clause.format(name=name, resource=resource)
    return f"{one} and {other} would both {what}"


def sentence_of(writer: str, output: FileAccess, reader: str, read: FileAccess) -> str:
    """Return the mistake of a writer that would write a file of `reader`."""
    if read.holds and not output.holds:
        return f"{writer} writes '{output.path}' into a folder that {reader} reads"
    if read.holds:
        return (
            f"{writer} writes to '{output.path}', which {reader} searches for "
            "recordings: it would read its own output; choose another folder"
        )
    if output.holds:
        return (
            f"{writer} writes to '{output.path}', where {reader} reads '{read.path}': "
            "choose another folder"
        )
    name = f"'{output.path}'"
    if os.path.abspath(read.path) != os.path.abspath(output.path):
        name += f" ('{read.path}')"
    return f"{writer} would overwrite {name}, which {reader} reads: choose another path"


def refuse_overlap(
    writer: str, reads: Mapping[str, Iterable[Path]], writes: Iterable[Path]
) -> None:
    """Raise ConfigError if a command would write a file that it reads.

    Parameters
    ----------
    writer : str
        Name of the command, or of what is written, in the error.
    reads : mapping of str to iterable of Path
        Files and folders by the noun for what they are; a folder stands for all that
        is in it.
    writes : iterable of Path
        Files that would be written.
    """
    claims = FileClaims()
    for what, paths in reads.items():
        claims.add(
            what,
            reads=[
                FileAccess(path, ("**", "**/*") if path.is_dir() else ())
                for path in paths
            ],
        )
    claims.add("", writes=map(FileAccess, writes))
    problems = []
    for _, output, reader, read in claims.conflicts():
        where = "lies in" if read.holds else "is"
        problems.append(
            f"{writer} '{output.path}' {where} the {reader} that is read "
            f"('{read.path}'): choose another path"
        )
    if problems:
        raise ConfigError(problems)


def _identity(path: Path) -> _Identity | None:
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino


def _meet(one: _Claim, other: _Claim) -> bool:
    return any(_may_be_same(a, b) for a in one.paths for b in other.paths)


def _may_be_same(one: _Parts, other: _Parts) -> bool:
    """Return whether two paths, or patterns of paths, can name the same file."""
    if not one or not other:
        rest = one or other
        return all(part.is_pattern and part.text == _ANY_FOLDERS for part in rest)
    for first, second in ((one, other), (other, one)):
        if first[0].is_pattern and first[0].text == _ANY_FOLDERS:
            if _may_be_same(first[1:], second):
                return True
            return _is_seen(second[0]) and _may_be_same(first, second[1:])
    return _names_meet(one[0], other[0]) and _may_be_same(one[1:], other[1:])


def _is_seen(part: _RunPart) -> bool:
    """Return False for names that patterns pass over: those of hidden files."""
    return part.is_pattern or not part.text.startswith(".")


def _names_meet(one: _RunPart, other: _RunPart) -> bool:
    if not one.is_pattern and not other.is_pattern:
        return one.text == other.text
    if one.is_pattern and other.is_pattern:
        ends = [os.path.splitext(part.text)[1] for part in (one, other)]
        return any(end in ("", ".*") for end in ends) or ends[0] == ends[1]
    name, pattern = (other, one) if one.is_pattern else (one, other)
    return _is_seen(name) and fnmatchcase(name.text.lower(), pattern.text)
