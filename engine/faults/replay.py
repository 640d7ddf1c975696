"""Faults of a recorded run that belong to its replay."""

from collections.abc import Iterable, Mapping
from typing import Any

# Effects on the audio itself; a replay that reads the recordings has them again.
_OF_AUDIO = {"drop", "clip", "wrong_rate"}


def replayable_faults(
    data: Mapping[str, Any], *, kept_audio: bool
) -> list[dict[str, Any]]:
    """Return the faults that change the lanes' events by the audio alone.

    Parameters
    ----------
    data : mapping
        Configuration of the recorded run.
    kept_audio : bool
        Whether the replay reads audio kept by the `recording` sink, which has the
        faults of the source already.

    Returns
    -------
    list of dict
        Value of ``faults`` in the replay's configuration.
    """
    lanes = data.get("lanes") or [data]
    outside = {"source", "gate", *_plugins(lane["source"] for lane in lanes)}
    outside |= _plugins(s for part in (data, *lanes) for s in part.get("sinks", []))
    gate = (data.get("privacy") or {}).get("gate")
    outside |= _plugins([gate] if gate else [])
    return [
        fault
        for fault in data.get("faults", [])
        if (fault["fault"] in _OF_AUDIO and not kept_audio)
        or (fault["fault"] == "crash" and fault["stage"] not in outside)
    ]


def _plugins(stages: Iterable[Mapping[str, Any]]) -> set[str]:
    return {stage["plugin"] for stage in stages if "plugin" in stage}
