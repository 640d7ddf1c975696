"""Serve counters, lag, latency and memory of a run to Prometheus over HTTP."""

import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import BoundedSemaphore, Lock, Thread
from time import monotonic
from typing import TYPE_CHECKING, Any

from pydantic import Field

from neurovocal.engine import (
    BuildContext,
    ConfigError,
    Gap,
    Health,
    Label,
    Message,
    Options,
    Plugin,
    StageError,
    Stats,
)
from neurovocal.engine.support.endpoints import parse_address
from neurovocal.engine.support.text import shortened
from neurovocal.plugins.zeromq.endpoint import is_loopback

if TYPE_CHECKING:
    from prometheus_client.core import Metric

# One or two programs ask for the page, now and then.
MOST_CONNECTIONS = 32
# A connection is closed after this time, even if it sends a byte now and then.
_CONNECTION_S = 5.0
# Streams whose counters are kept; each file of a folder is a stream.
_MOST_STREAMS = 200
# Units of a stream that are counted by name; more are `(other)`.
_MOST_UNITS = 200
_OTHER = "(other)"
_QUANTILES = {"p50": "0.5", "p95": "0.95", "p99": "0.99"}


class PrometheusOptions(Options):
    """Options of the ``prometheus`` sink."""

    endpoint: str = Field(default="127.0.0.1:9464")
    """`HOST:PORT` where `/metrics` is served (port 0: any free one)."""
    allow_remote: bool = False
    """Whether an endpoint that other machines can reach may be bound; there is
    neither a key nor encryption on it."""


class PrometheusSink:
    """Serves the newest ``stats`` of each stream; counts labels, gaps, health changes.

    Parameters
    ----------
    options : PrometheusOptions
        Checked options.

    Attributes
    ----------
    port : int
        TCP port at which an open sink listens.
    """

    wants = frozenset({"stats", "label", "gap", "health"})

    def __init__(self, options: PrometheusOptions) -> None:
        self._options = options
        self._lock = Lock()
        self._stats: dict[str, dict[str, Any]] = {}
        self._labels: Counter[tuple[str, str]] = Counter()
        self._n_units: Counter[str] = Counter()  # by stream
        self._gaps: Counter[tuple[str, str]] = Counter()
        self._health: Counter[tuple[str, str, str]] = Counter()
        self._server: MetricsServer | None = None
        self._thread: Thread | None = None
        self.port = 0

    def open(self) -> None:
        """Listen at the endpoint.

        Raises
        ------
        ConfigError
            The library is missing, or the endpoint is in use or can be reached by other
            machines without `allow_remote`.
        """
        problems = list(_problems(self._options))
        if problems:
            raise ConfigError(problems)
        from prometheus_client import CollectorRegistry, MetricsHandler

        registry = CollectorRegistry()
        registry.register(self)  # type: ignore[arg-type]
        host, port = parse_address(self._options.endpoint, binds=True)
        try:
            handler = MetricsHandler.factory(registry)
            self._server = MetricsServer(host, port, handler)
        except OSError as error:
            raise ConfigError(
                f"endpoint '{self._options.endpoint}' cannot be bound: "
                f"{error.strerror or error}; choose another port"
            ) from error
        self._thread = Thread(
            target=self._server.serve_forever, name="nv-http", daemon=True
        )
        self._thread.start()
        self.port = self._server.server_port

    def write(self, message: Message) -> None:
        """Keep the counters of a message; StageError if the sink is not open."""
        if self._server is None:
            raise StageError("the Prometheus sink is not open")
        stream, event = message.info.stream, message.event
        with self._lock:
            if isinstance(event, Stats):
                self._stats.pop(stream, None)
                self._stats[stream] = dict(event.values)
                while len(self._stats) > _MOST_STREAMS:
                    self._forget(next(iter(self._stats)))
            elif isinstance(event, Label):
                if event.status == "final":
                    self._count_label(stream, event.unit)
            elif isinstance(event, Gap):
                self._gaps[stream, event.reason] += 1
            elif isinstance(event, Health):
                self._health[stream, event.stage, event.state] += 1

    def _count_label(self, stream: str, unit: str) -> None:
        if (stream, unit) not in self._labels:
            if self._n_units[stream] >= _MOST_UNITS:
                unit = _OTHER
            else:
                self._n_units[stream] += 1
        self._labels[stream, unit] += 1

    def _forget(self, stream: str) -> None:
        """Drop all counters of a stream."""
        del self._stats[stream]
        del self._n_units[stream]
        for counter in (self._labels, self._gaps, self._health):
            for key in [key for key in counter if key[0] == stream]:
                del counter[key]

    def flush(self, timeout: float) -> None:
        """Do nothing: no message waits."""

    def close(self) -> None:
        """Stop listening. May be called twice."""
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            server.server_close()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def describe(self) -> "list[Metric]":
        """Return no metric: streams come and go. The client library calls it."""
        return []

    def collect(self) -> "Iterator[Metric]":
        """Yield metric families; the client library calls it for each page."""
        with self._lock:
            stats, gaps = dict(self._stats), dict(self._gaps)
            labels, health = dict(self._labels), dict(self._health)
        families = _Families()
        for stream, values in stats.items():
            _add_stream(families, stream, values)
        for (stream, unit), count in labels.items():
            families.count("labels", "Final labels.", count, stream=stream, unit=unit)
        for (stream, reason), count in gaps.items():
            families.count("gaps", "Gaps.", count, stream=stream, reason=reason)
        for (stream, stage, state), count in health.items():
            which = {"stream": stream, "stage": stage, "state": state}
            families.count("health_changes", "Changes of health.", count, **which)
        yield from families.by_name.values()


