"""Guard of the page, over real HTTP: logging in, names, origins, headers, sizes."""

import json
import logging

import httpx
import pytest
from network.browsers import LOCKED, TOKEN, LivePage, browser
from processes.waiting import PATIENCE_S
from websockets.exceptions import InvalidStatus

from neurovocal.plugins.web import access
from neurovocal.plugins.web.access import Access, Credentials

UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
}
PROXIED = Access(Credentials(token=TOKEN), behind_proxy=True)


@pytest.fixture(scope="module")
def open_page():
    with LivePage() as page:
        yield page


@pytest.fixture
def locked_page():
    with LivePage(LOCKED) as page:
        yield page


@pytest.fixture
def proxied_page():
    with LivePage(PROXIED) as page:
        yield page


def client(page, **headers):
    return httpx.Client(base_url=page.url, headers=headers, timeout=PATIENCE_S)


def test_page_and_its_files_come_with_headers_that_forbid_all_else(open_page):
    with client(open_page) as http:
        for path in ("", "style.css", "js/text.js", "api/events", "no/such/file"):
            answer = http.get(path)
            policy = answer.headers["content-security-policy"]
            assert "default-src 'none'" in policy
            assert "frame-ancestors 'none'" in policy
            assert "unsafe-inline" not in policy
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert "server" not in answer.headers
        assert http.get("").headers["content-type"] == "text/html; charset=utf-8"
        script = http.get("js/text.js").headers
        assert script["content-type"] == "text/javascript; charset=utf-8"
        assert http.get("api/events").headers["cache-control"] == "no-store"


def test_html_of_the_page_has_no_inline_script_or_style(open_page):
    with client(open_page) as http:
        for path in ("", "login"):
            text = http.get(path, follow_redirects=True).text
            assert "style=" not in text
            assert "<style" not in text
            assert " onclick" not in text


def test_unchanged_files_are_not_sent_again(open_page):
    with client(open_page) as http:
        tag = http.get("style.css").headers["etag"]
        again = http.get("style.css", headers={"If-None-Match": tag})
        assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize(
    "path",
    [
        "../server.py",
        "..%2fserver.py",
        "js/..%2f..%2fserver.py",
        "%2e%2e/server.py",
        "js//text.js",
        "/etc/passwd",
        "js/",
        "text.js%00.css",
        "login.html",
        "index.html",
        "page/index.html",
        "x" * 5000 + ".js",
    ],
)
def test_nothing_but_the_page_s_files_is_served(open_page, path):
    with client(open_page) as http:
        answer = http.get(open_page.url + path)
        assert answer.status_code == 404
        assert "error" in answer.json()


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:80", "127.0.0.1.nip.io"]
)
def test_a_name_of_elsewhere_is_refused_without_credentials(open_page, host):
    with client(open_page) as http:
        for path in ("", "api/events", "style.css"):
            answer = http.get(path, headers={"Host": host})
            assert answer.status_code == 403
            assert "its own address" in answer.json()["error"]
        answer = http.get("ws", headers={"Host": host, **UPGRADE})
        assert answer.status_code == 403


def test_websocket_of_another_site_s_page_is_refused(open_page):
    site = "http://evil.example"
    with pytest.raises(InvalidStatus) as refused, browser(open_page.url, Origin=site):
        pass
    assert refused.value.response.status_code == 403
    own = open_page.url.rstrip("/")
    with browser(open_page.url, Origin=own) as own_page:
        assert own_page.read()["type"] == "hello"


def test_without_credentials_there_is_nothing_to_log_in_to(open_page):
    with client(open_page) as http:
        assert http.get("login").headers["location"] == "./"


def test_everything_but_form_and_files_needs_a_session(locked_page):
    with client(locked_page) as http:
        for path in ("api/events", "api/sound?stream=a&start=0&stop=1", "api/summary"):
            answer = http.get(path)
            assert (answer.status_code, answer.json()) == (
                401,
                {"error": "log in first"},
            )
        asked = http.get("", headers={"Accept": "text/html,*/*"})
        assert (asked.status_code, asked.headers["location"]) == (303, "login")
        form = http.get("login")
        assert form.status_code == 200
        assert 'action="login"' in form.text
        assert "{{" not in form.text
        assert http.get("style.css").status_code == 200
        assert http.get("api/x.js").status_code == 401
    with pytest.raises(InvalidStatus) as refused, browser(locked_page.url):
        pass
    assert refused.value.response.status_code == 401


@pytest.mark.parametrize(
    "form", [{"token": TOKEN}, {"user": "bird", "password": "hay and seed"}]
)
def test_right_credentials_begin_a_session_and_logging_out_ends_it(locked_page, form):
    with client(locked_page) as http:
        answer = http.post("login", data=form)
        assert (answer.status_code, answer.headers["location"]) == (303, "./")
        cookie = answer.headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "samesite=strict" in cookie.lower()
        assert "path" not in cookie.lower()
        assert "secure" not in cookie.lower()
        assert TOKEN not in cookie
        assert http.get("api/events").status_code == 200
        name, value = next(iter(http.cookies.items()))
        with browser(locked_page.url, Cookie=f"{name}={value}") as page:
            assert page.read()["type"] == "hello"
        assert http.get("logout").status_code == 303
        assert http.get("api/events").status_code == 401
        with (
            pytest.raises(InvalidStatus),
            browser(locked_page.url, Cookie=f"{name}={value}"),
        ):
            pass


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize(
    "form",
    [
        {"token": "another token of letters"},
        {"token": ""},
        {"user": "bird", "password": "hay"},
        {"user": "bird"},
        {"token": [TOKEN, "x"], "user": ["a"] * 20},
        {},
        {"token": "x" * 20_000},
        {"<script>": "alert(1)"},
    ],
)
def test_wrong_credentials_get_the_form_again(locked_page, form):
    with client(locked_page) as http:
        answer = http.post("login", data=form)
        assert answer.status_code == 401
        assert "That is not right." in answer.text
        assert "set-cookie" not in answer.headers
        assert "<script>" not in answer.text


