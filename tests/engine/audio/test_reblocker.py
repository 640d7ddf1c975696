"""Reblocker: the same blocks on the stream's grid for all input lengths."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neurovocal.engine.audio.reblocker import Reblocker
from neurovocal.engine.contracts.types import Block


def ramp(start, count, columns=1):
    column = np.arange(start, start + count, dtype=np.float32)
    return np.repeat(column[:, None], columns, axis=1)


def outline(blocks):
    return [(b.start, b.samples.tolist()) for b in blocks]


@given(
    length=st.integers(1, 40),
    start=st.integers(0, 100),
    lengths=st.lists(st.integers(0, 60), max_size=20),
)
def test_blocks_lie_on_the_grid_for_any_input_lengths(length, start, lengths):
    recutter = Reblocker(length)
    position, got = start, []
    for count in lengths:
        got += recutter.push(Block(position, ramp(position, count)))
        position += count
        # Nothing that is complete is held back.
        held = position - (got[-1].stop if got else start)
        assert held < length
    got += recutter.flush()

    edges = range((start // length + 1) * length, position, length)
    expected = [start, *edges, position] if position > start else []
    assert [(b.start, b.stop) for b in got] == list(pairwise(expected))
    for block in got:
        assert np.array_equal(block.samples, ramp(block.start, len(block.samples)))
    assert list(recutter.flush()) == []


@given(
    length=st.integers(1, 20),
    first=st.integers(1, 50),
    second=st.integers(1, 50),
    missing=st.integers(0, 50),
)
def test_a_flush_keeps_the_grid(length, first, second, missing):
    recutter = Reblocker(length)
    got = [*recutter.push(Block(0, ramp(0, first))), *recutter.flush()]
    again = first + missing
    got += [*recutter.push(Block(again, ramp(again, second))), *recutter.flush()]
    assert sum(len(b.samples) for b in got) == first + second
    inner = {b.stop for b in got} - {first, again + second}
    assert all(stop % length == 0 for stop in inner)
    assert max(len(b.samples) for b in got) <= length


def test_missing_samples_are_rejected():
    recutter = Reblocker(10)
    list(recutter.push(Block(0, ramp(0, 5))))
    with pytest.raises(ValueError, match="starts at 7, expected 5"):
        list(recutter.push(Block(7, ramp(7, 5))))


def test_a_source_may_reuse_its_array():
    recutter = Reblocker(8)
    buffer = np.empty((6, 1), np.float32)
    got = []
    for start in range(0, 24, 6):
        buffer[:] = ramp(start, 6)
        got += [
            Block(b.start, b.samples.copy())
            for b in recutter.push(Block(start, buffer))
        ]
    assert outline(got) == [(s, ramp(s, 8).tolist()) for s in (0, 8, 16)]


def test_a_reused_array_that_is_kept_whole_is_copied_too():
    """A block of the source's whole array, which is no view, is copied as well."""
    recutter = Reblocker(8)
    buffer = ramp(0, 6).copy()
    list(recutter.push(Block(0, buffer)))
    buffer[:] = -1
    rest = list(recutter.flush())
    assert outline(rest) == [(0, ramp(0, 6).tolist())]


def test_the_arrival_time_is_that_of_the_last_part():
    recutter = Reblocker(8)
    list(recutter.push(Block(0, ramp(0, 5), arrived_ns=100)))
    (block,) = recutter.push(Block(5, ramp(5, 5), arrived_ns=200))
    assert block.arrived_ns == 200
    (rest,) = recutter.flush()
    assert (rest.start, rest.arrived_ns) == (8, 200)


def test_whole_blocks_are_not_copied():
    samples = ramp(0, 32)
    for block in Reblocker(8).push(Block(0, samples)):
        assert np.shares_memory(block.samples, samples)
