"""Agreement of every detector with every annotated set: ``make bench-detect``.

Recordings are read from ``../shared/data`` or the folder NEUROVOCAL_DATA. Rows and
columns of the tables, and the recordings used for choices: docs/reference/detectors.md.
"""

import argparse
import os

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import yaml
from annotated_sets import ROOT, SETS, DataSet, Recording, Span, data_folder, read_set
from few_examples import fit_detector, split_examples
from peers import MOUSE_TOOLS, Method, Samples, evfuncs_method, installed, published

from neurovocal.engine.contracts.clock import SystemClock
from neurovocal.engine.contracts.errors import ConfigError
from neurovocal.engine.contracts.plugin import BuildContext
from neurovocal.engine.contracts.registry import Registry
from neurovocal.engine.contracts.stages import Detector
from neurovocal.engine.contracts.types import Block, Offset, StreamInfo
from neurovocal.models.toolkit.segment_scores import (
    SegmentScore,
    score_onsets,
    score_overlaps,
    score_segments,
)

BLOCK_S = 0.032
# Segments of a set that a detector is fitted to; enough others must be left.
_LEAST_JUDGED = 5
_MOST_DRAWS = 100
_HIGHEST_HZ = 170_000.0  # of the peers' band where a preset names none: bats
EXAMPLES = {"1 example": 1, "5 examples": 5, "20 examples": 20}
# Folders that the network any-animal was not trained on.
UNHEARD = ("noise_mixes", "meerkat", "field_spinetail")
MEASURES = ("onset", "segment", "IoU 0.3", "IoU 0.5")

Find = Callable[[Recording, Samples, int], list[Span]]


def detect(
    plugin_name: str, options: dict[str, object], samples: Samples, sample_rate: int
) -> list[Span]:
    """Detect segments in seconds with a plugin, in blocks of 32 ms."""
    detector = make_detector(plugin_name, options, sample_rate)
    block = max(1, round(BLOCK_S * sample_rate))
    column = samples[:, None]
    marks = []
    for start in range(0, len(column), block):
        marks += detector.process(Block(start, column[start : start + block]))
    marks += detector.flush()
    return [
        (mark.onset / sample_rate, mark.sample / sample_rate)
        for mark in marks
        if isinstance(mark, Offset)
    ]


def make_detector(
    plugin_name: str, options: dict[str, object], sample_rate: int
) -> Detector:
    """Return a detector for streams of a rate in Hz."""
    plugin = _registry().get("detector", plugin_name)
    context = BuildContext(
        clock=SystemClock(), run="bench", info=StreamInfo("bench", sample_rate)
    )
    built: Detector = plugin.build(plugin.options.model_validate(options), context)
    return built


@cache
def _registry() -> Registry:
    return Registry()


def preset(name: str) -> tuple[str, dict[str, Any]]:
    """Return the detector plugin of a shipped preset and its options."""
    text = (ROOT / "configs" / f"{name}.yaml").read_text(encoding="utf-8")
    detector = yaml.safe_load(text)["detector"]
    return detector["plugin"], detector["options"]


@dataclass(frozen=True)
class Result:
    """Scores of a method on a set, each measure with its counts."""

    scores: dict[str, SegmentScore]
    audio_s: float
    cpu_s: float


def evaluate(recordings: Iterable[Recording], find: Find, onset_ms: float) -> Result:
    """Pool the scores of a method over recordings, each a stream of its own."""
    scores = dict.fromkeys(MEASURES, SegmentScore(0, 0, 0))
    audio_s = cpu_s = 0.0
    for recording in recordings:
        samples, sample_rate = soundfile.read(recording.path, dtype="float32")
        began = time.process_time()
        found = find(recording, samples, sample_rate)
        cpu_s += time.process_time() - began
        audio_s += len(samples) / sample_rate
        if recording.judged is not None:
            found = [span for span in found if is_inside(span, recording.judged)]
        for measure, score in _scores(recording.spans, found, onset_ms).items():
            scores[measure] += score
    return Result(scores, audio_s, cpu_s)


def is_inside(span: Span, judged: list[Span]) -> bool:
    """Return whether the middle of a segment lies where labels are complete."""
    middle = (span[0] + span[1]) / 2
    return any(start <= middle < stop for start, stop in judged)


def _scores(
    reference: Sequence[Span], found: Sequence[Span], onset_ms: float
) -> dict[str, SegmentScore]:
    return {
        "onset": score_onsets(reference, found, onset_ms / 1000),
        "segment": score_segments(reference, found, 0.010),
        "IoU 0.3": score_overlaps(reference, found, 0.3),
        "IoU 0.5": score_overlaps(reference, found, 0.5),
    }


def methods(which: DataSet) -> dict[str, Find | None]:
    """Return the compared methods by name; None where one is not installed."""
    plugin, options = preset(which.preset)
    band = (float(options["low_hz"]), float(options.get("high_hz", _HIGHEST_HZ)))
    of_samples: dict[str, Method | None] = {
        "bands": partial(detect, "bands", {}),
        "energy": partial(detect, "energy", {}),
        # With a star where recordings of the set are in its training.
        f"any-animal{'' if which.folder in UNHEARD else '*'}": partial(
            detect, "network", {"bundle": "any-animal"}
        ),
        f"preset {which.preset}": partial(detect, plugin, options),
        "percentile 90": partial(detect, "percentile", {"scope": "file"}),
        "evfuncs": evfuncs_method(band),
        **installed(),
    }
    found: dict[str, Find | None] = {
        name: method and _of_samples(method) for name, method in of_samples.items()
    }
    if which.folder == "mouse_usv":
        found |= {tool: _published(tool) for tool in MOUSE_TOOLS}
    return found


