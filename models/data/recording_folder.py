"""Recordings of a folder, found by the names that annotations give them."""

import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path, PurePosixPath

from neurovocal.engine.support.text import plain
from neurovocal.models.data.formats.segments import shown
from neurovocal.plugins.sinks.table import track_name
from neurovocal.plugins.sources.audio_files.file import SUFFIXES

# Recordings of other programs that must be converted first.
_RAW_SUFFIXES = frozenset({".cbin", ".bin", ".raw", ".ebin", ".dat"})
_CHANNEL = re.compile(r"(.+)\.ch([1-9][0-9]{0,3})", re.S)
# What programs write between the name of a recording and that of their table.
_TABLE_WORDS = re.compile(
    r"(?:[._ -](?:table[._ ]?[0-9]+|table|selections?|labels?|label[._ ]?track|"
    r"annotations?|audacity|raven|birdnet|results?|segments?|syllables?|units))+",
    re.I,
)


class NoRecordingError(Exception):
    """A name leads to no recording, or to several; the text says why."""


class RecordingFolder:
    """Recordings and other files of a folder and its subfolders.

    Names that begin with a dot are passed over, as everywhere.

    Parameters
    ----------
    folder : Path
        Folder of a dataset.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.recordings: list[str] = []
        self.others: list[str] = []
        for name in sorted(_files_below(folder)):
            suffix = PurePosixPath(name).suffix.casefold()
            (self.recordings if suffix in SUFFIXES else self.others).append(name)
        self._by_name = _Index(self.recordings, lambda name: [name])
        self._by_base = _Index(self.recordings, lambda name: [_base(name)])
        self._by_stem = _Index(self.recordings, lambda name: [_stem(_base(name))])
        # Our tables escape bytes that are no UTF-8.
        self._by_escape = _Index(
            [name for name in self.recordings if plain(name) != name],
            lambda name: {plain(name), plain(_base(name))},
        )
        self._by_track = _Index(
            self.recordings, lambda name: _track_names(folder / name)
        )

    def named(self, name: str, *, elsewhere: bool = False) -> tuple[str, int | None]:
        """Find a recording by the name that a table gives it.

        Accepted are blanks around it, backslashes, small letters for capitals, and
        ``.chN`` behind it, which names a channel.

        Parameters
        ----------
        name : str
            Path relative to the folder.
        elsewhere : bool
            Whether the path is another machine's: then the last part counts, and the
            recording may have been converted to another format.

        Returns
        -------
        file : str
            Path relative to the folder; an absolute one outside of it.
        channel : int, optional

        Raises
        ------
        NoRecordingError
            There is none, or several could be meant.
        """
        for candidate in dict.fromkeys((name, name.strip())):
            if "\0" not in candidate and os.path.isfile(self.folder / candidate):
                return self._relative(candidate), None
        escaped = name.strip().rpartition("/")[2] if elsewhere else name.strip()
        parts = _CHANNEL.fullmatch(escaped)
        if found := self._by_escape.of(escaped):
            return _only(_nearest(found, name), name), None
        if parts and (found := self._by_escape.of(parts[1])):
            return _only(_nearest(found, name), name), int(parts[2])
        slashed = name.strip().replace("\\", "/")
        if os.path.isfile(self.folder / slashed):
            return self._relative(slashed), None
        plain = slashed.removeprefix("./")
        if found := self._by_name.of(os.path.normpath(plain)):
            return _only(found, name), None
        if elsewhere:
            base = _base(plain)
            found = self._by_base.of(base) or self._by_stem.of(_stem(base))
            if found:
                return _only(_nearest(found, plain), name), None
        if parts := _CHANNEL.fullmatch(plain):
            file, _ = self.named(parts[1], elsewhere=elsewhere)
            return file, int(parts[2])
        raise NoRecordingError(self._why_none(name, plain))

    def annotated_by(self, table: str, suffix: str) -> tuple[str, int | None]:
        """Find the recording that a table is named like.

        ``song.txt``, ``song.wav.txt``, ``song.Table.1.selections.txt`` and
        ``labels.song.wav.txt`` belong to ``song.wav``; ``song_c.txt`` does not.

        Parameters
        ----------
        table : str
            Path of the table relative to the folder.
        suffix : str
            End of the table's name, such as ``.txt``.

        Raises
        ------
        NoRecordingError
            There is none, or several could be meant.
        """
        base = _base(table)[: -len(suffix)]
        names = [base]
        if words := _trailing_words(base):
            names.append(base[: -len(words)])
        for name in names:
            channel = None
            if parts := _CHANNEL.fullmatch(name):
                name, channel = parts[1], int(parts[2])
            found = self._by_base.of(name) or self._by_stem.of(name)
            if not found and PurePosixPath(name).suffix.casefold() in (
                SUFFIXES | _RAW_SUFFIXES
            ):
                found = self._by_stem.of(_stem(name))
            if found:
                return _only(_nearest(found, table), _base(table)), channel
        if made := self._track_of(names[-1], table):
            return made
        raise NoRecordingError(self._why_no_namesake(table, base))

    def only_besides(
        self, annotated: Collection[str], table: str, suffix: str
    ) -> str | None:
        """Return the only recording left for a table such as ``labels.txt``.

        None if several are left, or if the table's name may be that of a recording: it
        must consist of words for tables alone.
        """
        base = _base(table)[: -len(suffix)]
        left = [name for name in self.recordings if name not in annotated]
        return (
            left[0] if len(left) == 1 and _TABLE_WORDS.fullmatch(f".{base}") else None
        )

    def _track_of(self, name: str, table: str) -> tuple[str, int | None] | None:
        """Find the recording whose whole name stands behind a dot, as we write it."""
        channel = None
        if parts := _CHANNEL.fullmatch(name):
            name, channel = parts[1], int(parts[2])
        at = name.find(".")
        while at >= 0:
            end = name[at + 1 :]
            if found := self._by_track.of(end):
                return _only(_nearest(found, table), _base(table)), channel
            at = name.find(".", at + 1)
        return None

    def _relative(self, name: str) -> str:
        """Return the path of a file relative to the folder, in its shortest form."""
        path = os.path.normpath(os.path.join(os.path.abspath(self.folder), name))
        inside = os.path.abspath(self.folder) + os.sep
        return Path(path.removeprefix(inside)).as_posix()

    def _why_none(self, name: str, plain: str) -> str:
        path = self.folder / plain
        if "\0" not in plain and os.path.isdir(path):
            return f"{shown(name)} is a folder, not a recording"
        same = self._by_base.of(_base(plain))
        hint = f" (in the folder there is {shown(same[0])})" if same else ""
        return f"recording {shown(name)} does not exist{hint}"

    def _why_no_namesake(self, table: str, base: str) -> str:
        raw = f"{PurePosixPath(table).parent / base}"
        is_raw = PurePosixPath(base).suffix.casefold() in _RAW_SUFFIXES
        if is_raw and os.path.isfile(self.folder / raw):
            return (
                f"its recording {shown(base)} is of a format that is not read: "
                f"convert it to {shown(_stem(base) + '.wav')}"
            )
        return "no recording of the same name is in the folder"


class _Index:
    """Finds names by a key, first as it is written, then without regard to case."""

    def __init__(
        self, names: Iterable[str], keys: Callable[[str], Iterable[str]]
    ) -> None:
        self._exact: defaultdict[str, list[str]] = defaultdict(list)
        self._folded: defaultdict[str, list[str]] = defaultdict(list)
        for name in names:
            for key in keys(name):
                self._exact[key].append(name)
                self._folded[_folded(key)].append(name)

    def of(self, key: str) -> list[str]:
        """Return the names with a key; empty if there is none."""
        return self._exact.get(key) or self._folded.get(_folded(key)) or []


def _files_below(folder: Path) -> Iterator[str]:
    """Yield the files of a folder and its subfolders, links to folders included."""
    seen = set()
    for root, folders, files in os.walk(folder, followlinks=True):
        status = os.stat(root)
        identity = (status.st_dev, status.st_ino)
        if identity in seen:  # a link leads back
            folders.clear()
            continue
        seen.add(identity)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in files:
            path = os.path.join(root, name)
            if not name.startswith(".") and os.path.isfile(path):
                yield Path(os.path.relpath(path, folder)).as_posix()


def _trailing_words(base: str) -> str:
    """Return the words at the end of a table's name that name no recording."""
    found = None
    for match in _TABLE_WORDS.finditer(base):
        found = match
    return found[0] if found and found.end() == len(base) and found.start() else ""


