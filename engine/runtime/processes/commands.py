"""Commands to a run whose lanes are in worker processes: sent on, replies joined."""

import logging
from collections.abc import Callable, Mapping, Sequence
from queue import Empty
from threading import Event as Flag
from threading import Lock, Thread
from typing import Any

from neurovocal.engine.config.plan import Plan
from neurovocal.engine.contracts.errors import CommandError, NeurovocalError
from neurovocal.engine.contracts.types import STOP_COMMAND
from neurovocal.engine.runtime.control.command_bus import Reply, answer_swap, replied
from neurovocal.engine.runtime.control.requests import ControlRequest
from neurovocal.engine.runtime.control.swap import (
    LoadPlan,
    SwapArguments,
    refuse_unchangeable,
)
from neurovocal.engine.runtime.processes.packing import pack_plan
from neurovocal.engine.runtime.processes.pool import LanePool, Worker
from neurovocal.engine.runtime.processes.process import WorkerProcess
from neurovocal.engine.runtime.processes.remote_lane import RemoteLane

log = logging.getLogger("neurovocal")

_POLL_S = 0.05
_LONGEST_S = 2.0
_NO_SHADOW = "a shadow that stays needs 'workers: 1': swap without it"


class PoolSwapper:
    """Swaps the lanes of all worker processes, or of none.

    Each process builds its new lanes and lets them run as shadows; then it says whether
    they may take over, and waits until all have said so.

    Parameters
    ----------
    plan : Plan
        Plan that the run was started with.
    pool : LanePool
        The processes.

    Attributes
    ----------
    load, load_recorded : callable or None
        As those of `Swapper`; the second is not used, a replay has one process.
    """

    def __init__(self, plan: Plan, pool: LanePool) -> None:
        self.load: LoadPlan | None = None
        self.load_recorded: Callable[[str], Plan] | None = None
        self._plan = plan
        self._pool = pool
        self._stopping = Flag()
        self._thread: Thread | None = None
        self._swapped: list[WorkerProcess] = []
        self._beginning = Lock()

    def begin(self, arguments: SwapArguments) -> dict[str, Any]:
        """As `Swapper.begin`.

        Raises
        ------
        NeurovocalError
            Nothing has changed; one sentence says why.
        """
        with self._beginning:
            return self._begin(arguments)

    def _begin(self, arguments: SwapArguments) -> dict[str, Any]:
        if arguments.shadow:
            raise CommandError(_NO_SHADOW)
        living = [worker for worker in self._pool.workers if worker.living]
        if arguments.cancel:
            replies = [_process(worker).call("cancel_swap") for worker in living]
            return dict(replies[0]) if replies else {}
        if self._thread is not None and self._thread.is_alive():
            raise CommandError(
                "a swap is under way already: wait for its end, or swap with "
                "cancel=true"
            )
        if self.load is None:
            raise CommandError("this run has no configuration file to read again")
        if not living:
            raise CommandError("all lanes have ended")
        plan = self.load(arguments.config)
        refuse_unchangeable(self._plan, plan)
        begun: list[WorkerProcess] = []
        reply: dict[str, Any] = {}
        try:
            for worker in living:
                process = _process(worker)
                names = [lane.name for lane in worker.lanes]
                lanes = [lane for lane in plan.lanes if lane.name in names]
                while not process.votes.empty():  # of a swap before
                    process.votes.get()
                reply = process.call("swap", pack_plan(plan, lanes), arguments)
                begun.append(process)
        except NeurovocalError:
            for process in begun:
                process.send("verdict", "another worker process refused it")
            raise
        self._swapped = begun
        self._thread = Thread(
            target=self._decide, args=(plan, begun), name="nv-swap", daemon=True
        )
        self._thread.start()
        return reply

    def promote(self) -> dict[str, Any]:
        """Refuse: no shadow stays.

        Raises
        ------
        CommandError
            Always.
        """
        raise CommandError(_NO_SHADOW)

    def drop(self) -> dict[str, Any]:
        """Refuse, as `promote`."""
        raise CommandError(_NO_SHADOW)

    def status(self) -> dict[str, Any] | None:
        """Return the state of the newest swap; the least advanced process tells it."""
        found = []
        for process in self._swapped:
            if not process.is_gone:
                found.append(process.call("swap_status"))
        known = [each for each in found if each is not None]
        for state in ("rolled back", "shadow", "swapped"):
            for each in known:
                if each["state"] == state:
                    return dict(each)
        return None

    def reload(self) -> None:
        """Swap to the configuration file as it is now (SIGHUP); log failures."""
        try:
            self.begin(SwapArguments())
        except Exception as error:
            log.error("nothing was swapped: %s", " ".join(str(error).split()))

    def stop(self) -> None:
        """Cancel a swap that is under way: the run ends."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(_LONGEST_S)

    def _decide(self, plan: Plan, processes: Sequence[WorkerProcess]) -> None:
        """Collect what the processes say, and tell all of them the verdict."""
        reason = ""
        for process in processes:
            reason = reason or self._vote_of(process)
        if not reason:
            self._plan = self._pool.plan = plan
        for process in processes:
            process.send("verdict", reason)

    def _vote_of(self, process: WorkerProcess) -> str:
        while not self._stopping.is_set():
            try:
                return process.votes.get(timeout=_POLL_S)
            except Empty:
                if process.is_gone:
                    return process.end_sentence()
        return "the run ends"


class PoolBus:
    """Takes requests from any thread, as `CommandBus`, for lanes of worker processes.

    A command for models is checked in all processes before the first carries it out.

    Parameters
    ----------
    run : str
        Name of the run.
    pool : LanePool
        The processes.
    stop : callable
        Ends the run.
    swapper : PoolSwapper
        Carries out `swap`.
    """

    def __init__(
        self, run: str, pool: LanePool, stop: Callable[[], None], swapper: PoolSwapper
    ) -> None:
        self._run = run
        self._pool = pool
        self._stop = stop
        self._swapper = swapper
        self._lock = Lock()

    def submit(self, request: object) -> Reply:
        """Carry out a command and return the reply, as `CommandBus.submit`."""
        return replied(request, self._lock, self._answer)

    def _answer(self, request: ControlRequest) -> Reply:
        lanes = self._addressed(request.lane)
        if request.command == "ping":
            return {"run": self._run}
        if request.command == "status":
            found = self._status(lanes)
            return {"run": self._run, "lanes": found, "swap": self._swapper.status()}
        if request.command in ("swap", "promote", "drop"):
            return answer_swap(request, self._swapper)
        wanted = request.model_dump()
        if request.command == STOP_COMMAND:
            try:
                return {"applied": self._in_order(self._send(lanes, wanted))}
            finally:
                self._stop()  # a lane that does not answer ends, too
        for worker in self._workers_of(lanes):
            _process(worker).call("check", wanted)
        replies = self._send(lanes, wanted)
        return {"applied": self._in_order(replies), "options": replies[0]["options"]}

    def _addressed(self, name: str | None) -> Sequence[RemoteLane]:
        lanes = self._pool.lanes
        if any(not lane.channels for lane in lanes):
            raise CommandError("the run has not begun yet: ask again")
        if name is None:
            return [lane for lane in lanes if not lane.finished.is_set()] or lanes
        found = [lane for lane in lanes if lane.name == name]
        if not found:
            known = ", ".join(f"'{lane.name}'" for lane in lanes)
            raise CommandError(f"there is no lane '{name[:64]}' (there is: {known})")
        return found

    def _workers_of(self, lanes: Sequence[RemoteLane]) -> list[Worker]:
        return [w for w in self._pool.workers if not set(lanes).isdisjoint(w.lanes)]

    def _send(
        self, lanes: Sequence[RemoteLane], request: Mapping[str, Any]
    ) -> list[Reply]:
        """Let the processes of some lanes carry out a request; join the refusals."""
        replies, refused = [], []
        for worker in self._workers_of(lanes):
            try:
                reply = _process(worker).call("request", dict(request))
            except NeurovocalError as error:
                refused.append(str(error))
                continue
            if reply["ok"]:
                replies.append(reply)
            else:
                refused.append(reply["error"])
        streams = [each["stream"] for r in replies for each in r.get("applied", [])]
        if refused and streams:
            took = ", ".join(f"'{stream}'" for stream in streams)
            refused.append(f"but these streams took it: {took}")
        if refused:
            raise CommandError("; ".join(refused))
        return replies

    def _status(self, lanes: Sequence[RemoteLane]) -> list[Reply]:
        by_name: dict[str, Reply] = {}
        for worker in self._workers_of(lanes):
            request = {"v": 1, "command": "status"}
            for lane in [lane for lane in worker.lanes if lane in lanes]:
                try:
                    reply = _process(worker).call(
                        "request", {**request, "lane": lane.name}
                    )
                    found = reply["lanes"] if reply["ok"] else [_troubled(lane, reply)]
                except NeurovocalError as error:
                    found = [_troubled(lane, {"error": str(error)})]
                for each in found:
                    streams = each.get("streams", [])
                    each["streams"] = [lane.statistics(one) for one in streams]
                    by_name[each["lane"]] = each
        return [by_name[lane.name] for lane in lanes if lane.name in by_name]

    def _in_order(self, replies: Sequence[Reply]) -> list[dict[str, Any]]:
        """Return where a command was applied in the order of the lanes' streams."""
        order = [c.lane.info.stream for lane in self._pool.lanes for c in lane.channels]
        places = {stream: place for place, stream in enumerate(order)}
        applied = [entry for reply in replies for entry in reply["applied"]]
        return sorted(applied, key=lambda e: places.get(e["stream"], len(order)))


def _troubled(lane: RemoteLane, reply: Mapping[str, Any]) -> Reply:
    ended = lane.finished.is_set()
    return {"lane": lane.name, "ended": ended, "error": reply["error"]}


def _process(worker: Worker) -> WorkerProcess:
    assert worker.process is not None, "the run has started"
    return worker.process
