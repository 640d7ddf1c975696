"""Figures over a time axis; matplotlib comes with the extra ``train``."""

import importlib.util
import io
from typing import Any

from neurovocal.engine import ConfigError
from neurovocal.engine.support.text import printable


def has_matplotlib() -> bool:
    """Return whether matplotlib is installed."""
    return importlib.util.find_spec("matplotlib") is not None


def missing_matplotlib(what: str) -> str | None:
    """Return a sentence if `what`, such as an option, lacks matplotlib; else None."""
    if has_matplotlib():
        return None
    return (
        f"{what} needs matplotlib, which is not installed: pip install "
        "matplotlib (it comes with the extra 'train', too)"
    )


def require_matplotlib(option: str) -> None:
    """Raise if matplotlib is missing, with the name of the option that needs it.

    Raises
    ------
    ConfigError
        matplotlib is not installed.
    """
    problem = missing_matplotlib(option)
    if problem is not None:
        raise ConfigError(problem)


def new_figure(inches: float, heights: list[float]) -> tuple[Any, list[Any]]:
    """Return a figure with panels one above the other over the same time axis.

    Parameters
    ----------
    inches : float
        Width of the figure.
    heights : list of float
        Height of each panel in inches.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(inches, sum(heights) + 0.8), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(
        len(heights), 1, sharex=True, squeeze=False, height_ratios=heights
    )
    return figure, list(axes[:, 0])


def drawable(text: str) -> str:
    """Replace characters that the font of pictures lacks by their code, ``U+9CE5``."""
    from matplotlib.font_manager import findfont, get_font

    font = get_font(findfont("DejaVu Sans"))
    return "".join(
        char if font.get_char_index(ord(char)) else f"U+{ord(char):04X} "
        for char in printable(text)
    ).rstrip()


def png_of(figure: Any, **texts: str) -> bytes:
    """Return a figure as PNG, with texts by keyword, such as ``Title``, in the file."""
    stream = io.BytesIO()
    # Without the version of matplotlib, the same picture gives the same file.
    figure.savefig(stream, format="png", dpi=100, metadata={"Software": None, **texts})
    return stream.getvalue()
