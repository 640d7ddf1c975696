"""Runner: orderly stop within a deadline, forced stop, all loss counted."""

import signal
import sys
from itertools import count
from threading import Event as Flag

import pytest
from processes.waiting import PATIENCE_S, until
from stages.runners import (
    EPOCH,
    INFO,
    QUANTUM,
    STAGES,
    ThresholdDetector,
    audio,
    flagging,
    make_runner,
    many,
    then_wait,
)

from neurovocal.engine.cli.session import run_plan
from neurovocal.engine.contracts.clock import ManualClock
from neurovocal.engine.contracts.errors import StartInterrupted
from neurovocal.engine.contracts.types import Block, Label, Offset, Onset
from neurovocal.engine.testing import CollectSink, ScriptedSource, StalledSink

pytestmark = pytest.mark.usefixtures("quiet", "no_threads_left")


def test_stop_truncates_open_segments_and_drops_no_message(background):
    never, sink = Flag(), CollectSink()
    items = [audio("..####")]
    source = ScriptedSource(INFO, then_wait(items, never), live=True)
    begun = Flag()
    sink.write = flagging(sink.write, begun, Onset)
    runner = make_runner(source, sink, models=["namer"])
    run = background(runner.run)
    assert begun.wait(PATIENCE_S)
    runner.stop()
    outcome = run()
    assert (outcome.exit_code, outcome.sentences()) == (0, [])
    assert sink.events(Offset) == [Offset(0, 20, 60, True)]
    assert sink.events(Label)[0].offset == 60
    assert (source.closed, sink.closed) == (1, 1)


class Lingering(CollectSink):
    """Sink whose `close` waits for its readers until it is told not to."""

    def __init__(self, gone):
        super().__init__()
        self.gone, self.limits = gone, []

    def limit_close(self, seconds):
        self.limits.append(seconds)
        self.gone.set()

    def close(self):
        assert self.gone.wait(PATIENCE_S)
        super().close()


def test_a_stopped_run_gives_slow_readers_less_time(background):
    sink, begun, gone = Lingering(Flag()), Flag(), Flag()
    sink.write = flagging(sink.write, begun, Onset)
    source = ScriptedSource(INFO, then_wait([audio("..##")], Flag()), live=True)
    runner = make_runner(source, sink)
    run = background(runner.run)
    assert begun.wait(PATIENCE_S)
    runner.stop()
    assert run().exit_code == 0
    assert len(sink.limits) == sink.closed == 1
    # At the natural end nothing presses.
    gone.set()
    sink = Lingering(gone)
    assert make_runner(ScriptedSource(INFO, many(2)), sink).run().exit_code == 0
    assert (sink.limits, sink.closed) == ([], 1)


def test_stop_inside_a_long_block_closes_segments_at_the_processed_sample(
    background, monkeypatch
):
    """A whole file may be one block: stop does not wait for its end."""
    sink, runners = CollectSink(), []

    class StopsIt(ThresholdDetector):
        def process(self, item):
            if isinstance(item, Block) and item.start >= 3 * QUANTUM:
                runners[0].stop()
                until(runners[0].lanes[0].reader.stopping.is_set)
            return super().process(item)

    source = ScriptedSource(INFO, [audio("#" * 10_000)])
    monkeypatch.setitem(STAGES, "gate", StopsIt)
    runners.append(make_runner(source, sink, models=["namer"]))
    outcome = background(runners[0].run)()
    assert outcome.exit_code == 0
    (offset,) = sink.events(Offset)
    assert offset.truncated
    assert 4 * QUANTUM <= offset.sample < 100_000
    assert sink.messages[-1].at == offset.sample


def test_a_stalled_sink_is_abandoned_at_the_deadline(background):
    clock, never = ManualClock(EPOCH), Flag()
    stalled, fine = StalledSink(), CollectSink()
    source = ScriptedSource(INFO, then_wait(many(20), never), live=True)
    runner = make_runner(source, stalled, fine, clock=clock, models=["namer"])
    run = background(lambda: runner.run(lambda: clock.advance(0.2)))
    assert stalled.entered.wait(PATIENCE_S)
    runner.stop()
    outcome = run()
    assert outcome.forced
    assert outcome.exit_code == 3
    lost = sum(outcome.dropped.values())
    assert lost == len(fine.messages), "each message is accounted for"
    assert outcome.sentences()[-1] == (
        "the run was stopped by force before all was written"
    )
    assert outcome.sentences()[0].startswith(
        "messages dropped by full or failing queues: "
    )
    assert fine.closed == 1
    assert stalled.closed == 0, "its thread still uses it"
    for worker in runner.sinks:
        for counts in worker.mailbox.counts().values():
            parts = counts["delivered"] + counts["dropped"] + counts["queued"]
            assert counts["received"] == parts
    stalled.release.set()


