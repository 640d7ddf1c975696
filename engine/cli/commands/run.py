"""``neurovocal run``: run a configuration."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from neurovocal.engine.cli.demo_files import copy_demo
from neurovocal.engine.cli.display import LineDisplay, TableDisplay
from neurovocal.engine.cli.run_summary import RunTally, summary_lines
from neurovocal.engine.cli.session import (
    BlockLength,
    Display,
    SetOption,
    is_terminal,
    plan_of,
    plugin_files,
    run_plan,
)
from neurovocal.engine.config.plan import Plan
from neurovocal.engine.config.schema import locate_config
from neurovocal.engine.contracts.abilities import HasEndpoint, HasPage
from neurovocal.engine.contracts.errors import EXIT_LOSS, ConfigError
from neurovocal.engine.support.names import resolved
from neurovocal.engine.support.platform import is_stdout_closed_by_reader
from neurovocal.engine.support.text import printable

# Longest name of a file, if each character is one byte.
_MOST_NAME_CHARS = 255
_TABLES = ("table", "columns")  # plugins
_LISTENED = "tcp://127.0.0.1:5556"  # what `neurovocal listen` connects to by itself
# Hosts to bind, and where programs of this machine find what is bound there.
_ALL_INTERFACES = {"*": "127.0.0.1", "0.0.0.0": "127.0.0.1", "[::]": "[::1]"}

PlainOption = Annotated[
    bool, typer.Option("--plain", help="Lines instead of the live table.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="JSON lines for programs.")]


def run(
    config: Annotated[
        str, typer.Argument(help="YAML file, or the name of one that ships.")
    ] = "demo",
    set_: SetOption = None,
    block_length: BlockLength = None,
    plain: PlainOption = False,
    json: JsonOption = False,
) -> None:
    """Run a configuration until its source ends or Ctrl-C.

    Relative inputs and plugin files are searched in the working folder, then in that
    of the configuration; relative outputs lie in the working folder.

    In a terminal a live table shows level, lag and the last labels; elsewhere
    each label is a line. Exit codes: 0 clean, 1 configuration, 2 failure, 3
    stopped with loss or by force.
    """
    overrides = list(set_ or [])
    if block_length is not None:
        overrides.append(f"source.options.block_length={block_length}")
    located = locate_config(config, overrides)
    plan = plan_of(located)
    for sentence in plan.notes():
        typer.echo(printable(f"note: {sentence}"), err=True)
    labelled = any(lane.is_labelled for lane in plan.lanes)
    # One sink at most writes to standard output; then the display does not.
    taken = any("stdout" in sink.stage.resources for sink in plan.all_sinks)
    tally = RunTally()
    display: Display = LineDisplay(
        labelled=labelled, as_json=json, to_stderr=taken, tally=tally
    )
    if is_terminal() and not plain and not json and not taken:
        title = (
            f"{plan.config.shared.station} ({Path(located.name).name}), Ctrl-C stops"
        )
        display = TableDisplay(title, tally)

    def reload(name: str | None) -> Plan:
        if name is None:
            return plan_of(locate_config(config, overrides))
        # A client with control keys may name files of that folder only.
        if Path(name).name != name or "\0" in name or len(name) > _MOST_NAME_CHARS:
            shown = name[:_MOST_NAME_CHARS]
            raise ConfigError(f"'{shown}': name a file beside {located.name}, no path")
        beside = str(resolved(Path(located.name)).parent / name)
        other = locate_config(beside, overrides)
        for file in plugin_files(other.data):
            if file not in plugin_files(located.data):
                raise ConfigError(
                    f"'{name}' names a Python file that this run was not started with, "
                    f"'{file}': that needs a restart"
                )
        return plan_of(other)

    def opened() -> None:
        if not json:
            _announce(plan)

    outcome = run_plan(plan, display, reload=reload, opened=opened)
    code = outcome.exit_code
    # A reader that has left (`| head`) wants to hear no more.
    is_stopped = outcome.cut_short and not is_stdout_closed_by_reader()
    if not json and (sys.stderr.isatty() or is_stopped):
        lines = summary_lines(outcome, tally, plan, is_demo=config == "demo")
        # Logs get the one line that says that nothing went wrong.
        for line in lines if sys.stderr.isatty() else lines[:1]:
            typer.echo(line, err=True)
    if outcome.cut_short and outcome.repeatable:
        # What is cut short of a microphone is all that there was.
        for table in _tables(plan):
            typer.echo(printable(f"stopped: {table} is partial"), err=True)
            code = code or EXIT_LOSS
    raise typer.Exit(code)


def demo(
    set_: SetOption = None,
    plain: PlainOption = False,
    json: JsonOption = False,
    files: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Only copy its recording, annotations and configuration there.",
        ),
    ] = None,
) -> None:
    """Run the demo: a shipped recording, labelled as it plays; needs no hardware.

    Short for `neurovocal run demo`. For 29 seconds its page can be opened at
    http://127.0.0.1:8420/. Nothing is written, unless --files copies what the
    demo consists of into a folder of yours.
    """
    if files is not None:
        for path in copy_demo(files):
            typer.echo(printable(f"wrote '{path}'"), err=True)
        return
    run("demo", set_=set_, plain=plain, json=json)


def _tables(plan: Plan) -> list[str]:
    """Return the files that people read as the whole of a recording."""
    stages = [sink.stage.config for sink in plan.all_sinks]
    paths = [str(c.options["path"]) for c in stages if c.plugin in _TABLES]
    return ["standard output" if path == "-" else f"'{path}'" for path in paths]


def _announce(plan: Plan) -> None:
    """Print where a browser and where subscribers can connect."""
    for sink in plan.all_sinks:
        options = sink.stage.options
        if isinstance(options, HasPage):
            if options.page:
                hint = f"page: {options.page} (open it in a browser)"
                typer.echo(hint, err=True)
            continue
        if sink.stage.config.plugin != "zmq" or not isinstance(options, HasEndpoint):
            continue
        endpoint = options.endpoint
        if endpoint and not endpoint.endswith((":*", ":0")):
            keys = " --keys DIR" if plan.context.keys else ""
            where = _connectable(endpoint)
            where = "" if where == _LISTENED else f" {where}"
            hint = f"neurovocal listen{where}{keys}"
            typer.echo(
                f"publishing on {endpoint} (in another terminal: {hint})", err=True
            )


def _connectable(endpoint: str) -> str:
    """Return an endpoint as programs of this machine connect to it."""
    for host, here in _ALL_INTERFACES.items():
        if endpoint.startswith(f"tcp://{host}:"):
            return endpoint.replace(host, here, 1)
    return endpoint
