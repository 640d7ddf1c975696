"""Webhook sink: a real HTTP server gets every event of the journal, in order."""

import base64
import hmac
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from errno import ENOSPC
from hashlib import sha256
from itertools import pairwise
from threading import Event, Thread

import pytest
from network.http_receiver import HttpReceiver
from processes.waiting import until
from repository import import_path
from stages.journals import build as build_journal
from stages.journals import label, write

from neurovocal.engine.contracts.clock import NS, ManualClock, SystemClock
from neurovocal.engine.contracts.errors import ConfigError
from neurovocal.engine.contracts.plugin import BuildContext
from neurovocal.engine.contracts.registry import Registry
from neurovocal.engine.contracts.types import Gap
from neurovocal.engine.support.credentials import without_credentials
from neurovocal.engine.support.outputs import write_whole
from neurovocal.engine.support.platform import lock_file
from neurovocal.engine.testing import check_sink
from neurovocal.plugins.sinks.integrations.delivery import state as state_module
from neurovocal.plugins.sinks.integrations.webhook.sink import WebhookOptions, plugin

pytestmark = pytest.mark.usefixtures("no_threads_left")


def make(path, url, clock=None, events=None, **options):
    checked = WebhookOptions.model_validate(
        {"url": url, "journal": str(path), "most_per_s": 1000, **options}
    )
    context = BuildContext(
        clock or SystemClock(), "run-1", stream="aviary-3", events=events
    )
    return plugin.build(checked, context)


class Station:
    """A journal and a webhook sink, which get the same messages."""

    def __init__(self, path, url, run="run-1", **options):
        self.journal = build_journal(path, run, commit_ms=0)
        self.webhook = make(path, url, **options)

    def __enter__(self):
        self.journal.open()
        self.webhook.open()
        return self

    def __exit__(self, *error):
        self.journal.close()
        self.webhook.close()

    def write(self, *messages):
        for message in messages:
            self.journal.write(message)
            self.webhook.write(message)


def ids(receiver):
    return [request.headers["webhook-id"] for request in receiver.requests]


def numbers(receiver):
    return [json.loads(request.body)["seq"] for request in receiver.requests]


def test_is_installed_and_keeps_the_contract_of_sinks(tmp_path):
    assert Registry().get("sink", "webhook") is plugin
    write(tmp_path / "j", [])
    check_sink(lambda: make(tmp_path / "j", "http://127.0.0.1:9/", linger_s=0), [])


def test_each_event_is_a_request_with_the_fields_of_the_wire(tmp_path):
    with HttpReceiver() as receiver:
        with Station(tmp_path / "j", receiver.url) as station:
            station.write(label(0), label(1))
            receiver.wait_for(2)
        first, second = receiver.requests
        assert station.webhook.stats()["sent"] == 2
        assert station.webhook.trouble is None
    assert first.path == "/hook"
    assert first.headers["content-type"] == "application/json"
    assert first.headers["idempotency-key"] == "run-1/label/aviary-3/0"
    body = json.loads(first.body)
    assert body["id"] == first.headers["webhook-id"]
    assert (body["station"], body["time"]) == ("aviary-3", "1970-01-01T00:00:00.000Z")
    assert (body["kind"], body["unit"], body["posterior"]) == ("label", "b", 0.5)
    assert (body["run"], body["utc_ns"], body["seq"]) == ("run-1", 1000, 0)
    assert json.loads(second.body)["seq"] == 1


def test_provisional_labels_and_other_kinds_stay_unless_asked_for(tmp_path):
    early = replace(label(0), event=replace(label(0).event, status="provisional"))
    gap = replace(label(1), event=Gap(0, 10, "overrun"))
    with HttpReceiver() as receiver:
        events = ("label",)
        with Station(tmp_path / "j", receiver.url, events=events) as station:
            station.write(early, gap, label(2))
            receiver.wait_for(1)
        assert numbers(receiver) == [2]
        with Station(tmp_path / "j2", receiver.url, labels="all") as station:
            station.write(early, gap, label(2))
            receiver.wait_for(4)
    assert numbers(receiver) == [2, 0, 1, 2]


