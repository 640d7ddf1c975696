"""Base class of options, and policies that several options have."""

from typing import Literal, TypeAlias

from pydantic import BaseModel, ConfigDict


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
