"""Model swap: another configuration for a run that goes on, in all lanes or in none.

All that can fail comes first: the configuration is checked and the new lanes are built
while the present ones run. Then the new lanes process the same audio for a while, as
shadows; only if none of them fails, all take over.
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
from neurovocal.engine.lane.shadow import ShadowLane, SwapDecision
from neurovocal.engine.runtime.workers.channel import Channel
from neurovocal.engine.runtime.workers.command_queue import (
    PendingCommand,
    check_trigger_commands,
)
from neurovocal.engine.runtime.workers.lane_worker import LaneWorker
from neurovocal.engine.runtime.workers.recovery import BuildLane

log = logging.getLogger("neurovocal")

_POLL_S = 0.05
_INSTALL_S = 2.0
_PATIENCE_S = 5.0
_MOST_LAG_MS = 500.0
# Keys of a lane that can be swapped while it runs.
_CHANGEABLE = {"bundle", "features", "detector", "models"}

_UNDER_WAY = "a swap is under way already: wait for its end, or swap with cancel=true"

LoadPlan = Callable[[str | None], Plan]
# Makes the function that builds the lanes of a worker after another plan.
MakeBuilder = Callable[[LaneWorker, LanePlan, Plan], BuildLane]


class SwapArguments(Options):
    """Arguments of the command `swap`."""

    config: str | None = None
    """Configuration file; by default the one that the run was started with, read
    again."""
    shadow_s: float = Field(default=5.0, ge=0, le=600)
    """Seconds of audio that the new lanes process before they may take over."""
    min_agreement: float = Field(default=0.0, ge=0, le=1)
    """Share of equal labels (segments, where nothing labels) below which the old
    lanes stay."""
    cancel: bool = False
    """Cancel the swap that is under way instead, as long as no lane took over."""


@dataclass(frozen=True, slots=True)
class _Change:
    """New lanes of one worker."""

    worker: LaneWorker
    build: BuildLane
    shadows: Sequence[ShadowLane]  # one for each channel


class Swapper:
    """Swaps the lanes of a run.

    Parameters
    ----------
    plan : Plan
        Plan that the run was started with.
    lanes : sequence of LaneWorker
        Lanes of the run.
    make_builder : callable
        ``make_builder(worker, lane_plan, plan)`` makes the function that builds the
        lanes of a worker.

    Attributes
    ----------
    load : callable or None
        ``load(config)`` reads and checks a configuration, by default the run's own.
    last : dict or None
        State of the newest swap, for `status`.
    """

    def __init__(
        self, plan: Plan, lanes: Sequence[LaneWorker], make_builder: MakeBuilder
    ) -> None:
        self.load: LoadPlan | None = None
        self.last: dict[str, Any] | None = None
        self._plan = plan
        self._lanes = lanes
        self._make_builder = make_builder
        self._stopping = Flag()
        self._thread: Thread | None = None
        self._decision = SwapDecision()
        self._beginning = Lock()

    def begin(self, arguments: SwapArguments) -> dict[str, Any]:
        """Check the configuration, build the new lanes and install them as shadows.

        A thread of its own promotes them later, or removes them.

        Raises
        ------
        NeurovocalError
            Nothing has changed; one sentence says why.
        """
        if arguments.cancel:
            return self._cancel()
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
        self._decision = SwapDecision()
        changes = [
            self._prepare(worker, lane, plan, arguments.shadow_s)
            for worker, lane in zip(self._lanes, plan.lanes, strict=True)
            if worker in going_on
        ]
        self._install(changes)
        self.last = {"state": "shadow", "config": plan.name}
        self._thread = Thread(
            target=self._finish,
            args=(plan, changes, arguments),
            name="nv-swap",
            daemon=True,
        )
        self._thread.start()
        return {"shadow_s": arguments.shadow_s}

    def _cancel(self) -> dict[str, Any]:
        going_on = self._thread is not None and self._thread.is_alive()
        if not (going_on and self._decision.cancel("it was called off")):
            raise CommandError("no swap is under way that could be called off")
        return {"cancelled": True}

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
            self._thread.join(_INSTALL_S)

    def _prepare(
        self, worker: LaneWorker, lane: LanePlan, plan: Plan, shadow_s: float
    ) -> _Change:
        build = self._make_builder(worker, lane, plan)
        shadows = []
        for index, channel in enumerate(worker.channels):
            old, new = channel.lane, build(worker.recovery.info, index)
            if old.info.sample_rate != new.info.sample_rate:
                raise CommandError(
                    f"lane '{worker.name}' runs at {old.info.sample_rate} Hz, the new "
                    f"one would at {new.info.sample_rate}: that needs a restart"
                )
            new.info = old.info
            # The options that triggers set must exist in the new lane's models.
            check_trigger_commands(
                [Channel(new, channel.timebase)], worker.publisher.prepare
            )
            shadows.append(
                ShadowLane(
                    *(worker.name, old, new, self._decision),
                    *(shadow_s, _PATIENCE_S),
                )
            )
        return _Change(worker, build, shadows)

    def _install(self, changes: Sequence[_Change]) -> None:
        """Give all channels their shadows, or cancel the swap."""
        pending = []
        for change in changes:
            command = PendingCommand(None, [_installing(s) for s in change.shadows])
            change.worker.commands.put(command)
            pending.append(command)
        try:
            for command in pending:
                command.wait(_INSTALL_S)
        except CommandError:
            self._decision.cancel("another lane did not take it")
            raise

    def _finish(
        self, plan: Plan, changes: Sequence[_Change], arguments: SwapArguments
    ) -> None:
        """Promote the new lanes once all are ready, or cancel the swap."""
        shadows = [s for change in changes for s in change.shadows]
        reason = self._await(changes, lambda s: s.ready.is_set())
        reason = reason or _too_different(shadows, arguments.min_agreement)
        reason = reason or _too_slow(changes)
        report = {"config": plan.name}
        if reason or not self._decision.promote(report):
            self._decision.cancel(reason)
            reason = self._decision.failure
            self.last = {"state": "rolled back", "reason": reason}
            self._report(changes, "failed", f"rolled back, nothing changed: {reason}")
            return
        # Promoted: a lane that ends before its next boundary does not need one.
        for change in changes:
            change.worker.recovery.build = change.build
        self._await(changes, lambda s: s.done.is_set())
        self._plan = plan
        self.last = {"state": "swapped", **report}
        self._report(changes, "healthy", f"swapped to {plan.name}")

    def _await(
        self, changes: Sequence[_Change], reached: Callable[[ShadowLane], bool]
    ) -> str:
        """Wait for all lanes; return why they will not get there, or nothing."""
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
                waiting += sum(not reached(s) for s in change.shadows)
            if not waiting:
                return ""
            if self._stopping.wait(_POLL_S):
                return "the run ends"

    def _report(self, changes: Sequence[_Change], state: Any, detail: str) -> None:
        log.log(logging.WARNING if state == "failed" else logging.INFO, "%s", detail)
        for change in changes:
            change.worker.note("swap", state, detail)


def _installing(shadow: ShadowLane) -> tuple[Lane, Callable[[Channel], None]]:
    """Return the present lane and the action that gives its channel the shadow."""

    def install(channel: Channel) -> None:
        channel.shadow = shadow

    return shadow.present, install


def _ended(change: _Change) -> str:
    """Return why no boundary will come for a lane, or nothing."""
    worker = change.worker
    if worker.finished.is_set():
        return f"lane '{worker.name}' has ended"
    present = {channel.shadow for channel in worker.channels}
    if present.isdisjoint(change.shadows):
        return f"lane '{worker.name}': a stream of another kind has begun"
    return ""


def _too_different(shadows: Sequence[ShadowLane], least: float) -> str:
    for shadow in shadows:
        found: Mapping[str, Any] = shadow.agreement()
        equal = found["labels"]["equal"]
        what = "labels" if equal is not None else "segments"
        equal = found["segments"]["equal"] if equal is None else equal
        if equal is not None and equal < least:
            return f"only {equal:.0%} of {what} agree, asked for were {least:.0%}"
    return ""


def _too_slow(changes: Sequence[_Change]) -> str:
    for change in changes:
        lag_ms = max(channel.lag_ms for channel in change.worker.channels)
        if change.worker.reader.source.live and lag_ms > _MOST_LAG_MS:
            return f"with both, lane '{change.worker.name}' is {lag_ms:.0f} ms behind"
    return ""


def _refuse_unchangeable(old: Plan, new: Plan) -> None:
    """Refuse a plan with other sources or sinks: those that are open stay open."""
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
