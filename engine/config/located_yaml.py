"""YAML data with the line of each value, for error messages."""

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import yaml

from neurovocal.engine.contracts.errors import ConfigError
from neurovocal.engine.support import safe_yaml

Location: TypeAlias = tuple[str | int, ...]
# Python itself refuses to print what is much longer.
_MOST_BITS = 4096
# Longer numbers are no places in a list.
_INDEX_DIGITS = 10
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


@dataclass(slots=True)
class Located:
    """Data of a configuration with the line or override of each value.

    Parameters
    ----------
    name : str
        Of the file; empty: the data come from the arguments of a command.
    data : dict
        Plain Python values.
    lines : dict of Location to int
        Line of every key.
    overrides : dict of Location to str
        Text of ``--set`` for values from the command line.
    """

    name: str
    data: Any
    lines: dict[Location, int]
    overrides: dict[Location, str] = field(default_factory=dict)

    def problem(self, loc: Location, message: str) -> str:
        """Return a sentence for a mistake at `loc`, with the nearest known line."""
        if not self.name:
            return message  # arguments of a command have no line
        dotted = ".".join(str(part) for part in loc)
        what = f"{dotted}: {message}" if dotted else message
        for length in range(len(loc), -1, -1):
            if loc[:length] in self.overrides:
                return f"--set {self.overrides[loc[:length]]}: {what}"
            if loc[:length] in self.lines:
                return f"{self.name}:{self.lines[loc[:length]]}: {what}"
            for path, text in self.overrides.items():
                if length and path[:length] == loc[:length]:
                    return f"--set {text}: {what}"
        return f"{self.name}: {what}"


def read_located(path: Path, overrides: Iterable[str] = ()) -> Located:
    """Read a YAML file, expand ``${NAME}`` and apply ``a.b.c=value`` overrides.

    Raises
    ------
    ConfigError
        Unreadable file, YAML mistakes, duplicate keys, unset variables or
        malformed overrides: all at once, each with file and line.
    """
    try:
        text = safe_yaml.read_text(path)
    except FileNotFoundError as error:
        raise ConfigError(f"configuration '{path}' does not exist") from error
    except (OSError, UnicodeDecodeError, safe_yaml.YamlError) as error:
        raise ConfigError(f"configuration '{path}' cannot be read: {error}") from error
    return parse_located(text, str(path), overrides)


def parse_located(text: str, name: str, overrides: Iterable[str] = ()) -> Located:
    """Do the same as `read_located` for a text that is already in memory."""
    try:
        root = safe_yaml.compose(text)
    except safe_yaml.YamlError as error:
        line = f":{error.line}" if error.line else ""
        raise ConfigError(f"{name}{line}: not valid YAML: {error}") from error
    located = Located(name, {}, {(): 1})
    problems: list[str] = []
    if root is not None:
        located.data = _Builder(located, problems).build(root, ())
    for override in overrides:
        _override(located, override, problems)
    if not isinstance(located.data, dict):
        problems.append(f"{name}:1: expected 'key: value' lines, found a list or text")
    if problems:
        raise ConfigError(problems)
    return located


class _Builder:
    """Converts YAML nodes to plain data and keeps the line of each."""

    def __init__(self, into: Located, problems: list[str]) -> None:
        self._into = into
        self._problems = problems
        self._open: set[yaml.Node] = set()
        self._scalars = yaml.SafeLoader("")

    def build(self, node: yaml.Node, loc: Location) -> Any:
        self._into.lines.setdefault(loc, node.start_mark.line + 1)
        if node in self._open:
            self._refuse(node, "an alias that contains itself")
            return None
        self._open.add(node)
        try:
            if isinstance(node, yaml.MappingNode):
                return self._mapping(node, loc)
            if isinstance(node, yaml.SequenceNode):
                self._check_tag(node, "tag:yaml.org,2002:seq")
                return [
                    self.build(child, (*loc, index))
                    for index, child in enumerate(node.value)
                ]
            return self._scalar(node, loc)
        finally:
            self._open.discard(node)

    def _mapping(self, node: yaml.MappingNode, loc: Location) -> dict[str, Any]:
        self._check_tag(node, "tag:yaml.org,2002:map")
        mapping: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                self._refuse(key_node, "a key must be a name, not a list or mapping")
                continue
            # Keys are texts as they are written, also 'on' and '1'.
            key = key_node.value
            here = (*loc, key)
            if key_node.tag.endswith(":merge"):
                self._refuse(key_node, "'<<' is not supported: write the keys out")
                continue
            if key in mapping:
                self._refuse(key_node, f"'{key}' is given twice")
            self._into.lines[here] = key_node.start_mark.line + 1
            mapping[key] = self.build(value_node, here)
        return mapping

    def _scalar(self, node: yaml.Node, loc: Location) -> Any:
        if node.tag.endswith(":timestamp"):
            return node.value  # the option decides how a date is read
        try:
            value = self._scalars.construct_object(node)
        except (yaml.YAMLError, ValueError, KeyError):
            self._refuse(node, f"'{node.value[:80]}' cannot be read as {node.tag}")
            return None
        if isinstance(value, int) and value.bit_length() > _MOST_BITS:
            self._refuse(node, f"a number of {value.bit_length()} bits is too large")
            return None
        if isinstance(value, str):
            return _expand(value, loc, self._into, self._problems)
        return value

    def _check_tag(self, node: yaml.Node, tag: str) -> None:
        if node.tag != tag:
            self._refuse(node, f"'{node.tag}' is not supported here")

    def _refuse(self, node: yaml.Node, what: str) -> None:
        line = node.start_mark.line + 1
        self._problems.append(f"{self._into.name}:{line}: {what}")


def _expand(text: str, loc: Location, into: Located, problems: list[str]) -> Any:
    """Replace environment variables; a value that is one variable keeps its type."""
    for name in _VARIABLE.findall(text):
        if name not in os.environ:
            problems.append(
                into.problem(loc, f"environment variable '{name}' is not set")
            )
            return text
    expanded = _VARIABLE.sub(lambda match: os.environ[match[1]], text)
    if expanded != text and _VARIABLE.fullmatch(text):
        return _value(expanded)
    return expanded


def _value(text: str) -> Any:
    """Return a text from outside the file as YAML data, or as it is."""
    try:
        return safe_yaml.load(text)
    except safe_yaml.YamlError:
        return text


def _override(located: Located, override: str, problems: list[str]) -> None:
    path, equals, text = override.partition("=")
    parts: list[str | int] = [
        int(p) if p.isdecimal() and len(p) < _INDEX_DIGITS else p
        for p in path.split(".")
    ]
    if not equals or "" in parts:
        problems.append(f"--set {override}: expected a.b.c=value")
        return
    value = _value(text)
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
