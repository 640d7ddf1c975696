"""Audit of the files of a killed engine against its journal.

The journal of the killed run is the reference. Events that a subscriber received longer
than a window before the kill must be in every file; the content of a file must be
complete, equal the journal, the received events or the source, and be there once.
"""

import csv
import json
import struct
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import soundfile
from disk_audit import played, recorded
from torture_killed import POST_ROLL_S, RATE, Key, KilledRun, SinkCounts, config_text

from neurovocal.engine.contracts.types import Audio, Float32

# A clip is written a second after its post-roll: labels may come so late.
SETTLE_S = 1.0
# Of sound, headers may lack the last second (docs/station/operation.md).
UNTOLD_S = 1.0


@dataclass
class SinkFiles:
    """Folder of all sinks, over all kills.

    Parameters
    ----------
    out : Path
        The folder.
    """

    out: Path
    counts: dict[str, SinkCounts] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    _before: dict[Path, tuple[int, ...]] = field(default_factory=dict)
    _clips: set[Path] = field(default_factory=set)
    _parquet: set[Key] = field(default_factory=set)  # rows that were seen by now
    _tables: list[Path] = field(default_factory=list)

    def config(self, seed: int, port: int, journal: Path) -> str:
        """Return the configuration of the next run."""
        self.out.mkdir(exist_ok=True)
        self._before = {p: _state(p) for p in self.out.rglob("*") if p.is_file()}
        return config_text(seed, port, journal, self.out)

    def audit(self, killed: KilledRun) -> None:
        """Audit every file of the killed run."""
        checks: dict[str, Callable[[KilledRun], None]] = {
            "jsonl": self._lines,
            "columns": self._columns,
            "parquet": self._rows,
            "table": self._table,
            "clips": self._clip_files,
            "wav": self._sound,
            "recording": self._recording,
        }
        for name, check in checks.items():
            self.counts.setdefault(name, SinkCounts())
            with self._counted(name):
                check(killed)

    def finish(self) -> None:
        """Audit after the last run, which ended regularly: no leftovers, all rows."""
        names = [p for p in self.out.rglob("*") if p.suffix in (".part", ".rows")]
        self._expect(not names, "clips", f"leftovers: {names}")
        sidecars = {p.with_suffix("") for p in self.out.rglob("clips/*/*/*.json")}
        clips = {p.with_suffix("") for p in self.out.rglob("clips/*/*/*.flac")}
        self._expect(clips == sidecars, "clips", f"alone: {clips ^ sidecars}")
        with self._counted("parquet"):
            tables = [*self._tables, *self.out.glob("l*.parquet")]
            found = list(_parquet_rows(tables))
            count = self.counts["parquet"]
            count.doubled += len(found) - len(set(found))
            count.lost += len(self._parquet - set(found))
            count.kept = len(found)

    def ok(self) -> bool:
        """Return whether nothing was lost, doubled or wrong."""
        return not any(c.lost or c.doubled or c.wrong for c in self.counts.values())

    @contextmanager
    def _counted(self, name: str) -> Iterator[None]:
        """Count a file that cannot be read as wrong."""
        try:
            yield
        except (OSError, RuntimeError, ValueError, KeyError) as error:
            self.counts[name].wrong += 1
            self.problems.append(f"{name}: {error!r}")

    def _expect(self, holds: bool, name: str, sentence: str) -> None:
        if not holds:
            self.counts[name].wrong += 1
            self.problems.append(f"{name}: {sentence}")

    def _compare(
        self, name: str, killed: KilledRun, found: Iterable[Key], meant: set[Key]
    ) -> None:
        """Count lost and double events of a file, given those that it should have."""
        rows = Counter(found)
        missing = meant - set(rows)
        lost = killed.due(missing)
        count = self.counts[name]
        count.kept += len(rows)
        count.lost += len(lost)
        count.within_window += len(missing) - len(lost)
        count.doubled += rows.total() - len(rows)
        if lost:
            self.problems.append(f"{killed.run} {name}: lost {sorted(lost)}")

    def _is_new(self, path: Path) -> bool:
        return path.exists() and self._before.get(path) != _state(path)

    def _lines(self, killed: KilledRun) -> None:
        path = self.out / "e.jsonl"
        size = self._before.get(path, (0,))[-1]
        data = path.read_bytes()[size:] if path.exists() else b""
        self._expect(data[-1:] in (b"", b"\n"), "jsonl", "the last line is torn")
        found = []
        for line in data.splitlines():
            header = json.loads(line)
            key = (header["kind"], header["seq"])
            known = killed.headers.get(key, line)
            self._expect(known == line, "jsonl", f"{line!r} is not {known!r}")
            found.append(key)
        self._compare("jsonl", killed, found, killed.all("onset", "offset", "label"))

    def _columns(self, killed: KilledRun) -> None:
        path = self.out / "l.csv"
        rows = _csv_rows(path) if self._is_new(path) else []
        self._compare_rows("columns", killed, rows)

    def _rows(self, killed: KilledRun) -> None:
        """Audit rows that wait for their table, and a finished table."""
        path, rows = self.out / "l.parquet", []
        waiting, part = self.out / "l.parquet.rows", self.out / ".l.parquet.part"
        if path.exists():
            aside = self.out / f"{len(self._tables)}.parquet"
            self._tables.append(path.rename(aside))
            rows += pyarrow.parquet.read_table(aside).to_pylist()
        if waiting.exists():
            lines = waiting.read_bytes().split(b"\n")
            self._expect(lines.pop() == b"", "parquet", "the last line is torn")
            rows += [row for row in map(json.loads, lines) if "seq" in row]
        elif part.exists():  # whole, but for its name: the next run gives it
            rows += pyarrow.parquet.read_table(part).to_pylist()
        self._parquet |= {(row["run"], row["kind"], row["seq"]) for row in rows}
        own = [row for row in rows if row["run"] == killed.run]
        self._compare_rows("parquet", killed, own)

    def _compare_rows(
        self, name: str, killed: KilledRun, rows: list[dict[str, Any]]
    ) -> None:
        found = [(row["kind"], int(row["seq"])) for row in rows]
        for key, row in zip(found, rows, strict=True):
            if key in killed.headers:
                label = killed.fields(key)
                same = row["unit"] == label["unit"]
                same &= int(row["onset"]) == label["onset"]
                same &= row["status"] == label["status"]
                self._expect(same, name, f"{row} is not {label}")
            self._expect(row["run"] == killed.run, name, f"{row} of another run")
        self._compare(name, killed, found, killed.all("label"))

    def _table(self, killed: KilledRun) -> None:
        path = self.out / "t.csv"
        rows = _csv_rows(path) if self._is_new(path) else []
        finals = killed.finals()
        # Rows younger than the journal's last are known by themselves alone.
        cells = [(row["onset_s"], row["label"]) for row in rows]
        found = [finals.get(row, ("young", row)) for row in cells]
        self._compare("table", killed, found, set(finals.values()))

    def _clip_files(self, killed: KilledRun) -> None:
        sidecars = {p for p in self.out.rglob("clips/*/*/*.json")} - self._clips
        self._clips |= sidecars
        onsets = {killed.fields(key)["onset"]: key for key in killed.all("offset")}
        song = _song(killed, sidecars)
        found = []
        for path in sidecars:
            sidecar = json.loads(path.read_text())
            self._expect(sidecar["run"] == killed.run, "clips", f"{path}: another run")
            samples, _ = soundfile.read(
                path.with_name(sidecar["audio"]), dtype="float32"
            )
            played_samples = song[sidecar["start"] : sidecar["stop"]]
            same = len(samples) == len(played_samples) and not sidecar["missing"]
            same = same and bool(
                np.all(np.abs(samples - played_samples) <= 2**-23)
            )  # 24 bit
            self._expect(same, "clips", f"{path}: the sound is another")
            found += [
                onsets.get(s["onset"], ("young", s["onset"]))
                for s in sidecar["segments"]
            ]
        last = killed.reached - round((POST_ROLL_S + SETTLE_S + 0.1) * RATE)
        offsets = killed.all("offset")
        self._compare(
            "clips",
            killed,
            found,
            {key for key in offsets if killed.fields(key)["sample"] <= last},
        )

    def _sound(self, killed: KilledRun) -> None:
        pieces = [m.event for m in killed.received if isinstance(m.event, Audio)]
        old = [m.event for m in killed.old if isinstance(m.event, Audio)]
        newest = max((piece.stop for piece in pieces), default=0)
        due = [p for p in old if p.stop <= newest - UNTOLD_S * RATE]
        sound = self._wave("wav", self.out / "w")
        for piece in pieces:
            if piece.stop > len(sound):
                continue
            same = np.array_equal(sound[piece.start : piece.stop], piece.samples[:, 0])
            self._expect(same, "wav", f"{killed.run}: sound at {piece.start}")
        count = self.counts["wav"]
        count.kept += sum(piece.stop <= len(sound) for piece in pieces)
        count.lost += (lost := sum(piece.stop > len(sound) for piece in due))
        count.within_window += sum(p.stop > len(sound) for p in pieces) - lost

    def _recording(self, killed: KilledRun) -> None:
        sound = self._wave("recording", self.out / "r")
        due = killed.reached - round(UNTOLD_S * RATE)
        end = 0
        if len(sound):
            song = played(killed.seed, len(sound) / RATE + 60)
            for block in recorded(self.out / "r"):
                self._expect(block.start == end, "recording", f"a gap at {end}")
                end = block.stop
                same = np.array_equal(song[block.start : end], block.samples[:, 0])
                self._expect(same, "recording", f"samples at {block.start} are others")
        count = self.counts["recording"]
        count.kept += end
        count.lost += max(0, due - end)
        count.within_window += max(0, killed.reached - max(due, end))

    def _wave(self, name: str, folder: Path) -> Float32:
        """Read the only WAV file, after checking its header."""
        paths = [p for p in folder.glob("*.wav") if self._is_new(p)]
        if not paths or not paths[0].stat().st_size:
            return np.zeros(0, np.float32)
        sound, rate = soundfile.read(paths[0], dtype="float32")
        data = paths[0].read_bytes()
        (length,) = struct.unpack_from("<Q", data, data.index(b"ds64") + 16)
        unwritten = (len(data) - data.index(b"data") - 8 - length) // 4
        right = rate == RATE and 0 <= unwritten <= UNTOLD_S * RATE
        self._expect(right, name, f"the header lacks {unwritten} samples")
        found: Float32 = sound
        return found


def _song(killed: KilledRun, sidecars: set[Path]) -> Float32:
    stops = [json.loads(path.read_text())["stop"] for path in sidecars]
    return played(killed.seed, max(stops, default=0) / RATE + 1)


def _state(path: Path) -> tuple[int, ...]:
    status = path.stat()
    return status.st_ino, status.st_mtime_ns, status.st_size


def _csv_rows(path: Path) -> list[dict[str, Any]]:
    text = path.read_text()
    if text and not text.endswith("\n"):
        raise ValueError(f"the last line of '{path}' is torn")
    rows: list[dict[str, Any]] = list(csv.DictReader(text.splitlines()))
    if any(None in row.values() or None in row for row in rows):
        raise ValueError(f"a line of '{path}' has other cells than its heading")
    return rows


def _parquet_rows(paths: Iterable[Path]) -> Iterator[Key]:
    for path in paths:
        for row in pyarrow.parquet.read_table(path).to_pylist():
            yield row["run"], row["kind"], row["seq"]