def _nearest(names: list[str], path: str) -> list[str]:
    """Return the names in the path's folder, or else in the most similar ones."""
    wanted = PurePosixPath(path).parent
    parts = [_folded(part) for part in wanted.parts]

    def likeness(name: str) -> tuple[bool, int]:
        parent = PurePosixPath(name).parent
        own = [_folded(part) for part in parent.parts]
        same = 0
        while same < min(len(own), len(parts)) and own[-1 - same] == parts[-1 - same]:
            same += 1
        return parent == wanted, same

    best = max(map(likeness, names))
    return [name for name in names if likeness(name) == best]


def _only(names: list[str], named: str) -> str:
    """Return the only name; raises `NoRecordingError` if there are several."""
    if len(names) == 1:
        return names[0]
    listed = ", ".join(map(shown, names[:3]))
    raise NoRecordingError(f"{shown(named)} may mean several recordings: {listed}")


def _base(name: str) -> str:
    return name.replace("\\", "/").rpartition("/")[2]


def _stem(base: str) -> str:
    return base.rpartition(".")[0] or base


def _track_names(path: Path) -> list[str]:
    """Return the names that an Audacity track of a recording may have.

    They hold as much of its path as was given to the command that wrote it.
    """
    parts = path.absolute().parts[1:]
    return [track_name("/".join(parts[k:])) for k in range(len(parts))]


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()
