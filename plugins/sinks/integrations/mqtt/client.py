"""MQTT client: publishes at QoS 1, and knows which messages the broker has taken."""

import socket
import ssl
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from threading import Condition, Lock
from time import monotonic
from typing import Any, cast

from neurovocal.engine.support.text import printable, shortened
from neurovocal.plugins.sinks.integrations.delivery.items import Outgoing
from neurovocal.plugins.sinks.integrations.delivery.worker import Attempt

ONLINE, OFFLINE = b"online", b"offline"
_KEEP_ALIVE_S = 30
_POLL_S = 0.1
_FAREWELL_S = 1.0
# States change every second; topics of streams that are gone are not kept.
_MOST_STATES = 1000


@dataclass(frozen=True)
class Broker:
    """Broker, and how it is reached.

    Parameters
    ----------
    host, port : str, int
        Address.
    client_id : str
        Name of this client, which no other client of the broker may have.
    user, password : str, optional
        Credentials.
    tls : ssl.SSLContext, optional
        Encryption; None: none.
    timeout_s : float
        Time to connect, and for the broker to take a message.
    """

    host: str
    port: int
    client_id: str
    user: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    tls: ssl.SSLContext | None = None
    timeout_s: float = 10.0


class MqttClient:
    """Connection to a broker that is opened again after each failure.

    Events are published at QoS 1 and finished when the broker has acknowledged them.
    States (retained, the newest of each topic) are published again after each
    connection.

    Parameters
    ----------
    broker : Broker
        Where it connects.
    availability : str
        Topic that is ``online`` while it is connected; the broker publishes ``offline``
        there when the connection is lost (the client's last will).
    topic_of : callable
        ``topic_of(item)`` returns the topic of an event, and whether it is retained.

    Attributes
    ----------
    name : str
        Names the broker in sentences.
    repeated : int
        Messages that were published again because it was not known whether the broker
        had taken them: a subscriber may get them twice, with the same ``id``.
    """

    def __init__(
        self,
        broker: Broker,
        availability: str,
        topic_of: Callable[[Outgoing], tuple[str, bool]],
    ) -> None:
        self.name = f"broker {broker.host}:{broker.port}"
        self.repeated = 0
        self._broker, self._availability = broker, availability
        self._topic_of = topic_of
        self._connection: _Connection | None = None
        self._uncertain: set[str] = set()
        self._lock = Lock()  # of the states, which the sink's thread sets
        self._states: dict[str, bytes] = {}
        self._changed: set[str] = set()

    def set_states(self, states: Mapping[str, bytes]) -> None:
        """Set the retained messages of topics; called by the sink's thread."""
        with self._lock:
            for topic, payload in states.items():
                if self._states.get(topic) == payload:
                    continue
                if topic in self._states or len(self._states) < _MOST_STATES:
                    self._states[topic] = payload
                    self._changed.add(topic)

    def send(self, items: Sequence[Outgoing]) -> Attempt:
        """Publish items at once, and wait until the broker has taken them."""
        try:
            connection = self._connected()
            numbers = []
            for item in items:
                topic, retain = self._topic_of(item)
                numbers.append(connection.publish(topic, item.body, retain=retain))
                self.repeated += item.id in self._uncertain
                self._uncertain.add(item.id)
        except _MqttError as error:
            self._drop()
            return Attempt(0, error=str(error))
        n_taken = connection.wait_until_taken(numbers, self._broker.timeout_s)
        for item in items[:n_taken]:
            self._uncertain.discard(item.id)
        if n_taken == len(items):
            return Attempt(n_taken, error=self._publish_states(connection))
        reason = connection.failure or (
            f"it does not acknowledge messages within {self._broker.timeout_s:g} s"
        )
        self._drop()
        return Attempt(n_taken, error=reason)

    def tend(self) -> str | None:
        """Connect, and publish states that have changed; return what fails."""
        try:
            error = self._publish_states(self._connected())
        except _MqttError as failure:
            error = str(failure)
        if error is not None:
            self._drop()
        return error

    def close(self) -> None:
        """Say that the station is offline, and disconnect. May be called twice."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        with suppress(_MqttError):
            number = connection.publish(self._availability, OFFLINE, retain=True)
            connection.wait_until_taken([number], _FAREWELL_S)
        connection.close()

    def interrupt(self) -> None:
        """Let a call that waits for the broker return."""
        connection = self._connection
        if connection is not None:
            connection.fail("it was interrupted")

    def _connected(self) -> "_Connection":
        """Return the open connection; open one if there is none.

        Raises
        ------
        _MqttError
            The broker cannot be reached, or refuses the client.
        """
        if self._connection is not None and self._connection.failure is None:
            return self._connection
        if self._connection is not None:
            failure = self._connection.failure
            self._drop()
            raise _MqttError(failure or "it was lost")
        connection = _Connection(self._broker, self._availability)
        try:
            connection.open()
            connection.publish(self._availability, ONLINE, retain=True)
        except _MqttError:
            connection.close()
            raise
        self._connection = connection
        with self._lock:
            self._changed = set(self._states)
        return connection

    def _publish_states(self, connection: "_Connection") -> str | None:
        with self._lock:
            changed = {topic: self._states[topic] for topic in sorted(self._changed)}
            self._changed.clear()
        numbers = []
        try:
            for topic, payload in changed.items():
                numbers.append(connection.publish(topic, payload, retain=True))
        except _MqttError as error:
            return str(error)
        if connection.wait_until_taken(numbers, self._broker.timeout_s) < len(numbers):
            return connection.failure or "it does not acknowledge states in time"
        return None

    def _drop(self) -> None:
        """Close the connection without a farewell: the broker publishes the will."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


