"""Runner: sources, devices and models that fail during a run."""

import logging
from threading import Event as Flag

import pytest
from processes.waiting import PATIENCE_S
from stages.runners import (
    EPOCH,
    INFO,
    RATE,
    CallLog,
    audio,
    check_seq,
    flagging,
    make_runner,
    many,
    outline,
)

from neurovocal.engine.contracts.clock import NS, ManualClock
from neurovocal.engine.contracts.errors import DeviceError, Disconnected
from neurovocal.engine.contracts.types import (
    Anchor,
    Gap,
    Health,
    Label,
    Offset,
    Onset,
    StreamInfo,
)
from neurovocal.engine.testing import CollectSink, ScriptedSource

pytestmark = pytest.mark.usefixtures("quiet", "no_threads_left")


def test_a_reopened_device_leaves_a_gap_of_the_outage():
    clock, sink = ManualClock(EPOCH), CollectSink({"anchor", "gap", "offset", "health"})

    class Returning(ScriptedSource):
        """Lost after 60 samples; the third attempt to open it succeeds."""

        def open(self):
            super().open()
            if self.opened in (2, 3):
                raise DeviceError("it is still not there")

    items = [
        Anchor(0, EPOCH),
        audio("..####"),
        Disconnected("the cable was pulled"),
        Anchor(0, EPOCH + 100 * NS),
        audio("##.."),
        Gap(40, 50, "overrun"),
        audio(".##.", 50),
    ]
    source = Returning(INFO, items, live=True)
    outcome = make_runner(source, sink, clock=clock, source_policy="restart").run()
    # Pauses of 0.5, 1 and 2 s at 1000 samples a second, less the block of 40 that
    # was there when they were over.
    gap = Gap(60, 60 + 3460, "device lost")
    assert sink.events(Gap) == [
        Gap(60, 60, "device lost"),
        gap,
        Gap(3560, 3570, "overrun"),
    ]
    assert sink.events(Offset) == [
        Offset(0, 20, 60, True),
        Offset(1, 3520, 3540, False),
        Offset(2, 3580, 3600, False),
    ]
    assert sink.events(Anchor) == [Anchor(0, EPOCH), Anchor(3520, EPOCH + 100 * NS)]
    times = {m.event.segment: m.utc_ns for m in sink.messages if m.kind == "offset"}
    assert times[1] == EPOCH + 100 * NS + 20 * NS // RATE
    lost, back = (e for e in sink.events(Health) if e.stage == "source")
    assert (lost.state, back.state) == ("recovering", "healthy")
    assert lost.detail.startswith("the cable was pulled; last sample at 2023-11-14T")
    assert back.detail == "samples arrive again, after 3.5 s"
    assert outcome.lost_samples == 3470
    assert source.closed == 4
    check_seq(sink)


def test_a_device_reopened_at_another_rate_begins_a_new_stream():
    sink = CollectSink()

    class Exchanged(ScriptedSource):
        def open(self):
            super().open()
            if self.opened == 2:
                self.info = StreamInfo("cage", 2 * RATE)

    items = [audio("..####"), Disconnected("pulled"), audio("##..")]
    source = Exchanged(INFO, items, live=True)
    make_runner(source, sink, source_policy="restart").run()
    assert [
        (m.info.sample_rate, m.event) for m in sink.messages if m.kind == "offset"
    ] == [
        (1000, Offset(0, 20, 60, True)),
        (2000, Offset(0, 0, 20, False)),
    ]
    assert sink.events(Gap) == [Gap(60, 60, "device lost")]


def test_stop_while_a_lost_device_is_awaited(background):
    clock = ManualClock(EPOCH, autojump=False)
    sink, reported = CollectSink(), Flag()
    sink.write = flagging(sink.write, reported, Health)
    items = [audio("..####"), Disconnected("the cable was pulled")]
    source = ScriptedSource(INFO, items, live=True)
    runner = make_runner(source, sink, clock=clock, source_policy="restart")
    run = background(runner.run)
    assert reported.wait(PATIENCE_S)
    runner.stop()
    outcome = run()
    assert outcome.exit_code == 0
    assert sink.events(Offset) == [Offset(0, 20, 60, True)]


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (Disconnected("the cable was pulled"), "the cable was pulled"),
        (DeviceError("the card is on fire"), "the card is on fire"),
        (OSError("read error"), "OSError: read error"),
    ],
)
def test_a_failing_source_ends_the_run_after_its_segments_are_published(
    error, sentence
):
    sink = CollectSink()
    source = ScriptedSource(INFO, [audio("..####"), error, audio("##")])
    outcome = make_runner(source, sink, models=["namer"]).run()
    assert (outcome.exit_code, outcome.errors) == (2, [sentence])
    assert sink.events(Offset) == [Offset(0, 20, 60, True)]
    assert len(sink.events(Label)) == 1
    assert (source.closed, sink.closed) == (1, 1)


