"""Running lanes as the runner, the watchdog and displays see them."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from threading import Event as Flag
from typing import Any, Protocol, TypeAlias

from neurovocal.engine.contracts.types import HealthState, Message, StreamInfo
from neurovocal.engine.runtime.workers.stream_commit import StreamCommit
from neurovocal.engine.support.calls import Calls

# Of each model: the plugin, and the options that commands may set.
Settings: TypeAlias = tuple[tuple[str, dict[str, Any]], ...]


@dataclass(frozen=True, slots=True)
class LaneSummary:
    """Counts of a lane that has ended.

    Parameters
    ----------
    streams : int
        Streams that have begun.
    lost_samples : int
        Samples that are missing, or were not processed.
    seconds : float
        Duration of the delivered audio in s.
    failures : tuple of str
        What the source could not read, a sentence each.
    dropped : Counter
        Messages that did not reach the queues of the sinks, by kind.
    """

    streams: int = 0
    lost_samples: int = 0
    seconds: float = 0.0
    failures: tuple[str, ...] = ()
    dropped: Counter[str] = field(default_factory=Counter)

    def __add__(self, other: "LaneSummary") -> "LaneSummary":
        """Return the counts of both."""
        return LaneSummary(
            self.streams + other.streams,
            self.lost_samples + other.lost_samples,
            self.seconds + other.seconds,
            self.failures + other.failures,
            self.dropped + other.dropped,
        )


@dataclass(frozen=True, slots=True)
class ResumePoint:
    """Place in a live source's stream from which another process goes on.

    Parameters
    ----------
    info : StreamInfo
        The source's stream.
    position : int
        Samples of it that were published, lost ones included.
    last_ns : int
        Monotonic time at which the last of them came.
    segments : dict of str to int
        Number of the next segment, by the stream of the channel.
    settings : dict of str to Settings
        Options of the models, by the stream of the channel.
    reason : str
        Why the process before does not go on.
    """

    info: StreamInfo
    position: int
    last_ns: int
    segments: dict[str, int]
    settings: dict[str, Settings]
    reason: str


class StreamState(Protocol):
    """Stream of a channel, and how far it is processed."""

    @property
    def info(self) -> StreamInfo:
        """The stream."""
        ...

    @property
    def position(self) -> int:
        """Samples that were processed."""
        ...


class RunningChannel(Protocol):
    """One channel of a running lane."""

    @property
    def lane(self) -> StreamState:
        """Its stream."""
        ...

    @property
    def level_db(self) -> float:
        """Peak level of the last block in dB of full scale."""
        ...

    @property
    def lag_ms(self) -> float:
        """Time from the arrival of audio to the publication of its events."""
        ...

    @property
    def counts(self) -> Counter[str]:
        """Published events by kind."""
        ...


class ReadCounts(Protocol):
    """What was read of a source."""

    @property
    def seconds(self) -> float:
        """Duration of the delivered samples in s."""
        ...

    @property
    def lost_samples(self) -> int:
        """Samples that are missing."""
        ...

    @property
    def is_lost(self) -> bool:
        """True while a lost device is being waited for."""
        ...


class RunningLane(Protocol):
    """A lane with its source, in this process or in another.

    Attributes
    ----------
    name : str
        Name of the lane.
    finished : Flag
        Set when it publishes nothing more.
    error : Exception or None
        Why it has ended before its source.
    hung : str
        Sentence about a call that does not return, where another process found it.
    """

    name: str
    finished: Flag
    error: Exception | None
    hung: str

    @property
    def live(self) -> bool:
        """Whether samples that are not read in time are lost."""
        ...

    @property
    def is_unrepeatable(self) -> bool:
        """Whether no later run gets the same audio."""
        ...

    @property
    def channels(self) -> Sequence[RunningChannel]:
        """Channels of the present stream."""
        ...

    @property
    def reader(self) -> ReadCounts:
        """Counts of the source's samples."""
        ...

    @property
    def progress(self) -> int:
        """Number that grows as long as the source works; for the watchdog."""
        ...

    def build(self) -> None:
        """Build the lanes of a source that knows its stream before it is open."""
        ...

    def open(self) -> None:
        """Build the lanes and open the source; nothing is read yet."""
        ...

    def start(self) -> None:
        """Start to read."""
        ...

    def stop(self) -> None:
        """Stop reading; open segments are closed, and their labels are published."""
        ...

    def join(self, timeout: float) -> bool:
        """Wait for the end; return True if it was reached."""
        ...

    def settle(self) -> None:
        """Confirm the last streams, after the sinks were closed; close the source."""
        ...

    def calls(self) -> Iterable[tuple[str, Calls]]:
        """Return the calls that may hang, with their names."""
        ...

    def note(self, stage: str, state: HealthState, detail: str) -> None:
        """Publish a health event in the lane's streams; from any thread."""
        ...

    def summary(self) -> LaneSummary:
        """Return what the lane has read and lost."""
        ...


class _Failures(Protocol):
    @property
    def failures(self) -> int:
        """How often it began to fail."""
        ...

    @property
    def trouble(self) -> str:
        """Sentence of the last failure."""
        ...


class _Dropping(Protocol):
    @property
    def dropped(self) -> Counter[str]:
        """Number of dropped messages by kind."""
        ...


class MessageTaker(Protocol):
    """Bounded queues behind a lane: those of a sink, or those to another process."""

    @property
    def name(self) -> str:
        """Name in counters."""
        ...

    @property
    def wants(self) -> frozenset[str]:
        """Kinds of events that are taken."""
        ...

    @property
    def takes_ends(self) -> bool:
        """Whether there is something to do when a stream ends."""
        ...

    @property
    def supervised(self) -> _Failures:
        """Failures of what takes the messages."""
        ...

    @property
    def mailbox(self) -> _Dropping:
        """The queues."""
        ...

    @property
    def trouble(self) -> tuple[Any, str] | None:
        """State and a sentence where it is in trouble; None: it works."""
        ...

    def set_channels(self, lane: str, n_channels: int) -> None:
        """Set the number of channels of a lane; the queues grow with it."""
        ...

    def accept(self, message: Message) -> None:
        """Queue a message."""
        ...

    def accept_all(self, messages: Sequence[Message]) -> None:
        """Queue messages that became known together."""
        ...

    def accept_end(self, commit: StreamCommit) -> None:
        """Queue the end of a stream behind its messages."""
        ...

    def statistics(self) -> dict[str, object]:
        """Return the counters of the queues."""
        ...
