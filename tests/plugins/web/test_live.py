"""Live page over real sockets: late and slow viewers, commands, start and stop."""

import json
import socket
import time

import httpx
import numpy as np
import pytest
from network.browsers import Browser, LivePage, browser
from processes.waiting import PATIENCE_S, until
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from neurovocal.engine.contracts.clock import SystemClock
from neurovocal.engine.contracts.errors import ConfigError
from neurovocal.engine.contracts.plugin import BuildContext
from neurovocal.engine.contracts.types import Frames, Trace
from neurovocal.engine.support.endpoints import Address
from neurovocal.plugins.controls.zmq import ControlOptions
from neurovocal.plugins.controls.zmq import plugin as control_plugin
from neurovocal.plugins.web import live, viewers
from neurovocal.plugins.web.access import Access
from neurovocal.plugins.web.encoding import Station
from neurovocal.plugins.web.server import PageServer
from neurovocal.plugins.web.steering import EngineControl

RATE = 32_000
NASTY = '</script><img src=x onerror="alert(1)">\u2028\x00'


@pytest.fixture
def page():
    with LivePage() as page:
        yield page


def add_label(page, seq, stream="cage", station="s0"):
    header = {"kind": "label", "stream": stream, "seq": seq, "unit": NASTY}
    page.hub.add_event(station, "label", stream, "r", seq, json.dumps(header))


def add_frames(page, first, n_frames=8, n_bins=129):
    values = np.random.default_rng(first).random((n_frames, n_bins), np.float32)
    page.hub.add_columns("s0", "cage", "r", RATE, Frames(first, 128, 256, values))


def test_hello_comes_first_then_the_past_then_what_happens(page):
    add_label(page, 0)
    with browser(page.url) as viewer:
        hello = viewer.read()
        assert hello["type"] == "hello"
        assert abs(hello["now_utc_ns"] - time.time_ns()) < 60e9
        assert hello["control"] is False
        assert hello["stations"] == [
            {
                "id": "s0",
                "name": "demo",
                "endpoint": None,
                "connected": True,
                "detail": "",
                "sound": False,
                "history": False,
                "control": False,
            }
        ]
        add_label(page, 1)
        add_frames(page, 0)
        viewer.until(lambda seen: len(seen.events("label")) == 2 and seen.columns)
        assert [label["seq"] for label in viewer.events("label")] == [0, 1]
        assert viewer.columns[0].values.shape == (8, 129)


def test_names_with_html_arrive_as_they_are(page):
    with browser(page.url) as viewer:
        add_label(page, 0, stream=NASTY)
        viewer.until(lambda seen: seen.events("label"))
        (label,) = viewer.events("label")
        assert label["unit"] == label["stream"] == NASTY


def test_columns_come_without_holes_or_repetitions(page):
    with browser(page.url) as viewer:
        for number in range(200):
            add_frames(page, 8 * number)
        viewer.until(lambda seen: seen.columns and seen.columns[-1].stop == 1600)
    position = 0
    for columns in viewer.columns:
        assert columns.first == position
        position = columns.stop
    assert len(viewer.columns) < 100, "they are gathered"


def test_trace_comes_at_about_the_hop_of_the_frames(page):
    with browser(page.url) as viewer:
        add_frames(page, 0)
        rows = np.zeros((160, 4), np.float32)
        page.hub.add_columns("s0", "cage", "r", RATE, Trace(0, 16, 32, rows, "dB"))
        viewer.until(lambda seen: [c for c in seen.columns if c.kind == "trace"])
        (trace,) = [c for c in viewer.columns if c.kind == "trace"]
    assert trace.header["hop_length"] == 128
    assert trace.header["unit"] == "dB"
    assert trace.values.shape == (20, 4)


