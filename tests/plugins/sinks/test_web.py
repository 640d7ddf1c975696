"""Web sink: a run on the page, its sound, what privacy withholds, secrets, restarts."""

import io
import json
import wave
from threading import Event as Flag

import httpx
import numpy as np
import pytest
import yaml
from network.browsers import TOKEN, browser
from processes.cli_process import neurovocal, running
from processes.waiting import PATIENCE_S, until
from stages.runners import EPOCH, INFO, audio, make_runner, then_wait

from neurovocal.engine.contracts.clock import ManualClock, SystemClock
from neurovocal.engine.contracts.errors import ConfigError, StageError
from neurovocal.engine.contracts.plugin import BuildContext
from neurovocal.engine.contracts.types import (
    ASKED_KINDS,
    KINDS,
    Anchor,
    Block,
    Gap,
    Health,
    Message,
    Stats,
    Withheld,
)
from neurovocal.engine.testing import ScriptedSource, check_sink
from neurovocal.plugins.sinks.web import WebOptions, plugin

pytestmark = pytest.mark.usefixtures("no_threads_left")

LOUD = audio("..##..##..")


def make(**options):
    checked = WebOptions(**{"endpoint": "127.0.0.1:0", **options})
    return plugin.build(checked, BuildContext(SystemClock(), "run1", stream="aviary"))


def url(sink):
    return sink._server.url


def message(event, seq=0, info=INFO):
    return Message(info, event, seq, 0)


@pytest.fixture
def sink():
    sink = make()
    sink.open()
    yield sink
    sink.close()


def test_sink_passes_the_conformance_checks():
    messages = [
        message(Gap(0, 10, "overrun")),
        message(Block(10, np.zeros((10, 1), np.float32))),
        message(Health("source", "healthy", "")),
        message(Stats({"frames": None})),
        message(Anchor(3, EPOCH)),
    ]
    check_sink(make, messages)


def test_sink_takes_what_the_page_shows():
    shown = set(KINDS.values()) - {"posteriors", "audio"}
    assert make().wants == shown
    assert make(sound_s=0).wants == shown - {"block"}
    assert "trace" in ASKED_KINDS & make().wants


def test_a_run_is_shown_and_heard(background):
    clock, done = ManualClock(EPOCH), Flag()
    sink = make()

    def script():
        yield Anchor(0, EPOCH)
        yield LOUD
        yield from then_wait([], done)

    runner = make_runner(
        ScriptedSource(INFO, script(), live=True), sink, models=["namer"], clock=clock
    )
    wait = background(runner.run)
    until(lambda: sink._server is not None)
    with browser(url(sink)) as page:
        page.until(lambda seen: len(seen.events("label")) == 2 and seen.columns)
        hello = page.texts[0]
        labels, onsets = page.events("label"), page.events("onset")
        address = f"{url(sink)}api/sound?stream={INFO.stream}&start=20&stop=40"
        until(lambda: httpx.get(address, timeout=PATIENCE_S).status_code == 200)
        sound = httpx.get(address, timeout=PATIENCE_S).content
    done.set()
    wait()
    assert (hello["stations"][0]["name"], hello["stations"][0]["sound"]) == (
        "aviary",
        True,
    )
    assert [onset["sample"] for onset in onsets] == [20, 60]
    assert [(label["onset"], label["offset"]) for label in labels] == [
        (20, 40),
        (60, 80),
    ]
    assert labels[0]["run"] == "run1"
    assert labels[0]["utc_ns"] == EPOCH + 20_000_000
    with wave.open(io.BytesIO(sound)) as file:
        samples = np.frombuffer(file.readframes(100), "<i2")
    assert samples.tolist() == [round(0.9 * 32767)] * 20


