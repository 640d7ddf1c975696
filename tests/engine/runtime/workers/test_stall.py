"""A live source that delivers nothing: songs go on by the machine's clock."""

import json

import pytest
from stages import runners as scripted
from stages.runners import EPOCH, INFO, RATE, SegmentLabeller, audio, make_runner

from neurovocal.engine.contracts.clock import ManualClock
from neurovocal.engine.contracts.errors import Disconnected
from neurovocal.engine.contracts.types import Frames, Gap, Health, StreamInfo, Synthesis
from neurovocal.engine.journal import Recorded
from neurovocal.engine.journal.replay import ReplayComparison
from neurovocal.engine.testing import CollectSink, ScriptedSource

pytestmark = pytest.mark.usefixtures("quiet", "no_threads_left")


class Singer(SegmentLabeller):
    """Notes how far time has come, as a song would."""

    def process(self, item):
        if isinstance(item, Frames):
            yield Synthesis(item.first, 16, item.values, "heard", "s")

    def advance(self, position):
        yield Synthesis(position // 16, 16, scripted.np.zeros((1, 1)), "time", "s")


@pytest.fixture(autouse=True)
def singer(monkeypatch):
    monkeypatch.setitem(scripted.STAGES, "singer", Singer)


def run(items, *, live=True, policy=None):
    """Positions, in frames, that songs were led to by time; and health events."""
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
        source, sink, clock=clock, models=["singer"], source_policy=policy
    )
    outcome = runner.run()
    songs = [e for e in sink.events(Synthesis) if e.mode == "time"]
    health = [e for e in sink.events(Health) if e.stage == "song clock"]
    return outcome, [song.first for song in songs], health


def test_time_leads_songs_while_a_live_source_is_silent():
    _, songs, health = run([audio("." * 16), 0.16, 0.08, 0.08, audio("." * 16, 160)])
    assert songs == [(160 + ms) * RATE // 1000 // 16 for ms in (160, 240, 320)]
    assert [h.state for h in health] == ["lagging"]


def test_each_stall_is_told_once_and_starts_from_the_last_audio():
    gap = Gap(160, 480, "overrun")
    _, songs, health = run([audio("." * 16), 0.1, gap, 0.01, 0.09, audio(".", 480)])
    assert songs == [260 // 16, 580 // 16]
    assert len(health) == 2


def test_ordinary_waiting_and_recordings_are_no_stall():
    _, songs, health = run([audio("." * 16), 0.02, 0.02, audio("." * 16, 160)])
    assert (songs, health) == ([], [])
    _, songs, health = run([audio("." * 16), 5.0, 5.0], live=False)
    assert (songs, health) == ([], [])


def test_songs_go_on_while_a_lost_device_is_waited_for():
    items = [audio("." * 16), Disconnected("unplugged"), audio("." * 16)]
    outcome, songs, health = run(items, policy="restart")
    assert outcome.lost_samples > 100
    assert songs == sorted(songs)
    assert len(songs) >= 2
    assert len(health) == 1


def test_a_replay_does_not_compare_what_followed_the_clock():
    def recorded(kind, stream, **more):
        header = json.dumps({"kind": kind, "stream": stream, **more}).encode()
        return Recorded(kind, stream, 0, header, b"")

    events = [
        recorded("health", "a", stage="song clock"),
        recorded("health", "b", stage="source"),
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
