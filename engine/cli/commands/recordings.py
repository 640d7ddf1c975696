"""``neurovocal detect`` and ``neurovocal label``: tables of recordings."""

import re
import sys
from dataclasses import replace
from os.path import isdir
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from neurovocal.engine.cli.session import (
    BlockLength,
    Display,
    SafeCsvOption,
    data_of_detector,
    plan_of_data,
    refuse_tracks_on_stdout,
    require_csv,
    run_plan,
)
from neurovocal.engine.config.claims import refuse_overlap
from neurovocal.engine.config.plan import Plan
from neurovocal.engine.contracts.abilities import KnowsStart, ReportsProgress
from neurovocal.engine.contracts.errors import (
    EXIT_CLEAN,
    EXIT_LOSS,
    ConfigError,
    StartInterrupted,
)
from neurovocal.engine.contracts.tuning import load_tuner
from neurovocal.engine.contracts.types import Message, NearMiss
from neurovocal.engine.runtime.runner import Runner
from neurovocal.engine.runtime.workers.lane_worker import LaneWorker
from neurovocal.engine.support.names import beside, resolved
from neurovocal.engine.support.text import printable

TableFormat = Literal["csv", "raven", "audacity", "json"]

FilesArgument = Annotated[
    list[str], typer.Argument(help="Recordings, folders or globs.", metavar="FILES...")
]
OutOption = Annotated[
    str, typer.Option("--out", "-o", metavar="F", help="Output file; '-' is stdout.")
]
FormatOption = Annotated[
    TableFormat, typer.Option("--format", help="Form of the table that is written.")
]
DetectorOption = Annotated[
    str | None,
    typer.Option(
        "--config",
        metavar="C",
        help="Take the detector (and tile) from this configuration or preset; "
        "default: the bundle's detector, or `bands`.",
    ),
]
LikeOption = Annotated[
    Path | None,
    typer.Option(
        "--like",
        metavar="TABLE",
        help="Fit a detector to the calls in this table first (five are enough; CSV, "
        "Raven, Audacity, TextGrid, ...); `tune` keeps one.",
    ),
]
KindOption = Annotated[
    str | None,
    typer.Option(
        "--label", metavar="NAME", help="With --like: only calls with this label."
    ),
]
ChannelsOption = Annotated[
    str | None,
    typer.Option(help="Channels to use, from 1, such as '2' or '1,2'; default: 1."),
]
TimezoneOption = Annotated[
    str | None,
    typer.Option(
        metavar="ZONE",
        help="Zone of times in metadata and names that do not tell theirs, such as "
        "Europe/Berlin, UTC or +02:00.",
    ),
]
JsonOption = Annotated[
    bool,
    typer.Option("--json", help="JSON lines with times of day: --format json."),
]
ExplainOption = Annotated[
    str | None,
    typer.Option(
        metavar="F",
        help="PNG of one recording: spectrogram, score, thresholds, noise floor, "
        "segments, and near misses with the reason.",
    ),
]
FromOption = Annotated[
    float | None,
    typer.Option(
        "--from", min=0, metavar="S", help="Where the picture begins; default: 0 s."
    ),
]
ToOption = Annotated[
    float | None,
    typer.Option(
        "--to",
        min=0,
        metavar="S",
        help="Where it ends, at most 60 s later; default: 10 s later.",
    ),
]


def detect(
    files: FilesArgument,
    config: DetectorOption = None,
    like: LikeOption = None,
    kind: KindOption = None,
    out: OutOption = "-",
    form: FormatOption = "csv",
    safe_csv: SafeCsvOption = False,
    block_length: BlockLength = None,
    channels: ChannelsOption = None,
    timezone: TimezoneOption = None,
    json: JsonOption = False,
    explain: ExplainOption = None,
    from_s: FromOption = None,
    to_s: ToOption = None,
) -> None:
    """Find the vocalizations in recordings; no model is needed.

    Writes file, onset_s, offset_s, score (the level above the detector's
    threshold at the onset). Presets for --config: songbird, mouse-ultrasound,
    bat-ultrasound, mammal-calls, insects.
    """
    data, base = data_of_detector(config)
    data["source"] = _source(files, block_length, channels, timezone)
    form = _form(form, json)
    table = _table(files, out, form, "segments", safe_csv)
    data["sinks"] = [table, *_pictures(explain, from_s, to_s)]
    if like is not None:
        if config is not None:
            raise ConfigError(
                "--like and --config exclude each other: both give the detector"
            )
        data["detector"] = _detector_like(like, kind, data, base, out)
    elif kind is not None:
        raise ConfigError("--label chooses among examples: add --like TABLE")
    raise typer.Exit(_run(data, base))


