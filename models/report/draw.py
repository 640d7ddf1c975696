"""Figures as inline SVG with the colours of the page, light or dark."""

import hashlib
import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from html import escape
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator

from neurovocal.engine.contracts.bundle import Bundle
from neurovocal.engine.contracts.types import Float32
from neurovocal.engine.lane.offline import build_front_end
from neurovocal.models.toolkit.measures import Float64

# Medium tones are readable on white and on black.
LINES = ("#3f86d2", "#e0742b", "#2f9e6e", "#8a7fc7", "#b58a1a")
WRONG = "#e0443e"
# Placeholder for the page's text colour, which only the browser knows.
_INK = "#010203"
_COLOURS = 64  # of an image; more would double the page without a visible difference
_STYLE: dict[Any, Any] = {
    "text.parse_math": False,  # a unit may be called $
    "svg.fonttype": "none",
    "svg.hashsalt": "neurovocal",
    "image.composite_image": False,
    "image.interpolation": "none",
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
    "axes.facecolor": "none",
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "text.color": _INK,
    "axes.edgecolor": _INK,
    "axes.labelcolor": _INK,
    "axes.titlecolor": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "axes.linewidth": 0.7,
}
INK = _INK


@contextmanager
def page_figure(width: float, height: float) -> Iterator[Figure]:
    """Open an empty figure in the page's style; sizes in inches."""
    with mpl.rc_context(_STYLE):
        yield Figure(figsize=(width, height), layout="constrained")


def svg(figure: Figure, title: str) -> str:
    """Return a finished figure as an ``<svg>`` element; reproducible byte for byte.

    Parameters
    ----------
    figure : Figure
        From `page_figure`.
    title : str
        Text for screen readers.
    """
    FigureCanvasSVG(figure)
    stream = io.StringIO()
    metadata: dict[str, Any] = {"Date": None, "Creator": None}
    with warnings.catch_warnings():
        # Text stays text: the browser has fonts for scripts that matplotlib's lacks.
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        figure.savefig(stream, format="svg", metadata=metadata)
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    # Names of groups would occur in every figure of the page.
    text = _with_stable_ids(re.sub(r'<g id="[^"]*_\d+"', "<g", text))
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = text.replace(_INK, "currentColor")
    width = round(figure.get_figwidth() * 96)
    head = f'<svg role="img" aria-label="{escape(title)}" style="width:{width}px"'
    return re.sub(
        r'<svg( height="[^"]*"| width="[^"]*")*', lambda _: head, text, count=1
    )


def _with_stable_ids(text: str) -> str:
    """Replace ids by ones from their order and the figure's content.

    matplotlib derives them from coordinates, whose last bits differ between layouts.
    """
    names = dict.fromkeys(re.findall(r' id="([^"]+)"', text))
    places = {name: f"{place}" for place, name in enumerate(names)}

    def rename(prefix: str) -> str:
        return re.sub(
            r'( id="|"#|\(#)([^")]+)',
            lambda m: f"{m[1]}{prefix}{places[m[2]]}" if m[2] in places else m[0],
            text,
        )

    return rename(f"f{hashlib.sha256(rename('').encode()).hexdigest()[:8]}-")


@lru_cache
def colour_map(name: str) -> Any:
    """Return a colour map with `_COLOURS` colours, which compresses well."""
    return mpl.colormaps[name].resampled(_COLOURS)


class FrameAxes:
    """Position of frames in time and frequency.

    Parameters
    ----------
    bundle : Bundle
        Bundle whose front end computes the frames.
    """

    def __init__(self, bundle: Bundle) -> None:
        front_end = bundle.manifest.front_end
        self.hop_s = front_end.hop_length / front_end.sample_rate
        self.centre_s = front_end.frame_length / 2 / front_end.sample_rate
        self.n_bins = front_end.n_bins
        features = build_front_end(front_end, bundle)
        found = getattr(features, "frequencies_hz", None)
        self.frequencies_khz: Float64 | None = None
        if found is not None and len(found) == self.n_bins:
            self.frequencies_khz = np.asarray(found, np.float64) / 1000

    def frame_at(self, at_s: float) -> int:
        """Return the first frame centred at or after `at_s`, at least 0."""
        return max(0, int(np.ceil((at_s - self.centre_s) / self.hop_s)))

    def image(
        self,
        panel: Any,
        frames: Float32,
        first: int = 0,
        *,
        cmap: str = "magma",
        limits: tuple[float, float] = (0.0, 1.0),
    ) -> None:
        """Draw float32[n_frames, n_bins] as a spectrogram over seconds and kHz."""
        left = first * self.hop_s + self.centre_s - self.hop_s / 2
        panel.imshow(
            frames.T,
            origin="lower",
            aspect="auto",
            extent=(left, left + len(frames) * self.hop_s, -0.5, self.n_bins - 0.5),
            cmap=colour_map(cmap),
            vmin=limits[0],
            vmax=limits[1],
        )
        self.frequency_axis(panel)

    def frequency_axis(self, panel: Any) -> None:
        """Label a y axis of bins in kHz."""
        khz = self.frequencies_khz
        if khz is None:
            panel.set_ylabel("bin")
            return
        wanted = MaxNLocator(5, steps=[1, 2, 5, 10]).tick_values(khz[0], khz[-1])
        wanted = wanted[(wanted >= khz[0]) & (wanted <= khz[-1])]
        places = np.interp(wanted, khz, np.arange(self.n_bins))
        # Bands that lie close together (mel) need room for their numbers.
        kept = [0]
        for k in range(1, len(places)):
            if places[k] - places[kept[-1]] >= self.n_bins / 9:
                kept.append(k)
        names = {float(places[k]): f"{wanted[k]:g}" for k in kept}
        panel.yaxis.set_major_locator(FixedLocator(list(names)))
        panel.yaxis.set_major_formatter(
            FuncFormatter(lambda at, _: names.get(float(at), ""))
        )
        panel.set_ylabel("kHz")


def draw_matrix(
    panel: Any,
    rows: Float32,
    length_s: float,
    limits: tuple[float, float],
    cmap: str,
) -> None:
    """Draw float32[n_frames, n_units] over `length_s` seconds."""
    panel.imshow(
        rows.T,
        origin="lower",
        aspect="auto",
        extent=(0, length_s, 0, rows.shape[1]),
        cmap=colour_map(cmap),
        vmin=limits[0],
        vmax=max(limits[1], limits[0] + 1e-6),
    )
