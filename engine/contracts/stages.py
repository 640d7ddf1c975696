"""What a plugin promises: the contracts between the engine and its stages.

A plugin is a plain object with these methods and no base class. The engine owns
threads, queues, time and failure; a stage owns none of them.
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
    StreamInfo,
    Trigger,
)

if TYPE_CHECKING:
    from neurovocal.engine.contracts.options import Options


API_VERSION = 1
StreamItem: TypeAlias = Block | Gap | Anchor | StreamInfo
SourceItem: TypeAlias = StreamItem | Health
ModelItem: TypeAlias = Frames | Gap | Onset | Offset


@runtime_checkable
class Source(Protocol):
    """Where audio comes from. It is pulled, a microphone too."""

    @property
    def info(self) -> StreamInfo:
        """The stream that is being read; as a rule known once `open` has returned.

        A source that knows it earlier (a microphone) says so earlier; others
        raise RuntimeError until they are open, or until their first stream has
        begun (a folder in which no recording is yet).
        """
        ...

    @property
    def live(self) -> bool:
        """Whether time passes by itself: what is not read in time is lost."""
        ...

    def open(self) -> None:
        """Acquire device, file or process.

        Raises
        ------
        NeurovocalError
            With one sentence that names the device or file and the fix.
        """
        ...

    def read(self, timeout: float) -> SourceItem | None:
        """Return the next item, or None when none came within `timeout` seconds.

        Blocks and gaps follow each other without holes: each starts where the
        one before stopped. A `StreamInfo` says that a new stream begins at
        sample 0 with the next block (a source may hold many recordings). A source
        that does not know its stream when it is open begins with one. `Health` is
        published, for what a source can tell of itself besides its samples.

        Raises
        ------
        EndOfStream
            No more samples will ever come.
        Disconnected
            The device is gone; the engine may call `close` and `open` again.
        """
        ...

    def close(self) -> None:
        """Release what `open` acquired. May be called twice, and after a failure."""
        ...


@runtime_checkable
class CaptureTimed(Protocol):
    """What a live source has besides, if it can tell when a sample was heard.

    With it an outage is a gap of the length that the capture clock tells, instead
    of one that the arrival of blocks tells.
    """

    def captured_ns(self, sample: int, /) -> int | None:
        """Monotonic time at which a sample was captured; None while unknown.

        Parameters
        ----------
        sample : int
            As the source counts since it was opened, past its last one, too.
        """
        ...


@runtime_checkable
class ResumableSource(Protocol):
    """What a source has besides that is not live, but hears nothing a second time."""

    @property
    def resumes(self) -> bool:
        """Whether the next run begins behind what this one has read."""
        ...


def is_unrepeatable(source: Source) -> bool:
    """Whether what comes of a source's audio cannot be computed again from it."""
    return source.live or (isinstance(source, ResumableSource) and source.resumes)


class Features(Protocol):
    """Turns samples into frames. Mono: ``Block.samples`` has one column."""

    n_bins: int
    hop_length: int
    frame_length: int
    latency: int

    def process(self, item: Block | Gap, /) -> Iterable[Frames]:
        """Frames completed by `item`; a gap forgets the unfinished frame."""
        ...

    def flush(self) -> Iterable[Frames]:
        """End of the stream."""
        ...

    def reset(self) -> None:
        """Forget everything, as if newly built."""
        ...


class Detector(Protocol):
    """Finds onsets and offsets, in samples, each as soon as it is known.

    ``latency`` is the look-ahead in samples: nothing that `process` returns
    speaks of samples older than its item's end less ``latency`` less the length
    of the open segment.
    """

    consumes: Literal["samples", "posteriors"]
    latency: int

    def process(self, item: Block | Posteriors | Gap, /) -> Iterable[Mark]:
        """Marks known after `item`; a gap closes an open segment as truncated."""
        ...

    def flush(self) -> Iterable[Mark]:
        """End of the stream: an open segment is closed as truncated."""
        ...

    def reset(self) -> None:
        """Forget everything, as if newly built (segments count from 0 again)."""
        ...


class Model(Protocol):
    """Hears frames and segments in order, answers with events.

    The lane hands over the frames of each tile first, then the onsets and
    offsets that became known in it.
    """

    latency: int

    def process(self, item: ModelItem, /) -> Iterable[Event]:
        """Events that `item` makes known; a gap resets recurrent state."""
        ...

    def flush(self) -> Iterable[Event]:
        """End of the stream; every segment has been closed by the detector."""
        ...

    def reset(self) -> None:
        """Forget everything, as if newly built, but for what commands have set.

        A model may also have ``advance(position)``: a live source has delivered
        nothing for a while, and its stream would be at `position` by now. Its
        events say what goes on without audio, such as a song.
        """
        ...


