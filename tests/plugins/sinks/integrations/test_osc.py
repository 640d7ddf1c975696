"""OSC sink: a real server gets the messages; what UDP loses stops nothing."""

import socket
from threading import Event, Thread

import numpy as np
import pytest
from processes.waiting import until
from pythonosc.dispatcher import Dispatcher
from pythonosc.osc_server import BlockingOSCUDPServer
from stages.journals import INFO, label

from neurovocal.engine.contracts.clock import ManualClock, SystemClock
from neurovocal.engine.contracts.plugin import BuildContext
from neurovocal.engine.contracts.registry import Registry
from neurovocal.engine.contracts.types import (
    Ledger,
    Message,
    Offset,
    Onset,
    StreamInfo,
    Surprise,
)
from neurovocal.engine.support.calls import Backoff
from neurovocal.engine.testing import check_sink
from neurovocal.plugins.sinks.integrations import osc
from neurovocal.plugins.sinks.integrations.osc import OscOptions, plugin


class Server:
    """python-osc's server, with all messages that came."""

    def __init__(self, port=0):
        self.messages = []
        dispatcher = Dispatcher()
        dispatcher.set_default_handler(lambda *message: self.messages.append(message))
        self._server = BlockingOSCUDPServer(("127.0.0.1", port), dispatcher)
        self.port = self._server.server_address[1]
        self.target = f"127.0.0.1:{self.port}"

    def __enter__(self):
        Thread(target=self._server.serve_forever, args=[0.01], daemon=True).start()
        return self

    def __exit__(self, *error):
        self._server.shutdown()
        self._server.server_close()


def make(*targets, clock=None, **options):
    checked = OscOptions(targets=list(targets), **options)
    return plugin.build(checked, BuildContext(clock or ManualClock(), "run-1"))


def message(event, info=INFO, at_ns=0):
    return Message(info, event, 0, 9, None, Ledger(1.0, 2.0, 3.0), at_ns)


EVENTS = [
    message(Onset(7, 0, 2.5)),
    message(Offset(7, 0, 3200, False)),
    label(7),
    message(Surprise(0, 128, np.array([1.0, np.nan, 3.0], np.float32))),
]


def test_is_installed_and_keeps_the_contract_of_sinks():
    assert Registry().get("sink", "osc") is plugin
    with Server() as server:
        check_sink(lambda: make(server.target), EVENTS)


def test_a_server_gets_each_event_with_its_arguments():
    clock = ManualClock(5)
    with Server() as server, Server() as other:
        sink = make(server.target, other.target, clock=clock)
        sink.open()
        clock.advance(0.004)
        for event in [*EVENTS, message(Onset(2**31 + 1, 0, 0.5), at_ns=1_000_000)]:
            sink.write(event)
        until(lambda: len(server.messages) == 5 and len(other.messages) == 5)
        sink.close()
        assert sink.stats() == {"sent": 10, "failed": 0}
    assert server.messages == other.messages
    late_ms = 6 + (4_000_000 - 5) / 1e6  # `label` was published at 5 ns
    assert server.messages == [
        ("/neurovocal/onset", "aviary-3", 7, 2.5, -1.0),
        ("/neurovocal/offset", "aviary-3", 7, 100.0, -1.0),
        (
            "/neurovocal/label",
            *("aviary-3", 7, "b", 0.5, "final", pytest.approx(late_ms)),
        ),
        ("/neurovocal/surprise", "aviary-3", 2.0, 3.0),
        ("/neurovocal/onset", "aviary-3", 1, 0.5, 9.0),
    ]


def test_a_server_that_is_away_stops_nothing_and_gets_later_messages():
    with Server() as server:
        pass
    sink = make(server.target)
    sink.open()
    for _ in range(100):
        sink.write(EVENTS[0])
    assert sink.trouble is None  # UDP cannot tell
    with Server(server.port) as server:
        sink.write(EVENTS[2])
        until(lambda: server.messages)
        assert server.messages[0][0] == "/neurovocal/label"
    sink.close()


def test_a_message_that_cannot_be_sent_is_counted(monkeypatch):
    # A message to a broadcast address is refused by the kernel of this machine.
    sink = make("255.255.255.255:9000")
    sink.open()
    sink.write(EVENTS[0])
    assert sink.stats() == {"sent": 0, "failed": 1}
    assert "permission denied" in sink.trouble
    sink.close()


def test_names_that_are_no_text_are_sent_readable():
    with Server() as server:
        sink = make(server.target, address="/station/3")
        sink.open()
        sink.write(message(Onset(0, 0, 1.0), StreamInfo("b\udcff" + "x" * 5000, 100)))
        until(lambda: server.messages)
        sink.close()
    address, stream, *_ = server.messages[0]
    assert address == "/station/3/onset"
    assert stream.startswith("b\\udcffxxx")
    assert len(stream) < 1100


def test_mistakes_are_found_before_anything_is_sent():
    def problems(events=None, **options):
        context = BuildContext(SystemClock(), "r", events=events)
        return list(plugin.check(OscOptions(**options), context))

    assert problems() == []
    assert problems(events=("label", "surprise")) == []
    assert "sends no frames, gap" in problems(events=("label", "gap", "frames"))[0]
    assert "has no port" in problems(targets=["localhost"])[0]
    for address in ("neurovocal", "/a b", "/a//b", "/a/", "/a*"):
        with pytest.raises(ValueError, match="begins with '/'"):
            OscOptions(address=address)
    with pytest.raises(ValueError, match="at most 16"):
        OscOptions(targets=["127.0.0.1:9000"] * 17)


def test_an_unknown_host_is_looked_up_again_and_the_others_get_all(monkeypatch):
    known = socket.getaddrinfo
    is_up = Event()

    def lookup(host, *arguments, **options):
        if host == "studio.local":
            if not is_up.is_set():
                raise socket.gaierror(-2, "Name or service not known")
            host = "127.0.0.1"
        return known(host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    monkeypatch.setattr(osc, "Backoff", lambda: Backoff(first_s=0.01))
    with Server() as here, Server() as studio:
        sink = make(here.target, f"studio.local:{studio.port}")
        sink.open()
        sink.write(EVENTS[0])
        until(lambda: len(here.messages) == 1)
        assert "'studio.local:" in sink.trouble
        assert "is not known: Name or service not known" in sink.trouble
        assert sink.stats() == {"sent": 1, "failed": 1}
        is_up.set()
        until(lambda: sink.trouble is None)
        sink.write(EVENTS[0])
        until(lambda: (len(here.messages), len(studio.messages)) == (2, 1))
        assert sink.trouble is None
        sink.close()
