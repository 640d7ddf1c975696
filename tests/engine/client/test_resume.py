"""Getting back what was missed: nothing lost, nothing twice, whatever happens."""

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
    """An engine with a journal, a network that loses, and a subscriber."""

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
        self.heard: list[Received] = []

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
        """Answer the oldest question, as the replay server would."""
        if not self.asked:
            return
        question = self.asked.pop(0)
        kept = self.sent[: self.committed]
        if question["command"] == "topics":
            self.subscriber.put_topics(question["id"], [KEY] if kept else [])
            return
        first = 0
        after = question["after"]
        if after is not None:
            place = [(m.run, m.seq) for m in kept]
            known = (after["run"], after["seq"])
            first = place.index(known) + 1 if known in place else len(kept)
        elif question["start"] == "run":
            runs = [m.run for m in kept]
            first = runs.index(runs[-1]) if runs else 0
        page = kept[first : first + 3]
        more = first + 3 < len(kept)
        self.subscriber.put_page(question["id"], page, more=more, now_s=self.now_s)
        self.take()

    def take(self) -> None:
        while self.subscriber.ready:
            one = self.subscriber.ready.popleft()
            self.positions[KEY] = Position(one.run, one.seq)
            self.heard.append(one)

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
def test_every_kept_message_comes_once_and_in_order(actions: list[str]) -> None:
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
    assert names(world.heard) == names(world.sent)
    assert not any(m.missed for m in world.heard)


@settings(deadline=None, max_examples=200)
@given(
    parts=st.lists(
        st.tuples(st.integers(0, 5), st.booleans(), st.integers(0, 5)), max_size=5
    )
)
def test_restarts_of_the_engine_lose_nothing_that_was_kept(
    parts: list[tuple[int, bool, int]],
) -> None:
    world = World(start="journal")
    for arriving, commits, lost in parts:
        for number in range(arriving + lost):
            world.send(number < arriving)
        if commits:
            world.commit()
        # What arrived was handed out or kept: an engine that dies between the
        # sending and the commit takes a message with it that was heard.
        world.commit()
        world.restart_engine()
        world.ask(0.2)
        world.answer()
    world.settle()
    assert names(world.heard) == names(world.sent)


def test_a_hole_is_filled_before_what_follows() -> None:
    world = World()
    world.send(True)
    world.send(False)
    world.send(True)
    assert names(world.heard) == [("run0", 0)]
    world.ask(0.01)
    world.answer()  # the journal has not committed yet
    assert names(world.heard) == [("run0", 0)]
    world.commit()
    world.ask(0.2)
    world.answer()
    assert names(world.heard) == [("run0", 0), ("run0", 1), ("run0", 2)]


def test_who_starts_now_asks_for_nothing_old() -> None:
    world = World()
    for _ in range(5):
        world.send(False)
    world.commit()
    world.send(True)
    world.settle()
    assert names(world.heard) == [("run0", 5)]
    assert world.heard[0].missed is None


def test_a_run_is_heard_from_its_first_message() -> None:
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
    assert names(world.heard) == [("run1", seq) for seq in range(5)]


def test_what_the_journal_never_had_is_missed_in_the_end() -> None:
    world = World()
    world.send(True)
    world.send(False)
    world.sent.pop()  # the journal's queue was full
    world.send(True)
    world.settle()
    assert names(world.heard) == [("run0", 0), ("run0", 2)]
    missed = world.heard[1].missed
    assert missed is not None
    assert (missed.first_seq, missed.count) == (1, 1)


def with_a_hole() -> World:
    world = World()
    world.send(True)
    world.send(False)
    world.send(True)
    assert names(world.heard) == [("run0", 0)]
    return world


def test_without_an_answer_life_goes_on_after_a_minute_of_messages() -> None:
    world = with_a_hole()
    while len(world.heard) == 1:
        world.ask(1.0)
        world.send(True)
        assert world.now_s < 70
    assert world.now_s > 60
    assert names(world.heard)[1] == ("run0", 2)
    assert world.heard[1].missed is not None
    assert names(world.heard)[-1] == ("run0", world.seq - 1)


def test_a_station_that_is_down_with_its_journal_is_waited_for() -> None:
    world = with_a_hole()
    world.commit()
    for _ in range(1000):
        world.ask(1.0)
    world.asked.clear()
    world.send(True)  # it is back; its journal answers a moment later
    world.commit()
    world.ask(2.0)
    world.answer()
    assert names(world.heard) == [("run0", seq) for seq in range(4)]
    assert not any(m.missed for m in world.heard)


def test_who_does_not_listen_for_a_while_misses_nothing() -> None:
    """A page takes its reader longer than the journal is given to fill a hole."""
    world = with_a_hole()
    for _ in range(10):
        world.send(True)
    world.commit()
    while world.heard[-1].seq < world.seq - 1:
        world.ask(20.0)  # the reader was busy with the page before
        world.answer()
        assert not any(m.missed for m in world.heard)
    assert names(world.heard) == [("run0", seq) for seq in range(world.seq)]


def test_an_answer_to_an_early_question_says_nothing_about_later() -> None:
    world = with_a_hole()
    world.ask(0.1)
    world.now_s += 30.0
    world.answer()  # empty: asked before the journal could commit
    assert names(world.heard) == [("run0", 0)]
    world.commit()
    world.ask(0.2)
    world.answer()
    assert names(world.heard) == [("run0", 0), ("run0", 1), ("run0", 2)]


def test_a_journal_that_refuses_is_given_its_time_and_no_more() -> None:
    world = with_a_hole()
    while len(world.heard) == 1:
        world.ask(2.0)
        for question in world.asked:
            world.subscriber.put_refusal(question["id"], world.now_s)
        world.asked.clear()
        world.take()
        assert world.now_s < 12
    assert world.now_s > 5
    assert names(world.heard) == [("run0", 0), ("run0", 2)]
    missed = world.heard[1].missed
    assert missed is not None
    assert missed.count == 1


def test_a_flood_while_waiting_is_bounded_and_asked_for_again() -> None:
    world = World()
    world.send(True)
    world.send(False)
    for _ in range(2500):
        world.send(True)
    world.commit()
    for _ in range(1000):
        world.ask(0.2)
        world.answer()
    assert names(world.heard) == [("run0", seq) for seq in range(2502)]
