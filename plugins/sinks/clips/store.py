"""A folder of clips: whole files or none, within quotas, above a floor of space."""

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from errno import ENOSPC
from pathlib import Path

from neurovocal.engine.contracts.errors import ConfigError
from neurovocal.plugins.storage.folder import OutputFolder

# What this store has written, and nothing else, counts and may be removed.
_DAY = re.compile(r"\d{4}-\d\d-\d\d|undated")
_CLIP = re.compile(r".+_s\d{12,}\.(flac|wav)")
_PART = ".part"
_MB = 1_000_000


class NoRoom(Exception):  # noqa: N818 (a state, not a mistake)
    """The quota or the floor of free space does not let the clip in."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much a folder may hold; None: no limit.

    ``remove_oldest``: whether the oldest clips make room for the newest.
    """

    max_bytes: int | None = None
    max_files: int | None = None
    min_free_bytes: int = 0
    remove_oldest: bool = True


def free_bytes(folder: Path) -> int:
    """Bytes that an ordinary user could still write there."""
    status = os.statvfs(folder)
    return status.f_bavail * status.f_frsize


class ClipStore:
    """Writes pairs of files, audio and sidecar, into ``DAY/STREAM/``.

    Parameters
    ----------
    folder : Path
        Where the days go.
    limits : Limits
        Quotas over what earlier runs left there, too.
    free : callable
        ``free(folder)`` gives the bytes that are free.

    Attributes
    ----------
    files, size : int
        Clips in the folder, and their bytes with sidecars.
    removed : int
        Clips that made room for others.
    deleted : int
        How often the folder was found deleted, and made again.
    """

    def __init__(
        self, folder: Path, limits: Limits, free: Callable[[Path], int] = free_bytes
    ) -> None:
        self.folder = folder
        self._place = OutputFolder(folder, make=True)
        self.files = self.size = self.removed = 0
        self._limits = limits
        self._free = free
        self._sizes: dict[Path, int] = {}  # the oldest first
        self._needed = 0  # bytes of the clip that was not taken last
        self._doubtful = False  # whether the disk may hold other clips than we know

    def open(self) -> None:
        """Make the folder, count its clips, remove what a killed run left unfinished.

        Raises
        ------
        ConfigError
            The folder cannot be made or written to.
        """
        try:
            self._place.enter()
            self._count()
        except OSError as error:
            raise ConfigError(
                f"clips cannot be written to '{self.folder}': {error.strerror}"
            ) from error

    @property
    def deleted(self) -> int:
        """How often the folder was found deleted, and made again."""
        return self._place.remade

    def check_room(self, size: int = 0) -> None:
        """Raise NoRoom, or OSError, if `size` bytes more may not be written."""
        limits = self._limits
        self._look_around()
        free = self._free(self.folder)
        if limits.min_free_bytes and free - size < limits.min_free_bytes:
            raise NoRoom(
                f"only {free / _MB:.1f} MB are free in '{self.folder}' "
                f"(min_free_mb: {limits.min_free_bytes / _MB:g})"
            )
        if limits.remove_oldest:
            return
        if limits.max_files is not None and self.files + 1 > limits.max_files:
            raise NoRoom(f"'{self.folder}' holds {self.files} clips (max_files)")
        if limits.max_bytes is not None and self.size + size > limits.max_bytes:
            raise NoRoom(f"'{self.folder}' holds {self.size / _MB:.1f} MB (max_mb)")

    def write(self, name: Path, audio: bytes, sidecar: bytes) -> None:
        """Write a clip and its sidecar, or nothing; both are on the disk afterwards.

        The sidecar gets its name last: whoever finds one finds its audio.

        Raises
        ------
        NoRoom
            Limits do not allow it.
        OSError
            The disk does not take it.
        """
        size = len(audio) + len(sidecar)
        path = self.folder / name
        self._needed = size
        self.check_room(size)
        self._make_room(path, size)
        _make_folder(path.parent)
        parts = [path.with_name(f".{path.name}{_PART}")]
        parts.append(parts[0].with_suffix(f".json{_PART}"))
        try:
            for part, content in zip(parts, (audio, sidecar), strict=True):
                _write_safely(part, content)
            parts[0].rename(path)
            parts[1].rename(path.with_suffix(".json"))
            _sync_folder(path.parent)
        except OSError:
            if not parts[0].exists():
                _unlink(path)  # it has its name already, and will have no sidecar
            for part in parts:
                _unlink(part)
            raise
        self._needed = 0
        self._add(path, size)

    def probe(self) -> None:
        """Try whether a clip would be taken; raises as `write` does."""
        # Somebody may have made room; where we do it ourselves nobody need count.
        self._doubtful |= not self._limits.remove_oldest
        self.check_room(self._needed)
        if self._free(self.folder) < self._needed:
            raise OSError(ENOSPC, os.strerror(ENOSPC))
        probe = self.folder / f".probe{_PART}"
        try:
            _write_safely(probe, b"?")
        finally:
            _unlink(probe)

    def _look_around(self) -> None:
        """Make sure of the folder; count again what may not be what it was."""
        remade = self._place.remade
        try:
            self._place.enter()
        except OSError:
            self._doubtful = True  # what comes back may be another disk
            raise
        if self._doubtful or self._place.remade != remade:
            self._count()
            self._doubtful = False

    def _make_room(self, path: Path, size: int) -> None:
        limits = self._limits
        if not limits.remove_oldest:
            return
        while self._sizes and (
            (limits.max_files is not None and self.files + 1 > limits.max_files)
            or (limits.max_bytes is not None and self.size + size > limits.max_bytes)
        ):
            oldest = next(iter(self._sizes))
            # The sidecar goes first: one without its audio must never be seen.
            oldest.with_suffix(".json").unlink(missing_ok=True)
            oldest.unlink(missing_ok=True)
            for folder in (oldest.parent, oldest.parent.parent):
                if folder != path.parent and not any(_entries(folder)):
                    _remove_folder(folder)
            self._drop(oldest)
            self.removed += 1
        if limits.max_bytes is not None and size > limits.max_bytes:
            raise NoRoom(f"a clip of {size / _MB:.1f} MB is more than max_mb")

    def _count(self) -> None:
        found = []
        self._sizes.clear()
        self.files = self.size = 0
        days = [d for d in _entries(self.folder) if _DAY.fullmatch(d.name)]
        for stream in (s for day in days for s in _entries(day)):
            _tidy(stream)
            for path in _entries(stream):
                if _CLIP.fullmatch(path.name):
                    status = path.stat()
                    sidecar = path.with_suffix(".json")
                    size = sidecar.stat().st_size if sidecar.exists() else 0
                    key = (status.st_mtime_ns, path)
                    found.append((key, path, status.st_size + size))
        for _, path, size in sorted(found):
            self._add(path, size)

    def _add(self, path: Path, size: int) -> None:
        self._drop(path)  # the same recording once more: the file was replaced
        self._sizes[path] = size
        self.files += 1
        self.size += size

    def _drop(self, path: Path) -> None:
        size = self._sizes.pop(path, None)
        if size is not None:
            self.files -= 1
            self.size -= size


