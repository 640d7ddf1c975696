"""Bundles: complete ones are loaded, damaged ones are rejected in one sentence."""

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import yaml
from bundles.tiny_bundle import edit_manifest, make_tiny_bundle
from onnx import TensorProto, helper, numpy_helper
from processes.cli_process import neurovocal

from neurovocal.engine.cli.commands.bundle import verify
from neurovocal.engine.contracts.bundle import Bundle, find_bundle, load_bundle
from neurovocal.engine.contracts.clock import ManualClock
from neurovocal.engine.contracts.errors import BundleError, ConfigError
from neurovocal.engine.contracts.plugin import BuildContext, Plugin
from neurovocal.engine.contracts.types import StreamInfo
from neurovocal.plugins.models.classifier.model import plugin as classifier_plugin
from neurovocal.plugins.models.onnx.scan import forbidden_parts
from neurovocal.plugins.models.rnn_rbm.model import plugin as rnn_rbm_plugin

RATE = 32000
PLUGINS: dict[str, Plugin[Any]] = {
    "classifier": classifier_plugin,
    "rnn_rbm": rnn_rbm_plugin,
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_tiny_bundle(tmp_path / "tiny")


def context_of(bundle: Bundle | None, **more: Any) -> BuildContext:
    info = StreamInfo("test", more.pop("sample_rate", RATE))
    return BuildContext(
        clock=ManualClock(), run="test", info=info, bundle=bundle, **more
    )


def build(model: str, folder: Path | None, **more: Any) -> Any:
    bundle = load_bundle(folder) if folder else None
    plugin = PLUGINS[model]
    return plugin.build(plugin.options(), context_of(bundle, **more))


def refusal(model: str, folder: Path | None, **more: Any) -> str:
    """Return the sentence with which a model rejects a bundle."""
    with pytest.raises(BundleError) as raised:
        build(model, folder, **more)
    assert len(raised.value.problems) == 1
    (sentence,) = raised.value.problems
    assert "\n" not in sentence
    assert len(sentence) < 400
    return sentence


# ---- the folder and its manifest -----------------------------------------------


def test_a_complete_bundle_is_accepted(folder: Path) -> None:
    for model in PLUGINS:
        assert build(model, folder).latency == 0


def test_a_bundle_is_found_from_the_configurations_folder(folder: Path) -> None:
    assert find_bundle("tiny", folder.parent) == folder
    with pytest.raises(BundleError, match="does not exist"):
        find_bundle("tinny", folder.parent)
    (folder / "manifest.yaml").unlink()
    with pytest.raises(BundleError, match="is it a model bundle"):
        find_bundle(str(folder))


def problems_of(folder: Path) -> list[str]:
    with pytest.raises(BundleError) as raised:
        load_bundle(folder)
    return raised.value.problems


def test_the_error_names_each_damaged_file(folder: Path) -> None:
    (folder / "scaling.npz").write_bytes(b"x")
    (folder / "golden.npz").unlink()
    problems = problems_of(folder)
    assert len(problems) == 2
    assert any("scaling.npz" in p and "damaged" in p for p in problems)
    assert any("golden.npz" in p and "missing" in p for p in problems)


def without_checksum(folder: Path, name: str, **front_end: Any) -> Path:
    """Remove a file from the list of files; change the options of the front end."""
    content = yaml.safe_load((folder / "manifest.yaml").read_text())
    del content["files"][name]
    content["front_end"]["options"].update(front_end)
    (folder / "manifest.yaml").write_text(yaml.safe_dump(content))
    return folder


@pytest.mark.parametrize(
    "name",
    [
        "golden.npz",
        "classifier.onnx",
        "rnn_rbm_sample.onnx",
        "residual.npz",
        "scaling.npz",
    ],
)
def test_a_file_without_a_checksum_is_rejected(folder: Path, name: str) -> None:
    (problem,) = problems_of(without_checksum(folder, name))
    assert f"{name} is not listed" in problem


@pytest.mark.parametrize("scaling", [{}, {"file": "./scaling.npz"}, {"file": "link"}])
def test_a_scaling_without_a_checksum_is_never_read(
    folder: Path, scaling: dict[str, str]
) -> None:
    """Also where the name is the default, written in another way, or a link's."""
    (folder / "link").symlink_to("scaling.npz")
    without_checksum(folder, "scaling.npz", scaling=scaling)
    done = neurovocal("bundle", "check", folder)
    assert done.code == 1
    assert "is not listed under 'files'" in done.err
    assert done.err.count("\n") == 1


@pytest.mark.parametrize("name", ["./scaling.npz", "x/../scaling.npz"])
def test_a_file_may_be_listed_under_another_spelling(folder: Path, name: str) -> None:
    (folder / "x").mkdir()
    content = yaml.safe_load((folder / "manifest.yaml").read_text())
    content["files"][name] = content["files"].pop("scaling.npz")
    (folder / "manifest.yaml").write_text(yaml.safe_dump(content))
    assert load_bundle(folder).path("scaling.npz").is_file()


def test_other_files_in_the_folder_are_ignored(folder: Path) -> None:
    for name in ("._scaling.npz", ".DS_Store", "notes.txt", "other.onnx"):
        (folder / name).write_bytes(b"x")
    (folder / "gone").symlink_to(folder / "nowhere")
    bundle = load_bundle(folder)
    with pytest.raises(BundleError, match=r"other\.onnx is not listed"):
        bundle.path("other.onnx")


def test_a_bundle_in_a_folder_of_any_name_is_accepted(tmp_path: Path) -> None:
    name = "a [b] 'c' \x1b[31m K\xe4fig" + "x" * 200
    folder = make_tiny_bundle(tmp_path / name, rnn_rbm=False)
    (tmp_path / "link").symlink_to(folder)
    assert load_bundle(tmp_path / "link").manifest.name == "tiny"
    done = neurovocal("bundle", "check", folder)
    assert done.code == 0
    assert "\x1b" not in done.out
    (folder / "scaling.npz").write_bytes(b"x")
    done = neurovocal("bundle", "check", folder)
    assert done.code == 1
    assert "\x1b" not in done.err


def test_what_cannot_be_read_is_one_sentence(folder: Path) -> None:
    content = yaml.safe_load((folder / "manifest.yaml").read_text())
    content["files"] |= {"x" * 5000: "0", "loop": "0", "": "0", "pipe": "0"}
    (folder / "loop").symlink_to("loop")
    os.mkfifo(folder / "pipe")
    (folder / "manifest.yaml").write_text(yaml.safe_dump(content))
    problems = problems_of(folder)
    assert len(problems) == 4
    assert all("\n" not in problem for problem in problems)


@pytest.mark.parametrize(
    "changes",
    [
        {"front_end": {"hop_length": 64}},
        {"front_end": {"n_bins": 128}},
        {"front_end": {"hop_length": 2**40}},
        {"detector": {"plugin": "energy", "options": {"low_hx": 1}}},
        {"detector": {"plugin": "none"}},
        {"golden_tolerance": math.inf},
        {"golden_tolerance": 5.0},
        {"rnn_rbm": {"free_energy_mean": math.nan}},
        {"rnn_rbm": {"n_recurrent": 10**15}},
        {"classifier": {"state": {"h": [10**6, 10**6]}}},
        {"classifier": {"state": {"h": [-1]}}},
        {"version": 2, "new": 1},
    ],
)
def test_check_and_label_refuse_the_same_manifests(
    folder: Path, changes: dict[str, Any]
) -> None:
    content = yaml.safe_load((folder / "manifest.yaml").read_text())
    for name, change in changes.items():
        if isinstance(change, dict):
            change = {**content.get(name, {}), **change}
        content[name] = change
    (folder / "manifest.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(ConfigError) as caught:
        verify(load_bundle(folder))
    assert len(caught.value.problems) == 1
    assert len(str(caught.value)) < 400


def test_a_manifest_of_a_newer_version_says_what_to_update(folder: Path) -> None:
    content = yaml.safe_load((folder / "manifest.yaml").read_text())
    content |= {"version": 2, "new": 1}
    (folder / "manifest.yaml").write_text(yaml.safe_dump(content))
    (problem,) = problems_of(folder)
    assert "made by a newer neurovocal, this one reads version 1: update" in problem


def test_a_file_outside_the_folder_is_rejected(folder: Path) -> None:
    (folder.parent / "secret").write_text("x")
    content = yaml.safe_load((folder / "manifest.yaml").read_text())
    content["files"]["../secret"] = "0" * 64
    (folder / "manifest.yaml").write_text(yaml.safe_dump(content))
    (problem,) = problems_of(folder)
    assert "outside the bundle" in problem


@pytest.mark.parametrize(
    ("units", "message"),
    [
        (["", "a", "a"], "twice"),
        (["a", "b"], "silence"),
        ([""], "none but silence"),
    ],
)
def test_contradictory_units_are_rejected(
    folder: Path, units: list[str], message: str
) -> None:
    edit_manifest(folder, classifier={"units": units, "state": {"h": [1, 4]}})
    (problem,) = problems_of(folder)
    assert message in problem


@pytest.mark.parametrize("text", ["a: [", "\x00", "- 1", "version: 2"])
def test_the_error_names_an_unreadable_manifest(folder: Path, text: str) -> None:
    (folder / "manifest.yaml").write_text(text)
    assert all("manifest.yaml" in problem for problem in problems_of(folder))


# ---- graphs that must not run ----------------------------------------------------

Damage = Callable[[onnx.ModelProto], None]


def damaged(folder: Path, name: str, damage: Damage) -> Path:
    """Change a graph, with the checksum of the changed file."""
    model = onnx.load(folder / name)
    damage(model)
    (folder / name).write_bytes(model.SerializeToString())
    edit_manifest(folder)
    return folder


def point_outside(model: onnx.ModelProto) -> None:
    weights = model.graph.initializer[0]
    weights.ClearField("raw_data")
    weights.data_location = TensorProto.EXTERNAL
    entry = weights.external_data.add()
    entry.key, entry.value = "location", "../../etc/passwd"


def add_random_operator(model: onnx.ModelProto) -> None:
    model.graph.node.append(helper.make_node("RandomNormal", [], ["unused"], shape=[1]))


def add_custom_operator(model: onnx.ModelProto) -> None:
    node = helper.make_node("Launch", ["frames"], ["unused"], domain="com.example")
    model.graph.node.append(node)
    model.opset_import.append(helper.make_opsetid("com.example", 1))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (point_outside, "external data"),
        (add_random_operator, "random operator RandomNormal"),
        (add_custom_operator, "custom operator com.example.Launch"),
    ],
)
@pytest.mark.parametrize(
    ("model", "name"), [("classifier", "classifier.onnx"), ("rnn_rbm", "rnn_rbm.onnx")]
)
def test_forbidden_graph_parts_are_rejected(
    folder: Path, model: str, name: str, damage: Damage, words: str
) -> None:
    sentence = refusal(model, damaged(folder, name, damage))
    assert words in sentence
    assert name in sentence