@pytest.mark.parametrize(
    "privacy", [{"mode": "labels_only"}, {"gate": {"plugin": "above"}}]
)
def test_withheld_sound_never_reaches_the_page(background, privacy, tmp_path):
    gate = tmp_path / "gate.py"
    gate.write_text(GATE)
    if "gate" in privacy:
        voice = {"gate": {"plugin": f"{gate}:plugin"}}
        privacy = {"before_s": 0.0, "after_s": 0.0, **voice}
    done, sink = Flag(), make()
    source = ScriptedSource(INFO, then_wait([LOUD, audio("." * 100, 100)], done))
    runner = make_runner(
        source, sink, models=["namer"], clock=ManualClock(EPOCH), privacy=privacy
    )
    wait = background(runner.run)
    until(lambda: sink._server is not None)
    with browser(url(sink)) as page:
        page.until(lambda seen: len(seen.events("label")) == 2)
        page.until(lambda seen: seen.events("withheld"))
        address = f"{url(sink)}api/sound?stream={INFO.stream}&start=20&stop=40"
        assert httpx.get(address, timeout=PATIENCE_S).status_code == 404
        shown = page.columns
    done.set()
    wait()
    assert [columns for columns in shown if columns.kind == "frames"] == []
    kept = sink._show._parts.sound._streams.get(INFO.stream)
    loud = round(0.5 * 32767)
    parts = [] if kept is None else [part for _, part in kept.parts]
    assert not any((part > loud).any() for part in parts)


GATE = '''
from neurovocal.engine import BuildContext, Gap, Options, Plugin, VoiceInterval


class Above:
    """Gate for which a voice is a sample above one half."""

    def process(self, item):
        if isinstance(item, Gap):
            return
        for start in range(item.start, item.stop, 10):
            piece = item.samples[start - item.start : start - item.start + 10]
            voice = bool(piece.max() > 0.5)
            yield VoiceInterval(start, start + len(piece), voice)

    def flush(self):
        return ()

    def reset(self):
        pass


plugin = Plugin("gate", Options, lambda options, context: Above(), "a test's")
'''


def test_withheld_sound_is_said_to_be_withheld(sink):
    sink.write(message(Block(0, np.zeros((10, 1), np.float32))))
    sink.write(message(Withheld(10, 100, "voice")))
    address = f"{url(sink)}api/sound?stream={INFO.stream}&start=20&stop=40"
    answer = httpx.get(address, timeout=PATIENCE_S)
    assert answer.status_code == 404
    assert "privacy" in answer.json()["error"]


def test_without_sound_none_is_kept():
    silent = make(sound_s=0)
    silent.open()
    silent.write(message(Block(0, np.zeros((10, 1), np.float32))))
    answer = httpx.get(
        f"{url(silent)}api/sound?stream=cage&start=0&stop=10", timeout=PATIENCE_S
    )
    silent.close()
    assert answer.status_code == 404
    assert "sound_s" in answer.json()["error"]


def test_a_sink_that_was_closed_refuses_messages_and_opens_again(sink):
    sink.write(message(Gap(0, 10, "overrun")))
    sink.close()
    with pytest.raises(StageError):
        sink.write(message(Gap(10, 20, "overrun"), 1))
    sink.open()
    sink.write(message(Gap(20, 30, "overrun"), 2))
    with browser(url(sink)) as page:
        page.until(lambda seen: len(seen.events("gap")) == 2)
        assert [gap["seq"] for gap in page.events("gap")] == [0, 2], "the last minute"


def test_a_browser_is_back_after_a_restart_and_misses_nothing(sink):
    sink._options = sink._options.model_copy(
        update={"endpoint": url(sink).removeprefix("http://").rstrip("/")}
    )
    with browser(url(sink)) as page:
        sink.write(message(Gap(0, 10, "overrun"), 0))
        page.until(lambda seen: seen.events("gap"))
        sink.close()
        assert page.end().rcvd.code == 1001
    sink.open()
    sink.write(message(Gap(10, 20, "overrun"), 1))
    with browser(url(sink)) as page:
        page.until(lambda seen: len(seen.events("gap")) == 2)


