"""Remote lane: a lane of a worker process, and the thread that takes its messages."""

import logging
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from threading import Event as Flag
from threading import Lock, Thread
from typing import Any, TypeAlias

from neurovocal.engine.audio.timeline import TimeBase
from neurovocal.engine.contracts.clock import NS, Clock
from neurovocal.engine.contracts.errors import StageError
from neurovocal.engine.contracts.types import (
    GAP_WORKER_LOST,
    KINDS,
    Anchor,
    Event,
    Gap,
    Health,
    HealthState,
    Message,
    Offset,
    Onset,
    Stats,
    StreamInfo,
)
from neurovocal.engine.runtime.processes.host import ChannelBeat, LaneBeat
from neurovocal.engine.runtime.processes.packing import loads, unpack_error
from neurovocal.engine.runtime.processes.process import WorkerProcess
from neurovocal.engine.runtime.processes.relay import NAME as QUEUE
from neurovocal.engine.runtime.workers.lanes.running import (
    LaneSummary,
    ResumePoint,
    Settings,
)
from neurovocal.engine.runtime.workers.publisher import Publisher
from neurovocal.engine.runtime.workers.stream_commit import StreamCommit
from neurovocal.engine.support.calls import Calls

log = logging.getLogger("neurovocal")

STAGE = "worker process"
_POLL_S = 0.1
_COMMIT_POLL_S = 0.02

# ``revive(lane)`` gives a lane another process, or returns False: it ends.
Revive: TypeAlias = Callable[["RemoteLane"], bool]


@dataclass(slots=True)
class RemoteStream:
    """Stream of a channel, as far as its messages tell."""

    info: StreamInfo
    timebase: TimeBase
    position: int = 0
    segment: Onset | None = None  # which is open
    next_segment: int = 0

    def begin(self) -> None:
        """Begin another stream of this name."""
        self.timebase = TimeBase(self.info.sample_rate)
        self.position, self.segment, self.next_segment = 0, None, 0


@dataclass(slots=True)
class RemoteChannel:
    """Channel for the display."""

    lane: RemoteStream
    level_db: float = float("-inf")
    lag_ms: float = 0.0
    settings: Settings = ()
    counts: Counter[str] = field(default_factory=Counter)


@dataclass(slots=True)
class RemoteCounts:
    """Counts of the source's samples."""

    seconds: float = 0.0
    lost_samples: int = 0
    is_lost: bool = False


