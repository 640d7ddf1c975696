"""Which recordings train, which choose the model, and which test it."""

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
# Whole recordings are heard at once in places: an hour at a time is too much.
_LONGEST_S = 300.0
_MARGIN_S = 0.5


@dataclass(frozen=True, slots=True)
class Split:
    """Recordings by purpose; no recording is in two of them."""

    train: list[AnnotatedRecording]
    valid: list[AnnotatedRecording]
    test: list[AnnotatedRecording]
    rule: str


@dataclass(frozen=True, slots=True)
class Units:
    """Names of the classifier's outputs, and what becomes of the others.

    ``names[0]`` is silence; ``index`` maps every label of the dataset to an
    output, or to -1 where it is left out of training and measures.
    """

    names: list[str]
    index: dict[str, int]


def select_recordings(dataset: Dataset, config: SplitConfig) -> Dataset:
    """The recordings that the recipe is about, by columns of files.csv.

    Raises
    ------
    ConfigError
        files.csv has no such column, or no such recording.
    """
    recordings = list(dataset.recordings)
    for column, values in config.only.items():
        if not _has_column(recordings, column):
            raise ConfigError(f"split.only: files.csv has no column '{column}'")
        there = {r.columns.get(column, "") for r in recordings}
        strangers = set(values) - there
        if strangers:
            raise ConfigError(
                f"split.only: no recording has {column} = {_listed(strangers)} "
                f"(there are: {_listed(there)})"
            )
        recordings = [r for r in recordings if r.columns.get(column) in values]
    return replace(dataset, recordings=tuple(recordings))


def split_recordings(dataset: Dataset, config: SplitConfig, seed: int) -> Split:
    """Split by recording, as files.csv says or else at random.

    Raises
    ------
    ConfigError
        The configuration names a column or value that files.csv has not, or a
        split would be empty.
    """
    recordings = list(dataset.recordings)
    column = config.column or ("split" if _has_column(recordings, "split") else None)
    rng = np.random.default_rng(seed)
    if column is None:
        parts = _enough_parts(recordings, config.min_recordings)
        rest, test = _take_share(parts, config.test_fraction, rng)
        train, valid = _take_share(rest, config.valid_fraction, rng)
        rule = "by recording, at random"
        if len(parts) > len(recordings):
            rule = "by parts of recordings, cut in silences, at random"
        return _checked(train, valid, test, rule)
    if not _has_column(recordings, column):
        raise ConfigError(f"split.column: files.csv has no column '{column}'")
    values = {r.columns.get(column, "") for r in recordings}
    strangers = {*config.test, *config.valid} - values
    if strangers:
        raise ConfigError(
            f"split: no recording has {column} = {_listed(strangers)} "
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
    everything: Iterable[AnnotatedRecording],
    config: UnitsConfig,
) -> tuple[Units, list[str]]:
    """Decide on the classifier's outputs.

    Returns
    -------
    units : Units
    warnings : list of str
        One sentence for every label that does not become a unit of its own.

    Raises
    ------
    ConfigError
        No unit has enough examples.
    """
    counts = Counter(a.unit for r in train for a in r.own_annotations)
    labels = sorted({a.unit for r in everything for a in r.annotations})
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
        fate = f"counts as '{OTHER}'"
    else:
        index |= dict.fromkeys(rare, -1)
        fate = "is left out of training and measures"
    for label in rare:
        n = counts[label]
        warnings.append(
            f"label '{label}' has {n} example{'' if n == 1 else 's'} in the training "
            f"split (units.min_examples: {config.min_examples}) and {fate}"
        )
    if len(names) < 2:
        raise ConfigError(
            "no label has enough examples in the training split (units.min_examples: "
            f"{config.min_examples}); the labels are {', '.join(labels)}"
        )
    return Units(names, index), warnings


def _listed(values: Iterable[str]) -> str:
    return ", ".join(sorted(values))


def _has_column(recordings: Iterable[AnnotatedRecording], column: str) -> bool:
    return any(recording.columns.get(column) for recording in recordings)


def _enough_parts(
    recordings: Sequence[AnnotatedRecording], wanted: int
) -> list[AnnotatedRecording]:
    """Recordings, cut in silences where there are too few to split.

    The longest recording is halved at the silence nearest to its middle, again
    and again, so that parts are about as long as each other.
    """
    parts = list(recordings)
    while len(parts) < wanted:
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
    """Two parts, or nothing where there is no silence to cut in."""
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


def _shortened(recordings: Sequence[AnnotatedRecording]) -> list[AnnotatedRecording]:
    """The same stretches in parts that are not too long, cut in silences."""
    parts: list[AnnotatedRecording] = []
    for whole in recordings:
        n = math.ceil(whole.part_duration_s / _LONGEST_S)
        wanted = [whole.start_s + whole.part_duration_s * k / n for k in range(1, n)]
        cuts = sorted({_cut_near(at_s, whole) for at_s in wanted} - {math.inf})
        edges = [whole.start_s, *cuts, whole.stop_s]
        parts += [
            replace(whole, start_s=first_s, stop_s=last_s)
            for first_s, last_s in itertools.pairwise(edges)
        ]
    return parts


def _cut_near(at_s: float, whole: AnnotatedRecording) -> float:
    """A moment of silence near `at_s`, away from sounds; infinity if there is none."""
    stop_s = whole.start_s + whole.part_duration_s
    offsets = [whole.start_s, *(a.offset_s for a in whole.annotations)]
    onsets = [*(a.onset_s for a in whole.annotations), stop_s]
    nearest_s = math.inf
    for lo_s, hi_s in zip(offsets, onsets, strict=True):
        lo_s, hi_s = max(lo_s, whole.start_s), min(hi_s, stop_s)
        margin_s = min(_MARGIN_S, (hi_s - lo_s) / 2)
        moment_s = min(max(at_s, lo_s + margin_s), hi_s - margin_s)
        if lo_s < moment_s < hi_s and abs(moment_s - at_s) < abs(nearest_s - at_s):
            nearest_s = moment_s
    return nearest_s


def _take_share(
    recordings: Sequence[AnnotatedRecording], share: float, rng: np.random.Generator
) -> tuple[list[AnnotatedRecording], list[AnnotatedRecording]]:
    """Split off recordings until they make `share` of the time; at least one."""
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
    split = Split(_shortened(train), _shortened(valid), _shortened(test), rule)
    for name in ("train", "valid", "test"):
        part: list[AnnotatedRecording] = getattr(split, name)
        if not any(recording.own_annotations for recording in part):
            raise ConfigError(
                f"the {name} split would have no labelled segment: annotate more, or "
                "say in files.csv (column split: train, valid, test) what is what"
            )
    return split


def total_duration_s(recordings: Iterable[AnnotatedRecording]) -> float:
    """Duration of some recordings."""
    return math.fsum(recording.part_duration_s for recording in recordings)
