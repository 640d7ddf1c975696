"""Command-line application: registers the commands, maps errors to exit codes.

A command's module is imported only when the command runs or its own help is asked
for; the summaries in the list of commands are read from the source text.
"""

import ast
import errno
import io
import logging
import os
import re
import sys
import threading
import traceback
from functools import cache
from importlib.metadata import EntryPoint, entry_points, version
from importlib.util import find_spec
from inspect import cleandoc
from types import TracebackType
from typing import Annotated, Any

import typer
import typer.core
import typer.main

from neurovocal.engine.cli import interrupts
from neurovocal.engine.cli.logs import LogFormat, LogLevel, set_up_logging
from neurovocal.engine.cli.streams import discard_output, name_output
from neurovocal.engine.contracts.errors import (
    EXIT_CLEAN,
    EXIT_CONFIG,
    EXIT_RUNTIME,
    NeurovocalError,
    StartInterrupted,
)
from neurovocal.engine.support.compiled import kernels_after
from neurovocal.engine.support.credentials import masked
from neurovocal.engine.support.names import path_problem
from neurovocal.engine.support.platform import raise_handle_limit
from neurovocal.engine.support.process import (
    do_last_acts,
    keep_stderr,
    mute_for_good,
    uncollected,
)
from neurovocal.engine.support.text import printable, with_short_words

log = logging.getLogger("neurovocal")

COMMANDS_GROUP = "neurovocal.commands"
_LAST_WAIT_S = 2.0
# Loading compiled kernels costs a second, which only longer commands get back.
_KERNELS_AFTER_S = 10.0
# Errors of paths that no file can have, as of arguments.
_WRONG_PATH = (errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR, errno.EINVAL)
_SETTINGS: dict[str, Any] = {
    "add_completion": False,
    "no_args_is_help": True,
    "pretty_exceptions_enable": False,
    "rich_markup_mode": None,
    "context_settings": {"help_option_names": ["-h", "--help"]},
}
# Name: module of `cli/commands` and function in it, in the order of the help text.
_COMMANDS = {
    "run": "run:run",
    "demo": "run:demo",
    "check": "inspect:check",
    "init": "init:init",
    "devices": "inspect:devices",
    "plugins": "inspect:plugins",
    "schema": "inspect:schema",
    "detect": "recordings:detect",
    "label": "recordings:label",
    "listen": "listen:listen",
    "control": "control:control",
    "replay": "replay:replay",
    "export": "export:export",
    "rehearse": "rehearse:rehearse",
    "bench": "bench:bench",
    "doctor": "diagnose:doctor",
    "support": "diagnose:support",
}
# A function up to the end of its docstring: its signature is one line, or indented
# lines up to one that begins with the closing bracket.
_DOCSTRING = re.compile(
    r'def [^\n]*(?:(?:\n[ ][^\n]*)*\n\)[^\n]*)?:\n    """([^"\\]*)"""'
)
_GROUPS = {"bundle": "bundle:bundle_app", "keys": "keys:keys_app"}


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"neurovocal {version('neurovocal')}")
        raise typer.Exit


