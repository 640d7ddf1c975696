"""Monitor: engines elsewhere on one page, their restarts, and the command itself."""

import httpx
import numpy as np
import pytest
from network.browsers import TOKEN, browser
from network.publishers import INFO, Engine
from processes.cli_process import neurovocal, running
from processes.waiting import PATIENCE_S, until

from neurovocal.engine.contracts.clock import SystemClock
from neurovocal.engine.contracts.errors import ConfigError
from neurovocal.engine.contracts.plugin import BuildContext
from neurovocal.engine.contracts.types import Block, Frames, Message, Stats
from neurovocal.plugins.controls import zmq as control_zmq
from neurovocal.plugins.web import monitor as module
from neurovocal.plugins.web.encoding import Station
from neurovocal.plugins.web.monitor import StationReader, Watched, parse_watched
from neurovocal.plugins.web.sound import SoundKeeper
from neurovocal.plugins.web.viewers import Hub

pytestmark = pytest.mark.usefixtures("no_threads_left")


class Watching:
    """Reader of one engine, and the sequence numbers of the labels that came."""

    def __init__(self, live, replay=None, keys=None):
        self.station = Station(id="s0", name="aviary", connected=False)
        self.hub = Hub([self.station])
        self.sound = SoundKeeper(10.0)
        watched = Watched("aviary", live, replay, None)
        self.reader = StationReader(self.hub, self.station, watched, keys, self.sound)

    def __enter__(self):
        self.reader.start()
        return self

    def __exit__(self, *error):
        self.reader.stop()

    def labels(self):
        events = [*self.hub.events_before(None)][::-1]
        return [(one.run, one.seq) for one in events if one.kind == "label"]

    @property
    def shown(self):
        return self.hub.stations["s0"]


@pytest.fixture
def engine(tmp_path):
    engine = Engine(tmp_path)
    yield engine
    engine.close()


@pytest.mark.parametrize(
    ("text", "watched"),
    [
        ("tcp://a:1", ("a:1", "tcp://a:1", None, None)),
        ("tcp://a:1,tcp://a:2", ("a:1", "tcp://a:1", "tcp://a:2", None)),
        ("tcp://a:1,,tcp://a:3", ("a:1", "tcp://a:1", None, "tcp://a:3")),
        ("North=tcp://a:1", ("North", "tcp://a:1", None, None)),
        ("ipc:///x=y", ("/x=y", "ipc:///x=y", None, None)),
    ],
)
def test_engines_are_named_by_their_endpoints(text, watched):
    assert parse_watched(text) == watched


@pytest.mark.parametrize("text", ["", "a:1", "tcp://a:1,b", "tcp://a:*", ",,,", "x="])
def test_malformed_endpoints_are_refused(text):
    with pytest.raises(ConfigError):
        parse_watched(text)


def subscribed(engine, watching):
    """Send labels until the first one comes."""

    def came():
        engine.send()
        return watching.labels()

    until(came)


def test_messages_of_an_engine_are_shown(engine):
    with Watching(engine.zmq.endpoint) as watching:
        subscribed(engine, watching)
        until(lambda: watching.shown.connected)
        values = np.ones((4, 2), np.float32)
        frames = Frames(0, 16, 32, values)
        stats = Stats({"frames": {"scale": "scaled", "range": [0, 2]}})
        for event in (stats, frames):
            engine.zmq.write(Message(engine.info, event, 0, 0))
        until(lambda: watching.hub._columns)
        assert watching.shown.sound is False
        engine.zmq.wants |= {"block"}
        block = Block(0, np.zeros((100, 1), np.float32))
        engine.zmq.write(Message(engine.info, block, 0, 0))
        until(lambda: watching.shown.sound)
        assert watching.sound.wav(INFO.stream, 0, 50, 0)


def test_a_silent_engine_is_told_with_its_endpoint(monkeypatch):
    monkeypatch.setattr(module, "_SILENT_S", 0.5)
    with Watching("tcp://127.0.0.1:1") as watching:
        until(lambda: watching.shown.detail)
        assert watching.shown.connected is False
        assert "no message yet" in watching.shown.detail
        assert "tcp://127.0.0.1:1" in watching.shown.detail


def test_a_control_socket_in_the_place_of_replay_is_told(engine, monkeypatch):
    monkeypatch.setattr(module, "_SILENT_S", 0.5)
    options = control_zmq.ControlOptions(endpoint="tcp://127.0.0.1:*")
    control = control_zmq.plugin.build(options, BuildContext(SystemClock(), "run"))
    control.open()
    with Watching(engine.zmq.endpoint, control.endpoint) as watching:

        def is_told():
            engine.send()
            control.serve(lambda request: {"ok": False, "error": "no command"}, 0.01)
            detail = watching.shown.detail
            return control.endpoint in detail and "is it the 'replay' end" in detail

        until(is_told)
    control.close()


