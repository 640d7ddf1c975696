"""Greedy askers at the replay socket: later for themselves, never for the others."""

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

from neurovocal.engine.client import Subscriber
from neurovocal.engine.contracts.types import Frames, Message
from neurovocal.engine.journal.pages import page_after, topics
from neurovocal.engine.journal.store import open_journal
from neurovocal.engine.support.process import usage
from neurovocal.plugins.zeromq import fair_queue
from neurovocal.plugins.zeromq.fair_queue import MOST_WAITING, Rate, Turns

PATIENCE_S = 30.0
PAGE = json.dumps(
    {"v": 1, "command": "replay", "kind": "frames", "stream": INFO.stream}
).encode()
TOPICS = b'{"v":1,"id":1,"command":"topics","kinds":["label"]}'


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    """Its journal has 2 MB of frames, which is a page, and some labels."""
    engine = Engine(tmp_path, replay_mb_s=2, replay_requests_s=100)
    values = np.zeros((400, 160), np.float32)
    for seq in range(8):
        event = Frames(400 * seq, 64, 256, values)
        engine.journal.write(Message(INFO, event, seq, 64 * 400 * (seq + 1)))
    engine.send(600, only_keep=True)
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
    """Ask as fast as it goes, and read what comes."""
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


def hears_all(endpoint: str, replay: str, number: int) -> None:
    with Subscriber(endpoint, replay=replay, start="run") as modest:
        heard = [modest.receive(PATIENCE_S) for _ in range(number)]
    assert [one.seq for one in heard if one] == list(range(number))
    assert modest.missed == 0


def is_balanced(counts: fair_queue.TurnCounts) -> bool:
    handled = counts.answered + counts.refused + counts.gone
    return counts.asked == handled + counts.waiting


def test_the_greedy_wait_and_the_modest_are_served(engine: Engine) -> None:
    counts = engine.journal._server.counts
    with floods(engine.replay, 3):
        for _ in range(100):
            hears_all(engine.zmq.endpoint, engine.replay, 600)
            # More than a thousand of one connection wait in the end.
            if counts.delayed and counts.refused:
                break
    told = engine.journal.stats()["replay"]
    assert isinstance(told, dict)
    assert told["delayed"] > 0
    assert told["refused"] > 0
    engine.close()
    assert is_balanced(engine.journal._server.counts)


def test_behind_a_relay_too(engine: Engine) -> None:
    with relaying([engine], replay=True) as relay:
        assert relay.replay_endpoint is not None
        with floods(relay.replay_endpoint, 2):
            hears_all(relay.endpoint, relay.replay_endpoint, 600)
        assert relay._replay is not None
        assert relay._replay.counts.delayed > 0


def test_who_never_reads_fills_no_memory(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fair_queue, "_MOST_UNTAKEN_BYTES_IN_ALL", 16 * 2**20)
    before_mb = usage().rss_mb
    with ExitStack() as stack:
        for _ in range(20):
            deaf = stack.enter_context(dealer(engine.replay, reads=False))
            for _ in range(200):
                deaf.send(PAGE)
        server = engine.journal._server
        looking = stack.enter_context(dealer(engine.replay))
        looking.setsockopt(zmq.RCVTIMEO, round(PATIENCE_S * 1000))
        # Each of them would hold 2 MB: the first ones are cut.
        for _ in range(2000):
            looking.send(TOPICS)
            assert json.loads(looking.recv())["ok"]
            if server.counts.cut >= 8 and server._guard._door.cut >= 8:
                break
        assert server._guard._door.cut >= 8
        hears_all(engine.zmq.endpoint, engine.replay, 600)
        assert usage().rss_mb - before_mb < 150
    engine.close()
    assert is_balanced(server.counts)


def test_who_reads_again_gets_on(engine: Engine) -> None:
    with dealer(engine.replay, reads=False) as slow:
        for _ in range(6):
            slow.send(PAGE)
        hears_all(engine.zmq.endpoint, engine.replay, 600)
        for _ in range(6):
            assert slow.poll(PATIENCE_S * 1000)
            assert len(slow.recv_multipart()) > 3
    assert engine.journal._server.counts.cut == 0


