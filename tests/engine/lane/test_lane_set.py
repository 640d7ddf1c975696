"""Lane set: channels that process together have the events of lanes of their own."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stages.channels import Pair, Run, array_of
from stages.lanes import RATE, make_lane, script

from neurovocal.plugins.detectors.channels.band_excess import BandExcesses

ARRAY = array_of(4, RATE, 1.6)
LONG = array_of(4, RATE, 5.0)
GAPS = st.lists(
    st.tuples(st.integers(0, len(ARRAY)), st.sampled_from([0, 7, 4000, 9000])),
    max_size=2,
)
LENGTHS = st.lists(
    st.one_of(st.integers(100, 300), st.integers(100, 5000)), min_size=1, max_size=20
)


KINDS = {
    "detector": {"models": 0},
    "model": {"models": 1},
    "bands": {"models": 0, "detector": "bands"},
    "excess": {"models": 0, "detector": "excess"},
    "network": {"models": 0, "detector": "network", "bundle": "any-animal"},
}


@pytest.fixture(scope="module", params=KINDS)
def pair(request):
    return Pair(lambda: make_lane(**KINDS[request.param]), ARRAY.shape[1], RATE)


@pytest.mark.parametrize("length", [333, 1024, 8000])
def test_events_are_those_of_lanes_of_their_own(pair, length):
    items = script(ARRAY, [(20_000, 500)], [length])
    alone, together = pair.play(items)
    assert together.events == alone.events
    assert together.blocks_together > 0
    found = [event[0] for _, events in alone.events[0] for event in events]
    assert found.count("Onset") >= 3


def test_settled_channels_of_band_detectors_are_computed_together(pair, monkeypatch):
    if not hasattr(pair.lanes[True][0].detector.stage, "band_edges_hz"):
        pytest.skip("another kind of detector")
    real, adopted = BandExcesses.adopt, []

    def adopt(self):
        found = real(self)
        adopted.extend(found)
        return found

    monkeypatch.setattr(BandExcesses, "adopt", adopt)
    alone, together = pair.play(script(LONG, [(50_000, 500)], [1023]))
    assert together.events == alone.events
    assert set(adopted) >= {0, 1}


@settings(max_examples=15, deadline=None)
@given(gaps=GAPS, lengths=LENGTHS)
def test_events_do_not_depend_on_blocks_and_gaps(pair, gaps, lengths):
    items = script(ARRAY, gaps, lengths, anchors=True)
    alone, together = pair.play(items)
    assert together.events == alone.events


class Fails:
    """Stage whose `process` fails at its items of these numbers; the rest is another's.

    It has no batch, so that it is called channel by channel.
    """

    def __init__(self, stage, at):
        self._stage, self._at, self._n = stage, frozenset(at), 0

    def __getattr__(self, name):
        if name in ("batch", "trace"):
            raise AttributeError(name)
        return getattr(self._stage, name)

    def process(self, item):
        self._n += 1
        if self._n in self._at:
            raise RuntimeError(f"item {self._n}")
        return self._stage.process(item)


def with_failing(kind, channel, at, on_error):
    """Return lanes of which that of one channel has a stage that fails."""

    def build(index):
        lane = make_lane()
        stage = {"detector": lane.detector, "model": lane.models[0]}[kind]
        stage.on_error = on_error
        if index == channel:
            stage.stage = Fails(stage.stage, at)
        return lane

    return build


@pytest.mark.parametrize("kind", ["detector", "model"])
@pytest.mark.parametrize("on_error", ["skip", "restart", "fail"])
def test_a_failing_stage_is_the_failure_of_its_channel_alone(kind, on_error):
    if kind == "model" and on_error == "fail":
        pytest.skip("a model that fails so ends the run")
    items = script(ARRAY, [], [1500])
    build = with_failing(kind, 1, [4, 9], on_error)
    runs = [Run(build, 4, rate=RATE, together=together) for together in (False, True)]
    for run in runs:
        run.play(items)
    alone, together = runs
    assert together.events == alone.events
    assert [report[0] for report in together.reports] == [
        report[0] for report in alone.reports
    ]
    assert together.blocks_together > 0


class BatchFails:
    """Batch that computes nothing any more after some items."""

    def __init__(self, batch, after):
        self._batch, self._left = batch, after

    def __getattr__(self, name):
        return getattr(self._batch, name)

    def compute(self, item):
        self._left -= 1
        if self._left < 0:
            raise MemoryError("no room")
        return self._batch.compute(item)


@pytest.mark.parametrize("kind", ["features", "detector"])
def test_a_batch_that_fails_changes_nothing(pair, kind, monkeypatch):
    stage = getattr(pair.lanes[True][0], kind).stage
    real = type(stage).batch

    def failing(self, stages):
        batch = real(self, stages)
        return None if batch is None else BatchFails(batch, after=3)

    monkeypatch.setattr(type(stage), "batch", failing)
    alone, together = pair.play(script(ARRAY, [(9000, 10)], [2000]))
    assert together.events == alone.events
    assert together.blocks_together > 0


@pytest.mark.parametrize("every", [1, 3])
def test_lanes_may_be_released_between_any_two_steps(pair, every):
    calls = []

    def release(run):
        calls.append(1)
        if len(calls) % every == 0:
            run.group.release()

    items = script(ARRAY, [(20_000, 500)], [5000])
    alone, together = pair.play(items, after_step=release)
    assert together.events == alone.events
    assert len(calls) > 5


def test_rows_that_nobody_takes_are_not_made_but_counted(pair):
    items = script(ARRAY, [], [1024])
    alone, together = pair.play(items, wants=lambda kind: kind != "frames")

    def rest(events):
        kept = [[event for event in step if event[0] != "Frames"] for _, step in events]
        return [step for step in kept if step]

    assert [rest(e) for e in together.events] == [rest(e) for e in alone.events]
    counts = [
        (run.channels[0].counts["frames"], count_of(run, "Frames"))
        for run in (alone, together)
    ]
    assert counts[0][1] == sum(counts[1])
    assert counts[1][0] > 0


def count_of(run, kind):
    return sum(event[0] == kind for _, step in run.events[0] for event in step)
