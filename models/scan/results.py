"""Folder of a scan's results: one writer, whole files, finished tasks told by a record.

A task's Parquet files are written first and its record last, each under a temporary
name that is synchronized and renamed. A task without a record is not finished: the next
run removes its files and computes them again.
"""

import csv
import io
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

from neurovocal.engine import ConfigError
from neurovocal.engine.support.outputs import folder_problem, write_whole
from neurovocal.models.scan.labelling import Done
from neurovocal.models.scan.recordings import MISSING
from neurovocal.models.scan.tables import (
    Partition,
    RecordingRow,
    encode_rows,
    read_recordings,
    task_id,
)
from neurovocal.plugins.sources.audio_files.file import natural_key
from neurovocal.plugins.storage.durable import sync_folder
from neurovocal.plugins.storage.file_lock import FileLock

LABELS, RECORDINGS = "labels", "recordings"
BAD, SETTINGS = "bad-recordings.csv", "scan.json"
_PART = re.compile(r"\.?part-([0-9a-f]{16})\.parquet(\.new)?")
_RECORD = re.compile(r"([0-9a-f]{16})\.parquet")
_UNFINISHED_RECORD = re.compile(r"\.[0-9a-f]{16}\.parquet\.new")
_FORMAT = 1


@dataclass(slots=True)
class Totals:
    """What a folder of results holds."""

    recordings: int = 0
    bad: int = 0
    partial: int = 0
    segments: int = 0
    audio_s: float = 0.0
    without_time: int = 0

    def add(self, row: RecordingRow) -> None:
        """Count a recording."""
        self.recordings += 1
        self.bad += row.state == "bad"
        self.partial += row.state == "partial"
        self.segments += row.segments
        self.audio_s += row.audio_s
        self.without_time += row.state != "bad" and row.start_utc is None


