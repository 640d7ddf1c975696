"""Choice of the stretches of recordings that a report shows."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from neurovocal.engine.contracts.bundle import Bundle
from neurovocal.engine.contracts.types import Float32
from neurovocal.engine.lane.offline import build_front_end, frames_of
from neurovocal.models.data.annotations import Annotation
from neurovocal.models.data.datasets import AnnotatedRecording
from neurovocal.models.data.frames import read_samples
from neurovocal.models.report.collector import ComparedRecording

_SEGMENTS = 16
_SHORTEST_S, _LONGEST_S = 0.3, 8.0


@dataclass(frozen=True, slots=True)
class Window:
    """A stretch of a recording, in seconds from `recording.start_s`."""

    recording: AnnotatedRecording
    start_s: float
    stop_s: float


def window_length(recordings: Sequence[AnnotatedRecording]) -> float:
    """Return the seconds with about as many segments as a figure can show."""
    gaps = [
        gap
        for recording in recordings
        for gap in np.diff([a.onset_s for a in recording.own_annotations])
    ]
    typical = float(np.median(gaps)) if gaps else _LONGEST_S
    return float(np.clip(_SEGMENTS * typical, _SHORTEST_S, _LONGEST_S))


def densest_window(recording: AnnotatedRecording, length_s: float) -> Window:
    """Return the window with the most annotated segments."""
    onsets = [a.onset_s - recording.start_s for a in recording.own_annotations]
    return _densest(recording, onsets, length_s)[0]


def choose_examples(
    compared: Sequence[ComparedRecording], length_s: float
) -> list[tuple[str, ComparedRecording, Window]]:
    """Choose the window with the most errors, and two typical ones.

    Returns
    -------
    list of (str, Compared, Window)
        Title, recording and window.
    """
    worst, most = None, 0
    for entry in compared:
        wrong = [s.onset_s for s in (*entry.true, *entry.given) if s.right is False]
        if wrong:
            window, count = _densest(entry.recording, sorted(wrong), length_s)
            if count > most:
                worst, most = ("The most mistakes in one stretch", entry, window), count
    annotated = [entry for entry in compared if entry.recording.own_annotations]
    picks = sorted(
        {len(annotated) // 4, 3 * len(annotated) // 4} & set(range(len(annotated)))
    )
    chosen = [] if worst is None else [worst]
    for pick in picks:
        entry = annotated[pick]
        window = densest_window(entry.recording, length_s)
        if worst is None or window != worst[2]:
            chosen.append(("Much song in one stretch", entry, window))
    return chosen


def frames_in(bundle: Bundle, window: Window) -> Float32:
    """Compute the frames of a window with the front end; frame 0 is at its start."""
    features = build_front_end(bundle.manifest.front_end, bundle)
    return frames_of(features, samples_in(bundle, window))


def samples_in(bundle: Bundle, window: Window) -> Float32:
    """Return the samples of a window at the bundle's rate, float32[n_samples]."""
    start_s = window.recording.start_s
    part = replace(
        window.recording,
        start_s=start_s + window.start_s,
        stop_s=min(start_s + window.stop_s, window.recording.duration_s),
    )
    return read_samples(part, bundle.manifest.front_end.sample_rate)


def annotations_in(window: Window) -> list[Annotation]:
    """Return annotations that overlap a window, in seconds from its start."""
    shift = window.recording.start_s + window.start_s
    return [
        Annotation(a.onset_s - shift, a.offset_s - shift, a.unit)
        for a in window.recording.annotations
        if a.offset_s > shift and a.onset_s < shift + window.stop_s - window.start_s
    ]


def _densest(
    recording: AnnotatedRecording, onsets_s: Sequence[float], length_s: float
) -> tuple[Window, int]:
    """Return the window with the most onsets, and their number."""
    length_s = min(length_s, recording.part_duration_s)
    inside = 0.9 * length_s
    starts = np.asarray(onsets_s, float)
    counts = np.searchsorted(starts, starts + inside, "right") - np.arange(len(starts))
    best = int(counts.argmax()) if len(starts) else 0
    first = float(starts[best]) if len(starts) else 0.0
    start_s = float(
        np.clip(first - 0.05 * length_s, 0, recording.part_duration_s - length_s)
    )
    # A figure that begins in the middle of a segment looks like an error.
    for a in recording.annotations:
        onset_s, offset_s = (
            a.onset_s - recording.start_s,
            a.offset_s - recording.start_s,
        )
        if onset_s < start_s < offset_s < start_s + 0.2 * length_s:
            start_s = min(offset_s, recording.part_duration_s - length_s)
    count = int(counts[best]) if len(starts) else 0
    return Window(recording, start_s, start_s + length_s), count
