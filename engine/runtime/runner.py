"""Runs a plan: ordered start, orderly stop within a deadline, an honest outcome."""

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from queue import Empty, SimpleQueue

from neurovocal.engine.config.plan import LanePlan, Plan
from neurovocal.engine.contracts.clock import NS
from neurovocal.engine.contracts.errors import StageError
from neurovocal.engine.contracts.stages import (
    RecordedCommand,
    Sink,
    Source,
    is_unrepeatable,
)
from neurovocal.engine.contracts.types import StreamInfo
from neurovocal.engine.faults.injection import injection_of
from neurovocal.engine.lane.builder import build_lane
from neurovocal.engine.lane.lane import Lane
from neurovocal.engine.runtime.assembly import (
    gates,
    lane_context,
    may_leave,
    observer_worker,
    sink_worker,
)
from neurovocal.engine.runtime.control.command_bus import CommandBus
from neurovocal.engine.runtime.control.swap import Swapper
from neurovocal.engine.runtime.control.worker import ControlWorker
from neurovocal.engine.runtime.outcome import Outcome
from neurovocal.engine.runtime.systemd import ServiceManager
from neurovocal.engine.runtime.watchdog import Watchdog
from neurovocal.engine.runtime.workers.command_queue import (
    CommandQueue,
    ReplayedCommands,
)
from neurovocal.engine.runtime.workers.lane_worker import BuildLane, LaneWorker
from neurovocal.engine.runtime.workers.publisher import Publisher, SequenceNumbers
from neurovocal.engine.runtime.workers.sink_worker import SinkWorker


@contextmanager
def telling_of_threads(lanes: Sequence[LaneWorker]) -> Iterator[None]:
    """Let health and the log say when an exception ends a thread of a plugin's own."""

    def failed(end: threading.ExceptHookArgs) -> None:
        if end.exc_type is SystemExit:
            return
        name = end.thread.name if end.thread else "?"
        sentence = f"it ended: {end.exc_type.__name__}: {end.exc_value}"
        log.error("thread '%s': %s", name, sentence, exc_info=end.exc_value)
        for lane in lanes:
            lane.note(f"thread '{name}'", "failed", sentence)

    before, threading.excepthook = threading.excepthook, failed
    try:
        yield
    finally:
        threading.excepthook = before


log = logging.getLogger("neurovocal")
_ORDERLY_SHARE = 0.75
_TICK_S = 0.1
_ABANDON_S = 1.0


