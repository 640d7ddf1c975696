"""Summaries of journals as text: a table for people, and CSV."""

import csv
import io
from collections.abc import Iterable, Sequence
from datetime import datetime

from neurovocal.engine.journal import Summary
from neurovocal.engine.journal.periods import Outage, Period
from neurovocal.engine.support.text import printable

_NARROWEST = 60
_MOST_STREAMS = 10
_MOST_OUTAGES = 20
_BAR = 30
# Fewer columns of units are shown only if heard and segments leave no room.
_FEW_UNITS = 6
_ALWAYS = 3
_UNKNOWN = "time unknown"


def csv_text(summary: Summary) -> str:
    """Return a row per period, and a column ``unit:NAME`` for each unit."""
    units = summary.units()
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    fixed = ("heard_s", "lost_s", "withheld_s", "segments", "unlabelled", "near_misses")
    writer.writerow(["start", *fixed, *(f"unit:{unit}" for unit in units)])
    for period in summary.periods:
        row = [getattr(period, name) for name in fixed]
        numbers = [round(one, 3) if isinstance(one, float) else one for one in row]
        counts = [period.units.get(unit, 0) for unit in units]
        writer.writerow([period.start or "", *numbers, *counts])
    return stream.getvalue()


def table_text(summary: Summary, name: str, width: int = 80) -> str:
    """Return the summary for people, in lines of at most `width` characters.

    Parameters
    ----------
    summary : Summary
        What was counted.
    name : str
        Of the journal.
    width : int
        Columns of the terminal; at least 60 are used.
    """
    width = max(_NARROWEST, width)
    parts = [
        _heading(summary, name),
        _periods(summary, width),
        _units(summary, width),
        _activity(summary, width),
        _streams(summary, width),
        _outages(summary, width),
    ]
    lines = [line for part in parts if part for line in (*part, "")]
    return "\n".join(line.rstrip()[:width] for line in lines)


def _heading(summary: Summary, name: str) -> list[str]:
    total = summary.total
    streams = _number(len(summary.streams), "stream")
    lines = [
        f"Summary of {printable(name)} by {summary.by}, {summary.timezone}",
        "",
        f"heard {duration(total.heard_s)} in {streams}, "
        f"{_number(len(summary.runs), 'run')}",
        f"{_number(total.segments, 'segment')}, {total.unlabelled:,} without a label, "
        f"{_number(total.near_misses, 'near miss', 'near misses')}",
    ]
    missed = [
        f"{what} {duration(seconds)}"
        for what, seconds in (("lost", total.lost_s), ("withheld", total.withheld_s))
        if seconds
    ]
    return [*lines, ", ".join(missed)] if missed else lines


def _periods(summary: Summary, width: int) -> list[str]:
    """Return a line per period; units go before what is less often asked for."""
    if not summary.periods:
        return []
    rows = [*summary.periods, summary.total]
    first = [_start_of(period, summary.by) for period in summary.periods]
    fixed = {
        summary.by: [*first, "total"],
        "heard": [clock(period.heard_s) for period in rows],
        "segments": [f"{period.segments}" for period in rows],
        "no label": [f"{period.unlabelled}" for period in rows],
        "near": [f"{period.near_misses}" for period in rows],
        "lost": [clock(period.lost_s) for period in rows],
    }
    if not summary.total.lost_s:
        del fixed["lost"]
    units = summary.units()
    while True:
        room = width - sum(_width(*column) + 2 for column in fixed.items()) + 2
        shown = _unit_columns(units, rows, room)
        if len(shown) >= min(_FEW_UNITS, len(units)) or len(fixed) <= _ALWAYS:
            return _aligned([*fixed.items(), *shown], total=True)
        fixed.popitem()


def _unit_columns(
    units: Sequence[str], rows: Sequence[Period], room: int
) -> list[tuple[str, list[str]]]:
    """Return columns of the first units and, if not all fit, one of the others."""
    shown, rest = [], list(units)
    while rest:
        column = _unit_column(rest[0], rows)
        others = _width(*_rest_column(rest[1:], rows)) + 2 if rest[1:] else 0
        if room - _width(*column) - 2 < others:
            break
        room -= _width(*column) + 2
        shown.append(column)
        del rest[0]
    return [*shown, _rest_column(rest, rows)] if rest else shown


def _unit_column(unit: str, rows: Sequence[Period]) -> tuple[str, list[str]]:
    name = printable(unit)
    name = name if len(name) <= 12 else f"{name[:11]}…"
    return name, [str(row.units.get(unit, 0) or ".") for row in rows]


def _rest_column(units: Iterable[str], rows: Sequence[Period]) -> tuple[str, list[str]]:
    names = list(units)
    counts = [sum(row.units.get(unit, 0) for unit in names) for row in rows]
    return f"{len(names)} more", [str(count or ".") for count in counts]


