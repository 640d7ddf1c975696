"""Picture of a summary: labels by time, what was heard, activity over the day."""

from datetime import datetime
from typing import Any

import numpy as np

from neurovocal.engine.journal import Summary
from neurovocal.engine.journal.periods import Period
from neurovocal.plugins.pictures import drawable, png_of

TITLE = "neurovocal: summary of a journal"  # stands in the file
_MOST_UNITS = 20
_MOST_TICKS = 8
_INK, _LOST = "#35608d", "#c8553d"


def draw_summary(summary: Summary, name: str) -> bytes:
    """Return a PNG with the labels of each unit, what was heard, and the day.

    Parameters
    ----------
    summary : Summary
        What was counted. Recordings whose time is not known are left out, and the title
        says so; of them alone the labels of each unit are drawn.
    name : str
        Of the journal.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    periods = [period for period in summary.periods if period.start is not None]
    units = summary.units()[:_MOST_UNITS]
    if not periods:
        return _draw_totals(summary, name, units)
    heights = [max(1.2, 0.28 * len(units) + 0.6), 1.6, 2.0]
    figure = Figure(figsize=(10, sum(heights) + 1.4), layout="constrained")
    FigureCanvasAgg(figure)
    labels, heard, day = figure.subplots(3, 1, height_ratios=heights)
    title = f"{name} by {summary.by}, {summary.timezone}"
    unknown = summary.total.heard_s - sum(period.heard_s for period in periods)
    if unknown >= 1:
        title += f" ({unknown / 60:.1f} min of unknown time not drawn)"
    figure.suptitle(drawable(title))
    slots = _slots(periods, summary.by)
    _draw_units(figure, labels, summary, periods, units, slots)
    _draw_heard(heard, periods, slots)
    for axis in (labels, heard):
        _set_times(axis, periods, slots, summary.by)
    _draw_day(day, summary)
    return png_of(figure, Title=TITLE)


def _draw_totals(summary: Summary, name: str, units: list[str]) -> bytes:
    """Return a PNG with the labels of each unit, for recordings of unknown time."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(
        figsize=(10, max(2.0, 0.28 * len(units) + 1.4)), layout="constrained"
    )
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    heard = f"{summary.total.heard_s / 60:.1f} min heard, at a time that is not known"
    figure.suptitle(drawable(f"{name}: {heard}"))
    counts = [summary.total.units[unit] for unit in units]
    bars = axis.barh(range(len(units)), counts, color=_INK)
    axis.bar_label(bars, padding=3)
    names = [drawable(unit) for unit in units]
    axis.set_yticks(range(len(units)), names, parse_math=False)
    axis.invert_yaxis()
    more = len(summary.total.units) - len(units)
    axis.set_xlabel("labels" + (f" ({more} rarer units not drawn)" if more else ""))
    if not units:
        axis.text(0.5, 0.5, "none", ha="center", va="center", transform=axis.transAxes)
    return png_of(figure, Title=TITLE)


def _slots(periods: list[Period], by: str) -> list[int]:
    """Return the place of each period on the axis; hours without any are left blank."""
    starts = [datetime.fromisoformat(str(period.start)) for period in periods]
    if not starts:
        return []
    step = 86400 if by == "day" else 3600
    # A day of summer time's end has 25 hours: its date counts.
    days = [start.toordinal() * 86400 for start in starts]
    times = days if by == "day" else [round(start.timestamp()) for start in starts]
    return [(time - times[0]) // step for time in times]


def _draw_units(
    figure: Any,
    axis: Any,
    summary: Summary,
    periods: list[Period],
    units: list[str],
    slots: list[int],
) -> None:
    more = len(summary.total.units) - len(units)
    title = "labels" + (f" ({more} rarer units not drawn)" if more else "")
    axis.set_title(title, loc="left", fontsize="medium")
    if not units or not slots:
        axis.text(0.5, 0.5, "none", ha="center", va="center", transform=axis.transAxes)
        axis.set_yticks([])
        return
    counts = np.full((len(units), slots[-1] + 1), np.nan)
    for slot, period in zip(slots, periods, strict=True):
        counts[:, slot] = [period.units.get(unit, 0) for unit in units]
    image = axis.imshow(
        counts,
        aspect="auto",
        interpolation="nearest",
        cmap="viridis",
        extent=(-0.5, slots[-1] + 0.5, len(units) - 0.5, -0.5),
        vmin=0,
    )
    names = [drawable(unit) for unit in units]
    axis.set_yticks(range(len(units)), names, parse_math=False)
    figure.colorbar(image, ax=axis, pad=0.01, label=f"per {summary.by}")


def _draw_heard(axis: Any, periods: list[Period], slots: list[int]) -> None:
    axis.set_title("heard, and lost in gaps", loc="left", fontsize="medium")
    axis.set_ylabel("minutes")
    heard = [period.heard_s / 60 for period in periods]
    lost = [period.lost_s / 60 for period in periods]
    axis.bar(slots, heard, width=1.0, color=_INK, label="heard")
    if any(lost):
        axis.bar(slots, lost, width=1.0, bottom=heard, color=_LOST, label="lost")
        axis.legend(fontsize="small", loc="upper right")


def _draw_day(axis: Any, summary: Summary) -> None:
    axis.set_title("activity over the day", loc="left", fontsize="medium")
    rates = [
        3600 * one.segments / one.heard_s if one.heard_s >= 1 else np.nan
        for one in summary.activity
    ]
    hours = np.arange(24)
    axis.bar(hours + 0.5, np.nan_to_num(rates), width=0.9, color=_INK)
    for hour in hours[np.isnan(rates)]:
        axis.axvspan(hour, hour + 1, color="0.9", lw=0)
    axis.set_xlim(0, 24)
    axis.set_xticks(range(0, 25, 3))
    axis.set_xlabel(f"hour of the day, {summary.timezone} (grey: not heard)")
    axis.set_ylabel("segments per hour")


def _set_times(axis: Any, periods: list[Period], slots: list[int], by: str) -> None:
    if not slots:
        return
    axis.set_xlim(-0.5, slots[-1] + 0.5)
    every = max(1, -(-len(slots) // _MOST_TICKS))
    form = "%Y-%m-%d" if by == "day" else "%m-%d %H:%M"
    chosen = list(zip(slots, periods, strict=True))[::every]
    texts = [f"{datetime.fromisoformat(str(one.start)):{form}}" for _, one in chosen]
    axis.set_xticks([slot for slot, _ in chosen], texts)
