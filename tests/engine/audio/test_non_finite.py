"""Samples that are no numbers: short runs in recordings are interpolated and told."""

import numpy as np
import pytest

from neurovocal.engine.audio.non_finite import ShortRuns

RATE = 10_000  # the longest run that is interpolated has 50 samples
RAMP = np.arange(400, dtype=np.float32)[:, None] * np.float32([1.0, -2.0])


def spoilt(*places: tuple[int, int, int], value: float = np.nan) -> np.ndarray:
    """Return a ramp in two channels; places are first, stop and column."""
    samples = RAMP.copy()
    for first, stop, column in places:
        samples[first:stop, column] = value
    return samples


def processed(samples: np.ndarray, length: int = 400) -> tuple[np.ndarray, str | None]:
    runs = ShortRuns(RATE, [1, 3])
    parts = [
        runs.process(samples[first : first + length])
        for first in range(0, len(samples), length)
    ]
    if (rest := runs.flush()) is not None:
        parts.append(rest)
    return np.concatenate(parts), runs.sentence


def test_samples_that_are_numbers_are_passed_on_as_they_are():
    done, sentence = processed(RAMP)
    np.testing.assert_array_equal(done, RAMP)
    assert sentence is None


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_short_run_lies_on_a_line_between_its_neighbours(value):
    done, sentence = processed(spoilt((100, 150, 0), (100, 150, 1), value=value))
    np.testing.assert_allclose(done, RAMP, rtol=1e-6)
    assert sentence == (
        "50 samples are no numbers, the first at 0.010 s: interpolated between their "
        "neighbours"
    )


def test_values_of_the_other_channel_are_kept():
    samples = spoilt((100, 120, 1))
    samples[110, 0] = 0.5
    done, sentence = processed(samples)
    assert done[110, 0] == 0.5
    np.testing.assert_allclose(done[:, 1], RAMP[:, 1], rtol=1e-6)
    assert sentence is not None
    assert sentence.startswith("20 samples of channel 3 are no numbers")


def test_runs_of_two_channels_that_overlap_are_one():
    done, _ = processed(spoilt((100, 130, 0), (120, 150, 1)))
    np.testing.assert_allclose(done, RAMP, rtol=1e-6)
    done, _ = processed(spoilt((100, 130, 0), (120, 151, 1)))
    assert np.isnan(done[100:130, 0]).all()


@pytest.mark.parametrize(
    ("place", "n_left"),
    [((0, 10), 10), ((390, 400), 10), ((100, 151), 51), ((0, 400), 400)],
    ids=["start", "end", "long", "all"],
)
def test_runs_that_are_long_or_at_an_end_are_left(place, n_left):
    samples = spoilt((*place, 0), (*place, 1))
    done, sentence = processed(samples)
    np.testing.assert_array_equal(done, samples)
    assert sentence is not None
    assert sentence.startswith(f"{n_left} samples are no numbers")
    assert sentence.endswith(": left as gaps")


def test_both_are_told_in_one_sentence():
    _, sentence = processed(spoilt((100, 110, 0), (200, 300, 1)))
    assert sentence == (
        "110 samples are no numbers, the first at 0.010 s: 10 interpolated between "
        "their neighbours, 100 left as gaps"
    )


def test_a_channel_that_costs_the_others_is_named():
    _, sentence = processed(spoilt((0, 400, 1)))
    assert sentence == (
        "400 samples of channel 3 are no numbers, the first at 0.000 s: left as gaps "
        "in all channels, unless channel 3 is not used"
    )


def test_the_largest_numbers_are_interpolated_without_overflow():
    samples = np.float32([[3e38], [np.nan], [-3e38]])
    done, _ = processed(samples)
    assert done[1, 0] == 0.0


@pytest.mark.parametrize("length", [1, 7, 49, 50, 51, 399])
def test_the_result_does_not_depend_on_blocks(length):
    samples = spoilt(
        (0, 3, 0), (40, 90, 1), (91, 92, 0), (93, 150, 0), (200, 201, 1), (380, 400, 0)
    )
    whole, told = processed(samples)
    parts, told_of_parts = processed(samples, length)
    np.testing.assert_array_equal(parts, whole)
    assert told_of_parts == told
