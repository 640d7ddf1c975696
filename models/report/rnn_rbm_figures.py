"""Figures of the RNN-RBM: songs, activity, surprise, filters, preferred sounds."""

import numpy as np
from numpy.typing import NDArray

from neurovocal.engine.contracts.bundle import Bundle
from neurovocal.engine.contracts.types import Float32
from neurovocal.models.report.classifier import draw_segments
from neurovocal.models.report.collector import Segment
from neurovocal.models.report.draw import (
    LINES,
    FrameAxes,
    draw_matrix,
    page_figure,
    svg,
)
from neurovocal.models.report.network import NetworkTrace, Weights
from neurovocal.models.report.unit_preferences import PATCH_FRAMES, UnitPreference
from neurovocal.plugins.models.rnn_rbm.sampler import Sampler, sampling_graph

_SHOWN_UNITS = 60
_BANDS = ((1, 99, 0.2), (10, 90, 0.35))


def continue_song(
    bundle: Bundle, song: NetworkTrace, n_seed: int, seed: int
) -> Float32:
    """Return the first `n_seed` frames of a song, continued by the model."""
    spec = bundle.manifest.rnn_rbm
    assert spec is not None
    sampler = Sampler(sampling_graph(bundle, spec), bundle)
    sampler.start(song.frames[n_seed - 1], song.state_before[n_seed - 1], (seed, 0))
    drawn = sampler.draw(len(song.frames) - n_seed)
    return np.concatenate([song.frames[:n_seed], drawn])


def draw_songs(
    axes: FrameAxes,
    song: NetworkTrace,
    segments: list[Segment],
    rows: list[tuple[str, Float32]],
    seed_s: float | None,
) -> str:
    """Draw a song above its reconstruction, prediction and continuation."""
    length_s = len(song.frames) * axes.hop_s
    with page_figure(10, 0.5 + 1.55 * (len(rows) + 1)) as figure:
        heights = [0.25, *[1.0] * (len(rows) + 1)]
        panels = figure.subplots(
            len(heights), 1, sharex=True, gridspec_kw={"height_ratios": heights}
        )
        _unit_row(panels[0], segments, length_s)
        spectrograms = [("heard", song.frames), *rows]
        for panel, (title, frames) in zip(panels[1:], spectrograms, strict=True):
            axes.image(panel, frames)
            panel.set_title(title)
        if seed_s is not None:
            panels[-1].axvline(seed_s, color="#ffffff", lw=1.2, ls="--")
        panels[-1].set_xlabel("seconds")
        panels[-1].set_xlim(0, length_s)
        return svg(figure, "a song, and what the RNN-RBM makes of it")


def draw_activity(
    axes: FrameAxes, song: NetworkTrace, segments: list[Segment], hidden: Float32
) -> str:
    """Draw hidden activations and recurrent state below a song's spectrogram.

    Parameters
    ----------
    axes : FrameAxes
    song : Heard
    segments : list of Segment
    hidden : float32[n_frames, n_hidden]
        E[h_t], units in order of their effect.
    """
    length_s = len(song.frames) * axes.hop_s
    states = song.state_after.reshape(len(song.frames), -1)
    with page_figure(10, 6.2) as figure:
        panels = figure.subplots(
            4, 1, sharex=True, gridspec_kw={"height_ratios": [0.25, 1, 1.2, 1.2]}
        )
        _unit_row(panels[0], segments, length_s)
        axes.image(panels[1], song.frames)
        shown = hidden[:, :_SHOWN_UNITS]
        low, high = (float(p) for p in np.percentile(shown, [1, 99]))
        draw_matrix(panels[2], sort_by_peak(shown), length_s, (low, high), "viridis")
        panels[2].set_title(
            f"E[h]: the {shown.shape[1]} hidden units that move the picture most, "
            f"{low:.2g} (dark) to {high:.2g} (light), in the order of their peaks"
        )
        limit = float(np.percentile(np.abs(states), 99)) or 1.0
        draw_matrix(
            panels[3], sort_by_peak(states), length_s, (-limit, limit), "RdBu_r"
        )
        panels[3].set_title(
            f"u: all {states.shape[1]} recurrent units, blue below 0 and red above "
            f"(limits {limit:.2g}), in the order of their peaks"
        )
        for panel in panels[2:]:
            panel.set_ylabel("unit")
        panels[-1].set_xlabel("seconds")
        panels[-1].set_xlim(0, length_s)
        return svg(figure, "hidden activations and recurrent state over a song")


