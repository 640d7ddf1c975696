"""Headers of wire messages, one structure per kind of event (docs/reference/wire.md).

Without run, time of day and latency, which differ from run to run, the same structures
are the canonical form of an event.

A new kind of event touches two files. In `engine.contracts.types`: its dataclass, the
union `Event`, and, where it has them, `_SAMPLE_OF` and `BULK_KINDS`. Here: a `Header`
whose fields have the names of the event's fields, and a row of `FORMATS`; fields whose
value JSON changes also stand in `_FROM_JSON`.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import fields
from operator import attrgetter
from typing import Annotated, Any, TypeAlias, Union

import msgspec
import numpy as np
from msgspec import UNSET, Meta, Struct, UnsetType

from neurovocal.engine.contracts.types import (
    Anchor,
    Audio,
    Block,
    Comparison,
    Control,
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
    Latent,
    Message,
    NearMiss,
    NearMissReason,
    Offset,
    Onset,
    Posteriors,
    Stats,
    Suggestion,
    SuggestionReason,
    Surprise,
    Synthesis,
    Trace,
    Trigger,
    TriggerDecision,
    TriggerStatus,
    Withheld,
)
from neurovocal.engine.support.strict_json import JsonReader

VERSION = 1
Count: TypeAlias = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Positive: TypeAlias = Annotated[int, Meta(ge=1, le=2**63 - 1)]

# As long as a path may be; limits the memory of programs that keep names.
Name: TypeAlias = Annotated[str, Meta(max_length=4096)]
Time: TypeAlias = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]


class Latency(Struct, frozen=True):
    """Latency ledger in milliseconds (docs/reference/wire.md)."""

    wait_ms: float | None
    queue_ms: float | None
    compute_ms: float | None
    publish_ms: float | None


class Header(Struct, tag_field="kind", kw_only=True):
    """Fields of every kind.

    The last three are always present on the wire and absent in the canonical form.
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
    """Header of a kind with a payload, which it describes."""

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


class TraceHeader(ArrayHeader, kw_only=True, tag="trace"):
    """See `Trace`."""

    first: Count
    hop_length: Positive
    frame_length: Positive
    unit: str


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
    """See `Anchor`, which has no further fields."""


class OnsetHeader(Header, kw_only=True, tag="onset"):
    """See `Onset`."""

    segment: Count
    score: float | None
    provisional: bool | UnsetType = UNSET


class OffsetHeader(Header, kw_only=True, tag="offset"):
    """See `Offset`."""

    segment: Count
    onset: Count
    truncated: bool
    revised_score: float | UnsetType = UNSET


class NearMissHeader(Header, kw_only=True, tag="near_miss"):
    """See `NearMiss`."""

    onset: Count
    offset: Count
    score: float | None
    threshold: float | None
    reason: NearMissReason
    omitted: Count


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


class SuggestionHeader(Header, kw_only=True, tag="suggestion"):
    """See `Suggestion`."""

    segment: Count
    onset: Count
    offset: Count
    name: str
    posterior: float | None
    posteriors: dict[str, float | None]
    reason: SuggestionReason
    model: str


class LatentHeader(ArrayHeader, kw_only=True, tag="latent"):
    """See `Latent`."""

    segment: Count
    onset: Count
    offset: Count
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
    decision: TriggerDecision
    model: str
    arguments: dict[str, Any]


class ComparisonHeader(Header, kw_only=True, tag="comparison"):
    """See `Comparison`."""

    onset: Count
    offset: Count | None
    unit: str | None
    posterior: float | None
    shadow_unit: str | None
    shadow_posterior: float | None
    agrees: bool
    shadow: Name


class StatsHeader(Header, kw_only=True, tag="stats"):
    """See `Stats`."""

    values: dict[str, Any]


class EventFormat:
    """One kind of event: its dataclass, its header, and the fields to copy.

    Parameters
    ----------
    event : type
        Dataclass of the event.
    header : type of Header
        Structure with a field of the same name for each field of the event that is
        sent.
    array : str
        Field of the event that is sent as the payload, float32; empty: none.
    dimensions : int
        Number of dimensions of that array.
    unsent : str
        Field of the event that is not sent; empty: all are.
    """

    def __init__(
        self,
        event: type[Any],
        header: type[Header],
        array: str = "",
        dimensions: int = 0,
        unsent: str = "",
    ) -> None:
        self.event, self.header = event, header
        self.array, self.dimensions = array, dimensions
        names = [field.name for field in fields(event) if field.name != unsent]
        # `sample` is a field of every header, taken from the message.
        self.sent = [name for name in names if name not in (array, "sample")]
        self.values_of_event = _values_of(self.sent)
        # The dtype stands in place of the array, which the header does not have.
        self.values_of_header = _values_of(
            ["dtype" if name == array else name for name in names]
        )
        self.array_index = names.index(array) if array else 0
        # Fields that are left out where they have the usual value, which old readers
        # and old journals take them to have.
        self.usual = [
            (field.name, field.default)
            for field in fields(event)
            if field.name in _LEFT_OUT
        ]
        self.from_json = [
            (place, _FROM_JSON[name])
            for place, name in enumerate(names)
            if name in _FROM_JSON
        ]