@dataclass(frozen=True, slots=True)
class StepEvents:
    """What a step of a lane made known, for those who watch it.

    ``at`` is the stream position up to which audio has been heard.
    """

    info: StreamInfo
    at: int
    events: Sequence[Event]


class Watcher(Protocol):
    """Sees all that a lane says, and says when something is to be done about it.

    A sink may have one (`Plugin.watch`): it decides in the lane, by the audio alone,
    the sink acts.
    """

    def process(self, known: StepEvents, /) -> Iterable[Trigger]:
        """What the events of one step make due."""
        ...

    def reset(self) -> None:
        """Forget everything: another stream begins."""
        ...


@runtime_checkable
class CommandedModel(Protocol):
    """What a model has besides, if it takes commands while it runs.

    Attributes
    ----------
    options : Options
        What it is set to now.
    adjustable : frozenset of str
        Options that the command ``set`` may change.
    commands : mapping of str to type of Options
        Its own commands, and what their arguments must be.
    """

    options: "Options"
    adjustable: frozenset[str]
    commands: "Mapping[str, type[Options]]"

    def prepare(self, command: str, arguments: "Options", /) -> Any:
        """Do what takes time, and find all that can go wrong; change nothing.

        Called from another thread than `process`, and perhaps for nothing. For
        ``set``, `arguments` are the whole new options.

        Raises
        ------
        NeurovocalError
            The command cannot be carried out; one sentence says why.
        """
        ...

    def apply(self, command: str, prepared: Any, /) -> None:
        """Take over what `prepare` returned, between two items; at once."""
        ...


@dataclass(frozen=True, slots=True)
class VoiceInterval:
    """Whether there is a voice in samples ``[start, stop)`` of the source."""

    start: int
    stop: int
    voice: bool


class Gate(Protocol):
    """Finds what must not leave: the engine withholds it, and what lies around it.

    It hears one channel at the rate of the source (``context.info``), each stream
    from anywhere after `reset`. Verdicts follow each other without holes; what no
    verdict speaks of is withheld.
    """

    def process(self, item: Block | Gap, /) -> Iterable[VoiceInterval]:
        """Verdicts that `item` makes possible; a gap ends what was heard before."""
        ...

    def flush(self) -> Iterable[VoiceInterval]:
        """End of the stream: verdicts on the rest."""
        ...

    def reset(self) -> None:
        """Forget everything, as if newly built."""
        ...


class ControlChannel(Protocol):
    """Takes commands from outside and answers them; a thread of its own calls it."""

    def open(self) -> None:
        """Acquire socket or file; raise NeurovocalError with one sentence."""
        ...

    def serve(
        self, submit: Callable[[object], dict[str, Any]], timeout: float, /
    ) -> None:
        """Wait at most `timeout` seconds for a request and answer it.

        ``submit(request)`` takes any JSON value and always returns a reply.
        """
        ...

    def close(self) -> None:
        """Release what `open` acquired. May be called twice, and after a failure."""
        ...


@runtime_checkable
class Sink(Protocol):
    """Where messages go. Called from one thread, in the order of events."""

    def open(self) -> None:
        """Acquire file or socket; raise NeurovocalError with one sentence."""
        ...

    def write(self, message: Message, /) -> None:
        """Take one message. May block; the engine's queue before it is bounded."""
        ...

    def flush(self, timeout: float) -> None:
        """Bring everything written so far to safety within `timeout` seconds."""
        ...

    def close(self) -> None:
        """Release what `open` acquired. May be called twice, and after a failure."""
        ...


@dataclass(frozen=True, slots=True)
class ModelCommand:
    """What a command asks of the models of a lane, as it is published and kept.

    Parameters
    ----------
    name : str
        Such as ``set``.
    model : str
        Plugin name or place in the configuration's list; empty: of no model.
    arguments : mapping
        JSON values.
    """

    name: str
    model: str
    arguments: Mapping[str, Any]


class RecordedCommand(NamedTuple):
    """A command as a journal kept it."""

    stream: str
    sample: int
    command: ModelCommand


# Optional abilities: a plugin that has the members has the ability. The engine asks by
# `isinstance`; nothing has to be inherited or registered.


