"""Publishers: give events numbers, times and latency, and queue them for the sinks."""

import logging
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import count
from threading import Lock

from neurovocal.engine.audio.timeline import TimeBase
from neurovocal.engine.contracts.clock import NS, Clock
from neurovocal.engine.contracts.types import (
    KINDS,
    Anchor,
    Audio,
    Comparison,
    Control,
    Event,
    Frames,
    Health,
    Latent,
    Ledger,
    Message,
    NearMiss,
    StreamEnd,
    StreamInfo,
    Synthesis,
    Trace,
    Trigger,
    instant_of,
    sample_of,
)
from neurovocal.engine.lane.lane import Step
from neurovocal.engine.runtime.workers.channel import Channel
from neurovocal.engine.runtime.workers.command_queue import (
    PrepareCommand,
    apply_trigger,
)
from neurovocal.engine.runtime.workers.lanes.running import MessageTaker
from neurovocal.engine.runtime.workers.latency import MOST_PENDING, LedgerMetrics
from neurovocal.engine.runtime.workers.sink_health import SinkHealth
from neurovocal.engine.runtime.workers.stream_commit import StreamCommit

log = logging.getLogger("neurovocal")

# Jumps of a clock that follow each other sooner are reported once.
_JUMPS_NS = 600 * NS


class SequenceNumbers:
    """Counts messages per (kind, stream), for all lanes of a run.

    Threads may share an iterator: `itertools.count` takes each step as a whole.
    """

    def __init__(self) -> None:
        self._counts: defaultdict[tuple[str, str], count[int]] = defaultdict(count)
        self._lock = Lock()

    def counter(self, kind: str, stream: str) -> Iterator[int]:
        """Return the iterator 0, 1, 2, ... of a kind and stream, the same for all."""
        with self._lock:
            return self._counts[kind, stream]


class Publisher:
    """Gives each event its number and its time, and puts it into the sinks' queues.

    ``seq`` counts per (kind, stream) without holes over the whole run; a message
    that a full queue drops leaves a hole that its subscriber can see.

    Parameters
    ----------
    sinks : sequence of MessageTaker
        Sinks of one lane.
    numbers : SequenceNumbers
        Shared by all lanes, whose streams may have the same name.
    """

    def __init__(self, sinks: Sequence[MessageTaker], numbers: SequenceNumbers) -> None:
        self._sinks = sinks
        self._numbers = numbers
        self._counts: dict[tuple[str, str], Iterator[int]] = {}
        self._health = SinkHealth(sinks)
        self._takers: dict[str, list[MessageTaker]] = {
            kind: [sink for sink in sinks if kind in sink.wants]
            for kind in KINDS.values()
        }

    def set_channels(self, lane: str, n_channels: int) -> None:
        """Make room in the sinks' queues for the channels of a lane."""
        for sink in self._sinks:
            sink.set_channels(lane, n_channels)

    def wants(self, kind: str) -> bool:
        """Return True if any sink takes this kind of event."""
        return bool(self._takers[kind])

    def statistics(self) -> dict[str, object]:
        """Return the counters of each sink, by its name."""
        return {sink.name: sink.statistics() for sink in self._sinks}

    def sinks_health(self) -> list[Health]:
        """Return a Health event for each sink with a changed state."""
        return list(self._health.changes())

    def send(
        self,
        info: StreamInfo,
        event: Event,
        at: int,
        timebase: TimeBase,
        *,
        ledger: Ledger | None = None,
        emitted_ns: int = 0,
    ) -> Message | None:
        """Number an event and put it into the queue of each sink that takes its kind.

        Parameters and return value are those of `number`.
        """
        message = self.number(
            info, event, at, timebase, ledger=ledger, emitted_ns=emitted_ns
        )
        if message is not None:
            self.deliver([message])
        return message

    def number(
        self,
        info: StreamInfo,
        event: Event,
        at: int,
        timebase: TimeBase,
        *,
        ledger: Ledger | None = None,
        emitted_ns: int = 0,
    ) -> Message | None:
        """Give an event its number and its time; `deliver` is to follow.

        Parameters
        ----------
        info : StreamInfo
            Stream and sample rate of the event.
        event : Event
            Event to publish.
        at : int
            Stream position at which it became known.
        timebase : TimeBase
            UTC of the stream's samples.
        ledger : Ledger, optional
            Latency of the event.
        emitted_ns : int
            Monotonic time of publication; 0 offline.

        Returns
        -------
        Message or None
            The message; None if no sink takes its kind.
        """
        kind = KINDS[type(event)]
        takers, key = self._takers[kind], (kind, info.stream)
        numbers = self._counts.get(key)
        if numbers is None:
            numbers = self._counts[key] = self._numbers.counter(*key)
        seq = next(numbers)
        if not takers:
            return None
        message = Message(
            info,
            event,
            seq,
            at,
            timebase.utc_ns(sample_of(event, at), info.sample_rate),
            ledger,
            emitted_ns,
        )
        return message

    def deliver(self, messages: Sequence[Message]) -> None:
        """Put numbered messages into the queues of the sinks that take their kinds.

        Each sink is woken once. Waking a thread costs as much as a small message does,
        and one that is woken sooner asks for the interpreter while the lane still
        needs it.
        """
        if len(messages) == 1:
            for sink in self._takers[messages[0].kind]:
                sink.accept(messages[0])
            return
        for sink in self._sinks:
            taken = [each for each in messages if each.kind in sink.wants]
            if taken:
                sink.accept_all(taken)

    @property
    def wanted(self) -> frozenset[str]:
        """Kinds of events that any sink takes."""
        return frozenset(kind for kind, takers in self._takers.items() if takers)

    @property
    def takes_ends(self) -> bool:
        """Whether a sink has something to do when a stream ends."""
        return any(sink.takes_ends for sink in self._sinks)

    def forward(self, message: Message, skipped: int) -> Message:
        """Number a message of another process, and put it into the sinks' queues.

        Parameters
        ----------
        message : Message
            With a number that counts in its lane alone.
        skipped : int
            Messages of its topic before it that did not come: holes in the numbers.

        Returns
        -------
        Message
            The message, with its number in this run.
        """
        kind = KINDS[type(message.event)]
        key = (kind, message.info.stream)
        numbers = self._counts.get(key)
        if numbers is None:
            numbers = self._counts[key] = self._numbers.counter(*key)
        for _ in range(skipped):
            next(numbers)
        numbered = Message(
            message.info,
            message.event,
            next(numbers),
            message.at,
            message.utc_ns,
            message.ledger,
            message.emitted_ns,
        )
        for sink in self._takers[kind]:
            sink.accept(numbered)
        return numbered

    def end_streams(
        self, end: StreamEnd | None, streams: Sequence[str]
    ) -> StreamCommit:
        """Send the end of streams to the sinks behind their messages."""
        sinks = [sink for sink in self._sinks if sink.takes_ends]
        commit = StreamCommit(end, streams, sinks)
        for sink in sinks:
            sink.accept_end(commit)
        return commit

    def repeat(self, message: Message) -> None:
        """Send a message again, with its old number, for subscribers that came late.

        It goes where statistics go, too, and not into records: how often it is
        repeated depends on the time of day, not on the audio.
        """
        for sink in self._takers[message.kind]:
            if "stats" in sink.wants:
                sink.accept(message)


