"""Recordings, journals and sessions for tests of the review."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import soundfile

from neurovocal.engine.contracts.clock import SystemClock
from neurovocal.engine.contracts.plugin import BuildContext
from neurovocal.engine.contracts.types import (
    Event,
    Label,
    Message,
    NearMiss,
    Offset,
    Onset,
    StreamInfo,
    Surprise,
)
from neurovocal.plugins.review.segments import (
    AudioPiece,
    Collection,
    Recording,
    Segment,
)
from neurovocal.plugins.review.session import ReviewSession
from neurovocal.plugins.review.store import ReviewStore
from neurovocal.plugins.sinks.journal import plugin as journal_plugin

RATE = 16000


def tones(path: Path, spans: Sequence[tuple[float, float]], seconds: float) -> Path:
    """Write a recording of quiet noise with a tone of 2 kHz in each span."""
    rng = np.random.default_rng(1)
    samples = rng.normal(0, 0.001, round(seconds * RATE))
    for onset_s, offset_s in spans:
        first, stop = round(onset_s * RATE), round(offset_s * RATE)
        at = np.arange(stop - first) / RATE
        samples[first:stop] += 0.3 * np.sin(2 * np.pi * 2000 * at)
    soundfile.write(path, samples, RATE, subtype="PCM_16")
    return path


def write_journal(
    path: Path, config: str, events: Iterable[tuple[str, Event]], run: str = "run1"
) -> Path:
    """Write a journal with events of streams at 16 kHz."""
    options = journal_plugin.options.model_validate({"path": str(path)})
    context = BuildContext(clock=SystemClock(), run=run, config_text=config)
    sink = journal_plugin.build(options, context)
    sink.open()
    numbers: dict[tuple[str, type], int] = {}
    for stream, event in events:
        key = stream, type(event)
        numbers[key] = numbers.get(key, -1) + 1
        sink.write(
            Message(StreamInfo(stream, RATE), event, numbers[key], _known_at(event))
        )
    sink.flush(5.0)
    sink.close()
    return path


def heard(
    number: int, onset_s: float, offset_s: float, unit: str, posterior: float
) -> list[Event]:
    """Return the events of a labelled segment."""
    onset, offset = round(onset_s * RATE), round(offset_s * RATE)
    return [
        Onset(number, onset, 12.0),
        Offset(number, onset, offset, False),
        Label(number, onset, offset, unit, posterior, "final", "classifier"),
    ]


def near_miss(onset_s: float, offset_s: float) -> NearMiss:
    """Return a near miss."""
    return NearMiss(round(onset_s * RATE), round(offset_s * RATE), 2.5, 3.0, "quiet")


def surprise(values: Sequence[float], hop_length: int = 160) -> Surprise:
    """Return the surprise of the first frames of a stream."""
    return Surprise(0, hop_length, np.array(values, np.float32))


def collection(
    path: Path, segments: Sequence[tuple[float, float, str]], seconds: float = 4.0
) -> Collection:
    """Return a recording with segments, (onset_s, offset_s, unit)."""
    recording = Recording(
        "song.wav",
        "song.wav",
        RATE,
        RATE,
        160,
        round(seconds * RATE),
        audio=(AudioPiece(str(path)),),
    )
    found = [
        Segment(f"s{n}", "song.wav", round(on * RATE), round(off * RATE), unit)
        for n, (on, off, unit) in enumerate(segments)
    ]
    return Collection("songs", {"song.wav": recording}, found)


def session(store: Path, found: Collection) -> ReviewSession:
    """Return a session over a collection."""
    return ReviewSession(found, ReviewStore(store))


def _known_at(event: Event) -> int:
    match event:
        case Onset():
            return event.sample
        case Offset():
            return event.sample
        case Label() | NearMiss():
            return event.offset or event.onset
    return 0
