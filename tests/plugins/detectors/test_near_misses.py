"""Near misses and traces of the detectors that ship."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from neurovocal.engine import (
    Block,
    BuildContext,
    Gap,
    NearMiss,
    Onset,
    Posteriors,
    StreamInfo,
    Trace,
)
from neurovocal.engine.contracts.bundle import FrontEnd
from neurovocal.engine.contracts.clock import ManualClock
from neurovocal.engine.contracts.options import OptionProblem
from neurovocal.engine.testing import check_processor, gather, recut
from neurovocal.plugins.detectors.energy import EnergyDetector, EnergyOptions
from neurovocal.plugins.detectors.network import NetworkDetector, NetworkOptions
from neurovocal.plugins.detectors.percentile import PercentileOptions, plugin

RATE = 16_000
HOP, FRAME = 160, 320
Samples = NDArray[np.float32]


def room() -> Samples:
    """4 s of noise with a loud tone at 2 s, a quiet one at 2.5 s, a short one at 3."""
    rng = np.random.default_rng(5)
    samples = 0.01 * rng.standard_normal(4 * RATE)
    for at_s, seconds, level in ((2.0, 0.1, 0.2), (2.5, 0.1, 0.018), (3.0, 0.004, 0.2)):
        first, count = round(at_s * RATE), round(seconds * RATE)
        tone = level * np.sin(2 * np.pi * 3000 * np.arange(count) / RATE)
        samples[first : first + count] += tone
    return samples.astype(np.float32)[:, None]


def energy(**options: Any) -> EnergyDetector:
    return EnergyDetector(EnergyOptions(near_misses=True, **options), RATE)


def percentile(**options: Any) -> Any:
    checked = PercentileOptions(scope="running", near_misses=True, **options)
    context = BuildContext(ManualClock(), "run", info=StreamInfo("s", RATE))
    return plugin.build(checked, context)


def network(**options: Any) -> NetworkDetector:
    front_end = FrontEnd(
        sample_rate=RATE, hop_length=HOP, frame_length=FRAME, n_bins=161
    )
    return NetworkDetector(NetworkOptions(**options), front_end, 1)


def posteriors(voiced: list[float], first: int = 0) -> Posteriors:
    values = np.array([[voice, 1 - voice] for voice in voiced], np.float32)
    return Posteriors(first, HOP, FRAME, values)


def events_of(detector: Any, items: list[Any]) -> list[Any]:
    found = [event for item in items for event in detector.process(item)]
    return [*found, *detector.flush()]


def test_a_quiet_tone_and_a_short_one_are_told_with_their_scores() -> None:
    events = events_of(energy(), [Block(0, room())])
    (loud,) = (event for event in events if isinstance(event, Onset))
    quiet, short = (event for event in events if isinstance(event, NearMiss))
    assert loud.score > 20
    assert (quiet.reason, short.reason) == ("quiet", "short")
    assert abs(quiet.onset - 2.5 * RATE) < 0.02 * RATE
    assert abs(quiet.offset - 2.6 * RATE) < 0.02 * RATE
    assert 4.0 <= quiet.score < 10.0 == quiet.threshold
    assert short.score > 20
    assert abs(short.onset - 3.0 * RATE) < 0.01 * RATE


@pytest.mark.parametrize("make", [energy, percentile])
def test_a_detector_with_near_misses_conforms(make: Callable[[], Any]) -> None:
    assert any(isinstance(e, NearMiss) for e in events_of(make(), [Block(0, room())]))
    check_processor(make, room())


@pytest.mark.parametrize("make", [energy, percentile])
@settings(max_examples=10, deadline=None)
@given(lengths=st.lists(st.integers(1, 3000), min_size=1, max_size=8))
def test_near_misses_do_not_depend_on_the_block_lengths(
    make: Callable[[], Any], lengths: list[int]
) -> None:
    whole = gather(make(), [Block(0, room())])
    assert gather(make(), recut(room(), lengths)) == whole


def test_the_whole_file_method_refuses_near_misses() -> None:
    options = PercentileOptions(near_misses=True)
    (problem,) = plugin.check(options, BuildContext(ManualClock(), "run"))
    assert isinstance(problem, OptionProblem)
    assert problem.option == "near_misses"


def test_probabilities_near_the_threshold_have_a_quarter_of_its_odds() -> None:
    voiced = [0.0] * 5 + [0.28] * 5 + [0.0] * 5 + [0.26] * 5 + [0.0] * 5 + [0.9] * 5
    for near_misses in (False, True):
        detector = network(near_misses=near_misses)
        events = events_of(detector, [posteriors(voiced)])
        (onset,) = (event for event in events if isinstance(event, Onset))
        assert onset.sample > 24 * HOP
        found = [event for event in events if isinstance(event, NearMiss)]
        assert [round(m.score, 2) for m in found] == [0.28] * near_misses
        assert [m.threshold for m in found] == [0.6] * near_misses


def test_a_gap_ends_a_near_miss() -> None:
    detector = network(near_misses=True)
    gap = Gap(4 * HOP, 100 * HOP, "lost")
    before, after = posteriors([0.0, 0.5, 0.5]), posteriors([0.5, 0.5, 0.0], first=100)
    events = events_of(detector, [before, gap, after])
    assert [event.reason for event in events if isinstance(event, NearMiss)] == [
        "quiet"
    ] * 2
    assert all(isinstance(event, NearMiss) for event in events)


def traced(detector: Any, items: list[Block]) -> list[Trace]:
    detector.trace()
    traces: list[Trace] = []
    for item in items:
        detector.process(item)
        traces += detector.trace()
    detector.flush()
    return [*traces, *detector.trace()]


@settings(max_examples=10, deadline=None)
@given(lengths=st.lists(st.integers(1, 3000), min_size=1, max_size=8))
def test_a_trace_has_each_hop_once_whatever_the_blocks(lengths: list[int]) -> None:
    whole = traced(energy(), [Block(0, room())])
    parts = traced(energy(), list(recut(room(), lengths)))
    for traces in (whole, parts):
        next_hop = 0
        for trace in traces:
            assert trace.first == next_hop
            assert (trace.hop_length, trace.frame_length) == (16, 16)
            next_hop += len(trace.values)
    rows = np.concatenate([trace.values for trace in whole])
    assert np.array_equal(rows, np.concatenate([trace.values for trace in parts]))
    assert len(rows) == 4000


def test_a_trace_shows_why_a_tone_was_too_quiet() -> None:
    rows = np.concatenate([t.values for t in traced(energy(), [Block(0, room())])])
    score, on, off, floor_db = rows.T
    assert set(on) == {10.0}
    assert set(off) == {8.0}
    assert 4.0 <= score[2520:2580].max() < 10.0 < score[2020:2080].min()
    noise_db = 10 * np.log10(0.01**2)
    assert np.abs(floor_db[1000:] - noise_db).max() < 5.0
    assert np.isfinite(rows).all()


def test_nothing_is_traced_before_somebody_asks_or_after_a_reset() -> None:
    detector = network()
    detector.process(posteriors([0.1, 0.2]))
    assert list(detector.trace()) == []
    detector.process(posteriors([0.1, 0.2], first=2))
    (trace,) = detector.trace()
    assert trace.first == 2
    assert np.allclose(trace.values[:, :3], [[0.1, 0.6, 0.4], [0.2, 0.6, 0.4]])
    assert np.isnan(trace.values[:, 3]).all()
    detector.reset()
    detector.process(posteriors([0.1]))
    assert list(detector.trace()) == []
