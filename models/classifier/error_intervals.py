"""Errors of labels on recordings that were left out, with intervals."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neurovocal.models.classifier.detector_search import LabelErrors

_DRAWS = 2000
_SEED = 0


def figures_of(errors: Sequence[LabelErrors]) -> dict[str, Any]:
    """Return frame and syllable errors in percent, each with a 95 % interval.

    Parameters
    ----------
    errors : sequence of LabelErrors
        Of each recording. The interval is that of a bootstrap over recordings.
    """
    counts = np.array(
        [
            (e.frames.errors, e.frames.total, e.syllables.errors, e.syllables.total)
            for e in errors
        ],
        np.int64,
    ).reshape(len(errors), 4)
    figures: dict[str, Any] = {
        "recordings": len(errors),
        "syllables": int(counts[:, 3].sum()),
    }
    for name, column in (("frame_error_final", 0), ("syllable_error", 2)):
        wrong, total = counts[:, column], counts[:, column + 1]
        if not total.sum():
            continue
        figures[f"{name}_percent"] = round(100 * wrong.sum() / total.sum(), 3)
        low, high = _interval(wrong, total)
        figures[f"{name}_low_percent"], figures[f"{name}_high_percent"] = low, high
    return figures


def _interval(
    wrong: NDArray[np.int64], total: NDArray[np.int64]
) -> tuple[float, float]:
    """Return the 2.5th and 97.5th percentile of the error over drawn recordings."""
    rng = np.random.default_rng(_SEED)
    rows = rng.integers(len(wrong), size=(_DRAWS, len(wrong)))
    shares = 100 * wrong[rows].sum(axis=1) / np.maximum(total[rows].sum(axis=1), 1)
    low, high = np.percentile(shares, [2.5, 97.5])
    return round(float(low), 3), round(float(high), 3)
