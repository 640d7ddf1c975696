"""``neurovocal replay``: run a recorded run again and compare its events."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from neurovocal.engine.cli.session import (
    BlockLength,
    Display,
    plan_of_parts,
    plugin_files,
    recorded_base,
    run_plan,
)
from neurovocal.engine.config.located_yaml import Located, parse_located
from neurovocal.engine.config.plan import selected_kinds
from neurovocal.engine.config.schema import parse_config
from neurovocal.engine.contracts.clock import SystemClock
from neurovocal.engine.contracts.errors import EXIT_RUNTIME, ConfigError
from neurovocal.engine.contracts.plugin import BuildContext
from neurovocal.engine.contracts.registry import Registry
from neurovocal.engine.faults.replay import replayable_faults
from neurovocal.engine.journal.replay import ReplayComparison, commands_to_replay
from neurovocal.engine.journal.store import RunRecord, read_events, runs, without_runs

_SHOWN = 5


def replay(
    journal: Annotated[Path, typer.Argument(help="Journal of the recorded run.")],
    run: Annotated[
        str | None, typer.Option(help="Name of the run; default: the newest.")
    ] = None,
    block_length: BlockLength = None,
    trust: Annotated[
        bool, typer.Option("--trust", help="Run Python files that the journal names.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="JSON for programs.")] = False,
) -> None:
    """Run a recorded run again and compare every event, byte for byte.

    The journal holds the configuration; the audio is read from the recordings
    that it names, or, for a live source, from what the `recording` sink kept.
    Exit code 2 if any event differs.
    """
    record = _find(journal, run)
    base = recorded_base(record.config)
    recorded = parse_located(record.config, str(journal), keep_unset=True)
    parse_config(recorded)
    data = recorded.data
    if not trust and (files := plugin_files(data)):
        raise ConfigError(
            f"journal '{journal}' names a Python file that a replay would run, "
            f"'{files[0]}': if you trust it, add --trust"
        )
    kept, others = _wants(data, base)
    comparison = _Comparison(read_events(journal, record.run), kept, others)
    located = Located(str(journal), _replayed(data, base, block_length), {(): 1})
    plan = plan_of_parts(parse_config(located), located, base, dry_run=True)
    commands = list(commands_to_replay(read_events(journal, record.run)))
    for each in commands:
        if each.command.name == "swap":
            raise ConfigError(
                f"the run swapped its configuration at sample {each.sample} of "
                f"'{each.stream}': the journal holds only the one it began with, so "
                "that what came later cannot be computed again"
            )
    outcome = run_plan(plan, comparison, commands)
    differences = comparison.differences + comparison.missing()
    _report(record, comparison, differences, as_json)
    raise typer.Exit(EXIT_RUNTIME if differences or outcome.errors else 0)


class _Comparison(ReplayComparison, Display):
    """The comparison as a display, which draws nothing."""


def _find(journal: Path, name: str | None) -> RunRecord:
    known = {record.run: record for record in runs(journal)}
    if not known:
        raise without_runs(journal)
    if name is None:
        return list(known.values())[-1]
    if name not in known:
        raise ConfigError(
            f"journal '{journal}' has no run '{name}' (it has: {', '.join(known)})"
        )
    return known[name]


def _wants(data: dict[str, Any], base: Path) -> tuple[frozenset[str], frozenset[str]]:
    """Return the kinds that the journal kept, and those that any sink asked for."""
    registry = Registry()
    context = BuildContext(clock=SystemClock(), run="replay", base=base)
    kept: frozenset[str] = frozenset()
    others: frozenset[str] = frozenset()
    lanes = data.get("lanes", [])
    for sink in [
        *data.get("sinks", []),
        *(s for la in lanes for s in la.get("sinks", [])),
    ]:
        plugin = registry.get("sink", sink["plugin"], base)
        built = plugin.build(
            plugin.options.model_validate(sink.get("options", {})), context
        )
        wants = frozenset(sink.get("events") or selected_kinds(built))
        others |= wants
        if sink["plugin"] == "journal":
            kept |= wants
    # A replay has no privacy gate, and none of its sinks gets audio.
    hidden = frozenset({"withheld", "frames"} if data.get("privacy") else ())
    return kept - hidden, others - hidden - {"block"}


def _replayed(
    data: dict[str, Any], base: Path, block_length: int | None
) -> dict[str, Any]:
    """Return the recorded configuration without pacing and without its sinks."""
    recordings = [
        sink.get("options", {}).get("path", "")
        for sink in data.get("sinks", [])
        if sink["plugin"] == "recording"
    ]
    lanes = data.get("lanes", [data])
    # The comparison is an observer; a configuration has at least one sink. Sinks with
    # a watcher stay: the watcher runs in the lane.
    silent = {"plugin": "jsonl", "options": {"path": "/dev/null"}, "events": []}
    faults = replayable_faults(data, kept_audio=bool(recordings))
    sinks = [silent, *_watching(data.get("sinks", []), base)]
    for lane in lanes:
        lane["source"] = _source(lane, data, recordings, block_length)
        if "lanes" in data:
            lane["sinks"] = _watching(lane.get("sinks", []), base)
    replayed = {**data, "sinks": sinks, "faults": faults}
    replayed.pop("privacy", None)  # no audio leaves a replay
    replayed.pop("control", None)  # its commands come from the journal
    return replayed


def _watching(sinks: list[dict[str, Any]], base: Path) -> list[dict[str, Any]]:
    registry = Registry()
    return [s for s in sinks if registry.get("sink", s["plugin"], base).watch]


def _source(
    lane: dict[str, Any],
    data: dict[str, Any],
    recordings: list[str],
    block_length: int | None,
) -> dict[str, Any]:
    source = lane["source"]
    options = dict(source.get("options", {}))
    if recordings:
        source = {"plugin": "recording"}
        options = {"path": recordings[0]}
        if "lanes" in data:
            options["stream"] = lane.get("name") or data.get("station", "neurovocal")
    elif source["plugin"] in ("file", "synthetic"):
        options["pace"] = "asap"
    else:
        raise ConfigError(
            f"the audio of a '{source['plugin']}' source was not kept: add "
            "{plugin: recording, options: {path: FOLDER}} to the sinks of such runs"
        )
    if block_length is not None:
        options["block_length"] = block_length
    return {**source, "options": options}


def _report(
    record: RunRecord,
    comparison: ReplayComparison,
    differences: list[str],
    as_json: bool,
) -> None:
    if as_json:
        report = {
            "run": record.run,
            "identical": dict(comparison.identical),
            "differences": differences,
            "not_compared": sorted(comparison.stalled),
        }
        typer.echo(json.dumps(report))
        return
    counts = ", ".join(f"{n} {kind}" for kind, n in comparison.identical.items())
    typer.echo(f"run {record.run}: identical: {counts or 'nothing'}")
    for stream in sorted(comparison.stalled):
        typer.echo(
            f"'{stream}': its source stalled and songs followed the machine's clock: "
            "synthesis and sound were not compared",
            err=True,
        )
    for difference in differences[:_SHOWN]:
        typer.echo(f"error: {difference}", err=True)
    if len(differences) > _SHOWN:
        typer.echo(f"error: and {len(differences) - _SHOWN} more", err=True)
