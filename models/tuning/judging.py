"""Errors of what a detector finds in annotated stretches."""

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np

from neurovocal.models.toolkit.segment_scores import (
    SegmentScore,
    score_onsets,
    score_overlaps,
)
from neurovocal.models.tuning.heard import Span, Stretch

Found: TypeAlias = Sequence[Sequence[Span]]
"""Segments of each stretch, in seconds."""
_LEAST_OVERLAP = 0.5


class Judge:
    """Errors of the segments that a detector finds, compared with the examples.

    Parameters
    ----------
    stretches : sequence of Stretch
        With the examples.
    more : callable, optional
        Further errors of segments, such as those of their labels; none is 0.
    """

    def __init__(
        self,
        stretches: Sequence[Stretch],
        more: Callable[[Found], float] = lambda found: 0.0,
    ) -> None:
        self._stretches = stretches
        self._more = more
        durations = [stop - start for s in stretches for start, stop in s.spans]
        self.n_examples = len(durations)
        duration_s = float(np.median(durations)) if durations else 0.0
        self._tolerance_s = max(0.002, min(0.2 * duration_s, 0.03))

    def error(self, found: Found) -> float:
        """Return what the mean of onset F1 and overlap F1 lacks to 1, and `more`.

        Onsets agree within a fifth of the median duration, 2 to 30 ms; an overlap is
        at least half of what both cover together.
        """
        onsets = overlaps = SegmentScore(0, 0, 0)
        for stretch, spans in zip(self._stretches, self.judged(found), strict=True):
            onsets += score_onsets(stretch.spans, spans, self._tolerance_s)
            overlaps += score_overlaps(stretch.spans, spans, _LEAST_OVERLAP)
        return 1.0 - (onsets.f1 + overlaps.f1) / 2 + self._more(found)

    def judged(self, found: Found) -> list[list[Span]]:
        """Return the segments that begin where the annotation is complete."""
        return [
            [
                span
                for span in spans
                if any(start <= span[0] < stop for start, stop in stretch.judged)
            ]
            for stretch, spans in zip(self._stretches, found, strict=True)
        ]