def test_a_question_costs_no_more_in_a_long_journal(tmp_path: Path) -> None:
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
    """Instructions of SQLite's machine that a question takes."""
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


class Sent:
    """An answer that is taken when it is said so."""

    done = False


@given(
    asks=st.lists(
        st.tuples(st.integers(0, 3), st.integers(0, 40), st.floats(0, 0.5)),
        max_size=60,
    )
)
@settings(deadline=None)
def test_whatever_is_asked_is_answered_within_its_rate(
    asks: list[tuple[int, int, float]],
) -> None:
    turns, now_s = Turns(Rate(questions=10, bytes=1e6)), 0.0
    spent = dict.fromkeys(range(4), 0.0)
    for who, number, pause_s in asks:
        for _ in range(number):
            turns.put([bytes([who]), b"q"], None, now_s)
        while (turn := turns.next(now_s)) is not None:
            line, _ = turn
            turns.done(line, 50_000, now_s)
            spent[line.name[0]] += 0.15
            assert spent[line.name[0]] <= now_s + 2.0 + 0.15 + 1e-6
        now_s += pause_s
        assert is_balanced(turns.counts)
    for _ in range(10_000):
        now_s += 0.15
        while (turn := turns.next(now_s)) is not None:
            turns.done(turn[0], 50_000, now_s)
        if not turns.counts.waiting:
            break
    assert turns.counts.answered == turns.counts.asked
    now_s += 10
    assert turns.next(now_s) is None
    assert not turns._lines


def test_the_modest_need_not_wait_for_all_that_the_greedy_asked() -> None:
    turns = Turns(Rate(questions=1e6, bytes=1e9))
    for name in (b"greedy", b"greedier"):
        for _ in range(500):
            turns.put([name, b"q"], None, 0.0)
    served = []
    for number in range(100):
        if number in (50, 55):
            turns.put([b"modest", b"q"], None, 0.0)
        turn = turns.next(0.0)
        assert turn is not None
        turns.done(turn[0], 1000, 0.0)
        served.append(turn[0].name)
    assert served.count(b"modest") == 2
    assert b"modest" in served[50:53]
    assert b"modest" in served[55:58]
    assert abs(served.count(b"greedy") - served.count(b"greedier")) <= 1


def test_lines_are_bounded_and_who_has_none_is_always_taken() -> None:
    turns = Turns(Rate(10, 1e6))
    taken = [turns.put([b"a", b"q"], None, 0.0) for _ in range(MOST_WAITING + 5)]
    assert taken.count(False) == turns.counts.refused == 5
    # 16 KB each: some thousand of them in all.
    taken = [
        turns.put([b"b%d" % (number % 100), b"q" * 16_000], None, 0.0)
        for number in range(3000)
    ]
    assert 500 < taken.count(True) < 1100
    assert turns.put([b"modest", b"q" * 16_000], None, 0.0)
    assert not turns.put([b"strange", *[b""] * 50], None, 0.0)
    assert is_balanced(turns.counts)


def test_who_takes_nothing_is_served_no_more_and_the_oldest_is_cut() -> None:
    turns, sent = Turns(Rate(1e6, 1e12)), []
    names = [b"%d" % number for number in range(40)]
    for name in names:
        for _ in range(3):
            turns.put([name, b"q"], 7, 0.0)
    now_s = 0.0
    while (turn := turns.next(now_s)) is not None:
        now_s += 0.01
        sent.append(Sent())
        turns.done(turn[0], 2 * 2**20, now_s, sent[-1])
    assert len(sent) == 40
    cut = list(turns.too_much())
    assert [line.name for line in cut] == names[:8]
    assert list(turns.too_much()) == []
    assert turns.counts.cut == 8
    for one in sent:
        one.done = True
    assert turns.next(now_s) is not None
