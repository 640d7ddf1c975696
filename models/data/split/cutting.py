"""Cutting of recordings in silences, in time that is linear in their segments."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from neurovocal.models.data.datasets import AnnotatedRecording

# Some steps process a whole recording at once: longer ones are cut.
_LONGEST_S = 300.0
_MARGIN_S = 0.5


def cut_into(
    recordings: Sequence[AnnotatedRecording], n_parts: int
) -> list[AnnotatedRecording]:
    """Cut recordings in silences until there are `n_parts` parts.

    The longest part is halved at the silence nearest to its middle, repeatedly, so
    that the parts have similar lengths. Returns fewer parts if silences run out.
    """
    parts = list(recordings)
    while len(parts) < n_parts:
        parts.sort(key=lambda r: r.part_duration_s, reverse=True)
        halves: list[AnnotatedRecording] = []
        for position, part in enumerate(parts):
            halves = _halved(part)
            if halves:
                parts[position : position + 1] = halves
                break
        if not halves:
            return parts
    return sorted(parts, key=lambda r: (r.file, r.start_s))


def _halved(part: AnnotatedRecording) -> list[AnnotatedRecording]:
    """Cut a part at the silence nearest to its middle; empty if there is none."""
    own = part.own_annotations
    cuts = [
        (before.offset_s + after.onset_s) / 2
        for before, after in itertools.pairwise(own)
        if after.onset_s > before.offset_s
    ]
    if not cuts:
        return []
    middle_s = part.start_s + part.part_duration_s / 2
    cut_s = min(cuts, key=lambda at_s: abs(at_s - middle_s))
    return [replace(part, stop_s=cut_s), replace(part, start_s=cut_s)]


def limit_length(recordings: Sequence[AnnotatedRecording]) -> list[AnnotatedRecording]:
    """Cut recordings longer than `_LONGEST_S` in silences."""
    parts: list[AnnotatedRecording] = []
    for whole in recordings:
        n = math.ceil(whole.part_duration_s / _LONGEST_S)
        if n < 2:
            parts.append(whole)
            continue
        silences = _silences(whole)
        targets_s = [whole.start_s + whole.part_duration_s * k / n for k in range(1, n)]
        cuts = sorted({_cut_near(at_s, silences) for at_s in targets_s} - {math.inf})
        edges = [whole.start_s, *cuts, whole.stop_s]
        parts += [
            replace(whole, start_s=first_s, stop_s=last_s)
            for first_s, last_s in itertools.pairwise(edges)
        ]
    return parts


def _silences(whole: AnnotatedRecording) -> NDArray[np.float64]:
    """Return onset and offset of each silence of a part, float64[n, 2], rising."""
    stop_s = whole.start_s + whole.part_duration_s
    times = np.array([(a.onset_s, a.offset_s) for a in whole.annotations])
    times = times.reshape(-1, 2)
    # Segments may overlap by the rounding of their times.
    begins = np.maximum.accumulate([whole.start_s, *times[:, 1]])
    ends = np.minimum([*times[:, 0], stop_s], stop_s)
    return np.stack([begins, ends], axis=1)[begins < ends]


def _cut_near(at_s: float, silences: NDArray[np.float64]) -> float:
    """Return a time in silence near `at_s`; infinity if there is none.

    It is `_MARGIN_S` away from the annotations if the silence is long enough.
    """
    after = int(np.searchsorted(silences[:, 0], at_s, "right"))
    nearest_s = math.inf
    for lo_s, hi_s in silences[max(0, after - 1) : after + 1].tolist():
        margin_s = min(_MARGIN_S, (hi_s - lo_s) / 2)
        cut_s = min(max(at_s, lo_s + margin_s), hi_s - margin_s)
        if lo_s < cut_s < hi_s and abs(cut_s - at_s) < abs(nearest_s - at_s):
            nearest_s = cut_s
    return nearest_s
