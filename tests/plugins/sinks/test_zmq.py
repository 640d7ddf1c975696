"""The ZeroMQ sink and the Python client, over real sockets."""

import asyncio
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zmq
from processes.waiting import PATIENCE_S, until

from neurovocal.engine.client import LostMessages, Received, Subscriber
from neurovocal.engine.contracts.clock import ManualClock, SystemClock
from neurovocal.engine.contracts.errors import ConfigError, NeurovocalError
from neurovocal.engine.contracts.plugin import BuildContext
from neurovocal.engine.contracts.registry import Registry
from neurovocal.engine.contracts.types import (
    KINDS,
    Anchor,
    Event,
    Frames,
    Label,
    Ledger,
    Message,
    Stats,
    StreamInfo,
)
from neurovocal.engine.testing import check_sink
from neurovocal.engine.wire import codec as wire
from neurovocal.plugins.sinks import zmq as sink_zmq
from neurovocal.plugins.sinks.zmq import ZmqOptions, ZmqSink, plugin
from neurovocal.plugins.zeromq.subscribers import Subscribers

PATIENCE_MS = int(PATIENCE_S * 1000)
ANY_PORT = "tcp://127.0.0.1:*"
INFO = StreamInfo("aviary/3", 32000)


def build(run: str = "run-1", **options: object) -> ZmqSink:
    checked = ZmqOptions.model_validate({"endpoint": ANY_PORT, **options})
    sink = plugin.build(checked, BuildContext(SystemClock(), run))
    assert isinstance(sink, ZmqSink)
    return sink


def message(event: Event, seq: int, info: StreamInfo = INFO) -> Message:
    clock = SystemClock()
    return Message(
        info, event, seq, 100, 5, Ledger(1.0, 2.0, 3.0), clock.monotonic_ns()
    )


def label(seq: int, info: StreamInfo = INFO) -> Message:
    return message(Label(seq, seq, seq + 9, "b", 0.5, "final", "m"), seq, info)


def frames(seq: int, n_frames: int = 8) -> Message:
    values = np.full((n_frames, 129), seq, np.float32)
    return message(Frames(seq * n_frames, 128, 256, values), seq)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        assert isinstance(port, int)
        return port


def endpoint() -> str:
    return f"tcp://127.0.0.1:{free_port()}"


@contextmanager
def opened(sink: ZmqSink) -> Iterator[ZmqSink]:
    try:
        sink.open()
        yield sink
    finally:
        sink.close()


@contextmanager
def connected(subscribers: list[Subscriber], **options: object) -> Iterator[ZmqSink]:
    """Yield a sink that has read all subscriptions of `subscribers`."""
    sink = build(
        endpoint=subscribers[0].endpoint,
        wait_for_subscribers=len(subscribers),
        **options,
    )
    for subscriber in subscribers:
        subscriber.open()
    try:
        with opened(sink):
            yield sink
    finally:
        for subscriber in subscribers:
            subscriber.close()


def take(subscriber: Subscriber, count: int) -> list[Received]:
    found = []
    for _ in range(count):
        received = subscriber.receive(timeout=PATIENCE_S)
        assert received is not None, f"only {len(found)} of {count} came"
        found.append(received)
    return found


def test_is_installed_under_its_name() -> None:
    assert Registry().get("sink", "zmq") is plugin


def test_keeps_the_contract_of_sinks() -> None:
    check_sink(build, [label(0), frames(0), message(Stats({"lag_ms": 1.0}), 0)])


def test_message_parts_at_a_plain_sub_socket() -> None:
    context = zmq.Context()
    where = endpoint()
    plain = context.socket(zmq.SUB)
    plain.subscribe("nv1/label/")
    plain.connect(where)
    with opened(build(endpoint=where, wait_for_subscribers=1)) as sink:
        sent = label(0)
        sink.write(frames(0))
        sink.write(sent)
        assert plain.poll(PATIENCE_MS)
        parts = plain.recv_multipart()
    plain.close()
    context.term()
    header, values = wire.decode(parts)
    assert parts[0] == b"nv1/label/aviary%2F3"
    assert values is None
    assert wire.to_event(header, values) == sent.event
    assert header.run == "run-1"
    assert isinstance(header.latency, wire.Latency)
    assert (header.latency.wait_ms, header.latency.compute_ms) == (1.0, 3.0)
    assert header.latency.publish_ms is not None
    assert header.latency.publish_ms > 0.0


