"""From `faults:` to a run that meets them."""

import logging
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from neurovocal.engine.config.fault_targets import live_endpoint, targets, tcp_endpoints
from neurovocal.engine.config.faults import (
    AnyFault,
    Crash,
    DiskFull,
    Hang,
    Kill,
    LastingFault,
    NetworkCut,
    SubscriberStall,
    listed,
)
from neurovocal.engine.config.plan import LanePlan, Plan, SinkPlan, StagePlan
from neurovocal.engine.contracts.clock import NS
from neurovocal.engine.contracts.types import Health
from neurovocal.engine.faults.injection import FaultEvent, FaultReporter, begins, ends
from neurovocal.engine.faults.network import Proxy, StalledSubscribers, free_port
from neurovocal.engine.faults.source_rates import DriftingSource, WrongRateSource
from neurovocal.engine.faults.sources import (
    ClippedSource,
    CrashingSource,
    DroppingSource,
    FaultySource,
    HangingSource,
    JitterySource,
    StalledSource,
    UnpluggedSource,
)
from neurovocal.engine.faults.stages import Build, Charge, faulty_sink, faulty_stage
from neurovocal.engine.faults.timed import Act, FullDisk, Schedule, kill

log = logging.getLogger("neurovocal")

_SOURCES: dict[str, Callable[..., FaultySource[Any]]] = {
    "drop": DroppingSource,
    "jitter": JitterySource,
    "stall": StalledSource,
    "unplug": UnpluggedSource,
    "clip": ClippedSource,
    "drift": DriftingSource,
    "wrong_rate": WrongRateSource,
    "crash": CrashingSource,
    "hang": HangingSource,
}


class PlannedFaults:
    """The faults of a run: in its plan, in its network, and at their time.

    Parameters
    ----------
    plan : Plan
        Checked, with faults.

    Attributes
    ----------
    plan : Plan
        The same, but what the stages' plugins build is spoilt.
    """

    def __init__(self, plan: Plan) -> None:
        self._faults = plan.config.shared.faults
        self._clock = plan.context.clock
        self._herald = FaultReporter()
        self._disk = FullDisk()
        self._proxies: dict[tuple[str, int], Proxy] = {}
        self._readers: list[StalledSubscribers] = []
        acts = [act for fault in self._faults for act in self._acts(fault, plan)]
        self._schedule = Schedule(acts, self._clock)
        struck: dict[int, list[tuple[AnyFault, str | None]]] = defaultdict(list)
        for fault in self._faults:
            for stage, lane in targets(fault, plan):
                struck[id(stage)].append((fault, lane))
        self._struck = struck
        self.plan = self._spoilt(plan)

    def open(self, lanes: Sequence[FaultEvent], /) -> None:
        """Say what is to come, and stand where the network will break.

        Parameters
        ----------
        lanes : sequence of LaneWorker
            Who tells what strikes.

        Raises
        ------
        ConfigError
            A sink's endpoint cannot be bound.
        """
        self._herald.lanes = list(lanes)
        log.warning("this run injects faults: %s", "; ".join(listed(self._faults)))
        for proxy in self._proxies.values():
            proxy.open()

    def start(self) -> None:
        """The run has begun: the clock's faults count from now on."""
        self._schedule.start()

    def close(self) -> None:
        """Undo whatever lasts. May be called without `open`."""
        self._schedule.stop()
        self._disk.clear()
        readers = [each.end for each in self._readers]
        for undo in [*readers, *(proxy.close for proxy in self._proxies.values())]:
            try:
                undo()
            except Exception:  # how the run ended matters more
                log.exception("a fault could not be undone")

    # ---- what comes by the clock -----------------------------------------------------

    def _acts(self, fault: AnyFault, plan: Plan) -> Iterator[Act]:
        match fault:
            case DiskFull():
                yield from self._lasting(fault, self._disk.begin, self._disk.end)
            case SubscriberStall():
                found = [live_endpoint(s.options) for s, _ in targets(fault, plan)]
                keys = fault.keys and str(plan.context.path(fault.keys))
                readers = StalledSubscribers([each for each in found if each], keys)
                self._readers.append(readers)
                yield from self._lasting(fault, readers.begin, readers.end)
            case NetworkCut():
                yield from self._cuts(fault, plan)
            case Kill():
                yield self._act(fault, fault.at_s, begins(fault), kill)

    def _cuts(self, fault: NetworkCut, plan: Plan) -> Iterator[Act]:
        proxies = []
        for stage, _ in targets(fault, plan):
            for where in tcp_endpoints(stage.options).values():
                if where not in self._proxies:
                    self._proxies[where] = Proxy(*where, free_port())
                proxies.append(self._proxies[where])

        def cut() -> None:
            for proxy in proxies:
                proxy.cut()

        def mend() -> None:
            for proxy in proxies:
                proxy.mend()

        yield from self._lasting(fault, cut, mend)

    def _lasting(
        self, fault: LastingFault, begin: Callable[[], None], end: Callable[[], None]
    ) -> Iterator[Act]:
        yield self._act(fault, fault.at_s, begins(fault), begin)
        yield self._act(fault, fault.at_s + fault.for_s, ends(fault), end)

    def _act(
        self, fault: AnyFault, at_s: float, health: Health, do: Callable[[], None]
    ) -> Act:
        def act() -> None:
            self._herald.tell(health, fault.lane)
            do()

        return Act(round(at_s * NS), act)

    # ---- what is built spoilt --------------------------------------------------------

    def _spoilt(self, plan: Plan) -> Plan:
        gate = None if plan.gate is None else self._stage(plan.gate)
        return replace(
            plan,
            lanes=[self._lane(lane) for lane in plan.lanes],
            sinks=[self._sink(sink) for sink in plan.sinks],
            gate=gate,
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
        for fault, lane in self._struck[id(stage)]:
            if isinstance(fault, NetworkCut):
                options = self._moved(options)
            elif stage.kind == "source":
                build = self._source(build, fault)
            elif isinstance(fault, Crash | Hang):
                charge = Charge(fault, self._clock, self._herald, lane)
                spoil = faulty_sink if stage.kind == "sink" else faulty_stage
                build = spoil(build, charge)
        return replace(
            stage, plugin=replace(stage.plugin, build=build), options=options
        )

    def _source(self, build: Build, fault: AnyFault) -> Build:
        make = _SOURCES[fault.name]
        return lambda options, context: make(
            build(options, context), fault, context.clock, options
        )

    def _moved(self, options: Any) -> Any:
        """Options of a sink in whose place a proxy stands."""
        proxies = {
            name: self._proxies[where]
            for name, where in tcp_endpoints(options).items()
            if where in self._proxies
        }
        behind = {n: f"tcp://127.0.0.1:{p.target}" for n, p in proxies.items()}
        return options.model_copy(update=behind)
