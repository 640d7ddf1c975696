"""Classifier plugin: labels, the frames they depend on, and their time."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from bundles.tiny_bundle import edit_manifest, make_tiny_bundle
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from stages.classifiers import HIGH, LOW, RATE, TILE, audio, labels, process_audio

from neurovocal.engine.cli import main
from neurovocal.engine.contracts.bundle import load_bundle
from neurovocal.engine.contracts.clock import ManualClock
from neurovocal.engine.contracts.plugin import BuildContext
from neurovocal.engine.contracts.types import (
    Block,
    Event,
    Frames,
    Gap,
    Label,
    Mark,
    Offset,
    Onset,
    Posteriors,
    StreamInfo,
)
from neurovocal.engine.testing import canonical, recut
from neurovocal.plugins.models.classifier.model import Classifier
from neurovocal.plugins.models.classifier.model import plugin as classifier_plugin


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_bundle(tmp_path_factory.mktemp("bundles") / "tiny")


def build(folder: Path, *, latency: int = 0, **options: Any) -> Classifier:
    context = BuildContext(
        clock=ManualClock(),
        run="test",
        info=StreamInfo("test", RATE),
        bundle=load_bundle(folder),
        tile=TILE,
        detector_latency=latency,
    )
    validated = classifier_plugin.options.model_validate(options)
    model = classifier_plugin.build(validated, context)
    assert isinstance(model, Classifier)
    return model


def posteriors(events: Iterable[Event]) -> NDArray[np.float32]:
    return np.concatenate([e.values for e in events if isinstance(e, Posteriors)])


def test_each_segment_gets_the_label_of_its_tone(folder: Path) -> None:
    samples = audio(20000, (4000, 7000, LOW), (10000, 13000, HIGH))
    marks: dict[int, list[Mark]] = {
        4100: [Onset(0, 4000, 1.0)],
        7200: [Offset(0, 4000, 7000, False)],
        10100: [Onset(1, 10000, 1.0)],
        13200: [Offset(1, 10000, 13000, False)],
    }
    given_labels = labels(
        process_audio(build(folder), folder, [Block(0, samples)], marks)
    )
    found = [(x.segment, x.onset, x.offset, x.unit, x.status) for x in given_labels]
    assert found == [
        (0, 4000, None, "a", "provisional"),
        (0, 4000, 7000, "a", "final"),
        (1, 10000, None, "b", "provisional"),
        (1, 10000, 13000, "b", "final"),
    ]
    assert {x.model for x in given_labels} == {"tiny/classifier"}
    assert all(x.posterior > 0.9 for x in given_labels)


def test_posteriors_are_distributions_one_event_a_tile(folder: Path) -> None:
    samples = audio(20000, (4000, 9000, LOW))
    events = process_audio(build(folder), folder, [Block(0, samples)])
    tiles = [e for e in events if isinstance(e, Posteriors)]
    n_frames = (20000 - 256) // 128 + 1
    assert sum(len(t.values) for t in tiles) == n_frames
    assert [t.first for t in tiles] == [0, *range(7, n_frames, 8)]
    values = posteriors(events)
    np.testing.assert_allclose(values.sum(axis=1), 1, atol=1e-5)
    assert values[:25].argmax(axis=1).tolist() == [0] * 25
    assert values[35:65].argmax(axis=1).tolist() == [1] * 30


def test_the_first_label_comes_with_the_last_frame_it_needs(folder: Path) -> None:
    samples = audio(20000, (4096, 9000, LOW))
    model = build(folder, provisional_ms=10)  # 320 samples
    marks: dict[int, list[Mark]] = {4096: [Onset(0, 4096, 1.0)]}
    events = process_audio(
        model, folder, [Block(0, samples)], marks, tile=1, flush=False
    )
    (label,) = labels(events)
    before = events[: events.index(label)]
    last = [e for e in before if isinstance(e, Posteriors)][-1]
    # Centres in [4096, 4416): frames 31 (4096), 32 (4224), 33 (4352).
    assert last.first == 33
    log_p = np.log(posteriors(events)[31:34, 1:].astype(np.float64)).sum(axis=0)
    expected = np.exp(log_p[0]) / np.exp(log_p).sum()
    assert label.posterior == pytest.approx(expected, rel=1e-4)


def test_a_sure_label_comes_with_the_first_frame_that_is_sure(folder: Path) -> None:
    samples = audio(20000, (4096, 9000, LOW))
    marks: dict[int, list[Mark]] = {3968: [Onset(0, 3968, 1.0)]}
    blocks = [Block(0, samples)]
    model = build(folder, sure_posterior=0.5, provisional_ms=100)
    events = process_audio(model, folder, blocks, marks, tile=1, flush=False)
    (label,) = labels(events)
    assert (label.unit, label.status) == ("a", "provisional")
    known = [e for e in events[: events.index(label)] if isinstance(e, Posteriors)]
    voiced = 1 - posteriors(known)[:, 0]
    # Frame 30 is the first one centred in the segment.
    sure = label.posterior * voiced[30:] >= 0.5
    assert sure.tolist() == [False] * (len(sure) - 1) + [True]
    assert known[-1].first < 34  # 100 ms would be 24 frames later
    strict = build(folder, sure_posterior=1.0, provisional_ms=0)
    found = labels(process_audio(strict, folder, blocks, marks, flush=False))
    assert not found  # no posterior is 1: nothing is published before the offset


def test_each_unit_is_named_at_the_score_that_the_bundle_gives_it(
    tmp_path: Path,
) -> None:
    folder = make_tiny_bundle(tmp_path / "tiny")
    content = yaml.safe_load((folder / "manifest.yaml").read_text(encoding="utf-8"))
    changed = {**content["classifier"], "sure": {"a": 1.0}}
    edit_manifest(folder, classifier=changed)
    blocks = [Block(0, audio(20000, (4096, 7000, LOW), (10000, 13000, HIGH)))]
    marks: dict[int, list[Mark]] = {
        3968: [Onset(0, 3968, 1.0)],
        7040: [Offset(0, 3968, 7040, False)],
        9984: [Onset(1, 9984, 1.0)],
    }

    def early(given: float | str) -> list[str]:
        model = build(folder, sure_posterior=given)
        found = labels(process_audio(model, folder, blocks, marks, flush=False))
        return [label.unit for label in found if label.status == "provisional"]

    assert early(0.5) == ["a", "b"]
    assert early("bundle") == ["b"]  # 0.5, as the bundle has no score for it


def test_a_segment_with_a_late_onset_is_labelled_at_once(folder: Path) -> None:
    samples = audio(20000, (4096, 9000, LOW))
    late: dict[int, list[Mark]] = {8192: [Onset(0, 4096, 1.0)]}
    events = process_audio(
        build(folder, latency=6000), folder, [Block(0, samples)], late
    )
    (label,) = labels(events)
    assert label.status == "provisional"
    known = [e for e in events[: events.index(label)] if isinstance(e, Posteriors)]
    assert (known[-1].first + len(known[-1].values)) * 128 <= 8192


def test_a_label_that_changes_is_revised(folder: Path) -> None:
    samples = audio(20000, (4000, 5000, LOW), (5000, 9000, HIGH))
    marks: dict[int, list[Mark]] = {
        4100: [Onset(0, 4000, 1.0)],
        9200: [Offset(0, 4000, 9000, False)],
    }
    found = labels(process_audio(build(folder), folder, [Block(0, samples)], marks))
    assert [(x.unit, x.status) for x in found] == [
        ("a", "provisional"),
        ("b", "revised"),
        ("b", "final"),
    ]
    quiet = build(folder, provisional=False)
    found = labels(process_audio(quiet, folder, [Block(0, samples)], marks))
    assert [(x.unit, x.status) for x in found] == [("b", "final")]


def test_a_segment_within_one_tile_gets_both_labels(folder: Path) -> None:
    samples = audio(20000, (4000, 4500, HIGH))
    marks: dict[int, list[Mark]] = {
        5000: [Onset(0, 4000, 1.0), Offset(0, 4000, 4500, False)]
    }
    model = build(folder, provisional_ms=5)
    found = labels(process_audio(model, folder, [Block(0, samples)], marks))
    assert [(x.unit, x.status) for x in found] == [("b", "provisional"), ("b", "final")]


def test_final_label_waits_for_the_frames_of_its_segment(folder: Path) -> None:
    samples = audio(20000, (4096, 8192, LOW))
    marks: dict[int, list[Mark]] = {
        4096: [Onset(0, 4096, 1.0)],
        8192: [Offset(0, 4096, 8192, False)],  # a detector without look-ahead
    }
    events = process_audio(
        build(folder), folder, [Block(0, samples)], marks, flush=False
    )
    final = labels(events)[-1]
    known = [e for e in events[: events.index(final)] if isinstance(e, Posteriors)]
    last = known[-1].first + len(known[-1].values) - 1
    assert final.status == "final"
    assert last * 128 + 128 >= 8192 - 128  # the last centre before the offset
    log_p = np.log(posteriors(events)[31:63, 1:].astype(np.float64)).sum(axis=0)
    assert final.posterior == pytest.approx(np.exp(log_p[0] - log_p.max()), rel=1e-3)


def test_flush_gives_the_final_label_from_the_known_frames(folder: Path) -> None:
    samples = audio(8192, (4096, 8192, LOW))
    marks: dict[int, list[Mark]] = {
        4096: [Onset(0, 4096, 1.0)],
        8192: [Offset(0, 4096, 8192, True)],
    }
    found = labels(process_audio(build(folder), folder, [Block(0, samples)], marks))
    assert [x.status for x in found] == ["provisional", "final"]


def test_a_segment_between_frame_centres_takes_the_nearest_frame(folder: Path) -> None:
    samples = audio(20000, (4000, 9000, HIGH))
    marks: dict[int, list[Mark]] = {
        9000: [Onset(0, 6030, 1.0), Offset(0, 6030, 6050, False)]
    }
    model = build(folder, provisional=False)
    events = process_audio(model, folder, [Block(0, samples)], marks)
    (label,) = labels(events)
    assert label.unit == "b"
    nearest = posteriors(events)[46]  # centre 6016
    assert label.posterior == pytest.approx(nearest[2] / nearest[1:].sum(), rel=1e-4)


def test_without_any_frame_the_label_is_unknown(folder: Path) -> None:
    model = build(folder)
    list(model.process(Onset(0, 10, 1.0)))
    assert labels(model.process(Offset(0, 10, 100, True))) == []
    (label,) = labels(model.flush())
    assert (label.unit, label.posterior, label.status) == ("unknown", 0.0, "final")
    assert list(model.flush()) == []


def test_the_last_frame_decides_where_the_bundle_says_so(tmp_path: Path) -> None:
    spec = {"units": ["", "a", "b"], "silence": "", "state": {"h": [1, 4]}}
    folders = {
        decision: make_tiny_bundle(
            tmp_path / decision, classifier={**spec, "decision": decision}
        )
        for decision in ("vote", "last")
    }
    # Most of the segment sounds like `a`, its end like `b`.
    samples = audio(20000, (4096, 8000, LOW), (8000, 9000, HIGH))
    marks: dict[int, list[Mark]] = {
        4096: [Onset(0, 4096, 1.0)],
        9000: [Offset(0, 4096, 9000, False)],
    }
    found = {
        decision: process_audio(build(folder), folder, [Block(0, samples)], marks)
        for decision, folder in folders.items()
    }
    voted, last = labels(found["vote"])[-1], labels(found["last"])[-1]
    assert (voted.unit, voted.status) == ("a", "final")
    assert (last.unit, last.status) == ("b", "final")
    # The last centre before the offset at 9000 is that of frame 69 (8960).
    p = posteriors(found["last"])[69].astype(np.float64)
    assert last.posterior == pytest.approx(p[2] / p[1:].sum(), rel=1e-4)
    assert [x.unit for x in labels(found["last"])] == ["a", "b", "b"]


def test_a_threshold_of_the_options_makes_a_label_unknown(folder: Path) -> None:
    samples = audio(9000, (4000, 7000, LOW))
    marks: dict[int, list[Mark]] = {7500: [Offset(3, 4000, 7000, False)]}
    # A temperature that gives posteriors below 1.
    hot = make_tiny_bundle(folder.parent / "hot")
    uncertain = {"units": ["", "a", "b"], "state": {"h": [1, 4]}, "temperature": 200.0}
    edit_manifest(hot, classifier=uncertain)
    model = build(hot, thresholds={"a": 0.99999})
    (label,) = labels(process_audio(model, hot, [Block(0, samples)], marks))
    assert label.unit == "unknown"
    assert 0.5 < label.posterior < 0.99999


SONG = audio(24000, (4000, 7000, LOW), (7300, 9000, HIGH), (15000, 19000, HIGH))


SONG_MARKS: dict[int, list[Mark]] = {
    4100: [Onset(0, 4000, 1.0)],
    7200: [Offset(0, 4000, 7000, False), Onset(1, 7300, 1.0)],
    9200: [Offset(1, 7300, 9000, False)],
    15100: [Onset(2, 15000, 1.0)],
    19200: [Offset(2, 15000, 19000, False)],
}


@settings(max_examples=15, deadline=None)
@given(lengths=st.lists(st.integers(1, 9000), min_size=1, max_size=10))
def test_events_do_not_depend_on_blocks(folder: Path, lengths: list[int]) -> None:
    whole = process_audio(build(folder), folder, [Block(0, SONG)], SONG_MARKS)
    parts = process_audio(build(folder), folder, recut(SONG, lengths), SONG_MARKS)
    assert list(map(canonical, parts)) == list(map(canonical, whole))


@pytest.mark.parametrize("tile", [1, 3, 25, 1000])
def test_other_tiles_give_the_same_labels(folder: Path, tile: int) -> None:
    def finals(tile: int) -> list[Label]:
        model = build(folder, latency=RATE)
        events = process_audio(model, folder, [Block(0, SONG)], SONG_MARKS, tile=tile)
        return [label for label in labels(events) if label.status == "final"]

    for one, other in zip(finals(tile), finals(TILE), strict=True):
        assert (one.segment, one.unit, one.offset) == (
            other.segment,
            other.unit,
            other.offset,
        )
        assert one.posterior == pytest.approx(other.posterior, abs=1e-4)


def test_after_a_reset_the_events_are_those_of_a_new_model(folder: Path) -> None:
    model = build(folder)
    whole = process_audio(model, folder, [Block(0, SONG)], SONG_MARKS)
    process_audio(model, folder, [Block(186 * 128, SONG[:9000])], flush=False)
    list(model.process(Onset(9, 30000, 1.0)))
    model.reset()
    again = process_audio(model, folder, [Block(0, SONG)], SONG_MARKS)
    assert list(map(canonical, again)) == list(map(canonical, whole))


def test_posteriors_depend_on_the_state(folder: Path) -> None:
    """Without this, the tests of blocks and gaps would be void."""
    model = build(folder)
    first = posteriors(process_audio(model, folder, [Block(0, SONG[:7000])]))
    again = process_audio(model, folder, [Block(53 * 128, SONG)], flush=False)
    assert not np.array_equal(posteriors(again)[:50], first[:50])


def test_nothing_is_computed_across_a_gap(folder: Path) -> None:
    gap = Gap(8192, 16384, "overrun")
    items = [Block(0, SONG[:8192]), gap, Block(16384, SONG)]
    marks: dict[int, list[Mark]] = {
        4100: [Onset(0, 4000, 1.0)],
        8192: [Offset(0, 4000, 8192, True)],
    }
    events = process_audio(build(folder), folder, items, marks)
    found = labels(events)
    assert [x.status for x in found] == ["provisional", "final"]
    after = [e for e in events if isinstance(e, Posteriors) and e.first >= 128]
    fresh = posteriors(process_audio(build(folder), folder, [Block(0, SONG)]))
    assert np.concatenate([e.values for e in after]).tobytes() == fresh.tobytes()
    final = events.index(found[-1])
    assert all(e.first < 128 for e in events[:final] if isinstance(e, Posteriors))


def test_missing_frames_without_a_gap_are_an_error(folder: Path) -> None:
    model = build(folder)
    values = np.zeros((4, 129), np.float32)
    list(model.process(Frames(0, 128, 256, values)))
    with pytest.raises(ValueError, match="expected 4"):
        model.process(Frames(5, 128, 256, values))
    (event,) = model.process(
        Frames(9, 128, 256, values)
    )  # the model continues, after a reset
    (fresh,) = build(folder).process(Frames(9, 128, 256, values))
    assert canonical(event) == canonical(fresh)


def test_frames_that_are_not_finite_count_as_zeros(folder: Path) -> None:
    model = build(folder)
    bad = np.zeros((4, 129), np.float32)
    bad[1] = np.nan
    bad[2, 5] = np.inf
    (first,) = model.process(Frames(0, 128, 256, bad))
    assert isinstance(first, Posteriors)
    clean = build(folder)
    (same,) = clean.process(Frames(0, 128, 256, np.zeros((4, 129), np.float32)))
    assert isinstance(same, Posteriors)
    assert np.array_equal(first.values, same.values)


def test_an_offset_without_an_onset_is_labelled(folder: Path) -> None:
    model = build(folder)
    marks: dict[int, list[Mark]] = {9200: [Offset(7, 4000, 7000, False)]}
    (label,) = labels(process_audio(model, folder, [Block(0, SONG)], marks))
    assert (label.segment, label.unit, label.status) == (7, "a", "final")


def test_a_final_label_has_the_ends_of_its_unit(tmp_path: Path) -> None:
    moved = make_tiny_bundle(tmp_path / "moved")
    ends = {"a": {"onset_ms": -5.0, "offset_ms": 4.0}}
    spec = load_bundle(moved).manifest.classifier
    assert spec is not None
    edit_manifest(moved, classifier={**spec.model_dump(), "ends": ends})
    samples = audio(20000, (4000, 7000, LOW), (7040, 9000, LOW), (10000, 13000, HIGH))
    marks: dict[int, list[Mark]] = {
        4100: [Onset(0, 4000, 1.0)],
        7040: [Offset(0, 4000, 7000, False), Onset(1, 7040, 1.0)],
        9000: [Offset(1, 7040, 9000, True)],
        10100: [Onset(2, 10000, 1.0)],
        13200: [Offset(2, 10000, 13000, False)],
    }

    def finals(**options: Any) -> list[tuple[int, int | None]]:
        blocks = [Block(0, samples)]
        found = labels(process_audio(build(moved, **options), moved, blocks, marks))
        return [(x.onset, x.offset) for x in found if x.status == "final"]

    before, after = round(0.005 * RATE), round(0.004 * RATE)
    # The second begins where the first ends, and its own end was cut.
    first_end = 7000 + after
    assert finals() == [
        (4000 - before, first_end),
        (max(7040 - before, first_end), 9000),
        (10000, 13000),
    ]
    assert finals(ends=False) == [(4000, 7000), (7040, 9000), (10000, 13000)]


TWICE = """\
version: 1
source: {{plugin: synthetic}}
bundle: {bundle}
models:
  - {{plugin: classifier}}
  - {{plugin: classifier, options: {{min_posterior: 0.5{more}}}}}
sinks: [{{plugin: jsonl}}]
"""


def test_two_classifiers_of_a_lane_have_two_names(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "c.yaml"

    def checked(more: str = "") -> tuple[object, str]:
        config.write_text(TWICE.format(bundle=folder, more=more))
        with pytest.raises(SystemExit) as ended:
            main(["check", str(config)])
        return ended.value.code, " ".join(capsys.readouterr().err.split())

    code, told = checked()
    assert code == 1
    assert (
        "models.1: this model 'classifier' and the one at models.0 would both label "
        "as 'tiny/classifier', and nobody could tell their labels apart: give one of "
        "them another 'name' in its options" in told
    )
    assert checked(", name: strict")[0] == 0
