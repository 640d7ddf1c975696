"""Training sequences of the classifier."""

from pathlib import Path

import numpy as np
import pytest

from neurovocal.models.classifier.training import ClassifierTask
from neurovocal.models.data.augment import Augmenter
from neurovocal.models.data.datasets import AnnotatedRecording
from neurovocal.models.data.frames import LabelledFrames
from neurovocal.models.data.targets import FrameSpan
from neurovocal.models.toolkit.measures import IGNORED
from neurovocal.models.toolkit.recipe import AugmentConfig, ClassifierConfig

N_BINS = 3


class RecordingTask(ClassifierTask):
    """Task that keeps the batch of the last step."""

    def _batch(self):
        self.batch = super()._batch()
        return self.batch


def example(unit: int, n_frames: int) -> LabelledFrames:
    """A recording of a single unit from the first frame to the last."""
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
    task = RecordingTask(config, examples, examples, 4, augmenter, 0)
    task.begin(0.0)
    task.step(0.0)
    return tuple(part.numpy() for part in task.batch)


def test_short_recordings_and_pauses_fill_a_sequence() -> None:
    frames, target, weight = batch(
        [example(unit, 10) for unit in (1, 2, 3)], pause_frames=5
    )
    assert not (target == IGNORED).any()
    assert (weight > 0).all()
    # Each frame has the value of its unit, and pauses are 0.
    np.testing.assert_allclose(frames, 0.2 * target[..., None] * np.ones(3), atol=1e-6)
    for row in target:
        assert (row == 0).any()
        assert len(set(row.tolist())) == 4
        changes = np.flatnonzero(np.diff(row))
        lengths = np.diff(changes)[:-1]
        assert lengths.max() <= 30  # a recording may be drawn several times in a row


def test_pause_frames_of_zero_give_no_pause() -> None:
    _, target, _ = batch([example(1, 10)], pause_frames=0)
    assert (target == 1).all()


@pytest.mark.parametrize("n_frames", [100, 400])
def test_only_warm_up_frames_within_a_recording_have_no_weight(n_frames: int) -> None:
    _, target, weight = batch([example(1, n_frames)], warm_up=12)
    assert (target == 1).all()
    warm_up = (weight[:, :12] == 0).all(axis=1)
    assert (weight[:, 12:] > 0).all()
    # A sequence from the start of a recording starts with the state of a stream.
    assert warm_up.any() == (n_frames > 100)
