"""Model swap: another configuration for a run that goes on, in all lanes or in none.

All that can fail comes first: the configuration is checked and the new lanes are built
while the present ones run. Then the new lanes process the same audio for a while, as
shadows; only if none of them fails, all take over.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from threading import Event as Flag
from threading import Lock, Thread
from typing import Any

from pydantic import Field, model_validator

from neurovocal.engine.config.plan import LanePlan, Plan
from neurovocal.engine.config.schema import LaneConfig
from neurovocal.engine.contracts.errors import CommandError
from neurovocal.engine.contracts.options import Options
from neurovocal.engine.contracts.stages import RecordedCommand
from neurovocal.engine.lane.lane import Lane
from neurovocal.engine.lane.shadow import (
    RecordedTakeover,
    ShadowLane,
    SwapDecision,
)
from neurovocal.engine.runtime.shadow.thread import ShadowThread
from neurovocal.engine.runtime.workers.channel import Channel
from neurovocal.engine.runtime.workers.command_queue import (
    PendingCommand,
    check_trigger_commands,
)
from neurovocal.engine.runtime.workers.lane_worker import LaneWorker
from neurovocal.engine.runtime.workers.lanes.recovery import BuildLane

log = logging.getLogger("neurovocal")

_POLL_S = 0.05
_INSTALL_S = 2.0
_PATIENCE_S = 5.0
_MOST_LAG_MS = 500.0
# Keys of a lane that can be swapped while it runs.
_CHANGEABLE = {"bundle", "features", "detector", "models"}

# A shadow may be so far behind when it is promoted, and has so long to catch up.
_MOST_BEHIND_S = 0.5

_UNDER_WAY = "a swap is under way already: wait for its end, or swap with cancel=true"
_STAYS = "a shadow stays beside the run: promote or drop it first"
_DROPPED = "it was asked for"
_NO_SHADOW = (
    "no shadow stays beside the run: start one with "
    "`neurovocal control swap --shadow CONFIG`"
)

Act = Callable[[ShadowLane | ShadowThread], tuple[Lane, Callable[[Channel], None]]]
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
    shadow: bool = False
    """The new lanes stay beside the old ones, and are compared with them, until they
    are promoted or dropped; `shadow_s` and `min_agreement` have no meaning then."""
    cancel: bool = False
    """Cancel the swap that is under way instead, as long as no lane took over."""

    @model_validator(mode="after")
    def _check_shadow(self) -> "SwapArguments":
        timed = {"shadow_s", "min_agreement"} & self.model_fields_set
        if self.shadow and timed:
            raise ValueError(
                f"leave out '{min(timed)}': a shadow stays until 'promote' or 'drop'"
            )
        return self


@dataclass(frozen=True, slots=True)
class _Change:
    """New lanes of one worker."""

    worker: LaneWorker
    build: BuildLane
    shadows: Sequence[ShadowLane]  # one for each channel
    threads: list[ShadowThread] = field(default_factory=list)  # of those that stay


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
    load_recorded : callable or None
        ``load_recorded(text)`` does so with a configuration of a recorded run.
    agree : callable
        ``agree(reason)`` is called when the new lanes may take over, or why they may
        not; returns why those of other processes may not, or nothing.
    """

    def __init__(
        self, plan: Plan, lanes: Sequence[LaneWorker], make_builder: MakeBuilder
    ) -> None:
        self.load: LoadPlan | None = None
        self.load_recorded: Callable[[str], Plan] | None = None
        self.agree: Callable[[str], str] = lambda reason: reason
        self.last: dict[str, Any] | None = None
        self._plan = plan
        self._staying: tuple[Plan, Sequence[_Change]] | None = None
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
            raise CommandError(_UNDER_WAY if self._staying is None else _STAYS)
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
        refuse_unchangeable(self._plan, plan)
        self._decision = SwapDecision()
        stays = plan.name if arguments.shadow else ""
        changes = [
            self._prepare(worker, lane, plan, arguments.shadow_s, stays)
            for worker, lane in zip(self._lanes, plan.lanes, strict=True)
            if worker in going_on
        ]
        self._install(changes, apart=arguments.shadow)
        self.last = {"state": "shadow", "config": plan.name}
        self._staying = (plan, changes) if arguments.shadow else None
        target = self._keep if arguments.shadow else self._finish
        self._thread = Thread(
            target=target,
            args=(plan, changes, arguments),
            name="nv-swap",
            daemon=True,
        )
        self._thread.start()
        if arguments.shadow:
            return {"shadow": plan.name}
        return {"shadow_s": arguments.shadow_s}

    def promote(self) -> dict[str, Any]:
        """Let the shadow that stays take over, at the next silence of each lane.

        Raises
        ------
        CommandError
            None stays, or it is too far behind; the present lanes go on.
        """
        plan, changes = self._shadow()
        threads = [thread for change in changes for thread in change.threads]
        behind_s = max((thread.lag_s for thread in threads), default=0.0)
        if behind_s > _MOST_BEHIND_S:
            raise CommandError(
                f"the shadow is {behind_s:.1f} s behind the present lanes: try again "
                "when it has caught up, or drop it"
            )
        agreement = self._figures(changes)
        self._send(changes, _rejoining)
        if not self._decision.promote(_report_of(plan)):
            raise CommandError(f"the shadow was dropped: {self._decision.failure}")
        return {"promoted": plan.name, "shadows": agreement}

    def drop(self) -> dict[str, Any]:
        """Drop the shadow that stays; the present lanes go on.

        Raises
        ------
        CommandError
            None stays.
        """
        plan, changes = self._shadow()
        agreement = self._figures(changes)
        if not self._decision.cancel(_DROPPED):
            raise CommandError("the shadow takes over already")
        return {"dropped": plan.name, "shadows": agreement}

    def status(self) -> dict[str, Any] | None:
        """Return the state of the newest swap; of a shadow that stays, its figures."""
        staying, last = self._staying, self.last
        if staying is None or last is None or last["state"] != "shadow":
            return last
        return {**last, "stays": True, "shadows": self._figures(staying[1])}

    def recall(
        self, worker: LaneWorker, channel: Channel, recorded: RecordedCommand
    ) -> ShadowLane:
        """Return the shadow that took over in a recorded run, to do so again.

        Raises
        ------
        NeurovocalError
            Its configuration cannot be used any more.
        """
        assert self.load_recorded is not None
        report = dict(recorded.command.arguments)
        plan = self.load_recorded(str(report.get("configuration", "")))
        (lane,) = (lane for lane in plan.lanes if lane.name == worker.name)
        build = self._make_builder(worker, lane, plan)
        new = build(worker.recovery.info, channel.index)
        new.info = channel.lane.info
        decision = SwapDecision()
        decision.promote(report)
        # Streams of another kind that come later get the new lanes, too.
        worker.recovery.build = build
        return ShadowLane(
            *(worker.name, channel.lane, new, decision, 0.0, _PATIENCE_S),
            recorded=RecordedTakeover(
                int(report.get("since") or 0),
                recorded.sample,
                bool(report.get("at_end", False)),
            ),
        )

    def _shadow(self) -> tuple[Plan, Sequence[_Change]]:
        is_alive = self._thread is not None and self._thread.is_alive()
        if self._staying is None or not is_alive or self._decision.report is not None:
            raise CommandError(_NO_SHADOW)
        return self._staying

    @staticmethod
    def _figures(changes: Sequence[_Change]) -> list[dict[str, Any]]:
        """Return agreement, confusions and load of the shadow of each stream."""
        return [
            {
                "lane": change.worker.name,
                "stream": thread.shadow.lane.info.stream,
                **thread.shadow.agreement(),
                "lag_s": round(thread.lag_s, 2),
            }
            for change in changes
            for thread in change.threads
        ]

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
        self,
        worker: LaneWorker,
        lane: LanePlan,
        plan: Plan,
        shadow_s: float,
        stays: str,
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
                    stays=stays,
                )
            )
        return _Change(worker, build, shadows)

    def _install(self, changes: Sequence[_Change], *, apart: bool) -> None:
        """Give all channels their shadows, or cancel the swap."""
        for change in changes if apart else ():
            for shadow, channel in zip(
                change.shadows, change.worker.channels, strict=False
            ):
                thread = self._thread_of(shadow, change.worker)
                change.threads.append(thread)
                shadow.lane.info = channel.lane.info
        try:
            self._send(changes, _installing)
        except CommandError:
            _stop_threads(changes)
            raise

    def _thread_of(self, shadow: ShadowLane, worker: LaneWorker) -> ShadowThread:
        decision, publisher = self._decision, worker.publisher

        def cancel(reason: str) -> bool:
            return decision.cancel(f"lane '{worker.name}': {reason}")

        return ShadowThread(
            shadow,
            cancel,
            publisher.report_comparison,
            can_wait=not worker.reader.source.live,
        )

    def _send(self, changes: Sequence[_Change], act: Act) -> None:
        """Let the threads of all lanes act on their channels, or cancel the swap."""
        pending = []
        for change in changes:
            shadows = change.threads or change.shadows
            command = PendingCommand(None, [act(one) for one in shadows])
            change.worker.commands.put(command)
            pending.append(command)
        try:
            for command in pending:
                command.wait(_INSTALL_S)
        except CommandError as error:
            self._decision.cancel(f"a lane did not take it: {error}")
            raise

    def _keep(
        self, plan: Plan, changes: Sequence[_Change], arguments: SwapArguments
    ) -> None:
        """Wait until the shadow is promoted, dropped or fails, and end it."""
        self._report(changes, "healthy", f"{plan.name} runs as a shadow")
        reason = ""
        while not reason and self._decision.report is None:
            reason = self._decision.failure or next(
                filter(None, map(_ended, changes)), ""
            )
            if not reason and self._stopping.wait(_POLL_S):
                reason = "the run ends"
        if reason and self._decision.cancel(reason):
            figures = self._figures(changes)
            _stop_threads(changes)
            reason = self._decision.failure
            self.last = {
                "state": "dropped",
                "config": plan.name,
                "reason": reason,
                "shadows": figures,
            }
            state = "healthy" if reason == _DROPPED else "failed"
            self._report(changes, state, f"the shadow {plan.name} is dropped: {reason}")
            return
        self._take_over(plan, changes)

    def _finish(
        self, plan: Plan, changes: Sequence[_Change], arguments: SwapArguments
    ) -> None:
        """Promote the new lanes once all are ready, or cancel the swap."""
        shadows = [s for change in changes for s in change.shadows]
        reason = self._await(changes, lambda s: s.ready.is_set())
        reason = reason or _too_different(shadows, arguments.min_agreement)
        reason = self.agree(reason or _too_slow(changes))
        if reason or not self._decision.promote(_report_of(plan)):
            self._decision.cancel(reason)
            reason = self._decision.failure
            self.last = {"state": "rolled back", "reason": reason}
            self._report(changes, "failed", f"rolled back, nothing changed: {reason}")
            return
        self._take_over(plan, changes)

    def _take_over(self, plan: Plan, changes: Sequence[_Change]) -> None:
        """Wait until all lanes have switched to the promoted ones."""
        # Promoted: a lane that ends before its next boundary does not need one.
        for change in changes:
            change.worker.recovery.build = change.build
        self._await(changes, lambda s: s.done.is_set())
        self._plan = plan
        self._staying = None
        self.last = {"state": "swapped", "config": plan.name}
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


