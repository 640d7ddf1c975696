"""Shadow lane: gaps, ends of streams, failures and cancellation during a swap."""

from dataclasses import replace
from itertools import count
from threading import Event as Flag

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from processes.waiting import PATIENCE_S, until
from stages import runners as scripted
from stages.runners import (
    INFO,
    FrameEvery16,
    SegmentLabeller,
    ThresholdDetector,
    audio,
    check_seq,
    make_runner,
)

from neurovocal.engine.audio.resampler import Resampler
from neurovocal.engine.audio.timeline import TimeBase
from neurovocal.engine.contracts.errors import CommandError, Disconnected
from neurovocal.engine.contracts.types import (
    Block,
    Control,
    Frames,
    Gap,
    Health,
    Label,
    Offset,
    Onset,
    StreamInfo,
)
from neurovocal.engine.lane.lane import Lane
from neurovocal.engine.lane.shadow import ShadowLane, SwapDecision
from neurovocal.engine.lane.stage import SupervisedStage
from neurovocal.engine.runtime.control.swap import SwapArguments
from neurovocal.engine.runtime.shadow.thread import ShadowThread
from neurovocal.engine.runtime.workers.channel import Channel
from neurovocal.engine.testing import CollectSink, ScriptedSource

quiet = pytest.mark.usefixtures("quiet", "no_threads_left")


class Dud(SegmentLabeller):
    """Fails at every offset; its policy contains that."""

    def process(self, item):
        if isinstance(item, Offset):
            raise RuntimeError("no good")
        return ()


class Broken(SegmentLabeller):
    """Fails at everything, and is switched off."""

    def process(self, item):
        raise RuntimeError("no good")


class Live:
    """A live source of blocks of 70 samples; `script` adds items before each."""

    def __init__(self, script=lambda number: (), info=INFO):
        self.over = Flag()
        self._script = script
        self._info = info
        self.source = ScriptedSource(info, self._items(), live=True)

    def _items(self):
        position, left = 0, 10
        for number in count():
            if self.over.wait(0.001):
                left -= 1
            if left == 0:
                return
            for extra in self._script(number):
                if isinstance(extra, Gap):
                    extra = Gap(position, position + extra.stop, extra.reason)
                    position = extra.stop
                elif isinstance(extra, StreamInfo):
                    position = 0
                yield extra
            yield audio("..##.#.", position)
            position += 70


class Run:
    """A run in a thread of its own, to be swapped."""

    def __init__(self, background, live_sources, models=("namer",), wait_for=Label):
        self.live_sources, self.sink = live_sources, CollectSink()
        self.sources = [each.source for each in live_sources]
        self.models = models
        began = Flag()
        self.sink.write = scripted.flagging(self.sink.write, began, wait_for)
        self.runner = make_runner(self.sources, self.sink, models=models)
        self._join = background(self.runner.run)
        assert began.wait(PATIENCE_S)

    def begin(self, models=("namer",), **arguments):
        other = make_runner(self.sources, self.sink, models=models).plan
        self.runner.swapper.load = lambda name: other
        arguments = {"shadow_s": 0.5, **arguments}
        return self.runner.swapper.begin(SwapArguments(**arguments))

    def settled(self):
        self.runner.swapper._thread.join(PATIENCE_S)
        return self.runner.swapper.last

    def end(self):
        for each in self.live_sources:
            each.over.set()
        return self._join()


@pytest.fixture
def live(background, monkeypatch):
    monkeypatch.setitem(scripted.STAGES, "dud", Dud)
    monkeypatch.setitem(scripted.STAGES, "broken", Broken)
    runs = []

    def start(*live_sources, **keys):
        runs.append(Run(background, live_sources or (Live(),), **keys))
        return runs[-1]

    yield start
    for run in runs:
        for each in run.live_sources:
            each.over.set()


@quiet
def test_a_failing_shadow_of_one_lane_rolls_back_all_lanes(live):
    # Two streams: those of one name are numbered in the order of two threads.
    run = live(Live(), Live(info=replace(INFO, stream="other cage")))
    half = make_runner(run.sources, run.sink, models=["namer"]).plan
    bad = make_runner(run.sources, run.sink, models=["dud"]).plan
    half.lanes[1] = bad.lanes[1]
    run.runner.swapper.load = lambda name: half
    run.runner.swapper.begin(SwapArguments(shadow_s=0.5))
    last = run.settled()
    assert last["state"] == "rolled back"
    assert "lane 'lane1'" in last["reason"]
    # Its policy is to go on: a model that fails must not take over even so.
    assert "RuntimeError: no good" in last["reason"]
    assert run.end().exit_code == 0
    assert not run.sink.events(Control)
    reported = [h for h in run.sink.events(Health) if h.stage == "swap"]
    assert [h.state for h in reported] == ["failed", "failed"]  # one for each stream
    check_seq(run.sink)


