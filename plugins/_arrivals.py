"""Recordings that appear in a folder: seen, watched while they grow, finished."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import tzinfo
from pathlib import Path

from neurovocal.engine.errors import AudioFileError
from neurovocal.engine.timebase import NS, Clock
from neurovocal.plugins._recording import SUFFIXES, Header, inspect, natural
from neurovocal.plugins._taken import Taken


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


@dataclass(slots=True)
class _Watched:
    size: int
    mtime_ns: int
    since_ns: int  # when it was first seen so


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

    @property
    def growing(self) -> int:
        """Files that were seen and may still change."""
        return len(self._watched)

    def look(self, taken: Taken) -> list[Arrival]:
        """Files that are finished and not known to `taken`, in the order of time.

        Raises
        ------
        OSError
            The folder cannot be read.
        """
        now = self._clock.monotonic_ns()
        before, self._watched = self._watched, {}
        arrivals = []
        for path in self._files():
            name = path.relative_to(self._folder).as_posix()
            try:
                stat = path.stat()
            except OSError:
                continue  # it went away between two looks
            if taken.knows(name, stat):
                continue
            watched = before.get(name)
            if watched is None or _changed(watched, stat):
                watched = _Watched(stat.st_size, stat.st_mtime_ns, now)
            self._watched[name] = watched
            arrival = self._judge(name, path, stat, now - watched.since_ns)
            if arrival is not None:
                arrivals.append(arrival)
                del self._watched[name]
        return sorted(arrivals, key=lambda arrival: arrival.order)

    def _files(self) -> Iterator[Path]:
        folders = [self._folder]
        while folders:
            with os.scandir(folders.pop()) as entries:
                for entry in entries:
                    if entry.name.startswith("."):
                        continue  # how programs name what they have not finished
                    if entry.is_dir():
                        if self._recursive:
                            folders.append(Path(entry.path))
                    elif os.path.splitext(entry.name)[1].lower() in SUFFIXES:
                        yield Path(entry.path)

    def _judge(
        self, name: str, path: Path, stat: os.stat_result, still_ns: int
    ) -> Arrival | None:
        """What a file is that has not changed for `still_ns`; None: too soon."""
        if still_ns < self._settle_ns:
            return None
        try:
            header = inspect(path, self._zone)
        except AudioFileError as error:
            if still_ns < self._partial_ns or not path.exists():
                return None
            return Arrival(name, path, stat, None, str(error))
        if not header.truncated:
            return Arrival(name, path, stat, header)
        if still_ns < self._partial_ns:
            return None
        seconds = (header.n_samples or 0) / header.sample_rate
        problem = (
            f"'{path}' is cut off: it holds {seconds:.3f} s, less than it promises"
        )
        return Arrival(name, path, stat, None, problem)


def _changed(watched: _Watched, stat: os.stat_result) -> bool:
    return (watched.size, watched.mtime_ns) != (stat.st_size, stat.st_mtime_ns)
