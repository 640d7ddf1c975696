"""``neurovocal summary``: count what a journal holds, by hour or day."""

import json
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, tzinfo
from pathlib import Path
from typing import Annotated, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import typer
from rich.console import Console

from neurovocal.engine import ConfigError
from neurovocal.engine.cli.journal_options import (
    HeardOption,
    SinceOption,
    StreamOption,
    UntilOption,
    note_left_out,
    selection_of,
)
from neurovocal.engine.config.claims import refuse_overlap
from neurovocal.engine.journal import summarize
from neurovocal.engine.support.names import at_home
from neurovocal.engine.support.outputs import write_whole
from neurovocal.engine.support.text import printable
from neurovocal.plugins.pictures import require_matplotlib
from neurovocal.plugins.storage.existing import FileKind, text_kind
from neurovocal.plugins.storage.text_file import output_problems
from neurovocal.plugins.summary.picture import TITLE, draw_summary
from neurovocal.plugins.summary.tables import csv_text, table_text

_STDOUT = "-"
# Of the names of a journal's files: SQLite keeps two beside it.
_ENDS = ("", "-wal", "-shm")
_FILE_WIDTH = 100
_KINDS = {
    "table": text_kind("a summary of this kind", "Summary of .*"),
    "csv": text_kind("a summary of this kind", "start,heard_s,.*"),
    "json": text_kind("a summary of this kind", r'\{"by": "(hour|day)",.*'),
}
_PICTURE = FileKind(
    "a summary's picture",
    lambda head: head.startswith(b"\x89PNG") and TITLE.encode() in head,
)


def summary(
    journal: Annotated[Path, typer.Argument(help="Journal; it may be in use.")],
    by: Annotated[
        Literal["hour", "day"], typer.Option(help="Length of the counted periods.")
    ] = "hour",
    timezone: Annotated[
        str,
        typer.Option(metavar="NAME", help="Of hours and days, such as Europe/Berlin."),
    ] = "UTC",
    form: Annotated[
        Literal["table", "csv", "json"],
        typer.Option("--format", help="Form of what is written."),
    ] = "table",
    out: Annotated[
        str, typer.Option("--out", "-o", metavar="F", help="File; '-' is stdout.")
    ] = _STDOUT,
    picture: Annotated[
        Path | None, typer.Option(metavar="F", help="PNG of the same, too.")
    ] = None,
    run: Annotated[
        list[str] | None,
        typer.Option(help="Name of a run; may be repeated. Default: all."),
    ] = None,
    stream: StreamOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    heard: HeardOption = "last",
) -> None:
    """Count what a journal holds: hours heard, labels per unit, outages.

    By hour or day: seconds heard and lost, segments, those without a label, near
    misses, final labels of each unit; then the activity over the 24 hours of the day
    and every outage of a second and more.
    """
    zone = _zone(timezone)
    if picture is not None:
        require_matplotlib("--picture")
    _check_outputs(journal, form, out, picture)
    selection = selection_of(journal, run, stream, since, until)
    selection = replace(selection, heard=heard)
    note_left_out(journal, selection)
    with _telling(journal):
        counted = summarize(journal, selection, by=by, timezone=zone)
    if form == "table":
        width = _FILE_WIDTH if out != _STDOUT else shutil.get_terminal_size().columns
        text = table_text(counted, journal.name, width)
    elif form == "csv":
        text = csv_text(counted)
    else:
        text = json.dumps(counted.as_dict(), ensure_ascii=False) + "\n"
    if out == _STDOUT:
        sys.stdout.write(text)
    else:
        _write(out, text.encode())
    if picture is not None:
        _write(str(picture), draw_summary(counted, journal.name))
    if not counted.periods:
        typer.echo("note: nothing was heard of what was asked for", err=True)


def _zone(name: str) -> tzinfo:
    if name.upper() in ("UTC", "Z"):
        return UTC
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ConfigError(
            f"--timezone: '{name}' is not known here: write UTC, or a name such as "
            "Europe/Berlin (the names come with the system's package tzdata)"
        ) from error


def _check_outputs(journal: Path, form: str, out: str, picture: Path | None) -> None:
    """Refuse outputs that cannot be written, or would replace a file of a user."""
    problems = list(output_problems(out, _KINDS[form]))
    written = [] if out == _STDOUT else [Path(out)]
    if picture is not None:
        if picture.suffix.lower() != ".png":
            problems.append(
                f"--picture: a picture is a PNG, not '{picture}': end in .png"
            )
        problems += output_problems(str(picture), _PICTURE)
        written.append(picture)
    if len(written) == 2 and written[0].absolute() == written[1].absolute():
        problems.append(f"--out and --picture would both write '{out}'")
    if problems:
        raise ConfigError(problems)
    beside = [Path(f"{journal}{end}") for end in _ENDS]
    refuse_overlap("output", {"journal": beside}, written)


@contextmanager
def _telling(journal: Path) -> Iterator[None]:
    """Show on a terminal that a large journal is being read."""
    if not sys.stderr.isatty():
        yield
        return
    name = printable(journal.name)
    with Console(stderr=True).status(f"reading {name}", spinner="line"):
        yield


def _write(path: str, content: bytes) -> None:
    try:
        write_whole(at_home(path), content)
    except OSError as error:
        raise ConfigError(f"'{path}' cannot be written: {error.strerror}") from error
    typer.echo(printable(f"wrote '{path}'"), err=True)
