"""Test signals, division into blocks, and events in a form that can be compared."""

from collections.abc import Iterable, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neurovocal.engine.contracts.types import Block, Float32, Frames, Posteriors


def canonical(event: Any) -> tuple[Any, ...]:
    """Return an event as a tuple that compares by value, arrays byte for byte."""
    assert is_dataclass(event)
    values = [getattr(event, f.name) for f in fields(event) if f.name != "arrived_ns"]
    plain = [(v.shape, v.tobytes()) if isinstance(v, np.ndarray) else v for v in values]
    return (type(event).__name__, *plain)


def recut(
    samples: Float32, lengths: Sequence[int], start: int = 0, *, copy: bool = True
) -> list[Block]:
    """Divide float32[n_samples, n_channels] into blocks of lengths used in turn."""
    blocks = []
    position, index = 0, 0
    while position < len(samples):
        count = max(1, lengths[index % len(lengths)])
        part = samples[position : position + count]
        blocks.append(Block(start + position, part.copy() if copy else part))
        position += count
        index += 1
    return blocks


def song(sample_rate: int, seconds: float, *, seed: int = 0) -> NDArray[np.float32]:
    """Synthesize tone bursts of 60 to 120 ms with pauses, float32[n_samples, 1]."""
    rng = np.random.default_rng(seed)
    n_samples = round(sample_rate * seconds)
    samples = rng.normal(0.0, 1e-3, n_samples)
    position = round(0.5 * sample_rate)
    while True:
        length = round(sample_rate * rng.uniform(0.06, 0.12))
        if position + length > n_samples - sample_rate // 10:
            return samples.astype(np.float32)[:, None]
        time = np.arange(length) / sample_rate
        pitch = sample_rate * rng.uniform(0.06, 0.2)
        burst = np.sin(2 * np.pi * pitch * time) * np.hanning(length)
        samples[position : position + length] += 0.3 * burst
        position += length + round(sample_rate * rng.uniform(0.05, 0.12))


def gather(
    stage: Any, items: Iterable[Any], *, flush: bool = True
) -> list[tuple[Any, ...]]:
    """Return the canonical events of a stage for some items and, by default, its flush.

    Consecutive frames are joined, so that results do not depend on how they were
    divided into events.
    """
    events = [event for item in items for event in stage.process(item)]
    if flush:
        events += stage.flush()
    return [canonical(event) for event in _joined(events)]


def _joined(events: list[Any]) -> list[Any]:
    joined: list[Any] = []
    for event in events:
        last: Any = joined[-1] if joined else None
        if (
            isinstance(event, Frames | Posteriors)
            and type(last) is type(event)
            and last.first + len(last.values) == event.first
        ):
            values = np.concatenate([last.values, event.values])
            joined[-1] = type(event)(
                last.first, last.hop_length, last.frame_length, values
            )
        else:
            joined.append(event)
    return joined
