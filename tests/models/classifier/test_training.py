"""The sequences that the classifier is trained on."""

from pathlib import Path

import numpy as np
import pytest

from neurovocal.models.classifier.training import ClassifierTask
from neurovocal.models.data.augment import Augmenter
from neurovocal.models.data.datasets import AnnotatedRecording
from neurovocal.models.data.frames import FrameSpan, LabelledFrames
from neurovocal.models.toolkit.measures import IGNORED
from neurovocal.models.toolkit.recipe import AugmentConfig, ClassifierConfig

N_BINS = 3


class Watched(ClassifierTask):
    """Keeps the batch that a step is taken on."""

    def _batch(self):
        self.batch = super()._batch()
        return self.batch


def example(unit: int, n_frames: int) -> LabelledFrames:
    """A recording that is one unit from its first frame to its last."""
    recording = AnnotatedRecording("x.wav", Path("x.wav"), n_frames / 100, 8000, ())
    frames = np.full((n_frames, N_BINS), 0.2 * unit, np.float32)
    target = np.full(n_frames, unit, np.int64)
    return LabelledFrames(recording, frames, target, [FrameSpan(0, n_frames, unit)])


def batch(examples: list[LabelledFrames], **options: int) -> tuple[np.ndarray, ...]:
    quiet = AugmentConfig(level_db=0, tilt_db=0, floor=0, noise=0)
    config = ClassifierConfig(
        n_hidden=4, batch_size=8, sequence_length=100, augment=quiet, **options
    )
    one = np.ones(N_BINS, np.float32)
    augmenter = Augmenter(quiet, 0 * one, one, True)
    task = Watched(config, examples, examples, 4, augmenter, 0)
    task.begin(0.0)
    task.step(0.0)
    return tuple(part.numpy() for part in task.batch)


def test_short_recordings_fill_a_sequence_with_pauses() -> None:
    frames, target, weight = batch(
        [example(unit, 10) for unit in (1, 2, 3)], pause_frames=5
    )
    assert not (target == IGNORED).any()
    assert (weight > 0).all()
    # Every frame is that of its unit, and pauses are silent.
    np.testing.assert_allclose(frames, 0.2 * target[..., None] * np.ones(3), atol=1e-6)
    for row in target:
        assert (row == 0).any()
        assert len(set(row.tolist())) == 4
        changes = np.flatnonzero(np.diff(row))
        lengths = np.diff(changes)[:-1]
        assert lengths.max() <= 30  # the same recording may follow itself


def test_without_pauses_there_is_none() -> None:
    _, target, _ = batch([example(1, 10)], pause_frames=0)
    assert (target == 1).all()


@pytest.mark.parametrize("n_frames", [100, 400])
def test_only_the_cold_state_within_a_recording_does_not_count(n_frames: int) -> None:
    _, target, weight = batch([example(1, n_frames)], warm_up=12)
    assert (target == 1).all()
    cold = (weight[:, :12] == 0).all(axis=1)
    assert (weight[:, 12:] > 0).all()
    # A recording that is heard from its beginning begins as a stream does.
    assert cold.any() == (n_frames > 100)
