"""Spectrogram: equal to SciPy's, and bit-identical for any block cuts."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy.signal import get_window, spectrogram

from neurovocal.engine.contracts.bundle import FrontEnd
from neurovocal.engine.contracts.clock import ManualClock
from neurovocal.engine.contracts.errors import BundleError, ConfigError
from neurovocal.engine.contracts.plugin import BuildContext
from neurovocal.engine.contracts.registry import Registry
from neurovocal.engine.contracts.types import Block, Frames, Gap, StreamInfo
from neurovocal.engine.lane.offline import build_front_end, frames_of
from neurovocal.engine.testing import check_processor, recut, song
from neurovocal.plugins.features.spectrogram import Spectrogram
from neurovocal.plugins.features.spectrogram import plugin as spectrogram_plugin

RATE = 32000
MEL = {
    "frame_length_ms": 25,
    "overlap": 0.75,
    "padding": 2,
    "window": "hamming",
    "detrend": "none",
    "scale": "mel",
}
VARIANTS: dict[str, dict[str, Any]] = {
    "default": {},
    "log band": {"window": "hann", "scale": "log", "low_hz": 500, "high_hz": 9000},
    "mel": MEL,
    "odd sizes": {"frame_length": 77, "hop_length": 31, "n_fft": 101},
    "hop of one": {"frame_length": 16, "hop_length": 1},
    "holes between frames": {"frame_length": 40, "hop_length": 100},
}


def build(rate: int = RATE, base: Path = Path(), **options: Any) -> Spectrogram:
    context = BuildContext(
        clock=ManualClock(), run="test", base=base, info=StreamInfo("test", rate)
    )
    validated = spectrogram_plugin.options.model_validate(options)
    stage = spectrogram_plugin.build(validated, context)
    assert isinstance(stage, Spectrogram)
    return stage


def noise(n_samples: int, seed: int = 0) -> np.ndarray[Any, np.dtype[np.float32]]:
    rng = np.random.default_rng(seed)
    return rng.normal(0, 0.1, n_samples).astype(np.float32)


def collect(stage: Spectrogram, items: list[Block | Gap]) -> list[Frames]:
    frames = [f for item in items for f in stage.process(item)]
    return [*frames, *stage.flush()]


# ---- against SciPy ----------------------------------------------------------


@pytest.mark.parametrize("level", [1.0, 1e-3])
@pytest.mark.parametrize("offset", [0.0, 0.2])
def test_default_equals_scipy(level: float, offset: float) -> None:
    samples = (level * noise(RATE) + level * offset).astype(np.float32)
    samples[5000:6000] += (level * np.sin(np.arange(1000) * 0.5)).astype(np.float32)
    frames = frames_of(build(), samples)
    expected = spectrogram(samples.astype(np.float64), RATE, nperseg=256, noverlap=128)
    hz, columns = expected[0], expected[2].T
    error = np.abs(frames - columns).max(axis=1) / columns.max(axis=1)
    assert frames.shape == columns.shape
    assert error.max() < 1e-5
    np.testing.assert_allclose(build().frequencies_hz, hz)


@pytest.mark.parametrize("window", ["hann", "hamming", ("tukey", 0.5)])
@pytest.mark.parametrize("n_fft", [300, 301])
@pytest.mark.parametrize("detrend", ["constant", "none"])
def test_variants_equal_scipy(window: Any, n_fft: int, detrend: Any) -> None:
    samples = noise(8000)
    shape = {"window": window}
    if isinstance(window, tuple):
        shape = {"window": window[0], "tukey_alpha": window[1]}
    stage = build(
        frame_length=200, hop_length=70, n_fft=n_fft, detrend=detrend, **shape
    )
    columns = spectrogram(
        samples.astype(np.float64),
        RATE,
        window=window,
        nperseg=200,
        noverlap=130,
        nfft=n_fft,
        detrend="constant" if detrend == "constant" else False,
    )[2].T
    frames = frames_of(stage, samples)
    assert np.abs(frames - columns).max() < 1e-5 * columns.max(axis=1).min()


def test_recording_of_a_finch_equals_scipy(data_folder: Path) -> None:
    sf = pytest.importorskip("soundfile")
    recordings = sorted((data_folder / "finch_gy6or6/audio").glob("*.flac"))
    assert recordings
    samples, rate = sf.read(recordings[0], dtype="float32", frames=5 * RATE)
    samples = samples if samples.ndim == 1 else samples[:, 0]
    columns = spectrogram(samples.astype(np.float64), rate, nperseg=256, noverlap=128)
    frames = frames_of(build(rate), samples)
    has_power = columns[2].T.max(axis=1) > 0
    error = np.abs(frames - columns[2].T).max(axis=1)[has_power]
    assert (error / columns[2].T.max(axis=1)[has_power]).max() < 1e-5


# ---- any cutting, the same bits ---------------------------------------------


@pytest.mark.parametrize("variant", VARIANTS)
@settings(max_examples=25, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 6000), min_size=1, max_size=12),
    start=st.integers(0, 3000),
)
def test_frames_do_not_depend_on_block_cuts(
    variant: str, lengths: list[int], start: int
) -> None:
    samples = noise(9000, seed=1)[:, None]
    whole = collect(build(**VARIANTS[variant]), [Block(start, samples)])
    parts = collect(
        build(**VARIANTS[variant]), list(recut(samples, lengths, start=start))
    )
    assert parts[0].first == whole[0].first
    assert np.concatenate([p.values for p in parts]).tobytes() == (
        whole[0].values.tobytes()
    )
    expected = whole[0].first
    for part in parts:
        assert part.first == expected
        expected += len(part.values)


@pytest.mark.parametrize("variant", ["default", "log band", "mel"])
def test_conformance(variant: str) -> None:
    check_processor(lambda: build(**VARIANTS[variant]), song(RATE, 1.5))


@given(gap=st.integers(0, 5000), stop=st.integers(0, 3000))
@settings(max_examples=50, deadline=None)
def test_frames_after_a_gap_are_on_the_grid_of_the_stream(gap: int, stop: int) -> None:
    samples = noise(stop + gap + 3000)[:, None]
    first_after = stop + gap
    items: list[Block | Gap] = [
        Block(0, samples[:stop]),
        Gap(stop, first_after, "overrun"),
        Block(first_after, samples[first_after:]),
    ]
    frames = collect(build(), items)
    after = frames[-1]
    assert after.first == -(-first_after // 128)
    whole = collect(build(), [Block(0, samples)])[0]
    same = whole.values[after.first : after.first + len(after.values)]
    assert after.values.tobytes() == same.tobytes()
    n_before = sum(len(f.values) for f in frames[:-1])
    assert n_before == max(0, (stop - 256) // 128 + 1)


def test_missing_samples_without_a_gap_are_refused() -> None:
    stage = build()
    list(stage.process(Block(0, noise(1000)[:, None])))
    with pytest.raises(ValueError, match="expected 1000"):
        stage.process(Block(1001, noise(1000)[:, None]))


def test_returned_frames_are_never_overwritten() -> None:
    stage = build()
    (first,) = stage.process(Block(0, noise(4096)[:, None]))
    kept = first.values.copy()
    list(stage.process(Block(4096, noise(4096, seed=2)[:, None])))
    assert np.array_equal(first.values, kept)


def test_non_finite_samples_affect_their_own_frames_only() -> None:
    samples = noise(4096)
    clean = frames_of(build(), samples)
    samples[1000] = np.nan
    samples[2000] = 3e38
    frames = frames_of(build(), samples)
    for k in range(len(frames)):
        if any(128 * k <= spoilt < 128 * k + 256 for spoilt in (1000, 2000)):
            assert not np.isfinite(frames[k]).all()
        else:
            assert np.array_equal(frames[k], clean[k])


# ---- scales, bands, scaling ---------------------------------------------------


def test_log_is_log10_of_power_plus_floor() -> None:
    samples = noise(2000)
    power = frames_of(build(), samples).astype(np.float64)
    levels = frames_of(build(scale="log", floor=1e-7), samples)
    np.testing.assert_allclose(levels, np.log10(power + 1e-7), atol=1e-5)
    silence = frames_of(build(scale="log", floor=1e-7), np.zeros(2000, np.float32))
    np.testing.assert_allclose(silence, -7.0, atol=1e-5)


def test_band_keeps_the_bins_inside_it() -> None:
    samples = noise(2000)
    stage = build(low_hz=500, high_hz=10000)
    assert stage.frequencies_hz[0] == 500.0
    assert stage.frequencies_hz[-1] == 10000.0
    assert np.array_equal(
        frames_of(stage, samples), frames_of(build(), samples)[:, 4:81]
    )


def test_mel_follows_its_definition() -> None:
    samples = noise(16000) * 10
    stage = build(16000, **MEL)
    assert (stage.frame_length, stage.hop_length, stage.n_bins) == (400, 100, 40)
    frames = frames_of(stage, samples)

    window = get_window("hamming", 400)
    starts = range(0, len(samples) - 399, 100)
    columns = np.array([samples[s : s + 400] * window for s in starts])
    power = np.abs(np.fft.rfft(columns, n=800)) ** 2
    top_mel = 2595 * np.log10(1 + 8000 / 700)
    corners = 700 * (10 ** (np.linspace(0, top_mel, 42) / 2595) - 1)
    hz = np.fft.rfftfreq(800, 1 / 16000)
    bank = [np.interp(hz, corners[i : i + 3], [0, 1, 0]) for i in range(40)]
    expected = np.log10(1 + power @ np.array(bank).T)
    np.testing.assert_allclose(frames, expected, atol=1e-4)
    np.testing.assert_allclose(stage.frequencies_hz, corners[1:-1])


def test_milliseconds_follow_the_sample_rate() -> None:
    for rate in (16000, 32000, 250000):
        stage = build(rate, frame_length_ms=8, overlap=0.5)
        assert stage.frame_length == rate * 8 // 1000
        assert stage.hop_length == rate * 4 // 1000


def test_scaling_of_a_bundle_is_applied_and_clipped(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    offset = rng.normal(-8, 1, 129).astype(np.float32)
    gain = rng.uniform(0.1, 1, 129).astype(np.float32)
    np.savez(tmp_path / "scaling.npz", offset=offset, gain=gain)
    samples = noise(4000)
    plain = frames_of(build(scale="log"), samples)
    free = frames_of(build(base=tmp_path, scale="log", scaling={}), samples)
    np.testing.assert_allclose(free, (plain - offset) * gain, rtol=1e-5, atol=1e-6)
    clipped = frames_of(
        build(base=tmp_path, scale="log", scaling={"clip": [0, 0.5]}), samples
    )
    assert np.array_equal(clipped, np.clip(free, 0, 0.5))
    assert (free < 0).any()
    assert (free > 0.5).any()


# ---- mistakes, each in one sentence ---------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"frame_length": 256, "frame_length_ms": 8}, "not both"),
        ({"hop_length": 128, "overlap": 0.5}, "not both"),
        ({"n_fft": 512, "padding": 2}, "not both"),
        ({"low_hz": 900, "high_hz": 800}, r"low_hz \(900\) is above high_hz \(800\)"),
        ({"window": "kaiser"}, "hann"),
        ({"windows": "hann"}, "Extra inputs"),
    ],
)
def test_contradictions_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        build(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_fft": 128}, "shorter than a frame"),
        ({"frame_length_ms": 60_000}, "too long"),
        ({"frame_length_ms": 0.01}, "less than two samples"),
        ({"high_hz": 20000}, "above half the sample rate"),
        ({"low_hz": 130, "high_hz": 240}, "no frequency bin"),
        ({"scale": "mel", "n_mels": 100}, "contains no frequency bin"),
        ({"scaling": {}}, "does not exist"),
        ({"scaling": {"file": "../x.npz"}}, "outside"),
    ],
)
def test_check_reports_options_that_are_impossible_at_the_rate(
    options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message) as raised:
        build(base=tmp_path, **options)
    context = BuildContext(
        clock=ManualClock(), run="", base=tmp_path, info=StreamInfo("test", RATE)
    )
    validated = spectrogram_plugin.options.model_validate(options)
    assert list(spectrogram_plugin.check(validated, context)) == raised.value.problems
    assert len(raised.value.problems) == 1


@pytest.mark.parametrize(
    "arrays",
    [
        {"offset": np.zeros(129)},
        {"offset": np.zeros(129), "gain": np.zeros(40)},
        {"offset": np.full(129, np.nan), "gain": np.ones(129)},
    ],
)
def test_scaling_that_does_not_fit_is_refused(
    arrays: dict[str, Any], tmp_path: Path
) -> None:
    np.savez(tmp_path / "scaling.npz", **arrays)
    with pytest.raises(BundleError, match=r"scaling\.npz"):
        build(base=tmp_path, scaling={})


# ---- the front end of a bundle -----------------------------------------------


def front_end(**changes: Any) -> FrontEnd:
    content = {
        "sample_rate": RATE,
        "hop_length": 128,
        "frame_length": 256,
        "n_bins": 129,
        "options": {"scale": "log"},
    }
    return FrontEnd.model_validate({**content, **changes})


def test_front_end_makes_the_frames_that_the_engine_makes(tmp_path: Path) -> None:
    samples = noise(5000)
    features = build_front_end(front_end(), tmp_path)
    assert np.array_equal(
        frames_of(features, samples), frames_of(build(scale="log"), samples)
    )
    assert frames_of(features, samples[:100]).shape == (0, 129)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_bins": 128}, "manifest states"),
        ({"hop_length": 64}, "manifest states"),
        ({"options": {"scael": "log"}}, "scael"),
        ({"plugin": "spectrogramm"}, "did you mean 'spectrogram'"),
    ],
)
def test_a_contradictory_front_end_is_refused(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        build_front_end(front_end(**changes), tmp_path)


def test_plugin_is_installed() -> None:
    assert Registry().get("features", "spectrogram") is spectrogram_plugin
