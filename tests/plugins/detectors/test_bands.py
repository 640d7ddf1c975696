"""Bands detector: sounds in whichever band, without knowing the animal."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
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
from neurovocal.engine.contracts.types import (
    Block,
    Gap,
    NearMiss,
    Offset,
    Onset,
    StreamInfo,
)
from neurovocal.engine.testing import check_processor, gather, recut, song
from neurovocal.models.toolkit.segment_scores import score_segments
from neurovocal.plugins.detectors.band_excess import measure_floor
from neurovocal.plugins.detectors.bands import BandsOptions, make_detector, plugin
from neurovocal.plugins.detectors.scored_excess import ScoredExcessDetector

RATE = 32_000
RATES = [1000, 2500, 8000, 16_000, 22_000, 44_100, 96_000, 250_000, 500_000]

Samples = NDArray[np.float32]
Spans = list[tuple[float, float]]


def make(sample_rate: int = RATE, **options: Any) -> ScoredExcessDetector:
    return make_detector(BandsOptions(**options), sample_rate)


def noise(sample_rate: int, seconds: float, level: float = 0.01) -> Samples:
    rng = np.random.default_rng(5)
    samples = level * rng.standard_normal(round(sample_rate * seconds))
    return samples.astype(np.float32)[:, None]


def add_tones(
    samples: Samples,
    sample_rate: int,
    spans: Iterable[tuple[float, float]],
    pitch: float,
    level: float = 0.2,
) -> None:
    for onset, offset in spans:
        first, last = round(onset * sample_rate), round(offset * sample_rate)
        time = np.arange(last - first) / sample_rate
        tone = level * np.sin(2 * np.pi * pitch * time)
        samples[first:last, 0] += tone.astype(np.float32)


def found(
    detector: ScoredExcessDetector,
    items: Iterable[Block | Gap],
    sample_rate: int = RATE,
) -> Spans:
    marks = [mark for item in items for mark in detector.process(item)]
    marks += detector.flush()
    return [
        (m.onset / sample_rate, m.sample / sample_rate)
        for m in marks
        if isinstance(m, Offset)
    ]


def agree(expected: Spans, detected: Spans, tolerance: float = 0.008) -> bool:
    score = score_segments(expected, detected, tolerance)
    return score.hits == score.n_reference == score.n_found


def chirps(seconds: float, seed: int = 3) -> Samples:
    """Return calls of many kinds over noise whose level changes."""
    rng = np.random.default_rng(seed)
    samples = noise(RATE, seconds)
    start = 0.05
    while start < seconds - 0.4:
        length = float(rng.uniform(0.005, 0.3))
        pitch = float(rng.uniform(600, 12_000))
        add_tones(samples, RATE, [(start, start + length)], pitch, rng.uniform(0.01, 1))
        start += length + float(rng.uniform(0.004, 0.2))
    half = len(samples) // 2
    samples[half : half + RATE // 2] *= 3
    return samples


@pytest.mark.parametrize("sample_rate", RATES[::2])
def test_conformance(sample_rate: int) -> None:
    seconds = 3.0 if sample_rate < 100_000 else 1.5
    options: dict[str, Any] = {"low_hz": 10_000} if sample_rate > 96_000 else {}
    samples = song(sample_rate, seconds)
    check_processor(lambda: make(sample_rate, **options), samples)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.integers(1, 5000), min_size=1, max_size=10),
    st.integers(0, 10_000),
    st.sampled_from([0, 1, 31, 777, 200_000]),
    st.booleans(),
)
def test_marks_do_not_depend_on_block_cuts(
    lengths: list[int], start: int, lost: int, near_misses: bool
) -> None:
    samples = chirps(2.5)
    half = len(samples) // 2
    gap = Gap(start + half, start + half + lost, "overrun")

    def items(first: list[int], second: list[int]) -> list[Block | Gap]:
        return [
            *recut(samples[:half], first, start),
            gap,
            *recut(samples[half:], second, gap.stop),
        ]

    def new() -> ScoredExcessDetector:
        return make(near_misses=near_misses)

    whole = gather(new(), items([half], [half]))
    assert whole
    assert gather(new(), items(lengths, lengths[::-1])) == whole


@pytest.mark.parametrize("sample_rate", RATES)
def test_tones_in_noise_are_found_at_any_rate(sample_rate: int) -> None:
    spans = [(0.5, 0.6), (0.75, 0.8), (1.2, 1.6)]
    samples = noise(sample_rate, 2.0)
    detector = make(sample_rate)
    edges = detector.band_edges_hz
    add_tones(samples, sample_rate, spans, float((edges[0] * edges[-1]) ** 0.5))
    detected = found(detector, [Block(0, samples)], sample_rate)
    assert agree(spans, detected, 0.015 if sample_rate < 8000 else 0.008)


@pytest.mark.parametrize("sample_rate", [1000, 2500, 8000, 32_000, 250_000])
@pytest.mark.parametrize("offset", [0.0, 0.5])
def test_steady_noise_makes_no_segment(sample_rate: int, offset: float) -> None:
    seconds = 60.0 if sample_rate < 20_000 else 30.0 if sample_rate < 100_000 else 6.0
    white = noise(sample_rate, seconds, 0.05)
    for samples in (white, np.cumsum(white, axis=0, dtype=np.float32) / 30):
        level = samples + np.float32(offset)
        assert found(make(sample_rate), [Block(0, level)]) == []


def test_slowly_rising_noise_makes_no_segment() -> None:
    samples = noise(RATE, 40.0)
    samples *= 10 ** (np.linspace(-20, 0, len(samples)) / 20)[:, None].astype("f")
    assert found(make(), [Block(0, samples)]) == []


def test_a_hum_that_is_louder_than_the_calls_does_not_hide_them() -> None:
    samples = noise(RATE, 6.0, level=0.001)
    add_tones(samples, RATE, [(0.0, 6.0)], 620.0, level=0.3)
    floor_db = measure_floor([(samples[:, 0], RATE)])
    spans = [(2.0, 2.1), (3.0, 3.2), (4.0, 4.05)]
    add_tones(samples, RATE, spans, 5000.0, level=0.02)
    detected = found(make(floor_db=floor_db), recut(samples, [1024]))
    assert agree(spans, detected)
    # Without a prior the hum may be a call that began before the stream.
    first, *others = found(make(), recut(samples, [1024]))
    assert first[1] < 1.1
    assert agree(spans, others)


def test_the_floors_follow_the_background_within_seconds() -> None:
    samples = noise(RATE, 24.0)
    samples[8 * RATE : 16 * RATE] *= 10
    spans = [(12.0, 12.1), (13.0, 13.05), (20.0, 20.1)]
    add_tones(samples, RATE, spans[:2], 3000.0, level=0.8)
    add_tones(samples, RATE, spans[2:], 3000.0, level=0.05)
    detected = found(make(), [Block(0, samples)])
    late = [span for span in detected if not 7.9 <= span[0] < 11.5]
    assert agree(spans, late)


def test_an_echo_is_not_a_second_call_but_another_pitch_is() -> None:
    samples = noise(RATE, 3.0, level=1e-4)
    add_tones(samples, RATE, [(1.0, 1.1)], 3000.0, level=0.5)
    add_tones(samples, RATE, [(1.13, 1.2)], 3000.0, level=0.03)  # 24 dB below
    assert agree([(1.0, 1.1)], found(make(), [Block(0, samples)]))
    add_tones(samples, RATE, [(1.13, 1.2)], 7000.0, level=0.03)
    assert agree([(1.0, 1.1), (1.13, 1.2)], found(make(), [Block(0, samples)]))


def test_shortest_duration_and_threshold_follow_what_was_found() -> None:
    spans = [(0.5 * k + 0.5, 0.5 * k + 0.7) for k in range(12)]
    clicks = [(t + 0.35, t + 0.356) for t, _ in spans]
    samples = noise(RATE, 7.0, level=0.001)
    add_tones(samples, RATE, spans, 3000.0)
    add_tones(samples, RATE, clicks, 6000.0, level=0.02)
    # A click after the first call is none after several.
    assert agree(spans[6:], [s for s in found(make(), [Block(0, samples)]) if s[0] > 3])
    kept = found(make(follow=False), [Block(0, samples)])
    assert len([s for s in kept if s[0] > 3]) == 14 - 1


def test_a_tone_after_digital_silence_is_a_segment() -> None:
    samples = np.zeros((10 * RATE, 1), dtype=np.float32)
    assert found(make(), [Block(0, samples)]) == []
    spans = [(4.0, 4.2), (6.0, 7.5)]
    add_tones(samples, RATE, spans, 3000.0)
    assert agree(spans, found(make(), recut(samples, [1024])))


def test_a_stream_that_begins_within_a_song() -> None:
    spans = [(0.1 * k, 0.1 * k + 0.07) for k in range(30)]
    samples = noise(RATE, 3.5, level=0.001)
    add_tones(samples, RATE, spans, 3000.0)
    assert agree(spans, found(make(), [Block(0, samples)]))


def test_a_prior_tells_a_sound_that_was_there_before_the_stream() -> None:
    room = noise(RATE, 3.0, level=0.001)
    floor_db = measure_floor([(room[:, 0], RATE)])
    samples = noise(RATE, 3.0, level=0.001)
    rng = np.random.default_rng(1)
    samples[:RATE, 0] += 0.05 * rng.standard_normal(RATE).astype(np.float32)
    detector = make(floor_db=floor_db)
    marks = []
    for block in recut(samples, [RATE // 100]):
        marks += detector.process(block)
        if marks:
            break
    assert isinstance(marks[0], Onset)
    assert marks[0].sample < 0.004 * RATE
    assert block.stop <= 0.05 * RATE
    assert agree([(0.0, 1.0)], found(make(floor_db=floor_db), [Block(0, samples)]))


def test_the_first_marks_come_within_a_tenth_of_a_second() -> None:
    samples = noise(RATE, 1.0)
    add_tones(samples, RATE, [(0.02, 0.07)], 3000.0)
    detector = make()
    for block in recut(samples, [RATE // 100]):
        marks = list(detector.process(block))
        if marks:
            break
    assert isinstance(marks[0], Onset)
    assert abs(marks[0].sample - 0.02 * RATE) < 0.006 * RATE
    assert block.stop <= 0.12 * RATE


def test_scores_of_the_first_second_are_provisional_and_revised_at_the_offset() -> None:
    samples, rate = soundfile.read(
        ROOT / "configs" / "recordings" / "bengalese-finch.flac",
        dtype="float32",
        always_2d=True,
    )
    song = samples[round(5.2 * rate) :]  # begins amid song
    detector = make(rate)
    marks = [m for block in recut(song, [500]) for m in detector.process(block)]
    onsets = {m.segment: m for m in marks if isinstance(m, Onset)}
    offsets = {m.segment: m for m in marks if isinstance(m, Offset)}
    assert onsets[0].sample < 0.1 * rate
    for segment, offset in offsets.items():
        is_early = onsets[segment].sample < 1.02 * rate
        assert onsets[segment].provisional == is_early
        assert (offset.revised_score is not None) == is_early
    first = offsets[0].revised_score
    assert first is not None
    # The floors of the first tenth of a second are those of song, and too high.
    assert first > onsets[0].score + 5
    floor_db = measure_floor([(samples[:, 0], rate)])
    known = make(rate, floor_db=floor_db)
    marks = [m for block in recut(song, [500]) for m in known.process(block)]
    assert not any(m.provisional for m in marks if isinstance(m, Onset))
    assert all(m.revised_score is None for m in marks if isinstance(m, Offset))


def test_a_gap_truncates_the_segment_and_keeps_the_floors() -> None:
    samples = noise(RATE, 4.0)
    add_tones(samples, RATE, [(1.9, 2.1), (2.2, 2.3)], 3000.0)
    half = 2 * RATE
    detector = make()
    marks = [*detector.process(Block(0, samples[:half]))]
    marks += detector.process(Gap(half, half + 800, "overrun"))
    cut = [m for m in marks if isinstance(m, Offset)]
    assert [(m.sample, m.truncated) for m in cut] == [(half, True)]
    marks = [*detector.process(Block(half + 800, samples[half + 800 :]))]
    marks += detector.flush()
    onsets = [m.sample for m in marks if isinstance(m, Onset)]
    assert onsets[0] >= half + 800
    assert len(onsets) == 2


def test_near_misses_are_told_on_request() -> None:
    samples = noise(RATE, 3.0)
    add_tones(samples, RATE, [(1.0, 1.1)], 3000.0, level=0.011)
    assert found(make(), [Block(0, samples)]) == []
    detector = make(near_misses=True)
    marks = [*detector.process(Block(0, samples)), *detector.flush()]
    near = [m for m in marks if isinstance(m, NearMiss)]
    assert near
    assert any(abs(m.onset - RATE) < 0.03 * RATE for m in near)
    assert all(4 <= m.score < m.threshold for m in near if m.reason == "quiet")


def test_the_recording_that_ships() -> None:
    folder = ROOT / "configs" / "recordings"
    samples, rate = soundfile.read(
        folder / "bengalese-finch.flac", dtype="float32", always_2d=True
    )
    lines = (folder / "annotations.csv").read_text(encoding="utf-8").splitlines()
    names = lines[0].split(",")
    onset, offset = names.index("onset_s"), names.index("offset_s")
    cells = [line.split(",") for line in lines[1:]]
    spans = [(float(row[onset]), float(row[offset])) for row in cells]
    detected = found(make(rate), recut(samples, [1024]), rate)
    assert score_segments(spans, detected, 0.010).f1 > 0.85


def test_finch_song_and_mice_without_tuning(data_folder: Path) -> None:
    for folder, pattern, least in [
        ("finch_gy6or6", "*230312*", 0.9),
        ("mouse_usv", "*rec_1*", 0.7),
    ]:
        path = sorted((data_folder / folder / "audio").glob(pattern))[0]
        samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
        rows = (data_folder / folder / "annotations.csv").read_text().splitlines()
        spans = [
            (float(row.split(",")[1]), float(row.split(",")[2]))
            for row in rows[1:]
            if row.startswith(f"audio/{path.name},")
        ]
        detected = found(make(rate), recut(samples, [1024]), rate)
        assert score_segments(spans, detected, 0.015).f1 > least


@pytest.mark.parametrize(
    "name", ["mouse-ultrasound", "bat-ultrasound", "mammal-calls", "insects"]
)
def test_presets_are_complete_configurations(name: str) -> None:
    config, _ = load_config(name)
    (lane,) = config.lanes
    registry = Registry()
    for kind, stage in [("source", lane.source), *(("sink", s) for s in lane.sinks)]:
        registry.get(kind, stage.plugin).options.model_validate(stage.options)
    assert lane.detector is not None
    assert lane.detector.plugin == "bands"
    rate = lane.source.options["sample_rate"]
    detector = make_detector(BandsOptions.model_validate(lane.detector.options), rate)
    samples = noise(rate, 3.0, level=0.005)
    edges = detector.band_edges_hz
    # One harmonic after the other: sounds in many bands.
    spans = [(1.5, 1.54)]
    for pitch in np.linspace(edges[0] * 1.1, edges[-1] * 0.9, 12):
        add_tones(samples, rate, spans, float(pitch), level=0.05)
    detected = found(detector, [Block(0, samples)], rate)
    assert agree(spans, detected, 0.012)


def test_a_stream_that_begins_with_an_unbroken_second_of_a_call() -> None:
    spans = [(0.0, 1.0), (1.6, 1.7), (2.2, 2.3)]
    samples = noise(RATE, 3.0, level=0.001)
    add_tones(samples, RATE, spans, 3000.0)
    detected = found(make(), recut(samples, [320]))
    assert agree(spans[1:], detected[-2:])
    assert detected[0][0] < 0.01
    assert detected[0][1] > 0.5


def test_streams_of_a_second_find_what_a_long_stream_finds() -> None:
    samples, rate = soundfile.read(
        ROOT / "configs" / "recordings" / "bengalese-finch.flac",
        dtype="float32",
        always_2d=True,
    )
    whole = found(make(rate), [Block(0, samples)], rate)
    pieces: Spans = []
    for start in range(0, len(samples), rate):
        spans = found(make(rate), [Block(0, samples[start : start + rate])], rate)
        pieces += [(a + start / rate, b + start / rate) for a, b in spans]
    heard = 0
    for onset, offset in whole:
        covered = sum(max(0.0, min(b, offset) - max(a, onset)) for a, b in pieces)
        heard += covered >= 0.5 * (offset - onset)
    assert heard >= 0.95 * len(whole)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"off_db": 12}, "off_db"),
        ({"low_hz": 5000, "high_hz": 4000}, "low_hz"),
        ({"n_loudest": 33}, "less than or equal to 32"),
    ],
)
def test_options_that_contradict_each_other_are_refused(
    options: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ValidationError, match=sentence):
        BandsOptions(**options)


def test_bands_that_are_empty_at_the_rate_are_one_sentence() -> None:
    options = BandsOptions(low_hz=20_000)
    info = StreamInfo("s", 16_000)
    context = BuildContext(clock=ManualClock(), run="r", info=info)
    assert plugin.check is not None
    assert [str(problem) for problem in plugin.check(options, context)] == [
        "a band from 20000 Hz on needs a sample rate of more than 44444 Hz, not "
        "16000 Hz: record at a higher rate, choose another preset or lower low_hz"
    ]
    with pytest.raises(ConfigError, match="more than 44444 Hz"):
        plugin.build(options, context)
