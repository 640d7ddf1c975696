"""Sections of an explanation's page: labels with their reasons, and hidden units."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from neurovocal.engine.contracts.errors import ConfigError
from neurovocal.engine.contracts.types import Float32, Label
from neurovocal.models.report.draw import INK, LINES, FrameAxes, page_figure, svg
from neurovocal.models.report.examples import Stretch, unit_examples
from neurovocal.models.report.explanation.heard import (
    HeardRecording,
    HeardSegment,
    Listener,
)
from neurovocal.models.report.explanation.trials import (
    Cells,
    Counterfactual,
    Occlusion,
    cells_of,
    change_to,
    nearest_of,
    occlude,
)
from neurovocal.models.report.network import TracedNetwork, read_weights
from neurovocal.models.report.parts import Drawing, Part, Section, Sound, sound_of
from neurovocal.models.report.unit_preferences import (
    choose_dissimilar,
    rank_hidden_units,
)
from neurovocal.plugins.features.inverse import InverseSpectrogram

_UNITS = 12
_UNITS_TITLE = "What hidden units listen to"
_UNREADABLE = (
    "Hidden units are found by the names that this project's training gives to its "
    "weights; the graph of this bundle has others, or another meaning for them."
)
_MOST_FRAMES = 40_000  # in which units are looked for
_WORDS = (
    "Each picture: the segment with what was heard before it; the white line is its "
    "onset. Below: how many nats of log-odds (1 nat: e to 1) the label loses against "
    "the other unit without a stretch, silenced to the background of the recording. "
    "Beside it: the same for each cell of time and frequency; red cells spoke for the "
    "label, blue ones against it. Last: the segment with the outlined cells taken from "
    "the other unit, and how it would have been labelled then."
)


@dataclass(frozen=True, slots=True, eq=False)
class ExplainedLabel:
    """A label with its reasons.

    Parameters
    ----------
    segment : HeardSegment
    unit, other : str
        Most probable unit, and the one that it is compared with.
    target : str
        Unit that it could have become.
    cells : Cells
    occlusion : Occlusion
    change : Counterfactual, optional
        None: no segment of the other unit was heard.
    """

    segment: HeardSegment
    unit: str
    other: str
    target: str
    cells: Cells
    occlusion: Occlusion
    change: Counterfactual | None


def explain_labels(
    listener: Listener,
    heard: Sequence[HeardRecording],
    wanted: Sequence[Sequence[Label]],
    against: str | None,
    watch: Callable[[float], None],
) -> list[ExplainedLabel]:
    """Explain labels, in the order of the recordings and of their time.

    Parameters
    ----------
    listener : Listener
    heard : sequence of HeardRecording
    wanted : sequence of sequence of Label
        Labels to explain, per recording.
    against : str, optional
        Unit that labels are compared with; default: the second most probable.
    watch : callable
        Called with the completed share.
    """
    lenders: dict[str, list[HeardSegment]] = {}
    for recording in heard:
        for segment in listener.segments(recording, recording.labels):
            lenders.setdefault(segment.label.unit, []).append(segment)
    segments = [
        segment
        for recording, labels in zip(heard, wanted, strict=True)
        for segment in listener.segments(recording, labels)
    ]
    explained = []
    for done, segment in enumerate(segments):
        ranking = listener.ranking(segment.scores)
        unit = ranking[0]
        if segment.label.unit in ranking:
            unit = segment.label.unit
        rivals = [name for name in ranking if name != unit]
        other = rivals[0] if against in (None, unit) else str(against)
        cells = cells_of(segment)
        occlusion = occlude(listener, segment, unit, other, cells)
        # What was called unknown is asked what would have made it its nearest unit.
        target = against or (other if segment.label.unit == unit else unit)
        change = None
        if target in lenders and target != segment.label.unit:
            lender = nearest_of(segment, lenders[target])
            rest = next(name for name in ranking if name != target)
            change = change_to(listener, segment, rest, target, lender, cells)
        explained.append(
            ExplainedLabel(segment, unit, other, target, cells, occlusion, change)
        )
        watch((done + 1) / len(segments))
    return explained


def label_section(
    listener: Listener, axes: FrameAxes, explained: Sequence[ExplainedLabel]
) -> Section:
    """Return the section with a part per label."""
    try:
        inverse = InverseSpectrogram(
            listener.bundle.manifest.front_end, listener.bundle
        )
    except ConfigError:  # such frames have no sound
        inverse = None
    parts = [
        Part(
            _title(listener, one),
            " ".join(sentences(listener, axes, one)),
            [
                Drawing(
                    _draw(listener, axes, one),
                    "" if place else _WORDS,
                    _sounds(listener, one, inverse),
                )
            ],
        )
        for place, one in enumerate(explained)
    ]
    text = "" if parts else "No label was chosen."
    return Section("labels", "Why these labels", text, parts)


def describe(
    listener: Listener, axes: FrameAxes, one: ExplainedLabel
) -> dict[str, Any]:
    """Return an explained label as JSON."""
    label, own = one.segment.label, one.occlusion
    step, band = (
        int(n) for n in np.unravel_index(own.by_cell.argmax(), own.by_cell.shape)
    )
    change = one.change
    return {
        "recording": one.segment.recording.name,
        "onset_s": round(label.onset / listener.rate, 6),
        "offset_s": round((label.offset or label.onset) / listener.rate, 6),
        "label": label.unit,
        "posterior": round(label.posterior, 6),
        "unit": one.unit,
        "against": one.other,
        "log_odds": round(own.margin, 4),
        "stretches_ms": [_ms(listener, one, edge) for edge in one.cells.times],
        "lost_without_stretch": np.round(own.by_time, 4).tolist(),
        "strongest_cell": {
            "ms": [_ms(listener, one, one.cells.times[step + n]) for n in (0, 1)],
            "khz": _khz(axes, one.cells, band),
            "lost": round(float(own.by_cell[step, band]), 4),
        },
        "counterfactual": None
        if change is None
        else {
            "unit": change.unit,
            "is_found": change.is_found,
            "cells": len(change.cells),
            "share": round(_share(one, change), 4),
            "given": change.given,
            "posterior": round(change.posterior, 6),
            "lender": change.lender.recording.name,
            "lender_onset_s": round(change.lender.label.onset / listener.rate, 6),
        },
    }


def sentences(listener: Listener, axes: FrameAxes, one: ExplainedLabel) -> list[str]:
    """Return an explained label in words."""
    own, cells, found = one.occlusion, one.cells, []
    best = int(own.by_time.argmax())
    start, stop = (_ms(listener, one, cells.times[best + n]) for n in (0, 1))
    left = own.margin - own.by_time[best]
    if own.by_time[best] <= 0:
        found.append(f"No single stretch speaks for {one.unit} against {one.other}.")
    else:
        before = " (before the onset)" if stop <= 0 else ""
        found.append(
            f"The stretch from {start:g} to {stop:g} ms{before} says most: without it "
            f"the log-odds of {one.unit} against {one.other} fall from "
            f"{own.margin:.1f} to {left:.1f}."
        )
    change = one.change
    if one.target == one.segment.label.unit:
        return found
    if change is None:
        found.append(
            f"No {one.target} was heard in these recordings that could show what would "
            f"have made it {one.target}: name more of them."
        )
        return found
    lender = change.lender
    at_s = lender.label.onset / listener.rate
    like = f"as in the {change.unit} at {at_s:.3f} s of {lender.recording.name}"
    if not change.is_found:
        found.append(
            f"Even all of it {like} would not have made it {change.unit}, but "
            f"{change.given}: what was heard before counts, or the duration."
        )
        return found
    khz = [_khz(axes, cells, band) for _, band in change.cells]
    times = [
        _ms(listener, one, edge)
        for step, _ in change.cells
        for edge in cells.times[step : step + 2]
    ]
    where = f"from {min(times):g} to {max(times):g} ms"
    if khz[0] is not None:
        edges = [edge for pair in khz if pair is not None for edge in pair]
        where += f", {min(edges):g} to {max(edges):g} kHz"
    s = "s" if len(change.cells) > 1 else ""
    found.append(
        f"It would have been {change.unit} (posterior {change.posterior:.2f}) had "
        f"{100 * _share(one, change):.0f} % of it been {like}: {len(change.cells)} "
        f"cell{s} {where}."
    )
    return found


def unit_section(
    listener: Listener, axes: FrameAxes, heard: Sequence[HeardRecording]
) -> Section | None:
    """Return the section of the RNN-RBM's hidden units; None without an RNN-RBM."""
    bundle = listener.bundle
    if bundle.manifest.rnn_rbm is None:
        return None
    network, count = TracedNetwork(bundle), 0
    stretches: list[Stretch] = []
    hidden: list[Float32] = []
    weights = None
    for recording in heard:
        frames = recording.frames[: _MOST_FRAMES - count]
        if len(frames) < 2:
            continue
        trace = network(frames)
        weights = weights or read_weights(bundle, trace)
        if weights is None:
            return Section("units", _UNITS_TITLE, _UNREADABLE, [])
        _, bh = weights.biases(trace.state_before[:, -1])
        hidden.append(weights.hidden(frames, bh))
        units = _units_of(listener, recording, len(frames))
        stretches.append(Stretch(recording.name, 0.0, recording.samples, frames, units))
        count += len(frames)
    if weights is None:
        return None
    rows = np.concatenate(hidden)
    chosen = choose_dissimilar(rows, rank_hidden_units(weights, rows), _UNITS)
    drawings = unit_examples(axes, listener.rate, "h", chosen, hidden, stretches)
    part = Part(
        "",
        "The RNN-RBM's hidden units that move the picture most, less those that are "
        "nearly as active as one before. Of each, the moments at which it was most "
        "active, with its activity (0 to 1) and the label: click to hear them.",
        drawings,
    )
    return Section("units", _UNITS_TITLE, "", [part])


