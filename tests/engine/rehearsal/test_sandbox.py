"""Sandboxed configurations: same stages, nothing of the user's claimed or changed."""

import json
from pathlib import Path

import pytest
import yaml
from processes.cli_process import RECORDING

from neurovocal.engine.config.located_yaml import Located, parse_located
from neurovocal.engine.config.planner import make_plan
from neurovocal.engine.config.schema import parse_config
from neurovocal.engine.contracts.clock import SystemClock
from neurovocal.engine.contracts.errors import ConfigError
from neurovocal.engine.contracts.options import Options
from neurovocal.engine.contracts.plugin import BuildContext, Plugin
from neurovocal.engine.contracts.registry import Registry
from neurovocal.engine.rehearsal.recording import LaneRecording
from neurovocal.engine.rehearsal.sandbox import (
    SandboxMaker,
    TemporaryResources,
    redirect,
    stages_of,
)
from neurovocal.engine.support import safe_yaml
from neurovocal.engine.wire.keys import key_problems, make_engine_keys

PLAYED = LaneRecording(RECORDING, 32_000, 1, "a song", 0.1)
FIELD = """
version: 1
station: roof
source: {plugin: microphone, options: {device: UMC404, buffer_s: 7}}
bundle: bengalese-finch
models: [{plugin: classifier}]
control: {plugin: zmq, options: {endpoint: "tcp://127.0.0.1:5557"}}
sinks:
  - {plugin: zmq, options: {endpoint: "tcp://0.0.0.0:5556", allow_remote: true}}
  - {plugin: journal, options: {path: USER/run.sqlite, replay: "tcp://127.0.0.1:5558"}}
  - {plugin: clips, options: {path: USER/clips, select: {min_posterior: 0.9}}}
  - {plugin: prometheus, options: {endpoint: "127.0.0.1:9464"}}
  - {plugin: table, options: {path: "-"}}
  - {plugin: speaker, options: {what: block}}
  - {plugin: trigger, options: {pattern: "a b", log: USER/triggers.jsonl}}
"""


@pytest.fixture
def user(tmp_path):
    (tmp_path / "user").mkdir()
    (tmp_path / "sandbox").mkdir()
    return tmp_path / "user"


def located(text, user):
    return parse_located(text.replace("USER", str(user)), str(user / "field.yaml"))


def maker(text, user, registry=None):
    return SandboxMaker(located(text, user), registry or Registry(), user)


def claims_of(data):
    """Return the claims of all stages of a configuration."""
    registry = Registry()
    found = set()
    for stage in stages_of(data):
        plugin = registry.get(stage.kind, stage.name)
        options = plugin.options.model_validate(stage.data.get("options") or {})
        found |= plugin.resources(options)
    return found


def texts(value):
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return [text for each in value for text in texts(each)]
    return [value] if isinstance(value, str) else []


def test_no_path_or_port_of_the_user_s_is_left(user, tmp_path):
    made = maker(FIELD, user).make(tmp_path / "sandbox", [PLAYED])
    original = located(FIELD, user).data
    outside = ("file:", "folder:", "tcp:", "stdout", "output device:", "device:")
    both = claims_of(original) & claims_of(made.data)
    assert {claim for claim in both if claim.startswith(outside)} == set()
    assert not [text for text in texts(made.data) if str(user) in text]
    ports = [text for text in texts(made.data) if ":" in text and "127.0.0.1" in text]
    assert len(ports) == len(set(ports)) == 4
    assert not [text for text in texts(made.data) if "0.0.0.0" in text]
    for claim in claims_of(made.data):
        kind, _, where = claim.partition(":")
        if kind in ("file", "folder"):
            assert Path(where).is_relative_to((tmp_path / "sandbox").resolve())
    assert list(user.iterdir()) == []


