"""Wire format: messages are decoded as encoded, and invalid ones are rejected."""

import json
import math
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from neurovocal.engine.contracts.types import (
    BULK_KINDS,
    KINDS,
    Anchor,
    Audio,
    Block,
    Comparison,
    Control,
    Event,
    Forecast,
    Frames,
    Gap,
    Health,
    HealthState,
    Label,
    Latent,
    Ledger,
    Message,
    NearMiss,
    Offset,
    Onset,
    Posteriors,
    Stats,
    StreamInfo,
    Suggestion,
    Surprise,
    Synthesis,
    Trace,
    Trigger,
    Withheld,
)
from neurovocal.engine.wire import codec as wire

counts = st.integers(0, 2**63 - 1)
hops = st.integers(1, 100_000)
firsts = st.integers(0, 2**40)
numbers = st.floats(allow_infinity=False)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


def matrices(dimensions: int):
    shapes = array_shapes(
        min_dims=dimensions, max_dims=dimensions, min_side=0, max_side=7
    )
    return arrays(np.float32, shapes)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner),
    max_leaves=5,
)
EVENTS: dict[type, st.SearchStrategy[Event]] = {
    Block: st.builds(Block, counts, matrices(2)),
    Gap: st.builds(Gap, counts, counts, texts),
    Withheld: st.builds(Withheld, counts, counts, texts),
    Anchor: st.builds(Anchor, counts, st.integers(-(2**63), 2**63 - 1)),
    Frames: st.builds(Frames, firsts, hops, hops, matrices(2)),
    Posteriors: st.builds(Posteriors, firsts, hops, hops, matrices(2)),
    Onset: st.builds(Onset, counts, counts, numbers, st.booleans()),
    Offset: st.builds(
        Offset, counts, counts, counts, st.booleans(), st.none() | st.floats(-1e3, 1e3)
    ),
    Trace: st.builds(Trace, firsts, hops, hops, matrices(2), texts),
    NearMiss: st.builds(
        NearMiss,
        counts,
        counts,
        numbers,
        numbers,
        st.sampled_from(["quiet", "short", "soon"]),
        counts,
    ),
    Label: st.builds(
        Label,
        counts,
        counts,
        st.none() | counts,
        texts,
        numbers,
        st.sampled_from(["provisional", "revised", "final"]),
        texts,
    ),
    Forecast: st.builds(
        Forecast,
        counts,
        counts,
        texts,
        numbers,
        st.dictionaries(texts, st.floats(0, 1), max_size=4),
        st.sampled_from(["offset", "onset"]),
        texts,
    ),
    Suggestion: st.builds(
        Suggestion,
        counts,
        counts,
        counts,
        texts,
        numbers,
        st.dictionaries(texts, st.floats(0, 1), max_size=4),
        st.sampled_from(["unknown", "surprising", "every"]),
        texts,
    ),
    Latent: st.builds(Latent, counts, counts, counts, matrices(1), texts),
    Surprise: st.builds(Surprise, firsts, hops, matrices(1)),
    Synthesis: st.builds(Synthesis, firsts, hops, matrices(2), texts, texts),
    Audio: st.builds(Audio, counts, matrices(2), texts, texts, st.booleans()),
    Health: st.builds(
        Health,
        texts,
        st.sampled_from(get_args(HealthState)),
        texts,
    ),
    Control: st.builds(
        Control,
        counts,
        texts,
        texts,
        st.dictionaries(texts, json_values, max_size=4),
    ),
    Trigger: st.builds(
        Trigger,
        texts,
        counts,
        counts,
        counts,
        st.none() | counts,
        st.lists(texts, max_size=3).map(tuple),
        st.lists(st.floats(0, 1), max_size=3).map(tuple),
        st.sampled_from(["onset", "provisional", "final", "silence"]),
        st.sampled_from(["act", "catch", "refractory"]),
        texts,
        st.dictionaries(texts, json_values, max_size=4),
    ),
    Comparison: st.builds(
        Comparison,
        counts,
        st.none() | counts,
        st.none() | texts,
        numbers,
        st.none() | texts,
        numbers,
        st.booleans(),
        texts,
    ),
    Stats: st.builds(Stats, st.dictionaries(texts, json_values, max_size=4)),
}
milliseconds = st.floats(-1e6, 1e6)
messages = st.builds(
    Message,
    st.builds(StreamInfo, texts, st.integers(1, 1_000_000)),
    st.one_of(*EVENTS.values()),
    counts,
    counts,
    st.none() | st.integers(-(2**63), 2**63 - 1),
    st.none() | st.builds(Ledger, milliseconds, milliseconds, milliseconds),
)


