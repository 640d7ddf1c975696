"""Data types: items that travel between stages, and events that sinks receive.

Vocabulary
----------
A *sample* is one instant of all channels; its index counts from the start of the
*stream*, also across gaps. Intervals ``[start, stop)`` are half-open. A *block* is a
run of consecutive samples. *Frame* ``k`` is the spectrum of samples
``[k * hop_length, k * hop_length + frame_length)``. A *segment* is a vocalization
between its *onset* and its *offset*; a *unit* is its class; a *label* assigns a unit
to it. Names end with their unit (``_ns``, ``_ms``, ``_hz``, ``_db``); a bare number is
samples.

Ownership of arrays
-------------------
``Block.samples`` and all other arrays are float32 and read-only: they may be views that
several stages share. They belong to the caller: a stage that needs one after `process`
or `write` has returned keeps a copy. The arrays of events that a stage returns belong
to the engine from then on.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

import numpy as np

from neurovocal.engine.support.credentials import masked

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Float32: TypeAlias = NDArray[np.float32]
else:  # numpy.typing takes time to import, and programs that subscribe need it not
    Float32 = np.ndarray[Any, np.dtype[np.float32]]
LabelStatus: TypeAlias = Literal["provisional", "revised", "final"]
_Trouble: TypeAlias = Literal["degraded", "lagging", "lossy", "stalled", "failed"]
HealthState: TypeAlias = Literal["healthy", _Trouble, "restarting", "recovering"]
ForecastStatus: TypeAlias = Literal["offset", "onset"]
SuggestionReason: TypeAlias = Literal["unknown", "surprising", "every"]
TriggerStatus: TypeAlias = Literal["onset", "provisional", "final", "silence"]
TriggerDecision: TypeAlias = Literal["act", "catch", "refractory"]
NearMissReason: TypeAlias = Literal["quiet", "short", "soon"]


@dataclass(frozen=True, slots=True, eq=False)
class StreamEnd:
    """End of a source's stream; each is an object of its own."""


@dataclass(frozen=True, slots=True)
class StreamInfo:
    """Identity of a stream: its name, rate in Hz and number of channels.

    ``numbers`` are the channels of the device or file, counted from 1; empty if they
    are all of them, or a mixture. ``duration_s`` is the length of a recording that is a
    stream of its own, if its header states it.
    """

    stream: str
    sample_rate: int
    channels: int = 1
    numbers: tuple[int, ...] = field(default=(), compare=False)
    duration_s: float | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """Consecutive samples of all channels.

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
    """Samples ``[start, stop)`` that are lost.

    An empty gap (``start == stop``) is a discontinuity: no sample is missing, but the
    next one does not continue the previous one, as between two recordings, or where a
    device was lost.
    """

    start: int
    stop: int
    reason: str

    @property
    def is_join(self) -> bool:
        """True between two recordings, whose background noise may differ."""
        return self.reason == GAP_NEXT_RECORDING


@dataclass(frozen=True, slots=True)
class Withheld:
    """Samples ``[start, stop)``, at the source's rate, withheld by the privacy gate."""

    start: int
    stop: int
    reason: str


@dataclass(frozen=True, slots=True)
class Anchor:
    """Time of a sample: captured ``utc_ns`` nanoseconds after the epoch."""

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


@dataclass(frozen=True, slots=True, eq=False)
class Trace:
    """Values from which a detector decides, hop by hop, float32[n_hops, 4].

    The columns are the score, the threshold that begins a segment, the one that it must
    keep, and the level of the noise floor in dB re full scale; NaN: the detector has no
    such value. Row ``k`` stands for the `hop_length` samples in the middle of
    ``[k * hop_length, k * hop_length + frame_length)``.

    Parameters
    ----------
    first, hop_length, frame_length, values
        Rows ``first, first + 1, ...`` and their grid, as in `Frames`.
    unit : str
        Unit of score and thresholds, such as ``"dB"``.
    """

    first: int
    hop_length: int
    frame_length: int
    values: Float32
    unit: str


