"""Training, validation and test split of recordings."""

import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from neurovocal.engine.contracts.errors import ConfigError
from neurovocal.engine.support.text import did_you_mean
from neurovocal.models.data.datasets import AnnotatedRecording, Dataset
from neurovocal.models.data.files_table import (
    FILES,
    TEST,
    TRAIN,
    UNUSED,
    VALID,
    FileRow,
    is_ambiguous,
    part_of,
    read_files_table,
)
from neurovocal.models.data.split.cutting import cut_into, limit_length
from neurovocal.models.toolkit.recipe import SplitConfig

_SPLIT = "split"
_MOST_NAMES = 5


@dataclass(frozen=True, slots=True)
class Split:
    """Disjoint recordings of training, validation and test, and the splitting rule.

    ``notes`` holds a sentence for each kind of recording that the table does not
    assign, or that is not used.
    """

    train: list[AnnotatedRecording]
    valid: list[AnnotatedRecording]
    test: list[AnnotatedRecording]
    rule: str
    notes: list[str] = field(default_factory=list)
    names_valid: bool = False
    """True if files.csv or the recipe names the validation recordings."""


def select_recordings(dataset: Dataset, config: SplitConfig) -> Dataset:
    """Select the recordings with the values of `config.only` in files.csv.

    Raises
    ------
    ConfigError
        files.csv does not have a column, or no recording has a value.
    """
    recordings = list(dataset.recordings)
    for named, values in config.only.items():
        column = named.casefold()
        if not _has_column(recordings, column):
            raise ConfigError(_no_column("split.only", named, dataset))
        there = {r.columns.get(column, "") for r in recordings}
        unknown = set(values) - there
        if unknown:
            raise ConfigError(
                f"split.only: no recording has {named} = {_listed(unknown)} "
                f"(there are: {_listed(there)})"
            )
        recordings = [r for r in recordings if r.columns.get(column) in values]
    return replace(dataset, recordings=tuple(recordings))


def split_recordings(dataset: Dataset, config: SplitConfig, seed: int) -> Split:
    """Split recordings by a column of files.csv, or at random without one.

    Raises
    ------
    ConfigError
        files.csv does not have a configured column or value, or has an unknown word
        in it, or a split has no labelled segment.
    """
    recordings = list(dataset.recordings)
    rng = np.random.default_rng(seed)
    named = _split_column(dataset, config)
    if named is None:
        split = _split_at_random(recordings, config, rng)
        if not any(recording.columns for recording in recordings):
            return split
        return replace(split, rule=f"{split.rule}, for {FILES} has no column {_SPLIT}")
    declared = _Declared.read(dataset, named, config)
    train, valid, test = (declared.parts[name] for name in (TRAIN, VALID, TEST))
    test_words, rest = declared.words_of(test), "some of the training recordings"
    if not test and not valid:
        split = _split_at_random(train, config, rng)
        rule = f"{split.rule}, for {named} names no recording for the test"
        return replace(split, rule=rule, notes=[*declared.notes, *split.notes])
    if not test:
        test, test_words, valid = valid, declared.words_of(valid), []
    rule = f"by recording; test: {named} is {test_words}"
    names_valid = bool(valid)
    if valid:
        rule += f"; validation: {named} is {declared.words_of(valid)}"
    else:
        train, valid = _take_share(cut_into(train, 2), config.valid_fraction, rng)
        rule += f"; validation: {rest}, at random"
    checked = _checked(train, valid, test, rule, declared.notes)
    return replace(checked, names_valid=names_valid)


def _split_column(dataset: Dataset, config: SplitConfig) -> str | None:
    """Return the column of files.csv that names the parts; None without one.

    That is the recipe's, or ``split``, or the only one whose words are all of parts.

    Raises
    ------
    ConfigError
        The recipe's column is not there, or several columns name parts.
    """
    named = config.column or _SPLIT
    if _has_column(dataset.recordings, named.casefold()):
        return named
    if config.column:
        raise ConfigError(_no_column("split.column", named, dataset))
    if config.test or config.valid:
        raise ConfigError(_no_column("split.test and split.valid", named, dataset))
    words: defaultdict[str, set[str | None]] = defaultdict(set)
    for recording in dataset.recordings:
        for name, word in recording.columns.items():
            if word:
                words[name].add(part_of(word))
    found = [
        name
        for name, parts in words.items()
        if TRAIN in parts and None not in parts and parts & {TEST, VALID}
    ]
    if len(found) > 1:
        raise ConfigError(
            f"{dataset.folder / FILES}: the columns {' and '.join(found)} name parts "
            "of a split: say split.column in the recipe"
        )
    return found[0] if found else None


