"""Second check of a configuration: plugins, options, bundles and resources."""

import pytest
from bundles.tiny_bundle import make_tiny_bundle
from pydantic import Field

from neurovocal.engine.config.located_yaml import parse_located
from neurovocal.engine.config.plan import lane_info
from neurovocal.engine.config.planner import make_plan
from neurovocal.engine.config.schema import parse_config
from neurovocal.engine.contracts.clock import ManualClock
from neurovocal.engine.contracts.errors import ConfigError
from neurovocal.engine.contracts.options import Options
from neurovocal.engine.contracts.plugin import BuildContext, Plugin
from neurovocal.engine.contracts.registry import Registry
from neurovocal.engine.contracts.types import StreamInfo


class PortOptions(Options):
    port: int = Field(default=1, ge=1)
    """A port."""
    file: str = ""
    """A file that must exist."""


def never(options, context):
    raise AssertionError("making a plan must build nothing")


def exists(options, context):
    if options.file and not context.path(options.file).exists():
        yield f"'{options.file}' does not exist"


def plugin(kind, **more):
    return Plugin(kind, PortOptions, never, "a test's", check=exists, **more)


def claims(options):
    return frozenset({f"tcp:{options.port}"})


EXTRA = {
    ("source", "tape"): plugin("source"),
    ("features", "frames"): plugin("features"),
    ("detector", "ear"): plugin("detector"),
    ("model", "brain"): plugin("model"),
    ("sink", "mouth"): plugin("sink", resources=claims),
}
LANE = "source: {plugin: tape}\nfeatures: {plugin: frames}\ndetector: {plugin: ear}\n"


def plan_of(text, base="."):
    located = parse_located(text, "x.yaml")
    context = BuildContext(clock=ManualClock(), run="test", base=base)
    return make_plan(parse_config(located), located, Registry(EXTRA), context)


def problems(text, base="."):
    with pytest.raises(ConfigError) as caught:
        plan_of(text, base)
    return caught.value.problems


def test_the_detector_is_the_configurations_or_the_bundles_or_the_default(tmp_path):
    advice = {"plugin": "energy", "options": {"off_db": 7.0}}
    make_tiny_bundle(tmp_path / "with", detector=advice)
    make_tiny_bundle(tmp_path / "without")
    text = "source: {plugin: tape}\nsinks: [{plugin: mouth}]\nversion: 1\n"

    def detector(more):
        (lane,) = plan_of(text + more, tmp_path).lanes
        return lane.detector

    assert detector("bundle: with").options.off_db == 7.0
    assert detector("bundle: with\ndetector: {plugin: energy}").options.off_db == 8.0
    assert detector("bundle: with\ndetector: {plugin: ear}").options == PortOptions()
    for more in ("bundle: without", "features: {plugin: frames}"):
        assert detector(more).options.n_loudest == 2  # `bands`


def test_the_profile_fast_sets_what_the_configuration_does_not(tmp_path):
    advice = {"plugin": "energy", "options": {"off_db": 7.0}}
    advice["fast_options"] = {"floor_db": -60.0}
    make_tiny_bundle(tmp_path / "with", detector=advice)
    text = "source: {plugin: tape}\nsinks: [{plugin: mouth}]\nversion: 1\n"
    text += "bundle: with\nmodels: [{plugin: classifier}]\n"
    (lane,) = plan_of(text, tmp_path).lanes
    assert not lane.detector.options.early
    assert lane.detector.options.floor_db is None
    assert lane.models[0].options.sure_posterior is None
    (lane,) = plan_of(text + "profile: fast", tmp_path).lanes
    assert lane.detector.options.early
    assert lane.detector.options.off_db == 7.0
    assert lane.detector.options.floor_db == -60.0
    assert lane.models[0].options.sure_posterior == "bundle"
    given = "detector: {plugin: energy, options: {early: false}}\nprofile: fast"
    (lane,) = plan_of(text + given, tmp_path).lanes
    assert not lane.detector.options.early


def test_a_bundles_detector_is_checked_like_any_other(tmp_path):
    advice = {"plugin": "energy", "options": {"low_hx": 7.0}}
    make_tiny_bundle(tmp_path / "odd", detector=advice)
    (problem,) = problems(
        LANE.splitlines()[0] + "\nbundle: odd\nversion: 1\nsinks: [{plugin: mouth}]\n",
        tmp_path,
    )
    assert problem.startswith("x.yaml:2: bundle.options.low_hx: unknown option")


def test_a_detector_that_needs_a_bundle_is_refused_before_a_run(tmp_path):
    make_tiny_bundle(tmp_path / "tiny")
    text = (
        "source: {plugin: tape}\nsinks: [{plugin: mouth}]\nversion: 1\n"
        "detector: {plugin: network}\n"
    )
    (problem,) = problems(text, tmp_path)
    assert problem.startswith("x.yaml:4: detector: the network detector needs a bundle")
    (problem,) = problems(f"{text}bundle: none", tmp_path)
    assert problem.startswith("x.yaml:5: bundle: bundle 'none' does not exist")
    assert plan_of(f"{text}bundle: tiny", tmp_path).lanes


def test_a_plan_has_valid_options_and_builds_nothing():
    plan = plan_of(
        f"version: 1\nstation: roof\ntile: 3\n{LANE}"
        "models: [{plugin: brain, options: {port: 7}}]\nsinks: [{plugin: mouth}]\n"
    )
    (lane,) = plan.lanes
    assert lane.name == "roof"
    assert lane.models[0].options == PortOptions(port=7)
    assert lane.models[0].name == "model 'brain'"
    assert [sink.stage.name for sink in lane.sinks] == ["sink 'mouth'"]
    assert plan.context.tile == 3
    assert lane.bundle is None