class Runner:
    """Owns the threads of a plan.

    Parameters
    ----------
    plan : Plan
        From `neurovocal.engine.config.planner.make_plan`.
    observers : sequence of Sink
        Sinks beside the configured ones, such as the terminal's live table.
    recalled : sequence of Recalled
        Commands of a recorded run, to be carried out again where they were.

    Attributes
    ----------
    bus : CommandBus
        Takes commands while it runs, from any thread.
    """

    def __init__(
        self,
        plan: Plan,
        observers: Sequence[Sink] = (),
        recalled: Sequence[RecordedCommand] = (),
    ) -> None:
        self._injection = injection_of(plan)
        plan = self.plan = self._injection.plan
        self._clock = plan.context.clock
        self._stopped = self._forced = False
        self.started = False  # until then, opening sinks and sources may block
        # A signal handler may interrupt this very thread while it waits: the one
        # thing to wait on whose other side takes no lock that the waiter holds.
        self._wake: SimpleQueue[None] = SimpleQueue()
        self._sources: list[Source] = [
            lane.source.build(lane_context(plan, lane)) for lane in plan.lanes
        ]
        live = any(source.live for source in self._sources)
        once = any(map(is_unrepeatable, self._sources))
        context = replace(plan.context, unrepeatable=once)
        shared = [sink_worker(sink, context, live) for sink in plan.sinks]
        shared += [observer_worker(sink, self._clock, live) for sink in observers]
        self.sinks: list[SinkWorker] = list(shared)
        self.lanes: list[LaneWorker] = []
        self.swapper = Swapper(plan, self.lanes, self._anew)
        self._dispatchers: dict[str, Publisher] = {}
        self.bus = CommandBus(
            plan.context.run, self.lanes, self.stop, swapper=self.swapper
        )
        self._control = self._control_worker()
        self._gave_up: list[str] = []
        supervise = plan.config.shared.supervise
        self.watchdog = Watchdog(
            self.lanes,
            self.sinks,
            self._clock,
            hang_s=supervise.hang_s,
            max_rss_mb=supervise.max_rss_mb,
            give_up=self._give_up,
            manager=ServiceManager.of_environment(),
        )
        numbers = SequenceNumbers()
        for lane, source in zip(plan.lanes, self._sources, strict=True):
            context = replace(plan.context, unrepeatable=is_unrepeatable(source))
            own = [sink_worker(sink, context, source.live) for sink in lane.sinks]
            self.sinks += own
            dispatcher = Publisher([*shared, *own], numbers)
            self.lanes.append(
                LaneWorker(
                    lane.name,
                    source,
                    self._builder(lane, dispatcher),
                    dispatcher,
                    self._clock,
                    lane.source.config.on_error
                    or ("restart" if source.live else "fail"),
                    self._inbox(recalled),
                    self.bus.recall,
                    lane.signal,
                    gates(plan, lane, source.live),
                    revives=lane.revives(source.live),
                )
            )

    def run(self, tick: Callable[[], None] = lambda: None) -> Outcome:
        """Run to the end of all sources, or until `stop`.

        Parameters
        ----------
        tick : callable
            Called about ten times a second from this thread (terminal display).

        Returns
        -------
        Outcome
            Counts, losses and errors; nothing is raised once the run began.

        Raises
        ------
        NeurovocalError
            A sink or source cannot be opened, or a stage cannot be built; what
            was opened is closed again.
        """
        with telling_of_threads(self.lanes):
            return self._run(tick)

    def _run(self, tick: Callable[[], None]) -> Outcome:
        try:
            self._start()
            self.started = True
        except SystemExit as error:
            self._abandon()
            raise StageError(
                f"a plugin gave up while it was opened: {error!r}"
            ) from error
        except BaseException:
            self._abandon()
            raise
        try:
            self._watch(tick)
        except BaseException:
            self._stopped = True
            self._end(lambda: None)
            raise
        outcome = self._end(tick)
        tick()
        return outcome

    def stop(self, *, force: bool = False) -> None:
        """End the run: orderly within its deadline, or at once. Signal-safe."""
        self._forced = self._forced or force
        self._stopped = True
        self._wake.put(None)

    def _start(self) -> None:
        self._injection.open(self.lanes)
        for sink in self.sinks:
            sink.open()
        if self._control:
            self._control.open()
        for lane in self.lanes:
            lane.open()
        for lane in self.lanes:
            lane.start()
        if self._control:
            self._control.start()
        self.watchdog.start()
        self._injection.start()

    def _give_up(self, sentence: str) -> None:
        self._gave_up.append(sentence)
        self.stop()

    def _abandon(self) -> None:
        """Close all, opened or not, in reverse; what went wrong first is raised."""
        if self._control:
            self._control.close(_TICK_S)
        self.watchdog.stop()
        for lane in self.lanes:  # some may hear already
            lane.stop()
        for lane in self.lanes:
            lane.join(_ABANDON_S)
        for source in reversed(self._sources):
            try:
                source.close()
            except (Exception, SystemExit):
                log.exception("a source failed while closing")
        for sink in reversed(self.sinks):
            sink.drain(_TICK_S, hurry=True)
            sink.close(lambda: False)
        self._injection.close()

    def _watch(self, tick: Callable[[], None]) -> None:
        """Until no lane goes on, a sink has failed, or `stop` is called."""
        while not self._stopped:
            with suppress(Empty):
                self._wake.get(timeout=_TICK_S)
            tick()
            hung = self.watchdog.hung
            # A lane that hangs or has failed is given up; the others are heard.
            if all(lane.finished.is_set() or lane.name in hung for lane in self.lanes):
                return
            if any(sink.failed.is_set() for sink in self.sinks):
                return

    def _end(self, tick: Callable[[], None]) -> Outcome:
        """Lanes finish first, then the sinks write what waits, then all close."""
        outcome = Outcome()
        cut_short = not all(lane.finished.is_set() for lane in self.lanes)
        budget_s = self.plan.config.shared.stop_timeout_s
        began = self._clock.monotonic_ns()

        def late(share: float) -> bool:
            spent_s = (self._clock.monotonic_ns() - began) / NS
            return self._forced or spent_s >= budget_s * share

        self.watchdog.stop()
        self.swapper.stop()
        if self._control:
            self._control.close(budget_s * _ORDERLY_SHARE)
        for lane in self.lanes:
            lane.stop()
        for lane in self.lanes:
            while not lane.join(0.0 if late(_ORDERLY_SHARE) else _TICK_S):
                if late(_ORDERLY_SHARE):
                    outcome.forced = True
                    break
                tick()
        for sink in self.sinks:
            # At the natural end nothing presses: all is written, however long it
            # takes. Only a sink that is down is waited for no longer than that.
            while True:
                pressed = cut_short or self._stopped
                if sink.drain(
                    _TICK_S, hurry=pressed or (sink.shell.down and late(1.0))
                ):
                    break
                if pressed and late(1.0):
                    outcome.forced = True
                    break
                tick()
        pressed = cut_short or self._stopped
        for sink in reversed(self.sinks):
            closed = sink.close(lambda: not (self._forced or (pressed and late(1.0))))
            outcome.forced |= not closed
        self._injection.close()
        self._conclude(outcome)
        return outcome

    def _conclude(self, outcome: Outcome) -> None:
        outcome.errors += [*self._gave_up, *self.watchdog.hung.values()]
        for lane in self.lanes:
            outcome.streams += lane.streams
            outcome.lost_samples += lane.lost_samples + lane.revival.missed
            outcome.seconds += lane.heard_s
            outcome.errors += getattr(lane.source, "failures", [])
            outcome.note(lane.error)
        for sink in self.sinks:
            if not sink.reader_left:
                outcome.dropped += sink.mailbox.dropped
            outcome.note(sink.error)

    def _builder(self, lane: LanePlan, dispatcher: Publisher) -> BuildLane:
        self._dispatchers[lane.name] = dispatcher
        return self._anew(lane, self.plan)

    def _anew(self, lane: LanePlan, plan: Plan) -> BuildLane:
        """What builds the lanes that a plan asks for."""
        context = replace(
            self.plan.context, tile=plan.config.shared.tile, base=plan.context.base
        )
        dispatcher = self._dispatchers[lane.name]

        def build(info: StreamInfo, channel: int) -> Lane:
            return build_lane(
                lane,
                info,
                channel,
                context,
                wants_frames=may_leave(self.plan) and dispatcher.wants("frames"),
            )

        return build

    def _inbox(self, recalled: Sequence[RecordedCommand]) -> CommandQueue | None:
        if recalled:
            return ReplayedCommands(recalled, self.bus.recall)
        return CommandQueue() if self._control else None

    def _control_worker(self) -> ControlWorker | None:
        plan = self.plan.control
        if plan is None:
            return None
        control = plan.build(self.plan.context)
        return ControlWorker(plan.name, control, self.bus.submit)
