"""Names of the annotation formats, and the file names of each."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from neurovocal.engine.contracts.errors import ConfigError
from neurovocal.engine.support.text import did_you_mean
from neurovocal.models.data.formats.column_tables import (
    read_generic_sequence,
    read_raven,
    read_simple_sequence,
)
from neurovocal.models.data.formats.crowsetta_files import CrowsettaFormat
from neurovocal.models.data.formats.label_tracks import read_audacity, read_timit
from neurovocal.models.data.formats.notmat import read_notmat
from neurovocal.models.data.formats.segments import (
    AnnotationChoice,
    Findings,
    SegmentRow,
)
from neurovocal.models.data.formats.textgrid import read_textgrid

Reader: TypeAlias = Callable[[Path, AnnotationChoice, Findings], list[SegmentRow]]


@dataclass(frozen=True, slots=True)
class AnnotationFormat:
    """Format of annotation files.

    Parameters
    ----------
    name : str
        Name for ``--format``.
    suffixes : tuple of str
        Ends of the files' names, in small letters.
    read : callable
        Reads a file; raises NotOfFormatError if it is not of the format, ConfigError
        if it is one that cannot be used.
    options : frozenset of str
        Fields of `AnnotationChoice` that mean something for the format.
    has_heading : bool
        False if a file without any may be of the format: notes with numbers, too.
    """

    name: str
    suffixes: tuple[str, ...]
    read: Reader
    options: frozenset[str] = frozenset()
    has_heading: bool = True


_COLUMN = frozenset({"label_column"})
_TIER = frozenset({"tier"})
_AUDACITY = ("audacity", "aud-seq", "aud-bbox")
_OWN = {
    form.name: form
    for form in (
        *(
            AnnotationFormat(name, (".txt",), read_audacity, has_heading=False)
            for name in _AUDACITY
        ),
        AnnotationFormat("raven", (".txt",), read_raven, _COLUMN),
        AnnotationFormat("textgrid", (".textgrid",), read_textgrid, _TIER),
        AnnotationFormat("notmat", (".not.mat",), read_notmat),
        AnnotationFormat("timit", (".phn", ".wrd"), read_timit, _TIER),
        AnnotationFormat("simple-seq", (".csv", ".txt"), read_simple_sequence, _COLUMN),
        AnnotationFormat("generic-seq", (".csv",), read_generic_sequence, _COLUMN),
    )
}


_DEFAULT = ("csv", "annotations", "annotations.csv", "neurovocal")


def find_format(name: str) -> AnnotationFormat:
    """Return the format of a name; raises ConfigError if there is none."""
    wanted = name.casefold()
    if wanted in _OWN:
        return _OWN[wanted]
    others = CrowsettaFormat.names()
    if wanted in others:
        other = CrowsettaFormat(wanted)
        return AnnotationFormat(wanted, other.suffixes, other.read)
    known = sorted({*_OWN, *others})
    meant = (
        "annotations.csv is read without --format"
        if wanted in _DEFAULT
        else did_you_mean(wanted, known, "there are:")
    )
    raise ConfigError(f"unknown annotation format '{name}' ({meant})")
