"""Privacy: a voice in one channel withholds all, and what is drawn from audio stays."""

from collections.abc import Iterable
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from bundles.tiny_bundle import make_tiny_bundle
from hypothesis import given, settings
from hypothesis import strategies as st
from stages.runners import EPOCH, STAGES, _plugin

from neurovocal.engine.config.located_yaml import parse_located
from neurovocal.engine.config.planner import make_plan
from neurovocal.engine.config.schema import parse_config
from neurovocal.engine.contracts.clock import ManualClock
from neurovocal.engine.contracts.errors import ConfigError
from neurovocal.engine.contracts.options import Options
from neurovocal.engine.contracts.plugin import BuildContext, Plugin
from neurovocal.engine.contracts.registry import Registry
from neurovocal.engine.contracts.stages import VoiceInterval
from neurovocal.engine.contracts.types import (
    Audio,
    Block,
    Frames,
    Gap,
    Label,
    Onset,
    StreamInfo,
    Synthesis,
    Withheld,
)
from neurovocal.engine.runtime.runner import Runner
from neurovocal.engine.runtime.workers.privacy import AudioGate
from neurovocal.engine.testing import CollectSink, ScriptedSource, recut

RATE, WINDOW = 1000, 50


class Above:
    """A gate with windows of 50 samples: a voice is a sample above one half.

    The last window is judged at the end of the stream.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.start = 0
        self.pending = np.zeros(0, np.float32)

    def process(self, item: Block | Gap) -> Iterable[VoiceInterval]:
        if isinstance(item, Gap):
            return
        if not len(self.pending) and not self.start:
            self.start = item.start
        self.pending = np.concatenate([self.pending, item.samples[:, 0]])
        while len(self.pending) >= WINDOW:
            yield self.verdict(WINDOW)

    def flush(self) -> Iterable[VoiceInterval]:
        if len(self.pending):
            yield self.verdict(len(self.pending))

    def verdict(self, count: int) -> VoiceInterval:
        start, self.start = self.start, self.start + count
        voice = bool(self.pending[:count].max() > 0.5)
        self.pending = self.pending[count:]
        return VoiceInterval(start, start + count, voice)


def samples_of(events: Iterable[Any], kind: type) -> set[int]:
    return {s for e in events if isinstance(e, kind) for s in range(e.start, e.stop)}


def together(
    gates: list[AudioGate], tracks: list[list[Block | Gap]]
) -> list[list[Any]]:
    """Push the items of all channels in turn, as a lane does."""
    out: list[list[Any]] = [[] for _ in gates]
    for items in zip_longest(*tracks):
        for gate, item, events in zip(gates, items, out, strict=True):
            events += gate.push(item)
    for gate, events in zip(gates, out, strict=True):
        events += gate.flush()
    return out


@settings(max_examples=60, deadline=None)
@given(
    voices=st.lists(
        st.tuples(st.integers(0, 2), st.integers(0, 2999), st.integers(1, 300)),
        max_size=3,
    ),
    cuts=st.lists(st.integers(1, 700), min_size=1, max_size=4),
    hold=st.tuples(st.integers(0, 300), st.integers(0, 300)),
)
def test_a_voice_in_one_channel_withholds_all(
    voices: list[tuple[int, int, int]], cuts: list[int], hold: tuple[int, int]
) -> None:
    tracks = np.zeros((3, 3000, 1), np.float32)
    for channel, start, length in voices:
        tracks[channel, start : start + length] = 1
    gates = [AudioGate(Above(), RATE, hold[0] / RATE, hold[1] / RATE) for _ in tracks]
    alone = [AudioGate(Above(), RATE, hold[0] / RATE, hold[1] / RATE) for _ in tracks]
    for gate in gates:
        gate.join(gates)
    items = [recut(track, cuts) for track in tracks]
    kept = [samples_of(out, Withheld) for out in together(gates, items)]
    expected = [samples_of(out, Withheld) for out in together(alone, items)]
    assert kept == [set.union(*expected)] * 3
    for gate in gates:
        assert gate.counts.waiting == 0
        assert gate.counts.passed + gate.counts.withheld == 3000


def test_a_failure_in_one_channel_withholds_all() -> None:
    class Broken(Above):
        def process(self, item: Block | Gap) -> Iterable[VoiceInterval]:
            if item.stop > 500:
                raise RuntimeError("out of memory")
            return super().process(item)

    gates = [AudioGate(Above(), RATE, 0, 0), AudioGate(Broken(), RATE, 0, 0)]
    for gate in gates:
        gate.join(gates)
    quiet = np.zeros((2000, 1), np.float32)
    out = together(gates, [recut(quiet, [100]), recut(quiet, [100])])
    assert samples_of(out[0], Block) == samples_of(out[1], Block)
    assert max(samples_of(out[0], Block)) < 500


def test_a_second_stream_begins_anew() -> None:
    gates = [AudioGate(Above(), RATE, 0.1, 0.1) for _ in range(2)]
    for gate in gates:
        gate.join(gates)
    loud, quiet = np.ones((200, 1), np.float32), np.zeros((200, 1), np.float32)
    first = together(gates, [recut(loud, [70]), recut(quiet, [70])])
    second = together(gates, [recut(quiet, [30]), recut(quiet, [30])])
    assert not samples_of(first[1], Block)
    assert samples_of(second[0], Block) == samples_of(second[1], Block) == {*range(200)}


# ---- a run -------------------------------------------------------------------------


class Draws:
    """Model that publishes frames drawn from live audio, and others."""

    latency = 0

    def process(self, item: Any) -> Iterable[Any]:
        if isinstance(item, Frames):
            for mode, from_live in (("predict", True), ("free", False)):
                yield Synthesis(item.first, 16, item.values, mode, "m", from_live)
                drawn = item.values[:1]
                yield Audio(item.first, drawn, mode, "m", from_live=from_live)
            # A model of another author says nothing about it.
            yield Synthesis(item.first, 16, item.values, "other", "m")
        if isinstance(item, Onset):
            yield Label(item.segment, item.sample, None, "a", 1.0, "provisional", "m")

    def flush(self) -> Iterable[Any]:
        return ()

    def reset(self) -> None:
        pass


def run(privacy: Any, track: Any, kinds: set[str]) -> CollectSink:
    sink = CollectSink(kinds)
    info = StreamInfo("cage", RATE, track.shape[1])
    items = [Block(at, track[at : at + 100]) for at in range(0, len(track), 100)]
    extra: dict[Any, Any] = {
        ("detector", "gate"): _plugin("detector", STAGES["gate"]),
        ("features", "frames"): _plugin("features", STAGES["frames"]),
        ("model", "draws"): _plugin("model", Draws),
        ("source", "scripted"): _plugin("source", lambda: ScriptedSource(info, items)),
        ("gate", "above"): Plugin("gate", Options, lambda o, c: Above(), "a test's"),
        ("sink", "collect"): _plugin("sink", lambda: sink),
    }
    data = {
        "version": 1,
        "tile": 2,
        "source": {"plugin": "scripted"},
        "features": {"plugin": "frames"},
        "detector": {"plugin": "gate"},
        "models": [{"plugin": "draws"}],
        "sinks": [{"plugin": "collect"}],
        "privacy": privacy,
    }
    located = parse_located(yaml.safe_dump(data), "x.yaml")
    context = BuildContext(clock=ManualClock(EPOCH), run="test")
    plan = make_plan(parse_config(located), located, Registry(extra), context)
    assert Runner(plan).run().exit_code == 0
    return sink


@pytest.mark.parametrize(
    ("all_channels", "left_of_first"),
    [({}, 1900), ({"all_channels": True}, 1900), ({"all_channels": False}, 3000)],
)
def test_neighbouring_channels_of_a_run(
    all_channels: dict[str, bool], left_of_first: int
) -> None:
    track = np.zeros((3000, 2), np.float32)
    track[1000:1100, 1] = 1.0
    privacy = {"gate": {"plugin": "above"}, "before_s": 0.5, "after_s": 0.5}
    sink = run({**privacy, **all_channels}, track, {"block"})
    left: dict[str, int] = {}
    for message in sink.messages:
        left.setdefault(message.info.stream, 0)
        left[message.info.stream] += len(message.event.samples)
    assert list(left.values()) == [left_of_first, 1900]


@pytest.mark.parametrize(
    ("privacy", "modes"),
    [
        (None, ["free", "other", "predict"]),
        ({"mode": "off"}, ["free", "other", "predict"]),
        ({"gate": {"plugin": "above"}}, ["free"]),
        ({"mode": "labels_only"}, ["free"]),
    ],
)
def test_what_is_drawn_from_live_audio_is_withheld(
    privacy: Any, modes: list[str]
) -> None:
    track = np.zeros((1000, 1), np.float32)
    track[500:600] = 1.0
    sink = run(privacy, track, {"synthesis", "audio", "label"})
    assert sink.events(Label)
    assert sorted({e.mode for e in sink.events(Synthesis)}) == modes
    assert {e.mode for e in sink.events(Audio)} == set(modes) - {"other"}


@pytest.mark.parametrize("privacy", ["gate", "labels_only", "off"])
@pytest.mark.parametrize("synthesis", ["predict", "continue", "free"])
def test_check_refuses_synthesis_that_privacy_withholds(
    tmp_path: Path, synthesis: str, privacy: str
) -> None:
    folder = make_tiny_bundle(tmp_path / "tiny")
    data = {
        "version": 1,
        "source": {"plugin": "synthetic", "options": {"duration_s": 1}},
        "bundle": str(folder),
        "models": [{"plugin": "rnn_rbm", "options": {"synthesis": synthesis}}],
        "sinks": [{"plugin": "jsonl", "options": {"path": str(tmp_path / "x")}}],
        "privacy": {"mode": privacy, "gate": {"plugin": "above"}},
    }
    located = parse_located(yaml.safe_dump(data, sort_keys=False), "x.yaml")
    context = BuildContext(clock=ManualClock(EPOCH), run="test")
    extra: Any = {
        ("gate", "above"): Plugin("gate", Options, lambda o, c: Above(), "a test's")
    }
    registry = Registry(extra)
    if privacy == "off" or synthesis == "free":
        make_plan(parse_config(located), located, registry, context)
        return
    with pytest.raises(ConfigError) as caught:
        make_plan(parse_config(located), located, registry, context)
    (problem,) = caught.value.problems
    assert problem.startswith("x.yaml:8: ")
    assert "privacy.mode" in problem
    assert "would leave" in problem
