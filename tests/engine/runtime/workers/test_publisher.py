"""Publisher: sequence numbers, times and ledgers of events."""

from threading import Barrier

import numpy as np
import pytest

from neurovocal.engine.audio.timeline import TimeBase
from neurovocal.engine.contracts.clock import NS, ManualClock
from neurovocal.engine.contracts.types import (
    KINDS,
    Anchor,
    Frames,
    Gap,
    Health,
    Label,
    Ledger,
    Offset,
    Onset,
    StreamInfo,
    Synthesis,
    instant_of,
    kind_of,
    sample_of,
)
from neurovocal.engine.runtime.workers.mailbox import Mailbox
from neurovocal.engine.runtime.workers.publisher import (
    Publisher,
    SequenceNumbers,
    ledger_of,
)
from neurovocal.engine.runtime.workers.sink_worker import SinkWorker
from neurovocal.engine.testing import CollectSink

INFO = StreamInfo("cage", 1000)
EPOCH = 1_700_000_000 * NS
VALUES = np.zeros((3, 2), np.float32)


def worker(name, *wants, room=100):
    mailbox = Mailbox({"events": room, "bulk": room}, "drop_oldest")
    return SinkWorker(
        name, CollectSink(), frozenset(wants), mailbox, "fail", ManualClock()
    )


def taken(sink):
    sink.mailbox.close()
    got = []
    while sink.mailbox.counts()["events"]["queued"]:
        got.append(sink.mailbox.get(0.0))
    return got


def test_sequence_numbers_count_per_kind_and_stream():
    sink = worker("a", "onset", "offset")
    dispatcher, timebase = Publisher([sink], SequenceNumbers()), TimeBase(1000)
    other = StreamInfo("other", 1000)
    for info in (INFO, other, INFO):
        dispatcher.send(info, Onset(0, 5, 1.0), 8, timebase)
        dispatcher.send(info, Offset(0, 5, 7, False), 8, timebase)
    got = [(m.info.stream, m.kind, m.seq) for m in taken(sink)]
    assert got == [
        ("cage", "onset", 0),
        ("cage", "offset", 0),
        ("other", "onset", 0),
        ("other", "offset", 0),
        ("cage", "onset", 1),
        ("cage", "offset", 1),
    ]


def test_sequence_numbers_are_unique_and_consecutive_across_threads(background):
    numbers, start = SequenceNumbers(), Barrier(3)

    def count():
        start.wait()
        return [next(numbers.counter("label", "cage")) for _ in range(2000)]

    waits = [background(count) for _ in range(3)]
    assert sorted(n for wait in waits for n in wait()) == list(range(6000))


def test_events_go_to_sinks_that_take_their_kind():
    marks, labels = worker("marks", "onset", "offset"), worker("labels", "label")
    dispatcher = Publisher([marks, labels], SequenceNumbers())
    dispatcher.send(INFO, Onset(0, 5, 1.0), 8, TimeBase(1000))
    assert dispatcher.wants("label")
    assert not dispatcher.wants("frames")
    assert [m.kind for m in taken(marks)] == ["onset"]
    assert taken(labels) == []
    assert set(dispatcher.statistics()) == {"marks", "labels"}


def test_a_repeated_message_keeps_its_number_and_goes_to_sinks_with_statistics():
    recorder, publisher = worker("r", "anchor"), worker("p", "anchor", "stats")
    deaf = worker("d", "stats")
    dispatcher = Publisher([recorder, publisher, deaf], SequenceNumbers())
    message = dispatcher.send(INFO, Anchor(0, EPOCH), 0, TimeBase(1000))
    dispatcher.repeat(message)
    again = dispatcher.send(INFO, Anchor(5, EPOCH + 1), 5, TimeBase(1000))
    assert [m.seq for m in taken(publisher)] == [0, 0, 1]
    assert [m.seq for m in taken(recorder)] == [0, 1]
    assert taken(deaf) == []
    assert again.seq == 1


def test_utc_of_an_event_is_that_of_its_sample():
    sink = worker("a", *KINDS.values())
    dispatcher, timebase = Publisher([sink], SequenceNumbers()), TimeBase(1000)
    before = dispatcher.send(INFO, Onset(0, 5, 1.0), 8, timebase)
    timebase.add(Anchor(1000, EPOCH))
    label = Label(0, 400, 600, "a", 1.0, "final", "m")
    assert before.utc_ns is None
    assert dispatcher.send(INFO, label, 700, timebase).utc_ns == EPOCH - 600_000_000
    health = dispatcher.send(INFO, Health("lane", "healthy", ""), 1700, timebase)
    assert health.utc_ns == EPOCH + 700_000_000
    assert health.sample == 1700


def test_a_message_to_a_closed_sink_is_counted_as_dropped():
    sink = worker("a", "onset")
    sink.mailbox.close()
    Publisher([sink], SequenceNumbers()).send(INFO, Onset(0, 5, 1.0), 8, TimeBase(1000))
    assert sink.mailbox.dropped == {"onset": 1}


@pytest.mark.parametrize(
    ("event", "wait_ms"),
    [
        (Onset(0, 100, 1.0), 50.0),
        (Offset(0, 100, 140, False), 10.0),
        (Label(0, 100, None, "a", 1.0, "provisional", "m"), 50.0),
        (Label(0, 100, 140, "a", 1.0, "final", "m"), 10.0),
        (Frames(7, 16, 16, VALUES), 38.0),
        (Synthesis(10, 16, VALUES, "predict", "m"), -10.0),  # predicted
        (Health("lane", "healthy", ""), 0.0),
    ],
)
def test_the_ledger_counts_from_the_instant_of_the_event(event, wait_ms):
    ledger = ledger_of(event, 150, 1000, 1.23456, 2.0)
    assert ledger == Ledger(wait_ms, 1.235, 2.0)


def test_kind_sample_and_instant_of_events():
    assert [kind_of(Gap(3, 9, "")), sample_of(Gap(3, 9, ""))] == ["gap", 3]
    assert sample_of(Frames(7, 16, 32, VALUES)) == 112
    assert instant_of(Label(0, 1, None, "a", 1.0, "revised", "m")) == 1
    assert instant_of(Label(0, 1, 9, "a", 1.0, "final", "m")) == 9
    assert sample_of(Health("lane", "healthy", ""), 77) == 77


def test_messages_of_a_step_come_to_each_sink_in_order():
    all_of_them, labels = worker("a", "onset", "frames", "label"), worker("l", "label")
    publisher = Publisher([all_of_them, labels], SequenceNumbers())
    timebase = TimeBase(1000)
    events = [
        Frames(7, 16, 32, VALUES),
        Onset(0, 5, 1.0),
        Offset(0, 5, 7, False),
        Label(0, 5, 7, "a", 1.0, "final", "m"),
    ]
    numbered = [publisher.number(INFO, event, 8, timebase) for event in events]
    assert numbered[2] is None, "no sink takes offsets"
    publisher.deliver([each for each in numbered if each is not None])
    got = [all_of_them.mailbox.get(0.0).kind for _ in range(3)]
    assert got == ["frames", "onset", "label"]
    assert [m.kind for m in taken(labels)] == ["label"]
