"""Wire format (docs/reference/wire.md): encode and decode messages.

A message has a topic, a header and a payload; the transport does not matter. The
decoder checks everything: its input may come from any program.
"""

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple, TypeAlias

import msgspec
import numpy as np
from msgspec import UNSET

from neurovocal.engine.contracts.errors import NeurovocalError
from neurovocal.engine.contracts.types import Float32, Message
from neurovocal.engine.support.strict_json import JsonError
from neurovocal.engine.wire.headers import (
    MAX_HEADER,
    VERSION,
    AnchorHeader,
    ArrayHeader,
    Header,
    Latency,
    array_of,
    decoder,
    dimensions_of,
    encoder,
    header_of,
    to_event,
)

__all__ = [
    "MAX_HEADER",
    "MAX_PAYLOAD",
    "MAX_SUBSCRIPTION",
    "MAX_TOPIC",
    "READY",
    "Decoded",
    "Header",
    "Latency",
    "WireError",
    "decode",
    "encode",
    "event_json",
    "latency_of",
    "payload_of",
    "prefix",
    "ready_topic",
    "to_event",
    "topic",
]

MAX_TOPIC = 16 * 1024
MAX_SUBSCRIPTION = 2048  # a longer topic is subscribed to by its first bytes
MAX_PAYLOAD = 64 * 1024 * 1024

# Sorts after every other topic: ZeroMQ sends the subscriptions of a connection in
# sorted order, so that a publisher that receives this one has received all others.
READY = f"nv{VERSION}~ready/".encode()

DTYPE = "<f4"
_ITEM_BYTES = 4
_VERSION_PREFIX = f"nv{VERSION}/".encode()

Parts: TypeAlias = tuple[bytes, bytes, bytes]


class WireError(NeurovocalError):
    """A message does not follow the wire format."""


class Decoded(NamedTuple):
    """Checked header and its array: read-only float32, or None."""

    header: Header
    values: Float32 | None


def prefix(kind: str) -> str:
    """Return the common prefix of all topics of a kind."""
    return f"nv{VERSION}/{kind}/"


def ready_topic(name: str, part: int = 1, parts: int = 1) -> bytes:
    """Return the subscription that marks the end of a subscriber's subscriptions.

    Parameters
    ----------
    name : str
        Unique name of the subscriber, without ``/``.
    part, parts : int
        Number of this connection of the subscriber, from 1, and number of connections.
    """
    return READY + f"{name}/{part}/{parts}".encode()


@lru_cache(maxsize=4096)
def topic(kind: str, stream: str) -> bytes:
    """Return the topic of a kind and stream: ``nv1/<kind>/<stream>`` in UTF-8.

    In the stream's name ``/``, ``%`` and control characters are percent-encoded: a
    topic always has three parts and is one printable line.
    """
    return (prefix(kind) + "".join(map(_quoted, _utf8(stream)))).encode()


def _quoted(char: str) -> str:
    code = ord(char)
    if char in "/%" or code < 0x20 or 0x7F <= code < 0xA0:
        return "".join(f"%{byte:02X}" for byte in char.encode())
    return char


def _utf8(text: str) -> str:
    """Escape characters that UTF-8 cannot encode: file names may contain any bytes."""
    return text.encode("utf-8", "backslashreplace").decode()


def encode(message: Message, run: str, publish_ms: float | None) -> Parts:
    """Encode a message as topic, header and payload.

    Parameters
    ----------
    message : Message
        Any message of the engine.
    run : str
        Name of the run.
    publish_ms : float or None
        Time from the end of the lane's computation to sending; None offline.
    """
    header = header_of(message)
    header.run = run
    if not isinstance(header, AnchorHeader):
        header.utc_ns = message.utc_ns
    header.latency = latency_of(message, publish_ms)
    name = topic(message.kind, message.info.stream)
    return name, _json(header), payload_of(message)


def latency_of(message: Message, publish_ms: float | None) -> Latency | None:
    """Return the ledger of a message with the time of sending; None offline."""
    ledger = message.ledger
    if ledger is None:
        if publish_ms is None:
            return None
        return Latency(None, None, None, publish_ms)
    return Latency(ledger.wait_ms, ledger.queue_ms, ledger.compute_ms, publish_ms)