def test_python_client_receives_typed_events_from_the_first_message() -> None:
    subscriber = Subscriber(endpoint(), ["label", "frames", "anchor"])
    with connected([subscriber]) as sink:
        for seq in range(50):
            sink.write(frames(seq))
            sink.write(label(seq))
        sink.write(message(Anchor(7, 1_700_000_000_000_000_000), 0))
        found = take(subscriber, 101)
    by_kind: dict[str, list[Received]] = {}
    for received in found:
        by_kind.setdefault(received.kind, []).append(received)
    assert [r.seq for r in by_kind["label"]] == list(range(50))
    assert [r.seq for r in by_kind["frames"]] == list(range(50))
    last = by_kind["frames"][-1].event
    assert isinstance(last, Frames)
    assert np.array_equal(last.values, np.full((8, 129), 49, np.float32))
    (anchor,) = by_kind["anchor"]
    assert anchor.event == Anchor(7, 1_700_000_000_000_000_000)
    assert anchor.utc_ns == 1_700_000_000_000_000_000
    assert {r.stream for r in found} == {"aviary/3"}
    assert subscriber.received == 101
    assert subscriber.missed == 0


def test_subscription_matches_the_complete_stream_name() -> None:
    subscriber = Subscriber(endpoint(), streams=["a"])
    with connected([subscriber]) as sink:
        for seq in range(3):
            sink.write(label(seq, StreamInfo("ab", 8000)))
            sink.write(label(seq, StreamInfo("a", 8000)))
        found = take(subscriber, 3)
        assert [(r.stream, r.seq) for r in found] == [("a", 0), ("a", 1), ("a", 2)]
        assert subscriber.receive(timeout=0.05) is None


def test_missed_messages_are_reported_with_the_next_one() -> None:
    subscriber = Subscriber(endpoint())
    with connected([subscriber]) as sink:
        for seq in (4, 5, 9):  # a late subscriber has not missed the messages before 4
            sink.write(label(seq))
        found = take(subscriber, 3)
    assert [r.missed for r in found] == [
        None,
        None,
        LostMessages("nv1/label/aviary%2F3", 6, 3),
    ]
    assert subscriber.missed == 3


def test_restarted_engine_is_detected_and_counts_from_zero() -> None:
    where = endpoint()
    with Subscriber(where) as subscriber, ThreadPoolExecutor(1) as pool:
        with opened(build("first", endpoint=where, wait_for_subscribers=1)) as sink:
            sink.write(label(6))
            take(subscriber, 1)
        # ZeroMQ subscribes again only while the socket is read: hence the thread.
        reading = pool.submit(take, subscriber, 2)
        with opened(build("second", endpoint=where, wait_for_subscribers=1)) as sink:
            sink.write(label(2))
            sink.write(label(3))
            again, after = reading.result()
    assert (again.run, again.restarted) == ("second", True)
    assert again.missed == LostMessages("nv1/label/aviary%2F3", 0, 2)
    assert not after.restarted
    assert after.missed is None


