"""Watchdog: hanging calls and growing memory are reported and contained."""

import os
import socket
from threading import Event as Flag

import pytest
from processes.waiting import PATIENCE_S, until
from stages import runners as scripted
from stages.runners import EPOCH, INFO, SegmentLabeller, audio, many, then_wait
from stages.watchdogs import looker, pass_time

from neurovocal.engine.config.schema import SuperviseConfig
from neurovocal.engine.contracts.clock import ManualClock
from neurovocal.engine.contracts.types import Frames, Health, Label, StreamInfo
from neurovocal.engine.runtime.systemd import ServiceManager
from neurovocal.engine.support.process import ProcessUsage, process_usage
from neurovocal.engine.testing import CollectSink, ScriptedSource

pytestmark = pytest.mark.usefixtures("quiet")


class Sleeper(SegmentLabeller):
    """Does not return from its first frames before `woken` is set."""

    def __init__(self):
        self.entered, self.woken = Flag(), Flag()

    def process(self, item):
        if isinstance(item, Frames) and not self.entered.is_set():
            self.entered.set()
            self.woken.wait()
        return super().process(item)


@pytest.fixture
def sleeper():
    stage = Sleeper()
    yield stage
    stage.woken.set()


@pytest.mark.parametrize("wakes", [False, True], ids=["for ever", "for a while"])
def test_a_hanging_stage_stops_only_its_lane(background, sleeper, wakes):
    clock = ManualClock(EPOCH, autojump=False)
    sink, done = CollectSink({"label", "health"}), Flag()
    sources = [
        ScriptedSource(INFO, then_wait(many(4), done), live=True),
        ScriptedSource(StreamInfo("other", 1000), then_wait(many(4), done), live=True),
    ]
    runner = scripted.make_runner(sources, sink, clock=clock, models=["namer"])
    # Only the first lane has the model that hangs.
    recovery = runner.lanes[0].recovery
    recovery.build = _with(recovery.build, sleeper)
    ended = Flag()
    run = background(lambda: (runner.run(), ended.set())[0])
    assert sleeper.entered.wait(PATIENCE_S)
    watchdog = looker(runner, clock)
    pass_time(watchdog, clock, 29, runner.lanes[1])
    assert not watchdog.hung
    pass_time(watchdog, clock, 2, runner.lanes[1])
    hung = "lane 'lane0': model 'namer' hangs: it has not returned for 30 s"
    assert watchdog.hung == {"lane0": hung}
    until(lambda: sum(m.info.stream == "other" for m in sink.messages) >= 4)
    if wakes:
        sleeper.woken.set()
        until(lambda: len(sink.events(Label)) == 8)
        watchdog.check()
    done.set()
    until(lambda: clock.advance(0.1) or ended.is_set())
    outcome = run()
    states = [e.state for e in sink.events(Health) if "namer" in e.stage]
    if wakes:
        assert (states, outcome.exit_code) == (["failed", "healthy"], 0)
    else:
        assert (states, outcome.exit_code) == (["failed"], 2)
        assert outcome.errors[0] == hung


def _with(build, stage):
    def with_stage(info, channel):
        lane = build(info, channel)
        lane.models[0].stage = stage
        return lane

    return with_stage


class Hanging(CollectSink):
    """Its second write does not return before `release` is set."""

    def __init__(self):
        super().__init__({"label"})
        self.entered, self.release, self.writes = Flag(), Flag(), 0

    def write(self, message):
        self.writes += 1
        if self.writes == 2:
            self.entered.set()
            self.release.wait()
        super().write(message)


def test_a_hanging_sink_is_replaced_and_its_message_counted_as_lost(background):
    clock = ManualClock(EPOCH, autojump=False)
    hanging, other, done = Hanging(), CollectSink({"label"}), Flag()
    source = ScriptedSource(INFO, then_wait(many(6), done), live=True)
    runner = scripted.make_runner(source, hanging, other, clock=clock, models=["namer"])
    run = background(runner.run)
    assert hanging.entered.wait(PATIENCE_S)
    watchdog = looker(runner, clock)
    pass_time(watchdog, clock, 30, runner.lanes[0])
    worker = runner.sinks[0]
    assert worker.trouble[0] == "restarting"
    # The sixth comes when the stream ends.
    until(lambda: len(other.messages) == 5)
    until(lambda: clock.advance(0.2) or len(hanging.messages) == 4)
    assert worker.trouble is None
    hanging.release.set()  # the thread that was left behind ends by itself
    done.set()
    outcome = run()
    counts = worker.mailbox.queue_counts["events"]
    assert (counts.received, counts.delivered, counts.dropped) == (6, 5, 1)
    assert (outcome.exit_code, dict(outcome.dropped)) == (3, {"label": 1})
    assert worker.statistics()["replaced"] == 1


