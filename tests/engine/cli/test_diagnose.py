"""`neurovocal doctor` and `support`: what is missing, and a file without secrets."""

import io
import json
import os
import socket
import tomllib
import zipfile
from dataclasses import replace

import pytest
import yaml
from repository import ROOT

from neurovocal.engine.cli import main
from neurovocal.engine.cli.diagnosis import findings, machine, software
from neurovocal.engine.cli.diagnosis.findings import install_command
from neurovocal.engine.cli.diagnosis.machine import (
    clock_finding,
    disk_finding,
    port_findings,
    sound_findings,
)
from neurovocal.engine.cli.diagnosis.support import redacted, without_secrets
from neurovocal.engine.contracts.errors import DeviceError
from neurovocal.engine.contracts.plugin import GROUPS
from neurovocal.engine.contracts.registry import Registry
from neurovocal.plugins.devices import portaudio


def run(*arguments):
    with pytest.raises(SystemExit) as ended:
        main([*map(str, arguments)])
    return ended.value.code


def by_check(found):
    return {finding.check: finding for finding in found}


# ---- doctor --------------------------------------------------------------------------


def test_every_extra_is_told_and_no_other():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    stated = set(project["optional-dependencies"])
    assert set(software.EXTRAS) | software.FOR_DEVELOPERS == stated


