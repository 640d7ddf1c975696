"""Published online inversions, for comparison: each turns frames into their sound."""

import numpy as np
import pytest
from opponents import HeapIntegration, HeapInversion, OnlineInversion, Rule

LENGTH, HOP = 128, 32
WINDOW = np.hanning(LENGTH + 1)[:-1]
RULES = [
    Rule("gla", 12),
    Rule("fgla", 12, a=0.9),
    Rule("fgla", 12, a=0.9, start="gradient"),
    Rule("agla", 12, a=0.9, b=1.0, g=1.1),
    Rule("raar", 12, b=0.8),
    Rule("dm", 12, b=0.8),
    Rule("dm", 12, b=1.0),
    Rule("admm", 12, a=1.0),
]


def sweep(n_samples=3200):
    t = np.arange(n_samples)
    return 0.3 * np.sin(2 * np.pi * (0.05 * t + 1.5e-5 * t**2))


def spectra(samples):
    frames = np.lib.stride_tricks.sliding_window_view(samples, LENGTH)[::HOP]
    return np.fft.rfft(frames * WINDOW)


def error(wanted, samples):
    """Return the spectral convergence away from the ends."""
    got = np.abs(spectra(samples))[8:-8]
    wanted = wanted[8 : 8 + len(got)]
    return np.linalg.norm(got - wanted) / np.linalg.norm(wanted)


def sound_of(inversion, wanted):
    return np.concatenate([*(inversion.push(row) for row in wanted), inversion.flush()])


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_each_rule_makes_the_sound_of_its_frames(rule):
    wanted = np.abs(spectra(sweep()))
    sound = sound_of(OnlineInversion(WINDOW, HOP, 2, rule), wanted)
    assert len(sound) == (len(wanted) - 1) * HOP + LENGTH
    assert error(wanted, sound) < 0.1


@pytest.mark.parametrize("is_causal", [True, False])
def test_heap_integration_makes_the_sound_of_a_sweep(is_causal):
    wanted = np.abs(spectra(sweep()))
    sound = sound_of(HeapInversion(WINDOW, HOP, is_causal=is_causal), wanted)
    assert len(sound) == (len(wanted) - 1) * HOP + LENGTH
    assert error(wanted, sound) < 0.25


def test_heap_integration_carries_the_phase_of_a_tone_on():
    """Between bins, too: the gradient in frequency tells where the tone lies."""
    tone = 0.3 * np.sin(2 * np.pi * 20.3 / LENGTH * np.arange(1000))
    true = spectra(tone)
    heap = HeapIntegration(WINDOW, HOP, is_causal=True)
    heap.phases(np.abs(true[3]), np.angle(true[2]))
    found = heap.phases(np.abs(true[4]), np.angle(true[3]))
    near = slice(19, 23)
    off = np.angle(np.exp(1j * (found[near] - np.angle(true[4][near]))))
    assert np.abs(off).max() < 0.3


def test_more_projections_are_better():
    wanted = np.abs(spectra(sweep()))
    few = sound_of(OnlineInversion(WINDOW, HOP, 2, Rule("gla", 1)), wanted)
    many = sound_of(OnlineInversion(WINDOW, HOP, 2, Rule("gla", 30)), wanted)
    assert error(wanted, many) < error(wanted, few)
