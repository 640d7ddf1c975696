"""A clips sink that is fed by hand."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import soundfile

from neurovocal.engine.contracts.clock import NS, ManualClock
from neurovocal.engine.contracts.types import (
    Block,
    Event,
    Gap,
    Label,
    Message,
    Offset,
    Onset,
    StreamInfo,
    Surprise,
)
from neurovocal.plugins.sinks.clips.sink import ClipsOptions, ClipsSink

RATE = 1000
INFO = StreamInfo("cage 1", RATE)


EPOCH = 1_700_000_000 * NS


QUICK = {"min_free_mb": 0, "pre_roll_s": 0.1, "post_roll_s": 0.2, "longest_s": 2}


def sink(folder: Path, **options: Any) -> ClipsSink:
    checked = ClipsOptions.model_validate(
        {"path": str(folder / "clips"), **QUICK, **options}
    )
    return ClipsSink(checked, "run1", ManualClock(EPOCH))


def segment(number: int, onset: int, offset: int, **label: Any) -> list[Event]:
    given = {"unit": "a", "posterior": 0.9, "status": "final", "model": "m", **label}
    return [
        Onset(number, onset, 1.0),
        Offset(number, onset, offset, False),
        Label(number, onset, offset, **given),
    ]


def play(
    target: ClipsSink,
    samples: Any,
    events: Sequence[Event],
    cuts: Sequence[int] = (100,),
    *,
    timed: bool = True,
    delay: int = 0,
) -> None:
    """Audio in blocks, each followed by the lane's events, as in the engine.

    `delay`: so many samples later than their events do blocks come (a privacy gate).
    """
    gaps = [e for e in events if isinstance(e, Gap)]
    waiting = sorted(events, key=known_at)
    blocks = list(blocks_of(samples, cuts, gaps))
    for block in blocks:
        while waiting and known_at(waiting[0]) <= block.start + delay:
            give(target, waiting.pop(0), timed)
        target.write(message(block, block.stop, timed))
    for event in waiting:
        give(target, event, timed)


def clips(folder: Path) -> list[tuple[dict[str, Any], Any, Path]]:
    found = []
    for path in sorted((folder / "clips").rglob("*.json")):
        told = json.loads(path.read_text())
        audio, rate = soundfile.read(path.with_name(told["audio"]), dtype="float32")
        assert rate == told["sample_rate"]
        assert len(audio) == told["stop"] - told["start"]
        found.append((told, audio, path))
    return found


def known_at(event: Event) -> int:
    """When a lane would tell: marks at once, labels and gaps a little later."""
    match event:
        case Onset() | Offset():
            return event.sample
        case Label():
            return (event.offset or event.onset) + 30
        case Gap():
            return event.stop
        case Surprise():
            return (event.first + len(event.values)) * event.hop_length
    raise AssertionError(event)


def blocks_of(samples: Any, cuts: Sequence[int], gaps: list[Gap]) -> Iterator[Block]:
    position = turn = 0
    while position < len(samples):
        stop = min(position + max(1, cuts[turn % len(cuts)]), len(samples))
        for gap in gaps:
            if gap.start <= position < gap.stop:
                position = gap.stop
                stop = max(stop, position)
            elif position < gap.start < stop:
                stop = gap.start
        if stop > position:
            yield Block(position, samples[position:stop])
        position = stop
        turn += 1


def message(event: Event, at: int, timed: bool) -> Message:
    made = Message(INFO, event, 0, at)
    utc = EPOCH + made.sample * NS // RATE if timed else None
    return Message(INFO, event, 0, at, utc)


def give(target: ClipsSink, event: Event, timed: bool) -> None:
    target.write(message(event, known_at(event), timed))
