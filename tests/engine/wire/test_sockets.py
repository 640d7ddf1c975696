"""TCP keep-alive of all connections, which detects a peer without power."""

import os
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from network.publishers import Engine
from network.relays import relaying
from processes.waiting import PATIENCE_S, until

from neurovocal.engine.client import Control, Subscriber
from neurovocal.engine.contracts.clock import SystemClock
from neurovocal.engine.contracts.errors import NeurovocalError
from neurovocal.engine.contracts.plugin import BuildContext
from neurovocal.plugins.controls import zmq as control_zmq

pytestmark = pytest.mark.skipif(
    not hasattr(socket, "TCP_USER_TIMEOUT"), reason="reads Linux's options of sockets"
)
# A subscriber that is deaf for longer has lost more than any queue holds.
MOST_S = 60


def connections(port: int) -> Iterator[tuple[bool, int, int]]:
    """Yield per end: keep-alive, time to detection in s, TCP user timeout in ms."""
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError), socket.socket(fileno=os.dup(int(name))) as one:
            if one.family != socket.AF_INET or one.type != socket.SOCK_STREAM:
                continue
            if port not in (one.getsockname()[1], one.getpeername()[1]):
                continue
            tcp, keep_alive = socket.IPPROTO_TCP, socket.SO_KEEPALIVE
            idle_s = one.getsockopt(tcp, socket.TCP_KEEPIDLE)
            pause_s = one.getsockopt(tcp, socket.TCP_KEEPINTVL)
            number = one.getsockopt(tcp, socket.TCP_KEEPCNT)
            yield (
                bool(one.getsockopt(socket.SOL_SOCKET, keep_alive)),
                idle_s + pause_s * number,
                one.getsockopt(tcp, socket.TCP_USER_TIMEOUT),
            )


def ask(asking: Control) -> bool:
    """Ask where nobody replies; return whether there is a connection by now."""
    with suppress(NeurovocalError):
        asking.command("ping")
    return len(list(connections(int(asking.endpoint.rsplit(":", 1)[1])))) >= 2


def check(endpoint: str, *, awaits_replies: bool) -> None:
    found = list(connections(int(endpoint.rsplit(":", 1)[1])))
    assert len(found) >= 2, "both ends"
    assert all(keep and 0 < within_s < MOST_S for keep, within_s, _ in found)
    # A socket that awaits replies gives up within a minute; a publisher keeps a
    # suspended subscriber.
    timeouts_ms = [timeout_ms for *_, timeout_ms in found]
    assert any(0 < ms < 1000 * MOST_S for ms in timeouts_ms) == awaits_replies
    assert 0 in timeouts_ms


def test_every_connection_has_keep_alive(tmp_path: Path) -> None:
    engine = Engine(tmp_path)
    control = control_zmq.plugin.build(
        control_zmq.ControlOptions(endpoint="tcp://127.0.0.1:*"),
        BuildContext(SystemClock(), "run"),
    )
    control.open()
    try:
        with (
            relaying([engine], replay=True) as relay,
            Subscriber(relay.endpoint, replay=relay.replay_endpoint) as subscriber,
            Control(control.endpoint, timeout=0.1) as asking,
        ):
            while subscriber.receive(0.02) is None:
                engine.send()
            until(lambda: ask(asking))
            engine.send(3, only_record=True)
            engine.send()
            while (one := subscriber.receive(PATIENCE_S)) is not None:
                if one.seq == engine.seq - 1:
                    break
            assert one is not None
            assert relay.replay_endpoint is not None
            check(engine.zmq.endpoint, awaits_replies=False)
            check(relay.endpoint, awaits_replies=False)
            check(engine.replay, awaits_replies=True)
            check(relay.replay_endpoint, awaits_replies=True)
            check(control.endpoint, awaits_replies=True)
    finally:
        control.close()
        engine.close()
