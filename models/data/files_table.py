"""Table files.csv of a dataset: columns of its recordings, such as their split."""

import re
from dataclasses import dataclass
from pathlib import Path
from posixpath import normpath

from neurovocal.engine.contracts.errors import ConfigError
from neurovocal.engine.support.label_words import clean_label
from neurovocal.models.data.formats.segments import (
    Findings,
    NotOfFormatError,
    shown,
    where,
)
from neurovocal.models.data.formats.text_table import HeadedTable, own_table

FILES = "files.csv"
_NAME_COLUMNS = ("file", "filename", "file_name", "file name", "recording", "path")

# Words by which people name the parts of a split.
TRAIN, VALID, TEST, UNUSED = "train", "valid", "test", "unused"
_WORDS = {
    TRAIN: ("train", "training", "learn", "fit"),
    VALID: ("valid", "val", "validation", "validate", "dev", "devel", "development"),
    TEST: ("test", "testing", "eval", "evaluation", "holdout", "heldout"),
    UNUSED: (
        *("none", "no", "unused", "notused", "not", "exclude", "excluded", "ignore"),
        *("ignored", "skip", "skipped", "omit", "omitted", "predict", "na", "n/a"),
        *("nan", "null", ""),
    ),
}
_PARTS = {word: part for part, words in _WORDS.items() for word in words}
_SEPARATORS = re.compile(r"[\s_.-]+")
_NOUN = re.compile(r"(?<=.)(set|split|data)$")


@dataclass(frozen=True, slots=True)
class FileRow:
    """Columns of a recording in files.csv, by name in small letters, and its line."""

    columns: dict[str, str]
    line: int


def is_files_table(name: str) -> bool:
    """Return True for the name of a dataset's files.csv."""
    return name.casefold() == FILES


def read_files_table(folder: Path) -> dict[str, FileRow]:
    """Read a dataset's files.csv.

    Parameters
    ----------
    folder : Path
        Folder of the dataset.

    Returns
    -------
    dict
        Rows by the recording's path relative to `folder`; empty without the table.

    Raises
    ------
    ConfigError
        Lists every mistake with its line: a heading without the recording's column,
        rows with too many cells or without a name, recordings that are named twice.
    """
    path = own_table(folder, FILES)
    if not path.is_file():
        return {}
    findings = Findings()
    try:
        table = HeadedTable.read(path, findings, ",")
        named = [n for n in _NAME_COLUMNS if table.column(n) is not None]
        (at,) = table.require(*(named or _NAME_COLUMNS)[:1])
    except NotOfFormatError as error:
        raise ConfigError([*findings.problems, f"{where(path)}: {error}"]) from error
    names = [name.casefold() for name in table.heading]
    found: dict[str, FileRow] = {}
    for row in table.rows:
        cells = [cell.strip() for cell in row.cells]
        if not cells[at]:
            findings.refuse(path, row.line, "the name of the recording is missing")
            continue
        file = normpath(cells[at])
        if file in found:
            findings.refuse(
                path,
                row.line,
                f"{shown(file)} is named in line {found[file].line} already: leave one "
                "of the two lines",
            )
            continue
        found[file] = FileRow(dict(zip(names, cells, strict=True)), row.line)
    if not found and not findings.problems:
        findings.refuse(path, 0, "names no recording: add rows, or remove it")
    if findings.problems:
        raise ConfigError(findings.problems)
    return found


def part_of(word: str) -> str | None:
    """Return the part that a word names; None for an unknown word.

    Parameters
    ----------
    word : str
        Such as ``"Val"``, ``"test set"`` or ``"None"``; an empty word names none.
    """
    if not word.strip():
        return None
    bare = _SEPARATORS.sub("", clean_label(word).strip("\"'").casefold())
    return _PARTS.get(bare) or _PARTS.get(_NOUN.sub("", bare))


def is_ambiguous(word: str) -> bool:
    """Return True for words that mean the test to some and validation to others."""
    return _SEPARATORS.sub("", word.casefold()).startswith("eval")
