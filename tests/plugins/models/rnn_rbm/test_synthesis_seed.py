"""Sequences seeded by a recording or by the last live segment."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
from bundles.tiny_bundle import make_tiny_bundle
from bundles.tiny_rnn_rbm import (
    HOP,
    LENGTH,
    RATE,
    Floats,
    build,
    draw_frames,
    generated_frames,
    make_frames,
    prime,
    process,
    scored,
    synthesis_of,
    tiles,
)

from neurovocal.engine.contracts.bundle import load_bundle
from neurovocal.engine.contracts.clock import ManualClock
from neurovocal.engine.contracts.errors import ConfigError
from neurovocal.engine.contracts.plugin import BuildContext
from neurovocal.engine.contracts.registry import Registry
from neurovocal.engine.contracts.types import Block, Offset, StreamInfo


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_bundle(tmp_path_factory.mktemp("bundles") / "tiny")


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    rng = np.random.default_rng(5)
    noise = rng.normal(0, 0.1, (RATE, 2)).astype(np.float32)
    path = tmp_path / "song.wav"
    soundfile.write(path, noise, RATE, subtype="FLOAT")
    return path


def expected_seed(folder: Path, recording: Path) -> tuple[Floats, Floats]:
    samples, _ = soundfile.read(recording, dtype="float32", always_2d=True)
    bundle = load_bundle(folder)
    plugin = Registry().get("features", "spectrogram")
    context = BuildContext(
        clock=ManualClock(), run="test", info=StreamInfo("x", RATE), bundle=bundle
    )
    options = plugin.options.model_validate(bundle.manifest.front_end.options)
    features = plugin.build(options, context)
    parts = [*features.process(Block(0, samples[:, :1])), *features.flush()]
    frames = np.concatenate([part.values for part in parts])
    return frames[-1], scored(folder, frames)["states"][-2]


def test_mode_prime_continues_the_recording(folder: Path, recording: Path) -> None:
    model = build(folder, synthesis="prime", prime=str(recording), seed=2)
    events = process(model, tiles(make_frames(30)))
    assert {part.mode for part in synthesis_of(events)} == {"prime"}
    frame, state = expected_seed(folder, recording)
    expected = draw_frames(folder, 30, frame, state, (2,))
    np.testing.assert_allclose(generated_frames(events), expected, atol=1e-4)


def test_command_prime_restarts_from_the_recording(
    folder: Path, recording: Path
) -> None:
    model = build(folder, synthesis="free")
    process(model, tiles(make_frames(16)))
    prime(model, recording)
    assert (model.options.synthesis, model.options.prime) == ("prime", str(recording))
    frame, state = expected_seed(folder, recording)
    events = process(model, tiles(make_frames(16), first=16))
    assert synthesis_of(events)[0].first == 16
    expected = draw_frames(folder, 16, frame, state)
    np.testing.assert_allclose(generated_frames(events), expected, atol=1e-4)
    prime(model, recording)  # again: the sequence restarts
    events = process(model, tiles(make_frames(16), first=32))
    np.testing.assert_allclose(generated_frames(events), expected, atol=1e-4)


def test_command_prime_continues_the_last_segment(folder: Path) -> None:
    model = build(folder, synthesis="off", seed=1)
    frames = make_frames(48)
    with pytest.raises(ConfigError, match="no segment has ended yet"):
        prime(model)
    assert model.options.synthesis == "off"
    process(model, [*tiles(frames), Offset(0, 1000, 5000, False)])
    prime(model)
    events = process(model, tiles(frames, first=48))
    last = (5000 - LENGTH) // HOP
    state = scored(folder, frames)["states"][last - 1]
    expected = draw_frames(folder, 48, frames[last], state, (1,))
    np.testing.assert_allclose(generated_frames(events), expected, atol=1e-4)
    assert synthesis_of(events)[0].first == 48


@pytest.mark.parametrize("content", [None, b"no sound at all", b""])
def test_an_unreadable_recording_is_refused_and_options_stay(
    folder: Path, tmp_path: Path, content: bytes | None
) -> None:
    path = tmp_path / "bad.wav"
    if content is not None:
        path.write_bytes(content)
    model = build(folder, synthesis="free")
    before = model.options
    with pytest.raises(ConfigError, match=r"bad\.wav"):
        prime(model, path)
    assert model.options is before


def test_a_recording_of_one_frame_is_refused(folder: Path, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "short.wav", np.zeros(LENGTH), RATE)
    with pytest.raises(ConfigError, match="shorter than two frames"):
        build(folder, synthesis="prime", prime=str(tmp_path / "short.wav"))


def test_mode_prime_without_a_recording_is_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match="needs 'prime': the path of a recording"):
        build(folder, synthesis="prime")
