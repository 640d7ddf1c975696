"""Mailbox: every item is delivered, dropped or queued, and counted."""

from collections import Counter, deque
from threading import Event as Flag

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from processes.waiting import PATIENCE_S

from neurovocal.engine.runtime.workers.mailbox import Mailbox, MailboxClosed

QUEUES = ("events", "bulk")
KINDS = ("label", "onset", "frames")


def balanced(mailbox):
    for counts in mailbox.counts().values():
        parts = counts["delivered"] + counts["dropped"] + counts["queued"]
        assert counts["received"] == parts, counts


class MailboxAgainstModel(RuleBasedStateMachine):
    """The mailbox beside plain deques as a model."""

    @initialize(events=st.integers(1, 4), bulk=st.integers(1, 4))
    def make(self, events, bulk):
        self.capacity = {"events": events, "bulk": bulk}
        self.mailbox = Mailbox(self.capacity, "drop_oldest")
        self.waiting = {name: deque() for name in QUEUES}
        self.dropped = Counter()
        self.received, self.delivered = Counter(), Counter()
        self.taken = []  # items that note_lost may still count
        self.ticket = 0
        self.closed = False

    @rule(queue=st.sampled_from(QUEUES), kind=st.sampled_from(KINDS))
    def put(self, queue, kind):
        item = (self.ticket, queue, kind)
        self.ticket += 1
        self.received[queue] += 1
        if self.closed:
            with pytest.raises(MailboxClosed):
                self.mailbox.put(queue, kind, item)
            self.dropped[kind] += 1
            return
        self.mailbox.put(queue, kind, item)
        self.waiting[queue].append(item)
        if len(self.waiting[queue]) > self.capacity[queue]:
            self.dropped[self.waiting[queue].popleft()[2]] += 1

    @rule()
    def get(self):
        waiting = [item for queue in self.waiting.values() for item in queue]
        if not waiting and self.closed:
            with pytest.raises(MailboxClosed):
                self.mailbox.get(0.0)
            return
        item = self.mailbox.get(0.0)
        if not waiting:
            assert item is None
            return
        assert item == min(waiting), "not in the order of arrival"
        self.waiting[item[1]].popleft()
        self.delivered[item[1]] += 1
        self.taken.append(item)

    @rule()
    def lose(self):
        if self.taken:
            _, queue, kind = self.taken.pop()
            self.mailbox.note_lost(queue, kind)
            self.delivered[queue] -= 1
            self.dropped[kind] += 1

    @rule()
    def close(self):
        self.mailbox.close()
        self.closed = True

    @rule()
    def discard(self):
        self.mailbox.discard()
        self.closed = True
        for waiting in self.waiting.values():
            self.dropped.update(kind for _, _, kind in waiting)
            waiting.clear()

    @invariant()
    def agree(self):
        balanced(self.mailbox)
        assert self.mailbox.dropped == +self.dropped
        for name, counts in self.mailbox.counts().items():
            assert counts["queued"] == len(self.waiting[name])
            assert counts["received"] == self.received[name]
            assert counts["delivered"] == self.delivered[name]


MailboxAgainstModel.TestCase.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None
)
TestMailboxAgainstModel = MailboxAgainstModel.TestCase


def test_a_flood_of_frames_drops_no_label():
    mailbox = Mailbox({"events": 10, "bulk": 2}, "drop_oldest")
    for index in range(1000):
        mailbox.put("bulk", "frames", ("frames", index))
        if index % 100 == 0:
            mailbox.put("events", "label", ("label", index))
    got = [mailbox.get(0.0) for _ in range(12)]
    assert [item for item in got if item[0] == "label"] == [
        ("label", index) for index in range(0, 1000, 100)
    ]
    assert got[-2:] == [("frames", 998), ("frames", 999)]
    assert mailbox.dropped == {"frames": 998}


def test_put_waits_for_room_in_a_full_queue(background):
    mailbox = Mailbox({"events": 1, "bulk": 1}, "block")
    mailbox.put("events", "label", 1)
    mailbox.put("bulk", "frames", 2)  # the other queue has room of its own
    entered = Flag()

    def put_another():
        entered.set()
        mailbox.put("events", "label", 3)

    wait = background(put_another)
    assert entered.wait(PATIENCE_S)
    # Whether or not it waits by now: the item does not count as received.
    balanced(mailbox)
    assert mailbox.counts()["events"]["received"] == 1
    assert mailbox.get(10) == 1
    wait()
    assert [mailbox.get(10), mailbox.get(10)] == [2, 3]
    assert not mailbox.dropped
    balanced(mailbox)


