"""Manifests of ONNX classifiers: each mistake in one sentence with file and line."""

import numpy as np
import pytest
import yaml
from onnx import TensorProto, helper
from stages.onnx_graphs import save_band_classifier, save_graph, write_manifest

from neurovocal.engine.cli import main
from neurovocal.engine.contracts.clock import ManualClock
from neurovocal.engine.contracts.errors import ConfigError
from neurovocal.engine.contracts.plugin import BuildContext
from neurovocal.engine.contracts.types import StreamInfo
from neurovocal.plugins.models.any_onnx.log_mel import LogMelFrontEnd, mel_bands
from neurovocal.plugins.models.any_onnx.manifest import LogMel, load_manifest
from neurovocal.plugins.models.any_onnx.model import plugin
from neurovocal.plugins.models.any_onnx.network import OnnxNetwork

WINDOW = 800
GOOD = {
    "graph": "bands.onnx",
    "sample_rate": 8000,
    "window": WINDOW,
    "input": {"tensor": "input"},
    "output": {"tensor": "output", "activation": "sigmoid"},
    "labels": ["a", "b", "c", "d"],
}


@pytest.fixture
def folder(tmp_path):
    save_band_classifier(tmp_path / "bands.onnx", WINDOW, 4)
    return tmp_path


def problems(folder, **changes):
    """What is wrong with the good manifest after changes; None: key left out."""
    entries = {k: v for k, v in {**GOOD, **changes}.items() if v is not None}
    path = write_manifest(folder / "m.yaml", **entries)
    context = BuildContext(ManualClock(), "test")
    return [
        str(problem).replace(f"{path}:", "m.yaml:")
        for problem in plugin.check(plugin.options(manifest=str(path)), context)
    ]


def test_a_good_manifest_has_no_problem(folder):
    assert problems(folder) == []


# Lines of the keys: version, name, graph, sample_rate, window, input, output, labels.
@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"windw": 3}, "m.yaml:9: windw: unknown option (did you mean 'window'?)"),
        (
            {"window": 0},
            "m.yaml:5: window: must be at least 1 and at most 16777216 (got 0)",
        ),
        ({"name": "a b"}, "m.yaml:2: name: "),
        ({"labels": None}, "m.yaml:1: give either 'labels' or 'labels_file'"),
        ({"labels": list("aabc")}, "m.yaml:8: labels: label 'a' is given twice"),
        (
            {"labels": list("abc")},
            "m.yaml:8: labels: there are 3 labels, but output 'output' has shape "
            "[1, 4]: its last axis must have a value per label",
        ),
        (
            {"labels": None, "labels_file": "no.txt"},
            "m.yaml:8: labels_file: '{folder}/no.txt' cannot be read: No such file",
        ),
        (
            {"labels": None, "labels_file": "/dev/zero"},
            "m.yaml:8: labels_file: '/dev/zero' is no file",
        ),
        (
            {"graph": "no.onnx"},
            "m.yaml:3: graph: the ONNX file '{folder}/no.onnx' does not exist",
        ),
        (
            {"graph": "package:no_such_package/x.onnx"},
            "m.yaml:3: graph: the package 'no_such_package' is missing "
            "(pip install no-such-package)",
        ),
        (
            {"graph": "package:onnx/x.onnx"},
            "m.yaml:3: graph: the package 'onnx' has no file 'x.onnx'",
        ),
        (
            {"graph": "m.yaml"},
            "m.yaml:3: graph: '{folder}/m.yaml' is no readable ONNX graph",
        ),
        (
            {"input": {"tensor": "imput"}},
            "m.yaml:6: input.tensor: the graph has no input 'imput' (did you mean "
            "'input'?)",
        ),
        (
            {"window": 400},
            "m.yaml:6: input.tensor: input 'input' has shape [any, 800], the manifest "
            "gives [1, 400]",
        ),
        (
            {"input": {"tensor": "input", "axes": ["samples"]}},
            "m.yaml:7: input.tensor: input 'input' has shape [any, 800], the manifest "
            "gives [800]",
        ),
        (
            {"output": {"tensor": "out"}},
            "m.yaml:7: output.tensor: the graph has no output 'out' (",
        ),
        (
            {"constants": [{"tensor": "sr", "value": 8000, "type": "int64"}]},
            "m.yaml:10: constants.0.tensor: the graph has no input 'sr' (it has: ",
        ),
        (
            {"constants": [{"tensor": "input", "value": [1, 2], "shape": [3]}]},
            "m.yaml:11: constants.0.value: 'input' of shape [3] needs 3 values",
        ),
        (
            {"hop": 400, "state": [{"input": "s", "output": "t", "shape": [1]}]},
            "m.yaml:9: hop: a graph with state hears each sample once: hop must be",
        ),
        ({"channels": 2}, "m.yaml:9: channels: input.axes has no 'channel'"),
        ({"background": ["z"]}, "m.yaml:9: background: there is no label 'z'"),
        (
            {"log_mel": {"n_mels": 4, "frame_length": 64, "hop_length": 32}},
            "m.yaml:6: input.axes: with log_mel must have mel and time, found samples",
        ),
        (
            {
                "log_mel": {
                    **{"n_mels": 4, "frame_length": 900, "hop_length": 32},
                    **{"high_hz": 5000},
                }
            },
            "m.yaml:9: log_mel.high_hz: half the sample rate is 4000",
        ),
    ],
)
def test_mistakes_are_named_with_file_line_tensor_and_shapes(folder, changes, expected):
    found = problems(folder, **changes)
    expected = expected.replace("{folder}", str(folder))
    assert any(each.startswith(expected) for each in found), found


