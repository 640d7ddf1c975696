"""Envelope of the configuration: values, and the exact sentence for each mistake."""

from importlib.resources import files
from pathlib import Path

import pytest
from pydantic import Field, ValidationError, field_validator

from neurovocal.engine.config.located_yaml import parse_located
from neurovocal.engine.config.schema import find_config, load_config, parse_config
from neurovocal.engine.config.validation import validation_problems
from neurovocal.engine.contracts.errors import ConfigError
from neurovocal.engine.contracts.options import Options

TOP = (
    "bundle, control, detector, faults, features, keys, models, name, privacy, "
    "profile, signal, sinks, source, station, stop_timeout_s, supervise, tile, "
    "version, workers"
)
KINDS = (
    "'block', 'gap', 'withheld', 'anchor', 'frames', 'posteriors', 'trace', 'onset', "
    "'offset', 'near_miss', 'label', 'forecast', 'suggestion', 'latent', "
    "'surprise', 'synthesis', 'audio', 'health', 'control', 'trigger', "
    "'comparison' or 'stats'"
)


def parse(text, overrides=()):
    return parse_config(parse_located(text, "x.yaml", overrides))


def problems(text, overrides=()):
    with pytest.raises(ConfigError) as caught:
        parse(text, overrides)
    assert caught.value.exit_code == 1
    return caught.value.problems


def test_the_smallest_configuration():
    config = parse("version: 1\nsource: {plugin: file}\n")
    (lane,) = config.lanes
    assert config.lane_locs == [()]
    assert config.sinks == []
    assert lane.source.plugin == "file"
    assert (lane.bundle, lane.features, lane.models) == (None, None, [])
    assert lane.detector is None  # the bundle's, or `energy`: the plan decides
    assert config.shared.station == "neurovocal"
    assert config.shared.tile == 8


def test_a_configuration_with_all_sections():
    config = parse(
        """
version: 1
station: aviary-3
tile: 1
stop_timeout_s: 0.5
name: left
source: {plugin: microphone, options: {channels: [1]}, on_error: restart}
bundle: bengalese-finch
detector: {plugin: energy, options: {low_hz: 500}}
models:
  - {plugin: classifier}
  - {plugin: rnn_rbm, options: {seed: 7}, on_error: skip}
sinks:
  - plugin: zmq
    events: [label, stats]
    queue: {events: 10, bulk: 2, when_full: drop_oldest}
"""
    )
    (lane,) = config.lanes
    assert lane.source.on_error == "restart"
    assert lane.models[1].options == {"seed": 7}
    assert lane.sinks[0].events == ["label", "stats"]
    assert lane.sinks[0].queue.when_full == "drop_oldest"
    assert config.shared.stop_timeout_s == 0.5


def test_several_lanes():
    config = parse(
        """
version: 1
lanes:
  - {name: a, source: {plugin: file}}
  - {name: b, source: {plugin: pipe}, sinks: [{plugin: table}]}
sinks: [{plugin: zmq}]
"""
    )
    assert [lane.name for lane in config.lanes] == ["a", "b"]
    assert config.lane_locs == [("lanes", 0), ("lanes", 1)]
    assert [sink.plugin for sink in config.sinks] == ["zmq"]
    assert [sink.plugin for sink in config.lanes[1].sinks] == ["table"]


def test_a_version_is_a_number_and_no_truth_value():
    text = "version: true\nsource: {plugin: file}\n"
    assert problems(text) == ["x.yaml:1: version: must be 1 (got 'true')"]


def test_all_mistakes_are_reported_with_their_lines():
    text = """version: 2
sauce: {plugin: file}
tile: many
detector:
  plugin: energy
  option: {low_hz: 3}
models: classifier
sinks:
  - options: {}
  - plugin: zmq
    events: [lable]
    queue:
      bulk: 0
"""
    assert sorted(problems(text)) == sorted(
        [
            "x.yaml:1: version: must be 1 (got 2)",
            "x.yaml:2: sauce: unknown option (did you mean 'source'?)",
            "x.yaml:3: tile: must be a whole number (got 'many')",
            "x.yaml:6: detector.option: unknown option (did you mean 'options'?)",
            "x.yaml:7: models: must be a list (got 'classifier')",
            "x.yaml:9: sinks.0.plugin: is missing",
            f"x.yaml:11: sinks.1.events.0: must be {KINDS} (got 'lable')",
            "x.yaml:13: sinks.1.queue.bulk: must be at least 1 and at most 10000000 "
            "(got 0)",
        ]
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ["source: is missing", "version: is missing"]),
        (
            "version: 1\nsource: file\n",
            ["source: expected 'key: value' lines"],
        ),
        (
            "version: 1\nsource: {plugin: file}\nzzz: 1\n",
            [f"zzz: unknown option (known: {TOP})"],
        ),
        (
            "version: 1\nlanes: []\n",
            ["lanes: must have at least 1 entry (it has 0)"],
        ),
        (
            "version: 1\nlanes:\n  - source: {plugin: file}\n    detecter: {}\n",
            ["lanes.0.detecter: unknown option (did you mean 'detector'?)"],
        ),
        (
            "version: 1\nlanes: [{source: {plugin: file}}]\nsource: {plugin: file}\n",
            ["source: belongs to a lane: write it in each of 'lanes'"],
        ),
        (
            "version: 1\nsource: {plugin: file, on_error: ignore}\n",
            ["source.on_error: must be 'fail', 'skip' or 'restart' (got 'ignore')"],
        ),
        (
            "version: 1\nsource: {plugin: file}\nstop_timeout_s: 0\n",
            ["stop_timeout_s: must be above 0 and at most 3600 (got 0)"],
        ),
    ],
)
def test_single_mistakes(text, expected):
    found = [problem.split(": ", 1)[1] for problem in problems(text)]
    assert found == expected