def label(
    files: FilesArgument,
    bundle: Annotated[
        str, typer.Option(metavar="DIR", help="Model bundle, or one that ships.")
    ] = "bengalese-finch",
    config: DetectorOption = None,
    out: OutOption = "-",
    form: FormatOption = "csv",
    safe_csv: SafeCsvOption = False,
    block_length: BlockLength = None,
    channels: ChannelsOption = None,
    timezone: TimezoneOption = None,
    json: JsonOption = False,
    explain: ExplainOption = None,
    from_s: FromOption = None,
    to_s: ToOption = None,
) -> None:
    """Find and label the vocalizations in recordings with a bundle's classifier.

    Writes file, onset_s, offset_s, label, posterior. The output does not depend
    on --block-length, byte for byte.
    """
    data, base = data_of_detector(config, labels=True)
    data["bundle"] = str(resolved(Path(bundle))) if isdir(bundle) else bundle
    # The table has final labels alone.
    options = {"provisional": False, "forecast": False, "prior": "none"}
    data["models"] = [{"plugin": "classifier", "options": options, "on_error": "fail"}]
    data["source"] = _source(files, block_length, channels, timezone)
    form = _form(form, json)
    table = _table(files, out, form, "labels", safe_csv)
    data["sinks"] = [table, *_pictures(explain, from_s, to_s)]
    raise typer.Exit(_run(data, base))


def _detector_like(
    table: Path, kind: str | None, data: dict[str, Any], base: Path, out: str
) -> dict[str, Any]:
    """Return a detector that is fitted to examples, among the files or beside them."""
    if out != "-":
        refuse_overlap("--out", {"table": [table]}, [Path(out)])
    plan = plan_of_data(data, base)
    source = plan.lanes[0].source
    files = [each.path for each in source.plugin.reads(source.options, plan.context)]
    return load_tuner()(
        table,
        files,
        label=kind,
        channels=data["source"]["options"].get("channels", ()),
        tell=lambda sentence: typer.echo(printable(sentence), err=True),
    )


# Which option gives a value of the configuration that a command makes.
_ARGUMENTS = {
    ("source", "options", "block_length"): "--block-length",
    ("source", "options", "channels"): "--channels",
    ("source", "options", "timezone"): "--timezone",
    ("sinks", 1, "options", "from_s"): "--from",
    ("sinks", 1, "options", "to_s"): "--to",
}


def _form(form: TableFormat, as_json: bool) -> TableFormat:
    """Return the format of the table; raise ConfigError if two are asked for."""
    if as_json and form not in ("csv", "json"):
        raise ConfigError(
            f"--json and --format {form} are two formats of one table: leave one out"
        )
    return "json" if as_json else form


def _source(
    files: list[str],
    block_length: int | None,
    channels: str | None,
    timezone: str | None,
) -> dict[str, Any]:
    options: dict[str, Any] = {
        "path": files,
        "streams": "each",
        "names": "path",
        "recursive": True,
    }
    if timezone is not None:
        options["timezone"] = timezone
    if block_length is not None:
        options["block_length"] = block_length
    if channels is not None:
        numbers = channels.split(",")
        if not all(re.fullmatch(r"\s*[1-9]\d{0,3}\s*", part) for part in numbers):
            raise typer.BadParameter(
                f"'{channels}' is not a list of channel numbers, from 1, such as '1,2'",
                param_hint="--channels",
            )
        options["channels"] = [int(part) for part in numbers]
    return {"plugin": "file", "options": options}


def _table(
    files: list[str], out: str, form: TableFormat, content: str, safe_csv: bool
) -> dict[str, Any]:
    if safe_csv:
        require_csv(form)
    options = {"path": out, "format": form, "content": content, "safe_csv": safe_csv}
    if form == "audacity":  # a track holds one recording
        options["apart"] = len(files) > 1 or not Path(files[0]).is_file()
    return {"plugin": "table", "options": options}


def _pictures(
    path: str | None, from_s: float | None, to_s: float | None
) -> list[dict[str, Any]]:
    """Return the sink of the picture, if one was asked for."""
    given = {"from_s": from_s, "to_s": to_s}
    options = {name: value for name, value in given.items() if value is not None}
    if to_s is not None and to_s <= (from_s or 0.0):
        raise ConfigError(
            f"--from {from_s or 0.0:g} is not before --to {to_s:g}: nothing would be "
            "drawn"
        )
    if path is not None:
        return [{"plugin": "explain", "options": {"path": path, **options}}]
    if options:
        raise ConfigError(
            "--from and --to choose the part that --explain draws; the table has all: "
            "add --explain F, or leave them out"
        )
    return []


def _explained(plan: Plan) -> Plan:
    """Return a plan that tells near misses, if its detector can, for one recording.

    Raises
    ------
    ConfigError
        There are several recordings or channels.
    """
    lane = plan.lanes[0]
    n_files = _n_recordings(plan)
    if n_files > 1:
        raise ConfigError(
            f"--explain draws one recording, and these are {n_files}: name one"
        )
    channels = lane.source.options.channels
    if channels is not None and len(channels) > 1:
        raise ConfigError(
            f"--explain draws one channel: choose it, such as --channels {channels[-1]}"
        )
    detector = lane.detector
    if "near_misses" not in type(detector.options).model_fields:
        return plan
    options = detector.options.model_copy(update={"near_misses": True})
    if any(detector.plugin.check(options, plan.context)):
        return plan
    detector = replace(detector, options=options)
    return replace(plan, lanes=[replace(lane, detector=detector)])


