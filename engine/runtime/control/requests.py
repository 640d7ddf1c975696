"""Requests of the control socket: their form, and checks that name each mistake."""

from collections.abc import Iterator
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, ValidationError

from neurovocal.engine.contracts.errors import CommandError
from neurovocal.engine.contracts.options import Options
from neurovocal.engine.contracts.refusals import reason_of
from neurovocal.engine.support.text import did_you_mean

VERSION = 1
# Commands of the engine itself; models have more.
OWN_COMMANDS = ("ping", "status", "set", "swap", "promote", "drop", "stop")

# Wider numbers cannot be written as JSON.
_MOST_ID_BITS = 63

FormT = TypeVar("FormT", bound=Options)


class ControlRequest(Options):
    """A command as a client sends it."""

    v: Literal[1]
    """Version of this format."""
    id: str | int | None = None
    """Repeated in the reply."""
    command: str = Field(max_length=64)
    """`ping`, `status`, `set`, `swap`, `stop`, or one of a model's own."""
    lane: Annotated[str, Field(max_length=4096)] | None = None
    """Name of a lane; default: all."""
    model: Annotated[str, Field(max_length=4096)] | int | None = None
    """Plugin name, or place in the lane's list of models from 0; default: the only
    one that takes commands."""
    arguments: dict[str, Any] = {}
    """Arguments of the command."""


def checked(form: type[FormT], data: object, what: str) -> FormT:
    """Validate untrusted JSON.

    Parameters
    ----------
    form : type of Options
        Model that `data` must match.
    data : object
        Any JSON value.
    what : str
        Name of `data`, as the beginning of a sentence.

    Raises
    ------
    CommandError
        It does not match: one sentence, of bounded length, for each field.
    """
    try:
        return form.model_validate(data)
    except ValidationError as error:
        raise CommandError("; ".join(_sentences(error, form, what))) from error


def _sentences(error: ValidationError, form: type[Options], what: str) -> Iterator[str]:
    if any(not detail["loc"] for detail in error.errors()):
        # An error of the fields together, not of one.
        whole = {_whole(d, form) for d in error.errors() if not d["loc"]}
        yield f"{what}: {', '.join(sorted(whole))}"
        return
    found: dict[str, list[str]] = {}
    for detail in error.errors():
        found.setdefault(str(detail["loc"][0])[:64], []).append(_reason(detail, form))
    for name, reasons in found.items():
        yield f"{what}: '{name}' {' or '.join(dict.fromkeys(reasons))}"


def _whole(detail: Any, form: type[Options]) -> str:
    if detail["type"] in ("model_type", "dict_type"):
        return "must be an object, such as {}"
    return _lower(reason_of(detail, form))


def _reason(detail: Any, form: type[Options]) -> str:
    if detail["type"] == "extra_forbidden":
        name = str(detail["loc"][-1])
        return f"is unknown ({did_you_mean(name, sorted(form.model_fields))})"
    if detail["type"] == "missing":
        return "is missing"
    got = repr(detail["input"])
    reason = _lower(reason_of(detail, form))
    return f"is wrong: {reason} (got {got[:80]})"


def _lower(text: str) -> str:
    # Names of classes say nothing to a client.
    text = text.removeprefix("Value error, ").partition(" or instance of ")[0]
    return text[:1].lower() + text[1:]


def id_of(request: object) -> str | int | None:
    """Return the request's id, if it has one that a reply can repeat."""
    found = request.get("id") if isinstance(request, dict) else None
    if isinstance(found, int) and found.bit_length() > _MOST_ID_BITS:
        return None
    return found if isinstance(found, str | int) else None
