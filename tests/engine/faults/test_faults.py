"""Faults of sources: the stream that the lane gets, and its health events."""

from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stages.runners import EPOCH, INFO, RATE, audio, make_runner, outline

from neurovocal.engine.contracts.clock import NS, ManualClock
from neurovocal.engine.contracts.errors import ConfigError
from neurovocal.engine.contracts.options import Options
from neurovocal.engine.contracts.types import (
    Anchor,
    Block,
    Gap,
    Health,
    Label,
    Offset,
    Onset,
    Stats,
    StreamInfo,
)
from neurovocal.engine.testing import CollectSink, ScriptedSource

pytestmark = pytest.mark.usefixtures("quiet", "no_threads_left")

SONG = "..##.#..###.##...#.####.." * 4  # ten samples a letter: one second


class DeviceOptions(Options):
    stall_timeout_s: float = 4.0


class Device(ScriptedSource):
    """A sound card that advances the clock with each block that is read.

    Each opening goes on where the clock stands; a sample captured at second t has the
    value t / 1000.
    """

    options = DeviceOptions

    def __init__(self, clock, seconds, block_length=50):
        super().__init__(INFO, (), live=True)
        self.notices = []
        self._clock, self._stop, self._length = clock, seconds * RATE, block_length

    def open(self):
        super().open()
        self._began = self._at = self._clock.monotonic_ns() * RATE // NS
        self._anchor_at = self._at
        self.notices.append(f"opened at {self._at}")

    def captured_ns(self, sample):
        return (self._began + sample) * NS // RATE

    def read(self, timeout):
        if self._at >= self._stop:
            return super().read(timeout)
        sample = self._at - self._began
        if self._at >= self._anchor_at:
            self._anchor_at += RATE
            return Anchor(sample, EPOCH + self.captured_ns(sample))
        first, self._at = self._at, self._at + self._length
        late_ns = self._at * NS // RATE - self._clock.monotonic_ns()
        self._clock.advance(max(0, late_ns) / NS)
        values = np.arange(first, self._at, dtype=np.float32)[:, None] / 1e6
        return Block(sample, values, self._clock.monotonic_ns())


def run_with(seconds, *faults):
    """Run a device of so many seconds with faults; return sink and outcome."""
    clock = ManualClock(EPOCH)
    sink = CollectSink({"block", "gap", "health", "anchor", "stats"})
    runner = make_runner(
        Device(clock, seconds),
        sink,
        clock=clock,
        source_policy="restart",
        faults=list(faults),
    )
    return sink, runner.run()


def spans(sink):
    """Return (start, stop, reason of the gap, or samples behind real time)."""
    found = []
    for event in sink.events(Block, Gap):
        if isinstance(event, Gap):
            found.append((event.start, event.stop, event.reason))
            continue
        behind = round(float(event.samples[0, 0]) * 1e6) - event.start
        if found and found[-1][1:] == (event.start, behind):
            found[-1] = (found[-1][0], event.stop, behind)
        else:
            found.append((event.start, event.stop, behind))
    return found


def health(sink, stage):
    return [(e.state, e.detail) for e in sink.events(Health) if e.stage == stage]


def test_dropped_samples_are_a_gap_of_their_length():
    sink, outcome = run_with(3, {"fault": "drop", "at_s": 1.23, "for_s": 0.5})
    gap = (1230, 1730, "injected: drop")
    assert spans(sink) == [(0, 1230, 0), gap, (1730, 3000, 0)]
    assert health(sink, "fault drop") == [
        ("degraded", "injected: drop 0.5 s"),
        ("healthy", "injected: drop 0.5 s: over"),
    ]
    assert outcome.lost_samples == 500


def test_a_drop_beyond_the_end_is_cut_at_the_last_sample():
    sink, _ = run_with(3, {"fault": "drop", "at_s": 2.5, "for_s": 60})
    assert spans(sink) == [(0, 2500, 0), (2500, 3000, "injected: drop")]


