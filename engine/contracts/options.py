"""Base class of options, and policies that several options have."""

from typing import Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, field_validator

from neurovocal.engine.support.text import text_problem


class Options(BaseModel):
    """Base of all option models: unknown keys are errors, values never change.

    A docstring under a field is its help text in ``neurovocal plugins NAME`` and
    in the JSON Schema.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True
    )

    @field_validator("*", mode="after")
    @classmethod
    def _check_text(cls, value: Any) -> Any:
        """Refuse text that no file name, table or message can hold."""
        for text in value if isinstance(value, list | tuple) else (value,):
            if isinstance(text, str) and (problem := text_problem(text)) is not None:
                raise ValueError(problem)
        return value


OnError: TypeAlias = Literal["fail", "skip", "restart"]
WhenFull: TypeAlias = Literal["block", "drop_oldest"]
Mode: TypeAlias = Literal["off", "gate", "labels_only"]
