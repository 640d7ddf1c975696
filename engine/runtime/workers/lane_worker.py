"""One source's thread: pulls audio, drives its lanes, sends what they answer."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from threading import Event as Flag
from threading import Thread

from neurovocal.engine.audio.signal_checks import SignalOptions
from neurovocal.engine.audio.timeline import TimeBase
from neurovocal.engine.contracts.clock import NS, Clock
from neurovocal.engine.contracts.errors import EndOfStream, NeurovocalError, StageError
from neurovocal.engine.contracts.options import OnError
from neurovocal.engine.contracts.stages import Source
from neurovocal.engine.contracts.types import (
    Anchor,
    Block,
    Event,
    Gap,
    Health,
    HealthState,
    StreamInfo,
    stream_of,
)
from neurovocal.engine.lane.lane import Lane, Step
from neurovocal.engine.runtime.workers.audio_release import (
    AudioRelease,
    MakeGate,
    everything,
)
from neurovocal.engine.runtime.workers.channel import Channel, inherit, pieces
from neurovocal.engine.runtime.workers.command_queue import (
    CommandQueue,
    Recall,
    rehearse,
)
from neurovocal.engine.runtime.workers.lane_publisher import LanePublisher
from neurovocal.engine.runtime.workers.publisher import Publisher
from neurovocal.engine.runtime.workers.recovery import LaneRecovery
from neurovocal.engine.runtime.workers.source_reader import SourceReader
from neurovocal.engine.runtime.workers.telemetry import (
    STALLED,
    LaneHeartbeat,
    SignalChecks,
    figures_of,
)
from neurovocal.engine.support.calls import Calls

log = logging.getLogger("neurovocal")

_READ_S = 0.1
# Commands and songs wait no longer than this for a source that has nothing to say.
_HURRIED_READ_S = 0.02
# A live source that is silent for longer does not lead songs any more.
_STALL_NS = NS // 20

BuildLane = Callable[[StreamInfo, int], Lane]


class LaneWorker:
    """Shell of one source and the lanes of its channels.

    Parameters
    ----------
    source : Source
        Not yet open.
    build : callable
        ``build(source_info, channel)`` makes the lane of one channel.
    dispatcher : Dispatcher
        Where events go.
    clock : Clock
        The time of day.
    on_error : {'fail', 'skip', 'restart'}
        Whether a source that lost its device is opened again.
    signal : SignalOptions, optional
        What is told about the samples of a live source.
    inbox : Inbox, optional
        Commands for this lane; where none can come, it reads less often.
    recall : callable, optional
        ``recall(command, channel)`` prepares what a trigger sets.
    make_gate : callable
        What stands between the source's audio and the sinks.
    revives : bool
        Whether a lane whose front end or detector has failed is built anew.
    """

    def __init__(
        self,
        name: str,
        source: Source,
        build: BuildLane,
        dispatcher: Publisher,
        clock: Clock,
        on_error: OnError = "fail",
        inbox: CommandQueue | None = None,
        recall: Recall | None = None,
        signal: SignalOptions | None = None,
        make_gate: MakeGate = everything,
        *,
        revives: bool = False,
    ) -> None:
        self.name = name
        self.source = source
        self.channels: list[Channel] = []
        self.lost_samples = 0
        self.heard_samples = 0
        self.heard_s = 0.0
        self.streams = 0
        self.error: Exception | None = None
        self.finished = Flag()
        self.inbox = inbox or CommandQueue()
        hurried = inbox is not None or source.live
        self._read_s = _HURRIED_READ_S if hurried else _READ_S
        self._audio_ns = 0  # when the source last delivered
        self._stalled = False  # and songs went on without it
        self.build = build
        self.recall = recall
        self._signal = SignalChecks(name, signal if source.live else None, self._report)
        self._dispatcher = dispatcher
        self._outlet = AudioRelease(dispatcher, make_gate)
        self._events = LanePublisher(
            dispatcher, self._outlet, self._signal, clock, recall
        )
        self.ledgers = self._events.ledgers
        self._clock = clock
        self._stopping = Flag()
        self._shell = SourceReader(
            name, source, clock, on_error, self._stopping, self._report
        )
        self.revival = LaneRecovery(
            name,
            lambda index: self.build(self.info, index),
            lambda health, channel: self._report(health, [channel]),
            clock,
            willing=revives,
        )
        self.info = StreamInfo(name, 1)
        self._touched = False  # whether this stream has begun
        self._position = 0  # samples of it, lost ones included
        self._pulse = LaneHeartbeat(clock, dispatcher, self._report, self.statistics)
        self._thread = Thread(target=self._run, name=f"nv-{name}", daemon=True)

    def open(self) -> None:
        """Build the lanes and open the source; nothing is read yet.

        A source that knows its stream beforehand (a microphone does) is opened
        last, so that a bundle that does not fit is refused before a device is
        touched.
        """
        with suppress(RuntimeError):  # some know only once they are open
            self._begin(self.source.info)
        if (info := self._shell.open()) is not None:
            self._begin(info)

    def start(self) -> None:
        """Begin to read."""
        self._audio_ns = self._clock.monotonic_ns()
        self._pulse.start()
        self._thread.start()

    def stop(self) -> None:
        """Stop reading; what was heard is finished, open segments are closed."""
        self._stopping.set()

    @property
    def progress(self) -> int:
        """Grows as long as the source does what it should; for the watchdog.

        A live source delivers samples, or says what it lost. Another may have
        nothing to deliver for hours, as a folder has: it is enough that it answers.
        """
        samples = self.heard_samples + self.lost_samples
        return samples if self.source.live else samples + self._shell.calls.returned

    @property
    def away(self) -> bool:
        """Whether the source's device was lost and is being waited for."""
        return self._shell.away

    def calls(self) -> Iterator[tuple[str, Calls]]:
        """Everything of this lane that may hang, with its name."""
        yield "source", self._shell.calls
        for channel in self.channels:
            for stage in [*channel.lane.stages, *channel.lane.shadowed]:
                yield stage.name, stage.calls

    def note(self, stage: str, state: HealthState, detail: str) -> None:
        """Publish a health event in this lane's streams; from any thread."""
        self._report(Health(stage, state, detail))

    def join(self, timeout: float) -> bool:
        """Wait for the thread; whether it has ended."""
        if self._thread.ident is not None:
            self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            self._read_all()
            # However the reading ended: what was heard is finished and told.
            self._finish()
        except BaseException as error:  # SystemExit of a plugin ends no thread unseen
            self._fail(error)
        finally:
            try:
                self._shell.close()
            except BaseException as error:
                self._fail(error)
            self.finished.set()
            self.inbox.close()

    def _fail(self, error: BaseException) -> None:
        if not isinstance(error, Exception):
            error = StageError(f"lane '{self.name}': a plugin raised {error!r}")
        if not isinstance(error, NeurovocalError):
            log.error("lane '%s' failed: %r", self.name, error, exc_info=error)
        if self.error is None:
            self.error = error
            self.note("lane", "failed", f"it ends: {str(error) or repr(error)}")

    def _read_all(self) -> None:
        while not self._stopping.is_set():
            self._obey()
            try:
                item = self._shell.read(self._read_s)
            except EndOfStream:
                return
            except BaseException as error:
                return self._fail(error)
            if isinstance(item, StreamInfo):
                self._begin(item)
            elif item is not None:
                for part in pieces(item, self.info.sample_rate):
                    self._hear(part)
                    if self._stopping.is_set():
                        break
            else:
                self._sing()
            self._pulse.beat(self.channels)

    def _begin(self, info: StreamInfo) -> None:
        """Finish the stream before, if any, and make lanes for a new one."""
        if self.channels and not self._touched and info == self.info:
            return
        self._finish()
        fits = self.channels and (info.sample_rate, info.channels) == (
            self.info.sample_rate,
            self.info.channels,
        )
        self.info = info
        self._touched, self._position = False, 0
        self.streams += 1
        if not fits:
            lanes = [self.build(info, index) for index in range(info.channels)]
            for channel, lane in zip(self.channels, lanes, strict=False):
                inherit(channel.lane, lane)
            self.channels = [
                Channel(lane, TimeBase(lane.info.sample_rate)) for lane in lanes
            ]
            for channel in self.channels:
                self._outlet.attach(channel, info.sample_rate)
            self._signal.begin(self.channels, info.sample_rate)
            rehearse(self.channels, self.recall)
            return
        for index, channel in enumerate(self.channels):
            channel.begin(stream_of(info, index))

    def _hear(self, item: Block | Gap | Anchor) -> None:
        if isinstance(item, Block):
            self._touched = True
            self.heard_samples += len(item.samples)
            self.heard_s += len(item.samples) / self.info.sample_rate
        elif isinstance(item, Gap):
            self._touched = True
            self.lost_samples += item.stop - item.start
        if not isinstance(item, Anchor):
            self._position = item.stop
            self._signal.hear(item, self.channels)
            self._audio_ns = self._clock.monotonic_ns()
            self._stalled = False
        for index, channel in enumerate(self.channels):
            part = item
            if isinstance(item, Block):
                part = replace(item, samples=item.samples[:, index : index + 1])
                channel.meter(part)
            if not isinstance(part, Anchor):
                self._outlet.hear(part, channel)
            self._drive(channel, self.revival.process(index, channel, part))

    def _drive(self, channel: Channel, steps: Iterator[Step]) -> None:
        """Take steps from a lane, timing each, until done."""
        while True:
            self._obey()
            start = self._clock.monotonic_ns()
            step = next(steps, None)
            if step is None:
                return
            self._events.send(channel, step, start)

    def _sing(self) -> None:
        """A live source delivers nothing: songs go on by the machine's clock."""
        start = self._clock.monotonic_ns()
        elapsed_ns = start - self._audio_ns
        if not self.source.live or elapsed_ns < _STALL_NS:
            return
        for channel in self.channels:
            if self.revival.away(channel):
                continue
            ahead = elapsed_ns * channel.lane.info.sample_rate // NS
            step = channel.lane.advance(channel.lane.position + ahead)
            if not step.events:
                continue
            if not self._stalled:
                # What comes now depends on the time of day: a replay must know.
                self._report(STALLED, [channel])
            self._events.send(channel, step, start)
        self._stalled = True

    def _obey(self) -> None:
        """Carry out the commands that are due."""
        for order, channels in self.inbox.due(self.channels):
            order.carry_out(
                channels, lambda event, of: self._events.report(event, of, event.sample)
            )

    def _finish(self) -> None:
        """End the stream: the lanes close what is open and say so."""
        self._obey()
        for index, channel in enumerate(self.channels):
            for step in self.revival.finish(index, channel, self._position):
                self._events.send(channel, step, self._clock.monotonic_ns())
            self._outlet.finish(channel)
        self.revival.forget()

    def _report(self, event: Event, channels: Sequence[Channel] = ()) -> None:
        """Send an event that is not of a lane's own, to all channels' streams."""
        for channel in channels or self.channels:
            self._events.report(event, channel)

    def statistics(self, channel: Channel) -> dict[str, object]:
        """Counters of one lane, as its ``stats`` message carries them."""
        return {
            **figures_of(channel),
            "source": {
                "heard": self.heard_samples,
                "lost": self.lost_samples,
                "unheard": self.revival.missed,
                "state": self._shell.state.condition,
                "outages": self._shell.state.outages,
                "repeated": self._shell.repeated,
            },
            "sinks": self._dispatcher.statistics(),
            "latency": {k: v.summary() for k, v in self.ledgers.items()},
        }