def test_sinks_that_send_to_services_of_others_are_left_out(user, tmp_path):
    data = located(FIELD, user).data
    (path,) = [
        sink["options"]["path"] for sink in data["sinks"] if sink["plugin"] == "journal"
    ]
    data["sinks"] += [
        {
            "plugin": "webhook",
            "options": {"url": "https://example.org/", "journal": path},
        },
        {"plugin": "mqtt", "options": {"broker": "example.org:1883"}},
        {"plugin": "osc"},
        {"plugin": "lsl", "options": {"allow_remote": True}},
    ]
    made = maker(yaml.safe_dump(data), user).make(tmp_path / "sandbox", [PLAYED])
    names = {sink["plugin"] for sink in made.data["sinks"]}
    for name in ("webhook", "mqtt", "osc", "lsl"):
        assert name not in names
        assert f"sink '{name}' sends to others: left out" in made.notes


def test_options_that_claim_nothing_are_unchanged(user, tmp_path):
    made = maker(FIELD, user).make(tmp_path / "sandbox", [PLAYED])
    original = located(FIELD, user).data
    for key in ("version", "station", "bundle", "models"):
        assert made.data[key] == original[key]
    names = [sink["plugin"] for sink in made.data["sinks"]]
    assert names == ["zmq", "journal", "clips", "prometheus", "table", "trigger"]
    assert made.data["sinks"][2]["options"]["select"] == {"min_posterior": 0.9}
    assert made.data["sinks"][-1]["options"]["pattern"] == "a b"
    source = made.data["source"]
    assert source["plugin"] == "playback"
    assert source["options"] == {"path": str(RECORDING), "channels": [1], "buffer_s": 7}
    # It can be planned on a machine without that sound card.
    context = BuildContext(clock=SystemClock(), run="r", base=user, dry_run=True)
    plain = Located("sandboxed", made.data, {})
    make_plan(parse_config(plain), plain, Registry(), context)
    assert made.endpoint == made.data["sinks"][0]["options"]["endpoint"]
    assert made.replay == made.data["sinks"][1]["options"]["replay"]
    assert str(made.journal) == made.data["sinks"][1]["options"]["path"]
    assert made.on_disk
    assert any("'speaker' is muted" in note for note in made.notes)
    assert any("'trigger' decides, and acts on nothing" in note for note in made.notes)


def test_two_sandboxed_copies_share_no_claim(user, tmp_path):
    made = maker(FIELD, user)
    (tmp_path / "other").mkdir()
    first = made.make(tmp_path / "sandbox", [PLAYED])
    second = made.make(tmp_path / "other", [PLAYED])
    shared = claims_of(first.data) & claims_of(second.data)
    assert {claim for claim in shared if not claim.startswith("trigger:")} == set()


def test_keys_are_made_and_the_user_s_are_not_touched(user, tmp_path):
    make_engine_keys(user / "keys")
    before = sorted((path.name, path.stat().st_mtime_ns) for path in user.rglob("*"))
    made = maker(FIELD + "keys: USER/keys\n", user).make(tmp_path / "sandbox", [PLAYED])
    assert key_problems(Path(made.data["keys"])) == []
    assert Path(made.data["keys"]).is_relative_to(tmp_path / "sandbox")
    assert (made.keys / "client.key_secret").is_file()
    after = sorted((path.name, path.stat().st_mtime_ns) for path in user.rglob("*"))
    assert after == before


def test_sources_and_sinks_of_each_lane_are_replaced(user, tmp_path):
    text = """
version: 1
lanes:
  - {name: a, source: {plugin: microphone},
     sinks: [{plugin: jsonl, options: {path: USER/a.jsonl}}]}
  - {name: b, source: {plugin: pipe, options: {command: arecord, sample_rate: 8000}}}
sinks: [{plugin: zmq}]
"""
    other = LaneRecording(Path("b.wav"), 8000, 2, "b", 0.1)
    made = maker(text, user).make(tmp_path / "sandbox", [PLAYED, other])
    sources = [lane["source"]["options"] for lane in made.data["lanes"]]
    assert [each["path"] for each in sources] == [str(RECORDING), "b.wav"]
    assert [each["channels"] for each in sources] == [[1], [1, 2]]
    assert str(user) not in json.dumps(made.data)
    # The default endpoint was replaced, although the file does not name it.
    assert made.data["sinks"][0]["options"]["endpoint"] != "tcp://127.0.0.1:5556"
    assert made.endpoint == made.data["sinks"][0]["options"]["endpoint"]


