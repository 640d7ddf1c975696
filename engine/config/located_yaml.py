"""YAML data with the line of each value, for error messages."""

import os
import re
from collections.abc import Iterable
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import yaml

from neurovocal.engine.contracts.errors import ConfigError
from neurovocal.engine.support import safe_yaml
from neurovocal.engine.support.credentials import remember_variable
from neurovocal.engine.support.text import control_problem, shortened

Location: TypeAlias = safe_yaml.Location
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
    variables : dict of Location to str
        Text with ``${NAME}`` of every value that an environment variable is part of.
    arguments : dict of Location to str
        Options of a command, such as ``--timezone``, that gave values.
    """

    name: str
    data: Any
    lines: dict[Location, int]
    overrides: dict[Location, str] = field(default_factory=dict)
    variables: dict[Location, str] = field(default_factory=dict)
    arguments: dict[Location, str] = field(default_factory=dict)

    def unexpanded(self) -> Any:
        """Return the data with ``${NAME}`` in place of the variables' values."""
        data = deepcopy(self.data)
        self.put_variables(data)
        return data

    def put_variables(self, data: Any) -> None:
        """Put ``${NAME}`` in place of the variables' values in a copy of the data.

        Values that differ from those of the configuration stay.
        """
        for loc, text in self.variables.items():
            is_overridden = any(loc[:n] in self.overrides for n in range(len(loc) + 1))
            if not is_overridden and _get(data, loc) == _get(self.data, loc):
                put(data, loc, text)

    def text(self, loc: Location) -> str | None:
        """Return the value of a variable as it was written; None if it is none."""
        return _expanded(self.variables[loc]) if loc in self.variables else None

    def problem(self, loc: Location, message: str) -> str:
        """Return a sentence for a mistake at `loc`, with the nearest known line."""
        if not self.name:  # arguments of a command have no line
            above = (loc[:length] for length in range(len(loc), 0, -1))
            named = [self.arguments[each] for each in above if each in self.arguments]
            return f"{named[0]}: {message}" if named else message
        dotted = ".".join(str(part) for part in loc)
        what = f"{dotted}: {message}" if dotted else message
        for length in range(len(loc), -1, -1):
            if loc[:length] in self.overrides:
                return f"--set {shortened(self.overrides[loc[:length]])}: {what}"
            if loc[:length] in self.lines:
                return f"{self.name}:{self.lines[loc[:length]]}: {what}"
            for path, text in self.overrides.items():
                if length and path[:length] == loc[:length]:
                    return f"--set {shortened(text)}: {what}"
        return f"{self.name}: {what}"


def read_located(
    path: Path, overrides: Iterable[str] = (), *, noun: str = "configuration"
) -> Located:
    """Read a YAML file, expand ``${NAME}`` and apply ``a.b.c=value`` overrides.

    Parameters
    ----------
    path : Path
        The file.
    overrides : iterable of str
        ``a.b.c=value``.
    noun : str
        What the file is, for messages, such as ``"manifest"``.

    Raises
    ------
    ConfigError
        Unreadable file, YAML mistakes, duplicate keys, unset variables or
        malformed overrides: all at once, each with file and line.
    """
    try:
        text = safe_yaml.read_text(path)
    except FileNotFoundError as error:
        raise ConfigError(f"{noun} '{path}' does not exist") from error
    except IsADirectoryError as error:
        raise ConfigError(f"{noun} '{path}' is a folder: name a YAML file") from error
    except OSError as error:
        raise ConfigError(
            f"{noun} '{path}' cannot be read: {error.strerror or error}"
        ) from error
    except safe_yaml.YamlError as error:
        if error.line:
            raise ConfigError(f"{path}:{error.line}: {error}") from error
        hint = "; recordings are arguments of 'detect' and 'label'"
        raise ConfigError(
            f"'{path}' is no {noun}: {error}"
            + (hint if noun == "configuration" else "")
        ) from error
    return parse_located(text, str(path), overrides)