@runtime_checkable
class ReportsNotices(Protocol):
    """Source with remarks for the user, such as channels that are not used.

    Attributes
    ----------
    notices : list of str
        Sentences, appended in the order in which they arise and cleared only in `open`.
        New ones are logged after each `open` and `read`, on the lane's thread.
    """

    @property
    def notices(self) -> list[str]:
        """Sentences that have been appended since `open`."""
        ...


@runtime_checkable
class ReportsFailures(Protocol):
    """Source that goes on after an item that it could not read.

    Attributes
    ----------
    failures : list of str
        One sentence per item. Read once, after the lane has ended, from the thread
        that runs the engine; the exit code says that there were some.
    """

    @property
    def failures(self) -> list[str]:
        """One sentence per recording that could not be read, wholly or in part."""
        ...


@runtime_checkable
class Describes(Protocol):
    """Source or sink with more to show in ``neurovocal check`` than its name."""

    def describe(self) -> Iterable[str]:
        """Lines that describe what a run would do.

        Called once on the main thread, on a stage that has been built and is never
        opened; it must not touch a device or a port.
        """
        ...


@runtime_checkable
class KnowsStart(Protocol):
    """Source that knows the time of day at which its recordings began."""

    def starts(self) -> Iterable[str]:
        """Lines that name each recording and its start, for ``neurovocal label``.

        Called once on the main thread, after the lane has ended.
        """
        ...


@runtime_checkable
class ReportsProgress(Protocol):
    """Source that knows how much of its audio has been read.

    Attributes
    ----------
    progress : tuple of (int, int or None)
        Samples read so far, and in all; None where the total is unknown or endless.
        Read by the display's thread at any moment while the lane's thread reads audio.
    """

    @property
    def progress(self) -> tuple[int, int | None]:
        """Samples read so far, and in all (None: unknown)."""
        ...


@runtime_checkable
class ReportsStats(Protocol):
    """Sink with counters of its own."""

    def stats(self) -> dict[str, object]:
        """Counters as JSON values, by name.

        Called about once a second from a lane's thread while `write` runs on the
        sink's own; it must not block. The counters stand beside those of the sink's
        queues in the ``stats`` message.
        """
        ...


@runtime_checkable
class ReportsTrouble(Protocol):
    """Sink that can go on without a part of its work, such as on a full disk.

    Attributes
    ----------
    trouble : str or None
        Why it is incomplete at this moment; None: it is not. Read about once a
        second from a lane's thread; a change is published as a `Health` event.
    """

    @property
    def trouble(self) -> str | None:
        """One sentence, or None."""
        ...


@runtime_checkable
class SelectsKinds(Protocol):
    """Sink that does not take the default selection of event kinds.

    Attributes
    ----------
    wants : frozenset of str
        Kinds of events that `write` takes where the configuration does not list
        any. Read once, on the main thread, after the sink has been built.
    """

    @property
    def wants(self) -> frozenset[str]:
        """Kinds of events, as in `KINDS`."""
        ...


@runtime_checkable
class RunAware(Protocol):
    """Sink that writes the name of the run beside each message.

    Attributes
    ----------
    run : str
        The run that the next message belongs to. Assigned before `write`, from the
        same thread, where messages of several runs are exported from a journal.
    """

    run: str


@runtime_checkable
class HasEndpoint(Protocol):
    """Options of a sink that subscribers connect to.

    Attributes
    ----------
    endpoint : str
        Where the sink publishes, such as ``tcp://127.0.0.1:5556``. Read on the main
        thread before the run begins.
    """

    @property
    def endpoint(self) -> str:
        """Address that subscribers connect to."""
        ...


@runtime_checkable
class Advances(Protocol):
    """Model that goes on without audio, such as with a song that it generates."""

    def advance(self, position: int, /) -> Iterable[Event]:
        """Events up to `position`, where a live stream would be by now, in samples.

        Called on the lane's thread, between two calls of `process`, when a live source
        has delivered nothing for a while.
        """
        ...


@runtime_checkable
class CausesCommands(Protocol):
    """Watcher whose triggers set options of a model.

    Attributes
    ----------
    command : ModelCommand or None
        What a trigger that acts will set; None: nothing. Read once, before the first
        audio, to find out whether it can be carried out.
    """

    @property
    def command(self) -> "ModelCommand | None":
        """The command that a trigger will cause, or None."""
        ...