def test_keys_of_a_lane_are_refused_beside_lanes():
    found = problems(
        "version: 1\nbundle: finch\nmodels: []\nlanes:\n"
        "- {source: {plugin: synthetic}, nam: a}\n"
    )
    belongs = "belongs to a lane: write it in each of 'lanes'"
    assert found[:2] == [f"x.yaml:2: bundle: {belongs}", f"x.yaml:3: models: {belongs}"]
    assert "unknown option (did you mean 'name'?)" in found[2]


def test_a_mistake_in_an_override_names_the_override():
    text = "version: 1\nsource: {plugin: file}\n"
    assert problems(text, ["tile=0"]) == [
        "--set tile=0: tile: must be at least 1 and at most 1024 (got 0)"
    ]
    assert problems(text, ["detector.options.low_hz=3"]) == [
        "--set detector.options.low_hz=3: detector.plugin: is missing"
    ]


class Inner(Options):
    depth: int = 1
    """How deep."""


class Wide(Options):
    """Options of all sorts, as plugins have them."""

    device: int | str | None = None
    """This or that."""
    rate: int | list[int] = 1
    """One or several."""
    level: float = Field(default=0.5, gt=0, lt=1)
    """A share."""
    inner: Inner = Inner()
    """More options."""
    pair: tuple[float, float] = (0.0, 1.0)
    """Two values."""

    @field_validator("level")
    @classmethod
    def _never_a_quarter(cls, value):
        if value == 0.25:
            raise ValueError("A quarter will not do")
        return value


def explained(options, *, prefix=("detector", "options")):
    located = parse_located(f"detector:\n  options: {options}\n", "x.yaml")
    with pytest.raises(ValidationError) as caught:
        Wide.model_validate(located.data["detector"]["options"])
    return validation_problems(caught.value, Wide, located, prefix)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ("{divice: 1}", "divice: unknown option (did you mean 'device'?)"),
        ("{x: 1}", "x: unknown option (known: device, inner, level, pair, rate)"),
        ("{pair: [1]}", "pair.1: is missing"),
        ("{level: 0.25}", "level: a quarter will not do (got 0.25)"),
        ("{inner: {deep: 1}}", "inner.deep: unknown option (did you mean 'depth'?)"),
        (
            "{device: 2.5}",
            "device: must be a whole number or must be a text (got 2.5)",
        ),
        (
            "{rate: [1, x]}",
            None,
        ),
    ],
)
def test_mistakes_in_options_of_plugins_are_sentences(options, sentence):
    found = explained(options)
    if sentence is None:  # whatever pydantic says of it, it points into the file
        assert all(p.startswith("x.yaml:2: detector.options.rate") for p in found)
        assert not any("list[int]" in p for p in found)
    else:
        assert found == [f"x.yaml:2: detector.options.{sentence}"]


def test_options_that_are_not_in_the_file_are_named_in_full():
    (problem,) = explained("{level: 7}", prefix=("features", "options"))
    assert problem == (
        "x.yaml:1: features.options.level: must be above 0 and below 1 (got 7)"
    )


def shipped():
    folder = Path(str(files("neurovocal.configs")))
    # Recipes are for `train`: they are found by name, but not offered to run.
    stems = {path.stem for path in folder.glob("*.yaml")}
    return sorted(stem for stem in stems if not stem.startswith("train"))


def test_a_config_is_a_file_or_a_shipped_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "configs"
    folder.mkdir()
    (folder / "mine.yaml").write_text("version: 1\n")
    assert find_config("configs/mine.yaml") == Path("configs/mine.yaml")
    with pytest.raises(ConfigError, match=r"configuration 'mine' does not exist \("):
        find_config("mine")
    with pytest.raises(ConfigError, match="does not exist"):
        find_config(str(folder))


@pytest.mark.parametrize("name", shipped())
def test_shipped_names_resolve(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for form in (name, f"{name}.yaml", f"configs/{name}.yaml"):
        assert find_config(form).is_file()
    # One's own file comes before the shipped one of the same name.
    own = tmp_path / f"{name}.yaml"
    own.write_text("version: 1\n")
    assert find_config(f"{name}.yaml").resolve() == own
    with pytest.raises(ConfigError, match=f"did you mean '{name}'"):
        find_config(f"{name}x")
    with pytest.raises(ConfigError, match="does not exist"):
        find_config(f"elsewhere/{name}.yaml")


def test_load_config_applies_overrides(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("version: 1\nsource: {plugin: file}\n")
    config, located = load_config(str(path), ["station=roof", "tile=25"])
    assert (config.shared.station, config.shared.tile) == ("roof", 25)
    assert located.name == str(path)
