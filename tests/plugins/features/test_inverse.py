"""Inverse spectrogram: cuts, level, spectrum, edges, front ends without an inverse."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neurovocal.engine.contracts.bundle import FrontEnd
from neurovocal.engine.contracts.errors import ConfigError
from neurovocal.engine.contracts.types import Float32
from neurovocal.engine.lane.offline import build_front_end, frames_of
from neurovocal.plugins.features.inverse import InverseSpectrogram

RATE = 16_000
HERE = Path()


def front_end(
    n_bins: int = 65, length: int = 128, hop: int = 64, **options: Any
) -> Any:
    form = {"window": "hann", "scale": "log", "hop_length": hop, "frame_length": length}
    return FrontEnd(
        sample_rate=RATE,
        n_bins=n_bins,
        hop_length=hop,
        frame_length=length,
        options={**form, **options},
    )


def chirps(seconds: float = 0.5, level: float = 0.3) -> Float32:
    """Return sweeps of 60 ms with pauses between them."""
    t = np.arange(round(seconds * RATE)) / RATE
    phase = 2 * np.pi * 3000 * t + 400 * np.sin(2 * np.pi * 5 * t)  # 1 to 5 kHz
    shape = np.maximum(0, np.sin(2 * np.pi * 8 * t)) ** 0.5
    return np.asarray(level * shape * np.sin(phase), np.float32)


def samples_from(inverse: InverseSpectrogram, values: Float32) -> Float32:
    return np.concatenate([inverse.process(values), inverse.flush()])


def magnitudes(samples: Float32, spec: Any) -> Any:
    """Return the magnitudes of the transform with the front end's window."""
    window = np.hanning(spec.frame_length + 1)[:-1]
    frames = np.lib.stride_tricks.sliding_window_view(samples, spec.frame_length)
    return np.abs(np.fft.rfft(frames[:: spec.hop_length] * window))


def convergence(wanted: Any, samples: Float32, spec: Any) -> float:
    """Return the spectral convergence: 0 is perfect, 1 is silence."""
    got = magnitudes(samples, spec)
    return float(np.linalg.norm(got - wanted) / np.linalg.norm(wanted))


@settings(max_examples=25, deadline=None)
@given(cuts=st.lists(st.integers(0, 40), max_size=6), look_ahead=st.integers(0, 4))
def test_samples_do_not_depend_on_cuts_of_the_frames(
    cuts: list[int], look_ahead: int
) -> None:
    spec = front_end()
    values = frames_of(build_front_end(spec, HERE), chirps(0.16))
    inverse = InverseSpectrogram(spec, HERE, look_ahead)
    whole = samples_from(inverse, values)
    parts = np.split(values, sorted(min(cut, len(values)) for cut in cuts))
    pieces = []
    known = 0
    for part in parts:
        pieces.append(inverse.process(part))
        known += len(part)
        given_out = sum(map(len, pieces))
        assert given_out == max(0, known * spec.hop_length - inverse.latency)
    pieces.append(inverse.flush())
    assert np.concatenate(pieces).tobytes() == whole.tobytes()
    assert len(whole) == (len(values) - 1) * spec.hop_length + spec.frame_length


@pytest.mark.parametrize(
    ("length", "hop", "most"), [(128, 64, 0.05), (128, 32, 0.05), (128, 48, 0.05)]
)
def test_inverse_of_song_has_its_spectrum_and_level(
    length: int, hop: int, most: float
) -> None:
    spec = front_end(length=length, hop=hop)
    samples = chirps()
    values = frames_of(build_front_end(spec, HERE), samples)
    again = samples_from(InverseSpectrogram(spec, HERE), values)
    assert convergence(magnitudes(samples[: len(again)], spec), again, spec) < most
    level_db = 20 * np.log10(again.std() / samples.std())
    assert abs(level_db) < 0.3


def test_few_iterations_give_a_worse_spectrum() -> None:
    """With few iterations the spectral convergence is far worse."""
    spec = front_end()
    samples = chirps()
    values = frames_of(build_front_end(spec, HERE), samples)
    wanted = magnitudes(samples, spec)
    found = convergence(
        wanted, samples_from(InverseSpectrogram(spec, HERE), values), spec
    )
    barely = InverseSpectrogram(spec, HERE, 0, iterations=1)
    assert found < 0.5 * convergence(wanted, samples_from(barely, values), spec)
    one_share = InverseSpectrogram(spec, HERE, relaxation=(0.8,))
    assert convergence(wanted, samples_from(one_share, values), spec) < 0.1


