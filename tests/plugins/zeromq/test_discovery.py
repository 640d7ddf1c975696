"""Stations announce themselves by zeroconf, on loopback, and are found."""

import json
import socket

import pytest
from network.mosquitto import free_port
from processes.cli_process import neurovocal, running
from processes.waiting import PATIENCE_S, until
from typer.testing import CliRunner
from zeroconf import ServiceInfo, Zeroconf

from neurovocal.engine.contracts.clock import SystemClock
from neurovocal.engine.contracts.plugin import BuildContext
from neurovocal.engine.contracts.registry import Registry
from neurovocal.engine.support.endpoints import Address
from neurovocal.plugins.zeromq.discovery import command
from neurovocal.plugins.zeromq.discovery.announcement import SERVICE, Announcement
from neurovocal.plugins.zeromq.discovery.finder import FoundStation, find_stations

pytestmark = pytest.mark.usefixtures("no_threads_left")
LOOPBACK = ["127.0.0.1"]
SEARCH_S = 2.5  # answers come within 2 s, mostly; more is only slower


def found(station):
    """Return what is found of a station: other tests may announce theirs meanwhile."""
    return [one for one in find_stations(SEARCH_S, LOOPBACK) if one.station == station]


def announced(station, what="events", port=5556, **details):
    announcement = Announcement(station, what, Address("127.0.0.1", port), details)
    announcement.start()
    return announcement


def test_a_station_is_found_until_it_stops():
    name = f"aviary {free_port()}"
    announcement = announced(name, keys="1")
    until(lambda: found(name))
    (one,) = found(name)
    assert (one.what, one.address, one.keys) == ("events", "tcp://127.0.0.1:5556", True)
    assert one.version
    announcement.stop()
    announcement.stop()
    assert found(name) == []


def test_two_sockets_of_one_name_are_both_found():
    name = f"aviary.{free_port()} \N{BIRD}/+, the one by the pond"
    first, second = announced(name), announced(name, port=5557)
    page = announced(name, "page", 8420)
    until(lambda: len(found(name)) == 3)
    assert {one.address for one in found(name)} == {
        "tcp://127.0.0.1:5556",
        "tcp://127.0.0.1:5557",
        "http://127.0.0.1:8420/",
    }
    for announcement in (first, second, page):
        announcement.stop()


def test_answers_of_others_are_no_stations_or_are_made_printable():
    zeroconf = Zeroconf(interfaces=LOOPBACK)
    port = free_port()
    for number, properties in enumerate(
        [{}, {"what": "spoon"}, {"what": "events", "station": f"{port}\x1b[2J\n"}]
    ):
        info = ServiceInfo(
            SERVICE,
            f"odd-{port}-{number}.{SERVICE}",
            port=port,
            addresses=[socket.inet_aton("127.0.0.1")],
            properties=properties,
            server=f"odd-{port}.local.",
        )
        zeroconf.register_service(info)

    def odd():
        everything = find_stations(SEARCH_S, LOOPBACK)
        return [one for one in everything if one.address.endswith(f":{port}")]

    until(odd)
    (one,) = odd()
    zeroconf.close()
    assert one.station.startswith(str(port))
    assert one.station.isprintable()


@pytest.mark.parametrize("name", ["zmq", "web"])
def test_nothing_is_announced_unasked(name):
    options = Registry().get("sink", name).options()
    assert options.announce is False


def test_sinks_announce_where_they_listen():
    name = f"aviary-{free_port()}"
    context = BuildContext(SystemClock(), "run-1", stream=name)
    sinks = []
    for plugin, endpoint in (("zmq", "tcp://127.0.0.1:*"), ("web", "127.0.0.1:0")):
        found_plugin = Registry().get("sink", plugin)
        options = found_plugin.options(endpoint=endpoint, announce=True)
        assert list(found_plugin.check(options, context)) == []
        sink = found_plugin.build(options, context)
        sink.open()
        sinks.append(sink)
    until(lambda: len(found(name)) == 2)
    events, page = found(name)
    assert events.address == sinks[0].endpoint
    assert page.what == "page"
    with socket.create_connection(
        ("127.0.0.1", int(page.address.strip("/").rpartition(":")[2])), PATIENCE_S
    ):
        pass
    for sink in sinks:
        sink.close()
    assert found(name) == []


def test_an_endpoint_that_is_no_tcp_cannot_be_announced():
    plugin = Registry().get("sink", "zmq")
    options = plugin.options(endpoint="ipc:///tmp/x", announce=True)
    (problem,) = plugin.check(options, BuildContext(SystemClock(), "r"))
    assert "only a tcp:// endpoint" in problem


def test_the_command_lists_stations(monkeypatch):
    import typer

    known = [
        FoundStation("aviary-3", "events", "tcp://127.0.0.1:5556", True, "0.1.0"),
        FoundStation("pond", "page", "http://[::1]:8420/", False, "0.1.0"),
    ]
    app = typer.Typer()
    app.command()(command.stations)
    monkeypatch.setattr(command, "find_stations", lambda seconds: known)
    table = CliRunner().invoke(app, []).stdout
    assert table == (
        "station   what    address               keys\n"
        "aviary-3  events  tcp://127.0.0.1:5556  needed\n"
        "pond      page    http://[::1]:8420/    none\n"
    )
    lines = CliRunner().invoke(app, ["--json"]).stdout.splitlines()
    assert json.loads(lines[1])["address"] == "http://[::1]:8420/"
    monkeypatch.setattr(command, "find_stations", lambda seconds: [])
    nothing = CliRunner().invoke(app, ["--seconds", "1"])
    assert (nothing.exit_code, nothing.stdout) == (0, "")
    assert "no station was found within 1 s" in nothing.stderr


def test_a_page_of_all_stations_that_are_found():
    name = f"aviary-{free_port()}"
    announcement = announced(name, port=free_port())
    until(lambda: found(name))
    with running("monitor", "--find", "--port", "0") as process:
        lines = [process.stderr.readline()]
        while lines[-1] and not lines[-1].startswith("page:"):
            lines.append(process.stderr.readline())
        assert any(line.startswith(f"found {name} at tcp://") for line in lines)
        assert lines[-1].startswith("page: http://127.0.0.1:")
    announcement.stop()
    listed = neurovocal("stations", "--seconds", "2.5", "--json")
    assert listed.code == 0
    assert name not in listed.out
