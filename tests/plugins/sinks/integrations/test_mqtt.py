"""MQTT sink: a real broker and subscriber get every event, and the states."""

import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from network.mosquitto import Mosquitto, Subscriber, free_port
from processes.waiting import until
from repository import import_path
from stages.journals import INFO, label, write
from stages.journals import build as build_journal

from neurovocal.engine.contracts.clock import NS, ManualClock, SystemClock
from neurovocal.engine.contracts.plugin import BuildContext
from neurovocal.engine.contracts.registry import Registry
from neurovocal.engine.contracts.types import Health, Message, Offset, Stats
from neurovocal.engine.testing import check_sink
from neurovocal.plugins.sinks.integrations.mqtt.sink import MqttOptions, plugin

pytestmark = pytest.mark.usefixtures("no_threads_left", "quiet")
BASE = "neurovocal/aviary-3"


@pytest.fixture
def broker(tmp_path):
    with Mosquitto(tmp_path) as running:
        yield running


def make(broker, clock=None, run="run-1", events=None, **options):
    address = broker if isinstance(broker, str) else broker.address
    checked = MqttOptions.model_validate({"broker": address, **options})
    context = BuildContext(
        clock or SystemClock(), run, stream="aviary-3", events=events
    )
    return plugin.build(checked, context)


class Station:
    """MQTT sink that is open, with a journal if its options name one."""

    def __init__(self, broker, run="run-1", **options):
        self.sink = make(broker, run=run, **options)
        path = options.get("journal")
        self._journal = None if path is None else build_journal(path, run, commit_ms=0)

    def __enter__(self):
        if self._journal is not None:
            self._journal.open()
        self.sink.open()
        return self

    def __exit__(self, *error):
        if self._journal is not None:
            self._journal.close()
        self.sink.close()

    def write(self, *messages):
        for message in messages:
            if self._journal is not None and message.kind != "stats":
                self._journal.write(message)
            self.sink.write(message)


def test_is_installed_and_keeps_the_contract_of_sinks(broker):
    assert Registry().get("sink", "mqtt") is plugin
    check_sink(lambda: make(broker), [label(0)])


def test_events_arrive_as_json_in_a_topic_of_their_kind(broker):
    with Subscriber(broker) as subscriber:
        with Station(broker) as station:
            station.write(label(0), label(1))
            until(lambda: len(subscriber.events()) == 2)
            assert station.sink.trouble is None
        until(lambda: subscriber.newest(f"{BASE}/availability") == b"offline")
        assert (station.sink.losses, station.sink.stats()["sent"]) == (None, 2)
    first = json.loads(subscriber.newest(f"{BASE}/aviary-3/label"))
    assert (first["seq"], first["unit"], first["station"]) == (1, "b", "aviary-3")
    assert first["id"] == "run-1/label/aviary-3/1"
    topics = [topic for topic, _ in subscriber.messages]
    assert topics[0] == f"{BASE}/availability"
    assert subscriber.messages[0][1] == b"online"


@pytest.mark.parametrize("has_journal", [False, True])
def test_a_broker_that_is_away_gets_all_in_order_and_nothing_twice(
    broker, tmp_path, has_journal
):
    options = {"journal": str(tmp_path / "j")} if has_journal else {}
    with Subscriber(broker) as subscriber, Station(broker, **options) as station:
        station.write(label(0))
        until(lambda: subscriber.numbers() == [0])
        broker.stop()
        station.write(*map(label, range(1, 500)))
        until(lambda: station.sink.trouble)
        assert f"broker {broker.address}: " in station.sink.trouble
        broker.start()
        until(lambda: len(subscriber.numbers()) >= 500)
        until(lambda: station.sink.trouble is None)
        repeated = station.sink.stats()["repeated"]
    assert sorted(set(subscriber.numbers())) == list(range(500))
    # Those under way when the broker went had not been acknowledged.
    assert len(subscriber.numbers()) - 500 <= repeated <= 20
    assert station.sink.losses is None


