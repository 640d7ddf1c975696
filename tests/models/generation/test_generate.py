"""``neurovocal generate``: files, seeds, interruption, explanation."""

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from bundles.tiny_bundle import N_BINS, edit_manifest, make_tiny_bundle
from processes.cli_process import RECORDING, neurovocal

from neurovocal.engine.contracts.bundle import load_bundle
from neurovocal.engine.contracts.errors import ConfigError
from neurovocal.models.generation.command import generate
from neurovocal.models.generation.explain import explain
from neurovocal.models.generation.generator import (
    SequenceGenerator,
    read_seed_frames,
)
from neurovocal.plugins.features.inverse import InverseSpectrogram
from neurovocal.plugins.pictures import drawable

HOP, LENGTH, RATE = 128, 256, 32_000


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_bundle(tmp_path_factory.mktemp("bundles") / "tiny")


def generated(folder: Path, out: Path, **options: Any) -> bytes:
    generate(str(folder), out=out, **{"seconds": 0.4, **options})
    return out.read_bytes()


def test_wav_frames_and_picture_are_written(folder: Path, tmp_path: Path) -> None:
    done = neurovocal(
        *("generate", folder, "--seconds", 0.4, "--seed", 3, "--json"),
        *("--out", tmp_path / "song.wav", "--frames", tmp_path / "song.npz"),
    )
    assert done.code == 0, done.err
    result = json.loads(done.out)
    samples, rate = soundfile.read(tmp_path / "song.wav")
    frames = np.load(tmp_path / "song.npz")["frames"]
    assert rate == result["sample_rate"] == RATE
    assert frames.shape == (result["n_frames"], N_BINS) == (100, N_BINS)
    assert len(samples) == 99 * HOP + LENGTH
    rms_db = 20 * np.log10(np.sqrt(np.mean(samples**2)))
    assert result["rms_db"] == pytest.approx(rms_db, abs=0.1)
    inverse = InverseSpectrogram(load_bundle(folder).manifest.front_end, folder)
    sound = np.concatenate([inverse.process(frames), inverse.flush()])
    np.testing.assert_allclose(samples, np.clip(sound, -1, 1), atol=2 / 32768)
    picture = (tmp_path / "song.png").read_bytes()
    assert picture.startswith(b"\x89PNG")


def test_same_seed_gives_the_same_file(folder: Path, tmp_path: Path) -> None:
    one = generated(folder, tmp_path / "a.wav", seed=1)
    assert generated(folder, tmp_path / "b.wav", seed=1) == one
    assert (tmp_path / "a.png").stat().st_size > 1000
    others = ({"seed": 2}, {"seed": 1, "temperature": 0.3}, {"feedback": "mean"})
    for number, other in enumerate(others):
        assert generated(folder, tmp_path / f"c{number}.wav", **other) != one


def test_prime_continues_a_recording(folder: Path, tmp_path: Path) -> None:
    samples, rate = soundfile.read(RECORDING, frames=44_100)
    soundfile.write(tmp_path / "seed.wav", samples, rate)
    plain = generated(folder, tmp_path / "a.wav")
    after = generated(folder, tmp_path / "b.wav", prime=tmp_path / "seed.wav")
    assert plain != after
    bundle = load_bundle(folder)
    seed_frames = read_seed_frames(bundle, tmp_path / "seed.wav")
    assert seed_frames.shape == ((44_100 - LENGTH) // HOP + 1, N_BINS)
    first = next(SequenceGenerator(bundle, seed_frames).generate(100))
    inverse = InverseSpectrogram(bundle.manifest.front_end, folder)
    begin = inverse.process(first)
    written, _ = soundfile.read(tmp_path / "b.wav", frames=len(begin))
    np.testing.assert_allclose(written, np.clip(begin, -1, 1), atol=2 / 32768)


def test_frames_do_not_depend_on_the_length_of_the_song(folder: Path) -> None:
    bundle = load_bundle(folder)
    long = np.concatenate(list(SequenceGenerator(bundle, seed=5).generate(60)))
    short = np.concatenate(list(SequenceGenerator(bundle, seed=5).generate(31)))
    assert long[:31].tobytes() == short.tobytes()


def test_ctrl_c_keeps_the_song_until_then(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    whole = SequenceGenerator.generate

    def interrupted(self: SequenceGenerator, n_frames: int) -> Iterator[Any]:
        for number, part in enumerate(whole(self, n_frames)):
            if number == 2:
                signal.raise_signal(signal.SIGINT)
            yield part

    monkeypatch.setattr(SequenceGenerator, "generate", interrupted)
    generated(folder, tmp_path / "song.wav", seconds=60)
    samples, _ = soundfile.read(tmp_path / "song.wav")
    assert len(samples) == 49 * HOP + LENGTH
    assert "stopped: the song until now is kept" in capsys.readouterr().err


def test_invalid_options_are_refused_before_a_file_is_written(
    folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"folder '.*nowhere' does not exist"):
        generated(folder, tmp_path / "nowhere" / "song.wav")
    with pytest.raises(ConfigError, match="above 0"):
        generated(folder, tmp_path / "song.wav", temperature=0.0)
    with pytest.raises(ConfigError, match=r"recording '.*gone.wav' does not exist"):
        generated(folder, tmp_path / "song.wav", prime=tmp_path / "gone.wav")
    silent = make_tiny_bundle(tmp_path / "silent")
    edit_manifest(silent, rnn_rbm=None)
    with pytest.raises(ConfigError, match="has no rnn_rbm"):
        generated(silent, tmp_path / "song.wav")
    soundfile.write(tmp_path / "short.wav", np.zeros(300), RATE)
    with pytest.raises(ConfigError, match="too short: at least two"):
        generated(folder, tmp_path / "song.wav", prime=tmp_path / "short.wav")
    assert not (tmp_path / "song.wav").exists()


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"out": ""}, "--out needs the name of a file"),
        ({"out": "-"}, "--out needs the name of a file"),
        ({"out": "a.mp3"}, "--out 'a.mp3': sound is written as WAV: end it in .wav"),
        ({"out": "loop"}, "'loop' cannot be written: the link leads to itself"),
        ({"out": "file/a.wav"}, "'file/a.wav' cannot be written: 'file' is no folder"),
        ({"frames": "-"}, "--frames needs the name of a file"),
        ({"picture": "a.jpg"}, "--picture 'a.jpg': a picture is a PNG: end it in .png"),
        ({"explain": "loop"}, "'loop' cannot be written: the link leads to itself"),
        ({"prime": "."}, "--prime: recording '.' is a folder"),
    ],
)
def test_what_is_no_file_is_no_output(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: dict[str, str],
    problem: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "file").write_bytes(b"")
    paths = {name: Path(text) for name, text in ({"out": "a.wav"} | options).items()}
    with pytest.raises(ConfigError) as refused:
        generate(str(folder), **paths)  # type: ignore[arg-type]
    assert problem in refused.value.problems
    assert sorted(os.listdir(tmp_path)) == ["file", "loop"]
    assert (tmp_path / "loop").is_symlink()