class _MqttError(Exception):
    """The broker cannot be reached; one clause says why."""


class _Connection:
    """One connection to the broker, with the messages that it has acknowledged.

    Attributes
    ----------
    failure : str or None
        Why it is not open any more.
    """

    def __init__(self, broker: Broker, availability: str) -> None:
        from paho.mqtt.client import Client
        from paho.mqtt.enums import CallbackAPIVersion

        self.failure: str | None = None
        self._broker = broker
        self._changed = Condition()
        self._is_accepted = False
        self._taken: set[int] = set()
        self._client = Client(
            CallbackAPIVersion.VERSION2, broker.client_id, reconnect_on_failure=False
        )
        self._client.connect_timeout = broker.timeout_s
        self._client.will_set(availability, OFFLINE, qos=1, retain=True)
        if broker.user is not None:
            self._client.username_pw_set(broker.user, broker.password)
        if broker.tls is not None:
            self._client.tls_set_context(broker.tls)
        self._client.on_connect = self._on_connect
        self._client.on_disconnect = self._on_disconnect
        self._client.on_publish = self._on_publish

    def open(self) -> None:
        """Connect, and wait until the broker has accepted the client."""
        broker = self._broker
        try:
            self._client.connect(broker.host, broker.port, _KEEP_ALIVE_S)
        except (OSError, ValueError) as error:
            hint = ""
            if broker.tls is not None and isinstance(error, ConnectionResetError):
                hint = ": it may expect no encryption at this port"
            raise _MqttError(f"{_sentence(error)}{hint}") from None
        self._client.loop_start()
        self._wait(lambda: self._is_accepted, broker.timeout_s)
        if not self._is_accepted:
            raise _MqttError(self.failure or "it does not answer in time")

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> int:
        """Send a message at QoS 1; return the number by which it is acknowledged."""
        from paho.mqtt.enums import MQTTErrorCode

        if self.failure is not None:
            raise _MqttError(self.failure)
        try:
            info = self._client.publish(topic, payload, qos=1, retain=retain)
        except (ValueError, OSError) as error:
            raise _MqttError(_sentence(error)) from None
        if info.rc != MQTTErrorCode.MQTT_ERR_SUCCESS:
            raise _MqttError("the connection was lost")
        return info.mid

    def wait_until_taken(self, numbers: Sequence[int], timeout: float) -> int:
        """Wait for acknowledgements; return how many of the first ones have come."""

        def n_taken() -> int:
            missing = (at for at, mid in enumerate(numbers) if mid not in self._taken)
            return next(missing, len(numbers))

        self._wait(lambda: n_taken() == len(numbers), timeout)
        with self._changed:
            count = n_taken()
            self._taken.difference_update(numbers)
        return count

    def fail(self, reason: str) -> None:
        """Note why the connection cannot be used any more; the first reason stays."""
        with self._changed:
            self.failure = self.failure or reason
            self._changed.notify_all()

    def close(self) -> None:
        """Disconnect, and end the library's thread, also if the broker hangs."""
        if self.failure is None:
            self._client.disconnect()
            self._wait(lambda: False, _FAREWELL_S)
        self.fail("it was closed")
        if (connection := self._client.socket()) is not None:
            with suppress(OSError):
                cast(socket.socket, connection).shutdown(socket.SHUT_RDWR)
        self._client.loop_stop()

    def _wait(self, condition: Callable[[], bool], timeout: float) -> None:
        until_s = monotonic() + timeout
        with self._changed:
            while not condition() and self.failure is None:
                left_s = until_s - monotonic()
                if left_s <= 0:
                    return
                self._changed.wait(min(left_s, _POLL_S))

    def _on_connect(
        self, client: Any, data: Any, flags: Any, reason: Any, properties: Any
    ) -> None:
        if reason.is_failure:
            self.fail(f"it refuses the client: {str(reason).lower()}")
            return
        with self._changed:
            self._is_accepted = True
            self._changed.notify_all()

    def _on_disconnect(
        self, client: Any, data: Any, flags: Any, reason: Any, properties: Any
    ) -> None:
        self.fail("the connection was lost")

    def _on_publish(
        self, client: Any, data: Any, number: int, reason: Any, properties: Any
    ) -> None:
        with self._changed:
            self._taken.add(number)
            self._changed.notify_all()


def _sentence(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "it does not answer in time"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted ({error.verify_message})"
    if isinstance(error, ssl.SSLError):
        return "no encrypted connection: it may expect no encryption at this port"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return shortened(printable(str(error))) or type(error).__name__
