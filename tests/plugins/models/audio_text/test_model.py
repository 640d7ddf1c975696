"""Model `audio_text`: names for segments that no classifier knows."""

import numpy as np
import pytest
import yaml
from bundles.audio_text import save_pair, tone
from bundles.tiny_bundle import edit_manifest, make_tiny_bundle

from neurovocal.engine.contracts.bundle import load_bundle
from neurovocal.engine.contracts.clock import ManualClock
from neurovocal.engine.contracts.errors import StageError
from neurovocal.engine.contracts.plugin import BuildContext
from neurovocal.engine.contracts.stages import StepEvents
from neurovocal.engine.contracts.types import (
    Block,
    Gap,
    Label,
    Offset,
    Onset,
    StreamInfo,
    Suggestion,
    Surprise,
)
from neurovocal.engine.lane.lane import Lane
from neurovocal.engine.lane.stage import SupervisedStage
from neurovocal.engine.testing import check_model, recut
from neurovocal.plugins.models.audio_text.encoders import fit_window
from neurovocal.plugins.models.audio_text.model import RecentSound, plugin

RATE, WINDOW = 8000, 800
INFO = StreamInfo("cage", RATE)


def model(manifest, bundle=None, **options):
    given = plugin.options(
        manifest=str(manifest), **{"spacing_s": 0, "threshold": 0.4, **options}
    )
    context = BuildContext(ManualClock(), "test", info=INFO, bundle=bundle)
    return plugin.build(given, context)


@pytest.fixture
def pair(tmp_path):
    return save_pair(tmp_path)


def song(*names, pause=1600, length=1600):
    """Tones with pauses between them, and their segments."""
    parts, segments, at = [], [], 0
    for name in names:
        parts += [np.zeros(pause, np.float32), tone(name, WINDOW, length)]
        segments.append((at + pause, at + pause + length))
        at += pause + length
    parts.append(np.zeros(pause, np.float32))
    return np.concatenate(parts)[:, None], segments


class Marker:
    """Detector that knows the segments."""

    consumes = "samples"
    latency = 0

    def __init__(self, segments):
        self._segments = segments
        self.reset()

    def process(self, item):
        if isinstance(item, Gap):
            self._marks = [m for m in self._marks if m.sample >= item.stop]
            return []
        found = [mark for mark in self._marks if mark.sample <= item.stop]
        self._marks = self._marks[len(found) :]
        return found

    def flush(self):
        return []

    def reset(self):
        self._marks = []
        for number, (onset, offset) in enumerate(self._segments):
            self._marks += [
                Onset(number, onset, 1.0),
                Offset(number, onset, offset, False),
            ]


