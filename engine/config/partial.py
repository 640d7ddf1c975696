"""The part of a configuration that is left when its envelope has mistakes.

Mistakes in the options of plugins are found by the plan, which needs an envelope
without mistakes: what the envelope refuses is left out, so that one look finds all.
"""

from copy import deepcopy
from typing import Any

from pydantic import ValidationError

from neurovocal.engine.config.located_yaml import Located, Location
from neurovocal.engine.config.schema import Config, config_of, form_of

# Stands for a stage that the envelope refuses; a plan passes over it.
REFUSED = "(refused)"
_STAGES = {"source", "features", "detector", "control", "gate"}
_STAGE_LISTS = {"models", "sinks"}
# Each pass leaves out all that it finds, and may uncover what was within.
_MOST_PASSES = 8


def without_mistakes(located: Located) -> Config | None:
    """Return a configuration without the parts that its envelope refuses, or None.

    Parameters
    ----------
    located : Located
        Data that `parse_config` has refused; they are not changed.
    """
    form = form_of(located.data)
    data = {
        key: deepcopy(value)
        for key, value in located.data.items()
        if key in form.model_fields
    }
    data["version"] = 1
    if "source" in form.model_fields:
        data.setdefault("source", _placeholder())
    for _ in range(_MOST_PASSES):
        try:
            return config_of(form.model_validate(data))
        except ValidationError as error:
            for detail in error.errors():
                _leave_out(data, detail["loc"])
    return None


def _placeholder() -> dict[str, Any]:
    return {"plugin": REFUSED}


def _leave_out(data: dict[str, Any], loc: Location) -> None:
    """Remove the value at a location, or the whole stage that lacks it."""
    place: Location = ()
    values: list[Any] = [data]
    for part in loc:
        within = values[-1]
        found = part in within if isinstance(within, dict) else _has(within, part)
        if not found:
            break
        place, values = (*place, part), [*values, within[part]]
    if len(place) == len(loc) or not _is_stage(place):
        _remove(values, place)
    else:
        values[-2][place[-1]] = _placeholder()


def _remove(values: list[Any], place: Location) -> None:
    """Remove the last of nested values; a list keeps its places."""
    while place:
        parent, key = values[-2], place[-1]
        if _is_stage(place) and key not in ("features", "control", "gate"):
            parent[key] = _placeholder()
            return
        if place[:-1] == ("lanes",):
            parent[key] = {"source": _placeholder()}
            return
        if isinstance(parent, dict):
            del parent[key]
            if key == "bundle":  # what needs it would only say so
                parent["detector"] = _placeholder()
                parent.pop("models", None)
            return
        values, place = values[:-1], place[:-1]


def _is_stage(place: Location) -> bool:
    if not place:
        return False
    in_list = len(place) > 1 and place[-2] in _STAGE_LISTS
    return place[-1] in _STAGES or in_list


def _has(within: object, part: object) -> bool:
    return isinstance(within, list) and isinstance(part, int) and part < len(within)
