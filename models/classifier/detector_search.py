"""Fit of a bundle's detector to the annotation of its training.

Annotators follow their own rules, such as how quiet a gap must be to end a syllable.
The detector is fitted as `tune` does it, and the errors of the engine's final labels
count, too.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeAlias

import numpy as np

from neurovocal.engine.contracts.bundle import ClassifierSpec, DetectorSpec, FrontEnd
from neurovocal.engine.contracts.types import Float32
from neurovocal.models.classifier.ends import pairs_of
from neurovocal.models.data.frames import LabelledFrames, read_samples
from neurovocal.models.data.targets import first_frame
from neurovocal.models.toolkit.measures import (
    IGNORED,
    ErrorCount,
    Float64,
    edit_distance,
    frame_errors,
)
from neurovocal.models.toolkit.progress import ProgressCallback
from neurovocal.models.toolkit.recipe import DetectorConfig
from neurovocal.models.toolkit.segment_scores import SegmentScore, score_segments
from neurovocal.models.tuning.choice import FITTED, Annotated, fit_best, found_by
from neurovocal.models.tuning.heard import Stretch
from neurovocal.models.tuning.judging import Found
from neurovocal.plugins.models.classifier.decision import LabelDecision
from neurovocal.plugins.models.classifier.ends import LabelEnds

NamedRow: TypeAlias = tuple[int, float, int, int, float]
"""A segment's unit, posterior, annotated unit, frames and agreement."""
_END_TOLERANCE_S = 0.01  # as of segments_f1_10ms in the manifest


@dataclass(frozen=True, slots=True)
class LabelErrors:
    """Frame and syllable errors of labels against the annotation."""

    frames: ErrorCount
    syllables: ErrorCount

    def __add__(self, other: "LabelErrors") -> "LabelErrors":
        """Add the counts."""
        return LabelErrors(self.frames + other.frames, self.syllables + other.syllables)

    @property
    def error(self) -> float:
        """Sum of frame error and syllable error, in percent."""
        return (self.frames.percent or 0.0) + (self.syllables.percent or 0.0)


