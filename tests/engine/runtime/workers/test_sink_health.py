"""Health of sinks: failures, recovery and loss are reported to the other sinks."""

from threading import Event as Flag

import pytest
from processes.waiting import PATIENCE_S
from stages.runners import EPOCH, INFO

from neurovocal.engine.audio.timeline import TimeBase
from neurovocal.engine.contracts.clock import ManualClock
from neurovocal.engine.contracts.types import Gap, Health, Message
from neurovocal.engine.runtime.workers.mailbox import Mailbox
from neurovocal.engine.runtime.workers.publisher import Publisher, SequenceNumbers
from neurovocal.engine.runtime.workers.sink_worker import SinkWorker
from neurovocal.engine.testing import CollectSink, FailingSink, StalledSink

pytestmark = pytest.mark.usefixtures("quiet", "no_threads_left")
KINDS = frozenset({"gap", "health"})


class Counting(CollectSink):
    """Sets `tried` at each write."""

    def __init__(self, inner: CollectSink) -> None:
        super().__init__(KINDS)
        self.inner, self.tried = inner, Flag()

    def write(self, message: Message) -> None:
        try:
            self.inner.write(message)
        finally:
            self.tried.set()


def worker(sink: CollectSink, capacity: int = 4) -> SinkWorker:
    mailbox: Mailbox[Message] = Mailbox(
        {"events": capacity, "bulk": capacity}, "drop_oldest"
    )
    return SinkWorker("disk", sink, KINDS, mailbox, "skip", ManualClock(EPOCH))


def send(dispatcher: Publisher, number: int = 1) -> None:
    for _ in range(number):
        dispatcher.send(INFO, Gap(0, 0, "test"), 0, TimeBase(INFO.sample_rate))


def changes(dispatcher: Publisher) -> list[tuple[str, str]]:
    return [(h.stage, h.state) for h in dispatcher.sinks_health()]


def test_the_failure_and_recovery_of_a_sink_are_reported_once_each() -> None:
    failing = FailingSink()
    sink = Counting(failing)
    disk = worker(sink)
    disk.open()
    dispatcher = Publisher([disk], SequenceNumbers())
    assert changes(dispatcher) == []
    for broken, expected in ((True, "restarting"), (False, "healthy")):
        failing.broken = broken
        sink.tried.clear()
        send(dispatcher)
        assert sink.tried.wait(PATIENCE_S)
        reported: list[Health] = []
        while not reported:  # the worker notes it right after
            reported = dispatcher.sinks_health()
        assert [(h.stage, h.state) for h in reported] == [("disk", expected)]
        assert ("the disk is full" in reported[0].detail) == broken
        assert "1 messages" in reported[0].detail
        assert changes(dispatcher) == []
    disk.drain(PATIENCE_S, hurry=True)
    disk.close()


def test_a_sink_with_a_full_queue_is_lossy_until_it_drops_no_more() -> None:
    stalled = StalledSink(KINDS)
    disk = worker(stalled)
    disk.open()
    dispatcher = Publisher([disk], SequenceNumbers())
    send(dispatcher)
    assert stalled.entered.wait(PATIENCE_S)
    send(dispatcher, 4)
    assert changes(dispatcher) == []
    send(dispatcher, 3)
    assert changes(dispatcher) == [("disk", "lossy")]
    send(dispatcher, 1)
    assert changes(dispatcher) == []
    assert changes(dispatcher) == [("disk", "healthy")]
    stalled.release.set()
    disk.drain(PATIENCE_S, hurry=True)
    disk.close()
    assert disk.mailbox.dropped.total() == 4
