"""Runner: sinks that stall or fail are counted and reopened; others go on."""

from threading import Event as Flag

import numpy as np
import pytest
from processes.waiting import PATIENCE_S
from stages.runners import (
    EPOCH,
    INFO,
    CallLog,
    check_seq,
    make_runner,
    many,
    outline,
    then_wait,
)

from neurovocal.engine.contracts.clock import NS, ManualClock
from neurovocal.engine.contracts.errors import DeviceError
from neurovocal.engine.contracts.types import Block, Gap, Label, Offset, Onset
from neurovocal.engine.testing import (
    CollectSink,
    FailingSink,
    ScriptedSource,
    StalledSink,
    canonical,
)

pytestmark = pytest.mark.usefixtures("quiet", "no_threads_left")


def test_a_stalled_live_sink_does_not_delay_other_sinks(background):
    stalled, fine = StalledSink(), CollectSink()
    source = ScriptedSource(INFO, many(500), live=True)
    bounds = [{"queue": {"events": n, "bulk": n}} for n in (8, 4000)]
    runner = make_runner(source, stalled, fine, models=["namer"], sink=bounds)
    ended = Flag()

    def tick():
        if runner.lanes[0].finished.is_set():
            ended.set()

    run = background(lambda: runner.run(tick))
    assert ended.wait(PATIENCE_S), "the stalled sink holds the audio up"
    stalled.release.set()
    outcome = run()
    assert len(fine.events(Label)) == 500
    check_seq(fine)
    assert len(stalled.messages) + outcome.dropped.total() == len(fine.messages)
    assert outcome.dropped["label"] > 400
    assert outcome.exit_code == 3
    assert runner.lanes[0].reader.samples == 25_000
    assert not runner.sinks[1].mailbox.dropped


class Recovering(FailingSink):
    """A sink that works again after the fourth `open`."""

    def __init__(self, clock):
        super().__init__()
        self.clock, self.opened_at = clock, []

    def open(self):
        super().open()
        self.opened_at.append(self.clock.monotonic_ns() / NS)
        self.broken = self.opened < 4


def test_a_failing_sink_is_reopened_and_gets_the_failed_message():
    clock = ManualClock(EPOCH)
    failing, fine = Recovering(clock), CollectSink()
    source = ScriptedSource(INFO, many(10))
    runner = make_runner(
        source, failing, fine, clock=clock, sink={"on_error": "restart"}
    )
    outcome = runner.run()
    assert outcome.exit_code == 0
    assert not outcome.dropped
    assert outline(failing) == outline(fine)
    # Pauses of 0.5, 1 and 2 s on the manual clock.
    assert np.diff(failing.opened_at).tolist() == [0.5, 1.0, 2.0]
    assert runner.sinks[0].statistics()["errors"] == 3


def test_a_sink_whose_close_and_open_fail_is_retried():
    class Stubborn(Recovering):
        """Fails once, then cannot be closed, then cannot be opened twice."""

        def open(self):
            super().open()
            if self.opened in (2, 3):
                raise DeviceError("it is still away")
            self.broken = self.opened == 1

        def close(self):
            super().close()
            if self.closed == 1:
                raise OSError("cannot let go")

    clock = ManualClock(EPOCH)
    stubborn, fine = Stubborn(clock), CollectSink()
    source = ScriptedSource(INFO, many(10))
    runner = make_runner(
        source, stubborn, fine, clock=clock, sink={"on_error": "restart"}
    )
    assert runner.run().exit_code == 0
    assert outline(stubborn) == outline(fine)
    assert stubborn.opened == 4
    assert runner.sinks[0].statistics()["errors"] == 3


def test_a_flush_that_fails_between_messages_ends_the_run(background):
    call_log, never = CallLog(), Flag()
    sink = call_log.wrap("sink", CollectSink(), fails=("flush",))
    source = ScriptedSource(INFO, then_wait(many(3), never), live=True)
    runner = make_runner(source, sink, sink={"on_error": "fail"})
    outcome = background(runner.run)()  # without a stop
    assert outcome.exit_code == 2
    assert outcome.errors == ["sink 'sink0' failed: sink cannot flush: try another"]


