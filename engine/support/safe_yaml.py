"""YAML from strangers: bounded before anything is made of it.

A few lines of aliases of aliases stand for more values than memory holds, and some
scalars make the YAML library fail in ways of its own.
"""

from pathlib import Path
from typing import Any

import yaml

MOST_BYTES = 2 * 2**20
MOST_VALUES = 500_000
MOST_LEVELS = 100


class YamlError(ValueError):
    """The text is no YAML, or too much of it.

    Attributes
    ----------
    line : int or None
        Where, from 1.
    """

    def __init__(self, reason: str, line: int | None = None) -> None:
        super().__init__(reason)
        self.line = line


def read_text(path: Path) -> str:
    """Text of a file, no longer than YAML may be here.

    Raises
    ------
    OSError, UnicodeDecodeError
        As for any file.
    YamlError
        It is too long.
    """
    with path.open("rb") as stream:
        content = stream.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise YamlError(f"it is longer than {MOST_BYTES} bytes")
    return content.decode("utf-8")


def compose(text: str) -> yaml.Node | None:
    """Nodes of a text; None for an empty one.

    Raises
    ------
    YamlError
        The text is no YAML, is nested too deeply, or stands for too many values when
        its aliases are written out.
    """
    if len(text) > MOST_BYTES:
        raise YamlError(f"it is longer than {MOST_BYTES} bytes")
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        reason = getattr(error, "problem", None) or " ".join(str(error).split())
        raise YamlError(reason, mark.line + 1 if mark else None) from error
    except RecursionError as error:
        raise YamlError("nested too deeply") from error
    if root is not None:
        _count(root, {}, 0)
    return root


def load(text: str) -> Any:
    """Plain data of a text, as `yaml.safe_load` makes it.

    Raises
    ------
    YamlError
        As `compose`; also for a scalar that is no value, such as a 13th month.
    """
    root = compose(text)
    if root is None:
        return None
    loader = yaml.SafeLoader("")
    try:
        return loader.construct_document(root)
    except yaml.YAMLError as error:
        raise YamlError(" ".join(str(error).split())) from error
    except (ValueError, KeyError, OverflowError, RecursionError) as error:
        raise YamlError(f"it holds a value that is none ({error})") from error


def _count(node: yaml.Node, known: dict[int, int], level: int) -> int:
    """Values that a node stands for; an alias costs as much as what it names."""
    if id(node) in known:
        return known[id(node)]
    known[id(node)] = 1  # an alias that contains itself; who builds data says so
    if level > MOST_LEVELS:
        raise YamlError("nested too deeply", node.start_mark.line + 1)
    children: list[yaml.Node] = []
    if isinstance(node, yaml.SequenceNode):
        children = node.value
    elif isinstance(node, yaml.MappingNode):
        children = [part for pair in node.value for part in pair]
    total = 1 + sum(_count(child, known, level + 1) for child in children)
    if total > MOST_VALUES:
        line = node.start_mark.line + 1
        raise YamlError(f"it stands for more than {MOST_VALUES} values", line)
    known[id(node)] = total
    return total
