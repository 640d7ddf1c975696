"""Other formats, read by the crowsetta library."""

import math
import re
import warnings
from pathlib import Path
from typing import Any
from xml.parsers import expat

from neurovocal.engine.contracts.errors import ConfigError
from neurovocal.engine.support.label_words import clean_label
from neurovocal.engine.support.text import shortened
from neurovocal.models.data.formats.segments import (
    AnnotationChoice,
    Findings,
    NotOfFormatError,
    SegmentRow,
    label_problem,
    shown,
    where,
)


class CrowsettaFormat:
    """Format that crowsetta reads.

    Parameters
    ----------
    name : str
        crowsetta's name of it.

    Raises
    ------
    ConfigError
        crowsetta is not installed, or does not know the name.
    """

    def __init__(self, name: str) -> None:
        try:
            import crowsetta
        except ImportError as error:
            raise ConfigError(
                f"--format {name} needs crowsetta, which is not installed: pip install "
                "crowsetta"
            ) from error
        self._reader: Any = crowsetta.formats.by_name(name)
        suffixes = self._reader.ext
        found = (suffixes,) if isinstance(suffixes, str) else tuple(suffixes)
        self.name = name
        self.suffixes = tuple(suffix.casefold() for suffix in found)

    @staticmethod
    def names() -> list[str]:
        """Return the names of all formats that crowsetta reads, if it is installed."""
        try:
            import crowsetta
        except ImportError:
            return []
        return [str(name) for name in crowsetta.formats.as_list()]

    def read(
        self, path: Path, choice: AnnotationChoice, findings: Findings
    ) -> list[SegmentRow]:
        """Read the segments of all recordings that a file names.

        Raises
        ------
        NotOfFormatError, ConfigError
            crowsetta cannot read the file.
        """
        del choice
        try:
            # Its remarks about paths do not concern the segments.
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                converted = self._convert(path)
                return [
                    row
                    for annotation in converted
                    for row in _rows(annotation, path, findings)
                ]
        except Exception as error:  # each format raises other errors
            if problems := _xml_problems(path):
                raise ConfigError(problems) from error
            raise NotOfFormatError(
                f"cannot be read as {self.name}: {_reason(error)}"
            ) from error

    def _convert(self, path: Path) -> list[Any]:
        """Read a file without rounding its times, and without opening recordings."""
        found = self._reader.from_file(path)
        known = found.to_annot.__code__.co_varnames
        # crowsetta rounds to milliseconds by default, and a rate is read from the
        # recordings where none is given: the samples tell enough.
        options = {"round_times": False, "samplerate": 1}
        wanted = {name: value for name, value in options.items() if name in known}
        converted = found.to_annot(**wanted)
        return converted if isinstance(converted, list) else [converted]


def _rows(annotation: Any, path: Path, findings: Findings) -> list[SegmentRow]:
    """Convert crowsetta's boxes or sequences to rows."""
    named = annotation.notated_path
    name = "" if named is None else str(named)
    if getattr(annotation, "bboxes", None):
        found = [(b.onset, b.offset, b.label, False) for b in annotation.bboxes]
    else:
        sequences = annotation.seq
        sequences = sequences if isinstance(sequences, list) else [sequences]
        found = [
            (*_times(segment), segment.label, _has_samples(segment))
            for sequence in sequences
            for segment in sequence.segments
        ]
    rows = []
    for number, (onset, offset, text, in_samples) in enumerate(found, 1):
        label = clean_label(str(text))
        if problem := label_problem(label):
            findings.refuse(path, 0, f"segment {number}: {problem}")
            continue
        rows.append(
            SegmentRow(
                float(onset), float(offset), label, 0, name, in_samples=in_samples
            )
        )
    return rows


def _has_samples(segment: Any) -> bool:
    sample = segment.onset_sample
    return sample is not None and not math.isnan(sample)


def _times(segment: Any) -> tuple[float, float]:
    """Return onset and offset, in samples where they are known."""
    if _has_samples(segment):
        return segment.onset_sample, segment.offset_sample
    return segment.onset_s, segment.offset_s


def _reason(error: Exception) -> str:
    """Return why a file cannot be read, from what a library has raised."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, KeyError) and error.args:
        return f"it has no {shown(str(error.args[0]))}"
    if isinstance(error, AttributeError | TypeError | IndexError):
        return "it has another structure"  # the text is about the library's own code
    text = " ".join(str(error).split())
    return shortened(text[:1].lower() + text[1:]) if text else type(error).__name__


_XML_ROOT = "Sequences"
# Parts of the entries of the XML files of the "birdsong recognition dataset": whether
# they are whole numbers.
_XML_PARTS = {
    "Sequence": {"WaveFileName": False, "Position": True, "Length": True},
    "Note": {"Position": True, "Length": True, "Label": False},
}


def _xml_problems(path: Path) -> list[str]:
    """Return the mistakes in an XML file of that dataset, each with its line.

    Files that do not begin with its root are another program's: they have none.
    """
    parser = expat.ParserCreate()
    problems: list[str] = []
    # Of the open elements: name, line, parts with their texts.
    stack: list[tuple[str, int, dict[str, str]]] = []
    roots: list[str] = []
    text: list[str] = []

    def begin(name: str, attributes: dict[str, str]) -> None:
        if not stack:
            roots.append(name)
        stack.append((name, parser.CurrentLineNumber, {}))
        text.clear()

    def end(name: str) -> None:
        _, line, parts = stack.pop()
        if stack:
            stack[-1][2][name] = "".join(text).strip()
        for part, is_number in _XML_PARTS.get(name, {}).items():
            value = parts.get(part)
            if value is None:
                problems.append(f"{where(path, line)}: <{name}> has no <{part}>")
            elif is_number and not re.fullmatch(r"[+-]?[0-9]+", value):
                problems.append(
                    f"{where(path, line)}: <{part}> of <{name}> is {shown(value)}: "
                    "write a whole number of samples"
                )
        text.clear()

    parser.StartElementHandler = begin
    parser.EndElementHandler = end
    parser.CharacterDataHandler = text.append
    try:
        parser.Parse(path.read_bytes(), True)
    except OSError:
        return []
    except expat.ExpatError as error:
        reason = expat.ErrorString(error.code)
        problems.append(f"{where(path, error.lineno)}: the XML is damaged: {reason}")
    return problems if roots == [_XML_ROOT] else []
