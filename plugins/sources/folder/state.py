"""State file of a folder source: recordings that were read, safe against a kill."""

import json
import logging
import os
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

import msgspec
from msgspec import Meta

from neurovocal.engine import ConfigError
from neurovocal.engine.support.platform import OPEN_BINARY, lock_file, write_at
from neurovocal.engine.support.strict_json import JsonError, JsonReader
from neurovocal.plugins.storage.durable import sync_folder

FileStatus: TypeAlias = Literal["begun", "taken", "set aside"]

log = logging.getLogger("neurovocal")

_MOST_LINE_BYTES = 2**20
_PROBE_BYTES = 32_768
_PROBES = 8


_RENAMED = {"name_was_used": "name was used", "renamed_from": "renamed from"}


class _Entry(msgspec.Struct, omit_defaults=True, rename=_RENAMED):
    """Line of a state file."""

    file: str
    size: Annotated[int, Meta(ge=0)]
    mtime_ns: int
    verdict: FileStatus
    run: str = ""
    runs: list[str] | None = None
    print: str | None = None
    reason: str | None = None
    configuration: str | None = None
    name_was_used: bool | None = None
    renamed_from: str | None = None


_read_entry = JsonReader(_Entry, most_bytes=_MOST_LINE_BYTES, names_files=True).read


