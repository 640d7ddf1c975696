"""Table annotations.csv of a dataset: labelled segments of its recordings."""

import csv
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from neurovocal.engine.contracts.errors import ConfigError
from neurovocal.models.data.label_words import clean_label

ANNOTATIONS = "annotations.csv"
AUDIO_SUFFIXES = (".wav", ".flac", ".ogg", ".aif", ".aiff", ".au", ".mp3", ".w64")
_COLUMNS = ("file", "onset_s", "offset_s", "label")


@dataclass(frozen=True, slots=True)
class Annotation:
    """A labelled segment of a recording, in seconds from the start of the file."""

    onset_s: float
    offset_s: float
    unit: str


def read_annotations(folder: Path) -> dict[str, list[Annotation]]:
    """Read a dataset's annotations.csv.

    Parameters
    ----------
    folder : Path
        Folder of the dataset.

    Returns
    -------
    dict
        Annotations by file name, in the order of the table.

    Raises
    ------
    ConfigError
        The table is missing or unreadable, or has missing columns, empty labels or
        invalid times.
    """
    path = folder / ANNOTATIONS
    if not path.is_file():
        raise ConfigError(
            f"dataset '{folder}' has no {ANNOTATIONS} with columns "
            f"{','.join(_COLUMNS)}; for another format say --format"
        )
    rows: dict[str, list[Annotation]] = {}
    problems: list[str] = []
    with _open_table(path) as stream:
        reader = csv.DictReader(stream)
        missing = [name for name in _COLUMNS if name not in (reader.fieldnames or ())]
        if missing:
            found = ",".join(reader.fieldnames or ()) or "nothing"
            raise ConfigError(
                f"{path}: {', '.join(missing)} {'is' if len(missing) == 1 else 'are'} "
                f"missing: the first line must name the columns "
                f"{','.join(_COLUMNS)}, and names {found[:200]}"
            )
        for line, row in enumerate(reader, start=2):
            where = f"{path}:{line}"
            try:
                onset_s, offset_s = float(row["onset_s"]), float(row["offset_s"])
            except (TypeError, ValueError):
                problems.append(f"{where}: onset_s or offset_s is not a number")
                continue
            unit = clean_label(row["label"] or "")
            if not math.isfinite(onset_s) or not math.isfinite(offset_s):
                problems.append(f"{where}: onset_s or offset_s is not finite")
            elif not unit:
                problems.append(f"{where}: the label is empty")
            else:
                annotation = Annotation(onset_s, offset_s, unit)
                rows.setdefault(row["file"], []).append(annotation)
    if problems:
        raise ConfigError(truncate_problems(problems))
    return rows


@contextmanager
def _open_table(path: Path) -> Iterator[TextIO]:
    """Open a UTF-8 table; raises ConfigError if it cannot be read."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            yield stream
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{path} is not UTF-8 text: save it as CSV in UTF-8 ({error})"
        ) from error
    except (OSError, csv.Error) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error


def truncate_problems(problems: list[str], limit: int = 20) -> list[str]:
    """Return the first `limit` problems and a line with the number of the others."""
    more = len(problems) - limit
    return [*problems[:limit], f"and {more} more like these"] if more > 0 else problems