def test_all_mistakes_are_told_at_once(folder):
    found = problems(folder, graph="no.onnx", labels=["a", "a"], channels=2)
    assert len(found) == 3


def test_inputs_that_the_manifest_leaves_out_are_named(folder):
    save_graph(
        folder / "two.onnx",
        [helper.make_node("Mul", ["x", "rate"], ["y"])],
        [("x", TensorProto.FLOAT, [1, 4]), ("rate", TensorProto.FLOAT, [1])],
        [("y", TensorProto.FLOAT, [1, 4])],
    )
    more = {"input": {"tensor": "x"}, "output": {"tensor": "y"}, "window": 4}
    found = problems(folder, graph="two.onnx", **more)
    assert found == [
        "m.yaml:1: the graph has the input 'rate', which the manifest does not give: "
        "add it under 'constants' or 'state'"
    ]
    rate = [{"tensor": "rate", "value": 2.0, "shape": [1]}]
    assert problems(folder, graph="two.onnx", **more, constants=rate) == []
    rate[0]["type"] = "int64"
    (found,) = problems(folder, graph="two.onnx", **more, constants=rate)
    assert "constants.0.tensor: input 'rate' is a tensor(float), the manifest" in found


def test_a_constant_fills_its_shape_and_scaling_and_channels_are_applied(folder):
    save_graph(
        folder / "sum.onnx",
        [
            helper.make_node("Add", ["x", "more"], ["s"]),
            helper.make_node("ReduceSum", ["s", "axes"], ["y"], keepdims=0),
        ],
        [("x", TensorProto.FLOAT, [1, 2, 3]), ("more", TensorProto.FLOAT, [1, 2, 3])],
        [("y", TensorProto.FLOAT, [1, 3])],
        axes=np.array([1], np.int64),
    )
    path = write_manifest(
        folder / "sum.yaml",
        graph="sum.onnx",
        sample_rate=8000,
        window=3,
        channels=2,
        scaling=2,
        input={"tensor": "x", "axes": ["batch", "channel", "samples"]},
        constants=[{"tensor": "more", "value": 0.01, "shape": [1, 2, 3]}],
        output={"tensor": "y"},
        labels=["a", "b", "c"],
    )
    network = OnnxNetwork(load_manifest(path))
    values = network(np.array([0.1, 0.2, np.nan], np.float32))
    assert values.tolist() == pytest.approx([0.42, 0.82, 0.02])


