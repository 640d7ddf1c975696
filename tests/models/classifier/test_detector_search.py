"""Search for detector options on annotated recordings."""

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
from neurovocal.models.data.frames import LabelledFrames
from neurovocal.models.data.targets import Units, targets_of
from neurovocal.models.toolkit.loop import TrainingInterrupted
from neurovocal.models.toolkit.recipe import DetectorConfig

RATE, HOP, LENGTH = 16000, 64, 128
FRONT_END = FrontEnd(
    sample_rate=RATE, hop_length=HOP, frame_length=LENGTH, n_bins=LENGTH // 2 + 1
)
SPEC = ClassifierSpec(units=["", "a"], state={}, temperature=10.0)
UNITS = Units(["", "a"], {"a": 1})


def scored_recording(
    folder: Path, hole_ms: float, number: int, noise: float = 0.001, hum: float = 0.0
) -> ScoredRecording:
    """Sounds of 100 ms with a silent hole in the middle, and confident posteriors."""
    rng = np.random.default_rng(number)
    samples = rng.normal(0, noise, 3 * RATE)
    samples += hum * np.sin(2 * np.pi * 600 / RATE * np.arange(len(samples)))
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
    target, spans = targets_of(recording, UNITS, n_frames, RATE, HOP, LENGTH)
    logs = np.where(np.arange(2) == target[:, None], -0.01, -5.0)
    frames = np.zeros((n_frames, FRONT_END.n_bins), np.float32)
    return ScoredRecording(
        LabelledFrames(recording, frames, target, spans), logs, FRONT_END, SPEC
    )


ENERGY = DetectorConfig(others=False)


def test_interrupted_sounds_get_a_longer_gap_fill(tmp_path: Path) -> None:
    recordings = [scored_recording(tmp_path, 40.0, number) for number in range(3)]
    found = fit_detector(recordings[:2], recordings[2:], ENERGY)
    assert found.plugin == "energy"
    assert found.options["gap_fill_ms"] >= 30


def test_uninterrupted_sounds_keep_the_default_options(tmp_path: Path) -> None:
    recordings = [scored_recording(tmp_path, 0.0, number) for number in range(3)]
    found = fit_detector(recordings[:2], recordings[2:], ENERGY)
    assert "gap_fill_ms" not in found.options
    assert "min_duration_ms" not in found.options


def test_the_noise_floor_of_the_room_is_a_prior(tmp_path: Path) -> None:
    recordings = [scored_recording(tmp_path, 0.0, number) for number in range(3)]
    found = fit_detector(recordings[:2], recordings[2:], ENERGY)
    # Noise of -60 dB over 8 kHz; the band has 6.7 kHz of them.
    assert found.options["floor_db"] == pytest.approx(-62.0, abs=1.5)


def test_recordings_of_several_rooms_give_no_prior(tmp_path: Path) -> None:
    recordings = [
        scored_recording(tmp_path, 0.0, number, level)
        for number, level in enumerate((0.0005, 0.005, 0.001))
    ]
    found = fit_detector(recordings[:2], recordings[2:], ENERGY)
    assert "floor_db" not in found.options


def test_another_detector_is_taken_where_it_is_better(tmp_path: Path) -> None:
    """A hum in one band hides the sounds from the level of all bands."""
    recordings = [scored_recording(tmp_path, 0.0, number, hum=0.5) for number in (0, 1)]
    assert fit_detector(recordings[:1], recordings[1:], ENERGY).plugin == "energy"
    found = fit_detector(recordings[:1], recordings[1:], DetectorConfig())
    assert found.plugin in ("excess", "bands")
    assert len(found.options["floor_db"]) == 32
    assert found.options["floor_rate"] == RATE


def test_on_ties_the_usual_detector_is_kept(tmp_path: Path) -> None:
    recordings = [scored_recording(tmp_path, 0.0, number) for number in (0, 1)]
    found = fit_detector(recordings[:1], recordings[1:], DetectorConfig())
    assert found.plugin == "energy"


def test_recordings_are_selected_evenly_up_to_the_time_limit(tmp_path: Path) -> None:
    recordings = [scored_recording(tmp_path, 40.0, number) for number in range(4)]
    examples = [scored.example for scored in recordings]
    assert select_evenly(examples, 6.0) == examples[1::2]
    assert select_evenly(examples, 60.0) == examples
    assert select_evenly(examples, 0.1) == examples[:1]


def test_an_exception_of_check_stop_ends_the_search(tmp_path: Path) -> None:
    calls = iter(range(100))

    def check_stop() -> None:
        if next(calls) == 5:
            raise TrainingInterrupted("enough")

    shares: list[float] = []

    def on_progress(share: float, note: str) -> None:
        shares.append(share)

    recordings = [scored_recording(tmp_path, 0.0, 0)]
    with pytest.raises(TrainingInterrupted):
        fit_detector(recordings, recordings, ENERGY, on_progress, check_stop)
    assert len(shares) == 5
    assert shares == sorted(shares)


@pytest.mark.parametrize(
    ("segments", "frames", "syllables"),
    [
        ([(0, 1)], 100.0, 100.0),  # too short to hold a frame's centre
        ([], 100.0, 100.0),
    ],
)
def test_missed_segments_count_as_errors(
    tmp_path: Path, segments: Any, frames: float, syllables: float
) -> None:
    scored = scored_recording(tmp_path, 0.0, 0)
    found = scored.label_errors(segments)
    voiced = 100 * (scored.example.target > 0).mean()
    assert found.frames.percent == pytest.approx(voiced * frames / 100)
    assert found.syllables.percent == syllables
    exact = [
        (round(a.onset_s * RATE), round(a.offset_s * RATE))
        for a in scored.example.recording.annotations
    ]
    assert scored.label_errors(exact).error == 0.0
