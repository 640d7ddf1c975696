"""Comparison of the files of a run with the messages that a subscriber received."""

import csv
import json
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import soundfile

from neurovocal.engine.client import Received
from neurovocal.engine.contracts.clock import SystemClock
from neurovocal.engine.contracts.errors import EndOfStream, NeurovocalError
from neurovocal.engine.contracts.plugin import BuildContext
from neurovocal.engine.contracts.types import Audio, Block, Float32, Label
from neurovocal.engine.journal import read_events
from neurovocal.plugins.sources import recording as source_recording
from neurovocal.plugins.sources import synthetic as source_synthetic

NO_STATS = "its statistics never came"


@dataclass
class SinkAudit:
    """Audit of one sink: counted losses, missing messages, problems."""

    sink: str
    counted: int
    missing: int
    problems: list[str]

    @property
    def text(self) -> str:
        """Text for the table."""
        return str(self.missing)


def audit(
    folders: list[Path], received: list[Received], stats: dict[str, Any], seed: int
) -> Iterator[SinkAudit]:
    """Audit every file; yield one audit per sink."""
    files = [f for folder in folders for f in sorted(folder.rglob("*")) if f.is_file()]
    odd = [f for f in files if f.name.startswith(".") or f.suffix in (".part", ".rows")]
    # The table of a deleted folder is that of another file of rows.
    odd = [f for f in odd if f.parent in folders[-1:] or f.suffix != ".rows"]
    last = max(m.at for m in received)
    checks = {
        "journal": _journal,
        "jsonl": _lines,
        "columns": _columns,
        "columns 2": _parquet,
        "table": _table,
        "clips": _clips,
        "wav": _sound,
    }
    for name, check in checks.items():
        own = stats.get(f"sink '{name.split()[0]}'{name[len(name.split()[0]) :]}")
        if own is None:
            yield SinkAudit(name, 0, 0, [NO_STATS])
            continue
        counted = sum(own[queue]["dropped"] for queue in ("events", "bulk"))
        counted += own.get("refused", 0)
        try:
            missing, problems = check(folders, received)
        except (NeurovocalError, OSError, RuntimeError, ValueError) as error:
            yield SinkAudit(name, counted, 0, [f"{type(error).__name__}: {error}"])
            continue
        if missing != counted:
            problems.append(f"{missing} are missing, {counted} were counted")
        yield SinkAudit(name, counted, missing, problems)
    own = stats["sink 'recording'"]
    try:
        missing, problems = _recording(folders, seed, last)
    except NeurovocalError as error:
        missing, problems = 0, [str(error)]
    counted = own["bulk"]["dropped"]
    if missing != counted:
        problems.append(f"{missing} blocks are missing, {counted} were counted")
    yield SinkAudit("recording", counted, missing, problems)
    if odd:
        yield SinkAudit("files", 0, 0, [f"leftovers: {', '.join(map(str, odd))}"])


def _journal(folders: list[Path], received: list[Received]) -> tuple[int, list[str]]:
    kept, problems = [], []
    for path in _found(folders, "j.sqlite"):
        with closing(sqlite3.connect(path)) as connection:
            (verdict,) = connection.execute("PRAGMA integrity_check").fetchone()
        if verdict != "ok":
            problems.append(f"{path}: {verdict}")
        kept += [(e.kind, e.seq) for e in read_events(path, received[0].run)]
    return _missing(kept, received, ("onset", "offset", "label"), problems)


def _lines(folders: list[Path], received: list[Received]) -> tuple[int, list[str]]:
    kept, problems = [], []
    for path in _found(folders, "e.jsonl"):
        for line in path.read_text().splitlines():
            try:
                head = json.loads(line)
                kept.append((head["kind"], head["seq"]))
            except ValueError:
                problems.append(f"{path}: {line!r} is no line")
    return _missing(kept, received, ("onset", "offset", "label"), problems)


def _columns(folders: list[Path], received: list[Received]) -> tuple[int, list[str]]:
    rows = chain.from_iterable(_rows(p) for p in _found(folders, "l.csv"))
    kept = [("label", int(row["seq"])) for row in rows]
    return _missing(kept, received, ("label",), [])


def _parquet(folders: list[Path], received: list[Received]) -> tuple[int, list[str]]:
    tables = [pyarrow.parquet.read_table(p) for p in _found(folders, "l*.parquet")]
    kept = [("label", seq) for t in tables for seq in t["seq"].to_pylist()]
    # In a folder that was deleted the rows still waited for their table.
    for path in _found(folders[:-1], "l.parquet.rows"):
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        kept += [("label", line["seq"]) for line in lines if "seq" in line]
    return _missing(kept, received, ("label",), [])