def test_a_server_that_has_ended_is_a_failure_of_the_sink(sink, quiet):
    sink._server._failure = RuntimeError("it is gone")
    with pytest.raises(StageError):
        sink.write(message(Gap(0, 10, "overrun")))


def problems(**options):
    context = BuildContext(ManualClock(0), "r")
    return list(plugin.check(WebOptions(**options), context))


def test_mistakes_are_found_before_anything_is_opened():
    assert problems() == []
    assert "lets other machines" in problems(endpoint="0.0.0.0:8420")[0]
    assert problems(endpoint="0.0.0.0:8420", token=TOKEN) == []
    assert "HOST:PORT" in problems(endpoint="8420")[0]
    assert "16 at least" in problems(token="short")[0]
    assert "tcp://" in problems(control="127.0.0.1:5557")[0]
    assert "no 'control'" in problems(control_keys="keys")[0]
    with pytest.raises(ConfigError, match="other machines"):
        make(endpoint="0.0.0.0:0").open()


def test_two_pages_at_one_port_are_a_mistake_of_the_configuration():
    assert plugin.resources(WebOptions()) == {"tcp:8420"}
    assert plugin.resources(WebOptions(endpoint="127.0.0.1:0")) == frozenset()


def test_options_tell_the_address_of_the_page():
    assert WebOptions().page == "http://127.0.0.1:8420/"
    assert WebOptions(endpoint="0.0.0.0:80").page == "http://127.0.0.1:80/"
    assert WebOptions(endpoint="127.0.0.1:0").page == ""
    assert WebOptions(endpoint="nonsense").page == ""


def test_secrets_are_not_shown_with_the_options():
    options = WebOptions(token=TOKEN, user="bird", password="hay and seed")
    for shown in (repr(options), options.model_dump_json()):
        assert "many letters" not in shown
        assert "hay" not in shown


CONFIG = {
    "version": 1,
    "source": {
        "plugin": "synthetic",
        "options": {"duration_s": 3600, "pace": "realtime"},
    },
    "detector": {"plugin": "energy"},
    "sinks": [{"plugin": "web", "options": {"endpoint": "127.0.0.1:0"}}],
    "stop_timeout_s": 60,
}


def write_config(tmp_path, **options):
    config = json.loads(json.dumps(CONFIG))
    config["sinks"][0]["options"] |= options
    path = tmp_path / "page.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def test_run_prints_the_address_and_ctrl_c_ends_it_cleanly(tmp_path):
    with running("run", write_config(tmp_path), "--plain") as process:
        address = ""
        while not address:
            line = process.stderr.readline()
            assert line, "the program has ended"
            if "page: http://" in line:
                address = line.partition("page: ")[2].split()[0]
        with browser(address) as page:
            page.until(lambda seen: seen.columns and seen.events("stats"))
            stats = page.events("stats")[0]
            assert stats["values"]["frames"]["spacing"] == "linear"
            process.send_signal(2)
            assert page.end().rcvd.code == 1001
        assert process.wait(PATIENCE_S) == 0


def test_a_port_in_use_is_a_sentence_with_the_fix(tmp_path, sink):
    port = url(sink).rstrip("/").rpartition(":")[2]
    config = write_config(tmp_path, endpoint=f"127.0.0.1:{port}")
    done = neurovocal("run", config, "--plain")
    assert done.code == 1
    (line,) = [line for line in done.err.splitlines() if "in use" in line]
    assert f"127.0.0.1:{port}" in line
    assert f"such as 127.0.0.1:{int(port) + 1}" in line
    assert "Traceback" not in done.err
    assert "page: http" not in done.err  # nobody answers there


@pytest.mark.parametrize("command", ["check", "run"])
def test_a_secret_of_the_environment_is_in_no_output(tmp_path, monkeypatch, command):
    monkeypatch.setenv("PAGE_TOKEN", "x4-secret")
    done = neurovocal(command, write_config(tmp_path, token="${PAGE_TOKEN}"))
    assert done.code == 1
    assert "the token has 9 characters" in done.err
    assert "x4-secret" not in done.err + done.out