def test_a_source_with_undeclared_missing_samples_fails_the_run():
    source = ScriptedSource(INFO, [audio("..##"), audio("..##", 50)])
    outcome = make_runner(source, CollectSink()).run()
    assert outcome.exit_code == 2
    assert outcome.errors == [
        "cage: block starts at 50, expected 40: a source must declare missing "
        "samples as a Gap"
    ]


def test_a_source_whose_close_fails_is_reported():
    call_log, sink = CallLog(), CollectSink()
    source = call_log.wrap("source", ScriptedSource(INFO, many(2)), fails=("close",))
    outcome = make_runner(source, sink).run()
    assert outcome.errors == ["source cannot close: try another"]
    assert sink.closed == 1


def test_notices_of_a_source_are_logged_once(caplog, monkeypatch):
    caplog.set_level(logging.WARNING, "neurovocal")
    log = logging.getLogger("neurovocal")
    monkeypatch.setattr(log, "handlers", [])  # a command may have left its own
    monkeypatch.setattr(log, "propagate", True)
    source = ScriptedSource(INFO, [*many(2), StreamInfo("next", RATE), *many(1)])
    source.notices = ["a.wav is cut short"]
    make_runner(source, CollectSink()).run()
    assert [r.getMessage() for r in caplog.records] == ["a.wav is cut short"]


def test_failures_of_a_source_are_reported_in_the_outcome():
    source = ScriptedSource(INFO, many(2))
    source.failures = ["b.wav: cannot be read"]
    outcome = make_runner(source, CollectSink()).run()
    assert (outcome.exit_code, outcome.sentences()) == (2, ["b.wav: cannot be read"])


def test_a_failing_model_with_policy_skip_does_not_end_the_run():
    with_it, without = CollectSink(), CollectSink()
    source = ScriptedSource(INFO, many(10))
    outcome = make_runner(
        source, with_it, models=["namer", {"plugin": "clumsy", "on_error": "skip"}]
    ).run()
    make_runner(ScriptedSource(INFO, many(10)), without, models=["namer"]).run()
    assert outcome.exit_code == 0
    others = [line for line in outline(with_it) if line[0] != "health"]
    assert others == outline(without)
    first = with_it.events(Health)[0]
    assert (first.stage, first.state) == ("model 'clumsy'", "lossy")
    assert "no frames for me" in first.detail


def test_a_failing_model_with_policy_fail_ends_the_run():
    sink = CollectSink()
    source = ScriptedSource(INFO, many(10))
    outcome = make_runner(
        source, sink, models=["namer", {"plugin": "clumsy", "on_error": "fail"}]
    ).run()
    assert outcome.exit_code == 2
    assert outcome.errors == ["model 'clumsy' failed: RuntimeError: no frames for me"]
    assert (source.closed, sink.closed) == (1, 1)


def test_a_failing_lane_does_not_stop_the_other_lanes(background):
    """They run to their end, and the exit code is that of the failure."""
    gone, sink = Flag(), CollectSink()

    def after_the_other():
        yield audio("..####")
        assert gone.wait(PATIENCE_S)
        yield audio("....####..", start=60)

    good = ScriptedSource(StreamInfo("good", RATE), after_the_other(), live=True)
    bad = ScriptedSource(StreamInfo("bad", RATE), [DeviceError("gone")], live=True)
    runner = make_runner([good, bad], sink, source_policy="fail")
    finish = background(runner.run)
    assert runner.lanes[1].finished.wait(PATIENCE_S)
    gone.set()
    outcome = finish()
    assert (outcome.errors, outcome.exit_code) == (["gone"], 2)
    assert len(sink.events(Onset)) == len(sink.events(Offset)) == 2
    assert [
        (message.info.stream, event.stage, event.state)
        for message in sink.messages
        if isinstance(event := message.event, Health) and event.state == "failed"
    ] == [("bad", "lane", "failed")]
    assert good.closed == bad.closed == 1


def test_a_source_that_raises_any_exception_is_reopened():
    """Also when `open` or `close` raises."""
    sink = CollectSink({"gap", "offset", "health"})

    class FailingModel(ScriptedSource):
        def open(self):
            super().open()
            if self.opened == 2:
                raise ZeroDivisionError("no rate")

        def close(self):
            super().close()
            if self.opened < 3:
                raise OSError("no such handle")

    items = [audio("..####.."), ValueError("an odd packet"), audio("..####..")]
    source = FailingModel(INFO, items, live=True)
    clock = ManualClock(EPOCH)
    outcome = make_runner(source, sink, clock=clock, source_policy="restart").run()
    assert (outcome.errors, source.opened) == ([], 3)
    assert len(sink.events(Offset)) == 2
    lost = [e for e in sink.events(Health) if e.state == "recovering"]
    assert "ValueError: an odd packet" in lost[0].detail
    assert sink.events(Gap)[-1].stop > sink.events(Gap)[-1].start
