"""Folder of clips, within quotas and above a minimum of free disk space."""

import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from errno import ENOSPC
from pathlib import Path

from neurovocal.engine import ConfigError
from neurovocal.plugins.storage.durable import durable_file, remove_file, sync_folder
from neurovocal.plugins.storage.folder import OutputFolder

# Only files with names that this store gives are counted and may be removed.
_DAY = re.compile(r"\d{4}-\d\d-\d\d|undated")
_CLIP = re.compile(r".+_s\d{12,}\.(flac|wav)")
_PART = ".part"
_MB = 1_000_000


class QuotaError(Exception):
    """The quotas or the minimum of free space do not allow a clip."""


class NoSpaceError(QuotaError):
    """The minimum of free space does not allow a clip."""


@dataclass(frozen=True, slots=True)
class ClipQuotas:
    """Quotas of a folder; None: no limit.

    ``remove_oldest``: whether the oldest clips are removed for new ones.
    """

    max_bytes: int | None = None
    max_files: int | None = None
    min_free_bytes: int = 0
    remove_oldest: bool = True


def free_bytes(folder: Path) -> int:
    """Return the bytes on the disk that are free for an ordinary user."""
    return shutil.disk_usage(folder).free


class ClipStore:
    """Writes pairs of files, audio and sidecar, into ``DAY/STREAM/``.

    Parameters
    ----------
    folder : Path
        Folder of the days.
    limits : ClipQuotas
        Quotas; clips of earlier runs count, too.
    free : callable
        ``free(folder)`` returns the free bytes.

    Attributes
    ----------
    files, size : int
        Number of clips in the folder, and their size in bytes with sidecars.
    removed : int
        Number of clips that were removed for new ones.
    deleted : int
        Number of times that the folder was found deleted and was made again.
    """

    def __init__(
        self, folder: Path, limits: ClipQuotas, free: Callable[[Path], int] = free_bytes
    ) -> None:
        self.folder = folder
        self._output = OutputFolder(folder, make=True)
        self.files = self.size = self.removed = 0
        self._quotas = limits
        self._free = free
        self._sizes: dict[Path, int] = {}  # bytes of each clip, the oldest first
        self._needed = 0  # bytes of the last clip, if it was not written
        self._recount = False  # whether the counts may be wrong

    def open(self) -> None:
        """Make the folder, count its clips and remove unfinished ones of a killed run.

        Raises
        ------
        ConfigError
            The folder cannot be made or written to.
        """
        try:
            self._output.open("clips")
            self._count()
        except OSError as error:
            raise ConfigError(
                f"clips cannot be written to '{self.folder}': {error.strerror}"
            ) from error

    def close(self) -> None:
        """Let other processes write to the folder. May be called twice."""
        self._output.close()

    @property
    def deleted(self) -> int:
        """Number of times that the folder was found deleted and was made again."""
        return self._output.remade

    def check_space(self, size: int = 0) -> None:
        """Raise QuotaError or OSError if `size` more bytes may not be written."""
        limits = self._quotas
        self._refresh()
        free = self._free(self.folder)
        if limits.min_free_bytes and free - size < limits.min_free_bytes:
            raise NoSpaceError(
                f"only {free / _MB:.1f} MB are free in '{self.folder}' "
                f"(min_free_mb: {limits.min_free_bytes / _MB:g})"
            )
        if limits.remove_oldest:
            return
        if limits.max_files is not None and self.files + 1 > limits.max_files:
            raise QuotaError(f"'{self.folder}' holds {self.files} clips (max_files)")
        if limits.max_bytes is not None and self.size + size > limits.max_bytes:
            raise QuotaError(f"'{self.folder}' holds {self.size / _MB:.1f} MB (max_mb)")

    def write(self, name: Path, audio: bytes, sidecar: bytes) -> None:
        """Write a clip and its sidecar, or nothing, and synchronize them.

        The sidecar gets its name last: beside a sidecar there is always its audio.

        Raises
        ------
        QuotaError
            The limits do not allow the clip; `NoSpaceError` if the disk is full.
        OSError
            The disk does not take the clip.
        """
        size = len(audio) + len(sidecar)
        path = self.folder / name
        self._needed = size
        self.check_space(size)
        self._free_space(path, size)
        _make_folder(path.parent)
        parts = [path.with_name(f".{path.name}{_PART}")]
        parts.append(parts[0].with_suffix(f".json{_PART}"))
        has_name = False
        try:
            for part, content in zip(parts, (audio, sidecar), strict=True):
                with durable_file(part) as file:
                    file.write(content)
            parts[0].rename(path)
            has_name = True
            parts[1].rename(path.with_suffix(".json"))
            sync_folder(path.parent)
        except OSError:
            if has_name:
                remove_file(path)  # it would have no sidecar
            for part in parts:
                remove_file(part)
            raise
        self._needed = 0
        self._add(path, size)

    def probe(self) -> None:
        """Check that a clip could be written; raise as `write` does."""
        # Another program may have removed clips to make room.
        self._recount |= not self._quotas.remove_oldest
        self.check_space(self._needed)
        if self._free(self.folder) < self._needed:
            raise OSError(ENOSPC, os.strerror(ENOSPC))
        probe = self.folder / f".probe-{os.getpid()}{_PART}"
        try:
            with durable_file(probe) as file:
                file.write(b"?")
        finally:
            remove_file(probe)

    def _refresh(self) -> None:
        """Make the folder if it is missing, and count its clips again if needed."""
        remade = self._output.remade
        try:
            self._output.ensure()
        except OSError:
            self._recount = True  # another disk may be mounted later
            raise
        if self._recount or self._output.remade != remade:
            self._count()
            self._recount = False

    def _free_space(self, path: Path, size: int) -> None:
        limits = self._quotas
        if not limits.remove_oldest:
            return
        while self._sizes and (
            (limits.max_files is not None and self.files + 1 > limits.max_files)
            or (limits.max_bytes is not None and self.size + size > limits.max_bytes)
        ):
            oldest = next(iter(self._sizes))
            # The sidecar first: there must be none without its audio.
            oldest.with_suffix(".json").unlink(missing_ok=True)
            oldest.unlink(missing_ok=True)
            for folder in (oldest.parent, oldest.parent.parent):
                if folder != path.parent and not any(_entries(folder)):
                    _remove_folder(folder)
            self._drop(oldest)
            self.removed += 1
        if limits.max_bytes is not None and size > limits.max_bytes:
            raise QuotaError(f"a clip of {size / _MB:.1f} MB is more than max_mb")

    def _count(self) -> None:
        found = []
        self._sizes.clear()
        self.files = self.size = 0
        days = [d for d in _entries(self.folder) if _DAY.fullmatch(d.name)]
        for stream in (s for day in days for s in _entries(day)):
            _remove_unfinished(stream)
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
        self._drop(path)  # a clip of that name was replaced
        self._sizes[path] = size
        self.files += 1
        self.size += size

    def _drop(self, path: Path) -> None:
        size = self._sizes.pop(path, None)
        if size is not None:
            self.files -= 1
            self.size -= size


def _entries(folder: Path) -> list[Path]:
    """Return the entries of a folder by name; none of a link or another file."""
    if folder.is_symlink() or not folder.is_dir():
        return []
    return sorted(folder.iterdir())


def _remove_unfinished(folder: Path) -> None:
    """Remove unfinished clips of a killed run, or give a complete sidecar its name.

    Both files are complete before the audio gets its name, so nothing but the name of
    the sidecar is missing then.
    """
    for part in _entries(folder):
        if not (part.name.startswith(".") and part.name.endswith(_PART)):
            continue
        name = part.name[1:].removesuffix(_PART)
        audio = name.removesuffix(".json")
        lacks_name = name != audio and not (folder / f".{audio}{_PART}").exists()
        if lacks_name and (folder / audio).exists():
            part.replace((folder / audio).with_suffix(".json"))
        else:
            part.unlink()


def _make_folder(folder: Path) -> None:
    """Make a folder and its missing parents, and synchronize each."""
    if folder.is_dir():
        return
    _make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    sync_folder(folder.parent)


def _remove_folder(folder: Path) -> None:
    try:
        folder.rmdir()
    except OSError:
        return
