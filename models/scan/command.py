"""``neurovocal scan``: label whole archives into one Parquet data set."""

import hashlib
import json
import os
import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from neurovocal.engine import ConfigError
from neurovocal.engine.cli.session import data_of_detector
from neurovocal.engine.contracts.bundle import MANIFEST_NAME, load_bundle
from neurovocal.engine.contracts.errors import EXIT_CLEAN, EXIT_LOSS, EXIT_RUNTIME
from neurovocal.engine.support.names import at_home
from neurovocal.engine.support.platform import usable_cores
from neurovocal.engine.support.text import printable
from neurovocal.models.scan.cluster import (
    SchedulerLostError,
    open_cluster,
    require_dask,
)
from neurovocal.models.scan.labelling import Job, library_versions, pack, plan_job
from neurovocal.models.scan.progress import Progress
from neurovocal.models.scan.recordings import (
    Input,
    find_inputs,
    station_pattern_problem,
)
from neurovocal.models.scan.results import BAD, LABELS, Results
from neurovocal.models.scan.scan import Counts, make_tasks, run_tasks
from neurovocal.plugins.sources.audio_files.start_time import zone_of

# Frames per network call: nobody waits for a label here, and large tiles are cheap.
_TILE = 500
_MIB = 1 << 20
# Of the classifier: provisional labels and forecasts are for those who listen live.
_OFFLINE = {"provisional": False, "forecast": False, "prior": "none"}
_CHANGED = (
    "it changed since it was labelled: its rows are those of the earlier content; name "
    "all recordings of the first scan to have it read again"
)


def scan(
    recordings: Annotated[
        list[str],
        typer.Argument(
            help="Recordings, folders, globs; also s3://, gs://, https:// addresses.",
            metavar="RECORDINGS...",
        ),
    ],
    out: Annotated[
        Path,
        typer.Option("--out", "-o", metavar="DIR", help="Folder of the results."),
    ],
    bundle: Annotated[
        str | None,
        typer.Option(
            metavar="DIR",
            help="Model bundle, or one that ships; without it segments are found and "
            "not labelled.",
        ),
    ] = None,
    config: Annotated[
        str | None,
        typer.Option(
            metavar="C",
            help="Take the detector (and tile) from this configuration or preset; "
            "default: the bundle's detector, or `bands`.",
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="N", help="Processes on this machine; default: all cores."
        ),
    ] = None,
    scheduler: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Dask scheduler whose workers are used, such as tcp://10.0.0.1:8786.",
        ),
    ] = None,
    channels: Annotated[
        str | None,
        typer.Option(help="Channels to use, from 1, such as '2' or '1,2'; default: 1."),
    ] = None,
    timezone: Annotated[
        str | None,
        typer.Option(
            metavar="ZONE",
            help="Zone of times in metadata and names that do not tell theirs, such as "
            "Europe/Berlin, UTC or +02:00.",
        ),
    ] = None,
    station: Annotated[
        str | None,
        typer.Option(
            metavar="REGEX",
            help="Finds the station in a path; its group is the station. Default: what "
            "stands before the time in the name, or else the folder.",
        ),
    ] = None,
    relative_to: Annotated[
        str | None,
        typer.Option(
            metavar="DIR",
            help="Names in tables are relative to this folder or address; default: "
            "whole paths. The archive may be elsewhere when a scan goes on.",
        ),
    ] = None,
    task_size: Annotated[
        int,
        typer.Option(
            min=1, metavar="MIB", help="Small recordings are grouped up to this size."
        ),
    ] = 64,
) -> None:
    """Label whole archives on all cores, or on a Dask cluster.

    Writes a Parquet data set, partitioned by day and station, below --out. The same
    command continues an interrupted scan; the result does not depend on the number
    of workers, byte for byte.
    """
    require_dask()
    job = make_job(bundle, config, channels, timezone, station)
    settings = {**job.provenance, "task_mib": task_size}
    if relative_to is not None:
        settings["names"] = "relative"
    typer.echo("listing recordings ...", err=True)
    inputs = find_inputs(recordings, relative_to)
    results = Results(at_home(out), settings)
    _refuse_inputs_in(results.folder, inputs)
    if scheduler is not None and workers is not None:
        raise ConfigError(
            "--workers and --scheduler exclude each other: a scheduler has its workers"
        )
    count = workers or usable_cores()
    try:
        code = _scan(job, inputs, results, count, scheduler, task_size * _MIB)
    finally:
        results.close()
    raise typer.Exit(code)


