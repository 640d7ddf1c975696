"""Streams that begin in song, in a long sound, in digital silence, with a click."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from neurovocal.engine import Block, BuildContext, Mark, Offset, Onset, StreamInfo
from neurovocal.engine.contracts.clock import SystemClock
from neurovocal.engine.contracts.registry import Registry
from neurovocal.models.tuning.floors import level_between
from neurovocal.models.tuning.heard import Stretch
from neurovocal.plugins.detectors.band_excess import measure_floor
from neurovocal.plugins.detectors.energy import EnergyOptions

RATE = 32_000
NOISE = 0.003
Calls = list[tuple[float, float]]


def noise(seconds: float, seed: int = 0) -> NDArray[np.float64]:
    random = np.random.default_rng(seed)
    return NOISE * random.standard_normal(round(seconds * RATE))


def add_tone(samples: NDArray[np.float64], at_s: float, seconds: float) -> None:
    """Add a tone, the beginning of which may lie before the stream."""
    first, count = round(at_s * RATE), round(seconds * RATE)
    tone = 0.1 * np.sin(2 * np.pi * 0.12 * np.arange(count))[max(0, -first) :]
    samples[max(first, 0) :][: len(tone)] += tone


def add_song(samples: NDArray[np.float64], at_s: float, period_s: float = 0.2) -> Calls:
    """Add tones of 60 ms up to the end, and return them."""
    calls = []
    while at_s + 0.1 < len(samples) / RATE:
        add_tone(samples, at_s, 0.06)
        calls.append((max(at_s, 0.0), at_s + 0.06))
        at_s += period_s
    return calls


def in_song() -> tuple[NDArray[np.float64], Calls]:
    samples = noise(3.0)
    return samples, add_song(samples, -0.03, 0.1)


def in_a_long_tone() -> tuple[NDArray[np.float64], Calls]:
    samples = noise(3.0)
    add_tone(samples, -0.1, 1.3)
    return samples, [(0.0, 1.2), *add_song(samples, 1.6)]


def in_silence(seconds: float) -> tuple[NDArray[np.float64], Calls]:
    samples = noise(seconds + 3.0)
    samples[: round(seconds * RATE)] = 0
    return samples, add_song(samples, seconds + 0.15)


def with_an_offset() -> tuple[NDArray[np.float64], Calls]:
    samples = noise(3.0) + 0.3
    return samples, add_song(samples, 0.15)


def with_a_click() -> tuple[NDArray[np.float64], Calls]:
    samples = noise(3.0)
    samples[:20] += 0.9
    return samples, add_song(samples, 0.15)


STARTS: dict[str, Callable[[], tuple[NDArray[np.float64], Calls]]] = {
    "in song": in_song,
    "in a long tone": in_a_long_tone,
    "in half a second of silence": lambda: in_silence(0.5),
    "in ten seconds of silence": lambda: in_silence(10.0),
    "with an offset": with_an_offset,
    "with a click": with_a_click,
}


def prior(plugin: str, added_db: float = 0.0) -> dict[str, Any]:
    """Return the noise floor of the room as an option, perhaps of another room."""
    room = noise(5.0, seed=9).astype(np.float32)
    if plugin == "energy":
        level = level_between([Stretch(room, RATE, [], [])], EnergyOptions())
        assert level is not None
        return {"floor_db": level + added_db}
    floor = measure_floor([(room, RATE)])
    return {"floor_db": [level + added_db for level in floor], "floor_rate": RATE}


def told(
    plugin: str, options: dict[str, Any], samples: NDArray[np.float64]
) -> list[tuple[Mark, float]]:
    """Return the marks of a detector, each with the audio that had arrived, in s."""
    registered = Registry().get("detector", plugin)
    context = BuildContext(
        SystemClock(), "test", base=Path.cwd(), info=StreamInfo("test", RATE)
    )
    detector = registered.build(registered.options.model_validate(options), context)
    length = RATE // 1000
    column = samples.astype(np.float32)[:, None]
    marks = []
    for start in range(0, len(column), length):
        block = Block(start, column[start : start + length])
        stop_s = (start + len(block.samples)) / RATE
        marks += [(mark, stop_s) for mark in detector.process(block)]
    return marks + [(mark, len(column) / RATE) for mark in detector.flush()]


def segments(marks: list[tuple[Mark, float]]) -> Calls:
    return [
        (mark.onset / RATE, mark.sample / RATE)
        for mark, _ in marks
        if isinstance(mark, Offset)
    ]


def missed(calls: Calls, found: Calls) -> Calls:
    return [
        call for call in calls if not any(abs(call[0] - on) < 0.02 for on, _ in found)
    ]


DETECTORS = {
    "bands": ("bands", False),
    "bands, prior": ("bands", True),
    "excess": ("excess", False),
    "excess, prior": ("excess", True),
    "network": ("network", False),
    "energy, prior": ("energy", True),
}


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("name", DETECTORS)
def test_calls_are_found_from_the_start_on(name: str, start: str) -> None:
    plugin, has_prior = DETECTORS[name]
    samples, calls = STARTS[start]()
    options = prior(plugin) if has_prior else {}
    if plugin == "network":
        options = {"bundle": "any-animal"}
    marks = told(plugin, options, samples)
    found = segments(marks)
    assert missed(calls, found) == []
    # The click itself may be told.
    others = [
        each
        for each in found
        if each[1] > 0.05 and not any(each[0] < b and a < each[1] for a, b in calls)
    ]
    assert others == []
    # Nothing that was told is taken back: each onset has one offset, in turn.
    onsets = [mark.sample for mark, _ in marks if isinstance(mark, Onset)]
    assert [round(on * RATE) for on, _ in found] == onsets
    assert [isinstance(mark, Onset) for mark, _ in marks] == [True, False] * len(found)
    # Without a prior what lies in the first 0.1 s is told at its end.
    first = next(stop_s for mark, stop_s in marks if isinstance(mark, Onset))
    assert first - calls[0][0] <= (0.05 if has_prior else 0.11)


@pytest.mark.parametrize("plugin", ["bands", "excess", "energy"])
@pytest.mark.parametrize(
    ("added_db", "right_from_s"),
    [(20.0, 0.3), (-20.0, 2.5)],  # a quieter room; a louder one
)
def test_the_prior_of_another_room_is_left_behind(
    plugin: str, added_db: float, right_from_s: float
) -> None:
    samples = noise(6.0)
    calls = add_song(samples, 0.15)
    found = segments(told(plugin, prior(plugin, added_db), samples))
    assert missed([call for call in calls if call[0] >= right_from_s], found) == []
    later = [each for each in found if each[0] >= right_from_s]
    assert all(any(on < b and a < off for a, b in calls) for on, off in later)
    assert all(off - on < 0.1 for on, off in later)


@pytest.mark.parametrize("plugin", ["bands", "excess", "energy"])
def test_a_prior_does_not_make_the_calls_the_background_of_silence(plugin: str) -> None:
    """A gate leaves nothing but calls: silence between them is the background."""
    samples = np.zeros(20 * RATE)
    calls = add_song(samples, 0.5)
    found = segments(told(plugin, prior(plugin), samples))
    assert missed(calls, found) == []
