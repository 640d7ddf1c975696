"""YAML with line numbers: each mistake is a sentence with its line."""

import math
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neurovocal.engine.config.located_yaml import parse_located, read_located
from neurovocal.engine.contracts.errors import ConfigError
from neurovocal.engine.support import safe_yaml


def problems(text, overrides=()):
    with pytest.raises(ConfigError) as caught:
        parse_located(text, "x.yaml", overrides)
    return caught.value.problems


def data(text, overrides=()):
    return parse_located(text, "x.yaml", overrides).data


def test_values_and_their_lines():
    located = parse_located("a: 1\nb:\n  c: [x,\n    2.5]\n  d: true\n", "x.yaml")
    assert located.data == {"a": 1, "b": {"c": ["x", 2.5], "d": True}}
    assert located.problem(("a",), "wrong") == "x.yaml:1: a: wrong"
    assert located.problem(("b", "c", 1), "wrong") == "x.yaml:4: b.c.1: wrong"
    assert located.problem(("b", "d"), "wrong") == "x.yaml:5: b.d: wrong"
    # Of what is not there, the nearest parent's line.
    assert located.problem(("b", "e", "f"), "missing") == "x.yaml:2: b.e.f: missing"
    assert located.problem((), "nothing") == "x.yaml:1: nothing"


@pytest.mark.parametrize("text", ["", "# nothing\n", "\n\n"])
def test_an_empty_file_is_an_empty_configuration(text):
    assert data(text) == {}


@pytest.mark.parametrize("text", ["- 1\n- 2\n", "hello\n", "12\n", "null\n", "---\n"])
def test_a_file_that_is_no_mapping_is_refused(text):
    assert problems(text) == [
        "x.yaml:1: expected 'key: value' lines, found a list or text"
    ]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a: 1\nb:\n\tc: 2\n", "x.yaml:3: not valid YAML: a tab cannot indent"),
        ("a: 1\n\tb: 2\n", "x.yaml:2: not valid YAML: a tab cannot indent"),
        ("a:\n  b: 1\n c: 2\n", "x.yaml:3: not valid YAML: the indentation does not"),
        ("a: 1\n  b: 2\n", "x.yaml:2: not valid YAML: ': ' stands where no key can"),
        ("a: b: c\n", "x.yaml:1: not valid YAML: ': ' stands where no key can"),
        ("a: 1\nb\nc: 2\n", "x.yaml:3: not valid YAML: this or the line before it"),
        (
            "version 1\nstation: a\n",
            "x.yaml:1: not valid YAML: 'version 1' lacks ':': write 'version: 1'",
        ),
        (
            "version: 1\n# of the loft\nstation aviary 3  # here\n\nsinks: []\n",
            "x.yaml:3: not valid YAML: 'station aviary 3  # here' lacks ':': write "
            "'station: aviary 3'",
        ),
        (
            "sinks:\n  - plugin zmq\n    options: {}\n",
            "x.yaml:2: not valid YAML: '- plugin zmq' lacks ':': write 'plugin: zmq'",
        ),
        (
            "detector:\n  plugin:energy\n  options: {}\n",
            "x.yaml:2: not valid YAML: 'plugin:energy' lacks a blank behind ':': write "
            "'plugin: energy'",
        ),
        ("a: [1,\n", "x.yaml:2: not valid YAML: a value is missing or begins with"),
        ("a: [1, 2\nb: 3\n", "x.yaml:2: not valid YAML: a list or mapping in brackets"),
        ("a: 1\n---\nb: 2\n", "x.yaml:2: not valid YAML: a second document"),
        ("a: \x00\n", "x.yaml:1: not valid YAML: it holds the character U+0000"),
        ("b: 1\na: x\x1b[2J\n", "x.yaml:2: not valid YAML: it holds the character U+"),
        ("a: {b: ${X}, c: 1}\n", "x.yaml:1: not valid YAML: within brackets ${NAME}"),
        ("a: *b\n", "x.yaml:1: not valid YAML: '*b' is no text without quotes"),
        ("a: *:5556\n", "x.yaml:1: not valid YAML: "),
        ("a: @home\n", "x.yaml:1: not valid YAML: a value cannot begin with '@'"),
        ("a: `x`\n", "x.yaml:1: not valid YAML: a value cannot begin with '`'"),
        ("a: 'open\n", "x.yaml:2: not valid YAML: a quote is not closed"),
        ('a: "C:\\data"\n', "x.yaml:1: not valid YAML: in double quotes a backslash"),
    ],
)
def test_invalid_yaml_is_refused_with_its_line(text, sentence):
    (problem,) = problems(text)
    assert problem.startswith(sentence)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a: 1\nb: 2\na: 3\n", "x.yaml:3: 'a' is given twice"),
        ("a:\n  b: 1\n  b: 1\n", "x.yaml:3: 'b' is given twice"),
        ("? [a, b]\n: 1\n", "x.yaml:1: a key must be a name, not a list or mapping"),
        (
            "a: &x {b: 1}\nc:\n  <<: *x\n",
            "x.yaml:3: '<<' is not supported: write the keys out",
        ),
        ("a: &x\n  - *x\n", "x.yaml:1: an alias that contains itself"),
        ("a: !secret x\n", "x.yaml:1: 'x' cannot be read as !secret"),
        ("a: !secret {b: 1}\n", "x.yaml:1: '!secret' is not supported here"),
        ('a: "x\\0"\n', "x.yaml:1: it holds the control character U+0000: remove it"),
        ('"\\e": 1\n', "x.yaml:1: it holds the control character U+001B: remove it"),
        (
            'a: 1\nb: ["\\uD800"]\n',
            "x.yaml:2: it holds half of a character (a lone surrogate): remove it",
        ),
        ("a: !secret [b]\n", "x.yaml:1: '!secret' is not supported here"),
        ("a: !!int foo\n", "x.yaml:1: 'foo' cannot be read as int"),
        ("a: !!bool foo\n", "x.yaml:1: 'foo' cannot be read as bool"),
    ],
)
def test_unsupported_yaml_is_refused_with_its_line(text, sentence):
    assert problems(text) == [sentence]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1:59:59", "1:59:59"),
        ("1:30.5", "1:30.5"),
        ("010", 10),
        ("-007", -7),
        ("0o17", 15),
        ("0x1F", 31),
        ("0b101", "0b101"),
        ("1_000", "1_000"),
        ("1e3", 1000.0),
        ("+.5", 0.5),
        ("2.", 2.0),
        (".inf", math.inf),
        ("-.INF", -math.inf),
        ("yes", "yes"),
        ("No", "No"),
        ("off", "off"),
        ("TRUE", True),
        ("~", None),
        ("=", "="),
        ("<<", "<<"),
        ("2020-01-02", "2020-01-02"),
        ("2020-01-02 03:04:05", "2020-01-02 03:04:05"),
    ],
)
def test_scalars_are_those_of_yaml_1_2(text, value):
    assert data(f"a: {text}\n") == {"a": value}
    assert data("a: 0\n", [f"a={text}"]) == {"a": value}
    assert safe_yaml.load(safe_yaml.dump({"a": value})) == {"a": value}
    assert safe_yaml.load(safe_yaml.dump({text: text})) == {text: text}


