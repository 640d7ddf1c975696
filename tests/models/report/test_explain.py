"""``neurovocal explain``: reasons of labels, on tones whose reasons are known."""

import base64
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from bundles.tiny_bundle import N_BINS, edit_manifest, make_tiny_bundle
from repository import ROOT
from typer.testing import CliRunner, Result

from neurovocal.engine.cli.app import build_app
from neurovocal.engine.contracts.bundle import load_bundle
from neurovocal.engine.contracts.errors import ConfigError
from neurovocal.models.report.draw import FrameAxes
from neurovocal.models.report.explanation.heard import Listener
from neurovocal.models.report.explanation.sections import explain_labels

RATE = 32_000
# The tiny bundle calls what is loudest below 8 kHz `a`, above it `b`.
TONES = [(3000, 1.2), (11_000, 1.6), (3000, 2.0), (11_000, 2.4)]


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tones") / "tones.wav"
    samples = np.random.default_rng(0).normal(0, 1e-4, 3 * RATE).astype(np.float32)
    for hz, start_s in TONES:
        start = int(start_s * RATE)
        t = np.arange(int(0.12 * RATE)) / RATE
        samples[start : start + len(t)] += 0.3 * np.sin(2 * np.pi * hz * t)
    soundfile.write(path, samples, RATE, subtype="FLOAT")
    return path


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny") / "bundle"
    return make_tiny_bundle(folder, detector={"plugin": "energy", "options": {}})


def run(*arguments: object) -> Result:
    return CliRunner().invoke(build_app(), ["explain", *map(str, arguments)])


def explained(*arguments: object) -> list[dict[str, Any]]:
    done = run(*arguments, "--json")
    assert done.exit_code == 0, (done.output, done.exception)
    found: list[dict[str, Any]] = json.loads(done.stdout)["labels"]
    return found


def test_reasons_are_the_bands_and_times_of_the_tones(
    tiny: Path, recording: Path, tmp_path: Path
) -> None:
    found = explained(recording, "--bundle", tiny, "--out", tmp_path / "page")
    assert [one["label"] for one in found] == ["a", "b", "a", "b"]
    for one, (hz, start_s) in zip(found, TONES, strict=True):
        assert one["onset_s"] == pytest.approx(start_s, abs=0.02)
        low, high = one["strongest_cell"]["khz"]
        assert low - 0.2 <= hz / 1000 <= high + 0.2
        assert one["strongest_cell"]["lost"] > 0
        lost = np.array(one["lost_without_stretch"])
        stops = np.array(one["stretches_ms"][1:])
        assert np.abs(lost[stops <= 0]).max() < 0.1 * lost.max()  # silence before it
        assert one["log_odds"] > 0
        change = one["counterfactual"]
        assert change["is_found"]
        assert change["given"] == change["unit"] == one["against"] != one["label"]
        assert 0 < change["share"] < 1


def test_the_page_shows_and_plays_them(
    tiny: Path, recording: Path, tmp_path: Path
) -> None:
    out = tmp_path / "page"
    done = run(recording, "--bundle", tiny, "--out", out, "--at", 1.65, "--at", 2.01)
    assert done.exit_code == 0, (done.output, done.exception)
    assert "tones.wav 1.599 s: b" in done.stdout
    assert "It would have been a (posterior" in " ".join(done.stdout.split())
    assert done.stdout.count("The stretch from") == 2
    assert max(map(len, done.stdout.splitlines())) <= 80
    page = (out / "index.html").read_text(encoding="utf-8")
    assert "<script" not in page
    assert "Hidden units are found by the names" in page  # a test's own graph
    captions = re.findall(r'aria-label="([^"]+)" src="data:audio/wav;base64,', page)
    assert captions[:3] == [
        "as it was heard",
        "changed, heard as a",
        "the a it is compared with",
    ]
    sounds = re.findall(r'src="data:audio/wav;base64,([^"]+)"', page)
    heard, changed = (
        soundfile.read(io.BytesIO(base64.b64decode(sound)))[0] for sound in sounds[:2]
    )

    def share_at(hz: float, samples: Any) -> float:
        power = np.square(np.abs(np.fft.rfft(samples)))
        at = np.abs(np.arange(len(power)) * RATE / len(samples) - hz) < 200
        return float(power[at].sum() / power.sum())

    assert share_at(11_000, heard) > 0.9
    assert share_at(3000, heard) < 1e-3
    assert share_at(3000, changed) > 0.1
    # An earlier explanation is replaced, another page is not.
    assert run(recording, "--bundle", tiny, "--out", out).exit_code == 0
    (out / "index.html").write_text("<html>mine</html>")
    refused = run(recording, "--bundle", tiny, "--out", out).exception
    assert isinstance(refused, ConfigError)