def _scan(
    job: Job,
    inputs: Sequence[Input],
    results: Results,
    workers: int,
    scheduler: str | None,
    most_bytes: int,
) -> int:
    """Run a scan; return the exit code after telling what is there."""
    results.open({each.shown: each.version for each in inputs})
    finished = results.finished
    left = [each for each in inputs if each.shown not in finished]
    counts = Counts(len(inputs), sum(each.size or 0 for each in left))
    counts.already = len(inputs) - len(left)
    counts.later = {
        each.shown: _CHANGED
        for each in inputs
        if finished.get(each.shown, each.version) != each.version
    }
    counts.already -= len(counts.later)
    if counts.already:
        typer.echo(f"{counts.already} recordings are finished already", err=True)
    if results.again:
        typer.echo(
            f"{len(results.again)} recordings are read again: some have changed since "
            "they were labelled",
            err=True,
        )
    progress = Progress()
    stopped = None
    code = EXIT_CLEAN
    try:
        if left:
            tasks = make_tasks(inputs, finished.copy(), most_bytes, job.station)
            with open_cluster(job, workers, scheduler) as cluster:
                run_tasks(tasks, cluster, results, counts, progress)
    except KeyboardInterrupt:
        stopped, code = "stopped", EXIT_LOSS
    except SchedulerLostError as error:
        stopped, code = f"error: {error}", EXIT_RUNTIME
    except OSError as error:
        reason = error.strerror or str(error)
        stopped, code = f"error: '{results.folder}': {reason}", EXIT_RUNTIME
    progress.clear()
    with suppress(OSError):  # told already, if the disk is what failed
        results.write_bad(counts.later)
    return _tell(results, counts, stopped) or code


def _tell(results: Results, counts: Counts, stopped: str | None) -> int:
    """Print what is in the folder of results; return 2 if something is missing."""
    totals, folder = results.totals, results.folder
    good = totals.recordings - totals.bad
    if stopped is not None:
        left = counts.total - counts.already - counts.recordings - len(counts.later)
        typer.echo(
            printable(
                f"{stopped}: {left} of {counts.total} recordings are left; the same "
                "command continues"
            ),
            err=True,
        )
        return 0
    typer.echo(
        printable(
            f"'{folder / LABELS}' has {totals.segments} segments of {good} recordings, "
            f"{totals.audio_s / 3600:.2f} h"
        ),
        err=True,
    )
    if totals.without_time:
        typer.echo(
            f"note: {totals.without_time} recordings do not tell when they began: they "
            "are in no day (--timezone gives the zone of times without one)",
            err=True,
        )
    not_whole = totals.bad + totals.partial + len(counts.later)
    if not_whole:
        s, are = ("", "is") if not_whole == 1 else ("s", "are")
        typer.echo(
            printable(
                f"error: {not_whole} recording{s} {are} not in it, or not whole: "
                f"'{folder / BAD}' tells why"
            ),
            err=True,
        )
    return EXIT_RUNTIME if not_whole else EXIT_CLEAN


def make_job(
    bundle: str | None,
    config: str | None,
    channels: str | None,
    timezone: str | None,
    station: str | None,
) -> Job:
    """Return the job that the options ask for; everything is checked here.

    Raises
    ------
    ConfigError
        An option, the configuration or the bundle cannot be used.
    """
    problems = []
    if timezone is not None:
        try:
            zone_of(timezone)
        except ValueError as error:
            problems.append(f"--timezone: {error}")
    if station is not None and (problem := station_pattern_problem(station)):
        problems.append(problem)
    if problems:
        raise ConfigError(problems)
    numbers = _channels(channels)
    data, base = data_of_detector(config, _TILE, labels=True)
    folder, files, origin = None, {}, None
    if bundle is not None:
        loaded = load_bundle(bundle)
        folder, manifest = loaded.folder, loaded.manifest
        files = pack(folder, [MANIFEST_NAME, *manifest.files])
        digest = hashlib.sha256(files[MANIFEST_NAME]).hexdigest()
        origin = {"name": manifest.name, "sha256": digest}
        if manifest.classifier is not None:
            data["models"] = [
                {
                    "plugin": "classifier",
                    "options": {**_OFFLINE},
                    "on_error": "fail",
                }
            ]
    plan = plan_job(data, base, folder)
    detector = plan.lanes[0].detector
    versions = library_versions()
    provenance = {
        "neurovocal": versions["neurovocal"],
        "bundle": origin,
        "detector": {
            "plugin": detector.config.plugin,
            "options": detector.options.model_dump(mode="json"),
        },
        "tile": data["tile"],
        "channels": list(numbers),
        "timezone": timezone,
        "station": station,
    }
    text = json.dumps([provenance, versions, str(base)], sort_keys=True)
    digest = hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
    return Job(
        digest,
        data,
        str(base),
        files,
        numbers,
        timezone,
        station,
        versions,
        provenance,
    )


def _channels(text: str | None) -> tuple[int, ...]:
    if text is None:
        return (1,)
    parts = text.split(",")
    if not all(re.fullmatch(r"\s*[1-9]\d{0,3}\s*", part) for part in parts):
        raise typer.BadParameter(
            f"'{text}' is not a list of channel numbers, from 1, such as '1,2'",
            param_hint="--channels",
        )
    return tuple(int(part) for part in parts)


def _refuse_inputs_in(folder: Path, inputs: Sequence[Input]) -> None:
    """Refuse results inside of which recordings lie."""
    inside = f"{os.path.abspath(folder)}{os.sep}"
    for each in inputs:
        if each.name.startswith(inside):
            raise ConfigError(
                f"--out: '{folder}' holds the recording '{each.shown}': name another "
                "folder"
            )
