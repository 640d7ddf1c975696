"""``neurovocal review``: listen to segments, correct them, and export a dataset."""

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress

from neurovocal.engine.cli.journal_options import SinceOption, UntilOption
from neurovocal.engine.contracts.errors import EXIT_CLEAN, ConfigError
from neurovocal.engine.support.endpoints import Address
from neurovocal.engine.support.names import at_home
from neurovocal.engine.support.text import printable
from neurovocal.models.data.formats.segments import AnnotationChoice
from neurovocal.models.review.folder import read_folder
from neurovocal.models.review.options import (
    RunOption,
    StreamOption,
    journal_selection,
)
from neurovocal.plugins.review.audio import RecordingAudio
from neurovocal.plugins.review.export import (
    CONTEXT_S,
    Exported,
    Format,
    export_dataset,
)
from neurovocal.plugins.review.journal import read_journal
from neurovocal.plugins.review.segments import Collection
from neurovocal.plugins.review.server import ReviewPage, export_folder, stamp_of
from neurovocal.plugins.review.session import ReviewSession
from neurovocal.plugins.review.store import ReviewStore, review_path
from neurovocal.plugins.sources.audio_files.file import SUFFIXES
from neurovocal.plugins.web.access import Access
from neurovocal.plugins.web.options import (
    BehindProxy,
    Host,
    PasswordFile,
    TokenFile,
    User,
    page_access,
    user_name,
)
from neurovocal.plugins.web.serving import serve_until_stopped, start_page

_PORT = 8421
_MOST_NOTES = 12


def review(
    reviewed: Annotated[
        Path,
        typer.Argument(
            metavar="JOURNAL|FOLDER",
            help="Journal of a run; or a folder: dataset, recordings with a table of "
            "`label` or `detect`, clips, or recordings alone.",
        ),
    ],
    labels: Annotated[
        Path | None,
        typer.Option(metavar="TABLE", help="Table of `label` or `detect` to read."),
    ] = None,
    annotations: Annotated[
        str | None,
        typer.Option(
            metavar="F",
            help="Format of the folder's annotations, as `train --format`; default: "
            "seen from the files.",
        ),
    ] = None,
    label_column: Annotated[
        str | None, typer.Option("--label-column", metavar="NAME", help="Of labels.")
    ] = None,
    tier: Annotated[
        str | None, typer.Option(metavar="NAME", help="Interval tier of TextGrids.")
    ] = None,
    run: RunOption = None,
    stream: StreamOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    events: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Where changes are kept; default: NAME.review.sqlite beside it.",
        ),
    ] = None,
    author: Annotated[
        str | None, typer.Option(metavar="NAME", help="Who reviews; default: you.")
    ] = None,
    export: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Write what is reviewed as a dataset, and end."
        ),
    ] = None,
    form: Annotated[
        Format, typer.Option("--format", help="Form of the exported tables.")
    ] = "csv",
    everything: Annotated[
        bool,
        typer.Option(
            "--all", help="Export whole recordings, with what nobody has reviewed."
        ),
    ] = False,
    context_s: Annotated[
        float,
        typer.Option(
            "--context",
            metavar="S",
            min=0.0,
            max=60.0,
            help="Seconds exported before and after a reviewed segment.",
        ),
    ] = CONTEXT_S,
    host: Host = "127.0.0.1",
    port: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=65535,
            help=f"Port; 0: any that is free. Default: {_PORT}, or the next free one.",
        ),
    ] = None,
    token_file: TokenFile = None,
    user: User = None,
    password_file: PasswordFile = None,
    behind_proxy: BehindProxy = False,
) -> None:
    """Listen to segments, relabel and correct them on a page, export a dataset.

    Nothing of the journal, the annotations or the recordings is ever changed:
    changes are events in a file of their own. `neurovocal train DIR` reads what
    --export DIR writes. Ctrl-C ends the page; the next time it goes on.
    """
    reviewed = at_home(reviewed)
    selection = journal_selection(reviewed, run, stream, since, until)
    choice = AnnotationChoice(label_column, tier)

    def read() -> Collection:
        if selection is not None:
            return read_journal(reviewed, selection)
        return _read_files(reviewed, annotations, choice, labels)

    options = {"--labels": labels, "--annotations": annotations}
    given = [name for name, value in options.items() if value is not None]
    if selection is not None and given:
        raise ConfigError(f"{given[0]} is for folders, and '{reviewed}' is a journal")
    number = _PORT if port is None else port
    address, access = page_access(
        host, number, token_file, user, password_file, behind_proxy
    )
    collection = read()
    for note in collection.notes[:_MOST_NOTES]:
        _tell(f"note: {note}")
    if len(collection.notes) > _MOST_NOTES:
        _tell(f"note: and {len(collection.notes) - _MOST_NOTES} more")
    is_table = selection is None and not reviewed.is_dir()
    # A table belongs to its folder: both names lead to one review.
    place = reviewed.absolute().parent if is_table else reviewed
    store = ReviewStore(events or review_path(place))
    session = ReviewSession(collection, store)
    try:
        if export is not None:
            _export(session, at_home(export), form, context_s, everything)
            return
        page = ReviewPage(
            lambda: session,
            export_folder(place),
            reload=read,
            stamp=lambda: stamp_of(reviewed, labels),
            author=author or user_name(),
        )
        _serve(page, access, address, fixed=port is not None)
    finally:
        store.close()
    raise typer.Exit(EXIT_CLEAN)


