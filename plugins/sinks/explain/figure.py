"""Picture of a stretch of a recording: marks, spectrogram, score, noise floor."""

from bisect import bisect, insort
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from neurovocal.engine import Float32
from neurovocal.plugins.pictures import drawable, new_figure, png_of

if TYPE_CHECKING:
    from neurovocal.plugins.sinks.explain.sink import Heard

_PIXELS_PER_INCH = 100
_INCHES_PER_S, _LEAST_INCHES, _MOST_INCHES = 1.6, 12.0, 48.0
_MARGIN_INCHES = 1.2  # what axes and their labels take of the width
_HEIGHTS = {"marks": 1.0, "sound": 3.0, "score": 2.0, "floor": 1.2}
_SEGMENT, _LABEL = "#1a9850", "#1f78b4"
_REASONS = {
    "quiet": ("#f28e2b", "near miss: below the threshold"),
    "short": ("#d62728", "near miss: too short"),
    "soon": ("#9467bd", "near miss: too soon after a segment"),
}
_LEAST_RANGE_DB, _MOST_RANGE_DB = 30.0, 80.0
# Windows of spectra, in samples; levels of silence, and frames computed together.
_WINDOW_S, _SHORTEST, _LONGEST = 0.008, 64, 1024
_LOWEST_DB = -140.0
_FRAMES_AT_ONCE = 4096
_LONGEST_NAME = 50  # the end of a name tells recordings apart
_LABEL_ROW, _SEGMENT_ROW, _NEAR_ROW = 2.0, 1.0, 0.0
_LABELS_HEIGHT = 0.6  # added to the marks by a row of labels
_SCORE_INCHES, _REASON_INCHES = 0.32, 0.62  # width of a number, and with its reason
_LETTER_INCHES = 0.08


def picture_of(heard: "Heard", title: str) -> bytes:
    """Return the picture of a stretch as PNG, with `title` in the file.

    Parameters
    ----------
    heard : Heard
        What the stretch held.
    title : str
        Text by which the file is recognized.
    """
    seconds = heard.stop_s - heard.start_s
    inches = min(max(_INCHES_PER_S * seconds, _LEAST_INCHES), _MOST_INCHES)
    panels = ["marks", "sound"]
    if len(heard.trace):
        panels.append("score")
        if np.isfinite(heard.trace[:, 3]).any():
            panels.append("floor")
    heights = dict(_HEIGHTS)
    if heard.labels:
        heights["marks"] += _LABELS_HEIGHT
    figure, axes = new_figure(inches, [heights[name] for name in panels])
    by_name = dict(zip(panels, axes, strict=True))
    per_inch = seconds / (inches - _MARGIN_INCHES)
    _draw_marks(by_name["marks"], heard, per_inch)
    _draw_sound(by_name["sound"], heard, round(inches * _PIXELS_PER_INCH))
    if "score" in by_name:
        _draw_score(by_name["score"], heard)
    if "floor" in by_name:
        _draw_floor(by_name["floor"], heard)
    axes[-1].set_xlabel("time in the recording, s")
    axes[-1].set_xlim(heard.start_s, heard.stop_s)
    for axis in axes:
        for start_s, stop_s, _ in heard.gaps:
            axis.axvspan(start_s, stop_s, color="0.7", zorder=3, lw=0)
    _add_legend(figure, by_name, heard)
    return png_of(figure, Title=title)


@dataclass(frozen=True, slots=True)
class _Bar:
    """Bar of the panel of marks, with texts in two lines where there is room.

    What has a higher `rank` is written first.
    """

    start_s: float
    stop_s: float
    text: str
    rank: float
    color: str
    above: str = ""


def _bars(heard: "Heard") -> dict[float, list[_Bar]]:
    """Return the bars of each row."""
    rows = {
        _SEGMENT_ROW: [
            _Bar(s.onset_s, s.offset_s, _number(s.score), s.score, _SEGMENT)
            for s in heard.segments
        ],
        _NEAR_ROW: [
            _Bar(
                start_s,
                stop_s,
                f"{_number(event.score)} {event.reason}",
                event.score,
                _REASONS[event.reason][0],
            )
            for start_s, stop_s, event in heard.near_misses
        ],
    }
    if heard.labels:
        rows[_LABEL_ROW] = [
            _Bar(
                label.onset_s,
                label.offset_s,
                drawable(label.unit),
                label.offset_s - label.onset_s,
                _LABEL,
                f"{label.posterior:.2f}",
            )
            for label in heard.labels
        ]
    return rows


