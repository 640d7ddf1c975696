"""Data of an evaluation for the report: calibration counts and compared segments."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from neurovocal.engine.contracts.bundle import Bundle
from neurovocal.engine.contracts.types import Label
from neurovocal.models.data.annotations import Annotation
from neurovocal.models.data.datasets import AnnotatedRecording
from neurovocal.models.evaluation.labelling import EvaluatedRecording
from neurovocal.models.toolkit.measures import IGNORED

N_BINS = 10


@dataclass(frozen=True, slots=True)
class Segment:
    """A labelled segment for a figure, in seconds of the recording or window."""

    onset_s: float
    offset_s: float
    unit: str
    right: bool | None
    """None: the right unit is not known."""

    @property
    def middle_s(self) -> float:
        """Return the middle of the segment."""
        return (self.onset_s + self.offset_s) / 2


@dataclass(frozen=True, slots=True)
class ComparedRecording:
    """Annotations of a recording and the engine's labels."""

    recording: AnnotatedRecording
    true: list[Segment]
    given: list[Segment]


class Reliability:
    """Counts of a reliability diagram: right labels by posterior."""

    def __init__(self) -> None:
        self.count: NDArray[np.int64] = np.zeros(N_BINS, np.int64)
        self.right: NDArray[np.int64] = np.zeros(N_BINS, np.int64)
        self.posterior_sum: NDArray[np.float64] = np.zeros(N_BINS)

    def add(self, posteriors: NDArray[np.float64], right: NDArray[np.bool_]) -> None:
        """Count labels by posterior, float64[n]; `right` is bool[n]."""
        place = np.clip((posteriors * N_BINS).astype(np.int64), 0, N_BINS - 1)
        self.count += np.bincount(place, minlength=N_BINS)
        self.right += np.bincount(place[right], minlength=N_BINS)
        self.posterior_sum += np.bincount(place, posteriors, minlength=N_BINS)

    @property
    def expected_error(self) -> float:
        """Return the expected calibration error (ECE, Guo et al. 2017, eq. 3)."""
        total = int(self.count.sum())
        return (
            float(np.abs(self.posterior_sum - self.right).sum()) / total
            if total
            else 0.0
        )


class ReportCollector:
    """Data for the report, collected by `observe` of `evaluate_bundle`.

    Parameters
    ----------
    bundle : Bundle
        Evaluated bundle.

    Attributes
    ----------
    labels, frames : Reliability
        Counts of final labels and of single frames.
    compared : list of Compared
        Annotations and labels, in the order of the recordings.
    """

    def __init__(self, bundle: Bundle) -> None:
        spec = bundle.manifest.classifier
        self._units = set(spec.units) - {spec.silence} if spec else set()
        self._unknown = spec.unknown if spec else ""
        self._sample_rate = bundle.manifest.front_end.sample_rate
        self.labels, self.frames = Reliability(), Reliability()
        self.compared: list[ComparedRecording] = []

    def add(self, evaluated: EvaluatedRecording) -> None:
        """Add one recording."""
        counted = evaluated.target != IGNORED
        posterior = evaluated.posteriors.max(axis=1).astype(np.float64)
        right = evaluated.posteriors.argmax(axis=1) == evaluated.target
        self.frames.add(posterior[counted], right[counted])
        compared = self._compare(evaluated.recording, evaluated.labels)
        self.compared.append(compared)
        # An `unknown` names no unit that could be right.
        named = [
            (label.posterior, segment.right)
            for label, segment in zip(evaluated.labels, compared.given, strict=True)
            if segment.right is not None and segment.unit != self._unknown
        ]
        self.labels.add(
            np.array([p for p, _ in named], np.float64),
            np.array([r for _, r in named], bool),
        )

    def _compare(
        self, recording: AnnotatedRecording, labels: Sequence[Label]
    ) -> ComparedRecording:
        rate, shift = self._sample_rate, recording.start_s
        truth = [
            Annotation(a.onset_s - shift, a.offset_s - shift, a.unit)
            for a in recording.annotations
            if a.offset_s > shift and a.onset_s < recording.stop_s
        ]
        given, found = [], set()
        for label in labels:
            onset_s = label.onset / rate
            offset_s = (label.onset if label.offset is None else label.offset) / rate
            middle_s = (onset_s + offset_s) / 2
            under = [a for a in truth if a.onset_s <= middle_s < a.offset_s]
            right: bool | None = bool(under) and under[0].unit == label.unit
            unlabelled = not under and label.unit == self._unknown
            if unlabelled or (under and under[0].unit not in self._units):
                right = None
            if right:
                found.add(under[0])
            given.append(Segment(onset_s, offset_s, label.unit, right))
        true = [
            Segment(
                a.onset_s,
                a.offset_s,
                a.unit,
                None if a.unit not in self._units else a in found,
            )
            for a in truth
        ]
        return ComparedRecording(recording, true, given)