def test_a_hidden_tab_switches_columns_off_and_on(page):
    with browser(page.url) as viewer:
        until(lambda: page.hub.n_viewers)
        viewer.send(type="columns", on=False)
        until(lambda: not next(iter(page.hub._viewers)).wants_columns)
        add_frames(page, 0)
        add_label(page, 0)
        viewer.until(lambda seen: seen.events("label"))
        assert viewer.columns == []
        viewer.send(type="columns", on=True)
        until(lambda: next(iter(page.hub._viewers)).wants_columns)
        add_frames(page, 1000)
        viewer.until(lambda seen: seen.columns)


def reluctant(page):
    """Connect a browser that reads nothing, with as little room as the system lets."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect(("127.0.0.1", page.port))
    # It stops to read after the handshake: one message fills its queue.
    return connect(
        f"ws://127.0.0.1:{page.port}/ws",
        sock=connection,
        compression=None,
        max_size=None,
        max_queue=1,
        ping_interval=None,
        close_timeout=0.1,
        open_timeout=PATIENCE_S,
    )


def test_a_slow_viewer_loses_columns_and_no_label_and_costs_the_others_nothing(page):
    batches, n_frames, n_bins = 40, 256, 1024  # 10 MB: more than queue and sockets hold
    with browser(page.url) as quick, reluctant(page) as slow_socket:
        until(lambda: page.hub.n_viewers == 2)
        for number in range(batches):
            add_frames(page, n_frames * number, n_frames, n_bins)
            add_label(page, number)
            stop = n_frames * (number + 1)
            quick.until(lambda seen, stop=stop: ends_at(seen, stop))
        assert [label["seq"] for label in quick.events("label")] == [*range(batches)]
        assert [columns.first for columns in quick.columns] == [
            0,
            *(columns.stop for columns in quick.columns[:-1]),
        ]
        queued = [viewer._column_bytes for viewer in page.hub._viewers]
        assert 0 < max(queued) <= viewers._QUEUED_COLUMN_BYTES
        slow = Browser(slow_socket)
        slow.until(lambda seen: len(seen.events("label")) == batches)
        assert [label["seq"] for label in slow.events("label")] == [*range(batches)]
        slow.until(lambda seen: ends_at(seen, n_frames * batches))
        shown = sum(len(columns.values) for columns in slow.columns)
        dropped = slow.of_type("dropped")[-1]["columns"]
        assert dropped > 0
        assert shown + dropped == n_frames * batches


def ends_at(seen, stop):
    return bool(seen.columns) and seen.columns[-1].stop == stop


def test_a_viewer_that_reads_no_events_is_cut_off(page, monkeypatch):
    monkeypatch.setattr(viewers, "_QUEUED_EVENT_BYTES", 200_000)
    with browser(page.url) as quick, reluctant(page) as slow_socket:
        until(lambda: page.hub.n_viewers == 2)
        seq = 0
        while page.hub.n_viewers == 2:
            add_label(page, seq, stream="x" * 10_000)
            quick.until(lambda seen, n=seq: len(seen.events("label")) > n)
            seq += 1
            assert seq < 20_000
        Browser(slow_socket).end()
        add_label(page, seq)
        quick.until(lambda seen: seen.events("label")[-1]["seq"] == seq)


def test_more_viewers_than_allowed_are_told_so(page, monkeypatch):
    monkeypatch.setattr(live, "MOST_VIEWERS", 2)
    with browser(page.url) as first, browser(page.url) as second:
        first.read()
        second.read()
        until(lambda: page.hub.n_viewers == 2)
        with browser(page.url) as third, pytest.raises(ConnectionClosed) as closed:
            third.read()
        assert closed.value.rcvd.code == 1013
        assert "2 browsers" in closed.value.rcvd.reason
    until(lambda: page.hub.n_viewers == 0)


@pytest.mark.usefixtures("no_threads_left")
def test_stopping_ends_all_connections_even_of_browsers_that_do_not_read():
    page = LivePage()
    page.server.start()
    with reluctant(page), browser(page.url) as viewer:
        until(lambda: page.hub.n_viewers == 2)
        for number in range(200):
            add_label(page, number, stream="x" * 10_000)
        viewer.until(lambda seen: len(seen.events("label")) == 200)
        page.hub.close()
        page.server.stop()
        assert viewer.end().rcvd.code == 1001
    page.server.stop()
    with pytest.raises(httpx.ConnectError):
        httpx.get(page.url, timeout=PATIENCE_S)


def test_page_is_served_again_at_the_same_port_after_a_restart(page):
    again = PageServer(Address("127.0.0.1", page.port), Access(), [])
    with pytest.raises(ConfigError, match=f"{page.port}, which is in use: another run"):
        again.start()
    with browser(page.url) as viewer:
        viewer.read()
        page.hub.close()
        page.server.stop()
    again.start()
    assert httpx.get(again.url + "style.css", timeout=PATIENCE_S).status_code == 200
    again.stop()


@pytest.mark.parametrize(
    ("host", "part"),
    [
        ("192.0.2.1", "not an address of this machine"),
        ("no.such.invalid", "served"),
    ],
)
def test_impossible_addresses_are_a_sentence(host, part):
    with pytest.raises(ConfigError, match=part):
        PageServer(Address(host, 0), Access(), []).start()


def test_port_of_another_user_s_choice_is_named_with_the_next_one(page):
    with pytest.raises(ConfigError) as refused:
        PageServer(Address("127.0.0.1", page.port), Access(), []).start()
    assert f"such as 127.0.0.1:{page.port + 1}" in str(refused.value)


def test_two_stations_are_told_apart(page):
    with LivePage(names=("north", "south")) as both, browser(both.url) as viewer:
        viewer.until(lambda seen: seen.of_type("hello"))
        add_label(both, 0, station="s0")
        add_label(both, 1, station="s1")
        both.hub.update_station(Station(id="s1", name="south", connected=False))
        viewer.until(lambda seen: seen.of_type("station"))
        told = [(t["station"], t["header"]["seq"]) for t in viewer.of_type("event")]
        assert told == [("s0", 0), ("s1", 1)]
        url = both.url + "api/events?station="
        for name, seq in (("s0", 0), ("s1", 1)):
            (event,) = httpx.get(url + name, timeout=PATIENCE_S).json()["events"]
            assert event["seq"] == seq


def test_commands_reach_the_engine_and_its_refusals_the_page(background):
    asked = []

    def submit(request):
        asked.append(request)
        reply = {"v": 1, "id": request["id"], "command": request["command"]}
        if request["command"] == "swap":
            return reply | {"ok": False, "error": "'x.yaml' does not exist"}
        return reply | {"ok": True, "options": {"temperature": 0.5}}

    options = ControlOptions(endpoint="tcp://127.0.0.1:*")
    endpoint = control_plugin.build(options, BuildContext(SystemClock(), "r"))
    endpoint.open()
    stopped = []

    def serve():
        while not stopped:
            endpoint.serve(submit, 0.05)

    wait = background(serve)
    control = EngineControl(endpoint.endpoint)
    with LivePage(control=control) as page, browser(page.url) as viewer:
        assert viewer.read()["control"] is True
        viewer.send(
            type="command",
            id=7,
            station="s0",
            command="set",
            lane="aviary",
            model="rnn_rbm",
            arguments={"temperature": 0.5},
        )
        viewer.send(type="command", id=8, station="s0", command="swap")
        viewer.send(type="command", id=9, station="s1", command="swap")
        viewer.until(lambda seen: len(seen.of_type("reply")) == 3)
        done, refused, nowhere = viewer.of_type("reply")
    control.close()
    stopped.append(True)
    wait()
    endpoint.close()
    assert (done["id"], done["ok"]) == (7, True)
    assert done["options"] == {"temperature": 0.5}
    assert (refused["id"], refused["ok"]) == (8, False)
    assert refused["error"] == "'x.yaml' does not exist"
    assert nowhere["ok"] is False
    first, _ = asked
    assert (first["command"], first["lane"], first["model"]) == (
        "set",
        "aviary",
        "rnn_rbm",
    )
