"""What is read of an annotation file: rows, mistakes, and what a user is told."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from neurovocal.engine.support.text import plain, printable

_MOST_EXAMPLES = 5
_LONGEST_SHOWN = 40
_LONGEST_LABEL = 250
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_COMMA = re.compile(r"[+-]?[0-9]+(?:[.,'][0-9]{3})*,[0-9]+")
_LARGEST = 1e12
FRACTION = "first and last sample must be whole numbers: are they seconds?"


@dataclass(frozen=True, slots=True)
class AnnotationChoice:
    """Which of the labels in the files are meant.

    Parameters
    ----------
    label_column : str, optional
        Column of the labels in a table with a heading.
    tier : str, optional
        Name or number of a TextGrid's interval tier; for TIMIT ``phn`` or ``wrd``.
    channels : tuple of int
        Channels whose sound and labels are used, from 1; empty for all that have
        labels of their own, or else the first.
    needs_labels : bool
        Whether each segment must have a label. Where it need not, a table may lack the
        column, and what has no label has an empty one.
    """

    label_column: str | None = None
    tier: str | None = None
    channels: tuple[int, ...] = ()
    needs_labels: bool = True


@dataclass(frozen=True, slots=True)
class SegmentRow:
    """Labelled segment as it stands in an annotation file.

    Parameters
    ----------
    onset, offset : float
        Times from the start of the recording, in seconds or samples.
    label : str
        Label in the form of `clean_label`.
    line : int
        Line in the file, from 1; 0 if the file has no lines.
    recording : str
        Name of the recording in the file; empty if the file is named like it.
    channel : int, optional
        Channel of the recording, from 1; None if the file does not say.
    in_samples : bool
        Whether the times are sample indices.
    """

    onset: float
    offset: float
    label: str
    line: int = 0
    recording: str = ""
    channel: int | None = None
    in_samples: bool = False


class NotOfFormatError(Exception):
    """A file is not of the format at all; the text says what is missing."""


@dataclass
class Findings:
    """Mistakes that refuse a dataset, and what its user is told besides."""

    problems: list[str] = field(default_factory=list)
    told: dict[str, Counter[str]] = field(
        default_factory=lambda: defaultdict(Counter[str])
    )

    def refuse(self, path: Path, line: int, sentence: str) -> None:
        """Add a mistake with its file, and its line unless that is 0."""
        self.problems.append(f"{where(path, line)}: {sentence}")

    def tell(self, what: str, example: str) -> None:
        """Note that `what`, a clause without its subject, holds for `example`."""
        self.told[what][example] += 1

    def add(self, other: "Findings") -> None:
        """Add all that another reading has found."""
        self.problems += other.problems
        for what, examples in other.told.items():
            self.told[what].update(examples)

    def notes(self) -> Iterator[str]:
        """Yield a sentence for each thing that was told, with the first examples."""
        for what, examples in self.told.items():
            shown_first = [
                f"{example} ({n} times)" if n > 1 else example
                for example, n in [*examples.items()][:_MOST_EXAMPLES]
            ]
            more = len(examples) - len(shown_first)
            rest = f" and {more} more" if more else ""
            yield f"{what}: {', '.join(shown_first)}{rest}"


def where(path: Path, line: int = 0) -> str:
    """Return a file's name for a message, with the line unless it is 0."""
    name = printable(str(path))
    return f"{name}:{line}" if line else name


def shown(text: str) -> str:
    """Return a cell or name in quotes for a message, shortened and printable."""
    if len(text) > _LONGEST_SHOWN:
        text = f"{text[:_LONGEST_SHOWN]}..."
    return f"'{printable(plain(text))}'"


def label_problem(label: str) -> str | None:
    """Return the fault of a label in a sentence; None if it has none."""
    if not label:
        return "the label is empty"
    if len(label) > _LONGEST_LABEL:
        return (
            f"the label has {len(label)} letters, {_LONGEST_LABEL} at most can be "
            f"used: {shown(label)}"
        )
    return None


def number_problem(cell: str) -> str | None:
    """Return why a cell is no finite number, in a clause; None if it is one."""
    text = cell.strip()
    if _NUMBER.fullmatch(text):
        return None if abs(float(text)) <= _LARGEST else "is too large"
    if not text:
        return "is empty"
    if _COMMA.fullmatch(text):
        return "has a comma: write a decimal point and no separator of thousands"
    if text.lower().lstrip("+-") in ("inf", "infinity", "nan"):
        return "is not finite"
    return "is not a number"
