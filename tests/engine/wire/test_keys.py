"""Keys: clients without a key are rejected, and the role of a key is enforced."""

import os
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from network.bad_network import BadNetwork
from network.publishers import Engine
from network.relays import relaying
from processes.cli_process import neurovocal
from processes.waiting import PATIENCE_S

from neurovocal.engine.cli.session import plan_of
from neurovocal.engine.client import Control, Subscriber
from neurovocal.engine.config.located_yaml import parse_located
from neurovocal.engine.contracts.clock import SystemClock
from neurovocal.engine.contracts.errors import ConfigError, NeurovocalError
from neurovocal.engine.contracts.plugin import BuildContext
from neurovocal.engine.wire.keys import (
    add_client,
    allowed_keys,
    clients,
    key_problems,
    make_engine_keys,
    remove_client,
)
from neurovocal.plugins.controls import zmq as control_zmq
from neurovocal.plugins.zeromq.endpoint import endpoint_problems

SILENCE_S = 0.5  # long enough for a connection that is let in to say something


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    """Create the keys of an engine with one client of each role."""
    folder = tmp_path / "engine"
    make_engine_keys(folder)
    add_client(folder, "alice", "read", tmp_path / "alice")
    add_client(folder, "carol", "control", tmp_path / "carol")
    return folder


@pytest.fixture
def engine(keys: Path, tmp_path: Path) -> Iterator[Engine]:
    (tmp_path / "journal").mkdir()
    engine = Engine(tmp_path / "journal", keys=keys)
    yield engine
    engine.close()


def receives(engine: Engine, subscriber: Subscriber, tries: int) -> bool:
    for _ in range(tries):
        engine.send()
        if subscriber.receive(SILENCE_S / 10) is not None:
            return True
    return False


@pytest.mark.parametrize("name", ["alice", "carol"])
def test_a_client_with_a_key_receives_live_and_replayed_messages(
    engine: Engine, tmp_path: Path, name: str
) -> None:
    engine.send(20, only_record=True)
    with Subscriber(
        engine.zmq.endpoint,
        replay=engine.replay,
        start="run",
        keys=tmp_path / name,
    ) as subscriber:
        received = [subscriber.receive(PATIENCE_S) for _ in range(20)]
        seqs = [message.seq for message in received if message]
        assert seqs == list(range(20))
        assert receives(engine, subscriber, 600)


def test_a_client_without_a_key_receives_nothing(
    engine: Engine, tmp_path: Path
) -> None:
    engine.send(5, only_record=True)
    stranger = tmp_path / "stranger"
    make_engine_keys(tmp_path / "elsewhere")
    add_client(tmp_path / "elsewhere", "mallory", "read", stranger)
    # The right server, but a key that it does not know.
    (stranger / "server.key").write_bytes((tmp_path / "engine/server.key").read_bytes())
    for given in (None, stranger):
        with Subscriber(
            engine.zmq.endpoint, replay=engine.replay, start="run", keys=given
        ) as subscriber:
            assert not receives(engine, subscriber, 10)
    with Subscriber(engine.zmq.endpoint, keys=tmp_path / "alice") as subscriber:
        assert receives(engine, subscriber, 600)


def test_a_server_with_another_key_is_rejected(keys: Path, tmp_path: Path) -> None:
    make_engine_keys(tmp_path / "false")
    (tmp_path / "journal").mkdir()
    false = Engine(tmp_path / "journal", keys=tmp_path / "false")
    with Subscriber(false.zmq.endpoint, keys=tmp_path / "alice") as subscriber:
        assert not receives(false, subscriber, 10)
    false.close()


def test_only_controllers_may_send_commands(keys: Path, tmp_path: Path) -> None:
    options = control_zmq.ControlOptions(endpoint="tcp://127.0.0.1:*")
    context = BuildContext(SystemClock(), "run", keys=keys)
    server = control_zmq.plugin.build(options, context)
    server.open()

    def answer(name: str) -> dict[str, object]:
        with Control(server.endpoint, timeout=SILENCE_S, keys=tmp_path / name) as asked:
            from threading import Thread

            for _ in range(20):
                thread = Thread(
                    target=server.serve, args=(lambda r: {"ok": True}, SILENCE_S)
                )
                thread.start()
                try:
                    return asked.command("ping")
                except NeurovocalError:
                    if name == "alice":
                        raise
                finally:
                    thread.join()
        return {}

    assert answer("carol")["ok"]
    with pytest.raises(NeurovocalError):
        answer("alice")
    server.close()


def test_a_removed_client_is_rejected(
    engine: Engine, keys: Path, tmp_path: Path
) -> None:
    with BadNetwork(int(engine.zmq.endpoint.rsplit(":", 1)[1])) as network:
        with Subscriber(network.endpoint, keys=tmp_path / "alice") as subscriber:
            assert receives(engine, subscriber, 600)
        remove_client(keys, "alice")
        with Subscriber(network.endpoint, keys=tmp_path / "alice") as subscriber:
            assert not receives(engine, subscriber, 10)
        add_client(keys, "dora", "read", tmp_path / "dora")
        with Subscriber(network.endpoint, keys=tmp_path / "dora") as subscriber:
            assert receives(engine, subscriber, 600)


