"""Scan of ONNX files: it sees what the `onnx` package sees, or refuses the file."""

import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import onnx
import pytest
from google.protobuf.message import DecodeError, Message
from onnx import TensorProto, helper, numpy_helper

from neurovocal.plugins.models.onnx.scan import forbidden_parts

RANDOM = {"Bernoulli", "Dropout", "Multinomial", "RandomNormal", "RandomUniformLike"}


def tensor(name: str, *, external: bool = False) -> TensorProto:
    made = numpy_helper.from_array(np.ones(2, np.float32), name)
    if external:
        made.ClearField("raw_data")
        made.data_location = TensorProto.EXTERNAL
        entry = made.external_data.add()
        entry.key, entry.value = "location", "/etc/passwd"
    return made


def graph(nodes: list[onnx.NodeProto], *initializers: TensorProto) -> onnx.GraphProto:
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["T", 2])
    return helper.make_graph(nodes, "g", [output], [output], list(initializers))


def node(op_type: str, domain: str = "", **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(op_type, ["x"], ["y"], domain=domain, **attributes)


def model(inner: onnx.GraphProto, **more: Any) -> onnx.ModelProto:
    opset = [helper.make_opsetid("", 17)]
    return helper.make_model(inner, opset_imports=opset, ir_version=8, **more)


def everything() -> onnx.ModelProto:
    """Return a model with forbidden parts at every place that can hold one."""
    sparse = helper.make_sparse_tensor(tensor("v", external=True), tensor("i"), [9])
    body = graph([node("RandomNormal"), node("Add")], tensor("b", external=True))
    deep = graph([node("If", then_branch=body, else_branch=graph([node("Mul")]))])
    nodes = [
        node("Loop", body=deep),
        node("Constant", value=tensor("c", external=True)),
        node("Constant", sparse_value=sparse),
        node("Launch", "com.example"),
        node("Relu", "ai.onnx"),
        node("Bernoulli", seed=3.5),
        node("Any", "d", graphs=[graph([node("Multinomial")])], tensors=[tensor("t")]),
    ]
    made = model(graph(nodes, tensor("w"), tensor("far", external=True)))
    made.graph.sparse_initializer.append(sparse)
    function = helper.make_function(
        "own", "f", ["x"], ["y"], [node("RandomUniformLike")], made.opset_import
    )
    made.functions.append(function)
    made.training_info.add().algorithm.CopyFrom(graph([node("Dropout")]))
    helper.set_model_props(made, {"key": "value"})
    return made


def messages(message: Message) -> Iterator[Message]:
    yield message
    for field, value in message.ListFields():
        if field.message_type is not None:
            parts = [value] if isinstance(value, Message) else value
            for part in parts:
                yield from messages(part)


def seen_by_onnx(content: bytes) -> set[str] | None:
    """Return the forbidden parts by the `onnx` package; None: it cannot read them."""
    parsed = onnx.ModelProto()
    try:
        parsed.ParseFromString(content)
    except DecodeError:
        return None
    found = set()
    for part in messages(parsed):
        if isinstance(part, onnx.TensorProto):
            if part.external_data or part.data_location == TensorProto.EXTERNAL:
                found.add("external data")
        elif isinstance(part, onnx.FunctionProto):
            found.add("functions of its own")
        elif isinstance(part, onnx.NodeProto):
            if part.domain not in ("", "ai.onnx"):
                found.add(f"the custom operator {part.domain}.{part.op_type}")
            elif part.op_type in RANDOM:
                found.add(f"the random operator {part.op_type}")
    return found


def seen(content: bytes) -> set[str] | None:
    try:
        return set(forbidden_parts(content))
    except ValueError:
        return None


def varint(value: int, length: int = 0) -> bytes:
    """Encode a number, in `length` bytes at least."""
    parts = []
    while value >= 0x80 or len(parts) + 1 < length:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*parts, value])


