"""Fair queue of the replay socket: rates, turns and bounds of connections."""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Event as Flag
from threading import Thread

import numpy as np
import pytest
import zmq
from hypothesis import given, settings
from hypothesis import strategies as st
from network.publishers import INFO, Engine
from network.relays import relaying
from processes.waiting import PATIENCE_S

from neurovocal.engine.client import Subscriber
from neurovocal.engine.contracts.types import Frames, Message
from neurovocal.engine.journal.pages import page_after, topics
from neurovocal.engine.journal.store import open_journal
from neurovocal.engine.support.process import process_usage
from neurovocal.plugins.zeromq import fair_queue
from neurovocal.plugins.zeromq.fair_queue import MOST_WAITING, FairQueue, Rate

PAGE = json.dumps(
    {"v": 1, "command": "replay", "kind": "frames", "stream": INFO.stream}
).encode()
TOPICS = b'{"v":1,"id":1,"command":"topics","kinds":["label"]}'


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    """Two sinks, its journal with 2 MB of frames (one page) and 600 labels."""
    engine = Engine(tmp_path, replay_mb_s=2, replay_requests_s=100)
    values = np.zeros((400, 160), np.float32)
    for seq in range(8):
        event = Frames(400 * seq, 64, 256, values)
        engine.journal.write(Message(INFO, event, seq, 64 * 400 * (seq + 1)))
    engine.send(600, only_record=True)
    yield engine
    engine.close()


@contextmanager
def dealer(endpoint: str, *, reads: bool = True) -> Iterator["zmq.Socket[bytes]"]:
    with zmq.Context() as context, context.socket(zmq.DEALER) as connection:
        connection.setsockopt(zmq.LINGER, 0)
        if not reads:
            connection.setsockopt(zmq.RCVHWM, 1)
            connection.setsockopt(zmq.RCVBUF, 4096)
        connection.connect(endpoint)
        yield connection


def flood(connection: "zmq.Socket[bytes]", done: Flag) -> None:
    """Send requests for pages as fast as possible, and read the answers."""
    while not done.is_set():
        for _ in range(50):
            if connection.poll(0, zmq.POLLOUT):
                connection.send(PAGE, zmq.DONTWAIT)
        while connection.poll(5):
            connection.recv_multipart(copy=False)


@contextmanager
def floods(endpoint: str, number: int) -> Iterator[None]:
    done = Flag()
    with ExitStack() as stack:
        threads = [
            Thread(target=flood, args=(stack.enter_context(dealer(endpoint)), done))
            for _ in range(number)
        ]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            done.set()
            for thread in threads:
                thread.join(PATIENCE_S)


def receives_all(endpoint: str, replay: str, number: int) -> None:
    with Subscriber(endpoint, replay=replay, start="run") as subscriber:
        messages = [subscriber.receive(PATIENCE_S) for _ in range(number)]
    assert [one.seq for one in messages if one] == list(range(number))
    assert subscriber.missed == 0


def is_balanced(counts: fair_queue.RequestCounts) -> bool:
    handled = counts.answered + counts.refused + counts.gone
    return counts.asked == handled + counts.waiting


def test_requests_above_the_rate_wait_and_others_are_served(engine: Engine) -> None:
    counts = engine.journal._server.counts
    with floods(engine.replay, 3):
        for _ in range(100):
            receives_all(engine.zmq.endpoint, engine.replay, 600)
            # In the end more than a thousand requests of one connection wait.
            if counts.delayed and counts.refused:
                break
    stats = engine.journal.stats()["replay"]
    assert isinstance(stats, dict)
    assert stats["delayed"] > 0
    assert stats["refused"] > 0
    engine.close()
    assert is_balanced(engine.journal._server.counts)


def test_a_relay_delays_floods_and_serves_other_connections(engine: Engine) -> None:
    with relaying([engine], replay=True) as relay:
        assert relay.replay_endpoint is not None
        with floods(relay.replay_endpoint, 2):
            assert relay._replay is not None
            for _ in range(100):
                receives_all(relay.endpoint, relay.replay_endpoint, 600)
                if relay._replay.counts.delayed:
                    break
        assert relay._replay.counts.delayed > 0


