"""Shadows that stay: compared, promoted, dropped, and never at the lane's cost."""

import time
from itertools import count
from threading import Event as Flag

import pytest
from processes.waiting import PATIENCE_S, until
from stages import runners as scripted
from stages.runners import INFO, SegmentLabeller, audio, check_seq, make_runner

from neurovocal.engine.contracts.errors import CommandError
from neurovocal.engine.contracts.types import (
    Comparison,
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


class Hanging(SegmentLabeller):
    """Hangs at the first frames until `released` is set."""

    released = Flag()

    def process(self, item):
        if isinstance(item, Frames):
            self.released.wait(PATIENCE_S)
        return super().process(item)


@pytest.fixture(autouse=True)
def stages(monkeypatch):
    for stage in (Renamer, Bomb, Hanging):
        monkeypatch.setitem(scripted.STAGES, stage.__name__.lower(), stage)
    Hanging.released.clear()
    yield
    Hanging.released.set()


class Endless:
    """A source that repeats a block until shortly after `over` is set."""

    def __init__(self, *, live=True):
        self.over, self.n_blocks = Flag(), 0
        self.source = ScriptedSource(INFO, self._items(), live=live)

    def _items(self):
        left = 10
        for number in count():
            if self.over.wait(0.001):
                left -= 1
            if left == 0:
                return
            self.n_blocks = number + 1
            yield audio("..##.#.", number * 70)


class Run:
    """A run with a shadow that stays."""

    def __init__(self, background, models, *, live=True):
        self.song, self.sink, began = Endless(live=live), CollectSink(), Flag()
        self.sink.write = scripted.flagging(self.sink.write, began, Label)
        self.runner = make_runner(self.song.source, self.sink, models=["namer"])
        other = make_runner(self.song.source, self.sink, models=models).plan
        self.runner.swapper.load = lambda name: other
        self._finish = background(self.runner.run)
        assert began.wait(PATIENCE_S)
        answer = self.ask("swap", shadow=True)
        assert answer["shadow"] == "x.yaml", answer

    def ask(self, command, **arguments):
        return self.runner.bus.submit(
            {"v": 1, "command": command, "arguments": arguments}
        )

    def swap(self):
        return self.ask("status")["swap"]

    def finish(self):
        self.song.over.set()
        return self._finish()

    def check_labels(self, unit_of):
        """Check that every sung segment has one label, with the unit of its onset."""
        sung = [n * 70 + at for n in range(self.song.n_blocks) for at in (20, 50)]
        assert [o.sample for o in self.sink.events(Onset)] == sung
        labels = self.sink.events(Label)
        assert [label.segment for label in labels] == list(range(len(sung)))
        assert [label.unit for label in labels] == [unit_of(onset) for onset in sung]
        check_seq(self.sink)


@pytest.fixture
def start(background):
    runs = []

    def start(models, **more):
        runs.append(Run(background, models, **more))
        return runs[-1]

    yield start
    for run in runs:
        run.song.over.set()


def test_a_shadow_is_compared_until_it_is_dropped(start):
    run = start(["renamer"])
    until(lambda: len(run.sink.events(Comparison)) > 20)
    state = run.swap()
    (figures,) = state["shadows"]
    assert (state["state"], state["stays"]) == ("shadow", True)
    assert (figures["lane"], figures["stream"]) == ("lane0", "cage")
    assert figures["segments"]["equal"] == 1.0
    assert figures["labels"]["equal"] == 0.0
    (confusion,) = figures["confusions"]
    assert confusion[:2] == ["a", "b"]
    assert figures["load"] >= 0
    assert run.ask("drop")["dropped"] == "x.yaml"
    run.runner.swapper._thread.join(PATIENCE_S)
    assert run.swap()["state"] == "dropped"
    assert run.ask("drop")["ok"] is False
    outcome = run.finish()
    assert (outcome.lost_samples, outcome.exit_code) == (0, 0)
    run.check_labels(lambda onset: "a")
    found = run.sink.events(Comparison)
    assert {(c.unit, c.shadow_unit, c.agrees) for c in found} == {("a", "b", False)}
    onsets = [c.onset for c in found]
    assert onsets == sorted(set(onsets))
    sung = {o.sample for o in run.sink.events(Onset)}
    assert set(onsets) <= sung
    assert not run.sink.events(Control)
    told = [h.detail for h in run.sink.events(Health) if h.stage == "swap"]
    assert told == [
        "x.yaml runs as a shadow",
        "the shadow x.yaml is dropped: it was asked for",
    ]


def test_a_promoted_shadow_takes_over_without_a_hole(start):
    run = start(["renamer"])
    until(lambda: len(run.sink.events(Comparison)) > 5)
    reply = run.ask("promote")
    assert reply["ok"], reply
    assert reply["promoted"] == "x.yaml"
    run.runner.swapper._thread.join(PATIENCE_S)
    assert run.swap() == {"state": "swapped", "config": "x.yaml"}
    outcome = run.finish()
    assert (outcome.lost_samples, outcome.exit_code) == (0, 0)
    (command,) = run.sink.events(Control)
    assert command.command == "swap"
    assert command.arguments["agreement"]["labels"]["equal"] == 0.0
    assert command.arguments["since"] % 10 == 0
    run.check_labels(lambda onset: "a" if onset < command.sample else "b")
    last = max(c.onset for c in run.sink.events(Comparison))
    assert last < command.sample


def test_a_failing_shadow_is_dropped_and_told(start):
    run = start([{"plugin": "bomb", "on_error": "fail"}])
    run.runner.swapper._thread.join(PATIENCE_S)
    assert "RuntimeError: boom" in run.swap()["reason"]
    outcome = run.finish()
    assert (outcome.lost_samples, outcome.exit_code) == (0, 0)
    run.check_labels(lambda onset: "a")


def test_a_hanging_shadow_costs_a_live_lane_nothing(start):
    run = start(["hanging"])
    n_labels = len(run.sink.events(Label))
    until(lambda: len(run.sink.events(Label)) > n_labels + 20)
    assert not run.runner.watchdog.hung
    run.runner.swapper._thread.join(PATIENCE_S)  # ten seconds of audio later
    assert "hangs or is too slow" in run.swap()["reason"]
    n_labels = len(run.sink.events(Label))
    until(lambda: len(run.sink.events(Label)) > n_labels + 20)
    Hanging.released.set()
    outcome = run.finish()
    assert (outcome.lost_samples, outcome.exit_code) == (0, 0)
    run.check_labels(lambda onset: "a")


def test_a_shadow_that_is_behind_is_not_promoted(start):
    run = start(["hanging"])
    (thread,) = run.runner.swapper._staying[1][0].threads
    until(lambda: thread.lag_s > 0.5)
    reply = run.ask("promote")
    assert not reply["ok"]
    assert "behind the present lanes: try again" in reply["error"]
    Hanging.released.set()
    until(lambda: thread.lag_s < 0.5)
    assert run.swap()["state"] == "shadow"
    run.finish()
    run.check_labels(lambda onset: "a")


def test_recordings_wait_for_their_shadow(start):
    run = start(["renamer"], live=False)
    until(lambda: run.song.n_blocks > 300)
    outcome = run.finish()
    assert outcome.exit_code == 0
    found = run.sink.events(Comparison)
    later = [o.sample for o in run.sink.events(Onset) if o.sample >= found[0].onset]
    assert [c.onset for c in found] == later


def test_a_second_swap_waits_for_the_decision(start):
    run = start(["renamer"])
    assert "promote or drop it first" in run.ask("swap")["error"]
    assert run.ask("swap", cancel=True)["ok"]
    run.runner.swapper._thread.join(PATIENCE_S)
    assert run.swap()["state"] == "dropped"
    run.finish()


def test_mistakes_are_one_sentence(start):
    run = start(["renamer"])
    for command in ("promote", "drop"):
        error = run.ask(command, config="x")["error"]
        assert error == f"'{command}' takes no arguments"
    request = {"v": 1, "command": "drop", "lane": "lane0"}
    assert "for the whole run" in run.runner.bus.submit(request)["error"]
    error = run.ask("swap", shadow=True, shadow_s=3)["error"]
    assert "leave out 'shadow_s'" in error
    run.ask("drop")
    run.runner.swapper._thread.join(PATIENCE_S)
    assert "no shadow stays" in run.ask("promote")["error"]
    run.finish()


def test_the_run_ends_with_a_shadow(start):
    run = start(["hanging"])
    began = time.monotonic()
    Hanging.released.set()
    outcome = run.finish()
    assert outcome.exit_code == 0
    assert time.monotonic() - began < PATIENCE_S
    with pytest.raises(CommandError):
        run.runner.swapper.begin(SwapArguments(shadow=True))
