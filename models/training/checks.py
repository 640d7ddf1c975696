"""Checks of a training before anything is computed; all mistakes are told at once."""

from collections.abc import Callable

import numpy as np

from neurovocal.models.data.datasets import AnnotatedRecording, Dataset
from neurovocal.models.data.frames import LabelledFrames
from neurovocal.models.data.prepare import DatasetPlan, plan_dataset
from neurovocal.models.data.soundness import (
    Sound,
    leave_out_copies,
    read_recordings,
    silent_note,
)
from neurovocal.models.data.split.recordings import part_names
from neurovocal.models.data.targets import targets_of
from neurovocal.models.evaluation.evaluate import SKIPPED_FRAMES
from neurovocal.models.rnn_rbm.training import trim_songs
from neurovocal.models.toolkit.problems import Problems
from neurovocal.models.toolkit.recipe import RnnRbmConfig, TrainConfig


def check_training(
    dataset: Dataset,
    config: TrainConfig,
    n_bins: int | None,
    watch: Callable[[float], None],
) -> tuple[DatasetPlan, dict[str, Sound]]:
    """Read every recording once, and plan the training.

    Parameters
    ----------
    dataset : Dataset
        Selected recordings.
    config : TrainConfig
        Recipe.
    n_bins : int, optional
        Bins of the scaling of the bundle that the training starts from.
    watch : callable
        Called with the completed share of the recordings.

    Returns
    -------
    plan : DatasetPlan
    sounds : dict
        Digest of each recording's samples, by file name.

    Raises
    ------
    ConfigError
        Lists all mistakes: damaged or silent recordings, one sound in two parts of
        the split, unknown words in files.csv, parts without segments of a unit,
        recordings that are too short for the networks.
    """
    problems, notes, kept = Problems(), list[str](), dataset
    sounds = problems.of(lambda: read_recordings(dataset.recordings, watch))
    if sounds is not None:
        heard = sounds
        notes += problems.of(lambda: silent_note(heard)) or []
        parts = problems.of(lambda: part_names(dataset, config.split)) or {}
        found = problems.of(lambda: leave_out_copies(dataset, heard, parts))
        if found is not None:
            kept, copies = found
            notes += copies
    plan = problems.of(lambda: plan_dataset(kept, config))
    if plan is not None:
        problems.add(plan_problems(plan, config, n_bins))
    problems.refuse()
    assert plan is not None
    assert sounds is not None
    plan.warnings.extend(notes)
    return plan, sounds


def plan_problems(
    plan: DatasetPlan, config: TrainConfig, n_bins: int | None
) -> list[str]:
    """Return a sentence for each reason why networks cannot be trained or tested."""
    problems = []
    if n_bins is not None and n_bins != plan.front_end.n_bins:
        problems.append(
            f"the bundle of --from has {n_bins} bins, the recipe's front_end makes "
            f"{plan.front_end.n_bins}: leave front_end to the bundle, or train without "
            "--from"
        )
    split = plan.split
    parts = {
        name: [_example(recording, plan) for recording in part]
        for name, part in (
            ("training", split.train),
            ("validation", split.valid),
            ("test", split.test),
        )
    }
    if config.classifier is not None:
        problems += [
            f"the {name} split has no segment of a unit that holds the centre of a "
            f"frame ({plan.grid.hop_ms:.1f} ms apart): annotate more there, or choose "
            "other recordings for it"
            for name, part in parts.items()
            if not any(example.spans for example in part)
            and (name != "test" or split.test)
        ]
    if config.rnn_rbm is not None:
        problems += _song_problems(parts, config.rnn_rbm, 1000 / plan.grid.hop_ms)
    return problems


def _song_problems(
    parts: dict[str, list[LabelledFrames]], config: RnnRbmConfig, frames_per_s: float
) -> list[str]:
    """Return a sentence for each part whose songs are too short for the RNN-RBM."""
    problems = []
    needed = {
        "training": config.warm_up + config.sequence_length + 1,
        "validation": 2,
    }
    for name, n_needed in needed.items():
        songs = trim_songs(parts[name], config.trim_silence_s, frames_per_s)
        longest = max(map(len, songs), default=0)
        if longest < n_needed:
            problems.append(
                f"no {name} recording has {n_needed} frames of song, the longest has "
                f"{longest}: lower rnn_rbm.sequence_length or rnn_rbm.warm_up, take "
                "longer recordings, or set rnn_rbm: null"
            )
    measured = "test" if parts["test"] else "validation"
    longest = max((len(example.frames) for example in parts[measured]), default=0)
    if longest <= SKIPPED_FRAMES:
        problems.append(
            f"no {measured} recording has more than {SKIPPED_FRAMES} frames, which the "
            f"RNN-RBM is measured on; the longest has {longest}: choose longer ones"
        )
    return problems


def _example(recording: AnnotatedRecording, plan: DatasetPlan) -> LabelledFrames:
    """Return targets and segments of a recording, with frames of no bins."""
    grid = plan.grid
    n_frames = grid.n_frames(recording)
    target, spans = targets_of(
        recording,
        plan.units,
        n_frames,
        grid.sample_rate,
        grid.hop_length,
        grid.frame_length,
    )
    return LabelledFrames(recording, np.empty((n_frames, 0), np.float32), target, spans)
