"""Synthetic source: known onsets, equal samples for any seed and block length."""

from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neurovocal.engine.contracts.clock import ManualClock
from neurovocal.engine.contracts.errors import EndOfStream
from neurovocal.engine.contracts.plugin import BuildContext
from neurovocal.engine.contracts.registry import Registry
from neurovocal.engine.testing import check_source
from neurovocal.plugins.sources.synthetic import plugin


def make(clock=None, **options):
    context = BuildContext(clock or ManualClock(), "run", stream="lane")
    return plugin.build(plugin.options(**options), context)


def samples_of(source, limit=None):
    source.open()
    parts, total = [], 0
    while limit is None or total < limit:
        try:
            block = source.read(10)
        except EndOfStream:
            break
        assert block.start == total
        parts.append(block.samples)
        total += len(block.samples)
    source.close()
    return np.concatenate(parts)


def test_conformance():
    assert Registry().get("source", "synthetic") is plugin
    for pace in ("asap", "realtime"):
        check_source(partial(make, duration_s=2, pace=pace))


@given(length=st.integers(1, 40_000), seed=st.integers(0, 5))
@settings(max_examples=20, deadline=None)
def test_any_block_length_gives_the_same_bytes(length, seed):
    options = {"duration_s": 0.7, "seed": seed, "sample_rate": 16_000}
    whole = samples_of(make(**options, block_length=10**6))
    assert samples_of(make(**options, block_length=length)).tobytes() == whole.tobytes()
    assert whole.shape == (11_200, 1)


def test_known_onsets_and_offsets_are_exact_to_the_sample():
    """Without noise, samples are non-zero within the units only."""
    source = make(duration_s=20, snr_db=300, seed=3)
    samples = samples_of(source)[:, 0]
    truth = source.truth()
    assert len(truth) > 50
    assert {unit for _, _, unit in truth} == set("abcde")
    sounding = np.zeros(len(samples), bool)
    for onset, offset, _ in truth:
        sounding[onset:offset] = True
        edges = np.abs(samples[[onset, offset - 1]])
        assert (edges > 1e-10).all()
        assert np.sqrt(np.mean(samples[onset:offset] ** 2)) == pytest.approx(0.1, 1e-3)
    assert np.abs(samples[~sounding]).max() < 1e-12
    assert np.abs(samples).max() < 1


def test_the_noise_floor_has_the_configured_level():
    source = make(duration_s=20, snr_db=20)
    samples = samples_of(source)[:, 0]
    silent = np.ones(len(samples), bool)
    for onset, offset, _ in source.truth():
        silent[onset:offset] = False
    assert np.sqrt(np.mean(samples[silent] ** 2)) == pytest.approx(0.01, rel=0.02)


def test_seeds_give_different_songs_and_a_unit_has_one_waveform():
    one, other = make(seed=1, snr_db=300), make(seed=2, snr_db=300)
    assert one.truth() != other.truth()
    samples = samples_of(one)[:, 0]
    renditions = [samples[on:off] for on, off, unit in one.truth() if unit == "a"]
    assert len(renditions) > 2
    for rendition in renditions[1:]:
        np.testing.assert_allclose(rendition, renditions[0], atol=1e-7)


def test_an_endless_source_lists_its_units_up_to_a_sample():
    endless, finite = make(duration_s=None), make(duration_s=30)
    assert endless.truth(300_000) == finite.truth(300_000)
    with pytest.raises(ValueError, match="give a stop"):
        endless.truth()
    samples = samples_of(endless, limit=300_000)
    np.testing.assert_array_equal(samples[:300_000], samples_of(finite)[:300_000])


def test_realtime_paces_on_the_clock():
    clock = ManualClock()
    samples = samples_of(make(clock, pace="realtime", duration_s=1.5))
    assert clock.monotonic_ns() == len(samples) * 10**9 // 32_000


def test_realtime_is_heard_from_the_opening():
    clock = ManualClock()
    source = make(clock, pace="realtime", duration_s=1.5)
    source.open()
    clock.advance(0.015)
    block = source.read(0)
    assert block.arrived_ns == 10_000_000
    assert source.read(0) is None


@pytest.mark.parametrize("bounds", [(0.0, 0.1), (5.0, 1.0)])
def test_swapped_or_tiny_bounds_give_units(bounds):
    source = make(unit_ms=bounds, silence_ms=bounds, pause_ms=bounds, duration_s=0.2)
    assert np.isfinite(samples_of(source)).all()
    assert all(offset > onset for onset, offset, _ in source.truth())
