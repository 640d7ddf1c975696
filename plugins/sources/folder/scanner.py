"""Scanner of a folder for recordings that are finished and were not read yet."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import tzinfo
from pathlib import Path

from neurovocal.engine import NS, AudioFileError, Clock
from neurovocal.plugins.sources.audio_files.file import (
    SUFFIXES,
    RecordingHeader,
    inspect,
    natural_key,
)
from neurovocal.plugins.sources.folder.state import ProcessedFiles

# A scan opens files for this long; the next one continues: there may be thousands.
_INSPECT_NS = NS // 5


@dataclass(frozen=True, slots=True)
class FinishedFile:
    """File that has not changed for a while.

    ``header`` is None if the file is no usable recording; ``problem`` says why.
    """

    name: str
    path: Path
    stat: os.stat_result
    header: RecordingHeader | None
    problem: str | None = None

    @property
    def sort_key(self) -> tuple[int, list[tuple[int, int, str]]]:
        """Sort key: the time of recording, or else of the last change."""
        start = self.header.start.utc_ns if self.header else None
        time = self.stat.st_mtime_ns if start is None else start
        return time, natural_key(self.path)

    @property
    def is_unchanged(self) -> bool:
        """True if the file exists and has not changed."""
        try:
            now = self.path.stat()
        except OSError:
            return False
        return _state(now) == _state(self.stat)


@dataclass(slots=True)
class _Watched:
    state: tuple[int, int]
    since_ns: int  # when the file was first seen in this state
    finished: FinishedFile | None = None


class FolderScanner:
    """Scanner that polls a folder for finished recordings.

    A file is finished when neither its size nor its time of change has changed for
    `settle_s` and it has the samples that its header states. Another file, or one that
    is no recording, counts as finished after `partial_s`. The folder is polled
    because recorders write over networks and onto cards that send no notifications, and
    because a poll finds the same files after a kill.

    Parameters
    ----------
    folder : Path
        Folder in which recordings appear.
    recursive : bool
        True to search folders inside it, too.
    settle_s, partial_s : float
        See above.
    zone : tzinfo, optional
        Zone of times of day without one.
    clock : Clock
        Measures how long a file has not changed.

    Attributes
    ----------
    unreadable : dict of str to str
        Reasons why files and folders cannot be read, by their names.
    is_busy : bool
        True while files wait to be inspected: until all are, none is returned, so that
        the earliest is read first.
    """

    def __init__(
        self,
        folder: Path,
        recursive: bool,
        settle_s: float,
        partial_s: float,
        zone: tzinfo | None,
        clock: Clock,
    ) -> None:
        self._folder = folder
        self._recursive = recursive
        self._settle_ns = round(settle_s * NS)
        self._partial_ns = round(partial_s * NS)
        self._zone = zone
        self._clock = clock
        self._watched: dict[str, _Watched] = {}
        self.unreadable: dict[str, str] = {}
        self.is_busy = False

    @property
    def growing(self) -> int:
        """Number of files that may still change."""
        return sum(
            watched.finished is None and name not in self.unreadable
            for name, watched in self._watched.items()
        )

    def scan(self, processed: ProcessedFiles) -> list[FinishedFile]:
        """Return the finished files that were not read yet, in order of time.

        A file is returned by each scan until `processed` contains it.

        Raises
        ------
        OSError
            The folder cannot be read.
        """
        now = self._clock.monotonic_ns()
        before, self._watched = self._watched, {}
        self.unreadable, self.is_busy = {}, False
        finished = []
        for name, path, stat in self._files():
            if processed.is_finished(name, stat):
                continue
            watched = before.get(name)
            if watched is None or watched.state != _state(stat):
                watched = _Watched(_state(stat), now)
            self._watched[name] = watched
            if watched.finished is None and now - watched.since_ns >= self._settle_ns:
                if self._clock.monotonic_ns() - now > _INSPECT_NS:
                    self.is_busy = True
                else:
                    self._inspect(processed, name, Path(path), stat, now)
            if watched.finished is not None:
                finished.append(watched.finished)
        if self.is_busy:
            return []
        return sorted(finished, key=lambda file: file.sort_key)

    def _files(self) -> Iterator[tuple[str, str, os.stat_result]]:
        """Yield name, path and state of all files that may be recordings."""
        folders = [("", os.fspath(self._folder))]
        seen = {_identity(self._folder.stat())}  # links may lead in a circle
        while folders:
            prefix, folder = folders.pop()
            try:
                with os.scandir(folder) as entries:
                    found = list(entries)
            except OSError as error:
                if not prefix:
                    raise
                self._add_unreadable(prefix, f"folder '{folder}'", error)
                continue
            for entry in found:
                name = prefix + entry.name
                if entry.name.startswith("."):
                    continue  # a program's name for an incomplete file
                try:
                    if entry.is_dir():
                        if not self._recursive:
                            continue
                        if (identity := _identity(entry.stat())) not in seen:
                            seen.add(identity)
                            folders.append((name + "/", entry.path))
                    elif os.path.splitext(entry.name)[1].lower() in SUFFIXES:
                        yield name, entry.path, entry.stat()
                except FileNotFoundError:
                    continue  # it was removed during the scan
                except OSError as error:
                    self._add_unreadable(name, f"'{entry.path}'", error)

    def _add_unreadable(self, name: str, what: str, error: OSError) -> None:
        self.unreadable[name] = f"{what} cannot be read: {error.strerror}"

    def _inspect(
        self,
        processed: ProcessedFiles,
        name: str,
        path: Path,
        stat: os.stat_result,
        now: int,
    ) -> None:
        """Inspect a file that has not changed for `settle_s`; it may still grow."""
        watched = self._watched[name]
        is_old = now - watched.since_ns >= self._partial_ns
        try:
            if processed.matches(self._folder, name, stat):
                del self._watched[name]
                return
            header = inspect(path, self._zone)
        except FileNotFoundError:
            return
        except (AudioFileError, OSError) as error:
            reason = error if isinstance(error, OSError) else error.__cause__
            if isinstance(reason, OSError):
                # Rights and disks change without a change of the file.
                self._add_unreadable(name, f"'{path}'", reason)
            elif is_old and path.exists():
                watched.finished = FinishedFile(name, path, stat, None, str(error))
            return
        # A header that does not agree with what is there may be that of a file which
        # is still written, or copied.
        if is_old or header.container.state == "complete":
            watched.finished = FinishedFile(name, path, stat, header)


def _identity(stat: os.stat_result) -> tuple[int, int]:
    return stat.st_dev, stat.st_ino


def _state(stat: os.stat_result) -> tuple[int, int]:
    return stat.st_size, stat.st_mtime_ns
