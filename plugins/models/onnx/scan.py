"""Scan of an ONNX file for parts that a bundle must not contain.

A bundle may come from an untrusted source. ONNX Runtime would read external data
beside the file and run random operators, so the graph is scanned first. The scan must
see what ONNX Runtime sees: it accepts only what a protobuf library writes (the
shortest form of each number, known fields with their types, each field that occurs
once no more than once) and refuses all else.
"""

from collections.abc import Iterator

# `Dropout` draws a mask where its input asks for training.
_RANDOM = frozenset(
    {
        "Bernoulli",
        "Dropout",
        "Multinomial",
        "RandomNormal",
        "RandomNormalLike",
        "RandomUniform",
        "RandomUniformLike",
    }
)
_STANDARD_DOMAINS = frozenset({"", "ai.onnx"})
_DEEPEST = 100  # messages; also protobuf's own limit
_MOST_FIELDS = 200_000

# onnx.proto3: message -> field number -> type. Numbers: `v` variable length, `f` four
# bytes, `d` eight; `b` bytes or text; any other type is a message; `*` repeated.
_MESSAGES: dict[str, dict[int, str]] = {
    "model": {
        **{1: "v", 2: "b", 3: "b", 4: "b", 5: "v", 6: "b", 7: "graph"},
        **{8: "*opset", 14: "*entry", 20: "*training", 25: "*function"},
        26: "*configuration",
    },
    "opset": {1: "b", 2: "v"},
    "entry": {1: "b", 2: "b"},
    "training": {1: "graph", 2: "graph", 3: "*entry", 4: "*entry"},
    "configuration": {1: "b", 2: "v", 3: "*b"},
    "graph": {
        **{1: "*node", 2: "b", 5: "*tensor", 10: "b", 11: "*value", 12: "*value"},
        **{13: "*value", 14: "*annotation", 15: "*sparse", 16: "*entry"},
    },
    "annotation": {1: "b", 2: "*entry"},
    "value": {1: "b", 2: "type", 3: "b", 4: "*entry"},
    "node": {
        **{1: "*b", 2: "*b", 3: "b", 4: "b", 5: "*attribute", 6: "b", 7: "b", 8: "b"},
        **{9: "*entry", 10: "*placement"},
    },
    "placement": {1: "b", 2: "*sharding", 3: "v"},
    "sharding": {1: "b", 2: "*v", 3: "*device", 4: "*sharded"},
    "device": {1: "v", 2: "*v"},
    "sharded": {1: "v", 2: "*shard"},
    "shard": {1: "v", 2: "b", 3: "v"},
    "attribute": {
        **{1: "b", 2: "f", 3: "v", 4: "b", 5: "tensor", 6: "graph", 7: "*f", 8: "*v"},
        **{9: "*b", 10: "*tensor", 11: "*graph", 13: "b", 14: "type", 15: "*type"},
        **{20: "v", 21: "b", 22: "sparse", 23: "*sparse"},
    },
    "function": {
        **{1: "b", 4: "*b", 5: "*b", 6: "*b", 7: "*node", 8: "b", 9: "*opset"},
        **{10: "b", 11: "*attribute", 12: "*value", 13: "b", 14: "*entry"},
    },
    "tensor": {
        **{1: "*v", 2: "v", 3: "segment", 4: "*f", 5: "*v", 6: "*b", 7: "*v", 8: "b"},
        **{9: "b", 10: "*d", 11: "*v", 12: "b", 13: "*entry", 14: "v", 16: "*entry"},
    },
    "segment": {1: "v", 2: "v"},
    "sparse": {1: "tensor", 2: "tensor", 3: "*v"},
    "type": {
        **{1: "array", 4: "list", 5: "map", 6: "b", 7: "opaque", 8: "array"},
        9: "list",
    },
    "array": {1: "v", 2: "shape"},
    "shape": {1: "*length"},
    "length": {1: "v", 2: "b", 3: "b"},
    "list": {1: "type"},
    "map": {1: "v", 2: "type"},
    "opaque": {1: "b", 2: "b"},
}
_WIRE_TYPES = {"v": 0, "d": 1, "f": 5}
_OP_TYPE, _DOMAIN = 4, 7  # of a node
_EXTERNAL_DATA, _DATA_LOCATION = 13, 14  # of a tensor