def evaluate_fitted(
    recordings: Sequence[Recording], count: int, choices: int, onset_ms: float
) -> Result:
    """Pool the scores of detectors that were fitted to several choices of examples.

    Where `tune` refuses examples because none of them is above the noise, others are
    drawn: a user would be told so, and choose others.
    """
    results: list[Result] = []
    for choice in range(_MOST_DRAWS):
        if len(results) == choices:
            break
        examples, rest = split_examples(recordings, count, choice)
        try:
            found = fit_detector(examples)
        except ConfigError:
            continue
        find = _of_samples(partial(detect, found["plugin"], found["options"]))
        results.append(evaluate(rest, find, onset_ms))
    scores = {
        measure: sum((each.scores[measure] for each in results), SegmentScore(0, 0, 0))
        for measure in MEASURES
    }
    return Result(
        scores,
        sum(each.audio_s for each in results) / len(results),
        sum(each.cpu_s for each in results) / len(results),
    )


def _of_samples(method: Method) -> Find:
    def find(_: Recording, samples: Samples, sample_rate: int) -> list[Span]:
        return method(samples, sample_rate)

    return find


def _published(tool: str) -> Find:
    def find(recording: Recording, _: Samples, __: int) -> list[Span]:
        return published(tool, recording.path)

    return find


def _f1(scores: dict[str, SegmentScore]) -> dict[str, float]:
    return {measure: score.f1 for measure, score in scores.items()}


def _cells(values: dict[str, float]) -> str:
    return " | ".join(f"{values[measure]:.3f}" for measure in MEASURES)


class GroupMeans:
    """Mean scores of each method: over the sets of a group, then over groups."""

    def __init__(self) -> None:
        self._values: dict[tuple[str, str], list[dict[str, float]]] = defaultdict(list)

    def add(self, method: str, group: str, scores: dict[str, SegmentScore]) -> None:
        """Add the scores of a method on one set of a group."""
        name = "preset" if method.startswith("preset ") else method
        if group and name not in MOUSE_TOOLS:
            self._values[name, group].append(_f1(scores))

    def rows(self) -> Iterable[str]:
        """Return the rows of a table of the means over groups."""
        for name in dict.fromkeys(name for name, _ in self._values):
            groups = [rows for (of, _), rows in self._values.items() if of == name]
            means = [
                {m: float(np.mean([row[m] for row in rows])) for m in MEASURES}
                for rows in groups
            ]
            over = {m: float(np.mean([mean[m] for mean in means])) for m in MEASURES}
            least = min(mean["onset"] for mean in means)
            yield f"| {name} | {len(groups)} | {_cells(over)} | {least:.3f} |"


def print_tables(
    data: Path, only: str = "", methods_of: str = "", choices: int = 3
) -> None:
    """Print the scores of each method on each set, and their means over groups."""
    means = GroupMeans()
    heading = " | ".join(("onset", "segment", "IoU 0.3", "IoU 0.5"))
    print(f"| set | files | s | method | ms | {heading} | P | R | x RT |")
    print("| --- | --: | --: | --- |" + " --: |" * 8)
    for which in SETS:
        if only not in which.name:
            continue
        every = read_set(which, data)
        rows: list[tuple[str, Callable[[float], Result] | None]] = [
            (name, find and partial(evaluate, every, find))
            for name, find in methods(which).items()
            if methods_of in name
        ]
        n_spans = sum(len(recording.spans) for recording in every)
        for name, count in EXAMPLES.items():
            if methods_of in name and n_spans > count + _LEAST_JUDGED:
                rows.append((name, partial(evaluate_fitted, every, count, choices)))
        for name, measure in rows:
            if measure is None:
                print(f"| {which.name} | | | {name} | not installed |" + " |" * 7)
                continue
            result = measure(which.onset_ms)
            means.add(name, which.group, result.scores)
            onset = result.scores["onset"]
            speed = result.audio_s / max(result.cpu_s, 1e-9)
            print(
                f"| {which.name} | {len(every)} | {result.audio_s:.0f} | {name} "
                f"| {which.onset_ms:g} | {_cells(_f1(result.scores))} "
                f"| {onset.precision:.3f} | {onset.recall:.3f} "
                f"| {'' if name in MOUSE_TOOLS else f'{speed:.0f}'} |",
                flush=True,
            )
    print(f"\n| method | groups | {heading} | least onset |")
    print("| --- |" + " --: |" * 6)
    print("\n".join(means.rows()))


def main() -> int:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="sets whose name contains this")
    parser.add_argument("--method", default="", help="methods whose name contains this")
    parser.add_argument("--choices", type=int, default=3, help="choices of examples")
    arguments = parser.parse_args()
    data = data_folder()
    print_tables(data, arguments.only, arguments.method, arguments.choices)
    return 0


if __name__ == "__main__":
    sys.exit(main())
