"""``neurovocal search``: find sounds by words."""

import csv
import io
import json
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress

from neurovocal.engine import NS
from neurovocal.engine.cli.journal_options import SinceOption, UntilOption
from neurovocal.engine.contracts.clock import SystemClock
from neurovocal.engine.contracts.errors import ConfigError
from neurovocal.engine.contracts.plugin import BuildContext
from neurovocal.engine.support.names import at_home
from neurovocal.engine.support.outputs import write_whole
from neurovocal.engine.support.text import printable
from neurovocal.models.review.options import (
    RunOption,
    StreamOption,
    journal_selection,
)
from neurovocal.plugins.storage.existing import text_kind
from neurovocal.plugins.storage.text_file import output_problems

if TYPE_CHECKING:
    from neurovocal.models.review.search import Match
    from neurovocal.plugins.review.segments import Collection

_STDOUT = "-"
_COLUMNS = ("similarity", "text", "recording", "onset_s", "offset_s", "label", "utc")
_TABLE = text_kind("a table of `search`", ",".join(_COLUMNS))
_MOST_NOTES = 5


def search(
    texts: Annotated[
        list[str],
        typer.Argument(
            metavar="TEXT... JOURNAL|FOLDER",
            help="What is looked for, such as 'dog bark', and last the journal of a "
            "run or a folder: clips, dataset, recordings.",
        ),
    ],
    model: Annotated[
        Path,
        typer.Option(
            "--model",
            "-m",
            metavar="MANIFEST",
            help="YAML file that describes the encoders (docs/connect/text.md).",
        ),
    ],
    most: Annotated[
        int,
        typer.Option(
            "--most", "-n", metavar="N", min=1, max=1_000_000, help="Sounds shown."
        ),
    ] = 20,
    least: Annotated[
        float,
        typer.Option(
            metavar="C", min=-1.0, max=1.0, help="Least similarity, a cosine."
        ),
    ] = -1.0,
    label: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Only sounds with this label, such as unknown; may be repeated.",
        ),
    ] = None,
    run: RunOption = None,
    stream: StreamOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    out: Annotated[
        str, typer.Option("--out", "-o", metavar="F", help="CSV file; '-' is stdout.")
    ] = _STDOUT,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an existing table.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="JSON for programs.")] = False,
) -> None:
    """Find sounds by words: the segments whose sound is most like a text.

    Needs a pair of encoders of audio and text, such as CLAP, as ONNX files of your
    own. Of recordings without segments, windows are heard. Ctrl-C stops.
    """
    if len(texts) < 2:
        raise ConfigError(
            "search needs a text and a place: "
            "neurovocal search 'dog bark' JOURNAL|FOLDER --model MANIFEST"
        )
    *wanted, last = texts
    place = at_home(last)
    _check_texts(wanted)
    if out != _STDOUT and (problems := list(_out_problems(out, overwrite))):
        raise ConfigError(problems)
    from neurovocal.models.review.search import SoundSearch, sounds_of
    from neurovocal.plugins.models.audio_text.encoders import (
        EncodesAudio,
        EncodesText,
        check_pair,
    )
    from neurovocal.plugins.models.audio_text.manifest import load_pair

    collection = _collection(place, run, stream, since, until)
    loaded = load_pair(BuildContext(SystemClock(), "search").path(model))
    encode, encode_text = EncodesAudio(loaded), EncodesText(loaded)
    check_pair(encode, encode_text, loaded)
    template = loaded.manifest.template
    vectors = {text: encode_text(template.replace("{}", text)) for text in wanted}
    sounds = list(sounds_of(collection, encode.window / encode.sample_rate))
    if label:
        sounds = [sound for sound in sounds if sound.unit in label]
    if not sounds:
        what = f" labelled {' or '.join(map(repr, label))}" if label else ""
        raise ConfigError(f"'{place}' holds no sound{what}")
    finder = SoundSearch(encode, vectors)
    bar = Progress(
        console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()
    )
    try:
        with bar:
            task = bar.add_task("listening", total=len(sounds))
            matches = finder.matches(
                sounds, lambda done: bar.update(task, completed=done)
            )
    finally:
        finder.close()
    _note_problems(finder.problems)
    if not matches:
        raise ConfigError(f"no sound of '{place}' can be heard: see above")
    shown = [match for match in matches if match.similarity >= least][:most]
    _show(shown, len(matches), out, as_json)


def _check_texts(texts: Sequence[str]) -> None:
    for text in texts:
        if not text.strip() or not text.isprintable():
            raise ConfigError(
                f"'{printable(text)}' cannot be looked for: it is empty or has "
                "control characters"
            )


def _out_problems(out: str, overwrite: bool) -> Iterator[str]:
    yield from output_problems(out, _TABLE)
    if not overwrite and at_home(out).is_file():
        yield f"'{out}' exists already: choose another name, or --overwrite"


def _collection(
    place: Path,
    run: list[str] | None,
    stream: list[str] | None,
    since: str | None,
    until: str | None,
) -> "Collection":
    """Return what a journal or folder holds."""
    from neurovocal.models.review.folder import read_folder
    from neurovocal.plugins.review.journal import read_journal

    selection = journal_selection(place, run, stream, since, until)
    if selection is not None:
        collection = read_journal(place, selection)
    elif place.is_dir():
        collection = read_folder(place)
    else:
        raise ConfigError(
            f"'{place}' is no journal: name one, or a folder of recordings"
        )
    for note in list(collection.notes)[:_MOST_NOTES]:
        if "dragging" not in note:  # a hint for the page of `review`
            typer.echo(printable(f"note: {note}"), err=True)
    return collection


def _note_problems(problems: dict[str, int]) -> None:
    for problem, n in list(problems.items())[:_MOST_NOTES]:
        count = f" ({n} sounds)" if n > 1 else ""
        typer.echo(printable(f"note: {problem}{count}"), err=True)
    if len(problems) > _MOST_NOTES:
        typer.echo(f"note: and {len(problems) - _MOST_NOTES} more", err=True)


def _show(matches: Sequence["Match"], n_heard: int, out: str, as_json: bool) -> None:
    rows = [_row(match) for match in matches]
    if out != _STDOUT:
        write_whole(at_home(out), _csv_text(rows).encode())
        typer.echo(printable(f"wrote {len(rows)} of {n_heard} sounds to '{out}'"))
    elif as_json:
        typer.echo(json.dumps({"heard": n_heard, "found": rows}))
    else:
        for row in rows:
            when = f"{row['onset_s']:.3f} to {row['offset_s']:.3f} s"
            label = f"  {row['label']}" if row["label"] else ""
            line = f"{row['similarity']:.3f}  {row['text']}  {row['recording']}"
            typer.echo(printable(f"{line}  {when}{label}"))
        typer.echo(printable(f"{len(rows)} of {n_heard} sounds"), err=True)


def _row(match: "Match") -> dict[str, Any]:
    sound = match.sound
    recording = sound.recording
    utc = ""
    if recording.utc_ns is not None:
        start = datetime.fromtimestamp(recording.utc_ns // NS, UTC)
        start += timedelta(microseconds=recording.utc_ns % NS // 1000)
        start += timedelta(seconds=sound.onset / recording.sample_rate)
        utc = start.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return {
        "similarity": round(match.similarity, 4),
        "text": match.text,
        "recording": recording.name,
        "onset_s": round(sound.onset / recording.sample_rate, 6),
        "offset_s": round(sound.offset / recording.sample_rate, 6),
        "label": sound.unit,
        "utc": utc,
    }


def _csv_text(rows: Sequence[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, _COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