def test_get_waits_for_an_item(background):
    mailbox = Mailbox({"events": 1}, "block")
    wait = background(lambda: mailbox.get(20))
    mailbox.put("events", "label", "late")
    assert wait() == "late"


@pytest.mark.parametrize("end", ["close", "discard"])
def test_closing_wakes_a_waiting_put(background, end):
    mailbox = Mailbox({"events": 1}, "block")
    mailbox.put("events", "label", 1)
    wait = background(lambda: mailbox.put("events", "onset", 2))
    getattr(mailbox, end)()
    with pytest.raises(MailboxClosed):
        wait()
    dropped = {"onset": 1} if end == "close" else {"onset": 1, "label": 1}
    assert mailbox.dropped == dropped
    balanced(mailbox)


def test_closing_wakes_a_waiting_get(background):
    mailbox = Mailbox({"events": 1}, "block")
    wait = background(lambda: mailbox.get(20))
    mailbox.close()
    with pytest.raises(MailboxClosed):
        wait()


def test_a_closed_mailbox_delivers_its_queued_items():
    mailbox = Mailbox({"events": 3}, "block")
    for number in range(3):
        mailbox.put("events", "label", number)
    mailbox.close()
    assert [mailbox.get(0.0) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(MailboxClosed):
        mailbox.get(0.0)


@pytest.mark.parametrize("when_full", ["block", "drop_oldest"])
def test_every_item_of_many_writers_is_delivered_or_counted_as_dropped(
    background, when_full
):
    mailbox = Mailbox({"events": 3, "bulk": 2}, when_full)
    each, writers = 300, 3

    def write(writer):
        for number in range(each):
            queue = QUEUES[number % 2]
            mailbox.put(queue, KINDS[number % 3], (writer, number))

    waits = [background(lambda w=w: write(w)) for w in range(writers)]
    got = []

    def read():
        while True:
            try:
                item = mailbox.get(10)
            except MailboxClosed:
                return
            got.append(item)
            balanced(mailbox)

    reader = background(read)
    for wait in waits:
        wait()
    mailbox.close()
    reader()
    assert len(got) + mailbox.dropped.total() == each * writers
    for writer in range(writers):
        for parity in range(2):
            numbers = [n for w, n in got if w == writer and n % 2 == parity]
            assert numbers == sorted(numbers), "a writer's order was not kept"
    if when_full == "block":
        assert not mailbox.dropped


def test_room_for_more_channels():
    mailbox = Mailbox({"events": 2, "bulk": 3}, "drop_oldest", fixed=["events"])
    mailbox.set_channels(4)
    for index in range(20):
        mailbox.put("events", "label", index)
        mailbox.put("bulk", "frames", index)
    assert mailbox.counts()["events"]["queued"] == 2
    assert mailbox.counts()["bulk"]["queued"] == 12
    mailbox.set_channels(1)
    mailbox.put("bulk", "frames", 20)
    assert mailbox.counts()["bulk"]["queued"] == 12
    balanced(mailbox)


def test_items_that_come_together_are_bounded_and_counted_one_by_one():
    mailbox = Mailbox({"events": 2, "bulk": 1}, "drop_oldest")
    mailbox.put_all(
        [
            ("bulk", "frames", 0),
            ("events", "onset", 1),
            ("bulk", "frames", 2),
            ("events", "label", 3),
            ("events", "label", 4),
        ]
    )
    assert [mailbox.get(0.0) for _ in range(3)] == [2, 3, 4]
    assert mailbox.dropped == {"frames": 1, "onset": 1}
    balanced(mailbox)
    mailbox.close()
    with pytest.raises(MailboxClosed):
        mailbox.put_all([("events", "label", 5), ("bulk", "frames", 6)])
    assert mailbox.dropped == {"frames": 2, "onset": 1, "label": 1}
    balanced(mailbox)


def test_more_items_than_there_is_room_for_wake_a_waiting_reader(background):
    mailbox = Mailbox({"events": 2}, "block")
    items = [("events", "label", number) for number in range(50)]
    got = []

    def read():
        while len(got) < len(items):
            got.append(mailbox.get(PATIENCE_S))

    reader = background(read)
    writer = background(lambda: mailbox.put_all(items))
    writer()
    reader()
    assert got == list(range(50))
    balanced(mailbox)
