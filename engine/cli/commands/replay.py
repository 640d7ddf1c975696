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
    run_plan,
)
from neurovocal.engine.config.located_yaml import Located, parse_located
from neurovocal.engine.config.plan import Plan, selected_kinds
from neurovocal.engine.config.recorded import recorded_base
from neurovocal.engine.config.schema import parse_config
from neurovocal.engine.contracts.clock import SystemClock
from neurovocal.engine.contracts.errors import EXIT_RUNTIME, ConfigError
from neurovocal.engine.contracts.plugin import BuildContext
from neurovocal.engine.contracts.registry import Registry
from neurovocal.engine.contracts.stages import RecordedCommand
from neurovocal.engine.faults.replay import replayable_faults
from neurovocal.engine.journal.replay import (
    ReplayComparison,
    commands_to_replay,
    later_sentence,
)
from neurovocal.engine.journal.store import (
    RunRecord,
    read_events,
    runs,
    without_runs,
)
from neurovocal.engine.support.names import at_home, resolved
from neurovocal.engine.support.text import printable

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
    Exit code 2 if any event differs; what a run that was killed did not record is
    counted.
    """
    record = _find(journal, run)
    base = recorded_base(record.config)
    recorded = parse_located(record.config, str(journal), keep_unset=True)
    parse_config(recorded)
    data = recorded.data
    _refuse_files(data, journal, trust=trust)
    kept, others = _keep_recorded_lanes(data, base, journal, record.run)
    comparison = _Comparison(read_events(journal, record.run), kept, others)
    replayed = _replayed(data, base, record.run, block_length)
    located = Located(str(journal), replayed, {(): 1})
    plan = plan_of_parts(located, base, dry_run=True)
    commands = list(commands_to_replay(read_events(journal, record.run)))
    _check_swaps(commands, journal, trust=trust)

    def recall(text: str) -> Plan:
        """Return the plan of a configuration that the run swapped to."""
        found = parse_located(text, str(journal), keep_unset=True)
        again = _replayed(found.data, base, record.run, block_length)
        where = Located(str(journal), again, {(): 1})
        return plan_of_parts(where, recorded_base(text), dry_run=True)

    outcome = run_plan(plan, comparison, commands, recall=recall)
    differences = comparison.differences + comparison.missing()
    accepted = _not_recorded(record, comparison)
    if surplus := sorted(comparison.later.keys() - accepted):
        differences.append(f"not recorded: {later_sentence(comparison, surplus)}")
    _report(record, comparison, differences, as_json)
    raise typer.Exit(EXIT_RUNTIME if differences or outcome.errors else 0)


def _check_swaps(
    commands: list[RecordedCommand], journal: Path, *, trust: bool
) -> None:
    """Refuse swaps of earlier versions, and Python files that are not trusted."""
    for each in commands:
        if each.command.name != "swap":
            continue
        text = each.command.arguments.get("configuration")
        if not isinstance(text, str) or not text:
            raise ConfigError(
                f"the run swapped its configuration at sample {each.sample} of "
                f"'{each.stream}', and the journal, of an earlier version, does not "
                "hold the other one: what came later cannot be computed again"
            )
        _refuse_files(
            parse_located(text, str(journal), keep_unset=True).data,
            journal,
            trust=trust,
        )


def _refuse_files(data: Any, journal: Path, *, trust: bool) -> None:
    if not trust and (files := plugin_files(data)):
        raise ConfigError(
            f"journal '{journal}' names a Python file that a replay would run, "
            f"'{files[0]}': if you trust it, add --trust"
        )


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


def _keep_recorded_lanes(
    data: dict[str, Any], base: Path, journal: Path, run: str
) -> tuple[frozenset[str], frozenset[str]]:
    """Return the kinds that this journal kept, and those that any sink asked for.

    A run may write several journals, of other kinds or of some of its lanes: lanes
    that this journal has nothing of are removed from `data`.
    """
    context = BuildContext(clock=SystemClock(), run="replay", base=base)
    shared, lanes = data.get("sinks", []), data.get("lanes", [])
    every = [*shared, *(sink for lane in lanes for sink in lane.get("sinks", []))]
    journals = [sink for sink in every if sink["plugin"] == "journal"]
    this = _journal_at(journals, journal, base)
    if this is None:  # it was renamed
        found = {event.kind for event in read_events(journal, run)}
        fitting = [s for s in journals if found <= _kinds(s, context)]
        this = min(fitting, key=lambda s: len(_kinds(s, context)), default=None)
    if this is not None and this not in shared:
        data["lanes"] = [lane for lane in lanes if this in lane.get("sinks", [])]
        every = [*shared, *(s for lane in data["lanes"] for s in lane["sinks"])]
    kept = frozenset[str]() if this is None else _kinds(this, context)
    others = frozenset(kind for sink in every for kind in _kinds(sink, context))
    # A replay has no privacy gate, and none of its sinks gets audio; what was drawn
    # from live audio had been withheld.
    derived = {"withheld", "frames", "synthesis", "audio"}
    hidden = frozenset(derived if data.get("privacy") else ())
    return kept - hidden, others - hidden - {"block"}


def _journal_at(
    journals: list[dict[str, Any]], journal: Path, base: Path
) -> dict[str, Any] | None:
    """Return the sink that has written a journal, by its path or else its name."""
    paths = [at_home(str(sink.get("options", {}).get("path", ""))) for sink in journals]
    wanted = resolved(journal)
    for sink, path in zip(journals, paths, strict=True):
        if wanted in (resolved(path), resolved(base / path)):
            return sink
    named = [path.name == wanted.name for path in paths]
    return journals[named.index(True)] if sum(named) == 1 else None


def _kinds(sink: dict[str, Any], context: BuildContext) -> frozenset[str]:
    plugin = Registry().get("sink", sink["plugin"], context.base)
    options = plugin.options.model_validate(sink.get("options", {}))
    return frozenset(
        sink.get("events") or selected_kinds(plugin.build(options, context))
    )


def _replayed(
    data: dict[str, Any], base: Path, run: str, block_length: int | None
) -> dict[str, Any]:
    """Return the recorded configuration without pacing and without its sinks."""
    lanes = data.get("lanes", [data])
    # The comparison is an observer; a configuration has at least one sink. Sinks with
    # a watcher stay: the watcher runs in the lane.
    silent = {"plugin": "jsonl", "options": {"path": "/dev/null"}, "events": []}
    shared = data.get("sinks", [])
    sinks = [silent, *_watching(shared, base)]
    kept_audio = False
    for lane in lanes:
        own = lane.get("sinks", []) if "lanes" in data else []
        folder = _recording_of([*own, *shared])
        kept_audio |= folder is not None
        lane["source"] = _source(lane, data, run, folder, block_length)
        if "lanes" in data:
            lane["sinks"] = _watching(own, base)
    faults = replayable_faults(data, kept_audio=kept_audio)
    replayed = {**data, "sinks": sinks, "faults": faults}
    replayed.pop("privacy", None)  # no audio leaves a replay
    replayed.pop("control", None)  # its commands come from the journal
    return replayed


def _recording_of(sinks: list[dict[str, Any]]) -> str | None:
    """Return the folder of the first `recording` sink."""
    found = (s for s in sinks if s["plugin"] == "recording")
    sink = next(found, None)
    return None if sink is None else sink.get("options", {}).get("path", "")


def _watching(sinks: list[dict[str, Any]], base: Path) -> list[dict[str, Any]]:
    registry = Registry()
    return [s for s in sinks if registry.get("sink", s["plugin"], base).watch]


def _source(
    lane: dict[str, Any],
    data: dict[str, Any],
    run: str,
    folder: str | None,
    block_length: int | None,
) -> dict[str, Any]:
    source = lane["source"]
    options = dict(source.get("options", {}))
    if folder is not None:
        source = {"plugin": "recording"}
        options = {"path": folder, "run": run}
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


def _not_recorded(record: RunRecord, comparison: ReplayComparison) -> list[str]:
    """Return the streams whose later events could not be recorded."""
    if record.ended_utc_ns is None:
        return sorted(comparison.later)
    return sorted(comparison.lost & comparison.later.keys())


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
            "not_recorded": {
                stream: comparison.later[stream]
                for stream in _not_recorded(record, comparison)
            },
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
    if streams := _not_recorded(record, comparison):
        reason = "the run did not end in order (it was killed, or goes on)"
        if record.ended_utc_ns is not None:
            reason = "worker processes were lost"
        sentence = later_sentence(comparison, streams)
        typer.echo(f"{reason}: not compared: {printable(sentence)}", err=True)
    for difference in differences[:_SHOWN]:
        typer.echo(f"error: {difference}", err=True)
    if len(differences) > _SHOWN:
        typer.echo(f"error: and {len(differences) - _SHOWN} more", err=True)
