"""Bad input: an error line that names the mistake, exit code, no traceback."""

import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from processes.cli_process import RECORDING, ROOT, Done, neurovocal

BUNDLE = ROOT / "models" / "pretrained" / "bengalese-finch"


def assert_refused(done: Done, code: int, *words: str) -> None:
    assert "Traceback" not in done.err
    assert done.code == code, done.err
    errors = [line for line in done.err.splitlines() if line.startswith("error: ")]
    assert errors, done.err
    for word in words:
        assert word in done.err, done.err


def wav(path: Path, subtype: str = "PCM_16", seconds: float = 2.0) -> Path:
    samples, rate = soundfile.read(RECORDING, frames=round(seconds * 32000))
    soundfile.write(path, samples, rate, subtype=subtype)
    return path


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT"])
def test_every_sample_format_is_read(tmp_path, subtype):
    # The first two seconds are so faint that rounding to 8 bits hides their calls.
    done = neurovocal("detect", wav(tmp_path / "x.wav", subtype, seconds=6.0))
    assert done.code == 0, done.err
    n_found = len(done.out.splitlines()) - 1
    assert (25 if subtype == "PCM_U8" else 44) <= n_found <= 48


def empty(path: Path) -> None:
    path.write_bytes(b"")


def text(path: Path) -> None:
    path.write_text("this is not audio\n" * 100)


def no_samples(path: Path) -> None:
    soundfile.write(path, np.zeros(0), 32000)


def header_only(path: Path) -> None:
    whole = wav(path).read_bytes()
    path.write_bytes(whole[:30])


@pytest.mark.parametrize("damage", [empty, text, header_only])
def test_a_file_that_is_no_recording_is_named(tmp_path, damage: Callable[[Path], None]):
    damage(tmp_path / "bad.wav")
    assert_refused(neurovocal("detect", tmp_path / "bad.wav"), 2, "bad.wav")


def test_recording_of_no_samples_has_no_segments(tmp_path):
    no_samples(tmp_path / "short.wav")
    done = neurovocal("detect", tmp_path / "short.wav")
    assert "Traceback" not in done.err
    assert "short.wav" in done.err
    assert done.out.splitlines()[:1] in ([], ["file,onset_s,offset_s,score"])


def test_segments_of_a_truncated_recording_are_kept(tmp_path):
    path = wav(tmp_path / "cut.wav", seconds=4.0)
    whole = neurovocal("detect", path).out.splitlines()
    path.write_bytes(path.read_bytes()[: 3 * 32000 * 2])
    done = neurovocal("detect", path)
    assert "Traceback" not in done.err
    found = done.out.splitlines()
    assert found[:-1] == whole[: len(found) - 1]
    assert len(found) > 3


def test_a_sound_with_a_few_samples_that_are_no_numbers_is_one_segment(tmp_path):
    time = np.arange(32_000) / 32_000
    burst = (np.abs(time - 0.5) < 0.1) * 0.3 * np.sin(2 * np.pi * 3000 * time)
    samples = np.random.default_rng(0).normal(0, 1e-3, 32_000) + burst
    soundfile.write(tmp_path / "clean.wav", samples, 32_000, subtype="FLOAT")
    samples[16_000:16_010] = np.nan
    soundfile.write(tmp_path / "nan.wav", samples, 32_000, subtype="FLOAT")
    clean, done = (
        neurovocal("detect", tmp_path / name) for name in ("clean.wav", "nan.wav")
    )
    wanted, found = (
        [tuple(map(float, line.split(",")[1:3])) for line in each.out.splitlines()[1:]]
        for each in (clean, done)
    )
    assert len(found) == 1
    np.testing.assert_allclose(found, wanted, atol=0.0021)
    assert done.code == 0
    assert done.err == (
        f"warning: '{tmp_path}/nan.wav': 10 samples are no numbers, the first at "
        "0.500 s: interpolated between their neighbours\n"
    )


def test_many_samples_that_are_not_a_number_are_a_gap(tmp_path):
    samples, rate = soundfile.read(RECORDING, frames=4 * 32000, dtype="float32")
    soundfile.write(tmp_path / "clean.wav", samples, rate, subtype="FLOAT")
    samples[100:300] = np.nan
    soundfile.write(tmp_path / "nan.wav", samples, rate, subtype="FLOAT")
    clean = neurovocal("detect", tmp_path / "clean.wav").out.splitlines()
    done = neurovocal("detect", tmp_path / "nan.wav")
    assert "Traceback" not in done.err
    assert done.code == 3
    assert "nan.wav': 200 samples are no numbers, the first at 0.003 s" in done.err
    assert "200 samples were lost" in done.err

    def song(lines: list[str]) -> list[float]:
        """Return bounds of the segments after the noise with the missing samples."""
        rows = [map(float, line.split(",")[1:3]) for line in lines[1:]]
        return [
            time for onset, offset in rows if onset > 0.5 for time in (onset, offset)
        ]

    # The noise floor has 200 samples less: a bound may move by one hop.
    found, wanted = song(done.out.splitlines()), song(clean)
    assert len(wanted) > 20
    np.testing.assert_allclose(found, wanted, atol=0.0021)