def test_the_default_front_end_is_a_spectrogram():
    plan = plan_of(
        "version: 1\nsource: {plugin: tape}\ndetector: {plugin: ear}\n"
        "sinks: [{plugin: mouth}]\n"
    )
    assert plan.lanes[0].features.name == "features 'spectrogram'"


def test_two_sinks_of_one_plugin_have_different_names():
    plan = plan_of(
        "version: 1\nsource: {plugin: tape}\ndetector: {plugin: ear}\n"
        "sinks: [{plugin: mouth}, {plugin: mouth, options: {port: 2}}]\n"
    )
    names = [sink.stage.name for sink in (*plan.sinks, *plan.lanes[0].sinks)]
    assert names == ["sink 'mouth'", "sink 'mouth' 2"]


def test_mistakes_of_all_stages_are_reported_at_once():
    text = """version: 1
source: {plugin: tapes}
features: {plugin: frames, options: {prot: 1}}
detector:
  plugin: ear
  options:
    port: 0
models:
  - plugin: brain
    options: {file: none.wav}
  - plugin: brains
sinks:
  - {plugin: mouth, options: {port: 9}}
  - {plugin: mouth, options: {port: 9}}
bundle: no-such-bird
"""
    found = problems(text)
    # What models say without the bundle that was asked for follows from that alone.
    assert len(found) == 7
    expected = [
        "x.yaml:2: source.plugin: unknown source plugin 'tapes' (did you mean 'tape'?)",
        "x.yaml:3: features: a bundle brings its own front end: remove this key or "
        "the bundle",
        "x.yaml:3: features.options.prot: unknown option (did you mean 'port'?)",
        "x.yaml:7: detector.options.port: must be at least 1 (got 0)",
        "x.yaml:11: models.1.plugin: unknown model plugin 'brains' "
        "(did you mean 'brain'?)",
        "x.yaml:14: sinks.1: sink 'mouth' 2 and sink 'mouth' would both bind the "
        "TCP port 9: give each a port of its own",
    ]
    for sentence in expected:
        assert sentence in found
    (bundle,) = set(found) - set(expected)
    assert bundle.startswith("x.yaml:15: bundle: bundle 'no-such-bird' does not exist")


def test_two_lanes_cannot_claim_one_resource():
    text = """version: 1
lanes:
  - {name: a, source: {plugin: tape}, detector: {plugin: ear}}
  - name: b
    source: {plugin: tape}
    detector: {plugin: ear}
    sinks: [{plugin: mouth}]
sinks: [{plugin: mouth}]
"""
    assert problems(text) == [
        "x.yaml:8: sinks.0: sink 'mouth' 2 and sink 'mouth' would both bind the "
        "TCP port 1: give each a port of its own"
    ]


def test_two_lanes_of_one_name_are_refused():
    lane = "  - {source: {plugin: tape}, detector: {plugin: ear}}\n"
    text = (
        f"version: 1\nstation: roof\nlanes:\n{lane}{lane}sinks: [{{plugin: mouth}}]\n"
    )
    assert problems(text) == [
        "x.yaml:5: lanes.1: two lanes are named 'roof': give each its own 'name'"
    ]


def test_a_configuration_without_a_sink_is_refused():
    assert problems(f"version: 1\n{LANE}") == [
        "x.yaml:1: there is no sink: nobody would get the labels"
    ]


@pytest.mark.parametrize("stage", ["features", "detector"])
def test_front_ends_and_detectors_cannot_skip(stage):
    name = {"features": "frames", "detector": "ear"}[stage]
    text = f"version: 1\n{LANE}sinks: [{{plugin: mouth}}]\n".replace(
        f"{{plugin: {name}}}", f"{{plugin: {name}, on_error: skip}}"
    )
    (problem,) = problems(text)
    line = {"features": 3, "detector": 4}[stage]
    assert problem == (
        f"x.yaml:{line}: {stage}.on_error: only 'fail' or 'restart' is possible here: "
        "what it left out would be a hole that no gap declares"
    )


def test_a_source_cannot_skip():
    text = f"version: 1\n{LANE}sinks: [{{plugin: mouth}}]\n".replace(
        "{plugin: tape}", "{plugin: tape, on_error: skip}"
    )
    assert problems(text) == [
        "x.yaml:2: source.on_error: only 'fail' or 'restart' is possible here: "
        "audio that is left out would be a hole that no gap declares"
    ]


def test_relative_paths_start_at_the_configuration(tmp_path):
    (tmp_path / "song.wav").touch()
    text = (
        f"version: 1\n{LANE}sinks: [{{plugin: mouth, options: {{file: song.wav}}}}]\n"
    )
    plan_of(text, tmp_path)
    assert problems(text, tmp_path / "elsewhere") == [
        "x.yaml:5: sinks.0: 'song.wav' does not exist"
    ]


def test_a_plugin_can_be_a_file_beside_the_configuration(tmp_path):
    (tmp_path / "mine.py").write_text(
        "from neurovocal.engine.contracts.plugin import Options, Plugin\n"
        "plugin = Plugin('sink', Options, lambda o, c: None, 'mine')\n"
    )
    plan = plan_of(
        f"version: 1\n{LANE}sinks: [{{plugin: 'mine.py:plugin'}}]\n", tmp_path
    )
    assert plan.lanes[0].sinks[0].stage.plugin.summary == "mine"


@pytest.mark.parametrize(
    ("channels", "channel", "name"),
    [(1, 0, "cage"), (2, 0, "cage.ch1"), (3, 2, "cage.ch3")],
)
def test_channels_become_streams(channels, channel, name):
    info = lane_info(StreamInfo("cage", 48_000, channels), None, channel)
    assert info == StreamInfo(name, 48_000, 1)
