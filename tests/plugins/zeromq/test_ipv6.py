"""IPv6 addresses and chosen ports: every client reaches every bound socket."""

import logging
import socket
from pathlib import Path
from threading import Event as Flag
from threading import Thread

import pytest
import zmq
from network.publishers import Engine, has_ipv6
from network.relays import relaying
from processes.waiting import PATIENCE_S

from neurovocal.engine.cli.app import main
from neurovocal.engine.client import Control, Subscriber
from neurovocal.engine.contracts.clock import SystemClock
from neurovocal.engine.contracts.plugin import BuildContext
from neurovocal.engine.wire.keys import add_client, make_engine_keys
from neurovocal.engine.wire.sockets import set_address_family
from neurovocal.plugins.controls import zmq as control_zmq
from neurovocal.plugins.zeromq.endpoint import claim

needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")


@needs_ipv6
@pytest.mark.parametrize("is_keyed", [False, True], ids=["open", "keyed"])
def test_a_subscriber_at_an_ipv6_address_gets_all_messages(
    tmp_path: Path, is_keyed: bool
) -> None:
    keys = alice = None
    if is_keyed:
        keys, alice = tmp_path / "keys", tmp_path / "alice"
        make_engine_keys(keys)
        add_client(keys, "alice", "read", alice)
    (tmp_path / "journal").mkdir()
    engine = Engine(tmp_path / "journal", host="[::1]", keys=keys)
    engine.send(20, only_record=True)
    with Subscriber(
        engine.zmq.endpoint, replay=engine.replay, start="run", keys=alice
    ) as subscriber:
        messages = [subscriber.receive(PATIENCE_S) for _ in range(20)]
    engine.close()
    assert [one.seq for one in messages if one] == list(range(20))


@needs_ipv6
def test_a_relay_connects_and_is_reached_at_ipv6_addresses(tmp_path: Path) -> None:
    engine = Engine(tmp_path, host="[::1]")
    engine.send(20, only_record=True)
    with (
        relaying([engine], replay=True, host="[::1]") as relay,
        Subscriber(
            relay.endpoint, replay=relay.replay_endpoint, start="journal"
        ) as subscriber,
    ):
        messages = [subscriber.receive(PATIENCE_S) for _ in range(20)]
    engine.close()
    assert [one.seq for one in messages if one] == list(range(20))


@needs_ipv6
def test_commands_reach_a_control_socket_at_an_ipv6_address() -> None:
    options = control_zmq.ControlOptions(endpoint="tcp://[::1]:*")
    server = control_zmq.plugin.build(options, BuildContext(SystemClock(), "run"))
    server.open()
    done = Flag()

    def serve() -> None:
        while not done.is_set():
            server.serve(lambda request: {"ok": True}, 0.02)

    thread = Thread(target=serve)
    thread.start()
    try:
        with Control(server.endpoint, timeout=PATIENCE_S) as control:
            assert control.command("ping")["ok"]
    finally:
        done.set()
        thread.join(PATIENCE_S)
        server.close()


def uses_ipv6(endpoint: str) -> bool:
    """Return the socket's option for IPv6."""
    with zmq.Context() as context, context.socket(zmq.SUB) as one:
        set_address_family(one, endpoint)
        return bool(one.getsockopt(zmq.IPV6))


def test_names_that_have_an_ipv4_address_are_reached_by_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    known = {
        "both": [socket.AF_INET, socket.AF_INET6],
        "old": [socket.AF_INET],
        "new": [socket.AF_INET6],
    }

    def resolve(host: str, *args: object, **kwargs: object) -> list[tuple[int]]:
        if host not in known:
            raise socket.gaierror("unknown")
        return [(family,) for family in known[host]]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    found = [
        uses_ipv6(f"{scheme}{host}:5556")
        for scheme, host in [
            ("tcp://", "[::1]"),
            ("tcp://", "[fe80::1%eth0]"),
            ("tcp://", "new"),
            ("tcp://", "both"),
            ("tcp://", "old"),
            ("tcp://", "absent"),
            ("tcp://", "*"),
            ("ipc://", "/tmp/a::b"),
        ]
    ]
    assert found == [True, True, True, False, False, False, False, False]


@pytest.mark.parametrize("port", ["0", "*", "000"])
def test_a_port_that_the_system_chooses_is_logged(
    port: str, caplog: pytest.LogCaptureFixture
) -> None:
    endpoint = f"tcp://127.0.0.1:{port}"
    assert claim(endpoint) == frozenset()
    options = control_zmq.ControlOptions(endpoint=endpoint)
    server = control_zmq.plugin.build(options, BuildContext(SystemClock(), "run"))
    with caplog.at_level(logging.WARNING, "neurovocal"):
        server.open()
    server.close()
    assert int(server.endpoint.rsplit(":", 1)[1]) > 0
    assert server.endpoint in caplog.text


@pytest.mark.parametrize(
    ("host", "connectable"),
    [("*", "127.0.0.1"), ("0.0.0.0", "127.0.0.1"), ("127.0.0.1", "127.0.0.1")],
)
def test_the_printed_command_names_an_address_to_connect_to(
    host: str,
    connectable: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    config = tmp_path / "c.yaml"
    config.write_text(
        "version: 1\n"
        "source: {plugin: synthetic, options: {pace: asap, duration_s: 0.5}}\n"
        "sinks:\n- plugin: zmq\n"
        "  options: {allow_remote: true, linger_s: 0, "
        f"endpoint: 'tcp://{host}:{port}'}}\n"
    )
    with pytest.raises(SystemExit) as ended:
        main(["run", str(config)])
    assert ended.value.code == 0
    assert f"neurovocal listen tcp://{connectable}:{port})" in capsys.readouterr().err
