"""Percentile detector: the segments of a whole file, or a running threshold."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydantic import ValidationError

from neurovocal.engine.contracts.clock import ManualClock
from neurovocal.engine.contracts.errors import StageError
from neurovocal.engine.contracts.plugin import BuildContext
from neurovocal.engine.contracts.types import Block, Gap, Offset, StreamInfo
from neurovocal.engine.testing import check_processor, gather, recut, song
from neurovocal.models.toolkit.segment_scores import score_segments
from neurovocal.plugins.detectors.percentile import PercentileOptions, plugin

RATE = 32_000


def make(sample_rate: int = RATE, **options: Any) -> Any:
    context = BuildContext(ManualClock(), "run", info=StreamInfo("s", sample_rate))
    return plugin.build(PercentileOptions(**options), context)


def whole_file(x: NDArray[np.float32], rate: int) -> list[tuple[int, int]]:
    """Compute the method step by step with a convolution and a loop over samples."""
    width = round(0.004 * rate)
    full = np.convolve(np.abs(x.astype(np.float64)), np.full(width, 1 / width))
    smoothed = full[(width - 1) // 2 :][: len(x)]
    # Summation order differs: equal values may come out a few ulp apart.
    loud = smoothed >= np.percentile(smoothed, 90) * (1 - 1e-12)
    runs: list[list[int]] = []
    for i in np.flatnonzero(loud):
        if runs and i - runs[-1][1] < max(1, round(0.002 * rate)):
            runs[-1][1] = int(i) + 1
        else:
            runs.append([int(i), int(i) + 1])
    runs = [r for r in runs if 0.015 * rate <= r[1] - r[0] <= 0.5 * rate]
    buffer = round(0.005 * rate)
    segments: list[tuple[int, int]] = []
    for k, (start, stop) in enumerate(runs):
        left = segments[-1][1] if segments else 0
        right = runs[k + 1][0] if k + 1 < len(runs) else len(x)
        segments.append((max(start - buffer, left), min(stop + buffer, right)))
    return segments


def spans(stage: Any, items: list[Block | Gap]) -> list[tuple[int, int]]:
    marks = [mark for item in items for mark in stage.process(item)]
    marks += stage.flush()
    return [(m.onset, m.sample) for m in marks if isinstance(m, Offset)]


@pytest.mark.parametrize("scope", ["file", "running"])
def test_conformance(scope: str) -> None:
    samples = song(RATE, 3.0)
    check_processor(lambda: make(scope=scope, settle_s=0.2), samples)


@settings(max_examples=20, deadline=None)
@given(
    st.integers(0, 50),
    st.lists(st.integers(1, 9000), min_size=1, max_size=6),
    st.sampled_from([8000, 22_050, 32_000]),
)
def test_file_scope_gives_the_segments_of_the_whole_file(
    seed: int, lengths: list[int], rate: int
) -> None:
    samples = song(rate, 4.0, seed=seed)
    expected = whole_file(samples[:, 0], rate)
    assert expected
    assert spans(make(rate), list(recut(samples, lengths))) == expected


def test_file_scope_on_real_song(data_folder: Path) -> None:
    import soundfile

    path = sorted((data_folder / "finch_gy6or6" / "audio").glob("*230312*"))[0]
    samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    expected = whole_file(samples[:, 0], rate)
    assert len(expected) > 10
    assert spans(make(rate), list(recut(samples, [1024]))) == expected


def burst_file(*lengths_ms: float, pause_ms: float = 100) -> NDArray[np.float32]:
    """Return bursts of ones in zeros; without smoothing, the runs are the bursts."""
    parts = [np.zeros(RATE * 6)]
    for length in lengths_ms:
        parts += [np.ones(round(length * RATE / 1000)), np.zeros(int(pause_ms * 32))]
    return np.concatenate(parts).astype(np.float32)[:, None]


def with_noise(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """Add soft noise to digital silence, since its percentile would be zero."""
    hiss = np.random.default_rng(0).integers(0, 8, len(samples)) / 2**23
    return np.where(samples == 0, hiss[:, None], samples).astype(np.float32)


def file_spans(samples: NDArray[np.float32], **options: Any) -> list[int]:
    options = {"smooth_ms": 1 / 32, "buffer_ms": 0, **options}
    found = spans(make(**options), [Block(0, with_noise(samples))])
    return [stop - start for start, stop in found]


def test_minimum_and_maximum_duration_are_inclusive() -> None:
    # 1 ms is 32 samples.
    short, just, long, longer = 14.96875, 15, 500, 500.03125
    found = file_spans(burst_file(short, just, long, longer))
    assert found == [15 * 32, 500 * 32]


@pytest.mark.parametrize(("pause_ms", "runs"), [(1.96875, [1343]), (2, [640] * 2)])
def test_runs_closer_than_the_spacing_are_joined(
    pause_ms: float, runs: list[int]
) -> None:
    samples = np.zeros((RATE * 10, 1), dtype=np.float32)
    pause = round(pause_ms * 32)
    samples[5000:5640] = samples[5640 + pause : 6280 + pause] = 1
    assert file_spans(samples, percentile=99.7) == runs


def test_buffers_end_at_neighbours_and_at_the_ends_of_the_file() -> None:
    samples = np.zeros((RATE * 2, 1), dtype=np.float32)
    samples[:1000] = samples[5000:6000] = samples[6100:7000] = 1
    stage = make(percentile=96, smooth_ms=1 / 32)
    found = spans(stage, [Block(0, with_noise(samples))])
    assert found == [(0, 1160), (4840, 6100), (6100, 7160)]


def test_a_gap_ends_the_file() -> None:
    first, second = song(RATE, 3.0, seed=1), song(RATE, 3.0, seed=2)
    gap = Gap(len(first), len(first) + 500, "overrun")
    found = spans(make(), [Block(0, first), gap, Block(gap.stop, second)])
    shifted = [(a + gap.stop, b + gap.stop) for a, b in whole_file(second[:, 0], RATE)]
    assert found == whole_file(first[:, 0], RATE) + shifted


def test_silence_has_no_segments() -> None:
    samples = np.zeros((3 * RATE, 1), dtype=np.float32)
    assert spans(make(), [Block(0, samples)]) == []
    assert spans(make(scope="running"), [Block(0, samples)]) == []


def test_a_file_longer_than_max_file_s_is_refused() -> None:
    stage = make(max_file_s=1.0)
    assert stage.latency == RATE
    list(stage.process(Block(0, np.zeros((RATE, 1), dtype=np.float32))))
    with pytest.raises(StageError, match=r"longer than max_file_s \(1 s\).*'running'"):
        stage.process(Block(RATE, np.zeros((1, 1), dtype=np.float32)))


def test_running_scope_returns_marks_during_the_stream() -> None:
    samples = song(RATE, 6.0, seed=4)
    stage = make(scope="running")
    marks = gather(stage, recut(samples, [1024]), flush=False)
    assert len(marks) > 10
    for block in recut(samples, [1024], start=0):
        for mark in make(scope="running").process(block):
            assert mark.sample >= block.stop - stage.latency


def test_running_scope_finds_complete_rare_sounds() -> None:
    samples = (1e-3 * np.random.default_rng(0).standard_normal(10 * RATE))[:, None]
    samples = samples.astype(np.float32)
    # 1.5 % of the time: the 97th percentile is one of the noise.
    bursts = [(3 * RATE, 3 * RATE + 1600), (5 * RATE, 5 * RATE + 1600)]
    for start, stop in bursts:
        samples[start:stop, 0] += 0.2
    stage = make(scope="running", buffer_ms=0, percentile=97)
    found = spans(stage, list(recut(samples, [777])))
    score = score_segments(bursts, found, tolerance=0.005 * RATE)
    assert score.hits == 2
    assert score.n_found == 2


def test_contradictory_lengths_are_refused() -> None:
    with pytest.raises(ValidationError, match=r"min_duration_ms \(15\) is above"):
        make(max_duration_ms=10)
