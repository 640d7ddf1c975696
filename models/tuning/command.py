"""``neurovocal tune``: write a detector that was fitted to a few examples."""

import os
import re
import textwrap
from pathlib import Path
from typing import Annotated, Any

import typer

from neurovocal.engine.config.claims import refuse_overlap
from neurovocal.engine.contracts.errors import ConfigError
from neurovocal.engine.support import safe_yaml
from neurovocal.engine.support.names import beside
from neurovocal.engine.support.text import plain, printable
from neurovocal.models.data.formats.segments import AnnotationChoice, where
from neurovocal.models.tuning.examples import ExampleTable, read_examples
from neurovocal.models.tuning.tune import Tuned, TuningChoice
from neurovocal.models.tuning.tune import tune as tune_detector

_CONFIG = "a configuration"
_STDOUT = Path("-")
# A key, and below it a list of numbers, one a line.
_LIST = re.compile(r"^( +)(\w+):\n((?:\1- [-\d.]+\n)+)", re.MULTILINE)


def tune(
    recording: Annotated[Path, typer.Argument(help="Recording of the examples.")],
    examples: Annotated[
        Path,
        typer.Argument(
            help="Table of calls in it: CSV with onset_s and offset_s, Raven, "
            "Audacity, TextGrid, ..."
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--out", "-o", metavar="F", help="Configuration to write; '-' is stdout."
        ),
    ],
    label: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Only calls with this label; default: all."),
    ] = None,
    channels: Annotated[
        str | None,
        typer.Option(
            metavar="N,...",
            help="Channels of the examples, from 1; default: those that the table "
            "names, or 1.",
        ),
    ] = None,
    sparse: Annotated[
        bool,
        typer.Option(
            "--sparse",
            help="Other calls lie between the examples; without it what is no example "
            "is no call.",
        ),
    ] = False,
    annotation_format: Annotated[
        str | None,
        typer.Option(
            "--format",
            metavar="F",
            help="Annotation format; default: seen from the file.",
        ),
    ] = None,
    label_column: Annotated[
        str | None,
        typer.Option("--label-column", metavar="NAME", help="Column of the labels."),
    ] = None,
    tier: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Interval tier of a TextGrid."),
    ] = None,
    force: Annotated[bool, typer.Option(help="Replace an existing file.")] = False,
) -> None:
    """Fit a detector to a few examples of calls and write it as a configuration.

    Five are enough, one works. From 5 s before the first example to the last one
    every call should be listed. Then: neurovocal detect FILES --config F
    """
    if not recording.is_file():
        what = "is a folder" if recording.is_dir() else "does not exist"
        raise ConfigError(f"recording '{recording}' {what}")
    if out != _STDOUT:
        _check_output(out, recording, examples, force)
    choice = TuningChoice(
        annotation_format,
        AnnotationChoice(label_column, tier),
        label,
        _channel_numbers(channels),
        sparse,
    )
    table = read_examples(examples, annotation_format, choice.annotation, label)
    for note in [*table.notes, *_others(table, recording)]:
        _tell(f"note: {note}")
    tuned = tune_detector(table, [recording], choice, _tell)
    text = _text(tuned, out, recording, examples)
    if out == _STDOUT:
        typer.echo(text, nl=False)
        _tell(f"wrote the configuration to standard output: {tuned.summary}")
        return
    _write(out, text)
    _tell(f"wrote {out}: {tuned.summary}")
    numbers = ",".join(map(str, tuned.channels))
    chosen = "" if tuned.channels == (1,) else f" --channels {numbers}"
    _tell(
        f"now try: neurovocal detect {_quoted(recording)}{chosen} --config "
        f"{_quoted(out)}"
    )


