"""Targets of frames: the unit at the centre of each frame of a recording."""

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from neurovocal.models.data.annotations import Annotation
from neurovocal.models.data.datasets import AnnotatedRecording
from neurovocal.models.toolkit.measures import IGNORED


@dataclass(frozen=True, slots=True)
class Units:
    """Names of the classifier's outputs and the output of each label.

    ``names[0]`` is silence; ``index`` maps every label of the dataset to an output,
    or to -1 if it is left out of training and measures.
    """

    names: list[str]
    index: dict[str, int]


@dataclass(frozen=True, slots=True)
class FrameGrid:
    """Places of frames in samples, of a front end at a sample rate."""

    sample_rate: int
    hop_length: int
    frame_length: int

    @property
    def hop_ms(self) -> float:
        """Time from frame to frame in milliseconds."""
        return 1000 * self.hop_length / self.sample_rate

    def n_frames(self, recording: AnnotatedRecording) -> int:
        """Return the number of frames of a recording, or of its part."""
        n_samples = round(recording.part_duration_s * self.sample_rate)
        return max(0, 1 + (n_samples - self.frame_length) // self.hop_length)

    def holds_frame(self, recording: AnnotatedRecording, segment: Annotation) -> bool:
        """Return whether the centre of a frame of a part lies in a segment."""
        first, stop = (
            first_frame(
                (at_s - recording.start_s) * self.sample_rate,
                self.hop_length,
                self.frame_length,
            )
            for at_s in (segment.onset_s, segment.offset_s)
        )
        return max(first, 0) < min(stop, self.n_frames(recording))


@dataclass(frozen=True, slots=True)
class FrameSpan:
    """Unit of a segment, and frames ``[first, stop)`` with their centres in it."""

    first: int
    stop: int
    unit: int


def targets_of(
    recording: AnnotatedRecording,
    units: Units,
    n_frames: int,
    sample_rate: int,
    hop_length: int,
    frame_length: int,
) -> tuple[NDArray[np.int64], list[FrameSpan]]:
    """Return the unit at the centre of each frame, and the segments in frames.

    Returns
    -------
    target : int64[n_frames]
        Unit indices; 0 is silence, `IGNORED` a label that is left out.
    spans : list of FrameSpan
        Segments of the classifier's units that hold the centre of a frame.
    """
    target = np.zeros(n_frames, np.int64)
    spans = []
    end_s = recording.start_s + (n_frames * hop_length + frame_length) / sample_rate
    for a in _between(recording.annotations, recording.start_s, end_s):
        first, stop = (
            min(
                max(0, first_frame(at_s * sample_rate, hop_length, frame_length)),
                n_frames,
            )
            for at_s in (a.onset_s - recording.start_s, a.offset_s - recording.start_s)
        )
        unit = units.index.get(a.unit, IGNORED)
        target[first:stop] = unit
        if unit > 0 and stop > first:
            spans.append(FrameSpan(first, stop, unit))
    return target, spans


def _between(
    annotations: Sequence[Annotation], start_s: float, stop_s: float
) -> Sequence[Annotation]:
    """Select the annotations, in time order, that reach into ``[start_s, stop_s)``."""
    first = bisect_left(annotations, start_s, key=lambda a: a.onset_s)
    while first > 0 and annotations[first - 1].offset_s > start_s:
        first -= 1
    return annotations[
        first : bisect_left(annotations, stop_s, key=lambda a: a.onset_s)
    ]


def first_frame(sample: float, hop_length: int, frame_length: int) -> int:
    """Return the index of the first frame centred at or after `sample`."""
    return math.ceil((sample - frame_length / 2) / hop_length)