@pytest.mark.usefixtures("quiet")
def test_attempts_are_limited_even_for_the_right_token(monkeypatch, locked_page):
    monkeypatch.setattr(access, "_REFILL_S", 1200)  # the attempts may take a while
    with client(locked_page) as http:
        for _ in range(5):
            assert http.post("login", data={"token": "wrong"}).status_code == 401
        answer = http.post("login", data={"token": TOKEN})
        assert answer.status_code == 429
        assert 1 <= int(answer.headers["retry-after"]) <= 1200
        assert "Too many attempts" in answer.text
        bearer = http.get("api/events", headers={"Authorization": f"Bearer {TOKEN}"})
        assert bearer.status_code == 429


def test_a_failed_attempt_is_logged_without_what_was_tried(locked_page, caplog):
    with client(locked_page) as http, caplog.at_level(logging.WARNING, "neurovocal"):
        http.post("login", data={"token": "hunter2 hunter2 hunter2"})
    assert "wrong credentials from 127.0.0.1" in caplog.text
    assert "hunter2" not in caplog.text


@pytest.mark.usefixtures("quiet")
def test_programs_may_send_the_token_in_a_header(locked_page):
    right, wrong = f"Bearer {TOKEN}", "Bearer wrong"
    with client(locked_page) as http:
        answer = http.get("api/events", headers={"Authorization": right})
        assert answer.status_code == 200
        answer = http.get("api/events", headers={"Authorization": wrong})
        assert answer.status_code == 401
        answer = http.get("api/events", headers={"Authorization": "Basic eDp5"})
        assert answer.status_code == 401
    with browser(locked_page.url, Authorization=right) as page:
        assert page.read()["type"] == "hello"


@pytest.mark.parametrize("cookie", ["", "=", "a" * 9000, 'neurovocal_0="\\', "x=y; ;"])
def test_malformed_cookies_are_no_session(locked_page, cookie):
    with client(locked_page, Cookie=cookie) as http:
        assert http.get("api/events").status_code == 401


def test_forms_of_another_site_are_refused(locked_page):
    with client(locked_page, Origin="http://evil.example") as http:
        assert http.post("login", data={"token": TOKEN}).status_code == 403


def test_a_form_larger_than_any_is_refused(locked_page):
    with client(locked_page) as http:
        answer = http.post("login", content=b"token=" + b"x" * 10_000)
        assert answer.status_code == 401
        assert http.put("login").status_code == 405


def test_proxy_s_headers_count_only_where_the_option_says_so(locked_page, proxied_page):
    headers = {"X-Forwarded-Host": "birds.example", "Origin": "https://birds.example"}
    with client(locked_page, **headers) as http:
        assert http.post("login", data={"token": TOKEN}).status_code == 403
    headers["X-Forwarded-Proto"] = "https"
    with client(proxied_page, **headers) as http:
        answer = http.post("login", data={"token": TOKEN})
        assert answer.status_code == 303
        assert "Secure" in answer.headers["set-cookie"]


@pytest.mark.usefixtures("quiet")
def test_attempts_through_a_proxy_count_for_the_browser(monkeypatch, proxied_page):
    monkeypatch.setattr(access, "_REFILL_S", 1200)
    # The first address is what the browser itself may have written.
    attacker = {"X-Forwarded-For": "1.2.3.4, 10.0.0.1"}
    with client(proxied_page) as http:
        for number in range(5):
            attacker["X-Forwarded-For"] = f"1.2.3.{number}, 10.0.0.1"
            http.post("login", data={"token": "wrong"}, headers=attacker)
        answer = http.post("login", data={"token": TOKEN}, headers=attacker)
        assert answer.status_code == 429
        other = {"X-Forwarded-For": "10.0.0.2"}
        answer = http.post("login", data={"token": TOKEN}, headers=other)
        assert answer.status_code == 303


def test_page_works_below_a_prefix_that_a_proxy_strips(open_page):
    with client(open_page) as http:
        html = http.get("").text
        for mark in ('src="/', 'href="/', "http://", "https://"):
            assert mark not in html


def test_methods_that_no_route_has_are_refused(open_page):
    with client(open_page) as http:
        assert http.post("api/events").status_code == 405
        assert http.delete("").status_code == 405


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("station=s9", 404),
        ("limit=x", 400),
        ("limit=-1", 400),
        ("before=x", 400),
        ("before=j-" + "9" * 30, 400),
        ("limit=999999999999", 200),
        ("kinds=", 200),
        ("kinds=no,such", 200),
        ("stream=%00%ff", 200),
    ],
)
def test_requests_for_events_are_checked(open_page, query, status):
    with client(open_page) as http:
        answer = http.get(f"api/events?{query}")
        assert answer.status_code == status
        assert ("error" in answer.json()) == (status != 200)
        json.dumps(answer.json(), allow_nan=False)