def ledger_of(
    event: Event, at: int, rate: int, queue_ms: float, compute_ms: float
) -> Ledger:
    """Return the latency of an event that leaves the lane.

    Parameters
    ----------
    event : Event
        The event.
    at : int
        Stream position up to which audio had been processed when it was known.
    rate : int
        Sample rate of the lane in Hz.
    queue_ms, compute_ms : float
        Time between the arrival of the last sample and the start of its
        processing, and time of processing.
    """
    wait_ms = (at - instant_of(event, at)) * 1000.0 / rate
    return Ledger(round(wait_ms, 3), round(queue_ms, 3), round(compute_ms, 3))


def is_derived(event: Event) -> bool:
    """Return whether an event is as revealing as the audio that it is computed from.

    Frames, the level from hop to hop, latent codes, and what a model draws from them;
    not what it draws from a recording or from its own beginning.
    """
    return isinstance(event, Frames | Trace | Latent) or (
        isinstance(event, Synthesis | Audio) and event.from_live
    )


class LanePublisher:
    """Publishes the steps of a source's lanes, and events about them.

    Parameters
    ----------
    name : str
        Name of the lane, for the log.
    publisher : Publisher
        Sends to the lane's sinks.
    clock : Clock
        Measures latency.
    prepare : callable, optional
        ``prepare(command, channel)`` makes the command that a trigger causes.
    reports_jumps : bool
        Jumps of the anchors' time are reported: those of a live source.

    Attributes
    ----------
    channels : list of Channel
        All channels of the present stream.
    ledgers : dict of str to LedgerMetrics
        Percentiles of latency by kind of event.
    """

    def __init__(
        self,
        name: str,
        publisher: Publisher,
        clock: Clock,
        prepare: PrepareCommand | None = None,
        *,
        reports_jumps: bool = False,
    ) -> None:
        self.channels: list[Channel] = []
        self.ledgers: defaultdict[str, LedgerMetrics] = defaultdict(LedgerMetrics)
        self.sinks = publisher
        self.prepare = prepare
        self._name = name
        self._clock = clock
        self._reports_jumps = reports_jumps

    def send(self, channel: Channel, step: Step, start_ns: int) -> None:
        """Publish a step; its processing began at `start_ns` (monotonic)."""
        now = self._clock.monotonic_ns()
        queue_ms = compute_ms = 0.0
        timed = step.arrived_ns > 0
        if timed:
            channel.lag_ms = (now - step.arrived_ns) / 1e6
            queue_ms = max(0.0, (start_ns - step.arrived_ns) / 1e6)
            compute_ms = (now - start_ns) / 1e6
        info, at = channel.lane.info, step.at
        messages: list[Message] = []
        for event in step.events:
            if channel.gate is not None and is_derived(event):
                continue
            if isinstance(event, Anchor):
                self._set_time(event, channel)
            kind = KINDS[type(event)]
            channel.counts[kind] += 1
            if isinstance(event, NearMiss):
                channel.omitted += event.omitted
            ledger = None
            if timed:
                ledger = ledger_of(event, at, info.sample_rate, queue_ms, compute_ms)
                metrics = self.ledgers[kind]
                metrics.pending.append(ledger)
                if len(metrics.pending) > MOST_PENDING:
                    metrics.count()
            message = self.sinks.number(
                info,
                event,
                at,
                channel.timebase,
                ledger=ledger,
                emitted_ns=now if timed else 0,
            )
            if message is not None:
                messages.append(message)
            if isinstance(event, Anchor):
                channel.anchored = message
            if isinstance(event, Trigger | Health):
                # What a trigger causes is published behind it, and other threads
                # number states of health, too.
                self.sinks.deliver(messages)
                messages = []
            if isinstance(event, Trigger):
                trouble = apply_trigger(event, channel, self.prepare)
                if trouble is not None:
                    self.report(trouble, [channel])
        if messages:
            self.sinks.deliver(messages)

    def report(self, event: Event, channels: Sequence[Channel] = ()) -> None:
        """Publish an event that no stage emitted, at the lanes' present position.

        Parameters
        ----------
        event : Event
            Event to publish.
        channels : sequence of Channel
            In whose streams; none: in those of all channels.
        """
        for channel in channels or self.channels:
            self._report(event, channel, channel.lane.position)

    def report_in(self, info: StreamInfo, event: Event) -> None:
        """Publish an event at the beginning of a stream that has no lanes."""
        now = self._clock.monotonic_ns()
        timebase = TimeBase(info.sample_rate)
        self.sinks.send(info, event, 0, timebase, emitted_ns=now)

    def report_control(self, event: Control, channel: Channel) -> None:
        """Publish a command at the sample at which it took effect."""
        self._report(event, channel, event.sample)

    def report_comparison(
        self, info: StreamInfo, timebase: TimeBase, event: Comparison, at: int
    ) -> None:
        """Publish a comparison that was known at a position; from any thread."""
        now = self._clock.monotonic_ns()
        self.sinks.send(info, event, at, timebase, emitted_ns=now)

    def warn(self, health: Health, channels: Sequence[Channel] = ()) -> None:
        """Log and report a change of health."""
        level = logging.INFO if health.state == "healthy" else logging.WARNING
        facts = (self._name, health.stage, health.state, health.detail)
        log.log(level, "lane '%s': %s is %s: %s", *facts)
        self.report(health, channels)

    def _report(self, event: Event, channel: Channel, at: int) -> None:
        self.sinks.send(
            channel.lane.info,
            event,
            at,
            channel.timebase,
            emitted_ns=self._clock.monotonic_ns(),
        )

    def _set_time(self, anchor: Anchor, channel: Channel) -> None:
        """Add an anchor to the time base; report if it jumps, and when it stops."""
        channel.timebase.add(anchor)
        if not self._reports_jumps:
            return
        moved_s = channel.timebase.moved_ns / NS
        if moved_s:
            now = self._clock.monotonic_ns()
            if channel.jumped_ns is not None and now - channel.jumped_ns < _JUMPS_NS:
                return  # one of a series, as of a device of another rate
            channel.jumped_ns, channel.is_uneven = now, True
            detail = f"UTC of the samples moved by {moved_s:+.3f} s (was a clock set?)"
            self.warn(Health("clock", "degraded", detail), [channel])
        elif channel.is_uneven:
            channel.is_uneven = False
            self.warn(Health("clock", "healthy", "time goes on evenly"), [channel])
