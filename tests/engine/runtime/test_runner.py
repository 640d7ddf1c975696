"""Runner: order of start and end, one lane per channel."""

import gc
import sys
from itertools import count
from threading import Event as Flag

import numpy as np
import pytest
from processes.waiting import PATIENCE_S
from stages.runners import (
    EPOCH,
    INFO,
    RATE,
    STAGES,
    CallLog,
    ThresholdDetector,
    audio,
    check_seq,
    make_runner,
    many,
    outline,
)

from neurovocal.engine.contracts.clock import NS, ManualClock
from neurovocal.engine.contracts.errors import ConfigError, DeviceError, NeurovocalError
from neurovocal.engine.contracts.types import (
    Anchor,
    Block,
    Gap,
    Label,
    Offset,
    Onset,
    StreamInfo,
)
from neurovocal.engine.runtime.outcome import Outcome
from neurovocal.engine.testing import CollectSink, ScriptedSource, StalledSink

pytestmark = pytest.mark.usefixtures("quiet", "no_threads_left")


def test_sources_that_wait_open_before_sinks_and_all_close_before_them():
    call_log = CallLog()
    sources = [
        call_log.wrap(f"source{i}", ScriptedSource(StreamInfo(f"s{i}", RATE), many(2)))
        for i in range(2)
    ]
    sinks = [call_log.wrap(f"sink{i}", CollectSink()) for i in range(2)]
    assert make_runner(sources, *sinks).run().exit_code == 0
    order = call_log.calls.index
    # A source that cannot be used is found before a sink replaces a file.
    opens = ["source0.open", "source1.open", "sink0.open", "sink1.open"]
    assert call_log.calls[:4] == opens
    for index in range(2):
        assert order("source1.open") < order(f"source{index}.read")
        assert order(f"source{index}.close") < order("sink1.close")
        assert order(f"sink{index}.write") < order(f"sink{index}.flush")
        assert order(f"sink{index}.flush") < order(f"sink{index}.close")
    assert order("sink1.close") < order("sink0.close")


class PauseSink(CollectSink):
    """Notes the interpreter's switch interval and its frozen objects."""

    def write(self, message):
        super().write(message)
        self.seen = sys.getswitchinterval(), gc.get_freeze_count()


def test_threads_get_the_interpreter_soon_and_old_objects_are_not_searched():
    before = sys.getswitchinterval(), gc.get_freeze_count()
    sink = PauseSink()
    source = ScriptedSource(StreamInfo("s", RATE), many(2))
    assert make_runner([source], sink).run().exit_code == 0
    interval_s, n_frozen = sink.seen
    assert interval_s <= 0.001 < before[0]
    assert n_frozen > 1000
    assert (sys.getswitchinterval(), gc.get_freeze_count()) == (before[0], 0)


@pytest.mark.parametrize("culprit", ["sink1", "source0", "source1"])
def test_a_failing_open_closes_the_opened_parts_in_reverse(culprit):
    call_log = CallLog()
    fails = {culprit: ("open",)}
    sinks = [
        call_log.wrap(n, CollectSink(), fails=fails.get(n, ()))
        for n in ("sink0", "sink1")
    ]
    sources = [
        call_log.wrap(
            n, ScriptedSource(StreamInfo(n, RATE), many(2)), fails=fails.get(n, ())
        )
        for n in ("source0", "source1")
    ]
    runner = make_runner(sources, *sinks)
    with pytest.raises(DeviceError, match=f"{culprit} cannot open: try another"):
        runner.run()
    opened = [line[:-5] for line in call_log.calls if line.endswith(".open")]
    closed = [line[:-6] for line in call_log.calls if line.endswith(".close")]
    assert opened[-1] == culprit
    assert set(opened) <= set(closed)
    assert [name for name in closed if name in opened] == opened[::-1]
    assert not any(line.endswith((".read", ".write")) for line in call_log.calls)


