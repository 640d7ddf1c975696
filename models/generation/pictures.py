"""Spectrogram figures; matplotlib comes with the extra ``train``."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from neurovocal.engine.contracts.bundle import Bundle, FrontEnd
from neurovocal.engine.contracts.types import Float32
from neurovocal.models.toolkit.files import write_file
from neurovocal.plugins.pictures import drawable, new_figure, png_of

_INCHES_PER_S = 3.0
_MAX_INCHES = 100.0


def song_figure(seconds: float, heights: list[float]) -> tuple[Any, list[Any]]:
    """Return a figure as wide as its seconds, with panels one above the other."""
    width = min(_MAX_INCHES, 1.5 + _INCHES_PER_S * max(1.0, seconds))
    return new_figure(width, heights)


def draw_frames(axis: Any, bundle: Bundle, frames: Float32, title: str) -> None:
    """Draw float32[n_frames, n_bins] over seconds and kHz; mel bands over bins."""
    front_end = bundle.manifest.front_end
    hop_s = front_end.hop_length / front_end.sample_rate
    low, high, unit = 0.0, float(front_end.n_bins), "bin"
    if front_end.options.get("scale") != "mel":
        low = float(front_end.options.get("low_hz") or 0.0) / 1000
        top = front_end.options.get("high_hz") or front_end.sample_rate / 2
        high, unit = float(top) / 1000, "kHz"
    axis.imshow(
        frames.T,
        origin="lower",
        aspect="auto",
        interpolation="nearest",
        cmap="magma",
        extent=(0, len(frames) * hop_s, low, high),
    )
    axis.set_ylabel(unit)
    shown = drawable(title)
    axis.set_title(shown, loc="left", fontsize="medium", parse_math=False)


def draw_song(path: Path, bundle: Bundle, frames: Float32, title: str) -> None:
    """Write the spectrogram of `frames` as PNG.

    Raises
    ------
    DiskError
        The file cannot be written.
    """
    front_end = bundle.manifest.front_end
    seconds = len(frames) * front_end.hop_length / front_end.sample_rate
    figure, (axis,) = song_figure(seconds, [2.5])
    draw_frames(axis, bundle, np.asarray(frames), title)
    axis.set_xlabel("s")
    save_png(figure, path)


def save_png(figure: Any, path: Path) -> None:
    """Write a figure as PNG.

    Raises
    ------
    DiskError
        The file cannot be written.
    """
    write_file(path, png_of(figure))


_SHOWN_S = 2.0
_SHADES = 12  # more would only make the file larger


def draw_songs(path: Path, songs: Mapping[str, Float32], front_end: FrontEnd) -> None:
    """Write a PNG of the first two seconds of each song.

    Parameters
    ----------
    path : Path
    songs : mapping of str to float32[n_frames, n_bins]
        Title and scaled frames.
    front_end : FrontEnd
        Rate and hop of the frames.

    Raises
    ------
    DiskError
        The file cannot be written.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    frames_per_s = front_end.sample_rate / front_end.hop_length
    figure, axes = pyplot.subplots(
        len(songs), 1, sharex=True, figsize=(9, 0.95 * len(songs)), squeeze=False
    )
    for (name, song), axis in zip(songs.items(), axes[:, 0], strict=True):
        shown = np.asarray(song)[: round(_SHOWN_S * frames_per_s)]
        axis.imshow(
            shown.T,
            origin="lower",
            aspect="auto",
            cmap=pyplot.get_cmap("magma", _SHADES),
            vmin=0,
            vmax=1,
            extent=(0, len(shown) / frames_per_s, 0, shown.shape[1]),
        )
        axis.set_yticks([])
        axis.set_ylabel(name.replace("_", "\n"), rotation=0, ha="right", va="center")
    axes[-1, 0].set_xlabel("s")
    figure.tight_layout(pad=0.3)
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=64)
    pyplot.close(figure)
    write_file(path, stream.getvalue())