def draw_time_series(
    axes: FrameAxes,
    song: NetworkTrace,
    segments: list[Segment],
    weights: Weights | None,
) -> str:
    """Draw surprise, free energy and the range of the biases over a song."""
    length_s = len(song.frames) * axes.hop_s
    at_s = (np.arange(len(song.frames)) + 0.5) * axes.hop_s
    biases: list[tuple[str, Float32]] = []
    if weights is not None:
        bv, bh = weights.biases(song.state_before[:, -1])
        biases = [
            ("visible biases: median, 10-90 % and 1-99 % of the units", bv),
            ("hidden biases: median, 10-90 % and 1-99 % of the units", bh),
        ]
    heights = [0.25, 1.2, 0.9, 0.9, *[0.9] * len(biases)]
    with page_figure(10, 1.3 * len(heights)) as figure:
        panels = figure.subplots(
            len(heights), 1, sharex=True, gridspec_kw={"height_ratios": heights}
        )
        _unit_row(panels[0], segments, length_s)
        axes.image(panels[1], song.frames)
        panels[2].plot(at_s, song.surprise, lw=0.9, color=LINES[1])
        panels[2].set_title("surprise, deviations from the running mean")
        panels[3].plot(at_s, song.free_energy, lw=0.9, color=LINES[0])
        panels[3].set_title("free energy, nats")
        for panel, (title, rows) in zip(panels[4:], biases, strict=True):
            for low, high, alpha in _BANDS:
                edges = np.percentile(rows, [low, high], axis=1)
                panel.fill_between(
                    at_s, *edges, color=LINES[2], alpha=alpha, lw=0, rasterized=False
                )
            panel.plot(at_s, np.median(rows, axis=1), lw=0.9, color=LINES[2])
            panel.set_title(title)
        panels[-1].set_xlabel("seconds")
        panels[-1].set_xlim(0, length_s)
        return svg(figure, "surprise, free energy and biases over a song")


def draw_filters(axes: FrameAxes, weights: Weights, order: NDArray[np.int64]) -> str:
    """Draw the columns of W of the first units of `order`, by centre frequency."""
    chosen = weights.W[:, order[:_SHOWN_UNITS]]
    energy = np.square(chosen)
    bins = np.arange(len(chosen))
    centre = bins @ energy / np.maximum(energy.sum(axis=0), 1e-12)
    filters = chosen[:, np.argsort(centre, kind="stable")]
    limit = float(np.percentile(np.abs(filters), 99.5)) or 1.0
    with page_figure(10, 3.4) as figure:
        panel = figure.subplots()
        axes.image(panel, filters.T, cmap="RdBu_r", limits=(-limit, limit))
        (image,) = panel.get_images()
        image.set_extent((0, filters.shape[1], -0.5, len(chosen) - 0.5))
        panel.set_xlim(0, filters.shape[1])
        panel.set_xlabel("hidden unit, by centre frequency of its filter")
        figure.colorbar(image, ax=panel, label="weight")
        return svg(figure, "filters of W")


def draw_preferences(
    axes: FrameAxes, letter: str, found: list[UnitPreference], columns: int = 6
) -> str:
    """Draw the average spectrogram before activity, one panel per unit."""
    lines = -(-len(found) // columns)
    limit = max(float(np.abs(p.patch).max()) for p in found) or 1.0
    with page_figure(10, 2.1 * lines + 0.3) as figure:
        panels = figure.subplots(lines, columns, squeeze=False, sharey=True)
        for spare in panels.flat[len(found) :]:
            spare.remove()
        for place, (panel, unit) in enumerate(zip(panels.flat, found, strict=False)):
            axes.image(panel, unit.patch, cmap="RdBu_r", limits=(-limit, limit))
            (image,) = panel.get_images()
            length_ms = PATCH_FRAMES * axes.hop_s * 1000
            image.set_extent((-length_ms, 0, -0.5, axes.n_bins - 0.5))
            panel.set_xlim(-length_ms, 0)
            panel.locator_params(axis="x", nbins=3)
            name = (
                unit.syllable if len(unit.syllable) < 12 else unit.syllable[:11] + "…"
            )
            title = f"{name} {unit.auc:.2f}" if name else "no syllable"
            panel.set_title(f"{letter}{unit.number}: {title}")
            if place % columns:
                panel.set_ylabel("")
            if place + columns >= len(found):
                panel.set_xlabel("ms")
        return svg(figure, "what each unit listens to")


def sort_by_peak(rows: Float32) -> Float32:
    """Return the columns of [n_frames, n_units] in the order of their peaks."""
    return rows[:, np.argsort(rows.argmax(axis=0), kind="stable")]


def _unit_row(panel: object, segments: list[Segment], length_s: float) -> None:
    """Draw annotated units above a song."""
    panel.set_ylim(0, 1)  # type: ignore[attr-defined]
    panel.set_axis_off()  # type: ignore[attr-defined]
    draw_segments(panel, segments, 0, 0.0, length_s)