def test_json_and_text_tell_the_same(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(machine, "_is_synchronised", lambda: True)
    monkeypatch.setenv("COLUMNS", "80")
    config = tmp_path / "c.yaml"
    config.write_text(
        "version: 1\n"
        "source: {plugin: synthetic, options: {duration_s: 1}}\n"
        "sinks: [{plugin: table, options: {path: labels.csv}}]\n"
    )
    assert run("doctor", "--config", config, "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["ok"] is True
    checks = {finding["check"]: finding for finding in report["findings"]}
    assert checks["configuration"]["state"] == "ok"
    assert "numpy" in checks["libraries"]["text"]
    assert run("doctor", "--config", config) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "nothing is missing"
    assert all(len(line) <= 80 for line in lines if "> " not in line)
    told = [line.split()[0] for line in lines[:-1] if line[0] != " "]
    assert told == [finding["state"] for finding in report["findings"]]
    assert list(tmp_path.iterdir()) == [config], "it changes nothing"


def test_what_a_configuration_lacks_is_missing(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        config = tmp_path / "c.yaml"
        config.write_text(
            "version: 1\n"
            "source: {plugin: synthetic, options: {duration_s: 1}}\n"
            f'sinks: [{{plugin: zmq, options: {{endpoint: "tcp://127.0.0.1:{port}"}}}}]\n'
        )
        assert run("doctor", "--config", config, "--json") == 1
    report = json.loads(capsys.readouterr().out)
    missing = [f["check"] for f in report["findings"] if f["state"] == "missing"]
    assert missing == [f"port {port}"]
    assert run("doctor", "--config", config, "--json") == 0
    capsys.readouterr()
    config.write_text("version: 1\nsourze: {plugin: file}\n")
    assert run("doctor", "--config", config) == 1
    out = capsys.readouterr().out
    assert "did you mean" in " ".join(out.split())
    assert f"> neurovocal check {config}" in out


def test_a_missing_library_and_a_damaged_one_have_a_command(monkeypatch):
    real = software.version

    def version(name):
        if name == "soxr":
            raise software.PackageNotFoundError(name)
        return real(name)

    def import_module(name):
        if name == "zmq":
            raise OSError("libzmq.so.5: cannot open shared object file")

    monkeypatch.setattr(software, "version", version)
    monkeypatch.setattr(software, "import_module", import_module)
    missing = [f for f in software.software_findings() if f.state == "missing"]
    assert [finding.text.split()[0] for finding in missing] == ["pyzmq", "soxr"]
    assert missing[0].fix.endswith("-m pip install --force-reinstall pyzmq")
    assert missing[1].fix.endswith("-m pip install soxr")
    wanted = next(f for f in software.extra_findings() if f.state == "note")
    assert wanted.fix.split(" -m ")[1].startswith(
        ("pip install 'neurovocal[", "ffmpeg")
    )


@pytest.mark.parametrize(
    ("manager", "command"),
    [
        ("apt-get", "sudo apt-get install -y libportaudio2"),
        ("dnf", "sudo dnf install -y portaudio"),
        ("pacman", "sudo pacman -S --noconfirm portaudio"),
        ("brew", "brew install portaudio"),
        ("winget", ""),
    ],
)
def test_commands_are_those_of_the_system(monkeypatch, manager, command):
    monkeypatch.setattr(
        findings.shutil, "which", lambda name: name if name == manager else None
    )
    monkeypatch.setattr(findings.os, "geteuid", lambda: 1000)
    assert install_command("portaudio") == command
    monkeypatch.setattr(findings.os, "geteuid", lambda: 0)
    assert install_command("portaudio") == command.removeprefix("sudo ")


@pytest.mark.parametrize("needed", [False, True])
def test_an_absent_portaudio_matters_to_microphones_only(monkeypatch, needed):
    def absent():
        raise DeviceError("PortAudio is not installed: a sound card needs it")

    monkeypatch.setattr(portaudio, "portaudio", absent)
    (finding,) = sound_findings(needed=needed)
    assert finding.state == ("missing" if needed else "note")
    assert "portaudio" in finding.fix or "sounddevice" in finding.fix


def test_devices_are_listed_and_closed_ones_named(monkeypatch, tmp_path):
    device = {"name": "UMC404", "channels": 4, "sample_rate": 48000, "default": True}
    source = replace(Registry().get("source", "microphone"), devices=lambda: [device])
    monkeypatch.setattr(machine.Registry, "get", lambda self, kind, name: source)
    monkeypatch.setattr(machine.Registry, "names", lambda self, kind: ["microphone"])
    (tmp_path / "pcmC1D0c").touch()
    monkeypatch.setattr(machine, "_SOUND", tmp_path)
    monkeypatch.setattr(machine, "IS_LINUX", True)
    monkeypatch.setattr(machine.os, "access", lambda path, mode: False)
    found = by_check(sound_findings(needed=True))
    assert found["sound input"].text == "UMC404: 4 channels, 48000 Hz, default"
    assert found["permission"].state == "missing"
    assert "pcmC1D0c" in found["permission"].text
    assert "usermod -aG audio" in found["permission"].fix


def test_disk_ports_and_clock(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    assert disk_finding(tmp_path / "new" / "folder").state == "ok"
    assert disk_finding(tmp_path / "file" / "folder").state == "missing"
    with monkeypatch.context() as closed:
        closed.setattr(machine.os, "access", lambda path, mode: False)
        assert "chown" in disk_finding(tmp_path).fix
    usage = machine.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(
        machine.shutil, "disk_usage", lambda path: usage._replace(free=2**20)
    )
    assert disk_finding(tmp_path).state == "note"
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        (finding,) = port_findings([port], needed=True)
        assert (finding.state, finding.check) == ("missing", f"port {port}")
    assert [f.state for f in port_findings([port], needed=True)] == ["ok"]
    assert clock_finding(True).state == "ok"
    assert clock_finding(None).state == clock_finding(False).state == "note"
    monkeypatch.setattr(machine.shutil, "which", lambda name: f"/usr/bin/{name}")
    assert "timedatectl set-ntp true" in clock_finding(False).fix


# ---- support -------------------------------------------------------------------------

SECRET = "hunter22"


def secret_options():
    """Options of all plugins whose names tell that they are secret."""
    words = ("pass", "secret", "token", "auth", "credential", "header", "api_key")
    registry = Registry()
    for kind in GROUPS:
        for name in registry.names(kind):
            for key in registry.get(kind, name).options.model_fields:
                if any(word in key for word in words):
                    yield f"{kind}.{name}.{key}"


def test_the_check_of_secrets_sees_those_of_the_plugins():
    assert {"sink.web.token", "sink.web.password"} <= set(secret_options())


@pytest.mark.parametrize("option", sorted(secret_options()))
def test_every_secret_option_is_hidden(option):
    kind, name, key = option.split(".")
    for value in (SECRET, [SECRET], {"X": SECRET}, 12345678):
        stage = {"plugin": name, "options": {key: value, "path": "kept"}}
        shown = json.dumps(redacted({kind: stage, "list": [{key: value}]}))
        assert SECRET not in shown
        assert "12345678" not in shown
        assert "kept" in shown


def test_passwords_of_addresses_are_hidden():
    hidden = redacted(
        {
            "command": f"ffmpeg -i rtsp://bird:{SECRET}@camera/a -headers x",
            "url": f"https://host/hook/{SECRET}?token={SECRET}&x=1",
        }
    )
    assert SECRET not in json.dumps(hidden)
    assert "camera/a" in hidden["command"]
    log = f"error: mqtt://bird:{SECRET}@broker refused; Authorization: Bearer {SECRET}"
    assert SECRET not in without_secrets(log)


@pytest.fixture
def station(tmp_path, monkeypatch):
    """A configuration with secrets, and the journal and log of its run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PAGE_PASSWORD", f"{SECRET}-from-outside")
    source = ROOT / "configs" / "recordings" / "bengalese-finch.flac"
    (tmp_path / "c.yaml").write_text(f"""\
version: 1   # {SECRET} in a comment
source: {{plugin: file, options: {{path: {source}}}}}
sinks:
  - {{plugin: journal, options: {{path: run.sqlite}}}}
  - plugin: web
    options: {{endpoint: "127.0.0.1:0", user: bird, password: "${{PAGE_PASSWORD}}"}}
""")
    (tmp_path / "log.txt").write_text(
        f"info: rtsp://u:{SECRET}@camera\nwarning: last\n"
    )
    return tmp_path


def test_the_file_holds_what_it_lists_and_no_secret(station, capsys):
    assert run("run", "c.yaml", "--plain") == 0
    capsys.readouterr()
    arguments = ("--config", "c.yaml", "--journal", "run.sqlite", "--log", "log.txt")
    assert run("support", *arguments, "--out", "help.zip") == 0
    listed = capsys.readouterr().out
    with zipfile.ZipFile("help.zip") as archive:
        texts = {name: archive.read(name).decode() for name in archive.namelist()}
    assert set(texts) == {
        *("doctor.txt", "doctor.json", "system.json", "packages.txt", "log.txt"),
        *("configuration.yaml", "journal.json", "journal-config.yaml"),
        *("events.jsonl", "stats.jsonl"),
    }
    for name, text in texts.items():
        assert name in listed
        assert SECRET not in text, f"a secret is in {name}"
        for magic in ("RIFF", "fLaC"):
            assert magic not in text
    config = yaml.safe_load(texts["configuration.yaml"])
    assert config["sinks"][1]["options"] == {
        **{"endpoint": "127.0.0.1:0", "user": "***", "password": "***"}
    }
    counts = json.loads(texts["journal.json"])["counts"]
    assert any(each["kind"] == "offset" and each["messages"] > 50 for each in counts)
    assert "numpy" in texts["packages.txt"]
    assert texts["log.txt"].endswith("warning: last\n")
    before = (station / "help.zip").read_bytes()
    assert run("support", "--out", "help.zip") == 1
    assert "exists" in capsys.readouterr().err
    assert (station / "help.zip").read_bytes() == before


def test_a_configuration_that_is_no_yaml_is_left_out(station, capsys):
    (station / "c.yaml").write_text(f"password: [{SECRET}\n")
    assert run("support", "--config", "c.yaml", "--out", "help.zip") == 0
    content = io.BytesIO((station / "help.zip").read_bytes())
    with zipfile.ZipFile(content) as archive:
        for name in archive.namelist():
            assert SECRET not in archive.read(name).decode(), name


def test_what_cannot_be_read_is_told(station, capsys):
    assert run("support", "--journal", "no.sqlite", "--out", "help.zip") == 1
    assert run("support", "--log", "no.txt", "--out", "help.zip") == 1
    assert run("support", "--out", "help.txt") == 1
    err = capsys.readouterr().err
    assert "no.sqlite" in err
    assert "no.txt" in err
    assert "name a .zip file" in err
    assert not (station / "help.zip").exists()


def test_of_a_damaged_journal_the_reason_is_packed(station):
    (station / "run.sqlite").write_bytes(b"no database " * 1000)
    assert run("support", "--journal", "run.sqlite", "--out", "help.zip") == 0
    with zipfile.ZipFile("help.zip") as archive:
        assert b"run.sqlite" in archive.read("journal-error.txt")
        assert "doctor.txt" in archive.namelist()


def test_a_pipe_is_no_log(station, capsys):
    os.mkfifo(station / "pipe")
    assert run("support", "--log", "pipe", "--out", "help.zip") == 1
    assert "'pipe' is no file: name the log" in capsys.readouterr().err


def test_a_recording_is_no_log(station, capsys):
    source = ROOT / "configs" / "recordings" / "bengalese-finch.flac"
    assert run("support", "--log", source, "--out", "help.zip") == 1
    assert "is no text" in capsys.readouterr().err
    assert not (station / "help.zip").exists()