def test_a_service_that_is_away_gets_all_in_order_and_nothing_twice(tmp_path, quiet):
    receiver = HttpReceiver()
    receiver.start()
    with Station(tmp_path / "j", receiver.url) as station:
        station.write(label(0))
        receiver.wait_for(1)
        receiver.stop()
        station.write(*map(label, range(1, 100)))
        until(lambda: station.webhook.trouble)
        assert f"127.0.0.1:{receiver.port}: connection refused" in (
            station.webhook.trouble
        )
        receiver.start()
        receiver.wait_for(100)
        until(lambda: station.webhook.trouble is None)
    receiver.stop()
    assert numbers(receiver) == list(range(100))


def test_a_later_run_goes_on_where_the_last_one_stopped(tmp_path, quiet):
    path = tmp_path / "j"
    write(path, [label(0)], "earlier")  # before the webhook was configured
    receiver = HttpReceiver()
    receiver.start()
    with Station(path, receiver.url) as station:
        station.write(label(1))
        receiver.wait_for(1)
        receiver.stop()
        station.webhook.limit_close(0.0)
        station.write(label(2), label(3))
        until(lambda: station.webhook.trouble)
    receiver.start()
    with Station(path, receiver.url, run="run-2") as station:
        station.write(label(0))
        receiver.wait_for(4)
    receiver.stop()
    assert ids(receiver) == [
        *(f"run-1/label/aviary-3/{seq}" for seq in (1, 2, 3)),
        "run-2/label/aviary-3/0",
    ]