def test_a_client_that_starts_before_its_key_is_added_connects_later(
    engine: Engine, keys: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    add_client(keys, "dora", "read", tmp_path / "dora")
    let_in = keys / "readers" / "dora.key"
    kept = let_in.read_bytes()
    let_in.unlink()
    engine.send(5)
    with Subscriber(
        engine.zmq.endpoint, replay=engine.replay, start="run", keys=tmp_path / "dora"
    ) as subscriber:
        while not any("let these keys in" in r.getMessage() for r in caplog.records):
            assert subscriber.receive(0.1) is None
        let_in.write_bytes(kept)
        received = [subscriber.receive(PATIENCE_S) for _ in range(5)]
        assert [message.seq for message in received if message] == list(range(5))
        assert receives(engine, subscriber, 600)


def test_a_client_with_keys_of_another_engine_logs_the_reason(
    engine: Engine, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make_engine_keys(tmp_path / "other")
    add_client(tmp_path / "other", "stranger", "read", tmp_path / "stranger")
    with Subscriber(engine.zmq.endpoint, keys=tmp_path / "stranger") as subscriber:
        while not any("another engine" in r.getMessage() for r in caplog.records):
            assert subscriber.receive(0.1) is None


@pytest.mark.parametrize(
    ("shown", "said"),
    [(None, "asks for keys: 'neurovocal keys add'"), ("alice", "does not let these")],
)
def test_a_reader_that_sends_a_command_gets_the_reason(
    keys: Path, tmp_path: Path, shown: str | None, said: str
) -> None:
    options = control_zmq.ControlOptions(endpoint="tcp://127.0.0.1:*")
    server = control_zmq.plugin.build(
        options, BuildContext(SystemClock(), "run", keys=keys)
    )
    server.open()
    given = None if shown is None else tmp_path / shown
    try:
        with (
            Control(server.endpoint, timeout=PATIENCE_S, keys=given) as asking,
            pytest.raises(NeurovocalError, match=said),
        ):
            asking.command("stop")
    finally:
        server.close()


def test_a_relay_with_the_wrong_folder_of_keys_ends_with_an_error(keys: Path) -> None:
    done = neurovocal(
        "relay",
        "--from",
        "tcp://127.0.0.1:9",
        "--to",
        "tcp://127.0.0.1:*",
        "--station-keys",
        keys,
    )
    assert (done.code, done.err.count("client.key_secret")) == (1, 1)


def test_a_relay_has_keys_on_both_sides(
    engine: Engine, keys: Path, tmp_path: Path
) -> None:
    with relaying(
        [engine], replay=True, keys=keys, station_keys=tmp_path / "alice"
    ) as relay:
        with Subscriber(relay.endpoint, keys=tmp_path / "carol") as subscriber:
            assert receives(engine, subscriber, 600)
        with Subscriber(relay.endpoint) as subscriber:
            assert not receives(engine, subscriber, 10)


def test_connections_with_an_unfinished_handshake_block_no_client(
    engine: Engine, tmp_path: Path
) -> None:
    port = int(engine.zmq.endpoint.rsplit(":", 1)[1])
    greeting = b"\xff\0\0\0\0\0\0\0\x01\x7f\x03\x01CURVE" + b"\0" * 15
    slow = []
    for number in range(40):
        one = socket.create_connection(("127.0.0.1", port))
        one.sendall((b"", b"\xff", greeting, b"GET / HTTP/1.1\r\n\r\n")[number % 4])
        slow.append(one)
    with Subscriber(engine.zmq.endpoint, keys=tmp_path / "alice") as subscriber:
        assert receives(engine, subscriber, 600)
    for one in slow:
        one.close()


def test_secret_keys_are_readable_by_one_user_only(keys: Path, tmp_path: Path) -> None:
    for path in (keys / "server.key_secret", tmp_path / "alice" / "client.key_secret"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(keys.stat().st_mode) == 0o700
    os.chmod(keys / "server.key_secret", 0o644)
    (problem,) = key_problems(keys)
    assert "others may read the secret key" in problem
    os.chmod(tmp_path / "alice" / "client.key_secret", 0o640)
    with (
        pytest.raises(ConfigError, match="others may read"),
        Subscriber("tcp://127.0.0.1:1", keys=tmp_path / "alice"),
    ):
        pass


def test_the_command_creates_lists_and_removes_keys(tmp_path: Path) -> None:
    def keys_command(*arguments: object) -> str:
        done = neurovocal("keys", *arguments, cwd=tmp_path)
        assert done.code == 0, done.err
        return done.out

    assert "keys: " in keys_command("new", "e")
    keys_command("add", "e", "alice")
    keys_command("add", "e", "carol", "--control", "--out", "c")
    assert keys_command("list", "e") == "alice\tlisten\ncarol\tlisten, steer\n"
    assert clients(tmp_path / "e") == [("alice", "read"), ("carol", "control")]
    assert len(allowed_keys(tmp_path / "e", "read")) == 2
    assert len(allowed_keys(tmp_path / "e", "control")) == 1
    done = neurovocal("keys", "add", "e", "alice", cwd=tmp_path)
    assert (done.code, "knows a client 'alice' already" in done.err) == (1, True)


def test_errors_of_the_command_change_no_key(keys: Path, tmp_path: Path) -> None:
    before = (keys / "server.key_secret").read_bytes()
    with pytest.raises(ConfigError, match="holds keys already"):
        make_engine_keys(keys)
    assert (keys / "server.key_secret").read_bytes() == before
    for engine, name, out, sentence in (
        (keys, "alice", "x", "knows a client 'alice' already"),
        (keys, "bob", "alice", "holds keys already"),
        (keys, "../../bob", "x", "is no name"),
        (tmp_path / "nowhere", "bob", "x", "holds no keys of an engine"),
    ):
        with pytest.raises(ConfigError, match=sentence):
            add_client(engine, name, "read", tmp_path / out)
    with pytest.raises(ConfigError, match="it knows: alice, carol"):
        remove_client(keys, "bob")


def test_folders_with_other_files_take_no_keys(keys: Path, tmp_path: Path) -> None:
    songs = tmp_path / "songs"
    songs.mkdir(mode=0o755)
    (songs / "a.wav").write_bytes(b"RIFF")
    with pytest.raises(ConfigError, match=r"holds other files \(a.wav\)"):
        make_engine_keys(songs)
    for folder in (songs, keys):
        with pytest.raises(ConfigError, match="holds other files: name a new folder"):
            add_client(keys, "bob", "read", folder)
    assert songs.stat().st_mode & 0o777 == 0o755
    assert [path.name for path in songs.iterdir()] == ["a.wav"]


def test_keys_are_checked_before_a_socket_is_bound(keys: Path, tmp_path: Path) -> None:
    def problems(line: str) -> list[str]:
        text = f"""
version: 1
{line}
source: {{plugin: synthetic}}
sinks:
  - {{plugin: zmq, options: {{endpoint: "tcp://*:5999"}}}}
"""
        located = parse_located(text, str(tmp_path / "c.yaml"))
        try:
            plan_of(located)
        except ConfigError as error:
            return str(error).split("\n")
        return []

    assert problems(f"keys: {keys}") == []
    (missing,) = problems("keys: nothing")
    assert "c.yaml:3: keys: there is no key" in missing
    (open_to_all,) = problems("")
    assert "neurovocal keys new" in open_to_all


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")
def test_keys_of_another_user_are_rejected_in_a_sentence(keys: Path) -> None:
    """Root made the keys, and the service runs as another user."""
    script = (
        "import os, sys; from pathlib import Path; import zmq.auth\n"
        "from neurovocal.engine.wire.keys import key_problems\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "print(*key_problems(Path(sys.argv[1])))"
    )
    command = [sys.executable, "-c", script, str(keys)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert f"belongs to somebody else: 'chown -R USER {keys}'" in done.stdout


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o722], ids=oct)
@pytest.mark.parametrize("inner", ["", "readers", "controllers"])
def test_keys_in_a_folder_that_others_may_write_are_refused(
    keys: Path, mode: int, inner: str
) -> None:
    keys.chmod(0o755)
    assert key_problems(keys) == []
    (keys / inner).chmod(mode)
    (problem,) = key_problems(keys)
    assert "others may write to the keys' folder" in problem
    (keys / inner).chmod(0o700)
    assert key_problems(keys) == []


def test_keys_below_a_folder_that_everybody_may_write_are_refused(keys: Path) -> None:
    parent = keys.parent
    before = parent.stat().st_mode
    try:
        parent.chmod(0o777)
        (problem,) = key_problems(keys)
        assert "everybody may replace the keys' folder" in problem
        parent.chmod(0o1777)  # as /tmp: only owners rename
        assert key_problems(keys) == []
    finally:
        parent.chmod(before)


def test_a_client_refuses_keys_that_others_may_replace(tmp_path: Path) -> None:
    make_engine_keys(tmp_path / "engine")
    add_client(tmp_path / "engine", "alice", "read", tmp_path / "alice")
    (tmp_path / "alice").chmod(0o777)
    with (
        pytest.raises(ConfigError, match="others may write"),
        Subscriber("tcp://127.0.0.1:5556", keys=tmp_path / "alice"),
    ):
        pass


@pytest.mark.parametrize(
    ("options", "is_refused"),
    [({}, True), ({"allow_remote": True}, False), ({"keyed": True}, False)],
)
def test_an_abstract_socket_needs_keys_or_leave(
    options: dict[str, bool], is_refused: bool
) -> None:
    arguments = {"allow_remote": False, **options}
    problems = list(endpoint_problems("ipc://@neurovocal", **arguments))
    assert bool(problems) == is_refused
    assert not is_refused or "every user of this machine" in problems[0]
