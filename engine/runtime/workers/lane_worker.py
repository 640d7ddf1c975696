"""Lane worker: the thread that reads one source, runs its lanes and publishes."""

import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from threading import Event as Flag
from threading import Thread
from typing import TypeAlias

from neurovocal.engine.audio.timeline import TimeBase
from neurovocal.engine.contracts.abilities import ReportsFailures
from neurovocal.engine.contracts.clock import NS
from neurovocal.engine.contracts.commits import AwaitsCommit, LeavesOut
from neurovocal.engine.contracts.errors import (
    ConfigError,
    EndOfStream,
    NeurovocalError,
    StageError,
)
from neurovocal.engine.contracts.stages import RecordedCommand, is_unrepeatable
from neurovocal.engine.contracts.types import (
    STOP_COMMAND,
    Anchor,
    Block,
    Control,
    Gap,
    Health,
    HealthState,
    StreamEnd,
    StreamInfo,
    stream_of,
)
from neurovocal.engine.lane.lane import Lane, Part
from neurovocal.engine.lane.shadow import ShadowLane
from neurovocal.engine.runtime.workers.audio_release import AudioRelease
from neurovocal.engine.runtime.workers.channel import (
    Channel,
    apply_settings,
    copy_settings,
    split,
)
from neurovocal.engine.runtime.workers.command_queue import (
    CommandQueue,
    check_trigger_commands,
)
from neurovocal.engine.runtime.workers.lanes.channel_group import ChannelGroup
from neurovocal.engine.runtime.workers.lanes.recovery import LaneRecovery
from neurovocal.engine.runtime.workers.lanes.running import (
    LaneSummary,
    ResumePoint,
    Settings,
)
from neurovocal.engine.runtime.workers.lanes.turns import LONGEST_BLOCK_S, TURNS
from neurovocal.engine.runtime.workers.privacy import AudioGate
from neurovocal.engine.runtime.workers.publisher import LanePublisher
from neurovocal.engine.runtime.workers.source_reader import SourceReader
from neurovocal.engine.runtime.workers.stream_commit import StreamCommit
from neurovocal.engine.runtime.workers.telemetry import (
    STALLED,
    SignalChecks,
    Telemetry,
)
from neurovocal.engine.support.calls import Calls

log = logging.getLogger("neurovocal")

# A live source that is silent for longer does not drive generated sequences any more.
_STALL_NS = NS // 20


RecallSwap: TypeAlias = Callable[["LaneWorker", Channel, RecordedCommand], ShadowLane]


