"""Write the pages of the reference that follow from the code.

``python tools/docs/reference.py`` writes docs/reference/command-line.md and the pages
of docs/reference/configuration/; with ``--check`` it only says which are out of date.
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from posixpath import dirname, relpath
from typing import Any, Literal, get_args, get_origin

from commands import Command, command_tree

from neurovocal import engine
from neurovocal.engine import client, journal, testing
from neurovocal.engine.config.schema import SingleConfig
from neurovocal.engine.contracts.registry import Registry

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "docs" / "reference"
NOTE = "<!-- Written by tools/docs/reference.py from the code: change it there. -->\n\n"
OF_KIND = {
    "source": "Sources: where the audio comes from",
    "features": "Features: the frames",
    "detector": "Detectors: onsets and offsets",
    "model": "Models: labels, surprise, synthesis",
    "sink": "Sinks: where events and audio go",
    "control": "Controls: commands to a run",
    "gate": "Gates: which audio holds a human voice",
}


def pages() -> dict[str, str]:
    """Return the text of every generated page, by its path below docs/reference."""
    found = {"command-line.md": command_line(command_tree())}
    found["configuration.md"] = configuration()
    found["python.md"] = python_api()
    registry = Registry()
    for kind, title in OF_KIND.items():
        found[f"plugins/{kind}.md"] = plugins_of(registry, kind, title)
    return {
        name: NOTE + linked(text.rstrip(), name) + "\n" for name, text in found.items()
    }


def linked(text: str, name: str) -> str:
    """Return a text whose mentions of pages are links."""
    folder = dirname(f"reference/{name}")

    def link(match: re.Match[str]) -> str:
        page = Path(match[1]).stem
        return f"[{page}]({relpath(match[1], folder)})"

    return re.sub(r"\bdocs/([\w/-]+\.md)", link, text)


def command_line(root: Command) -> str:
    """Return the page of all commands."""
    parts = [
        "# Command line\n",
        "`neurovocal COMMAND --help` prints the same. Exit codes of all commands: 0 "
        "clean, 1 bad configuration or arguments, 2 failure while running, 3 stopped "
        "with loss or by force. Tables for people go to standard output, progress and "
        "logs to standard error.\n",
        "## Options of all commands\n",
        *options_of(root),
    ]
    for command in root.all():
        if not command.name:
            continue
        level = "##" if " " not in command.name else "###"
        parts += [f"{level} neurovocal {command.name}\n", *usage(command)]
        parts += [*options_of(command)]
    return "\n".join(parts)


def usage(command: Command) -> Iterator[str]:
    """Yield what a command does, and its arguments."""
    click = command.click
    text = (click.help or "").strip()
    yield "\n".join(escaped(line.strip()) for line in text.splitlines()) + "\n"
    arguments = [p for p in click.params if p.param_type_name == "argument"]
    if arguments:
        yield "| argument | meaning |\n| --- | --- |"
        for each in arguments:
            name = (each.metavar or each.name or "").strip("{}")
            yield f"| `{name}` | {cell(getattr(each, 'help', '') or '')} |"
        yield ""


def options_of(command: Command) -> Iterator[str]:
    """Yield the table of a command's options."""
    options = [p for p in command.click.params if p.param_type_name == "option"]
    if not options:
        return
    yield "| option | meaning |\n| --- | --- |"
    for each in options:
        spellings = ", ".join(f"`{o}`" for o in (*each.opts, *each.secondary_opts))
        default = each.default
        shown = ""
        if not callable(default) and default not in (None, False, True, (), [], ""):
            shown = f" Default: `{getattr(default, 'value', default)}`."
        choices = choices_of(each.type_descriptor.annotation)
        if choices:
            names = ", ".join(f"`{choice}`" for choice in choices)
            shown = f" One of {names}.{shown}"
        yield f"| {spellings} | {cell(each.help or '')}{shown} |"
    yield ""


def choices_of(annotation: Any) -> tuple[str, ...]:
    """Return the values of an option that takes one of some."""
    if get_origin(annotation) is Literal:
        return get_args(annotation)
    for each in get_args(annotation):
        if get_origin(each) is Literal:
            return get_args(each)
    return ()


def configuration() -> str:
    """Return the page of a configuration's keys."""
    schema = SingleConfig.model_json_schema()
    parts = [
        "# Configuration\n",
        "A run is one YAML file. `neurovocal check FILE` finds every mistake with its "
        "line; `neurovocal schema` prints the JSON Schema, with which an editor "
        "completes keys; `--set a.b.c=value` overrides a value; `${NAME}` is replaced "
        "by the variable of the environment. [A small one](../start/five-minutes.md"
        "#4-make-a-configuration-of-your-own).\n",
        "Relative inputs are searched in the working folder, then in that of the "
        "configuration; relative outputs lie in the working folder.\n",
        "Options of plugins have pages of their own: "
        + ", ".join(f"[{kind}](plugins/{kind}.md)" for kind in OF_KIND)
        + ".\n",
        "## Keys\n",
        *table(schema, schema),
        "`lanes:` is a list of the keys `name`, `source`, `signal`, `bundle`, "
        "`profile`, `features`, `detector`, `models` and `sinks`, in place of these "
        "keys at the top: several independent lanes in one process, or with `workers` "
        "in several "
        "([an example](../station/operation.md#several-lanes-in-one-process)).\n",
    ]
    for name, part in sorted(schema.get("$defs", {}).items()):
        if part.get("type") == "object" and part.get("properties"):
            parts += [f"## {name}\n", cell(part.get("description", "")) + "\n"]
            parts += [*table(part, schema)]
    return "\n".join(parts)


