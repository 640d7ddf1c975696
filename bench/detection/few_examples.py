"""Detectors fitted to the first annotated segments of a set, measured on the rest."""

import csv
from collections.abc import Sequence
from dataclasses import replace
from math import inf
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from annotated_sets import Recording

from neurovocal.models.tuning.tune import tune_by_examples


def split_examples(
    recordings: Sequence[Recording], count: int
) -> tuple[list[tuple[Path, float, float]], list[Recording]]:
    """Return the first segments of a set, and what comes after them.

    Parameters
    ----------
    recordings : sequence of Recording
        The set.
    count : int
        Number of examples.

    Returns
    -------
    examples : list of (Path, float, float)
        Recording, onset and offset in seconds.
    rest : list of Recording
        With the other segments; judged from the end of the last example on.
    """
    examples: list[tuple[Path, float, float]] = []
    rest = []
    for recording in recordings:
        spans = sorted(recording.spans)
        wanted = count - len(examples)
        taken, spans = spans[:wanted], spans[wanted:]
        examples += [(recording.path, on, off) for on, off in taken]
        judged = recording.judged
        if taken:
            stop = max(off for _, off in taken)
            judged = [
                (max(first, stop), last)
                for first, last in judged or [(0.0, inf)]
                if last > stop
            ]
        rest.append(replace(recording, spans=spans, judged=judged))
    return examples, rest


def fit_detector(examples: Sequence[tuple[Path, float, float]]) -> dict[str, Any]:
    """Fit a detector as `neurovocal detect --like` does: plugin and options."""
    with TemporaryDirectory() as folder:
        table = Path(folder) / "examples.csv"
        with table.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream)
            writer.writerow(("file", "onset_s", "offset_s"))
            writer.writerows((path.name, on, off) for path, on, off in examples)
        paths = list(dict.fromkeys(path for path, _, _ in examples))
        return tune_by_examples(table, paths, tell=lambda sentence: None)
