"""Grafana's dashboard: every query names metrics and labels that an engine serves."""

import json
import re
from dataclasses import replace
from itertools import combinations
from threading import Event as Flag
from urllib.request import urlopen

import pytest
from network.mosquitto import free_port
from processes.waiting import PATIENCE_S, until
from repository import ROOT
from stages.runners import INFO, audio, make_runner

from neurovocal.engine.contracts.clock import ManualClock
from neurovocal.engine.contracts.plugin import BuildContext
from neurovocal.engine.contracts.types import Gap, Health
from neurovocal.engine.testing import ScriptedSource
from neurovocal.plugins.sinks.integrations.mqtt.sink import MqttOptions, MqttSink
from neurovocal.plugins.sinks.prometheus import PrometheusOptions, PrometheusSink

PATH = ROOT / "configs" / "grafana" / "neurovocal.json"
DASHBOARD = json.loads(PATH.read_text(encoding="utf-8"))
QUERIES = [
    target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]
]
VARIABLE = DASHBOARD["templating"]["list"][1]["query"]["query"]
# Names that a query groups by, and those in braces.
GROUPED = re.compile(r"by \(([^)]*)\)")
SELECTED = re.compile(r'(\w+)\s*(?:=~|=)\s*"([^"]*)"')


@pytest.fixture
def metrics(background, quiet):
    """Serve the page of a running engine; return the labels of each metric on it."""
    clock, done = ManualClock(0), Flag()
    page = PrometheusSink(PrometheusOptions(endpoint="127.0.0.1:0"))
    # A delivery whose broker is away, so that its counters are there.
    options = MqttOptions(broker=f"127.0.0.1:{free_port()}", linger_s=0)
    mqtt = MqttSink(options, BuildContext(ManualClock(0), "run-1"))

    def script():
        yield audio("..##..")
        yield Gap(60, 100, "overrun")
        yield Health("source", "recovering", "unplugged")
        clock.advance(2.0)
        # Audio that came at a known time has a latency.
        yield replace(audio("..##..", 100), arrived_ns=clock.monotonic_ns())
        while not done.wait(0.01):
            clock.advance(2.0)
            yield None

    def read():
        with urlopen(f"http://127.0.0.1:{page.port}/metrics", timeout=PATIENCE_S) as it:
            return it.read().decode()

    source = ScriptedSource(INFO, script(), live=True)
    runner = make_runner(source, page, mqtt, clock=clock, models=["namer"])
    run = background(runner.run)
    wanted = ("neurovocal_latency_ms{", "neurovocal_sink{", "neurovocal_labels_total{")
    try:
        until(lambda: page.port and all(name in read() for name in wanted))
        text = read()
    finally:
        done.set()
    run()
    found: dict[str, list[dict[str, str]]] = {}
    for name, _, labels in re.findall(r"^(neurovocal_\w+)({(.*)})? \S+$", text, re.M):
        found.setdefault(name, []).append(dict(re.findall(r'(\w+)="([^"]*)"', labels)))
    return found


def test_queries_name_metrics_and_labels_of_a_running_engine(metrics):
    named = set()
    for query in [*QUERIES, VARIABLE]:
        used = re.findall(r"(neurovocal_\w+)(?:\{([^}]*)\})?", query)
        assert used, query
        for name, selectors in used:
            named.add(name)
            assert name in metrics, f"{name} is not served"
            wanted = {k: v for k, v in SELECTED.findall(selectors) if "$" not in v}
            fitting = [
                labels
                for labels in metrics[name]
                if wanted.items() <= labels.items()
                and all(key in labels for key, _ in SELECTED.findall(selectors))
            ]
            assert fitting, f"no {name} has {selectors}"
            for group in GROUPED.findall(query):
                keys = {key.strip() for key in group.split(",")}
                assert keys <= fitting[0].keys(), f"{name} has no {keys}"
    assert named == {name for name in metrics if not name.endswith("_created")}


def test_panels_have_numbers_of_their_own_and_do_not_overlap():
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    for one, other in combinations((panel["gridPos"] for panel in panels), 2):
        assert (
            one["x"] + one["w"] <= other["x"]
            or other["x"] + other["w"] <= one["x"]
            or one["y"] + one["h"] <= other["y"]
            or other["y"] + other["h"] <= one["y"]
        )
    assert all(panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24 for panel in panels)


def test_legends_name_labels_that_the_query_keeps():
    for panel in DASHBOARD["panels"]:
        for target in panel["targets"]:
            used = set(re.findall(r"{{(\w+)}}", target["legendFormat"]))
            kept = {
                k.strip() for g in GROUPED.findall(target["expr"]) for k in g.split(",")
            }
            assert used <= (kept or {"stream"})
