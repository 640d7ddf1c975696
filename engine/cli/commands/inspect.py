"""``neurovocal check``, ``plugins``, ``devices`` and ``schema``: run nothing."""

import json
import shutil
from pathlib import Path
from textwrap import wrap
from typing import Annotated, Any, get_args

import typer
from pydantic import BaseModel

from neurovocal.engine.cli.session import SetOption, plan_of
from neurovocal.engine.config.faults import fault_texts
from neurovocal.engine.config.plan import Plan
from neurovocal.engine.config.schema import MultiConfig, SingleConfig, locate_config
from neurovocal.engine.contracts.abilities import Describes
from neurovocal.engine.contracts.errors import ConfigError, DeviceError, PluginError
from neurovocal.engine.contracts.option_texts import texts_of
from neurovocal.engine.contracts.plugin import GROUPS, Kind, Plugin
from neurovocal.engine.contracts.registry import Registry
from neurovocal.engine.contracts.stages import Source
from neurovocal.engine.contracts.types import StreamInfo
from neurovocal.engine.lane.builder import build_lane
from neurovocal.engine.support.outputs import write_whole
from neurovocal.engine.support.text import printable

_OWN = "neurovocal"  # distribution of the plugins that ship
_NAME_WIDTH = 12
_NARROWEST = 40
JsonOption = Annotated[bool, typer.Option("--json", help="JSON for programs.")]


def check(
    config: Annotated[str, typer.Argument(help="YAML file, or one that ships.")],
    set_: SetOption = None,
) -> None:
    """Check a configuration whole, without opening a device, file or port."""
    plan = plan_of(locate_config(config, set_ or []), needs_devices=False)
    sources = _build_once(plan)
    for lane, source in zip(plan.lanes, sources, strict=True):
        models = ", ".join(model.config.plugin for model in lane.models) or "no model"
        typer.echo(
            f"lane '{lane.name}': {lane.source.config.plugin} -> "
            f"{lane.detector.config.plugin} -> {models}"
        )
        if isinstance(source, Describes):
            for line in source.describe():
                typer.echo(printable(f"  {line}"))
    sinks = [*plan.sinks, *(sink for lane in plan.lanes for sink in lane.sinks)]
    for stage in (sink.stage for sink in sinks):
        sink = stage.build(plan.context)
        if isinstance(sink, Describes):
            for line in sink.describe():
                typer.echo(printable(f"{stage.name}: {line}"))
    for fault in fault_texts(plan.config.shared.faults):
        typer.echo(f"injects: {fault}")
    for sentence in plan.notes():
        typer.echo(printable(f"note: {sentence}"))
    for sentence in plan.absent:
        typer.echo(printable(f"note: {sentence} (a run needs it)"))
    typer.echo(f"{plan.name}: correct")


def _build_once(plan: Plan) -> list[Source]:
    """Build all stages whose stream's rate is known, which verifies the bundles."""
    sources = []
    for lane in plan.lanes:
        source = lane.source.build(plan.context)
        sources.append(source)
        try:
            info = source.info
        except RuntimeError:  # known only once it is open
            plugin, options = lane.source.plugin, lane.source.options
            rate = plugin.sample_rate(options, plan.context)
            if rate is None:
                continue
            info = StreamInfo(lane.name, rate)
        build_lane(lane, info, 0, plan.context, wants_frames=True)
    return sources


