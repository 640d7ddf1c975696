"""Labels of resynthesized song: how differences are counted, and shipped song."""

import json
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import soundfile

from neurovocal.engine.contracts.bundle import load_bundle
from neurovocal.engine.contracts.errors import ConfigError
from neurovocal.engine.contracts.types import Label
from neurovocal.models.commands.evaluate import evaluate
from neurovocal.models.data.datasets import read_dataset
from neurovocal.models.evaluation.resynthesis import (
    RoundTrip,
    measure_round_trip,
    print_round_trip,
    resynthesize,
)

RECORDING = Path(str(files("neurovocal.configs"))) / "recordings/bengalese-finch.flac"


def labels(*spans: tuple[int, int, str]) -> list[Label]:
    return [
        Label(n, onset, offset, unit, 0.9, "final", "classifier")
        for n, (onset, offset, unit) in enumerate(spans)
    ]


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    samples, rate = soundfile.read(RECORDING, dtype="float32")
    soundfile.write(tmp_path / "song.flac", samples[: 5 * rate], rate)
    table = "file,onset_s,offset_s,label\nsong.flac,1.293,1.397,i\n"
    (tmp_path / "annotations.csv").write_text(table)
    return tmp_path


def test_segments_are_the_same_renamed_missing_or_added() -> None:
    result = RoundTrip()
    before = labels((0, 100, "a"), (200, 300, "b"), (400, 500, "c"), (600, 700, "d"))
    after = labels((10, 110, "a"), (210, 300, "x"), (470, 570, "c"), (900, 990, "e"))
    result.add(before, after)
    assert (result.n_segments, result.same, result.renamed) == (4, 1, 1)
    assert (result.missing, result.added) == (2, 2)
    figures = result.as_dict()
    assert figures["same_percent"] == 25.0
    assert {"original": "b", "resynthesized": "x", "count": 1} in figures["differences"]


def test_a_segment_has_one_counterpart() -> None:
    """Two segments of the original that became one: one of them is missing."""
    result = RoundTrip()
    result.add(labels((0, 100, "a"), (100, 190, "a")), labels((0, 190, "a")))
    assert (result.same, result.missing, result.added) == (1, 1, 0)


def test_resynthesis_has_the_length_and_level_of_the_recording() -> None:
    bundle = load_bundle("bengalese-finch")
    t = np.arange(32_000) / 32_000
    tone = (0.01 * np.sin(2 * np.pi * 3000 * t)).astype(np.float32)
    again = resynthesize(bundle, tone[:-50])
    assert len(again) == len(tone) - 50
    middle = slice(8000, 24_000)
    assert abs(20 * np.log10(again[middle].std() / tone[middle].std())) < 1


def test_resynthesized_song_keeps_its_labels(
    dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluate("bengalese-finch", dataset, resynthesis=True, as_json=True)
    figures = json.loads(capsys.readouterr().out)
    assert figures["segments"] >= 20
    assert figures["same_percent"] >= 90  # one or two of so few may differ


def test_figures_are_told_in_two_sentences(capsys: pytest.CaptureFixture[str]) -> None:
    result = RoundTrip(seconds=2.0)
    result.add(labels((0, 100, "a"), (200, 300, "b")), labels((0, 100, "a")))
    print_round_trip(result)
    first, second, third = capsys.readouterr().out.splitlines()
    assert first == "1 of 2 segments in 2 s keep their label: 50 %"
    assert "1 not found again" in second
    assert third.split() == ["1", "b", "->", "none"]


def test_what_cannot_be_compared_is_refused(dataset: Path) -> None:
    recordings = read_dataset(dataset).recordings
    with pytest.raises(ConfigError, match="has no classifier"):
        measure_round_trip(load_bundle("any-animal"), recordings)
    with pytest.raises(ConfigError, match="--resynthesis stands alone"):
        evaluate("bengalese-finch", dataset, resynthesis=True, fast=True)