def _draw_marks(axis: Any, heard: "Heard", per_inch: float) -> None:
    """Draw labels, segments and near misses as bars, with texts where there is room."""
    left = 0
    names = {_NEAR_ROW: "near misses", _SEGMENT_ROW: "segments", _LABEL_ROW: "labels"}
    widths = {_NEAR_ROW: _REASON_INCHES, _SEGMENT_ROW: _SCORE_INCHES}
    rows = _bars(heard)
    for row, bars in rows.items():
        longest = max((len(bar.text) for bar in bars), default=0)
        width = widths.get(row, (longest + 1) * _LETTER_INCHES) * per_inch
        left += _write(axis, heard, bars, row + 0.2, width)
        above = [replace(bar, text=bar.above) for bar in bars if bar.above]
        _write(axis, heard, above, row + 0.55, _SCORE_INCHES * per_inch)
        for bar in bars:
            seconds = bar.stop_s - bar.start_s
            axis.barh(row, seconds, 0.3, left=bar.start_s, color=bar.color, lw=0)
    axis.set_ylim(-0.3, max(rows) + (0.7 if max(rows) < _LABEL_ROW else 1.1))
    axis.set_yticks(sorted(rows), [names[row] for row in sorted(rows)])
    axis.tick_params(axis="y", length=0)
    for side in ("top", "right", "left"):
        axis.spines[side].set_visible(False)
    omitted = sum(event.omitted for _, _, event in heard.near_misses)
    facts = [
        *([_count(len(heard.labels), "label", "labels")] if heard.labels else []),
        _count(len(heard.segments), "segment", "segments"),
        _count(len(heard.near_misses), "near miss", "near misses"),
        *([f"{omitted} more were too many to tell"] if omitted else []),
        *([f"{left} without room for their text"] if left else []),
        *([] if heard.unit else ["no scores"]),
    ]
    span = f"{heard.start_s:g} to {heard.stop_s:g} s"
    stream = drawable(heard.stream)
    if len(stream) > _LONGEST_NAME:
        stream = f"...{stream[-_LONGEST_NAME:]}"
    title = f"{stream}, {span}: {', '.join(facts)}"
    axis.set_title(title, loc="left", fontsize="medium", parse_math=False)


def _write(
    axis: Any, heard: "Heard", bars: Sequence[_Bar], y: float, width: float
) -> int:
    """Write the texts of bars at a height; return how many had no room."""
    middles = [(bar.start_s + bar.stop_s) / 2 for bar in bars]
    shown = _with_room(middles, [bar.rank for bar in bars], width)
    for index in shown:
        axis.text(
            min(max(middles[index], heard.start_s), heard.stop_s),
            y,
            bars[index].text,
            ha="center",
            va="bottom",
            fontsize=8,
            color=bars[index].color,
            clip_on=False,
            parse_math=False,
        )
    return len(bars) - len(shown)


def _with_room(
    middles: Sequence[float], scores: Sequence[float], width: float
) -> set[int]:
    """Return which texts are drawn: none overlaps another, high scores come first."""
    taken: list[float] = []
    shown = set()
    for index in sorted(range(len(middles)), key=lambda i: -scores[i]):
        place = bisect(taken, middles[index])
        beside = taken[max(0, place - 1) : place + 1]
        if all(abs(other - middles[index]) >= width for other in beside):
            insort(taken, middles[index])
            shown.add(index)
    return shown


def _count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"


def _number(score: float) -> str:
    return f"{score:.2f}" if abs(score) < 1 else f"{score:.1f}"


def _draw_sound(axis: Any, heard: "Heard", n_columns: int) -> None:
    """Draw the spectrogram, with lines at onsets (solid) and offsets (dotted)."""
    db = spectrogram(heard.samples, heard.sample_rate, n_columns)
    highest = max(float(db.max()), _LOWEST_DB + _LEAST_RANGE_DB)
    lowest = max(float(np.percentile(db, 10)), highest - _MOST_RANGE_DB)
    axis.imshow(
        db,
        origin="lower",
        aspect="auto",
        interpolation="nearest",
        cmap="magma",
        vmin=min(lowest, highest - _LEAST_RANGE_DB),
        vmax=highest,
        extent=(heard.start_s, heard.stop_s, 0, heard.sample_rate / 2000),
    )
    axis.set_ylabel("frequency, kHz")
    for segment in heard.segments:
        axis.axvline(segment.onset_s, color="#a6f5c1", lw=0.8)
        axis.axvline(segment.offset_s, color="#a6f5c1", lw=0.8, ls=":")
    for start_s, stop_s, event in heard.near_misses:
        color = _REASONS[event.reason][0]
        axis.axvline(start_s, color=color, lw=0.8)
        axis.axvline(stop_s, color=color, lw=0.8, ls=":")


def _draw_score(axis: Any, heard: "Heard") -> None:
    """Draw the score with both thresholds; near misses as points at their scores."""
    score, on, off, _ = heard.trace.T
    time_s, score, on, off = _without_holes(heard.trace_s, score, on, off)
    axis.plot(time_s, score, color="0.25", lw=0.7, label="score")
    axis.plot(time_s, on, color="#2166ac", lw=1.2, label="threshold: a segment begins")
    axis.plot(
        time_s, off, color="#2166ac", lw=1.0, ls="--", label="threshold: it goes on"
    )
    for segment in heard.segments:
        axis.axvspan(segment.onset_s, segment.offset_s, color=_SEGMENT, alpha=0.2, lw=0)
    for start_s, stop_s, event in heard.near_misses:
        axis.plot(
            (start_s + stop_s) / 2,
            event.score,
            marker="v",
            ms=6,
            color=_REASONS[event.reason][0],
        )
    axis.set_ylabel(f"score,\n{drawable(heard.unit)}", parse_math=False)
    highest = max(float(np.nanmax(on)), float(np.nanmax(score)))
    # What lies further below the floor, as silence does, tells nothing.
    lowest = max(float(np.nanmin(score)), -5.0)
    margin = 0.06 * (highest - lowest)
    axis.set_ylim(lowest - margin, highest + margin)
    axis.grid(axis="y", color="0.9", lw=0.6)
    axis.set_axisbelow(True)


