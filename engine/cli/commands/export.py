"""``neurovocal export``: write a journal's events as tables for other programs."""

import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from shutil import copyfile
from tempfile import TemporaryDirectory
from typing import Annotated, Any, Literal

import typer
from rich.console import Console
from rich.progress import Progress

from neurovocal.engine.cli.journal_options import (
    HeardOption,
    SinceOption,
    StreamOption,
    UntilOption,
    note_left_out,
    selection_of,
)
from neurovocal.engine.cli.session import (
    SafeCsvOption,
    refuse_tracks_on_stdout,
    require_csv,
)
from neurovocal.engine.config.claims import refuse_overlap
from neurovocal.engine.contracts.abilities import RunAware
from neurovocal.engine.contracts.clock import SystemClock
from neurovocal.engine.contracts.errors import ConfigError, StageError
from neurovocal.engine.contracts.options import Options
from neurovocal.engine.contracts.plugin import BuildContext, Plugin
from neurovocal.engine.contracts.registry import Registry
from neurovocal.engine.contracts.stages import Sink
from neurovocal.engine.contracts.types import KINDS, Label
from neurovocal.engine.journal.reader import (
    Selection,
    count_messages,
    read_messages,
    streams_of,
)
from neurovocal.engine.journal.store import runs
from neurovocal.engine.support.names import at_home, resolved
from neurovocal.engine.support.text import printable

ExportFormat = Literal["csv", "parquet", "jsonl", "raven", "audacity"]
# Formats without a column for the run: they hold one run only.
_ONE_RUN = ("raven", "audacity", "jsonl")
_STDOUT = "-"
# Of the names of a journal's files: SQLite keeps two beside it.
_ENDS = ("", "-wal", "-shm")


def export(
    journal: Annotated[Path, typer.Argument(help="Journal; it may be in use.")],
    form: Annotated[
        ExportFormat, typer.Option("--format", help="Form of what is written.")
    ] = "csv",
    out: Annotated[
        str, typer.Option("--out", "-o", metavar="F", help="File; '-' is stdout.")
    ] = _STDOUT,
    run: Annotated[
        list[str] | None,
        typer.Option(
            help="Name of a run; may be repeated. Default: all runs (csv, parquet), "
            "or the newest (the others)."
        ),
    ] = None,
    stream: StreamOption = None,
    kinds: Annotated[
        str, typer.Option(help="Kinds of events, such as 'label,gap'; or 'all'.")
    ] = "label",
    since: SinceOption = None,
    until: UntilOption = None,
    provisional: Annotated[
        bool, typer.Option("--provisional", help="Labels that were not final, too.")
    ] = False,
    heard: HeardOption = "last",
    safe_csv: SafeCsvOption = False,
) -> None:
    """Write a journal's events as CSV, Parquet, JSON lines, Raven or Audacity.

    CSV and Parquet have a column for every field and the time of day; Raven and
    Audacity tables hold final labels, in seconds from the start of their stream,
    and `neurovocal train --format raven` or `audacity` reads them.
    """
    if safe_csv:
        require_csv(form)
    selection = _selection(journal, form, run, stream, kinds, since, until)
    selection = replace(selection, heard=heard)
    note_left_out(journal, selection)
    number = count_messages(journal, selection)
    rows = 0
    refuse_overlap(
        "--out", {"journal": [Path(f"{journal}{end}") for end in _ENDS]}, [Path(out)]
    )

    apart = form == "audacity" and _holds_several(journal, selection)
    if apart and out == _STDOUT:
        refuse_tracks_on_stdout()

    def problems(path: str) -> list[str]:
        plugin, options, context = _sink_parts(form, path, selection, safe_csv)
        return list(plugin.check(options, context))

    with _temporary_output(out, problems) as path:
        # Pipes and devices, which are written to directly, have nothing beside them.
        sink = _sink(form, path, selection, safe_csv, apart and path != out)
        sink.open()
        with closing(sink), _bar(number) as advance:
            for name, message in read_messages(journal, selection):
                event = message.event
                final = not isinstance(event, Label) or event.status == "final"
                if final or provisional:
                    if isinstance(sink, RunAware):
                        sink.run = name
                    sink.write(message)
                    rows += 1
                advance()
    if out != _STDOUT:
        name = "a track for each recording" if apart else f"'{out}'"
        typer.echo(printable(f"wrote {rows} events to {name}"), err=True)
    if not rows:
        typer.echo(_nothing(journal, selection), err=True)