def test_subscribers_of_a_reopened_socket_get_all_queued_messages(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The engine closes and opens a failed sink, then writes all queued messages."""
    # Without subscribers it writes after a second; a busy machine may need longer.
    monkeypatch.setattr(sink_zmq, "_QUIET_POLLS", 1000)
    monkeypatch.setattr(sink_zmq, "_MOST_POLLS", 1000)
    subscriber = Subscriber(endpoint(), ["label"])
    with connected([subscriber], linger_s=5.0) as sink, ThreadPoolExecutor() as pool:
        sink.write(label(0))
        # ZeroMQ subscribes again only while the socket is read: hence the thread.
        reading = pool.submit(take, subscriber, 3)
        sink.close()
        sink.open()
        sink.write(label(1))
        sink.write(label(2))
        assert [one.seq for one in reading.result()] == [0, 1, 2]


def test_async_iteration_and_its_end() -> None:
    async def listen(subscriber: Subscriber) -> list[int]:
        found = []
        async for received in subscriber:
            found.append(received.seq)
            if len(found) == 100:
                subscriber.timeout = 0.05  # nothing more comes
        return found

    subscriber = Subscriber(endpoint(), timeout=PATIENCE_S)
    with connected([subscriber]) as sink:
        for seq in range(100):
            sink.write(label(seq))
        assert asyncio.run(listen(subscriber)) == list(range(100))


def test_async_iteration_receives_later_messages() -> None:
    async def listen(subscriber: Subscriber, sink: ZmqSink) -> int:
        asyncio.get_running_loop().call_later(0.01, sink.write, label(0))
        async for received in subscriber:
            return received.seq
        return -1

    subscriber = Subscriber(endpoint(), timeout=PATIENCE_S)
    with connected([subscriber]) as sink:
        assert asyncio.run(listen(subscriber, sink)) == 0


def test_plain_iteration_ends_at_its_timeout() -> None:
    with Subscriber(endpoint(), timeout=0.01) as subscriber:
        assert list(subscriber) == []


def test_stalled_subscriber_does_not_affect_others() -> None:
    where = endpoint()
    kinds = ["label", "frames"]
    reader, stalled = (Subscriber(where, kinds, queue_length=50) for _ in range(2))
    found: list[Received] = []
    count = 600  # of 50 kB each: more than all queues and TCP windows hold
    with connected([reader, stalled], queue_length=70) as sink:
        for seq in range(count):
            sink.write(frames(seq, n_frames=100))
            if seq % 10 == 0:
                sink.write(label(seq // 10))
                found += take(reader, 2)
            else:
                found += take(reader, 1)
        assert reader.missed == 0
        assert [r.seq for r in found if r.kind == "frames"] == list(range(count))
        assert [r.seq for r in found if r.kind == "label"] == list(range(60))

        # It wakes up: no label is lost, and every lost frame is accounted for.
        late: list[Received] = []
        while not any(r.kind == "frames" and r.seq >= count for r in late):
            sink.write(frames(count + len(late), n_frames=100))
            late += take(stalled, 1)
    assert [r.seq for r in late if r.kind == "label"] == list(range(60))
    heard = [r for r in late if r.kind == "frames"]
    assert stalled.missed > 0
    assert len(heard) + stalled.missed == heard[-1].seq + 1


def test_a_stalled_subscriber_keeps_a_stopped_sink_open_for_a_while_at_most() -> None:
    stalled = Subscriber(endpoint(), ["frames"], queue_length=1)
    with connected([stalled], queue_length=1000, linger_s=3600) as sink:
        for seq in range(600):
            sink.write(frames(seq, n_frames=100))
        sink.limit_close(0.05)


def test_open_waits_for_the_configured_number_of_subscribers(
    background: Callable[..., Any],
) -> None:
    clock = ManualClock()
    options = ZmqOptions(endpoint=endpoint(), wait_for_subscribers=2)
    sink = plugin.build(options, BuildContext(clock, "run-1"))
    assert isinstance(sink, ZmqSink)
    with Subscriber(options.endpoint, ["label", "frames"]):
        opened = background(sink.open)
        until(lambda: sink.stats()["subscribers"] == 1)
        clock.advance(options.wait_timeout_s)
        with pytest.raises(NeurovocalError, match="only 1 of 2 subscribers came"):
            opened()
        sink.close()


def test_stats_count_connecting_and_leaving_subscribers() -> None:
    where = endpoint()
    staying, leaving = Subscriber(where), Subscriber(where, ["label", "frames"])
    with connected([staying, leaving]) as sink:
        assert sink.stats()["subscribers"] == 2
        leaving.close()

        def one_is_left() -> bool:
            sink.flush(0.0)
            return sink.stats()["subscribers"] == 1

        until(one_is_left)  # the other side sees the closing later


def test_messages_from_a_subscriber_are_ignored() -> None:
    context = zmq.Context()
    where = endpoint()
    peer = context.socket(zmq.XSUB)
    peer.connect(where)
    for text in (b"", b"\1", b"\0nv1/never", b"\2x", b"\1nv1~ready/a/b/c", b"x" * 9):
        peer.send(text)
    with opened(build(endpoint=where, wait_for_subscribers=1)) as sink:
        sink.write(label(0))
        assert peer.poll(PATIENCE_MS)
    peer.close(linger=0)
    context.term()


def test_port_in_use_raises_a_clear_error() -> None:
    with opened(build()) as sink:
        other = build(endpoint=sink.endpoint)
        with pytest.raises(ConfigError, match=r"address in use: another run\?"):
            other.open()
        other.close()


def test_ipc_path_in_use_is_not_replaced(tmp_path: Path) -> None:
    where = f"ipc://{tmp_path}/events"
    other = build(endpoint=where)
    with opened(build(endpoint=where)), pytest.raises(ConfigError, match="in use"):
        other.open()
    # A socket file that no process listens at is replaced.
    with opened(build(endpoint=where)) as sink:
        assert sink.endpoint == where


@pytest.mark.parametrize(
    ("where", "sentence"),
    [
        ("tcp://0.0.0.0:5556", "allow_remote"),
        ("tcp://*:5556", "allow_remote"),
        ("tcp://eth0:5556", "allow_remote"),
        ("tcp://192.168.1.5:5556", "allow_remote"),
        ("tcp://[::]:5556", "allow_remote"),
        ("tcp://127.0.0.1:70000", "65535"),
        ("tcp://127.0.0.1", "HOST:PORT"),
        ("udp://127.0.0.1:1", "tcp://HOST:PORT"),
        ("127.0.0.1:5556", "tcp://HOST:PORT"),
        ("ipc://", "needs a path"),
        ("ipc:///no/such/folder/x", "does not exist"),
        ("ipc:///" + "x" * 200, "107 at most"),
    ],
)
def test_malformed_and_open_endpoints_are_refused(where: str, sentence: str) -> None:
    options = ZmqOptions(endpoint=where)
    (problem,) = plugin.check(options, BuildContext(SystemClock(), "run"))
    assert sentence in problem
    with pytest.raises(ConfigError, match=sentence):
        build(endpoint=where).open()


def test_allow_remote_permits_other_machines() -> None:
    with opened(build(endpoint="tcp://0.0.0.0:*", allow_remote=True)) as sink:
        assert sink.endpoint.startswith("tcp://0.0.0.0:")


def test_two_stages_with_one_port_are_refused() -> None:
    def claims(where: str) -> frozenset[str]:
        return plugin.resources(ZmqOptions(endpoint=where))

    assert claims("tcp://127.0.0.1:5556") == {"tcp:5556"}
    assert claims("tcp://localhost:5556") == {"tcp:5556"}
    assert claims("tcp://127.0.0.1:*") == frozenset()
    assert claims("ipc:///tmp/x") == {"file:/tmp/x"}


def test_every_kind_but_audio_is_published_by_default() -> None:
    assert ZmqSink.wants == set(KINDS.values()) - {"block", "trace"}


def test_bulky_messages_are_encoded_while_someone_subscribes_to_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    encoded: list[str] = []

    def encode(message: Message, *rest: Any) -> Any:
        encoded.append(message.kind)
        return wire.encode(message, *rest)

    monkeypatch.setattr(sink_zmq, "encode", encode)
    sink = build()
    sink.open()
    try:
        sink.write(label(0))
        sink.write(frames(0))
        assert encoded == ["label"]
        with Subscriber(sink.endpoint, ["frames"]) as subscriber:
            until(lambda: (sink.flush(0.0), sink.stats()["subscribers"] == 1)[1])
            for seq in (1, 2):
                sink.write(frames(seq))
            received = [subscriber.receive(PATIENCE_S) for _ in range(2)]
            assert [each.seq for each in received if each] == [1, 2]
        until(lambda: (sink.flush(0.0), sink.stats()["subscriptions"] == 0)[1])
        sink.write(frames(3))
        assert encoded == ["label", "frames", "frames"]
    finally:
        sink.close()


@pytest.mark.parametrize(
    ("subscription", "is_wanted"),
    [
        (b"", True),
        (b"nv1/", True),
        (b"nv1/frames/a", True),
        (b"nv1/frames/ab", False),
        (b"nv1/label/", False),
    ],
)
def test_a_topic_is_wanted_that_begins_with_a_subscription(
    subscription: bytes, is_wanted: bool
) -> None:
    subscribers = Subscribers()
    topic = b"nv1/frames/a"
    assert not subscribers.want(topic)
    for _ in range(2):
        subscribers.count(zmq.Frame(b"\1" + subscription))
    assert subscribers.want(topic) is is_wanted
    subscribers.count(zmq.Frame(b"\0" + subscription))
    assert subscribers.want(topic) is is_wanted
    subscribers.count(zmq.Frame(b"\0" + subscription))
    assert not subscribers.want(topic)


def test_more_topics_than_are_told_apart_are_all_wanted() -> None:
    subscribers = Subscribers()
    for number in range(10_001):
        subscribers.count(zmq.Frame(b"\1nv1/label/%d" % number))
    assert subscribers.want(b"nv1/frames/a")