class RemoteLane:
    """A lane that runs in a worker process; its messages are published here.

    Parameters
    ----------
    name : str
        Name of the lane.
    publisher : Publisher
        Sends to the lane's sinks.
    clock : Clock
        Gives the time of events about the process.
    live : bool
        Samples that are not read in time are lost.
    is_unrepeatable : bool
        No later run gets the same audio.
    restarts : bool
        Another process goes on where one was lost.
    revive : callable
        ``revive(lane)`` gives the lane another process.

    Attributes
    ----------
    process : WorkerProcess or None
        The present process.
    index : int
        Place of the lane in it.
    finished, error, hung
        As `RunningLane`.
    """

    def __init__(
        self,
        name: str,
        publisher: Publisher,
        clock: Clock,
        *,
        live: bool,
        is_unrepeatable: bool,
        restarts: bool,
        revive: Revive,
    ) -> None:
        self.name = name
        self.live = live
        self.is_unrepeatable = is_unrepeatable
        self.restarts = restarts
        self.finished = Flag()
        self.error: Exception | None = None
        self.hung = ""
        self.progress = 0
        self.reader = RemoteCounts()
        self.process: WorkerProcess | None = None
        self.index = 0
        self.publisher = publisher
        self.stopping = False
        self._clock = clock
        self._revive = revive
        self._pipe: Connection | None = None
        self._starts = 0
        self._before = LaneSummary()  # of the processes that were lost
        self._now = LaneSummary()
        self._mark: tuple[StreamInfo, int, int] | None = None
        self._n_channels = 1
        self._channels: dict[str, RemoteChannel] = {}  # replaced as a whole
        self._beginning = Lock()
        self._numbers: dict[tuple[str, str], int] = {}  # next, of the present process
        self._anchors: dict[str, int] = {}  # number of each stream's newest anchor
        self._commits: deque[tuple[int, StreamCommit]] = deque()
        self._thread = Thread(target=self._run, name=f"nv-{name}", daemon=True)

    # ---- as `RunningLane` ------------------------------------------------------------

    @property
    def channels(self) -> Sequence[RemoteChannel]:
        """Channels of the present stream."""
        return list(self._channels.values())

    def build(self) -> None:
        """Build the lanes of a source that knows its stream before it is open."""
        self._call("build")

    def open(self) -> None:
        """Build the lanes and open the source; nothing is read yet."""
        self._call("open")

    def start(self) -> None:
        """Start to read, and to take messages."""
        self._call("start")
        self._thread.start()

    def stop(self) -> None:
        """Stop reading; open segments are closed, and their labels are published."""
        self.stopping = True
        if self.process is not None:
            self.process.send("stop", self.index)

    def join(self, timeout: float) -> bool:
        """Wait for the end of its messages; return True if it was reached."""
        if self._thread.ident is not None:
            self._thread.join(timeout)
        return not self._thread.is_alive()

    def settle(self) -> None:
        """Confirm the last streams, after the sinks were closed; close the source."""
        if self.process is None or not self.join(0.0) or self.process.is_gone:
            return
        self._confirm()
        try:
            self._now = self._call("settle")
        except Exception as error:
            self._fail(error)

    def calls(self) -> Iterator[tuple[str, Calls]]:
        """Yield the call that lasts while the process does not tell its state."""
        if self.process is not None and not self.finished.is_set():
            yield STAGE, self.process.calls

    def note(self, stage: str, state: HealthState, detail: str) -> None:
        """Publish a health event in the lane's streams; from any thread."""
        for channel in self.channels:
            self._report(channel.lane, Health(stage, state, detail))

    def summary(self) -> LaneSummary:
        """Return what the lane has read and lost."""
        return self._before + self._now

    # ---- processes -------------------------------------------------------------------

    def attach(self, process: WorkerProcess, index: int) -> None:
        """Take messages of a process from now on."""
        self.process, self.index = process, index
        self._pipe = process.pipes[index]
        self._numbers.clear()
        self._commits.clear()
        self._starts += 1

    def resume_point(self) -> ResumePoint | None:
        """Return where another process goes on; None: at the beginning."""
        if self._mark is None:
            return None
        info, position, last_ns = self._mark
        # What was read and not told is lost with the process.
        told = max((_in_source(c.lane, info) for c in self.channels), default=0)
        last_ns += (told - position) * NS // info.sample_rate
        segments = {name: c.lane.next_segment for name, c in self._channels.items()}
        settings = {name: c.settings for name, c in self._channels.items()}
        return ResumePoint(info, told, last_ns, segments, settings, GAP_WORKER_LOST)

    def take_beat(self, beat: LaneBeat) -> None:
        """Keep the state that the process has told."""
        self.progress = beat.progress
        self.hung = beat.hung
        self._now, self._mark = beat.summary, beat.mark or self._mark
        total = self.summary()
        self.reader.seconds = total.seconds
        self.reader.lost_samples = total.lost_samples
        self.reader.is_lost = beat.is_lost
        for each in beat.channels:
            self._take_channel(each)

    def statistics(self, own: Mapping[str, Any]) -> dict[str, object]:
        """Return counters of a stream, with those of the sinks and of the process."""
        process = self.process
        return {
            **own,
            "sinks": self.publisher.statistics(),
            "worker": {
                "number": 0 if process is None else process.number,
                "pid": 0 if process is None else process.pid,
                "restarts": self._starts - 1,
                "queues": own.get("sinks", {}).get(QUEUE, {}),
            },
        }

    def _call(self, name: str) -> Any:
        assert self.process is not None, "it is attached to a process"
        return self.process.call(name, self.index)

    # ---- the thread ------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while not self._receive():
                self._end_open()
                if not self._go_on():
                    break
        except BaseException as error:
            log.exception("lane '%s': its messages cannot be taken", self.name)
            self._fail(error)
        finally:
            self.finished.set()

    def _receive(self) -> bool:
        """Publish messages until the last one; return False if the process is lost."""
        assert self._pipe is not None
        while True:
            try:
                if self._commits:
                    self._confirm()
                if not self._pipe.poll(_COMMIT_POLL_S if self._commits else _POLL_S):
                    continue
                data = self._pipe.recv_bytes()
            except (EOFError, OSError):
                return False
            for item in loads(data):
                if isinstance(item, Message):
                    self._take(item)
                elif self._take_mark(item):
                    return True

    def _take(self, message: Message) -> None:
        event, name = message.event, message.info.stream
        channel = self._channels.get(name)
        if channel is None:
            channel = self._begin(message.info)
        key = (KINDS[type(event)], name)
        expected = self._numbers.get(key, 0)
        if message.seq < expected:
            # Repeated once a second, for subscribers that come late.
            self.publisher.repeat(replace(message, seq=self._anchors[name]))
            return
        stream = channel.lane
        stream.info = message.info
        if message.at > stream.position:
            stream.position = message.at
        channel.counts[key[0]] += 1
        if isinstance(event, Onset):
            stream.segment, stream.next_segment = event, event.segment + 1
        elif isinstance(event, Offset):
            stream.segment = None
        elif isinstance(event, Anchor):
            stream.timebase.add(event)
        elif isinstance(event, Stats):
            self._report_sinks()
            event = Stats(self.statistics(event.values))
            message = replace(message, event=event)
        self._numbers[key] = message.seq + 1
        told = self.publisher.forward(message, message.seq - expected)
        if isinstance(event, Anchor):
            self._anchors[name] = told.seq

    def _take_mark(self, item: tuple[Any, ...]) -> bool:
        """Act on an item that is no message; return True for the last one."""
        match item:
            case ("channels", n_channels):
                self._n_channels = n_channels
                self.publisher.set_channels(self.name, n_channels)
            case ("ended", number, streams):
                commit = self.publisher.end_streams(None, streams)
                self._commits.append((number, commit))
                for name in streams:  # another one may have its name
                    if (channel := self._channels.get(name)) is not None:
                        channel.lane.begin()
            case ("finished", summary, error):
                self._now = summary
                if error is not None:
                    self.error = unpack_error(error)
                return True
        return False

    def _begin(self, info: StreamInfo) -> RemoteChannel:
        """Return the channel of a stream, in place of the oldest if it is full."""
        with self._beginning:
            channel = self._channels.get(info.stream)
            if channel is None:
                channel = RemoteChannel(RemoteStream(info, TimeBase(info.sample_rate)))
                kept = list(self._channels.items())[-max(0, self._n_channels - 1) :]
                kept = kept if self._n_channels > 1 else []
                self._channels = {**dict(kept), info.stream: channel}
        return channel

    def _take_channel(self, beat: ChannelBeat) -> None:
        channel = self._channels.get(beat.info.stream)
        if channel is not None:
            channel.level_db, channel.lag_ms = beat.level_db, beat.lag_ms
            channel.settings = beat.settings

    def _confirm(self) -> None:
        """Tell the process which streams the sinks have committed, in order."""
        while self._commits and self._commits[0][1].is_done:
            number, commit = self._commits.popleft()
            if self.process is not None:
                self.process.send("committed", self.index, number, commit.kept)

    def _report_sinks(self) -> None:
        for change in self.publisher.sinks_health():
            self.note(change.stage, change.state, change.detail)

    def _report(self, stream: RemoteStream, event: Event) -> None:
        now = self._clock.monotonic_ns()
        self.publisher.send(
            stream.info, event, stream.position, stream.timebase, emitted_ns=now
        )

    # ---- a process that was lost -----------------------------------------------------

    def _end_open(self) -> None:
        """End what is open where the messages of the process end."""
        for channel in self.channels:
            stream, onset = channel.lane, channel.lane.segment
            if onset is not None:
                end = max(stream.position, onset.sample)
                self._report(stream, Offset(onset.segment, onset.sample, end, True))
                stream.segment = None
            self._report(stream, Gap(stream.position, stream.position, GAP_WORKER_LOST))

    def _go_on(self) -> bool:
        """Go on in another process; return False if the lane ends."""
        assert self.process is not None
        sentence = self.process.end_sentence()
        if self.restarts and not self.stopping:
            log.error("lane '%s': %s: it goes on in another", self.name, sentence)
            self.note(STAGE, "restarting", f"{sentence}: it goes on in another")
            if self._revive(self):
                detail = f"it goes on in worker process {self.process.number}"
                log.warning("lane '%s': %s", self.name, detail)
                self.note(STAGE, "healthy", f"{detail} (pid {self.process.pid})")
                return True
        self._fail(StageError(f"lane '{self.name}': {sentence}"))
        return False

    def carry_over(self) -> None:
        """Keep the counts of a process that was lost; the next counts from 0."""
        # The stream that goes on is counted again there.
        streams = max(0, self._now.streams - 1)
        self._before += replace(self._now, streams=streams)
        self._now = LaneSummary()

    def _fail(self, error: BaseException) -> None:
        if self.error is None:
            self.error = (
                error if isinstance(error, Exception) else StageError(repr(error))
            )
            log.error("%s", error)
            self.note(STAGE, "failed", f"it ends: {error}")


def _in_source(stream: RemoteStream, source: StreamInfo) -> int:
    """Return the position of a stream in samples of its source, rounded up."""
    return -(-stream.position * source.sample_rate // stream.info.sample_rate)
