"""Publish the events of a lane, with time and latency, to the sinks that want them."""

from collections import defaultdict

from neurovocal.engine.contracts.clock import Clock
from neurovocal.engine.contracts.types import (
    Anchor,
    Event,
    Trigger,
    kind_of,
)
from neurovocal.engine.lane.lane import Step
from neurovocal.engine.runtime.workers.audio_release import AudioRelease
from neurovocal.engine.runtime.workers.channel import Channel
from neurovocal.engine.runtime.workers.command_queue import Recall, set_off
from neurovocal.engine.runtime.workers.latency import LedgerMetrics
from neurovocal.engine.runtime.workers.publisher import Publisher, ledger_of
from neurovocal.engine.runtime.workers.telemetry import SignalChecks


class LanePublisher:
    """Sends what the channels of a source bring forth.

    Parameters
    ----------
    dispatcher : Dispatcher
        Where events go.
    outlet : Outlet
        Knows what must not leave.
    signal : LaneSignal
        Is told of anchors.
    clock : Clock
        Measures how late events are.
    recall : callable, optional
        ``recall(command, channel)`` prepares what a trigger sets.
    """

    def __init__(
        self,
        dispatcher: Publisher,
        outlet: AudioRelease,
        signal: SignalChecks,
        clock: Clock,
        recall: Recall | None,
    ) -> None:
        self.ledgers: defaultdict[str, LedgerMetrics] = defaultdict(LedgerMetrics)
        self._dispatcher = dispatcher
        self._outlet = outlet
        self._signal = signal
        self._clock = clock
        self._recall = recall

    def send(self, channel: Channel, step: Step, start_ns: int) -> None:
        """Send the events of a step whose processing began at `start_ns`."""
        now = self._clock.monotonic_ns()
        timed = step.arrived_ns > 0
        queue_ms = max(0.0, (start_ns - step.arrived_ns) / 1e6) if timed else 0.0
        compute_ms = (now - start_ns) / 1e6
        if timed:
            channel.lag_ms = (now - step.arrived_ns) / 1e6
        info = channel.lane.info
        for event in step.events:
            if self._outlet.keeps_back(event, channel):
                continue
            if isinstance(event, Anchor):
                self._signal.set_time(event, channel)
            ledger = None
            kind = kind_of(event)
            channel.counts[kind] += 1
            if timed:
                ledger = ledger_of(
                    event, step.at, info.sample_rate, queue_ms, compute_ms
                )
                self.ledgers[kind].add(ledger)
            message = self._dispatcher.send(
                info,
                event,
                step.at,
                channel.timebase,
                ledger=ledger,
                emitted_ns=now if timed else 0,
            )
            if isinstance(event, Anchor):
                channel.anchored = message
            elif isinstance(event, Trigger):
                trouble = set_off(event, channel, self._recall)
                if trouble is not None:
                    self.report(trouble, channel)

    def report(self, event: Event, channel: Channel, at: int | None = None) -> None:
        """Send an event that is not of the lane's stages.

        `at` is the stream position at which it became known; default: the present.
        """
        self._dispatcher.send(
            channel.lane.info,
            event,
            channel.lane.position if at is None else at,
            channel.timebase,
            emitted_ns=self._clock.monotonic_ns(),
        )