def _installing(
    shadow: ShadowLane | ShadowThread,
) -> tuple[Lane, Callable[[Channel], None]]:
    """Return the present lane and the action that gives its channel the shadow."""

    def install(channel: Channel) -> None:
        channel.shadow = shadow

    return _lane_of(shadow).present, install


def _rejoining(
    thread: ShadowLane | ShadowThread,
) -> tuple[Lane, Callable[[Channel], None]]:
    """Return the present lane and the action that takes its shadow into its thread."""
    assert isinstance(thread, ShadowThread)

    def rejoin(channel: Channel) -> None:
        shadow = thread.give_up(_MOST_BEHIND_S)
        if shadow is None:
            raise CommandError("the shadow does not keep up: it is dropped")
        channel.shadow = shadow

    return thread.shadow.present, rejoin


def _lane_of(shadow: ShadowLane | ShadowThread) -> ShadowLane:
    return shadow.shadow if isinstance(shadow, ShadowThread) else shadow


def _stop_threads(changes: Sequence[_Change]) -> None:
    for change in changes:
        for thread in change.threads:
            thread.stop()


def _report_of(plan: Plan) -> dict[str, Any]:
    """Return what the `Control` event of a swap says of the configuration."""
    return {"config": plan.name, "configuration": plan.context.config_text}


def _ended(change: _Change) -> str:
    """Return why no boundary will come for a lane, or nothing."""
    worker = change.worker
    if worker.finished.is_set():
        return f"lane '{worker.name}' has ended"
    present = {_lane_of(c.shadow) for c in worker.channels if c.shadow is not None}
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


def refuse_unchangeable(old: Plan, new: Plan) -> None:
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
