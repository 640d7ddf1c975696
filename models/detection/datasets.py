"""Datasets of a detector network: annotated recordings, backgrounds, licences."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np

from neurovocal.engine.contracts.errors import AudioFileError, ConfigError
from neurovocal.engine.contracts.types import Float32
from neurovocal.engine.support.names import missing_folder
from neurovocal.models.data.annotations import truncate_problems
from neurovocal.models.data.datasets import AnnotatedRecording, survey_dataset
from neurovocal.models.data.files_table import read_files_table
from neurovocal.models.data.formats.segments import Findings
from neurovocal.models.data.formats.text_table import HeadedTable, own_table
from neurovocal.models.data.frames import read_samples
from neurovocal.models.data.recording_folder import RecordingFolder
from neurovocal.models.data.sound_files import read_header
from neurovocal.models.detection.recipe import DatasetUse, DetectorRecipe
from neurovocal.models.toolkit.problems import Problems
from neurovocal.models.toolkit.recipe import CardConfig
from neurovocal.models.training.card import UNKNOWN, complete_card

ANNOTATIONS, SPANS = "annotations.csv", "annotated_spans.csv"
_UNCLEAR = re.compile(r"unclear|unknown|not stated|non-?commercial|\bNC\b", re.I)

Span = tuple[float, float]


@dataclass(frozen=True, slots=True)
class CallRecording:
    """A recording with its calls.

    Parameters
    ----------
    source : AnnotatedRecording
        Where its samples are.
    spans : tuple of (onset, offset)
        Calls in seconds, in time order.
    judged : tuple of (start, stop), optional
        Parts in which every call is annotated, in seconds; None: everywhere.
    """

    source: AnnotatedRecording
    spans: tuple[Span, ...]
    judged: tuple[Span, ...] | None = None


@dataclass(frozen=True, slots=True)
class CallSet:
    """Recordings of a dataset, for training and for choices."""

    name: str
    train: tuple[CallRecording, ...]
    valid: tuple[CallRecording, ...]


@dataclass(frozen=True, slots=True)
class DetectorData:
    """What a detector network is trained on.

    Parameters
    ----------
    sets : tuple of CallSet
        Datasets with calls.
    backgrounds : tuple of AnnotatedRecording
        Recordings that are laid under calls.
    cards : dict of str to CardConfig
        Name, licence and attribution of each dataset by its name.
    notes : tuple of str
        Sentences for the user.
    """

    sets: tuple[CallSet, ...]
    backgrounds: tuple[AnnotatedRecording, ...]
    cards: dict[str, CardConfig]
    notes: tuple[str, ...] = ()


@dataclass(slots=True)
class _Found:
    """What has been read so far."""

    sets: list[CallSet] = field(default_factory=list)
    backgrounds: list[AnnotatedRecording] = field(default_factory=list)
    cards: dict[str, CardConfig] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def read_datasets(folders: Sequence[Path], recipe: DetectorRecipe) -> DetectorData:
    """Read the annotations and audio headers of all datasets.

    Raises
    ------
    ConfigError
        Lists every mistake of all datasets.
    """
    found, problems = _Found(), Problems()
    names = [folder.resolve().name for folder in folders]
    for name in sorted({name for name in names if names.count(name) > 1}):
        problems.add([f"dataset '{name}' is named twice"])
    for folder, name in zip(folders, names, strict=True):
        if not folder.is_dir():
            problems.add([f"dataset folder '{folder}' {missing_folder(folder)}"])
            continue
        use = recipe.datasets.get(name)
        if use is None:
            has_calls = (folder / ANNOTATIONS).is_file()
            use = DatasetUse(use="calls" if has_calls else "background")
        add = _add_calls if use.use == "calls" else _add_background
        problems.of(partial(add, found, folder, use, recipe))
        card = complete_card(CardConfig(), folder, folder.resolve())
        found.cards[name] = card
        if card.licence == UNKNOWN or _UNCLEAR.search(card.licence):
            found.notes.append(
                f"dataset '{name}': its README.md states the licence "
                f"'{card.licence}': do not pass on a bundle trained on it before that "
                "is clear"
            )
    problems.refuse()
    return DetectorData(
        tuple(found.sets), tuple(found.backgrounds), found.cards, tuple(found.notes)
    )


def read_part(
    recording: AnnotatedRecording, start_s: float, duration_s: float
) -> Float32:
    """Read a part of a recording at its own rate, float32[n_samples].

    Raises
    ------
    ConfigError
        The file cannot be read, or holds values that are not finite.
    """
    stop_s = min(start_s + duration_s, recording.duration_s)
    part = replace(recording, start_s=start_s, stop_s=stop_s)
    return read_samples(part, recording.sample_rate)


def _add_calls(
    found: _Found, folder: Path, use: DatasetUse, recipe: DetectorRecipe
) -> None:
    """Add the annotated recordings of a dataset."""
    dataset, mistakes = survey_dataset(folder)
    if mistakes:
        raise ConfigError(truncate_problems(mistakes))
    name = folder.resolve().name
    judged = _judged_parts(folder)
    chosen = _chosen(folder, {r.file: r.columns for r in dataset.recordings}, use)
    recordings = [
        CallRecording(
            recording,
            tuple(
                (a.onset_s, a.offset_s)
                for a in recording.annotations
                if a.unit not in use.ignore
            ),
            judged.get(recording.file, ()) if judged else None,
        )
        for recording in dataset.recordings
        if recording.file in chosen
    ]
    order = np.random.default_rng(recipe.seed).permutation(len(recordings))
    n_valid = 0
    if len(recordings) > 1:
        n_valid = max(1, round(recipe.valid_fraction * len(recordings)))
    else:
        found.notes.append(f"dataset '{name}' has one recording: nothing chooses by it")
    shuffled = [recordings[i] for i in order]
    found.sets.append(
        CallSet(name, tuple(shuffled[n_valid:]), tuple(shuffled[:n_valid]))
    )
    found.notes += [f"{name}: {note}" for note in dataset.notes]


def _add_background(
    found: _Found, folder: Path, use: DatasetUse, recipe: DetectorRecipe
) -> None:
    """Add the recordings of a folder, labels or none."""
    columns = {name: row.columns for name, row in read_files_table(folder).items()}
    files = RecordingFolder(folder).recordings
    chosen = _chosen(folder, {file: columns.get(file, {}) for file in files}, use)
    problems: list[str] = []
    for file in sorted(chosen):
        path = folder / file
        try:
            header = read_header(path)
        except AudioFileError as error:
            problems.append(f"{path}: {error}")
            continue
        found.backgrounds.append(
            AnnotatedRecording(
                file, path, header.duration_s or 0.0, header.sample_rate, ()
            )
        )
    if problems:
        raise ConfigError(truncate_problems(problems))


def _chosen(
    folder: Path, columns: Mapping[str, Mapping[str, str]], use: DatasetUse
) -> set[str]:
    """Return the files with the values of `use.only`; ConfigError without any."""
    chosen = {
        file
        for file, row in columns.items()
        if all(row.get(key.casefold()) in values for key, values in use.only.items())
    }
    if not chosen:
        which = f" with {use.only}" if use.only else ""
        raise ConfigError(f"dataset '{folder}' has no recording{which}")
    return chosen


def _judged_parts(folder: Path) -> dict[str, tuple[Span, ...]]:
    """Read annotated_spans.csv; empty without it."""
    path = own_table(folder, SPANS)
    if not path.is_file():
        return {}
    findings = Findings()
    table = HeadedTable.read(path, findings, ",")
    at = table.require("file", "start_s", "end_s")
    parts: dict[str, list[Span]] = {}
    for row in table.rows:
        file, start, stop = (row.cells[column].strip() for column in at)
        try:
            parts.setdefault(file, []).append((float(start), float(stop)))
        except ValueError:
            findings.refuse(path, row.line, f"'{start}' or '{stop}' is no number")
    if findings.problems:
        raise ConfigError(findings.problems)
    return {file: tuple(sorted(spans)) for file, spans in parts.items()}


def all_sources(data: DetectorData) -> Iterator[AnnotatedRecording]:
    """Yield every recording that the training reads."""
    for each in data.sets:
        yield from (recording.source for recording in (*each.train, *each.valid))
    yield from data.backgrounds
