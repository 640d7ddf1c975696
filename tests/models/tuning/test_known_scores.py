"""Search of the options of `energy`: what it finds is what the detector finds."""

from typing import Any

import numpy as np
import pytest

from neurovocal.models.tuning.choice import found_by
from neurovocal.models.tuning.general_kinds import EnergyKind
from neurovocal.models.tuning.heard import Stretch

RATE = 16_000


def stretch(seed: int, silence_s: float) -> Stretch:
    """Bursts over noise that begin after digital silence, the last one cut."""
    rng = np.random.default_rng(seed)
    samples = rng.normal(0, 0.002, 3 * RATE).astype(np.float32)
    samples[: round(silence_s * RATE)] = 0.0
    spans = [(at, at + 0.08) for at in (0.05, 0.9, 1.5, 1.59, 2.3, 2.95)]
    for start, stop in spans:
        part = slice(round(start * RATE), round(stop * RATE))
        samples[part] += rng.normal(0, 0.1, len(samples[part])).astype(np.float32)
    return Stretch(samples, RATE, spans, [(0.0, 3.0)])


STRETCHES = [stretch(0, 0.0), stretch(1, 0.3)]
KIND = EnergyKind(STRETCHES, {})  # one for all: scores are kept from one to the next


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"on_db": 16.0, "off_db": 4.0, "gap_fill_ms": 30.0},
        {"post_ms": 5.0, "pre_ms": 2.0, "max_duration_ms": 60.0},
        {"hop_ms": 0.5, "smooth_ms": 5.0},
        {"floor_db": -50.0, "settle_s": 0.1},
        {"min_duration_ms": 30.0, "min_silence_ms": 40.0},
    ],
)
def test_segments_are_those_of_the_detector(values: dict[str, Any]) -> None:
    found = KIND.segments(values)
    assert found == found_by("energy", values, STRETCHES)
    assert all(found)
