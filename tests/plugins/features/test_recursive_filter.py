"""Recursive filters: the same values as SciPy's own functions."""

import subprocess
import sys

import numpy as np
import pytest
from scipy.signal import butter, get_window, lfilter, lfilter_zi

from neurovocal.plugins.features import recursive_filter
from neurovocal.plugins.features.recursive_filter import (
    band_pass,
    load_recursion,
    steady_state,
)
from neurovocal.plugins.features.spectrum import window_of

BANDS = [(500.0, 10_000.0, 32_000), (20_000.0, 112_500.0, 250_000), (125, 1800, 4000)]


@pytest.mark.parametrize(("low", "high", "rate"), BANDS)
def test_a_band_pass_is_scipys(low, high, rate):
    b, a = butter(2, (low, high), "bandpass", fs=rate)
    own_b, own_a = band_pass(low, high, rate)
    np.testing.assert_array_equal(own_b, b)
    np.testing.assert_array_equal(own_a, a)
    np.testing.assert_array_equal(steady_state(own_b, own_a), lfilter_zi(b, a))


@pytest.fixture(params=["compiled part", "package"])
def recursion(request, monkeypatch):
    load_recursion.cache_clear()
    if request.param == "package":
        monkeypatch.setattr(recursive_filter, "_compiled_part", lambda: None)
    yield load_recursion()
    load_recursion.cache_clear()


def test_the_recursion_is_scipys(recursion):
    b, a = band_pass(*BANDS[0])
    samples = np.random.default_rng(1).normal(size=1000)
    state = lfilter_zi(b, a) * samples[0]
    expected, expected_state = lfilter(b, a, samples, zi=state)
    found, found_state = recursion(b, a, samples, -1, state)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(found_state, expected_state)


def test_the_compiled_part_is_loaded_alone_and_the_package_after_it():
    code = """
import sys
from neurovocal.plugins.features.recursive_filter import _compiled_part
assert hasattr(_compiled_part(), "_linear_filter")
assert not [name for name in sys.modules if name.startswith("scipy")]
from scipy.signal import lfilter
assert list(lfilter([1.0], [1.0, -0.5], [1.0, 0.0])) == [1.0, 0.5]
"""
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("length", [1, 2, 3, 7, 256, 1001])
@pytest.mark.parametrize("alpha", [0.0, 0.25, 0.5, 1.0])
@pytest.mark.parametrize("name", ["hann", "hamming", "tukey"])
def test_a_window_is_scipys(name, length, alpha):
    shape = (name, alpha) if name == "tukey" else name
    expected = get_window(shape, length).astype(np.float32)
    np.testing.assert_array_equal(window_of(name, length, alpha), expected)