@quiet
def test_a_gap_during_the_shadow_reaches_both_lanes(live):
    run = live(Live(lambda number: [Gap(0, 33, "lost")] if number % 3 == 2 else []))
    run.begin()
    assert run.settled()["state"] == "swapped"
    run.end()
    (command,) = run.sink.events(Control)
    assert command.arguments["agreement"]["labels"]["equal"] == 1.0
    onsets = run.sink.events(Onset)
    assert [o.segment for o in onsets] == list(range(len(onsets)))
    check_seq(run.sink)


@quiet
def test_a_source_outage_during_the_shadow_does_not_stop_the_swap(live):
    def unplugged(number):
        return [Disconnected("pulled")] if number in (400, 900) else []

    run = live(Live(unplugged))
    run.begin(shadow_s=5.0)
    assert run.settled()["state"] == "swapped"
    assert run.end().exit_code in (0, 3)
    onsets = run.sink.events(Onset)
    assert [o.segment for o in onsets] == list(range(len(onsets)))


@quiet
def test_a_source_that_ends_during_the_shadow_rolls_back(live):
    run = live()
    run.begin(shadow_s=600)
    assert run.end().exit_code == 0
    last = run.settled()
    assert last["state"] == "rolled back"
    assert last["reason"] in ("lane 'lane0' has ended", "the run ends")
    assert not run.sink.events(Control)


@quiet
def test_the_shadow_lasts_over_several_short_streams(live):
    def files(number):
        return [StreamInfo(f"file{number}", 1000)] if number % 4 == 0 and number else []

    run = live(Live(files))
    run.begin(shadow_s=1.0)  # a file has 0.28 s
    assert run.settled()["state"] == "swapped"
    run.end()
    (command,) = run.sink.events(Control)
    report = command.arguments["agreement"]
    assert report["seconds"] >= 1.0
    assert report["labels"]["equal"] == 1.0
    assert report["labels"]["old"] >= 20
    # Each file is numbered from 0, also those after the swap.
    by_stream = {}
    for message in run.sink.messages:
        if isinstance(message.event, Onset):
            by_stream.setdefault(message.info.stream, []).append(message.event.segment)
    assert all(n == list(range(len(n))) for n in by_stream.values())
    check_seq(run.sink)


@quiet
def test_a_second_swap_is_refused_until_the_first_is_cancelled_or_done(live):
    run = live()
    with pytest.raises(CommandError, match="no swap is under way"):
        run.begin(cancel=True)
    run.begin(shadow_s=600)
    with pytest.raises(CommandError, match="under way already"):
        run.begin()
    assert run.begin(cancel=True) == {"cancelled": True}
    assert run.settled() == {"state": "rolled back", "reason": "it was called off"}
    for _ in range(3):
        run.begin()
        assert run.settled()["state"] == "swapped"
    assert run.end().exit_code == 0
    assert len(run.sink.events(Control)) == 3
    onsets = run.sink.events(Onset)
    assert [o.segment for o in onsets] == list(range(len(onsets)))
    labels = run.sink.events(Label)
    assert [label.segment for label in labels] == list(range(len(labels)))
    check_seq(run.sink)


@quiet
def test_a_swap_replaces_a_switched_off_model_and_reports_it_healthy(live):
    dud = {"plugin": "broken", "on_error": "skip"}
    run = live(models=[dud], wait_for=Onset)
    stage = run.runner.lanes[0].channels[0].lane.models[0]
    until(lambda: stage.failed)
    run.begin()
    assert run.settled()["state"] == "swapped"
    run.end()
    assert run.sink.events(Label)
    states = [h.state for h in run.sink.events(Health) if h.stage == stage.name]
    assert states == ["lossy", "failed", "healthy"]


