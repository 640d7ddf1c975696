"""Sink worker: a sink's thread and queues, and its policy for failures."""

import logging
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from threading import Event as Flag
from threading import Lock, Thread
from typing import Literal, TypeAlias

from neurovocal.engine.contracts.abilities import ReportsStats, ReportsTrouble
from neurovocal.engine.contracts.clock import NS, Clock
from neurovocal.engine.contracts.commits import (
    CompletesStreams,
    KeepsEvents,
    LimitsClose,
    ReportsLosses,
)
from neurovocal.engine.contracts.errors import NeurovocalError, StageError
from neurovocal.engine.contracts.options import OnError
from neurovocal.engine.contracts.stages import Sink
from neurovocal.engine.contracts.types import (
    BULK_KINDS,
    KINDS,
    Message,
)
from neurovocal.engine.runtime.workers.mailbox import Mailbox, MailboxClosed
from neurovocal.engine.runtime.workers.stream_commit import StreamCommit
from neurovocal.engine.support.calls import Backoff, Calls
from neurovocal.engine.support.platform import is_stdout_closed_by_reader

log = logging.getLogger("neurovocal")
_FLUSH_S = 1.0
_STOP_POLL_S = 0.1
_IDLE_S = 0.25

# A sink has this long to close, even if all of the time for stopping is used up.
_CLOSE_S = 2.0
_CLOSE_POLL_S = 0.1

# A sink that hangs leaves its thread behind; after so many, the last one is waited for.
_MOST_LEFT_BEHIND = 3


Item: TypeAlias = Message | StreamCommit


class SinkThreadReplaced(BaseException):
    """The call hung, and meanwhile another thread has taken the place of its thread."""


class SupervisedSink:
    """Sink with counted calls, and with failures that are counted and logged.

    Every method that calls the sink raises `SinkThreadReplaced` when the call took so
    long that the thread was given up: then this object belongs to another thread.

    Parameters
    ----------
    name : str
        Name in logs.
    sink : Sink
        The sink.
    clock : Clock
        Measures the pauses between attempts to open it again.
    stopping : Flag
        Set when a sink that is closed is not opened again.

    Attributes
    ----------
    sink : Sink
        The present one.
    calls : Calls
        Calls of the present thread; read by the watchdog.
    lock : Lock
        Held while a returned call is checked, and while another thread takes over.
    down : bool
        It failed and is not open again yet.
    failing : bool
        The last write or flush failed: it is logged once, not each time.
    failures : int
        How often it began to fail.
    errors : int
        Calls that failed.
    trouble : str
        Sentence of the last failure, also when it is over.
    """

    def __init__(self, name: str, sink: Sink, clock: Clock, stopping: Flag) -> None:
        self.use(sink)
        self.calls = Calls()
        self.lock = Lock()
        self.down = False
        self.failing = False
        self.failures = 0
        self.errors = 0
        self.is_complete = True  # the streams that `end` ended last
        self.trouble = ""
        self._name = name
        self._clock = clock
        self._stopping = stopping

    def use(self, sink: Sink) -> None:
        """Call `sink` from now on."""
        self.sink = sink
        self._counts = sink if isinstance(sink, ReportsStats) else None
        self._state = sink if isinstance(sink, ReportsTrouble) else None
        self.keeper = sink if isinstance(sink, KeepsEvents) else None
        self.completer = sink if isinstance(sink, CompletesStreams) else None

    def own_stats(self) -> dict[str, object]:
        """Return the sink's own counters, if it has some."""
        return {} if self._counts is None else self._counts.stats()

    @property
    def losses(self) -> str | None:
        """What the sink has not written; None: nothing."""
        return self.sink.losses if isinstance(self.sink, ReportsLosses) else None

    @property
    def own_trouble(self) -> str | None:
        """Reason why the sink continues without a part of its work, or None."""
        return None if self._state is None else self._state.trouble

    def write(self, message: Message) -> Exception | None:
        """Write one message; return its failure, or None."""
        try:
            self._call(self.sink.write, message)
        except Exception as error:
            self.errors += 1
            return error
        self.failing = False
        return None

    def end(self, streams: Sequence[str]) -> Exception | None:
        """Let the sink complete streams and commit; return its failure, or None."""
        try:
            if self.completer is not None:
                for stream in streams:
                    done = self._call(self.completer.end_stream, stream)
                    self.is_complete &= done is not False
            if self.keeper is not None:
                self._call(self.keeper.commit)
        except Exception as error:
            self.errors += 1
            return error
        self.failing = False
        return None

    def flush(self) -> Exception | None:
        """Flush the sink; return its failure, or None."""
        try:
            self._call(self.sink.flush, _FLUSH_S)
        except Exception as error:
            return error
        self.failing = False
        return None

    def reopen(self, backoff: Backoff) -> bool:
        """Close and open the sink until that succeeds; False if it must stop first."""
        self.down = True
        while True:
            try:
                self._call(self.sink.close)
            except Exception as error:
                log.warning("%s failed while closing: %s", self._name, error)
            self._pause(backoff.pause_s())
            if self._stopping.is_set():
                return False
            try:
                self._call(self.sink.open)
            except Exception as error:
                self.errors += 1
                log.warning("%s cannot be opened again yet: %s", self._name, error)
            else:
                self.down = False
                log.warning("%s is open again", self._name)
                return True

    def warn(self, what: str, error: Exception) -> None:
        """Log the first failure in a row; the others are counted."""
        self.trouble = str(error)
        if not self.failing:
            self.failures += 1
            log.warning("%s %s: %s", self._name, what, error)
        self.failing = True

    def _call(self, method: Callable[..., object], *arguments: object) -> object:
        calls = self.calls
        try:
            with calls:
                return method(*arguments)
        except Exception:
            raise
        except BaseException as error:  # a SystemExit of a plugin is a failure
            raise StageError(repr(error)) from error
        finally:
            # The watchdog replaces, with this lock held, what has not returned.
            with self.lock:
                replaced = calls is not self.calls
            if replaced:
                raise SinkThreadReplaced

    def _pause(self, seconds: float) -> None:
        until = self._clock.monotonic_ns() + round(seconds * NS)
        while not self._stopping.is_set():
            if self._clock.wait_until(until, _STOP_POLL_S):
                return


