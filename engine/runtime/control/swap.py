"""Another configuration for a run that goes on: all of it, or nothing.

Everything that can fail comes first: the configuration is checked and the new lanes
are built while the old ones work on. Then the new ones hear the same audio for a
while, in the shadow; only if all of them stand that, all take over.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from threading import Event as Flag
from threading import Lock, Thread
from typing import Any

from pydantic import Field

from neurovocal.engine.config.plan import LanePlan, Plan
from neurovocal.engine.config.schema import LaneConfig
from neurovocal.engine.contracts.errors import CommandError
from neurovocal.engine.contracts.options import Options
from neurovocal.engine.lane.lane import Lane
from neurovocal.engine.lane.shadow import Decision, ShadowLane
from neurovocal.engine.runtime.workers.channel import Channel
from neurovocal.engine.runtime.workers.command_queue import PendingCommand, rehearse
from neurovocal.engine.runtime.workers.lane_worker import BuildLane, LaneWorker

log = logging.getLogger("neurovocal")

_LOOK_S = 0.05
_TAKE_S = 2.0
_PATIENCE_S = 5.0
_MOST_LAG_MS = 500.0
# What a running lane can be given anew.
_CHANGEABLE = {"bundle", "features", "detector", "models"}

_UNDER_WAY = "a swap is under way already: wait for its end, or swap with cancel=true"

Load = Callable[[str | None], Plan]
BuilderOf = Callable[[LanePlan, Plan], BuildLane]


class SwapArguments(Options):
    """Arguments of the command `swap`."""

    config: str | None = None
    """Configuration file; by default the one that the run was started with, read
    again."""
    shadow_s: float = Field(default=5.0, ge=0, le=600)
    """Seconds of audio that the new lanes hear before they may take over."""
    min_agreement: float = Field(default=0.0, ge=0, le=1)
    """Share of equal labels (segments, where nothing labels) below which the old
    lanes stay."""
    cancel: bool = False
    """Call off the swap that is under way instead, as long as nothing took over."""


@dataclass(frozen=True, slots=True)
class _Change:
    worker: LaneWorker
    build: BuildLane
    successions: Sequence[ShadowLane]


class Swapper:
    """Swaps the lanes of a run.

    Parameters
    ----------
    plan : Plan
        What the run was started with.
    lanes : sequence of LaneWorker
        Its lanes.
    builder : callable
        ``builder(lane_plan, plan)`` makes the function that builds lanes.
    """

    def __init__(
        self, plan: Plan, lanes: Sequence[LaneWorker], builder: BuilderOf
    ) -> None:
        self.load: Load | None = None
        self.last: dict[str, Any] | None = None  # the newest swap, for `status`
        self._plan = plan
        self._lanes = lanes
        self._builder = builder
        self._stopping = Flag()
        self._thread: Thread | None = None
        self._decision = Decision()
        self._beginning = Lock()

    def begin(self, arguments: SwapArguments) -> dict[str, Any]:
        """Check, build and start the shadow; the rest happens by itself.

        Raises
        ------
        NeurovocalError
            Nothing has changed: in a sentence, why.
        """
        if arguments.cancel:
            return self._call_off()
        if not self._beginning.acquire(blocking=False):
            raise CommandError(_UNDER_WAY)
        try:
            return self._begin(arguments)
        finally:
            self._beginning.release()

    def _begin(self, arguments: SwapArguments) -> dict[str, Any]:
        if self._thread is not None and self._thread.is_alive():
            raise CommandError(_UNDER_WAY)
        if self.load is None:
            raise CommandError("this run has no configuration file to read again")
        going_on = [worker for worker in self._lanes if not worker.finished.is_set()]
        if not going_on:
            raise CommandError("all lanes have ended")
        for worker in going_on:
            if not worker.channels:
                raise CommandError(
                    f"lane '{worker.name}' has no stream yet: try again once it hears "
                    "something"
                )
        plan = self.load(arguments.config)
        _refuse_unchangeable(self._plan, plan)
        self._decision = Decision()
        changes = [
            self._prepare(worker, lane, plan, arguments.shadow_s)
            for worker, lane in zip(self._lanes, plan.lanes, strict=True)
            if worker in going_on
        ]
        self._install(changes)
        self.last = {"state": "shadow", "config": plan.name}
        self._thread = Thread(
            target=self._see_through,
            args=(plan, changes, arguments),
            name="nv-swap",
            daemon=True,
        )
        self._thread.start()
        return {"shadow_s": arguments.shadow_s}

    def _call_off(self) -> dict[str, Any]:
        going_on = self._thread is not None and self._thread.is_alive()
        if not (going_on and self._decision.cancel("it was called off")):
            raise CommandError("no swap is under way that could be called off")
        return {"cancelled": True}

    def hang_up(self) -> None:
        """Read the configuration again (SIGHUP); what goes wrong is logged."""
        try:
            self.begin(SwapArguments())
        except Exception as error:
            log.error("nothing was swapped: %s", " ".join(str(error).split()))

    def stop(self) -> None:
        """Give up a swap that is under way; the run ends."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(_TAKE_S)

    def _prepare(
        self, worker: LaneWorker, lane: LanePlan, plan: Plan, shadow_s: float
    ) -> _Change:
        build = self._builder(lane, plan)

        successions = []
        for index, channel in enumerate(worker.channels):
            old, new = channel.lane, build(worker.info, index)
            if old.info.sample_rate != new.info.sample_rate:
                raise CommandError(
                    f"lane '{worker.name}' runs at {old.info.sample_rate} Hz, the new "
                    f"one would at {new.info.sample_rate}: that needs a restart"
                )
            new.info = old.info
            # What triggers are to set must be there in the new lane's models.
            rehearse([Channel(new, channel.timebase)], worker.recall)
            successions.append(
                ShadowLane(
                    *(worker.name, old, new, self._decision),
                    *(shadow_s, _PATIENCE_S),
                )
            )
        return _Change(worker, build, successions)

    def _install(self, changes: Sequence[_Change]) -> None:
        """Put the pairs in the old lanes' places, or in none."""
        orders = []
        for change in changes:
            order = PendingCommand(None, [_installing(s) for s in change.successions])
            change.worker.inbox.put(order)
            orders.append(order)
        try:
            for order in orders:
                order.wait(_TAKE_S)
        except CommandError:
            self._decision.cancel("another lane did not take it")
            raise

    def _see_through(
        self, plan: Plan, changes: Sequence[_Change], arguments: SwapArguments
    ) -> None:
        successions = [s for change in changes for s in change.successions]
        reason = self._await(changes, lambda s: s.ready.is_set())
        reason = reason or _too_different(successions, arguments.min_agreement)
        reason = reason or _too_slow(changes)
        report = {"config": plan.name}
        if reason or not self._decision.promote(report):
            self._decision.cancel(reason)
            reason = self._decision.failure
            self.last = {"state": "rolled back", "reason": reason}
            self._tell(changes, "failed", f"rolled back, nothing changed: {reason}")
            return
        # From here on it holds: who ends before its next boundary needs none.
        for change in changes:
            change.worker.build = change.build
        self._await(changes, lambda s: s.done.is_set())
        self._plan = plan
        self.last = {"state": "swapped", **report}
        self._tell(changes, "healthy", f"swapped to {plan.name}")

    def _await(
        self, changes: Sequence[_Change], reached: Callable[[ShadowLane], bool]
    ) -> str:
        """Wait for all lanes; why it will not happen, or nothing."""
        while True:
            waiting = 0
            for change in changes:
                trouble = _ended(change)
                if self._decision.report is None:
                    trouble = self._decision.failure or trouble
                    if trouble:
                        return trouble
                elif trouble:
                    continue
                waiting += sum(not reached(s) for s in change.successions)
            if not waiting:
                return ""
            if self._stopping.wait(_LOOK_S):
                return "the run ends"

    def _tell(self, changes: Sequence[_Change], state: Any, detail: str) -> None:
        log.log(logging.WARNING if state == "failed" else logging.INFO, "%s", detail)
        for change in changes:
            change.worker.note("swap", state, detail)


