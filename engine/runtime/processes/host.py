"""Host: what a worker process runs, its lanes and their control by the main process."""

import logging
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from queue import SimpleQueue
from threading import Event as Flag
from threading import Lock, Thread
from typing import Any

from neurovocal.engine.config.plan import LanePlan, Plan
from neurovocal.engine.contracts.types import StreamInfo
from neurovocal.engine.runtime.assembly import lane_builder, lane_context, lane_worker
from neurovocal.engine.runtime.control.command_bus import CommandBus
from neurovocal.engine.runtime.control.swap import SwapArguments, Swapper
from neurovocal.engine.runtime.processes.packing import (
    PackedPlan,
    pack_error,
    unpack_plan,
)
from neurovocal.engine.runtime.processes.relay import Relay
from neurovocal.engine.runtime.systemd import ServiceManager
from neurovocal.engine.runtime.threads import (
    prompt_threads,
    reporting_thread_failures,
)
from neurovocal.engine.runtime.watchdog import Watchdog
from neurovocal.engine.runtime.workers.channel import settings_of
from neurovocal.engine.runtime.workers.lane_worker import LaneWorker
from neurovocal.engine.runtime.workers.lanes.recovery import BuildLane
from neurovocal.engine.runtime.workers.lanes.running import (
    LaneSummary,
    ResumePoint,
    Settings,
)
from neurovocal.engine.runtime.workers.publisher import Publisher, SequenceNumbers
from neurovocal.engine.support.compiled import kernels_after
from neurovocal.engine.support.platform import ignore_signals
from neurovocal.engine.support.process import keep_stderr

log = logging.getLogger("neurovocal")

BEAT_S = 0.25
_VERDICT_S = 0.05
_KERNELS_AFTER_S = 10.0


@dataclass(frozen=True, slots=True)
class LaneSetup:
    """What a worker process has to know of a lane beside its plan.

    Parameters
    ----------
    wants : frozenset of str
        Kinds of events that a sink of the lane takes.
    takes_ends : bool
        Whether a sink has something to do when a stream ends.
    resume : ResumePoint or None
        Where the lane goes on in place of a process that was lost.
    """

    wants: frozenset[str]
    takes_ends: bool
    resume: ResumePoint | None = None


@dataclass(frozen=True, slots=True)
class Setup:
    """All that a worker process gets when it is started."""

    plan: PackedPlan
    lanes: Sequence[LaneSetup]
    log_level: int


@dataclass(frozen=True, slots=True)
class ChannelBeat:
    """State of a channel: for the display, and for a process that takes its place."""

    info: StreamInfo
    position: int
    level_db: float
    lag_ms: float
    settings: Settings


@dataclass(frozen=True, slots=True)
class LaneBeat:
    """State of a lane, several times a second.

    Parameters
    ----------
    progress : int
        As `LaneWorker.progress`.
    is_lost : bool
        A lost device is being waited for.
    mark : tuple or None
        The source's stream, its position, and when the last sample came.
    hung : str
        Sentence about a call that does not return.
    summary : LaneSummary
        What was read and lost so far.
    channels : list of ChannelBeat
        The present stream.
    """

    progress: int
    is_lost: bool
    mark: tuple[StreamInfo, int, int] | None
    hung: str
    summary: LaneSummary
    channels: Sequence[ChannelBeat]


class _LogRelay(logging.Handler):
    """Sends log records to the main process, which filters and writes them."""

    def __init__(self, send: Any) -> None:
        super().__init__()
        self._send_record = send

    def emit(self, record: logging.LogRecord) -> None:
        """Send a record as plain values."""
        fields = {**record.__dict__, "msg": record.getMessage(), "args": None}
        if record.exc_info:
            fields["exc_text"] = logging.Formatter().formatException(record.exc_info)
        fields["exc_info"] = None
        plain = {k: v for k, v in fields.items() if isinstance(v, str | int | float)}
        self._send_record(("log", plain))


