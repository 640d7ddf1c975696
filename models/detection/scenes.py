"""Synthetic recordings: calls over backgrounds, as rows of excess with targets."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from neurovocal.engine import Block
from neurovocal.engine.contracts.types import Float32
from neurovocal.models.detection.backgrounds import draw_background
from neurovocal.models.detection.calls import Random, draw_call_type, place_calls
from neurovocal.plugins.detectors.band_excess import N_BANDS, FloorOptions, framing
from neurovocal.plugins.detectors.bands import BandsOptions, detector_parts

# Rates of recorders that are in use, and how often each is drawn.
RATES = {
    **{1000: 3, 2500: 7, 4000: 4, 8000: 9, 16000: 13, 22050: 10, 32000: 14},
    **{44100: 12, 48000: 4, 96000: 4, 192000: 5, 250000: 8, 384000: 5, 500000: 2},
}
SILENCE, CALL, UNKNOWN = 0, 1, 2  # targets; unknown rows do not count
_FAINTEST_DB = 7.0  # excess that a call reaches somewhere, or else its rows are unknown
_AT_ONCE = 2**18

Target = NDArray[np.int8]


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """Rows of a recording with their targets.

    Parameters
    ----------
    levels : float16[n_rows, n_bands]
        Level of each band in dB above what steady noise exceeds in one of 10 000 rows.
    scores : float16[n_rows]
        Scores of the `bands` detector in dB.
    target : int8[n_rows]
        `SILENCE`, `CALL` or `UNKNOWN`.
    sample_rate : int
        Rate of its samples in Hz.
    """

    levels: NDArray[np.float16]
    scores: NDArray[np.float16]
    target: Target
    sample_rate: int


def draw_scene(rng: Random, n_rows: int, recordings: Sequence[Float32]) -> Scene:
    """Draw calls of none, one or two imaginary animals over a background.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of all randomness.
    n_rows : int
        Length.
    recordings : sequence of float32[n_samples]
        Backgrounds. They are used sample for sample at any rate: rain at 44.1 kHz is a
        hiss with other clicks in it at 250 kHz.
    """
    rate = int(
        rng.choice(list(RATES), p=np.array([*RATES.values()]) / sum(RATES.values()))
    )
    frame_length, hop, edges_hz = framing(FloorOptions(), rate)
    n_samples = (n_rows - 1) * hop + frame_length
    samples = draw_background(rng, n_samples, hop, recordings)
    spans: list[tuple[int, int]] = []
    n_animals = 0 if rng.random() < 0.1 else 1 + int(rng.random() < 0.2)
    for _ in range(n_animals):
        of = draw_call_type(rng, float(edges_hz[0]) / rate)
        calls, own = place_calls(rng, of, n_samples, hop)
        samples += calls
        spans += own
    samples *= 10 ** (rng.uniform(-60, -10) / 20)
    return scene_of(samples.astype(np.float32), rate, sorted(spans))


def scene_of(
    samples: Float32, sample_rate: int, spans: Sequence[tuple[float, float]]
) -> Scene:
    """Return the rows of a whole recording with their targets.

    Parameters
    ----------
    samples : float32[n_samples]
        One channel.
    sample_rate : int
        In Hz.
    spans : sequence of (onset, offset)
        Calls in samples, sorted.
    """
    options = BandsOptions()
    front, score, _, _ = detector_parts(options, sample_rate)
    column = np.ascontiguousarray(samples, np.float32)[:, None]
    parts = [
        front.push(Block(first, column[first : first + _AT_ONCE]))[1]
        for first in range(0, len(column), _AT_ONCE)
    ]
    rows = [np.empty((0, N_BANDS), np.float32), *parts, front.flush()[1]]
    excess = np.concatenate(rows)
    target = targets_of(excess, spans, front.frame_length, front.hop_length)
    scores = score.push(0, excess).astype(np.float16)
    return Scene(
        (excess - score.usual_db).astype(np.float16), scores, target, sample_rate
    )


def targets_of(
    excess: Float32,
    spans: Sequence[tuple[float, float]],
    frame_length: int,
    hop_length: int,
) -> Target:
    """Return the target of each row: whether the centre of its frame lies in a call.

    Parameters
    ----------
    excess : float32[n_rows, n_bands]
        In dB; a call that never rises above the floors is unknown, not silence.
    spans : sequence of (onset, offset)
        In samples, sorted. A call between two centres gets the nearest row.
    frame_length, hop_length : int
        In samples.
    """
    target = np.zeros(len(excess), np.int8)
    centres = np.arange(len(excess)) * hop_length + frame_length / 2
    for onset, offset in spans:
        first, stop = np.searchsorted(centres, (onset, offset))
        if stop <= first:
            nearest = round(((onset + offset) / 2 - frame_length / 2) / hop_length)
            first = max(0, nearest)
            stop = first + 1
        if first < len(excess):
            is_audible = excess[first:stop].max() > _FAINTEST_DB
            target[first:stop] = CALL if is_audible else UNKNOWN
    return target
