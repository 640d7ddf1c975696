"""Base class of options, bounds that many have, and policies that several have.

Every number has a lower and an upper bound: a value beyond them has another unit or a
typing error, and is refused with both bounds before anything is opened.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, TypeAlias

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError

from neurovocal.engine.contracts.option_texts import texts_of
from neurovocal.engine.support.text import plain, shortened, text_problem

# Rates from slow seismometers to fast hydrophones, in Hz.
LOWEST_RATE, HIGHEST_RATE = 100, 10_000_000
HIGHEST_HZ = HIGHEST_RATE / 2
# Channels of one device or recording.
MOST_CHANNELS = 1024
LONGEST_BLOCK = 2**24
DAY_S = 86_400.0
DAY_MS = 1000 * DAY_S
YEAR_S = 366 * DAY_S
# Sizes of files and memory: a petabyte.
MOST_MB = 1e9
# Counts of messages, files and passes.
MOST_COUNT = 1_000_000_000
# Seeds and sample indices are 64-bit integers with a sign.
INT64_MAX = 2**63 - 1

SampleRate: TypeAlias = Annotated[int, Field(ge=LOWEST_RATE, le=HIGHEST_RATE)]
BlockLength: TypeAlias = Annotated[int, Field(ge=1, le=LONGEST_BLOCK)]
ChannelNumber: TypeAlias = Annotated[int, Field(ge=1, le=MOST_CHANNELS)]
DeviceNumber: TypeAlias = Annotated[int, Field(ge=0, le=MOST_COUNT)]
Seed: TypeAlias = Annotated[int, Field(ge=0, le=INT64_MAX)]


class Order(NamedTuple):
    """Two options of which the lower may not be above the upper."""

    lower: str
    upper: str
    why: str
    """Consequence of the wrong order, the end of the error's sentence."""
    strict: bool = False
    """Whether they may not be equal, either."""


class OptionProblem(str):
    """Problem that a plugin's check finds in one option, which has a line of its own.

    Parameters
    ----------
    option : str
        Name of the option, with dots for nested ones.
    sentence : str
        What is wrong, and what would be right.
    """

    option: str

    def __new__(cls, option: str, sentence: str) -> "OptionProblem":
        """Return the sentence, with the option that it is about."""
        problem = super().__new__(cls, sentence)
        problem.option = option
        return problem


class Options(BaseModel):
    """Base of all option models: unknown keys are errors, values never change.

    A docstring under a field is its help text in ``neurovocal plugins NAME`` and
    in the JSON Schema. Contradictions of two options are declared, in `orders` and, for
    options that stand in place of each other, in `alternatives`, so that they are found
    together with all other mistakes. `fast` are options that the profile ``fast`` of a
    lane sets where the configuration does not.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        # Most models that a start imports check nothing in it.
        defer_build=True,
        # A default may contradict what was given.
        validate_default=True,
    )
    orders: ClassVar[tuple[Order, ...]] = ()
    alternatives: ClassVar[tuple[tuple[str, str], ...]] = ()
    fast: ClassVar[Mapping[str, Any]] = {}

    @model_validator(mode="before")
    @classmethod
    def _write_out_switches(cls, data: Any) -> Any:
        """Keep true and false from being read as the numbers 1 and 0."""
        if not isinstance(data, dict):
            return data
        fields = cls.model_fields
        return {
            name: str(value).lower()
            if isinstance(value, bool)
            and name in fields
            and _is_number(fields[name].annotation)
            else value
            for name, value in data.items()
        }

    @field_validator("*", mode="after")
    @classmethod
    def _check(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuse text that nothing can hold, and values that contradict others."""
        is_list = isinstance(value, list | tuple)
        for text in value if is_list else (value,):
            if isinstance(text, str) and (problem := text_problem(text)) is not None:
                which = f" ('{shortened(plain(text))}')" if is_list else ""
                raise ValueError(problem + which)
        name = info.field_name or ""
        known = {**info.data, name: value}
        for order in cls._all("orders"):
            if name in order[:2] and (sentence := _contradiction(order, known)):
                raise _error(order[:2], sentence)
        for pair in cls._all("alternatives"):
            if name in pair and all(
                known.get(each, default) != default
                for each, default in cls._defaults(pair)
            ):
                raise _error(pair, f"give {pair[0]} or {pair[1]}, not both")
        return value

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """Return the JSON Schema, with the help text of each field."""
        described = handler(schema)
        properties = handler.resolve_ref_schema(described).get("properties", {})
        for name, text in texts_of(cls).items():
            if name in properties:
                properties[name].setdefault("description", text)
        return described

    @classmethod
    def _all(cls, name: str) -> Iterator[Any]:
        """Yield the entries of an attribute of this class and of all its bases."""
        for base in cls.__mro__:
            yield from base.__dict__.get(name, ())

    @classmethod
    def _defaults(cls, names: Sequence[str]) -> list[tuple[str, Any]]:
        return [(name, cls.model_fields[name].default) for name in names]


def _error(options: Sequence[str], sentence: str) -> PydanticCustomError:
    """Return an error of two options, of which the configuration gives one at least."""
    return PydanticCustomError(
        "contradiction", "{sentence}", {"sentence": sentence, "options": options}
    )


def _is_number(annotation: Any) -> bool:
    parts = getattr(annotation, "__args__", (annotation,))
    return bool not in parts and (int in parts or float in parts)


def _contradiction(order: Order, known: dict[str, Any]) -> str | None:
    lower, upper = known.get(order.lower), known.get(order.upper)
    if lower is None or upper is None:
        return None
    if lower > upper or (order.strict and lower == upper):
        relation = "above" if lower > upper else "equal to"
        return (
            f"{order.lower} ({lower:g}) is {relation} {order.upper} ({upper:g}): "
            f"{order.why}"
        )
    return None


OnError: TypeAlias = Literal["fail", "skip", "restart"]
WhenFull: TypeAlias = Literal["block", "drop_oldest"]
Mode: TypeAlias = Literal["off", "gate", "labels_only"]
