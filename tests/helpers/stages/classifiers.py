"""Audio of tones, and the events of a classifier on it."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from bundles.tiny_bundle import HOP_LENGTH
from numpy.typing import NDArray

from neurovocal.engine.audio.reblocker import Reblocker
from neurovocal.engine.contracts.bundle import load_bundle
from neurovocal.engine.contracts.types import (
    Block,
    Event,
    Gap,
    Label,
    Mark,
)
from neurovocal.engine.lane.offline import build_front_end
from neurovocal.plugins.models.classifier.model import Classifier

LOW, HIGH = 3000.0, 11000.0  # unit `a` and unit `b` of the tiny bundle
RATE = 32000
TILE = 8


def audio(n_samples: int, *tones: tuple[int, int, float]) -> NDArray[np.float32]:
    """Make soft noise with tones ``(onset, offset, hz)``, float32[n_samples, 1]."""
    samples = np.random.default_rng(5).normal(0, 1e-5, n_samples)
    for onset, offset, hz in tones:
        time = np.arange(offset - onset) / RATE
        samples[onset:offset] += 0.3 * np.sin(2 * np.pi * hz * time)
    return samples.astype(np.float32)[:, None]


def process_audio(
    model: Classifier,
    folder: Path,
    items: Iterable[Block | Gap],
    marks: dict[int, list[Mark]] | None = None,
    *,
    tile: int = TILE,
    flush: bool = True,
) -> list[Event]:
    """Process blocks as a lane does: tiles, frames, events, then marks.

    `marks` are processed once the stream position in their key is reached.
    """
    front_end = load_bundle(folder).manifest.front_end
    features = build_front_end(front_end, folder)
    reblocker = Reblocker(tile * HOP_LENGTH)
    waiting = sorted((marks or {}).items())
    events: list[Event] = []

    def process_tile(block: Block) -> None:
        for frames in features.process(block):
            events.extend(model.process(frames))
        process_marks(block.stop)

    def process_marks(stop: int) -> None:
        while waiting and waiting[0][0] <= stop:
            for mark in waiting.pop(0)[1]:
                events.extend(model.process(mark))

    for item in items:
        if isinstance(item, Gap):
            for rest in reblocker.flush():
                process_tile(rest)
            process_marks(item.start)
            list(features.process(item))
            events.extend(model.process(item))
        else:
            for block in reblocker.push(item):
                process_tile(block)
    for rest in reblocker.flush():
        process_tile(rest)
    process_marks(2**62)
    return [*events, *model.flush()] if flush else events


def labels(events: Iterable[Event]) -> list[Label]:
    return [event for event in events if isinstance(event, Label)]
