"""Assembly: the sources, sinks and lanes of a plan, built and connected, not opened."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from threading import Event as Flag
from typing import TypeAlias

from neurovocal.engine.config.plan import LanePlan, Plan, SinkPlan, selected_kinds
from neurovocal.engine.config.schema import PrivacyConfig
from neurovocal.engine.contracts.clock import Clock
from neurovocal.engine.contracts.plugin import BuildContext
from neurovocal.engine.contracts.stages import (
    RecordedCommand,
    Sink,
    Source,
    is_unrepeatable,
)
from neurovocal.engine.contracts.types import StreamInfo
from neurovocal.engine.lane.builder import build_lane
from neurovocal.engine.lane.lane import Lane
from neurovocal.engine.runtime.control.command_bus import prepare_command
from neurovocal.engine.runtime.workers.audio_release import (
    AudioRelease,
    MakeGate,
    no_gate,
)
from neurovocal.engine.runtime.workers.command_queue import (
    CommandQueue,
    ReplayedCommands,
)
from neurovocal.engine.runtime.workers.lane_worker import LaneWorker
from neurovocal.engine.runtime.workers.lanes.recovery import BuildLane, LaneRecovery
from neurovocal.engine.runtime.workers.lanes.running import RunningLane
from neurovocal.engine.runtime.workers.mailbox import Mailbox
from neurovocal.engine.runtime.workers.privacy import AudioGate, NoAudio
from neurovocal.engine.runtime.workers.publisher import (
    LanePublisher,
    Publisher,
    SequenceNumbers,
)
from neurovocal.engine.runtime.workers.sink_worker import Item, SinkWorker
from neurovocal.engine.runtime.workers.source_reader import SourceReader
from neurovocal.engine.runtime.workers.telemetry import SignalChecks, Telemetry

# Messages of each channel that may wait before a sink.
_EVENTS, _BULK = 1024, 64
_READ_S = 0.1
# Commands and generated sequences wait no longer than this for a silent source.
_SHORT_READ_S = 0.02


MakeLane: TypeAlias = Callable[
    [Plan, LanePlan, Source, Publisher, Sequence[RecordedCommand]], RunningLane
]


@dataclass(frozen=True, slots=True)
class Assembly:
    """Parts of a run, none of them opened.

    Attributes
    ----------
    sources : list of Source
        One for each lane.
    sinks : list of SinkWorker
        Those that all lanes share first.
    lanes : list of RunningLane
        In the order of the plan.
    """

    sources: list[Source]
    sinks: list[SinkWorker]
    lanes: list[RunningLane]


def assemble(
    plan: Plan,
    observers: Sequence[Sink] = (),
    recorded: Sequence[RecordedCommand] = (),
    make_lane: MakeLane | None = None,
) -> Assembly:
    """Build the sources, sinks and lanes of a plan.

    Parameters
    ----------
    plan : Plan
        Checked plugins and options.
    observers : sequence of Sink
        Sinks beside the configured ones.
    recorded : sequence of RecordedCommand
        Commands of a recorded run, to be applied where they were.
    make_lane : callable, optional
        Makes the lanes; by default `lane_worker`, in this process.
    """
    clock = plan.context.clock
    sources: list[Source] = [
        lane.source.build(lane_context(plan, lane)) for lane in plan.lanes
    ]
    live = any(source.live for source in sources)
    unrepeatable = any(map(is_unrepeatable, sources))
    context = replace(plan.context, unrepeatable=unrepeatable)
    shared = [sink_worker(sink, context, live) for sink in plan.sinks]
    shared += [observer_worker(sink, clock, live) for sink in observers]
    sinks: list[SinkWorker] = list(shared)
    lanes: list[RunningLane] = []
    make = make_lane or lane_worker
    numbers = SequenceNumbers()
    for lane, source in zip(plan.lanes, sources, strict=True):
        context = replace(plan.context, unrepeatable=is_unrepeatable(source))
        own = [sink_worker(sink, context, source.live) for sink in lane.sinks]
        sinks += own
        publisher = Publisher([*shared, *own], numbers)
        lanes.append(make(plan, lane, source, publisher, recorded))
    return Assembly(sources, sinks, lanes)


def lane_worker(
    plan: Plan,
    lane: LanePlan,
    source: Source,
    publisher: Publisher,
    recorded: Sequence[RecordedCommand],
) -> LaneWorker:
    """Build the worker of a lane, and all that it works with."""
    clock, name = plan.context.clock, lane.name
    on_error = lane.source.config.on_error or ("restart" if source.live else "fail")
    has_commands = bool(recorded) or plan.control is not None
    commands = (
        ReplayedCommands(recorded, prepare_command) if recorded else CommandQueue()
    )
    events = LanePublisher(
        name, publisher, clock, prepare_command, reports_jumps=source.live
    )
    reader = SourceReader(name, source, clock, on_error, Flag(), events.report)
    recovery = LaneRecovery(
        name,
        lane_builder(plan, plan, lane, publisher),
        events.report,
        clock,
        enabled=lane.rebuilds_lane(source.live),
    )
    return LaneWorker(
        reader,
        commands,
        SignalChecks(lane.signal if source.live else None, events.warn),
        audio_release(plan, lane, publisher, source.live),
        recovery,
        events,
        Telemetry(clock, events, reader, recovery),
        _SHORT_READ_S if has_commands or source.live else _READ_S,
    )


def lane_builder(
    running: Plan, plan: Plan, lane: LanePlan, publisher: Publisher
) -> BuildLane:
    """Return the function that builds the lanes of one source.

    Parameters
    ----------
    running : Plan
        Plan that the run was started with: its clock, run and privacy hold.
    plan : Plan
        Plan of the lanes: `running`, or the one that is swapped in.
    lane : LanePlan
        Lane of `plan`.
    publisher : Publisher
        Knows whether a sink takes frames, or values of the detector.
    """
    context = replace(
        running.context, tile=plan.config.shared.tile, base=plan.context.base
    )
    is_open = _privacy(running) is None
    wants_frames, wants_trace = (
        is_open and publisher.wants(kind) for kind in ("frames", "trace")
    )

    def build(info: StreamInfo, channel: int) -> Lane:
        return build_lane(
            lane,
            info,
            channel,
            context,
            wants_frames=wants_frames,
            wants_trace=wants_trace,
        )

    return build


def lane_context(plan: Plan, lane: LanePlan) -> BuildContext:
    """Return the context in which the source and the gate of a lane are built."""
    return replace(plan.context, stream=lane.name, bundle=lane.bundle)


def audio_release(
    plan: Plan, lane: LanePlan, publisher: Publisher, live: bool
) -> AudioRelease:
    """Build the part that sends a lane's audio to the sinks, with its gates."""
    privacy = _privacy(plan)
    return AudioRelease(
        publisher,
        gates(plan, lane, live),
        all_channels=privacy is not None and privacy.all_channels,
    )