@dataclass(slots=True)
class Results:
    """Folder of results, which one run at a time writes.

    Parameters
    ----------
    folder : Path
        Is made if it does not exist.
    settings : mapping
        What determines the results; those of all runs over a folder must agree.

    Attributes
    ----------
    finished : dict of str to str
        Version of each recording that a finished task has read, by its name.
    again : set of str
        Recordings of tasks that are done again, because one of them has changed.
    totals : Totals
        Of all finished tasks.
    """

    folder: Path
    settings: Mapping[str, Any]
    finished: dict[str, str] = field(default_factory=dict)
    again: set[str] = field(default_factory=set)
    totals: Totals = field(default_factory=Totals)
    _bad: dict[str, tuple[str, str]] = field(default_factory=dict)
    _tasks: set[str] = field(default_factory=set)
    _lock: FileLock = field(default_factory=FileLock)

    def open(self, versions: Mapping[str, str] | None = None) -> None:
        """Make or check the folder, and find out which tasks are finished.

        What a task has found is removed if one of its recordings has changed since, and
        all of them are at hand to be read again.

        Parameters
        ----------
        versions : mapping of str to str, optional
            Present version of each recording that is at hand, by its name.

        Raises
        ------
        ConfigError
            The folder holds something else, or results of other settings, or another
            run writes it.
        OSError
            The disk fails.
        """
        path = self.folder / SETTINGS
        if not path.exists():
            self._create(path)
        self._lock.acquire(path)
        self._require_same(path)
        for each in (LABELS, RECORDINGS):
            (self.folder / each).mkdir(exist_ok=True)
        for record in sorted((self.folder / RECORDINGS).iterdir()):
            if _RECORD.fullmatch(record.name):
                self._read(record, versions or {})
            elif _UNFINISHED_RECORD.fullmatch(record.name):
                record.unlink()
        self._remove_unfinished()

    def close(self) -> None:
        """Let another run write the folder."""
        self._lock.release()

    def commit(self, done: Done) -> None:
        """Write the result of a task to the disk; it is finished afterwards.

        Raises
        ------
        OSError
            The disk does not take it; the task is not finished.
        """
        if not done.recordings:
            return
        name = task_id([(row.recording, row.version) for row in done.recordings])
        parts = []
        for partition, content in done.parts.items():
            path = self._part(partition, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, content)
            sync_folder(path.parent)
            parts.append([path.relative_to(self.folder).as_posix(), len(content)])
        record = {**self.settings, "parts": parts}
        content = encode_rows(RecordingRow, done.recordings, record)
        write_whole(self.folder / RECORDINGS / f"{name}.parquet", content)
        sync_folder(self.folder / RECORDINGS)
        self._count(name, done.recordings)

    def write_bad(self, later: Mapping[str, str]) -> None:
        """Write the table of recordings of which something, or all, is not in the data.

        Parameters
        ----------
        later : mapping of str to str
            Why nothing was kept of a recording that the next run tries again.
        """
        rows = dict(self._bad)
        rows.update((name, ("later", reason)) for name, reason in later.items())
        text = io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        table.writerow(("recording", "state", "reason"))
        for name in sorted(rows, key=lambda name: natural_key(Path(name))):
            table.writerow((name, *rows[name]))
        content = text.getvalue().encode("utf-8", "surrogateescape")
        write_whole(self.folder / BAD, content)

    def _create(self, path: Path) -> None:
        # A kill leaves the temporary name of the settings, which are written first.
        left = {f".{SETTINGS}.new"}
        if self.folder.is_dir() and set(os.listdir(self.folder)) - left:
            raise ConfigError(
                f"--out: '{self.folder}' holds other files and no results of a scan: "
                "name a new folder"
            )
        if (problem := folder_problem(self.folder)) is not None:
            raise ConfigError(f"--out: '{self.folder}' cannot be used: {problem}")
        self.folder.mkdir(parents=True, exist_ok=True)
        stored = {"format": _FORMAT, **self.settings}
        text = json.dumps(stored, indent=2, sort_keys=True, ensure_ascii=False)
        write_whole(path, f"{text}\n".encode())
        sync_folder(self.folder)

    def _require_same(self, path: Path) -> None:
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
            given = json.loads(json.dumps({"format": _FORMAT, **self.settings}))
            keys = sorted(stored.keys() | given.keys())
        except (ValueError, AttributeError) as error:
            raise ConfigError(
                f"'{path}' is damaged, or not of a scan: name a new folder with --out"
            ) from error
        for key in keys:
            if stored.get(key) != given.get(key):
                raise ConfigError(
                    f"--out: '{self.folder}' holds results with {key} "
                    f"{_shown(stored.get(key))}, and now it is "
                    f"{_shown(given.get(key))}: name a new folder, or give the same "
                    "options and bundle"
                )

    def _read(self, record: Path, versions: Mapping[str, str]) -> None:
        """Count a finished task, if its record and all of its files are there."""
        import pyarrow

        try:
            rows, provenance = read_recordings(str(record))
            is_whole = all(
                (self.folder / name).stat().st_size == size
                for name, size in provenance["parts"]
            )
        except (FileNotFoundError, KeyError, ValueError, pyarrow.ArrowException):
            is_whole = False
        if not is_whole:
            record.unlink()
            return
        now = [versions.get(row.recording, MISSING) for row in rows]
        before = [row.version for row in rows]
        if now != before and MISSING not in now:
            record.unlink()
            self.again.update(row.recording for row in rows)
        else:
            self._count(record.stem, rows)

    def _count(self, name: str, rows: Iterator[RecordingRow] | Any) -> None:
        self._tasks.add(name)
        for row in rows:
            self.finished[row.recording] = row.version
            self.totals.add(row)
            if row.state != "done":
                self._bad[row.recording] = row.state, row.reason or ""

    def _remove_unfinished(self) -> None:
        """Remove the files of tasks without a record; a killed run has left them."""
        for folder, _, names in os.walk(self.folder / LABELS):
            for name in names:
                match = _PART.fullmatch(name)
                if match and (match[1] not in self._tasks or match[2]):
                    os.unlink(Path(folder, name))
            with suppress(OSError):  # it holds files
                if Path(folder) != self.folder / LABELS:
                    os.rmdir(folder)

    def _part(self, partition: Partition, name: str) -> Path:
        day, station = partition
        folder = PurePosixPath(
            LABELS, f"day={day}", f"station={quote(station, safe='')}"
        )
        return self.folder / folder / f"part-{name}.parquet"


def _shown(value: object) -> str:
    match value:
        case None:
            return "none"
        case {"name": str(name), "sha256": str(sha256)}:  # a bundle
            return f"'{name}' (sha256 {sha256[:8]}...)"
    text = json.dumps(value, ensure_ascii=False, sort_keys=True)
    return text if len(text) <= 60 else f"{text[:57]}..."
