"""Label tracks without a heading: Audacity's, and TIMIT's transcriptions."""

import re
from pathlib import Path

from neurovocal.engine.contracts.errors import ConfigError
from neurovocal.engine.support.label_words import clean_label
from neurovocal.models.data.formats.segments import (
    FRACTION,
    AnnotationChoice,
    Findings,
    NotOfFormatError,
    SegmentRow,
    label_problem,
    number_problem,
    shown,
    where,
)
from neurovocal.models.data.formats.text_table import (
    Row,
    literal_rows,
    read_lines,
    times_problem,
)

_NUMBER_LIKE = re.compile(r"[+-]?[0-9.,]+(?:[eE][+-]?[0-9]+)?|[+-]?(?:inf|nan)", re.I)
_NAMES = ("onset", "offset")
# What `detect` writes in place of a label.
_SCORE = re.compile(r"-?[0-9]+\.[0-9]{6}")


def read_audacity(
    path: Path, choice: AnnotationChoice, findings: Findings
) -> list[SegmentRow]:
    r"""Read an Audacity label track: onset, offset, label, and perhaps frequencies.

    A line that begins with a backslash holds the frequencies of the label before it. A
    label of no length is a remark about a moment: it is left out, and told. An empty
    track is a recording without vocalizations. Scores that ``neurovocal detect`` wrote
    are no labels.

    Raises
    ------
    NotOfFormatError
        The file is no label track.
    """
    found = list(literal_rows(read_lines(path)))
    if found and not _begins_with_times(found[0]):
        raise NotOfFormatError(
            "is no Audacity label track: its lines must be onset, offset and label "
            "with tabs between them"
        )
    rows = []
    scores: list[Row] = []
    for row in found:
        if row.cells[0].strip() == "\\":
            continue
        while len(row.cells) > 3 and not row.cells[-1].strip():
            row.cells.pop()
        if len(row.cells) == 2 and not choice.needs_labels:
            row.cells.append("")
        if len(row.cells) != 3:
            reason = (
                "the label is missing"
                if len(row.cells) == 2
                else f"{len(row.cells)} cells"
            )
            findings.refuse(
                path,
                row.line,
                f"{reason}: a line is onset, offset and label with tabs between them",
            )
            continue
        label = clean_label(row.cells[2])
        problem = times_problem(row, (0, 1), _NAMES)
        if not problem and (label or choice.needs_labels):
            problem = label_problem(label) or ""
        if problem:
            findings.refuse(path, row.line, problem)
            continue
        if choice.needs_labels and _SCORE.fullmatch(label):
            scores.append(row)
            continue
        onset, offset = (float(cell.strip()) for cell in row.cells[:2])
        if onset == offset:
            findings.tell(
                "labels of no length are left out",
                f"{shown(label)} in {where(path, row.line)}",
            )
            continue
        rows.append(SegmentRow(onset, offset, label, row.line))
    if scores:
        label = scores[0].cells[2]
        findings.refuse(
            path,
            scores[0].line,
            f"label {shown(label)} is a score that `detect` wrote (so are "
            f"{len(scores) - 1} more): give each sound its label first",
        )
    return rows


def _begins_with_times(row: Row) -> bool:
    """Return True if a row has two cells that look like numbers."""
    return len(row.cells) > 1 and all(
        _NUMBER_LIKE.fullmatch(cell.strip()) for cell in row.cells[:2]
    )


def read_timit(
    path: Path, choice: AnnotationChoice, findings: Findings
) -> list[SegmentRow]:
    """Read a TIMIT transcription: first and last sample, and a word or phone.

    Raises
    ------
    NotOfFormatError, ConfigError
        The file is no transcription, or one of two tiers of which none is chosen.
    """
    tier = path.suffix[1:].casefold()
    if choice.tier and tier != choice.tier.casefold():
        raise NotOfFormatError(f"is another tier than --tier {choice.tier}")
    others = {"phn": (".wrd", ".WRD"), "wrd": (".phn", ".PHN")}[tier]
    if not choice.tier and any(path.with_suffix(end).exists() for end in others):
        raise ConfigError(
            f"{where(path)}: there are phones (.phn) and words (.wrd): "
            "choose by --tier phn or --tier wrd"
        )
    rows = []
    for line, text in enumerate(read_lines(path), 1):
        cells = text.split(None, 2)
        if not cells:
            continue
        label = clean_label(cells[2]) if len(cells) == 3 else ""
        if any(map(number_problem, cells[:2])) or not label:
            findings.refuse(
                path,
                line,
                "a line is first sample, last sample and text, with blanks between "
                f"them, and this one is {shown(text)}",
            )
            continue
        onset, offset = map(float, cells[:2])
        if onset % 1 or offset % 1:
            findings.refuse(path, line, FRACTION)
            continue
        rows.append(SegmentRow(onset, offset, label, line, in_samples=True))
    return rows