def same(a: object, b: object) -> bool:
    """Return True for equal values, arrays bit by bit, NaN equal to NaN."""
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        return a.shape == b.shape and a.tobytes() == b.tobytes()
    if isinstance(a, float) and isinstance(b, float) and math.isnan(a):
        return math.isnan(b)
    return a == b


def same_event(a: Event, b: Event) -> bool:
    names = type(a).__slots__
    return type(a) is type(b) and all(
        same(getattr(a, name), getattr(b, name)) for name in names
    )


def test_every_kind_has_a_strategy() -> None:
    assert set(EVENTS) == set(KINDS)


@given(messages, texts, st.none() | milliseconds)
def test_decode_returns_the_encoded_message(
    message: Message, run: str, publish_ms: float | None
) -> None:
    parts = wire.encode(message, run, publish_ms)
    header, values = wire.decode(parts)
    assert same_event(wire.to_event(header, values), message.event)
    assert (header.stream, header.run, header.seq) == (
        message.info.stream,
        run,
        message.seq,
    )
    assert (header.sample, header.at) == (message.sample, message.at)
    assert header.sample_rate == message.info.sample_rate
    if isinstance(message.event, Anchor):
        assert header.utc_ns == message.event.utc_ns
    else:
        assert header.utc_ns == message.utc_ns
    latency = header.latency
    if message.ledger is None and publish_ms is None:
        assert latency is None
    else:
        assert latency is not None
        assert latency.publish_ms == publish_ms
        ledger = message.ledger
        assert latency.wait_ms == (ledger.wait_ms if ledger else None)
        assert latency.queue_ms == (ledger.queue_ms if ledger else None)
        assert latency.compute_ms == (ledger.compute_ms if ledger else None)


@given(messages)
def test_parts_are_as_documented(message: Message) -> None:
    topic, text, payload = wire.encode(message, "run", None)
    pieces = topic.decode().split("/")
    assert len(pieces) == 3
    assert pieces[:2] == ["nv1", message.kind]
    assert pieces[2].isprintable() or any(ord(c) > 0x9F for c in pieces[2])
    header = json.loads(text, parse_constant=pytest.fail)
    assert header["kind"] == message.kind
    assert ("dtype" in header) == (message.kind in BULK_KINDS)
    if message.kind in BULK_KINDS:
        assert header["dtype"] == "<f4"
        assert math.prod(header["shape"]) * 4 == len(payload)
    else:
        assert payload == b""


@given(messages, st.integers(-(2**63), 2**63 - 1))
def test_the_canonical_form_has_no_run_time_or_latency(
    message: Message, utc_ns: int
) -> None:
    later = replace(message, utc_ns=utc_ns, ledger=Ledger(1.0, 2.0, 3.0), emitted_ns=17)
    assert wire.event_json(later) == wire.event_json(message)
    text = json.loads(wire.event_json(message))
    assert not {"run", "latency"} & set(text)


def test_values_are_included_on_request() -> None:
    values = np.array([1.5, np.nan], np.float32)
    message = Message(StreamInfo("a", 8000), Surprise(3, 128, values), 0, 0)
    text = json.loads(wire.event_json(message, values=True))
    assert text["values"] == [1.5, None]
    assert "values" not in json.loads(wire.event_json(message))


@given(st.lists(st.binary(max_size=60), max_size=5))
def test_random_bytes_are_rejected_in_a_sentence(parts: list[bytes]) -> None:
    with pytest.raises(wire.WireError):
        wire.decode(parts)


@given(messages, st.integers(0, 2), st.data())
def test_a_changed_byte_is_decoded_or_rejected(
    message: Message, which: int, data: st.DataObject
) -> None:
    parts = [bytearray(part) for part in wire.encode(message, "run", 1.0)]
    if not parts[which]:
        return
    place = data.draw(st.integers(0, len(parts[which]) - 1))
    parts[which][place] ^= data.draw(st.integers(1, 255))
    try:
        header, values = wire.decode([bytes(part) for part in parts])
    except wire.WireError:
        return
    wire.to_event(header, values)


LABEL = wire.encode(
    Message(StreamInfo("a", 8000), Label(0, 1, 2, "b", 0.5, "final", "m"), 0, 2),
    "run",
    None,
)
FRAMES = wire.encode(
    Message(
        StreamInfo("a", 8000), Frames(0, 128, 256, np.ones((2, 3), np.float32)), 0, 0
    ),
    "run",
    None,
)


