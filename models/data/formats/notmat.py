"""Annotation files of MATLAB's evsonganaly (.not.mat)."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neurovocal.models.data.formats.segments import (
    AnnotationChoice,
    Findings,
    NotOfFormatError,
    SegmentRow,
    label_problem,
)
from neurovocal.models.data.label_words import clean_label


def read_notmat(
    path: Path, choice: AnnotationChoice, findings: Findings
) -> list[SegmentRow]:
    """Read onsets and offsets in milliseconds, and a letter or number for each.

    Raises
    ------
    NotOfFormatError
        The file cannot be read, or does not have as many labels as segments.
    """
    del choice
    import scipy.io

    try:
        content: dict[str, Any] = scipy.io.loadmat(path)
        onsets, offsets = (
            np.ravel(content[name]).astype(float) for name in ("onsets", "offsets")
        )
        labels = _labels(content["labels"])
    except NotImplementedError as error:
        raise NotOfFormatError(
            "is of MATLAB 7.3, which cannot be read: save it with the option -v7"
        ) from error
    except Exception as error:  # a damaged file raises whatever the reader meets
        raise NotOfFormatError(
            "is no .not.mat file with onsets, offsets and labels"
        ) from error
    if not len(onsets) == len(offsets) == len(labels):
        raise NotOfFormatError(
            f"has {len(onsets)} onsets, {len(offsets)} offsets and {len(labels)} "
            "labels: each segment needs one of each"
        )
    rows = []
    for number, (onset, offset, text) in enumerate(
        zip(onsets.tolist(), offsets.tolist(), labels, strict=True), 1
    ):
        label = clean_label(text)
        problem = label_problem(label)
        if problem is None and not np.isfinite([onset, offset]).all():
            problem = "onset or offset is not finite"
        if problem:
            findings.refuse(path, 0, f"segment {number}: {problem}")
            continue
        rows.append(SegmentRow(onset / 1000, offset / 1000, label))
    return rows


def _labels(values: NDArray[Any]) -> list[str]:
    """Return a label per segment: letters of a text, texts of a list, or numbers."""
    flat = np.ravel(values)
    if flat.dtype.kind == "U" and len(flat) == 1:
        return list(str(flat[0]))
    if flat.dtype.kind == "O":
        return ["".join(map(str, np.ravel(value))) for value in flat]
    if flat.dtype.kind in "fiub":
        return [f"{float(value):.15g}" for value in flat]
    return [str(value) for value in flat]