def _units(summary: Summary, width: int) -> list[str]:
    """Return the units and their numbers, most frequent first, as running text."""
    counts = summary.total.units
    if not counts:
        return []
    whole = sum(counts.values())
    lines = [f"units ({whole:,} labels)"]
    line = " "
    for unit in summary.units():
        share = round(100 * counts[unit] / whole)
        word = f" {printable(unit)} {counts[unit]:,} ({share} %)"
        if len(line) + len(word) > width:
            lines.append(line)
            line = " "
        line += f"{word} "
    return [*lines, line]


def _activity(summary: Summary, width: int) -> list[str]:
    """Return segments per hour of listening, for each hour of the day."""
    active = [one for one in summary.activity if one.heard_s >= 1 or one.segments]
    if not active:
        return []
    rates = [3600 * one.segments / max(1.0, one.heard_s) for one in active]
    most = max(rates) or 1.0
    columns: list[tuple[str, list[str]]] = [
        ("hour", [f"{one.hour:02d}" for one in active]),
        ("heard", [clock(one.heard_s) for one in active]),
        ("segments", [str(one.segments) for one in active]),
        ("an hour", [f"{rate:.0f}" for rate in rates]),
    ]
    lines = _aligned(columns)
    bar = min(_BAR, width - len(lines[0]) - 2)
    bars = ["", *("#" * round(bar * rate / most) for rate in rates)]
    drawn = [f"{line}  {one}" for line, one in zip(lines, bars, strict=True)]
    return [f"activity over the day ({summary.timezone})", *drawn]


def _streams(summary: Summary, width: int) -> list[str]:
    if len(summary.streams) < 2:
        return []
    ranked = sorted(summary.streams.items(), key=lambda one: (-one[1].segments, one[0]))
    shown = ranked[:_MOST_STREAMS]
    room = width - 24
    columns = [
        ("stream", [_cut(printable(name), room) for name, _ in shown]),
        ("heard", [clock(period.heard_s) for _, period in shown]),
        ("segments", [str(period.segments) for _, period in shown]),
    ]
    lines = _aligned(columns)
    if more := len(ranked) - len(shown):
        lines.append(f"and {more:,} more with fewer segments")
    return lines


def _outages(summary: Summary, width: int) -> list[str]:
    if not summary.lost:
        return []
    lines = ["outages"]
    for reason, (number, seconds) in summary.lost.items():
        what = _number(number, "time")
        lines.append(f"  {printable(reason)}: {what}, {duration(seconds)} in all")
    longest = sorted(summary.outages, key=lambda one: -one.seconds)[:_MOST_OUTAGES]
    if not longest:
        return lines
    chosen = [one for one in summary.outages if one in longest]
    columns = [
        ("begins (UTC)", [_when(one) for one in chosen]),
        ("lasts", [clock(one.seconds) for one in chosen]),
        ("why", [printable(one.reason) for one in chosen]),
        ("stream", [printable(one.stream) or f"run {one.run}" for one in chosen]),
    ]
    lines += ["", *_aligned(columns, left=(0, 2, 3))]
    if more := len(summary.outages) - len(chosen):
        lines.append(f"and {more:,} shorter ones of a second and more")
    return lines


def _when(outage: Outage) -> str:
    if outage.start is None:
        return f"sample {outage.sample:,}"
    return outage.start[:19].replace("T", " ")


def _start_of(period: Period, by: str) -> str:
    if period.start is None:
        return _UNKNOWN
    start = datetime.fromisoformat(period.start)
    return f"{start:%Y-%m-%d}" if by == "day" else f"{start:%Y-%m-%d %H:%M}"


def _aligned(
    columns: Sequence[tuple[str, list[str]]],
    *,
    left: tuple[int, ...] = (0,),
    total: bool = False,
) -> list[str]:
    """Return a heading, a line per cell, and a rule before the last where `total`."""
    widths = [_width(name, cells) for name, cells in columns]
    texts = [[name, *cells] for name, cells in columns]
    lines = [
        "  ".join(
            cell.ljust(width) if place in left else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in zip(*texts, strict=True)
    ]
    if total:
        lines.insert(-1, "-" * len(lines[0]))
    return lines


def _width(name: str, cells: list[str]) -> int:
    return max(len(name), *(len(cell) for cell in cells))


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"


def _number(count: int, one: str, many: str = "") -> str:
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def clock(seconds: float) -> str:
    """Format seconds as hours, minutes and seconds, ``1:02:03``."""
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"


def duration(seconds: float) -> str:
    """Format seconds in words: ``0.4 s``, ``12 s``, ``3 min 20 s``, ``5 h 12 min``."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600:,} h {whole // 60 % 60} min"
