"""Endpoints that cannot be, some of which ZeroMQ would take, are refused."""

from pathlib import Path

import pytest

from neurovocal.engine.support.endpoints import (
    Address,
    endpoint_problem,
    parse_address,
    parse_tcp,
)

# Clause of the sentence; for sockets that are bound and those that are connected.
ABSURD = [
    ("", "is neither"),
    ("5556", "is neither"),
    ("udp://127.0.0.1:5556", "is neither"),
    ("TCP://127.0.0.1:5556", "did you mean tcp://127.0.0.1:5556?"),
    ("tcp:/127.0.0.1:5556/", "did you mean tcp://127.0.0.1:5556?"),
    (" tcp://[::1]:5556 ", "did you mean tcp://[::1]:5556?"),
    ("IPC:///tmp/no-socket", "did you mean ipc:///tmp/no-socket?"),
    ("http://127.0.0.1:5556", "is neither"),
    ("ipc:///tmp/a\0b", "a character that no endpoint has"),
    ("ipc:///tmp/a\nb", "a character that no endpoint has"),
    ("ipc:///tmp/caf\udce9", "a character that no endpoint has"),
    ("tcp://127.0.0.1:55\0", "a character that no endpoint has"),
    ("localhost:5556", "did you mean tcp://localhost:5556?"),
    ("tcp://", "it has no port"),
    ("tcp://127.0.0.1", "it has no port"),
    ("tcp://:5556", "it names no host"),
    ("tcp://[]:5556", "it names no host"),
    ("tcp://127.0.0.1:", "is no number from 1 to 65535"),
    ("tcp://127.0.0.1:-1", "is no number from 1 to 65535"),
    ("tcp://127.0.0.1:5x", "is no number from 1 to 65535"),
    ("tcp://127.0.0.1:\u0665", "is no number from 1 to 65535"),
    ("tcp://127.0.0.1: 55", "is no number from 1 to 65535"),
    ("tcp://127.0.0.1:65536", "no port above 65535"),
    ("tcp://127.0.0.1:99999999", "no port above 65535"),
    ("tcp://127.0.0.1:" + "9" * 5000, "no port above 65535"),
    ("tcp://::1:5556", "in brackets"),
    ("tcp://[::1:5556", "in brackets"),
    ("tcp://[::1]5556", "in brackets"),
    ("tcp://[::g]:5556", "no IPv6 address"),
    ("tcp://[127.0.0.1]:5556", "no IPv6 address"),
    ("tcp://256.0.0.1:5556", "no IPv4 address"),
    ("tcp://1.2.3:5556", "no IPv4 address"),
    ("tcp:// 127.0.0.1:5556", "no name of a host"),
    ("tcp://a b:5556", "no name of a host"),
    ("tcp://a..b:5556", "no name of a host"),
    ("tcp://a/b:5556", "no name of a host"),
    ("tcp://\x1bcred:5556", "a character that no endpoint has"),
    ("tcp://" + "a" * 5000 + ":5556", "no name of a host"),
    ("ipc://", "it needs a path"),
    ("ipc://@", "it needs a path"),
    ("ipc:///" + "x" * 200, "107 at most"),
]


@pytest.mark.parametrize("binds", [True, False])
@pytest.mark.parametrize(("endpoint", "clause"), ABSURD)
def test_an_endpoint_that_cannot_be(endpoint: str, clause: str, binds: bool) -> None:
    sentence = endpoint_problem(endpoint, binds=binds, example="tcp://127.0.0.1:5556")
    assert sentence is not None
    assert clause in sentence
    assert sentence.isprintable()
    assert len(sentence) < 300


@pytest.mark.parametrize("end", ["*:5556", "127.0.0.1:*", "127.0.0.1:0", "a:000"])
def test_what_can_be_bound_but_not_connected(end: str) -> None:
    def problem(binds: bool) -> str | None:
        return endpoint_problem(f"tcp://{end}", binds=binds, example="tcp://a:1")

    assert problem(binds=True) is None
    assert problem(binds=False) is not None


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:1", Address("127.0.0.1", 1)),
        ("localhost:65535", Address("localhost", 65535)),
        ("[::1]:5556", Address("::1", 5556)),
        ("[fe80::1%eth0]:5556", Address("fe80::1%eth0", 5556)),
        ("aviary-3.lan:5556", Address("aviary-3.lan", 5556)),
        ("eth0:*", Address("eth0", 0)),
    ],
)
def test_addresses(text: str, address: Address) -> None:
    assert parse_address(text, binds=True) == address
    assert parse_tcp(f"tcp://{text}") == address


def test_a_file_is_no_socket_and_is_not_bound_over(tmp_path: Path) -> None:
    song = tmp_path / "song.wav"
    song.write_bytes(b"RIFF")
    for path in (song, tmp_path):
        for binds in (True, False):
            sentence = endpoint_problem(f"ipc://{path}", binds=binds, example="-")
            assert "exists and is no socket" in str(sentence)
    new = f"ipc://{tmp_path / 'new'}"
    assert endpoint_problem(new, binds=True, example="-") is None
    absent = f"ipc://{tmp_path / 'no' / 'new'}"
    assert "does not exist" in str(endpoint_problem(absent, binds=True, example="-"))
    assert endpoint_problem(absent, binds=False, example="-") is None, "not yet"
