"""What commands share: from a configuration to a finished run."""

import re
import signal
import sys
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from types import FrameType
from typing import Annotated, Protocol

import typer
import yaml

from neurovocal.engine.config.located_yaml import Located, parse_located
from neurovocal.engine.config.plan import Plan, base_of
from neurovocal.engine.config.planner import make_plan
from neurovocal.engine.config.schema import Config, parse_config
from neurovocal.engine.contracts.clock import SystemClock
from neurovocal.engine.contracts.errors import StartInterrupted
from neurovocal.engine.contracts.plugin import BuildContext
from neurovocal.engine.contracts.registry import Registry
from neurovocal.engine.contracts.stages import RecordedCommand, Sink
from neurovocal.engine.runtime.control.swap import LoadPlan
from neurovocal.engine.runtime.outcome import Outcome
from neurovocal.engine.runtime.runner import Runner
from neurovocal.engine.support.credentials import without_credentials
from neurovocal.engine.support.text import printable

SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="A.B.C=VALUE", help="Override a value; repeatable."),
]
BlockLength = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="N",
        help="Samples per block of the source; the events do not depend on it.",
    ),
]


class Display(Sink, Protocol):
    """A sink for people: it also watches the runner and is drawn at each tick."""

    def watch(self, runner: Runner) -> None:
        """Learn whose lanes are to be shown."""
        ...

    def draw(self) -> None:
        """Show the present state; called about ten times a second."""
        ...


def new_run_name() -> str:
    """A name that no other run has."""
    return uuid.uuid4().hex[:12]


def plan_of(config: Config, located: Located) -> Plan:
    """Check everything about a configuration that can be checked unopened."""
    return plan_of_parts(config, located, base_of(located.name))


def plan_of_parts(
    config: Config, located: Located, base: Path, *, dry_run: bool = False
) -> Plan:
    """Same, with the folder that relative input paths start from.

    `dry_run`: a recorded run is computed a second time, and its sinks do not act.
    """
    context = BuildContext(
        clock=SystemClock(),
        run=new_run_name(),
        base=base,
        dry_run=dry_run,
        config_text=_config_record(located, base),
    )
    return make_plan(config, located, Registry(), context)


# First line of the configuration that a journal keeps: the file that it came from.
_ORIGIN = "# configuration: "


def _config_record(located: Located, base: Path) -> str:
    """Configuration as a journal keeps it, without credentials, its origin first."""
    kept = without_credentials(located.data)
    origin = base / Path(located.name or "arguments").name
    text: str = yaml.safe_dump(kept, sort_keys=False, allow_unicode=True)
    return f"{_ORIGIN}{origin}\n{text}"


def recorded_base(config_text: str) -> Path:
    """Folder that relative paths of a recorded configuration start from.

    The working folder, where the record does not say which file it came from.
    """
    origin = re.search(f"^{_ORIGIN}(.*)$", config_text, re.MULTILINE)
    return Path(origin[1]).parent if origin else Path.cwd()


def plan_of_data(data: dict[str, object]) -> Plan:
    """Plan for a configuration that a command assembled from its arguments."""
    located = parse_located(yaml.safe_dump(data, sort_keys=False), "")
    return plan_of_parts(parse_config(located), located, Path.cwd())


def run_plan(
    plan: Plan,
    display: Display | None = None,
    recalled: Sequence[RecordedCommand] = (),
    reload: LoadPlan | None = None,
) -> Outcome:
    """Run a plan until its end or Ctrl-C, and say what was lost.

    Commands of a recorded run, `recalled`, are carried out where they were.
    `reload` reads the configuration again, or another: for SIGHUP and `swap`.

    The first SIGINT or SIGTERM stops in order within the configured time, the
    second at once.
    """
    runner = Runner(plan, [display] if display else [], recalled)
    runner.swapper.load = reload
    if display:
        display.watch(runner)
    with _signals(runner) as interrupted:
        try:
            outcome = runner.run(display.draw) if display else runner.run()
        except Exception as error:
            # A library that was being loaded makes an error of its own of it.
            if interrupted() and not runner.started:
                raise StartInterrupted from error
            raise
    for sentence in outcome.sentences():
        typer.echo(printable(f"error: {sentence}"), err=True)
    return outcome


@contextmanager
def _signals(runner: Runner) -> Iterator[Callable[[], bool]]:
    asked = 0

    def on_signal(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        asked += 1
        runner.stop(force=asked > 1)
        if not runner.started:
            # Whatever is being opened may wait for long: leave it now.
            raise StartInterrupted

    def on_reload(number: int, frame: FrameType | None) -> None:
        # Building lanes takes its time, and this thread may hold any lock.
        Thread(target=runner.swapper.reload, daemon=True).start()

    numbers = [signal.SIGINT, signal.SIGTERM]
    before = [signal.signal(number, on_signal) for number in numbers]
    if runner.swapper.load is not None:
        numbers.append(signal.SIGHUP)
        before.append(signal.signal(signal.SIGHUP, on_reload))
    try:
        yield lambda: asked > 0
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def is_terminal() -> bool:
    """Whether a person watches stdout."""
    return sys.stdout.isatty()