def test_a_sink_that_stays_down_does_not_block_a_finished_run():
    clock, failing, fine = ManualClock(EPOCH), FailingSink(), CollectSink()
    source = ScriptedSource(INFO, many(10))
    runner = make_runner(
        source, failing, fine, clock=clock, sink={"on_error": "restart"}
    )
    outcome = runner.run()
    assert outcome.dropped.total() == len(fine.messages) > 0
    assert outcome.exit_code == 3
    assert not outcome.forced


def test_a_sink_with_policy_skip_loses_only_failed_messages():
    class Picky(CollectSink):
        def write(self, message):
            if isinstance(message.event, Onset):
                raise OSError("no onsets, please")
            super().write(message)

    picky, fine = Picky(), CollectSink()
    source = ScriptedSource(INFO, many(10))
    outcome = make_runner(source, picky, fine, sink={"on_error": "skip"}).run()
    assert outcome.dropped == {"onset": 10}
    assert outcome.sentences() == [
        "messages dropped by full or failing queues: 10 onset"
    ]
    assert outcome.exit_code == 3
    assert len(picky.messages) == len(fine.messages) - 10


def test_a_failing_sink_with_policy_fail_ends_the_run(background):
    failing, fine, never = FailingSink(), CollectSink(), Flag()
    source = ScriptedSource(INFO, then_wait(many(10), never))
    runner = make_runner(source, failing, fine, sink={"on_error": "fail"})
    outcome = background(runner.run)()
    assert outcome.exit_code == 2
    assert outcome.errors == ["sink 'sink0' failed: OSError: the disk is full"]
    assert len(fine.events(Offset)) == 10
    # Nothing that the failing sink did not write counts as delivered.
    for counts in runner.sinks[0].mailbox.counts().values():
        assert counts["delivered"] == 0
        assert counts["received"] == counts["dropped"]


def test_failures_of_flush_and_close_of_a_sink_are_reported():
    call_log = CallLog()
    flushing = call_log.wrap("flushing", CollectSink(), fails=("flush",))
    closing = call_log.wrap("closing", CollectSink(), fails=("close",))
    source = ScriptedSource(INFO, many(3))
    outcome = make_runner(source, flushing, closing, sink={"on_error": "fail"}).run()
    assert outcome.exit_code == 2
    assert outcome.errors == [
        "sink 'sink0' failed: flushing cannot flush: try another",
        "closing cannot close: try another",
    ]


def test_a_broken_pipe_of_a_sink_fails_the_run():
    class Pipe(CollectSink):
        def write(self, message):
            raise BrokenPipeError("the other end is gone")

    source = ScriptedSource(INFO, many(3))
    outcome = make_runner(source, Pipe(), sink={"on_error": "fail"}).run()
    assert outcome.exit_code == 2
    assert outcome.errors == [
        "sink 'sink0' failed: BrokenPipeError: the other end is gone"
    ]


def test_each_sink_gets_the_kinds_it_selects():
    chosen, asking, all_of_it = CollectSink(), CollectSink({"frames"}), CollectSink()
    source = ScriptedSource(INFO, [*many(5), Gap(250, 300, "overrun")])
    make_runner(source, chosen, sink={"events": ["offset", "gap"]}).run()
    assert {m.kind for m in chosen.messages} == {"offset", "gap"}
    source = ScriptedSource(INFO, [*many(5), Gap(250, 300, "overrun")])
    make_runner(source, asking, all_of_it).run()
    assert {m.kind for m in asking.messages} == {"frames"}
    assert {m.kind for m in all_of_it.messages} == {"onset", "offset", "frames", "gap"}


def test_blocks_reach_sinks_that_select_them():
    sink = CollectSink({"block", "label"})
    blocks = list(many(5))
    make_runner(ScriptedSource(INFO, blocks), sink).run()
    assert [canonical(e) for e in sink.events(Block)] == [canonical(b) for b in blocks]


def test_a_failing_observer_does_not_end_the_run():
    watching, failing, sink = CollectSink({"offset"}), FailingSink(), CollectSink()
    source = ScriptedSource(INFO, many(5))
    outcome = make_runner(source, sink, observers=[watching, failing]).run()
    assert len(watching.messages) == 5
    assert outcome.errors == []
    assert len(sink.events(Offset)) == 5
