"""Write published events to an SQLite journal, from which they can be read again."""

import logging
import sqlite3
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Literal, TypeAlias

import msgspec
from pydantic import Field

from neurovocal.engine import (
    KINDS,
    Anchor,
    BuildContext,
    Clock,
    ConfigError,
    Message,
    Options,
    OutputProblem,
    Plugin,
    StageError,
)
from neurovocal.engine.contracts.options import MOST_MB
from neurovocal.engine.contracts.types import BULK_KINDS
from neurovocal.engine.journal.retention import remove_above, remove_older, used_bytes
from neurovocal.engine.journal.store import (
    DamagedJournalError,
    is_damage,
    is_journal,
    open_journal,
)
from neurovocal.engine.support.names import at_home, beside
from neurovocal.engine.wire.codec import event_json, latency_of, payload_of
from neurovocal.plugins.storage.file_lock import FileIdentity
from neurovocal.plugins.storage.folder import OutputFolder, identity_of
from neurovocal.plugins.storage.text_file import (
    STDOUT,
    file_access,
    file_claim,
    output_problems,
)
from neurovocal.plugins.zeromq.endpoint import claim, endpoint_problems
from neurovocal.plugins.zeromq.fair_queue import Rate
from neurovocal.plugins.zeromq.replay_server import ReplayServer

_FILES = ("", "-wal", "-shm")  # a journal's file, and what SQLite keeps beside it

JournalRow: TypeAlias = tuple[
    str, str, str, int, int, int | None, str, str | None, bytes
]

log = logging.getLogger("neurovocal")

_INSERT = "INSERT OR IGNORE INTO messages VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
# Rows of a transaction at most.
_MOST_ROWS = 1000
_DAY_NS = 86_400 * 10**9
# Time between two checks of age and size.
_RETENTION_NS = 10 * 10**9


class JournalOptions(Options):
    """Options of the journal."""

    path: str = Field(min_length=1)
    """File to write; one that exists gets another run."""
    commit_ms: float = Field(default=200.0, ge=0, le=60_000)
    """Events of so many milliseconds are committed together, at most."""
    sync: Literal["full", "normal"] = "full"
    """`full`: committed events survive a loss of power. `normal` spares the disk:
    it survives the death of the program, but a loss of power may take the newest
    hours."""
    keep_days: float | None = Field(default=None, gt=0, le=36_500)
    """Events older than this are removed; null: never."""
    keep_mb: float | None = Field(default=None, ge=1, le=MOST_MB)
    """The oldest events are removed when the journal is larger; null: never."""
    replay: str | None = None
    """Endpoint where subscribers can request missed messages, such as
    `tcp://127.0.0.1:5558`; null: nowhere."""
    replay_requests_s: float = Field(default=200.0, ge=1, le=1_000_000)
    """What one connection may ask for at the replay socket each second: so many
    requests (or a mixture of them and of `replay_mb_s`). Who asks for more is
    answered later; the others do not wait for it."""
    replay_mb_s: float = Field(default=8.0, ge=1, le=100_000)
    """... or so many megabytes of messages."""
    allow_remote: bool = False
    """Whether a replay endpoint that other machines can reach may be bound."""