def test_a_broker_that_hangs_is_left_and_repeats_are_counted(broker):
    with (
        Subscriber(broker) as subscriber,
        Station(broker, timeout_s=0.3) as station,
    ):
        station.write(label(0))
        until(lambda: subscriber.numbers() == [0])
        broker.hang()
        station.write(*map(label, range(1, 50)))
        until(lambda: station.sink.trouble)
        assert "does not" in station.sink.trouble
        broker.go_on()
        until(lambda: set(subscriber.numbers()) == set(range(50)))
        until(lambda: station.sink.trouble is None)
        repeated = station.sink.stats()["repeated"]
        assert len(subscriber.numbers()) - 50 <= repeated <= 200


def test_without_a_journal_the_oldest_are_lost_and_counted(tmp_path):
    broker = Mosquitto(tmp_path)
    with Station(broker, queue_length=10, linger_s=0.1) as station:
        until(lambda: station.sink.trouble)
        station.write(*map(label, range(25)))
        assert "connection refused" in station.sink.trouble
        assert "15 events are lost" in station.sink.trouble
        stats = station.sink.stats()
        assert (stats["waiting"], stats["dropped"]) == (10, 15)
    assert station.sink.losses == f"25 events did not reach broker {broker.address}"


def test_a_later_run_publishes_what_the_last_one_could_not(tmp_path):
    path = str(tmp_path / "j")
    broker = Mosquitto(tmp_path)
    with Station(broker, journal=path, linger_s=0.1) as station:
        station.write(label(0), label(1))
        until(lambda: station.sink.trouble)
    assert station.sink.losses is None
    with broker, Subscriber(broker) as subscriber:
        with Station(broker, run="run-2", journal=path) as station:
            station.write(label(0))
            until(lambda: len(subscriber.events()) == 3)
        assert [event["id"] for event in subscriber.events()] == [
            "run-1/label/aviary-3/0",
            "run-1/label/aviary-3/1",
            "run-2/label/aviary-3/0",
        ]


