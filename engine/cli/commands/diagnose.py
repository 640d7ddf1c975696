"""``neurovocal doctor`` and ``support``: what is missing, and a file for help."""

import json
from pathlib import Path
from typing import Annotated

import typer

from neurovocal.engine.cli.diagnosis.report import examine, lines_of, verdict
from neurovocal.engine.cli.diagnosis.support import support_parts, write_support_file
from neurovocal.engine.contracts.errors import EXIT_CLEAN, EXIT_CONFIG
from neurovocal.engine.support.names import at_home
from neurovocal.engine.support.text import printable

ConfigOption = Annotated[
    str | None,
    typer.Option("--config", metavar="C", help="YAML file, or one that ships."),
]


def doctor(
    config: ConfigOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON for programs.")] = False,
) -> None:
    """Say what this machine lacks, and the command that gets it.

    Looks at Python, libraries, extras, clock, disk, ports and sound; with
    --config at what that configuration needs. Changes nothing. Exit codes: 0
    nothing is missing, 1 something is.
    """
    findings = []
    for finding in examine(config):
        findings.append(finding)
        if not as_json:
            for line in lines_of([finding]):
                typer.echo(line)
    is_well = not any(finding.state == "missing" for finding in findings)
    if as_json:
        report = {"ok": is_well, "findings": [each.as_dict() for each in findings]}
        typer.echo(json.dumps(report))
    else:
        typer.echo(verdict(findings))
    raise typer.Exit(EXIT_CLEAN if is_well else EXIT_CONFIG)


def support(
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="FILE.zip", help="File to write.")
    ],
    config: ConfigOption = None,
    journal: Annotated[
        Path | None, typer.Option(metavar="J", help="Journal of the run.")
    ] = None,
    log: Annotated[
        Path | None, typer.Option(metavar="FILE", help="What the run has logged.")
    ] = None,
) -> None:
    """Collect what helps somebody else to find a fault, in one file.

    Versions, what `doctor` says, the configuration without secrets, the last
    events of health and the counts of a journal, the end of a log. No audio, no
    spectrogram, no label. Lists what is inside: look before you send it.
    """
    parts = support_parts(config, journal, log)
    path = at_home(out)
    write_support_file(path, parts)
    typer.echo(printable(f"'{path}' holds, without audio:"))
    for name, content in parts.items():
        typer.echo(f"  {name:<22}{len(content):>9} bytes")
    typer.echo("secrets are replaced by ***; look inside before you send it")
