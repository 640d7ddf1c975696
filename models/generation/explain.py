"""What an RNN-RBM makes of a song, on one picture (``neurovocal generate --explain``).

Which sound changed the state: for each frame and band of the spectrogram, the frame is
heard a second time with that band as the model had expected it, all else being as it
was. The Euclidean distance between the two states that follow is what the band told
the state; a band that came as expected told nothing. (It is an occlusion measure:
Zeiler and Fergus, 2014, with the model's own expectation in place of a blank.)
"""

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from neurovocal.engine.contracts.bundle import Bundle
from neurovocal.engine.contracts.types import Float32
from neurovocal.models.generation.pictures import draw_frames, new_figure, save
from neurovocal.models.report.network import Heard, Listener, read_weights
from neurovocal.models.toolkit.onnx_session import Session

_BANDS = 16
_MOMENTS = 5
# Moments in the list are at least so far apart: one onset is one moment.
_APART_S = 0.04


@dataclass(frozen=True, slots=True, eq=False)
class Explanation:
    """A stretch of song with what the model makes of it.

    Parameters
    ----------
    heard : Heard
        Frames, predictions, states, free energy, surprise.
    change : float32[n_frames]
        Euclidean norm of the state after a frame less the state before it.
    told : float32[n_frames, n_bands]
        What each band told the state; see the module.
    bands : list of (int, int)
        First bin of each band, and the one after its last.
    hidden : float32[n_frames, n_hidden], optional
        E[h | v]; None where the bundle's graph does not show its weights.
    reconstruction : float32[n_frames, n_visible], optional
        E[v | E[h | v]].
    """

    heard: Heard
    change: Float32
    told: Float32
    bands: list[tuple[int, int]]
    hidden: Float32 | None
    reconstruction: Float32 | None


def explain(bundle: Bundle, frames: Float32, n_shown: int) -> Explanation:
    """Hear all frames from a stream's start; explain the last `n_shown`.

    Parameters
    ----------
    bundle : Bundle
        With an RNN-RBM.
    frames : float32[n_frames, n_visible]
    n_shown : int
        At least 1.
    """
    whole = Listener(bundle)(frames)
    weights = read_weights(bundle, whole)
    heard = whole.part(len(frames) - n_shown, len(frames))
    hidden = reconstruction = None
    if weights is not None:
        bv, bh = weights.biases(heard.before[:, -1])
        hidden = weights.hidden(heard.frames, bh)
        reconstruction = weights.visible(hidden, bv)
    difference = (heard.after - heard.before).reshape(n_shown, -1)
    edges = np.linspace(0, frames.shape[1], min(_BANDS, frames.shape[1]) + 1)
    cuts = np.round(edges).astype(int).tolist()
    bands = list(pairwise(cuts))
    told = _told(bundle, heard, bands)
    change = np.linalg.norm(difference, axis=1).astype(np.float32)
    return Explanation(heard, change, told, bands, hidden, reconstruction)


def _told(bundle: Bundle, heard: Heard, bands: list[tuple[int, int]]) -> Float32:
    spec = bundle.manifest.rnn_rbm
    assert spec is not None
    session = Session(bundle.path(spec.file))
    told = np.zeros((len(heard.frames), len(bands)), np.float32)
    for t, frame in enumerate(heard.frames):
        for number, (low, high) in enumerate(bands):
            expected = frame[None].copy()
            expected[0, low:high] = heard.prediction[t, low:high]
            after = session.run(frames=expected, u=heard.before[t])["u_next"]
            told[t, number] = np.linalg.norm(heard.after[t] - after)
    return told


def moments(bundle: Bundle, found: Explanation, n_past: int) -> list[dict[str, Any]]:
    """Frames that changed the state most, strongest first, and the band that did.

    Parameters
    ----------
    bundle : Bundle
    found : Explanation
    n_past : int
        Frames of the stretch before the song: times count from its begin.
    """
    front_end = bundle.manifest.front_end
    hop_s = front_end.hop_length / front_end.sample_rate
    chosen: list[int] = []
    for t in np.argsort(found.change, kind="stable")[::-1].tolist():
        if all(abs(t - other) * hop_s >= _APART_S for other in chosen):
            chosen.append(t)
        if len(chosen) == _MOMENTS:
            break
    return [
        {
            "s": round((t - n_past) * hop_s, 4),
            "change": round(float(found.change[t]), 3),
            "surprise": round(float(found.heard.surprise[t]), 3),
            "bins": list(found.bands[int(found.told[t].argmax())]),
            "told": round(float(found.told[t].max()), 3),
        }
        for t in chosen
    ]


def draw_explanation(
    path: Path, bundle: Bundle, found: Explanation, n_past: int, title: str
) -> None:
    """Write the picture as PNG.

    Raises
    ------
    ConfigError
        The file cannot be written.
    """
    front_end = bundle.manifest.front_end
    hop_s = front_end.hop_length / front_end.sample_rate
    heard, n_frames = found.heard, len(found.change)
    images = [(f"{title}: frames", heard.frames)]
    if found.reconstruction is not None:
        images.append(("reconstruction E[v | E[h | v]]", found.reconstruction))
    images.append(("expected before each frame was heard", heard.prediction))
    extra = 3 if found.hidden is not None else 2
    heights = [1.6] * len(images) + [1.6] * (extra - 1) + [1.2]
    figure, axes = new_figure(n_frames * hop_s, heights)
    for axis, (name, values) in zip(axes, images, strict=False):
        draw_frames(axis, bundle, values, name)
    rest = axes[len(images) :]
    if found.hidden is not None:
        order = np.argsort(found.hidden.argmax(axis=0), kind="stable")
        _heat(rest[0], found.hidden[:, order], hop_s, "viridis")
        rest[0].set_title(
            "hidden units E[h | v], in the order of their peaks",
            loc="left",
            fontsize=10,
        )
        rest[0].set_ylabel("unit")
        rest = rest[1:]
    _heat(rest[0], found.told, hop_s, "inferno")
    rest[0].set_title(
        "what each band told the state (distance to the state had it been as expected)",
        loc="left",
        fontsize=10,
    )
    rest[0].set_ylabel("band")
    seconds = (np.arange(n_frames) + 0.5) * hop_s
    rest[1].plot(seconds, found.change, color="tab:red", label="change of state |du|")
    rest[1].set_ylabel("|du|", color="tab:red")
    beside = rest[1].twinx()
    beside.plot(seconds, heard.free_energy, color="tab:blue", linewidth=0.8)
    beside.set_ylabel("free energy, nats", color="tab:blue")
    rest[1].set_xlabel("s (the song begins at the white line)")
    for axis in axes:
        axis.axvline(n_past * hop_s, color="white" if axis is not rest[1] else "black")
    save(figure, path)


def _heat(axis: Any, values: Float32, hop_s: float, colours: str) -> None:
    axis.imshow(
        values.T,
        origin="lower",
        aspect="auto",
        interpolation="nearest",
        cmap=colours,
        extent=(0, len(values) * hop_s, 0, values.shape[1]),
    )