class JournalSink:
    """Writes events to a journal (docs/reference/journal.md).

    An event that comes `commit_ms` or more after the last commit is committed at once,
    those that follow it are committed together; the engine flushes when no event comes
    for a moment. A killed program thus loses events of less than a second.

    A journal that is found damaged at opening is renamed, and a new one is begun:
    damage of earlier events must not cost new ones.

    Parameters
    ----------
    options : JournalOptions
        Checked options.
    clock : Clock
        Measures the commit window and gives the start of the run.
    run, config : str
        Name of the run, and its complete configuration.
    keys : Path, optional
        Folder of keys for the replay socket.
    """

    wants = frozenset(KINDS.values()) - BULK_KINDS - {"stats"}

    def __init__(
        self,
        options: JournalOptions,
        clock: Clock,
        run: str,
        config: str,
        keys: Path | None = None,
    ) -> None:
        self.path = at_home(options.path)
        self._folder = OutputFolder(self.path.parent)
        self._window_ns = round(options.commit_ms * 1e6)
        self._clock = clock
        self._run = run
        self._config = config
        self._connection: sqlite3.Connection | None = None
        self._pending: list[JournalRow] = []
        self._sync = options.sync.upper()
        self._keep_ns = (
            None if options.keep_days is None else options.keep_days * _DAY_NS
        )
        self._keep_bytes = (
            None if options.keep_mb is None else round(options.keep_mb * 2**20)
        )
        self._server = (
            None
            if options.replay is None
            else ReplayServer(
                options.replay,
                self.path,
                keys,
                Rate(options.replay_requests_s, options.replay_mb_s * 1e6),
            )
        )
        self._identity: FileIdentity | None = None
        self._check_thoroughly = False  # SQLite has reported damage
        self._committed_ns = 0
        self._pruned_ns = 0
        self._written = self._commits = self._removed = self._bytes = 0

    def open(self) -> None:
        """Open or make the journal, add the run to it and open the replay socket.

        Raises
        ------
        ConfigError
            The file is not a journal, or cannot be written.
        """
        try:
            self._folder.ensure()
            self._connection = self._open_journal()
        except OSError as error:
            raise ConfigError(
                f"journal '{self.path}' cannot be written: {error.strerror}"
            ) from error
        except DamagedJournalError as error:
            renamed = _rename_damaged(self.path, self._clock.utc_ns())
            log.warning("%s; it was set aside as '%s'", error, renamed.name)
            self._connection = self._open_journal()
        self._check_thoroughly = False
        self._identity = identity_of(self.path)
        row = (self._run, self._clock.utc_ns(), version("neurovocal"), self._config)
        columns = "run, started_utc_ns, version, config"
        self._transact(
            f"INSERT INTO runs ({columns}) VALUES (?, ?, ?, ?) "
            "ON CONFLICT DO UPDATE SET ended_utc_ns = NULL",
            [row],
        )
        if self._server is not None:
            self._server.close()
            self._server.open()

    def _open_journal(self) -> sqlite3.Connection:
        return open_journal(
            self.path, synchronous=self._sync, thorough=self._check_thoroughly
        )

    def write(self, message: Message) -> None:
        """Add an event, and commit all pending ones when the commit window is over.

        Raises
        ------
        StageError
            The commit fails. Earlier events stay pending; this one is removed.
        """
        self._pending.append(self._row(message))
        elapsed_ns = self._clock.monotonic_ns() - self._committed_ns
        if elapsed_ns < self._window_ns and len(self._pending) < _MOST_ROWS:
            return
        try:
            self._commit()
        except StageError:
            self._pending.pop()  # the engine repeats this one
            raise

    def flush(self, timeout: float) -> None:
        """Commit all pending events; raise StageError if that fails."""
        self._commit()

    def close(self) -> None:
        """Commit all pending events, note the end of the run and close the file."""
        if self._server is not None:
            self._server.close()
        if self._connection is None:
            return
        try:
            self._commit()
            self._transact(
                "UPDATE runs SET ended_utc_ns = ? WHERE run = ?",
                [(self._clock.utc_ns(), self._run)],
            )
        finally:
            self._connection.close()
            self._connection = None

    @property
    def uncommitted(self) -> int:
        """Number of events that are pending."""
        return len(self._pending)

    def commit(self) -> None:
        """Commit all pending events; raise StageError if that fails."""
        self._commit()

    def stats(self) -> dict[str, object]:
        """Return counts of written, pending and removed events, commits, and the size.

        With a replay socket also the counts of its requests (`RequestCounts`).
        """
        own: dict[str, object] = {
            "written": self._written,
            "waiting": len(self._pending),
            "commits": self._commits,
            "removed": self._removed,
            "mb": round(self._bytes / 2**20, 1),
        }
        if self._server is not None:
            own["replay"] = asdict(self._server.counts)
        return own

    def _row(self, message: Message) -> JournalRow:
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
        if self._pending:
            self._transact(_INSERT, self._pending)
            self._written += len(self._pending)
            self._pending.clear()
        if self._committed_ns - self._pruned_ns >= _RETENTION_NS:
            self._prune()

    def _prune(self) -> None:
        """Remove a bounded number of old events; the next commit removes more."""
        if self._connection is None:
            return
        removed = 0
        try:
            if self._keep_ns is not None:
                before = self._clock.utc_ns() - round(self._keep_ns)
                removed += remove_older(self._connection, before)
            if self._keep_bytes is not None:
                removed += remove_above(self._connection, self._keep_bytes)
            self._bytes = used_bytes(self._connection)
        except sqlite3.Error as error:
            raise self._failure(error) from error
        self._removed += removed
        if not removed:
            self._pruned_ns = self._committed_ns

    def _transact(self, statement: str, rows: Sequence[tuple[object, ...]]) -> None:
        if self._connection is None:
            raise StageError(f"journal '{self.path}' is not open")
        try:
            self._folder.require_same(self.path, self._identity)
        except OSError as error:
            raise StageError(
                f"journal '{self.path}' cannot be written: {error.strerror}"
            ) from error
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            self._connection.executemany(statement, rows)
            self._connection.execute("COMMIT")
            self._commits += 1
        except sqlite3.Error as error:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise self._failure(error) from error

    def _failure(self, error: sqlite3.Error) -> StageError:
        self._check_thoroughly |= is_damage(error)
        return StageError(f"journal '{self.path}' cannot be written: {error}")


def _rename_damaged(path: Path, utc_ns: int) -> Path:
    """Rename a damaged journal with its write-ahead log."""
    when = datetime.fromtimestamp(utc_ns / 1e9, UTC).strftime("%Y%m%dT%H%M%SZ")
    renamed = beside(path, middle=f".damaged-{when}")
    for end in _FILES:
        part = path.with_name(path.name + end)
        if part.exists():
            part.rename(renamed.with_name(renamed.name + end))
    return renamed


def _build(options: JournalOptions, context: BuildContext) -> JournalSink:
    return JournalSink(
        options, context.clock, context.run, context.config_text, context.keys
    )


def _problems(options: JournalOptions, context: BuildContext) -> list[str]:
    if options.path == STDOUT:
        return ["a journal is a file: '-' is none"]
    problems = list(output_problems(options.path))
    if not problems:
        try:
            is_journal(at_home(options.path))
        except ConfigError as error:
            problems.append(OutputProblem(error))
    if options.replay is not None:
        problems += endpoint_problems(
            options.replay,
            allow_remote=options.allow_remote,
            keyed=context.keys is not None,
        )
    return problems


def _resources(options: JournalOptions) -> frozenset[str]:
    endpoint = frozenset() if options.replay is None else claim(options.replay)
    files = [file_claim(options.path + end) for end in _FILES]
    return endpoint.union(*files)


plugin = Plugin(
    kind="sink",
    options=JournalOptions,
    build=_build,
    summary="keeps events on disk (SQLite), to be read again or replayed",
    resources=_resources,
    check=_problems,
    writes=lambda options, context: file_access(
        *(options.path + end for end in _FILES)
    ),
)