def event_json(message: Message, *, values: bool = False) -> bytes:
    """Return the canonical JSON of an event: the fields defined by the audio alone.

    The same audio and configuration give the same bytes in every run: run, time of day
    and latency are left out.

    Parameters
    ----------
    message : Message
        Any message of the engine.
    values : bool
        Whether to include the array of a bulky event (NaN as null).
    """
    text = _json(header_of(message))
    array = array_of(message.event) if values else None
    if array is None:
        return text
    return b"".join((text[:-1], b',"values":', encoder.encode(array.tolist()), b"}"))


def payload_of(message: Message) -> bytes:
    """Return the event's array as little-endian float32 in C order, or no bytes."""
    array = array_of(message.event)
    if array is None:
        return b""
    return np.ascontiguousarray(array, dtype=DTYPE).tobytes()


def _json(header: Header) -> bytes:
    try:
        return encoder.encode(header)
    except UnicodeEncodeError:
        return encoder.encode(_clean(msgspec.to_builtins(header)))


def _clean(value: Any) -> Any:
    match value:
        case str():
            return _utf8(value)
        case dict():
            return {_clean(key): _clean(item) for key, item in value.items()}
        case list() | tuple():
            return [_clean(item) for item in value]
        case _:
            return value


def decode(parts: Sequence[bytes | memoryview]) -> Decoded:
    """Decode a message and check all of it.

    Parameters
    ----------
    parts : sequence of bytes
        Topic, header, payload.

    Returns
    -------
    Decoded
        Header and array; the array is a read-only view of the payload.

    Raises
    ------
    WireError
        The message is not as docs/reference/wire.md says. Unknown fields are allowed:
        a later version may add some.
    """
    if len(parts) != 3:
        raise WireError(f"a message has 3 parts, not {len(parts)}")
    limits = (MAX_TOPIC, MAX_HEADER, MAX_PAYLOAD)
    names = ("topic", "header", "payload")
    for part_name, part, limit in zip(names, parts, limits, strict=True):
        if len(part) > limit:
            raise WireError(f"{part_name} of {len(part)} bytes: {limit} is the most")
    name, text, payload = bytes(parts[0]), parts[1], parts[2]
    if not name.startswith(_VERSION_PREFIX):
        raise WireError(f"topic {_shown(name)} is not of version {VERSION}")
    header = _read_header(text)
    if name != topic(header.kind, header.stream):
        raise WireError(
            f"topic {_shown(name)} does not fit a header of kind '{header.kind}'"
        )
    if isinstance(header, ArrayHeader):
        return Decoded(header, _read_array(header, payload))
    if len(payload):
        raise WireError(f"a message of kind '{header.kind}' has no payload")
    return Decoded(header, None)


def _read_header(text: bytes | memoryview) -> Header:
    try:
        header = decoder.read(text)
    except JsonError as error:
        raise WireError(f"the header cannot be read: {error}") from error
    if header.v != VERSION:
        raise WireError(f"the header is of version {header.v}, not {VERSION}")
    for field in ("run", "utc_ns", "latency"):
        if getattr(header, field) is UNSET:
            raise WireError(f"the header lacks '{field}'")
    if isinstance(header, AnchorHeader) and header.utc_ns is None:
        raise WireError("an anchor without 'utc_ns' says nothing")
    return header


def _read_array(
    header: ArrayHeader, payload: bytes | memoryview
) -> np.ndarray[Any, np.dtype[np.float32]]:
    if header.dtype != DTYPE:
        raise WireError(f"dtype '{header.dtype}' is not '{DTYPE}'")
    shape = header.shape
    expected = dimensions_of(header)
    if len(shape) != expected:
        raise WireError(f"shape {shape} does not have {expected} dimensions")
    if math.prod(shape) * _ITEM_BYTES != len(payload):
        raise WireError(f"a payload of {len(payload)} bytes is no array of {shape}")
    try:
        return np.frombuffer(payload, DTYPE).reshape(shape)
    except ValueError as error:  # no values, but an impossible shape
        raise WireError(f"shape {shape} is no array: {error}") from error


def _shown(name: bytes) -> str:
    return repr(name[:60].decode("utf-8", "replace"))