def _others(table: ExampleTable, recording: Path) -> list[str]:
    """Tell of rows of other recordings; raise ConfigError if all are."""
    own, n_others = table.of_recording(recording)
    if not own:
        row = table.rows[0]
        raise ConfigError(
            f"{where(table.path, row.line)}: the examples are of "
            f"'{printable(plain(row.recording))}', and the recording is "
            f"'{recording.name}': give that one"
        )
    if n_others:
        are = "1 example is" if n_others == 1 else f"{n_others} examples are"
        return [f"{where(table.path)}: {are} of other recordings, and not used"]
    return []


def _channel_numbers(channels: str | None) -> tuple[int, ...]:
    numbers = [part.strip() for part in channels.split(",")] if channels else []
    if any(not (n.isascii() and n.isdigit() and 0 < int(n) < 10_000) for n in numbers):
        raise typer.BadParameter(
            f"'{channels}' is not a list of channel numbers, from 1, such as '1,2'",
            param_hint="--channels",
        )
    return tuple(sorted({int(number) for number in numbers}))


def _check_output(out: Path, recording: Path, examples: Path, force: bool) -> None:
    """Raise ConfigError unless the configuration may be written to `out`."""
    reads = {"recording": [recording], "table": [examples]}
    refuse_overlap("--out", reads, [out])
    if not out.parent.is_dir():
        raise ConfigError(f"--out '{out}': folder '{out.parent}' does not exist")
    if not os.path.lexists(out):
        return
    if not out.is_file():
        kind = "a folder" if out.is_dir() else "no file"
        raise ConfigError(f"--out '{out}' is {kind}: name a file to be written")
    if not force:
        raise ConfigError(
            f"--out '{out}' exists already: choose another name or --force"
        )
    try:
        content = safe_yaml.load(safe_yaml.read_text(out))
    except (OSError, ValueError):
        content = ""
    if content is not None and not (isinstance(content, dict) and "version" in content):
        raise ConfigError(
            f"--out '{out}' exists and is not {_CONFIG}: it would be lost; choose "
            "another name"
        )


def _text(tuned: Tuned, out: Path, recording: Path, examples: Path) -> str:
    """Return the configuration, which plays the recording itself when it is run."""
    name, table = (printable(plain(path.name)) for path in (recording, examples))
    heading = (
        f"# Detector fitted to examples of {name} ({table}):\n"
        f"# {tuned.summary}.\n"
        "# Its part `detector` fits into any configuration, and this file is one:\n"
        "# neurovocal detect FILES --config THIS\n"
    )
    source: dict[str, Any] = {"path": os.path.relpath(recording, out.parent)}
    if tuned.channels != (1,):
        source["channels"] = list(tuned.channels)
    data: dict[str, Any] = {
        "version": 1,
        "source": {"plugin": "file", "options": source},
        "detector": tuned.detector,
        "sinks": [{"plugin": "zmq", "options": {"endpoint": "tcp://127.0.0.1:5556"}}],
    }
    return heading + _LIST.sub(_in_one_line, safe_yaml.dump(data))


def _in_one_line(found: re.Match[str]) -> str:
    """Return a list of numbers in brackets."""
    indent = found[1]
    numbers = re.findall(r"- (\S+)", found[3])
    body = textwrap.fill(
        ", ".join(numbers),
        80,
        initial_indent=f"{indent}  ",
        subsequent_indent=f"{indent}  ",
    )
    return f"{indent}{found[2]}: [\n{body}\n{indent}]\n"


def _write(out: Path, text: str) -> None:
    """Write under another name and rename: a failure leaves no half of a file."""
    target = Path(os.path.realpath(out))
    draft = beside(target, before=".", after=".draft")
    try:
        draft.write_text(text, encoding="utf-8")
        os.replace(draft, target)
    except OSError as error:
        raise ConfigError(
            f"--out '{out}' cannot be written: {error.strerror}"
        ) from error


def _quoted(path: Path) -> str:
    text = str(path)
    return f"'{text}'" if any(letter.isspace() for letter in text) else text


def _tell(sentence: str) -> None:
    typer.echo(printable(sentence), err=True)
