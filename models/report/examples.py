"""Sounds to which units answered most: pictures, and stretches to click and hear."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from neurovocal.engine.contracts.types import Float32
from neurovocal.models.report.draw import LINES, FrameAxes, page_figure, svg
from neurovocal.models.report.parts import Drawing, Sound, sound_of

N_EXAMPLES = 3
# Two examples of a unit are at least so far apart; so much is drawn and heard.
_APART_S = 0.25
_SHOWN_S = 0.1
_HEARD_S = 0.2
_MOST_PEAKS = 200  # of a unit in a recording, the strongest first


@dataclass(frozen=True, slots=True, eq=False)
class Stretch:
    """Stretch of a recording, heard and as frames.

    Parameters
    ----------
    name : str
        Of the recording.
    start_s : float
        Where it begins in the recording, in s.
    samples : float32[n_samples]
        At the bundle's rate.
    frames : float32[n_frames, n_bins]
        Frame 0 begins with the first sample.
    units : sequence of str
        Unit at the centre of each frame; empty where there is none.
    """

    name: str
    start_s: float
    samples: Float32
    frames: Float32
    units: Sequence[str]


@dataclass(frozen=True, slots=True)
class Moment:
    """Frame of a stretch at which a unit was strongly active, and how strongly."""

    stretch: int
    frame: int
    activity: float


def strongest_moments(
    activations: Sequence[Float32], apart: int, count: int = N_EXAMPLES
) -> list[list[Moment]]:
    """Return the moments of strongest activity of each unit, the strongest first.

    Parameters
    ----------
    activations : sequence of float32[n_frames, n_units]
        One array per stretch.
    apart : int
        Least distance of two moments of a stretch, in frames.
    count : int
        Moments per unit, at most.
    """
    n_units = activations[0].shape[1]
    found = []
    for unit in range(n_units):
        candidates = [
            Moment(place, int(frame), float(rows[frame, unit]))
            for place, rows in enumerate(activations)
            for frame in np.argsort(-rows[:, unit], kind="stable")[:_MOST_PEAKS]
        ]
        candidates.sort(key=lambda moment: -moment.activity)
        chosen: list[Moment] = []
        for moment in candidates:
            if all(
                moment.stretch != other.stretch
                or abs(moment.frame - other.frame) >= apart
                for other in chosen
            ):
                chosen.append(moment)
            if len(chosen) == count:
                break
        found.append(chosen)
    return found


def unit_examples(
    axes: FrameAxes,
    sample_rate: int,
    letter: str,
    numbers: Sequence[int],
    activations: Sequence[Float32],
    stretches: Sequence[Stretch],
) -> list[Drawing]:
    """Return a drawing per unit with the sounds to which it answered most.

    Parameters
    ----------
    axes : FrameAxes
        Places of the frames.
    sample_rate : int
        Of the stretches.
    letter : str
        Names the kind of unit: ``h`` for hidden, ``u`` for recurrent ones.
    numbers : sequence of int
        Indices of the units.
    activations : sequence of float32[n_frames, n_units]
        Activations of all units, one array per stretch.
    stretches : sequence of Stretch
        What was heard.
    """
    rows = [each[:, list(numbers)] for each in activations]
    moments = strongest_moments(rows, max(1, round(_APART_S / axes.hop_s)))
    drawings = []
    for number, found in zip(numbers, moments, strict=True):
        if not found:
            continue
        sounds = [
            _sound(axes, sample_rate, stretches[moment.stretch], moment, place)
            for place, moment in enumerate(found, 1)
        ]
        picture = _draw(axes, f"{letter}{number}", found, stretches)
        drawings.append(Drawing(picture, "", sounds))
    return drawings


def _sound(
    axes: FrameAxes, rate: int, stretch: Stretch, moment: Moment, place: int
) -> Sound:
    """Return the sound around a moment."""
    centre = round((moment.frame * axes.hop_s + axes.centre_s) * rate)
    reach = round(_HEARD_S * rate)
    part = stretch.samples[max(0, centre - reach) : centre + reach]
    at_s = stretch.start_s + centre / rate
    unit = stretch.units[moment.frame]
    during = f", in {unit}" if unit else ""
    return sound_of(part, rate, f"{place}: {stretch.name}, {at_s:.3f} s{during}")


def _draw(
    axes: FrameAxes, name: str, found: list[Moment], stretches: Sequence[Stretch]
) -> str:
    """Draw the frames around each moment, which a line marks."""
    reach = max(2, round(_SHOWN_S / axes.hop_s))
    with page_figure(10, 1.9) as figure:
        panels = figure.subplots(1, N_EXAMPLES, squeeze=False, sharey=True)[0]
        for spare in panels[len(found) :]:
            spare.set_visible(False)
        for place, (panel, moment) in enumerate(zip(panels, found, strict=False)):
            stretch = stretches[moment.stretch]
            first = max(0, moment.frame - reach)
            part = stretch.frames[first : moment.frame + reach + 1]
            axes.image(panel, part)
            (image,) = panel.get_images()
            left = (first - moment.frame - 0.5) * axes.hop_s * 1000
            right = left + len(part) * axes.hop_s * 1000
            image.set_extent((left, right, -0.5, axes.n_bins - 0.5))
            limit = (reach + 0.5) * axes.hop_s * 1000
            panel.set_xlim(-limit, limit)
            panel.axvline(0, color=LINES[1], lw=0.8)
            unit = stretch.units[moment.frame]
            during = f" in {unit}" if unit else ""
            panel.set_title(f"{name}, {place + 1}: {moment.activity:.2f}{during}")
            panel.set_xlabel("ms")
            if place:
                panel.set_ylabel("")
        return svg(figure, f"sounds to which unit {name} answered most")
