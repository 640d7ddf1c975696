"""Excess detector: a band above its own noise, with fixed thresholds."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from neurovocal.engine import Block, ConfigError, Gap, Offset, Onset
from neurovocal.engine.testing import check_processor, recut
from neurovocal.plugins.detectors.excess import (
    N_WEIGHTS,
    BandPool,
    ExcessOptions,
    ForwardMask,
    bands_in_use,
    make_detector,
)
from neurovocal.plugins.detectors.scored_excess import ScoredExcessDetector

RATE = 16_000
Samples = NDArray[np.float32]
# The loudest bands, less the mean of all.
TONAL = (*[-1 / 32] * 32, 1.0)


def make(sample_rate: int = RATE, **options: Any) -> ScoredExcessDetector:
    return make_detector(ExcessOptions(**options), sample_rate)


def room(sample_rate: int = RATE, pitch: float = 0.2, seconds: float = 2.0) -> Samples:
    """Noise with tones of 60 ms at 0.5, 1.0 and 1.5 s; `pitch` is in parts of rate."""
    rng = np.random.default_rng(5)
    samples = 0.01 * rng.standard_normal(round(seconds * sample_rate))
    for at_s in (0.5, 1.0, 1.5):
        first, count = round(at_s * sample_rate), round(0.06 * sample_rate)
        samples[first : first + count] += 0.1 * np.sin(
            2 * np.pi * pitch * np.arange(count)
        )
    return samples.astype(np.float32)[:, None]


def marks_of(detector: ScoredExcessDetector, items: Iterable[Block | Gap]) -> list[Any]:
    found = [mark for item in items for mark in detector.process(item)]
    return [*found, *detector.flush()]


def spans(detector: ScoredExcessDetector, samples: Samples, rate: int) -> list[Any]:
    marks = marks_of(detector, [Block(0, samples)])
    return [(m.onset / rate, m.sample / rate) for m in marks if isinstance(m, Offset)]


@pytest.mark.parametrize("pool", ["power", "level"])
@pytest.mark.parametrize("rate", [1000, 8000, 44_100, 500_000])
def test_tones_are_found_at_any_rate(rate: int, pool: str) -> None:
    # The mean level rises little for a tone in one of 32 bands.
    samples = room(rate)
    options: dict[str, Any] = {"pool": pool}
    if pool == "level":
        options |= {"call_low_hz": 0.19 * rate, "call_high_hz": 0.21 * rate}
    found = spans(make(rate, **options), samples, rate)
    assert [round(on, 1) for on, _ in found] == [0.5, 1.0, 1.5]
    assert all(abs(off - on - 0.06) < 0.03 for on, off in found)


def test_bands_outside_of_the_calls_are_not_heard() -> None:
    samples = room(pitch=0.05)  # 800 Hz
    assert len(spans(make(), samples, RATE)) == 3
    assert spans(make(call_low_hz=2000.0), samples, RATE) == []
    assert len(spans(make(call_high_hz=2000.0), samples, RATE)) == 3


def test_a_band_between_two_centres_is_the_next_one() -> None:
    edges = np.geomspace(500, 8000, 33)
    options = ExcessOptions(call_low_hz=1000, call_high_hz=1001)
    bands = bands_in_use(options, edges)
    assert bands.stop - bands.start == 1
    assert edges[bands.start] <= 1050


def test_an_echo_is_masked_and_a_call_of_its_level_is_not() -> None:
    samples = room()
    first = round(0.57 * RATE)
    echo = 0.03 * np.sin(2 * np.pi * 0.2 * np.arange(round(0.03 * RATE)))
    samples[first : first + len(echo), 0] += echo.astype(np.float32)
    alone = round(1.8 * RATE)
    samples[alone : alone + len(echo), 0] += echo.astype(np.float32)
    low: dict[str, Any] = {"on_db": 3.0, "off_db": 2.5, "mask_db_per_s": 100.0}
    found = spans(make(mask_db=5.0, **low), samples, RATE)
    assert [round(on, 2) for on, _ in found] == [0.5, 1.0, 1.5, 1.8]
    assert len(spans(make(mask_db=None, **low), samples, RATE)) == 5


def test_weights_tell_tones_from_louder_sounds_that_fill_the_band() -> None:
    samples = room()
    for at_s in (0.2, 0.8, 1.3):
        first, count = round(at_s * RATE), round(0.06 * RATE)
        hiss = 0.3 * np.random.default_rng(2).standard_normal(count)
        samples[first : first + count, 0] += hiss.astype(np.float32)
    plain = spans(make(), samples, RATE)
    assert [round(on, 1) for on, _ in plain] == [0.2, 0.5, 0.8, 1.0, 1.3, 1.5]
    found = spans(make(pool="weights", weights=TONAL), samples, RATE)
    assert [round(on, 1) for on, _ in found] == [0.5, 1.0, 1.5]
    none = make(pool="weights", weights=TONAL, zero_db=50.0)
    assert spans(none, samples, RATE) == []


def test_a_level_counts_up_to_its_limit_and_the_last_weight_is_of_the_calls() -> None:
    cells = np.full(32, 4.0)
    row = np.full((1, 32), -5.0, np.float32)
    row[0, :3] = 60.0, 20.0, 10.0
    for number, wanted in ((0, 30.0), (1, 20.0), (3, 0.0)):
        weights = np.zeros(N_WEIGHTS)
        weights[number] = 1.0
        pool = BandPool(slice(0, 32), cells, "weights", weights.tolist(), zero_db=1.0)
        assert pool(row).tolist() == [wanted - 1.0]
    last = [0.0] * 32 + [1.0]
    inside = BandPool(slice(1, 3), cells, "weights", last)(row)
    beyond = BandPool(slice(4, 8), cells, "weights", last)(row)
    assert 0 < inside[0] < 15.0  # their mean, less what noise reaches
    assert beyond.tolist() == [0.0]


@settings(max_examples=20, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 4000), min_size=1, max_size=12),
    pool=st.sampled_from(["power", "level", "weights"]),
    start=st.integers(0, 3000),
)
def test_marks_do_not_depend_on_how_blocks_are_cut(
    lengths: list[int], pool: str, start: int
) -> None:
    samples = room()
    options: dict[str, Any] = {"pool": pool, "on_db": 4.0, "off_db": 3.0}
    if pool == "weights":
        options["weights"] = TONAL
    whole = marks_of(make(**options), [Block(start, samples)])
    assert any(isinstance(mark, Onset) for mark in whole)
    parts = [Block(start + b.start, b.samples) for b in recut(samples, lengths)]
    assert marks_of(make(**options), parts) == whole


def test_the_detector_conforms() -> None:
    check_processor(lambda: make(near_misses=True), room())


def test_a_gap_truncates_and_what_follows_is_found() -> None:
    samples = room()
    cut, lost = round(0.53 * RATE), 400
    items = [
        Block(0, samples[:cut]),
        Gap(cut, cut + lost, "lost"),
        Block(cut + lost, samples[cut + lost :]),
    ]
    marks = marks_of(make(), items)
    offsets = [mark for mark in marks if isinstance(mark, Offset)]
    assert offsets[0].truncated
    assert [round(mark.onset / RATE, 1) for mark in offsets[-2:]] == [1.0, 1.5]


def test_scores_of_noise_stay_below_zero_and_masks_carry_over() -> None:
    rng = np.random.default_rng(1)
    power = rng.chisquare(8, (20_000, 32)) / 8
    pool = BandPool(slice(0, 32), np.full(32, 4.0), "power")
    scores = pool((10 * np.log10(power)).astype(np.float32))
    assert 0 < (scores > 0).sum() < 20
    mask = ForwardMask(10.0, 1.0)
    first = mask(0, np.array([30.0, 5.0]))
    rest = mask(2, np.array([25.0, 3.0]))
    assert first.tolist() == [30.0, -20.0]
    assert rest.tolist() == [25.0, -20.0]


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"frame_ms": 4.0, "hop_ms": 8.0}, "leave samples out"),
        ({"floor_db": (1.0, 2.0)}, "there are 32 bands"),
        ({"pool": "weights"}, "there are no weights, 33 are needed"),
        ({"weights": (0.5,) * 32}, "there are 32 weights, 33 are needed"),
    ],
)
def test_impossible_options_are_one_sentence(
    options: dict[str, Any], part: str
) -> None:
    with pytest.raises(ConfigError, match=part):
        make(**options)
