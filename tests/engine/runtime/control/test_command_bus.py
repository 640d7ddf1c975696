"""Command bus: effects, replies and refusals of commands during a run."""

from threading import Event as Flag
from threading import Thread

import pytest
from processes.waiting import PATIENCE_S
from pydantic import Field
from stages import runners as scripted
from stages.runners import EPOCH, RATE, SegmentLabeller, audio, many, then_wait

from neurovocal.engine.contracts.clock import ManualClock
from neurovocal.engine.contracts.errors import ConfigError
from neurovocal.engine.contracts.options import Options
from neurovocal.engine.contracts.stages import ModelCommand, RecordedCommand
from neurovocal.engine.contracts.types import Control, Label, Offset, StreamInfo
from neurovocal.engine.runtime.runner import Runner
from neurovocal.engine.testing import CollectSink, ScriptedSource, canonical

pytestmark = pytest.mark.usefixtures("quiet", "no_threads_left")


class DialOptions(Options):
    unit: str = Field(default="a", min_length=1, max_length=4)
    loud: int = Field(default=1, ge=0, le=9)
    fixed: int = 0


class ShoutOptions(Options):
    times: int = Field(ge=1)


class Dial(SegmentLabeller):
    """Labels each segment with the unit that it is set to."""

    adjustable = frozenset({"unit", "loud"})
    commands = {"shout": ShoutOptions}

    def __init__(self):
        self.options = DialOptions()
        self.times = 1

    def prepare(self, command, arguments):
        if command == "shout" and arguments.times > 5:
            raise ConfigError("five times is the most")
        return arguments

    def apply(self, command, prepared):
        if command == "set":
            self.options = prepared
            if prepared.unit == "trap":
                raise RuntimeError("it snapped")
        else:
            self.times = prepared.times

    def process(self, item):
        if isinstance(item, Offset):
            unit = self.options.unit * self.times
            yield Label(item.segment, item.onset, item.sample, unit, 1.0, "final", "d")


@pytest.fixture(autouse=True)
def dial(monkeypatch):
    monkeypatch.setitem(scripted.STAGES, "dial", Dial)


class Live:
    """Run with a source that waits until `done` is set."""

    def __init__(self, *, models=("dial",), lanes=1, before=3):
        self.more, self.done = Flag(), Flag()
        self.begun = [Flag() for _ in range(lanes)]
        self.sink = CollectSink()
        sources = [
            ScriptedSource(StreamInfo(f"s{i}", RATE), self._items(before, begun))
            for i, begun in enumerate(self.begun)
        ]
        clock = ManualClock(EPOCH)
        self.runner = scripted.make_runner(
            sources, self.sink, clock=clock, models=models
        )
        self.runner.bus._patience_s = PATIENCE_S
        self._thread = Thread(target=self._run, daemon=True)

    def _items(self, before, begun):
        blocks = many(1000)
        yield from (next(blocks) for _ in range(before))
        begun.set()  # all blocks before have been read
        yield from then_wait((), self.more)
        yield from then_wait((next(blocks) for _ in range(3)), self.done)

    def _run(self):
        self.outcome = self.runner.run()

    def __enter__(self):
        self._thread.start()
        assert all(begun.wait(PATIENCE_S) for begun in self.begun)
        return self

    def __exit__(self, *_):
        self.more.set()
        self.done.set()
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive()

    def ask(self, command, **more):
        return self.runner.bus.submit({"v": 1, "id": 7, "command": command, **more})

    def set(self, **arguments):
        return self.ask("set", arguments=arguments)

    def units(self):
        return [label.unit for label in self.sink.events(Label)]


def test_set_takes_effect_at_the_sample_that_the_reply_names():
    with Live() as live:
        reply = live.set(unit="b")
        (applied,) = reply["applied"]
        assert reply == {
            "v": 1,
            "id": 7,
            "ok": True,
            "command": "set",
            "applied": [
                {
                    "stream": "s0",
                    "sample": applied["sample"],
                    "seconds": applied["sample"] / scripted.RATE,
                }
            ],
            "options": {"unit": "b", "loud": 1},
        }
        assert applied["sample"] % scripted.QUANTUM == 0
    (control,) = live.sink.events(Control)
    assert control == Control(applied["sample"], "set", "dial", {"unit": "b"})
    offsets = [label.offset for label in live.sink.events(Label)]
    # A mark is known with the quantum that it lies in.
    expected = ["a" if o <= applied["sample"] else "b" for o in offsets]
    assert live.units() == expected
    assert set(expected) == {"a", "b"}
    assert live.outcome.exit_code == 0


