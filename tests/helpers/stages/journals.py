"""Journals with a few known messages."""

import sqlite3
from pathlib import Path

import numpy as np

from neurovocal.engine.contracts.clock import Clock, SystemClock
from neurovocal.engine.contracts.plugin import BuildContext
from neurovocal.engine.contracts.types import (
    Frames,
    Label,
    Ledger,
    Message,
    StreamInfo,
)
from neurovocal.plugins.sinks.journal import JournalOptions, JournalSink, plugin

INFO = StreamInfo("aviary-3", 32000)


def build(
    path: Path, run: str = "run-1", clock: Clock | None = None, **options: object
) -> JournalSink:
    checked = JournalOptions.model_validate({"path": str(path), **options})
    context = BuildContext(clock or SystemClock(), run, config_text="version: 1\n")
    sink = plugin.build(checked, context)
    assert isinstance(sink, JournalSink)
    return sink


def label(seq: int, posterior: float = 0.5) -> Message:
    event = Label(seq, seq, seq + 9, "b", posterior, "final", "m")
    return Message(INFO, event, seq, seq + 20, 1000 + seq, Ledger(1.0, 2.0, 3.0), 5)


def frames(seq: int, value: float = 1.0) -> Message:
    return Message(
        INFO, Frames(seq, 128, 256, np.full((2, 3), value, np.float32)), seq, 0
    )


def write(path: Path, messages: list[Message], run: str = "run-1") -> None:
    sink = build(path, run)
    sink.open()
    for message in messages:
        sink.write(message)
    sink.close()


def count(path: Path) -> int:
    """Rows that another program sees at this moment."""
    connection = sqlite3.connect(path)
    (rows,) = connection.execute("SELECT count(*) FROM messages").fetchone()
    connection.close()
    assert isinstance(rows, int)
    return rows
