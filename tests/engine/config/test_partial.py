"""Mistakes of the envelope and of the plugins' options are found in one look."""

import random

import numpy as np
import pytest
import soundfile

from neurovocal.engine.cli.session import plan_of, plan_of_parts
from neurovocal.engine.config.located_yaml import parse_located
from neurovocal.engine.config.partial import without_mistakes
from neurovocal.engine.config.schema import parse_config
from neurovocal.engine.contracts.errors import ConfigError, DeviceError

LEVEL = {
    "at": "off_db (8) is above on_db (3): a segment would end as soon as it begins"
}


def problems(text, tmp_path):
    with pytest.raises(ConfigError) as caught:
        plan_of_parts(parse_located(text, "x.yaml"), tmp_path)
    return caught.value.problems


def test_all_kinds_of_mistakes_are_found_together(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert problems(
        """\
version: 2
statoin: roof
source: {plugin: file, options: {path: absent.wav, repeat: -4}}
detector: {plugin: energy, options: {on_db: 3}, on_error: ignore}
models: [{plugin: classifier, options: {min_posterior: 2}}]
sinks:
  - {plugin: jsonl, options: {path: 5}}
  - {plugn: jsonl}
  - {plugin: zmq, queue: {events: 0}, options: {linger_s: -2}}
  - 7
  - {plugin: table, options: {path: t.csv}}
  - {plugin: jsonl, options: {path: t.csv}}
privacy: {mode: loud}
""",
        tmp_path,
    ) == [
        "x.yaml:4: detector.on_error: must be 'fail', 'skip' or 'restart' "
        "(got 'ignore')",
        "x.yaml:8: sinks.1.plugn: unknown option (did you mean 'plugin'?)",
        "x.yaml:9: sinks.2.queue.events: must be at least 1 and at most 10000000 "
        "(got 0)",
        "x.yaml:10: sinks.3: expected 'key: value' lines",
        "x.yaml:1: version: must be 1 (got 2)",
        "x.yaml:13: privacy.mode: must be 'off', 'gate' or 'labels_only' (got 'loud')",
        "x.yaml:2: statoin: unknown option (did you mean 'station'?)",
        "x.yaml:3: source.options.repeat: must be at least 0 and at most 1000000000 "
        "(got -4)",
        "x.yaml:3: source.options.path: recording 'absent.wav' does not exist",
        f"x.yaml:4: detector.options.on_db: {LEVEL['at']}",
        "x.yaml:5: models.0.options.min_posterior: must be at least 0 and at most 1 "
        "(got 2)",
        "x.yaml:7: sinks.0.options.path: must be a text (got 5)",
        "x.yaml:9: sinks.2.options.linger_s: must be at least 0 and at most 3600 "
        "(got -2)",
        "x.yaml:12: sinks.5: sink 'jsonl' and sink 'table' would both write "
        f"the file '{tmp_path}/t.csv': give each a path of its own",
    ]


@pytest.mark.parametrize(
    "text",
    [
        "version: 1\nsinks: [{plugin: jsonl}]\n",
        "version: 1\nsource: 5\nsinks: [{plugin: jsonl}]\n",
        "version: 1\nsource: {plugin: 5}\nsinks: {plugin: jsonl}\n",
        "version: 1\nlanes: []\n",
        "version: 1\nlanes: 5\n",
        "version: 1\nlanes: [5, {source: {}}]\nsource: {plugin: synthetic}\n",
        "version: 1\nsource: {plugin: synthetic}\nbundle: [a]\n"
        "models: [{plugin: classifier}]\nsinks: [{plugin: jsonl}]\n",
        "version: 1\nsource: {plugin: synthetic}\nfaults: [5, {fault: x}, {}]\n"
        "sinks: [{plugin: jsonl}]\n",
    ],
)
def test_what_is_left_has_no_mistakes_of_its_own(text, tmp_path):
    located = parse_located(text, "x.yaml")
    with pytest.raises(ConfigError) as caught:
        parse_config(located)
    assert without_mistakes(located) is not None or "lanes" in text
    assert problems(text, tmp_path) == caught.value.problems


def test_any_damage_to_a_configuration_is_told_in_sentences(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    whole = """\
version: 1
station: s
source: {plugin: synthetic, options: {duration_s: 1.0}}
detector: {plugin: energy, options: {on_db: 12}}
sinks:
  - {plugin: jsonl, events: [label], queue: {events: 4}, options: {path: a.jsonl}}
supervise: {hang_s: 4}
"""
    rng = random.Random(1)
    odd = ["5", "[]", "{}", "null", "text", "-1", "[5]", "{a: 1}", "true", "1e300"]
    for _ in range(60):
        located = parse_located(whole, "x.yaml")
        for _ in range(rng.randint(1, 4)):
            loc = rng.choice(sorted(located.lines, key=str))
            at = located.data
            for part in loc[:-1]:
                inside = part in at if isinstance(at, dict) else isinstance(at, list)
                at = at[part] if inside and at else {}
            if loc and isinstance(at, dict):
                at[loc[-1]] = parse_located(f"a: {rng.choice(odd)}", "y").data["a"]
        found = []
        try:
            plan_of_parts(located, tmp_path)
        except ConfigError as error:
            found = error.problems
        assert all(problem.startswith("x.yaml:") for problem in found)
        assert len(set(found)) == len(found)


def test_a_missing_device_is_a_note_where_no_run_is_asked_for(tmp_path, monkeypatch):
    def absent(*arguments):
        raise DeviceError("no input device was found")

    monkeypatch.setattr("neurovocal.plugins.sources.microphone.find_device", absent)
    text = "version: 1\nsource: {plugin: microphone}\nsinks: [{plugin: jsonl}]\n"
    located = parse_located(text, str(tmp_path / "x.yaml"))
    with pytest.raises(DeviceError, match="no input device"):
        plan_of(located)
    plan = plan_of(located, needs_devices=False)
    assert plan.absent == [f"{tmp_path}/x.yaml:2: source: no input device was found"]
    located.data["sinks"] = [{"plugin": "jsonl", "options": {"path": 5}}]
    with pytest.raises(ConfigError) as caught:
        plan_of(located, needs_devices=False)
    assert len(caught.value.problems) == 1


@pytest.mark.parametrize(
    ("source", "override", "sentence"),
    [
        ("file, options: {}", "path=absent.wav", "recording 'absent.wav' does not"),
        ("file, options: {}", "path=[]", "name at least one recording"),
        ("file, options: {path: a.wav}", "channels=[3]", "'"),
        ("recording, options: {}", "path=absent", ""),
        ("pipe, options: {sample_rate: 8000}", "command=' '", "name a program"),
        ("playback, options: {}", "path=absent.wav", "recording 'absent.wav' does not"),
        ("folder, options: {}", "path=absent", "folder 'absent' does not exist"),
        (
            "pipe, options: {sample_rate: 8000}",
            "command=absent-program",
            "command 'absent-program' does not exist",
        ),
    ],
)
def test_a_missing_input_is_blamed_on_the_option_that_names_it(
    tmp_path, monkeypatch, source, override, sentence
):
    monkeypatch.chdir(tmp_path)
    soundfile.write("a.wav", np.zeros(800), 8000)
    text = f"version: 1\nsource: {{plugin: {source}}}\nsinks: [{{plugin: jsonl}}]\n"
    overrides = [f"source.options.{override}"]
    with pytest.raises(ConfigError) as caught:
        plan_of_parts(parse_located(text, "x.yaml", overrides), tmp_path)
    name = override.partition("=")[0]
    begin = f"--set source.options.{override}: source.options.{name}: {sentence}"
    (problem,) = caught.value.problems
    assert problem.startswith(begin)


@pytest.mark.parametrize(
    ("stage", "n_problems"),
    [
        ("source: {plugin: file, options: {path: absent.wav, pase: asap}}", 2),
        ("source: {plugin: file, options: {path: absent.wav, repeat: x}}", 2),
        # What follows from the refused option alone is not told.
        ("source: {plugin: file, options: {pase: asap}}", 2),
        ("source: {plugin: file, options: {path: 5}}", 1),
        # A contradiction takes both of its options; the third is wrong by itself.
        (
            "source: {plugin: file, options: {path: a.wav}}\n"
            "detector: {plugin: energy, options: {on_db: 3, high_hz: 30000}}",
            2,
        ),
    ],
)
def test_options_beside_a_refused_one_are_checked(
    tmp_path, monkeypatch, stage, n_problems
):
    monkeypatch.chdir(tmp_path)
    soundfile.write("a.wav", np.zeros(800), 8000)
    text = f"version: 1\n{stage}\nsinks: [{{plugin: jsonl}}]\n"
    assert len(problems(text, tmp_path)) == n_problems
