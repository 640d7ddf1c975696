"""Events as rows of a flat table, with a column per field of any kind of event."""

import types
from collections.abc import Iterable
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any, Literal, TypeAlias, Union, get_args, get_origin, get_type_hints

import msgspec

from neurovocal.engine import KINDS, Message

Form: TypeAlias = Literal["int", "float", "bool", "str", "time"]
Value: TypeAlias = int | float | bool | str | None

_TYPES: dict[str, type] = {kind: event for event, kind in KINDS.items()}
# Fields in samples, and the columns with the same values in seconds.
_SECONDS = {"onset": "onset_s", "offset": "offset_s"}


@dataclass(frozen=True, slots=True)
class Column:
    """Name of a column, and the type of its values."""

    name: str
    form: Form


_COMMON = (
    Column("run", "str"),
    Column("stream", "str"),
    Column("kind", "str"),
    Column("seq", "int"),
    Column("utc", "time"),
    Column("sample_rate", "int"),
    Column("sample", "int"),
    Column("sample_s", "float"),
)


def columns_of(kinds: Iterable[str]) -> list[Column]:
    """Return the columns of a table with events of some kinds.

    The columns that all events have come first, then the fields of each kind. Arrays
    are left out.
    """
    columns = {column.name: column for column in _COMMON}
    for kind in sorted(kinds):
        for name, form in _own_fields(kind).items():
            columns.setdefault(name, Column(name, form))
            if name in _SECONDS:
                columns.setdefault(_SECONDS[name], Column(_SECONDS[name], "float"))
    return list(columns.values())


def row_of(run: str, message: Message) -> dict[str, Value]:
    """Return the values of an event by column name; ``utc`` is in nanoseconds."""
    event, rate = message.event, message.info.sample_rate
    row: dict[str, Value] = {
        "run": run,
        "stream": message.info.stream,
        "kind": message.kind,
        "seq": message.seq,
        "utc": message.utc_ns,
        "sample_rate": rate,
        "sample": message.sample,
        "sample_s": round(message.sample / rate, 6),
    }
    for name, form in _own_fields(message.kind).items():
        value = getattr(event, name)
        if isinstance(value, dict):
            value = msgspec.json.encode(value).decode()
        if form == "float" and value != value:  # NaN: not known
            value = None
        row.setdefault(name, value)
        if name in _SECONDS:
            row[_SECONDS[name]] = None if value is None else round(value / rate, 6)
    return row


@lru_cache
def _own_fields(kind: str) -> dict[str, Form]:
    """Return the fields of a kind of event that fit a cell, in their order."""
    event = _TYPES[kind]
    hints = get_type_hints(event)
    forms = {field.name: _form(hints[field.name]) for field in fields(event)}
    return {name: form for name, form in forms.items() if form is not None}


def _form(hint: Any) -> Form | None:
    if get_origin(hint) in (Union, types.UnionType):
        (hint,) = (part for part in get_args(hint) if part is not type(None))
    if get_origin(hint) in (Literal, dict):
        return "str"
    simple: dict[Any, Form] = {int: "int", float: "float", bool: "bool", str: "str"}
    return simple.get(hint)
