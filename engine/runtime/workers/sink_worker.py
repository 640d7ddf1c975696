"""One sink's thread, its queues, and what happens when the sink fails."""

import logging
import select
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from threading import Event as Flag
from threading import Lock, Thread
from typing import Literal

from neurovocal.engine.contracts.clock import NS, Clock
from neurovocal.engine.contracts.errors import NeurovocalError, StageError
from neurovocal.engine.contracts.options import OnError
from neurovocal.engine.contracts.stages import Sink
from neurovocal.engine.contracts.types import (
    BULK_KINDS,
    Health,
    Message,
)
from neurovocal.engine.runtime.workers.mailbox import Closed, Mailbox
from neurovocal.engine.support.calls import Backoff, Calls

_FLUSH_S = 1.0
_STOP_LOOK_S = 0.1


class Replaced(BaseException):
    """The call hung, and another thread has taken the place of its own since."""


class SupervisedSink:
    """The sink as its thread calls it.

    Every method that calls the sink raises `Replaced` when that took so long that the
    thread was given up: then the shell is another thread's.

    Parameters
    ----------
    name : str
        Name in logs.
    sink : Sink
        The sink.
    clock : Clock
        For the pauses between attempts to open it again.
    stopping : Flag
        Set when a sink that is closed is not to be opened any more.

    Attributes
    ----------
    sink : Sink
        The present one.
    calls : Calls
        Of the present thread.
    lock : Lock
        Held while a call returns, and while another thread takes over.
    down : bool
        Whether it failed and is not open again yet.
    failing : bool
        Whether the last write or flush failed: it is said once, not each time.
    failures : int
        How often it began to fail.
    errors : int
        Calls that failed.
    trouble : str
        Sentence of the last failure, also when it is over.
    """

    def __init__(self, name: str, sink: Sink, clock: Clock, stopping: Flag) -> None:
        self.sink = sink
        self.calls = Calls()
        self.lock = Lock()
        self.down = False
        self.failing = False
        self.failures = 0
        self.errors = 0
        self.trouble = ""
        self._name = name
        self._clock = clock
        self._stopping = stopping

    def write(self, message: Message) -> Exception | None:
        """Write one message; what went wrong, or None."""
        try:
            self._call(lambda: self.sink.write(message))
        except Exception as error:
            self.errors += 1
            return error
        self.failing = False
        return None

    def flush(self) -> Exception | None:
        """Make safe what was written; what went wrong, or None."""
        try:
            self._call(lambda: self.sink.flush(_FLUSH_S))
        except Exception as error:
            return error
        self.failing = False
        return None

    def reopen(self, backoff: Backoff) -> bool:
        """Open the sink again, as often as it takes; False if asked to stop."""
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

    def _call(self, work: Callable[[], None]) -> None:
        calls = self.calls
        calls.entered += 1
        try:
            work()
        except Exception:
            raise
        except BaseException as error:  # a SystemExit of a plugin is a failure
            raise StageError(repr(error)) from error
        finally:
            with self.lock:
                calls.returned += 1
                replaced = calls is not self.calls
            if replaced:
                raise Replaced

    def _pause(self, seconds: float) -> None:
        until = self._clock.monotonic_ns() + round(seconds * NS)
        while not self._stopping.is_set():
            if self._clock.wait_until(until, _STOP_LOOK_S):
                return


log = logging.getLogger("neurovocal")
_IDLE_S = 0.25

# A sink has this long to close, whatever else has used up the time for that.
_CLOSE_S = 1.0
_LOOK_S = 0.1

# A sink that hangs leaves its thread behind; after so many, the last one is waited for.
_MOST_LEFT_BEHIND = 3


def _stdout_reader_left() -> bool:
    poll = select.poll()
    try:
        poll.register(sys.stdout.fileno(), select.POLLOUT)
    except (OSError, ValueError):  # closed, or not a file at all
        return False
    return any(state & select.POLLERR for _, state in poll.poll(0))


