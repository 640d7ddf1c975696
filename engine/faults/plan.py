"""Faults of a configuration: wraps the stages of a plan and starts timed faults."""

import logging
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from neurovocal.engine.config.fault_targets import (
    live_endpoint,
    targets_of,
    tcp_endpoints,
)
from neurovocal.engine.config.faults import (
    Crash,
    DiskFull,
    FaultBase,
    Hang,
    Kill,
    LastingFault,
    NetworkCut,
    SubscriberStall,
    fault_texts,
)
from neurovocal.engine.config.plan import LanePlan, Plan, SinkPlan, StagePlan
from neurovocal.engine.contracts.clock import NS
from neurovocal.engine.contracts.types import Health
from neurovocal.engine.faults.injection import (
    FaultReporter,
    Injection,
    ReportingLane,
    health_at_end,
    health_at_start,
)
from neurovocal.engine.faults.network import StalledSubscribers, TcpProxy, free_port
from neurovocal.engine.faults.sources import SOURCE_FAULTS
from neurovocal.engine.faults.stages import Build, FaultInjector, faulty_stage
from neurovocal.engine.faults.timed import FullDisk, Schedule, TimedAction, kill

log = logging.getLogger("neurovocal")


class PlannedFaults(Injection):
    """The faults of a run: in its stages, in its network, and at their times.

    Parameters
    ----------
    plan : Plan
        A checked configuration with faults.

    Attributes
    ----------
    plan : Plan
        The same plan; its plugins build stages that have the faults.
    """

    def __init__(self, plan: Plan) -> None:
        self._faults = plan.config.shared.faults
        self._clock = plan.context.clock
        self._reporter = FaultReporter()
        self._disk = FullDisk()
        self._proxies: dict[tuple[str, int], TcpProxy] = {}
        self._subscribers: list[StalledSubscribers] = []
        actions = [a for fault in self._faults for a in self._actions(fault, plan)]
        self._schedule = Schedule(actions, self._clock)
        # Faults of each stage, with the lane in which they are reported.
        self._faults_by_stage: dict[int, list[tuple[FaultBase, str | None]]] = (
            defaultdict(list)
        )
        for fault in self._faults:
            for stage, lane in targets_of(fault, plan):
                self._faults_by_stage[id(stage)].append((fault, lane))
        super().__init__(self._faulty(plan))

    def open(self, lanes: Sequence[ReportingLane], /) -> None:
        """Log the faults and listen where the network will be cut.

        Parameters
        ----------
        lanes : sequence of ReportingLane
            Lanes that publish the faults.

        Raises
        ------
        ConfigError
            A sink's endpoint cannot be bound.
        """
        self._reporter.lanes = list(lanes)
        log.warning("this run injects faults: %s", "; ".join(fault_texts(self._faults)))
        for proxy in self._proxies.values():
            proxy.open()

    def start(self) -> None:
        """Count the time of timed faults from now on."""
        self._schedule.start()

    def close(self) -> None:
        """End every fault that still lasts. May be called without `open`."""
        self._schedule.stop()
        self._disk.reset()
        subscribers = [each.close for each in self._subscribers]
        for close in [*subscribers, *(each.close for each in self._proxies.values())]:
            try:
                close()
            except Exception:  # how the run ended matters more
                log.exception("a fault could not be undone")

    # ---- timed faults ----------------------------------------------------------------

    def _actions(self, fault: FaultBase, plan: Plan) -> Iterator[TimedAction]:
        match fault:
            case DiskFull():
                yield from self._lasting(fault, self._disk.start, self._disk.stop)
            case SubscriberStall():
                found = [live_endpoint(s.options) for s, _ in targets_of(fault, plan)]
                keys = fault.keys and str(plan.context.path(fault.keys))
                stalled = StalledSubscribers([each for each in found if each], keys)
                self._subscribers.append(stalled)
                yield from self._lasting(fault, stalled.open, stalled.close)
            case NetworkCut():
                yield from self._cuts(fault, plan)
            case Kill():
                yield self._action(fault, fault.at_s, health_at_start(fault), kill)

    def _cuts(self, fault: NetworkCut, plan: Plan) -> Iterator[TimedAction]:
        proxies = [
            self._proxies.setdefault(address, TcpProxy(*address, free_port()))
            for stage, _ in targets_of(fault, plan)
            for address in tcp_endpoints(stage.options).values()
        ]

        def cut() -> None:
            for proxy in proxies:
                proxy.cut()

        def restore() -> None:
            for proxy in proxies:
                proxy.restore()

        yield from self._lasting(fault, cut, restore)

    def _lasting(
        self, fault: LastingFault, start: Callable[[], None], stop: Callable[[], None]
    ) -> Iterator[TimedAction]:
        yield self._action(fault, fault.at_s, health_at_start(fault), start)
        end_s = fault.at_s + fault.for_s
        yield self._action(fault, end_s, health_at_end(fault), stop)

    def _action(
        self,
        fault: FaultBase,
        at_s: float,
        health: Health,
        function: Callable[[], None],
    ) -> TimedAction:
        def run() -> None:
            self._reporter.report(health, fault.lane)
            function()

        return TimedAction(round(at_s * NS), run)

    # ---- faults of stages ------------------------------------------------------------

    def _faulty(self, plan: Plan) -> Plan:
        return replace(
            plan,
            lanes=[self._lane(lane) for lane in plan.lanes],
            sinks=[self._sink(sink) for sink in plan.sinks],
            gate=None if plan.gate is None else self._stage(plan.gate),
        )

    def _lane(self, lane: LanePlan) -> LanePlan:
        return replace(
            lane,
            source=self._stage(lane.source),
            features=self._stage(lane.features),
            detector=self._stage(lane.detector),
            models=[self._stage(model) for model in lane.models],
            sinks=[self._sink(sink) for sink in lane.sinks],
        )

    def _sink(self, sink: SinkPlan) -> SinkPlan:
        return replace(sink, stage=self._stage(sink.stage))

    def _stage(self, stage: StagePlan) -> StagePlan:
        build = stage.plugin.build
        options = stage.options
        for fault, lane in self._faults_by_stage[id(stage)]:
            if isinstance(fault, NetworkCut):
                options = self._behind_proxies(options)
            elif stage.kind == "source":
                build = _faulty_source(build, fault)
            elif isinstance(fault, Crash | Hang):
                injector = FaultInjector(fault, self._clock, self._reporter, lane)
                build = faulty_stage(build, stage.kind, injector)
        return replace(
            stage, plugin=replace(stage.plugin, build=build), options=options
        )

    def _behind_proxies(self, options: Any) -> Any:
        """Return options of a sink that binds the ports behind the proxies."""
        behind = {
            name: f"tcp://127.0.0.1:{self._proxies[address].target}"
            for name, address in tcp_endpoints(options).items()
            if address in self._proxies
        }
        return options.model_copy(update=behind)


def _faulty_source(build: Build, fault: FaultBase) -> Build:
    wrap = SOURCE_FAULTS[fault.name]
    return lambda options, context: wrap(
        build(options, context), fault, context.clock, options
    )
