"""``neurovocal rehearse``: inject each fault into a copy of a configuration."""

import json
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer
from rich.console import Console
from rich.padding import Padding
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table
from rich.text import Text

from neurovocal.engine.cli.session import SetOption, plan_of_parts
from neurovocal.engine.config.located_yaml import Located, read_located
from neurovocal.engine.config.plan import Plan
from neurovocal.engine.config.schema import find_config
from neurovocal.engine.contracts.errors import EXIT_CLEAN, EXIT_RUNTIME, ConfigError
from neurovocal.engine.rehearsal.rehearsal import Rehearsal, RehearsalOptions
from neurovocal.engine.rehearsal.scenarios import parse_fault_names
from neurovocal.engine.rehearsal.verdict import TrialResult
from neurovocal.engine.support.text import printable

_WIDTH = 160
_COUNTS = (
    *("expected", "received", "lost,\ntold", "changed"),
    *("lost,\nuntold", "double"),
)
_STYLES = {"survived": "green", "survived with told loss": "yellow", "FAILED": "red"}


def rehearse(
    config: Annotated[str, typer.Argument(help="YAML file, or one that ships.")],
    only: Annotated[
        str | None,
        typer.Option(metavar="A,B,...", help="Only these faults, such as drop,kill."),
    ] = None,
    recording: Annotated[
        str | None, typer.Option(metavar="FILE", help="What is played.")
    ] = None,
    seconds: Annotated[
        float, typer.Option(min=10, max=3600, help="Least seconds of audio per fault.")
    ] = 20.0,
    seed: Annotated[int, typer.Option(help="Decides when each fault strikes.")] = 0,
    jobs: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=64,
            help="Faults rehearsed at the same time: 4, or 1 with --live.",
        ),
    ] = None,
    live: Annotated[
        bool, typer.Option("--live", help="Hear the real source; compare no labels.")
    ] = False,
    keep: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Keep configurations, journals, recordings."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON for programs.")] = False,
    set_: SetOption = None,
) -> None:
    """Inject each fault into a copy of a configuration and print the survivors.

    Nothing of the configuration's own is touched: files go to a temporary folder,
    sockets to free ports of this machine, loudspeakers stay silent. Exit code 2 if
    anything did not survive.
    """
    names = parse_fault_names(only)
    if live and recording is not None:
        raise ConfigError("--live uses the real source: leave out --recording")
    located = read_located(find_config(config), set_ or [])
    # Many devices can be opened by one process only.
    at_once = jobs or (1 if live else 4)
    options = RehearsalOptions(names, recording, seconds, seed, at_once, live)
    with _folder(keep) as folder:
        rehearsal = Rehearsal(located, options, folder, _plan_of)
        rows = _run_trials(rehearsal)
    failed = [row for row in rows if row.verdict == "FAILED"]
    alone = (failed or rows)[-1].fault.split()[0]
    repeat = _command_for(config, alone, recording, seed, live, set_ or [])
    if as_json:
        report = {
            "configuration": located.name,
            "notes": rehearsal.notes,
            "rows": [row.as_dict() for row in rows],
            "not_rehearsed": rehearsal.not_rehearsed,
        }
        typer.echo(json.dumps(report))
    else:
        _print(rehearsal, rows, repeat)
    raise typer.Exit(EXIT_RUNTIME if failed else EXIT_CLEAN)


def _plan_of(located: Located, base: Path) -> Plan:
    return plan_of_parts(located, base, dry_run=True)


@contextmanager
def _folder(keep: Path | None) -> Iterator[Path]:
    """Yield an empty folder: `keep`, or a temporary one."""
    if keep is None:
        with TemporaryDirectory(prefix="neurovocal-") as name:
            yield Path(name)
        return
    try:
        keep.mkdir(parents=True, exist_ok=True)
        if any(keep.iterdir()):
            raise ConfigError(f"--keep {keep}: the folder is not empty: name another")
    except OSError as error:
        raise ConfigError(f"--keep {keep}: {error.strerror}") from error
    yield keep.resolve()


