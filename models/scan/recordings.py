"""Recordings of an archive: find them by fsspec, name their station, fetch them."""

import os
import re
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from neurovocal.engine import AudioFileError, BuildContext, ConfigError
from neurovocal.engine.contracts.clock import SystemClock
from neurovocal.engine.support.text import plain_name
from neurovocal.models.scan.tables import UNKNOWN
from neurovocal.plugins.sources.audio_files.file import (
    SUFFIXES,
    find_recordings,
    natural_key,
)

MISSING = "missing"  # version of a recording that cannot be read
_URL = re.compile(r"[a-z][a-z0-9+.-]*://", re.I)
# Extra of this package that brings what fsspec needs for a kind of address.
_EXTRAS = {
    "s3": "scan-s3",
    "s3a": "scan-s3",
    "gs": "scan-gs",
    "gcs": "scan-gs",
    "http": "scan-http",
    "https": "scan-http",
}
# What tells versions of one object apart, by what each kind of store states.
_VERSION_KEYS = ("ETag", "etag", "generation", "LastModified", "mtime", "created")
# Time in a name, with what separates it from the station before it.
_TIME = re.compile(
    r"[-_ .+]*(?<!\d)\d{4}-?[01]\d-?[0-3]\d(?:[-_T ]\d\d[-:.]?\d\d[-:.]?\d\d)?.*"
)
_DATE_FOLDER = re.compile(r"\d{4}(-?\d\d){0,2}|\d\d|data|recordings?|audio|wavs?", re.I)


@dataclass(frozen=True, slots=True)
class Input:
    """Recording of an archive, as it was listed.

    ``name`` is an absolute path or an address; ``size`` is in bytes, None if the store
    does not state it; ``version`` changes if the content does. ``base`` begins the name
    and is not in tables.
    """

    name: str
    size: int | None
    version: str
    base: str = ""

    @property
    def shown(self) -> str:
        """Name as tables have it: bytes that are no text are escaped."""
        return plain_name(self.name.removeprefix(self.base))

    @property
    def is_remote(self) -> bool:
        """True if the recording is fetched before it is read."""
        return _is_url(self.name)


class ChangedError(Exception):
    """The recording changed while it was read; nothing of it may be kept."""


def find_inputs(patterns: Iterable[str], base: str | None = None) -> list[Input]:
    """Return all recordings that patterns, files and folders name, each once.

    Parameters
    ----------
    patterns : iterable of str
        Paths or addresses such as ``s3://bucket/2021/*.flac``; a folder stands for
        all recordings in it and in its folders.
    base : str, optional
        Folder or address to which names in tables are relative.

    Returns
    -------
    list of Input
        In natural order: ``take2`` before ``take10``.

    Raises
    ------
    ConfigError
        A pattern names no recording, what reads such addresses is not installed, or a
        recording does not lie in `base`.
    """
    found: dict[str, Input] = {}
    problems = []
    for pattern in patterns:
        try:
            listed = _remote(pattern) if _is_url(pattern) else _local(pattern)
            found.update((each.name, each) for each in listed)
        except (AudioFileError, ConfigError) as error:
            problems.append(str(error))
    if problems:
        raise ConfigError(problems)
    inputs = sorted(found.values(), key=lambda each: natural_key(Path(each.name)))
    return inputs if base is None else _relative(inputs, base)


def _relative(inputs: Iterable[Input], base: str) -> list[Input]:
    """Return the recordings with names relative to a folder or address."""
    if _is_url(base):
        begin = base.rstrip("/") + "/"
    else:
        if not base.strip() or Path(base).is_file():
            raise ConfigError(
                f"--relative-to '{plain_name(base)}' is no folder: name one that holds "
                "the recordings"
            )
        begin = os.path.join(os.path.abspath(base), "")
    for each in inputs:
        if not each.name.startswith(begin):
            raise ConfigError(
                f"--relative-to: '{each.shown}' does not lie in '{plain_name(begin)}'"
            )
    return [replace(each, base=begin) for each in inputs]


def station_of(name: str, pattern: str | None) -> str:
    """Return the station of a recording, by its path or address.

    Parameters
    ----------
    name : str
        Path or address.
    pattern : str, optional
        Regular expression; its first group, or all of it, is the station. Without it,
        the station is what stands before the time in the file's name, or else the
        nearest folder that is no date, or else ``unknown``.
    """
    if pattern is not None:
        match = re.search(pattern, name)
        if match is None:
            return UNKNOWN
        return (match[1] if match.re.groups else match[0]) or UNKNOWN
    path = PurePosixPath(_URL.sub("", name))
    before = _TIME.sub("", path.stem) if _TIME.search(path.stem) else ""
    if before.strip(" _-.+"):
        return before
    for folder in path.parent.parts[::-1]:
        if folder not in ("/", "") and not _DATE_FOLDER.fullmatch(folder):
            return folder
    return UNKNOWN