def _queue_of(message: Message) -> str:
    return "bulk" if message.kind in BULK_KINDS else "events"


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
    mailbox : Mailbox of Message
        With the queues ``events`` and ``bulk``.
    on_error : {'fail', 'skip', 'restart'}
        What a failing `write` means.
    clock : Clock
        For the pauses between restarts.
    rebuild : callable, optional
        Makes the sink anew, in place of one that hangs.

    Attributes
    ----------
    shell : SinkShell
        The sink, and how it does.
    error : Exception or None
        Why the run has to end, or what went wrong while closing.
    failed : Flag
        Set when the sink takes nothing any more.
    reader_left : bool
        Whether that is because nobody reads the program's output any more.
    """

    def __init__(
        self,
        name: str,
        sink: Sink,
        wants: frozenset[str],
        mailbox: Mailbox[Message],
        on_error: OnError,
        clock: Clock,
        rebuild: Callable[[], Sink] | None = None,
    ) -> None:
        self.name = name
        self.wants = wants
        self.mailbox = mailbox
        self.error: Exception | None = None
        self.failed = Flag()
        self.reader_left = False
        self._on_error = on_error
        self._stopping = Flag()
        self.shell = SupervisedSink(name, sink, clock, self._stopping)
        self._writing: Message | None = None
        self._hung = 0  # number of the call that was last found hanging
        self._left_behind = 0
        self._rebuild = rebuild
        self._thread = self._new_thread()

    def open(self) -> None:
        """Open the sink and start its thread."""
        self.shell.sink.open()
        self._thread.start()

    def accept(self, message: Message) -> None:
        """Queue a message; called by lane threads."""
        with suppress(Closed):  # then the mailbox has counted it as dropped
            self.mailbox.put(_queue_of(message), message.kind, message)

    def drain(self, timeout: float, *, hurry: bool) -> bool:
        """Take nothing new and let the thread write what waits.

        Parameters
        ----------
        timeout : float
            Seconds to wait for it.
        hurry : bool
            Whether to give up attempts to open a failed sink again.

        Returns
        -------
        bool
            Whether the thread has ended.
        """
        self.mailbox.close()
        if hurry:
            self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join(timeout)
        return not self._thread.is_alive()

    def close(self, waits: Callable[[], bool] = lambda: True) -> bool:
        """Close the sink; what was not written by now is counted as dropped.

        Parameters
        ----------
        waits : callable
            Asked again and again whether to wait for a sink that does not return.

        Returns
        -------
        bool
            Whether nothing of it was left behind.
        """
        self.mailbox.discard()
        unfinished = self._writing
        if self._thread.is_alive():
            if unfinished is not None:
                self._lose(unfinished)
            log.error("%s did not finish in time and was left behind", self.name)
            return False
        closer = Thread(target=self._close, name=f"nv-{self.name}", daemon=True)
        closer.start()
        closer.join(_CLOSE_S)
        while closer.is_alive() and waits():
            closer.join(_LOOK_S)
        if closer.is_alive():
            log.error("%s does not close and was left behind", self.name)
        return not closer.is_alive()

    def _close(self) -> None:
        try:
            self.shell.sink.close()
        except BaseException as error:
            log.exception("%s failed while closing", self.name)
            failure = error if isinstance(error, Exception) else StageError(repr(error))
            self.error = self.error or failure

    def statistics(self) -> dict[str, object]:
        """Counters of the queues, and the sink's own where it has some."""
        own: dict[str, object] = getattr(self.shell.sink, "stats", dict)()
        counts = {"errors": self.shell.errors, "replaced": self._left_behind}
        return {**self.mailbox.counts(), **counts, **own}

    def isolate(self, calls: Calls, seconds: float) -> None:
        """Be told by the watchdog that a call does not return.

        The queues before the sink are bounded, so the others go on anyhow. Where
        its policy is to restart, a new sink with a new thread takes its place; the
        message that it was writing counts as lost. Where the source waits for the
        sink nothing is lost by waiting: it is only said.
        """
        shell = self.shell
        with shell.lock:
            if calls is not shell.calls or self._hung == calls.entered:
                return  # it was replaced, or told, before
            if calls.returned >= calls.entered:
                return  # just now
            self._hung = calls.entered
            shell.trouble = f"it has not returned for {seconds:.0f} s"
            log.error("%s: %s", self.name, shell.trouble)
            if self.mailbox.when_full == "block":
                return
            replaceable = self._on_error == "restart" and self._rebuild is not None
            if replaceable and self._left_behind < _MOST_LEFT_BEHIND:
                self._replace()
                return
        if self._on_error == "fail":
            self._give_up(StageError(shell.trouble))

    def _replace(self) -> None:
        self._left_behind += 1
        self.shell.calls, self._hung = Calls(), 0
        if self._writing is not None:
            self._lose(self._writing)
            self._writing = None
        self.shell.down = True
        self._thread = self._new_thread(replaces=True)
        self._thread.start()

    def _new_thread(self, *, replaces: bool = False) -> Thread:
        run = self._run_anew if replaces else self._run
        return Thread(target=run, name=f"nv-{self.name}", daemon=True)

    @property
    def trouble(self) -> tuple[Literal["lossy", "restarting", "failed"], str] | None:
        """What is wrong with the sink at this moment, and a sentence; None: nothing.

        A sink that goes on without a part of its work says so in a `trouble` of
        its own, a sentence or None.
        """
        shell = self.shell
        if self.failed.is_set() and not self.reader_left:
            return "failed", str(self.error or shell.trouble)
        if self._hung and self._hung > shell.calls.returned:
            return "failed", shell.trouble
        if shell.down or shell.failing:
            return "restarting", shell.trouble
        own: str | None = getattr(shell.sink, "trouble", None)
        return None if own is None else ("lossy", own)

    def _run(self) -> None:
        sink = self.shell.sink
        with suppress(Replaced):
            self._work()
            return
        # Nobody waits for what this one still does.
        try:
            sink.close()
        except BaseException as error:
            log.warning("%s, replaced, failed while closing: %s", self.name, error)

    def _run_anew(self) -> None:
        """Take the place of a sink that hangs."""
        assert self._rebuild is not None
        self.shell.sink = self._rebuild()
        try:
            opened = self.shell.reopen(Backoff())
        except Replaced:
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
            except Closed:
                break
            if message is not None:
                dirty = True
                if not self._deliver(message):
                    return
            elif dirty:
                # Nothing more comes for now: what was written must be safe.
                dirty = not self._flush()
                if self.failed.is_set():
                    return
        self._flush()

    def _deliver(self, message: Message) -> bool:
        """Write one message; False when the sink can take no more."""
        backoff = Backoff()
        while (error := self._write(message)) is not None:
            if isinstance(error, BrokenPipeError) and _stdout_reader_left():
                # Whoever read our output (`| head`) has had enough: no failure,
                # no loss.
                self.reader_left = True
                self.mailbox.discard()
                self.failed.set()
                return False
            if self._on_error == "fail":
                self._lose(message)
                self._give_up(error)
                return False
            self.shell.warn("failed", error)
            if self._on_error == "restart" and not self._stopping.is_set():
                if self.shell.reopen(backoff):
                    continue  # once more, with the sink opened anew
                # Asked to stop while it was closed: what waits has nowhere to go.
                self._lose(message)
                self.mailbox.discard()
                return False
            self._lose(message)
            break
        return True

    def _write(self, message: Message) -> Exception | None:
        self._writing = message
        error = self.shell.write(message)
        # Not where it was replaced: the message is another thread's by then.
        self._writing = None
        return error

    def _lose(self, message: Message) -> None:
        self.mailbox.note_lost(_queue_of(message), message.kind)

    def _flush(self) -> bool:
        error = self.shell.flush()
        if error is None:
            return True
        if self._on_error == "fail":
            self._give_up(error)
        self.shell.warn("failed while flushing", error)
        return False

    def _give_up(self, error: Exception) -> None:
        sentence = str(error)
        if not isinstance(error, NeurovocalError):
            sentence = f"{type(error).__name__}: {error}"
        self.error = StageError(f"{self.name} failed: {sentence}")
        self.mailbox.discard()
        self.failed.set()


