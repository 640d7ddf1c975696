"""Contracts between the engine and its stages: one protocol per kind of plugin.

A stage is a plain object with these methods and needs no base class. The engine owns
threads, queues, time and the handling of failures; a stage owns none of them. All
methods of the stages of a lane are called from the lane's thread, those of a sink from
the sink's, unless a method says otherwise.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import (
    TYPE_CHECKING,
    Any,
    Literal,
    NamedTuple,
    Protocol,
    TypeAlias,
    runtime_checkable,
)

from neurovocal.engine.contracts.types import (
    Anchor,
    Block,
    Event,
    Frames,
    Gap,
    Health,
    Mark,
    Message,
    Offset,
    Onset,
    Posteriors,
    StreamEnd,
    StreamInfo,
    Trigger,
)

if TYPE_CHECKING:
    from neurovocal.engine.contracts.options import Options


API_VERSION = 1
StreamItem: TypeAlias = Block | Gap | Anchor | StreamInfo | StreamEnd
SourceItem: TypeAlias = StreamItem | Health
ModelItem: TypeAlias = Frames | Gap | Onset | Offset
SampleModelItem: TypeAlias = Block | Gap | Onset | Offset


@runtime_checkable
class Source(Protocol):
    """Source of audio. The engine pulls items from it, from a microphone too."""

    @property
    def info(self) -> StreamInfo:
        """Identity of the stream that is being read.

        Raises
        ------
        RuntimeError
            It is not known yet: before `open`, or before the first recording of a
            folder has arrived. A source that knows it earlier returns it earlier.
        """
        ...

    @property
    def live(self) -> bool:
        """Whether samples that are not read in time are lost."""
        ...

    def open(self) -> None:
        """Acquire the device, file or process.

        Raises
        ------
        NeurovocalError
            It cannot be had; one sentence names the device or file and the fix.
        """
        ...

    def read(self, timeout: float) -> SourceItem | None:
        """Return the next item, or None when none came within `timeout` seconds.

        Blocks and gaps follow each other without holes: each starts where the previous
        one stopped. A `StreamInfo` announces that a new stream begins at sample 0 with
        the next block (a source may read many recordings); a source that does not know
        its stream after `open` begins with one. A `StreamEnd` says that the stream has
        ended, where the next one may begin later. `Health` items are published.

        Raises
        ------
        EndOfStream
            The source has no more samples.
        Disconnected
            The device was lost; the engine may call `close` and `open` again.
        """
        ...

    def close(self) -> None:
        """Release all resources of `open`. May be called twice, and after a failure."""
        ...


@runtime_checkable
class CaptureTimed(Protocol):
    """Live source that knows when a sample was captured.

    The length of a gap after an outage then follows from capture times instead of the
    arrival of blocks.
    """

    def captured_ns(self, sample: int, /) -> int | None:
        """Return the monotonic time at which a sample was captured, None if unknown.

        Called from the lane's thread after an outage.

        Parameters
        ----------
        sample : int
            Index since `open`; may lie after the last sample so far.
        """
        ...


@runtime_checkable
class ResumableSource(Protocol):
    """Source that is not live, but reads no recording in two runs."""

    @property
    def resumes(self) -> bool:
        """Whether the next run begins after the audio that this one has read."""
        ...


def is_unrepeatable(source: Source) -> bool:
    """Return True if no later run gets the same audio from this source."""
    return source.live or (isinstance(source, ResumableSource) and source.resumes)


class Features(Protocol):
    """Front end that computes frames from blocks of one channel.

    Attributes
    ----------
    n_bins, hop_length, frame_length : int
        Values per frame, samples between frames, samples per frame.
    latency : int
        Samples after the end of a frame that are needed to compute it.
    """

    n_bins: int
    hop_length: int
    frame_length: int
    latency: int

    def process(self, item: Block | Gap, /) -> Iterable[Frames]:
        """Return the frames that `item` completes; a gap drops the unfinished one."""
        ...

    def flush(self) -> Iterable[Frames]:
        """Return the frames that remain at the end of the stream."""
        ...

    def reset(self) -> None:
        """Return to the state of a new object."""
        ...


class Detector(Protocol):
    """Detector of onsets and offsets, in samples, each as soon as it is known.

    Attributes
    ----------
    consumes : {'samples', 'posteriors'}
        Whether `process` takes blocks or posteriors.
    latency : int
        Look-ahead in samples: no onset or offset that `process` returns lies before the
        end of its item less `latency` less the length of the open segment.
    """

    consumes: Literal["samples", "posteriors"]
    latency: int

    def process(self, item: Block | Posteriors | Gap, /) -> Iterable[Mark]:
        """Return the marks known after `item`; a gap truncates an open segment.

        Near misses may be among them, where an option asks for them.
        """
        ...

    def flush(self) -> Iterable[Mark]:
        """Truncate an open segment at the end of the stream."""
        ...

    def reset(self) -> None:
        """Return to the state of a new object; segments count from 0 again."""
        ...


class Model(Protocol):
    """Model that computes events from frames and segments.

    The lane passes the frames of each tile first, then the onsets and offsets that
    became known in it. A model with ``consumes = "samples"`` (`Consumes`) gets the
    tile's block in place of the frames.

    Attributes
    ----------
    latency : int
        Look-ahead in samples.
    """

    latency: int

    def process(self, item: ModelItem, /) -> Iterable[Event]:
        """Return the events known after `item`; a gap resets recurrent state."""
        ...

    def flush(self) -> Iterable[Event]:
        """Return the remaining events; the detector has closed every segment."""
        ...

    def reset(self) -> None:
        """Return to the state of a new object, except for options set by commands."""
        ...


@dataclass(frozen=True, slots=True)
class StepEvents:
    """Events of one step of a lane.

    Parameters
    ----------
    info : StreamInfo
        Stream of the lane.
    at : int
        Stream position up to which audio has been processed.
    events : sequence of Event
        All events of the step, in order.
    """

    info: StreamInfo
    at: int
    events: Sequence[Event]


class Watcher(Protocol):
    """Part of a sink that decides in the lane, by the audio alone, when the sink acts.

    Built by `Plugin.watch`, one per lane.
    """

    def process(self, step: StepEvents, /) -> Iterable[Trigger]:
        """Return the triggers that the events of one step cause."""
        ...

    def reset(self) -> None:
        """Return to the state of a new object: another stream begins."""
        ...


@runtime_checkable
class CommandedModel(Protocol):
    """Model that takes commands while it runs.

    Attributes
    ----------
    options : Options
        Present options.
    adjustable : frozenset of str
        Options that the command ``set`` may change.
    commands : mapping of str to type of Options
        Further commands of the model, with the type of their arguments.
    """

    options: "Options"
    adjustable: frozenset[str]
    commands: "Mapping[str, type[Options]]"

    def prepare(self, command: str, arguments: "Options", /) -> Any:
        """Check a command and prepare its effect, without changing the model.

        Called from another thread than `process`; `apply` may never follow. For
        ``set``, `arguments` are the complete new options.

        Raises
        ------
        NeurovocalError
            The command cannot be applied; one sentence says why.
        """
        ...

    def apply(self, command: str, prepared: Any, /) -> None:
        """Apply the result of `prepare`; called between two items, must be quick."""
        ...


@dataclass(frozen=True, slots=True)
class VoiceInterval:
    """Verdict of a gate: whether samples ``[start, stop)`` contain a voice."""

    start: int
    stop: int
    voice: bool


class Gate(Protocol):
    """Voice detector of the privacy gate: the engine withholds voices and a margin.

    It gets one channel at the rate of the source (``context.info``); after `reset` a
    stream may start at any sample. Intervals follow each other without holes; audio
    without an interval is withheld.
    """

    def process(self, item: Block | Gap, /) -> Iterable[VoiceInterval]:
        """Return the intervals decided after `item`; a gap ends the audio before it."""
        ...

    def flush(self) -> Iterable[VoiceInterval]:
        """Return the remaining intervals at the end of the stream."""
        ...

    def reset(self) -> None:
        """Return to the state of a new object."""
        ...


class ControlChannel(Protocol):
    """Receiver of commands from other programs, called from its own thread."""

    def open(self) -> None:
        """Acquire the socket or file; raise NeurovocalError with one sentence."""
        ...

    def serve(
        self, submit: Callable[[object], dict[str, Any]], timeout: float, /
    ) -> None:
        """Wait at most `timeout` seconds for a request and reply to it.

        Parameters
        ----------
        submit : callable
            ``submit(request)`` takes any JSON value and always returns the reply.
        timeout : float
            Seconds after which the method returns without a request.
        """
        ...

    def close(self) -> None:
        """Release all resources of `open`. May be called twice, and after a failure."""
        ...


@runtime_checkable
class Sink(Protocol):
    """Consumer of messages. Called from one thread, in the order of events."""

    def open(self) -> None:
        """Acquire the file or socket; raise NeurovocalError with one sentence."""
        ...

    def write(self, message: Message, /) -> None:
        """Write one message. May block: the queue before the sink is bounded."""
        ...

    def flush(self, timeout: float) -> None:
        """Make all written messages durable within `timeout` seconds."""
        ...

    def close(self) -> None:
        """Release all resources of `open`. May be called twice, and after a failure."""
        ...


@dataclass(frozen=True, slots=True)
class ModelCommand:
    """Command for the models of a lane, as it is published and recorded.

    Parameters
    ----------
    name : str
        Name of the command, such as ``set``.
    model : str
        Plugin name or index in the configuration's list of models; empty: no model.
    arguments : mapping
        Arguments of the command as JSON values.
    """

    name: str
    model: str
    arguments: Mapping[str, Any]


class RecordedCommand(NamedTuple):
    """Command of a recorded run, with the sample at which it took effect."""

    stream: str
    sample: int
    command: ModelCommand
