"""From the parts of a plan to what works on them: sinks behind queues, gates."""

from dataclasses import replace
from functools import partial

from neurovocal.engine.config.plan import LanePlan, Plan, SinkPlan, selected_kinds
from neurovocal.engine.config.schema import PrivacyConfig
from neurovocal.engine.contracts.clock import Clock
from neurovocal.engine.contracts.plugin import BuildContext
from neurovocal.engine.contracts.stages import Sink
from neurovocal.engine.contracts.types import Message, StreamInfo
from neurovocal.engine.runtime.workers.audio_release import MakeGate, everything
from neurovocal.engine.runtime.workers.mailbox import Mailbox
from neurovocal.engine.runtime.workers.privacy import AudioGate, NoAudio
from neurovocal.engine.runtime.workers.sink_worker import SinkWorker


def lane_context(plan: Plan, lane: LanePlan) -> BuildContext:
    """What the source and the gate of a lane are built in."""
    return replace(plan.context, stream=lane.name, bundle=lane.bundle)


def may_leave(plan: Plan) -> bool:
    """Whether all audio, and frames made of it, may reach the sinks."""
    return _privacy(plan) is None


def gates(plan: Plan, lane: LanePlan, live: bool) -> MakeGate:
    """What makes, for each stream of a lane, what lets its audio leave."""
    privacy = _privacy(plan)
    if privacy is None:
        return everything
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
    """What holds audio back; None where nothing does."""
    privacy = plan.config.shared.privacy
    return None if privacy is None or privacy.mode == "off" else privacy


def sink_worker(plan: SinkPlan, context: BuildContext, live: bool) -> SinkWorker:
    """A sink of the configuration behind its queues."""

    def build(*, replaces_failed: bool) -> Sink:
        built: Sink = plan.stage.build(
            replace(context, replaces_failed=replaces_failed)
        )
        return built

    sink = build(replaces_failed=False)
    asked = plan.config.events
    wants = frozenset(asked) if asked is not None else selected_kinds(sink)
    queue = plan.config.queue
    mailbox: Mailbox[Message] = Mailbox(
        {"events": queue.events, "bulk": queue.bulk},
        queue.when_full or ("drop_oldest" if live else "block"),
    )
    on_error = plan.config.on_error or ("restart" if live else "fail")
    rebuild = partial(build, replaces_failed=True)
    return SinkWorker(
        plan.stage.name, sink, wants, mailbox, on_error, context.clock, rebuild
    )


def observer_worker(sink: Sink, clock: Clock, live: bool) -> SinkWorker:
    """A sink beside the configured ones; its failures end nothing."""
    mailbox: Mailbox[Message] = Mailbox(
        {"events": 1024, "bulk": 64}, "drop_oldest" if live else "block"
    )
    return SinkWorker("display", sink, selected_kinds(sink), mailbox, "skip", clock)
