"""The tree of commands and options of the command line, as the program has it."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import typer.main

from neurovocal.engine.cli.app import build_app, command_points, load_command


@dataclass
class Command:
    """A command with its options and the commands under it.

    Attributes
    ----------
    name : str
        As it is typed: ``bundle check``.
    click : Any
        The command of the command-line library.
    options : dict of str to bool
        Every spelling of every option: whether it takes a value.
    under : dict of str to Command
        Commands under it, by their last word.
    """

    name: str
    click: Any
    options: dict[str, bool] = field(default_factory=dict)
    under: dict[str, "Command"] = field(default_factory=dict)

    def all(self) -> Iterator["Command"]:
        """Yield the command and all under it."""
        yield self
        for each in self.under.values():
            yield from each.all()


def command_tree() -> Command:
    """Return the whole command line."""
    root = _command("", typer.main.get_command(build_app()))
    root.under = {
        name: _command(name, load_command(point))
        for name, point in command_points().items()
    }
    return root


def _command(name: str, click: Any) -> Command:
    options = {"--help": False, "-h": False}
    for each in click.params:
        if each.param_type_name == "option":
            for spelling in (*each.opts, *each.secondary_opts):
                options[spelling] = not (each.is_flag or each.count)
    under = {
        part: _command(f"{name} {part}".strip(), command)
        for part, command in getattr(click, "commands", {}).items()
        if name
    }
    return Command(name, click, options, under)
