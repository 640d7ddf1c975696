"""The nouns of the engine: what travels between stages, and what sinks receive.

Positions are integer sample indices of the *stream*, intervals are half-open. Arrays
are float32 and read-only: a stage that keeps one beyond its call copies it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Float32: TypeAlias = NDArray[np.float32]
else:  # the module of types costs a program that subscribes more than it is worth
    Float32 = np.ndarray[Any, np.dtype[np.float32]]
LabelStatus: TypeAlias = Literal["provisional", "revised", "final"]
_Trouble: TypeAlias = Literal["degraded", "lagging", "lossy", "stalled", "failed"]
HealthState: TypeAlias = Literal["healthy", _Trouble, "restarting", "recovering"]
ForecastStatus: TypeAlias = Literal["offset", "onset"]
TriggerStatus: TypeAlias = Literal["onset", "provisional", "final", "silence"]
Decision: TypeAlias = Literal["act", "catch", "refractory"]


@dataclass(frozen=True, slots=True)
class StreamInfo:
    """Identity of a stream: its name, rate in Hz and number of channels."""

    stream: str
    sample_rate: int
    channels: int = 1


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """Consecutive samples.

    Parameters
    ----------
    start : int
        Stream index of the first sample.
    samples : float32[n_samples, n_channels]
        Values in [-1, 1].
    arrived_ns : int
        Monotonic time at which the last sample became available to the engine;
        0 where that has no meaning (offline).
    """

    start: int
    samples: Float32
    arrived_ns: int = 0

    @property
    def stop(self) -> int:
        """Stream index after the last sample."""
        return self.start + len(self.samples)


@dataclass(frozen=True, slots=True)
class Gap:
    """Samples ``[start, stop)`` that never come.

    An empty gap (``start == stop``) is a discontinuity: nothing is missing, but
    what follows does not continue what came before, such as the next recording.
    """

    start: int
    stop: int
    reason: str


@dataclass(frozen=True, slots=True)
class Withheld:
    """Samples ``[start, stop)``, at the source's rate, that reach no sink: privacy."""

    start: int
    stop: int
    reason: str


@dataclass(frozen=True, slots=True)
class Anchor:
    """Sample ``sample`` was heard at ``utc_ns`` nanoseconds since the epoch."""

    sample: int
    utc_ns: int


@dataclass(frozen=True, slots=True, eq=False)
class Frames:
    """Spectrogram columns ``first, first + 1, ...`` of the stream's frame grid.

    Frame ``k`` covers samples ``[k * hop_length, k * hop_length + frame_length)``
    of the stream, also after a gap. ``values`` is float32[n_frames, n_bins].
    """

    first: int
    hop_length: int
    frame_length: int
    values: Float32


@dataclass(frozen=True, slots=True, eq=False)
class Posteriors:
    """Classifier probabilities per frame, float32[n_frames, n_units]."""

    first: int
    hop_length: int
    frame_length: int
    values: Float32


@dataclass(frozen=True, slots=True)
class Onset:
    """A vocalization began at ``sample``; ``score`` is the detector's value."""

    segment: int
    sample: int
    score: float


@dataclass(frozen=True, slots=True)
class Offset:
    """Segment ``[onset, sample)`` ended.

    ``truncated``: a gap, the end of the stream or the maximum length closed it.
    """

    segment: int
    onset: int
    sample: int
    truncated: bool


@dataclass(frozen=True, slots=True)
class Label:
    """A unit assigned to a segment; ``offset`` is None while it lasts."""

    segment: int
    onset: int
    offset: int | None
    unit: str
    posterior: float
    status: LabelStatus
    model: str


@dataclass(frozen=True, slots=True)
class Forecast:
    """Which unit segment ``segment`` will be, before a frame of it was heard.

    First at the offset of the segment before (``status`` is ``offset``), again when
    its own onset says how long the silence was (``onset``); ``sample`` is that
    offset or onset. ``unit`` is the likeliest, ``posteriors`` has all of them.
    """

    segment: int
    sample: int
    unit: str
    posterior: float
    posteriors: dict[str, float]
    status: ForecastStatus
    model: str


@dataclass(frozen=True, slots=True, eq=False)
class Surprise:
    """Normalised free energy per frame, float32[n_frames]."""

    first: int
    hop_length: int
    values: Float32


@dataclass(frozen=True, slots=True, eq=False)
class Synthesis:
    """Frames drawn from the RNN-RBM, float32[n_frames, n_bins].

    ``first`` is the frame that the first row predicts, on the stream's grid.
    """

    first: int
    hop_length: int
    values: Float32
    mode: str
    model: str


@dataclass(frozen=True, slots=True, eq=False)
class Audio:
    """Synthesized sound, at the rate of the stream.

    Consecutive events of a piece follow each other without holes; another piece, or
    the same model after a gap, begins where its ``start`` says. Pieces may overlap:
    they are to be added.

    Parameters
    ----------
    start : int
        Stream index of the first sample. It lies in the past by what the model and the
        search for phases look ahead.
    samples : float32[n_samples, 1]
        About in [-1, 1]; nothing is clipped yet.
    mode, model : str
        As in the `Synthesis` that it sounds like.
    last : bool
        Whether the piece ends here.
    """

    start: int
    samples: Float32
    mode: str
    model: str
    last: bool = False

    @property
    def stop(self) -> int:
        """Stream index after the last sample."""
        return self.start + len(self.samples)


@dataclass(frozen=True, slots=True)
class Health:
    """A stage changed its state; ``detail`` is one sentence for people."""

    stage: str
    state: HealthState
    detail: str