_QUEUE_OF = {
    kind: "bulk" if kind in BULK_KINDS else "events" for kind in KINDS.values()
}


class SinkWorker:
    """Bounded queues before a sink, one thread that writes, and its policy.

    Parameters
    ----------
    name : str
        Name in logs and counters.
    sink : Sink
        The sink.
    wants : frozenset of str
        Kinds of events it gets.
    mailbox : Mailbox of Message and StreamCommit
        With the queues ``events`` and ``bulk``.
    on_error : {'fail', 'skip', 'restart'}
        Policy when `write` fails.
    clock : Clock
        Measures the pauses between restarts.
    rebuild : callable, optional
        Makes another sink, in place of one that hangs.
    replaces_files : bool
        It may replace files, and nothing else can fail while it is opened: it is
        opened after the others.

    Attributes
    ----------
    supervised : SupervisedSink
        The sink and its state.
    error : Exception or None
        Why the run has to end, or what went wrong while closing.
    failed : Flag
        Set when the sink takes no more messages.
    reader_left : bool
        That is because the reader of the program's output has closed it.
    """

    def __init__(
        self,
        name: str,
        sink: Sink,
        wants: frozenset[str],
        mailbox: Mailbox[Item],
        on_error: OnError,
        clock: Clock,
        rebuild: Callable[[], Sink] | None = None,
        *,
        replaces_files: bool = False,
    ) -> None:
        self.name = name
        self.replaces_files = replaces_files
        self.wants = wants
        self.mailbox = mailbox
        self.error: Exception | None = None
        self.failed = Flag()
        self.reader_left = False
        self._on_error = on_error
        self._stopping = Flag()
        self.supervised = SupervisedSink(name, sink, clock, self._stopping)
        self._n_channels: dict[str, int] = {}  # by lane
        self._writing: Message | None = None
        self._uncommitted: deque[Message] = deque()  # written, and a kill loses them
        self._lost = 0  # messages lost when the last stream was committed
        self._hung = 0  # number of the call that was last found hanging
        self._left_behind = 0
        self._rebuild = rebuild
        self._thread = self._new_thread()

    def open(self) -> None:
        """Open the sink and start its thread."""
        self.supervised.sink.open()
        self._thread.start()

    def set_channels(self, lane: str, n_channels: int) -> None:
        """Set the number of channels of a lane; the queues grow with it."""
        self._n_channels[lane] = n_channels
        self.mailbox.set_channels(sum(list(self._n_channels.values())))

    def accept(self, message: Message) -> None:
        """Queue a message; called by lane threads."""
        self.accept_all([message])

    def accept_all(self, messages: Sequence[Message]) -> None:
        """Queue messages that became known together; called by lane threads."""
        kinds = [KINDS[type(message.event)] for message in messages]
        queues = [_QUEUE_OF[kind] for kind in kinds]
        try:
            self.mailbox.put_all(list(zip(queues, kinds, messages, strict=True)))
        except MailboxClosed:
            return  # the mailbox has counted it as dropped

    @property
    def takes_ends(self) -> bool:
        """Return True if the sink has something to do when a stream ends."""
        return (
            self.supervised.keeper is not None or self.supervised.completer is not None
        )

    def accept_end(self, commit: StreamCommit) -> None:
        """Queue the end of a stream behind its messages; called by lane threads."""
        self.mailbox.put_mark(commit)

    def drain(self, timeout: float, *, hurry: bool) -> bool:
        """Refuse new messages and let the thread write the queued ones.

        Parameters
        ----------
        timeout : float
            Seconds to wait for it.
        hurry : bool
            Give up attempts to open a failed sink again.

        Returns
        -------
        bool
            True if the thread has ended.
        """
        self.mailbox.close()
        if hurry:
            self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join(timeout)
        return not self._thread.is_alive()

    def close(
        self, waits: Callable[[], bool] = lambda: True, *, hurry: bool = False
    ) -> bool:
        """Close the sink; messages that are not written by now count as dropped.

        Parameters
        ----------
        hurry : bool
            The run was stopped: a sink that waits for its readers gives up in time.
        waits : callable
            Called every 0.1 s: return True to wait on for a sink that does not close.

        Returns
        -------
        bool
            True if no thread of it was left behind.
        """
        self.mailbox.discard()
        unfinished = self._writing
        if self._thread.is_alive():
            if unfinished is not None:
                self._drop(unfinished)
            log.error("%s did not finish in time and was left behind", self.name)
            return False
        if hurry and isinstance(self.supervised.sink, LimitsClose):
            self.supervised.sink.limit_close(_CLOSE_S / 2)
        closer = Thread(target=self._close, name=f"nv-{self.name}", daemon=True)
        closer.start()
        closer.join(_CLOSE_S)
        while closer.is_alive() and waits():
            closer.join(_CLOSE_POLL_S)
        if closer.is_alive():
            log.error("%s does not close and was left behind", self.name)
        return not closer.is_alive()

    def _close(self) -> None:
        try:
            self.supervised.sink.close()
        except BaseException as error:
            log.exception("%s failed while closing", self.name)
            failure = error if isinstance(error, Exception) else StageError(repr(error))
            self.error = self.error or failure
        self._count_uncommitted()

    def _count_uncommitted(self) -> None:
        """Count messages as lost that the sink took and did not bring to its disk."""
        self._trim_uncommitted()
        for message in self._uncommitted:
            self._drop(message)
        self._uncommitted.clear()

    def _trim_uncommitted(self) -> None:
        keeper = self.supervised.keeper
        n_left = 0 if keeper is None else keeper.uncommitted
        while len(self._uncommitted) > n_left:
            self._uncommitted.popleft()

    def statistics(self) -> dict[str, object]:
        """Return the counters of the queues, and the sink's own where it has some."""
        counts = {"errors": self.supervised.errors, "replaced": self._left_behind}
        return {**self.mailbox.counts(), **counts, **self.supervised.own_stats()}

    def isolate(self, calls: Calls, seconds: float) -> None:
        """Contain a call that has not returned for `seconds`; called by the watchdog.

        The queues before the sink are bounded, so the other sinks go on anyhow. Where
        its policy is to restart, a new sink with a new thread takes its place; the
        message that it was writing counts as lost. Where the source waits for the
        sink nothing is lost by waiting: it is only logged.
        """
        supervised = self.supervised
        with supervised.lock:
            if calls is not supervised.calls or self._hung == calls.entered:
                return  # it was replaced, or reported, before
            if calls.returned >= calls.entered:
                return  # just now
            self._hung = calls.entered
            supervised.trouble = f"it has not returned for {seconds:.0f} s"
            log.error("%s: %s", self.name, supervised.trouble)
            if self.mailbox.when_full == "block":
                return
            replaceable = self._on_error == "restart" and self._rebuild is not None
            if replaceable and self._left_behind < _MOST_LEFT_BEHIND:
                self._replace()
                return
        if self._on_error == "fail":
            self._give_up(StageError(supervised.trouble))

    def _replace(self) -> None:
        self._left_behind += 1
        self.supervised.calls, self._hung = Calls(), 0
        for message in self._uncommitted:
            self._drop(message)
        self._uncommitted.clear()
        if self._writing is not None:
            self._drop(self._writing)
            self._writing = None
        self.supervised.down = True
        self._thread = self._new_thread(replaces=True)
        self._thread.start()

    def _new_thread(self, *, replaces: bool = False) -> Thread:
        run = self._run_replacement if replaces else self._run
        return Thread(target=run, name=f"nv-{self.name}", daemon=True)

    @property
    def trouble(self) -> tuple[Literal["lossy", "restarting", "failed"], str] | None:
        """State of a sink in trouble and a sentence; None: it works.

        A sink that goes on without a part of its work (`ReportsTrouble`) is lossy.
        """
        supervised = self.supervised
        if self.failed.is_set() and not self.reader_left:
            return "failed", str(self.error or supervised.trouble)
        if self._hung and self._hung > supervised.calls.returned:
            return "failed", supervised.trouble
        if supervised.down or supervised.failing:
            return "restarting", supervised.trouble
        own = supervised.own_trouble
        return None if own is None else ("lossy", own)

    def _run(self) -> None:
        sink = self.supervised.sink
        with suppress(SinkThreadReplaced):
            self._work()
            return
        # Another thread has taken over: this one only closes its sink.
        try:
            sink.close()
        except BaseException as error:
            log.warning("%s, replaced, failed while closing: %s", self.name, error)

    def _run_replacement(self) -> None:
        """Build and open another sink in place of one that hangs, and run it."""
        assert self._rebuild is not None
        self.supervised.use(self._rebuild())
        try:
            opened = self.supervised.reopen(Backoff())
        except SinkThreadReplaced:
            return
        if opened:
            self._run()
        else:
            self.mailbox.discard()

    def _work(self) -> None:
        dirty = False
        while True:
            try:
                message = self.mailbox.get(_IDLE_S)
            except MailboxClosed:
                break
            if isinstance(message, StreamCommit):
                if not self._end_streams(message):
                    return
            elif message is not None:
                dirty = True
                if not self._deliver(message):
                    return
            elif dirty:
                # No message waits: bring what was written to safety.
                dirty = not self._flush()
                if self.failed.is_set():
                    return
        self._flush()

    def _end_streams(self, commit: StreamCommit) -> bool:
        """Commit streams that have ended; return False when the sink takes no more."""
        backoff = Backoff()
        self.supervised.is_complete = True
        while (error := self._end(commit)) is not None:
            if self._on_error == "fail":
                self._give_up(error)
                return False
            self.supervised.warn("failed", error)
            if self._on_error != "restart" or self._stopping.is_set():
                commit.done(self, kept=False)
                return True
            if not self.supervised.reopen(backoff):
                self.mailbox.discard()
                return False
        self._trim_uncommitted()
        lost = self.mailbox.dropped.total()
        commit.done(self, kept=self.supervised.is_complete and lost == self._lost)
        self._lost = lost
        return True

    def _end(self, commit: StreamCommit) -> Exception | None:
        try:
            return self.supervised.end(commit.streams)
        except SinkThreadReplaced:
            commit.done(self, kept=False)
            raise

    def _deliver(self, message: Message) -> bool:
        """Write one message; return False when the sink takes no more."""
        error = self._write(message)
        return error is None or self._on_failure(message, error)

    def _on_failure(self, message: Message, error: Exception | None) -> bool:
        """Act on a failed write as the policy says; as `_deliver`."""
        backoff = Backoff()
        while error is not None:
            if isinstance(error, BrokenPipeError) and is_stdout_closed_by_reader():
                # The reader of our output (`| head`) has closed it: no failure,
                # no loss.
                self.reader_left = True
                self.mailbox.discard()
                self.failed.set()
                return False
            if self._on_error == "fail":
                self._drop(message)
                self._give_up(error)
                return False
            self.supervised.warn("failed", error)
            if self._on_error != "restart" or self._stopping.is_set():
                self._drop(message)
                break
            if not self.supervised.reopen(backoff):
                # The run stopped while it was closed: no queued message can be written.
                self._drop(message)
                self.mailbox.discard()
                return False
            error = self._write(message)
        return True

    def _write(self, message: Message) -> Exception | None:
        self._writing = message
        error = self.supervised.write(message)
        # Not after `SinkThreadReplaced`: the message is another thread's by then.
        self._writing = None
        if error is None and self.supervised.keeper is not None:
            self._uncommitted.append(message)
            self._trim_uncommitted()
        return error

    def _drop(self, message: Message) -> None:
        self.mailbox.note_lost(_QUEUE_OF[message.kind], message.kind)

    def _flush(self) -> bool:
        error = self.supervised.flush()
        if error is None:
            return True
        if self._on_error == "fail":
            self._give_up(error)
        self.supervised.warn("failed while flushing", error)
        return False

    def _give_up(self, error: Exception) -> None:
        sentence = str(error)
        if not isinstance(error, NeurovocalError):
            sentence = f"{type(error).__name__}: {error}"
        self.error = StageError(f"{self.name} failed: {sentence}")
        self.mailbox.discard()
        self.failed.set()