class LaneWorker:
    """Thread of one source and the lanes of its channels.

    Parameters
    ----------
    reader : SourceReader
        Reads the source and opens it again.
    commands : CommandQueue
        Commands for these lanes.
    signal_checks : SignalChecks
        Measures and checks the source's samples.
    privacy : AudioRelease
        Sends audio to the sinks.
    recovery : LaneRecovery
        Builds the lanes, runs them, and builds those again that have failed.
    publisher : LanePublisher
        Sends events to the sinks.
    telemetry : Telemetry
        Statistics, once a second.
    read_s : float
        Longest wait for the source in s: commands wait as long.

    Attributes
    ----------
    name : str
        Name of the lane.
    streams : int
        Streams that have begun.
    error : Exception or None
        Why the lane has ended before its source.
    finished : Flag
        Set when the thread has ended.
    recall_swap : callable or None
        ``recall_swap(worker, channel, command)`` makes the shadow that took over in a
        recorded run.
    """

    def __init__(
        self,
        reader: SourceReader,
        commands: CommandQueue,
        signal_checks: SignalChecks,
        privacy: AudioRelease,
        recovery: LaneRecovery,
        publisher: LanePublisher,
        telemetry: Telemetry,
        read_s: float,
    ) -> None:
        self.name = reader.name
        self.reader = reader
        self.commands = commands
        self.recovery = recovery
        self.publisher = publisher
        self.telemetry = telemetry
        self.streams = 0
        self.error: Exception | None = None
        self.finished = Flag()
        self.hung = ""  # the watchdog of this process knows it
        self.recall_swap: RecallSwap | None = None
        self._group = ChannelGroup(recovery, publisher.sinks.wants)
        self._signal_checks = signal_checks
        self._privacy = privacy
        self._read_s = read_s
        self._has_begun = False  # the present stream has had a block or a gap
        self._position = 0  # samples of it, lost ones included
        self._has_ended = True  # all of it was published
        self._commits: deque[StreamCommit] = deque()  # ends that sinks may not have
        self._stalled = False  # generated sequences go on without audio
        self._is_left_out = False  # the present stream could not be processed
        self._thread = Thread(target=self._run, name=f"nv-{self.name}", daemon=True)

    @property
    def channels(self) -> list[Channel]:
        """Channels of the present stream."""
        return self.publisher.channels

    @property
    def live(self) -> bool:
        """Whether samples that are not read in time are lost."""
        return self.reader.source.live

    @property
    def is_unrepeatable(self) -> bool:
        """Whether no later run gets the same audio."""
        return is_unrepeatable(self.reader.source)

    def build(self) -> None:
        """Build the lanes of a source that knows its stream before it is open."""
        with suppress(RuntimeError):  # some know only once they are open
            self._begin(self.reader.source.info)

    def open(self) -> None:
        """Build the lanes and open the source; nothing is read yet.

        A source that knows its stream beforehand (a microphone does) is opened
        last, so that a bundle that does not fit is refused before a device is
        touched.
        """
        if not self.channels:
            self.build()
        if (info := self.reader.open()) is not None:
            self._accept(info)

    def resume(self, point: ResumePoint) -> None:
        """Go on where another process stopped, as after the loss of a device.

        It takes the place of `open`: the source is opened when it is read.
        """
        self._begin(point.info)
        for channel in self.channels:
            lane = channel.lane
            lane.number_from(point.segments.get(lane.info.stream, 0))
            self._restore(lane, point.settings.get(lane.info.stream, ()))
            # Up to there all was published; only the lane has to get there.
            deque(lane.process(Gap(0, point.position, point.reason)), maxlen=0)
        self._has_begun, self._position = True, point.position
        self.reader.resume(point.info, point.position, point.last_ns, point.reason)

    def _restore(self, lane: Lane, settings: Settings) -> None:
        """Set what commands had set before; another configuration may not take it."""
        try:
            apply_settings(lane, settings)
        except (NeurovocalError, ValueError) as error:
            log.warning("lane '%s': options of before: %s", self.name, error)

    def start(self) -> None:
        """Start the thread."""
        self.reader.start()
        self.telemetry.start()
        self._thread.start()

    def stop(self) -> None:
        """Stop reading; open segments are closed, and their labels are published."""
        self.reader.stopping.set()

    def join(self, timeout: float) -> bool:
        """Wait for the thread; return True if it has ended."""
        if self._thread.ident is not None:
            self._thread.join(timeout)
        return not self._thread.is_alive()

    # ---- for other threads -----------------------------------------------------------

    def summary(self) -> LaneSummary:
        """Return what the lane has read and lost."""
        source = self.reader.source
        return LaneSummary(
            self.streams,
            self.reader.lost_samples + self.recovery.missed_samples,
            self.reader.seconds,
            tuple(source.failures) if isinstance(source, ReportsFailures) else (),
        )

    @property
    def progress(self) -> int:
        """Number that grows as long as the source works; for the watchdog.

        A live source delivers samples, or reports which it lost. Another may have
        nothing to deliver for hours, as a folder has: it is enough that reads return.
        """
        reader = self.reader
        samples = reader.samples + reader.lost_samples
        return samples if reader.source.live else samples + reader.calls.returned

    def calls(self) -> Iterator[tuple[str, Calls]]:
        """Yield the calls of this lane that may hang, with their names."""
        yield "source", self.reader.calls
        yield "lane", self.recovery.calls
        for channel in self.channels:
            if isinstance(channel.gate, AudioGate):
                yield "privacy gate", channel.gate.calls
            for stage in channel.stages:
                yield stage.name, stage.calls

    def note(self, stage: str, state: HealthState, detail: str) -> None:
        """Publish a health event in this lane's streams; from any thread."""
        self.publisher.report(Health(stage, state, detail))

    # ---- the thread ------------------------------------------------------------------

    def _run(self) -> None:
        TURNS.enter()
        try:
            self._read_all()
            # However the reading ended: segments are closed and published.
            self._finish_or_leave_out()
        except BaseException as error:  # SystemExit of a plugin ends no thread unseen
            self._fail(error)
        finally:
            # A source that waits for commits is closed when the sinks are.
            if not isinstance(self.reader.source, AwaitsCommit):
                self._close_source()
            TURNS.leave()
            self.finished.set()
            self.commands.close()

    def _close_source(self) -> None:
        try:
            self.reader.close()
        except BaseException as error:
            self._fail(error)

    def settle(self) -> None:
        """Confirm the last streams, after the sinks were closed; close the source."""
        if isinstance(self.reader.source, AwaitsCommit) and self.join(0.0):
            self._confirm()
            self._close_source()

    def _confirm(self) -> None:
        """Report to the source which streams the sinks have committed, in order."""
        source = self.reader.source
        while self._commits and self._commits[0].is_done:
            commit = self._commits.popleft()
            if commit.end is not None and isinstance(source, AwaitsCommit):
                source.confirm(commit.end, commit.kept)

    def _read_all(self) -> None:
        while not self.reader.stopping.is_set():
            try:
                item = self.reader.read(self._read_s)
            except EndOfStream:
                return
            except BaseException as error:
                return self._fail(error)
            if self.commands.pending:
                self._apply_commands()
            if self._commits:
                self._confirm()
            if item is None:
                self._advance()
            elif isinstance(item, StreamEnd):
                self._finish_or_leave_out(item)
            else:
                self._accept(self._cut_at_stop(item) if self.commands.stops else item)
            self.telemetry.once_a_second(self.publisher.channels)
        self._report_stop()

    def _cut_at_stop(self, item: Part | StreamInfo) -> Part | StreamInfo:
        """Cut a block where a recorded run was stopped, and stop there, too."""
        if not isinstance(item, Block) or not self.channels:
            return item
        stop = self.commands.stops.get(self.channels[0].lane.info.stream)
        if stop is None or item.stop < stop:
            return item
        self.reader.stopping.set()
        return Block(item.start, item.samples[: stop - item.start], item.arrived_ns)

    def _report_stop(self) -> None:
        """Publish where the present stream was stopped before its end."""
        if self._has_ended or self._is_left_out:
            return
        for channel in self.channels:
            arguments: dict[str, object] = {"position": self._position}
            stop = Control(channel.lane.position, STOP_COMMAND, "", arguments)
            self.publisher.report_control(stop, channel)

    def _accept(self, item: Part | StreamInfo) -> None:
        """Process an item; leave a stream out that cannot be processed."""
        try:
            if isinstance(item, StreamInfo):
                self._begin(item)
            elif not self._is_left_out:
                self._process(item)
        except Exception as error:
            is_new = isinstance(item, StreamInfo)
            info = item if isinstance(item, StreamInfo) else self.recovery.info
            if self._leave_out(info, error, has_lanes=not is_new):
                return
            if is_new and isinstance(error, ConfigError):  # at this stream's rate
                problems = [f"'{info.stream}': {each}" for each in error.problems]
                raise ConfigError(problems) from error
            raise

    def _leave_out(
        self, info: StreamInfo, error: Exception, *, has_lanes: bool
    ) -> bool:
        """End a stream that failed if its source goes on; return True if it does."""
        source = self.reader.source
        reason = str(error) if str(error) else repr(error)
        if not isinstance(error, NeurovocalError):
            reason = f"a stage failed ({type(error).__name__}: {error})"
        if not isinstance(source, LeavesOut) or not source.leave_out(
            info.stream, reason
        ):
            return False
        log.debug("lane '%s': a stream is left out", self.name, exc_info=error)
        self._group.release()
        for channel in self.channels if has_lanes else ():
            with suppress(Exception):
                self.publisher.send(channel, channel.lane.abandon(reason), 0)
            with suppress(Exception):
                self._privacy.finish(channel)
        if has_lanes:
            streams = [channel.lane.info.stream for channel in self.channels]
            self.publisher.sinks.end_streams(None, streams)
        self.publisher.report_in(info, Health("lane", "lossy", f"left out: {reason}"))
        self.recovery.forget()
        self._is_left_out = True
        return True

    def _process(self, item: Part) -> None:
        if not isinstance(item, Anchor):
            self._has_begun, self._stalled = True, False
            self._position = item.stop
        if TURNS.n_lanes < 2 or not isinstance(item, Block) or self._is_long(item):
            self._process_now(item)
            return
        turn = TURNS.begin()
        try:
            self._process_now(item)
        finally:
            TURNS.end(turn)

    def _is_long(self, block: Block) -> bool:
        return len(block.samples) > LONGEST_BLOCK_S * self.recovery.info.sample_rate

    def _process_now(self, item: Part) -> None:
        channels = self.publisher.channels
        if isinstance(item, Block) and len(channels) > 1:
            self._process_together(item)
            return
        if isinstance(item, Gap):
            self._group.forget()
        for channel, part in split(item, channels):
            self._observe(channel, part)
            for step, start_ns in self.recovery.process(channel, part):
                self.publisher.send(channel, step, start_ns)
                if self.commands.pending:
                    self._apply_commands()

    def _observe(self, channel: Channel, part: Part) -> None:
        self._signal_checks.observe(channel, part)
        if self._privacy.is_wanted:
            self._privacy.push(channel, part)

    def _process_together(self, block: Block) -> None:
        """Process a block of several channels."""
        channels = self.publisher.channels
        for channel, part in split(block, channels):
            self._observe(channel, part)
        for steps in self._group.process(channels, block):
            for channel, step, start_ns in steps:
                self.publisher.send(channel, step, start_ns)
            if self.commands.pending:
                self._apply_commands()

    def _apply_commands(self) -> None:
        self._group.release()
        self.commands.apply_due(self.channels, self.publisher.report_control)

    def _begin(self, info: StreamInfo) -> None:
        """Finish the stream before, if any, and make lanes for a new one."""
        before = self.recovery.info
        has_lanes = bool(self.channels) or self._is_left_out
        if has_lanes and not self._has_begun and info == before:
            return
        self._finish_or_leave_out()
        self._group.forget()
        rebuild, self._is_left_out = self._is_left_out, False
        self._has_begun, self._position, self._has_ended = False, 0, False
        self.streams += 1
        same_kind = (info.sample_rate, info.channels) == (
            before.sample_rate,
            before.channels,
        )
        if self.channels and same_kind and not rebuild:
            self.recovery.info = info
            for channel in self.channels:
                channel.begin(stream_of(info, channel.index))
            self._recall_swaps(self.channels)
            return
        lanes = self.recovery.build_lanes(info)
        for channel, lane in zip(self.channels, lanes, strict=False):
            copy_settings(channel.lane, lane)
        channels = [
            Channel(lane, TimeBase(lane.info.sample_rate), index)
            for index, lane in enumerate(lanes)
        ]
        self._group.prepare(channels)
        self.publisher.channels = channels
        self.publisher.sinks.set_channels(self.name, len(channels))
        self._privacy.attach(channels, info.sample_rate)
        self._signal_checks.begin(channels, info.sample_rate)
        check_trigger_commands(channels, self.publisher.prepare)
        self._recall_swaps(channels)

    def _recall_swaps(self, channels: Sequence[Channel]) -> None:
        """Let the shadows of a recorded run take over where they did."""
        recall = self.recall_swap
        for channel in channels:
            channel.recorded.clear()
            swaps = self.commands.swaps.get(channel.lane.info.stream, ())
            if recall is not None:
                channel.recorded.extend(
                    partial(recall, self, channel, each) for each in swaps
                )

    def _advance(self) -> None:
        """Let generated sequences follow the clock while a live source is silent."""
        silent_ns = self.reader.silent_ns()
        if silent_ns < _STALL_NS:
            return
        self._group.release()
        for channel in self.channels:
            if self.recovery.is_recovering(channel):
                continue
            missing = silent_ns * channel.lane.info.sample_rate // NS
            step = channel.lane.advance(channel.lane.position + missing)
            if not step.events:
                continue
            if not self._stalled:
                # From here on events depend on the time of day: a replay must know.
                self.publisher.report(STALLED, [channel])
            self.publisher.send(channel, step, 0)
        self._stalled = True

    def _finish_or_leave_out(self, end: StreamEnd | None = None) -> None:
        """End the stream; leave it out if its last steps fail."""
        if self._is_left_out:
            return
        try:
            self._finish(end)
        except Exception as error:
            if not self._leave_out(self.recovery.info, error, has_lanes=True):
                raise

    def _finish(self, end: StreamEnd | None = None) -> None:
        """End the stream: the lanes close open segments, gates release the rest.

        The sinks then complete and commit it.
        """
        self._apply_commands()
        if self._has_ended:
            return
        self._has_ended = True
        for channel in self.channels:
            for step, start_ns in self.recovery.finish(channel, self._position):
                self.publisher.send(channel, step, start_ns)
            self._privacy.finish(channel)
        self.recovery.forget()
        streams = [channel.lane.info.stream for channel in self.channels]
        commit = self.publisher.sinks.end_streams(end, streams)
        if end is not None:
            self._commits.append(commit)

    def _fail(self, error: BaseException) -> None:
        if not isinstance(error, Exception):
            error = StageError(f"lane '{self.name}': a plugin raised {error!r}")
        if not isinstance(error, NeurovocalError):
            log.error("lane '%s' failed: %r", self.name, error, exc_info=error)
        if self.error is None:
            self.error = error
            self.note("lane", "failed", f"it ends: {str(error) or repr(error)}")
