"""Scores at which a unit is named before its segment has ended, for closed loops.

The profile ``fast`` names a segment as soon as the posterior of its likeliest unit,
times the probability that the newest frame is no silence, reaches the unit's score.
Scores are as low, and so names as soon, as few enough of them are wrong allows.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from neurovocal.engine.contracts.bundle import ClassifierSpec, DetectorSpec
from neurovocal.engine.contracts.registry import Registry
from neurovocal.models.classifier.detector_search import ScoredRecording
from neurovocal.models.toolkit.measures import IGNORED, Float64
from neurovocal.plugins.models.classifier.decision import LabelDecision

# A name counts if it comes within this time after the onset: a later one is not sooner.
_SOON_MS, _WATCHED_MS = 12.0, 60.0
_SCORES = (*np.arange(0.25, 0.96, 0.05).round(2), 0.98, 0.99)
_MOST_FALSE = 0.03  # names of other sounds, as a share of the vocalizations
_NOT_ONE = 0  # truth of a segment that is no vocalization


@dataclass(frozen=True, slots=True, eq=False)
class EarlyNames:
    """Likeliest unit of segments after each of their first frames.

    Parameters
    ----------
    unit : int64[n_segments, n_frames]
        Column of the likeliest unit; -1 where it is `unknown`, or the segment ended.
    score : float64[n_segments, n_frames]
        Its posterior times the probability that the newest frame is no silence.
    truth : int64[n_segments]
        Column of the annotated unit; 0 where nothing is annotated.
    soon : int
        Frames by which a name comes soon.
    """

    unit: NDArray[np.int64]
    score: Float64
    truth: NDArray[np.int64]
    soon: int

    @property
    def n_vocalizations(self) -> int:
        """Segments with an annotated unit."""
        return int((self.truth != _NOT_ONE).sum())

    def counts(self, scores: Float64) -> tuple[int, int, int]:
        """Return how many first names are soon and right, wrong, and of no unit.

        Parameters
        ----------
        scores : float64[n_units]
            Score that names each unit.
        """
        named = (self.unit >= 0) & (self.score >= scores[np.maximum(self.unit, 0)])
        first = named.argmax(axis=1)
        rows = np.arange(len(first))
        is_named = named[rows, first]
        unit = np.where(is_named, self.unit[rows, first], -2)
        right = (unit == self.truth) & (first < self.soon)
        is_false = is_named & (self.truth == _NOT_ONE)
        wrong = is_named & ~is_false & (unit != self.truth)
        return int(right.sum()), int(wrong.sum()), int(is_false.sum())


def early_detector(detector: DetectorSpec) -> DetectorSpec:
    """Return a detector with its options of the profile ``fast``."""
    fast = Registry().get("detector", detector.plugin).options.fast
    options = {**fast, **detector.options, **detector.fast_options}
    return detector.model_copy(update={"options": options})


def early_names(
    recordings: Sequence[ScoredRecording],
    segments: Sequence[Sequence[tuple[int, int]]],
) -> EarlyNames:
    """Return the names of detected segments after each of their first frames.

    Segments that lie mostly under a label that is no unit are left out, and so are
    those that all of their frames name wrongly: no later name would be right.

    Parameters
    ----------
    recordings : sequence of ScoredRecording
        Recordings that were left out.
    segments : sequence of sequence of (int, int)
        Early segments ``[onset, offset)`` of each, in samples.
    """
    front_end = recordings[0].front_end
    hop_ms = 1000 * front_end.hop_length / front_end.sample_rate
    n_frames = max(1, round(_WATCHED_MS / hop_ms))
    units: list[list[int]] = []
    scores: list[list[float]] = []
    truths: list[int] = []
    for recording, found in zip(recordings, segments, strict=True):
        decide = LabelDecision(recording.spec)
        columns = {name: n for n, name in enumerate(recording.spec.units)}
        silence = columns[recording.spec.silence]
        voiced = [n for n in columns.values() if n != silence]

        def likeliest(scores: Float64, voiced: list[int] = voiced) -> int:
            return voiced[int(scores[voiced].argmax())]

        target = recording.example.target
        for first, stop, whole in recording.scored(found):
            truth = _truth(target[first:stop])
            if truth == IGNORED or (truth != _NOT_ONE and likeliest(whole) != truth):
                continue
            unit, score = [-1] * n_frames, [0.0] * n_frames
            for n in range(1, min(n_frames, stop - first) + 1):
                newest = recording.log_posteriors[first + n - 1]
                is_last = recording.spec.decision == "last"
                sums = recording.sums[first + n] - recording.sums[first]
                name, posterior = decide.early(newest if is_last else sums, n)
                unit[n - 1] = columns.get(name, -1)
                score[n - 1] = posterior * (1.0 - float(np.exp(newest[silence])))
            units.append(unit)
            scores.append(score)
            truths.append(truth)
    shape = (len(units), n_frames)
    return EarlyNames(
        np.array(units, np.int64).reshape(shape),
        np.array(scores, float).reshape(shape),
        np.array(truths, np.int64),
        max(1, round((_SOON_MS - 1000 * _centre_s(recordings[0])) / hop_ms)),
    )


def choose_sure(
    names: EarlyNames, spec: ClassifierSpec, most_wrong: float
) -> dict[str, float]:
    """Choose the score that names each unit.

    All begin at the lowest. While more than `most_wrong` of the vocalizations have a
    wrong first name, or other sounds more names than 2 % of them, the score is raised
    that avoids most of these for each right name that comes late by it.

    Parameters
    ----------
    names : EarlyNames
    spec : ClassifierSpec
        Names of the units.
    most_wrong : float
        Share of the vocalizations.

    Returns
    -------
    dict of str to float
        Score of each unit but silence; empty without a vocalization.
    """
    total = names.n_vocalizations
    if not total:
        return {}
    chosen = np.full(len(spec.units), _SCORES[0])
    limits = most_wrong * total, _MOST_FALSE * total

    def excess(wrong: int, false: int) -> float:
        return max(0.0, wrong - limits[0]) + max(0.0, false - limits[1])

    while (now := names.counts(chosen)) and excess(*now[1:]) > 0:
        best: tuple[float, int, float] | None = None
        for unit in range(len(spec.units)):
            for score in _SCORES:
                if score <= chosen[unit]:
                    continue
                tried = chosen.copy()
                tried[unit] = score
                right, *bad = names.counts(tried)
                gain = excess(*now[1:]) - excess(*bad)
                worth = gain / (max(0, now[0] - right) + 0.5)
                if gain > 0 and (best is None or worth > best[0]):
                    best = worth, unit, score
        if best is None:
            break  # no single score helps: the names are as sure as they get
        chosen[best[1]] = best[2]
    return {
        name: float(score)
        for name, score in zip(spec.units, chosen, strict=True)
        if name != spec.silence
    }


def _truth(target: NDArray[np.int64]) -> int:
    """Return the unit of most frames that are not silence, 0 if all are."""
    voiced = target[target != 0]
    if not len(voiced):
        return _NOT_ONE
    values, counts = np.unique(voiced, return_counts=True)
    return int(values[counts.argmax()])


def _centre_s(recording: ScoredRecording) -> float:
    """Return the time from a frame's centre to its end, in seconds."""
    return recording.front_end.frame_length / 2 / recording.front_end.sample_rate
