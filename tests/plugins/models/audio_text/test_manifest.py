"""Manifests of encoder pairs: each mistake in one sentence with file and line."""

import builtins

import numpy as np
import pytest
from bundles.audio_text import save_pair

from neurovocal.engine.contracts.clock import ManualClock
from neurovocal.engine.contracts.errors import ConfigError
from neurovocal.engine.contracts.plugin import BuildContext
from neurovocal.plugins.models.audio_text.encoders import EncodesText
from neurovocal.plugins.models.audio_text.manifest import load_pair
from neurovocal.plugins.models.audio_text.model import plugin


def problems(folder, options=None, **changes):
    path = save_pair(folder, **changes)
    given = plugin.options(manifest=str(path), **(options or {}))
    found = plugin.check(given, BuildContext(ManualClock(), "test"))
    return [str(problem).replace(f"{path}:", "tones.yaml:") for problem in found]


def test_a_good_pair_has_no_problem(tmp_path):
    assert problems(tmp_path) == []


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"nmes": []}, "unknown option (did you mean 'names'?)"),
        ({"names": ["a", "a"]}, "names.1: 'a' is given twice"),
        ({"background": ["low tone"]}, "background.0: 'low tone' is given twice"),
        ({"names": []}, "no name can be given"),
        ({"template": "a sound"}, "template: "),
        ({"audio__graph": "no.onnx"}, "audio.graph: the ONNX file '"),
        ({"audio__output": "embeding"}, "audio.output: the graph has no output"),
        ({"audio__window": 900}, "audio.input.tensor: input 'samples' has shape"),
        (
            {"audio__input": {"tensor": "samples", "axes": ["batch", "mel"]}},
            "audio.input.axes: without log_mel must have samples",
        ),
        ({"text__tokenizer": "no.json"}, "text.tokenizer: the tokenizer '"),
        ({"text__tokenizer": "text.onnx"}, "is no tokenizer of the library"),
        ({"text__ids": "ids"}, "text.ids: the graph has no input 'ids'"),
        ({"text__mask": None}, "which the manifest does not give: name it"),
        ({"text__length": 8}, "text.length: must be at least 'longest'"),
        ({"text__output": "vector"}, "text.output: the graph has no output"),
    ],
)
def test_each_mistake_is_told_with_its_place(tmp_path, changes, expected):
    found = problems(tmp_path, **changes)
    assert any(expected in problem for problem in found), found


def test_encoders_of_different_lengths_do_not_belong_together(tmp_path):
    from stages.onnx_graphs import save_band_classifier

    save_pair(tmp_path)
    save_band_classifier(tmp_path / "bands.onnx", 800, 7, name="samples")
    (told,) = problems(tmp_path, audio__graph="bands.onnx", audio__output="output")
    assert "has vectors of 7 values, those of the text have 4" in told


def test_names_of_the_options_replace_those_of_the_manifest(tmp_path):
    assert problems(tmp_path, {"names": ["rain tone"]}, names=[]) == []
    (told,) = problems(tmp_path, {"names": ["a", "a"]})
    assert "number 2 'a' is given twice" in told


def test_a_missing_library_is_named(tmp_path, monkeypatch):
    path = save_pair(tmp_path)
    real = builtins.__import__

    def refuse(name, *rest):
        if name == "tokenizers":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(ConfigError, match=r"pip install 'neurovocal\[text\]'"):
        EncodesText(load_pair(path))


def test_filled_tokens_do_not_change_a_vector(tmp_path):
    free = EncodesText(load_pair(save_pair(tmp_path)))("low tone")
    path = save_pair(tmp_path, text__length=77)
    assert np.array_equal(EncodesText(load_pair(path))("low tone"), free)
    cut = EncodesText(load_pair(save_pair(tmp_path, text__longest=1)))("low tone")
    assert not np.array_equal(cut, free)
