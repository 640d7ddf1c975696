"""Privacy gate: voices and unjudged audio are withheld; labels are published."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from stages.runners import EPOCH, INFO, RATE, STAGES, _plugin, audio

from neurovocal.engine.audio.timeline import TimeBase
from neurovocal.engine.config.located_yaml import parse_located
from neurovocal.engine.config.planner import make_plan
from neurovocal.engine.config.schema import parse_config
from neurovocal.engine.contracts.clock import NS, ManualClock
from neurovocal.engine.contracts.errors import ConfigError
from neurovocal.engine.contracts.options import Options
from neurovocal.engine.contracts.plugin import BuildContext, Plugin
from neurovocal.engine.contracts.registry import Registry
from neurovocal.engine.contracts.stages import VoiceInterval
from neurovocal.engine.contracts.types import (
    Anchor,
    Block,
    Frames,
    Gap,
    Health,
    Label,
    Withheld,
)
from neurovocal.engine.runtime.runner import Runner
from neurovocal.engine.runtime.workers.privacy import (
    FAILED,
    LABELS_ONLY,
    VOICE,
    AudioGate,
)
from neurovocal.engine.testing import CollectSink, ScriptedSource, recut
from neurovocal.plugins.sinks.clips.sink import ClipsOptions, ClipsSink
from neurovocal.plugins.sinks.recording import RecordingSink

WINDOW = 50


class Above:
    """A gate with windows of 50 samples: a voice is a sample above one half."""

    def __init__(self) -> None:
        self.broken: Any = lambda position: None
        self.reset()

    def reset(self) -> None:
        self.start: int | None = None
        self.pending = np.zeros(0, np.float32)

    def process(self, item: Any) -> Any:
        if isinstance(item, Gap):
            yield from self.flush()
            return
        self.broken(item.stop)
        if self.start is None:
            self.start = item.start
        self.pending = np.concatenate([self.pending, item.samples[:, 0]])
        while len(self.pending) >= WINDOW:
            yield self.verdict(WINDOW)

    def flush(self) -> Any:
        if len(self.pending):
            yield self.verdict(len(self.pending))
        self.start = None

    def verdict(self, count: int) -> VoiceInterval:
        assert self.start is not None
        start, self.start = self.start, self.start + count
        voice = bool(self.pending[:count].max() > 0.5)
        self.pending = self.pending[count:]
        return VoiceInterval(start, start + count, voice)


def ramp(count: int, voices: list[tuple[int, int]]) -> Any:
    """Quiet samples that encode their index, with loud ones at `voices`."""
    samples = np.arange(count, dtype=np.float32)[:, None] / 2**20
    for start, stop in voices:
        samples[start:stop] = 1.0
    return samples


def through(gate: AudioGate, items: list[Any]) -> list[Any]:
    out = [o for item in items for o in gate.push(item)]
    return out + list(gate.flush())


def split(out: list[Any]) -> tuple[set[int], set[int]]:
    """Return the released and the withheld samples; check that none is both."""
    left = [s for o in out if isinstance(o, Block) for s in range(o.start, o.stop)]
    kept = [s for o in out if isinstance(o, Withheld) for s in range(o.start, o.stop)]
    assert len(set(left)) == len(left)
    assert len(set(kept)) == len(kept)
    assert not set(left) & set(kept)
    for block in (o for o in out if isinstance(o, Block)):
        assert block.samples.max(initial=0) < 0.5, "a voice has left"
        expected = np.arange(block.start, block.stop, dtype=np.float32) / 2**20
        assert np.array_equal(block.samples[:, 0], expected)
    return set(left), set(kept)


@settings(max_examples=60, deadline=None)
@given(
    cuts=st.lists(st.integers(1, 900), min_size=1, max_size=5),
    voice=st.integers(0, 2900),
    length=st.integers(1, 600),
    hold=st.tuples(st.integers(0, 500), st.integers(0, 500)),
)
def test_audio_is_released_except_voices_and_their_margins(
    cuts: list[int], voice: int, length: int, hold: tuple[int, int]
) -> None:
    samples = ramp(3000, [(voice, min(voice + length, 3000))])
    reported = []
    for lengths in ([3000], cuts):
        gate = AudioGate(Above(), RATE, hold[0] / RATE, hold[1] / RATE)
        out = through(gate, recut(samples, lengths))
        left, kept = split(out)
        assert left | kept == set(range(3000))
        first = voice // WINDOW * WINDOW - hold[0]
        last = -(-min(voice + length, 3000) // WINDOW) * WINDOW + hold[1]
        assert kept == set(range(max(0, first), min(last, 3000)))
        assert gate.counts.passed == len(left)
        assert gate.counts.withheld == len(kept)
        assert gate.counts.waiting == 0
        reported.append([o for o in out if isinstance(o, Withheld)])
    assert reported[0] == reported[1]
    assert {w.reason for w in reported[0]} == {VOICE}


def test_audio_waits_for_the_margin_before_a_voice() -> None:
    gate = AudioGate(Above(), RATE, 0.3, 0.3)
    stop = 0
    for block in recut(ramp(2000, []), [30]):
        stop = block.stop
        for out in gate.push(block):
            assert isinstance(out, Block)
            assert out.stop <= stop // WINDOW * WINDOW - 300
    assert gate.counts.passed == stop // WINDOW * WINDOW - 300


def test_the_margin_after_a_voice_continues_over_a_gap() -> None:
    gate = AudioGate(Above(), RATE, 0.1, 0.2)
    samples = ramp(2000, [(470, 475)])
    items = [
        *recut(samples[:475], [100]),
        Gap(475, 600, "overrun"),
        *recut(samples[600:], [100], start=600),
    ]
    left, kept = split(through(gate, items))
    assert kept == {*range(350, 475), *range(600, 675)}
    assert left == {*range(350), *range(675, 2000)}


def test_a_failing_gate_withholds_audio_until_it_works_again() -> None:
    judge = Above()

    def broken(position: int) -> None:
        if 1000 < position <= 1100:
            raise RuntimeError("out of memory")

    judge.broken = broken
    gate = AudioGate(judge, RATE, 0.2, 0.2)
    out = through(gate, recut(ramp(15000, []), [100]))
    left, kept = split(out)
    # Waiting audio, ten seconds of pause, and the margin after them.
    assert kept == set(range(800, 11300))
    assert left == {*range(800), *range(11300, 15000)}
    health = [o for o in out if isinstance(o, Health)]
    assert [h.state for h in health] == ["failed", "healthy"]
    assert "out of memory" in health[0].detail
    assert {o.reason for o in out if isinstance(o, Withheld)} == {FAILED}
    assert gate.counts.failures == 1


def test_an_interval_without_a_verdict_is_withheld() -> None:
    class Sleepy(Above):
        def verdict(self, count: int) -> VoiceInterval:
            made = super().verdict(count)
            return (
                VoiceInterval(made.stop, made.stop, False)
                if made.start == 500
                else made
            )

    left, kept = split(
        through(AudioGate(Sleepy(), RATE, 0, 0), recut(ramp(2000, []), [70]))
    )
    assert kept == set(range(500, 550))
    assert len(left) == 1950


def test_a_gate_that_is_too_slow_for_a_live_source_withholds_audio() -> None:
    clock = ManualClock(EPOCH)
    judge = Above()
    judge.broken = lambda position: clock.advance(0.06)
    gate = AudioGate(judge, RATE, 0, 0, clock.monotonic_ns)
    out = through(gate, recut(ramp(3000, []), [100]))
    [health] = [o for o in out if isinstance(o, Health)]
    assert "0.6 s for a second of audio" in health.detail
    left, kept = split(out)
    assert left == set(range(900))
    assert kept == set(range(900, 3000))


def run(
    privacy: Any, items: list[Any], *sinks: Any, gate: Any = Above, faults: Any = ()
) -> Any:
    extra: dict[Any, Any] = {
        ("detector", "gate"): _plugin("detector", STAGES["gate"]),
        ("features", "frames"): _plugin("features", STAGES["frames"]),
        ("model", "namer"): _plugin("model", STAGES["namer"]),
        ("source", "scripted"): _plugin("source", lambda: ScriptedSource(INFO, items)),
        ("gate", "above"): Plugin("gate", Options, lambda o, c: gate(), "a test's"),
    }
    for index, each in enumerate(sinks):
        extra["sink", f"sink{index}"] = _plugin("sink", lambda s=each: s)
    data = {
        "version": 1,
        "tile": 2,
        "source": {"plugin": "scripted"},
        "features": {"plugin": "frames"},
        "detector": {"plugin": "gate"},
        "models": [{"plugin": "namer"}],
        "sinks": [{"plugin": f"sink{i}"} for i in range(len(sinks))],
        "privacy": privacy,
        "faults": list(faults),
    }
    located = parse_located(yaml.safe_dump(data), "x.yaml")
    context = BuildContext(clock=ManualClock(EPOCH), run="test")
    plan = make_plan(parse_config(located), located, Registry(extra), context)
    return Runner(plan).run()


ALL = {"block", "withheld", "label", "frames", "health", "stats", "gap"}
ABOVE = {"plugin": "above"}


def test_labels_of_withheld_audio_are_published() -> None:
    items = [audio("." * 100, 1000 * i) for i in range(6)]
    items[3] = audio("." * 40 + "##" + "." * 58, 3000)
    plain, gated, closed = (CollectSink(ALL) for _ in range(3))
    run(None, items, plain)
    outcome = run({"gate": ABOVE, "before_s": 0.5, "after_s": 0.5}, items, gated)
    run({"mode": "labels_only"}, items, closed)
    assert outcome.exit_code == 0
    assert plain.events(Label) == gated.events(Label) == closed.events(Label)
    assert plain.events(Label)
    left, kept = split_loud(gated)
    assert kept == set(range(2900, 3950))
    assert left | kept == set(range(6000))
    assert closed.events(Block) == []
    assert {w.reason for w in closed.events(Withheld)} == {LABELS_ONLY}
    assert sum(w.stop - w.start for w in closed.events(Withheld)) == 6000
    assert plain.events(Frames)
    assert not gated.events(Frames)
    assert not closed.events(Frames)


def test_an_injected_crash_of_the_gate_withholds_audio() -> None:
    items = [audio("." * 100, 1000 * i) for i in range(14)]
    plain, struck = CollectSink(ALL), CollectSink(ALL)
    privacy = {"gate": ABOVE, "before_s": 0, "after_s": 0}
    crash = {"fault": "crash", "at_s": 2, "stage": "above"}
    run(privacy, items, plain)
    run(privacy, items, struck, faults=[crash])
    assert len(split_loud(plain)[0]) == 14_000
    left, kept = split_loud(struck)
    # Called again ten seconds later, it works.
    assert kept == set(range(2000, 12_000 + 1000))
    assert left == set(range(14_000)) - kept
    details = [health.detail for health in struck.events(Health)]
    assert "injected: crash of above" in details


def split_loud(sink: CollectSink) -> tuple[set[int], set[int]]:
    left = {s for b in sink.events(Block) for s in range(b.start, b.stop)}
    kept = {s for w in sink.events(Withheld) for s in range(w.start, w.stop)}
    assert not left & kept
    assert all(b.samples.max() < 0.5 for b in sink.events(Block))
    return left, kept


def test_mode_off_may_be_quoted_or_a_boolean() -> None:
    for off in ("off", False):
        sink = CollectSink({"block"})
        run({"mode": off}, [audio("##..")], sink)
        assert len(sink.events(Block)) == 1


def test_a_missing_gate_model_is_a_configuration_error() -> None:
    located = parse_located(
        "version: 1\nsource: {plugin: file, options: {path: .}}\n"
        "privacy: {gate: {options: {model: nowhere.onnx}}}\n"
        "sinks: [{plugin: jsonl}]\n",
        "x.yaml",
    )
    context = BuildContext(clock=ManualClock(EPOCH), run="test")
    with pytest.raises(ConfigError, match=r"nowhere.onnx' does not exist"):
        make_plan(parse_config(located), located, Registry(), context)


def test_utc_of_a_sample_uses_the_given_rate() -> None:
    timebase = TimeBase(1000)
    timebase.add(Anchor(500, EPOCH))
    assert timebase.utc_ns(1500) == EPOCH + NS
    assert timebase.utc_ns(3000, 2000) == EPOCH + NS
    assert timebase.utc_ns(0, 44100) == EPOCH - NS // 2


def test_a_recording_lists_withheld_intervals(tmp_path: Path) -> None:
    kept = RecordingSink(tmp_path)
    items = [audio("." * 50 + "##" + "." * 148), Gap(2000, 2500, "overrun")]
    items.append(audio("." * 50, 2500))
    run({"gate": ABOVE, "before_s": 0.1, "after_s": 0.1}, items, kept)
    lines = (tmp_path / "cage.jsonl").read_text().splitlines()
    holes = [json.loads(line) for line in lines[1:]]
    assert [(h["start"], h["stop"], h["reason"]) for h in holes] == [
        (400, 650, VOICE),
        (2000, 2500, "overrun"),
    ]


def test_clips_list_withheld_intervals(tmp_path: Path) -> None:
    class Heard(Above):
        """A gate that finds a voice at one sample only."""

        def verdict(self, count: int) -> VoiceInterval:
            made = super().verdict(count)
            return VoiceInterval(made.start, made.stop, made.start == 1200)

    options = ClipsOptions(
        path=str(tmp_path), min_free_mb=0, pre_roll_s=0.1, post_roll_s=0.1
    )
    sink = ClipsSink(options, "run", ManualClock(EPOCH))
    items = [audio("." * 105 + "#" * 10 + "." * 400)]
    privacy = {"gate": ABOVE, "before_s": 0.05, "after_s": 0.0}
    run(privacy, items, sink, gate=Heard)
    [path] = tmp_path.rglob("*.json")
    clip = json.loads(path.read_text())
    assert (clip["start"], clip["stop"]) == (950, 1250)
    assert clip["missing"] == [{"start": 1150, "stop": 1250, "reason": VOICE}]
    assert [s["labels"][0]["unit"] for s in clip["segments"]] == ["a"]


def test_audio_released_at_the_end_is_joined_to_few_messages() -> None:
    """Seconds of audio that are released together must not overflow a queue."""
    blocks = [Block(at, ramp(at + 4, [])[at:]) for at in range(0, 2000, 4)]
    sink = CollectSink({"block"})
    privacy = {"mode": "gate", "gate": ABOVE, "before_s": 1.0, "after_s": 0.1}
    run(privacy, blocks, sink)
    left = sink.events(Block)
    late = [m for m in sink.messages if m.event.stop > 950]  # released at the end
    assert len(late) <= 4
    assert np.array_equal(np.concatenate([b.samples for b in left]), ramp(2000, []))
