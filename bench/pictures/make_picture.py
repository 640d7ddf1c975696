"""Make the README's picture from the shipped recording and bundle.

``python bench/pictures/make_picture.py`` writes ``docs/pictures/demo.png``: three
seconds of audio with all published events.
"""

import json
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from neurovocal.engine.cli.session import plan_of
from neurovocal.engine.config.schema import locate_config
from neurovocal.engine.contracts.types import Frames, Label, Surprise, Synthesis
from neurovocal.engine.runtime.runner import Runner
from neurovocal.engine.testing import CollectSink

BEGIN_S, END_S = 1.0, 4.0
OUT = Path(__file__).resolve().parents[2] / "docs/pictures/demo.png"
KINDS = ["frames", "label", "surprise", "synthesis"]


def collect() -> CollectSink:
    """Run the demo as fast as possible and return its events."""
    sinks = json.dumps([{"plugin": "jsonl", "options": {"path": "/dev/null"}}])
    plan = plan_of(
        locate_config("demo", ["source.options.pace=asap", f"sinks={sinks}"])
    )
    sink = CollectSink(KINDS)
    Runner(plan, [sink]).run()
    return sink


def image(sink: CollectSink, kind: type, n_bins: int) -> np.ndarray:
    """Return the rows of all events of a kind, by frame."""
    events = sink.events(kind)
    last = events[-1].first + len(events[-1].values)
    rows = np.full((last, n_bins), np.nan)
    for event in events:
        rows[event.first : event.first + len(event.values)] = event.values
    return rows


def main() -> None:
    """Draw the picture."""
    sink = collect()
    first = sink.events(Frames)[0]
    rate, hop = sink.messages[0].info.sample_rate, first.hop_length
    n_bins = first.values.shape[1]
    heard, drawn = image(sink, Frames, n_bins), image(sink, Synthesis, n_bins)
    surprise = np.concatenate([event.values for event in sink.events(Surprise)])
    labels = [e for e in sink.events(Label) if e.status == "final"]
    frames = slice(int(BEGIN_S * rate / hop), int(END_S * rate / hop))
    extent = (BEGIN_S, END_S, 0, rate / 2000)

    figure, axes = plt.subplots(
        3, 1, figsize=(11, 6.2), sharex=True, height_ratios=(3, 1, 3), dpi=110
    )
    look = {"origin": "lower", "aspect": "auto", "extent": extent, "cmap": "magma"}
    axes[0].imshow(heard[frames].T, **look)
    axes[0].set_title("heard: frames, segments and labels", loc="left")
    for label in labels:
        onset, offset = label.onset / rate, label.offset / rate
        if onset >= BEGIN_S and offset <= END_S:
            axes[0].axvspan(onset, offset, 0.91, 1.0, color="#2a9d8f")
            axes[0].text(
                (onset + offset) / 2,
                14.8,
                label.unit,
                color="white",
                ha="center",
                size=9,
            )
    time = np.arange(len(surprise)) * hop / rate
    axes[1].plot(time, surprise, color="#444", linewidth=0.8)
    axes[1].set_title("surprise (free energy over its running baseline)", loc="left")
    axes[2].imshow(drawn[frames].T, **look)
    axes[2].set_title(
        "synthesized: each frame predicted from those before it", loc="left"
    )
    axes[2].set_xlabel("time (s)")
    for axis in (axes[0], axes[2]):
        axis.set_ylabel("kHz")
    axes[2].set_xlim(BEGIN_S, END_S)
    figure.tight_layout()
    figure.savefig(OUT)


if __name__ == "__main__":
    main()