class Labeller:
    """Model that labels each segment, and is as surprised by it as it is told."""

    consumes = "samples"
    latency = 0

    def __init__(self, units, surprises=()):
        self._units, self._surprises = units, surprises

    def process(self, item):
        if isinstance(item, Offset):
            unit = self._units[item.segment]
            label = (item.segment, item.onset, item.sample, unit, 0.9, "final", "c")
            yield Label(*label)
        if isinstance(item, Block) and self._surprises:
            hop = len(item.samples)
            at = item.start // hop
            value = self._surprises[min(at * hop // 3200, len(self._surprises) - 1)]
            yield Surprise(at, hop, np.full(1, value, np.float32))

    def flush(self):
        return []

    def reset(self):
        pass


def suggestions(stage, labeller, samples, segments, block=256, gap=None):
    """Run a lane over the samples; return what is suggested, and when."""
    models = [SupervisedStage(n, m) for n, m in (("a", stage), ("c", labeller))]
    detector = SupervisedStage("d", Marker(segments))
    lane = Lane(INFO, 64, None, detector, models)
    items = list(recut(samples, [block]))
    if gap is not None:
        cut = gap.start
        items = [
            *recut(samples[:cut], [block]),
            gap,
            *recut(samples[gap.stop :], [block], start=gap.stop),
        ]
    steps = [step for item in items for step in lane.process(item)]
    steps += lane.flush()
    return [
        (step.at, event)
        for step in steps
        for event in step.events
        if isinstance(event, Suggestion)
    ]


def test_an_unknown_segment_gets_the_name_of_its_sound(pair):
    samples, segments = song("low", "high", "middle")
    found = suggestions(
        model(pair), Labeller(["unknown", "a", "unknown"]), samples, segments
    )
    named = [
        (s.segment, s.name, s.reason, s.model, s.onset, s.offset) for _, s in found
    ]
    assert named == [
        (0, "low tone", "unknown", "tones", *segments[0]),
        (2, "middle tone", "unknown", "tones", *segments[2]),
    ]
    for _, event in found:
        assert next(iter(event.posteriors)) == event.name
        shares = list(event.posteriors.values())
        assert shares == sorted(shares, reverse=True)
        assert event.posterior == shares[0] > 0.9


def test_a_segment_is_unknown_in_the_word_of_the_bundle_too(pair, tmp_path):
    folder = make_tiny_bundle(tmp_path / "bundle")
    classifier = yaml.safe_load((folder / "manifest.yaml").read_text())["classifier"]
    edit_manifest(folder, classifier={**classifier, "unknown": "noise?"})
    samples, segments = song("low", "high", "middle")
    labels = Labeller(["noise?", "a", "unknown"])
    stage = model(pair, load_bundle(folder))
    found = suggestions(stage, labels, samples, segments)
    assert [(s.segment, s.name) for _, s in found] == [
        (0, "low tone"),
        (2, "middle tone"),
    ]


def test_a_surprising_segment_gets_a_name_although_it_has_a_label(pair):
    samples, segments = song("low", "high", "middle")
    labels = Labeller(["a", "b", "c"], (0.0, 5.0, 0.0))
    found = suggestions(model(pair), labels, samples, segments)
    assert [(s.segment, s.name, s.reason) for _, s in found] == [
        (1, "high tone", "surprising")
    ]
    only = model(pair, which="unknown")
    assert not suggestions(only, labels, samples, segments)
    every = suggestions(model(pair, which="every"), labels, samples, segments)
    assert [s.name for _, s in every] == ["low tone", "high tone", "middle tone"]


def test_suggestions_do_not_depend_on_the_blocks(pair):
    samples, segments = song("low", "high", "middle", "low")
    labels = Labeller(["unknown"] * 4)
    whole = suggestions(model(pair), labels, samples, segments, len(samples))
    assert len(whole) == 4
    for block in (17, 1000):
        again = suggestions(model(pair), labels, samples, segments, block)
        assert again == whole


def test_no_suggestion_is_later_than_the_latency_says(pair):
    samples, segments = song("low", "high", "middle")
    stage = model(pair)
    labels = Labeller(["unknown"] * 3)
    for at, event in suggestions(stage, labels, samples, segments):
        assert at - event.offset <= stage.latency + 64


def test_nothing_is_suggested_where_no_name_is_likely(pair, tmp_path):
    samples, segments = song("low")
    samples[:] = 0  # silence is like the background
    labels = Labeller(["unknown"])
    assert not suggestions(model(pair), labels, samples, segments)


def test_sounds_are_heard_no_closer_than_the_spacing(pair):
    samples, segments = song("low", "low", "low")
    labels = Labeller(["unknown"] * 3)
    found = suggestions(model(pair, spacing_s=0.6), labels, samples, segments)
    assert [s.segment for _, s in found] == [0, 2]


def test_nothing_is_heard_across_a_gap_and_what_waits_is_named_before_it(pair):
    samples, segments = song("low", "high", "middle", length=400)
    offset = segments[0][1]
    gap = Gap(offset + 64, offset + 264, "overrun")
    labels = Labeller(["unknown"] * 3)
    found = suggestions(model(pair), labels, samples, segments, gap=gap)
    assert [s.name for _, s in found] == ["low tone", "high tone", "middle tone"]
    assert found[0][0] == gap.stop  # with the sound until the gap


def test_a_segment_is_named_only_while_the_sound_of_its_middle_is_kept(pair):
    """One of 20 s and three windows has it; of a longer one silence would be named."""
    labels = Labeller(["unknown"])
    for beyond, expected in ((0, ["low tone"]), (RATE, [])):
        samples, segments = song("low", length=20 * RATE + 3 * WINDOW + beyond)
        found = suggestions(model(pair), labels, samples, segments)
        assert [s.name for _, s in found] == expected


def test_numbers_that_are_not_finite_are_a_failure_and_no_name(pair, monkeypatch):
    stage = model(pair, which="every", names=["low tone"], threshold=0.0)
    broken = [np.array([[np.nan, 0, 0]], np.float32)]
    monkeypatch.setattr(stage._audio._graph, "run", lambda window: broken)
    samples, segments = song("low")
    with pytest.raises(StageError, match="not finite"):
        suggestions(stage, Labeller(["a"]), samples, segments)


class Followed:
    """Model of a lane whose segments are all labelled `unknown`, for `check_model`."""

    consumes = "samples"

    def __init__(self, stage):
        self._stage, self.latency = stage, stage.latency

    def process(self, item):
        self._stage.process(item)
        events = []
        if isinstance(item, Offset):
            label = (item.segment, item.onset, item.sample, "unknown", 0.5, "final")
            events.append(Label(*label, "c"))
        at = item.stop if isinstance(item, Block | Gap) else item.sample
        return self._stage.follow(StepEvents(INFO, at, events))

    def flush(self):
        self._stage.flush()
        return self._stage.follow(StepEvents(INFO, 0, ()))

    def reset(self):
        self._stage.reset()


def test_it_conforms(pair):
    samples, segments = song("low", "middle", "high")
    marks = Marker(segments)
    items = []
    for block in recut(samples, [64]):
        items += [block, *marks.process(block)]
    check_model(lambda: Followed(model(pair)), items, grid=64)


@pytest.mark.parametrize("fill", ["around", "repeat", "silence"])
def test_a_window_is_filled_as_the_manifest_says(fill):
    samples = np.arange(100, dtype=np.float32)
    found = fit_window(samples, 40, 44, 10, fill)
    expected = {
        "around": range(37, 47),
        "repeat": [40, 41, 42, 43, 40, 41, 42, 43, 40, 41],
        "silence": [40, 41, 42, 43, 0, 0, 0, 0, 0, 0],
    }
    assert found.tolist() == list(expected[fill])
    # Of a longer segment the middle, whatever fills.
    assert fit_window(samples, 20, 60, 10, fill).tolist() == list(range(35, 45))
    assert fit_window(samples, 95, 103, 8, fill).tolist()[:5] == list(range(95, 100))


def test_recent_sound_keeps_the_last_samples():
    kept = RecentSound(100)
    for start in range(0, 1000, 7):
        kept.append(start, np.arange(start, start + 7, dtype=np.float32))
        first, samples = kept.last()
        assert len(samples) == min(start + 7, 100)
        assert samples.tolist() == list(range(first, start + 7))
    kept.append(1001, np.arange(1001, 1501, dtype=np.float32))
    first, samples = kept.last()
    assert (first, len(samples), samples[0]) == (1401, 100, 1401)