def test_settings_accumulate_and_status_lists_them():
    with Live() as live:
        live.set(unit="b")
        live.set(loud=4)
        status = live.ask("status")
        assert status["ok"]
        (lane,) = status["lanes"]
        assert lane["models"] == [
            {
                "model": "dial",
                "index": 0,
                "failed": False,
                "options": {"loud": 4, "unit": "b"},
                "commands": ["set", "shout"],
            }
        ]
        (stream,) = lane["streams"]
        assert (stream["stream"], stream["sample_rate"]) == ("s0", RATE)
        assert stream["events"]["label"] >= 1
        assert live.ask("ping")["run"] == "test"


BAD = [
    (None, "a command: must be an object, such as {}"),
    ({}, "'v' is missing"),
    ({"v": 2, "command": "ping"}, "'v' is wrong: must be 1 (got 2)"),
    ({"v": 1, "command": "ping", "lane": 3}, "'lane' is wrong"),
    ({"v": 1, "command": "ping", "modle": 3}, "did you mean 'model'?"),
    ({"v": 1, "command": "ping", "lane": "x"}, "no lane 'x' (there is: 'lane0')"),
    ({"v": 1, "command": "x" * 65}, "'command' is wrong"),
    ({"v": 1, "command": "sett"}, "unknown command 'sett' (did you mean 'set'?)"),
    ({"v": 1, "command": "set"}, "it can: loud, unit"),
    ({"v": 1, "command": "set", "model": "x"}, "no model 'x' (there is: 0 (dial))"),
    ({"v": 1, "command": "set", "model": 1}, "no model '1' (there is: 0 (dial))"),
    ({"v": 1, "command": "set", "model": "9" * 4000}, "no model '999"),
    ({"v": 1, "command": "set", "model": "9" * 5000}, "'model' is wrong"),
    ({"v": 1, "command": "set", "model": 10**5000}, "the engine failed"),
    ({"v": 1, "command": "set", "lane": "x" * 4000}, "no lane 'xxx"),
    ({"v": 1, "id": 10**5000, "command": "ping", "lane": "x"}, "no lane 'x'"),
    ({"v": 1, "command": "shout"}, "'shout': 'times' is missing"),
]
BAD_SETTINGS = [
    ({"loud": 10}, "'loud' is wrong: must be at least 0 and at most 9"),
    ({"loud": None}, "'loud' is wrong"),
    ({"unit": "b", "loud": "x"}, "'loud' is wrong"),
    ({"unitt": "b"}, "unknown option 'unitt' (did you mean 'unit'?)"),
    ({"fixed": 1}, "'fixed' cannot be changed while it runs (these can: loud, unit)"),
    ({"unit": "trap"}, "it failed: RuntimeError: it snapped"),
]


@pytest.mark.parametrize(
    ("request_", "sentence"),
    [
        *BAD,
        *(
            ({"v": 1, "command": "set", "arguments": a}, s)
            for a, s in BAD_SETTINGS[:-1]
        ),
        (
            {"v": 1, "command": "shout", "arguments": {"times": 6}},
            "five times is the most",
        ),
    ],
)
def test_an_invalid_request_changes_nothing_and_names_its_mistake(request_, sentence):
    with Live() as live:
        reply = live.runner.bus.submit(request_)
        assert (reply["ok"], reply["v"], set(reply)) == (
            False,
            1,
            {"v", "id", "ok", "error"},
        )
        assert sentence in reply["error"]
        assert "\n" not in reply["error"]
        (model,) = live.ask("status")["lanes"][0]["models"]
        assert model["options"] == {"unit": "a", "loud": 1}
    assert live.sink.events(Control) == []
    assert set(live.units()) == {"a"}


def test_a_model_that_fails_to_apply_a_command_does_not_stop_the_lane():
    with Live() as live:
        reply = live.set(unit="trap")
        assert reply["error"] == "lane 'lane0': it failed: RuntimeError: it snapped"
        assert live.set(unit="c")["ok"]
    assert live.outcome.exit_code == 0
    assert live.units()[-1] == "c"


def test_a_models_own_command_is_applied():
    with Live() as live:
        assert live.ask("shout", arguments={"times": 3}, model="dial")["ok"]
    assert live.units()[-1] == "aaa"
    assert live.sink.events(Control)[0].command == "shout"


