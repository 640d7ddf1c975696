"""Patches, map and clusters, without a command."""

import numpy as np
import pytest
import torch
from datasets.kinds import RATE, order, sound, write_kinds

from neurovocal.models.discovery import clusters as clusters_module
from neurovocal.models.discovery import patches as patches_module
from neurovocal.models.discovery.autoencoder import (
    outlier_scores,
    write_autoencoder,
)
from neurovocal.models.discovery.clusters import (
    UNKNOWN,
    by_size,
    examples,
    find_clusters,
    joined_features,
    make_map,
    medoid,
)
from neurovocal.models.discovery.patches import each_patch
from neurovocal.models.discovery.vae import VaeSettings, VaeTask
from neurovocal.models.toolkit.loop import Budget, StopFlag, fit
from neurovocal.models.toolkit.onnx_session import Session
from neurovocal.plugins.features.patches import (
    N_BINS,
    N_COLUMNS,
    PatchMaker,
    PatchSpec,
)

SPEC = PatchSpec(12.0, 300.0, 7600.0, 2000.0, longest_s=0.2)


def noise(seconds, seed=0):
    return np.random.default_rng(seed).normal(0, 1e-3, round(seconds * RATE))


def test_a_tone_is_at_its_frequency():
    samples = noise(2.0).astype(np.float32)
    samples[RATE : RATE + 1600] += np.sin(2 * np.pi * 3000 * np.arange(1600) / RATE)
    maker = PatchMaker(SPEC, RATE)
    patch = maker.patch(samples, RATE, RATE + 1600, maker.floor(samples))
    loudest = patch.sum(0).argmax()
    assert abs(SPEC.centres_hz[loudest] - 3000) < 150
    quiet = patch[N_COLUMNS // 2, np.abs(SPEC.centres_hz - 3000) > 1500]
    assert quiet.mean() < 30


def test_width_grows_with_duration():
    samples = noise(2.0).astype(np.float32)
    maker = PatchMaker(SPEC, RATE)
    floor = maker.floor(samples) - 20
    widths = [
        np.count_nonzero(maker.patch(samples, 0, seconds * RATE, floor).any(1))
        for seconds in (0.0125, 0.05, 0.2, 1.0)
    ]
    assert widths == [8, 16, 32, 32]


def test_patches_do_not_depend_on_the_window_in_memory(tmp_path, monkeypatch):
    kinds = order(20, 1)
    write_kinds(tmp_path / "song.wav", kinds)
    step = round(0.4 * RATE)
    spans = [
        (step * k + step // 2, step * k + step // 2 + len(sound(kind)))
        for k, kind in enumerate(kinds)
    ]
    maker = PatchMaker(SPEC, RATE)

    def patches():
        kept = {}
        each_patch(tmp_path / "song.wav", 1, spans, maker, kept.__setitem__)
        assert sorted(kept) == [*range(20)]
        return np.array([kept[k] for k in range(20)], float)

    whole = patches()
    monkeypatch.setattr(patches_module, "_WINDOW_S", 1.0)
    # The floor is that of each window: levels differ a little, shapes do not.
    assert np.abs(whole - patches()).mean() < 4


def test_a_segment_longer_than_the_window(tmp_path, monkeypatch):
    write_kinds(tmp_path / "song.wav", order(20, 1))
    monkeypatch.setattr(patches_module, "_WINDOW_S", 0.5)
    kept = {}
    maker = PatchMaker(SPEC, RATE)
    spans = [(0, 8 * RATE), (RATE, RATE + 800)]
    each_patch(tmp_path / "song.wav", 1, spans, maker, kept.__setitem__)
    assert sorted(kept) == [0, 1]


def test_bins_above_half_the_rate_are_empty():
    maker = PatchMaker(SPEC, 4000)
    samples = np.random.default_rng(0).normal(0, 0.1, 4000).astype(np.float32)
    patch = maker.patch(samples, 1000, 2000, maker.floor(samples))
    assert patch[:, SPEC.centres_hz < 1800].any()
    assert not patch[:, SPEC.centres_hz > 2300].any()


def blobs(sizes, n_features=6, seed=0):
    rng = np.random.default_rng(seed)
    centres = 8 * np.eye(n_features)[: len(sizes)]
    points = [
        rng.normal(centre, 0.3, (n, n_features))
        for centre, n in zip(centres, sizes, strict=True)
    ]
    truth = np.repeat(np.arange(len(sizes)), sizes)
    return np.concatenate(points).astype(np.float32), truth


def test_an_odd_patch_is_the_first_outlier_and_graphs_agree_with_torch(tmp_path):
    rng = np.random.default_rng(4)
    patches = np.zeros((80, N_COLUMNS, N_BINS), np.uint8)
    patches[:, 8:24, 10:20] = 150
    patches += rng.integers(0, 20, patches.shape).astype(np.uint8)
    patches[17] = patches[17, :, ::-1]  # the only one with its sound elsewhere
    task = VaeTask(patches, VaeSettings(n_hidden=32, n_latent=4, updates=60), 0)
    fit(task, tmp_path / "a.pt", Budget(None), StopFlag(), 1e9)
    scores = outlier_scores(task, patches)
    assert scores.argmax() == 17
    assert scores[17] > 5
    differences = write_autoencoder(tmp_path, task, patches)
    assert set(differences) == {
        *("latent", "latent_single", "patches", "patches_single")
    }
    assert max(differences.values()) < 1e-5
    with torch.no_grad():
        task.module.mean.bias += 1
    changed = Session(tmp_path / "encoder.onnx").run(
        patches=patches[:1].astype(np.float32) / 255
    )
    assert np.abs(changed["latent"] - task.features()[:1]).max() > 0.9


def test_clusters_are_numbered_by_size():
    points, truth = blobs([20, 60, 40])
    found = find_clusters(make_map(points, 0), points, 10, 0)
    for label, part in ((0, 1), (1, 2), (2, 0)):
        own = found.labels[truth == part]
        assert (own == label).mean() > 0.9
    assert found.membership.min() >= 0
    assert found.membership.max() <= 1


def test_segments_beyond_the_map_follow_their_neighbours(monkeypatch):
    points, truth = blobs([120, 80])
    monkeypatch.setattr(clusters_module, "MOST_MAPPED", 60)
    places = make_map(points, 0)
    found = find_clusters(places, points, 8, 0)
    assert len(places) == len(found.labels) == 200
    for part in (0, 1):
        labels = found.labels[truth == part]
        known = labels[labels != UNKNOWN]
        assert len(known) > 0.8 * len(labels)
        assert len(set(known)) == 1
    np.testing.assert_array_equal(places, make_map(points, 0))


@pytest.mark.parametrize("count", [1, 2, 4])
def test_few_segments_are_in_a_row(count):
    points = np.random.default_rng(0).normal(size=(count, 4)).astype(np.float32)
    places = make_map(points, 0)
    assert places.shape == (count, 2)
    assert np.isfinite(places).all()
    assert (find_clusters(places, points, 5, 0).labels == UNKNOWN).all()


def test_by_size_keeps_unknown():
    labels = np.array([3, -1, 3, 1, 3, 1, 0], np.int32)
    np.testing.assert_array_equal(by_size(labels), [0, -1, 0, 1, 0, 1, 2])
    np.testing.assert_array_equal(by_size(np.full(3, -1, np.int32)), [-1] * 3)


def test_medoid_and_examples():
    features = np.array([[0.0], [1.0], [2.0], [10.0], [1.2]], np.float32)
    members = np.arange(5)
    centre = medoid(features, members)
    assert centre == 4
    found = examples(features, members, centre, 3)
    assert found[0] == 4
    assert found[-1] == 3


def test_kinds_of_features_weigh_the_same():
    rng = np.random.default_rng(0)
    small = rng.normal(0, 1, (50, 8)).astype(np.float32)
    large = rng.normal(0, 100, (50, 300)).astype(np.float32)
    joined = joined_features([small, large], 0)
    assert joined.shape == (50, 16)
    weights = [np.square(joined[:, part]).sum() for part in (slice(8), slice(8, 16))]
    assert weights[0] == pytest.approx(weights[1], rel=1e-3)