def read_varint(content: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = content[at]
        at, value, shift = at + 1, value | (byte & 0x7F) << shift, shift + 7
        if byte < 0x80:
            return value, at


def fields(content: bytes) -> list[tuple[int, int, bytes | int]]:
    """Split a message into (number, wire type, value)."""
    found: list[tuple[int, int, bytes | int]] = []
    at = 0
    while at < len(content):
        key, at = read_varint(content, at)
        number, kind = key >> 3, key & 7
        if kind == 0:
            value, at = read_varint(content, at)
            found.append((number, kind, value))
            continue
        length = {1: 8, 5: 4}.get(kind)
        if length is None:
            length, at = read_varint(content, at)
        found.append((number, kind, content[at : at + length]))
        at += length
    return found


def join(parts: list[tuple[int, int, bytes | int]], longer: int = 0) -> bytes:
    out = b""
    for number, kind, value in parts:
        out += varint(number << 3 | kind, longer and longer + 1)
        if isinstance(value, int):
            out += varint(value, longer)
        else:
            out += (varint(len(value), longer) if kind == 2 else b"") + value
    return out


def inside(
    content: bytes, rng: random.Random, change: Callable[[bytes], bytes], depth: int
) -> bytes:
    """Apply `change` to a message at a random place `depth` levels down."""
    if depth == 0:
        return change(content)
    parts = fields(content)
    candidates = [
        index
        for index, (_, kind, value) in enumerate(parts)
        if kind == 2 and isinstance(value, bytes) and len(value) > 3
    ]
    if not candidates:
        return change(content)
    index = rng.choice(candidates)
    number, kind, value = parts[index]
    assert isinstance(value, bytes)
    try:
        parts[index] = (number, kind, inside(value, rng, change, depth - 1))
    except (IndexError, ValueError):  # a text, not a message
        return change(content)
    return join(parts)


def mutated(content: bytes, rng: random.Random) -> bytes:
    def change(message: bytes) -> bytes:
        parts = fields(message)
        index = rng.randrange(len(parts) + 1)
        part = parts[index] if index < len(parts) else (1, 0, 0)
        number, kind, value = part
        what = rng.randrange(12)
        if what == 0:
            return join(parts, longer=rng.randrange(1, 5))
        if what == 1:  # given twice: the last one counts, messages are merged
            return join([*parts, part])
        if what == 2 and isinstance(value, bytes):
            try:
                half = len(fields(value)) // 2
                halves = join(fields(value)[:half]), join(fields(value)[half:])
            except (IndexError, ValueError):
                return join([*parts, (number, kind, b"RandomNormal")])
            parts[index : index + 1] = [(number, kind, each) for each in halves]
            return join(parts)
        if what == 3:
            return join([*parts, (rng.choice([0, 99, 7, 4, 13, 14]), kind, value)])
        if what == 4:  # a group around a field
            group = varint(number << 3 | 3) + join([part]) + varint(number << 3 | 4)
            return message + group
        if what == 5:
            rng.shuffle(parts)
            return join(parts)
        if what == 6:
            return join(parts[:index] + parts[index + 1 :])
        if what == 7:
            return join([*parts, (4, 2, b"Multinomial")])
        if what == 8:
            return join([*parts, (7, 2, rng.choice([b"", b"ai.onnx", b"x\xff"]))])
        if what == 9:
            return join([*parts, (14, 0, rng.choice([0, 1, 2, 2**32 + 1, 2**64 - 1]))])
        at = rng.randrange(len(message) + 1)
        if what == 10:
            return message[:at] + rng.randbytes(rng.randrange(1, 4)) + message[at:]
        return message[:at] + rng.randbytes(1) + message[at + 1 :]

    for _ in range(rng.randrange(1, 4)):
        try:
            content = inside(content, rng, change, rng.randrange(6))
        except (IndexError, ValueError):  # an earlier change: no message any more
            return content
    return content


def test_the_scan_sees_what_onnx_sees() -> None:
    content = everything().SerializeToString()
    found = seen(content)
    assert found == seen_by_onnx(content)
    assert found is not None
    assert len(found) >= 9


@pytest.mark.parametrize("seed", range(4))
def test_the_scan_sees_in_changed_files_what_onnx_sees_or_refuses(seed: int) -> None:
    rng = random.Random(seed)
    whole = everything().SerializeToString()
    unchanged = seen(whole)
    n_read = n_refused = n_differing = 0
    for _ in range(1000):
        content = mutated(whole, rng)
        expected, found = seen_by_onnx(content), seen(content)
        n_read += found is not None
        n_refused += found is None and expected is not None
        n_differing += found != unchanged
        if found is not None and expected is not None:
            assert found == expected, content.hex()
    # Changes of all sorts: some are harmless, some hide parts from a naive scan.
    assert n_read > 200
    assert n_refused > 200
    assert n_differing > 500


HIDDEN = model(graph([node("Multinomial")])).SerializeToString()


@pytest.mark.parametrize("longer", [1, 2, 4])
def test_numbers_that_are_written_longer_than_needed_are_refused(longer: int) -> None:
    content = join(fields(HIDDEN), longer=longer)
    assert seen_by_onnx(content) == {"the random operator Multinomial"}
    with pytest.raises(ValueError, match="more bytes than it needs"):
        forbidden_parts(content)


def test_a_graph_that_is_given_in_two_parts_is_refused() -> None:
    parts = fields(HIDDEN)
    (inner,) = (value for number, _, value in parts if number == 7)
    content = join([*parts, (7, 2, b"")])
    assert isinstance(inner, bytes)
    assert seen_by_onnx(content) == {"the random operator Multinomial"}
    with pytest.raises(ValueError, match="field 7 of a model is given twice"):
        forbidden_parts(content)


@pytest.mark.parametrize(
    ("extra", "reason"),
    [
        (b"\x1b\x1c", "another type"),  # group of field 3
        (b"\x0b\x0c", "another type"),
        (varint(500 << 3) + b"\0", "field 500 of a model is unknown"),
        (b"\0\0", "field 0 of a model is unknown"),
        (b"\x3a\xff", "ends too early"),
        (b"\x08" + b"\xff" * 9 + b"\x02", "more bytes than it needs"),
        (b"\x08" + b"\xff" * 11, "too many bytes"),
    ],
)
def test_what_no_library_writes_is_refused(extra: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        forbidden_parts(b"".join([extra, b""]))


def test_deep_and_endless_files_are_refused() -> None:
    content = b""
    for _ in range(40):  # graph in attribute in node in graph
        for number in (6, 5, 1):
            content = join([(number, 2, content)])
    with pytest.raises(ValueError, match="nested too deeply"):
        forbidden_parts(join([(7, 2, content)]))
    with pytest.raises(ValueError, match="more than 200000 parts"):
        forbidden_parts(b"\x72\x00" * 200_001)