def test_hidden_units_come_with_sounds_of_the_recording(tmp_path: Path) -> None:
    song = ROOT / "configs" / "recordings" / "bengalese-finch.flac"
    samples, rate = soundfile.read(song, frames=3 * RATE)
    soundfile.write(tmp_path / "song.wav", samples, rate)
    out = tmp_path / "page"
    done = run(tmp_path / "song.wav", "--out", out, "--at", 2.0)
    assert done.exit_code == 0, (done.output, done.exception)
    page = (out / "index.html").read_text(encoding="utf-8")
    assert "What hidden units listen to" in page
    captions = re.findall(r'aria-label="([123]: song\.wav, \d\.\d{3} s[^"]*)"', page)
    assert len(captions) == 36  # three of each of twelve units
    assert any(", in " in caption for caption in captions)


def test_the_change_that_is_shown_is_heard_as_the_other_unit(
    tiny: Path, recording: Path
) -> None:
    listener = Listener(load_bundle(tiny))
    heard = listener.hear(recording, "tones.wav", 1)
    explanations = explain_labels(
        listener, [heard], [heard.labels], None, lambda share: None
    )
    for one in explanations:
        own, change = one.segment, one.change
        assert listener.decide(own.scores, own.stop - own.first)[0] == own.label.unit
        assert change is not None
        scores = listener.scores(change.frames, own.state, own.n_lead)
        assert listener.decide(scores, own.stop - own.first)[0] == one.target
        is_changed = (change.frames != own.frames).any(axis=1)
        assert not is_changed[: own.n_lead].any()
        # No cell could be left out.
        for cell in change.cells:
            frames = change.frames.copy()
            places = one.cells.places(*cell)
            frames[places] = own.frames[places]
            scores = listener.scores(frames, own.state, own.n_lead)
            assert listener.decide(scores, own.stop - own.first)[0] != one.target
    assert FrameAxes(listener.bundle).n_bins == N_BINS


def test_a_unit_that_was_not_heard_is_said_to_be_missing(
    recording: Path, tmp_path: Path
) -> None:
    three = make_tiny_bundle(tmp_path / "three", units=("", "a", "b", "c", "d"))
    done = run(
        *(recording, "--bundle", three, "--out", tmp_path / "page"),
        *("--count", 1, "--against", "d"),
    )
    assert done.exit_code == 0, (done.output, done.exception)
    assert "No d was heard in these recordings" in " ".join(done.stdout.split())


def test_mistakes_are_one_sentence(tiny: Path, recording: Path, tmp_path: Path) -> None:
    def refusal(*arguments: object) -> str:
        done = run(recording, "--bundle", tiny, "--out", tmp_path / "p", *arguments)
        assert isinstance(done.exception, ConfigError), done.output
        return str(done.exception)

    assert "--label x: " in refusal("--label", "x")
    assert "--against silence" in refusal("--against", "silence")
    assert "--at 3.1: 'tones.wav' ends at 3.000 s" in refusal("--at", 3.1)
    assert "no channel 2" in refusal("--channel", 2)
    assert "lies in the bundle" in refusal("--out", tiny)
    bare = make_tiny_bundle(tmp_path / "bare")
    edit_manifest(bare, classifier=None)
    assert "has no classifier" in refusal("--bundle", bare)
    silence = tmp_path / "silence.wav"
    soundfile.write(silence, np.zeros(RATE), RATE)
    done = run(silence, "--bundle", tiny, "--out", tmp_path / "q")
    assert done.exit_code == 0
    assert "nothing was found in these recordings" in done.stderr
