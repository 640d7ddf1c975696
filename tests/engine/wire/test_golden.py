"""Bytes of every kind of message: a change of the code may not change them."""

import numpy as np
import pytest

from neurovocal.engine.contracts.types import (
    KINDS,
    Anchor,
    Audio,
    Block,
    Comparison,
    Control,
    Forecast,
    Frames,
    Gap,
    Health,
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
from neurovocal.engine.wire.headers import FORMATS, Header

NAN = float("nan")
UTC_NS = 1_700_000_000_000_000_001
VALUES = np.array([[0.5, -1.0, 2.0], [0.0, NAN, 1e-3]], np.float32)
SAMPLES = VALUES[:, :1]  # not contiguous
VALUES_BYTES = bytes.fromhex("0000003f000080bf00000040000000000000c07f6f12833a")
SAMPLES_BYTES = bytes.fromhex("0000003f00000000")
MATRIX = '"dtype":"<f4","shape":[2,3],"first":5,"hop_length":8'

# Event, sample of the header, fields of its own, payload.
GOLDEN = [
    (
        Block(40, SAMPLES, 7),
        40,
        '"dtype":"<f4","shape":[2,1],"start":40',
        SAMPLES_BYTES,
    ),
    (Gap(40, 60, "overrun"), 40, '"start":40,"stop":60,"reason":"overrun"', b""),
    (Withheld(40, 60, "voice"), 40, '"start":40,"stop":60,"reason":"voice"', b""),
    (Anchor(40, UTC_NS), 40, "", b""),
    (Frames(5, 8, 16, VALUES), 40, f'{MATRIX},"frame_length":16', VALUES_BYTES),
    (Posteriors(5, 8, 16, VALUES), 40, f'{MATRIX},"frame_length":16', VALUES_BYTES),
    (Onset(3, 40, 0.25), 40, '"segment":3,"score":0.25', b""),
    (Offset(3, 40, 90, True), 90, '"segment":3,"onset":40,"truncated":true', b""),
    (
        Trace(5, 8, 16, VALUES, "dB"),
        40,
        f'{MATRIX},"frame_length":16,"unit":"dB"',
        VALUES_BYTES,
    ),
    (
        NearMiss(40, 90, NAN, 10.0, "quiet", 2),
        40,
        '"onset":40,"offset":90,"score":null,"threshold":10.0,"reason":"quiet",'
        '"omitted":2',
        b"",
    ),
    (
        Label(3, 40, None, "a/ü", NAN, "provisional", "m"),
        40,
        '"segment":3,"onset":40,"offset":null,"unit":"a/ü","posterior":null,'
        '"status":"provisional","model":"m"',
        b"",
    ),
    (
        Forecast(3, 40, "a", 0.5, {"a": 0.5, "b": NAN}, "onset", "m"),
        40,
        '"segment":3,"unit":"a","posterior":0.5,"posteriors":{"a":0.5,"b":null},'
        '"status":"onset","model":"m"',
        b"",
    ),
    (
        Suggestion(3, 40, 90, "dog", 0.5, {"dog": 0.5, "cat": NAN}, "unknown", "m"),
        40,
        '"segment":3,"onset":40,"offset":90,"name":"dog","posterior":0.5,'
        '"posteriors":{"dog":0.5,"cat":null},"reason":"unknown","model":"m"',
        b"",
    ),
    (
        Latent(3, 40, 90, VALUES[0], "m"),
        40,
        '"dtype":"<f4","shape":[3],"segment":3,"onset":40,"offset":90,"model":"m"',
        VALUES_BYTES[:12],
    ),
    (
        Surprise(5, 8, VALUES[0]),
        40,
        '"dtype":"<f4","shape":[3],"first":5,"hop_length":8',
        VALUES_BYTES[:12],
    ),
    (
        Synthesis(5, 8, VALUES, "free", "m"),
        40,
        f'{MATRIX},"mode":"free","model":"m"',
        VALUES_BYTES,
    ),
    (
        Audio(40, SAMPLES, "free", "m", True),
        40,
        '"dtype":"<f4","shape":[2,1],"start":40,"mode":"free","model":"m","last":true',
        SAMPLES_BYTES,
    ),
    (
        Health("source", "degraded", 'a "sentence"\n'),
        100,
        r'"stage":"source","state":"degraded","detail":"a \"sentence\"\n"',
        b"",
    ),
    (
        Control(40, "set", "m", {"x": 1.5, "y": [None, True]}),
        40,
        '"command":"set","model":"m","arguments":{"x":1.5,"y":[null,true]}',
        b"",
    ),
    (
        Trigger(
            *("t", 40, 3, 40, None, ("a", ""), (0.5, NAN), "onset", "act"),
            *("m", {"x": 1}),
        ),
        40,
        '"trigger":"t","segment":3,"onset":40,"offset":null,"units":["a",""],'
        '"posteriors":[0.5,null],"status":"onset","decision":"act","model":"m",'
        '"arguments":{"x":1}',
        b"",
    ),
    (
        Comparison(40, 90, "a", 0.5, None, NAN, False, "new"),
        40,
        '"onset":40,"offset":90,"unit":"a","posterior":0.5,"shadow_unit":null,'
        '"shadow_posterior":null,"agrees":false,"shadow":"new"',
        b"",
    ),
    (
        Stats({"lag_ms": np.float32(0.5), "n": np.arange(2)}),
        100,
        '"values":{"lag_ms":0.5,"n":[0,1]}',
        b"",
    ),
]
each_kind = pytest.mark.parametrize(
    ("event", "sample", "own", "payload"), GOLDEN, ids=lambda v: KINDS.get(type(v), "")
)


def message(event, utc_ns, ledger):
    return Message(StreamInfo("aviary/3", 8000), event, 4, 100, utc_ns, ledger, 99)


def header(event, sample, own, rest):
    kind = KINDS[type(event)]
    common = (
        f'"kind":"{kind}","v":1,"stream":"aviary/3","seq":4,"sample":{sample},'
        f'"at":100,"sample_rate":8000'
    )
    return ("{" + ",".join(filter(None, (common, rest, own))) + "}").encode()


def test_every_kind_has_golden_bytes():
    assert {type(event) for event, *_ in GOLDEN} == set(KINDS)
    assert len(GOLDEN) == len(KINDS)


@each_kind
def test_bytes_of_a_message_with_its_ledger(event, sample, own, payload):
    parts = wire.encode(
        message(event, UTC_NS, Ledger(1.5, 0.25, 0.125)), "run-1", publish_ms=2.0
    )
    rest = (
        f'"run":"run-1","utc_ns":{UTC_NS},"latency":{{"wait_ms":1.5,"queue_ms":0.25,'
        f'"compute_ms":0.125,"publish_ms":2.0}}'
    )
    topic = f"nv1/{KINDS[type(event)]}/aviary%2F3".encode()
    assert parts == (topic, header(event, sample, own, rest), payload)


@each_kind
def test_bytes_of_a_message_without_time_and_ledger(event, sample, own, payload):
    parts = wire.encode(message(event, None, None), "run-1", publish_ms=None)
    utc = UTC_NS if isinstance(event, Anchor) else "null"
    rest = f'"run":"run-1","utc_ns":{utc},"latency":null'
    assert parts[1:] == (header(event, sample, own, rest), payload)


@each_kind
def test_bytes_of_the_canonical_form(event, sample, own, payload):
    rest = f'"utc_ns":{UTC_NS}' if isinstance(event, Anchor) else ""
    text = wire.event_json(message(event, UTC_NS, Ledger(1.0, 1.0, 1.0)))
    assert text == header(event, sample, own, rest)


@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.event.__name__)
def test_a_header_has_the_fields_that_its_event_sends(form):
    own = set(form.header.__struct_fields__) - set(Header.__struct_fields__)
    shape = {"dtype", "shape"} if form.array else set()
    assert own == (set(form.sent) | shape) - {"utc_ns"}
    assert form.header.__struct_config__.tag == KINDS[form.event]


def test_every_kind_has_a_format():
    assert [form.event for form in FORMATS] == list(KINDS)