def test_a_short_stall_is_reported_and_becomes_a_gap():
    sink, _ = run_with(9, {"fault": "stall", "at_s": 2, "for_s": 3.5})
    gap = (2000, 5500, "injected: stall")
    assert spans(sink) == [(0, 2000, 0), gap, (5500, 9000, 0)]
    stalled, back = health(sink, "source")
    assert (stalled[0], back[0]) == ("stalled", "healthy")


def test_a_stall_longer_than_the_source_s_timeout_is_an_outage():
    sink, _ = run_with(20, {"fault": "stall", "at_s": 2, "for_s": 7})
    before, empty, gap, after = spans(sink)
    assert before == (0, 2000, 0)
    assert empty == (2000, 2000, "device lost")
    # Opened again while still silent, it is held until half a second has come.
    assert gap == (2000, 9000, "device lost")
    assert after == (9000, 20000, 0)
    stalled, lost, back = health(sink, "source")
    assert (stalled[0], lost[0], back[0]) == ("stalled", "recovering", "healthy")
    assert lost[1].startswith("injected: stall 7 s: nothing for 4 s")
    assert len(health(sink, "fault stall")) == 2
    times = [(a.sample, a.utc_ns - EPOCH) for a in sink.events(Anchor)]
    assert all(sample * NS // RATE == ns for sample, ns in times)
    assert (9000, 9 * NS) in times


def test_an_unplugged_device_is_opened_again_once_it_is_back():
    sink, outcome = run_with(9, {"fault": "unplug", "at_s": 2, "for_s": 3})
    # Lost when the block of 50 was read; found by the attempt after 0.5 + 1 + 2 s.
    assert spans(sink) == [
        (0, 2000, 0),
        (2000, 2000, "device lost"),
        (2000, 5550, "device lost"),
        (5550, 9000, 0),
    ]
    lost, back = health(sink, "source")
    assert lost[0] == "recovering"
    assert lost[1].startswith("injected: unplug 3 s; last sample")
    assert back[0] == "healthy"
    assert len(health(sink, "fault unplug")) == 2
    assert outcome.exit_code == 3


def test_an_outage_counts_towards_the_time_of_a_later_fault():
    unplug = {"fault": "unplug", "at_s": 2, "for_s": 3}
    sink, _ = run_with(9, unplug, {"fault": "drop", "at_s": 7, "for_s": 1})
    *_, gap, last = spans(sink)
    # The block lost with the device is counted nowhere: the fault is later by it.
    assert gap == (7050, 8050, "injected: drop")
    assert last == (8050, 9000, 0)


def test_jitter_delays_blocks_and_loses_none():
    jitter = {"fault": "jitter", "at_s": 2, "for_s": 4, "ms": 300, "seed": 1}
    sink, outcome = run_with(9, jitter)
    assert spans(sink) == [(0, 9000, 0)]
    assert outcome.exit_code == 0
    late_ms = {b.start: b.arrived_ns / 1e6 - b.stop for b in sink.events(Block)}
    struck = [late for start, late in late_ms.items() if 2000 <= start < 6000]
    assert max(struck) > 150
    # A burst that is due is delivered when the next block comes.
    assert max(struck) <= 300 + 50
    assert all(late_ms[start] == 0 for start in late_ms if not 2000 <= start < 6000)
    assert run_with(9, jitter)[0].events(Block)[60].arrived_ns == (
        sink.events(Block)[60].arrived_ns
    )


@pytest.mark.parametrize("ppm", [500, -2000])
def test_drift_is_measured_by_the_stream_s_statistics(ppm):
    sink, _ = run_with(90, {"fault": "drift", "at_s": 0, "for_s": 1000, "ppm": ppm})
    position = sink.events(Block)[-1].stop
    assert position == pytest.approx(90_000 * (1 + ppm / 1e6), abs=1)
    last = sink.events(Stats)[-1].values
    # A sample of a millisecond, in 90 s, is 11 ppm.
    assert last["drift_ppm"] == pytest.approx(ppm, abs=15)


def test_a_wrong_rate_is_reported_and_positions_stay_continuous():
    sink, _ = run_with(
        200, {"fault": "wrong_rate", "at_s": 20, "for_s": 150, "rate": 1200}
    )
    assert sink.events(Block)[-1].stop == 20_000 + 180_000 + 30_000
    (first, *_) = health(sink, "signal rate")
    assert first[0] == "degraded"
    assert "instead of 1000" in first[1]
    began = {a.sample: (a.utc_ns - EPOCH) / NS for a in sink.events(Anchor)}
    assert began[20_000 + 1200] == pytest.approx(21, abs=0.01)
    assert began[220_000] == pytest.approx(190, abs=0.01)


def test_clip_scales_to_full_scale_and_cuts_off():
    # A device's samples are small: 0.004 after four seconds.
    clip = {"fault": "clip", "at_s": 2, "for_s": 6, "level": 0.004}
    sink, _ = run_with(12, clip)
    values = np.concatenate([b.samples[:, 0] for b in sink.events(Block)])
    assert values[1999] == np.float32(0.001999)
    assert values[2000] == pytest.approx(0.5)
    assert (values[4000:8000] == 1.0).all()
    assert values[8000] == np.float32(0.008)
    assert ("degraded", "100.00% of a second's samples are at full scale (gain?)") in (
        health(sink, "signal clipped")
    )


@pytest.mark.parametrize(
    "fault",
    [
        {"fault": "drop", "at_s": 1, "for_s": 0.001},
        {"fault": "clip", "at_s": 1, "for_s": 1},
        {"fault": "crash", "at_s": 1, "stage": "namer"},
    ],
)
def test_a_hundred_faults_work_and_more_are_refused(fault):
    many = [{**fault, "at_s": n / 100} for n in range(101)]
    source = ScriptedSource(INFO, [audio(SONG)])
    run = partial(make_runner, source, models=["namer"])
    assert run(CollectSink(), faults=many[:100]).run().errors == []
    with pytest.raises(
        ConfigError, match=r"must have at most 100 entries \(it has 101"
    ):
        run(CollectSink(), faults=many)


BLOCK_INVARIANT = [
    {"fault": "drop", "at_s": 0.333, "for_s": 0.25},
    {"fault": "clip", "at_s": 0.333, "for_s": 0.25, "level": 0.05},
    {"fault": "wrong_rate", "at_s": 0.333, "for_s": 0.25, "rate": 1370},
    {"fault": "crash", "at_s": 0.333, "stage": "namer", "times": 3},
]


def events_of(fault, lengths):
    """Return the events of the song in blocks of these lengths and one of the rest."""
    cut, whole = [], audio(SONG)
    for length in [*lengths, len(whole.samples)]:
        start = cut[-1].stop if cut else 0
        if start < whole.stop:
            cut.append(Block(start, whole.samples[start : start + length]))
    sink = CollectSink({"onset", "offset", "label", "gap", "health"})
    runner = make_runner(
        ScriptedSource(INFO, cut), sink, models=["namer"], faults=[fault]
    )
    assert runner.run().errors == []
    return outline(sink)


@pytest.fixture(
    params=BLOCK_INVARIANT, ids=lambda fault: fault["fault"], scope="module"
)
def fault_and_events(request):
    """A fault, and the events of the song in one block with it."""
    return request.param, events_of(request.param, [])


@settings(max_examples=5, deadline=None)
@given(st.lists(st.integers(1, 400), max_size=6))
def test_faults_give_the_same_events_for_any_blocks(fault_and_events, lengths):
    fault, whole = fault_and_events
    assert any(kind == "health" for kind, *_ in whole)
    assert events_of(fault, lengths) == whole


def test_at_s_counts_over_streams_of_different_rates():
    faster = StreamInfo("next", 2 * RATE)
    items = [audio(SONG), faster, audio(SONG), audio(SONG, 1000)]
    sink = CollectSink({"gap"})
    source = ScriptedSource(INFO, items)
    make_runner(
        source, sink, faults=[{"fault": "drop", "at_s": 1.25, "for_s": 0.125}]
    ).run()
    (message,) = sink.messages
    assert message.info.stream == "next"
    assert message.event == Gap(500, 750, "injected: drop")


def test_a_source_that_crashes_ends_its_lane():
    sink = CollectSink({"onset", "offset", "health"})
    source = ScriptedSource(INFO, [audio("..##"), audio("####", 40)])
    crash = {"fault": "crash", "at_s": 0.05, "stage": "source"}
    outcome = make_runner(source, sink, faults=[crash]).run()
    assert outcome.exit_code == 2
    assert outcome.errors == ["InjectedError: injected: crash of source"]
    # The segment before it was closed as truncated.
    assert sink.events(Onset, Offset)[-1] == Offset(0, 20, 50, True)
    assert source.closed == 1


def test_a_source_that_hangs_delays_its_lane_and_loses_nothing():
    clock = ManualClock(EPOCH)
    sink = CollectSink({"label", "health"})
    items = [audio("..##..", start) for start in (0, 60, 120)]
    source = ScriptedSource(INFO, items)
    hang = {"fault": "hang", "at_s": 0.1, "stage": "source0", "for_s": 20}
    outcome = make_runner(
        source, sink, clock=clock, models=["namer"], faults=[hang]
    ).run()
    assert clock.monotonic_ns() >= 20 * NS
    assert len(sink.events(Label)) == 3
    assert outcome.exit_code == 0


def test_without_faults_the_source_is_not_wrapped():
    source = ScriptedSource(INFO, [audio(SONG)])
    runner = make_runner(source, CollectSink())
    assert runner.lanes[0].reader.source is source
    assert runner.run().exit_code == 0


def test_other_attributes_of_a_source_are_those_of_the_wrapped_one():
    clock = ManualClock(EPOCH)
    device = Device(clock, 1)
    device.failures = ["half of it was damaged"]
    drop = {"fault": "drop", "at_s": 0.5, "for_s": 0.1}
    runner = make_runner(device, CollectSink(), clock=clock, faults=[drop, drop])
    assert runner.run().errors == ["half of it was damaged"]
    assert device.notices == ["opened at 0"]


@pytest.mark.parametrize(
    ("fault", "problem"),
    [
        (
            {"fault": "stall", "at_s": 1, "for_s": 1},
            "'stall' needs a live source: audio that waits for its reader comes late "
            "or not at all without any loss (drop, clip and wrong_rate strike every "
            "source)",
        ),
        (
            {"fault": "crash", "at_s": 1, "stage": "namr"},
            "there is no stage 'namr' (did you mean 'namer'?)",
        ),
        (
            {"fault": "crash", "at_s": 1, "stage": "sink0", "lane": "lane0"},
            "lane 'lane0' has no stage 'sink0' of its own: remove this key",
        ),
        (
            {"fault": "drop", "at_s": 1, "for_s": 1, "lane": "lane1"},
            "there is no lane 'lane1' (did you mean 'lane0'?)",
        ),
        (
            {"fault": "kill", "at_s": 1, "lane": "lane0"},
            "'kill' is for the whole process: remove this key",
        ),
        (
            {"fault": "network_cut", "at_s": 1, "for_s": 1},
            "no sink has a TCP endpoint with a port of its own, such as "
            "tcp://127.0.0.1:5556, that could be cut off",
        ),
        (
            {"fault": "subscriber_stall", "at_s": 1, "for_s": 1},
            "no sink has an endpoint, such as tcp://127.0.0.1:5556, to which a "
            "subscriber could connect",
        ),
    ],
    ids=lambda value: value["fault"] if isinstance(value, dict) else "",
)
def test_a_fault_without_a_target_is_refused(fault, problem):
    source = ScriptedSource(INFO, ())
    with pytest.raises(ConfigError) as caught:
        make_runner(source, CollectSink(), models=["namer"], faults=[fault])
    (sentence,) = caught.value.problems
    assert sentence.startswith("x.yaml:")
    assert sentence.endswith(f": {problem}")
    assert "faults.0" in sentence
