"""Credentials in addresses appear neither in the log nor in health or journal."""

import sys

import pytest
import yaml
from processes.cli_process import neurovocal

from neurovocal.engine.contracts.clock import SystemClock
from neurovocal.engine.contracts.errors import ConfigError, Disconnected
from neurovocal.engine.contracts.plugin import BuildContext
from neurovocal.engine.journal import runs
from neurovocal.engine.support.credentials import hide_credentials, without_credentials
from neurovocal.plugins.sources.pipe.source import plugin as pipe

SECRETS = [
    "rtsp://bird:seed@camera.example/audio",
    "http://bird:se%2Feed@radio",
    "https://seed@radio/live.ogg",
    "icecast://source:s@eed@10.0.0.1:8000/live",
    "rtsp://10.0.0.1/user=admin&password=seed&channel=1.sdp",
    "https://radio/live?token=seed&rate=48000",
    "-headers 'Authorization: Basic seed'",
]


@pytest.mark.parametrize("text", SECRETS)
def test_credentials_are_hidden_and_the_rest_is_kept(text):
    hidden = hide_credentials(f"before {text}: Connection refused")
    assert hidden.startswith("before ")
    assert "eed" not in hidden
    if not text.startswith("-"):
        assert hidden.endswith(": Connection refused")


@pytest.mark.parametrize(
    "text",
    [
        "http://radio/live.ogg: Server returned 404 Not Found",
        "a@b, monkey=3; /dev/snd/by-path/pci: no such file",
        "ffmpeg -i tcp://127.0.0.1:5000 -metadata title=x",
    ],
)
def test_text_without_credentials_is_unchanged(text):
    assert hide_credentials(text) == text


def test_data_keep_their_structure():
    data = {"a": ["http://u:p@h/x", 3], "password": "x", "b": {"token": None}}
    assert without_credentials(data) == {
        "a": ["http://***@h/x", 3],
        "password": "***",
        "b": {"token": None},
    }


@pytest.mark.parametrize(
    ("url", "kept"),
    [
        ("https://hooks.example/services/T0/seed", "https://hooks.example/***"),
        ("https://h:8443/a/${TOKEN}?x=seed", "https://h:8443/***${TOKEN}***"),
        ("https://u:seed@h?k=seed", "https://***@h?***"),
        ("https://h/", "https://h/"),
        ("${HOOK}", "${HOOK}"),
    ],
)
def test_the_path_of_a_webhook_is_kept_nowhere(url, kept):
    data = {"plugin": "webhook", "options": {"url": url}}
    assert without_credentials(data)["options"]["url"] == kept


def test_the_output_of_a_source_program_is_published_without_credentials():
    says = "import sys; sys.exit('http://bird:seed@radio/live: refused')"
    options = pipe.options(sample_rate=8000, command=[sys.executable, "-c", says])
    source = pipe.build(options, BuildContext(SystemClock(), "run"))
    source.open()
    refused = r"http://\*\*\*@radio/live: refused"
    with pytest.raises(Disconnected, match=refused):
        source.read(60)
    broken = pipe.options(sample_rate=8000, command="ffmpeg -i 'http://u:seed@h")
    with pytest.raises(ConfigError) as caught:
        pipe.build(broken, BuildContext(SystemClock(), "run")).open()
    assert "seed" not in str(caught.value)


def test_a_journal_records_the_configuration_without_credentials(tmp_path):
    """The whole file is searched, including SQLite's own pages."""
    journal = tmp_path / "run.sqlite"
    says = "import sys; sys.exit(sys.argv[1] + ': refused')"
    command = [sys.executable, "-c", says, "rtsp://bird:hayseed@camera/audio"]
    config = {
        "version": 1,
        "source": {
            "plugin": "pipe",
            "on_error": "fail",
            "options": {"sample_rate": 32_000, "command": command},
        },
        "sinks": [{"plugin": "journal", "options": {"path": str(journal)}}],
    }
    path = tmp_path / "c.yaml"
    path.write_text(yaml.safe_dump(config))
    done = neurovocal("run", path)
    assert done.code == 2
    assert "rtsp://***@camera/audio: refused" in done.err
    assert "hayseed" not in done.err + done.out
    (record,) = runs(journal)
    kept = yaml.safe_load(record.config)["source"]["options"]["command"]
    assert kept == [*command[:3], "rtsp://***@camera/audio"]
    for file in tmp_path.glob("run.sqlite*"):
        assert b"hayseed" not in file.read_bytes()