def test_wav_is_written_without_matplotlib(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    import neurovocal.plugins.pictures as picture

    monkeypatch.setattr(picture.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(
        "neurovocal.models.generation.command.has_matplotlib", picture.has_matplotlib
    )
    generated(folder, tmp_path / "song.wav", seconds=0.1)
    assert "no picture: pip install matplotlib" in capsys.readouterr().err
    assert not (tmp_path / "song.png").exists()
    with pytest.raises(ConfigError, match="--picture needs matplotlib"):
        generated(folder, tmp_path / "b.wav", picture=tmp_path / "b.png")


def test_explanation_shows_the_influence_of_a_band(tmp_path: Path) -> None:
    """A band that differs from its prediction has the largest influence."""
    bundle = load_bundle("bengalese-finch")
    seed_frames = read_seed_frames(bundle, RECORDING)[:400]
    loud = seed_frames.copy()
    loud[-6:, 40:48] = 1.0  # a band that differs from its prediction
    plain, changed = explain(bundle, seed_frames, 50), explain(bundle, loud, 50)
    band = next(k for k, (low, _) in enumerate(plain.bands) if low >= 40)
    assert plain.influence.shape == (50, 16)
    assert np.array_equal(plain.influence[:44], changed.influence[:44])
    assert changed.influence[44, band] > 3 * plain.influence[44, band]
    assert changed.influence[44].argmax() == band
    assert changed.change[44] > plain.change[44]
    assert plain.hidden is not None
    assert plain.reconstruction is not None
    error = np.sqrt(np.mean((plain.reconstruction - plain.trace.frames) ** 2))
    assert error < 0.2
    assert np.all((plain.hidden >= 0) & (plain.hidden <= 1))


def test_explanation_is_drawn_and_its_changes_are_printed(
    folder: Path, tmp_path: Path
) -> None:
    done = neurovocal(
        *("generate", folder, "--seconds", 0.2, "--out", tmp_path / "song.wav"),
        *("--explain", tmp_path / "why.png", "--json"),
    )
    assert done.code == 0, done.err
    result = json.loads(done.out)
    assert (tmp_path / "why.png").read_bytes().startswith(b"\x89PNG")
    changes = [moment["change"] for moment in result["moments"]]
    assert len(changes) == 5
    assert changes == sorted(changes, reverse=True)
    assert all(-0.5 <= moment["s"] < 0.2 for moment in result["moments"])


def test_out_with_another_suffix_than_wav_is_refused(
    folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"written as WAV: end it in \.wav"):
        generated(folder, tmp_path / "song.mp3")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("option", "name", "noun"),
    [
        ("out", "a.wav", "a WAV file"),
        ("picture", "a.png", "a PNG picture"),
        ("frames", "a.npz", "an npz file"),
    ],
)
def test_overwrite_replaces_no_file_of_another_kind(
    tmp_path: Path, option: str, name: str, noun: str
) -> None:
    mine = tmp_path / name
    mine.write_text("years of work")
    options = {"out": tmp_path / "song.wav", option: mine}
    with pytest.raises(ConfigError, match=f"not {noun}: it would be lost"):
        generate("bengalese-finch", overwrite=True, seconds=0.1, **options)
    assert mine.read_text() == "years of work"
    assert os.listdir(tmp_path) == [name]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("finch", "finch"),
        ("鳥", "U+9CE5"),
        ("a$b_$", "a$b_$"),
        ("a\x1b[2J", r"a\x1b[2J"),
    ],
)
def test_titles_of_pictures_are_readable_in_any_script(text: str, shown: str) -> None:
    assert drawable(text) == shown
