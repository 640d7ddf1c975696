"""Registers the commands and turns every error into a sentence and an exit code."""

import os
import sys
import threading
from collections.abc import Callable
from importlib.metadata import entry_points, version
from typing import Annotated

import typer

from neurovocal.engine.cli.commands.bench import bench
from neurovocal.engine.cli.commands.bundle import bundle_app
from neurovocal.engine.cli.commands.control import control
from neurovocal.engine.cli.commands.export import export
from neurovocal.engine.cli.commands.init import init
from neurovocal.engine.cli.commands.inspect import check, devices, plugins, schema
from neurovocal.engine.cli.commands.keys import keys_app
from neurovocal.engine.cli.commands.listen import listen
from neurovocal.engine.cli.commands.recordings import detect, label
from neurovocal.engine.cli.commands.rehearse import rehearse
from neurovocal.engine.cli.commands.replay import replay
from neurovocal.engine.cli.commands.run import run
from neurovocal.engine.cli.logs import LogFormat, LogLevel, set_up_logging
from neurovocal.engine.cli.session import Interrupted
from neurovocal.engine.contracts.errors import EXIT_CLEAN, EXIT_CONFIG, NeurovocalError
from neurovocal.engine.support.text import printable

COMMANDS_GROUP = "neurovocal.commands"
_LAST_WAIT_S = 2.0
_INTERRUPTED = 130  # what typer makes of Ctrl-C where no run handles it
_COMMANDS: tuple[Callable[..., None], ...] = (
    *(run, check, init, devices, plugins, schema),
    *(detect, label, listen, control, replay, export, rehearse, bench),
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"neurovocal {version('neurovocal')}")
        raise typer.Exit


def _top(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Show it."),
    ] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Log more, with tracebacks.")
    ] = False,
    log_level: Annotated[
        LogLevel, typer.Option("--log-level", help="The least that is logged.")
    ] = LogLevel.WARNING,
    log_format: Annotated[
        LogFormat,
        typer.Option("--log-format", help="Sentences, or JSON lines for programs."),
    ] = LogFormat.TEXT,
) -> None:
    """Detect, label and synthesize animal vocalizations while they happen.

    Start with `neurovocal run`: it plays a recording that ships, no hardware
    needed. `neurovocal COMMAND --help` explains a command.
    """
    set_up_logging(verbose, log_level, log_format)


def build_app() -> typer.Typer:
    """The command-line application with all commands, installed ones included."""
    app = typer.Typer(
        add_completion=False,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_top)
    for command in _COMMANDS:
        app.command()(command)
    app.add_typer(bundle_app, name="bundle")
    app.add_typer(keys_app, name="keys")
    for point in sorted(entry_points(group=COMMANDS_GROUP), key=lambda p: p.name):
        app.command(point.name)(point.load())
    return app


def main(args: list[str] | None = None) -> None:
    """Run the command line and exit with the code of DESIGN section 9."""
    try:
        code = build_app()(args, prog_name="neurovocal", standalone_mode=False)
        code = EXIT_CLEAN if code == _INTERRUPTED else code
    except NeurovocalError as error:
        code = _complain(str(error), error.exit_code)
    except typer.Exit as error:
        code = EXIT_CLEAN if error.exit_code == _INTERRUPTED else error.exit_code
    except (KeyboardInterrupt, Interrupted, typer.Abort):
        code = EXIT_CLEAN
    except BrokenPipeError:
        # The reader of our output went away: nothing to say, nobody to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = EXIT_CLEAN
    except Exception as error:
        # Usage errors: their class moved between versions, their method did not.
        if not hasattr(error, "format_message"):
            raise
        if type(error).__name__ == "NoArgsIsHelpError":
            typer.echo(error.format_message(), err=True)
            sys.exit(EXIT_CONFIG)
        context = getattr(error, "ctx", None)
        hint = f" (see '{context.command_path} --help')" if context else ""
        sentence = error.format_message().replace(": Value error, ", ": ")
        code = _complain(sentence + hint, EXIT_CONFIG)
    if args is None:
        _leave_behind(code or EXIT_CLEAN)
    sys.exit(code or EXIT_CLEAN)


def _leave_behind(code: int) -> None:
    """End even if threads that a plugin has started would keep the process."""
    for thread in threading.enumerate():
        if thread is threading.current_thread() or thread.daemon:
            continue
        thread.join(_LAST_WAIT_S)
        if thread.is_alive():
            _complain(f"thread '{thread.name}' does not end and is left behind", code)
            sys.stdout.flush()
            os._exit(code)


def _complain(message: str, code: int) -> int:
    for line in message.splitlines():
        typer.echo(printable(f"error: {line}"), err=True)
    return code