class ProcessedFiles:
    """State file with one JSON line per recording that was begun or finished.

    Each line is synced to disk; an incomplete last line, left by a kill, is cut off. A
    lock keeps a second engine from reading the same recordings. While the disk is
    missing or cannot be written, lines wait in memory.

    Parameters
    ----------
    path : Path
        Path of the state file, which is created if it does not exist.
    configuration : str
        Digest of the configuration: what was set aside with another one is new.
    """

    def __init__(self, path: Path, configuration: str = "") -> None:
        self._path = path
        self._configuration = configuration
        self._fd = -1
        self._end = 0  # bytes of complete lines
        self._entries: dict[str, dict[str, Any]] = {}
        self._unsaved: list[dict[str, Any]] = []
        # Names of finished recordings by size and time of change, which a rename keeps.
        self._names: dict[tuple[int, int], str] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def open(self) -> None:
        """Read and lock the state file.

        Raises
        ------
        ConfigError
            The file cannot be read and written, is no state file, or is in use.
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
        """Lock the file and read it; its entries replace those in memory."""
        self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | OPEN_BINARY, 0o644)
        lock_file(self._fd)
        data = self._path.read_bytes()
        self._end = data.rfind(b"\n") + 1
        lines, n_unreadable = _entries(data[: self._end])
        if n_unreadable:
            log.warning(
                "state '%s': %d lines are damaged and left out",
                self._path,
                n_unreadable,
            )
        for entry in {entry["file"]: entry for entry in lines}.values():
            known = self._entries.get(entry["file"], {})
            if entry["verdict"] == "begun" and _is_finished(entry, known):
                self._unsaved.append(known)  # finished while the disk was missing
            else:
                self._keep(entry)
        for entry in self._unsaved:
            self._keep(entry)
        os.ftruncate(self._fd, self._end)
        with suppress(OSError):  # the state is written, and can be read again
            sync_folder(self._path.parent)

    def _keep(self, entry: dict[str, Any]) -> None:
        self._entries[entry["file"]] = entry
        if entry["verdict"] == "taken":
            self._names[entry["size"], entry["mtime_ns"]] = entry["file"]

    def is_finished(self, name: str, stat: os.stat_result) -> bool:
        """Return True if a recording was finished and has not changed since."""
        entry = self._entries.get(name)
        if entry is None or entry["verdict"] == "begun":
            return False
        if entry.get("configuration") not in (None, self._configuration):
            return False
        return (entry["size"], entry["mtime_ns"]) == (stat.st_size, stat.st_mtime_ns)

    def matches(self, folder: Path, name: str, stat: os.stat_result) -> bool:
        """Return True if the content is that of a finished recording.

        Its time of change may differ (a copy; a card's clock without a zone), or its
        name. It then becomes finished under its present name. Other content under a
        known name does not match.

        Raises
        ------
        OSError
            The file cannot be read.
        """
        entry = self._entries.get(name)
        if entry is None:
            before = self._names.get((stat.st_size, stat.st_mtime_ns))
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

    def started_by(self, name: str, digest: str) -> list[str]:
        """Return the runs that began to read a recording and did not finish it.

        Other content under the name is another recording.
        """
        entry = self._entries.get(name, {})
        if entry.get("verdict") != "begun" or entry.get("print") not in (None, digest):
            return []
        return list(entry.get("runs") or [entry.get("run", "")])

    def is_new_file(self, name: str, digest: str) -> bool:
        """Return True if another recording of this name was begun or finished."""
        entry = self._entries.get(name, {})
        if self.started_by(name, digest):
            return bool(entry.get("name was used"))
        return entry.get("verdict") in ("begun", "taken")

    def add(
        self, name: str, stat: os.stat_result, status: FileStatus, **more: object
    ) -> str | None:
        """Add an entry for a recording; return the result of `save`."""
        entry = {
            "file": name,
            "size": stat.st_size,
            "mtime_ns": stat.st_mtime_ns,
            "verdict": status,
            **{key: value for key, value in more.items() if value is not None},
        }
        self._keep(entry)
        self._unsaved.append(entry)
        return self.save()

    def save(self) -> str | None:
        """Write entries that are not on disk yet; return a sentence if it fails.

        If another disk is mounted at the path by now, its state file is read first.
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
                written += write_at(self._fd, lines[written:], at)
            os.fsync(self._fd)
        except (OSError, ValueError, TypeError, KeyError) as error:
            with suppress(OSError):  # remove an incomplete line
                os.ftruncate(self._fd, self._end)
            reason = getattr(error, "strerror", None) or "it is none"
            return f"state '{self._path}' cannot be written: {reason}"
        self._end += len(lines)
        self._unsaved.clear()
        return None

    def _is_in_place(self) -> bool:
        """Return True if the path still leads to the open file."""
        if self._fd < 0:
            return False
        try:
            return os.path.samestat(os.fstat(self._fd), self._path.stat())
        except FileNotFoundError:
            return False

    def close(self) -> None:
        """Close the file, which unlocks it. May be called twice."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            with suppress(OSError):  # a disconnected share may fail here
                os.close(fd)


def _entries(data: bytes) -> tuple[list[dict[str, Any]], int]:
    """Return the entries of a state file, and the number of lines that are damaged.

    Raises
    ------
    ValueError
        No line is an entry, and there is more than the zeros of a lost sector.
    """
    entries: list[dict[str, Any]] = []
    n_damaged = 0
    for line in data.split(b"\n")[:-1]:
        try:
            entry = _read_entry(line)
        except JsonError:
            n_damaged += 1
        else:
            entries.append(msgspec.to_builtins(entry))
    if not entries and data.strip(b"\0\n"):
        raise ValueError("no line is an entry")
    return entries, n_damaged


def fingerprint(path: Path, size: int) -> str:
    """Return a digest of parts of a file, which distinguishes files of one size.

    Raises
    ------
    OSError
        The file cannot be read.
    """
    digest = blake2b(digest_size=12)
    with path.open("rb") as file:
        last = max(0, size - _PROBE_BYTES)
        for probe in range(_PROBES):
            file.seek(last * probe // (_PROBES - 1))
            digest.update(file.read(_PROBE_BYTES))
    return digest.hexdigest()


def _is_finished(begun: dict[str, Any], known: dict[str, Any]) -> bool:
    """Return True if `known` says that the begun recording was finished."""
    same = ("size", "mtime_ns", "print")
    return known.get("verdict") == "taken" and all(
        begun.get(key) == known.get(key) for key in same
    )


def can_be_read(path: Path) -> bool:
    """Return True if all bytes of a file can be read from the disk."""
    try:
        with path.open("rb", buffering=0) as file:
            while file.read(1 << 20):
                pass
    except OSError:
        return False
    return True