def _table(folders: list[Path], received: list[Received]) -> tuple[int, list[str]]:
    rows = [row for p in _found(folders, "t.csv") for row in _rows(p)]
    kept = sorted((row["onset_s"], row["label"]) for row in rows)
    final = sorted((f"{e.onset / r:.6f}", e.unit) for e, r in _final(received))
    problems = [f"{row} was never received" for row in set(kept) - set(final)]
    return len(final) - len(set(kept)), problems + _doubles(kept)


def _clips(folders: list[Path], received: list[Received]) -> tuple[int, list[str]]:
    kept, problems = [], []
    for sidecar in _found(folders, "clips/*/*/*.json"):
        fields = json.loads(sidecar.read_text())
        samples, _ = soundfile.read(sidecar.with_name(fields["audio"]))
        if len(samples) != fields["stop"] - fields["start"]:
            problems.append(f"{sidecar}: {len(samples)} samples")
        kept += [segment["onset"] for segment in fields["segments"]]
    lonely = len(_found(folders, "clips/*/*/*.flac")) - len(kept)
    if lonely:
        problems.append(f"{lonely} clips without a sidecar")
    final_onsets = {e.onset for e, _ in _final(received)}
    problems += [f"{o} was never received" for o in set(kept) - final_onsets]
    return len(final_onsets) - len(set(kept)), problems + _doubles(kept)


def _sound(folders: list[Path], received: list[Received]) -> tuple[int, list[str]]:
    pieces = [m.event for m in received if isinstance(m.event, Audio)]
    files = [soundfile.read(p, dtype="float32")[0] for p in _found(folders, "w/*.wav")]
    missing, problems = 0, []
    for piece in pieces:
        held = [f[piece.start : piece.stop] for f in files]
        same = [np.array_equal(h, piece.samples[:, 0]) for h in held]
        empty = [not h.any() for h in held]
        missing += not any(same)
        if not all(a or b for a, b in zip(same, empty, strict=True)):
            problems.append(f"sound at {piece.start} differs from the received one")
    return missing, problems


def _recording(folders: list[Path], seed: int, last: int) -> tuple[int, list[str]]:
    """Count blocks that no file holds; those in a file must equal the source."""
    truth = played(seed, last / 32_000 + 60)
    held = np.zeros(len(truth), bool)
    problems, end = [], 0
    for path in _found(folders, "r"):
        for block in recorded(path):
            there = slice(block.start, block.stop)
            if not np.array_equal(truth[there], block.samples[:, 0]):
                problems.append(f"{path}: samples at {block.start} are others")
            held[there] = True
            end = max(end, block.stop)
    return int((~held[:end]).sum()) // BLOCK, problems


# What the engine's source plays, and what a block of it is at the pace of hearing.
SONG: dict[str, Any] = {"pause_ms": [50, 100], "song_length": 20}
BLOCK = 320
_CONTEXT = BuildContext(SystemClock(), "audit")


def played(seed: int, seconds: float) -> Float32:
    """Return the samples of the engine's source, float32[n_samples]."""
    options: dict[str, Any] = {"seed": seed, "duration_s": seconds, **SONG}
    source = source_synthetic.plugin.build(
        source_synthetic.SyntheticOptions(**options), _CONTEXT
    )
    return np.concatenate([b.samples[:, 0] for b in _blocks(source)])


def recorded(folder: Path) -> Iterator[Block]:
    """Yield the blocks that the `recording` sink kept in a folder."""
    options = source_recording.RecordedOptions(path=str(folder))
    yield from _blocks(source_recording.plugin.build(options, _CONTEXT))


def _blocks(source: Any) -> Iterator[Block]:
    source.open()
    while True:
        try:
            item = source.read(0.0)
        except EndOfStream:
            source.close()
            return
        if isinstance(item, Block):
            yield item


def _found(folders: list[Path], pattern: str) -> list[Path]:
    return [path for folder in folders for path in sorted(folder.glob(pattern))]


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def _final(received: list[Received]) -> list[tuple[Label, int]]:
    labels = [(m.event, m.sample_rate) for m in received if isinstance(m.event, Label)]
    return [(e, rate) for e, rate in labels if e.status == "final"]


def _missing(
    kept: list[tuple[str, int]],
    received: list[Received],
    kinds: tuple[str, ...],
    problems: list[str],
) -> tuple[int, list[str]]:
    sent = {(m.kind, m.seq) for m in received if m.kind in kinds}
    return len(sent - set(kept)), problems + _doubles(kept)


def _doubles(kept: Iterable[object]) -> list[str]:
    items = list(kept)
    doubles = len(items) - len(set(items))
    return [f"{doubles} are there twice"] if doubles else []
