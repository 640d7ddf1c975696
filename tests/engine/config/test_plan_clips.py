"""Clip rules that no lane can satisfy, and clips refused during a run."""

import pytest
import yaml
from processes.cli_process import RECORDING, neurovocal

from neurovocal.engine.config.located_yaml import parse_located
from neurovocal.engine.config.planner import make_plan
from neurovocal.engine.config.schema import parse_config
from neurovocal.engine.contracts.clock import SystemClock
from neurovocal.engine.contracts.errors import ConfigError
from neurovocal.engine.contracts.plugin import BuildContext
from neurovocal.engine.contracts.registry import Registry

FINCH = {"bundle": "bengalese-finch"}
CLASSIFIER = {**FINCH, "models": [{"plugin": "classifier"}]}


def problems(select, *lanes, path="clips"):
    source = {"plugin": "synthetic"}
    options = {"path": str(path), "select": select}
    data = {
        "version": 1,
        "station": "yard",
        "lanes": [
            {"name": f"lane{index}", "source": source, **lane}
            for index, lane in enumerate(lanes)
        ],
        "sinks": [{"plugin": "clips", "options": options}],
    }
    located = parse_located(yaml.safe_dump(data), "x.yaml")
    context = BuildContext(clock=SystemClock(), run="test")
    try:
        make_plan(parse_config(located), located, Registry(), context)
    except ConfigError as error:
        return list(error.problems)
    return []


@pytest.mark.parametrize(
    ("select", "lane", "sentence"),
    [
        ({"units": ["a", "zz"]}, CLASSIFIER, "no model knows a unit 'zz' (there are:"),
        ({"units": ["unknwon"]}, CLASSIFIER, "(did you mean 'unknown'?)"),
        ({"units": ["a"]}, FINCH, "select.units: nothing labels: add 'classifier'"),
        ({"min_posterior": 0.9}, {}, "select.min_posterior: nothing labels"),
        ({"min_surprise": 1}, CLASSIFIER, "nothing brings surprise: add 'rnn_rbm'"),
    ],
)
def test_a_rule_that_no_lane_can_satisfy_is_refused(tmp_path, select, lane, sentence):
    (problem,) = problems(select, lane, path=tmp_path)
    assert sentence in problem


def test_a_rule_that_one_lane_can_satisfy_is_accepted(tmp_path):
    other = {"bundle": "zebra-finch", "models": [{"plugin": "classifier"}]}
    surprise = {**FINCH, "models": [{"plugin": "classifier"}, {"plugin": "rnn_rbm"}]}
    select = {"units": ["a", "unknown"], "min_posterior": 0.5, "min_surprise": 1}
    assert problems(select, surprise, other, {}, path=tmp_path) == []
    assert problems({}, {}, path=tmp_path) == []
    assert len(problems(select, {}, path=tmp_path)) == 2


def test_check_refuses_a_path_that_cannot_be_a_folder(tmp_path):
    (tmp_path / "file").touch()
    (problem,) = problems({}, {}, path=tmp_path / "file" / "clips")
    assert "file' is a file" in problem


def test_refused_clips_are_reported_in_a_short_run(tmp_path):
    config = {
        "version": 1,
        "station": "yard",
        "source": {"plugin": "file", "options": {"path": str(RECORDING)}},
        "sinks": [
            {"plugin": "clips", "options": {"path": "clips", "min_free_mb": 1e9}},
            {"plugin": "table", "options": {"path": "t.csv", "content": "segments"}},
        ],
    }
    (tmp_path / "yard.yaml").write_text(yaml.safe_dump(config))
    done = neurovocal("run", "yard.yaml", cwd=tmp_path)
    assert done.code == 3
    first, last = done.err.splitlines()
    assert first.startswith("warning: no clips are written, labels go on: only ")
    segments = len((tmp_path / "t.csv").read_text().splitlines()) - 1
    assert last == f"error: {segments} clips could not be written to 'clips'"


def test_a_failure_before_the_first_stream_is_reported_in_it(tmp_path):
    (tmp_path / "cards").mkdir()
    (tmp_path / "cards" / "song.flac").write_bytes(RECORDING.read_bytes())
    folder = {"path": "cards", "follow": False, "settle_s": 2.5, "confirm_s": 0}
    sinks = [
        {"plugin": "clips", "options": {"path": "clips", "min_free_mb": 1e9}},
        {"plugin": "journal", "options": {"path": "yard.sqlite"}},
    ]
    source = {"plugin": "folder", "options": folder}
    config = {"version": 1, "station": "yard", "source": source, "sinks": sinks}
    (tmp_path / "yard.yaml").write_text(yaml.safe_dump(config))
    done = neurovocal("run", "yard.yaml", cwd=tmp_path)
    assert done.code == 3, done.err
    out = neurovocal("export", "yard.sqlite", "--kinds", "health", cwd=tmp_path).out
    assert "sink 'clips',lossy,\"no clips are written, labels go on" in out
