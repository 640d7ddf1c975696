"""Steps that commands share, from a configuration to a finished run."""

import re
import signal
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from types import FrameType
from typing import Annotated, Any

import typer

from neurovocal.engine.cli import interrupts
from neurovocal.engine.cli.logs import tell_repeats
from neurovocal.engine.config.located_yaml import Located, Location
from neurovocal.engine.config.partial import without_mistakes
from neurovocal.engine.config.plan import Plan, base_of
from neurovocal.engine.config.planner import make_plan
from neurovocal.engine.config.recorded import origin_line
from neurovocal.engine.config.schema import load_config, parse_config
from neurovocal.engine.contracts.clock import SystemClock
from neurovocal.engine.contracts.errors import ConfigError, StartInterrupted
from neurovocal.engine.contracts.plugin import BuildContext
from neurovocal.engine.contracts.registry import Registry
from neurovocal.engine.contracts.stages import RecordedCommand
from neurovocal.engine.contracts.types import Message
from neurovocal.engine.runtime.control.swap import LoadPlan
from neurovocal.engine.runtime.outcome import Outcome
from neurovocal.engine.runtime.runner import Runner
from neurovocal.engine.support.credentials import without_credentials
from neurovocal.engine.support.platform import reload_signal
from neurovocal.engine.support.process import uncollected
from neurovocal.engine.support.safe_yaml import dump
from neurovocal.engine.support.text import printable

# Models that a bundle brings: commands that take one say by --bundle which.
_OF_BUNDLES = ("classifier", "rnn_rbm")

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
SafeCsvOption = Annotated[
    bool,
    typer.Option(
        "--safe-csv", help="CSV: apostrophes before names that begin with = + - @."
    ),
]


class Display:
    """A sink for people that also shows the runner; this one shows nothing.

    Attributes
    ----------
    wants : frozenset of str
        Kinds of events to show.
    """

    wants: frozenset[str] = frozenset()

    def open(self) -> None:
        """Start to show."""

    def write(self, message: Message) -> None:
        """Show one message."""

    def flush(self, timeout: float) -> None:
        """Show the buffered messages."""

    def close(self) -> None:
        """Stop to show."""

    def watch(self, runner: Runner) -> None:
        """Show the lanes of this runner from now on."""

    def draw(self) -> None:
        """Show the present state; called about ten times per second."""


def require_csv(form: str) -> None:
    """Raise ConfigError if `--safe-csv` was given with another form of table."""
    if form != "csv":
        raise ConfigError(f"--safe-csv is for CSV, not for {form}: leave it out")


def refuse_tracks_on_stdout() -> None:
    """Raise ConfigError: several recordings were to be Audacity tracks on stdout."""
    raise ConfigError(
        "an Audacity track holds one recording, and these are several: add --out FILE, "
        "beside which each gets a track of its own, or take another --format"
    )


def new_run_name() -> str:
    """Return a random name for a run, 12 hexadecimal digits."""
    return uuid.uuid4().hex[:12]


def plan_of(located: Located, *, needs_devices: bool = True) -> Plan:
    """Return the plan of a configuration file; check all that needs no open device."""
    return plan_of_parts(located, base_of(located.name), needs_devices=needs_devices)


def plan_of_parts(
    located: Located,
    base: Path,
    *,
    dry_run: bool = False,
    needs_devices: bool = True,
) -> Plan:
    """Return the plan of a configuration with relative input paths from `base`.

    Parameters
    ----------
    located : Located
        The data, with their lines.
    base : Path
        Folder that relative input paths start from.
    dry_run : bool
        Whether sinks do not act: a recorded run is computed again.
    needs_devices : bool
        Whether a missing device is an error.

    Raises
    ------
    ConfigError
        All mistakes at once: those of the envelope and those of the plugins' options.
    """
    context = BuildContext(
        clock=SystemClock(),
        run=new_run_name(),
        base=base,
        dry_run=dry_run,
        config_text=_config_record(located, base),
    )
    with uncollected():
        return _checked_plan(located, context, needs_devices)


def _checked_plan(located: Located, context: BuildContext, needs_devices: bool) -> Plan:
    registry = Registry()
    try:
        config = parse_config(located)
    except ConfigError as error:
        rest = without_mistakes(located)
        if rest is None:
            raise
        make_plan(rest, located, registry, context, refused=error.problems)
        raise
    return make_plan(config, located, registry, context, needs_devices=needs_devices)


_PLUGIN_FILE = re.compile(r"\.py:[^\W\d]\w*$")


def _config_record(located: Located, base: Path) -> str:
    """Return the text that a journal keeps: origin, data without credentials.

    Environment variables stand in it as ``${NAME}``: a replay expands them again.
    """
    kept = without_credentials(located.unexpanded())
    origin = base / Path(located.name or "arguments").name
    return f"{origin_line(origin)}\n{dump(kept)}"