def test_forbidden_graph_parts_are_found_inside_loops(folder: Path) -> None:
    def damage(model: onnx.ModelProto) -> None:
        (loop,) = (node for node in model.graph.node if node.op_type == "Loop")
        body = next(a.g for a in loop.attribute if a.name == "body")
        like = helper.make_node("RandomUniformLike", ["v"], ["unused"])
        body.node.append(like)
        tensor = numpy_helper.from_array(np.zeros(3, np.float32), "far")
        constant = helper.make_node("Constant", [], ["far"], value=tensor)
        constant.attribute[0].t.data_location = TensorProto.EXTERNAL
        body.node.append(constant)

    sentence = refusal("rnn_rbm", damaged(folder, "rnn_rbm_sample.onnx", damage))
    assert "RandomUniformLike" in sentence
    assert "external data" in sentence


def test_shipped_graphs_have_no_forbidden_parts(folder: Path) -> None:
    for path in folder.glob("*.onnx"):
        assert forbidden_parts(path.read_bytes()) == []


@pytest.mark.parametrize("content", [b"", b"not a graph", b"\x08\x07\x12\xff\x01x"])
def test_a_file_that_is_no_graph_is_rejected_in_a_sentence(
    folder: Path, content: bytes
) -> None:
    (folder / "classifier.onnx").write_bytes(content)
    edit_manifest(folder)
    assert "classifier.onnx is no" in refusal("classifier", folder)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_a_truncated_graph_is_rejected_in_a_sentence(
    folder: Path, share: float
) -> None:
    path = folder / "rnn_rbm.onnx"
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    edit_manifest(folder)
    assert "rnn_rbm.onnx" in refusal("rnn_rbm", folder)


