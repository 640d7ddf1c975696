"""YAML parser with limits, for files from unknown sources.

A few lines of nested aliases can expand to more values than memory holds, and some
scalars make the YAML library raise undocumented exceptions.
"""

from pathlib import Path
from typing import Any

import yaml

MOST_BYTES = 2 * 2**20
MOST_VALUES = 500_000
MOST_LEVELS = 100


class YamlError(ValueError):
    """The text is not YAML, or exceeds a limit.

    Attributes
    ----------
    line : int or None
        Line of the problem, from 1.
    """

    def __init__(self, reason: str, line: int | None = None) -> None:
        super().__init__(reason)
        self.line = line


def read_text(path: Path) -> str:
    """Read the text of a file of at most `MOST_BYTES` bytes.

    Raises
    ------
    OSError, UnicodeDecodeError
        As for any file.
    YamlError
        The file is too long.
    """
    with path.open("rb") as stream:
        content = stream.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise YamlError(f"it is longer than {MOST_BYTES} bytes")
    return content.decode("utf-8")


def compose(text: str) -> yaml.Node | None:
    """Parse a text to YAML nodes; None for an empty text.

    Raises
    ------
    YamlError
        The text is not YAML, is nested too deeply, or has too many values once its
        aliases are expanded.
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
    """Parse a text to plain data, as `yaml.safe_load` does.

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
    """Count the values of a node with its aliases expanded."""
    if id(node) in known:
        return known[id(node)]
    known[id(node)] = 1  # for an alias that contains itself, an error of `load`
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