def serve(control: Connection, pipes: Sequence[Connection], setup: Setup) -> None:
    """Run the lanes of a worker process until the main process ends it.

    Parameters
    ----------
    control : Connection
        Commands of the main process, and the replies.
    pipes : sequence of Connection
        One for each lane, for its messages.
    setup : Setup
        Plan and details of the lanes.
    """
    # Ctrl-C and a service manager's signals reach every process of a group: the main
    # process decides what they mean for the lanes.
    ignore_signals()
    keep_stderr()
    lines = _Lines(control)
    log.handlers, log.propagate = [_LogRelay(lines.send)], False
    log.setLevel(setup.log_level)
    with kernels_after(_KERNELS_AFTER_S):
        try:
            host = _Host(lines, pipes, setup)
        except Exception as error:
            lines.send(("refused", pack_error(error)))
            return
        with reporting_thread_failures(host.workers), prompt_threads():
            host.run()


class _Lines:
    """The control connection, on which several threads send."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._lock = Lock()

    def send(self, item: tuple[object, ...]) -> None:
        """Send an item; without the main process this one ends."""
        try:
            with self._lock:
                self._connection.send(item)
        except OSError:
            os._exit(1)

    def receive(self) -> tuple[Any, ...]:
        """Return the next command; without the main process this one ends."""
        try:
            command: tuple[Any, ...] = self._connection.recv()
        except (EOFError, OSError):
            os._exit(1)
        return command


class _Host:
    def __init__(
        self, lines: _Lines, pipes: Sequence[Connection], setup: Setup
    ) -> None:
        self._lines = lines
        self._setups = setup.lanes
        self._plan = unpack_plan(setup.plan)
        self._next_plan = self._plan
        self._verdict: SimpleQueue[str] = SimpleQueue()
        self._work: SimpleQueue[tuple[Any, ...]] = SimpleQueue()
        self._ending = Flag()
        self._publishers: list[Publisher] = []
        self.relays: list[Relay] = []
        self.workers: list[LaneWorker] = []
        for lane, each, pipe in zip(self._plan.lanes, setup.lanes, pipes, strict=True):
            self._add(lane, each, pipe)
        self._swapper = Swapper(self._plan, self.workers, self._make_builder)
        self._swapper.load = lambda name: self._next_plan
        self._swapper.agree = self._agree
        for worker in self.workers:
            worker.recall_swap = self._swapper.recall
        self._bus = CommandBus(self._plan.context.run, self.workers, lambda: None)
        supervise = self._plan.config.shared.supervise
        self._watchdog = Watchdog(
            self.workers,
            [],
            self._plan.context.clock,
            hang_s=supervise.hang_s,
            max_rss_mb=supervise.max_rss_mb,
            give_up=lambda sentence: self._lines.send(("give_up", sentence)),
            manager=ServiceManager(None),
        )

    def _add(self, lane: LanePlan, setup: LaneSetup, pipe: Connection) -> None:
        source = lane.source.build(lane_context(self._plan, lane))
        index = len(self.workers)
        relay = Relay(
            lane.name,
            pipe,
            setup.wants,
            setup.takes_ends,
            source.live,
            lambda: self._last_of(index),
        )
        # Numbers of a lane alone: the main process sees holes in them.
        publisher = Publisher([relay], SequenceNumbers())
        self.relays.append(relay)
        self._publishers.append(publisher)
        self.workers.append(lane_worker(self._plan, lane, source, publisher, ()))

    def _last_of(self, index: int) -> tuple[object, ...]:
        worker = self.workers[index]
        error = None if worker.error is None else pack_error(worker.error)
        return "finished", self._summary(index), error

    def _summary(self, index: int) -> LaneSummary:
        dropped = LaneSummary(dropped=self.relays[index].dropped)
        return self.workers[index].summary() + dropped

    def run(self) -> None:
        """Carry out commands until the last one."""
        self._watchdog.start()
        for target, name in ((self._beat, "beat"), (self._obey, "commands")):
            Thread(target=target, name=f"nv-{name}", daemon=True).start()
        self._lines.send(("ready", os.getpid()))
        while True:
            match self._lines.receive():
                case ("end",):
                    break
                case ("stop", index):
                    self.workers[index].stop()
                case ("committed", index, number, kept):
                    self.relays[index].committed(number, kept=kept)
                case ("verdict", reason):
                    self._verdict.put(reason)
                case command:  # it may take long
                    self._work.put(command)
        self._ending.set()
        self._swapper.stop()
        self._watchdog.stop()

    # ---- commands --------------------------------------------------------------------

    def _obey(self) -> None:
        while True:
            number, name, *arguments = self._work.get()
            try:
                answer = getattr(self, f"_do_{name}")(*arguments)
            except BaseException as error:
                if not isinstance(error, Exception):
                    log.error("a plugin raised %r", error)
                elif not hasattr(error, "exit_code"):  # a mistake of a program
                    log.error("a command to a lane failed: %r", error, exc_info=error)
                self._lines.send(("reply", number, None, pack_error(error)))
            else:
                self._lines.send(("reply", number, answer, None))

    def _do_build(self, index: int) -> None:
        self.workers[index].build()

    def _do_open(self, index: int) -> None:
        point = self._setups[index].resume
        self.relays[index].start()
        if point is None:
            self.workers[index].open()
        else:
            self.workers[index].resume(point)

    def _do_start(self, index: int) -> None:
        worker, relay = self.workers[index], self.relays[index]

        def close() -> None:
            worker.finished.wait()
            relay.close()

        worker.start()
        Thread(target=close, name=f"nv-end-{worker.name}", daemon=True).start()

    def _do_settle(self, index: int) -> LaneSummary:
        self.workers[index].settle()
        return self._summary(index)

    def _do_note(self, index: int, stage: str, state: Any, detail: str) -> None:
        self.workers[index].note(stage, state, detail)

    def _do_check(self, request: object) -> None:
        self._bus.check(request)

    def _do_request(self, request: object) -> dict[str, Any]:
        return self._bus.submit(request)

    def _do_swap(self, plan: PackedPlan, arguments: SwapArguments) -> dict[str, Any]:
        self._next_plan = unpack_plan(plan)
        while not self._verdict.empty():  # of a swap before
            self._verdict.get()
        return self._swapper.begin(arguments)

    def _do_cancel_swap(self) -> dict[str, Any]:
        return self._swapper.begin(SwapArguments(cancel=True))

    def _do_swap_status(self) -> dict[str, Any] | None:
        return self._swapper.status()

    def _agree(self, reason: str) -> str:
        """Return why the lanes of all processes may not take over, or nothing."""
        self._lines.send(("vote", reason))
        while not self._ending.wait(_VERDICT_S):
            if not self._verdict.empty():
                return self._verdict.get()
        return "the run ends"

    def _make_builder(
        self, worker: LaneWorker, lane: LanePlan, plan: Plan
    ) -> BuildLane:
        publisher = self._publishers[self.workers.index(worker)]
        return lane_builder(self._plan, plan, lane, publisher)

    # ---- state -----------------------------------------------------------------------

    def _beat(self) -> None:
        while not self._ending.is_set():
            beats = []
            with suppress(RuntimeError):  # a lane begins another stream meanwhile
                beats = [*map(self._beat_of, range(len(self.workers)))]
            self._lines.send(("beat", beats))
            self._ending.wait(BEAT_S)

    def _beat_of(self, index: int) -> LaneBeat:
        worker = self.workers[index]
        return LaneBeat(
            worker.progress,
            worker.reader.is_lost,
            worker.reader.mark(),
            self._watchdog.hung.get(worker.name, ""),
            self._summary(index),
            [
                ChannelBeat(
                    channel.lane.info,
                    channel.lane.position,
                    channel.level_db,
                    channel.lag_ms,
                    settings_of(channel.lane),
                )
                for channel in worker.channels
            ],
        )
