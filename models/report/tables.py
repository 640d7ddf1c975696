"""Tables and curves of measures, with a sentence of explanation where there is one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from itertools import pairwise
from typing import Any

import numpy as np
import yaml

from neurovocal.engine.contracts.bundle import ClassifierSpec

_SPECIAL = {"units", "confusion"}  # shown by a figure and a table of their own


@dataclass(frozen=True, slots=True)
class ReportTable:
    """Rows of text with a title and an explanation, which may be empty."""

    title: str
    columns: list[str]
    rows: list[list[str]]
    meaning: str = ""


@dataclass(frozen=True, slots=True)
class ReportSeries:
    """Curves over an increasing number, such as a delay."""

    title: str
    x_name: str
    x: list[float]
    columns: dict[str, list[float | None]]


def measure_rows(figures: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Return name, value and meaning of every number in `figures`."""
    return [
        (as_text(name), format_value(value), _meanings().get(name, ""))
        for name, value in figures.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    ]


def unit_table(
    units: Sequence[str], counts: Sequence[Sequence[int]], spec: ClassifierSpec
) -> ReportTable:
    """Return support, precision, recall, F1 and threshold of each unit."""
    table = np.asarray(counts, float).reshape(len(units), len(units))
    hits, support, given = table.diagonal(), table.sum(axis=1), table.sum(axis=0)
    rows = []
    for place, unit in enumerate(units):
        both = support[place] + given[place]
        threshold = spec.thresholds.get(unit)
        rows.append(
            [
                unit,
                f"{support[place]:.0f}",
                _share(hits[place], given[place]),
                _share(hits[place], support[place]),
                _share(2 * hits[place], both),
                "none" if threshold is None else f"{threshold:.3f}",
            ]
        )
    columns = ["unit", "support", "precision", "recall", "F1", "threshold"]
    return ReportTable("Units", columns, rows)


def extra_tables(
    figures: Mapping[str, Any],
) -> tuple[list[ReportTable], list[ReportSeries]]:
    """Return all other figures as tables, and as curves where x increases."""
    tables, series = [], []
    for name, value in figures.items():
        if name in _SPECIAL or not isinstance(value, Mapping | Sequence):
            continue
        if isinstance(value, str) or not value:
            continue
        columns, cells = _grid(value)
        tables.append(
            ReportTable(
                as_text(name),
                columns,
                [[format_value(c) for c in row] for row in cells],
                _meanings().get(name, ""),
            )
        )
        curve = _series(as_text(name), columns, cells)
        if curve is not None:
            series.append(curve)
    return tables, series


def as_text(name: str) -> str:
    """Return the name of a measure with spaces."""
    return name.replace("_", " ")


def format_value(value: Any) -> str:
    """Format a value for a table: numbers with 4 digits, None as a dash."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{as_text(k)} {format_value(v)}" for k, v in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(format_value(v) for v in value)
    return str(value)


@lru_cache
def _meanings() -> dict[str, str]:
    text = (
        files("neurovocal.models.report").joinpath("meanings.yaml").read_text("utf-8")
    )
    found: dict[str, str] = yaml.safe_load(text)
    return found


def _grid(value: Any) -> tuple[list[str], list[list[Any]]]:
    """Return columns and cells of nested mappings and sequences."""
    if isinstance(value, Mapping):
        items = list(value.items())
        if all(isinstance(v, Mapping) for _, v in items):
            names = list(dict.fromkeys(k for _, v in items for k in v))
            return ["", *map(as_text, names)], [
                [_key_value(k), *(v.get(n) for n in names)] for k, v in items
            ]
        if _columnar([v for _, v in items]):
            turned = zip(*(v for _, v in items), strict=True)
            return [as_text(k) for k, _ in items], [list(row) for row in turned]
        return ["", "value"], [[_key_value(k), v] for k, v in items]
    rows = list(value)
    if all(isinstance(row, Mapping) for row in rows):
        names = list(dict.fromkeys(k for row in rows for k in row))
        return [as_text(n) for n in names], [[r.get(n) for n in names] for r in rows]
    if all(isinstance(row, Sequence) and not isinstance(row, str) for row in rows):
        width = max(len(row) for row in rows)
        return [""] * width, [[*row, *[None] * (width - len(row))] for row in rows]
    return ["", "value"], [[place, row] for place, row in enumerate(rows)]


def _columnar(values: list[Any]) -> bool:
    """Return whether all values are lists of one length."""
    lists = [v for v in values if isinstance(v, Sequence) and not isinstance(v, str)]
    return len(lists) == len(values) > 1 and len({len(v) for v in lists}) == 1


def _series(
    title: str, columns: list[str], cells: list[list[Any]]
) -> ReportSeries | None:
    """Return the curves of a grid without rows that do not begin with a number."""
    rows = [row for row in cells if _is_number(row[0])]
    x = [float(row[0]) for row in rows]
    if len(x) < 3 or any(b <= a for a, b in pairwise(x)):
        return None
    curves = {
        name or "value": [row[k] for row in rows]
        for k, name in enumerate(columns)
        if k and all(row[k] is None or _is_number(row[k]) for row in rows)
    }
    return ReportSeries(title, columns[0], x, curves) if curves else None


def _key_value(key: Any) -> Any:
    """Return a key as a number where it is one, else as text."""
    try:
        return float(key)
    except (TypeError, ValueError):
        return as_text(str(key))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _share(part: float, whole: float) -> str:
    return f"{part / whole:.3f}" if whole else "-"