# ---- graphs that do not keep the contract ----------------------------------------


def manifest_part(folder: Path, name: str, **changes: Any) -> Path:
    content = yaml.safe_load((folder / "manifest.yaml").read_text())
    edit_manifest(folder, **{name: {**content[name], **changes}})
    return folder


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"units": ["", "a", "b", "c"]}, "'logits' has shape [any, 3]"),
        ({"state": {"h": [1, 5]}}, "'h' has shape [1, 4]"),
        ({"state": {"g": [1, 4]}}, "lacks the input g and has an unknown input h"),
        ({"state": {"h": [1, 4], "g": [1, 2]}}, "lacks the input g"),
    ],
)
def test_a_classifier_without_its_tensors_is_rejected(
    folder: Path, changes: dict[str, Any], words: str
) -> None:
    sentence = refusal("classifier", manifest_part(folder, "classifier", **changes))
    assert words in sentence


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"n_hidden": 17}, "'noise' has shape [any, 16]"),
        ({"n_recurrent": 9}, "'u' has shape [1, 8]"),
        ({"n_visible": 128}, "n_visible 128"),
    ],
)
def test_an_rnn_rbm_without_its_tensors_is_rejected(
    folder: Path, changes: dict[str, Any], words: str
) -> None:
    sentence = refusal("rnn_rbm", manifest_part(folder, "rnn_rbm", **changes))
    assert words in sentence


