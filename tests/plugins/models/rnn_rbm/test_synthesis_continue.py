"""Continuation of segments, compared with plain loops over the graph."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundles.tiny_bundle import (
    GIBBS_STEPS,
    N_BINS,
    N_HIDDEN,
    N_RECURRENT,
    edit_manifest,
    make_tiny_bundle,
)
from bundles.tiny_rnn_rbm import (
    HOP,
    LENGTH,
    RATE,
    Floats,
    build,
    make_frames,
    process,
    run,
    scored,
    synthesis_of,
    tiles,
)

from neurovocal.engine.contracts.bundle import load_bundle
from neurovocal.engine.contracts.errors import ConfigError
from neurovocal.engine.contracts.types import Offset, Onset
from neurovocal.engine.testing import canonical


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_bundle(tmp_path_factory.mktemp("bundles") / "tiny")


def expected_continuation(
    folder: Path, frames: Floats, last: int, n: int, **how: Any
) -> Floats:
    """Draw frames after frame `last` with the graph and a random generator."""
    feedback = how.get("feedback", "mean_residual")
    temperature = how.get("temperature", 1.0)
    steps = how.get("gibbs_steps", GIBBS_STEPS)
    seed = np.random.SeedSequence([how.get("seed", 0), how.get("segment", 0)])
    rng = np.random.Generator(np.random.SFC64(seed))
    chol = np.load(folder / "residual.npz")["chol"]
    state = np.zeros((1, N_RECURRENT), np.float32)
    if last > 0:
        state = scored(folder, frames)["states"][last - 1]
    frame, drawn = frames[last], []
    for _ in range(n):
        out = run(
            folder,
            "rnn_rbm_sample.onnx",
            frame=frame[None],
            u=state,
            noise=rng.random((steps, N_HIDDEN), dtype=np.float32),
            temperature=temperature,
        )
        state, frame = out["u_next"], out["mean"][0]
        if feedback == "mean_residual":
            z = rng.standard_normal(N_BINS, dtype=np.float32)
            frame = np.clip(frame + temperature * (chol @ z), 0, 1).astype(np.float32)
        elif feedback == "sampled":
            frame = (rng.random(N_BINS, dtype=np.float32) < frame).astype(np.float32)
        drawn.append(frame)
    return np.array(drawn)


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"feedback": "mean"},
        {"feedback": "sampled"},
        {"temperature": 0.5, "seed": 7},
        {"gibbs_steps": 9},
    ],
)
def test_a_continuation_follows_the_last_frame_of_the_segment(
    folder: Path, how: dict[str, Any]
) -> None:
    frames = make_frames(60)
    model = build(folder, synthesis="continue", continue_frames=10, **how)
    items = [*tiles(frames), Onset(0, 2000, 1.0), Offset(0, 2000, 5500, False)]
    (part,) = synthesis_of(process(model, items))
    last = (5500 - LENGTH) // HOP  # the last frame that ends before the offset
    assert (part.first, part.mode, part.model) == (last + 1, "continue", "tiny/rnn_rbm")
    assert part.values.shape == (10, N_BINS)
    expected = expected_continuation(folder, frames, last, 10, **how)
    np.testing.assert_allclose(part.values, expected, atol=1e-3)
    assert part.values.min() >= 0
    assert part.values.max() <= 1


def test_a_continuation_follows_the_first_frame_of_the_stream(folder: Path) -> None:
    frames = make_frames(8)
    model = build(folder, synthesis="continue", continue_frames=3)
    (part,) = synthesis_of(process(model, [*tiles(frames), Offset(0, 10, 300, False)]))
    assert part.first == 1
    expected = expected_continuation(folder, frames, 0, 3)
    np.testing.assert_allclose(part.values, expected, atol=1e-4)


def drawn(folder: Path, segment: int, late: int = 0, **options: Any) -> Floats:
    frames = make_frames(200)
    model = build(folder, latency=LENGTH * 50, synthesis="continue", **options)
    before = [t for t in tiles(frames) if t.first < 48 + late]
    rest = [t for t in tiles(frames) if t.first >= 48 + late]
    mark = Offset(segment, 2000, 5500, False)
    parts = synthesis_of(process(model, [*before, mark, *rest]))
    last = (5500 - LENGTH) // HOP
    counts = [len(part.values) for part in parts]
    assert max(counts) <= 16  # the bound per call, however late the offset
    assert [p.first for p in parts] == list(last + 1 + np.cumsum([0, *counts[:-1]]))
    return np.concatenate([part.values for part in parts])


def test_continuations_depend_on_seed_and_segment_only(folder: Path) -> None:
    one = drawn(folder, 0)
    assert drawn(folder, 0).tobytes() == one.tobytes()
    assert drawn(folder, 0, late=100).tobytes() == one.tobytes()
    assert not np.array_equal(drawn(folder, 1), one)
    assert not np.array_equal(drawn(folder, 0, seed=1), one)


def test_a_continuation_does_not_depend_on_the_one_before(folder: Path) -> None:
    frames = make_frames(100)
    marks = [Offset(0, 2000, 5500, False), Offset(1, 6000, 9000, False)]
    model = build(folder, latency=RATE, synthesis="continue")
    both = synthesis_of(process(model, [*tiles(frames), *marks]))
    model.reset()
    (alone,) = synthesis_of(process(model, [*tiles(frames), marks[1]]))
    assert canonical(alone) == canonical(both[1])


def test_without_synthesis_no_frames_are_drawn(folder: Path) -> None:
    for options in ({}, {"synthesis": "off"}, {"synthesis": False}):
        model = build(folder, **options)
        items = [*tiles(make_frames(50)), Offset(0, 100, 5000, False)]
        assert synthesis_of(process(model, items)) == []


def test_continue_with_a_detector_latency_above_thirty_seconds_is_refused(
    folder: Path,
) -> None:
    with pytest.raises(ConfigError, match="within 30 s, this one takes up to 600 s"):
        build(folder, latency=600 * RATE, synthesis="continue")
    build(folder, latency=600 * RATE, synthesis="predict")


def test_gaussian_units_are_sampled_with_the_bundles_sigma(folder: Path) -> None:
    gaussian = make_tiny_bundle(folder.parent / "gaussian")
    sigma = np.linspace(0, 0.2, N_BINS).astype(np.float32)
    np.savez(gaussian / "residual.npz", chol=np.zeros((N_BINS, N_BINS)), sigma=sigma)
    spec = load_bundle(folder).manifest.rnn_rbm
    assert spec is not None
    edit_manifest(gaussian, rnn_rbm={**spec.model_dump(), "visible": "gaussian"})

    def values(feedback: str) -> Floats:
        model = build(
            gaussian, synthesis="continue", continue_frames=1, feedback=feedback
        )
        items = [*tiles(make_frames(60)), Offset(0, 2000, 5500, False)]
        return synthesis_of(process(model, items))[0].values[0]

    mean, sampled = values("mean"), values("sampled")
    assert np.array_equal(values("mean_residual"), mean)  # its covariance is zero
    noise = (sampled - mean)[1:] / sigma[1:]
    assert sampled[0] == mean[0]
    assert 0.6 < noise.std() < 1.4
