"""Keeps events on disk, in SQLite: what was published can be read again."""

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

from neurovocal.engine.contracts.clock import Clock
from neurovocal.engine.contracts.errors import ConfigError, StageError
from neurovocal.engine.contracts.options import Options
from neurovocal.engine.contracts.plugin import BuildContext, Plugin
from neurovocal.engine.contracts.types import BULK_KINDS, KINDS, Anchor, Message
from neurovocal.engine.journal.retention import remove_above, remove_older, used_bytes
from neurovocal.engine.journal.store import (
    DamagedJournalError,
    is_damage,
    is_journal,
    open_journal,
)
from neurovocal.engine.wire.codec import event_json, latency_of, payload_of
from neurovocal.plugins.storage.folder import OutputFolder, identity_of
from neurovocal.plugins.storage.text_file import STDOUT, claim, output_problems
from neurovocal.plugins.zeromq.endpoint import claim as claim_endpoint
from neurovocal.plugins.zeromq.endpoint import endpoint_problems
from neurovocal.plugins.zeromq.fair_queue import Rate
from neurovocal.plugins.zeromq.replay_server import ReplayServer

Row: TypeAlias = tuple[str, str, str, int, int, int | None, str, str | None, bytes]

log = logging.getLogger("neurovocal")

_INSERT = "INSERT OR IGNORE INTO messages VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
# A burst is written in one transaction, but not one of any length.
_MOST_ROWS = 1000
_DAY_NS = 86_400 * 10**9
# How often age and size are looked at.
_UPKEEP_NS = 10 * 10**9


class JournalOptions(Options):
    """Options of the journal."""

    path: str = Field(min_length=1)
    """File to write; one that exists gets another run."""
    commit_ms: float = Field(default=200.0, ge=0)
    """Events of so many milliseconds are committed together, at most."""
    sync: Literal["full", "normal"] = "full"
    """`full`: what is committed survives a loss of power. `normal` spares the disk:
    it survives the death of the program, but a loss of power may take the newest
    hours."""
    keep_days: float | None = Field(default=None, gt=0)
    """Events older than this are removed; null: never."""
    keep_mb: float | None = Field(default=None, ge=1)
    """The oldest events are removed when the journal is larger; null: never."""
    replay: str | None = None
    """Where subscribers can ask for what they missed, such as
    `tcp://127.0.0.1:5558`; null: nowhere."""
    replay_requests_s: float = Field(default=200.0, ge=1)
    """What one connection may ask for at the replay socket each second: so many
    requests (or a mixture of them and of `replay_mb_s`). Who asks for more is
    answered later; the others do not wait for it."""
    replay_mb_s: float = Field(default=8.0, ge=1)
    """... or so many megabytes of messages."""
    allow_remote: bool = False
    """Whether a replay endpoint that other machines can reach may be bound."""


class JournalSink:
    """Writes events into a journal (docs/journal.md).

    An event that comes `commit_ms` or more after the last commit is committed at
    once, a burst behind it together; the engine flushes when nothing comes for a
    moment. A killed program thus loses events of less than a second.

    A journal that is damaged when it is opened is set aside under another name, and
    a new one is begun: that of yesterday must not cost the events of today.

    Parameters
    ----------
    options : JournalOptions
        Checked options.
    clock : Clock
        For the commit window and the time at which the run began.
    run, config : str
        Name of the run, and its whole configuration.
    keys : Path, optional
        Folder of keys, for the replay socket.
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
        self.path = Path(options.path).expanduser()
        self._place = OutputFolder(self.path.parent)
        self._window_ns = round(options.commit_ms * 1e6)
        self._clock = clock
        self._run = run
        self._config = config
        self._connection: sqlite3.Connection | None = None
        self._waiting: list[Row] = []
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
        self._identity: tuple[int, int] | None = None
        self._suspicious = False  # SQLite spoke of damage: look at every page
        self._committed_ns = 0
        self._kept_up_ns = 0
        self._written = self._commits = self._removed = self._bytes = 0

    def open(self) -> None:
        """Open or make the journal and note that a run begins.

        Raises
        ------
        ConfigError
            The file is no journal, or cannot be written.
        """
        try:
            self._place.enter()
            self._connection = self._opened()
        except OSError as error:
            raise ConfigError(
                f"journal '{self.path}' cannot be written: {error.strerror}"
            ) from error
        except DamagedJournalError as error:
            aside = _set_aside(self.path, self._clock.utc_ns())
            log.warning("%s; it was set aside as '%s'", error, aside.name)
            self._connection = self._opened()
        self._suspicious = False
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

    def _opened(self) -> sqlite3.Connection:
        return open_journal(
            self.path, synchronous=self._sync, thorough=self._suspicious
        )

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
        """Commit everything, note that the run has ended, and close the file."""
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

    def stats(self) -> dict[str, object]:
        """Events on disk, not yet on it and removed again; transactions; size.

        With a replay socket also what became of the requests (`RequestCounts`).
        """
        own: dict[str, object] = {
            "written": self._written,
            "waiting": len(self._waiting),
            "commits": self._commits,
            "removed": self._removed,
            "mb": round(self._bytes / 2**20, 1),
        }
        if self._server is not None:
            own["replay"] = asdict(self._server.counts)
        return own

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
        if self._committed_ns - self._kept_up_ns >= _UPKEEP_NS:
            self._keep_up()

    def _keep_up(self) -> None:
        """One bounded step of removing; while there is more, the next follows soon."""
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
            self._kept_up_ns = self._committed_ns

    def _transact(self, statement: str, rows: Sequence[tuple[object, ...]]) -> None:
        if self._connection is None:
            raise StageError(f"journal '{self.path}' is not open")
        if identity_of(self.path) != self._identity:
            raise StageError(
                f"journal '{self.path}' cannot be written: "
                f"{self._place.lost(self.path)}"
            )
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
        self._suspicious |= is_damage(error)
        return StageError(f"journal '{self.path}' cannot be written: {error}")


def _set_aside(path: Path, utc_ns: int) -> Path:
    """Rename a damaged journal, with its write-ahead log; nothing is deleted."""
    when = datetime.fromtimestamp(utc_ns / 1e9, UTC).strftime("%Y%m%dT%H%M%SZ")
    aside = path.with_name(f"{path.stem}.damaged-{when}{path.suffix}")
    for end in ("", "-wal", "-shm"):
        part = path.with_name(path.name + end)
        if part.exists():
            part.rename(aside.with_name(aside.name + end))
    return aside


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
            is_journal(Path(options.path).expanduser())
        except ConfigError as error:
            problems.append(str(error))
    if options.replay is not None:
        problems += endpoint_problems(
            options.replay,
            allow_remote=options.allow_remote,
            keyed=context.keys is not None,
        )
    return problems


def _resources(options: JournalOptions) -> frozenset[str]:
    endpoint = frozenset() if options.replay is None else claim_endpoint(options.replay)
    return claim(options.path) | endpoint


plugin = Plugin(
    kind="sink",
    options=JournalOptions,
    build=_build,
    summary="keeps events on disk (SQLite), to be read again or replayed",
    resources=_resources,
    check=_problems,
)