@dataclass(frozen=True, slots=True)
class _Declared:
    """Recordings by the part that a column names."""

    column: str
    parts: Mapping[str, list[AnnotatedRecording]]
    notes: list[str]

    @classmethod
    def read(cls, dataset: Dataset, named: str, config: SplitConfig) -> "_Declared":
        """Assign each recording by the word that stands in a column.

        The recipe's words come first; where it names any, other words that are no
        part's mean training.

        Raises
        ------
        ConfigError
            No recording has a word of the recipe, or a word is unknown; lists all.
        """
        column = named.casefold()
        words = {r.file: r.columns.get(column, "") for r in dataset.recordings}
        meanings = _meanings(named, words.values(), config)
        parts: defaultdict[str, list[AnnotatedRecording]] = defaultdict(list)
        unknown, unnamed = [], []
        for recording in dataset.recordings:
            word = words[recording.file]
            part = meanings.get(word) if word else TRAIN
            if part is None:
                unknown.append(recording.file)
                continue
            if not word:
                unnamed.append(recording.file)
            parts[part].append(recording)
        if unknown:
            rows = read_files_table(dataset.folder)
            raise ConfigError(
                _unknown_words(dataset.folder, named, unknown, words, rows)
            )
        notes = []
        if unnamed:
            notes.append(
                f"{FILES} has no {named} for {_some(unnamed)}: used for training"
            )
        if parts[UNUSED]:
            files = [recording.file for recording in parts[UNUSED]]
            given = _quoted({words[file] for file in files})
            notes.append(f"{named} is {given} for {_some(files)}: not used")
        return cls(column, parts, notes)

    def words_of(self, recordings: Iterable[AnnotatedRecording]) -> str:
        """Return the words that name the part of some recordings, joined by 'or'."""
        words = {recording.columns[self.column] for recording in recordings}
        return " or ".join(sorted(words))


def check_words(dataset: Dataset, config: SplitConfig) -> None:
    """Raise ConfigError with each word of the split in files.csv that is unknown."""
    named = _split_column(dataset, config)
    if named is not None:
        _Declared.read(dataset, named, config)


def part_names(dataset: Dataset, config: SplitConfig) -> dict[str, str]:
    """Return the declared part of each recording by file; empty without a column.

    Words that are unknown are passed over.
    """
    named = _split_column(dataset, config)
    if named is None:
        return {}
    words = {r.file: r.columns.get(named.casefold(), "") for r in dataset.recordings}
    meanings = _meanings(named, words.values(), config)
    return {file: meanings.get(word) or TRAIN for file, word in words.items()}


def _meanings(
    named: str, words: Iterable[str], config: SplitConfig
) -> dict[str, str | None]:
    """Return the part that each word of a column means; None for unknown ones.

    Raises
    ------
    ConfigError
        No recording has a word of the recipe, or one word has two meanings.
    """
    there = {word for word in words if word}
    # Of another column only the recipe knows what the words mean: a speaker may be
    # called Val.
    is_split = named.casefold() == _SPLIT or not (config.test or config.valid)
    problems = [
        f"split: '{word}' is named for the test and for validation"
        for word in sorted({*config.test} & {*config.valid})
    ]
    if absent := {*config.test, *config.valid} - there:
        problems.append(
            f"split: no recording has {named} = {_listed(absent)} "
            f"(there are: {_listed(there)})"
        )
    meanings: dict[str, str | None] = {}
    for word in there:
        part = part_of(word) if is_split else None
        if word in config.test:
            part = TEST
        elif word in config.valid:
            part = VALID
        elif (part == TEST and config.test) or (part == VALID and config.valid):
            part = TRAIN  # the recipe names another word for that part
        elif part is None and (config.test or config.valid):
            part = TRAIN
        meanings[word] = part
    tests = [word for word in there if meanings[word] == TEST]
    unclear = [word for word in tests if is_ambiguous(word)]
    if unclear and len(unclear) < len(tests) and not config.test:
        problems.append(
            f"{FILES}: {named} is '{unclear[0]}' and 'test': write valid for "
            "recordings that choose the model, test for those that measure it"
        )
    if problems:
        raise ConfigError(problems)
    return meanings


def _unknown_words(
    folder: Path,
    named: str,
    files: Sequence[str],
    words: Mapping[str, str],
    rows: Mapping[str, FileRow],
) -> list[str]:
    """Return a sentence with its line for each unknown word of files.csv."""
    known = (TRAIN, VALID, TEST, "none")
    sentences = []
    for file in files:
        line = f":{rows[file].line}" if file in rows else ""
        meant = did_you_mean(words[file].casefold(), known, "write one of")
        sentences.append(
            f"{folder / FILES}{line}: {named} is '{words[file]}', which names no part "
            f"({meant}; none: not used)"
        )
    return sentences


