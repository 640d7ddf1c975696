"""Options of `review` and `search`: a journal and what is read of it, or a folder."""

from pathlib import Path
from typing import Annotated

import typer

from neurovocal.engine.cli.journal_options import selection_of
from neurovocal.engine.contracts.errors import ConfigError
from neurovocal.engine.journal.reader import Selection

_SQLITE = b"SQLite format 3\0"

RunOption = Annotated[
    list[str] | None,
    typer.Option(help="Run of the journal; may be repeated. Default: all."),
]
StreamOption = Annotated[
    list[str] | None, typer.Option(help="Stream of the journal; may be repeated.")
]


def journal_selection(
    path: Path,
    names: list[str] | None,
    streams: list[str] | None,
    since: str | None,
    until: str | None,
) -> Selection | None:
    """Return what is read of a journal; None: `path` is no journal.

    Parameters
    ----------
    path : Path
        Journal, or folder or file of recordings.
    names, streams, since, until : optional
        Options of the command, which are of journals alone; see `selection_of`.

    Raises
    ------
    ConfigError
        It does not exist or cannot be read, has no such run or stream, or is no
        journal and an option is given.
    """
    if not path.exists():
        raise ConfigError(
            f"'{path}' does not exist: name a journal, or a folder of recordings"
        )
    if _is_journal(path):
        return selection_of(path, names, streams, since, until)
    asked = {"--run": names, "--stream": streams, "--since": since, "--until": until}
    if given := [name for name, value in asked.items() if value]:
        raise ConfigError(f"{given[0]} is for journals, and '{path}' is none")
    return None


def _is_journal(path: Path) -> bool:
    """Return whether a path is to be read as a journal, an empty file included."""
    if path.is_dir():
        return False
    try:
        with path.open("rb") as file:
            begin = file.read(len(_SQLITE))
    except OSError as error:
        raise ConfigError(f"'{path}' cannot be read: {error.strerror}") from error
    return begin == _SQLITE or not begin or path.suffix in (".sqlite", ".db")
