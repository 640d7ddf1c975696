"""Share of the segments of a long stream that short ones find."""

import subprocess
import sys

import numpy as np
import pytest
from repository import ROOT
from short_streams import Counts, compare, in_pieces


def test_a_call_counts_when_half_of_it_is_covered_and_a_cut_one_apart() -> None:
    calls = [(0.5, 0.7), (0.9, 1.1), (1.5, 1.7), (2.5, 2.6)]
    whole = [(0.5, 0.7), (0.9, 1.1), (1.5, 1.7), (1.8, 1.9)]
    pieces = [(0.5, 0.55), (0.95, 1.0), (1.0, 1.1), (1.3, 1.4), (1.55, 1.66), (2, 2.1)]
    assert compare(calls, whole, pieces) == Counts(2, 1, 1, 1, 1, 2)


def test_pieces_are_streams_of_their_own() -> None:
    rate = 32_000
    samples = 1e-3 * np.random.default_rng(0).standard_normal(3 * rate)
    for second in range(3):
        first = round((second + 0.4) * rate)
        samples[first : first + rate // 10] += np.sin(0.6 * np.arange(rate // 10))
    found = in_pieces("energy", samples.astype(np.float32), rate)
    onsets = [onset for onset, _ in found]
    assert onsets == pytest.approx([0.4, 1.4, 2.4], abs=0.005)


def test_missing_recordings_end_with_a_message(tmp_path) -> None:
    script = ROOT / "bench" / "detection" / "short_streams.py"
    done = subprocess.run(
        [sys.executable, script, "energy"],
        env={"NEUROVOCAL_DATA": str(tmp_path / "absent")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, "Traceback" in done.stderr) == (1, False)
    assert "NEUROVOCAL_DATA" in done.stderr
