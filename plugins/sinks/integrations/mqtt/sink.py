"""Publish events, states and a daily summary to an MQTT broker."""

import re
import secrets
import ssl
from collections.abc import Iterator

from pydantic import Field, SecretStr, field_validator

from neurovocal.engine import BuildContext, ConfigError, Message, Plugin
from neurovocal.engine.contracts.options import OptionProblem
from neurovocal.engine.journal.follower import JournalFollower
from neurovocal.engine.support.endpoints import parse_address
from neurovocal.engine.support.names import at_home
from neurovocal.engine.support.text import plain, shortened
from neurovocal.plugins.sinks.integrations.delivery.items import is_provisional
from neurovocal.plugins.sinks.integrations.delivery.options import (
    DeliveryOptions,
    delivered_kinds,
    delivery_problems,
    read_secret,
    state_path,
)
from neurovocal.plugins.sinks.integrations.delivery.queues import (
    DeliveryQueue,
    JournalQueue,
    MemoryQueue,
)
from neurovocal.plugins.sinks.integrations.delivery.sink import (
    DeliverySink,
    begin_summary,
)
from neurovocal.plugins.sinks.integrations.delivery.state import StateFile
from neurovocal.plugins.sinks.integrations.delivery.worker import (
    DeliveryWorker,
    Refusals,
)
from neurovocal.plugins.sinks.integrations.mqtt.client import Broker, MqttClient
from neurovocal.plugins.sinks.integrations.mqtt.states import StationStates, Topics
from neurovocal.plugins.storage.text_file import file_access, file_claim
from neurovocal.plugins.zeromq.endpoint import is_loopback

_NAME = "mqtt"
_BATCH = 20
_TOPIC = re.compile(r"[^/+#\0]+(/[^/+#\0]+)*")
_MOST_TOPIC_BYTES = 1000
# Of these, states are made.
_STATE_KINDS = frozenset({"label", "offset", "health", "stats"})


class MqttOptions(DeliveryOptions):
    """Options of the ``mqtt`` sink."""

    broker: str = "127.0.0.1:1883"
    """Address of the broker, `HOST:PORT`; with `tls` the port often is 8883."""
    topic: str = "neurovocal"
    """First levels of all topics."""
    discovery: str | None = None
    """Where Home Assistant looks for new devices, usually `homeassistant`; null: it is
    not told."""
    journal: str | None = Field(default=None, min_length=1)
    """File of the `journal` sink whose events are published: those that a broker or an
    engine missed go out later. Null: they wait in memory."""
    queue_length: int = Field(default=10_000, ge=1, le=10_000_000)
    """Events that wait in memory, without `journal`; of more, the oldest are lost, and
    counted."""
    user: str | None = Field(default=None, min_length=1)
    """Name for the broker."""
    password: SecretStr | None = None
    """Password, such as `${MQTT_PASSWORD}`."""
    password_file: str | None = Field(default=None, min_length=1)
    """File that holds the password instead."""
    tls: bool = False
    """Whether the connection is encrypted, and the broker's certificate checked."""
    ca_file: str | None = Field(default=None, min_length=1)
    """Certificates (PEM) to trust instead of those of the system."""
    cert_file: str | None = Field(default=None, min_length=1)
    """Certificate (PEM) of this client, with its key or beside `key_file`."""
    key_file: str | None = Field(default=None, min_length=1)
    """Key of `cert_file`."""
    allow_plain: bool = False
    """Whether a password may be sent unencrypted to another machine."""
    most_per_s: float = Field(default=500.0, ge=0.01, le=100_000)
    """Events a second, at most."""
    timeout_s: float = Field(default=10.0, ge=0.1, le=600)
    """Time for the broker to answer, in seconds."""
    linger_s: float = Field(default=5.0, ge=0, le=600)
    """Time at the end of the run for what is left."""
    alternatives = (("password", "password_file"),)

    @field_validator("topic", "discovery")
    @classmethod
    def _is_topic(cls, value: str | None) -> str | None:
        if value is None:
            return None
        size = len(value.encode(errors="surrogateescape"))
        if _TOPIC.fullmatch(value) is None or size > _MOST_TOPIC_BYTES:
            raise ValueError("a topic has levels with '/' between them, no '+' or '#'")
        if value.startswith("$"):
            # Brokers keep these to themselves: mosquitto acknowledges, and drops.
            raise ValueError("topics that begin with '$' are the broker's own")
        return value


