"""Python calls of the lane thread per block: the overhead of the engine, counted.

A count is the same on every machine, however busy it is; a time is not. The ceilings
are half of what the engine needed when every guard made a closure per call.
"""

import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median
from types import FrameType
from typing import Any

import pytest
import soundfile
import yaml

from neurovocal.engine.config.located_yaml import parse_located
from neurovocal.engine.config.planner import make_plan
from neurovocal.engine.config.schema import parse_config
from neurovocal.engine.contracts.clock import ManualClock
from neurovocal.engine.contracts.options import Options
from neurovocal.engine.contracts.plugin import BuildContext, Plugin
from neurovocal.engine.contracts.registry import Registry
from neurovocal.engine.contracts.types import Block, Frames, Label, StreamInfo
from neurovocal.engine.runtime.runner import Runner
from neurovocal.engine.testing import CollectSink, ScriptedSource

RECORDING = "configs/recordings/bengalese-finch.flac"
SECONDS = 6
LANE = "finch"

# Medians of the version with a closure per call, counted by this very test: a read
# cycle in which no tile was finished, one with frames, one with a label.
BEFORE = {"block": 56.0, "frames": 227.0, "label": 415.0}
MOST = 0.5 * 1.03  # of those; a few calls depend on who waits for a message


@dataclass
class Cycle:
    """Calls from one read of the source to the next."""

    calls: int = 0
    kind: str = "block"


class CallCounter:
    """Profile hook that counts calls of Python functions in one thread."""

    def __init__(self, thread: str) -> None:
        self.cycles: list[Cycle] = []
        self._thread = thread
        self._read = ScriptedSource.read.__code__
        self._frames = Frames.__init__.__code__
        self._label = Label.__init__.__code__

    def install(self, frame: FrameType, event: str, argument: Any) -> None:
        """Keep the hook in the lane's thread, remove it in the others."""
        ours = threading.current_thread().name == self._thread
        sys.setprofile(self._count if ours else None)

    def _count(self, frame: FrameType, event: str, argument: Any) -> None:
        if event != "call":
            return
        if frame.f_code is self._read:
            self.cycles.append(Cycle())
        if not self.cycles:
            return
        cycle = self.cycles[-1]
        cycle.calls += 1
        if frame.f_code is self._label:
            cycle.kind = "label"
        elif frame.f_code is self._frames and cycle.kind == "block":
            cycle.kind = "frames"


def blocks(samples: Any, rate: int) -> Iterator[Block]:
    """The recording in blocks of 10 ms, each of which has arrived in time."""
    step = rate // 100
    for start in range(0, SECONDS * rate, step):
        yield Block(start, samples[start : start + step], 1)


def run_counted(path: str) -> list[Cycle]:
    """Cycles of one lane that labels a recording, as a live source delivers it."""
    samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    source = ScriptedSource(
        StreamInfo(LANE, rate), blocks(samples[:, :1], rate), live=True
    )
    extra: Any = {
        ("source", "scripted"): Plugin("source", Options, lambda o, c: source, "-"),
        ("sink", "collect"): Plugin("sink", Options, lambda o, c: CollectSink(), "-"),
    }
    ample = {"events": 100_000, "bulk": 100_000}
    lane = {
        "name": LANE,
        "source": {"plugin": "scripted"},
        "bundle": "bengalese-finch",
        "models": [{"plugin": "classifier"}],
    }
    sinks = [{"plugin": "collect", "queue": ample}]
    data = {"version": 1, "lanes": [lane], "sinks": sinks}
    located = parse_located(yaml.safe_dump(data), "x.yaml")
    context = BuildContext(clock=ManualClock(), run="test")
    plan = make_plan(parse_config(located), located, Registry(extra), context)
    counter = CallCounter(f"nv-{LANE}")
    threading.setprofile(counter.install)
    try:
        outcome = Runner(plan).run()
    finally:
        threading.setprofile(None)  # type: ignore[arg-type]
    assert outcome.exit_code == 0
    return counter.cycles[:-1]  # the last read meets the end of the stream


def medians(cycles: list[Cycle]) -> dict[str, float]:
    """Median of the calls per cycle, by the items of the cycle."""
    kinds = ("block", "frames", "label")
    return {
        kind: median(cycle.calls for cycle in cycles if cycle.kind == kind)
        for kind in kinds
    }


@pytest.mark.usefixtures("no_threads_left")
def test_a_block_costs_at_most_half_of_the_calls_it_once_did(
    pytestconfig: pytest.Config,
) -> None:
    cycles = run_counted(str(pytestconfig.rootpath / RECORDING))
    assert len(cycles) == 100 * SECONDS
    calls = medians(cycles)
    assert calls["block"] <= BEFORE["block"] * MOST
    assert calls["frames"] <= BEFORE["frames"] * MOST
    assert calls["label"] <= BEFORE["label"] * MOST