def _top_level(
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

    Start with `neurovocal demo`: it plays a recording that ships, no hardware
    needed. `neurovocal COMMAND --help` explains a command.
    """
    raise_handle_limit()
    set_up_logging(verbose, log_level, log_format)


@cache
def command_points() -> dict[str, EntryPoint]:
    """Return where each command is defined, by name, in the order of the help text."""

    def built_in(commands: dict[str, str]) -> dict[str, EntryPoint]:
        folder = "neurovocal.engine.cli.commands"
        return {
            name: EntryPoint(name, f"{folder}.{target}", COMMANDS_GROUP)
            for name, target in commands.items()
        }

    installed = sorted(entry_points(group=COMMANDS_GROUP), key=lambda p: p.name)
    return {
        **built_in(_COMMANDS),
        **{p.name: p for p in installed},
        **built_in(_GROUPS),
    }


def read_summary(point: EntryPoint) -> str | None:
    """Return the help text of a command without importing its module.

    Parameters
    ----------
    point : EntryPoint
        Names a function, whose docstring is the help text, or a `typer.Typer` that is
        made with `help="..."`.

    Returns
    -------
    str or None
        None if the module has no source text or defines neither of them.
    """
    source = _source_of(point.module)
    # Its text alone is a tenth of the time, and nearly always enough.
    start = source.find(f"\ndef {point.attr}(") + 1
    function = _DOCSTRING.match(source, start) if start else None
    if function is not None:
        return cleandoc(function[1])
    for node in ast.parse(source).body:
        match node:
            case ast.FunctionDef(name=point.attr):
                return ast.get_docstring(node)
            case ast.Assign([ast.Name(point.attr)], ast.Call(keywords=keywords)):
                given = {each.arg: ast.unparse(each.value) for each in keywords}
                return str(ast.literal_eval(given["help"])) if "help" in given else None
    return None


@cache
def _source_of(module: str) -> str:
    try:
        spec = find_spec(module)
    except ImportError:
        return ""
    source = getattr(spec and spec.loader, "get_source", lambda name: None)
    return source(module) or ""


def load_command(point: EntryPoint) -> Any:
    """Import a command's module and return the command as `typer` runs it."""
    app = typer.Typer(**_SETTINGS)
    app.callback()(_top_level)  # so that the application is a group, of one command
    with uncollected():
        loaded = point.load()
    if isinstance(loaded, typer.Typer):
        app.add_typer(loaded, name=point.name)
    else:
        app.command(point.name)(loaded)
    group: Any = typer.main.get_command(app)
    return group.commands[point.name]


class _LazyGroup(typer.core.TyperGroup):
    """The top-level group: lists placeholders, loads the command that is called."""

    def read_summaries(self) -> None:
        """Give each placeholder the help text of its command."""
        for name, point in command_points().items():
            self.commands[name].help = read_summary(point)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        self.read_summaries()
        super().format_commands(ctx, formatter)

    # The types of `ctx` and of commands have no name that all versions of typer share.
    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, command, rest = super().resolve_command(ctx, args)
        if name is not None:
            command = load_command(command_points()[name])
        interrupts.begin_work()
        return name, command, rest

    def invoke(self, ctx: Any) -> Any:
        # Typer would print an empty line and exit as a shell's child does.
        try:
            try:
                return super().invoke(ctx)
            finally:
                interrupts.stop_raising()
        except KeyboardInterrupt as error:
            raise StartInterrupted from error


def _placeholder() -> None:
    # Without a docstring, which would be its help text.
    pass


def build_app() -> typer.Typer:
    """Return the command-line application with all commands, installed ones too."""
    app = typer.Typer(cls=_LazyGroup, **_SETTINGS)
    app.callback()(_top_level)
    for name in command_points():
        app.command(name)(_placeholder)
    return app


def main(args: list[str] | None = None) -> None:
    """Run the command line and exit with the code of the outcome."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a locale that lacks characters
            stream.reconfigure(errors="backslashreplace")
    if args is None:
        keep_stderr()
        name_output()
        sys.excepthook = _show_traceback
        threading.excepthook = lambda failed: _show_traceback(
            failed.exc_type, failed.exc_value or failed.exc_type(), failed.exc_traceback
        )
    with kernels_after(_KERNELS_AFTER_S):
        code = _run(args) or EXIT_CLEAN
    interrupts.end_work(code)
    if args is None:
        try:
            sys.stdout.flush()
        except OSError:  # it has been told
            discard_output()
        _exit_despite_threads(code)
        interrupts.ignore()
        mute_for_good()
    sys.exit(code)


def _show_traceback(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """Print the traceback of an error of the program, with variables masked."""
    sys.stderr.write(masked("".join(traceback.format_exception(kind, error, trace))))


def _run(args: list[str] | None) -> int | None:
    """Run the command line; return its exit code, after an error's sentences."""
    try:
        return _invoke(args)
    except (KeyboardInterrupt, StartInterrupted):
        return interrupts.tell()
    except typer.Abort:  # of a prompt: Ctrl-C, or no more input
        if interrupts.asked():
            return interrupts.tell()
        ended = "the input ended before every question was answered: nothing was done"
        return _print_error(ended, EXIT_CONFIG)
    except BrokenPipeError:
        discard_output()  # its reader has closed it: no error can be shown
        return EXIT_CLEAN
    except Exception as error:
        if _is_interrupt(error):
            return interrupts.tell()
        if isinstance(error, NeurovocalError):
            return _print_error(str(error), error.exit_code)
        if isinstance(error, FileNotFoundError) and _working_folder_is_gone():
            gone = "the working folder was deleted: change into one that exists"
            return _print_error(gone, EXIT_CONFIG)
        if isinstance(error, OSError) and error.filename:
            log.debug("a path could not be used", exc_info=error)
            is_wrong = error.errno in _WRONG_PATH
            code = EXIT_CONFIG if is_wrong else EXIT_RUNTIME
            return _print_error(path_problem(error), code)
        # Usage errors: their class moved between versions, their method did not.
        if not hasattr(error, "format_message"):
            raise
        if type(error).__name__ == "NoArgsIsHelpError":
            typer.echo(error.format_message(), err=True)
            return EXIT_CONFIG
        context = getattr(error, "ctx", None)
        hint = f" (see '{context.command_path} --help')" if context else ""
        for name in args or sys.argv[1:]:
            if name[:1] == "-" and os.path.lexists(name) and name != "-":
                hint = f" (for the file of this name write './{name}')"
        return _print_error(_usage_sentence(error) + hint, EXIT_CONFIG)


def _invoke(args: list[str] | None) -> int | None:
    """Run the command line, and write out what it has printed."""
    try:
        code: int | None = build_app()(
            args, prog_name="neurovocal", standalone_mode=False
        )
    except typer.Exit as error:
        code = error.exit_code
    sys.stdout.flush()
    return code


def _working_folder_is_gone() -> bool:
    try:
        os.getcwd()
    except FileNotFoundError:
        return True
    return False


def _usage_sentence(error: Any) -> str:
    """Return what is wrong with an argument, without the words of pydantic."""
    sentence: str = error.format_message()
    if hasattr(error.__cause__, "errors"):
        from neurovocal.engine.contracts.refusals import reason_of  # takes long

        reasons = [reason_of(each, None) for each in error.__cause__.errors()]
        sentence = sentence.replace(error.message, " or ".join(reasons))
    return sentence


def _is_interrupt(error: BaseException) -> bool:
    """Return whether Ctrl-C caused an error, which a library may have replaced."""
    cause: BaseException | None = error
    seen: set[int] = set()
    while cause is not None and id(cause) not in seen:
        if isinstance(cause, KeyboardInterrupt):
            return True
        seen.add(id(cause))  # an error may be its own cause
        cause = cause.__cause__ or cause.__context__
    return interrupts.asked() and not isinstance(error, NeurovocalError)


def _exit_despite_threads(code: int) -> None:
    """Exit with `code`, even if threads that a plugin has started do not end."""
    do_last_acts()
    for thread in threading.enumerate():
        if thread is threading.current_thread() or thread.daemon:
            continue
        thread.join(_LAST_WAIT_S)
        if thread.is_alive():
            _print_error(
                f"thread '{thread.name}' does not end and is left behind", code
            )
            sys.stdout.flush()
            logging.shutdown()
            os._exit(code)


def _print_error(message: str, code: int) -> int:
    for line in message.splitlines():
        sentence = with_short_words(masked(f"error: {line}"))
        typer.echo(printable(sentence), err=True)
    return code
