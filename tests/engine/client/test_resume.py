"""Resumer: each recorded message is delivered once, in order, in all situations."""

from dataclasses import dataclass, field
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from neurovocal.engine.client.received import Received, received_of
from neurovocal.engine.client.resume import Position, Resumer, StartPoint
from neurovocal.engine.contracts.types import Label, Message, StreamInfo
from neurovocal.engine.wire.codec import decode, encode

KEY = ("label", "a")
INFO = StreamInfo("a", 32000)


def message(run: str, seq: int) -> Received:
    event = Label(seq, seq, seq + 9, "b", 0.5, "final", "m")
    return received_of(*decode(encode(Message(INFO, event, seq, seq + 20), run, None)))


@dataclass
class World:
    """Model of an engine with a journal, a lossy network and a subscriber."""

    start: StartPoint = "now"
    positions: dict[tuple[str, str], Position] = field(default_factory=dict)
    now_s: float = 0.0
    run: int = 0
    seq: int = 0
    sent: list[Received] = field(default_factory=list)
    committed: int = 0
    asked: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.subscriber = self.subscribe()
        self.delivered: list[Received] = []

    def subscribe(self) -> Resumer:
        kinds = frozenset({"label", "frames"})
        return Resumer(kinds, None, self.start, self.positions)

    def send(self, arrives: bool) -> None:
        live = message(f"run{self.run}", self.seq)
        self.seq += 1
        self.sent.append(live)
        if arrives:
            self.subscriber.put_live(live, self.now_s)
        self.take()

    def restart_engine(self) -> None:
        # What was not committed is lost for the journal: it was never kept.
        del self.sent[self.committed :]
        self.run, self.seq = self.run + 1, 0

    def commit(self) -> None:
        self.committed = len(self.sent)

    def ask(self, after_s: float) -> None:
        self.now_s += after_s
        self.asked += self.subscriber.requests(self.now_s)
        self.take()

    def answer(self) -> None:
        """Reply to the oldest request, as the replay server would."""
        if not self.asked:
            return
        request = self.asked.pop(0)
        kept = self.sent[: self.committed]
        if request["command"] == "topics":
            self.subscriber.put_topics(request["id"], [KEY] if kept else [])
            return
        first = 0
        after = request["after"]
        if after is not None:
            place = [(m.run, m.seq) for m in kept]
            known = (after["run"], after["seq"])
            first = place.index(known) + 1 if known in place else len(kept)
        elif request["start"] == "run":
            runs = [m.run for m in kept]
            first = runs.index(runs[-1]) if runs else 0
        page = kept[first : first + 3]
        more = first + 3 < len(kept)
        self.subscriber.put_page(request["id"], page, more=more, now_s=self.now_s)
        self.take()

    def take(self) -> None:
        while self.subscriber.ready:
            one = self.subscriber.ready.popleft()
            self.positions[KEY] = Position(one.run, one.seq)
            self.delivered.append(one)

    def settle(self) -> None:
        self.commit()
        for _ in range(100):
            self.ask(0.5)
            while self.asked:
                self.answer()


def names(messages: list[Received]) -> list[tuple[str, int]]:
    return [(m.run, m.seq) for m in messages]


ACTIONS = st.lists(
    st.sampled_from(
        ["arrives", "lost", "lost", "commit", "ask", "answer", "unanswered", "killed"]
    ),
    max_size=60,
)


@settings(deadline=None, max_examples=300)
@given(actions=ACTIONS)
def test_every_recorded_message_is_delivered_once_and_in_order(
    actions: list[str],
) -> None:
    world = World(start="journal")
    for action in actions:
        match action:
            case "arrives" | "lost":
                world.send(action == "arrives")
            case "commit":
                world.commit()
            case "ask":
                world.ask(0.2)
            case "answer":
                world.answer()
            case "unanswered":
                world.asked = world.asked[1:]
            case "killed":
                world.subscriber = world.subscribe()
                world.asked = []
    world.settle()
    assert names(world.delivered) == names(world.sent)
    assert not any(m.missed for m in world.delivered)


@settings(deadline=None, max_examples=200)
@given(
    parts=st.lists(
        st.tuples(st.integers(0, 5), st.booleans(), st.integers(0, 5)), max_size=5
    )
)
def test_restarts_of_the_engine_lose_no_recorded_message(
    parts: list[tuple[int, bool, int]],
) -> None:
    world = World(start="journal")
    for arriving, commits, lost in parts:
        for number in range(arriving + lost):
            world.send(number < arriving)
        if commits:
            world.commit()
        # What arrived was handed out or kept: an engine that dies between the
        # sending and the commit loses a message that was delivered.
        world.commit()
        world.restart_engine()
        world.ask(0.2)
        world.answer()
    world.settle()
    assert names(world.delivered) == names(world.sent)


