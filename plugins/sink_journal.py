"""Keeps events on disk, in SQLite: what was published can be read again."""

import sqlite3
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TypeAlias

import msgspec
from pydantic import Field

from neurovocal.engine.errors import StageError
from neurovocal.engine.journal import open_journal
from neurovocal.engine.registry import BuildContext, Options, Plugin
from neurovocal.engine.timebase import Clock
from neurovocal.engine.types import BULK_KINDS, KINDS, Anchor, Message
from neurovocal.engine.wire import event_json, latency_of, payload_of
from neurovocal.plugins._output import STDOUT, claim, output_problems

Row: TypeAlias = tuple[str, str, str, int, int, int | None, str, str | None, bytes]

_INSERT = "INSERT OR IGNORE INTO messages VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
# A burst is written in one transaction, but not one of any length.
_MOST_ROWS = 1000


class JournalOptions(Options):
    """Options of the journal."""

    path: str = Field(min_length=1)
    """File to write; one that exists gets another run."""
    commit_ms: float = Field(default=200.0, ge=0)
    """Events of so many milliseconds are committed together, at most."""


class JournalSink:
    """Writes events into a journal (docs/journal.md).

    An event that comes `commit_ms` or more after the last commit is committed at
    once, a burst behind it together; the engine flushes when nothing comes for a
    moment. A killed program thus loses events of less than a second.

    Parameters
    ----------
    options : JournalOptions
        Checked options.
    clock : Clock
        For the commit window and the time at which the run began.
    run, config : str
        Name of the run, and its whole configuration.
    """

    wants = frozenset(KINDS.values()) - BULK_KINDS - {"stats"}

    def __init__(
        self, options: JournalOptions, clock: Clock, run: str, config: str
    ) -> None:
        self.path = Path(options.path).expanduser()
        self._window_ns = round(options.commit_ms * 1e6)
        self._clock = clock
        self._run = run
        self._config = config
        self._connection: sqlite3.Connection | None = None
        self._waiting: list[Row] = []
        self._committed_ns = 0
        self._written = 0
        self._commits = 0

    def open(self) -> None:
        """Open or make the journal and note that a run begins.

        Raises
        ------
        ConfigError
            The file is no journal, or cannot be written.
        """
        self._connection = open_journal(self.path)
        row = (self._run, self._clock.utc_ns(), version("neurovocal"), self._config)
        self._transact("INSERT OR IGNORE INTO runs VALUES (?, ?, ?, ?)", [row])

    def write(self, message: Message) -> None:
        """Take an event; commit when the window is over.

        Raises
        ------
        StageError
            The disk does not take it. What came before is kept and tried again.
        """
        self._waiting.append(self._row(message))
        elapsed_ns = self._clock.monotonic_ns() - self._committed_ns
        if elapsed_ns < self._window_ns and len(self._waiting) < _MOST_ROWS:
            return
        try:
            self._commit()
        except StageError:
            self._waiting.pop()  # the engine knows that this one has failed
            raise

    def flush(self, timeout: float) -> None:
        """Commit everything."""
        self._commit()

    def close(self) -> None:
        """Commit everything and close the file."""
        if self._connection is None:
            return
        try:
            self._commit()
        finally:
            self._connection.close()
            self._connection = None

    def stats(self) -> dict[str, object]:
        """Events on disk and not yet on it, and transactions."""
        return {
            "written": self._written,
            "waiting": len(self._waiting),
            "commits": self._commits,
        }

    def _row(self, message: Message) -> Row:
        event = message.event
        latency = latency_of(message, None)
        return (
            self._run,
            message.kind,
            message.info.stream.encode("utf-8", "backslashreplace").decode(),
            message.seq,
            message.sample,
            event.utc_ns if isinstance(event, Anchor) else message.utc_ns,
            event_json(message).decode(),
            None if latency is None else msgspec.json.encode(latency).decode(),
            payload_of(message),
        )

    def _commit(self) -> None:
        self._committed_ns = self._clock.monotonic_ns()
        if self._waiting:
            self._transact(_INSERT, self._waiting)
            self._written += len(self._waiting)
            self._waiting.clear()

    def _transact(self, statement: str, rows: Sequence[tuple[object, ...]]) -> None:
        if self._connection is None:
            raise StageError(f"journal '{self.path}' is not open")
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            self._connection.executemany(statement, rows)
            self._connection.execute("COMMIT")
            self._commits += 1
        except sqlite3.Error as error:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise StageError(
                f"journal '{self.path}' cannot be written: {error}"
            ) from error


def _build(options: JournalOptions, context: BuildContext) -> JournalSink:
    return JournalSink(options, context.clock, context.run, context.config_text)


def _problems(options: JournalOptions, context: BuildContext) -> list[str]:
    if options.path == STDOUT:
        return ["a journal is a file: '-' is none"]
    return list(output_problems(options.path))


plugin = Plugin(
    kind="sink",
    options=JournalOptions,
    build=_build,
    summary="keeps events on disk (SQLite), to be read again or replayed",
    resources=lambda options: claim(options.path),
    check=_problems,
)
