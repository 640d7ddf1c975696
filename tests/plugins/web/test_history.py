"""Events of the past: from memory, then from the journal, without repetition."""

import json

import pytest
from network.publishers import Engine

from neurovocal.engine.contracts.errors import ConfigError
from neurovocal.engine.wire.codec import encode
from neurovocal.plugins.web import history as module
from neurovocal.plugins.web.encoding import Station
from neurovocal.plugins.web.history import History, utc_ns_of
from neurovocal.plugins.web.viewers import Hub


@pytest.fixture
def hub():
    return Hub([Station(id="s0", name="demo"), Station(id="s1", name="other")])


@pytest.fixture
def engine(tmp_path):
    engine = Engine(tmp_path)
    yield engine
    engine.close()


def remember(hub, engine, seqs, kind="label"):
    for seq in seqs:
        header = json.dumps({"kind": kind, "seq": seq, "stream": engine.info.stream})
        hub.add_event("s0", kind, engine.info.stream, "run0", seq, header)


def all_pages(history, **options):
    """Sequence numbers of all pages, and the number of pages."""
    found, cursor, pages = [], None, 0
    while True:
        page = history.before(cursor, **options)
        found += [json.loads(header)["seq"] for header in page.headers]
        pages += 1
        cursor = page.cursor
        if cursor is None:
            return found, pages


def test_memory_alone_is_read_newest_first(hub, engine):
    remember(hub, engine, range(10))
    hub.add_event("s1", "label", "x", "r", 99, '{"seq":99}')
    history = History(hub, "s0")
    assert all_pages(history, limit=3) == (list(range(9, -1, -1)), 4)
    assert all_pages(history, limit=100) == (list(range(9, -1, -1)), 1)


def test_journal_goes_on_where_memory_ends(hub, engine):
    engine.send(50)
    remember(hub, engine, range(40, 50))
    history = History(hub, "s0", engine.journal.path)
    for limit in (1, 7, 10, 49, 50, 200):
        found, _ = all_pages(history, limit=limit)
        assert found == list(range(49, -1, -1)), f"limit {limit}"


def test_journal_that_is_behind_memory_repeats_nothing(hub, engine):
    engine.send(30)
    remember(hub, engine, range(25, 40))  # the journal commits later
    found, _ = all_pages(History(hub, "s0", engine.journal.path), limit=8)
    assert found == list(range(39, -1, -1))


def test_empty_memory_begins_with_the_newest_row(hub, engine):
    engine.send(20)
    found, _ = all_pages(History(hub, "s0", engine.journal.path), limit=6)
    assert found == list(range(19, -1, -1))


def test_headers_of_the_journal_are_those_of_the_wire(hub, engine):
    sent = []
    write = engine.zmq.write
    engine.zmq.write = lambda message: (sent.append(message), write(message))
    engine.send(1)
    page = History(hub, "s0", engine.journal.path).before()
    assert json.loads(page.headers[0]) == json.loads(encode(sent[0], "run0", None)[1])
    assert json.loads(page.headers[0])["run"] == "run0"
    assert json.loads(page.to_json())["cursor"] is None


def test_kinds_and_stream_select(hub, engine):
    engine.send(5)
    remember(hub, engine, [7], kind="near_miss")
    remember(hub, engine, [8])
    history = History(hub, "s0", engine.journal.path)
    assert all_pages(history, kinds=["near_miss"])[0] == [7]
    assert all_pages(history, kinds=["label"])[0] == [8, 4, 3, 2, 1, 0]
    assert all_pages(history, stream="no such")[0] == []
    assert all_pages(history, stream=engine.info.stream, limit=2)[0][:2] == [8, 7]
    assert all_pages(history, kinds=["frames", "no such"])[0] == []


def test_a_request_looks_at_a_limited_part_of_the_journal(hub, engine, monkeypatch):
    monkeypatch.setattr(module, "_MOST_ROWS", 10)
    engine.send(45)
    history = History(hub, "s0", engine.journal.path)
    page = history.before(kinds=["health"])
    assert page.headers == []
    assert page.cursor is not None
    assert all_pages(history, kinds=["health"]) == ([], 5)
    assert all_pages(history)[0] == list(range(44, -1, -1))


def test_cursor_of_an_earlier_process_begins_with_the_newest(hub, engine):
    remember(hub, engine, range(5))
    earlier = History(hub, "s0").before(limit=2).cursor
    page = History(hub, "s0").before(earlier, limit=1)
    assert json.loads(page.headers[0])["seq"] == 4


@pytest.mark.parametrize("cursor", ["", "x", "m-1", "j-", "j--1", "j-1;DROP", "m-x-1"])
def test_malformed_cursors_are_refused(hub, cursor):
    with pytest.raises(ConfigError, match="cursor"):
        History(hub, "s0").before(cursor)


def test_missing_and_damaged_journals(hub, tmp_path):
    remember(hub, type("E", (), {"info": type("I", (), {"stream": "a"})}), [1])
    missing = History(hub, "s0", tmp_path / "none.sqlite")
    assert len(missing.before().headers) == 1
    with pytest.raises(ConfigError, match="there is no journal"):
        missing.summary("hour", None, None, None)
    damaged = tmp_path / "damaged.sqlite"
    damaged.write_bytes(b"no journal at all" * 1000)
    with pytest.raises(ConfigError, match="journal"):
        History(hub, "s0", damaged).before()


def test_summary_counts_the_journal(hub, engine):
    engine.send(7)
    history = History(hub, "s0", engine.journal.path)
    assert history.summary("day", None, None, None)["total"]["units"] == {"é": 7}
    since_ns = 10**18 + 3
    summary = history.summary("day", since_ns, None, (engine.info.stream,))
    assert summary["total"]["units"] == {"é": 4}


def test_times_of_requests():
    assert utc_ns_of("2026-12-01T00:00") == 1_796_083_200 * 10**9
    assert utc_ns_of("2026-12-01T01:00+01:00") == 1_796_083_200 * 10**9
    for text in ("", "yesterday", "2026-13-01", "9" * 500):
        with pytest.raises(ConfigError, match="no time"):
            utc_ns_of(text)
