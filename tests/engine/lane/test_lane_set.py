"""Lane set: channels that process together have the events of lanes of their own."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stages.channels import Pair, array_of
from stages.lanes import RATE, make_lane, script

ARRAY = array_of(4, RATE, 1.6)
GAPS = st.lists(
    st.tuples(st.integers(0, len(ARRAY)), st.sampled_from([0, 7, 4000, 9000])),
    max_size=2,
)
LENGTHS = st.lists(
    st.one_of(st.integers(100, 300), st.integers(100, 5000)), min_size=1, max_size=20
)


@pytest.fixture(scope="module", params=[0, 1], ids=["detector", "model"])
def pair(request):
    return Pair(lambda: make_lane(models=request.param), ARRAY.shape[1], RATE)


@pytest.mark.parametrize("length", [333, 1024, 8000])
def test_events_are_those_of_lanes_of_their_own(pair, length):
    items = script(ARRAY, [(20_000, 500)], [length])
    alone, together = pair.play(items)
    assert together.events == alone.events
    assert together.blocks_together > 0
    found = [event[0] for _, events in alone.events[0] for event in events]
    assert found.count("Onset") >= 3


@settings(max_examples=15, deadline=None)
@given(gaps=GAPS, lengths=LENGTHS)
def test_events_do_not_depend_on_blocks_and_gaps(pair, gaps, lengths):
    items = script(ARRAY, gaps, lengths, anchors=True)
    alone, together = pair.play(items)
    assert together.events == alone.events
