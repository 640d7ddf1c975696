"""Band levels of annotated stretches, and what they say about the examples."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from neurovocal.engine.contracts.types import Block, Float32
from neurovocal.plugins.detectors.band_excess import BandExcess, FloorOptions
from neurovocal.plugins.detectors.band_level import default_band

Span: TypeAlias = tuple[float, float]

# A frame is this part of the median duration, within limits (ms); its hop a quarter.
_FRAMES_IN_CALL = 10
_LEAST_FRAME_MS, _MOST_FRAME_MS = 0.5, 10.0
_MOST_NARROWBAND_FRAME_MS, _NARROWBAND_RATE = 20.0, 5000
_LEAST_FRAME_SAMPLES = 16
# Bands of this share of the largest excess of the examples, in dB, are theirs.
_BAND_SHARE = 0.25
_LEAST_NOISE_S = 0.05
# Bands below the usual ones are used where the examples are so much louder there.
_LOUDER_DB = 6.0


@dataclass(frozen=True, eq=False)
class Stretch:
    """Annotated stretch of a recording.

    Parameters
    ----------
    samples : float32[n_samples]
        One channel.
    sample_rate : int
        In Hz.
    spans : sequence of (float, float)
        Examples in seconds from the first sample, in order, without overlaps.
    judged : sequence of (float, float)
        Where the annotation is complete: what is found there and is no example is a
        false alarm.
    """

    samples: Float32
    sample_rate: int
    spans: Sequence[Span]
    judged: Sequence[Span]

    def judge(self, found: Sequence[Span]) -> list[Span]:
        """Return the segments that begin where the annotation is complete."""
        return [
            span
            for span in found
            if any(start <= span[0] < stop for start, stop in self.judged)
        ]

    def between_examples(
        self, times_s: NDArray[Any], margin_s: float
    ) -> NDArray[np.bool_]:
        """Return which times are further than a margin from every example."""
        between = np.ones(len(times_s), bool)
        for start, stop in self.spans:
            near = times_s >= start - margin_s
            between &= ~(near & (times_s < stop + margin_s))
        return between


class HeardStretch:
    """Band levels of a stretch above their floors, and which hops are examples."""

    def __init__(self, stretch: Stretch, common: dict[str, Any]) -> None:
        excess = BandExcess(FloorOptions(**common), stretch.sample_rate)
        _, rows = excess.push(Block(0, stretch.samples[:, None]))
        _, rest = excess.flush()
        self.stretch = stretch
        self.excess = excess
        self.rows = np.concatenate((rows, rest))
        self.hop = excess.hop_length
        self.origin = (excess.frame_length - excess.hop_length) // 2
        self.times_s = (
            np.arange(len(self.rows)) * self.hop + excess.frame_length / 2
        ) / stretch.sample_rate
        self.frame_s = excess.frame_length / stretch.sample_rate

    @cached_property
    def of_example(self) -> list[slice]:
        """Hops whose centres lie in each example; at least one."""
        found = []
        for start, stop in self.stretch.spans:
            first, last = np.searchsorted(self.times_s, (start, stop))
            first = min(first, max(len(self.rows) - 1, 0))
            found.append(slice(int(first), int(max(last, first + 1))))
        return found

    @cached_property
    def is_outside(self) -> NDArray[np.bool_]:
        """Hops that are judged and touch no example."""
        outside = np.zeros(len(self.rows), bool)
        for start, stop in self.stretch.judged:
            outside |= (self.times_s >= start) & (self.times_s < stop)
        return outside & self.stretch.between_examples(self.times_s, self.frame_s)


def frames_of_duration(duration_s: float, sample_rate: int) -> dict[str, Any]:
    """Return frame and hop in ms for calls of a duration in seconds."""
    most = _MOST_FRAME_MS
    if sample_rate < _NARROWBAND_RATE:
        most = _MOST_NARROWBAND_FRAME_MS
    least = max(_LEAST_FRAME_MS, 1000 * _LEAST_FRAME_SAMPLES / sample_rate)
    frame_ms = max(least, min(1000 * duration_s / _FRAMES_IN_CALL, most))
    hop_ms = max(frame_ms / 4, 1000 / sample_rate)
    return {"frame_ms": rounded(frame_ms), "hop_ms": rounded(hop_ms)}


def rounded(value: float, digits: int = 3) -> float:
    """Return a number with few digits."""
    return float(f"{value:.{digits}g}")


def lowest_edge(stretches: Sequence[Stretch], common: dict[str, Any]) -> dict[str, Any]:
    """Return a lower `low_hz` than the default if the examples are louder below it."""
    rate = stretches[0].sample_rate
    default = default_band(rate)[0]
    low = rounded(2000 / common["frame_ms"])
    if low >= default:
        return {}
    options = common | {"low_hz": low}
    options["floor_db"] = floor_between(stretches, options)
    heard = [HeardStretch(stretch, options) for stretch in stretches]
    profile, edges = _profile(heard), heard[0].excess.edges_hz
    is_below = edges[1:] <= default
    below, above = (profile[each].max(initial=0.0) for each in (is_below, ~is_below))
    return {"low_hz": low} if below > above + _LOUDER_DB else {}


def floor_between(
    stretches: Sequence[Stretch], common: dict[str, Any]
) -> tuple[float, ...]:
    """Return the noise floor between the examples, or below them if there is none.

    Raises
    ------
    ValueError
        The stretches are too short to hold a frame.
    """
    rate = stretches[0].sample_rate
    excess = BandExcess(FloorOptions(**common), rate)
    hop, frame = excess.hop_length, excess.frame_length
    quiet, loud = [], []
    for stretch in stretches:
        levels = excess.levels(stretch.samples)
        times_s = (np.arange(len(levels)) * hop + frame / 2) / rate
        quiet.append(levels[stretch.between_examples(times_s, frame / rate)])
        loud.append(levels)
    between = np.concatenate(quiet)
    if len(between) * hop < _LEAST_NOISE_S * rate:
        between = np.concatenate(loud)
    if len(between) == 0:
        raise ValueError("too short to hold a frame")
    return excess.floor_of(between)


def _profile(heard: Sequence[HeardStretch]) -> NDArray[np.float64]:
    """Return the mean excess of the examples in each band, each at its loud moments."""
    levels = [
        np.quantile(each.rows[hops], 0.75, axis=0)
        for each in heard
        for hops in each.of_example
        if len(each.rows[hops])
    ]
    return np.asarray(np.mean(levels, axis=0))


def call_band(heard: Sequence[HeardStretch]) -> Span | None:
    """Return the edges in Hz of the bands in which the examples are heard."""
    profile, edges = _profile(heard), heard[0].excess.edges_hz
    if profile.max() <= 0:
        return None
    loud = np.flatnonzero(profile >= _BAND_SHARE * profile.max())
    return float(edges[loud[0]]), float(edges[loud[-1] + 1])
