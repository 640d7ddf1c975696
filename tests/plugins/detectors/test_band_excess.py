"""Band excess: levels of bands above their own noise floors."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from neurovocal.engine.contracts.errors import ConfigError
from neurovocal.engine.contracts.types import Block, Gap
from neurovocal.engine.testing import recut
from neurovocal.plugins.detectors.band_excess import (
    LEAST_DB,
    N_BANDS,
    BandExcess,
    FloorOptions,
    measure_floor,
)

RATE = 16_000
RATES = [1000, 2500, 8000, 22_000, 44_100, 96_000, 250_000, 500_000]

Rows = NDArray[np.float32]


def make(sample_rate: int = RATE, **options: Any) -> BandExcess:
    return BandExcess(FloorOptions(**options), sample_rate)


def noise(seconds: float, level: float = 0.01, sample_rate: int = RATE) -> Rows:
    rng = np.random.default_rng(7)
    samples = level * rng.standard_normal(round(seconds * sample_rate))
    return samples.astype(np.float32)[:, None]


def rows(excess: BandExcess, items: Iterable[Block | Gap]) -> tuple[int, Rows]:
    """Return the first hop and all rows, which must follow each other."""
    parts: list[Rows] = []
    first = stop = None
    results = [
        excess.gap(item) if isinstance(item, Gap) else excess.push(item)
        for item in items
    ]
    for start, part in [*results, excess.flush()]:
        if len(part):
            assert stop is None or start == stop
            first = start if first is None else first
            stop = start + len(part)
            parts.append(part)
    assert first is not None
    return first, np.concatenate(parts)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 4000), min_size=1, max_size=20), st.integers(0, 5000))
def test_rows_do_not_depend_on_how_blocks_are_cut(
    lengths: list[int], start: int
) -> None:
    samples = noise(1.4)
    samples[3000:4000] = 0
    samples[12_000:14_000] *= 100
    whole = rows(make(), [Block(start, samples)])
    blocks = [
        Block(start + block.start, block.samples) for block in recut(samples, lengths)
    ]
    parts = rows(make(), blocks)
    assert parts[0] == whole[0]
    np.testing.assert_array_equal(parts[1], whole[1])


@pytest.mark.parametrize("sample_rate", RATES)
def test_stationary_noise_has_a_mean_power_of_0_db_in_every_band(
    sample_rate: int,
) -> None:
    # Red noise: the floors follow its colour.
    seconds = 6.0 if sample_rate <= 96_000 else 3.0
    white = noise(seconds, 0.1, sample_rate)
    red = white[1:] + 0.9 * white[:-1]
    _, excess = rows(make(sample_rate), [Block(0, red)])
    mean_db = 10 * np.log10((10 ** (excess[len(excess) // 2 :] / 10)).mean(axis=0))
    assert excess.shape[1] == N_BANDS
    np.testing.assert_allclose(mean_db, 0, atol=1.5)


def test_a_tone_stands_out_in_its_band_by_its_level() -> None:
    samples = noise(4.0)
    time = np.arange(1600) / RATE
    samples[48_000:49_600, 0] += 0.1 * np.sin(2 * np.pi * 3000 * time)
    excess = make()
    first, values = rows(excess, [Block(0, samples)])
    hop = 48_800 // excess.hop_length - first
    band = int(values[hop].argmax())
    edges = excess.edges_hz
    assert edges[band] <= 3000 <= edges[band + 1]
    # Level of the tone over that of white noise in the band, both mean squares.
    share = (edges[band + 1] - edges[band]) / (RATE / 2)
    assert values[hop, band] == pytest.approx(
        10 * np.log10(0.005 / (1e-4 * share)), abs=2.5
    )
    assert np.median(values[hop]) < 6


@pytest.mark.parametrize("gain", [0.03, 30.0])
def test_the_gain_of_the_microphone_does_not_matter(gain: float) -> None:
    samples = noise(2.0)
    samples[20_000:24_000] *= 20
    plain = rows(make(), [Block(0, samples)])[1]
    louder = rows(make(), [Block(0, samples * np.float32(gain))])[1]
    np.testing.assert_allclose(plain, louder, atol=1.1)


def test_a_constant_offset_does_not_matter() -> None:
    samples = noise(1.5)
    plain = rows(make(), [Block(0, samples)])[1]
    shifted = rows(make(), [Block(0, samples + np.float32(0.5))])[1]
    np.testing.assert_allclose(plain, shifted, atol=0.2)


def test_digital_silence_is_0_of_nothing_and_stays_out_of_the_floors() -> None:
    silence = np.zeros((RATE, 1), np.float32)
    values = rows(make(), [Block(0, silence)])[1]
    assert (values == LEAST_DB).all()
    # A card that begins with zeros, drops out once, and goes on.
    sound = noise(4.0)
    sound[32_000:40_000] = 0
    excess = make()
    first, values = rows(excess, [Block(0, np.concatenate((silence, sound)))])
    after = values[(RATE + 41_000) // excess.hop_length - first :]
    assert abs(np.median(after)) < 2


def test_zeros_between_sounds_are_the_background_where_they_come_early() -> None:
    samples = noise(3.0)
    for start in range(0, len(samples), 4000):
        samples[start + 1500 : start + 4000] = 0
    _, values = rows(make(), [Block(0, samples)])
    assert np.quantile(values, 0.9) > 30


def test_floors_are_known_after_the_settling_time_and_at_once_with_a_prior() -> None:
    samples = noise(1.0)
    excess = make()
    for block in recut(samples, [16]):
        first, values = excess.push(block)
        if len(values):
            break
    assert first == 0
    assert block.stop <= excess.latency + excess.hop_length
    assert block.stop <= 0.11 * RATE
    floor_db = measure_floor([(noise(3.0)[:, 0], RATE)])
    informed = make(floor_db=floor_db)
    first, values = informed.push(Block(0, samples[: informed.frame_length]))
    assert (first, len(values)) == (0, 1)
    loud = informed.push(Block(informed.frame_length, samples[:3200] * 30))[1]
    assert np.median(loud) == pytest.approx(28, abs=3)


def test_a_prior_of_another_room_is_left_behind() -> None:
    samples = noise(20.0)
    for wrong in (-100.0, -20.0):
        _, values = rows(make(floor_db=(wrong,) * N_BANDS), [Block(0, samples)])
        assert abs(np.median(values[-500:])) < 2


def test_a_prior_of_another_rate_is_not_used() -> None:
    floor_db = measure_floor([(noise(3.0)[:, 0], RATE)])
    blocks = [Block(0, noise(1.0))]
    own = rows(make(floor_db=floor_db, floor_rate=RATE), blocks)
    np.testing.assert_array_equal(own[1], rows(make(floor_db=floor_db), blocks)[1])
    foreign = make(floor_db=floor_db, floor_rate=2 * RATE)
    np.testing.assert_array_equal(rows(foreign, blocks)[1], rows(make(), blocks)[1])
    assert foreign.latency == make().latency


def test_a_measured_floor_is_that_of_the_room_also_with_calls_in_it() -> None:
    quiet = noise(5.0)[:, 0]
    calls = quiet.copy()
    for start in range(4000, len(calls), 8000):
        calls[start : start + 3000] *= 50
    np.testing.assert_allclose(
        measure_floor([(quiet, RATE)]), measure_floor([(calls, RATE)]), atol=4
    )
    with pytest.raises(ValueError, match="different rates"):
        measure_floor([(quiet, RATE), (quiet, 8000)])
    with pytest.raises(ValueError, match="too short or silent"):
        measure_floor([(np.zeros(RATE, np.float32), RATE)])


def test_floors_outlast_a_loss_of_samples_but_not_another_recording() -> None:
    samples = noise(2.0)
    for reason, n_lost, kept in [
        ("lost", RATE, True),
        ("lost", 6 * RATE, False),
    ]:
        excess = make()
        excess.push(Block(0, samples))
        stop = len(samples) + n_lost
        excess.gap(Gap(len(samples), stop, reason))
        _, values = excess.push(Block(stop, samples[:800] * 100))
        assert (len(values) > 0 and float(np.median(values)) > 20) == kept


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"low_hz": 9000}, "more than 20000 Hz, not 16000 Hz"),
        ({"hop_ms": 9}, "leave samples out"),
        ({"frame_ms": 1000, "hop_ms": 1}, None),
        ({"floor_db": (-50.0,) * 31}, "floor_db has 31 numbers"),
    ],
)
def test_impossible_options_are_one_sentence(
    options: dict[str, Any], sentence: str | None
) -> None:
    if sentence is None:
        make(**options)
        return
    with pytest.raises(ConfigError, match=sentence):
        make(**options)


def test_samples_that_are_no_numbers_affect_their_own_frames_only() -> None:
    samples = noise(2.0)
    broken = samples.copy()
    broken[20_000] = np.nan
    broken[20_500] = np.inf
    plain = rows(make(), [Block(0, samples)])[1]
    _, values = rows(make(), [Block(0, broken)])
    assert np.isfinite(values).all()
    np.testing.assert_allclose(values[-200:], plain[-200:], atol=0.5)
