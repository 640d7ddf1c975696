"""Parts of annotated recordings, at their own rate and at others, over backgrounds."""

from collections.abc import Sequence

import numpy as np

from neurovocal.engine.contracts.types import Float32
from neurovocal.models.detection.backgrounds import draw_background
from neurovocal.models.detection.calls import Random
from neurovocal.models.detection.datasets import CallRecording, Span, read_part
from neurovocal.models.detection.scenes import (
    RATES,
    UNKNOWN,
    Scene,
    Target,
    scene_of,
)
from neurovocal.plugins.detectors.band_excess import N_BANDS, FloorOptions, framing

# A recording at another rate is the call of a smaller or larger animal.
_MOST_FACTOR = 8.0
_OTHER_RATES = 0.5  # shares of the parts
_OVER_BACKGROUND = 0.5


def draw_recorded_scene(
    rng: Random,
    n_rows: int,
    recording: CallRecording,
    backgrounds: Sequence[Float32],
) -> Scene:
    """Draw a part of a recording; a shorter one is followed by unknown rows.

    Raises
    ------
    ConfigError
        The file cannot be read.
    """
    source = recording.source
    rate = _draw_rate(rng, source.sample_rate)
    frame_length, hop, _ = framing(FloorOptions(), rate)
    n_samples = (n_rows - 1) * hop + frame_length
    duration_s = n_samples / source.sample_rate
    start_s = max(0.0, rng.random() * (source.duration_s - duration_s))
    start = round(start_s * source.sample_rate)
    samples = read_part(source, start / source.sample_rate, duration_s)[:n_samples]

    def inside(spans: Sequence[Span]) -> list[Span]:
        moved = [
            (a * source.sample_rate - start, b * source.sample_rate - start)
            for a, b in spans
        ]
        return [(a, b) for a, b in moved if b > 0 and a < len(samples)]

    spans = inside(recording.spans)
    if rng.random() < _OVER_BACKGROUND and len(samples):
        samples = _over_background(rng, samples, spans, hop, backgrounds)
    drawn = scene_of(samples, rate, spans)
    if recording.judged is not None:
        mark_unjudged(drawn.target, inside(recording.judged), frame_length, hop)
    whole = Scene(
        np.zeros((n_rows, N_BANDS), np.float16),
        np.zeros(n_rows, np.float16),
        np.full(n_rows, UNKNOWN, np.int8),
        rate,
    )
    whole.levels[: len(drawn.levels)] = drawn.levels[:n_rows]
    whole.scores[: len(drawn.scores)] = drawn.scores[:n_rows]
    whole.target[: len(drawn.target)] = drawn.target[:n_rows]
    return whole


def mark_unjudged(
    target: Target, judged: Sequence[Span], frame_length: int, hop_length: int
) -> None:
    """Make the rows outside of the judged parts (in samples) unknown, in place."""
    centres = np.arange(len(target)) * hop_length + frame_length / 2
    known = np.zeros(len(target), bool)
    for start, stop in judged:
        known |= (centres >= start) & (centres < stop)
    target[~known] = UNKNOWN


def _draw_rate(rng: Random, own: int) -> int:
    """Draw the rate that samples are taken to have."""
    if rng.random() >= _OTHER_RATES:
        return own
    near = [r for r in RATES if own / _MOST_FACTOR <= r <= own * _MOST_FACTOR]
    return int(rng.choice(near or [own]))


def _over_background(
    rng: Random,
    samples: Float32,
    spans: Sequence[Span],
    hop_length: int,
    backgrounds: Sequence[Float32],
) -> Float32:
    """Add a background, -3 to 30 dB below the level of the calls."""
    calls = [samples[max(0, int(a)) : int(b)] for a, b in spans]
    heard = np.concatenate(calls) if calls else samples
    if len(heard) == 0:
        heard = samples
    level = np.sqrt(np.mean(np.square(heard, dtype=np.float64)))
    noise = draw_background(rng, len(samples), hop_length, backgrounds)
    gain = level * 10 ** (-rng.uniform(-3, 30) / 20)
    return np.asarray(samples + gain * noise, np.float32)