@quiet
def test_a_swap_before_the_first_stream_is_refused(background):
    """SIGHUP may come while a run still starts, or while a folder is still empty."""
    opening, opened = Flag(), Flag()

    class Late(ScriptedSource):
        def open(self):
            opening.set()
            assert opened.wait(PATIENCE_S)
            super().open()

    each = Live()
    source = Late(INFO, [audio("..##.")], live=True)
    runner = make_runner(source, CollectSink(), models=["namer"])
    run = background(runner.run)
    assert opening.wait(PATIENCE_S)
    runner.swapper.load = lambda name: runner.plan
    runner.lanes[0].channels.clear()
    with pytest.raises(CommandError, match="lane 'lane0' has no stream yet"):
        runner.swapper.begin(SwapArguments())
    opened.set()
    each.over.set()
    run()
    assert runner.swapper.last is None


# ---- the lanes alone ------------------------------------------------------------


def lane(source_rate, tile=2):
    return Lane(
        INFO,
        16 * tile,
        SupervisedStage("features", FrameEvery16()),
        SupervisedStage("detector", ThresholdDetector()),
        [SupervisedStage("model", SegmentLabeller())],
        None if source_rate == 1000 else Resampler(source_rate, 1000),
    )


@st.composite
def streams(draw):
    """Blocks and gaps, and the items at which the swap begins and is promoted."""
    rate = draw(st.sampled_from([1000, 1500, 441]))
    items, position = [], 0
    for _ in range(draw(st.integers(3, 12))):
        length = draw(st.integers(1, 900))
        if draw(st.integers(0, 5)) == 0:
            items.append(Gap(position, position + length, "lost"))
        else:
            t = np.arange(position, position + length) / rate
            values = (np.sin(2 * np.pi * 3 * t) > 0.2).astype(np.float32)[:, None]
            items.append(Block(position, values))
        position += length
    begins = draw(st.integers(0, len(items) - 1))
    promoted = draw(st.integers(begins, len(items)))
    return rate, items, begins, promoted, draw(st.sampled_from([2, 3]))


@given(streams())
def test_a_swap_to_an_equal_lane_gives_the_same_events_at_any_rate(stream):
    """Segments, labels and frames are those of a lane without a swap."""
    rate, items, begins, promoted, tile = stream
    whole = lane(rate)
    expected = [e for i in items for s in whole.process(i) for e in s.events]
    expected += [e for s in whole.flush() for e in s.events]

    decision = SwapDecision()
    present = lane(rate)
    channel, found = Channel(present, TimeBase(1000)), []
    shadow = ShadowLane("l", present, lane(rate, tile), decision, 0.0, 1e9)
    for number, item in enumerate(items):
        if number == begins:
            channel.shadow = shadow
        if number == promoted:
            assert decision.promote({})
        found += [e for s in channel.process(item) for e in s.events]
    found += [e for s in channel.flush() for e in s.events]
    assert not decision.failure
    if promoted < len(items):
        assert shadow.done.is_set()
    assert [e for e in found if isinstance(e, Onset | Offset | Label | Gap)] == [
        e for e in expected if isinstance(e, Onset | Offset | Label | Gap)
    ]
    if tile == 3:
        return  # these frames are no front end's: after a gap they depend on the tile
    firsts, values = _joined(found)
    other_firsts, other_values = _joined(expected)
    assert firsts == other_firsts
    np.testing.assert_array_equal(values, other_values)


@pytest.mark.parametrize("steps_before", range(6))
def test_a_shadow_rejoins_between_the_steps_of_a_part(steps_before):
    """A promotion is a command, and commands come between steps: no sample is lost."""
    decision, present = SwapDecision(), lane(1000)
    shadow = ShadowLane("l", present, lane(1000), decision, 0.0, 1e9, stays="x")
    thread = ShadowThread(shadow, decision.cancel, lambda *_: None, can_wait=True)
    channel = Channel(present, TimeBase(1000), shadow=thread)
    song = "..##.#...##....#..."
    list(channel.process(audio(song)))
    length = len(audio(song).samples)
    n_steps = 0
    for number in range(1, 4):
        for _ in channel.process(audio(song, number * length)):
            n_steps += 1
            if number == 1 and n_steps == steps_before + 1:
                channel.shadow = thread.give_up(PATIENCE_S)
                assert decision.promote({})
    assert n_steps > 8
    assert shadow.done.is_set()
    assert channel.lane is shadow.lane
    assert channel.lane.processed >= 3 * length


def _joined(events):
    frames = [e for e in events if isinstance(e, Frames)]
    firsts = [f.first + i for f in frames for i in range(len(f.values))]
    return firsts, np.concatenate([f.values for f in frames] or [np.zeros((0, 1))])