def test_a_failing_close_does_not_hide_the_failing_open():
    call_log = CallLog()
    sink = CollectSink()
    source = ScriptedSource(INFO, [])
    call_log.wrap("source", source, fails=("open", "close"))
    with pytest.raises(DeviceError, match="source cannot open"):
        make_runner(source, sink).run()
    assert sink.closed == 1


def test_a_recording_is_processed_to_its_end():
    sink = CollectSink()
    source = ScriptedSource(INFO, [Anchor(0, EPOCH), *many(4)])
    outcome = make_runner(source, sink, models=["namer"]).run()
    assert (outcome.exit_code, outcome.sentences()) == (0, [])
    assert (outcome.seconds, outcome.streams) == (pytest.approx(0.2), 1)
    assert sink.events(Onset) == [
        Onset(i, 50 * i + 20, pytest.approx(0.9)) for i in range(4)
    ]
    assert sink.events(Offset) == [
        Offset(i, 50 * i + 20, 50 * i + 40, False) for i in range(4)
    ]
    assert [label.segment for label in sink.events(Label)] == [0, 1, 2, 3]
    assert [m.utc_ns for m in sink.messages if m.kind == "onset"] == [
        EPOCH + (50 * i + 20) * NS // RATE for i in range(4)
    ]
    assert all(m.ledger is None and m.emitted_ns == 0 for m in sink.messages)
    check_seq(sink)
    assert (source.opened, source.closed, sink.opened, sink.closed) == (1, 1, 1, 1)
    assert sink.flushed >= 1


def test_offline_a_slow_sink_drops_no_message(background):
    clock, ticks = ManualClock(EPOCH), count()
    fast, slow = CollectSink(), StalledSink()

    def tick():
        clock.advance(100.0)  # far beyond every deadline
        if next(ticks) == 3:
            slow.release.set()

    source = ScriptedSource(INFO, many(300))
    runner = make_runner(
        source, fast, slow, clock=clock, sink={"queue": {"events": 2, "bulk": 1}}
    )
    outcome = background(lambda: runner.run(tick))()
    assert (outcome.exit_code, outcome.forced) == (0, False)
    assert not outcome.dropped
    assert len(slow.events(Offset)) == 300
    assert outline(slow) == outline(fast)
    for worker in runner.sinks:
        for counts in worker.mailbox.counts().values():
            assert counts["queued"] == counts["dropped"] == 0
            assert counts["received"] == counts["delivered"]


def test_events_of_a_run_do_not_depend_on_block_lengths():
    texts = ["..##..###.#", ".", "##"] * 7
    whole = audio("".join(texts))

    def run(blocks):
        sink = CollectSink()
        make_runner(ScriptedSource(INFO, blocks), sink, models=["namer"]).run()
        return outline(sink)

    cut = [Block(i, whole.samples[i : i + 7]) for i in range(0, whole.stop, 7)]
    assert run(cut) == run([whole])


def test_a_stream_of_another_rate_gets_new_lanes():
    sink = CollectSink()
    items = [
        audio("..####"),
        StreamInfo("second", 2 * RATE),
        Anchor(0, EPOCH),
        audio("#..##"),
        StreamInfo("third", 2 * RATE),
        audio(".##."),
    ]
    outcome = make_runner(ScriptedSource(INFO, items), sink, models=["namer"]).run()
    assert (outcome.exit_code, outcome.streams) == (0, 3)
    assert outcome.seconds == pytest.approx(60 / 1000 + 50 / 2000 + 40 / 2000)
    offsets = {}
    for message in sink.messages:
        if message.kind == "offset":
            offsets.setdefault(message.info, []).append(message.event)
    assert offsets == {
        StreamInfo("cage", 1000): [Offset(0, 20, 60, True)],
        StreamInfo("second", 2000): [Offset(0, 0, 10, False), Offset(1, 30, 50, True)],
        StreamInfo("third", 2000): [Offset(0, 10, 30, False)],
    }
    # The time base of one recording does not hold for another.
    times = {m.info.stream: m.utc_ns for m in sink.messages if m.kind == "offset"}
    assert times["second"] == EPOCH + 50 * NS // 2000
    assert times["cage"] is times["third"] is None


