"""Command line: error sentences, exit codes, output for people and programs."""

import io
import json
import logging
import re
from importlib.metadata import version

import numpy as np
import pytest
import soundfile
import typer
import yaml
from processes.cli_process import running
from processes.waiting import PROCESS_S
from repository import ROOT

from neurovocal.engine.cli.app import main
from neurovocal.engine.cli.session import plugin_files
from neurovocal.engine.contracts.plugin import GROUPS
from neurovocal.engine.contracts.registry import Registry

SHIPPED = sorted(
    path.stem
    for path in (ROOT / "configs").glob("*.yaml")
    if "sinks" in yaml.safe_load(path.read_text())
)
BASE = "version: 1\nsource: {plugin: synthetic}\nsinks: [{plugin: jsonl}]\n"


@pytest.fixture(autouse=True)
def restored_log():
    """Restore the log, which the command line sets up."""
    log = logging.getLogger("neurovocal")
    before = log.handlers, log.propagate, log.level
    yield
    log.handlers, log.propagate, log.level = before


class CompletedCommand:
    def __init__(self, code, out, err):
        self.code, self.out, self.err = code, out, err


@pytest.fixture
def neurovocal(capsys):
    """Run a command in this process; return exit code, stdout and stderr."""

    def run(*arguments):
        with pytest.raises(SystemExit) as caught:
            main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return CompletedCommand(caught.value.code, out, err)

    return run


def test_version(neurovocal):
    done = neurovocal("--version")
    assert (done.code, done.out, done.err) == (
        0,
        f"neurovocal {version('neurovocal')}\n",
        "",
    )


def test_help_names_every_command(neurovocal):
    done = neurovocal("--help")
    assert done.code == 0
    commands = "run check init devices plugins schema detect label listen replay bench"
    for command in [*commands.split(), "bundle", "train", "evaluate"]:
        assert re.search(rf"^  {command} ", done.out, re.MULTILINE), command


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["rum"], "error: No such command 'rum'"),
        (["run", "--blok", "3"], "error: No such option: --blok"),
        (["run", "demo", "extra"], "error: Got unexpected extra argument"),
        (
            ["check"],
            "error: Missing argument 'config'. (see 'neurovocal check --help')",
        ),
        (["run", "--block-length", "0"], "error: Invalid value for '--block-length'"),
        (["run", "--block-length", "x"], "error: Invalid value for '--block-length'"),
        (["run", "dmeo"], "error: configuration 'dmeo' does not exist"),
        (["check", "demo", "--set", "tile"], "error: --set tile: expected a.b.c=value"),
        (["detect"], "error: Missing argument 'FILES...'"),
        (["detect", "a.wav", "--format", "xls"], "error: Invalid value for '--format'"),
        (
            ["generate", "--feedback", "x"],
            "error: Invalid value for '--feedback': 'x' ",
        ),
        (["bundle", "check", "no-bird"], "error: bundle 'no-bird' does not exist"),
        (["plugins", "zqm"], "error: unknown plugin 'zqm' (known: "),
    ],
)
def test_wrong_arguments_are_one_sentence(neurovocal, arguments, sentence):
    done = neurovocal(*arguments)
    assert done.code == 1
    assert done.err.startswith(sentence)
    assert done.err.count("\n") == 1
    assert done.out == ""


@pytest.mark.parametrize(
    "arguments",
    [
        "run LONG.yaml",
        "check LONG.yaml",
        "check demo --set sinks=[{plugin: jsonl, options: {path: LONG}}]",
        "label a.wav --bundle LONG",
        "bundle show LONG",
        "detect a.wav --out LONG.csv",
        "detect LONG.wav",
        "keys new LONG",
        "schema --out LONG.json",
        "bench --config demo LONG",
        "listen --keys LONG",
        "replay LONG",
    ],
)
def test_a_path_that_no_file_can_have_is_one_sentence(
    neurovocal, tmp_path, monkeypatch, arguments
):
    monkeypatch.chdir(tmp_path)
    soundfile.write("a.wav", np.zeros(800), 8000)
    for length in (300, 5000):
        long = re.sub("LONG", "x" * length, arguments)
        done = neurovocal(*long.split(" ", 3))
        assert done.code == 1
        (line,) = done.err.splitlines()
        assert len(line) < 700
        known = (
            "file name too long",
            "does not exist",
            "at most can be used",
            "is no recording",
        )
        assert any(each in line.lower() for each in known)


