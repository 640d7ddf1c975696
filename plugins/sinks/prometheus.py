"""Counters of a run for Prometheus, over HTTP."""

import re
from collections import Counter
from collections.abc import Iterator
from threading import Lock, Thread
from typing import TYPE_CHECKING, Any

from pydantic import Field

from neurovocal.engine.contracts.errors import ConfigError, StageError
from neurovocal.engine.contracts.options import Options
from neurovocal.engine.contracts.plugin import BuildContext, Plugin
from neurovocal.engine.contracts.types import Gap, Health, Message, Stats
from neurovocal.plugins.zeromq.endpoint import is_loopback

if TYPE_CHECKING:
    from prometheus_client.core import Metric
import socket
from collections.abc import Callable
from socketserver import ThreadingMixIn
from time import monotonic
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

# One page is asked for now and then, by one or two programs.
MOST_CONNECTIONS = 32

# Whoever has not asked and been answered by then is cut off, also if it sends a byte
# now and then.
MOST_S = 5.0


class _Handler(WSGIRequestHandler):
    """Logs no requests."""

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing."""


class BoundedServer(ThreadingMixIn, WSGIServer):
    """A thread per connection, of a bounded number and for a bounded time.

    A connection beyond the bound ends the oldest one: who asks at once is answered
    at once, so that what is old is not worth keeping.

    Parameters
    ----------
    host, port
        Where to listen.
    app : callable
        WSGI application.

    Raises
    ------
    OSError
        The address is taken, or not this machine's.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, host: str, port: int, app: Callable[..., Any]) -> None:
        family, *_, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        self.address_family = family
        self._lock = Lock()
        self._began_s: dict[Any, float] = {}  # the oldest first
        super().__init__((str(address[0]), port), _Handler)
        self.set_app(app)

    @property
    def connections(self) -> int:
        """How many there are now."""
        with self._lock:
            return len(self._began_s)

    def start(self) -> Thread:
        """Serve in a thread of its own, until `shutdown`."""
        thread = Thread(target=self.serve_forever, name="nv-http", daemon=True)
        thread.start()
        return thread

    def process_request(self, request: Any, client_address: Any) -> None:
        """Take a connection; an old one makes room for it."""
        with self._lock:
            while len(self._began_s) >= MOST_CONNECTIONS:
                self._cut(next(iter(self._began_s)))
            self._began_s[request] = monotonic()
        super().process_request(request, client_address)

    def service_actions(self) -> None:
        """Twice a second: end what takes too long."""
        late_s = monotonic() - MOST_S
        with self._lock:
            for request in [r for r, began in self._began_s.items() if began < late_s]:
                self._cut(request)

    def shutdown_request(self, request: Any) -> None:
        """A connection has ended."""
        with self._lock:
            self._began_s.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection that broke off is no news."""

    def _cut(self, request: Any) -> None:
        """Its thread reads an end, and closes."""
        self._began_s.pop(request, None)
        try:
            request.shutdown(socket.SHUT_RDWR)
        except OSError:
            return  # it has ended by itself


_ENDPOINT = re.compile(r"(\[[^\[\]]+\]|[^:\[\]/]+):(\d{1,5})")

# Whose counters are told; each file of a folder is a stream.
_MOST_STREAMS = 200
_QUANTILES = {"p50": "0.5", "p95": "0.95", "p99": "0.99"}


class PrometheusOptions(Options):
    """Options of the ``prometheus`` sink."""

    endpoint: str = Field(default="127.0.0.1:9464")
    """`HOST:PORT` where `/metrics` is served (port 0: any free one)."""
    allow_remote: bool = False
    """Whether an endpoint that other machines can reach may be bound; there is
    neither a key nor encryption on it."""


class PrometheusSink:
    """Serves what the newest ``stats`` of each stream say, and counts gaps.

    Parameters
    ----------
    options : PrometheusOptions
        Checked options.

    Attributes
    ----------
    port : int
        Where it listens once it is open.
    """

    wants = frozenset({"stats", "gap", "health"})

    def __init__(self, options: PrometheusOptions) -> None:
        self._options = options
        self._lock = Lock()
        self._stats: dict[str, dict[str, Any]] = {}
        self._gaps: Counter[tuple[str, str]] = Counter()
        self._health: Counter[tuple[str, str, str]] = Counter()
        self._server: BoundedServer | None = None
        self._thread: Thread | None = None
        self.port = 0

    def open(self) -> None:
        """Listen.

        Raises
        ------
        ConfigError
            The library is missing, or the endpoint is open to others or taken.
        """
        problems = list(_problems(self._options))
        if problems:
            raise ConfigError(problems)
        from prometheus_client import CollectorRegistry, make_wsgi_app

        registry = CollectorRegistry()
        registry.register(self)  # type: ignore[arg-type]
        host, port = _split(self._options.endpoint)
        try:
            self._server = BoundedServer(host, port, make_wsgi_app(registry))
        except OSError as error:
            raise ConfigError(
                f"endpoint '{self._options.endpoint}' cannot be bound: "
                f"{error.strerror or error}; choose another port"
            ) from error
        self._thread = self._server.start()
        self.port = self._server.server_port

    def write(self, message: Message) -> None:
        """Take the newest counters in."""
        if self._server is None:
            raise StageError("the Prometheus sink is not open")
        stream, event = message.info.stream, message.event
        with self._lock:
            if isinstance(event, Stats):
                self._stats.pop(stream, None)
                self._stats[stream] = dict(event.values)
                while len(self._stats) > _MOST_STREAMS:
                    self._forget(next(iter(self._stats)))
            elif isinstance(event, Gap):
                self._gaps[stream, event.reason] += 1
            elif isinstance(event, Health):
                self._health[stream, event.stage, event.state] += 1

    def _forget(self, stream: str) -> None:
        """Of files that come one after another, the newest are told."""
        del self._stats[stream]
        for counter in (self._gaps, self._health):
            for key in [key for key in counter if key[0] == stream]:
                del counter[key]

    def flush(self, timeout: float) -> None:
        """Nothing waits here."""

    def close(self) -> None:
        """Listen no more."""
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            server.server_close()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def describe(self) -> "list[Metric]":
        """Nothing beforehand: streams come and go."""
        return []

    def collect(self) -> "Iterator[Metric]":
        """Metric families, as the client library asks for them."""
        with self._lock:
            stats, gaps = dict(self._stats), dict(self._gaps)
            health = dict(self._health)
        table = _Table()
        for stream, values in stats.items():
            _add_stream(table, stream, values)
        for (stream, reason), count in gaps.items():
            table.count("gaps", "Gaps.", count, stream=stream, reason=reason)
        for (stream, stage, state), count in health.items():
            labels = {"stream": stream, "stage": stage, "state": state}
            table.count("health_changes", "Changes of health.", count, **labels)
        yield from table.families.values()


class _Table:
    """Metric families by name."""

    def __init__(self) -> None:
        self.families: dict[str, Metric] = {}

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
        if name not in self.families:
            self.families[name] = family(name, text, labels=list(labels))
        # A file's name may hold bytes that are no text; the page is UTF-8.
        values = [
            text.encode("utf-8", "backslashreplace").decode()
            for text in labels.values()
        ]
        self.families[name].add_metric(values, value)  # type: ignore[attr-defined]


def _add_stream(table: _Table, stream: str, values: dict[str, Any]) -> None:
    of = {"stream": stream}
    source = values["source"]
    table.count("samples_heard", "Samples that came.", source["heard"], **of)
    table.count("samples_lost", "Samples that never came.", source["lost"], **of)
    table.gauge("lag_ms", "How far the lane is behind.", values["lag_ms"], **of)
    table.gauge("drift_ppm", "Of the source's clock.", values["drift_ppm"], **of)
    for kind, count in values["events"].items():
        table.count("events", "Events by kind.", count, **of, kind=kind)
    for stage, figures in values["stages"].items():
        labels = {**of, "stage": stage}
        table.gauge("stage_load", "Share of real time.", figures["load"], **labels)
        table.count("stage_errors", "Failures.", figures["errors"], **labels)
    for sink, figures in values["sinks"].items():
        for queue, tally in figures.items():
            if not (isinstance(tally, dict) and "queued" in tally):
                continue
            for what, count in tally.items():
                labels = {**of, "sink": sink, "queue": queue, "what": what}
                text = "Messages: received = delivered + dropped + queued."
                table.gauge("messages", text, count, **labels)
    for kind, parts in values["latency"].items():
        for part, summary in parts.items():
            for name, quantile in _QUANTILES.items():
                labels = {**of, "kind": kind, "part": part.removesuffix("_ms")}
                labels["quantile"] = quantile
                table.gauge("latency_ms", "Ledger.", summary[name], **labels)
    process = values["process"]
    # Of one process, whichever stream tells it last.
    table.families.pop("neurovocal_rss_bytes", None)
    table.families.pop("neurovocal_open_handles", None)
    table.gauge("rss_bytes", "Resident memory.", process["rss_mb"] * (1 << 20))
    table.gauge("open_handles", "Open file descriptors.", process["handles"])


def _split(endpoint: str) -> tuple[str, int]:
    match = _ENDPOINT.fullmatch(endpoint)
    assert match is not None
    return match[1].strip("[]"), int(match[2])


def _problems(options: PrometheusOptions) -> Iterator[str]:
    match = _ENDPOINT.fullmatch(options.endpoint)
    if match is None or int(match[2]) > 65535:
        yield (
            f"endpoint '{options.endpoint}' is not HOST:PORT, such as 127.0.0.1:9464"
        )
    elif not options.allow_remote and (match[1] == "lo" or not is_loopback(match[1])):
        yield (
            f"endpoint '{options.endpoint}' lets other machines read it, unencrypted: "
            "bind 127.0.0.1, or say 'allow_remote: true'"
        )
    try:
        import prometheus_client  # noqa: F401
    except ImportError:
        yield (
            "sink 'prometheus' needs the package prometheus-client: "
            "pip install 'neurovocal[prometheus]'"
        )


def _build(options: PrometheusOptions, context: BuildContext) -> PrometheusSink:
    return PrometheusSink(options)


def _resources(options: PrometheusOptions) -> frozenset[str]:
    match = _ENDPOINT.fullmatch(options.endpoint)
    if match is None or match[2] == "0":
        return frozenset()
    return frozenset({f"tcp:{match[2]}"})


plugin = Plugin(
    kind="sink",
    options=PrometheusOptions,
    build=_build,
    summary="serves counters, lag, latency and memory to Prometheus over HTTP",
    resources=_resources,
    check=lambda options, context: _problems(options),
)