@dataclass(frozen=True, slots=True)
class Onset:
    """Start of a vocalization at ``sample``; ``score`` is the detector's value.

    ``provisional``: the noise floor of the stream was not settled there, the score may
    be wrong, and the `Offset` carries it again as ``revised_score``.
    """

    segment: int
    sample: int
    score: float
    provisional: bool = False


@dataclass(frozen=True, slots=True)
class Offset:
    """End of segment ``[onset, sample)``.

    ``truncated``: a gap, the end of the stream or the maximum length ended it.
    ``revised_score`` is the score of a segment whose onset was provisional by the noise
    floor as it is known at its end; None: the onset's score stands.
    """

    segment: int
    onset: int
    sample: int
    truncated: bool
    revised_score: float | None = None


@dataclass(frozen=True, slots=True)
class NearMiss:
    """Sound ``[onset, offset)`` close to the threshold that did not become a segment.

    Parameters
    ----------
    onset, offset : int
        First sample, and first sample after it.
    score, threshold : float
        Largest value of the detector within it, as the `score` of an `Onset`, and value
        that a segment would have had to reach.
    reason : {'quiet', 'short', 'soon'}
        It did not reach the threshold; it did, for less than the shortest duration of
        a segment; or within the silence that the detector keeps after a segment.
    omitted : int
        Near misses before this one, and after the one before it, that are not told
        because there were too many in a second.
    """

    onset: int
    offset: int
    score: float
    threshold: float
    reason: NearMissReason
    omitted: int = 0


@dataclass(frozen=True, slots=True)
class Label:
    """Unit assigned to a segment; ``offset`` is None while the segment lasts."""

    segment: int
    onset: int
    offset: int | None
    unit: str
    posterior: float
    status: LabelStatus
    model: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """Segment with the labels of the present lane and of its shadow.

    Parameters
    ----------
    onset, offset : int
        Of the present lane's segment; of the shadow's where the present lane heard
        nothing. The offset is None where the stream ended before it.
    unit, posterior
        Final label of the present lane; empty and NaN: it has none; None: it heard
        nothing.
    shadow_unit, shadow_posterior
        The same of the shadow.
    agrees : bool
        Both heard it and have the same unit.
    shadow : str
        Name of the shadow's configuration.
    """

    onset: int
    offset: int | None
    unit: str | None
    posterior: float
    shadow_unit: str | None
    shadow_posterior: float
    agrees: bool
    shadow: str


@dataclass(frozen=True, slots=True)
class Forecast:
    """Unit predicted for a segment from the segments before it.

    Given at the offset of the previous segment (``status`` is ``offset``) and again at
    the onset of the segment, which ends the silence (``onset``); ``sample`` is that
    offset or onset. ``unit`` is the most probable one, ``posteriors`` has all.
    """

    segment: int
    sample: int
    unit: str
    posterior: float
    posteriors: dict[str, float]
    status: ForecastStatus
    model: str


@dataclass(frozen=True, slots=True)
class Suggestion:
    """Name for segment ``[onset, offset)`` by a model that knows sounds by words.

    ``posterior`` is that of ``name`` among all names that the model knows,
    ``posteriors`` has the likeliest, falling. ``reason``: the segment's label is
    `unknown`, its mean surprise is high, or every segment is named.
    """

    segment: int
    onset: int
    offset: int
    name: str
    posterior: float
    posteriors: dict[str, float]
    reason: SuggestionReason
    model: str


@dataclass(frozen=True, slots=True, eq=False)
class Latent:
    """Latent code of segment ``[onset, offset)``, float32[n_latent]."""

    segment: int
    onset: int
    offset: int
    values: Float32
    model: str


@dataclass(frozen=True, slots=True, eq=False)
class Surprise:
    """Normalised free energy per frame, float32[n_frames]."""

    first: int
    hop_length: int
    values: Float32


