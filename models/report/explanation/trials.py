"""Trials with a segment's frames: what decided its label, what would have changed it.

A segment is cut into cells, stretches of frames in bands of bins. Occlusion (Zeiler and
Fergus, 2014, Visualizing and Understanding Convolutional Networks, section 4.2): a cell
becomes the recording's background, and the network hears the segment again; the
log-odds of the label against another unit that are lost are the cell's weight.
Counterfactual (Goyal et al., 2019, Counterfactual Visual Explanations): cells are
replaced by those of a segment of the other unit, the most telling first, until the
engine would give that unit; then every cell that is not needed is put back.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from neurovocal.engine.contracts.types import Float32
from neurovocal.models.report.explanation.heard import HeardSegment, Listener
from neurovocal.plugins.models.history import Float64

_STEPS = 10  # stretches of a segment
_BANDS = 8


@dataclass(frozen=True, slots=True)
class Cells:
    """Grid of a segment: edges of stretches in frames, and of bands in bins.

    Stretches count from the first frame of the lead.
    """

    times: tuple[int, ...]
    bands: tuple[int, ...]

    def places(self, step: int, band: int) -> tuple[slice, slice]:
        """Return where a cell lies in the frames."""
        return (
            slice(self.times[step], self.times[step + 1]),
            slice(self.bands[band], self.bands[band + 1]),
        )


@dataclass(frozen=True, slots=True, eq=False)
class Occlusion:
    """Log-odds, in nats, that the label loses without each part of what was heard.

    Parameters
    ----------
    margin : float
        Log-odds of the label against the other unit, as it was heard.
    by_time : float64[n_steps]
        Lost without a stretch, in all bands.
    by_cell : float64[n_steps, n_bands]
        Lost without a cell.
    """

    margin: float
    by_time: Float64
    by_cell: Float64


@dataclass(frozen=True, slots=True, eq=False)
class Counterfactual:
    """Least change found that makes a segment another unit.

    Parameters
    ----------
    unit : str
        The other unit.
    lender : HeardSegment
        Segment of that unit whose cells were taken.
    cells : list of (int, int)
        Stretch and band of each replaced cell; all of them where that is not enough.
    frames : float32[n, n_bins]
        Lead and segment with these cells.
    given, posterior : str, float
        What the engine would say to it.
    """

    unit: str
    lender: HeardSegment
    cells: list[tuple[int, int]]
    frames: Float32
    given: str
    posterior: float

    @property
    def is_found(self) -> bool:
        """True if the engine would give the other unit."""
        return self.given == self.unit


def cells_of(segment: HeardSegment) -> Cells:
    """Return the grid of a segment; its lead has stretches of the same length."""
    n_own, n_lead = segment.stop - segment.first, segment.n_lead
    n_steps = min(_STEPS, n_own)
    own = np.round(np.linspace(0, n_own, n_steps + 1)).astype(int)
    step = max(1, round(n_own / n_steps))
    before = {0, *range(n_lead, 0, -step)}
    times = sorted({*before, *(n_lead + own).tolist()})
    n_bins = segment.frames.shape[1]
    bands = np.round(np.linspace(0, n_bins, min(_BANDS, n_bins) + 1)).astype(int)
    return Cells(tuple(times), tuple(bands.tolist()))


def occlude(
    listener: Listener, segment: HeardSegment, unit: str, other: str, cells: Cells
) -> Occlusion:
    """Silence each cell and each stretch, and hear the segment again."""
    background = segment.recording.background
    margin = listener.margin(segment.scores, unit, other)

    def lost(time: slice, bins: slice) -> float:
        frames = segment.frames.copy()
        frames[time, bins] = background[bins]
        scores = listener.scores(frames, segment.state, segment.n_lead)
        return margin - listener.margin(scores, unit, other)

    n_steps, n_bands = len(cells.times) - 1, len(cells.bands) - 1
    stretches = [slice(start, stop) for start, stop in pairwise(cells.times)]
    by_time = np.array([lost(stretch, slice(None)) for stretch in stretches])
    by_cell = np.zeros((n_steps, n_bands))
    for step in range(n_steps):
        for band in range(n_bands):
            by_cell[step, band] = lost(*cells.places(step, band))
    return Occlusion(margin, by_time, by_cell)


def nearest_of(segment: HeardSegment, lenders: list[HeardSegment]) -> HeardSegment:
    """Return the segment whose frames, stretched to this one's number, are nearest."""
    own = segment.frames[segment.n_lead :]

    def distance(lender: HeardSegment) -> float:
        other = _stretched(lender, len(own))
        return float(np.square(own - other).mean())

    return min(lenders, key=distance)


def change_to(
    listener: Listener,
    segment: HeardSegment,
    unit: str,
    other: str,
    lender: HeardSegment,
    cells: Cells,
) -> Counterfactual:
    """Find few cells of another unit's segment that make this one that unit.

    Parameters
    ----------
    listener : Listener
    segment : HeardSegment
    unit, other : str
        Most probable unit besides, and the one that the segment shall become.
    lender : HeardSegment
        A segment of `other`, which is stretched to the same number of frames.
    cells : Cells
        Of the segment; those of its lead stay as they are.
    """
    n_own = segment.stop - segment.first
    lent = segment.frames.copy()
    lent[segment.n_lead :] = _stretched(lender, n_own)
    own = [
        (step, band)
        for step in range(len(cells.times) - 1)
        for band in range(len(cells.bands) - 1)
        if cells.times[step] >= segment.n_lead
    ]

    def heard(chosen: list[tuple[int, int]]) -> tuple[Float32, Float64]:
        frames = segment.frames.copy()
        for cell in chosen:
            places = cells.places(*cell)
            frames[places] = lent[places]
        return frames, listener.scores(frames, segment.state, segment.n_lead)

    def given(chosen: list[tuple[int, int]]) -> str:
        return listener.decide(heard(chosen)[1], n_own)[0]

    odds = {cell: listener.margin(heard([cell])[1], unit, other) for cell in own}
    order = sorted(own, key=lambda cell: odds[cell])
    chosen = order
    for count in range(1, len(order) + 1):
        if given(order[:count]) == other:
            chosen = order[:count]
            for cell in reversed(chosen[:-1]):  # the least telling is put back first
                without = [each for each in chosen if each != cell]
                if given(without) == other:
                    chosen = without
            break
    frames, scores = heard(chosen)
    label, posterior = listener.decide(scores, n_own)
    return Counterfactual(other, lender, chosen, frames, label, posterior)


def _stretched(segment: HeardSegment, n_frames: int) -> Float32:
    """Return a segment's own frames at another number of frames, interpolated."""
    own = segment.frames[segment.n_lead :]
    places = np.linspace(0, len(own) - 1, n_frames)
    below = np.floor(places).astype(int)
    above = np.minimum(below + 1, len(own) - 1)
    share = (places - below)[:, None].astype(np.float32)
    return np.asarray((1 - share) * own[below] + share * own[above], np.float32)
