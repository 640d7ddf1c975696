"""Options of the commands that read a journal: which of its events they take."""

from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal

import typer

from neurovocal.engine.contracts.errors import ConfigError
from neurovocal.engine.journal.reader import (
    Selection,
    count_incomplete_recordings,
    streams_of,
)
from neurovocal.engine.journal.store import runs, without_runs
from neurovocal.engine.support.text import did_you_mean

StreamOption = Annotated[
    list[str] | None, typer.Option(help="Name of a stream; may be repeated.")
]
SinceOption = Annotated[
    str | None,
    typer.Option(metavar="UTC", help="From this time on: 2026-05-01T04:00Z."),
]
UntilOption = Annotated[
    str | None, typer.Option(metavar="UTC", help="Before this time.")
]
HeardOption = Annotated[
    Literal["last", "all"],
    typer.Option(
        help="Recordings that were heard again after a kill or stop: 'last' "
        "leaves the earlier hearing out, 'all' keeps both."
    ),
]


def selection_of(
    journal: Path,
    names: list[str] | None,
    streams: list[str] | None,
    since: str | None,
    until: str | None,
) -> Selection:
    """Return the selection of events of all kinds that options name.

    Parameters
    ----------
    journal : Path
        The journal, which has to hold what is named.
    names, streams : list of str, optional
        Runs and streams; None or an empty list means all.
    since, until : str, optional
        Times with a time zone, ISO 8601.

    Raises
    ------
    ConfigError
        The journal cannot be read, or has no such run or stream; a time is none.
    """
    known = [record.run for record in runs(journal)]
    if not known:
        raise without_runs(journal)
    if unknown := sorted(set(names or ()) - set(known)):
        raise ConfigError(
            f"journal '{journal}' has no run '{unknown[0]}' "
            f"(it has: {', '.join(known)})"
        )
    there = streams_of(journal, names) if streams else []
    for stream in streams or ():
        if stream not in there:
            meant = did_you_mean(stream, there, "it has:")
            raise ConfigError(f"journal '{journal}' has no stream '{stream}' ({meant})")
    return Selection(
        runs=tuple(names) if names else None,
        streams=tuple(streams) if streams else None,
        since_ns=_utc_ns(since, "--since"),
        until_ns=_utc_ns(until, "--until"),
    )


def note_left_out(journal: Path, selection: Selection) -> None:
    """Print how many incomplete hearings the selection leaves out, if it does."""
    if selection.heard == "all":
        return
    number = count_incomplete_recordings(journal, selection)
    if number:
        typer.echo(
            f"note: {number} hearing{'s' * (number > 1)} that a kill or stop cut short "
            "left out: the recording was heard again (--heard all keeps both)",
            err=True,
        )


def _utc_ns(text: str | None, option: str) -> int | None:
    if text is None:
        return None
    try:
        when = datetime.fromisoformat(text)
    except ValueError as error:
        raise ConfigError(
            f"{option}: '{text}' is no time such as 2026-05-01T04:00Z"
        ) from error
    if when.tzinfo is None:
        raise ConfigError(
            f"{option}: '{text}' has no time zone: write {when:%Y-%m-%dT%H:%M}Z for "
            f"UTC, or {when:%Y-%m-%dT%H:%M}+02:00"
        )
    return round(when.timestamp() * 1_000_000) * 1000