def test_a_graph_behind_a_front_end_gets_its_bands(folder):
    mel = LogMel(n_mels=8, frame_length=64, hop_length=32, log="db", floor=1e-8)
    save_graph(
        folder / "mel.onnx",
        [helper.make_node("ReduceMean", ["x"], ["y"], axes=[1, 3], keepdims=0)],
        [("x", TensorProto.FLOAT, [1, 1, 8, "time"])],
        [("y", TensorProto.FLOAT, [1, 8])],
    )
    path = write_manifest(
        folder / "mel.yaml",
        graph="mel.onnx",
        sample_rate=8000,
        window=WINDOW,
        input={"tensor": "x", "axes": ["batch", "channel", "mel", "time"]},
        log_mel=mel.model_dump(exclude_defaults=True),
        output={"tensor": "y", "activation": "sigmoid"},
        labels=list("abcdefgh"),
    )
    network = OnnxNetwork(load_manifest(path))
    samples = np.sin(2 * np.pi * 1000 / 8000 * np.arange(WINDOW)).astype(np.float32)
    bands = LogMelFrontEnd(mel, 8000)(samples)
    assert bands.shape == (1 + (WINDOW - 64) // 32, 8)
    expected = 1 / (1 + np.exp(-bands.mean(axis=0, dtype=np.float64)))
    assert network(samples) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("scale", ["slaney", "htk"])
@pytest.mark.parametrize("norm", ["slaney", "none"])
def test_bands_are_those_of_librosa(scale, norm):
    librosa = pytest.importorskip("librosa")
    spec = LogMel(
        **{"n_mels": 40, "frame_length": 512, "hop_length": 160, "n_fft": 1024},
        **{"low_hz": 60, "high_hz": 7800, "scale": scale, "norm": norm},
    )
    expected = librosa.filters.mel(
        **{"sr": 16000, "n_fft": 1024, "n_mels": 40, "fmin": 60, "fmax": 7800},
        **{"htk": scale == "htk", "norm": "slaney" if norm == "slaney" else None},
        dtype=np.float64,
    )
    np.testing.assert_allclose(mel_bands(spec, 16000, 1024).T, expected, atol=1e-9)


def test_centred_columns_are_those_of_librosa():
    librosa = pytest.importorskip("librosa")
    samples = np.random.default_rng(1).normal(0, 0.1, 4000).astype(np.float32)
    spec = LogMel(n_mels=32, frame_length=400, hop_length=160, centre=True, log="db")
    expected = librosa.feature.melspectrogram(
        **{"y": samples.astype(np.float64), "sr": 16000, "n_fft": 400},
        **{"hop_length": 160, "n_mels": 32, "pad_mode": "reflect"},
    )
    found = LogMelFrontEnd(spec, 16000)(samples)
    expected = 10 * np.log10(np.maximum(expected, 1e-10))
    np.testing.assert_allclose(found.T, expected, atol=1e-3)


def test_shipped_manifests_name_what_must_be_added(tmp_path):
    context = BuildContext(ManualClock(), "test", info=StreamInfo("cage", 48000))
    for name in ("birdnet", "perch"):
        path = context.path(f"onnx/{name}.yaml")
        stated = yaml.safe_load(path.read_text())
        with pytest.raises(ConfigError, match=rf"{name}\.onnx' does not exist"):
            load_manifest(path)
        assert stated["window"] % stated["sample_rate"] == 0


TWICE = """\
version: 1
source: {plugin: synthetic, options: {duration_s: 1}}
models:
  - plugin: onnx
    options: {manifest: m.yaml}
  - plugin: onnx
    options: {manifest: m.yaml%s}
sinks: [{plugin: jsonl}]
"""


def test_two_models_of_one_name_in_a_lane_are_refused(folder, capsys):
    write_manifest(folder / "m.yaml", **{**GOOD, "name": "bands"})
    config = folder / "c.yaml"

    def checked(more=""):
        config.write_text(TWICE % more)
        with pytest.raises(SystemExit) as ended:
            main(["check", str(config)])
        return ended.value.code, " ".join(capsys.readouterr().err.split())

    code, told = checked()
    assert code == 1
    assert (
        "models.1: this model 'onnx' and the one at models.0 would both label as "
        "'bands', and nobody could tell their labels apart: give one of them another "
        "'name' in its options" in told
    )
    assert checked(", name: loud-only")[0] == 0
