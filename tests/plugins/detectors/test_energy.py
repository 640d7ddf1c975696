"""Energy detector: levels above a running noise floor."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydantic import ValidationError
from repository import ROOT

from neurovocal.engine.config.schema import load_config
from neurovocal.engine.contracts.clock import ManualClock
from neurovocal.engine.contracts.errors import ConfigError
from neurovocal.engine.contracts.plugin import BuildContext
from neurovocal.engine.contracts.registry import Registry
from neurovocal.engine.contracts.types import Block, Gap, Offset, Onset, StreamInfo
from neurovocal.engine.testing import canonical, check_processor, gather, recut, song
from neurovocal.models.toolkit.segment_scores import SegmentScore, score_segments
from neurovocal.plugins.detectors.energy import (
    EnergyDetector,
    EnergyOptions,
    band,
    plugin,
)

RATE = 32_000
RATES = [2500, 8000, 16_000, 22_000, 32_000, 44_100, 48_000, 96_000, 250_000, 384_000]
PRESETS = ["songbird"]

Samples = NDArray[np.float32]


def make(sample_rate: int = RATE, **options: Any) -> EnergyDetector:
    return EnergyDetector(EnergyOptions(**options), sample_rate)


def noise(sample_rate: int, seconds: float, level: float = 0.01) -> Samples:
    rng = np.random.default_rng(5)
    n_samples = round(sample_rate * seconds)
    return (level * rng.standard_normal(n_samples)).astype(np.float32)[:, None]


def add_tones(
    samples: Samples, sample_rate: int, spans: Iterable[tuple[float, float]], pitch: int
) -> None:
    for onset, offset in spans:
        first, last = round(onset * sample_rate), round(offset * sample_rate)
        time = np.arange(last - first) / sample_rate
        tone = 0.2 * np.sin(2 * np.pi * pitch * time)
        samples[first:last, 0] += tone.astype(np.float32)


def found(
    detector: EnergyDetector, items: Iterable[Block | Gap], sample_rate: int = RATE
) -> list[tuple[float, float]]:
    marks = [mark for item in items for mark in detector.process(item)]
    marks += detector.flush()
    return [
        (m.onset / sample_rate, m.sample / sample_rate)
        for m in marks
        if isinstance(m, Offset)
    ]


def agree(
    expected: list[tuple[float, float]],
    detected: list[tuple[float, float]],
    tolerance: float = 0.005,
) -> bool:
    score = score_segments(expected, detected, tolerance)
    return score.hits == score.n_reference == score.n_found


@pytest.mark.parametrize("sample_rate", RATES)
def test_conformance(sample_rate: int) -> None:
    seconds = 3.0 if sample_rate < 100_000 else 1.5
    options: dict[str, Any] = {"settle_s": 0.2}
    if sample_rate > 96_000:
        options["low_hz"] = 10_000
    samples = song(sample_rate, seconds)
    check_processor(lambda: make(sample_rate, **options), samples)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.integers(1, 5000), min_size=1, max_size=10),
    st.integers(0, 10_000),
    st.sampled_from([0, 1, 31, 777, 200_000]),
)
def test_marks_do_not_depend_on_block_cuts(
    lengths: list[int], start: int, lost: int
) -> None:
    samples = song(RATE, 2.5, seed=3)
    half = len(samples) // 2
    gap = Gap(start + half, start + half + lost, "overrun")

    def items(first: list[int], second: list[int]) -> list[Block | Gap]:
        return [
            *recut(samples[:half], first, start),
            gap,
            *recut(samples[half:], second, gap.stop),
        ]

    whole = gather(make(), items([half], [half]))
    assert whole
    assert gather(make(), items(lengths, lengths[::-1])) == whole


@pytest.mark.parametrize("sample_rate", RATES)
def test_tones_in_noise_are_found_at_any_rate(sample_rate: int) -> None:
    low, high = band(EnergyOptions(), sample_rate)
    spans = [(0.5, 0.6), (0.7, 0.75), (1.2, 1.6)]
    samples = noise(sample_rate, 2.0)
    add_tones(samples, sample_rate, spans, round((low * high) ** 0.5))
    detected = found(make(sample_rate), [Block(0, samples)], sample_rate)
    # A narrow band is averaged over longer, which widens what it finds.
    tolerance = 0.002 + 12 / (high - low)
    assert agree(spans, detected, tolerance)


@pytest.mark.parametrize("sample_rate", [2500, 8000, 32_000, 96_000])
@pytest.mark.parametrize("offset", [0.0, 0.5])
def test_steady_noise_makes_no_segment(sample_rate: int, offset: float) -> None:
    samples = noise(sample_rate, 60.0 if sample_rate < 50_000 else 20.0)
    assert found(make(sample_rate), [Block(0, samples + np.float32(offset))]) == []


def test_slowly_rising_noise_makes_no_segment() -> None:
    samples = noise(RATE, 60.0)
    samples *= 10 ** (np.linspace(-20, 0, len(samples)) / 20)[:, None].astype("f")
    assert found(make(), [Block(0, samples)]) == []


def test_the_floor_follows_louder_noise_within_seconds() -> None:
    samples = noise(RATE, 40.0)
    samples[10 * RATE :] *= 10
    detected = found(make(), [Block(0, samples)])
    assert detected
    assert detected[-1][1] < 10 + 15


def test_the_floor_follows_softer_noise_within_seconds() -> None:
    samples = noise(RATE, 12.0)
    samples[6 * RATE :] /= 10
    spans = [(8.0, 8.1), (9.0, 9.05)]
    soft = np.zeros_like(samples)
    add_tones(soft, RATE, spans, 3000)
    # Far below what the background was, far above what it is.
    samples += soft / 50
    assert agree(spans, found(make(), [Block(0, samples)]))


def test_the_floor_stays_during_minutes_of_song() -> None:
    spans = [(0.5 + 0.1 * k, 0.58 + 0.1 * k) for k in range(1200)]
    samples = noise(RATE, 121.0, level=0.001)
    add_tones(samples, RATE, spans, 3000)
    assert agree(spans, found(make(), recut(samples, [1024])))


def test_a_stream_that_begins_within_a_song() -> None:
    spans = [(0.1 * k, 0.1 * k + 0.07) for k in range(30)]
    samples = noise(RATE, 3.5, level=0.001)
    add_tones(samples, RATE, spans, 3000)
    assert agree(spans, found(make(), [Block(0, samples)]))


def test_a_prior_of_the_floor_holds_nothing_back() -> None:
    samples = noise(RATE, 2.5)
    samples[:RATE] *= 30
    detector = make(floor_db=-44.0)
    assert detector.latency < 0.03 * RATE
    marks = [*detector.process(Block(0, samples[: RATE // 20]))]
    assert [m.sample for m in marks if isinstance(m, Onset)] == [0]
    assert agree([(0.0, 1.0)], found(make(floor_db=-44.0), [Block(0, samples)]))


def test_a_tone_after_digital_silence_is_a_segment() -> None:
    samples = np.zeros((10 * RATE, 1), dtype=np.float32)
    assert found(make(), [Block(0, samples)]) == []
    spans = [(4.0, 4.2), (6.0, 7.5)]
    add_tones(samples, RATE, spans, 3000)
    assert agree(spans, found(make(), recut(samples, [1024])))


def test_a_constant_offset_of_the_input_makes_no_segment() -> None:
    samples = np.full((3 * RATE, 1), 0.7, dtype=np.float32)
    assert found(make(), [Block(0, samples)]) == []


def test_clipped_song_has_the_same_onsets_and_offsets() -> None:
    spans = [(0.5, 0.6), (0.8, 0.85), (1.4, 1.7)]
    samples = noise(RATE, 2.5, level=0.001)
    add_tones(samples, RATE, spans, 3000)
    clipped = np.clip(samples * 20, -1, 1)
    assert agree(spans, found(make(), [Block(0, clipped)]))


def test_a_gap_truncates_the_segment_and_keeps_the_floor() -> None:
    samples = noise(RATE, 4.0)
    add_tones(samples, RATE, [(1.9, 2.1), (2.15, 2.3)], 3000)
    half = 2 * RATE
    detector = make()
    marks = [*detector.process(Block(0, samples[:half]))]
    marks += detector.process(Gap(half, half + 100, "overrun"))
    assert isinstance(marks[-1], Offset)
    assert marks[-1].truncated
    assert marks[-1].sample == half
    # 150 ms after the gap, long before a new floor could have settled.
    after = detector.process(
        Block(half + 100, samples[half : half + round(0.2 * RATE)])
    )
    assert [type(m) for m in after] == [Onset, Offset, Onset]
    # Within a hop: an incomplete one is left out.
    assert after[0].sample == pytest.approx(half + 100, abs=RATE // 1000)


def test_an_empty_gap_resets_the_floor() -> None:
    first, second = noise(RATE, 3.0), 20 * noise(RATE, 3.0)
    stop = len(first)
    items = [Block(0, first), Gap(stop, stop, "next recording"), Block(stop, second)]
    assert found(make(), items) == []


def test_marks_are_not_later_than_the_latency() -> None:
    samples = song(RATE, 6.0)
    detector = make()
    for block in recut(samples, [100]):
        for mark in detector.process(block):
            assert mark.sample >= block.stop - detector.latency - 100


def test_an_onset_is_published_within_milliseconds() -> None:
    samples = noise(RATE, 4.0)
    add_tones(samples, RATE, [(2.0, 2.5)], 3000)
    detector = make()
    for block in recut(samples, [32]):
        marks = list(detector.process(block))
        if marks:
            break
    assert marks[0].sample == pytest.approx(2 * RATE, abs=0.003 * RATE)
    assert block.stop - 2 * RATE < 0.015 * RATE
    assert isinstance(marks[0], Onset)
    assert 20 < marks[0].score < 40  # dB above the floor


def test_buffers_widen_segments() -> None:
    samples = noise(RATE, 3.0)
    add_tones(samples, RATE, [(2.0, 2.1)], 3000)
    ((onset, offset),) = found(make(pre_ms=20, post_ms=30), [Block(0, samples)])
    assert onset == pytest.approx(1.98, abs=0.003)
    assert offset == pytest.approx(2.13, abs=0.003)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"low_hz": 20_000}, "more than 44444 Hz, not 32000 Hz: record at a higher"),
        ({"low_hz": 12_000}, "empty: set low_hz below 10000 Hz or high_hz above 12000"),
        (
            {"hop_ms": 0.01, "smooth_ms": 1000},
            "over 32000 hops, at most 2000 are possible: raise hop_ms",
        ),
    ],
)
def test_check_reports_contradictory_options(
    options: dict[str, Any], sentence: str
) -> None:
    context = BuildContext(ManualClock(), "run", info=StreamInfo("s", RATE))
    parsed = EnergyOptions(**options)
    (problem,) = plugin.check(parsed, context)
    with pytest.raises(ConfigError, match=sentence):
        plugin.build(parsed, context)
    assert problem


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"on_db": 5, "off_db": 6}, r"off_db \(6\) is above on_db \(5\)"),
        ({"on_db": 5}, r"off_db \(8\) is above on_db \(5\)"),
        ({"min_duration_ms": 50, "max_duration_ms": 20}, r"\(50\) is above .* \(20\)"),
        ({"low_hz": 900, "high_hz": 900}, r"low_hz \(900\) is equal to high_hz"),
    ],
)
def test_contradictory_options_are_refused(
    options: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ValidationError, match=sentence):
        EnergyOptions(**options)


def test_a_band_above_half_the_rate_is_found_by_the_check() -> None:
    context = BuildContext(ManualClock(), "run", info=StreamInfo("s", RATE))
    (problem,) = plugin.check(EnergyOptions(high_hz=99_999), context)
    assert problem == (
        "99999 Hz is above half the rate of the stream: at 32000 Hz there is nothing "
        "above 16000 Hz"
    )


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_complete_configurations(name: str) -> None:
    config, _ = load_config(name)
    (lane,) = config.lanes
    registry = Registry()
    for kind, stage in [("source", lane.source), *(("sink", s) for s in lane.sinks)]:
        registry.get(kind, stage.plugin).options.model_validate(stage.options)
    assert lane.detector is not None
    assert lane.detector.plugin == "energy"
    rate = lane.source.options["sample_rate"]
    options = EnergyOptions.model_validate(lane.detector.options)
    samples = noise(rate, 3.0, level=0.005)
    low, high = band(options, rate)
    spans = [(1.5, 1.5 + options.min_duration_ms / 500)]
    add_tones(samples, rate, spans, round((low * high) ** 0.5))
    detected = found(EnergyDetector(options, rate), [Block(0, samples)], rate)
    assert len(detected) == 1
    tolerance = 0.002 + options.pre_ms / 1000 + (options.smooth_ms or 2) / 1000
    assert agree(spans, detected, tolerance)


def test_finch_song_of_a_held_out_day(data_folder: Path) -> None:
    import soundfile

    folder = data_folder / "finch_gy6or6"
    expected: dict[str, list[tuple[float, float]]] = {}
    for row in (folder / "annotations.csv").read_text(encoding="utf-8").splitlines():
        name, onset, offset, _ = row.split(",")
        if "250312" in name:
            expected.setdefault(name, []).append((float(onset), float(offset)))
    assert len(expected) == 12
    total = SegmentScore(0, 0, 0)
    for name, spans in expected.items():
        samples, rate = soundfile.read(folder / name, dtype="float32", always_2d=True)
        detected = found(make(rate), recut(samples, [1024]), rate)
        total += score_segments(spans, detected, 0.010)
    assert total.f1 >= 0.97


def test_real_song_gives_equal_events_for_any_block_length(data_folder: Path) -> None:
    import soundfile

    path = sorted((data_folder / "finch_gy6or6" / "audio").glob("*230312*"))[0]
    samples, sample_rate = soundfile.read(path, dtype="float32", always_2d=True)
    whole = gather(make(sample_rate), [Block(0, samples)])
    assert len(whole) > 20
    for length in (64, 333, 1024, 48_000):
        assert gather(make(sample_rate), recut(samples, [length])) == whole
    assert whole == [canonical(e) for e in _replayed(samples, sample_rate)]


def _replayed(samples: Samples, sample_rate: int) -> list[Any]:
    detector = make(sample_rate)
    list(detector.process(Block(0, samples[:50_000])))
    detector.reset()
    return [*detector.process(Block(0, samples)), *detector.flush()]


def recording() -> tuple[Samples, int]:
    import soundfile

    path = ROOT / "configs/recordings/bengalese-finch.flac"
    samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    return samples[: 10 * rate], rate


@pytest.mark.parametrize("seconds", [0.3, 1.5, 20.0])
def test_zeros_at_the_start_of_a_stream_change_no_segment(seconds: float) -> None:
    samples, rate = recording()
    plain = found(make(rate), [Block(0, samples)])
    zeros = np.zeros((round(seconds * rate), 1), np.float32)
    after = found(make(rate), [Block(0, np.concatenate([zeros, samples]))])
    moved = [(onset + seconds, offset + seconds) for onset, offset in plain]
    assert score_segments(moved, after, 0.01).f1 > 0.96


def test_zeros_for_seconds_keep_the_floor() -> None:
    samples, rate = recording()
    zeros = np.zeros((3 * rate, 1), np.float32)
    parts = [samples[: 5 * rate], zeros, samples[5 * rate :]]
    after = found(make(rate), [Block(0, np.concatenate(parts))])
    plain = found(make(rate), [Block(0, samples)])
    moved = [
        (onset + 3 * (onset >= 5), offset + 3 * (onset >= 5)) for onset, offset in plain
    ]
    assert score_segments(moved, after, 0.01).f1 > 0.96


@pytest.mark.parametrize("seconds", [0.05, 0.5, 2.0])
def test_a_loud_tone_after_digital_silence_is_a_segment(seconds: float) -> None:
    tone = 0.3 * np.sin(2 * np.pi * 3000 * np.arange(round(RATE * seconds)) / RATE)
    zeros = np.zeros(2 * RATE)
    samples = np.concatenate([zeros, tone, zeros]).astype(np.float32)[:, None]
    ((onset, offset),) = found(make(), [Block(0, samples)])
    assert abs(onset - 2.0) < 0.01
    assert abs(offset - 2.0 - seconds) < 0.02
