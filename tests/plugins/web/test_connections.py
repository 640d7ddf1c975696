"""Connections to the page that send too little, too much, or are too many."""

import time
from contextlib import suppress

import httpx
import pytest
from network.browsers import LOCKED, LivePage, browser, half_open, is_closed
from processes.waiting import PATIENCE_S, until
from websockets.exceptions import ConnectionClosed

from neurovocal.plugins.web import connections

POST = b"POST /login HTTP/1.1\r\nHost: 127.0.0.1\r\n"
REQUEST = b"GET /api/events HTTP/1.1\r\nHost: 127.0.0.1\r\n"


@pytest.fixture
def page():
    with LivePage() as page:
        yield page


@pytest.fixture
def hurry(monkeypatch):
    """Let requests have 0.3 s from now on; before, as long as a busy machine needs."""
    monkeypatch.setattr(connections, "REQUEST_S", PATIENCE_S)
    return lambda: monkeypatch.setattr(connections, "REQUEST_S", 0.3)


@pytest.fixture
def impatient(hurry):
    hurry()


def is_served(page):
    return httpx.get(page.url + "api/events", timeout=PATIENCE_S).status_code == 200


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(
    "beginning",
    [
        b"",
        b"GET /",
        REQUEST,
        REQUEST + b"X-More: ",
        POST + b"Content-Length: 99\r\n\r\ntoken=",
        POST + b"Transfer-Encoding: chunked\r\n\r\n",
    ],
)
def test_requests_that_do_not_end_are_closed(page, beginning):
    with half_open(page.port, beginning) as connection:
        assert is_closed(connection)


@pytest.mark.usefixtures("impatient")
def test_a_request_that_comes_byte_by_byte_is_closed(page):
    with half_open(page.port) as connection, suppress(ConnectionError):
        for number in range(10_000):
            connection.sendall(REQUEST[number % len(REQUEST) :][:1])
            time.sleep(0.005)  # the attacker's own pace
        pytest.fail("the server has listened for 50 s")


def test_a_viewer_may_stay_and_say_nothing(hurry, page):
    with browser(page.url) as viewer:
        hurry()
        with half_open(page.port) as later:
            assert is_closed(later), "its time began after that of the viewer"
        page.hub.tell('{"type":"dropped","columns":1}')
        viewer.until(lambda seen: seen.of_type("dropped"))


def test_a_second_request_on_a_connection_has_its_own_time(hurry, page):
    with half_open(page.port, REQUEST + b"\r\n") as connection:
        assert b"200 OK" in connection.recv(65536)
        hurry()
        connection.sendall(b"GET /")
        assert is_closed(connection)


def test_connections_that_ask_nothing_make_room_for_one_that_does(page):
    idle = [half_open(page.port) for _ in range(connections.MOST_CONNECTIONS + 50)]
    assert is_served(page)
    with browser(page.url) as viewer:
        assert viewer.read()["type"] == "hello"
    closed = 0
    for connection in idle:
        connection.settimeout(0.001)
        closed += is_closed(connection)
        connection.close()
    assert closed >= 50
    assert closed < connections.MOST_CONNECTIONS, "the newest may stay"


@pytest.mark.parametrize(
    "content",
    [
        REQUEST + b"X-Long: " + b"a" * 100_000,
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),
        b"\x00" * 1000 + b"\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
    ],
)
def test_what_is_no_request_is_refused(page, content):
    with half_open(page.port) as connection:
        with suppress(ConnectionError):
            connection.sendall(content)
        assert is_closed(connection)
    assert is_served(page)


def test_a_body_without_end_is_refused(page):
    head = POST + b"Content-Length: 999999999\r\n\r\n"
    with LivePage(LOCKED) as locked, half_open(locked.port, head) as connection:
        answer = b""
        with suppress(ConnectionError):
            for _ in range(100):
                connection.sendall(bytes(100_000))
        with suppress(ConnectionError):
            answer = connection.recv(65536)
        assert answer == b"" or b"401" in answer
        assert httpx.get(locked.url + "login", timeout=PATIENCE_S).status_code == 200


@pytest.mark.parametrize(
    "message",
    [
        "x" * 100_000,
        ["x" * 30_000] * 10,
        b"binary",
        "no JSON",
        "[]",
        '{"type": 3}',
        '{"type":"command","arguments":' + "[" * 5000 + "]" * 5000 + "}",
        '{"type":"command","arguments":{"x":1e999}}',
    ],
    ids=["large", "fragments", "binary", "text", "list", "number", "deep", "infinite"],
)
def test_malformed_messages_end_their_connection_alone(page, message):
    with browser(page.url) as other:
        with browser(page.url) as attacker:
            with suppress(ConnectionClosed):  # it may end before all is sent
                attacker.socket.send(message)
            attacker.end()
        page.hub.tell('{"type":"dropped","columns":1}')
        other.until(lambda seen: seen.of_type("dropped"))
    until(lambda: page.hub.n_viewers == 0)


def test_messages_without_pause_end_their_connection(page):
    with browser(page.url) as attacker:
        with suppress(ConnectionClosed):
            for _ in range(1000):
                attacker.send(type="columns", on=True)
        closed = attacker.end().rcvd
        assert closed is None or closed.code == 1008
    until(lambda: page.hub.n_viewers == 0)


def test_messages_of_an_unknown_type_are_ignored(page):
    with browser(page.url) as viewer:
        viewer.send(type="of a later version", more=[1, 2])
        viewer.send(type="command", id=3, station="s0", command="stop")
        viewer.until(lambda seen: seen.of_type("reply"))
        (reply,) = viewer.of_type("reply")
    assert reply == {
        "type": "reply",
        "id": 3,
        "ok": False,
        "error": "commands are not allowed here: see 'control' in docs/how-to/page.md",
    }