@dataclass(frozen=True, slots=True, eq=False)
class Synthesis:
    """Frames sampled from the RNN-RBM, float32[n_frames, n_bins].

    ``first`` is the number of the frame that the first row predicts; ``from_live`` is
    whether the frames depend on live audio, which privacy may withhold.
    """

    first: int
    hop_length: int
    values: Float32
    mode: str
    model: str
    from_live: bool = True


@dataclass(frozen=True, slots=True, eq=False)
class Audio:
    """Synthesized samples at the rate of the stream.

    Consecutive events of a piece follow each other without holes; another piece, or the
    same model after a gap, begins at its own ``start``. Pieces that overlap are added.

    Parameters
    ----------
    start : int
        Stream index of the first sample. It lies in the past by the look-ahead of the
        model and of the phase reconstruction.
    samples : float32[n_samples, 1]
        Values of about [-1, 1], not clipped.
    mode, model : str
        As in the `Synthesis` that was turned into sound.
    last, from_live : bool
        Whether the piece ends here; as in the `Synthesis`.
    """

    start: int
    samples: Float32
    mode: str
    model: str
    last: bool = False
    from_live: bool = True

    @property
    def stop(self) -> int:
        """Stream index after the last sample."""
        return self.start + len(self.samples)


@dataclass(frozen=True, slots=True)
class Health:
    """Change of a stage's state; ``detail`` is one sentence for people.

    Values of environment variables that a configuration names are masked in it.
    """

    stage: str
    state: HealthState
    detail: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "detail", masked(self.detail))


# Names of stages in Health events by which a reader decides something.
SOURCE_STAGE = "source"
SONG_CLOCK_STAGE = "song clock"  # generated songs begin to follow the wall clock
FAULT_STAGE_PREFIX = "fault "  # before the name of an injected fault


STOP_COMMAND = "stop"


@dataclass(frozen=True, slots=True)
class Control:
    """Command that took effect for all audio from ``sample`` on.

    ``model`` is the name of the model (empty: the whole run), ``arguments`` are JSON
    values (docs/reference/control.md). A stream that its user stopped, by whatever
    means, has a `STOP_COMMAND` whose ``position`` is the number of samples read from
    the source.
    """

    sample: int
    command: str
    model: str
    arguments: dict[str, object]


@dataclass(frozen=True, slots=True)
class Trigger:
    """Completed pattern of units, and the decision about it.

    Parameters
    ----------
    trigger : str
        Name of the trigger, as configured.
    sample : int
        Instant from which delays count: the onset of `segment` where an onset or a
        provisional label completed the match, its offset for a final label, the end of
        the silence for a pattern that ends with one.
    segment, onset, offset
        Last segment of the match; the offset is None while it lasts.
    units, posteriors : tuple
        Units and posteriors of the matched segments, oldest first, at most the newest
        32; a segment without a label has an empty string and NaN.
    status : {'onset', 'provisional', 'final', 'silence'}
        Event that completed the match.
    decision : {'act', 'catch', 'refractory'}
        Act; do not act because it is a catch trial; or because the refractory time
        after the previous trigger is not over.
    model, arguments
        Model and options that are set when the trigger acts; else empty.
    """

    trigger: str
    sample: int
    segment: int
    onset: int
    offset: int | None
    units: tuple[str, ...]
    posteriors: tuple[float, ...]
    status: TriggerStatus
    decision: TriggerDecision
    model: str
    arguments: dict[str, object]


@dataclass(frozen=True, slots=True)
class Stats:
    """Counters and timings of one lane, once a second (docs/reference/wire.md)."""

    values: dict[str, object]


# Reasons of gaps, as published (docs/reference/sources.md).
GAP_DEVICE_LOST = "device lost"
GAP_DEVICE_OVERFLOW = "device overflow"
GAP_DEVICE_SLIP = "device slip"
GAP_NEXT_RECORDING = "next recording"
GAP_NOT_A_NUMBER = "not a number"
GAP_OVERRUN = "overrun"
GAP_WORKER_LOST = "worker process lost"