class _Families:
    """Metric families of one page, by name."""

    def __init__(self) -> None:
        self.by_name: dict[str, Metric] = {}

    def gauge(self, name: str, text: str, value: float, **labels: str) -> None:
        from prometheus_client.core import GaugeMetricFamily

        self._add(GaugeMetricFamily, name, text, value, labels)

    def count(self, name: str, text: str, value: float, **labels: str) -> None:
        from prometheus_client.core import CounterMetricFamily

        self._add(CounterMetricFamily, name, text, value, labels)

    def _add(
        self, family: Any, name: str, text: str, value: float, labels: dict[str, str]
    ) -> None:
        name = f"neurovocal_{name}"
        if name not in self.by_name:
            self.by_name[name] = family(name, text, labels=list(labels))
        # A file's name may hold bytes that are no text; the page is UTF-8.
        values = [
            text.encode("utf-8", "backslashreplace").decode()
            for text in labels.values()
        ]
        self.by_name[name].add_metric(values, value)  # type: ignore[attr-defined]


def _add_stream(families: _Families, stream: str, values: dict[str, Any]) -> None:
    of = {"stream": stream}
    source = values["source"]
    families.count("samples_heard", "Samples that came.", source["heard"], **of)
    families.count("samples_lost", "Samples that never came.", source["lost"], **of)
    families.gauge("lag_ms", "How far the lane is behind.", values["lag_ms"], **of)
    families.gauge("drift_ppm", "Of the source's clock.", values["drift_ppm"], **of)
    if (level_db := values.get("level_db")) is not None:
        families.gauge("level_db", "Level, dB of full scale.", level_db, **of)
    for kind, count in values["events"].items():
        families.count("events", "Events by kind.", count, **of, kind=kind)
    omitted = values.get("omitted_near_misses", 0)
    text = "Near misses that were too many to tell."
    families.count("omitted_near_misses", text, omitted, **of)
    for stage, figures in values["stages"].items():
        labels = {**of, "stage": stage}
        families.gauge("stage_load", "Share of real time.", figures["load"], **labels)
        families.count("stage_errors", "Failures.", figures["errors"], **labels)
    for sink, figures in values["sinks"].items():
        _add_sink(families, {**of, "sink": sink}, figures)
    for kind, parts in values["latency"].items():
        for part, summary in parts.items():
            for name, quantile in _QUANTILES.items():
                labels = {**of, "kind": kind, "part": part.removesuffix("_ms")}
                labels["quantile"] = quantile
                families.gauge("latency_ms", "Ledger.", summary[name], **labels)
    process = values["process"]
    # The process is the same for all streams: the newest figures count.
    families.by_name.pop("neurovocal_rss_bytes", None)
    families.by_name.pop("neurovocal_open_handles", None)
    families.gauge("rss_bytes", "Resident memory.", process["rss_mb"] * (1 << 20))
    families.gauge("open_handles", "Open file descriptors.", process["handles"])