def _installing(succession: ShadowLane) -> tuple[Lane, Callable[[Any], None]]:
    def install(channel: Any) -> None:
        channel.lane = succession

    return succession.predecessor, install


def _ended(change: _Change) -> str:
    """Why a lane does not come to a boundary any more, or nothing."""
    worker = change.worker
    if worker.finished.is_set():
        return f"lane '{worker.name}' has ended"
    present = {channel.lane for channel in worker.channels}
    if present.isdisjoint(change.successions):
        return f"lane '{worker.name}': a stream of another kind has begun"
    return ""


def _too_different(successions: Sequence[ShadowLane], least: float) -> str:
    for succession in successions:
        found: Mapping[str, Any] = succession.agreement()
        equal = found["labels"]["equal"]
        what = "labels" if equal is not None else "segments"
        equal = found["segments"]["equal"] if equal is None else equal
        if equal is not None and equal < least:
            return f"only {equal:.0%} of {what} agree, asked for were {least:.0%}"
    return ""


def _too_slow(changes: Sequence[_Change]) -> str:
    for change in changes:
        lag_ms = max(channel.lag_ms for channel in change.worker.channels)
        if change.worker.source.live and lag_ms > _MOST_LAG_MS:
            return f"with both, lane '{change.worker.name}' is {lag_ms:.0f} ms behind"
    return ""


def _refuse_unchangeable(old: Plan, new: Plan) -> None:
    """What is open stays open: a source or a sink is not swapped."""
    before = old.config.shared.model_dump(exclude={"tile", *_LANE_KEYS})
    after = new.config.shared.model_dump(exclude={"tile", *_LANE_KEYS})
    changed = [key for key in before if before[key] != after.get(key)]
    if old.config.sinks != new.config.sinks:
        changed.append("sinks")
    if [lane.name for lane in old.lanes] != [lane.name for lane in new.lanes]:
        changed.append("lanes")
    else:
        for one, other in zip(old.config.lanes, new.config.lanes, strict=True):
            a, b = one.model_dump(), other.model_dump()
            kept = set(LaneConfig.model_fields) - _CHANGEABLE
            changed += [key for key in sorted(kept) if a[key] != b[key]]
    if changed:
        keys = ", ".join(f"'{key}'" for key in dict.fromkeys(changed))
        raise CommandError(
            f"{keys} cannot be swapped while it runs: restart for that, or change only "
            "bundle, features, detector, models and tile"
        )


_LANE_KEYS = {"name", "source", "sinks", "lanes", *_CHANGEABLE}