Mark: TypeAlias = Onset | Offset | NearMiss
_Stream: TypeAlias = Block | Gap | Withheld | Anchor
_Rows: TypeAlias = Frames | Posteriors | Trace
_Named: TypeAlias = Label | Forecast | Suggestion | Latent
_Drawn: TypeAlias = Surprise | Synthesis | Audio
_Told: TypeAlias = Health | Control | Trigger | Comparison | Stats
Event: TypeAlias = _Stream | _Rows | Mark | _Named | _Drawn | _Told
# `NearMiss` is "near_miss".
KINDS: dict[type, str] = {
    event: re.sub(r"(?<!^)(?=[A-Z])", "_", event.__name__).lower()
    for event in get_args(Event)
}

# Published only where a sink's `events` names them: few readers need them.
ASKED_KINDS = frozenset({"block", "trace"})

# Bulky kinds have queues of their own, so that they never displace a label.
BULK_KINDS = frozenset(
    {"block", "frames", "posteriors", "trace", "surprise", "synthesis", "audio"}
)


def kind_of(event: Event) -> str:
    """Return the name of the event's kind, as in wire topics."""
    return KINDS[type(event)]


# First sample of each kind of event that names it.
_SAMPLE_OF: dict[type, Callable[[Any], int]] = {
    **dict.fromkeys((Block, Gap, Withheld, Audio), attrgetter("start")),
    **dict.fromkeys((Anchor, Onset, Offset), attrgetter("sample")),
    **dict.fromkeys((Control, Forecast, Trigger), attrgetter("sample")),
    **dict.fromkeys(
        (Label, NearMiss, Comparison, Suggestion, Latent), attrgetter("onset")
    ),
}


def sample_of(event: Event, at: int = 0) -> int:
    """Return the first sample of an event; `at` for kinds without one."""
    if isinstance(event, Frames | Posteriors | Trace | Surprise | Synthesis):
        return event.first * event.hop_length
    get = _SAMPLE_OF.get(type(event))
    return at if get is None else get(event)


def instant_of(event: Event, at: int = 0) -> int:
    """Return the sample from which a look-ahead of zero could know the event.

    The onset for an onset and a label without offset, the offset for an offset, a near
    miss, a comparison and a label with one, else the first sample. The ledger's
    ``wait_ms`` counts from here to the sample at which the engine knew the event.
    """
    if isinstance(event, Label | NearMiss | Comparison | Suggestion | Latent):
        return event.onset if event.offset is None else event.offset
    return sample_of(event, at)


@dataclass(frozen=True, slots=True)
class Ledger:
    """Lateness of an event in milliseconds, by cause.

    ``wait``: duration of the audio that had to arrive after the event's instant.
    ``queue``: time in queues before the lane. ``compute``: time in the lane. A sink
    adds the time in its own queue and the time of sending.
    """

    wait_ms: float
    queue_ms: float
    compute_ms: float


@dataclass(frozen=True, slots=True)
class Message:
    """Event with its stream, number and times, as sinks get it.

    Parameters
    ----------
    info, event
        Stream of the event, and the event.
    seq : int
        Number of the message per (kind, stream) within a run, without holes.
    at : int
        Stream position at which the event was known; it depends on the audio alone.
    utc_ns : int, optional
        Time of the event's sample; None where it is not known.
    ledger : Ledger, optional
        Lateness; None offline.
    emitted_ns : int
        Monotonic time at which the lane published it; 0 offline.
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
        """First sample of the event."""
        return sample_of(self.event, self.at)


def channel_of(source: StreamInfo, index: int) -> int:
    """Return the number, from 1, of a source's channel in its device or file."""
    return source.numbers[index] if index < len(source.numbers) else index + 1


def stream_of(source: StreamInfo, index: int) -> str:
    """Return the name of the stream of one channel of a source."""
    suffix = f".ch{channel_of(source, index)}" if source.channels > 1 else ""
    return source.stream + suffix