def _read_files(
    path: Path,
    annotations: str | None,
    choice: AnnotationChoice,
    labels: Path | None,
) -> Collection:
    """Read a folder, or a table of `label` or `detect` and the folder around it."""
    if path.is_dir():
        return read_folder(path, annotations, choice, labels)
    if path.suffix.casefold() in SUFFIXES:
        raise ConfigError(f"'{path}' is a recording: name its folder")
    return read_folder(path.absolute().parent, annotations, choice, path)


def _export(
    session: ReviewSession,
    folder: Path,
    form: Format,
    context_s: float,
    everything: bool,
) -> None:
    audio = RecordingAudio()
    bar = Progress(
        console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()
    )
    try:
        with bar:
            task = bar.add_task("exporting", total=1.0)
            done = export_dataset(
                session,
                audio,
                folder,
                form,
                context_s,
                everything=everything,
                watch=lambda share: bar.update(task, completed=share),
            )
    finally:
        audio.close()
    _report(done, form)


def _report(done: Exported, form: Format) -> None:
    for note in done.notes:
        _tell(f"note: {note}")
    units = ", ".join(f"{unit} {n}" for unit, n in sorted(done.units.items()))
    files = "1 file" if done.files == 1 else f"{done.files} files"
    segments = "1 segment" if done.segments == 1 else f"{done.segments} segments"
    _tell(
        f"wrote {segments} ({units}) in {files} with "
        f"{done.seconds:.1f} s of audio to '{done.folder}'"
    )
    how = "" if form == "csv" else f" --format {form}"
    _tell(f"now: neurovocal train {done.folder}{how} --out BUNDLE")


def _serve(page: ReviewPage, access: Access, address: Address, *, fixed: bool) -> None:
    """Serve the page until Ctrl-C."""

    def announce() -> None:
        reviewed, total = page.session.progress()
        _tell(f"{reviewed} of {total} segments reviewed")
        typer.echo(f"review: {server.url} (open it in a browser)")
        _tell("Ctrl-C ends it")

    server = start_page(lambda: page.routes(at_root=True), access, address, fixed=fixed)
    try:
        serve_until_stopped(server, announce)
    finally:
        page.audio.close()
    reviewed, total = page.session.progress()
    _tell(f"{reviewed} of {total} segments reviewed; `--export DIR` writes a dataset")


def _tell(sentence: str) -> None:
    typer.echo(printable(sentence), err=True)
