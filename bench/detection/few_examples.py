"""Detectors fitted to a few annotated segments of a set, measured on the rest."""

import csv
from collections.abc import Sequence
from dataclasses import replace
from math import inf
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import soundfile
from annotated_sets import Recording, Span

from neurovocal.models.tuning.tune import tune_by_examples

_LONGEST_PAUSE_S = 5.0  # what is read before the first example
_LEFT = 5  # segments that are left behind the examples


class Example(NamedTuple):
    """A segment of a recording, which is annotated from `listed_from_s` on."""

    path: Path
    listed_from_s: float
    onset_s: float
    offset_s: float


def split_examples(
    recordings: Sequence[Recording], count: int, choice: int = 0
) -> tuple[list[Example], list[Recording]]:
    """Split a set into consecutive segments as examples, and recordings to judge.

    Parameters
    ----------
    recordings : sequence of Recording
        The set.
    count : int
        Number of examples.
    choice : int
        0: the first segments of the set. Others: the next ones after a moment that is
        drawn at random, as if somebody had opened a recording there. Earlier segments
        are cut off the recording, and judged on their own.

    Returns
    -------
    examples : list of Example
        Those of one recording after those of another.
    rest : list of Recording
        With the other segments; not judged among the examples.
    """
    random = np.random.default_rng(choice)
    heard = [each for each in recordings if each.spans]
    order = list(range(len(heard)))
    if choice:
        order = random.permutation(len(heard)).tolist()
    examples: list[Example] = []
    left = dict(enumerate(heard))
    for number, at in enumerate(order):
        recording, wanted = heard[at], count - len(examples)
        if wanted == 0:
            break
        spans = sorted(recording.spans)
        first = 0
        if choice and number == 0:
            first = _drawn(spans[: max(1, len(spans) - count - _LEFT)], random)
        taken = spans[first : first + wanted]
        begin = max(
            spans[first - 1][1] if first else 0.0,
            _complete_from(recording, spans[first][0]),
        )
        examples += [Example(recording.path, begin, on, off) for on, off in taken]
        left[at] = _without(recording, spans, begin, taken[-1][1])
    return examples, list(left.values())


def _complete_from(recording: Recording, onset_s: float) -> float:
    """Return from when on labels are complete up to an onset, in seconds."""
    begin = stop = 0.0
    for first, last in sorted(recording.judged or [(0.0, inf)]):
        if first > onset_s:
            break
        if first > stop:
            begin = first
        stop = max(stop, last)
    return begin


def _drawn(spans: Sequence[Span], random: np.random.Generator) -> int:
    """Return the next segment after a random moment."""
    stops = [0.0, *(stop for _, stop in spans[:-1])]
    pauses = [on - stop for (on, _), stop in zip(spans, stops, strict=True)]
    weights = np.clip(pauses, 0.001, _LONGEST_PAUSE_S)
    return int(random.choice(len(spans), p=weights / weights.sum()))


def _without(
    recording: Recording, spans: list[Span], begin: float, stop: float
) -> Recording:
    """Return a recording that is not judged in a stretch."""
    judged = [
        part
        for first, last in recording.judged or [(0.0, inf)]
        for part in ((first, min(last, begin)), (max(first, stop), last))
        if part[0] < part[1]
    ]
    kept = [span for span in spans if span[1] <= begin or span[0] >= stop]
    return replace(recording, spans=kept, judged=judged)


def fit_detector(examples: Sequence[Example]) -> dict[str, Any]:
    """Fit a detector as `neurovocal detect --like` does: plugin and options."""
    with TemporaryDirectory() as folder:
        table = Path(folder) / "examples.csv"
        cut = {}
        for each in examples:
            if each.path not in cut:
                cut[each.path] = _cut(each, Path(folder))
        with table.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream)
            writer.writerow(("file", "onset_s", "offset_s"))
            for each in examples:
                path, earlier_s = cut[each.path]
                row = (each.onset_s - earlier_s, each.offset_s - earlier_s)
                writer.writerow((path.name, *row))
        paths = [path for path, _ in cut.values()]
        return tune_by_examples(table, paths, tell=lambda sentence: None)


def _cut(example: Example, folder: Path) -> tuple[Path, float]:
    """Return a recording from where its examples begin to be listed, and that time."""
    if example.listed_from_s == 0:
        return example.path, 0.0
    samples, rate = soundfile.read(example.path, dtype="float32")
    first = round(example.listed_from_s * rate)
    path = folder / example.path.with_suffix(".wav").name
    soundfile.write(path, samples[first:], rate, "FLOAT")
    return path, first / rate
