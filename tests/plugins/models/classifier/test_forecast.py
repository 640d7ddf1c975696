"""Forecast of units: network, training, export, streaming, and use as a prior."""

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from bundles.tiny_bundle import edit_manifest, front_end, make_tiny_bundle
from hypothesis import given, settings
from hypothesis import strategies as st
from stages.classifiers import HIGH, LOW, RATE, TILE, audio, labels, process_audio

from neurovocal.engine.cli.commands.listen import as_line
from neurovocal.engine.client.received import received_of
from neurovocal.engine.contracts.bundle import ClassifierSpec, FrontEnd, load_bundle
from neurovocal.engine.contracts.clock import ManualClock
from neurovocal.engine.contracts.errors import BundleError
from neurovocal.engine.contracts.plugin import BuildContext
from neurovocal.engine.contracts.types import (
    Block,
    Event,
    Forecast,
    Gap,
    Mark,
    Message,
    Offset,
    Onset,
    StreamInfo,
)
from neurovocal.engine.testing import canonical, recut
from neurovocal.engine.wire.codec import decode, encode
from neurovocal.models.classifier.forecast.evaluation import (
    baseline_forecasts,
    score_predictions,
)
from neurovocal.models.classifier.forecast.graph import (
    TrainedForecast,
    count_successors,
    forecast_graph,
    write_forecast,
)
from neurovocal.models.classifier.forecast.network import (
    Phrase,
    UnitRnnRbm,
    phrase_inputs,
    split_phrases,
)
from neurovocal.models.classifier.forecast.prior import (
    DELAYS_MS,
    ClassifiedRecordings,
    ScoresByDelay,
    choose_weights,
    collect_scores_by_delay,
    early_weights,
    forecast_units,
)
from neurovocal.models.classifier.forecast.training import ForecastTask
from neurovocal.models.data.datasets import AnnotatedRecording
from neurovocal.models.data.frames import LabelledFrames
from neurovocal.models.data.targets import FrameSpan
from neurovocal.models.toolkit.loop import Budget, StopFlag, fit
from neurovocal.models.toolkit.onnx_session import GraphExport
from neurovocal.models.toolkit.recipe import ForecastConfig
from neurovocal.plugins.models.classifier import model as classifier_model
from neurovocal.plugins.models.classifier.model import Classifier
from neurovocal.plugins.models.classifier.model import plugin as classifier_plugin
from neurovocal.plugins.models.forecast import Forecaster, forecast_weight

CONFIG = ForecastConfig(
    updates=100,
    batch_size=4,
    learning_rate=0.03,
    n_hidden=6,
    n_recurrent=8,
    dropout=0.0,
    forgotten=0.0,
)
A, B = 0, 1
ORDER = [A, A, B, B] * 8  # no unit alone says which one follows it
FRAME_MS = 4.0


def phrase(units: list[int], gap_ms: float = 40.0) -> Phrase:
    gaps = np.full(len(units), gap_ms)
    gaps[0] = np.inf
    return Phrase(np.array(units), gaps)


def example(units: list[int], n_frames: int = 10, gap: int = 10) -> LabelledFrames:
    """Make a recording of equal segments and silences, with frames of zeros."""
    spans, target = [], np.zeros(len(units) * (n_frames + gap) + 60, np.int64)
    for i, unit in enumerate(units):
        first = 30 + i * (n_frames + gap)
        spans.append(FrameSpan(first, first + n_frames, unit + 1))
        target[first : first + n_frames] = unit + 1
    frames = np.zeros((len(target), 3), np.float32)
    nowhere = AnnotatedRecording(
        "x.wav", Path("x.wav"), len(target) * 0.004, RATE, (), {}
    )
    return LabelledFrames(nowhere, frames, target, spans)


def classified(song: LabelledFrames, logs: np.ndarray) -> ClassifiedRecordings:
    spec = ClassifierSpec(units=["", "a", "b"], state={})
    return ClassifiedRecordings(
        [song], [logs], FrontEnd.model_validate(front_end(RATE)), spec
    )


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> ForecastTask:
    train = [phrase(ORDER[i:]) for i in range(4)]
    task = ForecastTask(CONFIG, train, [phrase(ORDER)], 2, 0)
    path = tmp_path_factory.mktemp("forecast") / "forecast.pt"
    fit(task, path, Budget(None), StopFlag(), 1e9)
    return task


