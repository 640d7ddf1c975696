"""Folds of recordings for a cross-validation: by days, or by recordings."""

import re
from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from neurovocal.models.data.datasets import AnnotatedRecording
from neurovocal.models.data.split.recordings import Split
from neurovocal.models.toolkit.recipe import SplitConfig

_DAY = re.compile(r"(^|[\s_.-])(day|date|session)", re.IGNORECASE)
# A fold with a smaller share of the time says little, and leaves little to train on.
_LEAST_SHARE = 0.1


@dataclass(frozen=True, slots=True)
class Folds:
    """Recordings that are left out in turn.

    Parameters
    ----------
    parts : list of list of int
        Numbers of the recordings of each fold, in the order of training and then
        validation recordings. Recordings in no fold are always trained on.
    rule : str
        What the folds are, for people.
    """

    parts: list[list[int]]
    rule: str

    @property
    def left_out(self) -> list[int]:
        """Numbers of all recordings that are left out once, rising."""
        return sorted(number for part in self.parts for number in part)


def make_folds(split: Split, config: SplitConfig, seed: int) -> Folds:
    """Divide the training and validation recordings of a split into folds.

    Named validation recordings are the only fold. Otherwise every recording is in one
    fold: recordings of a day together where files.csv has days, parts of a recording
    together where there are recordings enough. Folds have similar lengths.

    Parameters
    ----------
    split : Split
        Split of a dataset.
    config : SplitConfig
        Number of folds and column of days.
    seed : int
        Seed of the order in which recordings are dealt.
    """
    recordings = [*split.train, *split.valid]
    if split.names_valid or config.folds == 1:
        first = len(split.train)
        named = [*range(first, len(recordings))]
        return Folds([named], "the validation recordings")
    total_s = sum(r.part_duration_s for r in recordings)
    column = config.day if config.day is not None else _day_column(recordings)
    groupings: list[tuple[str, list[Hashable]]] = [
        ("recordings", [r.group or r.file for r in recordings]),
        ("parts of recordings", [(r.file, r.start_s, r.channel) for r in recordings]),
    ]
    if column:
        days: list[Hashable] = [r.columns.get(column.casefold()) for r in recordings]
        if None not in days and "" not in days:
            groupings.insert(0, (f"days ({column})", days))
    for noun, keys in groupings:
        parts = _deal(recordings, keys, config.folds, np.random.default_rng(seed))
        enough = all(
            any(recordings[n].own_annotations for n in part)
            and sum(recordings[n].part_duration_s for n in part)
            >= _LEAST_SHARE * total_s
            for part in parts
        )
        as_many = len(parts) == config.folds or noun.startswith("days")
        if enough and as_many and len(parts) > 1:
            return Folds(parts, f"{len(parts)} parts, by {noun}")
    first = len(split.train)
    return Folds([[*range(first, len(recordings))]], "the validation recordings")


def _day_column(recordings: Sequence[AnnotatedRecording]) -> str:
    """Return the column of files.csv that says the day; empty without one."""
    names = sorted(
        {name for r in recordings for name in r.columns if _DAY.search(name)}
    )
    for name in names:
        if len({r.columns.get(name, "") for r in recordings}) > 1:
            return name
    return ""


def _deal(
    recordings: Sequence[AnnotatedRecording],
    keys: Sequence[Hashable],
    n_folds: int,
    rng: np.random.Generator,
) -> list[list[int]]:
    """Deal groups of one key to folds, the longest first, to the shortest fold."""
    groups: defaultdict[Hashable, list[int]] = defaultdict(list)
    for number, key in enumerate(keys):
        groups[key].append(number)

    def seconds(numbers: Sequence[int]) -> float:
        return sum(recordings[n].part_duration_s for n in numbers)

    shuffled = [[*groups.values()][i] for i in rng.permutation(len(groups))]
    folds: list[list[int]] = [[] for _ in range(min(n_folds, len(groups)))]
    for group in sorted(shuffled, key=seconds, reverse=True):
        min(folds, key=seconds).extend(group)
    return [sorted(fold) for fold in folds]
