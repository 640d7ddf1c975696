"""One sink's thread, its queues, and what happens when the sink fails."""

import logging
from contextlib import suppress
from threading import Event as Flag
from threading import Thread

from neurovocal.engine.buffers import Closed, Mailbox
from neurovocal.engine.errors import NeurovocalError, StageError
from neurovocal.engine.metrics import StageMetrics
from neurovocal.engine.protocols import Sink
from neurovocal.engine.supervise import Backoff, OnError
from neurovocal.engine.timebase import NS, Clock
from neurovocal.engine.types import BULK_KINDS, Message

log = logging.getLogger("neurovocal")

_IDLE_S = 0.25
_FLUSH_S = 1.0


def _queue_of(message: Message) -> str:
    return "bulk" if message.kind in BULK_KINDS else "events"


class SinkWorker:
    """Shell of one sink: bounded queues before it, one thread that writes.

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
    """

    def __init__(
        self,
        name: str,
        sink: Sink,
        wants: frozenset[str],
        mailbox: Mailbox[Message],
        on_error: OnError,
        clock: Clock,
    ) -> None:
        self.name = name
        self.sink = sink
        self.wants = wants
        self.mailbox = mailbox
        self.metrics = StageMetrics()
        self.error: Exception | None = None
        self.failed = Flag()
        self.reader_left = False
        self._failing = False  # the last write failed: say it once, not each time
        self._on_error = on_error
        self._clock = clock
        self._stopping = Flag()
        self._thread = Thread(target=self._run, name=f"nv-{name}", daemon=True)

    def open(self) -> None:
        """Open the sink and start its thread."""
        self.sink.open()
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

    def close(self) -> None:
        """Close the sink; what was not written by now is counted as dropped."""
        self.mailbox.discard()
        if self._thread.is_alive():
            log.error("%s did not finish in time and was left behind", self.name)
            return
        try:
            self.sink.close()
        except Exception as error:
            log.exception("%s failed while closing", self.name)
            self.error = self.error or error

    def statistics(self) -> dict[str, object]:
        """Counters of the queues, and the sink's own where it has some."""
        own: dict[str, object] = getattr(self.sink, "stats", dict)()
        return {**self.mailbox.counts(), "errors": self.metrics.errors, **own}

    def _run(self) -> None:
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
        self._flush()

    def _deliver(self, message: Message) -> bool:
        """Write one message; False when the sink is given up."""
        backoff = Backoff()
        while True:
            start = self._clock.monotonic_ns()
            try:
                self.sink.write(message)
            except Exception as error:
                if not self._contain(error, backoff):
                    return False
                if self._on_error == "restart" and not self._stopping.is_set():
                    continue  # once more, with the sink opened anew
                self.mailbox.note_lost(_queue_of(message), message.kind)
            else:
                self.metrics.items += 1
                self._failing = False
            self.metrics.busy_ns += self._clock.monotonic_ns() - start
            return True

    def _contain(self, error: Exception, backoff: Backoff) -> bool:
        self.metrics.errors += 1
        if isinstance(error, BrokenPipeError):
            # Whoever read our output (`| head`) has had enough: no failure, no loss.
            self.reader_left = True
            self.mailbox.discard()
            self.failed.set()
            return False
        if self._on_error == "fail":
            self._give_up(error)
            return False
        if not self._failing:
            log.warning("%s failed: %s", self.name, error)
        self._failing = True
        if self._on_error == "restart":
            self._reopen(backoff)
        return True

    def _reopen(self, backoff: Backoff) -> None:
        while not self._stopping.is_set():
            try:
                self.sink.close()
                self._pause(backoff.pause_s())
                self.sink.open()
                log.warning("%s is open again", self.name)
                return
            except Exception as error:
                self.metrics.errors += 1
                log.warning("%s cannot be opened again yet: %s", self.name, error)

    def _pause(self, seconds: float) -> None:
        until = self._clock.monotonic_ns() + round(seconds * NS)
        while not self._stopping.is_set() and not self._clock.wait_until(until, 0.1):
            pass

    def _flush(self) -> bool:
        try:
            self.sink.flush(_FLUSH_S)
            return True
        except Exception as error:
            if self._on_error == "fail":
                self._give_up(error)
            log.warning("%s failed while flushing: %s", self.name, error)
            return False

    def _give_up(self, error: Exception) -> None:
        sentence = str(error)
        if not isinstance(error, NeurovocalError):
            sentence = f"{type(error).__name__}: {error}"
        self.error = StageError(f"{self.name} failed: {sentence}")
        self.mailbox.discard()
        self.failed.set()
