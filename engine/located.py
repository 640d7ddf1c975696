"""YAML whose values know the line they stand on, for messages that help."""

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import yaml

from neurovocal.engine.errors import ConfigError

Location: TypeAlias = tuple[str | int, ...]
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_SCALARS = yaml.SafeLoader("")


@dataclass(slots=True)
class Located:
    """Plain data with the source of each value.

    ``lines`` maps the path of every key to its line; values that came from the
    command line are in ``overrides`` with the text that set them.
    """

    name: str
    data: Any
    lines: dict[Location, int]
    overrides: dict[Location, str] = field(default_factory=dict)

    def problem(self, loc: Location, message: str) -> str:
        """Sentence for a mistake at `loc`, or at its nearest known parent."""
        dotted = ".".join(str(part) for part in loc)
        what = f"{dotted}: {message}" if dotted else message
        for length in range(len(loc), -1, -1):
            if loc[:length] in self.overrides:
                return f"--set {self.overrides[loc[:length]]}: {what}"
            if loc[:length] in self.lines:
                return f"{self.name}:{self.lines[loc[:length]]}: {what}"
        return f"{self.name}: {what}"


def read_located(path: Path, overrides: Iterable[str] = ()) -> Located:
    """Read a YAML file, expand ``${NAME}`` and apply ``a.b.c=value`` overrides.

    Raises
    ------
    ConfigError
        Unreadable file, YAML mistakes, duplicate keys, unset variables or
        malformed overrides: all that can be told, with file and line.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise ConfigError(f"configuration '{path}' does not exist") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"configuration '{path}' cannot be read: {error}") from error
    return parse_located(text, str(path), overrides)


def parse_located(text: str, name: str, overrides: Iterable[str] = ()) -> Located:
    """Same as `read_located` for a text that is already in memory."""
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        reason = getattr(error, "problem", None) or " ".join(str(error).split())
        raise ConfigError(f"{name}{line}: not valid YAML: {reason}") from error
    located = Located(name, {}, {(): 1})
    problems: list[str] = []
    if root is not None:
        located.data = _plain(root, (), located, problems)
    for override in overrides:
        _override(located, override, problems)
    if not isinstance(located.data, dict):
        problems.append(f"{name}:1: expected 'key: value' lines, found a list or text")
    if problems:
        raise ConfigError(problems)
    return located


def _plain(node: yaml.Node, loc: Location, into: Located, problems: list[str]) -> Any:
    into.lines.setdefault(loc, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        mapping: dict[Any, Any] = {}
        for key_node, value_node in node.value:
            key = _SCALARS.construct_object(key_node)
            here = (*loc, key)
            if key in mapping:
                line = key_node.start_mark.line + 1
                problems.append(f"{into.name}:{line}: '{key}' is given twice")
            into.lines[here] = key_node.start_mark.line + 1
            mapping[key] = _plain(value_node, here, into, problems)
        return mapping
    if isinstance(node, yaml.SequenceNode):
        return [
            _plain(child, (*loc, index), into, problems)
            for index, child in enumerate(node.value)
        ]
    value = _SCALARS.construct_object(node)
    if isinstance(value, str):
        return _expand(value, loc, into, problems)
    return value


def _expand(text: str, loc: Location, into: Located, problems: list[str]) -> Any:
    """Put environment variables in; a value that is one variable keeps its type."""
    for name in _VARIABLE.findall(text):
        if name not in os.environ:
            problems.append(
                into.problem(loc, f"environment variable '{name}' is not set")
            )
            return text
    expanded = _VARIABLE.sub(lambda match: os.environ[match[1]], text)
    if expanded != text and _VARIABLE.fullmatch(text):
        return yaml.safe_load(expanded)
    return expanded


def _override(located: Located, override: str, problems: list[str]) -> None:
    path, equals, text = override.partition("=")
    parts: list[str | int] = [int(p) if p.isdigit() else p for p in path.split(".")]
    if not equals or "" in parts:
        problems.append(f"--set {override}: expected a.b.c=value")
        return
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        value = text
    target: Any = located.data
    for index, part in enumerate(parts[:-1]):
        target = _child(target, part, parts[index + 1])
        if target is None:
            problems.append(f"--set {override}: there is no '{part}' to go into")
            return
    last: Any = parts[-1]
    if (
        isinstance(target, list) and isinstance(last, int) and last < len(target)
    ) or isinstance(target, dict):
        target[last] = value
    else:
        problems.append(f"--set {override}: there is no '{last}' to set")
        return
    located.overrides[tuple(parts)] = override


def _holds(target: Any, key: str | int) -> bool:
    return isinstance(target, list) and isinstance(key, int) and key < len(target)


def _child(parent: Any, key: Any, following: str | int) -> Any:
    if isinstance(parent, list):
        return parent[key] if _holds(parent, key) else None
    if not isinstance(parent, dict):
        return None
    if parent.get(key) is None:
        if isinstance(following, int):
            return None
        parent[key] = {}
    return parent[key]
