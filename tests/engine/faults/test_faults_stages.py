"""Injected crashes and hangs of stages and sinks, and their effect on others."""

from threading import Event as Flag

import pytest
from processes.waiting import until
from stages.runners import EPOCH, INFO, audio, make_runner, many, then_wait
from stages.watchdogs import looker, pass_time

from neurovocal.engine.config.faults import Crash
from neurovocal.engine.contracts.abilities import (
    Describes,
    ReportsStats,
    ReportsTrouble,
    SelectsKinds,
)
from neurovocal.engine.contracts.clock import NS, ManualClock
from neurovocal.engine.contracts.options import Options
from neurovocal.engine.contracts.plugin import BuildContext, Plugin
from neurovocal.engine.contracts.stages import CommandedModel, Sink
from neurovocal.engine.contracts.types import Health, Label, Offset
from neurovocal.engine.faults.injection import FaultReporter
from neurovocal.engine.faults.stages import FaultInjector, faulty_stage
from neurovocal.engine.testing import CollectSink, ScriptedSource

pytestmark = pytest.mark.usefixtures("quiet", "no_threads_left")


SONG = "..##................"  # a fifth of a second


def make_faulty_runner(*sinks, faults, sink=(), clock=None):
    """Return a runner of ten seconds of song, five segments a second, with faults."""
    source = ScriptedSource(INFO, many(50, SONG))
    return make_runner(
        source, *sinks, clock=clock, models=["namer"], sink=sink, faults=faults
    )


def health(sink, stage):
    return [(e.state, e.detail) for e in sink.events(Health) if e.stage == stage]


def test_a_model_that_crashes_is_reset_and_labels_again():
    sink = CollectSink({"label", "offset", "health"})
    crash = {"fault": "crash", "at_s": 5, "stage": "namer", "times": 3}
    outcome = make_faulty_runner(sink, faults=[crash]).run()
    assert outcome.errors == []
    assert health(sink, "fault crash") == [
        ("degraded", "injected: crash of namer x 3"),
        ("healthy", "injected: crash of namer x 3: over"),
    ]
    assert health(sink, "model 'namer'") == [
        ("restarting", "InjectedError: injected: crash of namer x 3"),
        ("healthy", "it works again"),
    ]
    # Three calls are three tiles of frames here: no label was among them.
    assert len(sink.events(Label)) == len(sink.events(Offset)) == 50


def test_a_detector_that_crashes_ends_the_run():
    sink = CollectSink({"offset"})
    crash = {"fault": "crash", "at_s": 5, "stage": "detector"}
    outcome = make_faulty_runner(sink, faults=[crash]).run()
    assert outcome.exit_code == 2
    assert outcome.errors == [
        "detector 'gate' failed: InjectedError: injected: crash of detector"
    ]
    assert max(e.sample for e in sink.events(Offset)) < 5000


def test_a_hang_lasts_for_its_time_and_loses_nothing():
    clock = ManualClock(EPOCH)
    sink = CollectSink({"label", "health"})
    hang = {"fault": "hang", "at_s": 5, "stage": "frames", "for_s": 7}
    outcome = make_faulty_runner(sink, faults=[hang], clock=clock).run()
    assert outcome.errors == []
    assert 7 * NS <= clock.monotonic_ns() < 8 * NS
    assert [state for state, _ in health(sink, "fault hang")] == ["degraded", "healthy"]
    assert len(sink.events(Label)) == 50


def test_a_fault_with_a_lane_is_reported_in_that_lane_alone():
    sinks = CollectSink({"health", "label"})
    sources = [ScriptedSource(INFO, many(20)) for _ in range(2)]
    crash = {"fault": "crash", "at_s": 0.1, "stage": "namer", "lane": "lane1"}
    seen = []
    runner = make_runner(sources, sinks, models=["namer"], faults=[crash])
    for worker in runner.lanes:
        note = worker.note
        worker.note = lambda *told, name=worker.name, note=note: (
            seen.append((name, told[0])),
            note(*told),
        )
    assert runner.run().errors == []
    assert seen == [("lane1", "fault crash")] * 2


