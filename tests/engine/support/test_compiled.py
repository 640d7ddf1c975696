"""Compiled kernels give the bits of NumPy, and are used only then."""

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import soundfile
from processes.waiting import PATIENCE_S
from repository import ROOT

from neurovocal.engine.audio.segmenter import Segmenter, SegmenterRules
from neurovocal.engine.cli.session import plan_of
from neurovocal.engine.config.schema import locate_config
from neurovocal.engine.contracts.types import (
    Block,
    Event,
    Frames,
    Gap,
    Label,
    Offset,
    Posteriors,
    StreamInfo,
)
from neurovocal.engine.lane.builder import build_lane
from neurovocal.engine.support import compiled

RECORDING = ROOT / "configs" / "recordings" / "bengalese-finch.flac"
SAMPLES, RATE = soundfile.read(RECORDING, dtype="float32", always_2d=True)
SECONDS = 4


@pytest.fixture
def kernels(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[compiled.Kernel]]:
    """All kernels, loaded for this test only."""
    pytest.importorskip("numba")
    plan_of(locate_config("demo", []))  # imports the plugins, which have kernels
    monkeypatch.delenv(compiled.SWITCH, raising=False)
    monkeypatch.setattr(compiled, "_loaded", False)
    known = [kernel for kernel in compiled._kernels if kernel.call is None]
    assert (compiled.load_kernels() or "").startswith("numba ")
    yield list(compiled._kernels)
    for kernel in known:
        kernel.call = None


def without_kernels(events: Callable[[], Any]) -> Any:
    """Return what a function gives while no kernel is in use."""
    calls = [kernel.call for kernel in compiled._kernels]
    try:
        for kernel in compiled._kernels:
            kernel.call = None
        return events()
    finally:
        for kernel, call in zip(compiled._kernels, calls, strict=True):
            kernel.call = call


def lane_events(
    lengths: list[int],
    tile: int = 8,
    *,
    loads_after: int | None = None,
    detector: str | None = None,
) -> list[Event]:
    """Events of a lane whose blocks have these lengths in turn, with a gap within."""
    chosen = [] if detector is None else [f"detector={{plugin: {detector}}}"]
    plan = plan_of(locate_config("demo", chosen))
    # The classifier has kernels; `network` reads its posteriors.
    models = plan.lanes[0].models[:1] if detector in (None, "network") else []
    stages = replace(plan.lanes[0], models=models)
    context = replace(plan.context, tile=tile)
    info = StreamInfo("x", RATE, 1)
    lane = build_lane(stages, info, 0, context, wants_frames=True)
    events: list[Event] = []
    position, turn, lost = 0, 0, 2 * RATE
    calls = [kernel.call for kernel in compiled._kernels]
    if loads_after is not None:
        for kernel in compiled._kernels:
            kernel.call = None
    while position < SECONDS * RATE:
        if loads_after is not None and turn == loads_after:
            for kernel, call in zip(compiled._kernels, calls, strict=True):
                kernel.call = call
        item: Block | Gap
        if position == lost:
            item = Gap(lost, lost + 777, "lost")
            position += 777
        else:
            length = lengths[turn % len(lengths)]
            stop = min(position + length, lost if position < lost else SECONDS * RATE)
            part = SAMPLES[position:stop]
            part.flags.writeable = False  # as some sources lend it
            item = Block(position, part)
            position = stop
        for step in lane.process(item):
            events += step.events
        turn += 1
    for step in lane.flush():
        events += step.events
    return events


def assert_same(found: list[Event], expected: list[Event]) -> None:
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert type(one) is type(other)
        if isinstance(one, Frames | Posteriors):
            assert isinstance(other, Frames | Posteriors)
            assert one.first == other.first
            assert one.values.tobytes() == other.values.tobytes()
        else:
            assert one == other


