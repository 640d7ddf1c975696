"""Closed-loop benchmark: delays in a recording, and a real loop."""

import json
import subprocess
import sys

import numpy as np
import pytest
from audio_devices.virtual_speaker import needs_virtual_speaker
from processes.waiting import PROCESS_S
from repository import ROOT

BENCH = ROOT / "bench" / "speed"
sys.path.insert(0, str(BENCH))
import loop  # noqa: E402


def test_delays_are_counted_from_sound_to_answer() -> None:
    """The player pauses once, and one sound has no answer."""
    rng = np.random.default_rng(2)
    sound = loop.syllable()
    stimulus, starts = loop.stimulus_of(sound, 12, rng)
    paused = int(starts[5]) + len(sound) + 1000
    left = np.concatenate(
        [np.zeros(777), stimulus[:paused], np.zeros(900), stimulus[paused:]]
    )
    recorded = np.stack([left, np.zeros_like(left)], axis=1).astype(np.float32)
    expected = rng.integers(300, 9000, 12)
    expected[3] = 0
    for index, (start, delay) in enumerate(zip(starts, expected, strict=True)):
        at = 777 + int(start) + (900 if index > 5 else 0) + int(delay)
        if delay:
            recorded[at : at + 160, 1] = 0.5
    delays = loop.delays_in(recorded, sound, starts)
    assert np.isnan(delays[3])
    known = expected > 0
    np.testing.assert_allclose(delays[known], expected[known] / loop.RATE * 1000)


@pytest.mark.long
@needs_virtual_speaker
def test_real_loop_answers_every_sound() -> None:
    command = [sys.executable, str(BENCH / "loop.py"), "--triggers", "20"]
    done = subprocess.run(
        [*command, "--mode", "provisional"],
        capture_output=True,
        text=True,
        timeout=PROCESS_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout.splitlines()[0])
    assert found["outcomes"]["played"] == 20
    # No answer can precede the label.
    assert 20 < found["measured_ms"]["p50"] < 200
