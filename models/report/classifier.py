"""Section of the classifier: measures, confusion, calibration, examples."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from neurovocal.engine.contracts.bundle import Bundle
from neurovocal.models.data.datasets import AnnotatedRecording
from neurovocal.models.report.collector import (
    N_BINS,
    ComparedRecording,
    Reliability,
    ReportCollector,
    Segment,
)
from neurovocal.models.report.draw import (
    INK,
    LINES,
    WRONG,
    FrameAxes,
    colour_map,
    page_figure,
    svg,
)
from neurovocal.models.report.parts import Drawing, Part, Section
from neurovocal.models.report.tables import extra_tables, measure_rows, unit_table
from neurovocal.models.report.windows import (
    Window,
    choose_examples,
    frames_in,
    window_length,
)

_WRITTEN_UNITS = 32  # with more, the cells are too small for numbers
_INCH_PER_LETTER = 0.085


def draw_confusion(units: Sequence[str], counts: Sequence[Sequence[int]]) -> str:
    """Draw counts by annotated unit (row) and label (column), coloured by share."""
    table = np.asarray(counts, float).reshape(len(units), len(units))
    shares = table / np.maximum(1, table.sum(axis=1, keepdims=True))
    side = float(np.clip(1.2 + 0.38 * len(units), 3.0, 10.0))
    size = float(np.clip(260 * (side - 1.2) / 13 / len(units), 4.5, 9))
    with page_figure(side + 0.8, side) as figure:
        panel = figure.subplots()
        image = panel.imshow(shares, cmap=colour_map("viridis"), vmin=0, vmax=1)
        longest = max(len(unit) for unit in units)
        panel.set_xticks(range(len(units)), units, fontsize=size)
        panel.tick_params(axis="x", rotation=90 if longest > 2 else 0)
        panel.set_yticks(range(len(units)), units, fontsize=size)
        panel.set_xlabel("answered")
        panel.set_ylabel("annotated")
        if len(units) <= _WRITTEN_UNITS:
            for (row, column), count in np.ndenumerate(table):
                if count:
                    panel.text(
                        column,
                        row,
                        f"{count:.0f}",
                        ha="center",
                        va="center",
                        fontsize=size,
                        color="#000000" if shares[row, column] > 0.6 else "#ffffff",
                    )
        figure.colorbar(image, ax=panel, shrink=0.8, label="share of the row")
        return svg(figure, "confusion of units")


def draw_reliability(labels: Reliability, frames: Reliability) -> str:
    """Draw the share of right labels over the posterior, and the number of labels."""
    with page_figure(9.5, 3.9) as figure:
        axes = figure.subplots(2, 2, sharex=True, gridspec_kw={"height_ratios": [3, 1]})
        for column, (title, found) in enumerate(
            (("final labels", labels), ("single frames", frames))
        ):
            above, below = axes[:, column]
            used = found.count > 0
            posterior = found.posterior_sum[used] / found.count[used]
            right = found.right[used] / found.count[used]
            above.plot([0, 1], [0, 1], color=INK, lw=0.7, ls=":")
            above.plot(posterior, right, "o-", ms=4, color=LINES[0])
            above.set_ylim(-0.03, 1.03)
            above.set_title(
                f"{found.count.sum():,} {title}: error "
                f"{100 * found.expected_error:.2g} %"
            )
            centres = (np.arange(N_BINS) + 0.5) / N_BINS
            below.bar(centres, found.count, width=0.09, color=LINES[0])
            below.set_yscale("symlog", linthresh=1)
            below.set_ylim(0, None)
            top = int(np.ceil(np.log10(max(10, found.count.max()))))
            powers = [10**k for k in range(top, 0, -max(1, -(-top // 3)))]
            below.set_yticks([0, *powers], ["0", *(f"{n:,}" for n in powers)])
            below.minorticks_off()
            below.set_xlim(0, 1)
            below.set_xlabel("posterior")
        axes[0, 0].set_ylabel("share that is right")
        axes[1, 0].set_ylabel("answers")
        return svg(figure, "reliability of the posteriors")


def draw_series(
    title: str, x_name: str, x: Sequence[float], columns: dict[str, list[float | None]]
) -> str:
    """Draw curves over an increasing number, such as a delay."""
    with page_figure(7, 2.8) as figure:
        panel = figure.subplots()
        for number, (name, values) in enumerate(columns.items()):
            known = [(a, b) for a, b in zip(x, values, strict=True) if b is not None]
            panel.plot(
                [a for a, _ in known],
                [b for _, b in known],
                "o-",
                ms=3,
                color=LINES[number % len(LINES)],
                label=name,
            )
        if len(columns) > 1:
            panel.legend(loc="center left", bbox_to_anchor=(1, 0.5))
        else:
            panel.set_ylabel(next(iter(columns)))
        panel.set_xlabel(x_name)
        return svg(figure, title)


def draw_example(
    bundle: Bundle, axes: FrameAxes, compared: ComparedRecording, window: Window
) -> str:
    """Draw a spectrogram with the annotated labels above the engine's."""
    frames = frames_in(bundle, window)
    length_s = window.stop_s - window.start_s
    with page_figure(10, 2.9) as figure:
        above, panel = figure.subplots(
            2, 1, sharex=True, gridspec_kw={"height_ratios": [1, 3]}
        )
        axes.image(panel, frames)
        panel.set_xlim(0, length_s)
        panel.set_xlabel("seconds")
        above.set_ylim(0, 2)
        above.set_yticks([1.5, 0.5], ["true", "given"])
        above.tick_params(length=0, labelbottom=False)
        above.spines[["left", "bottom"]].set_visible(False)
        for level, segments in ((1, compared.true), (0, compared.given)):
            shown = [
                s
                for s in segments
                if s.offset_s > window.start_s and s.onset_s < window.stop_s
            ]
            draw_segments(above, shown, level, window.start_s, length_s)
            for segment in shown:
                for at_s in (segment.onset_s, segment.offset_s):
                    # Annotated bounds in the upper half, detected ones in the lower.
                    span = (0.5, 1.0) if level else (0.0, 0.5)
                    panel.axvline(at_s - window.start_s, *span, color="#fff", lw=0.5)
        return svg(figure, "spectrogram with true and given labels")