def _n_recordings(plan: Plan) -> int:
    source = plan.lanes[0].source
    return len(list(source.plugin.reads(source.options, plan.context)))


def _run(data: dict[str, Any], base: Path) -> int:
    plan = plan_of_data(data, base, _ARGUMENTS)
    progress = _Progress()
    table, *pictures = plan.lanes[0].sinks
    options = table.stage.options
    out = options.path
    if options.apart and out == "-" and _n_recordings(plan) > 1:
        refuse_tracks_on_stdout()
    if pictures:
        plan = _explained(plan)
    try:
        outcome = run_plan(plan, progress)
    except StartInterrupted:
        typer.echo("stopped before anything was written", err=True)
        return EXIT_LOSS
    progress.print_starts()
    s = "" if outcome.streams == 1 else "s"
    written = f"{progress.rows} rows of {outcome.streams} recording{s}"
    name = "standard output" if out == "-" else f"'{out}'"
    if options.apart and out != "-":
        name = f"'{beside(Path(out), middle='.RECORDING')}', a track each"
    if outcome.cut_short:
        typer.echo(printable(f"stopped: {name} is partial ({written})"), err=True)
        return outcome.exit_code or EXIT_LOSS
    if out != "-" and outcome.exit_code in (EXIT_CLEAN, EXIT_LOSS):
        typer.echo(printable(f"wrote {written} to {name}"), err=True)
    if progress.near_misses and not pictures:
        told = (
            "1 near miss is"
            if progress.near_misses == 1
            else (f"{progress.near_misses} near misses are")
        )
        typer.echo(
            f"note: {told} not in the table (`--explain F` draws them)", err=True
        )
    for picture in pictures if outcome.exit_code in (EXIT_CLEAN, EXIT_LOSS) else ():
        _report_picture(picture.stage.options, progress.picture)
    return outcome.exit_code


def _report_picture(options: Any, figures: dict[str, Any]) -> None:
    """Print which part of the recording was drawn.

    Raises
    ------
    ConfigError
        The recording ended before the part that was asked for.
    """
    heard_s, drawn_s = figures["heard_s"], figures["drawn_s"]
    if drawn_s is None:
        if heard_s == 0:
            raise ConfigError("there is no sound to draw: no picture was written")
        raise ConfigError(
            f"--from {options.from_s:g}: the recording ends at {heard_s:g} s: no "
            "picture was written"
        )
    start_s, stop_s = drawn_s
    more = ""
    if start_s > 0 or stop_s < heard_s:
        more = f" of {heard_s:g} s (--from and --to choose another part)"
    part = f"{start_s:g} to {stop_s:g} s{more}"
    typer.echo(printable(f"drew {part} to '{options.path}'"), err=True)


class _Progress(Display):
    """A progress bar on stderr, if that is a terminal; counts near misses."""

    wants = frozenset({"near_miss"})

    def __init__(self) -> None:
        self.near_misses = 0
        self._lane: LaneWorker | None = None
        self._runner: Runner | None = None
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[seconds]:.0f} s of audio"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
            disable=not sys.stderr.isatty(),
        )
        self._task = self._bar.add_task("reading", total=None, seconds=0.0)

    def write(self, message: Message) -> None:
        """Count a near miss."""
        if isinstance(message.event, NearMiss):
            self.near_misses += 1 + message.event.omitted

    def watch(self, runner: Runner) -> None:
        """Show the progress of this runner's lane."""
        self._lane = runner.local_lanes[0]
        self._runner = runner

    @property
    def rows(self) -> int:
        """Number of rows of the table."""
        rows = self._statistics(0).get("rows", 0)
        return rows if isinstance(rows, int) else 0

    @property
    def picture(self) -> dict[str, Any]:
        """Figures of the picture."""
        return self._statistics(1)

    def _statistics(self, number: int) -> dict[str, Any]:
        """Return the counters of a sink of the plan."""
        # The display itself is before them.
        return (
            {} if self._runner is None else self._runner.sinks[1 + number].statistics()
        )

    def print_starts(self) -> None:
        """Print the known start times of recordings on stderr.

        Tables count from the start of each file; JSON lines have the time of day.
        """
        source = None if self._lane is None else self._lane.reader.source
        if isinstance(source, KnowsStart):
            for line in source.starts():
                typer.echo(line, err=True)

    def draw(self) -> None:
        """Show how much audio has been read."""
        if self._lane is None:
            return
        source = self._lane.reader.source
        done, total = (
            source.progress if isinstance(source, ReportsProgress) else (0, None)
        )
        self._bar.update(
            self._task,
            description=source.info.stream[-40:],
            seconds=self._lane.reader.seconds,
            completed=done,
            total=total,
        )

    def open(self) -> None:
        """Show the bar."""
        self._bar.start()

    def close(self) -> None:
        """Remove the bar."""
        self._bar.stop()
