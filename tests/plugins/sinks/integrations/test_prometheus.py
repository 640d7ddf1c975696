"""Prometheus sink: the page over HTTP, its bounds and its endpoint."""

import os
import socket
from threading import Event as Flag
from threading import active_count
from urllib.request import urlopen

import pytest
from processes.waiting import PATIENCE_S
from stages.runners import INFO, audio, make_runner

from neurovocal.engine.contracts.clock import ManualClock
from neurovocal.engine.contracts.errors import ConfigError
from neurovocal.engine.contracts.plugin import BuildContext
from neurovocal.engine.contracts.types import Gap, Message, Stats, StreamInfo
from neurovocal.engine.testing import ScriptedSource, check_sink
from neurovocal.plugins.sinks.prometheus import (
    MOST_CONNECTIONS,
    PrometheusOptions,
    PrometheusSink,
    plugin,
)

pytest.importorskip("prometheus_client")


def test_page_has_the_counters_of_a_run(background):
    clock, done, told = ManualClock(0), Flag(), Flag()
    sink = PrometheusSink(PrometheusOptions(endpoint="127.0.0.1:0"))
    write = sink.write

    def script():
        yield audio("..##..")
        yield Gap(60, 100, "overrun")
        clock.advance(2.0)
        yield audio("..##..", 100)
        while not done.wait(0.01):
            clock.advance(2.0)
            yield None

    def watched(message):
        write(message)
        if message.kind == "stats" and message.seq:
            told.set()

    sink.write = watched
    runner = make_runner(ScriptedSource(INFO, script(), live=True), sink, clock=clock)
    run = background(runner.run)
    assert told.wait(PATIENCE_S)
    with urlopen(f"http://127.0.0.1:{sink.port}/metrics", timeout=PATIENCE_S) as page:
        text = page.read().decode()
    done.set()
    run()
    lines = text.splitlines()
    assert 'neurovocal_samples_heard_total{stream="cage"} 120.0' in lines
    assert 'neurovocal_samples_lost_total{stream="cage"} 40.0' in lines
    assert 'neurovocal_gaps_total{reason="overrun",stream="cage"} 1.0' in [
        _sorted(line) for line in lines
    ]
    assert any(line.startswith("neurovocal_messages{") for line in lines)
    assert any(line.startswith("neurovocal_stage_load{") for line in lines)
    (rss,) = [line for line in lines if line.startswith("neurovocal_rss_bytes ")]
    assert float(rss.split()[1]) > 1e6


def _sorted(line):
    name, brace, rest = line.partition("{")
    labels, brace_, value = rest.partition("}")
    return name + brace + ",".join(sorted(labels.split(","))) + brace_ + value


def test_remote_endpoint_needs_allow_remote():
    context = BuildContext(clock=ManualClock(0), run="r")

    def problems(**options):
        return list(plugin.check(PrometheusOptions(**options), context))

    assert problems() == []
    assert "allow_remote: true" in problems(endpoint="0.0.0.0:9464")[0]
    for host in ("[::]", "*", "station-1", "lo"):
        assert "allow_remote: true" in problems(endpoint=f"{host}:9464")[0]
    assert problems(endpoint="[::1]:9464") == []
    assert problems(endpoint="0.0.0.0:9464", allow_remote=True) == []
    assert "HOST:PORT" in problems(endpoint="9464")[0]
    with pytest.raises(ConfigError, match="allow_remote"):
        PrometheusSink(PrometheusOptions(endpoint="0.0.0.0:0")).open()


def test_prometheus_passes_the_sink_checks_and_reports_a_port_in_use():
    gap = Message(INFO, Gap(0, 10, "overrun"), 0, 10, None)
    options = PrometheusOptions(endpoint="127.0.0.1:0")
    check_sink(lambda: PrometheusSink(options), [gap])
    first = PrometheusSink(PrometheusOptions(endpoint="127.0.0.1:0"))
    first.open()
    second = PrometheusSink(PrometheusOptions(endpoint=f"127.0.0.1:{first.port}"))
    with pytest.raises(ConfigError, match="cannot be bound"):
        second.open()
    first.close()


def test_stream_names_are_escaped_and_old_streams_dropped():
    sink = PrometheusSink(PrometheusOptions(endpoint="127.0.0.1:0"))
    sink.open()
    names = [f"{n}.wav" for n in range(300)] + ['a"} 1\nforged{x="', "b\udcff"]
    values = {
        "source": {"heard": 1, "lost": 0},
        **dict.fromkeys(("lag_ms", "drift_ppm"), 0.0),
        **{key: {} for key in ("events", "stages", "sinks", "latency")},
        "process": {"rss_mb": 1.0, "handles": 1},
    }
    for name in names:
        info = StreamInfo(name, 32000)
        sink.write(Message(info, Gap(0, 10, "overrun"), 0, 10, None))
        sink.write(Message(info, Stats(values), 0, 10, None))
    with urlopen(f"http://127.0.0.1:{sink.port}/metrics", timeout=PATIENCE_S) as page:
        lines = page.read().decode().splitlines()
    sink.close()
    assert not any(line.startswith("forged") for line in lines)
    assert any("b\\\\udcff" in line for line in lines)
    assert sum(line.startswith("neurovocal_gaps_total{") for line in lines) == 200


def test_many_connections_take_a_bounded_number_of_threads_and_descriptors():
    sink = PrometheusSink(PrometheusOptions(endpoint="127.0.0.1:0"))
    sink.open()
    threads, descriptors = active_count(), len(os.listdir("/proc/self/fd"))
    clients = []
    for number in range(4 * MOST_CONNECTIONS):
        clients.append(socket.create_connection(("127.0.0.1", sink.port), PATIENCE_S))
        assert active_count() <= threads + MOST_CONNECTIONS + 1
        opened = len(os.listdir("/proc/self/fd")) - descriptors - (number + 1)
        assert opened <= MOST_CONNECTIONS + 1
    with urlopen(f"http://127.0.0.1:{sink.port}/metrics", timeout=PATIENCE_S) as page:
        assert page.status == 200
    sink.close()
    for client in clients:
        client.close()
