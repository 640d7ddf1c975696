"""Which recordings of a folder were taken already: a file that survives a kill."""

import fcntl
import json
import os
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from typing import Any, Literal, TypeAlias

from neurovocal.engine.contracts.errors import ConfigError

Verdict: TypeAlias = Literal["begun", "taken", "set aside"]

_PROBE_BYTES = 32_768
_PROBES = 8


class ProcessedFiles:
    """One JSON line per recording that was begun or dealt with, synced to disk.

    A line is written whole; what a kill left of a half-written last one is cut off.
    A lock keeps a second engine from taking the same recordings. When the disk
    cannot be written, or went away, lines wait in memory until it can again.

    Parameters
    ----------
    path : Path
        The state file; made when it is not there.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = -1
        self._end = 0  # bytes of whole lines
        self._entries: dict[str, dict[str, Any]] = {}
        self._unsaved: list[dict[str, Any]] = []
        # Recordings that were taken, by what a new name leaves as it was.
        self._alike: dict[tuple[int, int], str] = {}

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
            self._load()
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
        except (ValueError, TypeError, KeyError) as error:
            self.close()
            raise ConfigError(
                f"'{self._path}' is not the state of a folder source: name another "
                "file with the option state"
            ) from error

    def _load(self) -> None:
        """Take hold of the file; what it says goes before what is remembered."""
        self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        data = self._path.read_bytes()
        self._end = data.rfind(b"\n") + 1
        lines = [json.loads(line) for line in data[: self._end].splitlines()]
        for entry in lines:
            entry["size"], entry["mtime_ns"], entry["verdict"]  # all are there
        for entry in {entry["file"]: entry for entry in lines}.values():
            known = self._entries.get(entry["file"], {})
            if entry["verdict"] == "begun" and _is_end_of(entry, known):
                self._unsaved.append(known)  # the disk was away when it was taken
            else:
                self._keep(entry)
        for entry in self._unsaved:
            self._keep(entry)
        os.ftruncate(self._fd, self._end)
        _sync_folder(self._path.parent)

    def _keep(self, entry: dict[str, Any]) -> None:
        self._entries[entry["file"]] = entry
        if entry["verdict"] == "taken":
            self._alike[entry["size"], entry["mtime_ns"]] = entry["file"]

    def knows(self, name: str, stat: os.stat_result) -> bool:
        """Whether a recording was dealt with and is as it was then."""
        entry = self._entries.get(name)
        if entry is None or entry["verdict"] == "begun":
            return False
        return (entry["size"], entry["mtime_ns"]) == (stat.st_size, stat.st_mtime_ns)

    def recognises(self, folder: Path, name: str, stat: os.stat_result) -> bool:
        """Whether one that `knows` does not is yet one that was taken.

        Its time of change may be another (a copy; a card's clock without a zone), or
        its name. It is then known from now on. Another recording under a name that
        was used before is none.

        Raises
        ------
        OSError
            It cannot be read.
        """
        entry = self._entries.get(name)
        if entry is None:
            before = self._alike.get((stat.st_size, stat.st_mtime_ns))
            if before is None or os.path.lexists(folder / before):
                return False
            entry = self._entries[before]
        if entry["verdict"] != "taken" or entry["size"] != stat.st_size:
            return False
        if entry.get("print") not in (None, fingerprint(folder / name, stat.st_size)):
            return False
        more = {"renamed from": entry["file"]} if entry["file"] != name else {}
        self.add(name, stat, "taken", print=entry.get("print"), **more)
        return True

    def begun_by(self, name: str, print_: str) -> list[str]:
        """Runs that began to read a recording and have not got to its end.

        Another content under the name is another recording.
        """
        entry = self._entries.get(name, {})
        if entry.get("verdict") != "begun" or entry.get("print") not in (None, print_):
            return []
        return list(entry.get("runs") or [entry["run"]])

    def is_new_of_name(self, name: str, print_: str) -> bool:
        """Whether another recording of this name was begun or taken before."""
        entry = self._entries.get(name, {})
        if self.begun_by(name, print_):
            return bool(entry.get("name was used"))
        return entry.get("verdict") in ("begun", "taken")

    def add(
        self, name: str, stat: os.stat_result, verdict: Verdict, **more: object
    ) -> str | None:
        """Remember a recording; what `save` returns."""
        entry = {
            "file": name,
            "size": stat.st_size,
            "mtime_ns": stat.st_mtime_ns,
            "verdict": verdict,
            **{key: value for key, value in more.items() if value is not None},
        }
        self._keep(entry)
        self._unsaved.append(entry)
        return self.save()

    def save(self) -> str | None:
        """Write what is not on disk yet; why it cannot be, else None.

        Where another disk is in that place by now, its state is read first.
        """
        try:
            if not self._is_in_place():
                self.close()
                self._load()
            if not self._unsaved:
                return None
            lines = b"".join(json.dumps(e).encode() + b"\n" for e in self._unsaved)
            written = 0
            while written < len(lines):
                at = self._end + written
                written += os.pwrite(self._fd, lines[written:], at)
            os.fsync(self._fd)
        except (OSError, ValueError, TypeError, KeyError) as error:
            with suppress(OSError):  # no half line may be followed by another
                os.ftruncate(self._fd, self._end)
            reason = getattr(error, "strerror", None) or "it is none"
            return f"state '{self._path}' cannot be written: {reason}"
        self._end += len(lines)
        self._unsaved.clear()
        return None

    def _is_in_place(self) -> bool:
        """Whether the open file is still the one of that name, on that disk."""
        if self._fd < 0:
            return False
        try:
            return os.path.samestat(os.fstat(self._fd), self._path.stat())
        except FileNotFoundError:
            return False

    def close(self) -> None:
        """Let others have it. May be called twice."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            with suppress(OSError):  # a share that is cut may say so now
                os.close(fd)


def fingerprint(path: Path, size: int) -> str:
    """What tells recordings of one size apart: a digest of parts of the file.

    Raises
    ------
    OSError
        It cannot be read.
    """
    digest = blake2b(digest_size=12)
    with path.open("rb") as file:
        last = max(0, size - _PROBE_BYTES)
        for probe in range(_PROBES):
            file.seek(last * probe // (_PROBES - 1))
            digest.update(file.read(_PROBE_BYTES))
    return digest.hexdigest()


def _is_end_of(begun: dict[str, Any], known: dict[str, Any]) -> bool:
    same = ("size", "mtime_ns", "print")
    return known.get("verdict") == "taken" and all(
        begun.get(key) == known.get(key) for key in same
    )


def can_be_read(path: Path) -> bool:
    """Whether the disk gives all bytes of a file, whatever they mean."""
    try:
        with path.open("rb", buffering=0) as file:
            while file.read(1 << 20):
                pass
    except OSError:
        return False
    return True


def _sync_folder(folder: Path) -> None:
    """A new file's name is on disk, too; not every file system can be asked."""
    with suppress(OSError):
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
