"""One sink's thread, its queues, and what happens when the sink fails."""

import logging
import select
import sys
from collections.abc import Callable
from contextlib import suppress
from threading import Event as Flag
from threading import Thread
from typing import Literal

from neurovocal.engine.buffers import Closed, Mailbox
from neurovocal.engine.errors import NeurovocalError, StageError
from neurovocal.engine.protocols import Sink
from neurovocal.engine.sink_shell import Replaced, SinkShell
from neurovocal.engine.supervise import Backoff, Calls, OnError
from neurovocal.engine.timebase import Clock
from neurovocal.engine.types import BULK_KINDS, Message

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
        self.shell = SinkShell(name, sink, clock, self._stopping)
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