def test_an_endless_sexagesimal_number_is_a_text():
    text = "1" + ":59" * 300_000
    assert data(f"a: {text}\n") == {"a": text}


def test_endless_nesting_is_refused():
    assert problems("a: " + "[" * 5000) == [
        "x.yaml:1: not valid YAML: nested too deeply"
    ]


def test_an_alias_may_be_used_twice():
    assert data("a: &x {b: 1}\nc: *x\nd: [*x, *x]\n")["d"] == [{"b": 1}, {"b": 1}]


def test_keys_and_dates_are_texts():
    assert data("on: 1\n2: 3\nat: 2020-13-45\nday: 2021-05-01\n") == {
        "on": 1,
        "2": 3,
        "at": "2020-13-45",
        "day": "2021-05-01",
    }


def test_environment_variables(monkeypatch):
    monkeypatch.setenv("NV_PORT", "5556")
    monkeypatch.setenv("NV_NAME", "aviary")
    monkeypatch.setenv("NV_BAD", "[1,")
    read = data(
        "url: tcp://*:${NV_PORT}\nport: ${NV_PORT}\nboth: ${NV_NAME}-${NV_PORT}\n"
        "bad: ${NV_BAD}\nno: $NV_PORT {NV_PORT}\n"
    )
    assert read == {
        "url": "tcp://*:5556",
        "port": 5556,  # one variable alone keeps its type
        "both": "aviary-5556",
        "bad": "[1,",
        "no": "$NV_PORT {NV_PORT}",
    }


def test_an_unset_variable_is_a_mistake(monkeypatch):
    monkeypatch.delenv("NV_NONE", raising=False)
    assert problems("a: 1\nb:\n  - x\n  - y${NV_NONE}\n") == [
        "x.yaml:4: b.1: environment variable 'NV_NONE' is not set"
    ]