def gates(plan: Plan, lane: LanePlan, live: bool) -> MakeGate:
    """Return the function that makes the privacy gate of each of a lane's streams."""
    privacy = _privacy(plan)
    if privacy is None:
        return no_gate
    if privacy.mode == "labels_only":
        return lambda info: NoAudio(info.sample_rate)
    found = plan.gate
    assert found is not None, "a plan with a gate mode has a gate"
    now_ns = plan.context.clock.monotonic_ns if live else None

    def make(info: StreamInfo) -> AudioGate:
        gate = found.build(replace(lane_context(plan, lane), info=info))
        spans = privacy.before_s, privacy.after_s
        return AudioGate(gate, info.sample_rate, *spans, now_ns)

    return make


def _privacy(plan: Plan) -> PrivacyConfig | None:
    """Return the privacy settings that withhold audio; None where none do."""
    privacy = plan.config.shared.privacy
    return None if privacy is None or privacy.mode == "off" else privacy


def sink_worker(plan: SinkPlan, context: BuildContext, live: bool) -> SinkWorker:
    """Build a sink of the configuration and its queues."""
    asked = plan.config.events
    context = replace(context, events=None if asked is None else tuple(asked))

    def build(*, replaces_failed: bool) -> Sink:
        built: Sink = plan.stage.build(
            replace(context, replaces_failed=replaces_failed)
        )
        return built

    sink = build(replaces_failed=False)
    wants = frozenset(asked) if asked is not None else selected_kinds(sink)
    queue = plan.config.queue
    mailbox: Mailbox[Item] = Mailbox(
        {"events": queue.events or _EVENTS, "bulk": queue.bulk or _BULK},
        queue.when_full or ("drop_oldest" if live else "block"),
        fixed=[name for name in ("events", "bulk") if getattr(queue, name)],
    )
    on_error = plan.config.on_error or ("restart" if live else "fail")
    rebuild = partial(build, replaces_failed=True)
    stage = plan.stage
    resources = stage.plugin.resources(stage.options)
    files = all(name.startswith(("file:", "folder:")) for name in resources)
    return SinkWorker(
        stage.name,
        sink,
        wants,
        mailbox,
        on_error,
        context.clock,
        rebuild,
        replaces_files=bool(resources) and files,
    )


def observer_worker(sink: Sink, clock: Clock, live: bool) -> SinkWorker:
    """Build the queues of a sink beside the configured ones; it never ends the run."""
    mailbox: Mailbox[Item] = Mailbox(
        {"events": _EVENTS, "bulk": _BULK}, "drop_oldest" if live else "block"
    )
    return SinkWorker("display", sink, selected_kinds(sink), mailbox, "skip", clock)
