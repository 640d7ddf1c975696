"""Generated sequences follow the clock while a live source is silent."""

import json

import pytest
from stages import runners as scripted
from stages.runners import EPOCH, INFO, RATE, SegmentLabeller, audio, make_runner

from neurovocal.engine.contracts.clock import ManualClock
from neurovocal.engine.contracts.errors import Disconnected
from neurovocal.engine.contracts.types import Frames, Gap, Health, StreamInfo, Synthesis
from neurovocal.engine.journal import RecordedEvent
from neurovocal.engine.journal.replay import ReplayComparison
from neurovocal.engine.testing import CollectSink, ScriptedSource

pytestmark = pytest.mark.usefixtures("quiet", "no_threads_left")


class Advancing(SegmentLabeller):
    """A model that publishes the position to which it was advanced."""

    def process(self, item):
        if isinstance(item, Frames):
            yield Synthesis(item.first, 16, item.values, "heard", "s")

    def advance(self, position):
        yield Synthesis(position // 16, 16, scripted.np.zeros((1, 1)), "time", "s")


@pytest.fixture(autouse=True)
def advancing(monkeypatch):
    monkeypatch.setitem(scripted.STAGES, "advancing", Advancing)


def run(items, *, live=True, policy=None):
    """Return the outcome, the frames that models advanced to, and health events."""
    clock = ManualClock(EPOCH)
    sink = CollectSink()

    def script():
        for item in items:
            if isinstance(item, float):
                clock.advance(item)
                yield None
            else:
                yield item

    source = ScriptedSource(INFO, script(), live=live)
    runner = make_runner(
        source, sink, clock=clock, models=["advancing"], source_policy=policy
    )
    outcome = runner.run()
    advanced = [e for e in sink.events(Synthesis) if e.mode == "time"]
    health = [e for e in sink.events(Health) if e.stage == "song clock"]
    return outcome, [event.first for event in advanced], health


def test_models_advance_with_the_clock_while_a_live_source_is_silent():
    _, advanced, health = run([audio("." * 16), 0.16, 0.08, 0.08, audio("." * 16, 160)])
    assert advanced == [(160 + ms) * RATE // 1000 // 16 for ms in (160, 240, 320)]
    assert [h.state for h in health] == ["lagging"]


def test_each_stall_is_reported_once_and_counts_from_the_last_audio():
    gap = Gap(160, 480, "overrun")
    _, advanced, health = run([audio("." * 16), 0.1, gap, 0.01, 0.09, audio(".", 480)])
    assert advanced == [260 // 16, 580 // 16]
    assert len(health) == 2


def test_models_do_not_advance_in_short_silences_or_recordings():
    _, advanced, health = run([audio("." * 16), 0.02, 0.02, audio("." * 16, 160)])
    assert (advanced, health) == ([], [])
    _, advanced, health = run([audio("." * 16), 5.0, 5.0], live=False)
    assert (advanced, health) == ([], [])


def test_models_advance_while_a_lost_device_is_awaited():
    items = [audio("." * 16), Disconnected("unplugged"), audio("." * 16)]
    outcome, advanced, health = run(items, policy="restart")
    assert outcome.lost_samples > 100
    assert advanced == sorted(advanced)
    assert len(advanced) >= 2
    assert len(health) == 1


def test_a_replay_does_not_compare_streams_that_followed_the_clock():
    def recorded(kind, stream, **more):
        fields = {"v": 1, "kind": kind, "stream": stream, "seq": 0, "sample": 0}
        fields |= {"at": 0, "sample_rate": RATE, **more}
        header = json.dumps(fields).encode()
        return RecordedEvent(kind, stream, 0, header, b"")

    events = [
        recorded("health", "a", stage="song clock", state="failed", detail=""),
        recorded("health", "b", stage="source", state="failed", detail=""),
        *(recorded(kind, name) for kind in ("synthesis", "label") for name in "ab"),
    ]
    comparison = ReplayComparison(events, frozenset({"synthesis", "label", "health"}))
    assert comparison.stalled == {"a"}
    assert comparison.missing() == [
        "label 0 of 'a' did not come again",
        "label 0 of 'b' did not come again",
        "synthesis 0 of 'b' did not come again",
    ]
    assert StreamInfo("a", RATE).stream in comparison.stalled