class MqttSink(DeliverySink):
    """Publishes events at QoS 1, and states of streams (docs/connect/mqtt.md).

    Parameters
    ----------
    options : MqttOptions
        Checked options.
    context : BuildContext
        Clock, name of the station and of the run, and kinds of events.
    """

    def __init__(self, options: MqttOptions, context: BuildContext) -> None:
        path = state_path(options, options.journal, _NAME)
        super().__init__(options.linger_s, None if path is None else StateFile(path))
        self._kinds = delivered_kinds(context)
        self.wants = self._kinds | _STATE_KINDS
        self._options, self._clock = options, context.clock
        self._station = context.stream
        self._accepts_all = options.labels == "all"
        self._memory: MemoryQueue | None = None
        self._queue: DeliveryQueue = self._make_queue(context.run)
        self._topics = Topics(options.topic, context.stream)
        self._states = StationStates(
            self._topics,
            context.stream,
            options.discovery,
            summaries=options.summary_at is not None,
        )
        self._client: MqttClient | None = None

    def open(self) -> None:
        """Read state and password, and begin to connect.

        A broker that cannot be reached is no error: it is tried again.

        Raises
        ------
        ConfigError
            The library is missing, or state, journal, password or certificate cannot
            be read.
        """
        if self._file is not None:
            self._file.acquire()
        if self._worker is not None:
            self._worker.start()
            return
        if (problem := _missing_library()) is not None:
            raise ConfigError(problem)
        self._queue.open()
        options = self._options
        client = MqttClient(
            self._broker(), self._topics.availability, self._topics.event
        )
        client.set_states(self._states.begin())
        self._client = client
        self._worker = DeliveryWorker(
            f"nv-{_NAME}",
            self._queue,
            client,
            self._clock,
            batch=_BATCH,
            most_per_s=options.most_per_s,
            summary=begin_summary(
                options, options.journal, self._station, self._file, self._clock
            ),
            on_finished=self._finished,
        )
        self._worker.start()

    def write(self, message: Message) -> None:
        """Note a message for the states of its stream, and queue its event."""
        if self._client is None or self._worker is None:
            return
        if message.kind in _STATE_KINDS:
            self._client.set_states(self._states.update(message))
        if message.kind in self._kinds and self._accepts(message):
            self._queue.put(message)
            self._worker.wake()

    def stats(self) -> dict[str, object]:
        """Return the counters of the delivery."""
        if self._worker is None or self._client is None:
            return {}
        return {**self._worker.stats(), "repeated": self._client.repeated}

    @property
    def trouble(self) -> str | None:
        """Why events wait at this moment, or None."""
        trouble = None if self._worker is None else self._worker.trouble
        if trouble is not None and self._memory is not None and self._memory.dropped:
            return f"{trouble}; {self._memory.dropped} events are lost"
        if trouble is None and self._file is not None:
            return self._file.trouble
        return trouble

    @property
    def losses(self) -> str | None:
        """Events that were not published in the run and never will be; None: none."""
        if self._memory is None or self._client is None:
            return None
        lost = self._memory.dropped + self._memory.waiting
        return f"{lost} events did not reach {self._client.name}" if lost else None

    def _accepts(self, message: Message) -> bool:
        return self._accepts_all or not is_provisional(message)

    def _make_queue(self, run: str) -> DeliveryQueue:
        options = self._options
        if options.journal is None or self._file is None:
            self._memory = MemoryQueue(run, self._station, options.queue_length)
            return self._memory
        journal = at_home(options.journal)
        return JournalQueue(
            lambda after: JournalFollower(journal, self._kinds, after),
            self._file,
            self._station,
            self._accepts,
        )

    def _broker(self) -> Broker:
        options = self._options
        host, port = parse_address(options.broker, binds=False)
        password = None
        if options.password is not None:
            password = options.password.get_secret_value()
        if options.password_file is not None:
            password = read_secret(options.password_file, "password_file")
        return Broker(
            host=host,
            port=port,
            client_id=f"neurovocal-{secrets.token_hex(6)}",
            user=options.user,
            password=password,
            tls=_tls_of(options),
            timeout_s=options.timeout_s,
        )

    def _finished(self, delivered: int, refused: Refusals) -> None:
        if self._file is not None:
            self._file.state.delivered += delivered


