"""What a report keeps of an evaluation: how sure, how right, and where to look."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from neurovocal.engine.contracts.bundle import Bundle
from neurovocal.engine.contracts.types import Label
from neurovocal.models.data.annotations import Annotation
from neurovocal.models.data.datasets import AnnotatedRecording
from neurovocal.models.evaluation.labelling import Judged
from neurovocal.models.toolkit.measures import IGNORED

N_BINS = 10


@dataclass(frozen=True, slots=True)
class Segment:
    """A labelled stretch as the report draws it, in seconds of the part meant."""

    onset_s: float
    offset_s: float
    unit: str
    right: bool | None
    """None: nobody can say."""

    @property
    def middle_s(self) -> float:
        """Where it is looked up among the other segments."""
        return (self.onset_s + self.offset_s) / 2


@dataclass(frozen=True, slots=True)
class Compared:
    """A recording's annotations and the labels that the engine gave."""

    recording: AnnotatedRecording
    true: list[Segment]
    given: list[Segment]


class Reliability:
    """How often answers were right, by how sure they were."""

    def __init__(self) -> None:
        self.count: NDArray[np.int64] = np.zeros(N_BINS, np.int64)
        self.right: NDArray[np.int64] = np.zeros(N_BINS, np.int64)
        self.sure: NDArray[np.float64] = np.zeros(N_BINS)

    def add(self, posteriors: NDArray[np.float64], right: NDArray[np.bool_]) -> None:
        """Count answers of float64[n] with bool[n]."""
        place = np.clip((posteriors * N_BINS).astype(np.int64), 0, N_BINS - 1)
        self.count += np.bincount(place, minlength=N_BINS)
        self.right += np.bincount(place[right], minlength=N_BINS)
        self.sure += np.bincount(place, posteriors, minlength=N_BINS)

    @property
    def expected_error(self) -> float:
        """Mean distance of posterior and accuracy (ECE, Guo et al. 2017, eq. 3)."""
        total = int(self.count.sum())
        return float(np.abs(self.sure - self.right).sum()) / total if total else 0.0


class Tally:
    """Watches an evaluation (`evaluate_bundle`'s `observe`).

    Parameters
    ----------
    bundle : Bundle
        That is evaluated.

    Attributes
    ----------
    labels, frames : Reliability
        Of final labels and of single frames.
    compared : list of Compared
        In the order of the recordings.
    """

    def __init__(self, bundle: Bundle) -> None:
        spec = bundle.manifest.classifier
        self._units = set(spec.units) - {spec.silence} if spec else set()
        self._unknown = spec.unknown if spec else ""
        self._sample_rate = bundle.manifest.front_end.sample_rate
        self.labels, self.frames = Reliability(), Reliability()
        self.compared: list[Compared] = []

    def add(self, judged: Judged) -> None:
        """Take in one recording."""
        counted = judged.target != IGNORED
        sure = judged.posteriors.max(axis=1).astype(np.float64)
        right = judged.posteriors.argmax(axis=1) == judged.target
        self.frames.add(sure[counted], right[counted])
        compared = self._compare(judged.recording, judged.labels)
        self.compared.append(compared)
        # An `unknown` names no unit that could be right.
        named = [
            (label.posterior, segment.right)
            for label, segment in zip(judged.labels, compared.given, strict=True)
            if segment.right is not None and segment.unit != self._unknown
        ]
        self.labels.add(
            np.array([p for p, _ in named], np.float64),
            np.array([r for _, r in named], bool),
        )

    def _compare(
        self, recording: AnnotatedRecording, labels: Sequence[Label]
    ) -> Compared:
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
            unsaid = not under and label.unit == self._unknown
            if unsaid or (under and under[0].unit not in self._units):
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
        return Compared(recording, true, given)