def test_a_killed_engine_delivers_the_rest_after_its_restart(tmp_path):
    path = tmp_path / "j"
    with HttpReceiver() as receiver:
        script = f"""
import os, sys
sys.path[:0] = {import_path(__file__).split(":")!r}
from pathlib import Path
from stages.journals import build, label
from neurovocal.engine.contracts.clock import SystemClock
from neurovocal.engine.contracts.plugin import BuildContext
from neurovocal.plugins.sinks.integrations.webhook.sink import *
journal = build(Path({str(path)!r}), commit_ms=0)
journal.open()
options = WebhookOptions(
    url={receiver.url!r}, journal={str(path)!r}, most_per_s=1000)
sink = plugin.build(options, BuildContext(SystemClock(), "run-1"))
sink.open()
for seq in range(200):
    journal.write(label(seq))
    sink.write(label(seq))
sys.stdout.write("written")
sys.stdout.flush()
sys.stdin.read()
"""
        process = subprocess.Popen(
            [sys.executable, "-c", script],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        receiver.wait_for(20)
        assert process.stdout.read(7) == b"written"
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        before = len(receiver.requests)
        with Station(path, receiver.url, run="run-2"):
            receiver.wait_for(200)
            until(lambda: numbers(receiver)[-1] == 199)
    found = numbers(receiver)
    assert sorted(set(found)) == list(range(200))
    # What was under way when the kill came is repeated, under the same name.
    assert len(found) - 200 <= 16
    assert found == sorted(found[:before]) + found[before:]


def test_a_refused_event_is_listed_and_the_others_go_on(tmp_path):
    def answer(request):
        return (422 if json.loads(request.body)["seq"] == 1 else 204), {}

    path = tmp_path / "j"
    with HttpReceiver(answer) as receiver:
        with Station(path, receiver.url) as station:
            station.write(*map(label, range(3)))
            receiver.wait_for(3)
        assert numbers(receiver) == [0, 1, 2]
        assert station.webhook.stats()["refused"] == 1
    (line,) = (tmp_path / "j.webhook.json.refused.jsonl").read_text().splitlines()
    assert json.loads(line)["id"] == "run-1/label/aviary-3/1"
    assert json.loads(line)["reason"] == "it answers 422 Unprocessable Entity"
    assert json.loads(line)["body"]["unit"] == "b"


@pytest.mark.parametrize(
    ("status", "sentence"),
    [
        (500, "it answers 500 Internal Server Error"),
        (503, "it answers 503 Service Unavailable"),
        (429, "it answers 429 Too Many Requests"),
        (401, "check the headers, or the secret"),
        (404, "check the url"),
        (302, "redirects are not followed"),
    ],
)
def test_other_answers_let_the_event_wait(tmp_path, quiet, status, sentence):
    answers = [(status, {"Location": "http://127.0.0.1:9/"}), (200, {})]
    with HttpReceiver(lambda request: answers.pop(0)) as receiver:
        with Station(tmp_path / "j", receiver.url) as station:
            station.write(label(0))
            until(lambda: sentence in (station.webhook.trouble or ""))
            receiver.wait_for(2)
        assert ids(receiver) == ["run-1/label/aviary-3/0"] * 2
        assert station.webhook.stats()["failures"] == 1
        assert station.webhook.stats()["sent"] == 1


@contextmanager
def tcp_service(answer):
    """A service that is none of HTTP; yields its address."""
    server = socket.create_server(("127.0.0.1", 0))

    def serve():
        with suppress(OSError):
            while True:
                with server.accept()[0] as connection:
                    answer(connection)

    thread = Thread(target=serve)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
    finally:
        server.shutdown(socket.SHUT_RDWR)
        server.close()
        thread.join()


def test_an_answer_that_is_no_http_is_not_quoted(tmp_path, quiet):
    """One that repeats the request would put its path into log and journal."""

    def echo(connection):
        connection.sendall(connection.recv(65536))

    with (
        tcp_service(echo) as url,
        Station(tmp_path / "j", f"{url}/services/T0KEN", linger_s=0) as station,
    ):
        station.write(label(0))
        until(lambda: station.webhook.trouble)
        trouble = station.webhook.trouble
    assert "its answer is no HTTP" in trouble
    assert "T0KEN" not in trouble


def test_no_answer_in_time_is_told_as_such(tmp_path, quiet):
    def hang(connection):
        while connection.recv(65536):
            pass

    options = {"timeout_s": 0.2, "linger_s": 0}
    with (
        tcp_service(hang) as url,
        Station(tmp_path / "j", url, **options) as station,
    ):
        station.write(label(0))
        until(lambda: station.webhook.trouble)
        assert "it does not answer in time" in station.webhook.trouble


def test_the_pause_that_the_service_asks_for_is_kept(tmp_path, quiet):
    answers = [(503, {"Retry-After": "120"}), (200, {})]
    clock = ManualClock(autojump=False)
    with (
        HttpReceiver(lambda request: answers.pop(0)) as receiver,
        Station(tmp_path / "j", receiver.url, clock=clock, linger_s=0) as station,
    ):
        station.write(label(0))
        until(lambda: station.webhook.trouble)
        clock.advance(119.0)
        station.webhook.write(label(0))
        assert len(receiver.requests) == 1
        clock.advance(1.0)
        receiver.wait_for(2)


def test_no_more_requests_a_second_than_configured(tmp_path):
    clock, times = ManualClock(autojump=False), []

    def answer(request):
        times.append(clock.monotonic_ns())
        return 204, {}

    options = {"clock": clock, "most_per_s": 2, "linger_s": 0}
    with (
        HttpReceiver(answer) as receiver,
        Station(tmp_path / "j", receiver.url, **options) as station,
    ):
        for seq in range(3):
            station.write(label(seq))
            until(lambda: len(receiver.requests) > seq or clock.advance(0.1))  # noqa: B023
    assert all(after - before >= NS / 2 for before, after in pairwise(times))


@pytest.mark.parametrize("secret", ["long enough", "whsec_bG9uZyBlbm91Z2g="])
def test_requests_are_signed_as_standard_webhooks_says(tmp_path, secret):
    clock = ManualClock(1_700_000_000 * NS)
    options = {"clock": clock, "secret": secret, "linger_s": 0}
    with HttpReceiver() as receiver:
        with Station(tmp_path / "j", receiver.url, **options) as station:
            station.write(label(0))
            receiver.wait_for(1)
        (request,) = receiver.requests
    name, stamp = request.headers["webhook-id"], request.headers["webhook-timestamp"]
    content = f"{name}.{stamp}.".encode() + request.body
    digest = hmac.new(b"long enough", content, sha256).digest()
    expected = f"v1,{base64.b64encode(digest).decode()}"
    assert request.headers["webhook-signature"] == expected
    assert int(stamp) >= 1_700_000_000


def test_secrets_are_in_no_text(tmp_path, quiet, monkeypatch):
    url = "http://127.0.0.1:9/services/T0KEN"
    sink = make(
        tmp_path / "j",
        url,
        secret="s3cretive",
        headers={"Authorization": "Bearer x1y2z3"},
        linger_s=0,
    )
    write(tmp_path / "j", [])
    sink.open()
    sink.close()
    sink.open()
    write(tmp_path / "j", [label(0)])
    until(lambda: sink.trouble)
    texts = f"{sink.trouble} {sink.stats()} {(tmp_path / 'j.webhook.json').read_text()}"
    sink.close()
    assert not any(word in texts for word in ("T0KEN", "s3cretive", "x1y2z3"))


def test_headers_are_hidden_in_the_configuration_that_a_journal_keeps():
    headers = {"X-Api-Key": "x1y2z3", "Authorization": "Bearer ${TOKEN}"}
    kept = without_credentials({"options": {"headers": headers}})
    assert kept["options"]["headers"] == {
        "X-Api-Key": "***",
        "Authorization": "Bearer ${TOKEN}",
    }


def test_events_that_retention_removed_are_counted(tmp_path, quiet):
    path = tmp_path / "j"
    receiver = HttpReceiver()
    receiver.start()
    with Station(path, receiver.url) as station:
        station.write(label(0))
        receiver.wait_for(1)
        receiver.stop()
        station.webhook.limit_close(0.0)
    write(path, [label(seq) for seq in range(1, 10)])
    connection = sqlite3.connect(path)
    connection.execute("DELETE FROM messages WHERE rowid <= 5")
    connection.commit()
    connection.close()
    receiver.start()
    with Station(path, receiver.url, run="run-2") as station:
        receiver.wait_for(6)
        until(lambda: station.webhook.stats()["removed"] == 4)
    receiver.stop()
    assert numbers(receiver) == [0, 5, 6, 7, 8, 9]


def test_a_journal_that_was_set_aside_is_followed_by_its_successor(tmp_path):
    path = tmp_path / "j"
    with HttpReceiver() as receiver:
        webhook = make(path, receiver.url)
        write(path, [])
        webhook.open()
        write(path, [label(0), label(1)])
        receiver.wait_for(2)
        path.rename(tmp_path / "damaged")
        write(path, [label(7)], "run-2")
        receiver.wait_for(3)
        webhook.close()
    assert numbers(receiver) == [0, 1, 7]


def test_a_daily_summary_is_sent_once_also_after_a_restart(tmp_path, quiet):
    path = tmp_path / "j"
    noon = datetime(2026, 6, 1, 12, tzinfo=UTC)
    clock = ManualClock(int(noon.timestamp()) * NS, autojump=False)
    options = {
        "summary_at": "07:00",
        "timezone": "Europe/Berlin",
        "clock": clock,
        "linger_s": 0,
    }

    def advance_until(condition):
        until(lambda: clock.advance(0.1) or condition())

    receiver = HttpReceiver()
    receiver.start()
    with Station(path, receiver.url, **options) as station:
        station.write(replace(label(0), utc_ns=clock.utc_ns()))
        advance_until(lambda: station.webhook.stats()["sent"] == 1)
        receiver.stop()
        clock.advance(16 * 3600)
        assert station.webhook.trouble is None
        clock.advance(3600)  # it is after 07:00 in Berlin
        advance_until(lambda: station.webhook.trouble)
    receiver.start()
    with Station(path, receiver.url, run="run-2", **options):
        advance_until(lambda: len(receiver.requests) >= 2)
        state = tmp_path / "j.webhook.json"
        advance_until(lambda: "2026-06-02" in state.read_text())
    clock.advance(3600)
    with Station(path, receiver.url, run="run-3", **options) as station:
        station.write(replace(label(1), utc_ns=clock.utc_ns()))
        advance_until(lambda: len(receiver.requests) >= 3)
    receiver.stop()
    _, summary, after = receiver.requests
    body = json.loads(summary.body)
    assert body["kind"] == "summary"
    assert body["id"] == "summary/aviary-3/2026-06-02"
    assert body["since"] == "2026-06-01T07:00:00+02:00"
    assert body["until"] == "2026-06-02T07:00:00+02:00"
    assert body["total"]["units"] == {"b": 1}
    assert body["text"].endswith("0 segments: b 1")
    assert json.loads(after.body)["kind"] == "label"


def test_state_that_is_none_is_refused(tmp_path):
    write(tmp_path / "j", [])
    (tmp_path / "j.webhook.json").write_text("[]")
    with pytest.raises(ConfigError, match="is not the state of a delivery"):
        make(tmp_path / "j", "http://127.0.0.1:9/").open()


def test_a_state_that_another_engine_has_is_refused_until_it_ends(tmp_path):
    write(tmp_path / "j", [])
    sink = make(tmp_path / "j", "http://127.0.0.1:9/", state=str(tmp_path / "s.json"))
    sink.open()
    sink.close()
    other = os.open(tmp_path / ".s.json.lock", os.O_RDONLY)
    lock_file(other)
    with pytest.raises(ConfigError, match=r"s\.json' is in use: another engine"):
        sink.open()
    os.close(other)
    sink.open()
    sink.close()


def test_a_disk_that_is_full_at_the_start_does_not_end_the_run(tmp_path, monkeypatch):
    is_full = Event()
    is_full.set()

    def write_state(path, content):
        if is_full.is_set():
            raise OSError(ENOSPC, "No space left on device")
        write_whole(path, content)

    monkeypatch.setattr(state_module, "write_whole", write_state)
    with HttpReceiver() as receiver:
        with Station(tmp_path / "j", receiver.url) as station:
            assert "cannot be written: No space" in station.webhook.trouble
            station.write(label(0))
            receiver.wait_for(1)
            until(lambda: station.webhook.stats()["sent"] == 1)
            is_full.clear()
            station.write(label(1))
            receiver.wait_for(2)
            until(lambda: station.webhook.trouble is None)
        with Station(tmp_path / "j", receiver.url, run="run-2") as station:
            station.write(label(2))
            receiver.wait_for(3)
    assert numbers(receiver) == [0, 1, 2]


CONFIG = """
sinks:
  - {plugin: journal, options: {path: PATH}}
"""


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"url": "ftp://x/"}, "does not begin with https:// or http://"),
        ({"url": "https://u:p@x/"}, "a user stands in a header"),
        ({"url": "https:///x"}, "names no host"),
        ({"url": "https://x/a b"}, "character that no address has"),
        ({"journal": "other.sqlite"}, "no sink 'journal' of this configuration"),
        ({"headers": {"Host": "x"}}, "is the sink's own"),
        ({"headers": {"a b": "x"}}, "is no name of a header"),
        ({"headers": {"X": "a\nb"}}, "holds a character"),
        ({"secret_file": "missing"}, "cannot be read"),
        ({"secret": "whsec_????"}, "no base64"),
        ({"secret": "s3cret"}, "fewer than 8 characters"),
        ({"ca_file": "missing"}, "does not exist"),
        ({"timezone": "Mars/Olympus", "summary_at": "07:00"}, "is not known here"),
        (
            {"url": "http://example.org/", "headers": {"Authorization": "x"}},
            "unencrypted",
        ),
    ],
)
def test_mistakes_are_found_before_anything_is_sent(tmp_path, options, sentence):
    path = str(tmp_path / "j")
    checked = WebhookOptions.model_validate(
        {"url": "https://example.org/hook", "journal": path, **options}
    )
    text = CONFIG.replace("PATH", path)
    context = BuildContext(SystemClock(), "r", config_text=text)
    (problem,) = plugin.check(checked, context)
    assert sentence in problem
    assert options.get("secret", "?") not in problem


def test_bulky_kinds_and_times_that_are_none_are_refused(tmp_path):
    context = BuildContext(SystemClock(), "r", events=("frames",))
    checked = WebhookOptions(url="https://x/", journal=str(tmp_path / "j"))
    (problem,) = plugin.check(checked, context)
    assert "sends no frames" in problem
    with pytest.raises(ValueError, match="such as 07:00"):
        WebhookOptions(url="https://x/", journal="j", summary_at="7 am")
