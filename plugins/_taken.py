"""Which recordings of a folder were taken already: a file that survives a kill."""

import fcntl
import json
import os
from pathlib import Path
from typing import Any, Literal, TypeAlias

from neurovocal.engine.errors import ConfigError

Verdict: TypeAlias = Literal["taken", "set aside"]


class Taken:
    """One JSON line per recording that was dealt with, on disk before it counts.

    A line is written and synced whole; what a kill left of a half-written last
    one is cut off. A lock keeps a second engine from taking the same recordings.

    Parameters
    ----------
    path : Path
        The state file; made when it is not there.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = -1
        self._entries: dict[str, dict[str, Any]] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def open(self) -> None:
        """Read what is known.

        Raises
        ------
        ConfigError
            The file cannot be read and written, is none of these, or is in use.
        """
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            data = self._path.read_bytes()
        except BlockingIOError as error:
            self.close()
            raise ConfigError(
                f"state '{self._path}' is in use: another engine takes these recordings"
            ) from error
        except OSError as error:
            self.close()
            raise ConfigError(
                f"state '{self._path}' cannot be written ({error.strerror}): name "
                "another file with the option state"
            ) from error
        whole = data.rfind(b"\n") + 1
        try:
            entries = [json.loads(line) for line in data[:whole].splitlines()]
            self._entries = {entry["file"]: entry for entry in entries}
        except (ValueError, TypeError, KeyError) as error:
            self.close()
            raise ConfigError(
                f"'{self._path}' is not the state of a folder source: name another "
                "file with the option state"
            ) from error
        os.ftruncate(self._fd, whole)
        os.lseek(self._fd, 0, os.SEEK_END)

    def knows(self, name: str, stat: os.stat_result) -> bool:
        """Whether a recording was dealt with.

        One that was taken is so for ever; one that was set aside, until it changes.
        """
        entry = self._entries.get(name)
        if entry is None:
            return False
        same = (entry["size"], entry["mtime_ns"]) == (stat.st_size, stat.st_mtime_ns)
        return same or entry["verdict"] == "taken"

    def add(
        self, name: str, stat: os.stat_result, verdict: Verdict, **more: object
    ) -> None:
        """Remember a recording; on return it is on disk."""
        entry = {
            "file": name,
            "size": stat.st_size,
            "mtime_ns": stat.st_mtime_ns,
            "verdict": verdict,
            **more,
        }
        data = json.dumps(entry).encode() + b"\n"
        while data:
            data = data[os.write(self._fd, data) :]
        os.fsync(self._fd)
        self._entries[name] = entry

    def close(self) -> None:
        """Let others have it. May be called twice."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