def _entries(folder: Path) -> list[Path]:
    """What is in a folder, by name; nothing if it is no folder, or a link to one."""
    if folder.is_symlink() or not folder.is_dir():
        return []
    return sorted(folder.iterdir())


def _tidy(folder: Path) -> None:
    """Remove what a killed run left unfinished, but for a sidecar without its name.

    Both files are whole before the audio gets its name: where that is done, the
    sidecar needs nothing else.
    """
    for part in _entries(folder):
        if not (part.name.startswith(".") and part.name.endswith(_PART)):
            continue
        name = part.name[1:].removesuffix(_PART)
        audio = name.removesuffix(".json")
        waits = name != audio and not (folder / f".{audio}{_PART}").exists()
        if waits and (folder / audio).exists():
            part.replace((folder / audio).with_suffix(".json"))
        else:
            part.unlink()


def _make_folder(folder: Path) -> None:
    """Make a folder and those above it, each known to the disk."""
    if folder.is_dir():
        return
    _make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    _sync_folder(folder.parent)


def _write_safely(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _unlink(path: Path) -> None:
    """Remove a file that may be gone, or out of reach, already."""
    try:
        path.unlink(missing_ok=True)
    except OSError:
        return


def _remove_folder(folder: Path) -> None:
    try:
        folder.rmdir()
    except OSError:
        return
