"""What the header of a wire message holds, kind by kind (docs/wire.md).

The same structures give the canonical form of an event: what remains when run,
time of day and latency, which differ from run to run, are left out.
"""

import math
from typing import Annotated, Any, TypeAlias, assert_never

import msgspec
import numpy as np
from msgspec import UNSET, Meta, Struct, UnsetType

from neurovocal.engine.contracts.types import (
    Anchor,
    Audio,
    Block,
    Control,
    Decision,
    Event,
    Float32,
    Forecast,
    ForecastStatus,
    Frames,
    Gap,
    Health,
    HealthState,
    Label,
    LabelStatus,
    Message,
    Offset,
    Onset,
    Posteriors,
    Stats,
    Surprise,
    Synthesis,
    Trigger,
    TriggerStatus,
    Withheld,
)

VERSION = 1
Count: TypeAlias = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Positive: TypeAlias = Annotated[int, Meta(ge=1, le=2**63 - 1)]

# As long as a path may be: what readers keep of many messages must not be longer.
Name: TypeAlias = Annotated[str, Meta(max_length=4096)]
Time: TypeAlias = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]


class Latency(Struct, frozen=True):
    """The latency ledger in milliseconds; docs/wire.md says what each one spans."""

    wait_ms: float | None
    queue_ms: float | None
    compute_ms: float | None
    publish_ms: float | None


class Header(Struct, tag_field="kind", kw_only=True):
    """Fields that every kind has.

    The last three are absent in the canonical form and always there on the wire.
    """

    v: int = VERSION
    stream: Name
    seq: Count
    sample: Count
    at: Count
    sample_rate: Positive
    run: Name | UnsetType = UNSET
    utc_ns: Time | UnsetType | None = UNSET
    latency: Latency | UnsetType | None = UNSET

    @property
    def kind(self) -> str:
        """Kind of the event, as in topics."""
        tag = self.__struct_config__.tag
        assert isinstance(tag, str)
        return tag


class ArrayHeader(Header, kw_only=True):
    """A header that describes the payload, too."""

    dtype: str
    shape: list[Count]


class BlockHeader(ArrayHeader, kw_only=True, tag="block"):
    """See `Block`."""

    start: Count


class FramesHeader(ArrayHeader, kw_only=True, tag="frames"):
    """See `Frames`."""

    first: Count
    hop_length: Positive
    frame_length: Positive


class PosteriorsHeader(ArrayHeader, kw_only=True, tag="posteriors"):
    """See `Posteriors`."""

    first: Count
    hop_length: Positive
    frame_length: Positive


class SurpriseHeader(ArrayHeader, kw_only=True, tag="surprise"):
    """See `Surprise`."""

    first: Count
    hop_length: Positive


class SynthesisHeader(ArrayHeader, kw_only=True, tag="synthesis"):
    """See `Synthesis`."""

    first: Count
    hop_length: Positive
    mode: str
    model: str


class AudioHeader(ArrayHeader, kw_only=True, tag="audio"):
    """See `Audio`."""

    start: Count
    mode: str
    model: str
    last: bool


class GapHeader(Header, kw_only=True, tag="gap"):
    """See `Gap`."""

    start: Count
    stop: Count
    reason: str


class WithheldHeader(Header, kw_only=True, tag="withheld"):
    """See `Withheld`."""

    start: Count
    stop: Count
    reason: str


class AnchorHeader(Header, kw_only=True, tag="anchor"):
    """See `Anchor`: the common fields say it all."""


class OnsetHeader(Header, kw_only=True, tag="onset"):
    """See `Onset`."""

    segment: Count
    score: float | None


class OffsetHeader(Header, kw_only=True, tag="offset"):
    """See `Offset`."""

    segment: Count
    onset: Count
    truncated: bool


class LabelHeader(Header, kw_only=True, tag="label"):
    """See `Label`."""

    segment: Count
    onset: Count
    offset: Count | None
    unit: str
    posterior: float | None
    status: LabelStatus
    model: str


class ForecastHeader(Header, kw_only=True, tag="forecast"):
    """See `Forecast`."""

    segment: Count
    unit: str
    posterior: float | None
    posteriors: dict[str, float | None]
    status: ForecastStatus
    model: str


class HealthHeader(Header, kw_only=True, tag="health"):
    """See `Health`."""

    stage: str
    state: HealthState
    detail: str


class ControlHeader(Header, kw_only=True, tag="control"):
    """See `Control`."""

    command: str
    model: str
    arguments: dict[str, Any]


class TriggerHeader(Header, kw_only=True, tag="trigger"):
    """See `Trigger`."""

    trigger: str
    segment: Count
    onset: Count
    offset: Count | None
    units: list[str]
    posteriors: list[float | None]
    status: TriggerStatus
    decision: Decision
    model: str
    arguments: dict[str, Any]


class StatsHeader(Header, kw_only=True, tag="stats"):
    """See `Stats`."""

    values: dict[str, Any]


AnyHeader: TypeAlias = (
    BlockHeader
    | FramesHeader
    | PosteriorsHeader
    | SurpriseHeader
    | SynthesisHeader
    | AudioHeader
    | GapHeader
    | WithheldHeader
    | AnchorHeader
    | OnsetHeader
    | OffsetHeader
    | LabelHeader
    | ForecastHeader
    | HealthHeader
    | ControlHeader
    | TriggerHeader
    | StatsHeader
)
DIMENSIONS = {
    BlockHeader: 2,
    FramesHeader: 2,
    PosteriorsHeader: 2,
    SurpriseHeader: 1,
    SynthesisHeader: 2,
    AudioHeader: 2,
}


def plain(value: Any) -> Any:
    """NumPy scalars and arrays as Python values, for the JSON encoder."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    raise NotImplementedError(f"{type(value).__name__} cannot be sent")


encoder = msgspec.json.Encoder(enc_hook=plain)
decoder: msgspec.json.Decoder[AnyHeader] = msgspec.json.Decoder(AnyHeader)


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
        As `neurovocal.engine.wire.codec.decode` returns it.
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