def parse_located(
    text: str, name: str, overrides: Iterable[str] = (), *, keep_unset: bool = False
) -> Located:
    """Do the same as `read_located` for a text that is already in memory.

    Parameters
    ----------
    text : str
        YAML.
    name : str
        Of the file, for messages; empty: arguments of a command, whose texts stand
        for themselves.
    overrides : iterable of str
        ``a.b.c=value``.
    keep_unset : bool
        Whether ``${NAME}`` stays as it is where the variable is not set.
    """
    try:
        root = safe_yaml.compose(text)
    except safe_yaml.YamlError as error:
        line = f":{error.line}" if error.line else ""
        raise ConfigError(f"{name}{line}: not valid YAML: {error}") from error
    located = Located(name, {}, {(): 1})
    problems: list[str] = []

    def refuse(node: yaml.Node, what: str) -> None:
        problems.append(f"{name}:{node.start_mark.line + 1}: {what}")

    def expand(value: str, loc: Location) -> Any:
        if not name:
            return value
        return _expand(value, loc, located, None if keep_unset else problems)

    if root is not None:
        builder = safe_yaml.Builder(
            refuse, located.lines.setdefault, expand, controls=not name
        )
        located.data = builder.build(root)
    for override in overrides:
        _override(located, override, problems)
    if not isinstance(located.data, dict):
        problems.append(f"{name}:1: expected 'key: value' lines, found a list or text")
    if problems:
        raise ConfigError(problems)
    return located


def _expand(text: str, loc: Location, into: Located, problems: list[str] | None) -> Any:
    """Replace environment variables; a value that is one variable keeps its type."""
    names = _VARIABLE.findall(text)
    unset = [name for name in names if name not in os.environ]
    if problems is not None:
        problems += [
            into.problem(loc, f"environment variable '{name}' is not set")
            for name in unset
        ]
    if unset or not names:
        return text
    for name in names:
        remember_variable(name, os.environ[name])
    into.variables[loc] = text
    expanded = _expanded(text)
    if _VARIABLE.fullmatch(text):
        return _value(expanded)
    return expanded


def _expanded(text: str) -> str:
    return _VARIABLE.sub(lambda match: os.environ.get(match[1], match[0]), text)


def _get(data: Any, loc: Location) -> Any:
    """Return the value at `loc`, or a new object if there is none."""
    for part in loc:
        try:
            data = data[part]
        except (LookupError, TypeError):
            return object()
    return data


def put(data: Any, loc: Location, value: Any) -> None:
    """Replace the value at `loc`, which must exist."""
    for part in loc[:-1]:
        data = data[part]
    data[loc[-1]] = value


def _value(text: str) -> Any:
    """Return the text of a variable as YAML data, or as it is; never a mapping."""
    try:
        value = safe_yaml.load(text)
    except safe_yaml.YamlError:
        return text
    return text if isinstance(value, dict) else value


def _override(located: Located, override: str, problems: list[str]) -> None:
    path, equals, text = override.partition("=")
    shown = f"--set {shortened(override)}"
    parts: list[str | int] = [
        int(p) if p.isdecimal() and len(p) < _INDEX_DIGITS else p
        for p in path.split(".")
    ]
    if not equals or "" in parts:
        problems.append(f"{shown}: expected a.b.c=value")
        return
    if (problem := control_problem(override)) is not None:
        problems.append(f"{shown}: {problem}")
        return
    if tuple(parts) in located.overrides:
        problems.append(f"{shown}: '{shortened(path)}' is given twice")
        return
    if len(parts) > safe_yaml.MOST_LEVELS:
        problems.append(f"{shown}: nested too deeply")
        return

    def refuse(node: yaml.Node, what: str) -> None:
        problems.append(f"{shown}: {what}")

    value: Any = text
    with suppress(safe_yaml.YamlError):  # not YAML: a text
        root = safe_yaml.compose(text)
        value = None if root is None else safe_yaml.Builder(refuse).build(root)
    target: Any = located.data
    for index, part in enumerate(parts[:-1]):
        target = _child(target, part, parts[index + 1])
        if target is None:
            problems.append(f"{shown}: there is no '{part}' to go into")
            return
    last: Any = parts[-1]
    if isinstance(target, dict) or _holds(target, last):
        target[last] = value
    else:
        problems.append(f"{shown}: there is no '{last}' to set")
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
