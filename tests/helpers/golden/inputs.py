"""Makes the recordings and data sets that are put into the program."""

import math
from pathlib import Path

import numpy as np
import soundfile

from golden.session import Session

SECONDS = 4
RATE = 32_000
_TONE_RATE = 16_000
_TONES_HZ = {"a": 1500.0, "b": 3000.0, "c": 5000.0}


def make_inputs(session: Session) -> None:
    """Write every recording of the inputs, once."""
    folder = session.inputs
    if (folder / "short.wav").exists():
        return
    samples, rate = soundfile.read(
        session.recording, frames=SECONDS * RATE, dtype="float32"
    )
    assert rate == RATE
    later, _ = soundfile.read(
        session.recording, start=10 * RATE, frames=3 * RATE, dtype="float32"
    )
    soundfile.write(folder / "other.wav", later, RATE, subtype="PCM_16")
    brief = samples[2 * RATE : 3 * RATE]
    soundfile.write(folder / "brief.wav", brief, RATE, subtype="PCM_16")
    soundfile.write(folder / "rate.wav", samples, 44_100, subtype="PCM_24")
    pair = np.stack([samples[: 3 * RATE], later], axis=1)
    soundfile.write(folder / "stereo.wav", pair, RATE, subtype="FLOAT")
    holes = samples.copy()
    holes[2 * RATE : 2 * RATE + 100] = np.nan
    holes[3 * RATE : 3 * RATE + 5000] = np.inf
    soundfile.write(folder / "nan.wav", holes, RATE, subtype="FLOAT")
    soundfile.write(folder / "silence.wav", np.zeros(RATE), RATE, subtype="PCM_16")
    soundfile.write(folder / "nothing.wav", np.zeros(0), RATE, subtype="PCM_16")
    soundfile.write(folder / "slow.wav", samples[:4000], 4000, subtype="PCM_16")
    (folder / "empty.wav").write_bytes(b"")
    (folder / "text.wav").write_text("this is not audio\n" * 100)
    many = folder / "many"
    many.mkdir()
    names = ("20260501_040000.wav", "20260501_040010.wav", "20260501_040020.wav")
    for number, name in enumerate(names):
        part = samples[(number + 1) * RATE : (number + 2) * RATE]
        soundfile.write(many / name, part, RATE, subtype="PCM_16")
    mixed = folder / "mixed"
    mixed.mkdir()
    soundfile.write(mixed / "a.wav", samples[RATE : 2 * RATE], RATE, subtype="PCM_16")
    (mixed / "b.wav").write_text("this is not audio\n" * 100)
    (folder / "no-audio").mkdir()
    (folder / "pcm.raw").write_bytes(
        (samples[: 2 * RATE] * 32767).astype("<i2").tobytes()
    )
    soundfile.write(folder / "short.wav", samples, RATE, subtype="FLOAT")
    content = (folder / "other.wav").read_bytes()
    (folder / "truncated.wav").write_bytes(content[: len(content) // 2])
    (folder / "header.wav").write_bytes(content[:30])
    make_tones(folder / "tones")
    (folder / "recipe.yaml").write_text(RECIPE)
    (folder / "recipe-classifier.yaml").write_text(RECIPE.split("rnn_rbm:")[0] + NO_RBM)


RECIPE = """\
version: 1
seed: 0
threads: 1
front_end:
  options: {frame_length: 128, hop_length: 64, scale: log}
split: {folds: 1, draw_test: true}
classifier:
  n_hidden: 24
  updates: 120
  sequence_length: 120
  learning_rate: 0.01
  validate_every: 60
card: {name: tones, species: test tone}
rnn_rbm:
  hidden_scalar: 0.5
  recurrent_scalar: 0.5
  phases:
    - {objective: deterministic, updates: 40, learning_rate: 0.01}
    - {objective: contrastive, updates: 10, learning_rate: 0.001}
  validate_every: 20
"""
NO_RBM = "rnn_rbm: null\nforecast: null\n"


def make_tones(folder: Path) -> Path:
    """Write a data set of eight recordings with six annotated tones each."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    rows = ["file,onset_s,offset_s,label"]
    for number in range(8):
        samples = rng.normal(0, 0.001, 2 * _TONE_RATE)
        at_s = 1.1
        for unit in [*rng.permutation([*_TONES_HZ]), *rng.permutation([*_TONES_HZ])]:
            start, stop = round(at_s * _TONE_RATE), round((at_s + 0.06) * _TONE_RATE)
            time = np.arange(stop - start) / _TONE_RATE
            tone_hz = _TONES_HZ[str(unit)]
            samples[start:stop] += 0.3 * np.sin(2 * math.pi * tone_hz * time)
            onset_s, offset_s = start / _TONE_RATE, stop / _TONE_RATE
            rows.append(f"song{number}.wav,{onset_s:.6f},{offset_s:.6f},{unit}")
            at_s += 0.13
        path = folder / f"song{number}.wav"
        soundfile.write(path, samples.astype(np.float32), _TONE_RATE, subtype="FLOAT")
    (folder / "annotations.csv").write_text("\n".join(rows) + "\n")
    text = "# Tones\n\nTones: three units.\n\nLicence: CC0 1.0  \nAttribution: nobody\n"
    (folder / "README.md").write_text(text)
    return folder
