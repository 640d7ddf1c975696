"""Sinks that write files, messages for them, and readers of their files."""

import csv
import json
import resource
import signal
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from neurovocal.engine.contracts.clock import ManualClock
from neurovocal.engine.contracts.errors import EndOfStream, NeurovocalError
from neurovocal.engine.contracts.plugin import BuildContext
from neurovocal.engine.contracts.registry import Registry
from neurovocal.engine.contracts.types import Audio, Block, Label, Message, StreamInfo
from neurovocal.engine.journal import read_events
from neurovocal.plugins.sinks.columns import parquet
from neurovocal.plugins.sources import recording as source_recording

INFO = StreamInfo("cage", 1000)
CONTEXT = BuildContext(ManualClock(), "run1")
N_SAMPLES = 100  # samples of message n, from n * N_SAMPLES on


def label(number: int) -> Message:
    onset = number * N_SAMPLES
    event = Label(number, onset, onset + 50, "a" * 20, 0.5, "final", "m")
    return Message(INFO, event, number, onset)


def sound(number: int) -> Message:
    samples = np.full((N_SAMPLES, 1), number + 1, np.float32)
    return Message(INFO, Audio(number * N_SAMPLES, samples, "free", "m"), number, 0)


def block(number: int) -> Message:
    samples = np.full((N_SAMPLES, 1), number + 1, np.float32)
    return Message(INFO, Block(number * N_SAMPLES, samples), number, 0)


@dataclass(frozen=True)
class Kind:
    """Sink under test: its options, a message by number, the numbers in its files."""

    name: str
    plugin: str
    options: dict[str, Any]
    path: str
    give: Callable[[int], Message]
    read: Callable[[Path], list[int]]

    def build(self, folder: Path, **more: bool) -> Any:
        plugin = Registry().get("sink", self.plugin)
        options = {"path": str(folder / self.path), **self.options}
        context = replace(CONTEXT, **more)
        return plugin.build(plugin.options.model_validate(options), context)

    def kept(self, folder: Path) -> list[int]:
        return self.read(folder / self.path)


def deliver(sink: Any, message: Message) -> None:
    """Close and open a sink and write again, as the engine does after a failure."""
    with suppress(NeurovocalError):
        sink.close()
    sink.open()
    sink.write(message)


@contextmanager
def no_file_above(size: int) -> Iterator[None]:
    """Let the kernel refuse files of more bytes than `size`, as a full disk does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def _lines(path: Path) -> list[int]:
    text = path.read_text()
    assert not text or text.endswith("\n")
    return [json.loads(line)["seq"] for line in text.splitlines()]


def _columns(path: Path) -> list[int]:
    with path.open(newline="") as file:
        return [int(row["seq"]) for row in csv.DictReader(file)]


def _parquet_rows(path: Path) -> list[int]:
    import pyarrow.parquet

    files = sorted(path.parent.glob("*.parquet"), key=lambda p: p.stat().st_mtime_ns)
    return [n for f in files for n in pyarrow.parquet.read_table(f)["seq"].to_pylist()]


def _table(path: Path) -> list[int]:
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert all(row["label"] == "a" * 20 for row in rows)
    return [round(float(row["onset_s"]) * 10) for row in rows]


def _raven(path: Path) -> list[int]:
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    return [round(float(row["Begin Time (s)"]) * 10) for row in rows]


def _journal(path: Path) -> list[int]:
    return [event.seq for event in read_events(path)]


def _sound(path: Path) -> list[int]:
    samples, rate = soundfile.read(path / "cage.wav", dtype="float32")
    assert rate == INFO.sample_rate
    assert len(samples) % N_SAMPLES == 0
    parts = samples.reshape(-1, N_SAMPLES)
    assert (parts == parts[:, :1]).all()
    found = [int(part[0]) - 1 for part in parts if part.any()]
    assert all(parts[n].any() for n in found)  # each at its position
    return found


def _recording(path: Path) -> list[int]:
    options = source_recording.RecordedOptions(path=str(path), block_length=N_SAMPLES)
    source = source_recording.plugin.build(options, CONTEXT)
    source.open()
    found, end = [], 0
    with suppress(EndOfStream), closing(source):
        while True:
            item = source.read(0.0)
            if isinstance(item, StreamInfo):
                continue
            assert item.start == end
            end = item.stop
            if isinstance(item, Block):
                assert (item.samples == item.start // N_SAMPLES + 1).all()
                found.append(item.start // N_SAMPLES)
    return found


KINDS = [
    Kind("jsonl", "jsonl", {}, "e.jsonl", label, _lines),
    Kind("csv", "columns", {}, "c.csv", label, _columns),
    Kind(
        "parquet", "columns", {"format": "parquet"}, "c.parquet", label, _parquet_rows
    ),
    Kind("table", "table", {}, "t.csv", label, _table),
    Kind("raven", "table", {"format": "raven"}, "t.txt", label, _raven),
    Kind("journal", "journal", {"commit_ms": 0}, "j.sqlite", label, _journal),
    Kind("wav", "wav", {}, "w", sound, _sound),
    Kind("recording", "recording", {}, "r", block, _recording),
]


def use_small_batches(rows: int) -> None:
    """Let the Parquet sink convert batches of so many rows."""
    parquet.BATCH_ROWS = rows


def ready(kind: Kind, monkeypatch: pytest.MonkeyPatch) -> Kind:
    """Return a kind for one test; Parquet tables are converted row by row."""
    if kind.name == "parquet":
        pytest.importorskip("pyarrow")
        monkeypatch.setattr(parquet, "BATCH_ROWS", 1)
    return kind