@pytest.fixture(scope="module")
def folder(task: ForecastTask, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny bundle with a forecast that was trained on `ORDER`."""
    folder = make_tiny_bundle(tmp_path_factory.mktemp("bundles") / "tiny")
    return add_forecast(folder, task)


def add_forecast(folder: Path, task: ForecastTask, **changes: Any) -> Path:
    golden = dict(np.load(folder / "golden.npz"))
    song = example(ORDER)
    logs = np.zeros((len(song.frames), 3))
    recordings = classified(song, logs)
    trained = TrainedForecast(task.module, task.edges, [phrase(ORDER)])
    export = GraphExport(folder, golden)
    spec = write_forecast(export, trained, CONFIG, recordings)
    np.savez(folder / "golden.npz", **golden)
    content = spec.model_dump() | changes
    edit_manifest(folder, forecast=content)
    return folder


# ---- the network ---------------------------------------------------------------------


def test_the_network_is_an_rbm_with_hidden_units_summed_out() -> None:
    torch.manual_seed(0)
    model = UnitRnnRbm(CONFIG, 3, 2).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.7)
    tokens, gaps = torch.rand(4, 1, 5), torch.rand(4, 1, 2)
    found, _ = model(tokens, gaps)
    u = model.layer(tokens, torch.zeros(1, 8))[-1, 0]
    bv = model.bv + u @ model.Wuv + gaps[-1, 0] @ model.Wgv
    bh = model.bh + u @ model.Wuh + gaps[-1, 0] @ model.Wgh
    weight = torch.zeros(3, dtype=torch.float64)
    for bits in itertools.product((0.0, 1.0), repeat=6):
        h = torch.tensor(bits)
        weight += torch.exp(bv + model.W @ h + bh @ h).double()
    expected = (weight / weight.sum()).log()
    assert torch.allclose(found[-1, 0].double(), expected, atol=1e-5)


def test_the_network_learns_an_order_that_a_bigram_cannot(task: ForecastTask) -> None:
    song = phrase(ORDER)
    logs = task.module.eval().predict(*phrase_inputs(song, 2, task.edges))
    right, nats = score_predictions(logs[2:].astype(float), song.units[2:])
    assert right.all()
    counts = np.array(count_successors([song], 2), float)
    before = np.concatenate([[2], song.units[:-1]])
    bigram = baseline_forecasts(counts, before)["by_bigram"]
    assert (
        nats.mean()
        < 0.25
        < 0.5
        < score_predictions(bigram[2:], song.units[2:])[1].mean()
    )


def test_a_resumed_training_gives_the_same_parameters(tmp_path: Path) -> None:
    class StopAt(StopFlag):
        """Raised after `reads` reads."""

        reads = 25

        @property
        def raised(self) -> bool:
            self.reads -= 1
            return self.reads < 0

        @raised.setter
        def raised(self, value: bool) -> None: ...

    config = CONFIG.model_copy(update={"updates": 40, "validate_every": 10})

    def train(name: str, stop: StopFlag) -> list[np.ndarray]:
        task = ForecastTask(config, [phrase(ORDER)], [phrase(ORDER)], 2, 3)
        fit(task, tmp_path / name, Budget(None), stop, 1e9)
        return [p.detach().numpy() for p in task.module.parameters()]

    whole = train("a.pt", StopFlag())
    with pytest.raises(Exception, match="stopped at update 25 of 40"):
        train("b.pt", StopAt())
    for a, b in zip(whole, train("b.pt", StopFlag()), strict=True):
        assert np.array_equal(a, b)


def test_phrases_end_at_pauses_and_recordings() -> None:
    song = example([A, B, A])
    late = replace(song.spans[2], first=400, stop=410)
    split = replace(song, spans=[*song.spans[:2], late])
    found = split_phrases([song, split], FRAME_MS, 500.0)
    assert [p.units.tolist() for p in found] == [[A, B, A], [A, B], [A]]
    assert [p.gaps_ms[0] for p in found] == [np.inf] * 3
    assert found[0].gaps_ms[1] == 40.0


# ---- export and bundle ---------------------------------------------------------------


def test_a_bundle_without_classifier_has_no_forecast(folder: Path) -> None:
    spec = load_bundle(folder).manifest.forecast
    assert spec is not None
    without: dict[str, Any] = {"classifier": None, "forecast": spec.model_dump()}
    bare = make_tiny_bundle(folder.parent / "bare", **without)
    with pytest.raises(BundleError, match="without a classifier there are no units"):
        load_bundle(bare)


def test_a_network_other_than_the_golden_one_is_refused(
    task: ForecastTask, tmp_path: Path
) -> None:
    folder = add_forecast(make_tiny_bundle(tmp_path / "tiny"), task)
    torch.manual_seed(9)
    n_gaps = len(task.edges) + 2
    onnx.save(forecast_graph(UnitRnnRbm(CONFIG, 2, n_gaps)), folder / "forecast.onnx")
    edit_manifest(folder)
    with pytest.raises(BundleError, match="does not reproduce the golden 'forecast'"):
        build(folder)


# ---- streaming -----------------------------------------------------------------------


def build(folder: Path, **options: Any) -> Classifier:
    context = BuildContext(
        clock=ManualClock(),
        run="test",
        info=StreamInfo("test", RATE),
        bundle=load_bundle(folder),
        tile=TILE,
    )
    validated = classifier_plugin.options.model_validate(options)
    model = classifier_plugin.build(validated, context)
    assert isinstance(model, Classifier)
    return model


def test_streamed_forecasts_are_those_of_the_batch(
    folder: Path, task: ForecastTask
) -> None:
    song = example([A, B, B, A, A, B])
    recordings = classified(song, np.zeros((len(song.frames), 3)))

    def batch(at_onset: bool) -> np.ndarray:
        predict = task.module.eval().predict
        return forecast_units(
            predict, 2, task.edges, recordings, 500.0, at_onset=at_onset
        )

    forecaster, hop = Forecaster(load_bundle(folder)), 128
    at_onset, after_offset = [], []
    for i, span in enumerate(song.spans):
        onset, offset = span.first * hop, span.stop * hop
        event, logs = forecaster.at_onset(i, onset)
        assert (event.segment, event.sample, event.status) == (i, onset, "onset")
        at_onset.append(logs)
        forecaster.add_label("ab"[span.unit - 1], onset, offset)
        after_offset.append(forecaster.after_offset(i + 1).posteriors["a"])
    assert np.allclose(at_onset, batch(True), atol=1e-5)
    assert np.allclose(after_offset[:-1], np.exp(batch(False)[1:, A]), atol=1e-5)


TONES = [(LOW, 4000), (LOW, 8000), (HIGH, 12000), (HIGH, 16000), (LOW, 20000)]
SONG = audio(26000, *((at, at + 2000, hz) for hz, at in TONES))
MARKS: dict[int, list[Mark]] = {}
for number, (_, at) in enumerate(TONES):
    MARKS[at + 300] = [Onset(number, at, 1.0)]
    MARKS[at + 2200] = [Offset(number, at, at + 2000, False)]


def bytes_of(events: list[Event]) -> list[Any]:
    return [canonical(event) for event in events]


def forecasts(events: list[Event]) -> list[Forecast]:
    return [event for event in events if isinstance(event, Forecast)]


def test_a_name_of_its_own_is_that_of_labels_and_forecasts(folder: Path) -> None:
    events = process_audio(build(folder, name="mine"), folder, [Block(0, SONG)], MARKS)
    assert {f.model for f in forecasts(events)} == {"mine/forecast"}
    assert {label.model for label in labels(events)} == {"mine"}


def test_each_label_comes_after_a_forecast_of_its_segment(folder: Path) -> None:
    events = process_audio(build(folder), folder, [Block(0, SONG)], MARKS)
    found = forecasts(events)
    # The first segment of a stream is forecast at its onset only.
    assert [(f.segment, f.status) for f in found] == [
        (0, "onset"),
        *((n, s) for n in range(1, 5) for s in ("offset", "onset")),
        (5, "offset"),
    ]
    assert [f.unit for f in found[3:]] == ["b", "b", "b", "b", "a", "a", "a"]
    for f in found:
        assert f.posterior == max(f.posteriors.values())
        assert sum(f.posteriors.values()) == pytest.approx(1.0, abs=1e-5)
        assert f.model == "tiny/forecast"
    for label in labels(events):
        before = events[: events.index(label)]
        assert label.segment in [f.segment for f in forecasts(before)]


def test_without_the_option_forecast_the_other_events_are_the_same(
    folder: Path,
) -> None:
    events = process_audio(build(folder), folder, [Block(0, SONG)], MARKS)
    quiet = process_audio(
        build(folder, forecast=False), folder, [Block(0, SONG)], MARKS
    )
    rest = [event for event in events if not isinstance(event, Forecast)]
    assert bytes_of(rest) == bytes_of(quiet)


def test_a_forecast_that_nothing_needs_is_not_loaded(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[Any] = []
    monkeypatch.setattr(
        classifier_model, "Forecaster", lambda *arguments: loaded.append(arguments)
    )
    build(folder, forecast=False, prior="none")
    build(folder, forecast=False, provisional=False)
    assert loaded == []
    build(folder, forecast=False)
    build(folder, forecast=False, provisional=False, prior="all")
    assert len(loaded) == 2


@settings(max_examples=8, deadline=None)
@given(data=st.data())
def test_forecasts_do_not_depend_on_blocks(folder: Path, data: st.DataObject) -> None:
    lengths = data.draw(st.lists(st.integers(100, 9000), min_size=1, max_size=12))
    model = build(folder, prior="all")
    whole = process_audio(model, folder, [Block(0, SONG)], MARKS)
    model.reset()
    pieces = process_audio(model, folder, recut(SONG, lengths), MARKS)
    assert bytes_of(whole) == bytes_of(pieces)


def test_a_gap_begins_a_phrase(folder: Path) -> None:
    gap = Gap(11000, 11100, "test")
    items = [Block(0, SONG[:11000]), gap, Block(11100, SONG[11100:])]
    found = forecasts(process_audio(build(folder), folder, items, MARKS))
    first, after = found[0], next(f for f in found if f.sample > gap.stop)
    assert after.status == "onset"
    assert after.posteriors == first.posteriors


def test_a_long_pause_begins_a_phrase(folder: Path) -> None:
    forecaster = Forecaster(load_bundle(folder))
    fresh = forecaster.at_onset(0, 500)[0].posteriors
    forecaster.add_label("a", 500, 2000)
    pause = RATE // 2
    assert forecaster.at_onset(1, 2000 + pause)[0].posteriors != fresh
    assert forecaster.at_onset(1, 2001 + pause)[0].posteriors == fresh


def test_the_prior_changes_labels_as_the_option_says(
    task: ForecastTask, tmp_path: Path
) -> None:
    """The third unit of the order is b; the audio is that of unit a."""
    folder = make_tiny_bundle(tmp_path / "tiny")
    strong = [{"frames": 0, "weight": 50.0}]
    add_forecast(folder, task, prior_weight=50.0, early=strong)
    tones = [*TONES[:2], (LOW, 12000)]
    samples = audio(16000, *((at, at + 2000, hz) for hz, at in tones))
    marks = {at: marks for at, marks in MARKS.items() if at < 15000}

    def third(prior: str) -> list[tuple[str, str]]:
        events = process_audio(
            build(folder, prior=prior), folder, [Block(0, samples)], marks
        )
        return [(x.status, x.unit) for x in labels(events) if x.segment == 2]

    assert third("none") == [("provisional", "a"), ("final", "a")]
    assert third("provisional")[0] == ("provisional", "b")
    assert third("provisional")[-1] == ("final", "a")
    assert third("all") == [("provisional", "b"), ("final", "b")]


# ---- the weight of the prior ---------------------------------------------------------


def test_scores_by_delay_use_complete_frames_only() -> None:
    song = example([A, B], n_frames=20)
    logs = np.zeros((len(song.frames), 3))
    logs[:, 1] = np.arange(len(logs))
    recordings = classified(song, logs)
    found = collect_scores_by_delay(recordings, np.zeros((2, 2)))
    first = song.spans[0].first
    n_frames = dict(zip(DELAYS_MS, (0, 0, 2, 4, 7, 12, 20), strict=True))
    for at, n in enumerate(n_frames.values()):
        # Without a complete frame: the frame before the segment.
        expected = sum(range(first, first + n)) if n else first - 1
        assert found.scores[at, 0, 0] == expected
    assert found.unit.tolist() == [A, B]


@pytest.mark.parametrize(("is_right", "expected"), [(True, 2.0), (False, 0.0)])
def test_weights_are_chosen_by_validation_likelihood(
    is_right: bool, expected: float
) -> None:
    rng = np.random.default_rng(0)
    unit = rng.integers(2, size=400)
    sure = np.log(np.where(np.eye(2)[unit] > 0, 0.9, 0.1))
    scores = np.stack([sure] * len(DELAYS_MS))
    other = np.eye(2)[unit if is_right else rng.integers(2, size=400)]
    forecast = np.log(np.where(other > 0, 0.9, 0.1))
    evidence = ScoresByDelay(scores, forecast, unit, np.zeros(400, np.int64))
    assert choose_weights(evidence) == [expected] * len(DELAYS_MS)


def test_a_weight_applies_from_its_number_of_frames(folder: Path) -> None:
    front_end = load_bundle(folder).manifest.front_end
    spec = load_bundle(folder).manifest.forecast
    assert spec is not None
    early = early_weights([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7], front_end)
    changed = spec.model_copy(update={"early": early, "prior_weight": 0.7})
    found = [forecast_weight(changed, n) for n in (0, 1, 2, 3, 4, 11, 12, 99, None)]
    assert found == [0.2, 0.2, 0.3, 0.3, 0.4, 0.5, 0.6, 0.6, 0.7]


def test_listen_prints_a_forecast() -> None:
    event = Forecast(7, 3200, "b", 0.75, {"a": 0.25, "b": 0.75}, "offset", "m")
    message = Message(StreamInfo("cage", RATE), event, 0, 3200)
    received = received_of(*decode(encode(message, "run", None)))
    assert as_line(received).split() == [
        *("0.100", "forecast", "cage", "b", "0.75"),
        *("segment", "7,", "to", "come"),
    ]