def plugins(
    name: Annotated[
        str | None, typer.Argument(help="Show the options of this plugin.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """List the plugins, or the options of one of them."""
    registry = Registry()
    if name is not None:
        _describe(registry, name, as_json)
        return
    rows = []
    for kind in GROUPS:
        for each in registry.names(kind):
            try:
                summary = registry.get(kind, each).summary
            except PluginError as error:
                summary = str(error)
            rows.append((kind, each, registry.origin(kind, each), summary))
    if as_json:
        keys = ("kind", "name", "distribution", "summary")
        typer.echo(json.dumps([dict(zip(keys, row, strict=True)) for row in rows]))
        return
    for kind in GROUPS:
        typer.echo(kind if kind.endswith("s") else f"{kind}s")
        for _, each, origin, summary in (row for row in rows if row[0] == kind):
            whose = "" if origin == _OWN else f" (from {origin})"
            _print_entry(each, f"{summary}{whose}", _NAME_WIDTH)
    typer.echo("`neurovocal plugins NAME` explains the options of one")


def _print_entry(name: str, text: str, width: int) -> None:
    """Print a name and its summary, wrapped beside a column of names."""
    indent = " " * (width + 4)
    head = f"  {printable(name):<{width}}  "
    columns = max(_NARROWEST, shutil.get_terminal_size().columns)
    lines = wrap(printable(text), columns - len(indent)) or [""]
    if len(head) > len(indent):
        typer.echo(head.rstrip())
        head = indent
    for line in lines:
        typer.echo(f"{head}{line}".rstrip())
        head = indent


def _describe(registry: Registry, name: str, as_json: bool) -> None:
    found: list[Plugin[Any]] = [
        registry.get(kind, name)
        for kind in get_args(Kind)
        if name in registry.names(kind)
    ]
    if not found:
        known = sorted({n for kind in GROUPS for n in registry.names(kind)})
        raise ConfigError(f"unknown plugin '{name}' (known: {', '.join(known)})")
    if as_json:
        schemas = {p.kind: p.options.model_json_schema() for p in found}
        typer.echo(json.dumps(schemas))
        return
    for plugin in found:
        typer.echo(f"{plugin.kind} '{name}': {plugin.summary}\n")
        _print_options(plugin.options, "  ")


def _print_options(options: type[BaseModel], indent: str) -> None:
    """Print each option, its default and its text; nested options below it."""
    texts = texts_of(options)
    for key, field in options.model_fields.items():
        nested = _nested(field.annotation)
        default = field.get_default()
        if field.is_required():
            shown = "required"
        elif nested is None or default is None:
            shown = repr(default)
        else:
            shown = "options of its own"
        typer.echo(f"{indent}{key}  ({shown})")
        for line in (field.description or texts.get(key, "")).splitlines():
            typer.echo(f"{indent}    {line}")
        if nested is not None:
            _print_options(nested, f"{indent}    ")


def _nested(annotation: Any) -> type[BaseModel] | None:
    """Return the options that an option consists of, alone or in a list, if any."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    found = (_nested(part) for part in get_args(annotation))
    return next((each for each in found if each is not None), None)


def devices(as_json: JsonOption = False) -> None:
    """List the sound cards that the microphone source can listen to."""
    registry = Registry()
    found: list[dict[str, Any]] = []
    for name in registry.names("source"):
        plugin = registry.get("source", name)
        if plugin.devices is not None:
            found += [{"source": name, **device} for device in plugin.devices()]
    if as_json:
        typer.echo(json.dumps(found))
        return
    if not found:
        raise DeviceError(
            "no input device was found: connect one and check it with 'arecord -l'"
        )
    for device in found:
        mark = " (default)" if device.get("default") else ""
        name = device.get("name", "?")
        typer.echo(printable(f"{device.get('index', '')}  {name}{mark}"))
        parts = [
            f"{key.replace('_', ' ')} {value}"
            for key, value in device.items()
            if key not in ("index", "name", "default") and value is not None
        ]
        columns = max(_NARROWEST, shutil.get_terminal_size().columns)
        for line in wrap(printable("; ".join(parts)), columns - 4):
            typer.echo(f"    {line}")


def schema(
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="File; default: stdout.")
    ] = None,
) -> None:
    """Print the JSON Schema of configurations, for editors that complete keys."""
    text = json.dumps(_schema(Registry()), indent=2)
    if out is None:
        typer.echo(text)
        return
    if out.is_file() and not out.read_bytes().startswith((b'{\n  "$', b'{\n  "anyOf')):
        raise ConfigError(f"'{out}' exists and is no schema: choose another name")
    try:
        write_whole(out, f"{text}\n".encode())
    except OSError as error:
        raise ConfigError(f"'{out}' cannot be written: {error.strerror}") from error


def _schema(registry: Registry) -> dict[str, Any]:
    """Return the envelope's schema with the options of every plugin."""
    single, several = SingleConfig.model_json_schema(), MultiConfig.model_json_schema()
    definitions = {**single.pop("$defs"), **several.pop("$defs")}
    stages: dict[Kind, str] = {
        "source": "StageConfig",
        "features": "StageConfig",
        "detector": "StageConfig",
        "model": "StageConfig",
        "sink": "SinkConfig",
        "control": "StageConfig",
        "gate": "GateConfig",
    }
    for kind, base in stages.items():
        choices = []
        for name in registry.names(kind):
            options = registry.get(kind, name).options.model_json_schema()
            definitions.update(options.pop("$defs", {}))
            key = f"{kind}.{name}"
            definitions[key] = options
            choices.append(
                {
                    "if": {"properties": {"plugin": {"const": name}}},
                    "then": {"properties": {"options": {"$ref": f"#/$defs/{key}"}}},
                }
            )
        definitions[kind] = {"allOf": [{"$ref": f"#/$defs/{base}"}, *choices]}
    for form in (
        single,
        several,
        definitions["LaneConfig"],
        definitions["PrivacyConfig"],
    ):
        _use_stages(form["properties"])
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "NeuroVocal configuration",
        "if": {"required": ["lanes"]},
        "then": several,
        "else": single,
        "$defs": definitions,
    }


def _use_stages(properties: dict[str, Any]) -> None:
    for kind in ("source", "features", "detector", "control", "gate"):
        if kind in properties:
            help_text = properties[kind].get("description", "")
            properties[kind] = {"$ref": f"#/$defs/{kind}", "description": help_text}
    for key, kind in (("models", "model"), ("sinks", "sink")):
        if key in properties:
            properties[key]["items"] = {"$ref": f"#/$defs/{kind}"}
