"""Measures of generated song, against their definitions and known values."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import linalg

from neurovocal.engine.contracts.errors import ConfigError
from neurovocal.models.evaluation.synthesis.measures import (
    FrameDetector,
    divergence_bits,
    independent_pairs,
    kolmogorov_smirnov,
    modulation_correlation,
    pair_counts,
    spectrum_distance,
    transition_gain_nats,
)
from neurovocal.models.evaluation.synthesis.patches import (
    PATCH_FRAMES,
    STRIDE,
    PatchSpace,
    frechet_distance,
    nearest_patch_distances,
    patches_of,
    spread,
)
from neurovocal.models.evaluation.synthesis.references import (
    LinearProcess,
    shuffle_frames,
)
from neurovocal.models.evaluation.synthesis.songs import split_evenly

N_BINS = 6


def bursts(seed: int, n_frames: int, length: int = 20) -> np.ndarray:
    """Return bursts of `length` frames, each with another spectrum, and breaks."""
    rng = np.random.default_rng(seed)
    song = np.abs(rng.normal(0, 0.02, (n_frames, N_BINS)))
    for first in range(10, n_frames - length, 2 * length):
        song[first : first + length] += rng.uniform(0.4, 0.9, N_BINS)
    return np.clip(song, 0, 1).astype(np.float32)


def test_frechet_distance_equals_its_formula() -> None:
    rng = np.random.default_rng(0)
    a = rng.normal(0, 1, (4000, 3)) @ np.array([[1, 0.5, 0], [0, 2, 0.3], [0, 0, 1]])
    b = rng.normal(1, 1, (3000, 3)) @ np.array([[2, 0, 0], [0.7, 1, 0], [0, 0.2, 3]])
    covariances = np.cov(a.T), np.cov(b.T)
    root = linalg.sqrtm(covariances[0] @ covariances[1]).real
    expected = np.square(a.mean(0) - b.mean(0)).sum()
    expected += np.trace(covariances[0] + covariances[1] - 2 * root)
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-6)
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a))


def test_frechet_distance_of_equal_gaussians_is_zero() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(2, 3, (2, 20000, 4))
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(a, b) < 0.02
    assert frechet_distance(a, b + np.eye(4)[0] * 5) == pytest.approx(25, rel=0.05)


def test_patches_keep_frames_in_order_within_one_song() -> None:
    song = np.arange(2 * (PATCH_FRAMES + STRIDE), dtype=np.float32).reshape(-1, 2)
    patches = patches_of([song, song[: PATCH_FRAMES - 1]])
    assert patches.shape == (2, 2 * PATCH_FRAMES)
    np.testing.assert_array_equal(patches[1], song[STRIDE:].ravel())


def test_components_keep_most_of_the_variance() -> None:
    songs = [bursts(seed, 600) for seed in range(3)]
    space = PatchSpace.fit(songs)
    patches = patches_of(songs)
    kept = np.square(space.project(songs)).sum()
    assert kept > 0.9 * np.square(patches - space.centre).sum()
    np.testing.assert_allclose(space.axes.T @ space.axes, np.eye(32), atol=1e-9)
    with pytest.raises(ConfigError, match="at least 64"):
        PatchSpace.fit([songs[0][:100]])


def test_song_is_nearer_to_similar_song_than_to_shuffled_frames() -> None:
    real, other = [bursts(0, 2000)], [bursts(1, 2000)]
    space = PatchSpace.fit(real)
    points = space.project(real)
    rng = np.random.default_rng(0)
    mixed = space.project(shuffle_frames(real, 2000, 1, rng))
    alike = frechet_distance(space.project(other), points)
    assert alike < 0.3 * frechet_distance(mixed, points)


def test_periodic_song_has_repeats_and_real_song_has_none() -> None:
    song = [bursts(seed, 1000) for seed in range(2)]
    circle = [np.tile(song[0][:100], (10, 1))]
    space = PatchSpace.fit(song)
    assert nearest_patch_distances([space.project(circle)]).max() == pytest.approx(
        0, abs=1e-5
    )
    assert np.median(nearest_patch_distances([space.project(song)])) > 0.05
    one = [space.project([song[0]])]
    assert spread(one * 2) < spread([space.project([s]) for s in song]) * 1.2
    assert np.isnan(spread(one))


lengths = st.lists(st.integers(0, 20), min_size=1).map(np.array)


@given(lengths, lengths)
def test_kolmogorov_smirnov_is_the_largest_gap_of_the_distributions(
    a: np.ndarray, b: np.ndarray
) -> None:
    gaps = [abs(np.mean(a <= x) - np.mean(b <= x)) for x in range(21)]
    assert kolmogorov_smirnov(a, b) == pytest.approx(max(gaps))


def test_kolmogorov_smirnov_of_an_empty_sample_is_one() -> None:
    assert kolmogorov_smirnov(np.array([], int), np.array([1])) == 1.0


def test_detector_finds_segments_by_level() -> None:
    song = bursts(0, 400)
    level = song.mean(1) > 0.2
    detector = FrameDetector.fit([song], [level])
    segments = detector(song)
    assert len(segments) == 10
    assert np.abs(np.diff(segments, axis=1) - 20).max() <= 2
    assert len(detector(np.zeros((50, N_BINS), np.float32))) == 0
    assert len(detector(song[:1])) == 0


def test_short_breaks_are_closed_and_short_sounds_left_out() -> None:
    song = np.zeros((100, 2), np.float32)
    song[10:30] = song[33:50] = song[80:83] = 1.0
    found = FrameDetector(0.5)(song)
    assert found.tolist() == [[10, 30], [33, 50]]
    song[31:33] = 1.0
    assert FrameDetector(0.5)(song).tolist() == [[10, 50]]


def test_spectra_of_equal_songs_agree() -> None:
    a, b = [bursts(0, 1000)], [bursts(1, 1000)]
    assert spectrum_distance(a, a) == 0
    assert spectrum_distance(a, [a[0] + 0.25]) == pytest.approx(0.25, rel=1e-4)
    assert modulation_correlation(a, a) == pytest.approx(1)
    rng = np.random.default_rng(0)
    mixed = modulation_correlation(a, shuffle_frames(a, 1000, 1, rng))
    assert modulation_correlation(a, b) > mixed + 0.1
    assert np.isnan(modulation_correlation(a, [a[0][:20]]))


def test_pairs_are_counted_within_sequences() -> None:
    pairs = pair_counts([[0, 1, 0, 1], [1], [], [1, 1]], 2)
    assert pairs.tolist() == [[0, 2], [1, 1]]
    assert independent_pairs(pairs).sum() == pytest.approx(pairs.sum())


def test_divergence_is_zero_for_equal_and_one_for_disjoint_tables() -> None:
    a = np.array([[3.0, 1.0], [0.0, 0.0]])
    b = np.array([[0.0, 0.0], [2.0, 2.0]])
    assert divergence_bits(a, 5 * a) == pytest.approx(0)
    assert divergence_bits(a, b) == pytest.approx(1)
    assert np.isnan(divergence_bits(a, np.zeros((2, 2))))


def test_transition_gain_equals_the_information_of_the_order() -> None:
    pairs = pair_counts([[0, 1, 2] * 400], 3)
    assert transition_gain_nats(pairs, pairs) == pytest.approx(np.log(3), abs=0.02)
    rng = np.random.default_rng(0)
    random = pair_counts([rng.integers(3, size=1000).tolist()], 3)
    assert transition_gain_nats(random, pairs) < -1
    assert np.isnan(transition_gain_nats(np.zeros((3, 3)), pairs))


def test_linear_process_keeps_the_level_of_its_training_song() -> None:
    songs = [bursts(seed, 1500) for seed in range(2)]
    process = LinearProcess.fit(songs)
    starts = [song[:50] for song in songs]
    drawn = process.draw(starts, 2000, np.random.default_rng(0))
    again = process.draw(starts, 2000, np.random.default_rng(0))
    assert [d.shape for d in drawn] == [(2000, N_BINS)] * 2
    np.testing.assert_array_equal(drawn[1], again[1])
    assert np.concatenate(drawn).mean() == pytest.approx(
        np.concatenate(songs).mean(), abs=0.1
    )


def test_split_evenly_gives_pieces_of_equal_length() -> None:
    song = bursts(0, 250)
    pieces = split_evenly([song, song[:99]], 100)
    assert [len(piece) for piece in pieces] == [100, 100]
    np.testing.assert_array_equal(pieces[1], song[100:200])