def _split_at_random(
    recordings: Sequence[AnnotatedRecording],
    config: SplitConfig,
    rng: np.random.Generator,
) -> Split:
    parts = cut_into(recordings, config.min_recordings)
    rest, test = parts, list[AnnotatedRecording]()
    if config.draw_test:
        rest, test = _take_share(parts, config.test_fraction, rng)
    train, valid = _take_share(rest, config.valid_fraction, rng)
    rule = "by recording, at random"
    if len(parts) > len(recordings):
        rule = "by parts of recordings, cut in silences, at random"
    return _checked(train, valid, test, rule, [])


def _no_column(option: str, named: str, dataset: Dataset) -> str:
    there = sorted({name for r in dataset.recordings for name in r.columns if name})
    if not there:
        return f"{option}: files.csv has no column '{named}'"
    return f"{option}: files.csv has no column '{named}' ({did_you_mean(named, there)})"


def _listed(values: Iterable[str]) -> str:
    """Join values in alphabetical order."""
    return ", ".join(sorted(values))


def _quoted(values: Iterable[str]) -> str:
    return " or ".join(f"'{value}'" for value in sorted(values))


def _some(files: Collection[str]) -> str:
    """Return the number of files, and the names of the first ones."""
    names = sorted(files)
    more = len(names) - _MOST_NAMES
    shown = ", ".join(names[:_MOST_NAMES]) + (f" and {more} more" if more > 0 else "")
    return f"{len(names)} recording{'' if len(names) == 1 else 's'} ({shown})"


def _has_column(recordings: Iterable[AnnotatedRecording], column: str) -> bool:
    """Return True if a recording has a value in the column of files.csv."""
    return any(recording.columns.get(column) for recording in recordings)


def _take_share(
    recordings: Sequence[AnnotatedRecording], share: float, rng: np.random.Generator
) -> tuple[list[AnnotatedRecording], list[AnnotatedRecording]]:
    """Draw at least one recording, for `share` of the total time.

    Returns
    -------
    rest, drawn : list of AnnotatedRecording
    """
    wanted_s = share * sum(r.part_duration_s for r in recordings)
    drawable = _kept_together(recordings)
    order = [drawable[i] for i in rng.permutation(len(drawable))]
    taken: list[AnnotatedRecording] = []
    taken_s = 0.0
    while len(order) > 1 and taken_s < wanted_s:
        drawn = order.pop()
        taken += drawn
        taken_s += total_duration_s(drawn)
    by_name = {(r.file, r.start_s): r for r in taken}
    rest = [r for r in recordings if (r.file, r.start_s) not in by_name]
    return rest, sorted(taken, key=lambda r: (r.file, r.start_s))


def _kept_together(
    recordings: Sequence[AnnotatedRecording],
) -> list[list[AnnotatedRecording]]:
    """Return recordings in groups of the same sound, each of others a group."""
    groups: defaultdict[object, list[AnnotatedRecording]] = defaultdict(list)
    for recording in recordings:
        key = (recording.file, recording.start_s)
        groups[recording.group or key].append(recording)
    # All parts of one sound: then it is divided, in silences.
    return [*groups.values()] if len(groups) > 1 else [[r] for r in recordings]


def _checked(
    train: list[AnnotatedRecording],
    valid: list[AnnotatedRecording],
    test: list[AnnotatedRecording],
    rule: str,
    notes: list[str],
) -> Split:
    """Make a split; raises ConfigError if a part has no labelled segment."""
    parts = {TRAIN: train, VALID: valid, TEST: test}
    empty = [
        name
        for name, part in parts.items()
        if not any(recording.own_annotations for recording in part)
        and (part or name != TEST)
    ]
    if empty:
        files = {r.file for part in parts.values() for r in part}
        which = f"the {' and the '.join(empty)} split would"
        if files and len(files) < len(parts) and not all(parts.values()):
            raise ConfigError(
                f"{which} be empty: {_some(files)} cannot be cut into enough parts, "
                "because there are no gaps between segments: add recordings"
            )
        raise ConfigError(
            f"{which} have no labelled segment: annotate more, or assign recordings "
            "in files.csv (column split: train, valid, test)"
        )
    return Split(
        limit_length(train),
        limit_length(valid),
        limit_length(test),
        rule,
        [*notes, *_divided(parts)],
    )


def _divided(parts: Mapping[str, Sequence[AnnotatedRecording]]) -> Iterator[str]:
    """Yield a sentence if recordings of the same sound are in several parts."""
    names: defaultdict[str, set[str]] = defaultdict(set)
    for name, part in parts.items():
        for recording in part:
            if recording.group:
                names[recording.group].add(name)
    files = {
        recording.file
        for part in parts.values()
        for recording in part
        if len(names[recording.group]) > 1
    }
    if files:
        yield (
            f"{_some(files)} have the same sound in several parts of the split, so "
            "that the figures of the test are too good: keep them in one part"
        )


def total_duration_s(recordings: Iterable[AnnotatedRecording]) -> float:
    """Return the summed duration of recordings, in seconds."""
    return math.fsum(recording.part_duration_s for recording in recordings)