def test_without_recordings_the_real_sources_stay(user, tmp_path):
    made = maker(FIELD, user).make(tmp_path / "sandbox", [])
    assert made.data["source"] == located(FIELD, user).data["source"]


def test_variables_stay_variables(user, tmp_path, monkeypatch):
    """The files of a rehearsal may be kept: the engine expands them when it reads."""
    monkeypatch.setenv("DEVICE", "hayseed9")
    monkeypatch.setenv("MIN", "0.9")
    text = FIELD.replace("UMC404", "'${DEVICE}'")
    text = text.replace("0.9", "'${MIN}'")
    made = maker(text, user).make(tmp_path / "sandbox", [])
    assert made.data["source"]["options"]["device"] == "${DEVICE}"
    assert "hayseed9" not in json.dumps(made.data)
    assert "${MIN}" in json.dumps(made.data)
    again = parse_located(safe_yaml.dump(made.data), "c.yaml").data
    assert again["source"]["options"]["device"] == "hayseed9"


def test_a_configuration_with_faults_is_refused_with_its_line(user):
    text = FIELD + "faults: [{fault: kill, at_s: 3}]\n"
    with pytest.raises(ConfigError, match=r"yaml:16: faults: .*leave this key out"):
        maker(text, user)


def test_all_mistakes_are_reported_at_once(user):
    text = FIELD.replace("buffer_s", "bufer_s").replace("plugin: clips", "plugin: clip")
    with pytest.raises(ConfigError) as caught:
        maker(text, user)
    assert "did you mean 'buffer_s'?" in str(caught.value)
    assert "did you mean 'clips'?" in str(caught.value)
    assert len(caught.value.problems) == 2


# ---- plugins of others --------------------------------------------------------------


class Deep(Options):
    where: dict[str, list[str]]
    token: str = "keep me"


def test_claimed_paths_in_nested_options_are_replaced(tmp_path):
    plugin = Plugin(
        kind="sink",
        options=Deep,
        build=lambda options, context: None,
        summary="",
        resources=lambda o: frozenset(
            f"file:{Path(name).resolve()}" for name in o.where["files"]
        ),
    )
    given = {"where": {"files": ["/data/a.csv", "/data/b.csv"], "names": ["a"]}}
    new = redirect(plugin, Deep(**given), given, TemporaryResources(tmp_path))
    assert new.not_redirected == frozenset()
    files = new.options["where"]["files"]
    assert all(Path(name).parent == tmp_path for name in files)
    assert len(set(files)) == 2
    assert new.options["where"]["names"] == ["a"]
    assert "token" not in new.options
    assert given["where"]["files"] == ["/data/a.csv", "/data/b.csv"]


def sink(resources):
    return Plugin(
        kind="sink",
        options=Options,
        build=lambda options, context: None,
        summary="",
        resources=lambda options: frozenset(resources),
    )


def with_sink(name):
    return FIELD.replace("plugin: speaker, options: {what: block}", f"plugin: {name}")


def test_a_claim_that_no_option_accounts_for_is_refused(user, tmp_path):
    registry = Registry({("sink", "stubborn"): sink(["file:/data/fixed.csv"])})
    made = maker(with_sink("stubborn"), user, registry)
    with pytest.raises(ConfigError, match="owns file:/data/fixed"):
        made.make(tmp_path / "sandbox", [PLAYED])


def test_a_third_party_sink_without_claims_is_left_out(user, tmp_path):
    registry = Registry({("sink", "pager"): sink([])})
    made = maker(with_sink("pager"), user, registry).make(
        tmp_path / "sandbox", [PLAYED]
    )
    assert "pager" not in yaml.safe_dump(made.data)
    assert any("'pager' does not say what it writes to" in n for n in made.notes)


def test_without_any_sink_left_a_jsonl_sink_is_added(user, tmp_path):
    text = "version: 1\nsource: {plugin: microphone}\nsinks: [{plugin: speaker}]\n"
    made = maker(text, user).make(tmp_path / "sandbox", [PLAYED])
    (only,) = made.data["sinks"]
    assert only["plugin"] == "jsonl"
    assert Path(only["options"]["path"]).is_relative_to(tmp_path / "sandbox")
    assert made.endpoint is None