def python_api() -> str:
    """Return the page of the Python API: each public name of four packages."""
    parts = [
        "# Python API\n",
        "What plugins and programs may use. Everything else inside `neurovocal` may "
        "change without notice. [How to write a plugin](../how-to/plugin.md); "
        "[how to subscribe](../connect/subscribe.md).\n",
    ]
    for title, package in (
        ("For programs: a running engine", client),
        ("For programs: a journal", journal),
        ("For plugins", engine),
        ("For tests of plugins", testing),
    ):
        parts.append(f"## {title}\n")
        for name in sorted(package.__all__, key=str.lower):
            parts.append(f"::: {package.__name__}.{name}\n")
    return "\n".join(parts)


def plugins_of(registry: Registry, kind: Any, title: str) -> str:
    """Return the page of the plugins of one kind."""
    parts = [
        f"# {title}\n",
        "`neurovocal plugins NAME` prints the same, also for plugins of others.\n",
    ]
    for name in registry.names(kind):
        if registry.origin(kind, name) != "neurovocal":
            continue
        plugin = registry.get(kind, name)
        parts += [f"## {name}\n", sentence(plugin.summary) + "\n"]
        schema = {**plugin.options.model_json_schema(), "above": f"{name}-"}
        if not schema.get("properties"):
            parts.append("No options.\n")
            continue
        parts += [*table(schema, schema)]
        for inner, part in sorted(schema.get("$defs", {}).items()):
            if part.get("type") == "object" and part.get("properties"):
                parts += [f"### {name}: {inner}\n"]
                parts += [cell(part.get("description", "")) + "\n"]
                parts += [*table(part, schema)]
    return "\n".join(parts)


def table(part: dict[str, Any], schema: dict[str, Any]) -> Iterator[str]:
    """Yield the rows of an options model."""
    needed = set(part.get("required", ()))
    yield "| key | meaning |\n| --- | --- |"
    for name, value in part["properties"].items():
        meaning = cell(value.get("description", ""))
        default = f"default `{plain(value.get('default'))}`"
        if name in needed:
            default = "needed"
        kind = type_of(value, schema)
        yield f"| `{name}` | {meaning}<br>*{kind}; {default}* |"
    yield ""


def type_of(value: dict[str, Any], schema: dict[str, Any]) -> str:
    """Return the type of a value in words, with its bounds."""
    if "anyOf" in value:
        inner = [type_of(each, schema) for each in value["anyOf"]]
        return " or ".join(dict.fromkeys(inner))
    if "oneOf" in value:
        return " or ".join(type_of(each, schema) for each in value["oneOf"])
    if "allOf" in value:
        return type_of(value["allOf"][0], schema)
    if "$ref" in value:
        name = value["$ref"].rsplit("/", 1)[-1]
        part = schema["$defs"][name]
        if not part.get("properties"):
            return type_of(part, schema)
        return f"[{name}](#{schema.get('above', '')}{name.lower()})"
    if "enum" in value:
        return ", ".join(f"`{each}`" for each in value["enum"])
    if "const" in value:
        return f"`{plain(value['const'])}`"
    kind = value.get("type", "any")
    if kind == "array":
        return f"list of {type_of(value.get('items', {}), schema)}"
    words = {"object": "keys", "string": "text", "boolean": "true, false"}
    bounds = [
        f"{sign} {plain(value[key])}"
        for key, sign in (
            ("minimum", "≥"),
            ("exclusiveMinimum", ">"),
            ("maximum", "≤"),
            ("exclusiveMaximum", "<"),
        )
        if key in value
    ]
    return " ".join([words.get(kind, kind), ", ".join(bounds)]).strip()


def plain(value: object) -> str:
    """Return a value as YAML would have it, on one line."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return f"{value:.1f}" if abs(value) < 1e6 else f"{value:.0f}"
    if isinstance(value, list):
        return f"[{', '.join(plain(each) for each in value)}]"
    if isinstance(value, dict):
        inner = ", ".join(f"{key}: {plain(each)}" for key, each in value.items())
        return f"{{{inner}}}"
    return str(value)


def sentence(text: str) -> str:
    """Return a text that begins and ends as a sentence does."""
    text = text[:1].upper() + text[1:]
    return escaped(text if text.endswith((".", "!", "?")) else f"{text}.")


def escaped(text: str) -> str:
    """Return a text in which Markdown and HTML find nothing outside code."""
    parts = text.split("`")
    for index in range(0, len(parts), 2):
        parts[index] = parts[index].replace("<", "&lt;").replace("*", "\\*")
    return "`".join(parts)


def cell(text: str) -> str:
    """Return a text as the cell of a table."""
    return escaped(" ".join(text.split())).replace("|", "\\|")


def out_of_date() -> list[Path]:
    """Return the pages that are not as the code is."""
    wanted = {FOLDER / name: text for name, text in pages().items()}
    return [
        path
        for path, text in wanted.items()
        if not path.exists() or path.read_text(encoding="utf-8") != text
    ]


if __name__ == "__main__":
    if sys.argv[1:] == ["--check"]:
        late = out_of_date()
        for path in late:
            print(f"{path.relative_to(ROOT)} is out of date: run `make reference`")
        sys.exit(bool(late))
    for name, text in pages().items():
        path = FOLDER / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
