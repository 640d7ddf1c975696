"""RNN-RBM plugin: surprise and prediction compared with plain loops, streaming."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundles.tiny_bundle import N_BINS, make_tiny_bundle
from bundles.tiny_rnn_rbm import (
    HOP,
    LENGTH,
    RATE,
    Floats,
    build,
    make_frames,
    process,
    scored,
    surprise_of,
    synthesis_of,
    tiles,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from neurovocal.engine.contracts.bundle import load_bundle
from neurovocal.engine.contracts.types import (
    Frames,
    Gap,
    Offset,
    Onset,
    Surprise,
    Synthesis,
)
from neurovocal.engine.testing import canonical
from neurovocal.plugins.models.rnn_rbm.surprise import Baseline, Divergence


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_bundle(tmp_path_factory.mktemp("bundles") / "tiny")


# ---- surprise ----------------------------------------------------------------------


def expected_surprise(
    free_energy: Floats, mean: float, std: float, n_frames: float
) -> list[float]:
    rate = 1 - np.exp(-1 / n_frames)
    variance, surprises = std**2, []
    for value in free_energy.astype(np.float64):
        error = value - mean
        surprises.append(error / np.sqrt(max(variance, (0.1 * std) ** 2)))
        mean += rate * error
        variance += rate * (error**2 - variance)
    return surprises


def test_surprise_is_the_divergence_from_the_prediction_over_a_baseline(
    folder: Path,
) -> None:
    frames = make_frames(120)
    model = build(folder, baseline_s=0.2, warm_up_ms=0)
    surprise = surprise_of(process(model, tiles(frames)))

    def divergence(v: Floats) -> Floats:
        p = scored(folder, v)["prediction"][:-1].astype(np.float64)
        p, v = np.clip(p, 1e-4, 1 - 1e-4), np.clip(v[1:], 1e-4, 1 - 1e-4)
        apart = v * np.log(v / p) + (1 - v) * np.log((1 - v) / (1 - p))
        return np.log(1 + apart.sum(axis=1))

    with np.load(folder / "golden.npz") as golden:
        known = divergence(golden["frames"])
    expected = expected_surprise(
        divergence(frames), known.mean(), known.std(), 0.2 * RATE / HOP
    )
    assert surprise[0] == 0  # the first frame has no prediction
    np.testing.assert_allclose(surprise[1:], expected, rtol=1e-3, atol=1e-4)


@settings(max_examples=50, deadline=None)
@given(cuts=st.lists(st.integers(0, 60), max_size=5), gaussian=st.booleans())
def test_divergence_does_not_depend_on_how_frames_are_cut(
    cuts: list[int], gaussian: bool
) -> None:
    rng = np.random.default_rng(0)
    frames, predictions = rng.random((2, 60, 5), dtype=np.float32)
    variance = np.full(5, 0.5, np.float32) if gaussian else None
    whole = Divergence(variance)(frames, predictions)
    edges = sorted({c for c in cuts if 0 < c < 60})
    cut = Divergence(variance)
    parts = [
        cut(v, p)
        for v, p in zip(
            np.split(frames, edges), np.split(predictions, edges), strict=True
        )
    ]
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    assert whole[0] == 0
    if gaussian:
        squares = np.square(frames[1:] - predictions[:-1]).sum(axis=1)
        np.testing.assert_allclose(whole[1:], np.log1p(squares), rtol=1e-5)
    else:
        assert (Divergence()(frames, np.roll(frames, -1, axis=0)) == 0).all()


@given(cuts=st.lists(st.integers(0, 60), max_size=6))
def test_the_baseline_does_not_depend_on_how_a_series_is_cut(cuts: list[int]) -> None:
    values = np.random.default_rng(0).normal(3, 2, 60)
    values[30:40] = 3.0  # the variance falls to its smallest value
    whole = Baseline(2.5, 1.5, 12).normalise(values)
    edges = sorted({c for c in cuts if 0 < c < 60})
    cut = Baseline(2.5, 1.5, 12)
    parts = [cut.normalise(part) for part in np.split(values, edges)]
    np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_surprise_by_free_energy_is_normalised_by_a_running_baseline(
    folder: Path,
) -> None:
    frames = make_frames(120)
    model = build(folder, baseline_s=0.2, warm_up_ms=0, surprise="free_energy")
    surprise = surprise_of(process(model, tiles(frames)))
    spec = load_bundle(folder).manifest.rnn_rbm
    assert spec is not None
    expected = expected_surprise(
        scored(folder, frames)["free_energy"],
        spec.free_energy_mean,
        spec.free_energy_std,
        0.2 * RATE / HOP,
    )
    np.testing.assert_allclose(surprise, expected, rtol=1e-3, atol=1e-4)


def test_there_is_one_surprise_per_frame_of_the_grid(folder: Path) -> None:
    events = process(build(folder), tiles(make_frames(53), first=7))
    parts = [e for e in events if isinstance(e, Surprise)]
    assert [p.first for p in parts] == [7, 15, 23, 31, 39, 47, 55]
    assert [len(p.values) for p in parts] == [8, 8, 8, 8, 8, 8, 5]
    assert synthesis_of(events) == []


def test_surprise_is_zero_during_the_warm_up(folder: Path) -> None:
    frames = make_frames(60)
    model = build(folder, warm_up_ms=100, surprise="free_energy")  # 25 frames
    surprise = surprise_of(process(model, tiles(frames)))
    assert not surprise[:25].any()
    assert surprise[25:].all()
    # The baseline did not move either.
    settled = build(folder, warm_up_ms=0, surprise="free_energy")
    first = scored(folder, frames)["free_energy"][25]
    spec = load_bundle(folder).manifest.rnn_rbm
    assert spec is not None
    expected = (first - spec.free_energy_mean) / spec.free_energy_std
    assert surprise[25] == pytest.approx(expected, rel=1e-3)
    assert surprise_of(process(settled, tiles(frames)))[0] != 0


def test_a_frame_unlike_the_others_has_a_large_surprise(folder: Path) -> None:
    rng = np.random.default_rng(2)
    frames = rng.uniform(0, 0.2, (400, N_BINS)).astype(np.float32)
    frames[300] = 1 - frames[300]
    surprise = surprise_of(process(build(folder, baseline_s=0.3), tiles(frames)))
    assert np.abs(surprise[300]) > 3 * np.abs(surprise[100:300]).max()


@settings(max_examples=50, deadline=None)
@given(
    counts=st.lists(st.integers(1, 30), min_size=1, max_size=12),
    frames=st.floats(0.5, 1e5),
)
def test_baseline_does_not_depend_on_how_the_series_is_cut(
    counts: list[int], frames: float
) -> None:
    values = np.random.default_rng(0).normal(-40, 6, sum(counts))
    whole = Baseline(-30.0, 5.0, frames).normalise(values)
    baseline = Baseline(-30.0, 5.0, frames)
    edges = np.cumsum(counts)[:-1]
    parts = [baseline.normalise(part) for part in np.split(values, edges)]
    assert np.concatenate(parts).tobytes() == whole.tobytes()


def test_after_long_silence_the_deviation_has_a_lower_bound() -> None:
    baseline = Baseline(0.0, 1.0, 10.0)
    baseline.normalise(np.zeros(10_000))
    (surprise,) = baseline.normalise(np.array([0.05]))
    assert surprise == pytest.approx(0.5, rel=1e-3)


# ---- predict ------------------------------------------------------------------------


def test_each_live_frame_gives_a_prediction_of_the_next(folder: Path) -> None:
    frames = make_frames(50)
    parts = synthesis_of(process(build(folder, synthesis="predict"), tiles(frames)))
    assert [p.first for p in parts] == [1, 9, 17, 25, 33, 41, 49]
    assert {(p.mode, p.model, p.hop_length) for p in parts} == {
        ("predict", "tiny/rnn_rbm", HOP)
    }
    values = np.concatenate([p.values for p in parts])
    expected = scored(folder, frames)["prediction"]
    np.testing.assert_allclose(values, expected, atol=1e-5)


# ---- streaming ---------------------------------------------------------------------

MODES = ["off", "predict", "continue"]


def script(values: Floats, first: int = 0) -> list[Any]:
    start = first * HOP
    return [
        *tiles(values, first=first),
        Onset(0, start + 1000, 1.0),
        Offset(0, start + 1000, start + 4000, False),
    ]


@pytest.mark.parametrize("mode", MODES)
def test_after_a_reset_the_events_are_those_of_a_new_model(
    folder: Path, mode: str
) -> None:
    model = build(folder, synthesis=mode, baseline_s=0.1)
    first = process(model, script(make_frames(60)))
    kept = process(model, tiles(make_frames(60, seed=1), first=60))
    model.reset()
    again = process(model, script(make_frames(60)))
    assert list(map(canonical, again)) == list(map(canonical, first))
    fresh = process(build(folder, synthesis=mode), tiles(make_frames(60, seed=1)))
    assert not np.array_equal(surprise_of(kept), surprise_of(fresh))


@pytest.mark.parametrize("mode", MODES)
def test_nothing_is_computed_across_a_gap(folder: Path, mode: str) -> None:
    model = build(folder, synthesis=mode, latency=RATE)
    process(model, tiles(make_frames(60)))
    assert process(model, [Gap(60 * HOP, 90 * HOP, "overrun")]) == []
    # A segment without a frame since the gap cannot be continued.
    assert process(model, [Offset(3, 1000, 4000, True)]) == []
    after = process(model, script(make_frames(60, seed=4), first=90))
    fresh = process(build(folder, synthesis=mode), script(make_frames(60, seed=4), 90))
    assert list(map(canonical, after)) == list(map(canonical, fresh))


def test_missing_frames_without_a_gap_are_an_error(folder: Path) -> None:
    model = build(folder)
    process(model, [Frames(0, HOP, LENGTH, make_frames(4))])
    with pytest.raises(ValueError, match="expected 4"):
        model.process(Frames(5, HOP, LENGTH, make_frames(4)))
    process(model, [Frames(9, HOP, LENGTH, make_frames(4))])  # the model continues


def test_frames_that_are_not_finite_give_finite_events(folder: Path) -> None:
    frames = make_frames(80)
    frames[30] = np.nan
    frames[31, 3] = np.inf
    for mode in MODES:
        model = build(folder, synthesis=mode)
        for event in process(model, [*tiles(frames), Offset(0, 1, 40 * HOP, False)]):
            assert isinstance(event, Surprise | Synthesis)
            assert np.isfinite(event.values).all()
