"""All checks of `neurovocal doctor`, for a machine or for one configuration."""

import re
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from textwrap import wrap

from neurovocal.engine.cli.diagnosis.findings import Finding
from neurovocal.engine.cli.diagnosis.machine import (
    disk_finding,
    machine_findings,
    port_findings,
    sound_findings,
)
from neurovocal.engine.cli.diagnosis.software import (
    extra_findings,
    software_findings,
)
from neurovocal.engine.cli.session import plan_of
from neurovocal.engine.config.plan import Plan, StagePlan
from neurovocal.engine.config.schema import locate_config
from neurovocal.engine.contracts.errors import ConfigError
from neurovocal.engine.support.names import resolved
from neurovocal.engine.support.text import printable

_DEMO_PORTS = (5556, 8420)
_PORT = re.compile(r"tcp:(\d+)")
_NARROWEST = 60
_COLUMN = 9 + 17  # state and check, before the text


def examine(config: str | None) -> Iterator[Finding]:
    """Yield the findings about this machine, one after another.

    Parameters
    ----------
    config : str, optional
        Configuration that is to run here: a file, or the name of one that ships. Its
        ports, folders and devices are looked at instead of the demo's.
    """
    yield from software_findings()
    yield from machine_findings()
    if config is None:
        yield disk_finding(Path.cwd(), what="disk")
        yield from port_findings(_DEMO_PORTS, needed=False)
        yield from sound_findings(needed=False)
    else:
        yield from _configured_findings(config)
    yield from extra_findings()


def _configured_findings(config: str) -> Iterator[Finding]:
    try:
        plan = plan_of(locate_config(config), needs_devices=False)
    except ConfigError as error:
        for problem in error.problems:
            yield Finding(
                "configuration", "missing", problem, f"neurovocal check {config}"
            )
        yield from sound_findings(needed=False)
        return
    yield Finding("configuration", "ok", f"{plan.name}: correct")
    for sentence in plan.absent:
        yield Finding("device", "missing", sentence, "neurovocal devices")
    stages = list(_stages(plan))
    ports = [
        int(match[1])
        for stage in stages
        for name in stage.resources
        if (match := _PORT.fullmatch(name))
    ]
    yield from port_findings(ports, needed=True)
    folders = {resolved(Path())}
    for stage in stages:
        for access in stage.plugin.writes(stage.options, plan.context):
            folder = access.path if access.holds else access.path.parent
            folders.add(resolved(folder))
    for folder in sorted(folders):
        yield disk_finding(folder)
    listens = any(lane.source.plugin.devices is not None for lane in plan.lanes) or any(
        stage.config.plugin == "speaker" for stage in stages
    )
    yield from sound_findings(needed=listens)


def _stages(plan: Plan) -> Iterator[StagePlan]:
    for lane in plan.lanes:
        yield from (lane.source, lane.features, lane.detector, *lane.models)
    yield from (sink.stage for sink in plan.all_sinks)
    if plan.control is not None:
        yield plan.control


def lines_of(findings: Iterable[Finding], columns: int | None = None) -> Iterator[str]:
    """Yield findings as lines of a table for people."""
    if columns is None:
        columns = shutil.get_terminal_size().columns
    width = max(_NARROWEST, columns) - _COLUMN
    for finding in findings:
        head = f"{finding.state:<8} {finding.check:<16} "
        for line in wrap(printable(finding.text), width) or [""]:
            yield f"{head:<{_COLUMN}}{line}".rstrip()
            head = ""
        if finding.fix:  # never wrapped: it can be copied
            yield f"{'':<{_COLUMN - 2}}> {printable(finding.fix)}"


def verdict(findings: Iterable[Finding]) -> str:
    """Return the last line of a report."""
    n_missing = sum(finding.state == "missing" for finding in findings)
    if not n_missing:
        return "nothing is missing"
    return f"{n_missing} thing{'s are' if n_missing > 1 else ' is'} missing"