def test_connections_that_never_read_are_cut_and_memory_is_bounded(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fair_queue, "_MOST_UNREAD_BYTES_IN_ALL", 16 * 2**20)
    before_mb = process_usage().rss_mb
    with ExitStack() as stack:
        for _ in range(20):
            stalled = stack.enter_context(dealer(engine.replay, reads=False))
            for _ in range(200):
                stalled.send(PAGE)
        server = engine.journal._server
        polling = stack.enter_context(dealer(engine.replay))
        polling.setsockopt(zmq.RCVTIMEO, round(PATIENCE_S * 1000))
        # Each of them would hold 2 MB: the first ones are cut.
        for _ in range(2000):
            polling.send(TOPICS)
            assert json.loads(polling.recv())["ok"]
            if server.counts.cut >= 8 and server._access.limits.cut >= 8:
                break
        assert server._access.limits.cut >= 8
        receives_all(engine.zmq.endpoint, engine.replay, 600)
        assert process_usage().rss_mb - before_mb < 150
    engine.close()
    assert is_balanced(server.counts)


def test_a_slow_reader_receives_all_answers_and_is_not_cut(engine: Engine) -> None:
    with dealer(engine.replay, reads=False) as slow:
        for _ in range(6):
            slow.send(PAGE)
        receives_all(engine.zmq.endpoint, engine.replay, 600)
        for _ in range(6):
            assert slow.poll(PATIENCE_S * 1000)
            assert len(slow.recv_multipart()) > 3
    assert engine.journal._server.counts.cut == 0


def test_cost_of_a_request_does_not_grow_with_the_journal(tmp_path: Path) -> None:
    def steps(number: int) -> list[int]:
        path = tmp_path / f"{number}.sqlite"
        connection = open_journal(path)
        connection.execute("BEGIN")
        for run in ("old", "new"):
            connection.execute(
                "INSERT INTO runs (run, started_utc_ns, version, config) "
                "VALUES (?, 0, '', '')",
                (run,),
            )
            connection.executemany(
                "INSERT INTO messages VALUES (?, ?, 'a', ?, 0, 0, '', NULL, '')",
                ((run, kind, n) for n in range(number) for kind in ("label", "gap")),
            )
        connection.execute("COMMIT")
        return [_steps(connection, question) for question in range(4)]

    for short, long in zip(steps(300), steps(30_000), strict=True):
        assert long <= short + 50


def _steps(connection: sqlite3.Connection, question: int) -> int:
    """Return the number of SQLite instructions that a request takes."""
    count = 0

    def step() -> None:
        nonlocal count
        count += 1

    connection.set_progress_handler(step, 1)
    if question == 0:
        assert topics(connection, ["label", "gap"]) == [("label", "a"), ("gap", "a")]
    else:
        after = [None, ("new", 10**9), ("new", -1)][question - 1]
        found = page_after(
            connection,
            ("label", "b" if question == 1 else "c" if question == 3 else "a"),
            after,
            newest_run=True,
            most=1,
            most_bytes=1,
        )
        assert found == ([], False)
    connection.set_progress_handler(None, 0)
    return count


class Answer:
    """Delivery of an answer that is read when `done` is set."""

    done = False


@given(
    asks=st.lists(
        st.tuples(st.integers(0, 3), st.integers(0, 40), st.floats(0, 0.5)),
        max_size=60,
    )
)
@settings(deadline=None)
def test_every_request_is_answered_within_the_rate_of_its_connection(
    asks: list[tuple[int, int, float]],
) -> None:
    queue, now_s = FairQueue(Rate(requests=10, bytes=1e6)), 0.0
    spent = dict.fromkeys(range(4), 0.0)
    for name, number, pause_s in asks:
        for _ in range(number):
            queue.put([bytes([name]), b"q"], None, now_s)
        while (request := queue.next(now_s)) is not None:
            queue.done(request, 50_000, now_s)
            connection = request.connection.name[0]
            spent[connection] += 0.15
            assert spent[connection] <= now_s + 2.0 + 0.15 + 1e-6
        now_s += pause_s
        assert is_balanced(queue.counts)
    for _ in range(10_000):
        now_s += 0.15
        while (request := queue.next(now_s)) is not None:
            queue.done(request, 50_000, now_s)
        if not queue.counts.waiting:
            break
    assert queue.counts.answered == queue.counts.asked
    now_s += 10
    assert queue.next(now_s) is None
    assert not queue._connections