def test_a_graph_with_a_fixed_tile_length_is_rejected(folder: Path) -> None:
    def damage(model: onnx.ModelProto) -> None:
        dims = model.graph.input[0].type.tensor_type.shape.dim
        dims[0].ClearField("dim_param")
        dims[0].dim_value = 8

    sentence = refusal("classifier", damaged(folder, "classifier.onnx", damage))
    assert "'frames' has shape [8, 129]" in sentence


# ---- golden vectors ---------------------------------------------------------------


def change_golden(folder: Path, **arrays: Any) -> Path:
    with np.load(folder / "golden.npz") as old:
        content = {name: old[name] for name in old.files}
    for name, change in arrays.items():
        if change is None:
            del content[name]
        else:
            content[name] = change(content[name])
    np.savez(folder / "golden.npz", **content)
    edit_manifest(folder)
    return folder


def one_off(array: np.ndarray[Any, np.dtype[np.float32]]) -> Any:
    array = array.copy()
    array[-1] += 0.5
    return array


@pytest.mark.parametrize(
    ("model", "output"),
    [
        ("classifier", "logits"),
        ("rnn_rbm", "free_energy"),
        ("rnn_rbm", "prediction"),
        ("rnn_rbm", "states_last"),
        ("rnn_rbm", "mean"),
    ],
)
def test_other_outputs_than_the_golden_ones_are_rejected(
    folder: Path, model: str, output: str
) -> None:
    sentence = refusal(model, change_golden(folder, **{output: one_off}))
    assert f"golden '{output}'" in sentence
    assert "largest difference is 0." in sentence
    other = "rnn_rbm" if model == "classifier" else "classifier"
    build(other, folder)  # each model answers for its own outputs


def test_a_difference_within_the_tolerance_is_accepted(folder: Path) -> None:
    change_golden(folder, logits=lambda logits: logits + np.float32(5e-5))
    build("classifier", folder)
    edit_manifest(folder, golden_tolerance=1e-5)
    assert "1e-05 is allowed" in refusal("classifier", folder)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"logits": None}, "hold no 'logits'"),
        ({"logits": lambda x: x[:-1]}, "of shape [500, 3]"),
        ({"logits": lambda x: x * np.nan}, "largest difference is nan"),
        ({"frames": lambda x: x[:, :-1]}, "hold frames of shape [500, 128]"),
        ({"frames": lambda x: x[:1]}, "fewer than two frames"),
        ({"frames": None}, "holds no 'frames'"),
    ],
)
def test_golden_vectors_of_other_shapes_are_rejected(
    folder: Path, changes: dict[str, Any], words: str
) -> None:
    assert words in refusal("classifier", change_golden(folder, **changes))


def test_unreadable_golden_vectors_are_rejected(folder: Path) -> None:
    (folder / "golden.npz").write_bytes(b"PK\x03\x04 not really")
    edit_manifest(folder)
    assert "golden.npz' cannot be read" in refusal("classifier", folder)


# ---- what the bundle is used for ----------------------------------------------------


@pytest.mark.parametrize("model", PLUGINS)
def test_a_model_whose_part_the_bundle_lacks_is_rejected(
    tmp_path: Path, model: str
) -> None:
    assert "needs a bundle" in refusal(model, None)
    folder = make_tiny_bundle(tmp_path / "bare", rnn_rbm=False)
    if model == "rnn_rbm":
        assert "has no rnn_rbm" in refusal(model, folder)
    else:
        build(model, folder)


@pytest.mark.parametrize("model", PLUGINS)
@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"sample_rate": 44100}, "trained at 32000 Hz, the stream has 44100 Hz"),
        ({"n_bins": 128}, "n_bins 129, the features make 128"),
        ({"hop_length": 64}, "hop_length 128, the features make 64"),
    ],
)
def test_a_bundle_for_another_stream_is_rejected(
    folder: Path, model: str, given: dict[str, int], sentence: str
) -> None:
    assert sentence in refusal(model, folder, **given)
    plugin = PLUGINS[model]
    context = context_of(load_bundle(folder), **given)
    (problem,) = plugin.check(plugin.options(), context)
    assert sentence in problem


def test_the_check_finds_problems_before_stages_are_built(folder: Path) -> None:
    bundle = load_bundle(folder)
    options = classifier_plugin.options.model_validate({"thresholds": {"z": 0.5}})
    (problem,) = classifier_plugin.check(options, context_of(bundle))
    assert "no unit 'z' (it has a, b)" in problem
    with pytest.raises(BundleError, match="no unit 'z'"):
        classifier_plugin.build(options, context_of(bundle))


@pytest.mark.parametrize("residual", [{"cholesky": np.eye(129)}, {"chol": np.eye(5)}])
def test_a_residual_of_another_shape_is_rejected(
    folder: Path, residual: dict[str, Any]
) -> None:
    np.savez(folder / "residual.npz", **residual)
    edit_manifest(folder)
    assert "residual.npz" in refusal("rnn_rbm", folder)
