"""Test doubles: a scripted source, and sinks that collect, block or fail."""

from collections.abc import Iterable
from threading import Event as Flag
from typing import Any

from neurovocal.engine.contracts.errors import EndOfStream
from neurovocal.engine.contracts.stages import SourceItem
from neurovocal.engine.contracts.types import Message, StreamInfo


class ScriptedSource:
    """Source that returns the items of a list, and raises its exceptions.

    Parameters
    ----------
    info : StreamInfo
        Stream of the source.
    items : iterable
        Blocks, gaps, anchors, stream infos, None (no item within the timeout), or
        exceptions.
    live : bool
        Whether the engine treats it as live.
    """

    def __init__(
        self,
        info: StreamInfo,
        items: Iterable[SourceItem | Exception | None],
        *,
        live: bool = False,
    ) -> None:
        self.info = info
        self.live = live
        self.opened = 0
        self.closed = 0
        self._items = iter(items)

    def open(self) -> None:
        """Count the call."""
        self.opened += 1

    def read(self, timeout: float) -> SourceItem | None:
        """Return the next item of the script."""
        item = next(self._items, EndOfStream())
        if isinstance(item, Exception):
            raise item
        return item

    def close(self) -> None:
        """Count the call."""
        self.closed += 1


class CollectSink:
    """Sink that keeps all messages in a list.

    Parameters
    ----------
    wants : iterable of str, optional
        Kinds of events that it selects; None: the default selection.
    """

    def __init__(self, wants: Iterable[str] | None = None) -> None:
        if wants is not None:
            self.wants = frozenset(wants)
        self.messages: list[Message] = []
        self.opened = self.flushed = self.closed = 0

    def open(self) -> None:
        """Count the call."""
        self.opened += 1

    def write(self, message: Message) -> None:
        """Keep the message."""
        self.messages.append(message)

    def flush(self, timeout: float) -> None:
        """Count the call."""
        self.flushed += 1

    def close(self) -> None:
        """Count the call."""
        self.closed += 1

    def events(self, *kinds: type) -> list[Any]:
        """Return the events of some types, in order; without types, all."""
        events = [message.event for message in self.messages]
        return [e for e in events if not kinds or isinstance(e, kinds)]


class StalledSink(CollectSink):
    """Sink with a `write` that returns only after `release` is set."""

    def __init__(self, wants: Iterable[str] | None = None) -> None:
        super().__init__(wants)
        self.release = Flag()
        self.entered = Flag()

    def write(self, message: Message) -> None:
        """Wait for `release`, then keep the message."""
        self.entered.set()
        self.release.wait()
        super().write(message)


class FailingSink(CollectSink):
    """Sink with a `write` that raises OSError while `broken` is true."""

    broken = True

    def write(self, message: Message) -> None:
        """Keep the message, or raise OSError."""
        if self.broken:
            raise OSError("the disk is full")
        super().write(message)
