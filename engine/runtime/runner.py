"""Runner: starts a plan in order, stops it within a deadline, reports the outcome."""

import logging
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

from neurovocal.engine.config.plan import LanePlan, Plan
from neurovocal.engine.contracts.clock import NS
from neurovocal.engine.contracts.errors import StageError
from neurovocal.engine.contracts.stages import RecordedCommand, Sink
from neurovocal.engine.faults.injection import injection_of
from neurovocal.engine.runtime.assembly import assemble, lane_builder
from neurovocal.engine.runtime.control.command_bus import CommandBus
from neurovocal.engine.runtime.control.swap import Swapper
from neurovocal.engine.runtime.control.worker import ControlWorker
from neurovocal.engine.runtime.outcome import Outcome
from neurovocal.engine.runtime.systemd import ServiceManager
from neurovocal.engine.runtime.threads import (
    prompt_threads,
    reporting_thread_failures,
)
from neurovocal.engine.runtime.watchdog import Watchdog
from neurovocal.engine.runtime.workers.lane_worker import LaneWorker
from neurovocal.engine.runtime.workers.lanes.recovery import BuildLane
from neurovocal.engine.support.process import uncollected

if TYPE_CHECKING:  # a run of one process needs none of it
    from neurovocal.engine.runtime.processes.commands import PoolBus, PoolSwapper
    from neurovocal.engine.runtime.processes.pool import LanePool

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
    recorded : sequence of RecordedCommand
        Commands of a recorded run, to be applied at the same samples.

    Attributes
    ----------
    lanes : list of RunningLane
        In the order of the plan.
    local_lanes : list of LaneWorker
        Those that run in this process: all, unless there are worker processes.
    sinks : list of SinkWorker
        Those that all lanes share first.
    bus : CommandBus
        Takes commands while it runs, from any thread.
    started : bool
        All sinks and sources are open; until then, opening them may block.
    """

    def __init__(
        self,
        plan: Plan,
        observers: Sequence[Sink] = (),
        recorded: Sequence[RecordedCommand] = (),
    ) -> None:
        self._injection = injection_of(plan)
        self.plan = self._injection.plan
        self.started = self._stopped = self._forced = False
        self._clock = self.plan.context.clock
        # A signal handler may interrupt this very thread while it waits: the one
        # thing to wait on whose other side takes no lock that the waiter holds.
        self._wake: SimpleQueue[None] = SimpleQueue()
        self._stop_reasons: list[str] = []
        self._while_running = ExitStack()
        self._pool = self._make_pool(recorded)
        make_lane = None if self._pool is None else self._pool.lane
        built = assemble(self.plan, observers, recorded, make_lane)
        self._sources, self.sinks, self.lanes = built.sources, built.sinks, built.lanes
        self.local_lanes = [each for each in self.lanes if isinstance(each, LaneWorker)]
        self.swapper: Swapper | PoolSwapper
        self.bus: CommandBus | PoolBus
        self.swapper, self.bus = self._make_bus()
        self._control = self._control_worker()
        supervise = self.plan.config.shared.supervise
        self.watchdog = Watchdog(
            self.lanes,
            self.sinks,
            self._clock,
            hang_s=supervise.hang_s,
            max_rss_mb=supervise.max_rss_mb,
            give_up=self._give_up,
            manager=ServiceManager.from_environment(),
        )

    def run(
        self,
        tick: Callable[[], None] = lambda: None,
        opened: Callable[[], None] = lambda: None,
    ) -> Outcome:
        """Run to the end of all sources, or until `stop`.

        Parameters
        ----------
        tick : callable
            Called about ten times a second from this thread (terminal display).
        opened : callable
            Called once all sinks are open, before the first audio is read.

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
        with self._while_running, reporting_thread_failures(self.lanes):
            return self._run(tick, opened)

    def _run(self, tick: Callable[[], None], opened: Callable[[], None]) -> Outcome:
        try:
            with uncollected():
                self._start(opened)
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

    def _make_pool(self, recorded: Sequence[RecordedCommand]) -> "LanePool | None":
        """Return the worker processes; a recorded run is computed again in this one."""
        plan = self.plan
        if plan.config.shared.workers == 1 or recorded or plan.context.dry_run:
            return None
        from neurovocal.engine.runtime.processes.pool import LanePool

        return LanePool(plan, self._give_up)

    def _make_bus(self) -> "tuple[Swapper, CommandBus] | tuple[PoolSwapper, PoolBus]":
        run = self.plan.context.run
        if self._pool is not None:
            from neurovocal.engine.runtime.processes.commands import (
                PoolBus,
                PoolSwapper,
            )

            others = PoolSwapper(self.plan, self._pool)
            return others, PoolBus(run, self._pool, self.stop, others)
        swapper = Swapper(self.plan, self.local_lanes, self._make_builder)
        for lane in self.local_lanes:
            lane.recall_swap = swapper.recall
        return swapper, CommandBus(run, self.local_lanes, self.stop, swapper=swapper)

    def _start(self, opened: Callable[[], None]) -> None:
        if self._pool is not None:
            self._pool.start()
        self._injection.open(self.lanes)
        # What can be refused is refused before a sink replaces a file: only live
        # sources wait, since their audio would be lost meanwhile.
        live = [lane for lane in self.lanes if lane.live]
        for lane in self.lanes:
            if lane not in live:
                lane.open()
        for lane in live:
            lane.build()
        if self._control:
            self._control.open()
        for sink in sorted(self.sinks, key=lambda sink: sink.replaces_files):
            sink.open()
        opened()
        for lane in live:
            lane.open()
        self._while_running.enter_context(prompt_threads())
        for lane in self.lanes:
            lane.start()
        if self._control:
            self._control.start()
        self.watchdog.start()
        self._injection.start()

    def _give_up(self, sentence: str) -> None:
        self._stop_reasons.append(sentence)
        self.stop()

    def _abandon(self) -> None:
        """Close all sinks and sources, opened or not, in reverse; only log failures."""
        if self._control:
            self._control.close(_TICK_S)
        self.watchdog.stop()
        for lane in self.lanes:  # some may run already
            lane.stop()
        for lane in self.lanes:
            lane.join(_ABANDON_S)
        self._close_sources(live=True)
        for sink in reversed(self.sinks):
            sink.drain(_TICK_S, hurry=True)
            sink.close(lambda: False)
        self._close_sources(live=False)
        self._injection.close()
        if self._pool is not None:
            self._pool.close()

    def _close_sources(self, *, live: bool) -> None:
        for source in reversed(self._sources):
            if source.live is not live:
                continue
            try:
                source.close()
            except (Exception, SystemExit):
                log.exception("a source failed while closing")

    def _watch(self, tick: Callable[[], None]) -> None:
        """Wait until all lanes have ended, a sink has failed, or `stop` is called."""
        while not self._stopped:
            with suppress(Empty):
                self._wake.get(timeout=_TICK_S)
            tick()
            hung = self._hung()
            # A lane that hangs or has failed is given up; the others go on.
            if all(lane.finished.is_set() or lane.name in hung for lane in self.lanes):
                return
            if any(sink.failed.is_set() for sink in self.sinks):
                return

    def _hung(self) -> dict[str, str]:
        """Return the lanes that are given up, by name, with a sentence."""
        others = {lane.name: lane.hung for lane in self.lanes if lane.hung}
        return {**others, **self.watchdog.hung}

    def _end(self, tick: Callable[[], None]) -> Outcome:
        """End the run in order and return its outcome.

        1. Lanes stop reading, close open segments and publish their labels: at most
           three quarters of ``stop_timeout_s``.
        2. Sinks write the queued messages: until the timeout, if the run was stopped.
        3. Sinks are closed.
        """
        cut_short = not all(lane.finished.is_set() for lane in self.lanes)
        outcome = Outcome(cut_short=cut_short)
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
                    _TICK_S, hurry=pressed or (sink.supervised.down and late(1.0))
                ):
                    break
                if pressed and late(1.0):
                    outcome.forced = True
                    break
                tick()
        pressed = cut_short or self._stopped
        for sink in reversed(self.sinks):
            closed = sink.close(
                lambda: not (self._forced or (pressed and late(1.0))), hurry=pressed
            )
            outcome.forced |= not closed
        for lane in self.lanes:
            lane.settle()
        self._injection.close()
        self._count(outcome)
        if self._pool is not None:
            self._pool.close()
        return outcome

    def _count(self, outcome: Outcome) -> None:
        """Add losses and errors of lanes and sinks to the outcome."""
        outcome.errors += [*self._stop_reasons, *self._hung().values()]
        outcome.repeatable = not any(lane.is_unrepeatable for lane in self.lanes)
        for lane in self.lanes:
            summary = lane.summary()
            outcome.streams += summary.streams
            outcome.lost_samples += summary.lost_samples
            outcome.seconds += summary.seconds
            outcome.dropped += summary.dropped
            outcome.errors += summary.failures
            outcome.note(lane.error)
        for sink in self.sinks:
            if not sink.reader_left:
                outcome.dropped += sink.mailbox.dropped
            outcome.note(sink.error)
            losses = sink.supervised.losses
            outcome.losses += [] if losses is None else [losses]

    def _make_builder(
        self, worker: LaneWorker, lane: LanePlan, plan: Plan
    ) -> BuildLane:
        """Return the function that builds a worker's lanes after another plan."""
        return lane_builder(self.plan, plan, lane, worker.publisher.sinks)

    def _control_worker(self) -> ControlWorker | None:
        plan = self.plan.control
        if plan is None:
            return None
        control = plan.build(self.plan.context)
        return ControlWorker(plan.name, control, self.bus.submit)
