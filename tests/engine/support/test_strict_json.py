"""JSON of strangers: typed values, or one sentence in own words."""

import contextlib
import re
from typing import Annotated, Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Meta

from neurovocal.engine.support.strict_json import (
    MOST_LEVELS,
    JsonError,
    JsonReader,
    objects,
)


class Order(msgspec.Struct):
    count: Annotated[int, Meta(ge=0, le=10)]
    name: Annotated[str, Meta(min_length=1, max_length=5)] = "x"
    share: float | None = None
    kind: Literal["a", "b"] = "a"


ORDERS = JsonReader(Order, most_bytes=200_000)
DEEP = b"[" * 50_000 + b"]" * 50_000


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (b"[]", "it is a list, not an object"),
        (b"{}", "it lacks 'count'"),
        (b'{"count": "3"}', "'count' is text, not a whole number"),
        (b'{"count": 1.5}', "'count' is a number, not a whole number"),
        (b'{"count": -1}', "'count' has to be >= 0"),
        (b'{"count": 4611686018427387904}', "'count' has to be <= 10"),
        (b'{"count": ' + b"9" * 5000 + b"}", "holds a number that is too large"),
        (b'{"count": 1e999}', "holds a number that is too large"),
        (b'{"count": NaN}', "it is not JSON"),
        (b'{"count": 1, "name": ""}', "'name' has to be of length >= 1"),
        (b'{"count": 1, "name": "123456"}', "'name' has to be of length <= 5"),
        (b'{"count": 1, "share": []}', "'share' is a list, not a number or null"),
        (b'{"count": 1, "kind": "c"}', "'kind' cannot be 'c'"),
        (b'{"count": 1, "more": ' + DEEP + b"}", "nested more than 32 levels deep"),
        (DEEP, "nested more than 32 levels deep"),
        (b'{"a":' * 100 + b"1", "nested more than 32 levels deep"),
        (b"", "it is not JSON"),
        (b'{"count": 1', "it is not JSON"),
        (b'{"count": 1, "name": "\xff"}', "it is not JSON"),
        (b'{"count": 1, "name": "' + b"x" * 300_000, "200000 at most"),
    ],
)
def test_a_wrong_text_is_refused_in_one_sentence(text, sentence):
    with pytest.raises(JsonError, match=re.escape(sentence)) as caught:
        ORDERS.read(text)
    assert "`" not in str(caught.value)


def test_brackets_in_texts_are_no_levels():
    text = b'{"count": 1, "more": "' + b'[{\\"' * 1000 + b'"}'
    assert ORDERS.read(text) == Order(1)


def test_a_number_too_large_in_an_object_of_any_keys():
    with pytest.raises(JsonError, match=r"^it holds a number that is too large$"):
        objects.read(b'{"a": {"b": ' + b"9" * 5000 + b"}}")


def test_the_deepest_value():
    deepest = b"[" * (MOST_LEVELS - 1) + b"]" * (MOST_LEVELS - 1)
    assert "a" in objects.read(b'{"a": ' + deepest + b"}")
    with pytest.raises(JsonError, match="levels"):
        objects.read(b'{"a": [' + deepest + b"]}")


def test_names_of_files_may_hold_other_bytes_than_utf_8():
    text = b'{"count": 1, "name": "\\udce9"}'
    assert JsonReader(Order, names_files=True).read(text).name == "\udce9"
    with pytest.raises(JsonError):
        ORDERS.read(text)
    for wrong in (DEEP[:40_000], b"[1", b'{"count": ' + b"9" * 5000 + b"}"):
        with pytest.raises(JsonError):
            JsonReader(Order, names_files=True).read(wrong)


@given(st.binary(max_size=60), st.booleans())
def test_any_bytes_are_read_or_refused(text, names_files):
    with contextlib.suppress(JsonError):
        assert isinstance(JsonReader(Order, names_files=names_files).read(text), Order)
