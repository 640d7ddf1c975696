"""``neurovocal listen`` and errors of `Subscriber`, over real sockets."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import zmq
from processes.waiting import PATIENCE_S, PROCESS_S, until

from neurovocal.engine.client import Subscriber
from neurovocal.engine.contracts.clock import SystemClock
from neurovocal.engine.contracts.errors import ConfigError, NeurovocalError
from neurovocal.engine.contracts.plugin import BuildContext
from neurovocal.engine.contracts.types import (
    Event,
    Frames,
    Gap,
    Health,
    Label,
    Ledger,
    Message,
    Offset,
    Onset,
    Stats,
    StreamInfo,
)
from neurovocal.engine.wire.codec import encode
from neurovocal.plugins.sinks.zmq import ZmqOptions, ZmqSink, plugin

INFO = StreamInfo("aviary-3", 1000)
NEUROVOCAL = Path(sys.executable).with_name("neurovocal")
EVENTS: list[Event] = [
    Onset(0, 1500, 4.25),
    Label(0, 1500, None, "a", 0.5, "provisional", "m"),
    Label(0, 1500, 1550, "b\x1b[31m", 0.98, "final", "m"),
    Offset(0, 1500, 1550, truncated=True),
    Gap(2000, 2500, "overrun"),
    Health("source", "lossy", "500 samples lost"),
    Stats({"lag_ms": 1.5}),
    Frames(3, 128, 256, np.ones((2, 3), np.float32)),
]


def sink_at(endpoint: str, subscribers: int) -> ZmqSink:
    options = ZmqOptions(endpoint=endpoint, wait_for_subscribers=subscribers)
    sink = plugin.build(options, BuildContext(SystemClock(), "run-1"))
    assert isinstance(sink, ZmqSink)
    return sink


@contextmanager
def listening(endpoint: str, *options: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [NEUROVOCAL, "listen", endpoint, *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def listen_to(
    folder: Path, messages: Sequence[Message], *options: str
) -> tuple[list[str], str]:
    """Return the lines on stdout, and stderr, of ``neurovocal listen``."""
    endpoint = f"ipc://{folder}/events"
    with listening(endpoint, *options, "--count", str(len(messages))) as process:
        sink = sink_at(endpoint, 1)
        sink.open()
        for message in messages:
            sink.write(message)
        out, err = process.communicate(timeout=PROCESS_S)
        sink.close()
        assert process.returncode == 0, err
    return out.splitlines(), err


def light(**fields: object) -> list[Message]:
    return [
        Message(INFO, event, 0 if i else 7, 1600, **fields)  # type: ignore[arg-type]
        for i, event in enumerate(EVENTS[:-1])
        if not isinstance(event, Label) or event.offset
    ]


def test_listen_prints_a_line_per_message(tmp_path: Path) -> None:
    lines, _ = listen_to(
        tmp_path,
        light(utc_ns=1_700_000_000_123_456_789, ledger=Ledger(1.0, 2.0, 3.5)),
        "--kinds=onset,label,offset,gap,health,stats",
    )
    onset, label, offset, gap, health, stats = lines
    assert onset.split()[:4] == ["22:13:20.123", "6.5", "onset", "aviary-3"]
    assert "score 4.25" in onset
    assert r"b\x1b[31m" in label  # no escape sequence reaches the terminal
    assert "0.98 final" in label
    assert "50.0 ms, truncated" in offset
    assert "500.0 ms missing: overrun" in gap
    assert "source lossy: 500 samples lost" in health
    assert '{"lag_ms":1.5}' in stats


def test_listen_prints_seconds_without_utc(tmp_path: Path) -> None:
    messages = [Message(INFO, EVENTS[1], 0, 1600)]
    (line,), _ = listen_to(tmp_path, messages)
    assert line.split()[:4] == ["1.500", "label", "aviary-3", "a"]
    assert line.endswith("goes on")


def test_listen_prints_json_lines(tmp_path: Path) -> None:
    messages = [Message(INFO, EVENTS[-1], seq, 0) for seq in (0, 1, 4)]
    lines, err = listen_to(tmp_path, messages, "--kinds=frames", "--json", "--values")
    headers = [json.loads(line) for line in lines]
    assert [header["seq"] for header in headers] == [0, 1, 4]
    assert [header.get("missed") for header in headers] == [None, None, 2]
    assert headers[0]["kind"] == "frames"
    assert headers[0]["shape"] == [2, 3]
    assert headers[0]["values"] == [[1.0] * 3] * 2
    assert "2 messages of 'nv1/frames/aviary-3' were missed, 2 in all so far" in err


def test_listen_ends_cleanly_on_ctrl_c_without_messages(tmp_path: Path) -> None:
    with listening(f"ipc://{tmp_path}/absent") as process:
        assert process.stderr is not None
        assert "yet, waiting" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=PROCESS_S)
    assert (process.returncode, out, err) == (0, "", "")


def test_listen_reports_lost_messages(tmp_path: Path) -> None:
    options = ["--count=2", "--timeout=0.01"]
    with listening(f"ipc://{tmp_path}/absent", *options) as process:
        out, err = process.communicate(timeout=PROCESS_S)
    assert (process.returncode, out) == (2, "")
    assert err.startswith("error: only 0 of 2 messages came")
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize("endpoint", ["nonsense", "tcp://", "tcp://:x", "foo://bar"])
def test_a_malformed_endpoint_is_an_error_of_one_sentence(endpoint: str) -> None:
    with listening(endpoint) as process:
        out, err = process.communicate(timeout=PROCESS_S)
    assert (process.returncode, out) == (1, "")
    assert err.startswith(f"error: endpoint '{endpoint}'")
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize("kinds", [["labels"], [], ["label", "sound"]])
def test_unknown_kinds_are_rejected(kinds: list[str]) -> None:
    with pytest.raises(ConfigError, match="the kinds are block, gap"):
        Subscriber("tcp://127.0.0.1:5556", kinds)


def test_one_kind_may_be_given_as_a_string() -> None:
    assert Subscriber("tcp://127.0.0.1:5556", "label").kinds == {"label"}


def test_receive_on_a_closed_subscriber_raises(tmp_path: Path) -> None:
    subscriber = Subscriber(f"ipc://{tmp_path}/x")
    with pytest.raises(NeurovocalError, match="not open"):
        subscriber.receive(0.0)
    with subscriber:
        pass
    subscriber.close()
    with pytest.raises(NeurovocalError, match="not open"):
        subscriber.receive(0.0)


def test_an_invalid_message_does_not_end_the_subscriber(
    tmp_path: Path,
) -> None:
    endpoint = f"ipc://{tmp_path}/events"
    context = zmq.Context()
    other = context.socket(zmq.XPUB)
    other.bind(endpoint)
    with Subscriber(endpoint) as subscriber:
        assert other.poll(20_000)
        other.send_multipart([b"nv1/label/x", b"\x80\x04pickle", b""])
        other.send_multipart([b"nv1/label/x"])
        parts = encode(
            Message(
                StreamInfo("x", 32000), Label(0, 0, 9, "a", 0.5, "final", "m"), 0, 9
            ),
            "run",
            None,
        )
        other.send_multipart(parts)
        received = subscriber.receive(timeout=PATIENCE_S)
        assert received is not None
        assert received.stream == "x"
        assert subscriber.malformed == 2
    other.close(linger=0)
    context.term()


def test_a_single_stream_name_and_an_unknown_start() -> None:
    where = "tcp://127.0.0.1:9"
    assert Subscriber(where, streams="aviary").streams == {"aviary"}
    with pytest.raises(ConfigError, match="start 'begin' is none of now, run, journal"):
        Subscriber(where, replay=where, start="begin")  # type: ignore[arg-type]


@pytest.mark.parametrize("logs", [True, False])
def test_a_replay_socket_that_is_silent_is_logged_unless_unwanted(
    monkeypatch, caplog, logs
):
    monkeypatch.setattr("neurovocal.engine.client.replay._REPLY_TIMEOUT_S", 0.0)
    with zmq.Context() as context, context.socket(zmq.ROUTER) as silent:
        silent.linger = 0
        port = silent.bind_to_random_port("tcp://127.0.0.1")
        with Subscriber(
            "tcp://127.0.0.1:9",
            replay=f"tcp://127.0.0.1:{port}",
            start="journal",
            log_silence=logs,
        ) as subscriber:
            until(lambda: subscriber.receive(0.01) or subscriber.replay_problem)
            assert "does not answer" in subscriber.replay_problem
    assert [r.message for r in caplog.records] == [subscriber.replay_problem] * logs