def test_a_sink_that_crashes_is_opened_again_and_loses_no_message():
    clock = ManualClock(EPOCH)
    struck, other = CollectSink({"label"}), CollectSink({"label", "health"})
    crash = {"fault": "crash", "at_s": 5, "stage": "sink0", "times": 3}
    outcome = make_faulty_runner(
        struck, other, faults=[crash], sink={"on_error": "restart"}, clock=clock
    ).run()
    assert (outcome.errors, outcome.dropped.total()) == ([], 0)
    assert struck.opened == 4
    assert len(struck.messages) == 50
    assert [m.event for m in struck.messages] == other.events(Label)
    assert len(health(other, "fault crash")) == 2


def test_a_sink_that_hangs_is_replaced_and_its_fault_is_used_up(background):
    clock, done = ManualClock(EPOCH, autojump=False), Flag()
    sink, other = CollectSink({"label", "health"}), CollectSink({"health"})
    source = ScriptedSource(INFO, then_wait(many(50, SONG), done), live=True)
    hang = {"fault": "hang", "at_s": 5, "stage": "sink0", "for_s": 60}
    runner = make_runner(
        source,
        *(sink, other),
        models=["namer"],
        sink={"on_error": "restart"},
        clock=clock,
        faults=[hang],
    )
    run = background(runner.run)
    until(lambda: health(other, "fault hang"))
    pass_time(looker(runner, clock), clock, 30, runner.lanes[0])
    assert runner.sinks[0].trouble[0] == "restarting"
    until(lambda: clock.advance(0.2) or len(sink.events(Label)) == 50)
    done.set()
    outcome = run()
    assert outcome.errors == []
    assert runner.sinks[0].statistics()["replaced"] == 1
    # The message that hung counts as lost, though it came late.
    assert outcome.dropped.total() == 1
    assert [state for state, _ in health(sink, "fault hang")] == ["degraded", "healthy"]


def test_a_faulty_model_takes_the_commands_of_the_wrapped_one():
    class Set(Options):
        gain: float = 1.0

    class Steered:
        latency = 0
        adjustable = frozenset({"gain"})
        commands = {}

        def __init__(self):
            self.options = Set()

        def process(self, item):
            return ()

        def flush(self):
            return ()

        def reset(self):
            pass

        def prepare(self, command, arguments):
            return arguments

        def apply(self, command, prepared):
            self.options = prepared

    plugin = Plugin("model", Options, lambda options, context: Steered(), "a test's")
    clock = ManualClock(EPOCH)
    crash = Crash(fault="crash", at_s=1, stage="steered")
    injector = FaultInjector(crash, clock, FaultReporter(), None)
    context = BuildContext(clock=clock, run="test", info=INFO)
    stage = faulty_stage(plugin.build, "model", injector)(Options(), context)
    assert isinstance(stage, CommandedModel)
    assert not hasattr(stage, "advance")
    stage.apply("set", stage.prepare("set", Set(gain=2.0)))
    assert stage.options.gain == 2.0
    assert list(stage.process(audio("..."))) == []


def test_a_faulty_sink_has_the_abilities_of_the_sink_that_it_wraps():
    class Reporting(CollectSink):
        trouble = None

        def stats(self):
            return {"written": len(self.messages)}

    crash = Crash(fault="crash", at_s=1, stage="sink")
    injector = FaultInjector(crash, ManualClock(EPOCH), FaultReporter(), None)
    inner = Reporting({"label"})
    sink = faulty_stage(lambda options, context: inner, "sink", injector)(None, None)
    assert isinstance(sink, Sink)
    assert isinstance(sink, SelectsKinds)
    assert sink.wants == {"label"}
    assert isinstance(sink, ReportsStats)
    assert sink.stats() == {"written": 0}
    assert isinstance(sink, ReportsTrouble)
    inner.trouble = "the disk is full"
    assert sink.trouble == "the disk is full"
    assert not isinstance(sink, Describes)
