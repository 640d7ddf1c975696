"""Parts of a report's page."""

import base64
import io
from dataclasses import dataclass, field

import numpy as np
import soundfile

from neurovocal.engine.contracts.types import Float32
from neurovocal.models.report.tables import ReportTable

# What browsers play; faster recordings are played slower, which also makes ultrasound
# audible.
_HIGHEST_HZ = 48_000
_PEAK = 0.7
_FADE_S = 0.005


@dataclass(frozen=True, slots=True)
class Sound:
    """A stretch of sound to click, with what it is.

    Parameters
    ----------
    caption : str
        What is heard.
    uri : str
        The WAV file itself (``data:``).
    """

    caption: str
    uri: str


@dataclass(frozen=True, slots=True)
class Drawing:
    """An SVG figure with its caption, and the sounds that it shows."""

    svg: str
    caption: str
    sounds: list[Sound] = field(default_factory=list)


def sound_of(samples: Float32, sample_rate: int, caption: str) -> Sound:
    """Return float32[n_samples] as a sound of a page: its peak is set to 0.7.

    Sound of more than 48 kHz is played slower, which the caption says.
    """
    slower = -(-sample_rate // _HIGHEST_HZ)
    peak = float(np.abs(samples).max(initial=0.0))
    shown = samples * (_PEAK / peak) if peak > 0 else samples.copy()
    n_fade = min(round(_FADE_S * sample_rate), len(shown) // 2)
    ramp = np.linspace(0, 1, n_fade, dtype=np.float32)
    shown[:n_fade] *= ramp
    shown[len(shown) - n_fade :] *= ramp[::-1]
    stream = io.BytesIO()
    rate = round(sample_rate / slower)
    soundfile.write(stream, shown, rate, "PCM_16", format="WAV")
    content = base64.b64encode(stream.getvalue()).decode()
    if slower > 1:
        caption += f" ({slower} times slower)"
    return Sound(caption, f"data:audio/wav;base64,{content}")


@dataclass(frozen=True, slots=True)
class Part:
    """A heading with text, measures, figures and a table; each may be missing."""

    title: str = ""
    text: str = ""
    figures: list[Drawing] = field(default_factory=list)
    table: ReportTable | None = None
    measures: list[tuple[str, str, str]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Section:
    """A section of the page."""

    anchor: str
    title: str
    text: str
    parts: list[Part]