# Names of stages in Health events by which a reader decides something.
SOURCE_STAGE = "source"
SONG_CLOCK_STAGE = "song clock"  # generated songs begin to follow the wall clock
FAULT_STAGE_PREFIX = "fault "  # before the name of an injected fault


@dataclass(frozen=True, slots=True)
class Control:
    """A command took effect: what starts at `sample` or later obeys it.

    ``model`` names the model it was for (empty: the whole run), ``arguments`` are
    its JSON values (docs/control.md).
    """

    sample: int
    command: str
    model: str
    arguments: dict[str, object]


@dataclass(frozen=True, slots=True)
class Trigger:
    """A pattern of units came to its end, and what was decided then.

    Parameters
    ----------
    trigger : str
        Name of the trigger, as configured.
    sample : int
        The instant that delays count from: the onset of `segment` for what is known
        by an onset or a provisional label, its offset for a final one, the end of
        the silence for a pattern that ends with one.
    segment, onset, offset
        The last segment of the match; the offset is None while it lasts.
    units, posteriors : tuple
        Of the segments of the match, oldest first, at most the newest 32; what is
        not labelled (yet) is an empty string, with NaN.
    status : {'onset', 'provisional', 'final', 'silence'}
        What completed the match.
    decision : {'act', 'catch', 'refractory'}
        Whether it acts, is a catch trial, or came too soon after another.
    model, arguments
        The options that are set when it acts, and of which model; else empty.
    """

    trigger: str
    sample: int
    segment: int
    onset: int
    offset: int | None
    units: tuple[str, ...]
    posteriors: tuple[float, ...]
    status: TriggerStatus
    decision: Decision
    model: str
    arguments: dict[str, object]


@dataclass(frozen=True, slots=True)
class Stats:
    """Counters and timings of one lane, once a second (keys: docs/wire.md)."""

    values: dict[str, object]


# Reasons of gaps, as published (docs/sources.md).
GAP_DEVICE_LOST = "device lost"
GAP_DEVICE_OVERFLOW = "device overflow"
GAP_DEVICE_SLIP = "device slip"
GAP_NEXT_RECORDING = "next recording"
GAP_NOT_A_NUMBER = "not a number"
GAP_OVERRUN = "overrun"

Mark: TypeAlias = Onset | Offset
Event: TypeAlias = (
    Block
    | Gap
    | Withheld
    | Anchor
    | Frames
    | Posteriors
    | Onset
    | Offset
    | Label
    | Forecast
    | Surprise
    | Synthesis
    | Audio
    | Health
    | Control
    | Trigger
    | Stats
)
KINDS: dict[type, str] = {event: event.__name__.lower() for event in get_args(Event)}

# Bulky kinds have queues of their own, so that they can never push out a label.
BULK_KINDS = frozenset(
    {"block", "frames", "posteriors", "surprise", "synthesis", "audio"}
)


def kind_of(event: Event) -> str:
    """Name of the event's kind, as it stands in wire topics."""
    return KINDS[type(event)]


# First sample of each kind of event that names it.
_SAMPLE_OF: dict[type, Callable[[Any], int]] = {
    **dict.fromkeys((Block, Gap, Withheld, Audio), attrgetter("start")),
    **dict.fromkeys((Anchor, Onset, Offset), attrgetter("sample")),
    **dict.fromkeys((Control, Forecast, Trigger), attrgetter("sample")),
    Label: attrgetter("onset"),
}


def sample_of(event: Event, at: int = 0) -> int:
    """Return the first sample that an event is about; `at` for events without one."""
    if isinstance(event, Frames | Posteriors | Surprise | Synthesis):
        return event.first * event.hop_length
    get = _SAMPLE_OF.get(type(event))
    return at if get is None else get(event)


def instant_of(event: Event, at: int = 0) -> int:
    """Sample from which the event could have been known by an oracle.

    The onset for an onset, provisional or revised label, the offset for an
    offset or a final label, else the first sample: the ledger's ``wait_ms``
    counts from here to the sample at which the engine knew.
    """
    if isinstance(event, Label) and event.offset is not None:
        return event.offset
    return sample_of(event, at)


@dataclass(frozen=True, slots=True)
class Ledger:
    """How late an event is, stage by stage, in milliseconds.

    ``wait``: audio that had to arrive after the event's instant. ``queue``: time
    in queues before the lane. ``compute``: time in the lane. What follows
    (the sink's queue and sending) the sink adds.
    """

    wait_ms: float
    queue_ms: float
    compute_ms: float


@dataclass(frozen=True, slots=True)
class Message:
    """An event on its way to the sinks.

    ``seq`` counts without holes per (kind, stream) within a run; ``at`` is the
    stream position at which the event was known (defined by the audio alone);
    ``utc_ns`` is the time of the event's sample, None when it is not known;
    ``emitted_ns`` is monotonic time, 0 offline.
    """

    info: StreamInfo
    event: Event
    seq: int
    at: int
    utc_ns: int | None = None
    ledger: Ledger | None = None
    emitted_ns: int = 0

    @property
    def kind(self) -> str:
        """Kind of the event, as in wire topics."""
        return KINDS[type(self.event)]

    @property
    def sample(self) -> int:
        """First sample that the event speaks of."""
        return sample_of(self.event, self.at)


def stream_of(source: StreamInfo, index: int) -> str:
    """Name of a channel's own stream: nothing is ever mixed."""
    suffix = f".ch{index + 1}" if source.channels > 1 else ""
    return source.stream + suffix
