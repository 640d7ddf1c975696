"""Number of subscribers, counted from the subscriptions that a publisher receives."""

import re
from collections import Counter
from typing import TYPE_CHECKING

from neurovocal.engine.wire.codec import MAX_SUBSCRIPTION, READY

if TYPE_CHECKING:
    import zmq

# Limits on the topics of a subscriber: ZeroMQ needs some 50 times as much memory.
TOPIC_MOST_BYTES = 1 + MAX_SUBSCRIPTION
TOPICS_MOST_BYTES = 512 * 1024
TOPICS_PER_S = 1024.0
# Subscriptions of each connection that may wait in ZeroMQ; more wait in the network.
MOST_WAITING = 10

# Topics that are told apart; beyond, every topic counts as wanted.
_MOST_TOPICS = 10_000

_ANNOUNCEMENT = re.compile(re.escape(READY) + rb"([^/]{1,200})/(\d{1,3})/(\d{1,3})")
_UNSUBSCRIBE, _SUBSCRIBE = b"\0", b"\1"


class Subscribers:
    """Counts subscribers from the subscriptions that an XPUB socket reports.

    A subscriber that announces itself (`neurovocal.engine.wire.codec.ready_topic`) is
    counted exactly, over all its connections. Of other connections, those of plain SUB
    sockets, only the first subscription is reported, not the last: they are counted
    separately.
    """

    def __init__(self) -> None:
        self.subscriptions = 0
        self._announced: Counter[tuple[bytes, int, int]] = Counter()
        self._plain: set[str] = set()
        self._topics: Counter[bytes] = Counter()  # beginnings of topics
        self._are_topics_known = True
        self._wanted: dict[bytes, bool] = {}

    @property
    def announced(self) -> int:
        """Number of subscribers that have announced all their connections."""
        parts = Counter((name, of) for name, _, of in self._announced)
        return sum(count == of for (_, of), count in parts.items())

    @property
    def plain(self) -> int:
        """Number of connections that have subscribed and not announced themselves."""
        return len(self._plain)

    def want(self, topic: bytes) -> bool:
        """Return whether any subscription lets a topic through."""
        wanted = self._wanted.get(topic)
        if wanted is None:
            wanted = not self._are_topics_known or topic.startswith(tuple(self._topics))
            self._wanted[topic] = wanted
        return wanted

    def count(self, frame: "zmq.Frame") -> None:
        """Count a subscription or its end; ignore any other message."""
        text = frame.bytes
        action, subject = text[:1], text[1:]
        if action == _SUBSCRIBE:
            self._add(subject, _connection(frame))
        elif action == _UNSUBSCRIBE:
            self._remove(subject)

    def _add(self, subject: bytes, connection: str) -> None:
        self.subscriptions += 1
        self._topics[subject] += 1
        self._wanted.clear()
        if len(self._topics) > _MOST_TOPICS:
            self._topics.clear()
            self._are_topics_known = False
        announcement = _read(subject)
        if announcement is not None:
            self._announced[announcement] += 1
            self._plain.discard(connection)
        else:
            self._plain.add(connection)

    def _remove(self, subject: bytes) -> None:
        self.subscriptions = max(0, self.subscriptions - 1)
        self._wanted.clear()
        self._topics[subject] -= 1
        if self._topics[subject] <= 0:
            del self._topics[subject]
        announcement = _read(subject)
        if announcement is not None:
            self._announced[announcement] -= 1
            if self._announced[announcement] <= 0:
                del self._announced[announcement]
        if not self.subscriptions:
            # The connection that unsubscribes is not reported, but none is left.
            self._plain.clear()


def _read(subject: bytes) -> tuple[bytes, int, int] | None:
    match = _ANNOUNCEMENT.fullmatch(subject)
    if match is None:
        return None
    return match[1], int(match[2]), int(match[3])


def _connection(frame: "zmq.Frame") -> str:
    """Return the file descriptor of the connection that a message came by."""
    import zmq

    try:
        return str(frame.get("__fd"))
    except zmq.ZMQError:
        return "unknown"