def test_bands_scaling_and_padding_are_inverted(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    hz = np.arange(129) * RATE / 256
    n_bins = int(((hz >= 500) & (hz <= 6000)).sum())
    offset = rng.uniform(-9, -7, n_bins).astype(np.float32)
    gain = rng.uniform(0.2, 0.4, n_bins).astype(np.float32)
    np.savez(tmp_path / "scaling.npz", offset=offset, gain=gain)
    spec = front_end(
        n_bins,
        padding=2,
        low_hz=500,
        high_hz=6000,
        scaling={"file": "scaling.npz"},
    )
    samples = chirps()
    values = frames_of(build_front_end(spec, tmp_path), samples)
    again = samples_from(InverseSpectrogram(spec, tmp_path), values)
    wanted = magnitudes(samples[: len(again)], spec)
    assert convergence(wanted, again, spec) < 0.06


@pytest.mark.parametrize("scale", ["linear", "log"])
@pytest.mark.parametrize("power", ["density", "magnitude"])
@pytest.mark.parametrize("window", ["tukey", "hamming"])
def test_each_power_and_scale_is_inverted(scale: str, power: str, window: str) -> None:
    spec = front_end(scale=scale, power=power, window=window)
    features = build_front_end(spec, HERE)
    samples = chirps()
    values = frames_of(features, samples)
    again = samples_from(InverseSpectrogram(spec, HERE), values)
    level_db = 20 * np.log10(again.std() / samples.std())
    assert abs(level_db) < 0.5


def test_mel_bands_give_their_frequencies() -> None:
    spec = front_end(24, length=256, hop=128, scale="mel", n_mels=24)
    t = np.arange(RATE) / RATE
    samples = np.asarray(0.5 * np.sin(2 * np.pi * 2000 * t), np.float32)
    values = frames_of(build_front_end(spec, HERE), samples)
    again = samples_from(InverseSpectrogram(spec, HERE), values)
    spectrum = np.abs(np.fft.rfft(again)) ** 2
    hz = np.fft.rfftfreq(len(again), 1 / RATE)
    near = spectrum[(hz > 1600) & (hz < 2400)].sum() / spectrum.sum()
    assert near > 0.9


def test_a_sequence_fades_in_and_out() -> None:
    """A section from the middle of a tone fades in and out with the window."""
    spec = front_end()
    t = np.arange(RATE // 4) / RATE
    samples = np.asarray(0.5 * np.sin(2 * np.pi * 1000 * t), np.float32)
    values = frames_of(build_front_end(spec, HERE), samples)[10:40]
    again = samples_from(InverseSpectrogram(spec, HERE), values)
    assert abs(again).max() > 0.4
    assert abs(again[:4]).max() < 0.01
    assert abs(again[-4:]).max() < 0.01
    steps = abs(np.diff(again))
    assert steps.max() < 1.3 * 0.5 * 2 * np.pi * 1000 / RATE  # no step but the tone's


def test_sequences_are_independent() -> None:
    spec = front_end()
    values = frames_of(build_front_end(spec, HERE), chirps(0.2))
    inverse = InverseSpectrogram(spec, HERE)
    first = samples_from(inverse, values)
    inverse.process(values[:7])
    inverse.reset()
    assert samples_from(inverse, values).tobytes() == first.tobytes()
    assert samples_from(inverse, values).tobytes() == first.tobytes()  # after a flush
    assert len(inverse.flush()) == 0


def test_non_finite_or_huge_frames_give_finite_samples() -> None:
    spec = front_end()
    values = frames_of(build_front_end(spec, HERE), chirps(0.2))
    values[5:8, ::3] = np.nan
    values[9] = np.inf
    values[11] = -np.inf
    values[12] = 60.0
    inverse = InverseSpectrogram(spec, HERE)
    samples = samples_from(inverse, values)
    assert np.isfinite(samples).all()
    assert len(samples) == (len(values) - 1) * spec.hop_length + spec.frame_length


def test_silent_frames_give_silence() -> None:
    spec = front_end()
    values = np.full((20, 65), -12.0, np.float32)
    assert abs(samples_from(InverseSpectrogram(spec, HERE), values)).max() < 1e-4


def test_a_front_end_without_an_inverse_is_refused() -> None:
    other = front_end().model_copy(update={"plugin": "cochleagram"})
    with pytest.raises(ConfigError, match=r"'cochleagram'.*only the front end"):
        InverseSpectrogram(other, HERE)
    with pytest.raises(ConfigError, match="hop_length 128 leaves samples"):
        InverseSpectrogram(front_end(hop=128), HERE)


def test_frames_of_another_shape_are_refused() -> None:
    with pytest.raises(ValueError, match=r"expected \(n_frames, 65\)"):
        InverseSpectrogram(front_end(), HERE).process(np.zeros((3, 64), np.float32))
