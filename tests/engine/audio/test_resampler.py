"""Streaming resampler: positions, independence of block lengths, signal quality."""

from itertools import pairwise

import numpy as np
import pytest
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st

from neurovocal.engine.audio.resampler import Resampler, scaled
from neurovocal.engine.contracts.types import Anchor, Block, Gap, StreamInfo

RATES = [
    (44_100, 32_000),
    (32_000, 44_100),
    (48_000, 32_000),
    (250_000, 32_000),
    (16_000, 32_000),
    (32_000, 16_000),
    (22_050, 31_999),
]


def joined(items):
    """Concatenate the samples of blocks, which must be consecutive."""
    blocks = [item for item in items if isinstance(item, Block)]
    for before, after in pairwise(blocks):
        assert after.start == before.stop
    return blocks[0].start, np.concatenate([block.samples for block in blocks])


def convert(resampler, samples, cuts, start=0):
    edges = [0, *sorted(cuts), len(samples)]
    items = []
    for first, stop in pairwise(edges):
        if stop > first:
            block = Block(start + first, samples[first:stop])
            items += resampler.process(block)
    return [*items, *resampler.flush()]


def noise(count, channels=1, seed=0):
    rng = np.random.default_rng(seed)
    return (0.2 * rng.standard_normal((count, channels))).astype(np.float32)


@given(
    rates=st.sampled_from(RATES),
    cuts=st.lists(st.integers(1, 19_999), max_size=30),
    start=st.integers(0, 10**9),
    channels=st.integers(1, 2),
)
@settings(max_examples=60, deadline=None)
def test_any_block_lengths_give_the_same_bytes(rates, cuts, start, channels):
    samples = noise(20_000, channels)
    whole = joined(convert(Resampler(*rates, channels), samples, [], start))
    recut = joined(convert(Resampler(*rates, channels), samples, cuts, start))
    assert recut[0] == whole[0] == scaled(start, *rates)
    assert recut[1].tobytes() == whole[1].tobytes()
    assert len(whole[1]) == scaled(start + 20_000, *rates) - whole[0]


@pytest.mark.parametrize("rates", RATES)
def test_blocks_give_the_same_as_the_whole_signal(rates):
    samples = noise(50_000)
    _, streamed = joined(convert(Resampler(*rates), samples, range(7, 50_000, 333)))
    whole = soxr.resample(samples, *rates, quality="HQ")
    count = min(len(whole), len(streamed))
    assert abs(len(whole) - len(streamed)) <= 1
    np.testing.assert_array_equal(streamed[:count], whole[:count])


@pytest.mark.parametrize("rates", RATES)
@pytest.mark.parametrize("start", [0, 1, 12_345])
def test_output_sample_k_is_the_input_at_time_k_over_rate(rates, start):
    """The error of a resampled tone is below -110 dB."""
    in_rate, out_rate = rates
    tone_hz = 0.2 * min(rates)
    n = np.arange(start, start + in_rate)
    samples = np.sin(2 * np.pi * tone_hz * n / in_rate).astype(np.float32)[:, None]
    first, tone = joined(convert(Resampler(*rates), samples, [1000], start))
    k = np.arange(first, first + len(tone))
    error = tone[:, 0] - np.sin(2 * np.pi * tone_hz * k / out_rate)
    inner = slice(2000, -2000)
    snr_db = -10 * np.log10(2 * np.mean(error[inner] ** 2))
    assert snr_db > 110


def test_frequencies_above_the_new_nyquist_limit_are_removed():
    n = np.arange(96_000)
    samples = np.sin(2 * np.pi * 20_000 * n / 96_000).astype(np.float32)[:, None]
    _, out = joined(convert(Resampler(96_000, 32_000), samples, []))
    assert np.abs(out[2000:-2000]).max() < 1e-5


@pytest.mark.parametrize("rates", RATES)
def test_a_gap_keeps_the_grid_and_the_filter_does_not_cross_it(rates):
    samples = noise(30_000)
    resampler = Resampler(*rates)
    items = [
        *resampler.process(Block(0, samples[:10_001])),
        *resampler.process(Gap(10_001, 12_345, "overrun")),
        *resampler.process(Block(12_345, samples[12_345:])),
        *resampler.flush(),
    ]
    position = 0
    for item in items:
        assert item.start == position
        position = item.stop
    gap = Gap(scaled(10_001, *rates), scaled(12_345, *rates), "overrun")
    assert gap in items
    assert position == scaled(30_000, *rates)
    after = items[items.index(gap) + 1 :]
    alone = convert(Resampler(*rates), samples[12_345:], [], 12_345)
    np.testing.assert_array_equal(joined(after)[1], joined(alone)[1])


def test_a_run_shorter_than_the_filter_has_its_exact_length():
    resampler = Resampler(32_000, 44_100)
    for start, stop in [(0, 1), (1, 2), (5, 8), (1000, 1000 + 77)]:
        items = convert(resampler, noise(stop - start), [], start)
        first, out = joined(items)
        assert first == scaled(start, 32_000, 44_100)
        assert first + len(out) == scaled(stop, 32_000, 44_100)


def test_the_filter_holds_at_most_its_latency():
    for rates in RATES:
        resampler = Resampler(*rates)
        emitted, samples = 0, noise(40_000)
        for start in range(0, 40_000, 100):
            for block in resampler.process(Block(start, samples[start : start + 100])):
                assert isinstance(block, Block)
                emitted = block.stop
            due = scaled(start + 100, *rates)
            assert due - emitted <= resampler.latency


def test_anchors_move_to_the_nearest_sample_and_their_time_with_them():
    resampler = Resampler(48_000, 32_000)
    assert list(resampler.process(Anchor(48_000, 10**9))) == [Anchor(32_000, 10**9)]
    # Input sample 1 is output sample 2/3; the anchor names sample 1, a third later.
    (moved,) = resampler.process(Anchor(1, 0))
    assert moved == Anchor(1, 10_416)


def test_a_new_stream_flushes_the_old_one_and_sets_its_own_rate():
    resampler = Resampler(44_100, 32_000)
    items = list(resampler.process(Block(0, noise(1000))))
    items += resampler.process(StreamInfo("next", 32_000, 1))
    assert joined(items)[1].shape == (scaled(1000, 44_100, 32_000), 1)
    assert items[-1] == StreamInfo("next", 32_000, 1)
    block = Block(0, noise(500))
    assert list(resampler.process(block)) == [block]
    assert resampler.latency == 0


def test_missing_samples_without_a_gap_are_rejected():
    resampler = Resampler(44_100, 32_000)
    list(resampler.process(Block(0, noise(100))))
    with pytest.raises(ValueError, match="starts at 101, expected 100"):
        list(resampler.process(Block(101, noise(100))))


def test_output_blocks_have_the_arrival_time_of_their_input():
    resampler = Resampler(48_000, 32_000)
    items = list(resampler.process(Block(0, noise(4800), arrived_ns=7)))
    assert {item.arrived_ns for item in items} == {7}
    assert [item.arrived_ns for item in resampler.flush()] == [7]