@pytest.mark.parametrize("group", [[], ["keys"], ["bundle"]])
def test_no_command_shows_the_help(neurovocal, group):
    done = neurovocal(*group)
    assert done.err.startswith(" ".join(["Usage: neurovocal", *group]))
    assert "error:" not in done.err


# ---- check -------------------------------------------------------------------


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_configurations_are_correct(neurovocal, name):
    done = neurovocal("check", name)
    if "no input device was found" in done.err:
        pytest.skip("needs a sound card")
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines()[-1].endswith(f"{name}.yaml: correct")


def test_check_prints_the_lanes(neurovocal, tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text(BASE)
    done = neurovocal("check", path, "--set", "station=roof")
    assert done.out == (
        f"lane 'roof': synthetic -> bands -> no model\n{path}: correct\n"
    )


def test_check_prints_one_line_per_mistake(neurovocal, tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text(
        BASE.replace("synthetic}", "synthetic, options: {sed: 1, n_units: 99}}")
        + "detector: {plugin: enrgy}\n"
    )
    done = neurovocal("check", path)
    assert done.code == 1
    lines = done.err.splitlines()
    assert len(lines) == 3
    assert f"error: {path}:2: source.options.sed: unknown option" in lines[1] + lines[0]
    assert f"error: {path}:4: detector.plugin: unknown detector" in done.err


def test_check_opens_nothing(neurovocal, tmp_path):
    path = tmp_path / "a.yaml"
    out = tmp_path / "out.jsonl"
    path.write_text(BASE)
    done = neurovocal("check", path, "--set", f"sinks.0.options.path={out}")
    assert done.code == 0
    assert not out.exists()


# ---- run ---------------------------------------------------------------------


def test_run_prints_a_line_per_segment(neurovocal, tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text(
        BASE.replace("{plugin: jsonl}", "{plugin: jsonl, options: {path: x}}")
    )
    options = ["--set", f"sinks.0.options.path={tmp_path}/o", "--set", "station=roof"]
    done = neurovocal("run", path, *options)
    assert (done.code, done.err) == (0, "")
    lines = done.out.splitlines()
    assert len(lines) > 10
    assert re.fullmatch(r"\S+ +\d+\.\d{3} s  segment +\d+ ms", lines[0])
    events = [json.loads(line) for line in (tmp_path / "o").read_text().splitlines()]
    assert sum(event["kind"] == "offset" for event in events) == len(lines)


def test_a_closed_stdout_ends_the_run_without_an_error(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text(BASE)
    options = [
        f"sinks.0.options.path={tmp_path}/o",
        "source.options.duration_s=900",
        "stop_timeout_s=60",
    ]
    sets = [part for option in options for part in ("--set", option)]
    with running("run", path, *sets) as process:
        assert "segment" in process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(PROCESS_S) == 0


def test_run_prints_json_for_programs(neurovocal, tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text(BASE)
    done = neurovocal(
        "run", path, "--json", "--set", f"sinks.0.options.path={tmp_path}/o"
    )
    rows = [json.loads(line) for line in done.out.splitlines()]
    assert len(rows) > 10
    assert {row["kind"] for row in rows} == {"offset"}
    assert [row["seq"] for row in rows] == list(range(len(rows)))


# ---- plugins, devices, schema, bundle ----------------------------------------


def test_plugins_are_listed(neurovocal):
    rows = json.loads(neurovocal("plugins", "--json").out)
    found = {(row["kind"], row["name"]) for row in rows}
    registry = Registry()
    assert found == {(kind, n) for kind in GROUPS for n in registry.names(kind)}
    assert all(row["summary"] and row["distribution"] for row in rows)
    table = neurovocal("plugins").out
    for _, name in found:
        assert name in table


def test_plugins_prints_the_options_of_one_plugin(neurovocal):
    done = neurovocal("plugins", "energy")
    assert done.out.startswith("detector 'energy': ")
    assert "  on_db  (10.0)\n      A sound is a segment" in done.out
    schema = json.loads(neurovocal("plugins", "energy", "--json").out)
    field = schema["detector"]["properties"]["on_db"]
    assert field["description"].startswith("A sound")


def test_plugins_of_one_name_and_two_kinds_are_all_shown(neurovocal):
    done = neurovocal("plugins", "recording")
    assert "source 'recording'" in done.out
    assert "sink 'recording'" in done.out
    shown = json.loads(neurovocal("plugins", "recording", "--json").out)
    assert set(shown) == {"source", "sink"}


def test_devices(neurovocal):
    done = neurovocal("devices", "--json")
    assert done.code in (0, 2)
    if done.code == 0:
        assert isinstance(json.loads(done.out), list)
    else:
        assert done.err.startswith("error: ")


def test_the_schema_can_be_written_to_a_file(neurovocal, tmp_path):
    out = tmp_path / "schema.json"
    assert neurovocal("schema", "--out", out).code == 0
    assert json.loads(out.read_text()) == json.loads(neurovocal("schema").out)
    done = neurovocal("schema", "--out", tmp_path)
    assert done.code == 1
    assert done.err == f"error: '{tmp_path}' cannot be written: Is a directory\n"


def test_every_reference_of_the_schema_is_defined(neurovocal):
    schema = json.loads(neurovocal("schema").out)
    references = re.findall(r'"\$ref": "([^"]+)"', json.dumps(schema))
    assert len(references) > 20
    for reference in references:
        assert reference.startswith("#/$defs/")
        assert reference.removeprefix("#/$defs/") in schema["$defs"], reference


def test_the_schema_has_the_options_of_every_plugin(neurovocal):
    schema = json.loads(neurovocal("schema").out)
    registry = Registry()
    for kind in GROUPS:
        for name in registry.names(kind):
            options = schema["$defs"][f"{kind}.{name}"]
            expected = registry.get(kind, name).options.model_fields
            assert set(options.get("properties", {})) == set(expected)
            assert options["additionalProperties"] is False
            cases = schema["$defs"][kind]["allOf"][1:]
            chosen = [
                c for c in cases if c["if"]["properties"]["plugin"]["const"] == name
            ]
            assert len(chosen) == 1


def test_the_schema_accepts_shipped_configurations_and_refuses_a_typo(neurovocal):
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads(neurovocal("schema").out)
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    for name in SHIPPED:
        data = yaml.safe_load((ROOT / "configs" / f"{name}.yaml").read_text())
        assert list(validator.iter_errors(data)) == [], name
        data["detector"] = {"plugin": "energy", "options": {"low_hx": 3}}
        assert not validator.is_valid(data), name


def test_bundle_show_and_check(neurovocal):
    shown = json.loads(neurovocal("bundle", "show", "bengalese-finch", "--json").out)
    assert shown["name"]
    assert shown["licence"]
    text = neurovocal("bundle", "show", "bengalese-finch").out
    brief = yaml.safe_load(text)
    assert brief["units"] == [unit for unit in shown["classifier"]["units"] if unit]
    assert brief["training"]["seconds"] == shown["training"]["seconds"]
    error = "frame_error_percent"
    assert (
        brief["figures"]["classifier"][error] == shown["figures"]["classifier"][error]
    )
    assert "recipe" not in brief["training"]
    assert len(text.splitlines()) < 120  # one or two pages
    done = neurovocal("bundle", "check", "bengalese-finch")
    assert done.code == 0
    assert done.out.endswith("correct\n")


# ---- init --------------------------------------------------------------------


def test_init_writes_a_configuration_that_check_accepts(
    neurovocal, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "songs").mkdir()
    soundfile.write(tmp_path / "songs" / "a.wav", np.zeros(320), 32_000)
    answers = iter(
        ["roof", "file", "songs", "none", "songbird", "tcp://127.0.0.1:5999", "a.db"]
    )
    monkeypatch.setattr("typer.prompt", lambda text, default: next(answers))
    done = neurovocal("init", "mine.yaml")
    assert (done.code, done.err) == (0, "")
    written = yaml.safe_load((tmp_path / "mine.yaml").read_text())
    assert written["station"] == "roof"
    assert "bundle" not in written
    assert [sink["plugin"] for sink in written["sinks"]] == ["zmq", "journal", "web"]
    assert neurovocal("check", "mine.yaml").code == 0
    for absent in ("recordings", "recordings/*.flac"):
        path = f"source.options.path={absent}"
        assert neurovocal("check", "mine.yaml", "--set", path).code == 1
    assert [path.name for path in tmp_path.glob("*.draft")] == []
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mine.yaml", "songs"]


def test_init_asks_again_and_never_overwrites(neurovocal, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text("kept")
    done = neurovocal("init", "mine.yaml")
    assert done.code == 1
    assert "exists already" in done.err
    assert (tmp_path / "mine.yaml").read_text() == "kept"
    # Answers that lead to a mistake write no file.
    answers = iter(
        ["roof", "tape", "file", "songs", "none", "bird", "songbird", "nowhere", "a.db"]
    )

    def prompt(text, default):
        answer = next(answers, None)
        if answer is None:
            raise typer.Abort
        return answer

    monkeypatch.setattr("typer.prompt", prompt)
    done = neurovocal("init", "other.yaml")
    assert done.code == 1
    assert "'tape' is none of: microphone, file, folder" in done.err
    assert "'bird' is none of: " in done.err
    assert "nowhere" in done.err
    assert "other.yaml:" not in done.err
    assert "the input ended" in done.err
    assert [p.name for p in tmp_path.iterdir()] == ["mine.yaml"]


@pytest.mark.parametrize("content", [b"RIFF\x80\xffWAVE", b"kept", b"a: 1\n", b"[1]"])
def test_init_replaces_nothing_but_a_configuration(neurovocal, tmp_path, content):
    path = tmp_path / "song.wav"
    path.write_bytes(content)
    done = neurovocal("init", path, "--yes", "--force")
    assert done.code == 1
    assert "is no configuration: it would be lost" in done.err
    assert path.read_bytes() == content
    assert "is a folder" in neurovocal("init", tmp_path, "--yes", "--force").err


def test_init_warns_of_a_missing_device_and_writes_the_file(
    neurovocal, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    answers = iter(["roof", "microphone", "in the field", "48000", "zebra-finch"])
    monkeypatch.setattr("typer.prompt", lambda text, default: next(answers, default))
    done = neurovocal("init", "mine.yaml")
    assert (done.code, done.err.count("\n")) == (0, 1)
    assert done.err.startswith("warning: mine.yaml:3: source: ")
    assert [p.name for p in tmp_path.iterdir()] == ["mine.yaml"]
    written = yaml.safe_load((tmp_path / "mine.yaml").read_text())
    assert written["source"]["options"]["device"] == "in the field"


def test_init_can_write_a_folder_source(neurovocal, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "card").mkdir()
    answers = iter(["roof", "folder", "card"])
    monkeypatch.setattr("typer.prompt", lambda text, default: next(answers, default))
    assert neurovocal("init", "mine.yaml").code == 0
    assert neurovocal("check", "mine.yaml").code == 0
    for absent in ("recordings", "recordings/*.flac"):
        path = f"source.options.path={absent}"
        assert neurovocal("check", "mine.yaml", "--set", path).code == 1


def test_local_plugins_are_found_wherever_a_configuration_names_them():
    named = {
        "detector": {"plugin": "mine.py:plugin"},
        "lanes": [{"models": [{"plugin": "/a b/x.py:_made2"}, {"plugin": "energy"}]}],
        "sinks": [{"options": {"endpoint": "tcp://x.py:5556", "path": "a.py"}}, 3],
    }
    assert plugin_files(named) == ["/a b/x.py:_made2", "mine.py:plugin"]
    assert plugin_files(None) == plugin_files([1, None]) == []


def test_init_asks_again_after_a_wrong_answer_and_keeps_the_others(
    neurovocal, tmp_path, monkeypatch
):
    path = tmp_path / "station.yaml"
    first = ["roof", "file", "absent.wav", "none", "songbird", "none", "x.sqlite"]
    again = ["", "", str(ROOT / "configs/recordings/bengalese-finch.flac"), "", "", ""]
    text = "\n".join([*first, *again, "", ""])
    monkeypatch.setattr("sys.stdin", io.StringIO(text))
    done = neurovocal("init", path)
    assert done.code == 0
    assert done.err.splitlines()[0] == (
        "error: source.options.path: recording 'absent.wav' does not exist"
    )
    written = yaml.safe_load(path.read_text())
    assert written["station"] == "roof"
    assert [sink["plugin"] for sink in written["sinks"]] == ["journal"]


def test_init_writes_nothing_if_its_input_ends(neurovocal, tmp_path, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("roof\nfile\n"))
    done = neurovocal("init", tmp_path / "station.yaml")
    assert done.code == 1
    assert "the input ended" in done.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "command",
    [
        ["listen", "tcp://127.0.0.1:99999"],
        ["control", "tcp://127.0.0.1:99999", "status"],
        ["control", "127.0.0.1:99999", "status"],
        ["relay", "--from", "tcp://127.0.0.1:99999"],
        ["relay", "--from", "tcp://127.0.0.1:1,tcp://127.0.0.1:99999"],
        ["relay", "--from", "tcp://127.0.0.1:1", "--to", "tcp://127.0.0.1:99999"],
    ],
)
def test_an_absurd_endpoint_is_refused_at_once(neurovocal, command):
    done = neurovocal(*command)
    assert (done.code, done.out) == (1, "")
    (line,) = done.err.splitlines()
    assert "127.0.0.1:99999'" in line


def test_audacity_tracks_of_several_recordings_need_a_file(
    neurovocal, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b"):
        soundfile.write(f"{name}.wav", np.zeros(800), 8000)
    for given in ("a.wav b.wav", ".", "*.wav"):
        done = neurovocal("detect", *given.split(), "--format", "audacity")
        assert (done.code, done.out) == (1, "")
        (line,) = done.err.splitlines()
        assert "one recording, and these are several: add --out FILE" in line
    for given in ("a.wav", "a*"):
        assert neurovocal("detect", given, "--format", "audacity").code == 0


def test_a_configuration_elsewhere_brings_what_lies_beside_it(
    neurovocal, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    soundfile.write("a.wav", np.zeros(800), 8000)
    beside = tmp_path / "station"
    beside.mkdir()
    (beside / "loud.py").write_text(
        "from neurovocal.plugins.detectors.energy import plugin\n"
    )
    (beside / "run.yaml").write_text(
        "version: 1\nsource: {plugin: file, options: {path: a.wav}}\n"
        "detector: {plugin: './loud.py:plugin'}\n"
        "sinks: [{plugin: table, options: {path: a.csv}}]\n"
    )
    assert neurovocal("detect", "a.wav", "--config", "station/run.yaml").code == 0
    assert neurovocal("run", "station/run.yaml").code == 0
    assert (tmp_path / "a.csv").exists(), "an output lies in the working folder"


def test_a_copy_of_a_configuration_finds_the_recording_that_ships(
    neurovocal, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text((ROOT / "configs/demo.yaml").read_text())
    assert neurovocal("check", "mine.yaml").code == 0
    for absent in ("recordings", "recordings/*.flac"):
        path = f"source.options.path={absent}"
        assert neurovocal("check", "mine.yaml", "--set", path).code == 1


def test_a_file_whose_name_looks_like_an_option_is_told_how_to_name(
    neurovocal, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "-rf.wav").touch()
    done = neurovocal("detect", "-rf.wav")
    assert done.code == 1
    assert "for the file of this name write './-rf.wav'" in done.err


def test_a_recording_of_too_low_a_rate_for_a_preset_is_named_with_a_way_out(
    neurovocal, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    for name in ("a.wav", "b.wav"):
        soundfile.write(name, np.zeros(32_000), 32_000)
    reason = (
        "a band from 40000 Hz on needs a sample rate of more than 88888 Hz, not 32000 "
        "Hz: record at a higher rate, choose another preset or lower low_hz"
    )
    done = neurovocal("detect", "a.wav", "--config", "mouse-ultrasound")
    assert (done.code, done.err) == (1, f"error: 'a.wav': {reason}\n")
    done = neurovocal("detect", "a.wav", "b.wav", "--config", "mouse-ultrasound")
    assert f"error: 'b.wav' is left out: {reason}" in done.err.splitlines()


def test_a_configuration_in_place_of_a_recording_is_told_its_place(
    neurovocal, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text(BASE)
    done = neurovocal("detect", "mine.yaml")
    assert (done.code, done.out) == (2, "")
    assert done.err == (
        "error: 'mine.yaml' is not a recording that can be read: it is a text file (a "
        "configuration goes behind --config)\n"
    )
