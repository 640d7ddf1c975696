"""``neurovocal keys``: keys of engines and clients, and the clients' roles."""

from pathlib import Path
from typing import Annotated

import typer

from neurovocal.engine.contracts.errors import ConfigError
from neurovocal.engine.wire.keys import (
    add_client,
    clients,
    key_problems,
    make_engine_keys,
    remove_client,
)

keys_app = typer.Typer(
    no_args_is_help=True, help="Make keys, and list or change the admitted clients."
)

Folder = Annotated[Path, typer.Argument(help="Folder of the engine's keys.")]


@keys_app.command()
def new(folder: Folder) -> None:
    """Make an engine's keys; its configuration then says `keys: FOLDER`."""
    make_engine_keys(folder)
    typer.echo(f"{folder}: made; configuration: 'keys: {folder.absolute()}'")
    typer.echo(f"add a client: neurovocal keys add {folder} NAME")


@keys_app.command()
def add(
    folder: Folder,
    name: Annotated[str, typer.Argument(help="Name of the client.")],
    control: Annotated[
        bool, typer.Option("--control", help="May steer the engine as well.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", metavar="DIR", help="The client's keys; default: NAME."
        ),
    ] = None,
) -> None:
    """Make a client's keys and admit it; a running engine needs no restart.

    Hand the folder that is made to the client over a channel that you trust.
    """
    target = out or Path(name)
    add_client(folder, name, "control" if control else "read", target)
    what = "listen and steer" if control else "listen"
    typer.echo(f"{target}: the keys of {name}, who may {what}")
    typer.echo(f"use them: neurovocal listen --keys {target}")


@keys_app.command()
def remove(
    folder: Folder,
    name: Annotated[str, typer.Argument(help="Name of the client.")],
) -> None:
    """Let a client in no more. Connections that it has stay until they end."""
    remove_client(folder, name)
    typer.echo(f"{name} is no longer admitted")


@keys_app.command("list")
def list_(folder: Folder) -> None:
    """List the admitted clients and their permissions."""
    problems = key_problems(folder)
    if problems:
        raise ConfigError(problems)
    for name, role in clients(folder):
        typer.echo(f"{name}\t{'listen, steer' if role == 'control' else 'listen'}")