def test_a_hole_is_filled_before_later_messages_are_delivered() -> None:
    world = World()
    world.send(True)
    world.send(False)
    world.send(True)
    assert names(world.delivered) == [("run0", 0)]
    world.ask(0.01)
    world.answer()  # the journal has not committed yet
    assert names(world.delivered) == [("run0", 0)]
    world.commit()
    world.ask(0.2)
    world.answer()
    assert names(world.delivered) == [("run0", 0), ("run0", 1), ("run0", 2)]


def test_a_start_now_requests_no_old_message() -> None:
    world = World()
    for _ in range(5):
        world.send(False)
    world.commit()
    world.send(True)
    world.settle()
    assert names(world.delivered) == [("run0", 5)]
    assert world.delivered[0].missed is None


def test_a_start_at_the_run_delivers_its_first_message() -> None:
    world = World(start="run")
    for _ in range(4):
        world.send(False)
    world.commit()
    world.restart_engine()
    for _ in range(4):
        world.send(False)
    world.commit()
    world.send(True)
    world.settle()
    assert names(world.delivered) == [("run1", seq) for seq in range(5)]


def test_messages_that_the_journal_lacks_are_reported_as_lost() -> None:
    world = World()
    world.send(True)
    world.send(False)
    world.sent.pop()  # the journal's queue was full
    world.send(True)
    world.settle()
    assert names(world.delivered) == [("run0", 0), ("run0", 2)]
    missed = world.delivered[1].missed
    assert missed is not None
    assert (missed.first_seq, missed.count) == (1, 1)


def with_a_hole() -> World:
    world = World()
    world.send(True)
    world.send(False)
    world.send(True)
    assert names(world.delivered) == [("run0", 0)]
    return world


def test_without_replies_messages_are_delivered_after_a_minute() -> None:
    world = with_a_hole()
    while len(world.delivered) == 1:
        world.ask(1.0)
        world.send(True)
        assert world.now_s < 70
    assert world.now_s > 60
    assert names(world.delivered)[1] == ("run0", 2)
    assert world.delivered[1].missed is not None
    assert names(world.delivered)[-1] == ("run0", world.seq - 1)


def test_a_pause_of_the_station_does_not_make_a_hole_final() -> None:
    world = with_a_hole()
    world.commit()
    for _ in range(1000):
        world.ask(1.0)
    world.asked.clear()
    world.send(True)  # it is back; its journal answers a moment later
    world.commit()
    world.ask(2.0)
    world.answer()
    assert names(world.delivered) == [("run0", seq) for seq in range(4)]
    assert not any(m.missed for m in world.delivered)


def test_a_subscriber_that_pauses_loses_no_message() -> None:
    """The subscriber needs longer for a page than the patience for a hole."""
    world = with_a_hole()
    for _ in range(10):
        world.send(True)
    world.commit()
    while world.delivered[-1].seq < world.seq - 1:
        world.ask(20.0)  # the reader was busy with the page before
        world.answer()
        assert not any(m.missed for m in world.delivered)
    assert names(world.delivered) == [("run0", seq) for seq in range(world.seq)]


def test_a_reply_to_an_early_request_does_not_make_a_hole_final() -> None:
    world = with_a_hole()
    world.ask(0.1)
    world.now_s += 30.0
    world.answer()  # empty: asked before the journal could commit
    assert names(world.delivered) == [("run0", 0)]
    world.commit()
    world.ask(0.2)
    world.answer()
    assert names(world.delivered) == [("run0", 0), ("run0", 1), ("run0", 2)]


def test_refusals_make_a_hole_final_after_the_patience() -> None:
    world = with_a_hole()
    while len(world.delivered) == 1:
        world.ask(2.0)
        for request in world.asked:
            world.subscriber.put_refusal(request["id"], world.now_s)
        world.asked.clear()
        world.take()
        assert world.now_s < 12
    assert world.now_s > 5
    assert names(world.delivered) == [("run0", 0), ("run0", 2)]
    missed = world.delivered[1].missed
    assert missed is not None
    assert missed.count == 1


def test_held_messages_are_bounded_and_the_rest_is_fetched() -> None:
    world = World()
    world.send(True)
    world.send(False)
    for _ in range(2500):
        world.send(True)
    world.commit()
    for _ in range(1000):
        world.ask(0.2)
        world.answer()
    assert names(world.delivered) == [("run0", seq) for seq in range(2502)]
