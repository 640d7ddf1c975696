"""Detector options that follow from annotated recordings."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from neurovocal.engine.contracts.bundle import ClassifierSpec, FrontEnd
from neurovocal.models.classifier.detector_search import (
    ScoredRecording,
    fit_detector,
    select_evenly,
)
from neurovocal.models.data.annotations import Annotation
from neurovocal.models.data.datasets import AnnotatedRecording
from neurovocal.models.data.frames import LabelledFrames, frame_targets
from neurovocal.models.data.split import Units
from neurovocal.models.toolkit.loop import TrainingInterrupted

RATE, HOP, LENGTH = 16000, 64, 128
FRONT_END = FrontEnd(
    sample_rate=RATE, hop_length=HOP, frame_length=LENGTH, n_bins=LENGTH // 2 + 1
)
SPEC = ClassifierSpec(units=["", "a"], state={}, temperature=10.0)
UNITS = Units(["", "a"], {"a": 1})


def heard(folder: Path, hole_ms: float, number: int) -> ScoredRecording:
    """Five sounds of 100 ms, each with a hole in the middle; a sure classifier."""
    rng = np.random.default_rng(number)
    samples = rng.normal(0, 0.001, 3 * RATE)
    annotations = []
    for at_s in np.arange(1.2, 2.8, 0.3) + rng.uniform(0, 0.05, 6):
        onset, offset = round(at_s * RATE), round((at_s + 0.1) * RATE)
        samples[onset:offset] += rng.normal(0, 0.2, offset - onset)
        middle, half = (onset + offset) // 2, round(hole_ms * RATE / 2000)
        samples[middle - half : middle + half] *= 0.005
        annotations.append(Annotation(onset / RATE, offset / RATE, "a"))
    path = folder / f"{number}.wav"
    soundfile.write(path, samples, RATE, subtype="FLOAT")
    recording = AnnotatedRecording(path.name, path, 3.0, RATE, tuple(annotations))
    n_frames = 1 + (len(samples) - LENGTH) // HOP
    target, spans = frame_targets(recording, UNITS, n_frames, RATE, HOP, LENGTH)
    logs = np.where(np.arange(2) == target[:, None], -0.01, -5.0)
    frames = np.zeros((n_frames, FRONT_END.n_bins), np.float32)
    return ScoredRecording(
        LabelledFrames(recording, frames, target, spans), logs, FRONT_END, SPEC
    )


def test_sounds_with_holes_need_longer_gaps(tmp_path: Path) -> None:
    some = [heard(tmp_path, 40.0, number) for number in range(3)]
    found = fit_detector(some, {})
    assert found.plugin == "energy"
    assert found.options["gap_fill_ms"] >= 30


def test_plain_sounds_leave_the_options_that_matter_alone(tmp_path: Path) -> None:
    some = [heard(tmp_path, 0.0, number) for number in range(3)]
    found = fit_detector(some, {})
    assert "gap_fill_ms" not in found.options
    assert "min_duration_ms" not in found.options


def test_only_so_many_seconds_are_listened_to(tmp_path: Path) -> None:
    some = [heard(tmp_path, 40.0, number) for number in range(4)]
    examples = [one.example for one in some]
    assert select_evenly(examples, 6.0) == examples[1::2]
    assert select_evenly(examples, 60.0) == examples
    assert select_evenly(examples, 0.1) == examples[:1]


def test_the_search_can_be_stopped(tmp_path: Path) -> None:
    looks = iter(range(100))

    def stop() -> None:
        if next(looks) == 5:
            raise TrainingInterrupted("enough")

    shares: list[float] = []

    def watch(share: float, note: str) -> None:
        shares.append(share)

    with pytest.raises(TrainingInterrupted):
        fit_detector([heard(tmp_path, 0.0, 0)], {}, watch, stop)
    assert len(shares) == 5
    assert shares == sorted(shares)


@pytest.mark.parametrize(
    ("segments", "frames", "syllables"),
    [
        ([(0, 1)], 100.0, 100.0),  # too short to hold a frame's centre
        ([], 100.0, 100.0),
    ],
)
def test_nothing_found_is_all_wrong(
    tmp_path: Path, segments: Any, frames: float, syllables: float
) -> None:
    one = heard(tmp_path, 0.0, 0)
    found = one.label_errors(segments)
    voiced = 100 * (one.example.target > 0).mean()
    assert found.frames.percent == pytest.approx(voiced * frames / 100)
    assert found.syllables.percent == syllables
    exact = [
        (round(a.onset_s * RATE), round(a.offset_s * RATE))
        for a in one.example.recording.annotations
    ]
    assert one.label_errors(exact).error == 0.0
