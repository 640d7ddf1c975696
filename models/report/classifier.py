"""The section of the classifier."""

from collections.abc import Mapping, Sequence
from typing import Any

from neurovocal.engine.manifest import Bundle
from neurovocal.models.data import Recording
from neurovocal.models.report.draw import FrameAxes
from neurovocal.models.report.figures_classifier import (
    draw_confusion,
    draw_example,
    draw_reliability,
    draw_series,
)
from neurovocal.models.report.parts import Drawing, Part, Section
from neurovocal.models.report.tables import extras, measures, unit_table
from neurovocal.models.report.tally import Tally
from neurovocal.models.report.windows import examples, window_length


def classifier_section(
    bundle: Bundle,
    axes: FrameAxes,
    figures: Mapping[str, Any],
    tally: Tally,
    recordings: Sequence[Recording],
) -> Section:
    """Measures, confusion, calibration, whatever else was measured, examples."""
    spec = bundle.manifest.classifier
    assert spec is not None
    units, counts = figures["units"], figures["confusion"]
    parts = [Part("Measures", measures=measures(figures))]
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
                    draw_reliability(tally.labels, tally.frames),
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
        for title, compared, window in examples(
            tally.compared, window_length(recordings)
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
    """Tables and curves of whatever else was measured."""
    tables, series = extras(figures)
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
