"""Rules of access: endpoints, credentials, limits of attempts, sessions, names."""

import pytest

from neurovocal.engine.support.endpoints import Address
from neurovocal.plugins.web.access import (
    SESSION_S,
    Access,
    AttemptLimit,
    Credentials,
    Sessions,
    access_problems,
    is_known_host,
    is_same_origin,
    url_of,
)

TOKEN = "a token of many letters"


def problems(endpoint="127.0.0.1:8420", *, behind_proxy=False, **credentials):
    access = Access(Credentials(**credentials), behind_proxy)
    return list(access_problems(endpoint, access))


@pytest.mark.parametrize(
    "endpoint", ["127.0.0.1:8420", "localhost:80", "[::1]:0", "127.0.0.9:8420"]
)
def test_this_machine_needs_no_credentials(endpoint):
    assert problems(endpoint) == []


@pytest.mark.parametrize(
    "endpoint", ["0.0.0.0:8420", "*:8420", "[::]:8420", "192.168.1.7:80", "station:80"]
)
def test_other_machines_need_credentials(endpoint):
    (problem,) = problems(endpoint)
    assert "lets other machines" in problem
    assert "give a token" in problem
    assert problems(endpoint, token=TOKEN) == []
    assert problems(endpoint, user="bird", password="hay and seed") == []


def test_a_page_behind_a_proxy_needs_credentials():
    (problem,) = problems(behind_proxy=True)
    assert "proxy" in problem
    assert problems(behind_proxy=True, token=TOKEN) == []


@pytest.mark.parametrize(
    ("credentials", "part"),
    [
        ({"token": ""}, "the token has 0 characters"),
        ({"token": "short"}, "the token has 5 characters, 16 at least"),
        ({"token": " " * 20}, "the token begins or ends with a space"),
        ({"user": "bird"}, "a user without a password"),
        ({"password": "hay and seed"}, "a password without a user"),
        ({"user": "bird", "password": "hay"}, "the password has 3 characters"),
        ({"user": "", "password": "hay and seed"}, "the user has no name"),
        ({"token": "t" * 2000}, "longer than"),
    ],
)
def test_poor_credentials_are_refused_without_being_shown(credentials, part):
    found = problems("0.0.0.0:8420", **credentials)
    assert any(part in problem for problem in found)
    for secret in filter(None, credentials.values()):
        if len(secret) > 4 and secret != "short":
            assert not any(secret in problem for problem in found)


def test_mistakes_of_an_endpoint_are_told_with_the_others():
    found = problems("8420", token="short")
    assert len(found) == 2
    assert "HOST:PORT" in found[1]


def test_credentials_do_not_show_their_secrets():
    shown = repr(Credentials(TOKEN, "bird", "hay and seed"))
    assert "many" not in shown
    assert "seed" not in shown


def test_right_and_wrong_credentials():
    credentials = Credentials(TOKEN, "bird", "häy and seed")
    assert credentials.accept_token(TOKEN)
    assert not credentials.accept_token("")
    assert not credentials.accept_token(TOKEN[:-1])
    assert credentials.accept_user("bird", "häy and seed")
    assert not credentials.accept_user("bird", "hay and seed")
    assert not credentials.accept_user("Bird", "häy and seed")
    assert not credentials.accept_user("\udcff", "\ud800")
    assert not Credentials(token=TOKEN).accept_user("", "")
    assert not Credentials(user="bird", password="hay and seed").accept_token("")


class Time:
    s = 50.0

    def __call__(self):
        return self.s


def test_attempts_of_an_address_are_limited_and_allowed_again():
    time = Time()
    limit = AttemptLimit(time)
    for _ in range(5):
        assert limit.wait_s("10.0.0.1") == 0
        limit.note_failure("10.0.0.1")
    assert limit.wait_s("10.0.0.1") == pytest.approx(12.0)
    assert limit.wait_s("10.0.0.2") == 0, "others are not concerned"
    time.s += 12.0
    assert limit.wait_s("10.0.0.1") == 0
    limit.note_failure("10.0.0.1")
    assert limit.wait_s("10.0.0.1") > 0


def test_attempts_from_many_addresses_are_limited_in_all():
    time = Time()
    limit = AttemptLimit(time)
    for number in range(60):
        limit.note_failure(f"10.0.0.{number}")
    assert limit.wait_s("10.9.9.9") > 0
    time.s += 1.0
    assert limit.wait_s("10.9.9.9") == 0


def test_addresses_of_one_ipv6_network_are_one_visitor():
    limit = AttemptLimit(Time())
    for number in range(5):
        limit.note_failure(f"2001:db8:1:2::{number}")
    assert limit.wait_s("2001:db8:1:2:ffff::1") > 0
    assert limit.wait_s("2001:db8:1:3::1") == 0
    for _ in range(5):
        limit.note_failure("::ffff:10.0.0.1")
    assert limit.wait_s("10.0.0.1") > 0


def test_memory_of_attempts_is_bounded():
    limit = AttemptLimit(Time())
    for number in range(5000):
        limit.note_failure(f"no address {number}" * 100)
    assert len(limit._of_address) == 2000
    assert max(map(len, limit._of_address)) <= 100


def test_sessions_end_a_while_after_their_last_use_and_when_told_to():
    time = Time()
    sessions = Sessions(time)
    cookie = sessions.begin()
    assert sessions.begin() != cookie
    time.s += SESSION_S - 1
    assert sessions.is_valid(cookie)
    time.s += SESSION_S - 1
    assert sessions.is_valid(cookie), "its use keeps it alive"
    time.s += SESSION_S + 1
    assert not sessions.is_valid(cookie)
    other = sessions.begin()
    sessions.end(other)
    assert not sessions.is_valid(other)
    assert not sessions.is_valid("")
    assert not sessions.is_valid("\udcff")


@pytest.mark.parametrize(
    ("host", "known"),
    [
        ("127.0.0.1:8420", True),
        ("localhost:8420", True),
        ("LOCALHOST.:8420", True),
        ("[::1]:8420", True),
        ("127.0.0.1", True),
        ("evil.example:8420", False),
        ("127.0.0.1.evil.example:8420", False),
        ("localhost.evil.example", False),
        ("10.0.0.1:8420", False),
        ("", False),
        (":8420", False),
        ("[::1", False),
    ],
)
def test_names_of_this_machine(host, known):
    assert is_known_host(host, Address("127.0.0.1", 8420)) is known


@pytest.mark.parametrize(
    ("origin", "host", "same"),
    [
        ("http://127.0.0.1:8420", "127.0.0.1:8420", True),
        ("https://birds.example", "birds.example", True),
        ("https://birds.example", "birds.example:443", True),
        ("http://birds.example:80", "birds.example", True),
        ("http://127.0.0.1:8421", "127.0.0.1:8420", False),
        ("http://evil.example", "127.0.0.1:8420", False),
        ("null", "127.0.0.1:8420", False),
        ("", "", False),
        ("file://", "", False),
        ("http://birds.example.evil.example", "birds.example", False),
    ],
)
def test_origins(origin, host, same):
    assert is_same_origin(origin, host) is same


@pytest.mark.parametrize(
    ("address", "url"),
    [
        (Address("127.0.0.1", 8420), "http://127.0.0.1:8420/"),
        (Address("0.0.0.0", 80), "http://127.0.0.1:80/"),
        (Address("*", 80), "http://127.0.0.1:80/"),
        (Address("::", 80), "http://[::1]:80/"),
        (Address("station-1", 80), "http://station-1:80/"),
    ],
)
def test_address_for_a_browser(address, url):
    assert url_of(address) == url
