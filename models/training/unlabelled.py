"""Recordings without labels as further training data, where networks are sure of them.

The networks of the cross-validation label the recordings together; frames of which they
are sure train the classifier that ships, all others do not count: self-training
(Scudder 1965) with an ensemble as the teacher.
"""

import filecmp
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from neurovocal.engine.contracts.errors import AudioFileError, ConfigError
from neurovocal.engine.lane.offline import frames_of
from neurovocal.models.classifier.cross_validation import (
    CrossValidated,
    log_posteriors_of,
)
from neurovocal.models.classifier.detector_search import select_evenly
from neurovocal.models.data.datasets import AnnotatedRecording
from neurovocal.models.data.frames import (
    LabelledFrames,
    features_without_scaling,
    read_samples,
)
from neurovocal.models.data.prepare import PreparedDataset
from neurovocal.models.data.recording_folder import RecordingFolder
from neurovocal.models.data.sound_files import read_header
from neurovocal.models.data.split.cutting import limit_length
from neurovocal.models.toolkit.measures import IGNORED
from neurovocal.models.toolkit.progress import Reporter
from neurovocal.models.toolkit.recipe import TrainConfig
from neurovocal.models.training.workspace import TrainingJob

SURE = 0.9
"""Mean posterior of the networks from which a frame counts."""
MOST_S = 1800.0
"""Seconds of recordings that are used, evenly from all."""


def read_unlabelled(job: TrainingJob, config: TrainConfig) -> list[AnnotatedRecording]:
    """Return the recordings of the folder ``--unlabelled``, in parts of five minutes.

    Parameters
    ----------
    job : TrainingJob
        Its folder is searched with its subfolders.
    config : TrainConfig
        Recipe.

    Raises
    ------
    ConfigError
        There is no recording, one cannot be read, or the recipe trains on the last
        frames of segments alone; all is told.
    """
    folder = job.unlabelled
    if folder is None:
        return []
    if config.classifier is None or config.classifier.objective == "last":
        raise ConfigError(
            "--unlabelled needs a classifier that is trained on all frames "
            "(classifier.objective: frames)"
        )
    if not folder.is_dir():
        raise ConfigError(f"--unlabelled: there is no folder '{folder}'")
    found, problems = [], []
    for name in RecordingFolder(folder).recordings:
        path = folder / name
        try:
            header = read_header(path)
        except AudioFileError as error:
            problems.append(f"--unlabelled: {path}: {error}")
            continue
        seconds = header.duration_s or 0.0
        found.append(AnnotatedRecording(name, path, seconds, header.sample_rate, ()))
    if problems:
        raise ConfigError(problems)
    if not found:
        raise ConfigError(f"--unlabelled: '{folder}' holds no recording")
    return limit_length(found)


def leave_out_known(
    recordings: Sequence[AnnotatedRecording],
    known: Sequence[AnnotatedRecording],
    reporter: Reporter,
) -> list[AnnotatedRecording]:
    """Return the recordings that the dataset does not hold, and tell how many it does.

    A copy under another name is known, too: networks must not learn from the recordings
    that they are tested on.

    Parameters
    ----------
    recordings : sequence of AnnotatedRecording
        Recordings of the folder ``--unlabelled``.
    known : sequence of AnnotatedRecording
        Recordings of the dataset, those of its test split among them.
    reporter : Reporter
        Receives the message.
    """
    by_size: dict[int, set[Path]] = {}
    for path in {each.path for each in known}:
        by_size.setdefault(path.stat().st_size, set()).add(path)
    copies = {
        path
        for path in {each.path for each in recordings}
        if any(
            filecmp.cmp(path, other, shallow=False)
            for other in by_size.get(path.stat().st_size, ())
        )
    }
    if copies:
        reporter.print_message(
            f"--unlabelled: {len(copies)} of its recordings are left out: the dataset "
            "holds the same"
        )
    return [each for each in recordings if each.path not in copies]


def label_confidently(
    validated: CrossValidated,
    recordings: Sequence[AnnotatedRecording],
    data: PreparedDataset,
    watch: Callable[[float], None] = lambda share: None,
) -> list[LabelledFrames]:
    """Label the frames of recordings of which the networks together are sure.

    Parameters
    ----------
    validated : CrossValidated
        Networks; their posteriors are averaged.
    recordings : sequence of AnnotatedRecording
        Recordings without annotations.
    data : PreparedDataset
        Front end and scaling.
    watch : callable
        Called with the completed share.

    Returns
    -------
    list of LabelledFrames
        `IGNORED` is the target of all frames with a lower posterior than `SURE`.
        Recordings without a frame of a unit are left out.
    """
    bare = {k: v for k, v in data.front_end.options.items() if k != "scaling"}
    features = features_without_scaling(
        data.front_end.model_copy(update={"options": bare})
    )
    chosen = select_evenly(
        [
            LabelledFrames(r, np.empty((0, 1), np.float32), np.empty(0, int), [])
            for r in recordings
        ],
        MOST_S,
    )
    labelled = []
    for number, example in enumerate(chosen):
        samples = read_samples(example.recording, data.front_end.sample_rate)
        frames = (frames_of(features, samples) - data.offset) * data.gain
        example = LabelledFrames(
            example.recording,
            frames.astype(np.float32),
            np.full(len(frames), IGNORED, np.int64),
            [],
        )
        if len(frames):
            posteriors = np.mean(
                [np.exp(log_posteriors_of(n, example)) for n in validated.networks],
                axis=0,
            )
            sure = posteriors.max(axis=1) >= SURE
            example.target[sure] = posteriors.argmax(axis=1)[sure]
            if (example.target > 0).any():
                labelled.append(example)
        watch((number + 1) / len(chosen))
    return labelled