def _nothing(journal: Path, selection: Selection) -> str:
    """Return a note that no event was chosen, and which segments there are instead."""
    note = "note: no event of the journal is what was asked for"
    others = replace(selection, kinds=("offset",))
    if selection.kinds != ("label",) or not (n := count_messages(journal, others)):
        return note
    count = f"{n} segment{'s' if n != 1 else ''}"
    return f"{note}: no label, but {count} (--format csv --kinds offset)"


def _selection(
    journal: Path,
    form: ExportFormat,
    names: list[str] | None,
    streams: list[str] | None,
    kinds: str,
    since: str | None,
    until: str | None,
) -> Selection:
    chosen = selection_of(journal, names, streams, since, until)
    known = [record.run for record in runs(journal)]
    if not names and form in _ONE_RUN:
        chosen = replace(chosen, runs=tuple(known[-1:]))
        if len(known) > 1:
            typer.echo(
                f"note: run {known[-1]}, the newest of {len(known)} (choose by --run)",
                err=True,
            )
    return replace(chosen, kinds=_kinds(kinds, form))


def _kinds(text: str, form: ExportFormat) -> tuple[str, ...]:
    known = sorted(KINDS.values())
    if form in ("raven", "audacity") and text != "label":
        raise ConfigError(f"--format {form} holds labels: leave out --kinds")
    if text == "all":
        return tuple(known)
    kinds = tuple(part.strip() for part in text.split(","))
    for kind in kinds:
        if kind not in known:
            raise ConfigError(
                f"--kinds: '{kind}' is none (there are: {', '.join(known)})"
            )
    return kinds


def _holds_several(journal: Path, selection: Selection) -> bool:
    """Return True if the labels are of several streams."""
    streams = streams_of(journal, selection.runs)
    return len({*streams} & {*(selection.streams or streams)}) > 1


def _sink(
    form: ExportFormat,
    path: str,
    selection: Selection,
    safe_csv: bool,
    apart: bool,
) -> Sink:
    plugin, options, context = _sink_parts(form, path, selection, safe_csv, apart)
    if problems := list(plugin.check(options, context)):
        raise ConfigError(problems)
    sink: Sink = plugin.build(options, context)
    return sink


def _sink_parts(
    form: ExportFormat,
    path: str,
    selection: Selection,
    safe_csv: bool,
    apart: bool = False,
) -> tuple[Plugin[Any], Options, BuildContext]:
    """Return the plugin of a format, its options and the context to build it in."""
    options: dict[str, object] = {"path": path}
    name = "jsonl"
    if form in ("csv", "parquet"):
        name = "columns"
        options |= {"format": form, "kinds": list(selection.kinds or ())}
        options |= {"safe_csv": safe_csv}
    elif form != "jsonl":
        name = "table"
        options |= {"format": form, "content": "labels", "apart": apart}
    plugin = Registry().get("sink", name)
    checked = plugin.options.model_validate(options)
    return plugin, checked, BuildContext(clock=SystemClock(), run="")


@contextmanager
def _temporary_output(out: str, problems: Callable[[str], list[str]]) -> Iterator[str]:
    """Yield a path to write to; a finished file takes the name of `out`.

    Pipes and devices are written to, links are followed.

    Parameters
    ----------
    out : str
        Name of the file; ``-`` is standard output.
    problems : callable
        ``problems(path)`` returns why a file may not be written.
    """
    if out == _STDOUT:
        yield out
        return
    if found := problems(out):
        raise ConfigError(found)
    target = resolved(at_home(out))
    if target.exists() and not target.is_file():
        yield out
        return
    try:
        # A folder, since a sink may write files beside its own.
        with TemporaryDirectory(prefix=".neurovocal-", dir=target.parent) as folder:
            partial = Path(folder) / target.name
            try:
                yield str(partial)
            except StageError as error:
                raise StageError(str(error).replace(str(partial), out)) from error
            written = sorted(Path(folder).iterdir())
            beside = [path for path in written if path != partial]
            for path in beside:
                if found := problems(str(target.parent / path.name)):
                    raise ConfigError(found)
            for path in written:
                _put(path, target.parent / path.name)
    except OSError as error:
        raise ConfigError(f"'{out}' cannot be written: {error.strerror}") from error
    for path in beside:
        typer.echo(printable(f"wrote '{target.parent / path.name}'"), err=True)


def _put(path: Path, target: Path) -> None:
    """Rename a file to `target`; a target of several names gets its content."""
    if target.exists() and target.stat().st_nlink > 1:
        copyfile(path, target)
    else:
        path.replace(target)


@contextmanager
def _bar(number: int) -> Iterator[Callable[[], None]]:
    bar = Progress(
        console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()
    )
    task = bar.add_task("exporting", total=number)
    with bar:
        yield lambda: bar.advance(task)
