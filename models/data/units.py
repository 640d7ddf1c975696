"""Units of the classifier: which labels of a dataset become outputs."""

from collections import Counter
from collections.abc import Iterable, Sequence

from neurovocal.engine.contracts.errors import ConfigError
from neurovocal.engine.support.label_words import is_without_unit
from neurovocal.models.data.datasets import AnnotatedRecording
from neurovocal.models.data.split.recordings import Split
from neurovocal.models.data.targets import FrameGrid, Units
from neurovocal.models.toolkit.recipe import OTHER, UnitsConfig


def choose_units(
    train: Iterable[AnnotatedRecording],
    recordings: Iterable[AnnotatedRecording],
    config: UnitsConfig,
    grid: FrameGrid | None = None,
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
    grid : FrameGrid, optional
        Frames of the front end: segments without the centre of a frame are no
        examples. None counts every segment.

    Returns
    -------
    units : Units
    warnings : list of str
        One sentence for every label that does not become a unit of its own, and one
        on segments without a frame.

    Raises
    ------
    ConfigError
        No label has enough examples.
    """
    everything = list(recordings)
    counts: Counter[str] = Counter()
    for part in train:
        counts.update(
            a.unit
            for a in part.own_annotations
            if grid is None or grid.holds_frame(part, a)
        )
    lost = _without_frame(everything, grid) if grid else []
    warnings = [*lost]
    labels = sorted({a.unit for r in everything for a in r.annotations})
    unclear = [label for label in labels if is_without_unit(label)]
    for label in unclear:
        n = sum(a.unit == label for r in everything for a in r.own_annotations)
        warnings.append(
            f"label '{label}' ({_segments(n)}) names no unit: what is under it is left "
            "out of training and measures"
        )
    labels = [label for label in labels if label not in unclear]
    named = [label for label in labels if label != config.silence]
    rare = [label for label in named if counts[label] < config.min_examples]
    if config.rare == "keep":
        rare = [label for label in rare if not counts[label]]
    kept = [label for label in named if label not in rare]
    names = [config.silence, *kept]
    index = {name: position for position, name in enumerate(names)}
    if config.rare == "merge" and any(counts[label] for label in rare):
        if OTHER not in index:
            index[OTHER] = len(names)
            names.append(OTHER)
        index |= dict.fromkeys(rare, index[OTHER])
        consequence = f"counts as '{OTHER}'"
    else:
        index |= dict.fromkeys(rare, -1)
        consequence = "is left out of training and measures"
    index |= dict.fromkeys(unclear, -1)
    for label in rare:
        if index[label] >= 0 and label == OTHER:
            continue
        n = counts[label]
        warnings.append(
            f"label '{label}' has {n} example{'' if n == 1 else 's'} in the training "
            f"split (units.min_examples: {config.min_examples}) and {consequence}"
        )
    if len(names) < 2:
        raise ConfigError(
            [
                "no label has enough examples in the training split "
                f"(units.min_examples: {config.min_examples}); the labels are "
                f"{', '.join(labels) or 'none'}",
                *lost,
            ]
        )
    return Units(names, index), warnings


def absent_units(split: Split, units: Units, grid: FrameGrid) -> list[str]:
    """Return a sentence for each part that lacks units that are trained."""
    notes = []
    for noun, part, consequence in (
        ("validation", split.valid if split.names_valid else [], "are not calibrated"),
        ("test", split.test, "have no figures"),
    ):
        if not part:
            continue
        there = {
            units.index.get(a.unit)
            for recording in part
            for a in recording.own_annotations
            if grid.holds_frame(recording, a)
        }
        absent = [
            f"'{name}'"
            for position, name in enumerate(units.names)
            if position and position not in there
        ]
        if absent:
            notes.append(
                f"the {noun} split has no segment of {', '.join(absent)}: these units "
                f"{consequence}"
            )
    return notes


def _without_frame(
    recordings: Sequence[AnnotatedRecording], grid: FrameGrid
) -> list[str]:
    """Return a sentence on the segments that hold no centre of a frame."""
    total: Counter[str] = Counter()
    lost: Counter[str] = Counter()
    for recording in recordings:
        for a in recording.own_annotations:
            total[a.unit] += 1
            lost[a.unit] += not grid.holds_frame(recording, a)
    found = [
        f"{n} of {total[label]} of '{label}'" for label, n in sorted(lost.items()) if n
    ]
    if not found:
        return []
    return [
        f"segments too short to hold the centre of a frame ({grid.hop_ms:g} ms apart) "
        f"count as silence: {', '.join(found)}: choose a lower hop_length in "
        "front_end.options"
    ]


def _segments(n: int) -> str:
    return f"{n} segment{'' if n == 1 else 's'}"
