"""Values of ``${NAME}`` in a configuration: text that leaves shows the name instead."""

import json
import logging
import shlex
import sys
from urllib.parse import quote, quote_plus

import pytest
import yaml
from processes.cli_process import neurovocal

from neurovocal.engine.cli.logs import JsonFormatter, SentenceFormatter
from neurovocal.engine.config.located_yaml import parse_located
from neurovocal.engine.config.schema import parse_config
from neurovocal.engine.contracts.errors import ConfigError, StageError, TransientProblem
from neurovocal.engine.contracts.types import Health
from neurovocal.engine.journal import read_events, runs
from neurovocal.engine.support.credentials import (
    masked,
    remember_variable,
    without_credentials,
)

SECRETS = ["hayseed9", "hay seed/&=+?", "h'ay\"s$eed\\x", "Käfig#7!", "a:b@c%41 d"]
FORMS = {
    "as it is": str,
    "in an address": lambda value: f"http://cam/{quote(value, safe='')}/live",
    "in an address, slashes kept": quote,
    "small hexadecimal digits": lambda value: quote(value, safe="").replace(
        "%2F", "%2f"
    ),
    "of a form": quote_plus,
    "for a shell": shlex.quote,
    "for Python": repr,
    "in JSON": json.dumps,
    "in JSON with all characters": lambda value: json.dumps(value, ensure_ascii=False),
    "with backslashes": lambda value: value.replace(" ", "\\ ").replace("&", "\\&"),
    "part of a word": lambda value: f"x{value}y",
    "before a colon": lambda value: f"{value}: refused",
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("secret", SECRETS)
def test_a_value_is_masked_in_any_form(secret, form):
    remember_variable("PW", secret)
    shown = masked(f"before {form(secret)} after")
    assert "${PW}" in shown
    assert shown.startswith("before ")
    assert shown.endswith(" after")
    for part in ("hayseed", "seed", "fig", "b@c", "eed"):
        assert part not in shown


@pytest.mark.parametrize("value", ["", "1", "a", "on", "48", "true", "None", "abc"])
def test_short_and_common_values_mask_nothing(value):
    remember_variable("SHORT", value)
    text = "1 of 48 recordings is on: true, None, abc, a"
    assert masked(text) == text


def test_values_below_eight_characters_are_masked_as_whole_words():
    remember_variable("PW", "seed")
    assert masked("seeds of birdseed: seed; seed1") == "seeds of birdseed: ${PW}; seed1"


def test_words_and_passwords_of_a_value_are_masked_alone():
    remember_variable("OPTIONS", "-u bird:hayseed9")
    remember_variable("URL", "rtsp://bird:goldfinch8@camera/audio")
    assert masked("401 for bird:hayseed9") == "401 for ${OPTIONS}"
    assert masked("password goldfinch8 is wrong") == "password ${URL} is wrong"


def test_the_longest_value_is_masked_first():
    remember_variable("A", "hayseed9")
    remember_variable("B", "hayseed9-goldfinch8")
    assert masked("hayseed9-goldfinch8 hayseed9") == "${B} ${A}"


def test_errors_health_and_logs_are_masked(monkeypatch):
    monkeypatch.setenv("PW", "hayseed9")
    located = parse_located("a: [x, 'http://u:${PW}@h']\nb: ${PW}\n", "c.yaml")
    assert located.data["b"] == "hayseed9"
    assert located.unexpanded() == {"a": ["x", "http://u:${PW}@h"], "b": "${PW}"}
    error = ConfigError(["bad hayseed9", TransientProblem("no hayseed9")])
    assert error.problems == ["bad ${PW}", "no ${PW}"]
    assert isinstance(error.problems[1], TransientProblem)
    assert str(StageError("no hayseed9")) == "no ${PW}"
    assert Health("source", "failed", "no hayseed9").detail == "no ${PW}"
    try:
        raise ValueError("lost hayseed9")
    except ValueError:
        record = logging.LogRecord(
            "neurovocal", logging.ERROR, "x", 1, "no %s", ("hayseed9",), sys.exc_info()
        )
    for form in (JsonFormatter(), SentenceFormatter(tracebacks=True)):
        line = form.format(record)
        assert "no ${PW}" in line
        assert "lost ${PW}" in line
        assert "hayseed9" not in line


def test_a_refused_value_is_shown_as_its_variable(monkeypatch):
    monkeypatch.setenv("N", "7x")  # too short to be found by its value
    located = parse_located(
        "version: 1\nsource: {plugin: file}\ntile: ${N}\n", "c.yaml"
    )
    with pytest.raises(ConfigError, match=r"c.yaml:3: tile: .*\(got '\$\{N\}'\)"):
        parse_config(located)


def test_a_variable_of_digits_is_a_text_where_one_is_expected(monkeypatch):
    monkeypatch.setenv("NAME", "0042")
    monkeypatch.setenv("TILE", "4")
    text = "version: 1\nsource: {plugin: file}\nstation: ${NAME}\ntile: ${TILE}\n"
    config = parse_config(parse_located(text, "c.yaml"))
    assert config.shared.station == "0042"
    assert config.shared.tile == 4


def test_variables_stay_where_credentials_are_hidden():
    shown = without_credentials(
        {
            "password": "${PW}",
            "token": "x${PW}",
            "url": "rtsp://bird:${PW}@camera/?token=${T}&rate=1",
            "header": "Authorization: Bearer ${PW}",
        }
    )
    assert shown == {
        "password": "${PW}",
        "token": "***${PW}",
        "url": "rtsp://***${PW}@camera/?token=${T}&rate=1",
        "header": "Authorization: Bearer ${PW}",
    }


def test_an_override_takes_the_place_of_a_variable(monkeypatch):
    monkeypatch.setenv("PW", "hayseed9")
    text = "a: {b: '${PW}'}\nc: ['${PW}']\n"
    located = parse_located(text, "c.yaml", ["a={d: 1}", "c.0=x"])
    assert located.unexpanded() == {"a": {"d": 1}, "c": ["x"]}


def test_arguments_of_a_command_name_no_variables(monkeypatch):
    monkeypatch.setenv("PW", "hayseed9")
    assert parse_located("a: ${PW}\n", "").data == {"a": "${PW}"}


@pytest.mark.parametrize(
    "part",
    ["-HAuthorization: Bearer ${PW}", "http://cam/${PW}/live", "${PW}", "x-${PW}-y"],
)
def test_a_run_shows_its_secret_nowhere(tmp_path, monkeypatch, part):
    """All that the run writes is searched, including SQLite's own pages."""
    says = (
        "import sys; from urllib.parse import quote;"
        "sys.exit(repr(sys.argv[1]) + quote(sys.argv[1]) + ': refused')"
    )
    config = {
        "version": 1,
        "source": {
            "plugin": "pipe",
            "on_error": "fail",
            "options": {
                "sample_rate": 32_000,
                "command": [sys.executable, "-c", says, part],
            },
        },
        "sinks": [
            {"plugin": "journal", "options": {"path": str(tmp_path / "run.sqlite")}},
            {"plugin": "jsonl", "options": {"path": str(tmp_path / "run.jsonl")}},
        ],
    }
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(config))
    secret = "hay seed/9&x"
    monkeypatch.setenv("PW", secret)
    done = neurovocal("--verbose", "run", tmp_path / "c.yaml")
    assert done.code == 2
    (record,) = runs(tmp_path / "run.sqlite")
    assert yaml.safe_load(record.config) == config
    headers = [event.header for event in read_events(tmp_path / "run.sqlite")]
    assert any(b"refused" in header for header in headers)
    written = [path.read_bytes() for path in tmp_path.glob("run.*")]
    for text in (done.err.encode(), done.out.encode(), *written):
        assert b"seed" not in text
