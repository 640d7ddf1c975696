"""Scan of an ONNX file for parts that a bundle must not contain.

A bundle may come from an untrusted source. ONNX Runtime would read external data
beside the file and run random operators, so the graph is scanned first. Only the
necessary protobuf fields are decoded (onnx.proto3 of the ONNX specification).
"""

from collections.abc import Iterator

_RANDOM = frozenset(
    {
        "Bernoulli",
        "Multinomial",
        "RandomNormal",
        "RandomNormalLike",
        "RandomUniform",
        "RandomUniformLike",
    }
)
_STANDARD_DOMAINS = frozenset({"", "ai.onnx"})
_DEEPEST = 32  # nested graphs; real ones have two or three levels

# Message type -> field number -> message type of the field.
_CHILDREN: dict[str, dict[int, str]] = {
    "model": {7: "graph", 25: "function"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node"},
    "node": {5: "attribute"},
    "attribute": {
        5: "tensor",
        6: "graph",
        10: "tensor",
        11: "graph",
        22: "sparse",
        23: "sparse",
    },
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {},
}
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
        The bytes are not a protobuf message.
    """
    found: dict[str, None] = {}
    for part in _walk(memoryview(content), "model", 0):
        found.setdefault(part)
    return list(found)


def _walk(message: memoryview, kind: str, depth: int) -> Iterator[str]:
    if depth > _DEEPEST * 3:
        raise ValueError("graphs are nested too deeply")
    op_type = domain = ""
    for number, value in _fields(message):
        child = _CHILDREN[kind].get(number)
        if child is not None and isinstance(value, memoryview):
            yield from _walk(value, child, depth + 1)
        elif kind == "node" and number == _OP_TYPE:
            op_type = _text(value)
        elif kind == "node" and number == _DOMAIN:
            domain = _text(value)
        elif kind == "tensor" and (
            number == _EXTERNAL_DATA or (number == _DATA_LOCATION and value == 1)
        ):
            yield "external data"
    if domain not in _STANDARD_DOMAINS:
        yield f"the custom operator {domain}.{op_type}"
    elif op_type in _RANDOM:
        yield f"the random operator {op_type}"


def _text(value: int | memoryview) -> str:
    if isinstance(value, int):
        raise ValueError("a number where a name should be")
    return bytes(value).decode("utf-8", "replace")


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Yield field numbers and values of a protobuf message (its wire format)."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        number, wire_type = key >> 3, key & 7
        if wire_type == 0:
            value, at = _varint(message, at)
            yield number, value
            continue
        if wire_type == 2:
            length, at = _varint(message, at)
        elif wire_type in (1, 5):
            length = 8 if wire_type == 1 else 4
        else:
            raise ValueError(f"wire type {wire_type}")
        if at + length > len(message):
            raise ValueError("the file ends too early")
        yield number, message[at : at + length]
        at += length


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(message):
            raise ValueError("the file ends too early")
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError("a number with too many bytes")
