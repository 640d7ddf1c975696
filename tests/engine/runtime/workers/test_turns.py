"""Turns: one lane computes at a time, and none waits for one that does not end."""

from collections import deque
from threading import Event as Flag

from processes.waiting import PATIENCE_S, until

from neurovocal.engine.runtime.workers.lanes.turns import Turns

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