def _title(listener: Listener, one: ExplainedLabel) -> str:
    label = one.segment.label
    return (
        f"{one.segment.recording.name}, {label.onset / listener.rate:.3f} s: "
        f"{label.unit} ({label.posterior:.2f})"
        + ("" if label.unit == one.unit else f", nearest to {one.unit}")
        + f", against {one.other}"
    )


def _sounds(
    listener: Listener, one: ExplainedLabel, inverse: InverseSpectrogram | None
) -> list[Sound]:
    """Return the segment, what it was changed to, and the segment that lent to it."""
    sounds = [sound_of(listener.sound(one.segment), listener.rate, "as it was heard")]
    change = one.change
    if change is None:
        return sounds
    if inverse is not None:
        inverse.reset()
        made = [inverse.process(change.frames), inverse.flush()]
        caption = f"changed, heard as {change.given}"
        sounds.append(sound_of(np.concatenate(made), listener.rate, caption))
    lent = listener.sound(change.lender)
    sounds.append(
        sound_of(lent, listener.rate, f"the {change.unit} it is compared with")
    )
    return sounds


def _draw(listener: Listener, axes: FrameAxes, one: ExplainedLabel) -> str:
    """Draw the segment, what each part of it said, and what would change it."""
    frames, cells, own = one.segment.frames, one.cells, one.occlusion
    edges = [_ms(listener, one, edge) for edge in cells.times]
    extent = (edges[0], edges[-1], -0.5, axes.n_bins - 0.5)
    columns = 2 if one.change is None else 3
    with page_figure(10, 3.4) as figure:
        panels = figure.subplots(
            2, columns, sharex=True, height_ratios=[2.4, 1], squeeze=False
        )
        above, below = panels[0], panels[1]
        images = [(above[0], frames, f"heard: {one.segment.label.unit}")]
        if one.change is not None:
            title = f"changed: {one.change.given}"
            images.append((above[2], one.change.frames, title))
        for panel, values, title in images:
            axes.image(panel, values)
            panel.get_images()[0].set_extent(extent)
            panel.axvline(0, color="#fff", lw=0.7)
            panel.set_title(title)
        limit = float(np.abs(own.by_cell).max()) or 1.0
        above[1].pcolormesh(
            edges,
            np.asarray(cells.bands) - 0.5,
            own.by_cell.T,
            cmap="RdBu_r",
            vmin=-limit,
            vmax=limit,
        )
        axes.frequency_axis(above[1])
        above[1].set_ylim(extent[2:])
        above[1].axvline(0, color=INK, lw=0.7)
        above[1].set_title(f"for {one.unit}, against {one.other} (to {limit:.1f} nats)")
        if one.change is not None and one.change.is_found:
            for step, band in one.change.cells:
                x, y = edges[step : step + 2], cells.bands[band : band + 2]
                outline = (
                    [x[0], x[1], x[1], x[0], x[0]],
                    [y[0], y[0], y[1], y[1], y[0]],
                )
                above[2].plot(*outline, color="#fff", lw=0.6)
        for panel in above:
            panel.set_xlim(edges[0], edges[-1])
        below[0].stairs(own.by_time, edges, fill=True, color=LINES[0])
        below[0].axhline(0, color=INK, lw=0.5)
        below[0].set_ylabel("nats lost")
        for panel in below[1:]:
            panel.set_axis_off()
        for panel in (below[0], *above[1:]):
            panel.tick_params(labelbottom=True)
        below[0].set_xlabel("ms from the onset")
        return svg(figure, f"what made it {one.unit} and not {one.other}")


