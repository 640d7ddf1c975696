"""Relay: the queues of a lane to the process that has the sinks, and their thread."""

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import count
from multiprocessing.connection import Connection
from threading import Lock, Thread

from neurovocal.engine.contracts.types import BULK_KINDS, KINDS, Message
from neurovocal.engine.runtime.processes.packing import dumps
from neurovocal.engine.runtime.workers.mailbox import Mailbox, MailboxClosed
from neurovocal.engine.runtime.workers.stream_commit import StreamCommit

log = logging.getLogger("neurovocal")

NAME = "worker queue"
# Messages of each channel that may wait, as before a sink.
_EVENTS, _BULK = 1024, 64
_IDLE_S = 0.25
_MOST_TOGETHER = 64


class _Pipe:
    """What a sink's supervision is for a sink: a pipe does not fail, it ends."""

    failures = 0
    trouble = ""


class Relay:
    """Takes the messages of a lane and sends them to the process that has the sinks.

    Items that it sends are messages, ``("channels", n)`` where the number of channels
    has changed, ``("ended", number, streams)`` behind the messages of a stream, and
    what `last` returns at the end.

    Parameters
    ----------
    lane : str
        Name of the lane.
    pipe : Connection
        Takes lists of items.
    wants : frozenset of str
        Kinds of events that a sink of the lane takes.
    takes_ends : bool
        Whether a sink has something to do when a stream ends.
    live : bool
        Samples that are not read in time are lost: a full queue drops its oldest.
    last : callable
        ``last()`` returns the last item, once the lane has published everything.
    """

    def __init__(
        self,
        lane: str,
        pipe: Connection,
        wants: frozenset[str],
        takes_ends: bool,
        live: bool,
        last: Callable[[], object],
    ) -> None:
        self.name = NAME
        self.wants = wants
        self.takes_ends = takes_ends
        self.trouble = None
        self.supervised = _Pipe()
        self.mailbox: Mailbox[object] = Mailbox(
            {"events": _EVENTS, "bulk": _BULK}, "drop_oldest" if live else "block"
        )
        self._last = last
        self._pipe = pipe
        self._closed = False
        self._numbers = count()
        self._commits: dict[int, StreamCommit] = {}
        self._lock = Lock()
        self._thread = Thread(target=self._run, name=f"nv-relay-{lane}", daemon=True)

    @property
    def dropped(self) -> Counter[str]:
        """Number of dropped messages by kind."""
        return self.mailbox.dropped

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def set_channels(self, lane: str, n_channels: int) -> None:
        """Set the number of channels of the lane; all queues grow with it."""
        self.mailbox.set_channels(n_channels)
        self.mailbox.put_mark(("channels", n_channels))

    def accept(self, message: Message) -> None:
        """Queue a message; one that comes after the end of the lane goes nowhere."""
        self.accept_all([message])

    def accept_all(self, messages: Sequence[Message]) -> None:
        """Queue messages that became known together, as `accept` does."""
        if self._closed:
            return
        kinds = [KINDS[type(message.event)] for message in messages]
        queues = ["bulk" if kind in BULK_KINDS else "events" for kind in kinds]
        try:
            self.mailbox.put_all(list(zip(queues, kinds, messages, strict=True)))
        except MailboxClosed:
            return  # the mailbox has counted it as dropped

    def accept_end(self, commit: StreamCommit) -> None:
        """Queue the end of a stream behind its messages."""
        self.mailbox.put_mark(commit)

    def committed(self, number: int, *, kept: bool) -> None:
        """Note that all sinks have committed a stream, wholly or with losses."""
        with self._lock:
            commit = self._commits.pop(number)
        commit.done(self, kept=kept)

    def statistics(self) -> dict[str, object]:
        """Return the counters of the queues."""
        return {**self.mailbox.counts()}

    def close(self) -> None:
        """Send what is queued, then the last item; the lane has ended."""
        self._closed = True
        self.mailbox.close()

    def _run(self) -> None:
        try:
            while self._send_some():
                pass
            self._pipe.send_bytes(dumps([self._last()]))
        except OSError:
            log.debug("nobody takes the messages of a lane any more")
        finally:
            self.mailbox.discard()
            self._pipe.close()

    def _send_some(self) -> bool:
        """Send the messages that wait; return False after the last one."""
        items: list[object] = []
        goes_on = True
        try:
            item = self.mailbox.get(_IDLE_S)
            while item is not None:
                items.append(self._numbered(item))
                if len(items) == _MOST_TOGETHER:
                    break
                item = self.mailbox.get(0.0)
        except MailboxClosed:
            goes_on = False
        if items:
            self._pipe.send_bytes(dumps(items))
        return goes_on

    def _numbered(self, item: object) -> object:
        if not isinstance(item, StreamCommit):
            return item
        number = next(self._numbers)
        with self._lock:
            self._commits[number] = item
        return "ended", number, list(item.streams)