def test_infinite_and_huge_samples_are_told_without_warnings_of_a_library(tmp_path):
    samples, rate = soundfile.read(RECORDING, frames=2 * 32000, dtype="float32")
    soundfile.write(tmp_path / "huge.wav", samples * 1e36, rate, subtype="FLOAT")
    samples[3000:3002] = np.inf, -np.inf
    soundfile.write(tmp_path / "infinite.wav", samples, rate, subtype="FLOAT")
    done = neurovocal("detect", tmp_path)
    huge, infinite = done.err.splitlines()
    assert "huge.wav' has samples of up to " in huge
    assert "infinite.wav': 2 samples are no numbers" in infinite
    assert done.code == 0
    assert len(done.out.splitlines()) > 9


def test_a_bad_recording_does_not_affect_the_others(tmp_path):
    wav(tmp_path / "a.wav")
    text(tmp_path / "b.wav")
    wav(tmp_path / "c.wav")
    done = neurovocal("detect", tmp_path)
    assert done.code == 2
    assert "b.wav" in done.err
    assert "Traceback" not in done.err
    assert {line.split(",")[0].split("/")[-1] for line in done.out.splitlines()} == {
        "file",
        "a.wav",
        "c.wav",
    }


def test_missing_recording(tmp_path):
    assert_refused(neurovocal("detect", tmp_path / "none.wav"), 1, "none.wav")


def test_unwritable_path(tmp_path):
    out = tmp_path / "no" / "such" / "folder.csv"
    done = neurovocal("detect", wav(tmp_path / "x.wav"), "--out", out)
    assert_refused(done, 1, "folder.csv")


def test_unknown_option_of_the_command(tmp_path):
    assert_refused(neurovocal("detect", "x.wav", "--treshold", "3"), 1, "--treshold")


def test_missing_bundle(tmp_path):
    done = neurovocal("label", wav(tmp_path / "x.wav"), "--bundle", "finhc")
    assert_refused(done, 1, "finhc", "bengalese-finch")


@pytest.mark.parametrize("name", ["classifier.onnx", "golden.npz", "manifest.yaml"])
def test_corrupt_bundle(tmp_path, name):
    shutil.copytree(BUNDLE, tmp_path / "bundle")
    content = bytearray((tmp_path / "bundle" / name).read_bytes())
    content[len(content) // 2] ^= 0xFF
    (tmp_path / "bundle" / name).write_bytes(bytes(content))
    path = wav(tmp_path / "x.wav")
    done = neurovocal("label", path, "--bundle", tmp_path / "bundle")
    assert_refused(done, 1, name)


def write_config(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_all_mistakes_of_a_configuration_are_reported_at_once(tmp_path):
    config = write_config(
        tmp_path / "bad.yaml",
        "version: 1\n"
        "source: {plugin: microfone}\n"
        "detector:\n"
        "  plugin: energy\n"
        "  options:\n"
        "    low_hx: 500\n"
        "    min_duration_ms: -3\n"
        "sinks: [{plugin: zmq}]\n"
        "tiles: 3\n",
    )
    done = neurovocal("check", config)
    assert_refused(done, 1, "bad.yaml:9: tiles: unknown option (did you mean 'tile'?)")
    config.write_text(config.read_text().replace("tiles: 3\n", ""))
    done = neurovocal("run", config)
    assert_refused(
        done,
        1,
        "bad.yaml:2: source.plugin: unknown source plugin 'microfone' "
        "(did you mean 'microphone'?)",
        "bad.yaml:6: detector.options.low_hx: unknown option (did you mean 'low_hz'?)",
        "bad.yaml:7: detector.options.min_duration_ms",
    )


def test_port_in_use(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = neurovocal(
            "run", "demo", "--set", f"sinks.0.options.endpoint=tcp://127.0.0.1:{port}"
        )
    assert done.code in (1, 2)
    assert_refused(done, done.code, str(port), "in use")


def test_missing_device():
    done = neurovocal(
        *("run", "microphone", "--set", "source.options.device=no-such-card"),
        *("--set", "sinks=[{plugin: jsonl, options: {path: '-'}}]"),
    )
    assert done.code in (1, 2)
    assert_refused(done, done.code)


def test_remote_binding_is_refused_without_allow_remote():
    done = neurovocal("run", "demo", "--set", "sinks.0.options.endpoint=tcp://*:5999")
    assert_refused(done, 1, "allow_remote")