def test_sequence_numbers_continue_over_streams_of_one_name():
    sink = CollectSink()
    sources = [ScriptedSource(INFO, many(30)) for _ in range(2)]
    make_runner(sources, sink, models=["namer"]).run()
    numbers = sorted(m.seq for m in sink.messages if m.kind == "label")
    assert numbers == list(range(60))


def test_live_blocks_of_many_channels_find_room_before_a_sink():
    n_blocks, channels = 12, 64
    delivered = Flag()

    def items():
        for index in range(n_blocks):
            yield audio("..##", 40 * index, channels=channels)
        delivered.set()

    class Waiting(CollectSink):
        def write(self, message):
            assert delivered.wait(PATIENCE_S)
            super().write(message)

    sink = Waiting({"block", "label"})
    source = ScriptedSource(StreamInfo("array", RATE, channels), items(), live=True)
    runner = make_runner(source, sink, models=["namer"], sink={"queue": {}})
    assert runner.run().dropped.total() == 0
    assert len(sink.events(Block)) == n_blocks * channels


def test_each_channel_has_its_own_stream():
    left, right = audio("..##..##"), audio("####....")
    both = Block(0, np.concatenate([left.samples, right.samples], axis=1))
    sink = CollectSink()
    source = ScriptedSource(StreamInfo("cage", RATE, 2), [both])
    outcome = make_runner(source, sink, models=["namer"]).run()
    assert outcome.seconds == pytest.approx(0.08)
    offsets = {"cage.ch1": [], "cage.ch2": []}
    for message in sink.messages:
        assert message.info.channels == 1
        if message.kind == "offset":
            offsets[message.info.stream].append(message.event)
    assert offsets == {
        "cage.ch1": [Offset(0, 20, 40, False), Offset(1, 60, 80, True)],
        "cage.ch2": [Offset(0, 0, 40, False)],
    }
    check_seq(sink)


def test_lost_samples_are_reported_and_set_the_exit_code():
    sink = CollectSink()
    items = [audio("..##"), Gap(40, 140, "overrun"), audio(".##.", 140)]
    outcome = make_runner(ScriptedSource(INFO, items), sink).run()
    assert sink.events(Gap) == [Gap(40, 140, "overrun")]
    assert sink.events(Offset) == [Offset(0, 20, 40, True), Offset(1, 150, 170, False)]
    assert (outcome.lost_samples, outcome.exit_code) == (100, 3)
    assert outcome.sentences() == ["100 samples were lost (see the gaps)"]


@pytest.mark.parametrize(
    ("outcome", "code"),
    [
        (Outcome(), 0),
        (Outcome(lost_samples=1), 3),
        (Outcome(forced=True), 3),
        (Outcome(errors=["broken"]), 2),
        (Outcome(errors=["broken"], forced=True, lost_samples=4), 2),
        (Outcome(errors=["wrong"], config_error=True), 1),
    ],
)
def test_exit_code_of_each_outcome(outcome, code):
    assert outcome.exit_code == code
    assert bool(outcome.sentences()) == (code != 0)


def test_a_stream_that_fits_no_lane_is_a_configuration_error(monkeypatch):
    class Needy(ThresholdDetector):
        def __init__(self):
            raise ConfigError(["it needs 250 kHz", "and quiet"])

    sink = CollectSink()
    monkeypatch.setitem(STAGES, "gate", Needy)
    runner = make_runner(ScriptedSource(INFO, many(2)), sink)
    with pytest.raises(NeurovocalError, match="250 kHz") as caught:
        runner.run()
    assert caught.value.exit_code == 1
    assert sink.closed == 1