def _add_sink(families: _Families, of: dict[str, str], figures: dict[str, Any]) -> None:
    """Add the balance of a sink's queues, and the counters of its own."""
    for name, value in figures.items():
        if isinstance(value, dict) and "queued" in value:
            text = "Messages: received = delivered + dropped + queued."
            for what, count in value.items():
                labels = {**of, "queue": name, "what": what}
                families.gauge("messages", text, count, **labels)
        elif isinstance(value, int | float):
            text = "Counters of a sink's own, such as what waits for delivery."
            families.gauge("sink", text, value, **of, what=name)


class MetricsServer(ThreadingHTTPServer):
    """HTTP server with at most `MOST_CONNECTIONS` connections and threads.

    A further connection closes the oldest one: a client that asks at once is answered
    at once, so an old connection is not worth keeping.

    Parameters
    ----------
    host, port
        Address to listen at.
    handler : type
        Handler of requests.

    Raises
    ------
    OSError
        The address is in use, or is not one of this machine.
    """

    request_queue_size = 128

    def __init__(
        self, host: str, port: int, handler: type[BaseHTTPRequestHandler]
    ) -> None:
        family, *_, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        self.address_family = family
        self._free = BoundedSemaphore(MOST_CONNECTIONS)
        self._lock = Lock()
        self._opened_s: dict[Any, float] = {}  # by socket, the oldest first
        super().__init__((str(address[0]), port), handler)

    @property
    def connections(self) -> int:
        """Number of open connections."""
        with self._lock:
            return len(self._opened_s)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve a connection in a thread of its own, once there is room for it."""
        if not self._free.acquire(blocking=False):
            with self._lock:
                self._cut(next(iter(self._opened_s), None))
            self._free.acquire()  # the thread of the one that was cut ends at once
        with self._lock:
            self._opened_s[request] = monotonic()
        super().process_request(request, client_address)

    def service_actions(self) -> None:
        """Close connections that are open for too long; called twice a second."""
        oldest_s = monotonic() - _CONNECTION_S
        with self._lock:
            for request, opened_s in self._opened_s.items():
                if opened_s < oldest_s:
                    self._cut(request)

    def shutdown_request(self, request: Any) -> None:
        """Close a connection, and make room for another."""
        super().shutdown_request(request)
        with self._lock:
            self._opened_s.pop(request, None)
        self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore a connection that broke."""

    @staticmethod
    def _cut(request: Any) -> None:
        """Make the thread of a connection read its end, and close it."""
        if request is not None:
            with suppress(OSError):  # it has ended by itself
                request.shutdown(socket.SHUT_RDWR)


def _problems(options: PrometheusOptions) -> Iterator[str]:
    try:
        host = parse_address(options.endpoint, binds=True).host
    except ValueError as error:
        yield f"endpoint '{shortened(options.endpoint)}': {error}"
    else:
        if not options.allow_remote and (host == "lo" or not is_loopback(host)):
            yield (
                f"endpoint '{options.endpoint}' lets other machines read it, "
                "unencrypted: bind 127.0.0.1, or say 'allow_remote: true'"
            )
    try:
        import prometheus_client  # noqa: F401
    except ImportError:
        yield (
            "sink 'prometheus' needs prometheus-client, which is not installed: pip "
            "install prometheus-client"
        )


def _build(options: PrometheusOptions, context: BuildContext) -> PrometheusSink:
    return PrometheusSink(options)


def _resources(options: PrometheusOptions) -> frozenset[str]:
    try:
        port = parse_address(options.endpoint, binds=True).port
    except ValueError:
        return frozenset()
    return frozenset({f"tcp:{port}"} if port else ())


plugin = Plugin(
    kind="sink",
    options=PrometheusOptions,
    build=_build,
    summary="serves counters, lag, latency and memory to Prometheus over HTTP",
    resources=_resources,
    check=lambda options, context: _problems(options),
)