def test_a_connection_with_one_request_does_not_wait_for_long_queues() -> None:
    queue = FairQueue(Rate(requests=1e6, bytes=1e9))
    for name in (b"greedy", b"greedier"):
        for _ in range(500):
            queue.put([name, b"q"], None, 0.0)
    served = []
    for number in range(100):
        if number in (50, 55):
            queue.put([b"modest", b"q"], None, 0.0)
        request = queue.next(0.0)
        assert request is not None
        queue.done(request, 1000, 0.0)
        served.append(request.connection.name)
    assert served.count(b"modest") == 2
    assert b"modest" in served[50:53]
    assert b"modest" in served[55:58]
    assert abs(served.count(b"greedy") - served.count(b"greedier")) <= 1


def test_a_connection_over_its_rate_costs_the_next_request_no_search() -> None:
    queue = FairQueue(Rate(requests=1, bytes=1e9))
    for number in range(1000):
        for _ in range(4):
            queue.put([b"%d" % number, b"q"], None, 0.0)
    while (request := queue.next(0.0)) is not None:
        queue.done(request, 0, 0.0)
    assert len(queue._passed_over) == 1000  # all have used up their burst
    for _ in range(5):
        queue.put([b"modest", b"q"], None, 0.0)
        request = queue.next(0.0)
        assert request is not None
        assert request.connection.name == b"modest"
        assert len(queue._passed_over) == 1000
        queue.failed(request, ended=False)


def test_queues_are_bounded_and_a_connection_without_requests_is_accepted() -> None:
    queue = FairQueue(Rate(10, 1e6))
    accepted = [queue.put([b"a", b"q"], None, 0.0) for _ in range(MOST_WAITING + 5)]
    assert accepted.count(False) == queue.counts.refused == 5
    # 16 KB each: some thousand of them in all.
    accepted = [
        queue.put([b"b%d" % (number % 100), b"q" * 16_000], None, 0.0)
        for number in range(3000)
    ]
    assert 500 < accepted.count(True) < 1100
    assert queue.put([b"modest", b"q" * 16_000], None, 0.0)
    assert not queue.put([b"strange", *[b""] * 50], None, 0.0)
    assert is_balanced(queue.counts)


def test_names_of_connections_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fair_queue, "_MOST_CONNECTIONS", 10)
    queue = FairQueue(Rate(10, 1e6))
    accepted = [queue.put([b"%d" % n, b"q"], None, 0.0) for n in range(20)]
    assert accepted == [True] * 10 + [False] * 10
    while (request := queue.next(0.0)) is not None:
        queue.failed(request, ended=True)
    assert queue.next(10.0) is None  # those that have ended are forgotten
    assert queue.put([b"late", b"q"], None, 10.0)
    assert is_balanced(queue.counts)


def test_connections_that_read_nothing_wait_and_the_oldest_are_cut() -> None:
    queue, answers = FairQueue(Rate(1e6, 1e12)), []
    names = [b"%d" % number for number in range(40)]
    for name in names:
        for _ in range(3):
            queue.put([name, b"q"], 7, 0.0)
    now_s = 0.0
    while (request := queue.next(now_s)) is not None:
        now_s += 0.01
        answers.append(Answer())
        queue.done(request, 2 * 2**20, now_s, answers[-1])
    assert len(answers) == 40
    cut = list(queue.connections_to_cut())
    assert [connection.name for connection in cut] == names[:8]
    assert list(queue.connections_to_cut()) == []
    assert queue.counts.cut == 8
    for answer in answers:
        answer.done = True
    assert queue.next(now_s + 0.01) is not None
