"""Training, validation and test split of recordings, and the classifier's units."""

import itertools
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from neurovocal.engine.contracts.errors import ConfigError
from neurovocal.models.data.datasets import AnnotatedRecording, Dataset
from neurovocal.models.toolkit.recipe import SplitConfig, UnitsConfig

OTHER = "other"
# Some steps process a whole recording at once: longer ones are cut.
_LONGEST_S = 300.0
_MARGIN_S = 0.5


@dataclass(frozen=True, slots=True)
class Split:
    """Disjoint recordings of training, validation and test, and the splitting rule."""

    train: list[AnnotatedRecording]
    valid: list[AnnotatedRecording]
    test: list[AnnotatedRecording]
    rule: str


@dataclass(frozen=True, slots=True)
class Units:
    """Names of the classifier's outputs and the output of each label.

    ``names[0]`` is silence; ``index`` maps every label of the dataset to an output,
    or to -1 if it is left out of training and measures.
    """

    names: list[str]
    index: dict[str, int]


def select_recordings(dataset: Dataset, config: SplitConfig) -> Dataset:
    """Select the recordings with the values of `config.only` in files.csv.

    Raises
    ------
    ConfigError
        files.csv does not have a column, or no recording has a value.
    """
    recordings = list(dataset.recordings)
    for column, values in config.only.items():
        if not _has_column(recordings, column):
            raise ConfigError(f"split.only: files.csv has no column '{column}'")
        there = {r.columns.get(column, "") for r in recordings}
        unknown = set(values) - there
        if unknown:
            raise ConfigError(
                f"split.only: no recording has {column} = {_listed(unknown)} "
                f"(there are: {_listed(there)})"
            )
        recordings = [r for r in recordings if r.columns.get(column) in values]
    return replace(dataset, recordings=tuple(recordings))


def split_recordings(dataset: Dataset, config: SplitConfig, seed: int) -> Split:
    """Split recordings by a column of files.csv, or at random without one.

    Raises
    ------
    ConfigError
        files.csv does not have a configured column or value, or a split has no
        labelled segment.
    """
    recordings = list(dataset.recordings)
    column = config.column or ("split" if _has_column(recordings, "split") else None)
    rng = np.random.default_rng(seed)
    if column is None:
        parts = _cut_into(recordings, config.min_recordings)
        rest, test = _take_share(parts, config.test_fraction, rng)
        train, valid = _take_share(rest, config.valid_fraction, rng)
        rule = "by recording, at random"
        if len(parts) > len(recordings):
            rule = "by parts of recordings, cut in silences, at random"
        return _checked(train, valid, test, rule)
    if not _has_column(recordings, column):
        raise ConfigError(f"split.column: files.csv has no column '{column}'")
    values = {r.columns.get(column, "") for r in recordings}
    unknown = {*config.test, *config.valid} - values
    if unknown:
        raise ConfigError(
            f"split: no recording has {column} = {_listed(unknown)} "
            f"(there are: {_listed(values)})"
        )
    for_test = config.test or (["test"] if "test" in values else ["valid"])
    for_valid = config.valid or [v for v in ("valid",) if v not in for_test]
    test = [r for r in recordings if r.columns.get(column) in for_test]
    valid = [r for r in recordings if r.columns.get(column) in for_valid]
    train = [r for r in recordings if r not in test and r not in valid]
    if not test:
        train, test = _take_share(train, config.test_fraction, rng)
    if not valid:
        train, valid = _take_share(train, config.valid_fraction, rng)
    rule = f"by recording; test: {column} is {' or '.join(for_test)}"
    return _checked(train, valid, test, rule)


def choose_units(
    train: Iterable[AnnotatedRecording],
    recordings: Iterable[AnnotatedRecording],
    config: UnitsConfig,
) -> tuple[Units, list[str]]:
    """Choose the classifier's outputs by the number of training examples.

    Parameters
    ----------
    train : iterable of AnnotatedRecording
        Recordings in which examples are counted.
    recordings : iterable of AnnotatedRecording
        All recordings of the dataset, whose labels are listed.
    config : UnitsConfig
        Smallest number of examples and treatment of rare labels.

    Returns
    -------
    units : Units
    warnings : list of str
        One sentence for every label that does not become a unit of its own.

    Raises
    ------
    ConfigError
        No label has enough examples.
    """
    counts = Counter(a.unit for r in train for a in r.own_annotations)
    labels = sorted({a.unit for r in recordings for a in r.annotations})
    rare = [
        label
        for label in labels
        if counts[label] < config.min_examples and label != config.silence
    ]
    kept = [label for label in labels if label not in rare and label != config.silence]
    warnings = []
    if config.rare == "keep":
        kept = [label for label in labels if counts[label] and label != config.silence]
        rare = [label for label in rare if label not in kept]
    names = [config.silence, *kept]
    index = {name: position for position, name in enumerate(names)}
    if config.rare == "merge" and any(counts[label] for label in rare):
        names.append(OTHER)
        index |= {label: len(names) - 1 for label in rare}
        consequence = f"counts as '{OTHER}'"
    else:
        index |= dict.fromkeys(rare, -1)
        consequence = "is left out of training and measures"
    for label in rare:
        n = counts[label]
        warnings.append(
            f"label '{label}' has {n} example{'' if n == 1 else 's'} in the training "
            f"split (units.min_examples: {config.min_examples}) and {consequence}"
        )
    if len(names) < 2:
        raise ConfigError(
            "no label has enough examples in the training split (units.min_examples: "
            f"{config.min_examples}); the labels are {', '.join(labels)}"
        )
    return Units(names, index), warnings


