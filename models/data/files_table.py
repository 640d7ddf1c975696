"""Table files.csv of a dataset: columns of its recordings, such as their split."""

import csv
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from posixpath import normpath

from neurovocal.engine.contracts.errors import ConfigError

FILES = "files.csv"
_NAME_COLUMNS = ("file", "filename", "file_name", "file name", "recording", "path")
_OTHER_SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars"}

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
    path = folder / FILES
    if not path.is_file():
        return {}
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.reader(stream, strict=True)
            rows = [(reader.line_num, [cell.strip() for cell in row]) for row in reader]
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{path} is not UTF-8 text: save it as CSV in UTF-8 ({error})"
        ) from error
    except (OSError, csv.Error) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    rows = [(line, cells) for line, cells in rows if any(cells)]
    heading = rows[0][1] if rows else []
    names = [name.casefold() for name in heading]
    at = _name_column(path, heading, names)
    found: dict[str, FileRow] = {}
    problems = []
    for line, cells in rows[1:]:
        where = f"{path}:{line}"
        if len(cells) > len(names):
            problems.append(
                f"{where}: {len(cells)} cells, the heading names {len(names)} columns"
            )
            continue
        cells += [""] * (len(names) - len(cells))
        if not cells[at]:
            problems.append(f"{where}: the name of the recording is missing")
            continue
        file = normpath(cells[at])
        if file in found:
            problems.append(
                f"{where}: '{file}' is named in line {found[file].line} already: "
                "leave one of the two lines"
            )
            continue
        found[file] = FileRow(dict(zip(names, cells, strict=True)), line)
    if problems:
        raise ConfigError(problems)
    return found


def _name_column(path: Path, heading: Sequence[str], names: Sequence[str]) -> int:
    """Return the position of the column with the recordings' names."""
    twice = [name for name, n in Counter(names).items() if name and n > 1]
    if twice:
        raise ConfigError(f"{path}:1: the heading names '{twice[0]}' twice")
    for name in _NAME_COLUMNS:
        if name in names:
            return names.index(name)
    text = ",".join(heading)
    problem = (
        f"{path}: the first line must name the column 'file', and names "
        f"{text[:200] or 'nothing'}"
    )
    for separator, noun in _OTHER_SEPARATORS.items():
        if separator in text:
            problem = (
                f"{path}: its columns are separated by {noun}: save it with commas, "
                "the first line beginning with 'file,'"
            )
    raise ConfigError(problem)


def part_of(word: str) -> str | None:
    """Return the part that a word names; None for an unknown word.

    Parameters
    ----------
    word : str
        Such as ``"Val"``, ``"test set"`` or ``"None"``; an empty word names none.
    """
    if not word.strip():
        return None
    bare = _SEPARATORS.sub("", word.strip().strip("\"'").casefold())
    return _PARTS.get(bare) or _PARTS.get(_NOUN.sub("", bare))


def is_ambiguous(word: str) -> bool:
    """Return True for words that mean the test to some and validation to others."""
    return _SEPARATORS.sub("", word.casefold()).startswith("eval")
