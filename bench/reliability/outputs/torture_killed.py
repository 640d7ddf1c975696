"""Configuration of a killed run with sinks of all kinds, and its known events."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from disk_audit import SONG

from neurovocal.engine.client import Received
from neurovocal.engine.journal import RecordedEvent

RATE = 32_000
PRE_ROLL_S, POST_ROLL_S = 0.1, 0.1
KINDS = ("onset", "offset", "label", "audio")
CONFIG = """
version: 1
station: torture
source: {{plugin: synthetic, options: {{pace: realtime, duration_s: null, seed: {seed},
         pause_ms: {pause_ms}, song_length: {song_length}}}}}
bundle: bengalese-finch
models:
  - {{plugin: classifier}}
  - {{plugin: rnn_rbm, options: {{synthesis: free, sound: true}}}}
sinks:
  - {{plugin: zmq, options: {{endpoint: "tcp://127.0.0.1:{port}"}},
     events: [onset, offset, label, audio], queue: {{bulk: 9999}}}}
  - {{plugin: journal, options: {{path: {journal}}}}}
  - {{plugin: jsonl, options: {{path: {out}/e.jsonl, append: true}}}}
  - {{plugin: columns, options: {{path: {out}/l.csv}}}}
  - {{plugin: columns, options: {{path: {out}/l.parquet, format: parquet}}}}
  - {{plugin: table, options: {{path: {out}/t.csv}}}}
  - {{plugin: clips, options: {{path: {out}/clips, min_free_mb: 0, pre_roll_s: {pre},
     post_roll_s: {post}, longest_s: 2}}, queue: {{bulk: 9999}}}}
  - {{plugin: wav, options: {{path: {out}/w}}, queue: {{bulk: 9999}}}}
  - {{plugin: recording, options: {{path: {out}/r}}, queue: {{bulk: 9999}}}}
"""
Key: TypeAlias = tuple[str, Any]  # kind and number of an event


def config_text(seed: int, port: int, journal: Path, out: Path) -> str:
    """Return the configuration of a run with a classifier, synthesis and all sinks."""
    rolls = {"pre": PRE_ROLL_S, "post": POST_ROLL_S}
    return CONFIG.format(
        seed=seed, port=port, journal=journal, out=out, **SONG, **rolls
    )


@dataclass
class SinkCounts:
    """Counts of one sink over all kills."""

    kept: int = 0
    lost: int = 0
    within_window: int = 0
    doubled: int = 0
    wrong: int = 0


@dataclass
class KilledRun:
    """Known events of a run that was killed.

    ``old`` are those received longer than the window before the kill.
    """

    run: str
    journal: list[RecordedEvent]
    received: list[Received]
    old: list[Received]
    seed: int

    def __post_init__(self) -> None:
        self.headers: dict[Key, bytes] = {
            (e.kind, e.seq): e.header for e in self.journal
        }
        self.reached = max((m.at for m in self.old), default=0)
        self._newest = {m.kind: m.seq for m in self.old}

    def all(self, *kinds: str) -> set[Key]:
        """Return keys of the journal's events of some kinds."""
        return {key for key in self.headers if key[0] in kinds}

    def due(self, keys: set[Key]) -> set[Key]:
        """Return those of `keys` that are older than the window."""
        return {(kind, n) for kind, n in keys if n <= self._newest.get(kind, -1)}

    def fields(self, key: Key) -> dict[str, Any]:
        """Return the header of an event of the journal."""
        found: dict[str, Any] = json.loads(self.headers[key])
        return found

    def finals(self) -> dict[tuple[str, str], Key]:
        """Return final labels by onset in seconds and unit, as in tables."""
        labels = {key: self.fields(key) for key in self.all("label")}
        return {
            (f"{fields['onset'] / RATE:.6f}", fields["unit"]): key
            for key, fields in labels.items()
            if fields["status"] == "final"
        }