def test_a_hanging_sink_with_policy_fail_ends_the_run(background):
    clock = ManualClock(EPOCH, autojump=False)
    hanging, done = Hanging(), Flag()
    source = ScriptedSource(INFO, then_wait(many(5), done), live=True)
    runner = scripted.make_runner(
        source, hanging, clock=clock, models=["namer"], sink={"on_error": "fail"}
    )
    run = background(runner.run)
    assert hanging.entered.wait(PATIENCE_S)
    watchdog = looker(runner, clock)
    pass_time(watchdog, clock, 31, runner.lanes[0])
    until(lambda: clock.advance(0.2) or runner.sinks[0].failed.is_set())
    hanging.release.set()
    outcome = run()
    assert outcome.exit_code == 2
    assert "has not returned for 30 s" in outcome.errors[0]


def test_a_process_above_max_rss_ends_the_run_in_order(background):
    clock = ManualClock(EPOCH, autojump=False)
    sink, done = CollectSink({"label", "health"}), Flag()
    source = ScriptedSource(INFO, then_wait(many(2), done), live=True)
    runner = scripted.make_runner(source, sink, clock=clock, models=["namer"])
    run = background(runner.run)
    until(lambda: len(sink.events(Label)) == 2)
    sizes = iter([ProcessUsage(900.0, 9, 9, 1.0), ProcessUsage(1100.0, 9, 9, 1.0)])
    watchdog = looker(runner, clock, max_rss_mb=1000.0, measure=lambda: next(sizes))
    watchdog.check()
    assert not sink.events(Health)
    clock.advance(1.0)
    watchdog.check()
    outcome = run()
    assert [e.stage for e in sink.events(Health)] == ["process"]
    assert outcome.exit_code == 2
    assert "1100 MiB, more than supervise.max_rss_mb (1000)" in outcome.errors[0]


@pytest.fixture
def manager(tmp_path, monkeypatch):
    """Messages to a service manager, over a real socket."""
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(path)
        listening.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", path)
        yield listening


def received(listening):
    lines = []
    while True:
        try:
            lines += listening.recv(4096).decode().split("\n")
        except BlockingIOError:
            return lines


def test_watchdog_messages_stop_while_no_samples_come(background, manager):
    clock = ManualClock(EPOCH, autojump=False)
    go, done = Flag(), Flag()

    def script():
        yield audio("..##..")
        while not go.wait(0.01):
            yield None
        yield audio("..##..", 60)
        while not done.wait(0.01):
            yield None

    runner = scripted.make_runner(
        ScriptedSource(INFO, script(), live=True), CollectSink(), clock=clock
    )
    run = background(runner.run)
    until(lambda: runner.lanes[0].reader.samples == 60)
    watchdog = looker(runner, clock, manager=ServiceManager.from_environment())
    watchdog.check()
    lines = received(manager)
    assert lines[0] == "READY=1"
    assert lines[-2:] == ["WATCHDOG=1", "STATUS=1 lane, 0 s heard"]
    pass_time(watchdog, clock, 31, runner.lanes[0])
    received(manager)  # more than the socket holds would be lost
    clock.advance(1.0)
    watchdog.check()
    assert received(manager) == ["STATUS=no progress: lane0"]
    go.set()
    until(lambda: runner.lanes[0].reader.samples == 120)
    clock.advance(1.0)
    watchdog.check()
    assert received(manager)[0] == "WATCHDOG=1"
    done.set()
    run()
    assert received(manager) == ["STOPPING=1"]


def test_a_non_live_source_makes_progress_while_its_reads_return(background, manager):
    clock, done = ManualClock(EPOCH, autojump=False), Flag()

    def script():  # as an empty folder: no item, no error
        while not done.wait(0.01):
            yield None

    runner = scripted.make_runner(
        ScriptedSource(INFO, script()), CollectSink(), clock=clock
    )
    run = background(runner.run)
    watchdog = looker(runner, clock, manager=ServiceManager.from_environment())
    for _ in range(2):
        answers = runner.lanes[0].progress
        until(lambda before=answers: runner.lanes[0].progress > before)
        clock.advance(100.0)
        watchdog.check()
        assert "STATUS=1 lane, 0 s heard" in received(manager)
    done.set()
    run()


def test_a_missing_service_manager_raises_nothing(tmp_path):
    ServiceManager.from_environment({}).send_ready()
    ServiceManager(str(tmp_path / "nobody")).send_ready()


def test_usage_measures_this_process(tmp_path):
    before = process_usage()
    with open(tmp_path / "a", "w"), open(tmp_path / "b", "w"):
        during = process_usage()
    assert during.handles == before.handles + 2
    assert 5 < before.rss_mb < 1e5
    assert before.threads >= 1
    assert before.cpu_s <= during.cpu_s <= sum(os.times()[:2]) + 0.01


def test_supervise_limits_are_validated():
    assert SuperviseConfig().hang_s == 30.0
    for wrong in ({"hang_s": 0}, {"max_rss_mb": -1}):
        with pytest.raises(ValueError, match="greater than 0"):
            SuperviseConfig(**wrong)
