"""Recordings that appear in a folder: seen, watched while they grow, finished."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import tzinfo
from pathlib import Path

from neurovocal.engine.contracts.clock import NS, Clock
from neurovocal.engine.contracts.errors import AudioFileError
from neurovocal.plugins.sources.audio_files.file import (
    SUFFIXES,
    Header,
    inspect,
    natural,
)
from neurovocal.plugins.sources.folder.state import ProcessedFiles

# So long a look opens files, then the next one goes on: thousands may be there.
_JUDGE_NS = NS // 5


@dataclass(frozen=True, slots=True)
class Arrival:
    """A file that has not changed for a while.

    ``header`` is None when it is no recording that can be used, which ``problem``
    says why.
    """

    name: str
    path: Path
    stat: os.stat_result
    header: Header | None
    problem: str | None = None

    @property
    def order(self) -> tuple[int, list[tuple[int, int, str]]]:
        """Sort key: by the time of recording, or else of the last change."""
        start = self.header.start.utc_ns if self.header else None
        time = self.stat.st_mtime_ns if start is None else start
        return time, natural(self.path)

    @property
    def is_unchanged(self) -> bool:
        """Whether the file is there, as it was."""
        try:
            now = self.path.stat()
        except OSError:
            return False
        return _state(now) == _state(self.stat)


@dataclass(slots=True)
class _Watched:
    state: tuple[int, int]
    since_ns: int  # when it was first seen so
    arrival: Arrival | None = None  # once it was judged


class Arrivals:
    """Looks into a folder again and again.

    A file is finished when neither its size nor its time of change has moved for
    `settle_s`, and it holds all that its header promises. One that promises more,
    or is no recording at all, has `partial_s` to become one. Folders are looked
    into rather than listened to: recorders write over networks and onto cards of
    which no notification comes, and the state to look at is the same after a kill.

    Parameters
    ----------
    folder : Path
        Where recordings appear.
    recursive : bool
        Whether folders inside it are searched, too.
    settle_s, partial_s : float
        See above.
    zone : tzinfo, optional
        Zone of times of day that do not name one.
    clock : Clock
        Measures how long a file has been as it is.

    Attributes
    ----------
    unreadable : dict of str to str
        Files and folders inside that cannot be read, by name, and why.
    busy : bool
        Whether files wait to be judged: until all are, none is handed out, so that
        the earliest goes first.
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
        self.busy = False

    @property
    def growing(self) -> int:
        """Files that were seen and may still change."""
        return sum(
            watched.arrival is None and name not in self.unreadable
            for name, watched in self._watched.items()
        )

    def look(self, taken: ProcessedFiles) -> list[Arrival]:
        """Files that are finished and not known to `taken`, in the order of time.

        They come in each look until they are known.

        Raises
        ------
        OSError
            The folder cannot be read.
        """
        now = self._clock.monotonic_ns()
        before, self._watched = self._watched, {}
        self.unreadable, self.busy = {}, False
        arrivals = []
        for name, path, stat in self._files():
            if taken.knows(name, stat):
                continue
            watched = before.get(name)
            if watched is None or watched.state != _state(stat):
                watched = _Watched(_state(stat), now)
            self._watched[name] = watched
            if watched.arrival is None and now - watched.since_ns >= self._settle_ns:
                if self._clock.monotonic_ns() - now > _JUDGE_NS:
                    self.busy = True
                else:
                    self._judge(taken, name, Path(path), stat, now)
            if watched.arrival is not None:
                arrivals.append(watched.arrival)
        if self.busy:
            return []
        return sorted(arrivals, key=lambda arrival: arrival.order)

    def _files(self) -> Iterator[tuple[str, str, os.stat_result]]:
        """Name, path and state of all that may be recordings."""
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
                self._cannot_read(prefix, f"folder '{folder}'", error)
                continue
            for entry in found:
                name = prefix + entry.name
                if entry.name.startswith("."):
                    continue  # how programs name what they have not finished
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
                    continue  # it went away between two looks
                except OSError as error:
                    self._cannot_read(name, f"'{entry.path}'", error)

    def _cannot_read(self, name: str, what: str, error: OSError) -> None:
        self.unreadable[name] = f"{what} cannot be read: {error.strerror}"

    def _judge(
        self,
        taken: ProcessedFiles,
        name: str,
        path: Path,
        stat: os.stat_result,
        now: int,
    ) -> None:
        """What a file is that has not changed for `settle_s`; perhaps too soon."""
        watched = self._watched[name]
        is_old = now - watched.since_ns >= self._partial_ns
        try:
            if taken.recognises(self._folder, name, stat):
                del self._watched[name]
                return
            header = inspect(path, self._zone)
        except FileNotFoundError:
            return
        except (AudioFileError, OSError) as error:
            reason = error if isinstance(error, OSError) else error.__cause__
            if isinstance(reason, OSError):
                # Rights and disks change, which the file itself does not show.
                self._cannot_read(name, f"'{path}'", reason)
            elif is_old and path.exists():
                watched.arrival = Arrival(name, path, stat, None, str(error))
            return
        if not header.truncated:
            watched.arrival = Arrival(name, path, stat, header)
        elif is_old:
            seconds = (header.n_samples or 0) / header.sample_rate
            problem = (
                f"'{path}' is cut off: it holds {seconds:.3f} s, less than it promises"
            )
            watched.arrival = Arrival(name, path, stat, None, problem)


def _identity(stat: os.stat_result) -> tuple[int, int]:
    return stat.st_dev, stat.st_ino


def _state(stat: os.stat_result) -> tuple[int, int]:
    return stat.st_size, stat.st_mtime_ns
