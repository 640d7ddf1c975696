"""Annotated songs with the plan of each frame, for the planned RNN-RBM."""

from collections.abc import Sequence

import numpy as np

from neurovocal.models.data.frames import LabelledFrames
from neurovocal.models.toolkit.rows import Rows
from neurovocal.plugins.models.rnn_rbm.plan.condition import (
    SILENCE,
    PlanItem,
    plan_rows,
)


def annotated_items(example: LabelledFrames) -> list[PlanItem]:
    """Return the units and silences of a recording, from its first frame to its last.

    Segments whose labels are left out count as silence. Where two segments overlap,
    the later one begins when the earlier one has ended.
    """
    items, at = [], 0
    for span in example.spans:
        first = max(span.first, at)
        if span.stop <= first:
            continue
        if first > at:
            items.append(PlanItem(SILENCE, first - at))
        items.append(PlanItem(span.unit, span.stop - first))
        at = span.stop
    if at < len(example.frames):
        items.append(PlanItem(SILENCE, len(example.frames) - at))
    return items


def planned_songs(
    examples: Sequence[LabelledFrames], n_units: int, keep: int | None
) -> list[Rows]:
    """Join the frames of annotated songs and their plan.

    Parameters
    ----------
    examples : sequence of LabelledFrames
        Recordings; those without a segment are left out.
    n_units : int
        Number of units without silence.
    keep : int, optional
        Frames of silence before the first and after the last segment; None keeps all.

    Returns
    -------
    list of float32[n_frames, n_bins + n_condition]
    """
    songs: list[Rows] = []
    for example in examples:
        if not example.spans:
            continue
        first, stop = 0, len(example.frames)
        if keep is not None:
            first = max(0, example.spans[0].first - keep)
            stop = min(stop, example.spans[-1].stop + keep)
        plan = plan_rows(annotated_items(example), n_units)
        rows = np.concatenate([example.clipped, plan], axis=1)[first:stop]
        songs.append(np.ascontiguousarray(rows))
    return songs
