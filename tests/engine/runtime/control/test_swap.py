"""Model swap: all lanes take the new configuration, or none does."""

from itertools import count
from threading import Event as Flag

import pytest
from processes.waiting import PATIENCE_S
from stages import runners as scripted
from stages.runners import INFO, SegmentLabeller, audio, check_seq, make_runner

from neurovocal.engine.contracts.errors import ConfigError, NeurovocalError
from neurovocal.engine.contracts.types import (
    Control,
    Frames,
    Health,
    Label,
    Offset,
    Onset,
)
from neurovocal.engine.runtime.control.swap import SwapArguments
from neurovocal.engine.testing import CollectSink, ScriptedSource

pytestmark = pytest.mark.usefixtures("quiet", "no_threads_left")


class Renamer(SegmentLabeller):
    """Labels each segment with another unit."""

    def process(self, item):
        if isinstance(item, Offset):
            yield Label(item.segment, item.onset, item.sample, "b", 1.0, "final", "r")


class Bomb(SegmentLabeller):
    """Raises at the second frames."""

    n_frames = 0

    def process(self, item):
        if isinstance(item, Frames):
            self.n_frames += 1
            if self.n_frames == 2:
                raise RuntimeError("boom")
        return super().process(item)


@pytest.fixture(autouse=True)
def stages(monkeypatch):
    monkeypatch.setitem(scripted.STAGES, "renamer", Renamer)
    monkeypatch.setitem(scripted.STAGES, "bomb", Bomb)


class Endless:
    """A live source that repeats a block until shortly after `over` is set."""

    def __init__(self):
        self.over, self.n_blocks = Flag(), 0
        self.source = ScriptedSource(INFO, self._items(), live=True)

    def _items(self):
        left = 10
        for number in count():
            if self.over.wait(0.001):
                left -= 1
            if left == 0:
                return
            self.n_blocks = number + 1
            yield audio("..##.#.", number * 70)


@pytest.fixture
def song():
    song = Endless()
    yield song
    song.over.set()


def swapped(background, song, models, **arguments):
    """Run, swap to `models`, end; return the sink, the swap's state, the outcome."""
    sink, began = CollectSink(), Flag()
    sink.write = scripted.flagging(sink.write, began, Label)
    runner = make_runner(song.source, sink, models=["namer"])
    other = make_runner(song.source, sink, models=models).plan
    runner.swapper.load = lambda name: other
    run = background(runner.run)
    assert began.wait(PATIENCE_S)
    try:
        answer = runner.swapper.begin(SwapArguments(shadow_s=0.5, **arguments))
        assert answer == {"shadow_s": 0.5}
        runner.swapper._thread.join(PATIENCE_S)
    finally:
        song.over.set()
    return sink, runner.swapper.last, run()


def test_a_swap_loses_no_sample_and_no_sequence_number(background, song):
    sink, last, outcome = swapped(background, song, ["renamer"])
    assert last["state"] == "swapped"
    (command,) = sink.events(Control)
    report = command.arguments["agreement"]
    assert command.command == "swap"
    assert report["segments"]["equal"] == 1.0
    assert report["labels"]["equal"] == 0.0
    assert report["labels"]["old"] == report["labels"]["new"] >= 10
    # Every segment is there once, numbered without a hole.
    onsets = sink.events(Onset)
    sung = [n * 70 + at for n in range(song.n_blocks) for at in (20, 50)]
    assert [o.sample for o in onsets] == sung
    assert [o.segment for o in onsets] == list(range(len(sung)))
    assert not any(o.truncated for o in sink.events(Offset))
    # The model changes at that sample and at no other.
    labels = sink.events(Label)
    assert [label.segment for label in labels] == list(range(len(sung)))
    assert [label.unit for label in labels] == [
        "a" if label.onset < command.sample else "b" for label in labels
    ]
    frames = [f.first + i for f in sink.events(Frames) for i in range(len(f.values))]
    assert frames == list(range(len(frames)))
    check_seq(sink)
    assert song.source.opened == 1
    assert (outcome.lost_samples, outcome.exit_code) == (0, 0)
    reported = [h.detail for h in sink.events(Health) if h.stage == "swap"]
    assert reported == ["swapped to x.yaml"]


def test_a_swap_with_too_little_agreement_rolls_back(background, song):
    sink, last, _ = swapped(background, song, ["renamer"], min_agreement=0.9)
    assert last["state"] == "rolled back"
    assert {label.unit for label in sink.events(Label)} == {"a"}
    assert not sink.events(Control)
    (health,) = [h for h in sink.events(Health) if h.stage == "swap"]
    assert health.state == "failed"
    assert "only 0% of labels agree, asked for were 90%" in health.detail
    check_seq(sink)


def test_a_failing_shadow_rolls_back_without_loss(background, song):
    bomb = {"plugin": "bomb", "on_error": "fail"}
    sink, last, outcome = swapped(background, song, [bomb])
    assert "RuntimeError: boom" in last["reason"]
    assert {label.unit for label in sink.events(Label)} == {"a"}
    assert outcome.exit_code == 0


def test_an_impossible_swap_is_refused_with_its_reason(background, song):
    sink, began = CollectSink(), Flag()
    sink.write = scripted.flagging(sink.write, began, Label)
    runner = make_runner(song.source, sink, models=["namer"])
    run = background(runner.run)
    assert began.wait(PATIENCE_S)

    def ask(plan=None, error=None, **arguments):
        def load(name):
            if error:
                raise error
            return plan

        runner.swapper.load = load
        request = {"v": 1, "command": "swap", "arguments": arguments}
        return runner.bus.submit(request)["error"]

    assert ask(error=ConfigError("x.yaml:3: no")) == "x.yaml:3: no"
    other = make_runner(song.source, sink, sink={"on_error": "skip"}).plan
    assert "'sinks' cannot be swapped while it runs" in ask(other)
    other = make_runner(song.source, sink, source_policy="restart").plan
    assert "'source' cannot be swapped" in ask(other)
    other = make_runner([song.source] * 2, sink).plan
    assert "'lanes' cannot be swapped" in ask(other)
    assert "did you mean 'shadow_s'" in ask(other, shadw_s=3)
    runner.swapper.load = None
    with pytest.raises(NeurovocalError, match="no configuration file"):
        runner.swapper.begin(SwapArguments())
    assert runner.bus.submit({"v": 1, "command": "status"})["swap"] is None
    song.over.set()
    run()
    assert {label.unit for label in sink.events(Label)} == {"a"}