def _tls_of(options: MqttOptions) -> ssl.SSLContext | None:
    """Return the encryption of the connection, None for none.

    Raises
    ------
    ConfigError
        A certificate or key cannot be read.
    """
    if not options.tls:
        return None
    files = [
        None if name is None else str(at_home(name))
        for name in (options.ca_file, options.cert_file, options.key_file)
    ]
    try:
        context = ssl.create_default_context(cafile=files[0])
        if files[1] is not None:
            context.load_cert_chain(files[1], files[2])
    except (OSError, ValueError) as error:
        names = ", ".join(f"'{name}'" for name in files if name is not None)
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"{names} cannot be used for TLS: {reason}") from error
    return context


def _missing_library() -> str | None:
    try:
        import paho.mqtt.client  # noqa: F401
    except ImportError:
        return (
            "sink 'mqtt' needs paho-mqtt, which is not installed: "
            "pip install 'neurovocal[mqtt]'"
        )
    return None


def _problems(options: MqttOptions, context: BuildContext) -> Iterator[str]:
    yield from delivery_problems(options, context, options.journal, _NAME)
    if (problem := _missing_library()) is not None:
        yield problem
    try:
        host = parse_address(options.broker, binds=False).host
    except ValueError as error:
        yield OptionProblem(
            "broker", f"broker '{shortened(plain(options.broker))}': {error}"
        )
    else:
        yield from _password_problems(options, host)
    if not options.tls:
        for name in ("ca_file", "cert_file", "key_file"):
            if getattr(options, name) is not None:
                yield OptionProblem(name, f"{name} is for 'tls: true'")
    elif options.key_file is not None and options.cert_file is None:
        yield OptionProblem("key_file", "key_file belongs to a cert_file")
    else:
        try:
            _tls_of(options)
        except ConfigError as error:
            yield str(error)
    if options.state is not None and options.journal is None:
        yield OptionProblem("state", "a state is kept with 'journal' only")


def _password_problems(options: MqttOptions, host: str) -> Iterator[str]:
    has_password = options.password is not None or options.password_file is not None
    if has_password and options.user is None:
        yield OptionProblem("user", "a password needs the name of its user")
    if has_password and not (options.tls or options.allow_plain or is_loopback(host)):
        yield OptionProblem(
            "broker",
            "the password would be sent unencrypted to another machine: use "
            "'tls: true', or say 'allow_plain: true'",
        )
    if options.password_file is not None:
        try:
            read_secret(options.password_file, "password_file")
        except ConfigError as error:
            yield OptionProblem("password_file", str(error))


def _written(options: MqttOptions) -> list[str]:
    path = state_path(options, options.journal, _NAME)
    return [] if path is None else [str(path)]


plugin = Plugin(
    kind="sink",
    options=MqttOptions,
    build=MqttSink,
    summary="publishes events and states to an MQTT broker, for Home Assistant, too",
    resources=lambda options: frozenset(
        {f"service:{_NAME} {options.broker} {options.topic}"}
    ).union(*map(file_claim, _written(options))),
    check=_problems,
    writes=lambda options, context: file_access(*_written(options)),
)
