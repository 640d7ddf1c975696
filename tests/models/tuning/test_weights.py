"""Weights of band levels: what tells examples from the sound between them."""

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from neurovocal.engine import Block, Offset
from neurovocal.models.toolkit.segment_scores import score_onsets
from neurovocal.models.toolkit.weights import learn_weights
from neurovocal.models.tuning.fitting import fit
from neurovocal.models.tuning.heard import Stretch
from neurovocal.plugins.detectors.excess import ExcessOptions, make_detector

RATE = 32_000
Levels = NDArray[np.float64]


def levels(mean: Sequence[float], n_hops: int, seed: int) -> Levels:
    rng = np.random.default_rng(seed)
    return np.clip(mean + 2 * rng.standard_normal((n_hops, len(mean))), 0, 30)


def test_what_other_sounds_have_too_counts_against_a_call() -> None:
    calls = [levels((20, 20, 0, 0), 10, seed) for seed in range(5)]
    noise = levels((0, 0, 0, 0), 800, 7)
    # As loud in one band of the calls, and in another one.
    others = np.concatenate((noise, levels((0, 20, 20, 0), 200, 8)))
    learned = learn_weights(calls, others)
    assert sum(map(abs, learned.weights)) == pytest.approx(1.0, abs=0.001)
    assert learned.weights[0] > 1.3 * abs(learned.weights[1])
    assert learned.weights[2] < -0.1
    scores = others @ learned.weights - learned.zero_db
    assert abs(float(np.median(scores))) < 0.01
    assert (calls[0] @ learned.weights - learned.zero_db).min() > scores.max()


def test_hops_of_an_example_count_as_one_example() -> None:
    short, long = levels((20, 0), 5, 1), levels((0, 20), 500, 2)
    one = learn_weights([short, long], levels((0, 0), 500, 3)).weights
    assert one[0] == pytest.approx(one[1], rel=0.3)


def test_no_other_sound_and_silent_examples_are_no_error() -> None:
    alone = learn_weights([levels((20, 10), 5, 1)], np.empty((0, 2)))
    assert np.isfinite(alone.weights).all()
    assert alone.zero_db == 0.0
    silent = learn_weights([np.zeros((5, 2))], np.zeros((50, 2)))
    assert silent.weights == (0.5, 0.5)


def test_a_part_of_the_weights_is_for_calls_unlike_the_examples() -> None:
    calls = [levels((20, 0, 0), 10, seed) for seed in range(5)]
    others = levels((0, 0, 0), 800, 7)
    unlearned = np.array((0.1, 0.1, 0.1))
    learned = learn_weights(calls, others).weights
    shared = learn_weights(calls, others, unlearned).weights
    assert abs(learned[1]) < 0.05
    assert shared[1] == pytest.approx(0.7 * learned[1] + 0.1, abs=0.02)
    assert shared[0] > 0.7
    assert sum(map(abs, shared)) == pytest.approx(1.0, abs=0.001)


def test_examples_that_no_weights_tell_from_other_sound_are_fitted() -> None:
    rng = np.random.default_rng(0)
    samples = 0.001 * rng.standard_normal(5 * RATE)
    # 0.3 s of noise every 0.4 s: the examples are parts of it.
    is_loud = np.arange(len(samples)) / RATE % 0.4 < 0.3
    samples += is_loud * 0.3 * rng.standard_normal(len(samples))
    listed = [(0.45 + 0.8 * k, 0.5 + 0.8 * k) for k in range(5)]
    stretch = Stretch(samples.astype(np.float32), RATE, listed, [(0.0, listed[-1][1])])
    fitted = fit([stretch])
    # They are within what is found, as are the other bursts.
    assert all(
        any(on < stop and first < off for on, off in fitted.found[0])
        for first, stop in listed
    )


def test_calls_are_found_between_louder_sounds_of_another_kind() -> None:
    rng = np.random.default_rng(4)
    samples = 0.003 * rng.standard_normal(12 * RATE)
    starts = 0.4 + 0.7 * np.arange(16)
    count = round(0.06 * RATE)
    for number, at_s in enumerate(starts):
        first = round(at_s * RATE)
        pitch = 0.12 + 0.004 * (number % 5)
        samples[first : first + count] += 0.05 * np.sin(
            2 * np.pi * pitch * np.arange(count)
        )
        first += round(0.3 * RATE)
        samples[first : first + count] += 0.2 * rng.standard_normal(count)
    listed = [(float(at), float(at) + 0.06) for at in starts[:5]]
    stop = round((listed[-1][1] + 0.5) * RATE)
    stretch = Stretch(
        samples[:stop].astype(np.float32), RATE, listed, [(0.0, listed[-1][1])]
    )
    options = fit([stretch]).options
    assert options["pool"] == "weights"
    detector = make_detector(ExcessOptions(**options), RATE)
    marks = [
        *detector.process(Block(0, samples.astype(np.float32)[:, None])),
        *detector.flush(),
    ]
    found = [
        (mark.onset / RATE, mark.sample / RATE)
        for mark in marks
        if isinstance(mark, Offset)
    ]
    wanted = [(float(at), float(at) + 0.06) for at in starts]
    assert score_onsets(wanted, found, 0.01).f1 == 1.0