def test_all_mistakes_at_once(monkeypatch):
    monkeypatch.delenv("NV_NONE", raising=False)
    assert problems("a: 1\na: 2\nb: ${NV_NONE}\nc: !x y\n", ["d", "a.b=1"]) == [
        "x.yaml:2: 'a' is given twice",
        "x.yaml:3: b: environment variable 'NV_NONE' is not set",
        "x.yaml:4: 'y' cannot be read as !x",
        "--set d: expected a.b.c=value",
        "--set a.b=1: there is no 'b' to set",
    ]


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("x=3", 3),
        ("x=2.5", 2.5),
        ("x=true", True),
        ("x=null", None),
        ("x=", None),
        ("x=text", "text"),
        ("x='3'", "3"),
        ("x=[1, 2]", [1, 2]),
        ("x={a: 1}", {"a": 1}),
        ("x=[1, 2", "[1, 2"),
        ("x=a=b", "a=b"),
        ("x=tcp://127.0.0.1:5556", "tcp://127.0.0.1:5556"),
    ],
)
def test_the_type_of_an_override_is_that_of_yaml(override, value):
    assert data("x: 0\n", [override]) == {"x": value}


def test_overrides_set_list_entries_and_create_mappings():
    text = "sinks:\n  - {plugin: zmq}\n  - {plugin: journal}\n"
    overrides = ["sinks.1.options.path=a.db", "detector.options.low_hz=500"]
    located = parse_located(text, "x.yaml", overrides)
    assert located.data == {
        "sinks": [
            {"plugin": "zmq"},
            {"plugin": "journal", "options": {"path": "a.db"}},
        ],
        "detector": {"options": {"low_hz": 500}},
    }
    assert (
        located.problem(("sinks", 1, "options", "path"), "wrong")
        == "--set sinks.1.options.path=a.db: sinks.1.options.path: wrong"
    )
    # The override made the mapping, so what it lacks is the override's fault.
    assert (
        located.problem(("detector", "plugin"), "is missing")
        == "--set detector.options.low_hz=500: detector.plugin: is missing"
    )
    assert located.problem(("sinks", 0), "wrong") == "x.yaml:2: sinks.0: wrong"


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("a", "expected a.b.c=value"),
        ("=1", "expected a.b.c=value"),
        ("station={a: 1, a: 2}", "'a' is given twice"),
        ("station=\0", "it holds the control character U+0000: remove it"),
        ("a..b=1", "expected a.b.c=value"),
        ("sinks.2.plugin=x", "there is no '2' to go into"),
        ("sinks.2=x", "there is no '2' to set"),
        ("sinks.first.plugin=x", "there is no 'first' to go into"),
        ("lanes.0.name=x", "there is no 'lanes' to go into"),
        ("station.x=1", "there is no 'x' to set"),
        ("station.x.y=1", "there is no 'x' to go into"),
    ],
)
def test_overrides_without_a_target_are_refused(override, sentence):
    text = "station: s\nsinks: [{plugin: a}, {plugin: b}]\n"
    shown = override.replace("\0", "\\x00")
    assert problems(text, [override]) == [f"--set {shown}: {sentence}"]


ODD = st.text(alphabet="ab:-[]{}&*!<>? \n\t01#'\"|$.", max_size=40)


@given(text=st.text(max_size=80) | ODD, override=st.text(max_size=20))
def test_any_text_gives_data_or_a_configuration_error(text, override):
    found = ["x.yaml: fine"]
    try:
        parse_located(text, "x.yaml", [override])
    except ConfigError as error:
        found = error.problems
    assert all("x.yaml" in p or p.startswith("--set") for p in found)
    assert found


def test_unreadable_files_are_refused(tmp_path):
    missing, binary = tmp_path / "missing.yaml", tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(ConfigError, match=r"missing\.yaml' does not exist"):
        read_located(missing)
    with pytest.raises(ConfigError, match=r"binary\.yaml:1: it is UTF-16: save it"):
        read_located(binary)
    binary.write_bytes(b"RIFF\x24\0\0\0WAVEfmt \x10\0\0\0\xff\xfe")
    with pytest.raises(ConfigError, match=r"is no configuration: it holds binary data"):
        read_located(binary)
    binary.write_bytes("a: 1\nb: Käfig\n".encode("latin-1"))
    with pytest.raises(
        ConfigError, match=r"binary\.yaml:2: it is not UTF-8 \(byte 0xe4"
    ):
        read_located(binary)
    with pytest.raises(ConfigError, match="is a folder: name a YAML file"):
        read_located(tmp_path)


def test_a_pipe_or_device_is_refused_and_no_wait_for_it(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(ConfigError, match=f"'{path}' is no recipe: it is a pipe"):
            read_located(path, noun="recipe")


def test_a_pipe_of_the_shell_is_read():
    read, write = os.pipe()
    os.write(write, b"a: 1\n")
    os.close(write)
    try:
        assert read_located(Path(f"/dev/fd/{read}")).data == {"a": 1}
    finally:
        os.close(read)


def test_an_override_that_is_given_twice_is_refused():
    assert problems("x: 0\n", ["x=1", "x=2"]) == ["--set x=2: 'x' is given twice"]


def test_long_overrides_are_cut_in_messages():
    (problem,) = problems("x: 0\n", [".".join("a" * 5000) + "=1"])
    assert problem.endswith("nested too deeply")
    assert len(problem) < 200