def forbidden_parts(content: bytes) -> list[str]:
    """Return the parts of a graph that a bundle must not contain, as text.

    Parameters
    ----------
    content : bytes
        Content of the ``.onnx`` file.

    Returns
    -------
    list of str
        Such as ``'external data'`` or ``'the random operator Multinomial'``;
        empty for a permitted graph.

    Raises
    ------
    ValueError
        The bytes are not a message of ONNX as a protobuf library writes it.
    """
    return list(dict.fromkeys(_Scan().walk(memoryview(content), "model", 0)))


class _Scan:
    def __init__(self) -> None:
        self._fields_left = _MOST_FIELDS

    def walk(self, message: memoryview, kind: str, depth: int) -> Iterator[str]:
        """Yield the forbidden parts of a message and of all messages in it."""
        if depth > _DEEPEST:
            raise ValueError("graphs are nested too deeply")
        once: dict[int, int | memoryview] = {}
        for number, value in self._fields(message, kind):
            field = _MESSAGES[kind][number]
            if not field.startswith("*"):
                if number in once:
                    raise ValueError(f"field {number} of a {kind} is given twice")
                once[number] = value
            child = field.removeprefix("*")
            if child in _MESSAGES and isinstance(value, memoryview):
                yield from self.walk(value, child, depth + 1)
            if kind == "tensor" and number == _EXTERNAL_DATA:
                yield "external data"
        if kind == "tensor" and once.get(_DATA_LOCATION, 0) != 0:
            yield "external data"
        elif kind == "function":
            yield "functions of its own"
        elif kind == "node":
            domain, op_type = _text(once.get(_DOMAIN)), _text(once.get(_OP_TYPE))
            if domain not in _STANDARD_DOMAINS:
                yield f"the custom operator {domain}.{op_type}"
            elif op_type in _RANDOM:
                yield f"the random operator {op_type}"

    def _fields(
        self, message: memoryview, kind: str
    ) -> Iterator[tuple[int, int | memoryview]]:
        """Yield field numbers and values of a protobuf message (its wire format)."""
        at = 0
        while at < len(message):
            self._fields_left -= 1
            if self._fields_left < 0:
                raise ValueError(f"it has more than {_MOST_FIELDS} parts")
            key, at = _varint(message, at)
            number, wire_type = key >> 3, key & 7
            field = _MESSAGES[kind].get(number)
            if field is None:
                raise ValueError(f"field {number} of a {kind} is unknown")
            allowed = {_WIRE_TYPES.get(field.removeprefix("*"), 2)}
            if field in ("*v", "*f", "*d"):
                allowed.add(2)  # packed
            if wire_type not in allowed:
                raise ValueError(f"field {number} of a {kind} has another type")
            if wire_type == 0:
                value, at = _varint(message, at)
                yield number, value
                continue
            if wire_type == 2:
                length, at = _varint(message, at)
            else:
                length = 8 if wire_type == 1 else 4
            if at + length > len(message):
                raise ValueError("the file ends too early")
            yield number, message[at : at + length]
            at += length


def _text(value: int | memoryview | None) -> str:
    if not isinstance(value, memoryview):
        return ""
    try:
        return bytes(value).decode()
    except UnicodeDecodeError:
        raise ValueError("the name of an operator is not UTF-8") from None


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """Return a number of variable length, and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(message):
            raise ValueError("the file ends too early")
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if (byte == 0 and shift) or value >= 2**64:
                raise ValueError("a number has more bytes than it needs")
            return value, at
    raise ValueError("a number with too many bytes")