def test_each_kernel_is_loaded_and_equal(kernels: list[compiled.Kernel]) -> None:
    assert {kernel.name for kernel in kernels} >= {
        *("divide_levels", "find_runs", "power_above", "push_levels"),
        *("scale_and_clip", "window_frames", "add_log_posteriors", "most_probable"),
    }
    # Of these two NumPy may have vector instructions, with other bits.
    may_differ = {"add_log_posteriors", "most_probable"}
    assert {k.name for k in kernels if k.call is None} <= may_differ


@pytest.mark.parametrize("tile", [1, 8, 250])
def test_events_are_the_same_with_and_without_kernels(
    kernels: list[compiled.Kernel], tile: int
) -> None:
    lengths = [1, 480, 1024, 33, 5000]
    expected = without_kernels(lambda: lane_events(lengths, tile))
    assert sum(isinstance(event, Offset) for event in expected) > 10
    assert sum(isinstance(event, Label) for event in expected) > 20
    assert_same(lane_events(lengths, tile), expected)
    # However blocks are cut, and if the kernels come while a stream runs.
    assert_same(lane_events([RATE], tile), expected)
    assert_same(lane_events(lengths, tile, loads_after=50), expected)


@pytest.mark.parametrize("detector", ["bands", "excess", "percentile", "network"])
def test_events_of_each_detector_are_the_same(
    kernels: list[compiled.Kernel], detector: str
) -> None:
    expected = without_kernels(lambda: lane_events([5000], detector=detector))
    assert sum(isinstance(event, Offset) for event in expected) > 3
    assert_same(lane_events([5000], detector=detector), expected)


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.int64, bool])
def test_scores_of_any_type_are_segmented(
    kernels: list[compiled.Kernel], kind: type
) -> None:
    scores = np.random.default_rng(0).integers(0, 3, 4000).astype(kind)[::2]

    def marks() -> list[Event]:
        segmenter = Segmenter(SegmenterRules(on=1.0, off=0.7, min_duration=1), 1)
        return [*segmenter.process(0, scores)]

    expected = without_kernels(marks)
    assert len(expected) > 50
    assert marks() == expected


def test_kernels_of_modules_that_are_imported_later_are_loaded_at_once() -> None:
    pytest.importorskip("numba")
    program = (
        "from neurovocal.engine.support import compiled\n"
        "compiled.load_kernels()\n"
        "import neurovocal.plugins.detectors.energy\n"
        "import neurovocal.plugins.features.spectrogram\n"
        "assert len(compiled._kernels) >= 6\n"
        "print([k.name for k in compiled._kernels if k.call is None])\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True)
    assert (done.stdout, done.stderr) == (b"[]\n", b"")


def test_a_kernel_that_gives_other_bits_is_not_used() -> None:
    kernel = compiled.Kernel("math", "sqrt", lambda function: function(4.0) == 2.1)
    try:
        kernel.load()
        assert kernel.call is None
    finally:
        compiled._kernels.remove(kernel)


def test_a_kernel_that_cannot_be_compiled_is_told_and_not_used(
    caplog: pytest.LogCaptureFixture,
) -> None:
    kernel = compiled.Kernel("math", "no_such", lambda function: True)
    try:
        kernel.load()
        assert kernel.call is None
        assert "no_such is not used, NumPy is" in caplog.text
    finally:
        compiled._kernels.remove(kernel)


def test_they_can_be_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(compiled.SWITCH, "0")
    assert compiled.load_kernels() is None


def test_a_short_command_does_not_load_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "load_kernels", lambda: pytest.fail("loaded"))
    with compiled.kernels_after(60.0):
        pass
    assert "nv-kernels" not in [thread.name for thread in threading.enumerate()]


def test_they_can_be_loaded_with_the_plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = threading.Event()
    monkeypatch.setattr(compiled, "load_kernels", loaded.set)
    monkeypatch.setenv(compiled.SWITCH, "1")
    with compiled.kernels_after(60.0):
        assert loaded.is_set()
        assert "nv-kernels" not in [thread.name for thread in threading.enumerate()]


def test_a_long_command_loads_them_in_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = threading.Event()
    monkeypatch.setattr(compiled, "load_kernels", loaded.set)
    with compiled.kernels_after(0.0):
        assert loaded.wait(PATIENCE_S)