def draw_segments(
    panel: Any,
    segments: Sequence[Segment],
    level: int,
    start_s: float,
    length_s: float,
    inches: float = 9.0,
) -> None:
    """Draw a box with its unit for each segment, wrong ones in another colour."""
    for number, segment in enumerate(segments):
        left = max(segment.onset_s - start_s, 0)
        width = min(segment.offset_s - start_s, length_s) - left
        colour = {True: LINES[0], False: WRONG, None: LINES[4]}[segment.right]
        panel.broken_barh(
            [(left, width)], (level + 0.08, 0.84), facecolor=colour, alpha=0.35
        )
        following = segments[number + 1 : number + 2]
        room_s = following[0].onset_s - segment.onset_s if following else length_s
        room = int(min(room_s, length_s - left) / length_s * inches / _INCH_PER_LETTER)
        text = segment.unit
        if len(text) > room:
            text = f"{text[: room - 1]}…" if room > 2 else text[: max(0, room)]
        centred = len(text) * _INCH_PER_LETTER < width / length_s * inches
        panel.text(
            left + width / 2 if centred else left,
            level + 0.47,
            text,
            ha="center" if centred else "left",
            va="center",
            fontsize=9,
            color=WRONG if segment.right is False else INK,
            weight="bold" if segment.right is False else "normal",
            clip_on=True,
        )


def classifier_section(
    bundle: Bundle,
    axes: FrameAxes,
    figures: Mapping[str, Any],
    collector: ReportCollector,
    recordings: Sequence[AnnotatedRecording],
) -> Section:
    """Return the section: measures, confusion, calibration, other tables, examples."""
    spec = bundle.manifest.classifier
    assert spec is not None
    units, counts = figures["units"], figures["confusion"]
    parts = [Part("Measures", measures=measure_rows(figures))]
    parts.append(
        Part(
            "Confusion",
            "Labels of annotated segments, their onsets and offsets given. Each row "
            "is an annotated unit; numbers are segments, colours shares of the row.",
            [Drawing(draw_confusion(units, counts), "")],
        )
    )
    parts.append(
        Part(
            "Units",
            "From the same counts. Below its threshold a label of the unit becomes "
            f"`{spec.unknown}`.",
            table=unit_table(units, counts, spec),
        )
    )
    parts.append(
        Part(
            "Calibration",
            "A posterior can be believed where the curve follows the dotted line: of "
            "100 labels with posterior 0.9, 90 should be right.",
            [
                Drawing(
                    draw_reliability(collector.labels, collector.frames),
                    f"Left: the engine's final labels but `{spec.unknown}`, right "
                    "where the annotated unit under their middle is theirs; a label "
                    "where nothing was annotated is wrong. Right: the most likely "
                    "unit of each frame, silence included, which no temperature "
                    "calibrates. The error is the mean distance from the dotted "
                    "line.",
                )
            ],
        )
    )
    parts += extra_parts(figures)
    drawings = [
        Drawing(
            draw_example(bundle, axes, compared, window),
            f"{title}: {window.recording.file} from "
            f"{window.recording.start_s + window.start_s:.2f} s. Red: wrong, missed "
            "or a unit where nothing was annotated; ochre: no mistake and no hit. "
            "White lines: annotated boundaries in the upper half, detected ones in the "
            "lower.",
        )
        for title, compared, window in choose_examples(
            collector.compared, window_length(recordings)
        )
    ]
    if drawings:
        parts.append(Part("Examples", figures=drawings))
    return Section(
        "classifier",
        "Classifier",
        "As the engine runs it: every frame is heard once, none from the future.",
        parts,
    )


def extra_parts(figures: Mapping[str, Any]) -> list[Part]:
    """Return parts with the tables and curves of all other figures."""
    tables, series = extra_tables(figures)
    curves = {curve.title: curve for curve in series}
    parts = []
    for table in tables:
        curve = curves.get(table.title)
        drawn = []
        if curve is not None:
            picture = draw_series(curve.title, curve.x_name, curve.x, curve.columns)
            drawn.append(Drawing(picture, ""))
        title = table.title[:1].upper() + table.title[1:]
        parts.append(Part(title, table.meaning, drawn, table))
    return parts
