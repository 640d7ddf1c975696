"""Speed benchmark: the bare loop gives what the lane gives, and both are measured."""

import sys

import numpy as np
from repository import ROOT

from neurovocal.engine.cli.commands.bench import load
from neurovocal.engine.contracts.types import Block, Posteriors, StreamInfo, Surprise
from neurovocal.engine.lane.builder import build_lane

sys.path.insert(0, str(ROOT / "bench" / "speed"))
import bare_loop

TILE = 8
PLAN, RECORDING, RATE = load("demo", None, [])
SECONDS = 5


def test_the_bare_loop_gives_the_posteriors_of_the_lane() -> None:
    """Its frame k + 1 is frame k of the lane; the network forgets where it began."""
    lane = PLAN.lanes[0]
    bundle = lane.bundle
    assert bundle is not None
    bare = bare_loop.BareLoop(bundle, TILE, ("classifier", "rnn_rbm"))
    samples = RECORDING[: SECONDS * RATE]
    logits, predictions, loud = [], [], []
    step = bare.samples_per_call
    for start in range(0, len(samples) // step * step, step):
        part = samples[start : start + step, 0]
        is_loud, (classified, scored) = bare.process(part)
        loud.append(is_loud)
        logits.append(classified[0])
        predictions.append(scored[1])
    exponentials = np.exp(np.concatenate(logits).reshape(-1, logits[0].shape[-1]))
    expected = exponentials / exponentials.sum(axis=1, keepdims=True)

    context = PLAN.context
    built = build_lane(lane, StreamInfo("x", RATE, 1), 0, context, wants_frames=True)
    steps = [*built.process(Block(0, samples)), *built.flush()]
    events = [event for step in steps for event in step.events]
    found = np.concatenate([e.values for e in events if isinstance(e, Posteriors)])
    last = slice(4 * RATE // 128, len(expected) - TILE)
    shifted = expected[1:]
    np.testing.assert_allclose(found[last], shifted[last], atol=1e-5)
    assert any(isinstance(event, Surprise) for event in events)
    assert np.concatenate(predictions).size == len(expected) * 129
    assert 0.1 < np.concatenate(loud).mean() < 0.9


def test_a_round_measures_lane_and_bare_loop_and_the_parts_of_the_lane() -> None:
    pair = bare_loop.Pair(PLAN, TILE, 1)
    for _ in range(2):
        pair.run(RECORDING[: RATE // 2])
    cost = pair.cost()
    assert cost.stages == "detector + classifier"
    assert list(cost.parts_us) == ["spectrogram", "energy", "classifier", "around them"]
    assert cost.bare_us > 0
    assert cost.lane_us > 0
    assert all(us > 0 for us in cost.parts_us.values())
