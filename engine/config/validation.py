"""Sentences for the mistakes in a configuration, each with file and line."""

from collections.abc import Iterable
from copy import deepcopy
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from neurovocal.engine.config.located_yaml import Located, Location, put
from neurovocal.engine.support.text import did_you_mean, shortened

# Types of pydantic's errors about numbers beyond a bound, infinite or no numbers.
_BOUNDS = {
    "greater_than",
    "greater_than_equal",
    "less_than",
    "less_than_equal",
    "finite_number",
}
_BOUND_WORDS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
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
        if detail["type"] == "extra_forbidden":
            reason = _unknown(str(loc[-1]), _fields_at(model, detail["loc"][:-1]))
        elif detail["type"] == "missing":
            reason = "is missing"
        elif detail["type"] == "union_tag_not_found":
            loc = (*loc, detail["ctx"]["discriminator"].strip("'"))
            reason = "is missing"
        elif detail["type"] == "union_tag_invalid":
            loc = (*loc, detail["ctx"]["discriminator"].strip("'"))
            reason = _unknown_tag(detail["ctx"])
        elif detail["type"] == "model_type":
            reason = "expected 'key: value' lines"
        elif detail["type"] in ("too_long", "too_short"):
            reason = _length(**detail["ctx"])
        elif detail["type"] == "contradiction":
            reason = detail["msg"]
            loc = _given(loc, detail["ctx"]["options"], located.data)
        else:
            reason = detail["msg"].removeprefix("Value error, ")
            reason = reason[:1].lower() + reason[1:]
            if detail["type"] in _BOUNDS:
                bounds = _bounds_at(model, detail["loc"])
                reason = f"must be {' and '.join(bounds)}" if bounds else reason
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


def _length(
    actual_length: int,
    max_length: int | None = None,
    min_length: int | None = None,
    field_type: str = "",
) -> str:
    """Return a sentence on a list with too many or too few entries."""
    bound = f"at most {max_length}" if max_length else f"at least {min_length}"
    noun = "entry" if 1 in (max_length, min_length) else "entries"
    return f"must have {bound} {noun} (it has {actual_length})"


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


def _bounds_at(model: type[BaseModel], loc: Location) -> list[str]:
    """Return the bounds of a number, such as ``at least 0`` and ``at most 1``."""
    names = [part for part in loc if isinstance(part, str)]
    for index in range(len(names), 0, -1):
        for owner in _models_at(model, names[: index - 1]):
            if field := owner.model_fields.get(names[index - 1]):
                return _bounds(field.annotation, field.metadata)
    return []


def _bounds(annotation: Any, metadata: Iterable[Any]) -> list[str]:
    found = {
        name: f"{words} {_number(getattr(each, name))}"
        for given in metadata
        for each in getattr(given, "metadata", [given])
        for name, words in _BOUND_WORDS.items()
        if getattr(each, name, None) is not None
    }
    if found:
        return [found[name] for name in _BOUND_WORDS if name in found]
    for part in getattr(annotation, "__args__", ()):
        if bounds := _bounds(part, getattr(part, "__metadata__", ())):
            return bounds
    return []


def _number(bound: float) -> str:
    return str(int(bound)) if bound == int(bound) else f"{bound:g}"


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


def _unknown(name: str, known: Iterable[str]) -> str:
    known = sorted(known)
    return (
        f"unknown option ({did_you_mean(name, known)})" if known else "unknown option"
    )


def _unknown_tag(context: dict[str, Any]) -> str:
    known = [tag.strip(" '") for tag in context["expected_tags"].split(",")]
    return f"unknown: '{context['tag']}' ({did_you_mean(str(context['tag']), known)})"


def _fields_at(model: type[BaseModel], loc: Location) -> Iterable[str]:
    """Return the field names of the model that the path `loc` leads to."""
    models = _models_at(model, loc)
    return tuple(models[0].model_fields) if models else ()


def _models_at(model: type[BaseModel], loc: Iterable[str | int]) -> list[Any]:
    """Return the models that the path `loc` may lead to."""
    models = [model]
    for part in loc:
        if isinstance(part, int):
            continue
        tagged = [each for each in models if part in _tags(each)]
        if len(models) > 1 and tagged:
            models = tagged
            continue
        fields = [
            each.model_fields[part] for each in models if part in each.model_fields
        ]
        models = [found for field in fields for found in _models_in(field.annotation)]
    return models


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    arguments = getattr(annotation, "__args__", ())
    return [found for argument in arguments for found in _models_in(argument)]


def _tags(model: type[BaseModel]) -> set[str]:
    """Return the texts (`Literal`) that mark data as this model's."""
    return {
        argument
        for field in model.model_fields.values()
        for argument in getattr(field.annotation, "__args__", ())
        if isinstance(argument, str)
    }


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
