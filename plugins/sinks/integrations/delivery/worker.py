"""Worker of a delivery: one thread that sends what waits, in order, with retries."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Condition, Thread
from typing import Protocol, TypeAlias

from neurovocal.engine import NS, Clock, ConfigError
from neurovocal.engine.support.calls import Backoff
from neurovocal.plugins.sinks.integrations.delivery.daily import DailySummary
from neurovocal.plugins.sinks.integrations.delivery.items import Outgoing, iso_time
from neurovocal.plugins.sinks.integrations.delivery.queues import DeliveryQueue

log = logging.getLogger("neurovocal")

# Pauses of the thread in seconds: the journal commits an event up to 0.2 s after it
# was published, and nothing tells when.
_POLL_S = 0.25
_JOIN_S = 1.0
_LONGEST_PAUSE_S = 60.0
_MOST_RETRY_AFTER_S = 3600.0


@dataclass(frozen=True, slots=True)
class Attempt:
    """Result of sending some items in order.

    Parameters
    ----------
    finished : int
        Number of items, the first ones, that need no delivery any more.
    refused : sequence of (Outgoing, str)
        Those of them that the service has refused for good, with the reason.
    error : str or None
        Why the others were not taken; they are sent again. None: all are finished.
    retry_after_s : float, optional
        Pause that the service has asked for.
    """

    finished: int
    refused: Sequence[tuple[Outgoing, str]] = ()
    error: str | None = None
    retry_after_s: float | None = None


Refusals: TypeAlias = Sequence[tuple[Outgoing, str]]


class Transport(Protocol):
    """Connection to a service; all methods but `interrupt` run on the worker's thread.

    Attributes
    ----------
    name : str
        Names the service in sentences, without credentials.
    """

    name: str

    def send(self, items: Sequence[Outgoing]) -> Attempt:
        """Send items in order; connect first where that is needed."""
        ...

    def tend(self) -> str | None:
        """Do what is due when nothing waits; return a sentence if it fails."""
        ...

    def close(self) -> None:
        """Close the connection in order. May be called twice."""
        ...

    def interrupt(self) -> None:
        """Make a call that waits for the service return soon."""
        ...


class DeliveryWorker:
    """Thread that sends what waits in a queue, and a daily summary when it is due.

    After a failure it tries again with growing pauses of 0.5 s to a minute, or when the
    service says.

    Parameters
    ----------
    name : str
        Name of the thread.
    queue : DeliveryQueue
        Events to send.
    transport : Transport
        Where they go.
    clock : Clock
        Measures pauses, and the limit of rate.
    batch : int
        Items that are sent at once, at most.
    most_per_s : float
        Items a second, at most.
    summary : DailySummary, optional
        Is sent at its time.
    on_finished : callable, optional
        ``on_finished(delivered, refused)`` keeps the counts of events, before the
        queue notes that they are finished.
    """

    def __init__(
        self,
        name: str,
        queue: DeliveryQueue,
        transport: Transport,
        clock: Clock,
        *,
        batch: int,
        most_per_s: float,
        summary: DailySummary | None = None,
        on_finished: Callable[[int, Sequence[tuple[Outgoing, str]]], None]
        | None = None,
    ) -> None:
        self.delivered = self.refused = self.failures = 0
        self._name = name
        self._queue, self._transport, self._clock = queue, transport, clock
        self._batch, self._most_per_s = batch, most_per_s
        self._summary = summary
        self._on_finished = on_finished
        self._pending: list[Outgoing] = []
        self._backoff = Backoff(longest_s=_LONGEST_PAUSE_S)
        self._due_ns = 0
        self._changed = Condition()
        self._woken = False
        self._stop_ns: int | None = None
        self._error: str | None = None
        self._since_ns = 0
        self._thread: Thread | None = None

    def start(self) -> None:
        """Start the thread, unless it runs."""
        if self._thread is None:
            self._stop_ns = None
            self._thread = Thread(target=self._run, name=self._name, daemon=True)
            self._thread.start()

    def wake(self) -> None:
        """Let the thread look at the queue now."""
        with self._changed:
            self._woken = True
            self._changed.notify_all()

    def stop(self, linger_s: float) -> None:
        """Send what waits for at most `linger_s` seconds, then end the thread.

        May be called twice.
        """
        thread, self._thread = self._thread, None
        if thread is None:
            return
        with self._changed:
            self._stop_ns = self._clock.monotonic_ns() + round(linger_s * NS)
            self._changed.notify_all()
        thread.join(linger_s + _JOIN_S)
        if thread.is_alive():  # a call waits for the service
            self._stop_ns = -1
            self._transport.interrupt()
            self.wake()
            thread.join(_JOIN_S)

    @property
    def trouble(self) -> str | None:
        """Why events are not delivered at this moment; None: they are."""
        error = self._error
        if error is None:
            return None
        return f"{self._transport.name}: {error}; since {iso_time(self._since_ns)}"

    def stats(self) -> dict[str, object]:
        """Return counters as JSON values."""
        return {
            **self._queue.stats(),
            "sent": self.delivered,
            "refused": self.refused,
            "failures": self.failures,
            "connected": self._error is None,
        }

    # ---- the thread ------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            try:
                is_idle = self._step()
            except ConfigError as error:  # the journal cannot be read now
                self._failed(str(error), None)
                is_idle = True
            except Exception as error:
                log.exception("%s failed", self._name)
                self._failed(f"{type(error).__name__}: {error}", None)
                is_idle = True
            if self._is_over(is_idle):
                break
            if is_idle:
                self._wait()
        try:
            self._transport.close()
        except Exception as error:
            log.warning("%s failed while closing: %s", self._name, error)

    def _is_over(self, is_idle: bool) -> bool:
        if self._stop_ns is None:
            return False
        is_done = is_idle and self._error is None and not self._pending
        is_done = is_done and self._clock.monotonic_ns() >= self._due_ns
        return is_done or self._clock.monotonic_ns() >= self._stop_ns

    def _wait(self) -> None:
        until_due_s = (self._due_ns - self._clock.monotonic_ns()) / NS
        pause_s = min(_POLL_S, until_due_s) if until_due_s > 0 else _POLL_S
        with self._changed:
            if not self._woken or self._pending or until_due_s > 0:
                self._changed.wait(pause_s)
            self._woken = False

    def _step(self) -> bool:
        """Send once what is due; return True if there is nothing to do at once."""
        if self._clock.monotonic_ns() < self._due_ns:
            return True
        if not self._pending:
            self._pending = self._queue.take(self._batch)
        if not self._pending:
            return self._send_summary()
        attempt = self._transport.send(self._pending)
        self._finish(attempt)
        if attempt.error is not None:
            self._failed(attempt.error, attempt.retry_after_s)
        else:
            self._succeeded(attempt.finished)
        return bool(self._pending)

    def _send_summary(self) -> bool:
        """Send a summary that is due, or tend the connection; return as `_step`."""
        due = None if self._summary is None else self._summary.due()
        if due is None or self._summary is None:
            error = self._transport.tend()
            if error is not None:
                self._failed(error, None)
            else:
                self._succeeded(0)
            return True
        attempt = self._transport.send([due])
        if attempt.error is not None:
            self._failed(attempt.error, attempt.retry_after_s)
            return True
        for _, reason in attempt.refused:
            log.warning("%s refused %s: %s", self._transport.name, due.id, reason)
        self._summary.sent()
        self._succeeded(1)
        return False

    def _finish(self, attempt: Attempt) -> None:
        finished = self._pending[: attempt.finished]
        if not finished:
            return
        n_refused = len(attempt.refused)
        self.refused += n_refused
        self.delivered += len(finished) - n_refused
        if self._on_finished is not None:
            self._on_finished(len(finished) - n_refused, attempt.refused)
        self._queue.finish(finished)
        del self._pending[: len(finished)]

    def _failed(self, error: str, retry_after_s: float | None) -> None:
        now = self._clock.monotonic_ns()
        pause_s = self._backoff.pause_s()
        if retry_after_s is not None:
            pause_s = min(max(pause_s, retry_after_s), _MOST_RETRY_AFTER_S)
        self._due_ns = now + round(pause_s * NS)
        if self._error is None:
            self._since_ns = self._clock.utc_ns()
            self.failures += 1
            log.warning("%s: %s; it is tried again", self._transport.name, error)
        self._error = error

    def _succeeded(self, n_sent: int) -> None:
        if self._error is not None:
            log.warning("%s takes events again", self._transport.name)
        self._error = None
        self._backoff.reset()
        if n_sent:
            pause_ns = round(n_sent / self._most_per_s * NS)
            self._due_ns = self._clock.monotonic_ns() + pause_ns