_DOWN = ("restarting", "failed")


class SinkHealth:
    """Notices changes between two looks, a second or so apart.

    A sink that is down cannot say so itself: its state is told to all others.

    Parameters
    ----------
    sinks : sequence of SinkWorker
        Those of one lane.
    """

    def __init__(self, sinks: Sequence[SinkWorker]) -> None:
        self._sinks = sinks
        self._states: dict[str, str] = {}
        self._dropped: dict[str, int] = {}
        self._failures: dict[str, int] = {}

    def changes(self) -> Iterator[Health]:
        """Health events for the sinks whose state is not what it was."""
        for sink in self._sinks:
            failed = self._has_failed(sink)
            now = self._look(sink, failed)
            before = self._states.get(sink.name, "healthy")
            if failed and now.state not in _DOWN and before not in _DOWN:
                before = "restarting"
                yield Health(
                    sink.name, "restarting", f"{sink.shell.trouble}; it goes on"
                )
            self._states[sink.name] = now.state
            if now.state != before:
                yield now

    def _has_failed(self, sink: SinkWorker) -> bool:
        """Whether it has failed since the last look; it may have recovered, too."""
        before = self._failures.get(sink.name, 0)
        self._failures[sink.name] = sink.shell.failures
        return sink.shell.failures != before

    def _look(self, sink: SinkWorker, failed: bool) -> Health:
        dropped = sink.mailbox.dropped.total()
        more = dropped - self._dropped.get(sink.name, 0)
        self._dropped[sink.name] = dropped
        if sink.trouble is not None:
            state, sentence = sink.trouble
            return Health(sink.name, state, f"{sentence}; {dropped} messages lost")
        if more and not failed:
            return Health(
                sink.name, "lossy", f"it cannot keep up: {dropped} messages lost"
            )
        return Health(
            sink.name, "healthy", f"it works again; {dropped} messages were lost"
        )
