"""Sentences for the mistakes in a configuration, each with file and line."""

from collections.abc import Iterable
from copy import deepcopy
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from neurovocal.engine.config.located_yaml import Located, Location, put
from neurovocal.engine.contracts.refusals import is_about_value, reason_of
from neurovocal.engine.support.text import shortened

ModelT = TypeVar("ModelT", bound=BaseModel)


def validated(
    model: type[ModelT], data: Any, located: Located, prefix: Location = ()
) -> ModelT:
    """Return checked data; the value of a variable is a text where one is expected.

    A password of digits, for example, which is a number in YAML.

    Parameters
    ----------
    model : type of BaseModel
        The model that checks.
    data : dict
        The data; they stay as they are.
    located : Located
        Knows the values of variables.
    prefix : Location
        Where `data` stand in `located`.

    Raises
    ------
    ValidationError
        Of pydantic.
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        texts = {
            detail["loc"]: located.text((*prefix, *detail["loc"]))
            for detail in error.errors()
            if detail["type"] == "string_type"
        }
        if not any(texts.values()):
            raise
        data = deepcopy(data)
        for loc, text in texts.items():
            if text is not None:
                put(data, loc, text)
        return model.model_validate(data)


def validation_problems(
    error: ValidationError,
    model: type[BaseModel],
    located: Located,
    prefix: Location = (),
) -> list[str]:
    """Return one sentence per mistake, with file, line and a suggestion for typos.

    Parameters
    ----------
    error : ValidationError
        Of pydantic.
    model : type of BaseModel
        The model that refused the data.
    located : Located
        The data with their lines.
    prefix : Location
        Where the refused data stand in `located`.
    """
    reasons: dict[Location, list[str]] = {}
    inputs: dict[Location, Any] = {}
    for detail in error.errors():
        loc = _untagged((*prefix, *detail["loc"]), located.data)
        reason = reason_of(detail, model)
        if detail["type"] in ("union_tag_not_found", "union_tag_invalid"):
            loc = (*loc, detail["ctx"]["discriminator"].strip("'"))
        elif detail["type"] == "contradiction":
            loc = _given(loc, detail["ctx"]["options"], located.data)
        elif is_about_value(detail):
            # For a value of a union type, one sentence names all branches.
            loc = _in_data(loc, len(prefix), located.data)
            absent = detail["input"] is None and detail["type"] == "value_error"
            if not absent and not isinstance(detail["input"], dict | list):
                inputs[loc] = detail["input"]
        reasons.setdefault(loc, []).append(reason)
    # A key that is misspelt is not missing, too.
    for loc in [loc for loc in reasons if reasons[loc] == ["is missing"]]:
        meant = f"did you mean '{loc[-1]}'?"
        beside = [near for near in reasons if near[:-1] == loc[:-1] and near != loc]
        if any(meant in reasons[near][0] for near in beside):
            del reasons[loc]
    return [
        located.problem(
            loc,
            " or ".join(dict.fromkeys(reasons[loc]))
            + (f" (got {_shown(inputs[loc], loc, located)})" if loc in inputs else ""),
        )
        for loc in reasons
    ]


def _shown(value: Any, loc: Location, located: Located) -> str:
    """Return a refused value for a message; a variable as its ``${NAME}``."""
    return shortened(repr(located.variables.get(loc, value)))


def _given(loc: Location, options: Iterable[str], data: Any) -> Location:
    """Return the location of the first of two options that is in the data."""
    for part in loc[:-1]:
        known = isinstance(data, dict) and part in data
        data = data[part] if known or _has_item(data, part) else {}
    names = [loc[-1], *options]
    given = [name for name in names if isinstance(data, dict) and name in data]
    return (*loc[:-1], given[0]) if given else loc


def _in_data(loc: Location, least: int, data: Any) -> Location:
    """Return `loc` without the names that pydantic gives to branches of a union."""
    for index, part in enumerate(loc):
        known = isinstance(data, dict) and part in data
        known = known or _has_item(data, part)
        if not known:
            # If the prefix itself is not in the data, all of `loc` is kept.
            return loc[:index] if index > least else loc
        data = data[part]
    return loc


def _untagged(loc: Location, data: Any) -> Location:
    """Return `loc` without the tags of unions, such as the kind of a fault."""
    kept: list[str | int] = []
    for index, part in enumerate(loc):
        tag = isinstance(data, dict) and part not in data and part in data.values()
        if tag and index + 1 < len(loc):
            continue
        kept.append(part)
        inside = isinstance(data, dict) and part in data
        inside = inside or _has_item(data, part)
        data = data[part] if inside else None
    return tuple(kept)


def _has_item(data: Any, part: str | int) -> bool:
    """Return True if `data` is a list that is long enough for index `part`."""
    return isinstance(data, list) and isinstance(part, int) and part < len(data)