def plugin_files(data: object) -> list[str]:
    """Return the local plugins, ``file.py:attribute``, that a configuration names."""
    if isinstance(data, str):
        return [data] if _PLUGIN_FILE.search(data) else []
    if isinstance(data, dict):
        data = list(data.values())
    if not isinstance(data, list):
        return []
    return sorted({name for each in data for name in plugin_files(each)})


def plan_of_data(
    data: dict[str, object], base: Path, arguments: Mapping[Location, str] | None = None
) -> Plan:
    """Return the plan of a configuration made of a command's arguments.

    Parameters
    ----------
    data : dict
        The configuration.
    base : Path
        Folder that relative input paths start from.
    arguments : mapping of Location to str, optional
        Options of the command that give values, by where these stand.
    """
    located = Located("", data, {(): 1}, arguments=dict(arguments or {}))
    return plan_of_parts(located, base)


def data_of_detector(
    config: str | None, tile: int | None = None, *, labels: bool = False
) -> tuple[dict[str, Any], Path]:
    """Return a configuration with tile and detector of the user's own, and its base.

    Parameters
    ----------
    config : str or None
        Name of the user's configuration; None: only `tile` is in what is returned.
    tile : int, optional
        Frames per network call without a configuration.
    labels : bool
        Whether labels are written: models that are left out are told then.
    """
    if config is None:
        own = {} if tile is None else {"tile": tile}
        return {"version": 1, **own}, Path.cwd()
    checked, located = load_config(config)
    lane = checked.lanes[0]
    data: dict[str, Any] = {"version": 1, "tile": checked.shared.tile}
    if lane.detector is not None:
        data["detector"] = lane.detector.model_dump()
    left_out = [
        model.plugin for model in lane.models if model.plugin not in _OF_BUNDLES
    ]
    if left_out and labels:
        s = "s" if len(left_out) > 1 else ""
        typer.echo(
            printable(
                f"note: of '{located.name}' only detector and tile are used here, not "
                f"its model{s} {', '.join(left_out)}: `neurovocal run` runs all"
            ),
            err=True,
        )
    return data, base_of(located.name)


def run_plan(
    plan: Plan,
    display: Display | None = None,
    recalled: Sequence[RecordedCommand] = (),
    reload: LoadPlan | None = None,
    recall: Callable[[str], Plan] | None = None,
    opened: Callable[[], None] = lambda: None,
) -> Outcome:
    """Run a plan until its end or Ctrl-C, and print an error line for each loss.

    The first SIGINT or SIGTERM stops in order within the configured time, the
    second at once.

    Parameters
    ----------
    plan : Plan
        The lanes and sinks to run.
    display : Display, optional
        A further sink, which is also drawn during the run.
    recalled : sequence of RecordedCommand
        Commands of a recorded run; each is applied at its sample.
    reload : callable, optional
        Reads the configuration again, or another one: for SIGHUP and `swap`.
    recall : callable, optional
        Reads a configuration that a recorded run swapped to from its text.
    opened : callable
        Called once all sinks are open: where somebody connects, there is somebody.

    Raises
    ------
    StartInterrupted
        A signal came before the run had started.
    """
    runner = Runner(plan, [display] if display else [], recalled)
    runner.swapper.load, runner.swapper.load_recorded = reload, recall
    if display:
        display.watch(runner)
    with _signals(runner) as interrupted:
        try:
            outcome = runner.run(display.draw if display else lambda: None, opened)
        except Exception as error:
            # A library that was being loaded may turn it into an error of its own.
            if interrupted() and not runner.started:
                raise StartInterrupted from error
            raise
    tell_repeats()
    for sentence in outcome.sentences():
        typer.echo(printable(f"error: {sentence}"), err=True)
    return outcome


@contextmanager
def _signals(runner: Runner) -> Iterator[Callable[[], bool]]:
    if interrupts.asked():  # a library lost the exception
        raise StartInterrupted
    n_signals = 0

    def on_signal(number: int, frame: FrameType | None) -> None:
        nonlocal n_signals
        n_signals += 1
        runner.stop(force=n_signals > 1)
        if not runner.started:
            # Opening a device or file may take long: leave it now.
            raise StartInterrupted

    def on_reload(number: int, frame: FrameType | None) -> None:
        # Building lanes takes time, and this thread may hold any lock.
        Thread(target=runner.swapper.reload, daemon=True).start()

    numbers = [signal.SIGINT, signal.SIGTERM]
    before = [signal.signal(number, on_signal) for number in numbers]
    reload = reload_signal()
    if runner.swapper.load is not None and reload is not None:
        numbers.append(signal.Signals(reload))
        before.append(signal.signal(reload, on_reload))
    try:
        yield lambda: n_signals > 0
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def is_terminal() -> bool:
    """Return whether stdout is a terminal."""
    return sys.stdout.isatty()
