"""``neurovocal init``: write a configuration from the answers to questions."""

import os
import shlex
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any

import typer

from neurovocal.engine.cli.session import plan_of
from neurovocal.engine.config.located_yaml import parse_located
from neurovocal.engine.config.schema import MultiConfig, SingleConfig, load_config
from neurovocal.engine.contracts.bundle import load_bundle
from neurovocal.engine.contracts.errors import ConfigError, DeviceError
from neurovocal.engine.contracts.tuning import load_tuner
from neurovocal.engine.support import safe_yaml
from neurovocal.engine.support.outputs import write_whole
from neurovocal.engine.support.text import printable

_NO_BUNDLE = "none"
_PAGE = "127.0.0.1:8420"
_NO_SOCKET = "none"
_PRESETS = (
    "songbird",
    "mouse-ultrasound",
    "bat-ultrasound",
    "mammal-calls",
    "insects",
)
_EXAMPLES = "examples"


def init(
    path: Annotated[Path, typer.Argument(help="File to write.")] = Path(
        "neurovocal.yaml"
    ),
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Take the default of every answer.")
    ] = False,
    force: Annotated[bool, typer.Option(help="Replace an existing file.")] = False,
) -> None:
    """Write a configuration by asking a few questions, and check it."""
    _check_output(path, force)
    answers: dict[str, str] = {}
    while True:
        absent = None
        try:
            text = safe_yaml.dump(_ask(yes, answers))
            plan_of(parse_located(text, str(path)))
        except DeviceError as error:  # it may be written for another machine
            absent = error
        except ConfigError as error:
            if yes:
                raise
            # Lines are of a file that is not written: the answers tell enough.
            for problem in error.problems:
                told = problem.removeprefix(f"{path}:").lstrip("0123456789").strip(": ")
                typer.echo(printable(f"error: {told}"), err=True)
            typer.echo("Asked again: Enter keeps an answer.", err=True)
            continue
        break
    try:
        write_whole(path, text.encode())
    except OSError as error:
        raise ConfigError(f"'{path}' cannot be written: {error.strerror}") from error
    command = shlex.join(["neurovocal", "run", str(path)])
    if absent is None:
        typer.echo(printable(f"wrote {path}; now try: {command}"))
    else:
        typer.echo(printable(f"warning: {absent}"), err=True)
        typer.echo(printable(f"wrote {path}; with the device connected: {command}"))


def _check_output(path: Path, force: bool) -> None:
    """Raise ConfigError unless a configuration may be written to `path`.

    What exists is replaced by --force only if it is a configuration, or empty.
    """
    if not os.path.lexists(path):
        return
    if not os.path.isfile(path):
        kind = "a folder" if os.path.isdir(path) else "no file"
        raise ConfigError(f"'{path}' is {kind}: name a file to be written")
    if not force:
        raise ConfigError(f"'{path}' exists already: choose another name or --force")
    try:
        content = safe_yaml.load(safe_yaml.read_text(path))
    except (OSError, ValueError):
        content = ""
    known = {*SingleConfig.model_fields, *MultiConfig.model_fields}
    is_config = isinstance(content, dict) and known & content.keys()
    if content is not None and not is_config:
        raise ConfigError(
            f"'{path}' exists and is no configuration: it would be lost; choose "
            "another name"
        )


def _ask(yes: bool, answers: dict[str, str]) -> dict[str, Any]:
    """Return a configuration; `answers`, by question, are defaults the next time."""

    def ask(question: str, default: str, choices: list[str] | None = None) -> str:
        if yes:
            return default
        text = f"{question} [{', '.join(choices)}]" if choices else question
        while True:
            answer: str = typer.prompt(text, default=answers.get(question, default))
            if choices is None or answer in choices:
                answers[question] = answer
                return answer
            typer.echo(f"'{answer}' is none of: {', '.join(choices)}", err=True)

    data: dict[str, Any] = {
        "version": 1,
        "station": ask("Name of this station", "station-1"),
        "source": _source(ask),
    }
    bundles = [*_shipped_bundles(), _NO_BUNDLE]
    bundle = ask(f"Model bundle: {', '.join(bundles)}, or a folder", bundles[0])
    if bundle != _NO_BUNDLE:
        data["bundle"] = bundle
    if bundle == _NO_BUNDLE or load_bundle(bundle).manifest.detector is None:
        taxon = ask("What is heard", "songbird", [*_PRESETS, _EXAMPLES])
        data["detector"] = _like_examples(ask) if taxon == _EXAMPLES else _of(taxon)
    if bundle != _NO_BUNDLE:
        data["models"] = [{"plugin": "classifier"}]
    endpoint = ask(f"Publish on, or '{_NO_SOCKET}'", "tcp://127.0.0.1:5556")
    journal = ask("Keep events in", "neurovocal.sqlite")
    data["sinks"] = [{"plugin": "journal", "options": {"path": journal}}]
    if endpoint != _NO_SOCKET:
        publisher = {"plugin": "zmq", "options": {"endpoint": endpoint}}
        page = {"plugin": "web", "options": {"endpoint": _PAGE, "journal": journal}}
        data["sinks"] = [publisher, *data["sinks"], page]
    return data


def _of(taxon: str) -> dict[str, Any]:
    """Return the detector of a preset."""
    preset, _ = load_config(taxon)
    detector = preset.lanes[0].detector
    assert detector is not None, f"the preset '{taxon}' is about its detector"
    return detector.model_dump(exclude_none=True)


def _like_examples(ask: Any) -> dict[str, Any]:
    """Return a detector that is fitted to examples of calls in a recording."""
    recording = ask("Recording with examples of calls", "recording.wav")
    table = ask("Table of them: CSV with onset_s and offset_s, Raven, ...", "five.csv")
    return load_tuner()(
        Path(table),
        [Path(recording)],
        tell=lambda sentence: typer.echo(printable(sentence), err=True),
    )


def _source(ask: Any) -> dict[str, Any]:
    kind = ask("Source", "microphone", ["microphone", "file", "folder"])
    if kind == "folder":
        path = ask("Folder that recorders fill", "recordings")
        return {"plugin": "folder", "options": {"path": path}}
    if kind == "file":
        path = ask("Recording, folder or glob", "recordings")
        return {"plugin": "file", "options": {"path": path, "pace": "realtime"}}
    device = ask("Input device, by name or number ('default': the system's)", "default")
    rate = ask("Sample rate in Hz", "48000")
    if not rate.isdecimal():
        raise ConfigError(f"sample rate '{rate}' is not a number of Hz, such as 48000")
    options: dict[str, Any] = {"sample_rate": int(rate), "channels": [1]}
    if device != "default":
        options["device"] = int(device) if device.isdigit() else device
    # The default of live sources, written out: whoever reads the file knows it.
    return {"plugin": "microphone", "options": options, "on_error": "restart"}


def _shipped_bundles() -> list[str]:
    """Return the names of the bundles that ship and label."""
    folder = Path(str(files("neurovocal.models"))) / "pretrained"
    names = sorted(p.parent.name for p in folder.glob("*/manifest.yaml"))
    return [n for n in names if load_bundle(n).manifest.classifier is not None]