def _draw_floor(axis: Any, heard: "Heard") -> None:
    """Draw the noise floor, and the level where the score is one above the floor."""
    time_s, floor, score = _without_holes(
        heard.trace_s, heard.trace[:, 3], heard.trace[:, 0]
    )
    if heard.unit.startswith("dB"):
        level = np.where(score > -50, floor + score, np.nan)
        axis.plot(time_s, level, color="0.7", lw=0.5, label="level")
    axis.plot(time_s, floor, color="#b2182b", lw=1.4, label="noise floor")
    axis.set_ylabel("level,\ndB re full scale")
    axis.grid(axis="y", color="0.9", lw=0.6)
    axis.set_axisbelow(True)


def _without_holes(time_s: Any, *columns: Any) -> tuple[Any, ...]:
    """Return the values with a NaN in each hole, so that no line is drawn across it."""
    steps = np.diff(time_s)
    if len(steps) == 0:
        return time_s, *columns
    holes = np.flatnonzero(steps > 1.5 * np.median(steps)) + 1
    middles = np.insert(time_s, holes, time_s[holes - 1])
    return middles, *(np.insert(column, holes, np.nan) for column in columns)


def _add_legend(figure: Any, axes: dict[str, Any], heard: "Heard") -> None:
    """Add one legend for all panels above them."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles: list[Any] = [Patch(color=_SEGMENT, label="segment, with its score")]
    if heard.labels:
        handles.insert(0, Patch(color=_LABEL, label="final label, with its posterior"))
    present = {event.reason for _, _, event in heard.near_misses}
    handles += [
        Patch(color=color, label=text)
        for reason, (color, text) in _REASONS.items()
        if reason in present
    ]
    handles += [
        Line2D([], [], color="0.5", ls="-", lw=0.8, label="onset"),
        Line2D([], [], color="0.5", ls=":", lw=0.8, label="offset"),
    ]
    for name in ("score", "floor"):
        if name in axes:
            handles += axes[name].get_legend_handles_labels()[0]
    if heard.gaps:
        handles.append(Patch(color="0.7", label="samples lost or withheld"))
    figure.legend(
        handles=handles,
        loc="outside upper left",
        ncols=min(len(handles), 5),
        fontsize="small",
        frameon=False,
    )


def spectrogram(samples: Float32, sample_rate: int, n_columns: int) -> Float32:
    """Return the loudest spectrum of each column, in dB.

    Parameters
    ----------
    samples : float32[n_samples]
        One channel, at least one sample.
    sample_rate : int
        In Hz; the window is the power of two nearest to 8 ms, from 64 to 1024 samples.
    n_columns : int
        Most columns of the result; all have the same duration.

    Returns
    -------
    float32[n_bins, n_columns]
        Rows from 0 Hz to half the rate; 0 dB is a sine of full scale.
    """
    exponent = round(np.log2(max(1.0, sample_rate * _WINDOW_S)))
    length = min(max(2**exponent, _SHORTEST), _LONGEST)
    padded = np.pad(samples, (length // 2, length - length // 2))
    hop = max(1, min(length // 4, len(samples) // max(1, n_columns)))
    frames = np.lib.stride_tricks.sliding_window_view(padded, length)[::hop]
    window = np.hanning(length + 1)[:-1].astype(np.float32)
    n_columns = min(n_columns, len(frames))
    column_of = np.arange(len(frames)) * n_columns // len(frames)
    loudest = np.zeros((n_columns, length // 2 + 1), np.float32)
    for first in range(0, len(frames), _FRAMES_AT_ONCE):
        power = _power(frames[first : first + _FRAMES_AT_ONCE] * window)
        columns, begins = np.unique(
            column_of[first : first + _FRAMES_AT_ONCE], return_index=True
        )
        largest = np.maximum.reduceat(power, begins, axis=0)
        loudest[columns] = np.maximum(loudest[columns], largest)
    full_scale = (window.sum() / 2) ** 2
    floor = 10.0 ** (_LOWEST_DB / 10)
    db = 10 * np.log10(np.maximum(loudest / full_scale, floor))
    return np.ascontiguousarray(db.T.astype(np.float32))


def _power(frames: NDArray[np.float32]) -> Float32:
    spectra = np.fft.rfft(frames)
    return (spectra.real**2 + spectra.imag**2).astype(np.float32)