def test_a_killed_engine_is_offline_and_publishes_the_rest_later(broker, tmp_path):
    path = str(tmp_path / "j")
    script = f"""
import os, sys
sys.path[:0] = {import_path(__file__).split(":")!r}
from pathlib import Path
from stages.journals import build, label
from neurovocal.engine.contracts.clock import SystemClock
from neurovocal.engine.contracts.plugin import BuildContext
from neurovocal.plugins.sinks.integrations.mqtt.sink import *
journal = build(Path({path!r}), commit_ms=0)
journal.open()
options = MqttOptions(broker={broker.address!r}, journal={path!r}, most_per_s=200)
sink = plugin.build(options, BuildContext(SystemClock(), "run-1", stream="aviary-3"))
sink.open()
for seq in range(300):
    journal.write(label(seq))
    sink.write(label(seq))
sys.stdout.write("written")
sys.stdout.flush()
sys.stdin.read()
"""
    with Subscriber(broker) as subscriber:
        process = subprocess.Popen(
            [sys.executable, "-c", script],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert process.stdout.read(7) == b"written"
        until(lambda: len(subscriber.numbers()) >= 20)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        until(lambda: subscriber.newest(f"{BASE}/availability") == b"offline")
        with Station(broker, run="run-2", journal=path):
            until(lambda: set(subscriber.numbers()) == set(range(300)))
        assert len(subscriber.numbers()) - 300 <= 20


def test_states_are_retained_and_follow_the_messages(broker):
    with Station(broker) as station:
        station.write(
            label(0),
            Message(INFO, Offset(0, 0, 9, False), 0, 9),
            Message(INFO, Stats({"level_db": -41.5, "lag_ms": 2.0}), 0, 9),
            Message(INFO, Health("source", "recovering", "unplugged"), 0, 9),
        )
        topic = f"{BASE}/aviary-3/state"
        with Subscriber(broker) as subscriber:  # a late one gets the newest
            until(lambda: b"unplugged" in (subscriber.newest(topic) or b""))
            state = json.loads(subscriber.newest(topic))
            assert state == {
                "label": "b",
                "posterior": 0.5,
                "time": "1970-01-01T00:00:00.000Z",
                "segments": 1,
                "labels": 1,
                "units": {"b": 1},
                "level_db": -41.5,
                "lag_ms": 2.0,
                "problem": "ON",
                "health": "source: recovering, unplugged",
            }
            station.write(Message(INFO, Health("source", "healthy", "again"), 1, 9))
            until(lambda: b'"OFF"' in subscriber.newest(topic))


def test_home_assistant_finds_a_device_whose_topics_have_its_values(broker):
    with Subscriber(broker) as subscriber:
        with Station(broker, discovery="homeassistant") as station:
            station.write(
                label(0), Message(INFO, Stats({"level_db": -41.5, "lag_ms": 2.0}), 0, 9)
            )
            until(
                lambda: b"-41.5" in (subscriber.newest(f"{BASE}/aviary-3/state") or b"")
            )
        until(lambda: subscriber.newest(f"{BASE}/availability") == b"offline")
        configs = {
            topic: json.loads(payload)
            for topic, payload in subscriber.messages
            if topic.startswith("homeassistant/")
        }
        assert len(configs) == 6
        for topic, config in configs.items():
            pattern = r"homeassistant/(sensor|binary_sensor)/[\w-]+/config"
            assert re.fullmatch(pattern, topic)
            assert config["unique_id"] in topic
            assert config["device"]["identifiers"] == ["neurovocal-aviary-3"]
            assert config["availability_topic"] == f"{BASE}/availability"
            state = json.loads(subscriber.newest(config["state_topic"]))
            (key,) = re.findall(r"value_json\.(\w+)", config["value_template"])
            assert key in state
    names = {config["name"] for config in configs.values()}
    assert "aviary-3 last label" in names


def test_names_of_streams_make_no_levels_and_no_wildcards(broker):
    odd = replace(label(0), info=replace(INFO, stream="a/b+#\udcff.wav"))
    with Subscriber(broker) as subscriber:
        with Station(broker, discovery="homeassistant") as station:
            station.write(odd)
            until(lambda: subscriber.events())
        (topic,) = [t for t, _ in subscriber.messages if t.endswith("/label")]
    assert topic == f"{BASE}/a%2Fb%2B%23%FF.wav/label"


def test_a_daily_summary_is_published_once(broker, tmp_path):
    noon = datetime(2026, 6, 1, 12, tzinfo=UTC)
    clock = ManualClock(int(noon.timestamp()) * NS, autojump=False)
    options = {
        "journal": str(tmp_path / "j"),
        "summary_at": "07:00",
        "linger_s": 0,
        "clock": clock,
    }

    def advance_until(condition):
        until(lambda: clock.advance(0.1) or condition())

    with Subscriber(broker) as subscriber:
        with Station(broker, **options) as station:
            station.write(replace(label(0), utc_ns=clock.utc_ns()))
            advance_until(lambda: subscriber.events())
            clock.advance(20 * 3600)
            advance_until(lambda: subscriber.events("summary"))
            state = tmp_path / "j.mqtt.json"
            advance_until(lambda: "2026-06-02" in state.read_text())
        with Station(broker, run="run-2", **options) as station:
            station.write(replace(label(0), utc_ns=clock.utc_ns()))
            advance_until(lambda: len(subscriber.events()) >= 2)
        (summary,) = subscriber.events("summary")
    assert summary["id"] == "summary/aviary-3/2026-06-02"
    assert summary["total"]["units"] == {"b": 1}


def test_user_and_password_are_those_of_the_broker(tmp_path):
    passwords = tmp_path / "passwords"
    subprocess.run(
        ["mosquitto_passwd", "-b", "-c", str(passwords), "finch", "s3cretive"],
        check=True,
    )
    (tmp_path / "secret").write_text("s3cretive\n")
    lines = ["allow_anonymous false", f"password_file {passwords}"]
    with Mosquitto(tmp_path, *lines) as broker:
        with Station(broker, user="finch", password="wrong one", linger_s=0) as station:
            until(lambda: station.sink.trouble)
            assert "refuses the client: not authorized" in station.sink.trouble
            assert "wrong one" not in f"{station.sink.trouble} {station.sink.stats()}"
        secret = str(tmp_path / "secret")
        with (
            Subscriber(broker, user="finch", password="s3cretive") as subscriber,
            Station(broker, user="finch", password_file=secret) as station,
        ):
            station.write(label(0))
            until(lambda: subscriber.numbers() == [0])


@pytest.fixture(scope="session")
def certificates(tmp_path_factory):
    """Make a certificate of 127.0.0.1 and its key."""
    folder = tmp_path_factory.mktemp("certificates")
    command = (
        "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=127.0.0.1 "
        "-addext subjectAltName=IP:127.0.0.1 -keyout key.pem -out cert.pem"
    )
    subprocess.run(command.split(), cwd=folder, check=True, capture_output=True)
    return folder / "cert.pem", folder / "key.pem"


# The library drops a socket whose handshake failed without closing it.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_tls_is_checked(tmp_path, certificates):
    certificate, key = map(str, certificates)
    plain = free_port()
    lines = [
        *("allow_anonymous true", f"certfile {certificate}", f"keyfile {key}"),
        *(f"listener {plain} 127.0.0.1", "allow_anonymous true"),
    ]
    with Mosquitto(tmp_path, *lines) as broker:
        with Station(broker, tls=True, linger_s=0) as station:
            until(lambda: station.sink.trouble)
            assert "certificate is not trusted" in station.sink.trouble
        with Station(broker, tls=True, ca_file=certificate) as station:
            station.write(label(0))
            until(lambda: station.sink.stats()["sent"] == 1)
        with Station(f"127.0.0.1:{plain}", tls=True, linger_s=0) as station:
            until(lambda: station.sink.trouble)
            assert "may expect no encryption" in station.sink.trouble


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"broker": "localhost"}, "has no port"),
        ({"password": "x"}, "needs the name of its user"),
        ({"broker": "nas:1883", "user": "u", "password": "x"}, "unencrypted"),
        ({"user": "u", "password_file": "missing"}, "cannot be read"),
        ({"ca_file": "x"}, "is for 'tls: true'"),
        ({"tls": True, "key_file": "x"}, "belongs to a cert_file"),
        ({"tls": True, "ca_file": "missing"}, "cannot be used for TLS"),
        ({"summary_at": "07:00"}, "name it with the option journal"),
        ({"state": "s.json"}, "with 'journal' only"),
    ],
)
def test_mistakes_are_found_before_anything_is_sent(options, sentence):
    context = BuildContext(SystemClock(), "r")
    (problem,) = plugin.check(MqttOptions.model_validate(options), context)
    assert sentence in problem


@pytest.mark.parametrize("topic", ["", "/a", "a/", "a//b", "a/+", "#", "a" * 2000])
def test_topics_that_are_none_are_refused(topic):
    with pytest.raises(ValueError, match="no '\\+' or '#'"):
        MqttOptions(topic=topic)


def test_topics_of_the_broker_itself_are_refused():
    with pytest.raises(ValueError, match="the broker's own"):
        MqttOptions(topic="$SYS/neurovocal")


def test_an_engine_starts_without_its_broker(tmp_path):
    write(tmp_path / "j", [])
    sink = make(f"127.0.0.1:{free_port()}", linger_s=0)
    sink.open()
    until(lambda: sink.trouble)
    sink.close()
