"""Latency benchmark: times from hand-over and from the sound."""

import sys

import numpy as np
import pytest
from repository import ROOT

from neurovocal.engine.contracts.types import Ledger, Message, Onset, StreamInfo
from neurovocal.engine.wire.codec import encode

BENCH = ROOT / "bench" / "speed"
sys.path.insert(0, str(BENCH))
import subscriber_latency as latency  # noqa: E402

BLOCK = 128


@pytest.mark.parametrize("late", [0, 1, 127])
def test_an_event_is_timed_from_the_block_that_made_it_known(late: int) -> None:
    began_ns, start = 5_000_000_000, 3 * latency.RATE
    onset, at = start + 20, start + 2 * BLOCK - late
    info = StreamInfo("lane0", latency.RATE)
    wait_ms = round((at - onset) * 1000 / latency.RATE, 3)
    event = Onset(segment=1, sample=onset, score=2.0)
    ledger = Ledger(wait_ms, 0.1, 0.2)
    message = Message(info, event, 0, at, ledger=ledger, emitted_ns=1)
    n_blocks = 4 * latency.RATE // BLOCK
    ends = began_ns + np.arange(n_blocks + 1) * BLOCK * 10**9 // latency.RATE
    arrived_ns = int(ends[(start + 2 * BLOCK) // BLOCK]) + 700_000
    received = [(arrived_ns, encode(message, "run", 0.1))]
    handover, sound = latency.latencies(received, ends, BLOCK, np.array([start]))
    np.testing.assert_allclose(handover["onset"], [0.7])
    np.testing.assert_allclose(sound["onset"], [8.7])
    assert not len(handover["label"])


def test_bursts_begin_where_they_are_said_to() -> None:
    samples, starts = latency.bursts(4.0, seed=3)
    assert len(starts) > 5
    assert np.all(np.abs(samples[starts]) > 0.19)
    quiet = np.concatenate([samples[start - 500 : start] for start in starts])
    assert np.abs(quiet).max() < 0.01
