"""The RNN-RBM: surprise, prediction and continuation, against plain loops."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from tiny_bundle import (
    GIBBS_STEPS,
    N_BINS,
    N_HIDDEN,
    N_RECURRENT,
    edit_manifest,
    make_tiny_bundle,
)

from neurovocal.engine.errors import ConfigError
from neurovocal.engine.manifest import load_bundle
from neurovocal.engine.registry import BuildContext
from neurovocal.engine.testing import canonical
from neurovocal.engine.timebase import ManualClock
from neurovocal.engine.types import (
    Event,
    Frames,
    Gap,
    Offset,
    Onset,
    StreamInfo,
    Surprise,
    Synthesis,
)
from neurovocal.plugins._baseline import Baseline
from neurovocal.plugins._divergence import Divergence
from neurovocal.plugins._row_history import RowHistory
from neurovocal.plugins.model_rnn_rbm import RnnRbm
from neurovocal.plugins.model_rnn_rbm import plugin as rnn_rbm_plugin

RATE, HOP, LENGTH = 32000, 128, 256
Floats = NDArray[np.float32]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_bundle(tmp_path_factory.mktemp("bundles") / "tiny")


def build(folder: Path, *, latency: int = 0, **options: Any) -> RnnRbm:
    context = BuildContext(
        clock=ManualClock(),
        run="test",
        info=StreamInfo("test", RATE),
        bundle=load_bundle(folder),
        detector_latency=latency,
    )
    validated = rnn_rbm_plugin.options.model_validate(options)
    model = rnn_rbm_plugin.build(validated, context)
    assert isinstance(model, RnnRbm)
    return model


def song_frames(n_frames: int, seed: int = 0) -> Floats:
    """Scaled frames with structure, float32[n_frames, n_bins]."""
    rng = np.random.default_rng(seed)
    frames = rng.uniform(0, 0.3, (n_frames, N_BINS))
    frames[20:40, 30:40] += 0.6
    return frames.astype(np.float32)


def tiles(values: Floats, tile: int = 8, first: int = 0) -> list[Frames]:
    return [
        Frames(first + k, HOP, LENGTH, values[k : k + tile])
        for k in range(0, len(values), tile)
    ]


def hear(model: RnnRbm, items: Iterable[Any]) -> list[Event]:
    return [event for item in items for event in model.process(item)]


def surprise_of(events: Iterable[Event]) -> Floats:
    return np.concatenate([e.values for e in events if isinstance(e, Surprise)])


def synthesis_of(events: Iterable[Event]) -> list[Synthesis]:
    return [event for event in events if isinstance(event, Synthesis)]


def run(folder: Path, name: str, **feed: Any) -> dict[str, Floats]:
    """A graph by itself, without the plugin."""
    session = ort.InferenceSession(str(folder / name))
    names = [output.name for output in session.get_outputs()]
    arrays = {key: np.asarray(value, np.float32) for key, value in feed.items()}
    return dict(zip(names, session.run(names, arrays), strict=True))


def scored(folder: Path, frames: Floats) -> dict[str, Floats]:
    return run(folder, "rnn_rbm.onnx", frames=frames, u=np.zeros((1, N_RECURRENT)))


# ---- surprise ----------------------------------------------------------------------


def surprise_by_hand(
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


def test_surprise_is_the_divergence_from_what_was_expected(folder: Path) -> None:
    frames = song_frames(120)
    model = build(folder, baseline_s=0.2, warm_up_ms=0)
    surprise = surprise_of(hear(model, tiles(frames)))

    def divergence(v: Floats) -> Floats:
        p = scored(folder, v)["prediction"][:-1].astype(np.float64)
        p, v = np.clip(p, 1e-4, 1 - 1e-4), np.clip(v[1:], 1e-4, 1 - 1e-4)
        apart = v * np.log(v / p) + (1 - v) * np.log((1 - v) / (1 - p))
        return np.log(1 + apart.sum(axis=1))

    with np.load(folder / "golden.npz") as golden:
        known = divergence(golden["frames"])
    expected = surprise_by_hand(
        divergence(frames), known.mean(), known.std(), 0.2 * RATE / HOP
    )
    assert surprise[0] == 0  # nothing predicted the first frame
    np.testing.assert_allclose(surprise[1:], expected, rtol=1e-3, atol=1e-4)


@settings(max_examples=50, deadline=None)
@given(cuts=st.lists(st.integers(0, 60), max_size=5), gaussian=st.booleans())
def test_divergence_does_not_depend_on_the_cutting(
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


def test_surprise_can_be_free_energy_over_its_running_baseline(folder: Path) -> None:
    frames = song_frames(120)
    model = build(folder, baseline_s=0.2, warm_up_ms=0, surprise="free_energy")
    surprise = surprise_of(hear(model, tiles(frames)))
    spec = load_bundle(folder).manifest.rnn_rbm
    assert spec is not None
    expected = surprise_by_hand(
        scored(folder, frames)["free_energy"],
        spec.free_energy_mean,
        spec.free_energy_std,
        0.2 * RATE / HOP,
    )
    np.testing.assert_allclose(surprise, expected, rtol=1e-3, atol=1e-4)


def test_one_surprise_per_frame_on_the_frame_grid(folder: Path) -> None:
    events = hear(build(folder), tiles(song_frames(53), first=7))
    parts = [e for e in events if isinstance(e, Surprise)]
    assert [p.first for p in parts] == [7, 15, 23, 31, 39, 47, 55]
    assert [len(p.values) for p in parts] == [8, 8, 8, 8, 8, 8, 5]
    assert synthesis_of(events) == []


def test_while_the_state_settles_nothing_is_surprising(folder: Path) -> None:
    frames = song_frames(60)
    model = build(folder, warm_up_ms=100, surprise="free_energy")  # 25 frames
    surprise = surprise_of(hear(model, tiles(frames)))
    assert not surprise[:25].any()
    assert surprise[25:].all()
    # The baseline did not move either.
    settled = build(folder, warm_up_ms=0, surprise="free_energy")
    first = scored(folder, frames)["free_energy"][25]
    spec = load_bundle(folder).manifest.rnn_rbm
    assert spec is not None
    expected = (first - spec.free_energy_mean) / spec.free_energy_std
    assert surprise[25] == pytest.approx(expected, rel=1e-3)
    assert surprise_of(hear(settled, tiles(frames)))[0] != 0


def test_a_frame_unlike_the_others_is_surprising(folder: Path) -> None:
    rng = np.random.default_rng(2)
    frames = rng.uniform(0, 0.2, (400, N_BINS)).astype(np.float32)
    frames[300] = 1 - frames[300]
    surprise = surprise_of(hear(build(folder, baseline_s=0.3), tiles(frames)))
    assert np.abs(surprise[300]) > 3 * np.abs(surprise[100:300]).max()


@settings(max_examples=50, deadline=None)
@given(
    counts=st.lists(st.integers(1, 30), min_size=1, max_size=12),
    frames=st.floats(0.5, 1e5),
)
def test_baseline_does_not_depend_on_the_cutting(
    counts: list[int], frames: float
) -> None:
    values = np.random.default_rng(0).normal(-40, 6, sum(counts))
    whole = Baseline(-30.0, 5.0, frames).judge(values)
    baseline = Baseline(-30.0, 5.0, frames)
    edges = np.cumsum(counts)[:-1]
    parts = [baseline.judge(part) for part in np.split(values, edges)]
    assert np.concatenate(parts).tobytes() == whole.tobytes()


def test_after_long_silence_the_least_sound_is_no_sensation() -> None:
    baseline = Baseline(0.0, 1.0, 10.0)
    baseline.judge(np.zeros(10_000))
    (breath,) = baseline.judge(np.array([0.05]))
    assert breath == pytest.approx(0.5, rel=1e-3)


# ---- predict ------------------------------------------------------------------------


def test_each_live_frame_gives_a_prediction_of_the_next(folder: Path) -> None:
    frames = song_frames(50)
    parts = synthesis_of(hear(build(folder, synthesis="predict"), tiles(frames)))
    assert [p.first for p in parts] == [1, 9, 17, 25, 33, 41, 49]
    assert {(p.mode, p.model, p.hop_length) for p in parts} == {
        ("predict", "tiny/rnn_rbm", HOP)
    }
    values = np.concatenate([p.values for p in parts])
    expected = scored(folder, frames)["prediction"]
    np.testing.assert_allclose(values, expected, atol=1e-5)


# ---- continue -----------------------------------------------------------------------


def continued_by_hand(
    folder: Path, frames: Floats, last: int, n: int, **how: Any
) -> Floats:
    """Frames after frame `last`, drawn with the graph and a generator alone."""
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
def test_continuation_follows_the_last_frame_of_the_segment(
    folder: Path, how: dict[str, Any]
) -> None:
    frames = song_frames(60)
    model = build(folder, synthesis="continue", continue_frames=10, **how)
    items = [*tiles(frames), Onset(0, 2000, 1.0), Offset(0, 2000, 5500, False)]
    (part,) = synthesis_of(hear(model, items))
    last = (5500 - LENGTH) // HOP  # the last frame that ends before the offset
    assert (part.first, part.mode, part.model) == (last + 1, "continue", "tiny/rnn_rbm")
    assert part.values.shape == (10, N_BINS)
    expected = continued_by_hand(folder, frames, last, 10, **how)
    np.testing.assert_allclose(part.values, expected, atol=1e-3)
    assert part.values.min() >= 0
    assert part.values.max() <= 1


def test_continuing_from_the_very_first_frame(folder: Path) -> None:
    frames = song_frames(8)
    model = build(folder, synthesis="continue", continue_frames=3)
    (part,) = synthesis_of(hear(model, [*tiles(frames), Offset(0, 10, 300, False)]))
    assert part.first == 1
    expected = continued_by_hand(folder, frames, 0, 3)
    np.testing.assert_allclose(part.values, expected, atol=1e-4)


def drawn(folder: Path, segment: int, late: int = 0, **options: Any) -> Floats:
    frames = song_frames(200)
    model = build(folder, latency=LENGTH * 50, synthesis="continue", **options)
    heard = [t for t in tiles(frames) if t.first < 48 + late]
    rest = [t for t in tiles(frames) if t.first >= 48 + late]
    mark = Offset(segment, 2000, 5500, False)
    parts = synthesis_of(hear(model, [*heard, mark, *rest]))
    last = (5500 - LENGTH) // HOP
    counts = [len(part.values) for part in parts]
    assert max(counts) <= 16  # however late it is, nothing waits for it
    assert [p.first for p in parts] == list(last + 1 + np.cumsum([0, *counts[:-1]]))
    return np.concatenate([part.values for part in parts])


def test_draws_depend_on_seed_and_segment_alone(folder: Path) -> None:
    one = drawn(folder, 0)
    assert drawn(folder, 0).tobytes() == one.tobytes()
    assert drawn(folder, 0, late=100).tobytes() == one.tobytes()
    assert not np.array_equal(drawn(folder, 1), one)
    assert not np.array_equal(drawn(folder, 0, seed=1), one)


def test_a_second_segment_does_not_depend_on_the_first(folder: Path) -> None:
    frames = song_frames(100)
    marks = [Offset(0, 2000, 5500, False), Offset(1, 6000, 9000, False)]
    model = build(folder, latency=RATE, synthesis="continue")
    both = synthesis_of(hear(model, [*tiles(frames), *marks]))
    model.reset()
    (alone,) = synthesis_of(hear(model, [*tiles(frames), marks[1]]))
    assert canonical(alone) == canonical(both[1])


def test_other_modes_draw_nothing(folder: Path) -> None:
    for options in ({}, {"synthesis": "off"}, {"synthesis": False}):
        model = build(folder, **options)
        items = [*tiles(song_frames(50)), Offset(0, 100, 5000, False)]
        assert synthesis_of(hear(model, items)) == []


def test_a_detector_that_is_too_late_to_continue_is_refused(folder: Path) -> None:
    with pytest.raises(ConfigError, match="within 30 s, this one takes up to 600 s"):
        build(folder, latency=600 * RATE, synthesis="continue")
    build(folder, latency=600 * RATE, synthesis="predict")


def test_gaussian_units_are_drawn_with_the_bundles_sigma(folder: Path) -> None:
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
        items = [*tiles(song_frames(60)), Offset(0, 2000, 5500, False)]
        return synthesis_of(hear(model, items))[0].values[0]

    mean, sampled = values("mean"), values("sampled")
    assert np.array_equal(values("mean_residual"), mean)  # its covariance is zero
    noise = (sampled - mean)[1:] / sigma[1:]
    assert sampled[0] == mean[0]
    assert 0.6 < noise.std() < 1.4


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
def test_reset_forgets_everything(folder: Path, mode: str) -> None:
    model = build(folder, synthesis=mode, baseline_s=0.1)
    first = hear(model, script(song_frames(60)))
    kept = hear(model, tiles(song_frames(60, seed=1), first=60))
    model.reset()
    again = hear(model, script(song_frames(60)))
    assert list(map(canonical, again)) == list(map(canonical, first))
    fresh = hear(build(folder, synthesis=mode), tiles(song_frames(60, seed=1)))
    assert not np.array_equal(surprise_of(kept), surprise_of(fresh))


@pytest.mark.parametrize("mode", MODES)
def test_nothing_is_computed_across_a_gap(folder: Path, mode: str) -> None:
    model = build(folder, synthesis=mode, latency=RATE)
    hear(model, tiles(song_frames(60)))
    assert hear(model, [Gap(60 * HOP, 90 * HOP, "overrun")]) == []
    # A segment of which no frame was heard since the gap cannot be continued.
    assert hear(model, [Offset(3, 1000, 4000, True)]) == []
    after = hear(model, script(song_frames(60, seed=4), first=90))
    fresh = hear(build(folder, synthesis=mode), script(song_frames(60, seed=4), 90))
    assert list(map(canonical, after)) == list(map(canonical, fresh))


def test_frames_that_are_missing_are_an_error(folder: Path) -> None:
    model = build(folder)
    hear(model, [Frames(0, HOP, LENGTH, song_frames(4))])
    with pytest.raises(ValueError, match="expected 4"):
        model.process(Frames(5, HOP, LENGTH, song_frames(4)))
    hear(model, [Frames(9, HOP, LENGTH, song_frames(4))])  # and it goes on


def test_a_frame_that_is_not_finite_does_no_lasting_harm(folder: Path) -> None:
    frames = song_frames(80)
    frames[30] = np.nan
    frames[31, 3] = np.inf
    for mode in MODES:
        model = build(folder, synthesis=mode)
        for event in hear(model, [*tiles(frames), Offset(0, 1, 40 * HOP, False)]):
            assert isinstance(event, Surprise | Synthesis)
            assert np.isfinite(event.values).all()


@settings(max_examples=50, deadline=None)
@given(
    counts=st.lists(st.integers(1, 40), min_size=1, max_size=20),
    first=st.integers(0, 500),
)
def test_row_history_keeps_the_recent_rows(counts: list[int], first: int) -> None:
    rows = np.arange(sum(counts) * 2, dtype=np.float32).reshape(-1, 2)
    history = RowHistory((2,), keep=50)
    done = 0
    for count in counts:
        history.append(first + done, rows[done : done + count])
        done += count
    for k in range(max(0, done - 50), done):
        row = history.get(first + k)
        assert row is not None
        assert np.array_equal(row, rows[k])
    assert history.get(first + done) is None
    assert history.get(first - 1) is None
    known = sum(history.get(first + k) is not None for k in range(done))
    assert known <= 2 * 50 + 40