def test_a_forced_stop_does_not_wait_for_sinks(background):
    never, stalled = Flag(), StalledSink()
    source = ScriptedSource(INFO, then_wait(many(5), never), live=True)
    runner = make_runner(source, stalled, clock=ManualClock(EPOCH))
    run = background(runner.run)  # the clock does not move: no deadline passes
    assert stalled.entered.wait(PATIENCE_S)
    runner.stop(force=True)
    outcome = run()
    assert (outcome.forced, outcome.exit_code) == (True, 3)
    stalled.release.set()


def test_a_forced_stop_cuts_an_orderly_stop_short(background):
    never, stalled, ticks = Flag(), StalledSink(), count()
    source = ScriptedSource(INFO, then_wait(many(5), never), live=True)
    runner = make_runner(source, stalled, clock=ManualClock(EPOCH))

    def tick():
        if runner._stopped and next(ticks) == 3:
            runner.stop(force=True)

    run = background(lambda: runner.run(tick))
    assert stalled.entered.wait(PATIENCE_S)
    runner.stop()
    assert run().exit_code == 3
    stalled.release.set()


@pytest.mark.parametrize("after", range(0, 60, 4))
def test_stop_called_between_any_two_lines_of_the_waiting_thread_ends_the_run(after):
    """A signal handler may run between any two lines of the main thread."""
    source = ScriptedSource(INFO, then_wait([], Flag()), live=True)
    runner = make_runner(source, CollectSink())
    lines = count()

    def interrupt(frame, event, argument):
        if event == "line" and next(lines) == after:
            runner.stop()
        return interrupt

    # From the first tick on, every line that this thread runs is counted.
    def tick():
        if sys.gettrace() is not interrupt:
            sys.settrace(interrupt)
            frame = sys._getframe(1)
            while frame is not None:
                frame.f_trace = interrupt
                frame = frame.f_back

    before = sys.gettrace()
    try:
        assert runner.run(tick).exit_code == 0
    finally:
        sys.settrace(before)


def test_an_exception_in_tick_closes_all_sinks_and_sources():
    sink, never = CollectSink(), Flag()
    source = ScriptedSource(INFO, then_wait([audio("..##")], never), live=True)

    def tick():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_runner(source, sink).run(tick)
    assert (source.closed, sink.closed) == (1, 1)
    assert len(sink.events(Onset)) == len(sink.events(Offset))


def test_an_interruption_while_lanes_start_closes_all_sinks_and_sources(monkeypatch):
    """A signal may come while the last threads are started."""
    begun, never = Flag(), Flag()

    def items():
        begun.set()
        yield from then_wait([audio("..##")], never)

    sink, source = CollectSink(), ScriptedSource(INFO, items(), live=True)
    runner = make_runner(source, sink)

    def interrupted():
        assert begun.wait(PATIENCE_S)
        raise KeyboardInterrupt

    monkeypatch.setattr(runner.watchdog, "start", interrupted)
    with pytest.raises(KeyboardInterrupt):
        runner.run()
    assert not runner.started
    assert sink.closed == 1
    assert source.closed >= 1
    assert runner.lanes[0].error is None
    assert runner.lanes[0].finished.is_set()


def test_an_interruption_wrapped_in_another_exception_is_recognised():
    """While a module in C is loaded, the exception becomes an ImportError."""

    class Loading(CollectSink):
        def open(self):
            try:
                signal.raise_signal(signal.SIGINT)
            except BaseException:
                raise ImportError("initialization failed") from None

    plan = make_runner(ScriptedSource(INFO, many(2)), Loading()).plan
    with pytest.raises(StartInterrupted):
        run_plan(plan)
