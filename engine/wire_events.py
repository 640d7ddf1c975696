"""From an event to its header on the wire, and back."""

import math
from typing import Any, assert_never

import numpy as np

from neurovocal.engine.types import (
    Anchor,
    Audio,
    Block,
    Control,
    Event,
    Float32,
    Forecast,
    Frames,
    Gap,
    Health,
    Label,
    Message,
    Offset,
    Onset,
    Posteriors,
    Stats,
    Surprise,
    Synthesis,
    Trigger,
    Withheld,
)
from neurovocal.engine.wire_headers import (
    AnchorHeader,
    AnyHeader,
    AudioHeader,
    BlockHeader,
    ControlHeader,
    ForecastHeader,
    FramesHeader,
    GapHeader,
    HealthHeader,
    LabelHeader,
    OffsetHeader,
    OnsetHeader,
    PosteriorsHeader,
    StatsHeader,
    SurpriseHeader,
    SynthesisHeader,
    TriggerHeader,
    WithheldHeader,
)


def array_of(event: Event) -> Float32 | None:
    """Array of a bulky event, None for the others."""
    match event:
        case Frames() | Posteriors() | Surprise() | Synthesis():
            return event.values
        case Block() | Audio():
            return event.samples
        case _:
            return None


def header_of(message: Message) -> AnyHeader:
    """Canonical header: everything that the audio alone defines.

    Parameters
    ----------
    message : Message
        Any message of the engine.
    """
    event = message.event
    common: dict[str, Any] = {
        "stream": message.info.stream,
        "seq": message.seq,
        "sample": message.sample,
        "at": message.at,
        "sample_rate": message.info.sample_rate,
    }
    array = array_of(event)
    if array is not None:
        common["dtype"] = "<f4"
        common["shape"] = list(array.shape)
    match event:
        case Label():
            return LabelHeader(
                **common,
                segment=event.segment,
                onset=event.onset,
                offset=event.offset,
                unit=event.unit,
                posterior=event.posterior,
                status=event.status,
                model=event.model,
            )
        case Forecast():
            return ForecastHeader(
                **common,
                segment=event.segment,
                unit=event.unit,
                posterior=event.posterior,
                posteriors=dict(event.posteriors),
                status=event.status,
                model=event.model,
            )
        case Frames():
            return FramesHeader(
                **common,
                first=event.first,
                hop_length=event.hop_length,
                frame_length=event.frame_length,
            )
        case Posteriors():
            return PosteriorsHeader(
                **common,
                first=event.first,
                hop_length=event.hop_length,
                frame_length=event.frame_length,
            )
        case Surprise():
            return SurpriseHeader(
                **common, first=event.first, hop_length=event.hop_length
            )
        case Synthesis():
            return SynthesisHeader(
                **common,
                first=event.first,
                hop_length=event.hop_length,
                mode=event.mode,
                model=event.model,
            )
        case Audio():
            return AudioHeader(
                **common,
                start=event.start,
                mode=event.mode,
                model=event.model,
                last=event.last,
            )
        case Onset():
            return OnsetHeader(**common, segment=event.segment, score=event.score)
        case Offset():
            return OffsetHeader(
                **common,
                segment=event.segment,
                onset=event.onset,
                truncated=event.truncated,
            )
        case Block():
            return BlockHeader(**common, start=event.start)
        case Gap():
            return GapHeader(
                **common, start=event.start, stop=event.stop, reason=event.reason
            )
        case Withheld():
            return WithheldHeader(
                **common, start=event.start, stop=event.stop, reason=event.reason
            )
        case Anchor():
            return AnchorHeader(**common, utc_ns=event.utc_ns)
        case Health():
            return HealthHeader(
                **common, stage=event.stage, state=event.state, detail=event.detail
            )
        case Control():
            return ControlHeader(
                **common,
                command=event.command,
                model=event.model,
                arguments=event.arguments,
            )
        case Trigger():
            return TriggerHeader(
                **common,
                trigger=event.trigger,
                segment=event.segment,
                onset=event.onset,
                offset=event.offset,
                units=list(event.units),
                posteriors=list(event.posteriors),
                status=event.status,
                decision=event.decision,
                model=event.model,
                arguments=event.arguments,
            )
        case Stats():
            return StatsHeader(**common, values=event.values)
        case _:
            assert_never(event)


def to_event(header: AnyHeader, values: Float32 | None) -> Event:
    """Rebuild the event that a header and its array describe.

    Parameters
    ----------
    header : AnyHeader
        As `neurovocal.engine.wire.decode` returns it.
    values : float32 array or None
        The payload; None for kinds without one.
    """
    array = np.empty(0, np.float32) if values is None else values
    match header:
        case LabelHeader():
            return Label(
                header.segment,
                header.onset,
                header.offset,
                header.unit,
                _number(header.posterior),
                header.status,
                header.model,
            )
        case ForecastHeader():
            return Forecast(
                header.segment,
                header.sample,
                header.unit,
                _number(header.posterior),
                {unit: _number(p) for unit, p in header.posteriors.items()},
                header.status,
                header.model,
            )
        case FramesHeader():
            return Frames(header.first, header.hop_length, header.frame_length, array)
        case PosteriorsHeader():
            return Posteriors(
                header.first, header.hop_length, header.frame_length, array
            )
        case SurpriseHeader():
            return Surprise(header.first, header.hop_length, array)
        case SynthesisHeader():
            return Synthesis(
                header.first, header.hop_length, array, header.mode, header.model
            )
        case AudioHeader():
            return Audio(header.start, array, header.mode, header.model, header.last)
        case OnsetHeader():
            return Onset(header.segment, header.sample, _number(header.score))
        case OffsetHeader():
            return Offset(header.segment, header.onset, header.sample, header.truncated)
        case BlockHeader():
            return Block(header.start, array)
        case GapHeader():
            return Gap(header.start, header.stop, header.reason)
        case WithheldHeader():
            return Withheld(header.start, header.stop, header.reason)
        case AnchorHeader():
            return Anchor(header.sample, header.utc_ns or 0)
        case HealthHeader():
            return Health(header.stage, header.state, header.detail)
        case ControlHeader():
            return Control(
                header.sample, header.command, header.model, header.arguments
            )
        case TriggerHeader():
            return Trigger(
                header.trigger,
                header.sample,
                header.segment,
                header.onset,
                header.offset,
                tuple(header.units),
                tuple(map(_number, header.posteriors)),
                header.status,
                header.decision,
                header.model,
                header.arguments,
            )
        case StatsHeader():
            return Stats(header.values)
        case _:
            assert_never(header)


def _number(value: float | None) -> float:
    """JSON has no NaN: it travels as null."""
    return math.nan if value is None else value
