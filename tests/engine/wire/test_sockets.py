"""A machine that loses power tells nobody: every connection asks the kernel to look."""

import os
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from network.publishers import Engine
from network.relays import relaying
from processes.waiting import PATIENCE_S

from neurovocal.engine.client import Control, Subscriber
from neurovocal.engine.contracts.clock import SystemClock
from neurovocal.engine.contracts.plugin import BuildContext
from neurovocal.plugins.controls import zmq as control_zmq

pytestmark = pytest.mark.skipif(
    not hasattr(socket, "TCP_USER_TIMEOUT"), reason="reads Linux's options of sockets"
)
# A subscriber that is deaf for longer has lost more than any queue holds.
MOST_S = 60


def connections(port: int) -> Iterator[tuple[bool, int, int]]:
    """Of both ends in this process: asks?, after how long at most, patience in ms."""
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError), socket.socket(fileno=os.dup(int(name))) as one:
            if one.family != socket.AF_INET or one.type != socket.SOCK_STREAM:
                continue
            if port not in (one.getsockname()[1], one.getpeername()[1]):
                continue
            tcp, asks = socket.IPPROTO_TCP, socket.SO_KEEPALIVE
            idle_s = one.getsockopt(tcp, socket.TCP_KEEPIDLE)
            pause_s = one.getsockopt(tcp, socket.TCP_KEEPINTVL)
            number = one.getsockopt(tcp, socket.TCP_KEEPCNT)
            yield (
                bool(one.getsockopt(socket.SOL_SOCKET, asks)),
                idle_s + pause_s * number,
                one.getsockopt(tcp, socket.TCP_USER_TIMEOUT),
            )


def check(endpoint: str, *, asks: bool) -> None:
    found = list(connections(int(endpoint.rsplit(":", 1)[1])))
    assert len(found) >= 2, "both ends"
    assert all(keep and 0 < within_s < MOST_S for keep, within_s, _ in found)
    # Who waits for answers does not wait for a quarter of an hour; who publishes does
    # not cut off a subscriber that stands still.
    patient = [patience_ms for *_, patience_ms in found]
    assert any(0 < ms < 1000 * MOST_S for ms in patient) == asks
    assert 0 in patient


def test_every_connection_notices_that_the_other_side_is_dead(tmp_path: Path) -> None:
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
            with suppress(Exception):
                asking.command("ping")  # nobody answers; there is a connection
            engine.send(3, only_record=True)
            engine.send()
            while (one := subscriber.receive(PATIENCE_S)) is not None:
                if one.seq == engine.seq - 1:
                    break
            assert one is not None
            assert relay.replay_endpoint is not None
            check(engine.zmq.endpoint, asks=False)
            check(relay.endpoint, asks=False)
            check(engine.replay, asks=True)
            check(relay.replay_endpoint, asks=True)
            check(control.endpoint, asks=True)
    finally:
        control.close()
        engine.close()
