"""Which faults of a recorded run belong to its replay."""

from collections.abc import Iterable, Mapping
from typing import Any

# What becomes of the audio, where it is read from the recordings once more.
_OF_AUDIO = {"drop", "clip", "wrong_rate"}


def faults_again(data: Mapping[str, Any], *, kept_audio: bool) -> list[dict[str, Any]]:
    """Faults that decide, by the audio alone, what the lanes say.

    Parameters
    ----------
    data : mapping
        The recorded run's configuration, as it was.
    kept_audio : bool
        Whether the replay hears what the lanes heard, which was spoilt already.

    Returns
    -------
    list of dict
        What stands under ``faults`` in the replay's configuration.
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