def _or_usual(usual: object) -> Callable[[Any], object]:
    """Return a function that puts `usual` in place of a field that was left out."""
    return lambda value: usual if value is UNSET else value


def _values_of(names: Sequence[str]) -> Callable[[object], Sequence[Any]]:
    get = attrgetter(*names)
    return get if len(names) > 1 else lambda item: (get(item),)


def _number(value: float | None) -> float:
    """Convert null, which stands for NaN in JSON."""
    return math.nan if value is None else value


def _numbers(
    values: dict[str, float | None] | list[float | None],
) -> dict[str, float] | tuple[float, ...]:
    if isinstance(values, dict):
        return {name: _number(value) for name, value in values.items()}
    return tuple(map(_number, values))


# Fields, of any kind, that are sent only where their value is not the usual one.
_LEFT_OUT = {"provisional": False, "revised_score": None}
# Fields, of any kind, whose value in an event differs from that in JSON.
_FROM_JSON: dict[str, Callable[[Any], object]] = {
    "posterior": _number,
    "posteriors": _numbers,
    "shadow_posterior": _number,
    "score": _number,
    "threshold": _number,
    "units": tuple,
    **{name: _or_usual(usual) for name, usual in _LEFT_OUT.items()},
}
FORMATS = (
    EventFormat(Block, BlockHeader, "samples", 2, unsent="arrived_ns"),
    EventFormat(Gap, GapHeader),
    EventFormat(Withheld, WithheldHeader),
    EventFormat(Anchor, AnchorHeader),
    EventFormat(Frames, FramesHeader, "values", 2),
    EventFormat(Posteriors, PosteriorsHeader, "values", 2),
    EventFormat(Trace, TraceHeader, "values", 2),
    EventFormat(Onset, OnsetHeader),
    EventFormat(Offset, OffsetHeader),
    EventFormat(NearMiss, NearMissHeader),
    EventFormat(Label, LabelHeader),
    EventFormat(Forecast, ForecastHeader),
    EventFormat(Suggestion, SuggestionHeader),
    EventFormat(Latent, LatentHeader, "values", 1),
    EventFormat(Surprise, SurpriseHeader, "values", 1),
    EventFormat(Synthesis, SynthesisHeader, "values", 2, unsent="from_live"),
    EventFormat(Audio, AudioHeader, "samples", 2, unsent="from_live"),
    EventFormat(Health, HealthHeader),
    EventFormat(Control, ControlHeader),
    EventFormat(Trigger, TriggerHeader),
    EventFormat(Comparison, ComparisonHeader),
    EventFormat(Stats, StatsHeader),
)
_BY_EVENT = {form.event: form for form in FORMATS}
_BY_HEADER = {form.header: form for form in FORMATS}


def plain(value: Any) -> Any:
    """Convert NumPy scalars and arrays to Python values, for the JSON encoder."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    raise NotImplementedError(f"{type(value).__name__} cannot be sent")


MAX_HEADER = 256 * 1024

encoder = msgspec.json.Encoder(enc_hook=plain)
decoder: JsonReader[Header] = JsonReader(
    Union[tuple(form.header for form in FORMATS)],  # type: ignore[arg-type]  # noqa: UP007 (made at run time)
    most_bytes=MAX_HEADER,
)
_EMPTY = np.empty(0, np.float32)


def dimensions_of(header: Header) -> int:
    """Return the number of dimensions of a header's array; 0: it has none."""
    return _BY_HEADER[type(header)].dimensions


def array_of(event: Event) -> Float32 | None:
    """Return the array of an event of a bulky kind, None for the other kinds."""
    name = _BY_EVENT[type(event)].array
    return getattr(event, name) if name else None


def header_of(message: Message) -> Header:
    """Build the canonical header of a message: the fields defined by the audio alone.

    Parameters
    ----------
    message : Message
        Any message of the engine.
    """
    event, info = message.event, message.info
    form = _BY_EVENT[type(event)]
    own = dict(zip(form.sent, form.values_of_event(event), strict=True))
    for name, usual in form.usual:
        if own[name] == usual:
            del own[name]
    if form.array:
        own["dtype"] = "<f4"
        own["shape"] = list(getattr(event, form.array).shape)
    return form.header(
        stream=info.stream,
        seq=message.seq,
        sample=message.sample,
        at=message.at,
        sample_rate=info.sample_rate,
        **own,
    )


def to_event(header: Header, values: Float32 | None) -> Event:
    """Rebuild the event that a header and its array describe.

    Parameters
    ----------
    header : Header
        As `neurovocal.engine.wire.codec.decode` returns it.
    values : float32 array or None
        The payload; None for kinds without one.
    """
    form = _BY_HEADER[type(header)]
    own = list(form.values_of_header(header))
    for place, convert in form.from_json:
        own[place] = convert(own[place])
    if form.array:
        own[form.array_index] = _EMPTY if values is None else values
    event: Event = form.event(*own)
    return event