@dataclass(eq=False)
class ScoredRecording:
    """A recording with the classifier's log-posteriors of its frames.

    Parameters
    ----------
    example : LabelledFrames
        Frames, targets and annotated segments.
    log_posteriors : float64[n_frames, n_units]
        Log-posteriors; silence is column 0.
    front_end : FrontEnd
        Front end of the frames.
    spec : ClassifierSpec
        Decision rule and calibration.
    """

    example: LabelledFrames
    log_posteriors: Float64
    front_end: FrontEnd
    spec: ClassifierSpec
    sums: Float64 = field(init=False)

    def __post_init__(self) -> None:
        rows = self.log_posteriors
        self._decide = LabelDecision(self.spec)
        self._ends = LabelEnds(self.spec, self.front_end.sample_rate)
        self.sums = np.concatenate([np.zeros((1, rows.shape[1])), rows.cumsum(axis=0)])

    @cached_property
    def samples(self) -> Float32:
        """Samples of the recording, float32[n_samples]."""
        return read_samples(self.example.recording, self.front_end.sample_rate)

    @cached_property
    def stretch(self) -> Stretch:
        """The recording with all annotated segments, of whichever unit."""
        recording, rate = self.example.recording, self.front_end.sample_rate
        seconds = len(self.samples) / rate
        start_s = recording.start_s
        spans = sorted(
            (max(0.0, a.onset_s - start_s), min(seconds, a.offset_s - start_s))
            for a in recording.annotations
        )
        spans = [(on, off) for on, off in spans if off > on]
        return Stretch(self.samples, rate, spans, [(0.0, seconds)])

    def label_errors(self, segments: Sequence[tuple[int, int]]) -> LabelErrors:
        """Count the errors of the labels of detected segments.

        A label `unknown` counts as no label, and its frames as silence.

        Parameters
        ----------
        segments : sequence of (int, int)
            Detected segments ``[onset, offset)`` in samples.
        """
        target = self.example.target
        labelled = np.zeros(len(target), np.int64)
        found = []
        for onset, offset, unit in self.labelled(segments):
            first, stop = self._frame_at(onset), self._frame_at(offset)
            labelled[first:stop] = unit
            if stop > first and target[(first + stop - 1) // 2] != IGNORED:
                found.append(unit)
        reference = [span.unit for span in self.example.spans]
        edits = edit_distance(reference, found)
        return LabelErrors(
            frame_errors(target, labelled), ErrorCount(edits, len(reference))
        )

    def labelled(
        self, segments: Sequence[tuple[int, int]]
    ) -> Iterator[tuple[int, int, int]]:
        """Yield onset, offset and unit of the final labels of detected segments.

        Those with `unknown` are passed over.

        Parameters
        ----------
        segments : sequence of (int, int)
            Detected segments ``[onset, offset)`` in samples.
        """
        earliest = 0
        for onset, offset, first, stop, scores in self._scored(segments):
            name, _ = self._decide(scores, n_frames=stop - first)
            start, end = self._ends(name, onset, offset, earliest, len(self.samples))
            earliest = end
            if name != self.spec.unknown:
                yield start, end, self.spec.units.index(name)

    def end_rows(
        self, segments: Sequence[tuple[int, int]]
    ) -> list[tuple[int, float, float]]:
        """Return how much later than the labels' ends the annotated ones lie, in ms.

        Of the labels whose segment is one annotated segment of their unit.
        """
        rate, start_s = self.front_end.sample_rate, self.example.recording.start_s
        index = {name: n for n, name in enumerate(self.spec.units)}
        return pairs_of(
            [
                (on / rate, off / rate, unit)
                for on, off, unit in self.labelled(segments)
            ],
            [
                (a.onset_s - start_s, a.offset_s - start_s, index.get(a.unit, IGNORED))
                for a in self.example.recording.annotations
            ],
        )

    def scored(
        self, segments: Sequence[tuple[int, int]]
    ) -> Iterator[tuple[int, int, Float64]]:
        """Yield first and last frame + 1 of detected segments, and what decides them.

        That is float64[n_units]. Segments without a frame are passed over.

        Parameters
        ----------
        segments : sequence of (int, int)
            Detected segments ``[onset, offset)`` in samples.
        """
        for _, _, first, stop, scores in self._scored(segments):
            yield first, stop, scores

    def _scored(
        self, segments: Sequence[tuple[int, int]]
    ) -> Iterator[tuple[int, int, int, int, Float64]]:
        """Yield onset and offset, too."""
        for onset, offset in segments:
            first, stop = self._frame_at(onset), self._frame_at(offset)
            if stop <= first:
                continue
            if self.spec.decision == "last":
                yield onset, offset, first, stop, self.log_posteriors[stop - 1]
            else:
                yield onset, offset, first, stop, self.sums[stop] - self.sums[first]

    def named(self, segments: Sequence[tuple[int, int]]) -> list[NamedRow]:
        """Return the likeliest unit of detected segments, beside what was annotated.

        Left out are segments under a label that is no unit, and those whose frames
        vote for silence.
        """
        rows: list[NamedRow] = []
        decide = LabelDecision(
            self.spec.model_copy(update={"thresholds": {}, "typical": {}})
        )
        target = self.example.target
        for first, stop, scores in self.scored(segments):
            name, posterior = decide(scores)
            true = int(target[(first + stop - 1) // 2])
            if name == self.spec.unknown or true == IGNORED:
                continue
            unit, n = self.spec.units.index(name), stop - first
            mean = scores[unit] / (1 if self.spec.decision == "last" else n)
            rows.append((unit, posterior, true, n, float(mean)))
        return rows

    def _frame_at(self, sample: int) -> int:
        """Return the first frame centred at or after `sample`, within the recording."""
        fe, n = self.front_end, len(self.log_posteriors)
        return min(max(first_frame(sample, fe.hop_length, fe.frame_length), 0), n)


def fit_detector(
    train: Sequence[ScoredRecording],
    valid: Sequence[ScoredRecording],
    config: DetectorConfig,
    on_progress: ProgressCallback = lambda share, note: None,
    check_stop: Callable[[], None] = lambda: None,
    limit_s: float = math.inf,
) -> DetectorSpec:
    """Fit the detectors of a recipe to recordings, and choose one by others.

    As `neurovocal.models.tuning.choice.fit_best` does, with the errors of final labels
    and of segments, both ends of which count, added to those of onsets and overlaps.

    Parameters
    ----------
    train, valid : sequence of ScoredRecording
        Recordings of the training and validation splits.
    config : DetectorConfig
        Usual detector, start of its search, and whether others are fitted.
    on_progress : callable
        Receives the share of the search that is done.
    check_stop : callable
        Called between two tries; raises an exception to end the search.
    limit_s : float
        Wall-clock seconds after which the best options so far are returned.

    Returns
    -------
    DetectorSpec
        Detector with the options that differ from the plugin's defaults, the noise
        floor of the training recordings among them.
    """
    choice = fit_best(
        _annotated(train),
        _annotated(valid),
        config.plugin,
        config.options,
        FITTED if config.others else (config.plugin,),
        lambda share: on_progress(share, ""),
        check_stop,
        limit_s,
    )
    return DetectorSpec(plugin=choice.plugin, options=choice.options)


def detected_segments(
    recordings: Sequence[ScoredRecording], detector: DetectorSpec
) -> list[list[tuple[int, int]]]:
    """Return the ``[onset, offset)`` in samples that a detector finds in each."""
    stretches = [recording.stretch for recording in recordings]
    found = found_by(detector.plugin, detector.options, stretches)
    return [
        [(round(on * s.sample_rate), round(off * s.sample_rate)) for on, off in spans]
        for s, spans in zip(stretches, found, strict=True)
    ]


def _annotated(recordings: Sequence[ScoredRecording]) -> Annotated:
    """Return recordings with the errors of labels and of both ends of segments."""

    def error(found: Found) -> float:
        labels = LabelErrors(ErrorCount(), ErrorCount())
        ends = SegmentScore(0, 0, 0)
        for recording, spans in zip(recordings, found, strict=True):
            rate = recording.front_end.sample_rate
            segments = [(round(on * rate), round(off * rate)) for on, off in spans]
            labels += recording.label_errors(segments)
            ends += score_segments(recording.stretch.spans, spans, _END_TOLERANCE_S)
        return labels.error / 100 + (1.0 - ends.f1) / 2

    return Annotated([recording.stretch for recording in recordings], error)


def select_evenly(
    examples: Sequence[LabelledFrames], limit_s: float
) -> list[LabelledFrames]:
    """Select recordings of about `limit_s` seconds in total, evenly from the list."""
    total = sum(example.recording.part_duration_s for example in examples)
    share = min(1.0, limit_s / total) if total else 1.0
    kept, credit = [], 0.0
    for example in examples:
        credit += share
        if credit >= 1.0 - 1e-9:
            kept.append(example)
            credit -= 1.0
    return kept or list(examples[:1])