def _run_trials(rehearsal: Rehearsal) -> list[TrialResult]:
    """Run all trials under a progress bar; return results in the faults' order."""
    order = {each.name: index for index, each in enumerate(rehearsal.scenarios)}
    minutes = rehearsal.estimate_s / 60
    error = Console(stderr=True)
    error.print(
        f"{len(order)} rehearsal{'s' * (len(order) != 1)}, about {minutes:.1f} minutes "
        "(--only chooses)",
        highlight=False,
    )
    columns = (
        *(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()),
        TimeElapsedColumn(),
    )
    rows: list[TrialResult] = []
    running: dict[str, None] = {}
    with Progress(*columns, console=error, transient=True) as progress:
        task = progress.add_task("starting", total=len(order))

        def show() -> None:
            progress.update(task, description=", ".join(tuple(running))[:70])

        def on_start(name: str) -> None:
            running[name] = None
            show()

        for row in rehearsal.run(on_start):
            rows.append(row)
            running.pop("undisturbed", None)
            running.pop(row.fault, None)
            progress.advance(task)
            show()
    return sorted(rows, key=lambda row: order[row.fault])


def _print(rehearsal: Rehearsal, rows: list[TrialResult], repeat: str) -> None:
    """Print notes, the table, and the command that repeats one row."""
    console = Console()
    for note in rehearsal.notes:
        console.print(f"{note}", highlight=False, markup=False)
    if console.width < _WIDTH:
        _print_blocks(console, rows)
    else:
        _print_table(console, rows)
    for name, reason in rehearsal.not_rehearsed.items():
        console.print(f"not rehearsed: {name}: {reason}", highlight=False)
    console.print(f"one alone: {repeat}", highlight=False, markup=False)


def _print_blocks(console: Console, rows: list[TrialResult]) -> None:
    """Print a few wrapped lines for each fault, where a table has no room."""
    names = [name.replace(",\n", " and ") for name in _COUNTS]
    for row in rows:
        head = Text(f"{row.fault}: ")
        head.append("; ".join([row.verdict, *row.why]), style=_STYLES[row.verdict])
        console.print(head, highlight=False)
        counts = (row.told, row.changed, row.lost, row.double)
        told = dict(zip(names, (row.expected, row.received, *counts), strict=True))
        lines = [
            f"injected: {row.injected}",
            f"the engine said: {'; '.join(row.said) or 'nothing'}",
            ", ".join(f"{name} {number}" for name, number in told.items()),
        ]
        if row.kept:
            lines[-1] += f"; {row.kept} more in the journal"
        if row.recovered_s is not None:
            lines.append(f"recovered after {row.recovered_s:.1f} s")
        for line in lines:
            console.print(Padding(Text(printable(line)), (0, 0, 0, 4)), highlight=False)


def _print_table(console: Console, rows: list[TrialResult]) -> None:
    table = Table("fault", "injected", "what the engine said", box=None)
    for name in ("recovered\nafter, s", *_COUNTS):
        table.add_column(name, justify="right")
    table.add_column("verdict")
    for row in rows:
        kept = f"\n+{row.kept} in journal" if row.kept else ""
        recovered = "" if row.recovered_s is None else f"{row.recovered_s:.1f}"
        verdict = "; ".join([row.verdict, *row.why])
        table.add_row(
            row.fault,
            row.injected,
            "; ".join(row.said) or "nothing",
            recovered,
            *(str(row.expected), f"{row.received}{kept}"),
            *(str(number) for number in (row.told, row.changed, row.lost, row.double)),
            f"[{_STYLES[row.verdict]}]{verdict}[/]",
        )
    console.print(table)


def _command_for(
    config: str,
    fault: str,
    recording: str | None,
    seed: int,
    live: bool,
    set_: list[str],
) -> str:
    """Return the command that repeats one fault."""
    words = ["neurovocal", "rehearse", config, "--only", fault]
    words += ["--seed", str(seed)]
    words += ["--live"] if live else []
    if recording is not None:
        words += ["--recording", recording]
    for each in set_:
        words += ["--set", each]
    return shlex.join(words)
