"""Morphs: sounds between two renditions, by equal steps."""

import csv

import numpy as np
import pytest
import soundfile
from repository import ROOT

from neurovocal.engine.cli import main
from neurovocal.engine.contracts.bundle import load_bundle
from neurovocal.models.generation.morph import align, mix, morphs

SONG = ROOT / "configs" / "recordings" / "bengalese-finch.flac"
# An i and a c of the recording, with 10 ms around them.
SPANS = {"i": (1.293, 1.397), "c": (2.165, 2.237)}


@pytest.fixture
def renditions(tmp_path):
    samples, rate = soundfile.read(SONG, dtype="float32")
    for name, (onset_s, offset_s) in SPANS.items():
        part = samples[round(onset_s * rate) : round(offset_s * rate)]
        soundfile.write(tmp_path / f"{name}.wav", part, rate)
    return tmp_path


def run(*args):
    with pytest.raises(SystemExit) as ended:
        main(["generate", *map(str, args)])
    return ended.value.code or 0


def ramp(n, n_bins=20):
    """A sweep through the bins in `n` frames, float32[n, n_bins]."""
    centre = np.linspace(2, n_bins - 3, n)[:, None]
    frames = np.exp(-np.square(np.arange(n_bins) - centre) / 4)
    return frames.astype(np.float32)


def test_a_sweep_is_aligned_with_a_slower_one():
    pairs = align(ramp(20), ramp(40))
    assert pairs[0].tolist() == [0, 0]
    assert pairs[-1].tolist() == [19, 39]
    assert set(map(tuple, np.diff(pairs, axis=0).tolist())) <= {(0, 1), (1, 0), (1, 1)}
    assert np.abs(pairs[:, 1] - 39 / 19 * pairs[:, 0]).max() <= 2


def test_a_mix_of_equal_sweeps_is_such_a_sweep_of_a_duration_between():
    first, second = ramp(20), ramp(40)
    pairs = align(first, second)
    for share, n in ((0.0, 20), (0.5, 30), (1.0, 40)):
        found = mix(first, second, pairs, share)
        assert found.shape == (n, 20)
        # Side by side a cross-fade of unaligned sweeps would have two ridges.
        assert np.abs(found - ramp(n)).max() < 0.2
    assert np.abs(mix(first, second, pairs, 0.0) - first).max() < 0.15


def test_steps_are_graded_between_the_ends():
    bundle = load_bundle("bengalese-finch")
    rng = np.random.default_rng(0)
    n_bins = bundle.manifest.front_end.n_bins
    first = rng.random((12, n_bins)).astype(np.float32)
    second = rng.random((18, n_bins)).astype(np.float32)
    made = list(morphs(bundle, first, second, [0, 0.25, 0.5, 0.75, 1]))
    lengths = [len(one.frames) for one in made]
    assert lengths == [12, 14, 15, 16, 18]
    means = np.array([one.frames.mean(0) for one in made], np.float64)
    along = (means - means[0]) @ (means[-1] - means[0])
    assert (np.diff(along) > 0).all()
    for one in made:
        assert np.isfinite(one.samples).all()
        assert one.samples.any()
    again = next(iter(morphs(bundle, first, second, [0.5])))
    assert np.array_equal(again.samples, made[2].samples)


def test_the_command_writes_graded_sounds_once(renditions, capsys):
    a, b, out = renditions / "i.wav", renditions / "c.wav", renditions / "between"
    given = ["--morph", a, b, "--steps", 5, "--out", out]
    assert run(*given) == 0
    capsys.readouterr()
    with (out / "morphs.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["share"]) for row in rows] == [0, 0.25, 0.5, 0.75, 1]
    seconds = [float(row["seconds"]) for row in rows]
    assert seconds == sorted(seconds, reverse=True)
    for row in rows:
        samples, rate = soundfile.read(out / row["file"])
        assert rate == 32000
        assert np.sqrt(np.square(samples).mean()) > 1e-3
    before = (out / "morph-1.wav").read_bytes()
    assert run(*given) == 1
    refusal = " ".join(capsys.readouterr().err.split())
    assert refusal.count("already") == 1
    assert "holds 'morph-1.wav' and" in refusal
    assert (out / "morph-1.wav").read_bytes() == before
    assert run(*given, "--overwrite") == 0
    given[given.index("--steps") + 1] = "2"
    capsys.readouterr()
    assert run(*given, "--overwrite") == 1
    refusal = " ".join(capsys.readouterr().err.split())
    assert "holds 'morph-3.wav'" in refusal
    assert "would stay beside the 2 new sounds" in refusal
    assert (out / "morph-1.wav").read_bytes() == before


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (("--morph", "i.wav", "c.wav"), "--morph needs --out DIR"),
        (("--morph", "i.wav", "x.wav", "-o", "d"), "'x.wav' does not exist"),
        (("--morph", "i.wav", "--steps", "7", "-o", "d"), "takes two recordings"),
        (("--morph", "i.wav", "c.wav", "-o", "i.wav"), "'i.wav' is a file"),
        (("--steps", "3"), "--steps is of --morph"),
        (
            ("--morph", "i.wav", "c.wav", "-o", "d", "--prime", "i.wav"),
            "--prime and --morph exclude each other",
        ),
        (("--morph", "i.wav", str(SONG), "-o", "d"), "cut out one"),
        (
            ("--morph", "i.wav", "c.wav", "-o", "d", "--seconds", "3"),
            "--seconds and --morph exclude each other",
        ),
        (
            ("--morph", "i.wav", "c.wav", "-o", "d", "--temperature", "0.5"),
            "--temperature and --morph exclude each other",
        ),
    ],
)
def test_mistakes_are_one_sentence(renditions, monkeypatch, capsys, args, sentence):
    monkeypatch.chdir(renditions)
    assert run(*args) == 1
    assert sentence in capsys.readouterr().err.replace("\n", " ")
    assert sorted(path.name for path in renditions.iterdir()) == ["c.wav", "i.wav"]


def test_a_second_morph_is_refused(renditions, monkeypatch, capsys):
    monkeypatch.chdir(renditions)
    given = ("--morph", "i.wav", "c.wav", "--morph", "c.wav", "i.wav", "-o", "d")
    monkeypatch.setattr("sys.argv", ["neurovocal", "generate", *given])
    assert run(*given) == 1
    assert "--morph is given twice" in capsys.readouterr().err
    assert not (renditions / "d").exists()


def test_a_silent_rendition_is_refused(renditions, monkeypatch, capsys):
    soundfile.write(renditions / "i.wav", np.zeros(3200), 32_000)
    monkeypatch.chdir(renditions)
    assert run("--morph", "c.wav", "i.wav", "-o", "d") == 1
    assert "'i.wav' is silent" in capsys.readouterr().err.replace("\n", " ")
    assert not (renditions / "d").exists()