def changed(parts: wire.Parts, **fields: object) -> list[bytes]:
    header = {**json.loads(parts[1]), **fields}
    return [parts[0], json.dumps(header).encode(), parts[2]]


@pytest.mark.parametrize(
    ("parts", "sentence"),
    [
        (LABEL[:2], "3 parts, not 2"),
        ([b"nv2/label/a", *LABEL[1:]], "not of version 1"),
        ([b"nv1/onset/a", *LABEL[1:]], "does not fit"),
        ([b"nv1/label/b", *LABEL[1:]], "does not fit"),
        ([LABEL[0], b"", b""], "cannot be read"),
        ([LABEL[0], b"[" * 200_000, b""], "cannot be read"),
        ([LABEL[0], b'{"kind": "pickle"}', b""], "pickle"),
        ([LABEL[0], LABEL[1], b"1234"], "no payload"),
        ([LABEL[0], b" " * (wire.MAX_HEADER + 1), b""], "is the most"),
        ([b"a" * (wire.MAX_TOPIC + 1), LABEL[1], b""], "is the most"),
        (changed(LABEL, v=2), "version 2"),
        (changed(LABEL, seq=-1), "seq"),
        (changed(LABEL, sample=2**63), "sample"),
        (changed(LABEL, status="perhaps"), "perhaps"),
        (changed(LABEL, unit=7), "unit"),
        (changed(FRAMES, dtype="|O"), "dtype"),
        (changed(FRAMES, shape=[3, 3]), "no array"),
        (changed(FRAMES, shape=[-2, -3]), "shape"),
        (changed(FRAMES, shape=[6]), "2 dimensions"),
        (changed(FRAMES, hop_length=0), "hop_length"),
        ([*changed(FRAMES, shape=[0, 2**62])[:2], b""], "no array"),
        ([FRAMES[0], FRAMES[1], FRAMES[2][:-1]], "no array"),
    ],
)
def test_invalid_messages_are_rejected(parts: list[bytes], sentence: str) -> None:
    with pytest.raises(wire.WireError, match=sentence):
        wire.decode(parts)


@pytest.mark.parametrize("field", ["run", "utc_ns", "latency", "stream", "seq", "at"])
def test_a_missing_field_is_rejected(field: str) -> None:
    header = json.loads(LABEL[1])
    del header[field]
    with pytest.raises(wire.WireError, match=field):
        wire.decode([LABEL[0], json.dumps(header).encode(), b""])


def test_unknown_fields_are_accepted() -> None:
    header, _ = wire.decode(changed(LABEL, species="Lonchura striata"))
    assert header.kind == "label"


def test_decoded_arrays_are_read_only() -> None:
    values = wire.decode(FRAMES).values
    assert values is not None
    with pytest.raises(ValueError, match="read-only"):
        values[0, 0] = 2.0


@pytest.mark.parametrize(
    ("stream", "topic"),
    [
        ("aviary-3", b"nv1/label/aviary-3"),
        ("day 1/bird.wav", b"nv1/label/day 1%2Fbird.wav"),
        ("50%\n", b"nv1/label/50%25%0A"),
        ("Zürich", "nv1/label/Zürich".encode()),
    ],
)
def test_topics_are_percent_encoded(stream: str, topic: bytes) -> None:
    assert wire.topic("label", stream) == topic


def test_a_stream_name_that_is_not_utf8_is_escaped() -> None:
    info = StreamInfo("bird\udcff.wav", 8000)
    parts = wire.encode(Message(info, Health("s", "lossy", "\udcff!"), 0, 0), "r", None)
    header, _ = wire.decode(parts)
    assert header.stream == "bird\\udcff.wav"


def test_numpy_scalars_are_encoded() -> None:
    stats = Stats({"lag_ms": np.float32(0.5), "counts": np.arange(3)})
    onset = Onset(0, np.int64(4), np.float32(2.5))  # type: ignore[arg-type]
    for event in (stats, onset):
        message = Message(StreamInfo("a", 8000), event, 0, 0)
        wire.decode(wire.encode(message, "r", None))
    text = wire.event_json(Message(StreamInfo("a", 8000), stats, 0, 0))
    assert json.loads(text)["values"] == {"lag_ms": 0.5, "counts": [0, 1, 2]}
