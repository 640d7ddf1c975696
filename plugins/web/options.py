"""Options of commands that serve a page: its address, and who may open it."""

import getpass
from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from neurovocal.engine import ConfigError
from neurovocal.engine.support.credentials import remember_variable
from neurovocal.engine.support.endpoints import Address, parse_address
from neurovocal.plugins.web.access import Access, Credentials, access_problems

_MOST_SECRET_BYTES = 4096

Host: TypeAlias = Annotated[str, typer.Option(help="Address to serve at.")]
TokenFile: TypeAlias = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="File with the token that opens the page."),
]
User: TypeAlias = Annotated[
    str | None, typer.Option(help="User who may open it, with --password-file.")
]
PasswordFile: TypeAlias = Annotated[
    Path | None, typer.Option(metavar="FILE", help="File with the password.")
]
BehindProxy: TypeAlias = Annotated[
    bool, typer.Option("--behind-proxy", help="Trust X-Forwarded-* headers.")
]


def page_access(
    host: str,
    port: int,
    token_file: Path | None,
    user: str | None,
    password_file: Path | None,
    behind_proxy: bool,
) -> tuple[Address, Access]:
    """Return where a page is served, and who may open it, from a command's options.

    Raises
    ------
    ConfigError
        A file cannot be read, or others could open the page without credentials.
    """
    token = None if token_file is None else _read_secret(token_file)
    password = None if password_file is None else _read_secret(password_file)
    access = Access(Credentials(token, user, password), behind_proxy)
    place = f"[{host}]:{port}" if ":" in host.strip("[]") else f"{host}:{port}"
    if problems := list(access_problems(place, access)):
        raise ConfigError(problems)
    return parse_address(place, binds=True), access


def user_name() -> str:
    """Return the name of who runs the command; empty where it is unknown."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return ""


def _read_secret(path: Path) -> str:
    """Return the secret in a file, without the end of its line."""
    try:
        with path.open(encoding="utf-8") as file:
            secret = file.read(_MOST_SECRET_BYTES).strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise ConfigError(f"'{path}' cannot be read: {reason}") from error
    if not secret:
        raise ConfigError(f"'{path}' is empty: it must hold the secret")
    remember_variable(path.name, secret)
    return secret
