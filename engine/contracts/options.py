"""Options of stages, and the policies that several options name."""

from typing import TYPE_CHECKING, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    pass


class Options(BaseModel):
    """Base of all option models: unknown keys are errors, values never change.

    A docstring under a field is its help text in ``neurovocal plugins NAME`` and
    in the JSON Schema.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True
    )


OnError: TypeAlias = Literal["fail", "skip", "restart"]
WhenFull: TypeAlias = Literal["block", "drop_oldest"]
Mode: TypeAlias = Literal["off", "gate", "labels_only"]
