"""Explanation of a song by the RNN-RBM's variables (``neurovocal generate --explain``).

The influence of a band of the spectrogram on the state: each frame is processed a
second time with the model's prediction in place of that band. The influence is the
Euclidean distance between the two states after the frame; it is 0 for a band that
equals its prediction. (An occlusion measure: Zeiler and Fergus, 2014, with the
prediction in place of a blank.)
"""

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from neurovocal.engine.contracts.bundle import Bundle
from neurovocal.engine.contracts.types import Float32
from neurovocal.models.generation.pictures import draw_frames, save_png, song_figure
from neurovocal.models.report.network import NetworkTrace, TracedNetwork, read_weights
from neurovocal.models.toolkit.onnx_session import Session

_BANDS = 16
_N_CHANGES = 5
# Least distance of two listed changes, so that an onset is listed once.
_APART_S = 0.04


@dataclass(frozen=True, slots=True, eq=False)
class Explanation:
    """Variables of the model over a stretch of song.

    Parameters
    ----------
    trace : NetworkTrace
        Frames, predictions, states, free energy, surprise.
    change : float32[n_frames]
        Euclidean norm of the difference of the states after and before a frame.
    influence : float32[n_frames, n_bands]
        Influence of each band on the state; see the module.
    bands : list of (int, int)
        First bin of each band, and the one after its last.
    hidden : float32[n_frames, n_hidden], optional
        E[h | v]; None where the weights cannot be read from the bundle's graph.
    reconstruction : float32[n_frames, n_visible], optional
        E[v | E[h | v]]; None likewise.
    """

    trace: NetworkTrace
    change: Float32
    influence: Float32
    bands: list[tuple[int, int]]
    hidden: Float32 | None
    reconstruction: Float32 | None


def explain(bundle: Bundle, frames: Float32, n_shown: int) -> Explanation:
    """Process all frames from the start of a stream; explain the last `n_shown`.

    Parameters
    ----------
    bundle : Bundle
        Must have an RNN-RBM.
    frames : float32[n_frames, n_visible]
    n_shown : int
        Number of frames, at least 1.
    """
    whole = TracedNetwork(bundle)(frames)
    weights = read_weights(bundle, whole)
    trace = whole.slice(len(frames) - n_shown, len(frames))
    hidden = reconstruction = None
    if weights is not None:
        bv, bh = weights.biases(trace.state_before[:, -1])
        hidden = weights.hidden(trace.frames, bh)
        reconstruction = weights.visible(hidden, bv)
    difference = (trace.state_after - trace.state_before).reshape(n_shown, -1)
    edges = np.linspace(0, frames.shape[1], min(_BANDS, frames.shape[1]) + 1)
    cuts = np.round(edges).astype(int).tolist()
    bands = list(pairwise(cuts))
    influence = _band_influence(bundle, trace, bands)
    change = np.linalg.norm(difference, axis=1).astype(np.float32)
    return Explanation(trace, change, influence, bands, hidden, reconstruction)


def _band_influence(
    bundle: Bundle, trace: NetworkTrace, bands: list[tuple[int, int]]
) -> Float32:
    """Return the influence of each band on the state, float32[n_frames, n_bands]."""
    spec = bundle.manifest.rnn_rbm
    assert spec is not None
    session = Session(bundle.path(spec.file))
    influence = np.zeros((len(trace.frames), len(bands)), np.float32)
    for t, frame in enumerate(trace.frames):
        for number, (low, high) in enumerate(bands):
            expected = frame[None].copy()
            expected[0, low:high] = trace.prediction[t, low:high]
            after = session.run(frames=expected, u=trace.state_before[t])["u_next"]
            influence[t, number] = np.linalg.norm(trace.state_after[t] - after)
    return influence


def largest_changes(
    bundle: Bundle, explanation: Explanation, n_seed: int
) -> list[dict[str, Any]]:
    """Return the frames with the largest change of state, largest first, as JSON.

    Parameters
    ----------
    bundle : Bundle
    explanation : Explanation
    n_seed : int
        Frames before the song: times count from its first frame.
    """
    front_end = bundle.manifest.front_end
    hop_s = front_end.hop_length / front_end.sample_rate
    chosen: list[int] = []
    for t in np.argsort(explanation.change, kind="stable")[::-1].tolist():
        if all(abs(t - other) * hop_s >= _APART_S for other in chosen):
            chosen.append(t)
        if len(chosen) == _N_CHANGES:
            break
    return [
        {
            "s": round((t - n_seed) * hop_s, 4),
            "change": round(float(explanation.change[t]), 3),
            "surprise": round(float(explanation.trace.surprise[t]), 3),
            "bins": list(explanation.bands[int(explanation.influence[t].argmax())]),
            "told": round(float(explanation.influence[t].max()), 3),
        }
        for t in chosen
    ]


def draw_explanation(
    path: Path, bundle: Bundle, explanation: Explanation, n_seed: int, title: str
) -> None:
    """Draw the variables one below the other and write them as PNG.

    Raises
    ------
    ConfigError
        The file cannot be written.
    """
    front_end = bundle.manifest.front_end
    hop_s = front_end.hop_length / front_end.sample_rate
    trace, n_frames = explanation.trace, len(explanation.change)
    images = [(f"{title}: frames", trace.frames)]
    if explanation.reconstruction is not None:
        images.append(("reconstruction E[v | E[h | v]]", explanation.reconstruction))
    images.append(("expected before each frame was heard", trace.prediction))
    extra = 3 if explanation.hidden is not None else 2
    heights = [1.6] * len(images) + [1.6] * (extra - 1) + [1.2]
    figure, axes = song_figure(n_frames * hop_s, heights)
    for axis, (name, values) in zip(axes, images, strict=False):
        draw_frames(axis, bundle, values, name)
    rest = axes[len(images) :]
    if explanation.hidden is not None:
        order = np.argsort(explanation.hidden.argmax(axis=0), kind="stable")
        _draw_heat_map(rest[0], explanation.hidden[:, order], hop_s, "viridis")
        rest[0].set_title(
            "hidden units E[h | v], in the order of their peaks",
            loc="left",
            fontsize=10,
        )
        rest[0].set_ylabel("unit")
        rest = rest[1:]
    _draw_heat_map(rest[0], explanation.influence, hop_s, "inferno")
    rest[0].set_title(
        "what each band told the state (distance to the state had it been as expected)",
        loc="left",
        fontsize=10,
    )
    rest[0].set_ylabel("band")
    seconds = (np.arange(n_frames) + 0.5) * hop_s
    rest[1].plot(
        seconds, explanation.change, color="tab:red", label="change of state |du|"
    )
    rest[1].set_ylabel("|du|", color="tab:red")
    beside = rest[1].twinx()
    beside.plot(seconds, trace.free_energy, color="tab:blue", linewidth=0.8)
    beside.set_ylabel("free energy, nats", color="tab:blue")
    rest[1].set_xlabel("s (the song begins at the white line)")
    for axis in axes:
        axis.axvline(n_seed * hop_s, color="white" if axis is not rest[1] else "black")
    save_png(figure, path)


def _draw_heat_map(axis: Any, values: Float32, hop_s: float, colours: str) -> None:
    axis.imshow(
        values.T,
        origin="lower",
        aspect="auto",
        interpolation="nearest",
        cmap=colours,
        extent=(0, len(values) * hop_s, 0, values.shape[1]),
    )