def test_a_command_must_name_its_model_when_two_take_commands():
    with Live(models=["dial", "dial"]) as live:
        assert "say which 'model'" in live.set(unit="b")["error"]
        assert (
            "several models are 'dial'"
            in live.ask("set", model="dial", arguments={"unit": "b"})["error"]
        )
        assert live.ask("set", model=1, arguments={"unit": "b"})["ok"]
    assert live.units()[-2:] == ["a", "b"]


def test_a_command_to_a_model_without_commands_is_refused():
    with Live(models=["namer"]) as live:
        assert "no model that takes 'set'" in live.set(unit="b")["error"]
        assert "takes no commands" in live.ask("set", model="namer")["error"]
        assert "options" not in live.ask("status")["lanes"][0]["models"][0]


def test_a_command_addresses_all_lanes_or_one():
    with Live(lanes=2) as live:
        reply = live.set(unit="b")
        assert [a["stream"] for a in reply["applied"]] == ["s0", "s1"]
        one = live.ask("set", lane="lane1", arguments={"unit": "c"})
        assert [a["stream"] for a in one["applied"]] == ["s1"]
    last = {
        m.info.stream: m.event.unit for m in live.sink.messages if m.kind == "label"
    }
    assert last == {"s0": "b", "s1": "c"}


def test_command_stop_ends_the_run_in_order():
    live = Live()
    with live:
        assert live.ask("stop")["ok"]
        live._thread.join(PATIENCE_S)
        assert not live._thread.is_alive()
        assert live.outcome.exit_code == 0
        assert "has ended" in live.set(unit="b")["error"]
        assert live.ask("status")["lanes"] == [{"lane": "lane0", "ended": True}]
    assert [c.command for c in live.sink.events(Control)] == ["stop"]


def test_a_command_that_times_out_is_reported_and_never_applied_later():
    entered, release = Flag(), Flag()

    def items():
        yield audio("..##.")
        entered.set()
        release.wait(PATIENCE_S)
        yield audio("..##.", 50)

    sink = CollectSink()
    source = ScriptedSource(StreamInfo("s0", RATE), items())
    runner = scripted.make_runner(source, sink, models=["dial"])
    runner.bus._patience_s = 0.05
    thread = Thread(target=runner.run, daemon=True)
    thread.start()
    entered.wait(PATIENCE_S)
    reply = runner.bus.submit({"v": 1, "command": "set", "arguments": {"unit": "b"}})
    assert "did not take the command within 0.05 s" in reply["error"]
    release.set()
    thread.join(PATIENCE_S)
    assert {label.unit for label in sink.events(Label)} == {"a"}
    assert sink.events(Control) == []


def test_settings_are_kept_when_a_new_stream_rebuilds_the_lane():
    begun, more = Flag(), Flag()

    def items():
        begun.set()
        yield from then_wait([audio("..##.")], more)
        yield StreamInfo("other", 2 * RATE)
        yield audio("..##.")

    sink = CollectSink()
    source = ScriptedSource(StreamInfo("s0", RATE), items())
    runner = scripted.make_runner(source, sink, models=["dial"])
    thread = Thread(target=runner.run, daemon=True)
    thread.start()
    assert begun.wait(PATIENCE_S)
    assert runner.bus.submit({"v": 1, "command": "set", "arguments": {"unit": "b"}})[
        "ok"
    ]
    more.set()
    thread.join(PATIENCE_S)
    (label,) = [
        m.event for m in sink.messages if m.info.stream == "other" and m.kind == "label"
    ]
    assert label.unit == "b"


@pytest.mark.parametrize("length", [7, 50, 1000])
def test_replayed_commands_take_effect_at_their_recorded_sample(length):
    """At the sample of the recorded run, for any block length."""
    command = ModelCommand("set", "dial", {"unit": "b"})
    at = 3 * scripted.QUANTUM
    script = [
        RecordedCommand("s0", at, command),
        RecordedCommand("s0", at, ModelCommand("shout", "dial", {"times": 2})),
    ]

    def run(blocks):
        sink = CollectSink()
        source = ScriptedSource(StreamInfo("s0", RATE), blocks)
        runner = scripted.make_runner(source, sink, models=["dial"])
        Runner.__init__(runner, runner.plan, (), script)
        assert runner.run().exit_code == 0
        return [
            (m.at, canonical(m.event))
            for m in sink.messages
            if m.kind in ("label", "control")
        ]

    samples = audio("..##." * 4).samples
    pieces = [
        scripted.Block(k, samples[k : k + length])
        for k in range(0, len(samples), length)
    ]
    found = run(pieces)
    assert found == run([scripted.Block(0, samples)])
    assert [at for at, event in found][:1] != []
    assert any("bb" in str(event) for _, event in found)