def test_an_engine_that_falls_silent_and_comes_back(engine, monkeypatch):
    monkeypatch.setattr(module, "_SILENT_S", 0.5)
    with Watching(engine.zmq.endpoint) as watching:
        subscribed(engine, watching)

        def is_heard():
            engine.send()
            shown = watching.shown
            return shown.connected and shown.detail == ""

        until(is_heard)
        until(lambda: not watching.shown.connected)
        assert "no message since" in watching.shown.detail
        until(is_heard)


def test_a_restart_of_the_engine_leaves_no_hole(tmp_path):
    first = Engine(tmp_path, "run0")
    live, replay = first.zmq.endpoint, first.replay
    with Watching(live, replay) as watching:
        subscribed(first, watching)
        first.send(3)
        first.send(4, only_record=True)  # nobody hears these
        sent = first.seq
        first.close()
        second = Engine(tmp_path, "run1", endpoints=(live, replay))
        second.send(5)  # before the subscriber is back

        def all_came():
            labels = watching.labels()
            return len(labels) >= sent + 5 - skipped(labels)

        until(all_came)
        labels = watching.labels()
        second.close()
    start = skipped(labels)
    assert labels == [
        *(("run0", seq) for seq in range(start, sent)),
        *(("run1", seq) for seq in range(5)),
    ]
    assert watching.reader.lost == 0


def skipped(labels):
    """Number of labels before the first that came: sent before it had subscribed."""
    return labels[0][1]


def test_without_replay_what_was_lost_is_counted(engine):
    with Watching(engine.zmq.endpoint) as watching:
        subscribed(engine, watching)
        engine.send(7, only_record=True)
        engine.send()
        until(lambda: watching.reader.lost)
        assert watching.reader.lost == 7


def test_keys_that_cannot_be_read_are_a_sentence_on_the_page(tmp_path, engine, quiet):
    with Watching(engine.zmq.endpoint, keys=tmp_path / "none") as watching:
        until(lambda: watching.shown.detail)
        assert "none" in watching.shown.detail


def address_in(process):
    while True:
        line = process.stderr.readline()
        assert line, "the program has ended"
        if line.startswith("page: "):
            return line.split()[1]


def test_command_shows_two_engines_and_ends_with_ctrl_c(tmp_path, engine):
    (tmp_path / "other").mkdir()
    other = Engine(tmp_path / "other", stream="other")
    ends = [f"{engine.zmq.endpoint},{engine.replay}", f"South={other.zmq.endpoint}"]
    with running("monitor", *ends, "--port", 0) as process:
        with browser(address_in(process)) as page:
            hello = page.read()
            names = [station["name"] for station in hello["stations"]]
            assert names == [engine.zmq.endpoint.removeprefix("tcp://"), "South"]

            found = set()
            while len(found) < 2:
                for one in (engine, other):
                    one.send()
                found |= {
                    (text["station"], text["header"]["stream"])
                    for text in [page.read()]
                    if text["type"] == "event" and text["header"]["kind"] == "label"
                }
            assert found == {("s0", INFO.stream), ("s1", "other")}
            process.send_signal(2)
            # The page's own code, or that of the server, whichever ends first.
            assert page.end().rcvd.code in (1001, 1012)
        assert process.wait(PATIENCE_S) == 0
        assert "messages came, 0 were lost" in process.stderr.read()
    other.close()


def test_command_asks_for_the_token_in_a_file(tmp_path):
    file = tmp_path / "token"
    file.write_text(TOKEN + "\n")
    arguments = ("tcp://127.0.0.1:1", "--port", 0, "--token-file", file)
    with running("monitor", *arguments) as process:
        address = address_in(process)
        assert httpx.get(address + "api/events", timeout=PATIENCE_S).status_code == 401
        headers = {"Authorization": f"Bearer {TOKEN}"}
        assert (
            httpx.get(
                address + "api/events", headers=headers, timeout=PATIENCE_S
            ).status_code
            == 200
        )
        process.send_signal(15)
        assert process.wait(PATIENCE_S) == 0


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["a:1"], ["did you mean tcp://a:1"]),
        (["tcp://a:1", "tcp://a:1"], ["given twice"]),
        (["tcp://a:1", "--host", "0.0.0.0"], ["lets other machines", "token"]),
        (["tcp://a:1", "--token-file", "none"], ["'none' cannot be read"]),
        (["tcp://a:1", "--user", "bird"], ["a user without a password"]),
        (["tcp://a:1", "--keys", "none"], ["'none' is no folder"]),
        (["a", "b"], ["'a'", "'b'"]),
    ],
)
def test_mistakes_are_told_at_once_with_their_fix(tmp_path, arguments, parts):
    done = neurovocal("monitor", *arguments, cwd=tmp_path)
    assert done.code == 1
    for part in parts:
        assert part in done.err
    assert "Traceback" not in done.err
