"""What the header of a wire message holds, kind by kind (docs/wire.md).

The same structures give the canonical form of an event: what remains when run,
time of day and latency, which differ from run to run, are left out.
"""

from typing import Annotated, Any, TypeAlias

import msgspec
import numpy as np
from msgspec import UNSET, Meta, Struct, UnsetType

from neurovocal.engine.types import (
    Decision,
    ForecastStatus,
    HealthState,
    LabelStatus,
    TriggerStatus,
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
