"""Masks what differs from one recording to the next.

Masked, and by what it is replaced:

* the folders of the recording, of the repository's configurations and of the shipped
  bundles: `WORK`, `INPUTS`, `CONFIGS`, `BUNDLES`;
* names of runs (12 hexadecimal digits): `RUN`; ports that were chosen by the recording:
  `PORT`; process ids, which stand in names of temporary files only: not shown;
* times of the machine's clock (`started_utc_ns`, `ended_utc_ns`, dates of training):
  `TIME`; the program's version: `VERSION`;
* durations and latencies (`queue_ms`, `compute_ms`, `publish_ms`, `lag_ms`, `..._x`
  speeds, `N s` of training): `*`;
* line numbers and addresses of Python objects (`at 0x...`): `0x*`.

What follows the machine's clock and not the audio is described by its keys and types
alone: `stats`, `status` of the control socket, metrics, figures of `bench`.

Numbers that come from floating point computations are marked by `~` in recordings
that are not exact: they are compared with a tolerance (`comparing`).
"""

import csv
import io
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

NUMBER = r"-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?"
# Fields and columns whose values come from networks or filters.
LOOSE_FIELDS = frozenset(
    {
        *("posterior", "posteriors", "score", "level_db", "rms_db", "change"),
        *("surprise", "values", "mean", "max"),
    }
)
_BUNDLES = ("bengalese-finch", "zebra-finch", "spoken-digits")
_CLOCKS = "queue_ms|compute_ms|publish_ms|lag_ms|wall_s"
_PATTERNS: tuple[tuple[str, str], ...] = (
    (r"(?<![\w.])/[^\s'\":,]*/configs/", "CONFIGS/"),
    (rf"(?<![\w.])/[^\s'\":,]*/({'|'.join(_BUNDLES)})\b", r"BUNDLES/\1"),
    (r"(?<![0-9A-Za-z.])[0-9a-f]{12}(?![0-9A-Za-z])", "RUN"),
    (rf'"({_CLOCKS})": ?{NUMBER}', r'"\1":"*"'),
    (r'"mtime_ns": \d+', '"mtime_ns": "*"'),
    (r"\b0x[0-9a-f]{6,}\b", "0x*"),
    (r'"where": "[^"]*"', '"where": "*"'),
    (r"\bneurovocal \d+\.\d+\.\d+\S*", "neurovocal VERSION"),
    (r"(is bound at \S+:)\d+\b", r"\1PORT"),
    (r"stopped: heard [\d.]+ s: \d+ seg\w+, \d+ labels?", "stopped: heard * s"),
    (r"\b20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+\+00:00", "TIME"),
)
_FLOAT = r"-?\d+(?:\.\d+(?:[eE][+-]?\d+)?|[eE][+-]?\d+)"
_LOOSE_JSON = re.compile(rf'("(?:{"|".join(sorted(LOOSE_FIELDS))})": ?)({_FLOAT})')
_POSTERIORS = re.compile(
    r'(?<="posteriors":)[\[{][^\]}]*|\{(?:""?[\w ]+""?:[-\d.e]+,?)+\}'
)
# In tables without a heading; times have six decimals at most.
_LONG_FLOAT = re.compile(r"(?<![\w.~-])-?\d+\.\d{9,}\b")
# A row may hold the name of a column, such as the kind "surprise", beside numbers.
_HEADING = re.compile(r"[a-z][\w ()]*")
_LABEL_LINE = re.compile(rf"^(.* s  \S+ +)({NUMBER})(  +\d+ ms)$", re.MULTILINE)


class Masker:
    """Replaces what is volatile in a text.

    Parameters
    ----------
    places : dict
        Folder and the word that stands for it; inner folders first.
    exact : bool
        Whether numbers are kept as they are, without the mark of a tolerance.
    """

    def __init__(self, places: dict[Path, str], *, exact: bool) -> None:
        self.exact = exact
        self._words = {str(path): word for path, word in places.items()}
        # Names of files that are made of paths.
        named = {str(path).replace("/", "_"): word for path, word in places.items()}
        self._words |= named
        self._ports: set[int] = set()

    def add_port(self, port: int) -> None:
        """Mask a port from now on."""
        self._ports.add(port)

    def mask(self, text: str) -> str:
        """Return the text with what is volatile replaced."""
        for path, word in self._words.items():
            text = text.replace(path, word)
        for port in self._ports:
            text = re.sub(rf":{port}\b", ":PORT", text)
        for pattern, word in _PATTERNS:
            text = re.sub(pattern, word, text)
        return text.replace("\r", "\\r")

    def loose(self, text: str) -> str:
        """Mark the numbers of loose fields and columns in any kind of text."""
        if self.exact:
            return text
        text = _LOOSE_JSON.sub(r"\1~\2", text)
        text = _POSTERIORS.sub(lambda found: _marked(found[0]), text)
        text = _LABEL_LINE.sub(r"\1~\2\3", text)
        text = _LONG_FLOAT.sub(r"~\g<0>", text)
        return _loose_columns(text)

    def number(self, value: float) -> str:
        """Write a floating point number: whole, or rounded and marked."""
        return repr(value) if self.exact else f"~{value:.4g}"


def _marked(text: str) -> str:
    return re.sub(rf"(?<![\w.~-]){_FLOAT}", r"~\g<0>", text)


def _loose_columns(text: str) -> str:
    """Mark loose columns of tables whose first line names them."""
    lines = text.split("\n")
    columns: list[int] = []
    separator = ","
    for index, line in enumerate(lines):
        for candidate in (",", "\t"):
            cells = [cell.strip().lower() for cell in line.split(candidate)]
            is_heading = all(map(_HEADING.fullmatch, cells))
            if len(cells) > 2 and is_heading and LOOSE_FIELDS & set(cells):
                separator, width = candidate, len(cells)
                columns = [i for i, cell in enumerate(cells) if cell in LOOSE_FIELDS]
                break
        else:
            if not columns or separator not in line:
                continue
            cells = next(csv.reader([line], delimiter=separator))
            if len(cells) == width:
                for column in columns:
                    if re.fullmatch(NUMBER, cells[column]):
                        cells[column] = f"~{cells[column]}"
                lines[index] = _joined(cells, separator)
    return "\n".join(lines)


def _joined(cells: list[str], separator: str) -> str:
    out = io.StringIO()
    csv.writer(out, delimiter=separator, lineterminator="").writerow(cells)
    return out.getvalue()


def form_of(value: Any) -> Any:
    """Keys and types of a JSON value, without its content."""
    if isinstance(value, dict):
        return {key: form_of(item) for key, item in value.items()}
    if isinstance(value, list):
        forms = [form_of(item) for item in value]
        same = all(form == forms[0] for form in forms)
        return [forms[0], "..."] if len(forms) > 1 and same else forms
    return "number" if type(value) in (int, float) else type(value).__name__


def clock_form(value: Any) -> Any:
    """Keys and types of what is counted while time goes on.

    Which events have been counted by now follows the clock: they are left out.
    """
    return form_of(replaced(value, ("events", "outcomes")))


def replaced(value: Any, names: Iterable[str], by: str = "*") -> Any:
    """Replace the values of these keys wherever they stand in a JSON value."""
    names = frozenset(names)
    if isinstance(value, dict):
        return {
            key: by if key in names and item is not None else replaced(item, names, by)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [replaced(item, names, by) for item in value]
    return value


def compact(value: Any) -> str:
    """Write a JSON value on one line."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
