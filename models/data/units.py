"""Units of the classifier: which labels of a dataset become outputs."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from neurovocal.engine.contracts.errors import ConfigError
from neurovocal.models.data.datasets import AnnotatedRecording
from neurovocal.models.toolkit.recipe import UnitsConfig

OTHER = "other"


@dataclass(frozen=True, slots=True)
class Units:
    """Names of the classifier's outputs and the output of each label.

    ``names[0]`` is silence; ``index`` maps every label of the dataset to an output,
    or to -1 if it is left out of training and measures.
    """

    names: list[str]
    index: dict[str, int]


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
