"""Dockerfile, compose file and conda recipe agree with the project."""

import fnmatch
import json
import re
import shutil
import subprocess
import sys
import tomllib

import pytest
import yaml
from repository import ROOT

from neurovocal.engine.config.schema import find_config

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
HATCH = PROJECT["tool"]["hatch"]["build"]["targets"]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text())
RECIPE = yaml.safe_load((ROOT / "conda" / "recipe.yaml").read_text())
# What conda-forge calls some packages.
CONDA_NAMES = {
    "soundfile": "pysoundfile",
    "soxr": "soxr-python",
    "sounddevice": "python-sounddevice",
}


def instructions(name):
    """The arguments of each instruction of a name, continued lines joined."""
    joined = re.sub(r"\\\n", " ", re.sub(r"^#.*\n", "", DOCKERFILE, flags=re.M))
    return re.findall(rf"^{name}\s+(.*)$", joined, re.M)


def test_the_context_has_all_that_the_wheel_needs_and_no_recordings_of_others():
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    assert lines[0] == "*", "what is not named stays outside"
    let_in = {line[1:] for line in lines if line.startswith("!")}
    needed = {*HATCH["wheel"]["only-include"], *HATCH["sdist"]["only-include"]}
    needed |= {*PROJECT["project"]["license-files"], PROJECT["project"]["readme"]}
    assert let_in == needed | {"pyproject.toml", "constraints.txt"}
    assert all((ROOT / name).exists() for name in let_in)


def test_the_image_is_small_and_not_root():
    stages = instructions("FROM")
    assert [stage.split()[-3 if " AS " in stage else -1] for stage in stages] == [
        "python:3.13-slim",
        "python:3.13-slim",
    ]
    assert "3.13" in "".join(PROJECT["project"]["classifiers"])
    (user,) = instructions("USER")
    assert int(user) > 0
    assert f"useradd --uid {user} --groups audio" in DOCKERFILE
    after = DOCKERFILE[DOCKERFILE.index("\nUSER") :]
    assert "\nRUN" not in after
    assert "--no-cache-dir" in DOCKERFILE


def test_the_extras_exist():
    (extras,) = re.findall(r'^ARG EXTRAS="(.*)"', DOCKERFILE, re.M)
    assert set(extras.split(",")) <= set(PROJECT["project"]["optional-dependencies"])


def test_the_entry_point_and_its_command_run(tmp_path):
    (entry,) = map(json.loads, instructions("ENTRYPOINT"))
    (command,) = map(json.loads, instructions("CMD"))
    assert entry == list(PROJECT["project"]["scripts"])
    assert command == ["demo", "--plain"]
    (health,) = re.findall(r"CMD (\[.*\])$", instructions("HEALTHCHECK")[0])
    check = json.loads(health)
    assert check[0] == entry[0]
    code = "from neurovocal.engine.cli import main; main()"

    def start(*arguments):
        return subprocess.Popen(
            [sys.executable, "-c", code, *arguments],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    # The demo's engine at a port of its own, for as long as the check needs it.
    quiet = ("--set", "sinks.1.options.endpoint=127.0.0.1:0")
    own = ("--set", "sinks.0.options.endpoint=tcp://127.0.0.1:*")
    with start(*command, *quiet, *own) as engine:
        try:
            line = next(line for line in engine.stderr if "is bound at" in line)
            endpoint = line.split()[-1]
            with start(check[1], endpoint, *check[2:]) as healthy:
                assert healthy.wait() == 0, healthy.stderr.read()
        finally:
            engine.terminate()
            engine.communicate()
    short = ["0.2" if part == "10" else part for part in check[2:]]
    with start(check[1], endpoint, *short) as ill:
        assert ill.wait() != 0, "an engine that is gone is not healthy"


def test_the_compose_file_runs_a_configuration_that_ships():
    (service,) = COMPOSE["services"].values()
    command = service["command"]
    assert command[0] == "run"
    text = (ROOT / "compose.yaml").read_text()
    assert f"cp configs/field.yaml station/{command[1]}" in text
    assert find_config("field").is_file()
    assert service["volumes"] == ["./station:/data"]
    assert instructions("VOLUME") == instructions("WORKDIR")[-1:] == ["/data"]
    assert service["cap_drop"] == ["ALL"]
    assert service["read_only"] is True
    assert "ports" not in service, "nothing listens on the network unasked"


@pytest.mark.skipif(not shutil.which("hadolint"), reason="needs hadolint")
def test_hadolint_finds_nothing():
    subprocess.run(["hadolint", ROOT / "Dockerfile"], check=True)


def test_the_conda_recipe_agrees_with_the_project():
    project = PROJECT["project"]
    assert RECIPE["context"]["version"] == project["version"]
    assert RECIPE["package"]["name"] == project["name"]
    assert RECIPE["about"]["license"] == project["license"]
    assert RECIPE["about"]["license_file"] == project["license-files"]
    (point,) = RECIPE["build"]["python"]["entry_points"]
    assert dict([point.split(" = ")]) == project["scripts"]
    python = f"python {project['requires-python']}"
    needs = RECIPE["requirements"]
    build = [re.sub("(>=)", r" \1", r) for r in PROJECT["build-system"]["requires"]]
    assert needs["host"] == [python, "pip", *build]
    expected = [python]
    for requirement in project["dependencies"]:
        name, limit = re.fullmatch(r"([\w-]+)(.*)", requirement).groups()
        expected.append(f"{CONDA_NAMES.get(name, name)} {limit}")
    assert needs["run"] == expected


def test_the_context_ignores_what_is_made():
    patterns = [
        line
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line.startswith("**/")
    ]
    made = ("engine/__pycache__", "examples/node_modules")
    for path in made:
        name = path.split("/")[-1]
        assert any(fnmatch.fnmatch(name, p.removeprefix("**/")) for p in patterns)