def _listed(values: Iterable[str]) -> str:
    """Join values in alphabetical order."""
    return ", ".join(sorted(values))


def _has_column(recordings: Iterable[AnnotatedRecording], column: str) -> bool:
    """Return True if a recording has a value in the column of files.csv."""
    return any(recording.columns.get(column) for recording in recordings)


def _cut_into(
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


def _limit_length(recordings: Sequence[AnnotatedRecording]) -> list[AnnotatedRecording]:
    """Cut recordings longer than `_LONGEST_S` in silences."""
    parts: list[AnnotatedRecording] = []
    for whole in recordings:
        n = math.ceil(whole.part_duration_s / _LONGEST_S)
        targets_s = [whole.start_s + whole.part_duration_s * k / n for k in range(1, n)]
        cuts = sorted({_cut_near(at_s, whole) for at_s in targets_s} - {math.inf})
        edges = [whole.start_s, *cuts, whole.stop_s]
        parts += [
            replace(whole, start_s=first_s, stop_s=last_s)
            for first_s, last_s in itertools.pairwise(edges)
        ]
    return parts


def _cut_near(at_s: float, whole: AnnotatedRecording) -> float:
    """Return a time in silence near `at_s`; infinity if there is none.

    It is `_MARGIN_S` away from the annotations if the silence is long enough.
    """
    stop_s = whole.start_s + whole.part_duration_s
    offsets = [whole.start_s, *(a.offset_s for a in whole.annotations)]
    onsets = [*(a.onset_s for a in whole.annotations), stop_s]
    nearest_s = math.inf
    for lo_s, hi_s in zip(offsets, onsets, strict=True):
        lo_s, hi_s = max(lo_s, whole.start_s), min(hi_s, stop_s)
        margin_s = min(_MARGIN_S, (hi_s - lo_s) / 2)
        cut_s = min(max(at_s, lo_s + margin_s), hi_s - margin_s)
        if lo_s < cut_s < hi_s and abs(cut_s - at_s) < abs(nearest_s - at_s):
            nearest_s = cut_s
    return nearest_s


def _take_share(
    recordings: Sequence[AnnotatedRecording], share: float, rng: np.random.Generator
) -> tuple[list[AnnotatedRecording], list[AnnotatedRecording]]:
    """Draw at least one recording, for `share` of the total time.

    Returns
    -------
    rest, drawn : list of AnnotatedRecording
    """
    wanted_s = share * sum(r.part_duration_s for r in recordings)
    order = [recordings[i] for i in rng.permutation(len(recordings))]
    taken: list[AnnotatedRecording] = []
    while order and len(order) > 1 and sum(r.part_duration_s for r in taken) < wanted_s:
        taken.append(order.pop())
    by_name = {(r.file, r.start_s): r for r in taken}
    rest = [r for r in recordings if (r.file, r.start_s) not in by_name]
    return rest, sorted(taken, key=lambda r: (r.file, r.start_s))


def _checked(
    train: list[AnnotatedRecording],
    valid: list[AnnotatedRecording],
    test: list[AnnotatedRecording],
    rule: str,
) -> Split:
    """Make a split; raises ConfigError if a part has no labelled segment."""
    split = Split(_limit_length(train), _limit_length(valid), _limit_length(test), rule)
    for name in ("train", "valid", "test"):
        part: list[AnnotatedRecording] = getattr(split, name)
        if not any(recording.own_annotations for recording in part):
            raise ConfigError(
                f"the {name} split would have no labelled segment: annotate more, or "
                "say in files.csv (column split: train, valid, test) what is what"
            )
    return split


def total_duration_s(recordings: Iterable[AnnotatedRecording]) -> float:
    """Return the summed duration of recordings, in seconds."""
    return math.fsum(recording.part_duration_s for recording in recordings)
