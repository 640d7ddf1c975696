"""Help texts: read without importing the commands' dependencies."""

import subprocess
import sys
from importlib.metadata import EntryPoint

import pytest
import typer

from neurovocal.engine.cli.app import (
    COMMANDS_GROUP,
    build_app,
    command_points,
    load_command,
    read_summary,
)
from neurovocal.engine.contracts.types import KINDS

# Each costs more than printing the help itself.
HEAVY = {
    *("msgspec", "numpy", "onnxruntime", "pydantic", "rich", "scipy", "sounddevice"),
    *("soundfile", "soxr", "torch", "yaml", "zmq"),
    "neurovocal.engine.config",
    "neurovocal.engine.contracts.types",
    "neurovocal.engine.runtime",
    "neurovocal.models.commands.evaluate",
    "neurovocal.models.commands.train",
    "neurovocal.plugins.zeromq.relay.command",
}


def modules_after(*arguments):
    """Return the modules that are loaded when `neurovocal ARGUMENTS` has ended."""
    code = f"""
import atexit, sys
atexit.register(lambda: print(*sys.modules, file=sys.stderr))
from neurovocal.engine.cli import main
main({list(arguments)!r})
"""
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    )
    assert done.stdout.startswith("Usage: neurovocal")
    return set(done.stderr.split())


def commands_in(modules):
    package = "neurovocal.engine.cli.commands."
    return {name.removeprefix(package) for name in modules if name.startswith(package)}


def test_the_list_of_commands_imports_no_command_and_no_heavy_module():
    loaded = modules_after("--help")
    assert loaded & HEAVY == set()
    assert commands_in(loaded) == set()


def test_the_help_of_a_command_imports_its_own_module_alone():
    assert commands_in(modules_after("keys", "--help")) == {"keys"}


@pytest.mark.parametrize("name", command_points())
def test_a_listed_summary_is_that_of_the_command_s_own_help(name):
    group = typer.main.get_command(build_app())
    group.read_summaries()
    listed = group.commands[name]
    command = load_command(command_points()[name])
    assert listed.help == command.help
    assert listed.get_short_help_str() == command.get_short_help_str()


@pytest.mark.parametrize("target", ["no_such_module:f", "json:no_such_name", "sys:f"])
def test_a_command_that_cannot_be_read_has_no_summary(target):
    assert read_summary(EntryPoint("broken", target, COMMANDS_GROUP)) is None


def test_listen_names_every_kind():
    text = read_summary(command_points()["listen"]) or ""
    listed = text.partition("Kinds:")[2].partition(".")[0].replace("\n", " ")
    assert {kind.strip() for kind in listed.split(",")} == {*KINDS.values()}
