"""Counters of a run for Prometheus, over HTTP."""

import re
from collections import Counter
from collections.abc import Iterator
from threading import Lock, Thread
from typing import TYPE_CHECKING, Any

from pydantic import Field

from neurovocal.engine.errors import ConfigError, StageError
from neurovocal.engine.registry import BuildContext, Options, Plugin
from neurovocal.engine.types import Gap, Health, Message, Stats
from neurovocal.plugins._endpoint import is_loopback
from neurovocal.plugins._http import BoundedServer

if TYPE_CHECKING:
    from prometheus_client.core import Metric

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
