"""Turns: one lane computes at a time, and none waits for one that does not end."""

from collections import deque
from threading import Event as Flag

import pytest
from processes.waiting import PATIENCE_S, until
from stages.runners import RATE, audio, make_runner

from neurovocal.engine.contracts.types import StreamInfo
from neurovocal.engine.runtime.workers import lane_worker
from neurovocal.engine.runtime.workers.lanes.turns import TURNS, Turns
from neurovocal.engine.testing import CollectSink, ScriptedSource

NEVER_S = 1000.0


def lane(turns, name, order, may_end):
    turn = turns.begin()
    order.append(name)
    assert may_end.wait(PATIENCE_S)
    turns.end(turn)


def test_lanes_compute_in_the_order_in_which_they_ask(background):
    turns, order, may_end = Turns(NEVER_S), deque(), Flag()
    first = turns.begin()
    waits = []
    for number in range(3):
        waits.append(background(lambda n=number: lane(turns, n, order, may_end)))
        until(lambda n=number: len(turns._waiting) == n + 1)
    assert not order, "two lanes compute at the same time"
    may_end.set()
    turns.end(first)
    for wait in waits:
        wait()
    assert list(order) == [0, 1, 2]


def test_a_lane_that_does_not_end_is_overtaken(background):
    turns, order, may_end = Turns(0.01), deque(), Flag()
    hanging = turns.begin()
    may_end.set()
    waits = [background(lambda n=n: lane(turns, n, order, may_end)) for n in range(3)]
    for wait in waits:
        wait()
    assert sorted(order) == [0, 1, 2]
    present = turns.begin()  # at once: nobody has the turn
    turns.end(hanging)
    assert turns._present is present, "it has ended the turn of another lane"
    turns.end(present)
    assert turns._present is None


@pytest.mark.parametrize("n_others", [0, 1])
def test_a_lane_takes_turns_with_others_and_none_alone(monkeypatch, n_others):
    turns, begin = [], TURNS.begin
    monkeypatch.setattr(TURNS, "n_lanes", n_others)
    monkeypatch.setattr(TURNS, "begin", lambda: turns.append(begin()) or turns[-1])
    source = ScriptedSource(StreamInfo("s", RATE), [audio("..##..")])
    monkeypatch.setattr(lane_worker, "LONGEST_BLOCK_S", 10.0)
    make_runner([source], CollectSink()).run()
    assert bool(turns) == bool(n_others)
    assert TURNS.n_lanes == n_others
    assert TURNS._present is None
