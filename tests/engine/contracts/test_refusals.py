"""Reasons of refusals: words of this program, none of pydantic's."""

from typing import Annotated, Any, Literal

import pytest
from pydantic import Field, TypeAdapter, ValidationError

from neurovocal.engine.contracts.options import Options
from neurovocal.engine.contracts.refusals import reason_of, sentences_of


class Inner(Options):
    """Options within options."""

    rate: int = Field(default=1, ge=1, le=9)


class Some(Options):
    """Options of all types."""

    number: float = 1.0
    whole: int = 1
    flag: bool = False
    name: str = ""
    names: list[str] = []
    table: dict[str, Any] = {}
    word: Literal["a", "b"] = "a"
    inner: Inner = Inner()
    few: Annotated[list[int], Field(max_length=1)] = []


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        ({"number": "x"}, "number: must be a number (got 'x')"),
        ({"whole": 1.5}, "whole: must be a whole number (got 1.5)"),
        ({"whole": "x"}, "whole: must be a whole number (got 'x')"),
        ({"flag": "maybe"}, "flag: must be true or false (got 'maybe')"),
        ({"name": 3}, "name: must be a text (got 3)"),
        ({"names": "x"}, "names: must be a list (got 'x')"),
        ({"table": 3}, "table: must be 'key: value' lines (got 3)"),
        ({"word": "c"}, "word: must be 'a' or 'b' (got 'c')"),
        (
            {"inner": {"rate": 0}},
            "inner.rate: must be at least 1 and at most 9 (got 0)",
        ),
        ({"inner": {"rat": 1}}, "inner.rat: unknown option (did you mean 'rate'?)"),
        ({"few": [1, 2]}, "few: must have at most 1 entry (it has 2)"),
    ],
)
def test_a_mistake_is_one_sentence(data: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Some.model_validate(data)
    assert sentences_of(caught.value, Some) == [sentence]
    assert sentences_of(caught.value, Some, "x.yaml: ") == [f"x.yaml: {sentence}"]


@pytest.mark.parametrize(
    ("bound", "words"),
    [
        (Field(ge=1), "must be at least 1"),
        (Field(gt=0.5), "must be above 0.5"),
        (Field(le=-2), "must be at most -2"),
        (Field(lt=-2), "must be below -2"),
    ],
)
def test_a_bound_of_a_single_value_is_told_without_a_model(
    bound: Any, words: str
) -> None:
    value = 0 if "least" in words or "above" in words else 5
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(Annotated[float, bound]).validate_python(value)
    assert [reason_of(each, None) for each in caught.value.errors()] == [words]
