"""Reasons why data are refused, in the words of this program instead of pydantic's."""

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from neurovocal.engine.support.text import did_you_mean, shortened

# Types of pydantic's errors about numbers beyond a bound, with the bound's name.
_BOUNDS = {
    "greater_than": "gt",
    "greater_than_equal": "ge",
    "less_than": "lt",
    "less_than_equal": "le",
    "finite_number": None,
}
_BOUND_WORDS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
_FORMS = {
    "int": "must be a whole number",
    "float": "must be a number",
    "bool": "must be true or false",
    "string": "must be a text",
    "list": "must be a list",
    "dict": "must be 'key: value' lines",
}
_OTHERS = {
    "extra_forbidden",
    "missing",
    "union_tag_not_found",
    "union_tag_invalid",
    "model_type",
    "too_long",
    "too_short",
    "contradiction",
}


def is_about_value(detail: Mapping[str, Any]) -> bool:
    """Return True if a mistake is a wrong value, not a wrong key or form."""
    return detail["type"] not in _OTHERS


def reason_of(detail: Mapping[str, Any], model: type[BaseModel] | None) -> str:
    """Return why data are refused, as a clause without its subject.

    Parameters
    ----------
    detail : mapping
        One of ``ValidationError.errors()``.
    model : type of BaseModel, optional
        The model that refused the data; None: they are a single value.
    """
    match detail["type"]:
        case "extra_forbidden":
            loc = detail["loc"]
            return _unknown(str(loc[-1]), _fields_at(model, loc[:-1]) if model else ())
        case "missing" | "union_tag_not_found":
            return "is missing"
        case "union_tag_invalid":
            return _unknown_tag(detail["ctx"])
        case "model_type":
            return "expected 'key: value' lines"
        case "too_long" | "too_short":
            return _length(**detail["ctx"])
        case "contradiction":
            return str(detail["msg"])
    form, _, what = str(detail["type"]).partition("_")
    if form in _FORMS and what in ("type", "parsing", "from_float"):
        return _FORMS[form]
    reason = str(detail["msg"]).removeprefix("Value error, ")
    reason = reason[:1].lower() + reason[1:]
    if reason.startswith("input should "):
        reason = "must " + reason.removeprefix("input should ")
    if detail["type"] in _BOUNDS:
        bounds = _bounds_at(model, detail["loc"]) if model else []
        name = _BOUNDS[detail["type"]]
        if not bounds and name is not None:
            bounds = [f"{_BOUND_WORDS[name]} {_number(detail['ctx'][name])}"]
        reason = f"must be {' and '.join(bounds)}" if bounds else reason
    return reason


def sentences_of(
    error: ValidationError, model: type[BaseModel], prefix: str = ""
) -> list[str]:
    """Return one sentence per mistake in data that have no lines.

    Parameters
    ----------
    error : ValidationError
        Of pydantic.
    model : type of BaseModel
        The model that refused the data.
    prefix : str
        Stands before the dotted name of each value.
    """
    sentences = []
    for detail in error.errors():
        name = prefix + ".".join(str(part) for part in detail["loc"])
        sentence = f"{name}: {reason_of(detail, model)}"
        if is_about_value(detail) and not isinstance(detail["input"], dict | list):
            sentence += f" (got {shortened(repr(detail['input']))})"
        sentences.append(sentence)
    return sentences


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


def _bounds_at(model: type[BaseModel], loc: Iterable[str | int]) -> list[str]:
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


def _unknown(name: str, known: Iterable[str]) -> str:
    known = sorted(known)
    return (
        f"unknown option ({did_you_mean(name, known)})" if known else "unknown option"
    )


def _unknown_tag(context: dict[str, Any]) -> str:
    known = [tag.strip(" '") for tag in context["expected_tags"].split(",")]
    return f"unknown: '{context['tag']}' ({did_you_mean(str(context['tag']), known)})"


def _fields_at(model: type[BaseModel], loc: Iterable[str | int]) -> Iterable[str]:
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