def _ms(listener: Listener, one: ExplainedLabel, frame: int) -> float:
    """Return the time of an edge before a frame of the segment, from its onset."""
    hop_ms = 1000 * listener.hop / listener.rate
    return round((frame - one.segment.n_lead) * hop_ms, 2)


def _khz(axes: FrameAxes, cells: Cells, band: int) -> list[float] | None:
    """Return the frequencies of a band's first and last bins."""
    khz = axes.frequencies_khz
    if khz is None:
        return None
    low, high = cells.bands[band], cells.bands[band + 1] - 1
    return [round(float(khz[low]), 2), round(float(khz[high]), 2)]


def _share(one: ExplainedLabel, change: Counterfactual) -> float:
    """Return the share of the segment's picture that was replaced."""
    cells = one.cells
    replaced = sum(
        (cells.times[step + 1] - cells.times[step])
        * (cells.bands[band + 1] - cells.bands[band])
        for step, band in change.cells
    )
    own = one.segment.stop - one.segment.first
    return float(replaced / (own * one.segment.frames.shape[1]))


def _units_of(
    listener: Listener, recording: HeardRecording, n_frames: int
) -> list[str]:
    """Return the label at each frame; empty where there is none."""
    units = [""] * n_frames
    for label in recording.labels:
        first = listener.frame_centred_from(label.onset)
        stop = min(listener.frame_centred_from(label.offset or label.onset), n_frames)
        units[first:stop] = [label.unit] * max(0, stop - first)
    return units
