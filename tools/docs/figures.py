"""Draw the figures of the pages that explain how things work: ``make figures``.

``python tools/docs/figures.py`` writes docs/pictures/how-*.svg. The detector's figure
shows the recording that ships, that of annealing an RBM small enough to be counted.
"""

from pathlib import Path

import matplotlib as mpl
import numpy as np
import soundfile
import torch
from matplotlib import pyplot as plt
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from scipy.signal import butter, sosfilt

from neurovocal.engine.contracts.clock import ManualClock
from neurovocal.engine.contracts.plugin import BuildContext
from neurovocal.engine.contracts.registry import Registry
from neurovocal.engine.contracts.types import Block, Offset, Onset, StreamInfo
from neurovocal.models.rnn_rbm.annealing import (
    AnnealingOptions,
    ConditionalRbms,
    UnitSampler,
    exact_log_partition,
    log_partition,
)

ROOT = Path(__file__).resolve().parents[2]
PICTURES = ROOT / "docs" / "pictures"
SONG = ROOT / "configs" / "recordings" / "bengalese-finch.flac"
BLUE, ORANGE, GREY = "#0072b2", "#d55e00", "#777777"


def main() -> None:
    """Write all figures."""
    mpl.rcParams.update(
        {"svg.fonttype": "none", "svg.hashsalt": "neurovocal", "font.size": 10}
    )
    for name, draw in (
        ("how-rnn-rbm", draw_model),
        ("how-annealing", draw_annealing),
        ("how-detector", draw_detector),
    ):
        figure = draw()
        path = PICTURES / f"{name}.svg"
        figure.savefig(
            path, metadata={"Date": None}, bbox_inches="tight", facecolor="white"
        )
        plt.close(figure)
        print(path)


def draw_model() -> plt.Figure:
    """Draw three frames of the RNN-RBM."""
    figure, axes = plt.subplots(figsize=(8, 3.4))
    axes.set(xlim=(-0.9, 8.2), ylim=(-0.7, 3.6))
    axes.axis("off")
    rows = {"h": (3, "hidden units h"), "v": (1.8, "frame v"), "u": (0.4, "state u")}
    for y, text in rows.values():
        axes.text(-0.9, y, text, va="center", color=GREY)
    for index in range(3):
        x = 1.6 + 2.6 * index
        step = ("t-1", "t", "t+1")[index]
        for row, (y, _) in rows.items():
            colour = ORANGE if row == "u" else BLUE
            box = FancyBboxPatch(
                (x - 0.45, y - 0.26),
                0.9,
                0.52,
                boxstyle="round,pad=0.04",
                facecolor="white",
                edgecolor=colour,
                linewidth=1.5,
            )
            axes.add_patch(box)
            axes.text(x, y, f"{row}({step})", ha="center", va="center")
        arrow(axes, (x, 2.12), (x, 2.68), both=True, colour=BLUE)
        axes.text(x + 0.1, 2.4, "W", va="center", color=BLUE)
        arrow(axes, (x, 1.48), (x, 0.72), colour=GREY)
        if index < 2:
            arrow(axes, (x + 0.5, 0.4), (x + 2.1, 0.4), colour=ORANGE)
            arrow(axes, (x + 0.45, 0.7), (x + 2.12, 1.6), colour=ORANGE)
            arrow(axes, (x + 0.4, 0.7), (x + 2.12, 2.8), colour=ORANGE)
            if index == 0:
                axes.text(x + 1.5, 1.05, "Wuv", color=ORANGE)
                axes.text(x + 0.75, 2.0, "Wuh", color=ORANGE)
    return figure


def arrow(axes, start, stop, *, both=False, colour) -> None:
    """Draw an arrow between two points."""
    style = "<|-|>" if both else "-|>"
    axes.add_patch(
        FancyArrowPatch(start, stop, arrowstyle=style, mutation_scale=11, color=colour)
    )


def draw_annealing() -> plt.Figure:
    """Draw both estimates of log Z against the number of temperatures."""
    rng = np.random.default_rng(3)
    n_visible, n_hidden, n_frames = 14, 10, 20
    rbms = ConditionalRbms(
        torch.from_numpy(rng.normal(0, 1.6, (n_visible, n_hidden)).astype("f4")),
        torch.from_numpy(rng.normal(0, 0.5, (n_frames, n_visible)).astype("f4")),
        torch.from_numpy(rng.normal(-1, 0.5, (n_frames, n_hidden)).astype("f4")),
    )
    exact = exact_log_partition(rbms)
    start = torch.from_numpy((rng.random((n_frames, n_visible)) < 0.5).astype("f4"))
    counts = [3, 10, 30, 100, 300, 1000]
    ups, downs = [], []
    for count in counts:
        sampler = UnitSampler(np.random.default_rng(1))
        up, down, _ = log_partition(rbms, start, AnnealingOptions(count, 2), sampler)
        ups.append(float((up - exact).mean()))
        downs.append(float((down - exact).mean()))
    figure, axes = plt.subplots(figsize=(7, 3))
    axes.axhline(0, color=GREY, linewidth=1)
    axes.plot(counts, downs, "o-", color=ORANGE, label="down: from the model")
    axes.plot(counts, ups, "s-", color=BLUE, label="up: to the model")
    axes.set(
        xscale="log", xlabel="temperatures", ylabel="log Z, estimate - exact (nats)"
    )
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def draw_detector() -> plt.Figure:
    """Draw the level of a second of song, its thresholds, and what is found."""
    samples, rate = soundfile.read(SONG, dtype="float32")
    plugin = Registry().get("detector", "energy")
    options = plugin.options(low_hz=500, high_hz=10000)
    context = BuildContext(ManualClock(), "figure", info=StreamInfo("song", rate))
    detector = plugin.build(options, context)
    marks = [*detector.process(Block(0, samples[:, None])), *detector.flush()]
    onsets = {m.segment: m.sample for m in marks if isinstance(m, Onset)}
    segments = [(onsets[m.segment], m.sample) for m in marks if isinstance(m, Offset)]
    band = butter(2, (500, 10000), "bandpass", fs=rate, output="sos")
    power = sosfilt(band, samples) ** 2
    hop = rate // 1000
    level = power[: len(power) // hop * hop].reshape(-1, hop).mean(1)
    level = 10 * np.log10(np.convolve(level, np.ones(3) / 3, "same") + 1e-12)
    first, last = 1.9, 2.9
    floor = float(np.quantile(level[: round(last * 1000)], 0.1))
    seconds = np.arange(len(level)) * hop / rate
    shown = (seconds >= first) & (seconds <= last)
    figure, axes = plt.subplots(figsize=(8, 3.2))
    axes.plot(seconds[shown], level[shown], color=BLUE, linewidth=1, label="level")
    for value, name, style in (
        (floor + options.on_db, "on_db over the floor", "-"),
        (floor + options.off_db, "off_db over the floor", "--"),
        (floor, "noise floor", ":"),
    ):
        axes.axhline(value, color=ORANGE, linestyle=style, linewidth=1, label=name)
    for onset, offset in segments:
        if offset / rate > first and onset / rate < last:
            axes.axvspan(onset / rate, offset / rate, color=BLUE, alpha=0.12)
    axes.set(xlim=(first, last), xlabel="seconds", ylabel="dB re full scale")
    axes.legend(frameon=False, ncols=4, loc="upper center", bbox_to_anchor=(0.5, 1.17))
    axes.spines[["top", "right"]].set_visible(False)
    return figure


if __name__ == "__main__":
    main()
