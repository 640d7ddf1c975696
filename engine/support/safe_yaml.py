"""YAML parser with limits, for files from unknown sources.

Scalars are those of the YAML 1.2 core schema: `yes` and `off` are texts, `010` is ten,
`1:30` and `2020-01-02` are texts. A few lines of nested aliases can expand to more
values than memory holds: the number of values and levels is limited.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import yaml

from neurovocal.engine.support.names import may_never_end
from neurovocal.engine.support.text import control_problem, shortened

MOST_BYTES = 2 * 2**20
MOST_VALUES = 50_000
MOST_LEVELS = 100

Location: TypeAlias = tuple[str | int, ...]
# Python itself refuses to print what is much longer.
_MOST_DIGITS = 1200
_TAG = "tag:yaml.org,2002:"
_CORE: list[tuple[str, str, str]] = [
    ("null", r"~|null|Null|NULL|", "~nN"),
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
    (
        "float",
        r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        "-+.0123456789",
    ),
    ("merge", "<<", "<"),
]


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


class _CoreLoader(yaml.SafeLoader):
    """Loader that resolves plain scalars by the core schema of YAML 1.2."""

    yaml_implicit_resolvers: dict[str, list[Any]] = {}

    def fetch_flow_collection_start(self, token: Any) -> None:
        """Begin a list or mapping in brackets; the scanner is quadratic in levels."""
        if self.flow_level > MOST_LEVELS:
            raise YamlError("nested too deeply", self.line + 1)
        super().fetch_flow_collection_start(token)


if yaml.__with_libyaml__:
    from yaml.composer import Composer

    class _FastLoader(Composer, yaml.CSafeLoader):
        """The same with the compiled parser; only the composer recurses."""

        yaml_implicit_resolvers = _CoreLoader.yaml_implicit_resolvers

        def __init__(self, text: str) -> None:
            yaml.CSafeLoader.__init__(self, text)
            Composer.__init__(self)


class _CoreDumper(yaml.SafeDumper):
    """Dumper that quotes what the core schema, or YAML 1.1, would not read as text."""

    yaml_implicit_resolvers = {
        first: list(found)
        for first, found in yaml.SafeDumper.yaml_implicit_resolvers.items()
    }


for _kind, _pattern, _first in _CORE:
    for _class in (_CoreLoader, _CoreDumper):
        _class.add_implicit_resolver(
            f"{_TAG}{_kind}",
            re.compile(rf"(?:{_pattern})\Z"),
            [*_first, ""] if _kind == "null" else list(_first),
        )


def read_text(path: Path) -> str:
    """Read the text of a file of at most `MOST_BYTES` bytes.

    Pipes and devices are refused: they may never end. A pipe that the shell has made
    for this program (``/dev/stdin``, ``/dev/fd/63``) is read.

    Raises
    ------
    OSError
        As for any file.
    YamlError
        It is no file, too long, or no text.
    """
    if may_never_end(path):
        raise YamlError("it is a pipe or device: name a file")
    with path.open("rb") as stream:
        content = stream.read(MOST_BYTES + 1)
    try:
        text = content[:MOST_BYTES].decode("utf-8")
    except UnicodeDecodeError as error:
        if error.reason == "unexpected end of data" and len(content) > MOST_BYTES:
            raise YamlError(f"it is longer than {MOST_BYTES} bytes") from None
        line = content[: error.start].count(b"\n") + 1
        if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
            raise YamlError("it is UTF-16: save it as UTF-8", line) from None
        if b"\0" in content[:4096]:
            raise YamlError("it holds binary data, no text") from None
        raise YamlError(
            f"it is not UTF-8 (byte {content[error.start]:#04x}): save it as UTF-8",
            line,
        ) from None
    if len(content) > MOST_BYTES:
        raise YamlError(f"it is longer than {MOST_BYTES} bytes")
    return text


def compose(text: str, *, is_written: bool = False) -> yaml.Node | None:
    """Parse a text to YAML nodes; None for an empty text.

    Parameters
    ----------
    text : str
        The text.
    is_written : bool
        It is long, and a program wrote it: it goes to the compiled parser, ten times
        as fast, which reads some mistakes of people as something else.

    Raises
    ------
    YamlError
        The text is not YAML, is nested too deeply, or has too many values once its
        aliases are expanded.
    """
    if len(text) > MOST_BYTES:
        raise YamlError(f"it is longer than {MOST_BYTES} bytes")
    root = None
    if is_written and yaml.__with_libyaml__ and "\t" not in text:
        root = _compose_fast(text)  # which takes tabs for spaces
    try:
        root = root or yaml.compose(text, Loader=_CoreLoader)
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        what = f"the character U+{ord(text[error.position]):04X}"
        raise YamlError(f"it holds {what}, which no text has", line) from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = str(getattr(error, "problem", None) or error)
        if mark and (lacking := _lacking_colon(problem, text, mark.line)) is not None:
            raise lacking from None
        reason = _sentence(problem, text, mark)
        raise YamlError(reason, mark.line + 1 if mark else None) from None
    except RecursionError:
        raise YamlError("nested too deeply") from None
    if root is not None:
        _count(root, {}, 0)
    return root


def _compose_fast(text: str) -> yaml.Node | None:
    """Return the nodes of a text; None if it has a mistake, or is empty."""
    try:
        return yaml.compose(text, Loader=_FastLoader)
    except (yaml.YAMLError, RecursionError, ValueError):
        return None  # the other parser tells the mistake


def load(text: str, *, is_written: bool = False) -> Any:
    """Parse a text to plain data; keys are texts.

    Parameters
    ----------
    text, is_written
        As of `compose`.

    Raises
    ------
    YamlError
        As `compose`; also for a key that is given twice, and what `Builder` refuses.
    """
    root = compose(text, is_written=is_written)

    def refuse(node: yaml.Node, what: str) -> None:
        raise YamlError(what, node.start_mark.line + 1)

    return None if root is None else Builder(refuse).build(root)


def dump(data: Any) -> str:
    """Return data as YAML that `load` reads as the same data."""
    text: str = yaml.dump(data, Dumper=_CoreDumper, sort_keys=False, allow_unicode=True)
    try:
        text.encode()
    except UnicodeEncodeError:  # names that are not UTF-8: escaped
        text = yaml.dump(data, Dumper=_CoreDumper, sort_keys=False)
    return text


class Builder:
    """Converts YAML nodes to plain data.

    Parameters
    ----------
    refuse : callable
        ``refuse(node, sentence)`` is called for each mistake.
    note : callable, optional
        ``note(location, line)`` is called for each value and key.
    text : callable, optional
        ``text(value, location)`` returns what a text stands for; default: itself.
    controls : bool
        Whether texts may hold control characters and halves of characters.
    """

    def __init__(
        self,
        refuse: Callable[[yaml.Node, str], None],
        note: Callable[[Location, int], object] = lambda location, line: None,
        text: Callable[[str, Location], Any] = lambda value, location: value,
        *,
        controls: bool = False,
    ) -> None:
        self._refuse, self._note, self._text = refuse, note, text
        self._controls = controls
        self._open: set[yaml.Node] = set()

    def build(self, node: yaml.Node, loc: Location = ()) -> Any:
        """Return the data of a node; None in place of what is refused."""
        self._note(loc, node.start_mark.line + 1)
        if node in self._open:
            self._refuse(node, "an alias that contains itself")
            return None
        self._open.add(node)
        try:
            if isinstance(node, yaml.MappingNode):
                return self._mapping(node, loc)
            if isinstance(node, yaml.SequenceNode):
                self._check_tag(node, "seq")
                return [
                    self.build(child, (*loc, index))
                    for index, child in enumerate(node.value)
                ]
            return self._scalar(node, loc)
        finally:
            self._open.discard(node)

    def _mapping(self, node: yaml.MappingNode, loc: Location) -> dict[str, Any]:
        self._check_tag(node, "map")
        mapping: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                self._refuse(key_node, "a key must be a name, not a list or mapping")
                continue
            # Keys are texts as they are written, also 'on' and '1'.
            key = key_node.value
            self._check_text(key_node)
            if key_node.tag.endswith(":merge"):
                self._refuse(key_node, "'<<' is not supported: write the keys out")
                continue
            if key in mapping:
                self._refuse(key_node, f"'{shortened(key)}' is given twice")
            self._note((*loc, key), key_node.start_mark.line + 1)
            mapping[key] = self.build(value_node, (*loc, key))
        return mapping

    def _scalar(self, node: yaml.Node, loc: Location) -> Any:
        kind, text = node.tag.removeprefix(_TAG), node.value
        if kind == "str":
            self._check_text(node)
            return self._text(text, loc)
        if kind == "int" and len(text) > _MOST_DIGITS:
            self._refuse(node, f"a number of {len(text)} digits is too large")
            return None
        pattern = next((p for k, p, _ in _CORE if k == kind), None)
        if pattern is None or kind == "merge" or not re.fullmatch(pattern, text):
            if kind == "merge":
                return text  # '<<' as a value is a text
            expected = kind if pattern else node.tag
            self._refuse(node, f"'{shortened(text)}' cannot be read as {expected}")
            return None
        if kind == "null":
            return None
        if kind == "bool":
            return text.lower() == "true"
        if kind == "int":
            return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))
        return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))

    def _check_text(self, node: yaml.Node) -> None:
        problem = None if self._controls else control_problem(node.value)
        if problem is not None:
            self._refuse(node, problem)

    def _check_tag(self, node: yaml.Node, kind: str) -> None:
        if node.tag != f"{_TAG}{kind}":
            self._refuse(node, f"'{shortened(node.tag)}' is not supported here")


# Beginning of the library's words, and what they mean for the writer of a file.
_MEANINGS = [
    (r"found character '\\t'", "a tab cannot indent: use spaces"),
    (
        r"found character '(.)'",
        "a value cannot begin with '{0}': put it in quotes",
    ),
    (
        "mapping values are not allowed",
        "': ' stands where no key can: check the indentation, or put a text that "
        "holds ': ' in quotes",
    ),
    (
        "could not find expected ':'",
        "this or the line before it is no 'key: value' line: check ':' and quotes",
    ),
    (
        r"expected ',' or '(.)'",
        "a list or mapping in brackets lacks a ',' or its closing '{0}'",
    ),
    (
        "expected <block end>",
        "the indentation does not fit the lines above: entries of one list or "
        "mapping begin in the same column",
    ),
    ("but found another document", "a second document ('---'): one is expected"),
    (r"found undefined alias '(.*)'", "'*{0}' is no text without quotes: quote it"),
    ("expected alphabetic or numeric", "'*' or '&' begins no text: put it in quotes"),
    ("found unexpected end of stream", "a quote is not closed"),
    ("found unexpected document separator", "a quote is not closed"),
    (
        r"found unknown escape character|expected escape sequence|found unknown escape",
        "in double quotes a backslash begins an escape: use single quotes, or '/' in "
        "paths",
    ),
    (r"found duplicate anchor (.*)", "the anchor {0} is given twice"),
    (
        "expected the node content|expected a comment or a line break",
        "a value is missing or begins with a sign that needs quotes, or a bracket is "
        "not closed",
    ),
]


# Line with a name that no ': ' follows: without ':', and without the blank behind it.
_NO_COLON = re.compile(r"\s*(?:- +)?([A-Za-z_]\w*) +([^\s:#][^:#]*?)\s*(?:#.*)?")
_NO_BLANK = re.compile(r"\s*(?:- +)?([A-Za-z_]\w*):([^\s:/#][^:#]*?)\s*(?:#.*)?")


def _lacking_colon(problem: str, text: str, line: int) -> YamlError | None:
    """Return what to tell if a line near a mistake is a key without ``': '``.

    The parser takes it for a text of several lines, and stumbles over one below it.
    """
    if not problem.startswith(("mapping values", "could not find expected")):
        return None
    lines = text.split("\n")[: line + 1]
    for number in range(len(lines), 0, -1):
        written = lines[number - 1]
        if not written.strip() or written.lstrip().startswith("#"):
            continue
        for pattern, lacks in ((_NO_COLON, "':'"), (_NO_BLANK, "a blank behind ':'")):
            if (match := pattern.fullmatch(written)) is not None:
                key, value = match[1], shortened(match[2])
                return YamlError(
                    f"'{shortened(written.strip())}' lacks {lacks}: write "
                    f"'{key}: {value}'",
                    number,
                )
        if number <= line:  # only the nearest line above
            return None
    return None


def _sentence(problem: str, text: str, mark: Any) -> str:
    """Return the library's words as cause and remedy."""
    if mark is not None and "found character" not in problem:
        before = text[: mark.index].rpartition("\n")[2]
        if before.isspace() and "\t" in before:
            return "a tab cannot indent: use spaces"
    in_brackets = mark is not None and problem.startswith("expected ','")
    if in_brackets and text[: mark.index].endswith("$"):
        return "within brackets ${NAME} needs quotes: '${NAME}'"
    for pattern, meaning in _MEANINGS:
        if (match := re.match(pattern, problem)) is not None:
            return meaning.format(*match.groups())
    return " ".join(problem.split())


def _count(node: yaml.Node, known: dict[int, int], level: int) -> int:
    """Count the values of a node with its aliases expanded."""
    if id(node) in known:
        return known[id(node)]
    known[id(node)] = 1  # an alias that contains itself: refused by the builder
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
