"""Detector networks: segments from samples, by the network of a bundle."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from bundles.tiny_bundle import edit_manifest, make_tiny_bundle
from bundles.tiny_detector import (
    LEAST_DB,
    LOWERED_DB,
    N_BANDS,
    detector_graph,
    make_tiny_detector,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from neurovocal.engine.contracts.bundle import load_bundle
from neurovocal.engine.contracts.clock import ManualClock
from neurovocal.engine.contracts.errors import BundleError, ConfigError
from neurovocal.engine.contracts.plugin import BuildContext
from neurovocal.engine.contracts.types import Block, Gap, Offset, StreamInfo
from neurovocal.engine.testing import check_processor, gather, recut, song
from neurovocal.models.detection.network import DetectorNetwork
from neurovocal.models.detection.network import detector_graph as detector_network_graph
from neurovocal.plugins.detectors.bands import BandsOptions
from neurovocal.plugins.detectors.bands import make_detector as make_bands
from neurovocal.plugins.detectors.excess_network import (
    ExcessNetwork,
    ScoredRows,
    level_of,
    probability_of,
)
from neurovocal.plugins.detectors.network import (
    NetworkOptions,
    bands_options,
    plugin,
)

RATE = 16_000

Samples = NDArray[np.float32]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_detector(tmp_path_factory.mktemp("bundles") / "tiny-detector")


def context(sample_rate: int = RATE, **values: Any) -> BuildContext:
    info = StreamInfo("s", sample_rate)
    return BuildContext(ManualClock(), "run", info=info, **values)


def make(folder: Path, sample_rate: int = RATE, tile: int = 8, **options: Any) -> Any:
    checked = NetworkOptions(bundle=str(folder), **options)
    return plugin.build(checked, context(sample_rate, tile=tile))


def bursts(sample_rate: int, onsets_s: Iterable[float], length_s: float) -> Samples:
    """Return 2 s of faint noise with bursts of a tone."""
    rng = np.random.default_rng(3)
    samples = 0.003 * rng.standard_normal(2 * sample_rate)
    time = np.arange(round(length_s * sample_rate))
    for onset_s in onsets_s:
        first = round(onset_s * sample_rate)
        samples[first : first + len(time)] += 0.3 * np.sin(2 * np.pi * 0.2 * time)
    return samples.astype(np.float32)[:, None]


def segments(detector: Any, items: Iterable[Block | Gap]) -> list[tuple[int, int]]:
    marks = [mark for item in items for mark in detector.process(item)]
    marks += detector.flush()
    return [(m.onset, m.sample) for m in marks if isinstance(m, Offset)]


@pytest.mark.parametrize(
    ("sample_rate", "tile"), [(2500, 8), (16_000, 1), (44_100, 8), (250_000, 1)]
)
def test_conformance(folder: Path, sample_rate: int, tile: int) -> None:
    samples = song(sample_rate, 3.0 if sample_rate < 100_000 else 1.5)
    check_processor(lambda: make(folder, sample_rate, tile), samples)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.integers(1, 5000), min_size=1, max_size=10),
    st.integers(0, 10_000),
    st.sampled_from([0, 1, 31, 777, 200_000]),
)
def test_marks_do_not_depend_on_block_cuts(
    folder: Path, lengths: list[int], start: int, lost: int
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

    whole = gather(make(folder), items([half], [half]))
    assert gather(make(folder), items(lengths, lengths[::-1])) == whole


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.integers(0, 40), min_size=1, max_size=10),
    st.integers(0, 1000),
    st.sampled_from([1, 3, 8, 25]),
)
def test_each_row_gets_its_own_score_however_rows_are_divided(
    folder: Path, lengths: list[int], first: int, tile: int
) -> None:
    rng = np.random.default_rng(1)
    count = sum(lengths)
    rows = ScoredRows(
        rng.normal(-2, 4, (count, N_BANDS)).astype(np.float32),
        rng.normal(5, 8, count),
    )
    network = ExcessNetwork(load_bundle(folder), tile)
    scored: dict[int, float] = {}
    at = 0
    for length in lengths:
        start, scores = network.push(first + at, rows[at : at + length])
        scored |= {start + i: float(score) for i, score in enumerate(scores)}
        at += length
    start, scores = network.flush()
    scored |= {start + i: float(score) for i, score in enumerate(scores)}
    assert sorted(scored) == list(range(first, first + count))
    is_faint = rows.levels.max(axis=1, initial=-99) < LEAST_DB
    expected = np.maximum(rows.scores, 0) + np.where(is_faint, LOWERED_DB, 0)
    found = [scored[first + i] for i in range(count)]
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_without_corrections_the_marks_are_those_of_bands(tmp_path: Path) -> None:
    model = DetectorNetwork(4, 3)  # untrained
    folder = make_tiny_detector(tmp_path / "b")
    onnx.save(detector_network_graph(model), folder / "detector.onnx")
    golden = dict(np.load(folder / "golden.npz"))
    golden["corrections"] = np.zeros_like(golden["scores"])
    np.savez(folder / "golden.npz", **golden)
    spec = {"n_bands": N_BANDS, "state": model.shapes, "look_ahead": 2}
    edit_manifest(folder, detector_network=spec)
    samples = song(RATE, 3.0, seed=5)
    expected = segments(make_bands(BandsOptions(), RATE), [Block(0, samples)])
    assert len(expected) > 3
    assert segments(make(folder), [Block(0, samples)]) == expected


def test_a_threshold_as_a_probability_is_one_in_db() -> None:
    for level_db in (7.0, 10.0, 20.0):
        assert level_of(probability_of(level_db)) == pytest.approx(level_db)
    options = bands_options(NetworkOptions(on=0.9, off=0.5, min_duration_ms=20))
    assert options.on_db == pytest.approx(15.82, abs=0.01)
    assert options.off_db == pytest.approx(8.5)
    assert options.min_duration_ms == 20
    assert bands_options(NetworkOptions()) == BandsOptions()


@pytest.mark.parametrize("sample_rate", [1000, 8000, 96_000, 500_000])
@pytest.mark.parametrize("gain", [0.01, 1.0, 3.0])
def test_bursts_are_found_at_any_rate_and_level(
    folder: Path, sample_rate: int, gain: float
) -> None:
    onsets_s = [0.4, 0.9, 1.5]
    samples = bursts(sample_rate, onsets_s, 0.1) * np.float32(gain)
    found = segments(make(folder, sample_rate), [Block(0, samples)])
    assert len(found) == 3
    for (onset, offset), onset_s in zip(found, onsets_s, strict=True):
        assert onset / sample_rate == pytest.approx(onset_s, abs=0.015)
        assert offset / sample_rate == pytest.approx(onset_s + 0.1, abs=0.02)


def test_silence_an_offset_and_short_streams_have_no_segments(folder: Path) -> None:
    for samples in (np.zeros(RATE), np.full(RATE, 0.5), np.zeros(3), np.zeros(0)):
        block = Block(0, samples.astype(np.float32)[:, None])
        assert segments(make(folder), [block]) == []


def test_a_gap_truncates_an_open_segment(folder: Path) -> None:
    samples = bursts(RATE, [0.5], 1.5)
    cut = RATE
    items = [
        Block(0, samples[:cut]),
        Gap(cut, 2 * cut, "overrun"),
        Block(2 * cut, samples[cut:]),
    ]
    detector = make(folder)
    marks = [mark for item in items for mark in detector.process(item)]
    offsets = [mark for mark in marks if isinstance(mark, Offset)]
    assert offsets[0].truncated
    assert offsets[0].sample == cut


def test_options_replace_those_of_bands(folder: Path) -> None:
    samples = bursts(RATE, [0.5], 0.03)
    assert len(segments(make(folder), [Block(0, samples)])) == 1
    strict = make(folder, min_duration_ms=200)
    assert segments(strict, [Block(0, samples)]) == []
    assert make(folder, gap_fill_ms=500).latency > make(folder).latency


def test_a_threshold_below_the_other_one_that_is_not_set_is_told(
    folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"off .* is above on \(0.2\).*set both"):
        make(folder, on=0.2)
    lane = context(bundle=load_bundle(make_tiny_bundle(tmp_path / "b", rnn_rbm=False)))
    for bundle in (str(folder), None):
        checked = NetworkOptions(bundle=bundle, on=0.2, off=0.1)
        assert not list(plugin.check(checked, lane))
        checked = NetworkOptions(bundle=bundle, on=0.2)
        assert "set both" in next(iter(plugin.check(checked, lane)))


def test_the_lane_s_own_bundle_is_used_without_a_name(folder: Path) -> None:
    lane = context(bundle=load_bundle(folder))
    detector = plugin.build(NetworkOptions(), lane)
    assert detector.consumes == "samples"


def test_a_bundle_with_a_classifier_alone_gives_its_posteriors(tmp_path: Path) -> None:
    bundle = make_tiny_bundle(tmp_path / "b", rnn_rbm=False)
    detector = plugin.build(NetworkOptions(), context(bundle=load_bundle(bundle)))
    assert detector.consumes == "posteriors"
    named = NetworkOptions(bundle=str(bundle))
    assert "has no detector network" in next(iter(plugin.check(named, context())))
    with pytest.raises(BundleError, match="has no detector network"):
        plugin.build(named, context())


def test_a_bundle_that_does_not_exist_is_told_by_the_option(folder: Path) -> None:
    named = NetworkOptions(bundle="nowhere")
    (problem,) = plugin.check(named, context())
    assert "bundle 'nowhere' does not exist" in problem
    assert problem.option == "bundle"


def test_a_name_is_taken_from_the_configuration_s_folder(folder: Path) -> None:
    named = NetworkOptions(bundle=folder.name)
    assert not list(plugin.check(named, context(base=folder.parent)))


def test_files_that_are_missing_or_damaged_are_one_sentence(tmp_path: Path) -> None:
    for name in ("detector.onnx", "golden.npz"):
        damaged = make_tiny_detector(tmp_path / f"damaged-{name}")
        with (damaged / name).open("r+b") as stream:
            stream.truncate(100)
        missing = make_tiny_detector(tmp_path / f"missing-{name}")
        (missing / name).unlink()
        for bundle in (damaged, missing):
            with pytest.raises(BundleError) as caught:
                make(bundle)
            (problem,) = caught.value.problems
            assert name in problem


def test_a_bundle_of_an_earlier_network_is_to_be_trained_again(tmp_path: Path) -> None:
    bundle = make_tiny_detector(tmp_path / "b")
    spec = {"n_bands": N_BANDS, "state": {}, "look_ahead": 2, "on": 0.6, "off": 0.4}
    edit_manifest(bundle, detector_network={**spec, "min_duration": 2, "gap_fill": 2})
    with pytest.raises(BundleError) as caught:
        make(bundle)
    (problem,) = caught.value.problems
    assert "train it again" in problem


def test_other_numbers_of_bands_are_refused(tmp_path: Path) -> None:
    bundle = make_tiny_detector(tmp_path / "b")
    onnx.save(detector_graph(7), bundle / "detector.onnx")
    edit_manifest(bundle)
    with pytest.raises(BundleError, match="the manifest promises"):
        make(bundle)


def test_a_graph_that_gives_other_scores_is_refused(tmp_path: Path) -> None:
    bundle = make_tiny_detector(tmp_path / "b")
    golden = dict(np.load(bundle / "golden.npz"))
    np.savez(
        bundle / "golden.npz", **{**golden, "corrections": golden["corrections"] + 1}
    )
    edit_manifest(bundle)
    with pytest.raises(BundleError, match="does not reproduce the golden 'corr"):
        make(bundle)