def station_pattern_problem(pattern: str) -> str | None:
    """Return why a pattern of stations cannot be used; None if it can."""
    try:
        groups = re.compile(pattern).groups
    except re.error as error:
        return f"--station: '{pattern}' is no regular expression: {error}"
    if groups > 1:
        return f"--station: '{pattern}' has {groups} groups: mark the station by one"
    return None


@contextmanager
def local_copy(recording: Input) -> Iterator[Path]:
    """Yield the path of a recording on this machine; fetch it if it is elsewhere.

    A fetched copy has the recording's own name, which may hold its time, in a folder
    that is removed afterwards.

    Raises
    ------
    ChangedError
        The recording is not as it was listed, before or after it was read.
    OSError
        It cannot be fetched or read.
    """
    if not recording.is_remote:
        _require_unchanged(recording, _local_input(Path(recording.name)))
        yield Path(recording.name)
        _require_unchanged(recording, _local_input(Path(recording.name)))
        return
    fs, path = _file_system(recording.name)
    with tempfile.TemporaryDirectory(prefix="neurovocal-scan-") as folder:
        copy = Path(folder, PurePosixPath(path.partition("?")[0]).name)
        fs.invalidate_cache()
        _require_unchanged(recording, _remote_input(fs, path))
        fs.get_file(path, str(copy))
        fs.invalidate_cache()
        _require_unchanged(recording, _remote_input(fs, path))
        if recording.size is not None and copy.stat().st_size != recording.size:
            raise OSError(f"{copy.stat().st_size} of {recording.size} bytes arrived")
        yield copy


def _require_unchanged(before: Input, now: Input) -> None:
    if (before.size, before.version) != (now.size, now.version):
        raise ChangedError(before.name)


def _is_url(name: str) -> bool:
    return _URL.match(name) is not None and not name.lower().startswith("file://")


def _local(pattern: str) -> list[Input]:
    name = pattern[7:] if pattern.lower().startswith("file://") else pattern
    context = BuildContext(SystemClock(), "")
    paths = find_recordings(name, context, recursive=True)
    listed = []
    for path in paths:
        try:
            listed.append(_local_input(Path(os.path.abspath(path))))
        except OSError:  # a broken link, or removed: the reading tells why
            listed.append(Input(os.path.abspath(path), None, MISSING))
    return listed


def _local_input(path: Path) -> Input:
    status = path.stat()
    version = f"{status.st_size}-{status.st_mtime_ns}"
    return Input(str(path), status.st_size, version)


def _remote(pattern: str) -> list[Input]:
    fs, path = _file_system(pattern)
    try:
        if any(character in path for character in "*?["):
            found = fs.glob(path)
        elif path.endswith("/") or fs.isdir(path):
            found = fs.find(path)
        else:
            found = [path]
        recordings = [each for each in found if _is_recording(each)] or (
            found if found == [path] else []
        )
        if not recordings:
            _require_answer(fs, path)
            raise ConfigError(f"no recording matches '{pattern}'")
        return [_remote_input(fs, each) for each in recordings]
    except FileNotFoundError as error:
        raise ConfigError(f"recording '{pattern}' does not exist") from error
    except ConfigError:
        raise
    except Exception as error:  # each store has errors of its own
        raise ConfigError(f"'{pattern}' cannot be listed: {_reason(error)}") from error


def _require_answer(fs: Any, path: str) -> None:
    """Raise what a store answers of a folder: its listing may hide a broken one."""
    folder = re.split(r"[*?[]", path)[0].rpartition("/")[0]
    try:
        fs.info(f"{folder}/")
    except FileNotFoundError as error:
        if isinstance(error.__cause__, OSError):  # of a web server that is not there
            raise error.__cause__ from None


def _is_recording(path: str) -> bool:
    name = PurePosixPath(path.partition("?")[0])
    return name.suffix.lower() in SUFFIXES and not name.name.startswith(".")


def _remote_input(fs: Any, path: str) -> Input:
    info = fs.info(path)
    size = info.get("size")
    stated = [f"{info[key]}" for key in _VERSION_KEYS if info.get(key) is not None]
    name = fs.unstrip_protocol(path)
    return Input(name, size, "-".join([str(size), *stated]))


def _file_system(name: str) -> tuple[Any, str]:
    """Return the file system of an address, and the path in it."""
    import fsspec

    protocol = name.partition("://")[0].lower()
    try:
        fs, path = fsspec.core.url_to_fs(name)
    except ImportError as error:
        extra = _EXTRAS.get(protocol)
        install = f"pip install 'neurovocal[{extra}]'" if extra else str(error)
        raise ConfigError(
            f"'{name}' needs a library that is not installed: {install}"
        ) from error
    except ValueError as error:
        raise ConfigError(f"'{name}' cannot be read: {error}") from error
    return fs, path


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__
