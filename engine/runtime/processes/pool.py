"""Pool: the worker processes of a run, and the lanes that they hold."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from threading import Event as Flag
from threading import Lock

from neurovocal.engine.config.plan import LanePlan, Plan
from neurovocal.engine.contracts.errors import NeurovocalError
from neurovocal.engine.contracts.stages import (
    RecordedCommand,
    Source,
    is_unrepeatable,
)
from neurovocal.engine.runtime.processes.host import LaneBeat, LaneSetup, Setup
from neurovocal.engine.runtime.processes.packing import pack_plan
from neurovocal.engine.runtime.processes.process import WorkerProcess
from neurovocal.engine.runtime.processes.remote_lane import RemoteLane
from neurovocal.engine.runtime.workers.publisher import Publisher
from neurovocal.engine.support.calls import Backoff

log = logging.getLogger("neurovocal")

# A process that ends again sooner than this is replaced after a longer pause.
_STEADY_S = 60.0
_POLL_S = 0.1


@dataclass(slots=True, eq=False)
class Worker:
    """Lanes that share a process, and the present process.

    Attributes
    ----------
    number : int
        From 1, for sentences.
    lanes : list of RemoteLane
        Those that run, or wait for another process.
    """

    number: int
    lanes: list[RemoteLane] = field(default_factory=list)
    process: WorkerProcess | None = None
    waiting: set[RemoteLane] = field(default_factory=set)
    backoff: Backoff = field(default_factory=lambda: Backoff(steady_s=_STEADY_S))
    lock: Lock = field(default_factory=Lock)

    @property
    def living(self) -> list[RemoteLane]:
        """Lanes that have not ended."""
        return [lane for lane in self.lanes if not lane.finished.is_set()]


class LanePool:
    """Spreads the lanes of a plan over processes, in turn.

    Parameters
    ----------
    plan : Plan
        The plan; ``workers`` of its configuration says how many processes.
    give_up : callable
        ``give_up(sentence)`` ends the run.

    Attributes
    ----------
    plan : Plan
        The present one: a swap replaces it.
    lanes : list of RemoteLane
        In the order of the plan.
    workers : list of Worker
        One for each process.
    """

    def __init__(self, plan: Plan, give_up: Callable[[str], None]) -> None:
        n_workers = min(plan.config.shared.workers, len(plan.lanes))
        self.plan = plan
        self.lanes: list[RemoteLane] = []
        self.workers = [Worker(number + 1) for number in range(n_workers)]
        self._give_up = give_up
        self._ending = Flag()
        self._closed: list[WorkerProcess] = []

    def lane(
        self,
        plan: Plan,
        lane: LanePlan,
        source: Source,
        publisher: Publisher,
        recorded: Sequence[RecordedCommand],
    ) -> RemoteLane:
        """Return a lane of one of the processes, in the place of a `LaneWorker`."""
        assert not recorded, "a recorded run is computed in one process"
        worker = self.workers[len(self.lanes) % len(self.workers)]
        default = "restart" if source.live else "fail"
        on_error = lane.source.config.on_error or default
        remote = RemoteLane(
            lane.name,
            publisher,
            plan.context.clock,
            live=source.live,
            is_unrepeatable=is_unrepeatable(source),
            # Of a recording another process would begin again.
            restarts=source.live and on_error == "restart",
            revive=partial(self._revive, worker),
        )
        self.lanes.append(remote)
        worker.lanes.append(remote)
        return remote

    def start(self) -> None:
        """Start all processes; they load their plugins at the same time.

        Raises
        ------
        NeurovocalError
            One of them cannot load or build what it needs.
        """
        for worker in self.workers:
            self._start(worker, worker.lanes, resumed=False)
        for worker in self.workers:
            assert worker.process is not None
            worker.process.wait_ready()

    def close(self) -> None:
        """End all processes."""
        self._ending.set()
        processes = [each.process for each in self.workers if each.process]
        for process in processes:
            process.send("end")
        for process in [*processes, *self._closed]:
            process.close()

    def _start(
        self, worker: Worker, lanes: Sequence[RemoteLane], *, resumed: bool
    ) -> None:
        names = [lane.name for lane in lanes]
        plans = [lane for lane in self.plan.lanes if lane.name in names]
        setup = Setup(
            pack_plan(self.plan, plans),
            [
                LaneSetup(
                    lane.publisher.wanted,
                    lane.publisher.takes_ends,
                    lane.resume_point() if resumed else None,
                )
                for lane in lanes
            ],
            log.getEffectiveLevel(),
        )

        def take(beats: Sequence[LaneBeat]) -> None:
            for lane, beat in zip(lanes, beats, strict=False):
                lane.take_beat(beat)

        process = WorkerProcess(setup, worker.number, take, self._give_up)
        worker.process = process
        for index, lane in enumerate(lanes):
            lane.attach(process, index)

    def _revive(self, worker: Worker, lane: RemoteLane) -> bool:
        """Give a lane another process, together with the others of its worker.

        Each lane's thread calls this; the last one of them starts the process.
        """
        old = worker.process
        with worker.lock:
            worker.waiting.add(lane)
        while not self._ending.is_set() and not lane.stopping:
            with worker.lock:
                if worker.process is not old:
                    return True
                if worker.waiting >= set(worker.living) and self._replace(worker):
                    return True
            if lane.stopping or self._ending.wait(_POLL_S):
                break
        with worker.lock:
            worker.waiting.discard(lane)
            return worker.process is not old

    def _replace(self, worker: Worker) -> bool:
        """Start another process for the waiting lanes, if the pause is over."""
        clock, old = self.plan.context.clock, worker.process
        now = clock.monotonic_ns()
        if not worker.backoff.due_ns:
            worker.backoff.failed(now)
        if now < worker.backoff.due_ns:
            return False
        lanes = [lane for lane in worker.lanes if lane in worker.waiting]
        for lane in lanes:
            lane.carry_over()
        try:
            self._start(worker, lanes, resumed=True)
            assert worker.process is not None
            worker.process.wait_ready()
            for lane in lanes:
                worker.process.call("open", lane.index)
                worker.process.call("start", lane.index)
        except (NeurovocalError, OSError) as error:
            pause_s = worker.backoff.failed(clock.monotonic_ns())
            log.error(
                "lanes of worker process %d: %s (next attempt in %.1f s)",
                *(worker.number, error, pause_s),
            )
            if worker.process is not None and worker.process is not old:
                worker.process.kill()
                self._closed.append(worker.process)
            worker.process = old
            return False
        worker.backoff.succeeded(clock.monotonic_ns())
        worker.backoff.due_ns = 0
        worker.waiting.clear()
        return True
