"""What a configuration makes of a recording when nothing goes wrong."""

from collections.abc import Iterable, Sequence
from copy import deepcopy
from pathlib import Path
from threading import Event as Flag
from typing import Any

import yaml

from neurovocal.engine.contracts.errors import ConfigError, StageError
from neurovocal.engine.rehearsal.comparison import Sound
from neurovocal.engine.rehearsal.engine_process import Life
from neurovocal.engine.rehearsal.recording import Tape
from neurovocal.engine.wire.headers import Header, LabelHeader, OffsetHeader

_LOOK_S = 0.1
# What has no part in what a lane finds.
_APART = ("sinks", "control", "keys", "privacy")


def truth(
    data: dict[str, Any],
    tapes: Sequence[Tape],
    folder: Path,
    base: Path,
    sample_rate: int,
    stopping: Flag,
) -> tuple[list[Sound], bool]:
    """Sounds of all lanes, and whether they are labelled.

    The recordings are read as fast as it goes: by the engine's first guarantee the
    events are the same, byte for byte, as those of an undisturbed live run.

    Parameters
    ----------
    data : dict
        The configuration; the files that it reads may be missing.
    tapes : sequence of Tape
        One per lane.
    folder, base : Path
        For the configuration; what relative names in it start from.
    sample_rate : int
        At which samples are to be counted, in Hz, whatever a lane's own rate is.
    stopping : Flag
        Set when nobody wants to know any more.

    Returns
    -------
    list of Sound, bool
        None, and False, when nobody wants to know any more.

    Raises
    ------
    ConfigError
        The configuration does not run.
    StageError
        It finds nothing in the recording.
    """
    config = folder / "truth.yaml"
    calm = _calm(data, tapes, folder / "truth.jsonl")
    config.write_text(yaml.safe_dump(calm, sort_keys=False), encoding="utf-8")
    life = _lived(config, base, stopping)
    if stopping.is_set():
        return [], False
    if life.exit_code != 0:
        said = [line.removeprefix("error: ") for line in life.said]
        raise ConfigError(said or f"the engine ended with code {life.exit_code}")
    headers = [one.header for one in life.told]
    labels = sounds_of(headers, True, sample_rate)
    found = labels or sounds_of(headers, False, sample_rate)
    if not found:
        raise StageError(
            f"this configuration finds no vocalization in {tapes[0].origin}: nothing "
            "could be compared; name another recording by --recording"
        )
    names = lane_names(data)
    streams = {tape.path.name: name for tape, name in zip(tapes, names, strict=True)}
    sounds = [sound._replace(stream=_named(sound.stream, streams)) for sound in found]
    return sounds, bool(labels)


def _calm(data: dict[str, Any], tapes: Sequence[Tape], path: Path) -> dict[str, Any]:
    """The configuration without what is beside the lanes, reading its recordings."""
    calm = deepcopy(data)
    for part in [calm, *calm.get("lanes", [])]:
        for key in _APART:
            part.pop(key, None)
    for lane, tape in zip(calm.get("lanes", [calm]), tapes, strict=True):
        channels = list(range(1, tape.channels + 1))
        options = {"path": str(tape.path), "channels": channels}
        lane["source"] = {"plugin": "file", "options": options}
    calm["sinks"] = [{"plugin": "jsonl", "options": {"path": str(path)}}]
    return calm


def _lived(config: Path, base: Path, stopping: Flag) -> Life:
    """An engine that has run to its end, or was killed because nobody waits."""
    life = Life(config, base)
    try:
        while not life.ended and not stopping.wait(_LOOK_S):
            pass
    finally:
        if not life.ended:
            life.kill()
        life.conclude()
    return life


def lane_names(data: dict[str, Any]) -> list[str]:
    """Names of a configuration's lanes, which live sources give to their streams."""
    station = data.get("station", "neurovocal")
    return [lane.get("name") or station for lane in data.get("lanes", [data])]


def sounds_of(
    headers: Iterable[Header], labelled: bool, sample_rate: int
) -> list[Sound]:
    """Final labels, or segments where nothing labels."""
    found = (sound_of(header, labelled, sample_rate) for header in headers)
    return sorted(sound for sound in found if sound is not None)


def sound_of(header: Header, labelled: bool, sample_rate: int) -> Sound | None:
    """The sound that a message tells of finally; None for all other messages.

    Samples are counted at `sample_rate`, whatever the rate of the message's stream.
    """
    match header:
        case LabelHeader(status="final", offset=int(stop)) if labelled:
            onset, unit = header.onset, f"{header.model}: {header.unit}"
        case OffsetHeader() if not labelled:
            onset, stop, unit = header.onset, header.sample, ""
        case _:
            return None
    own = header.sample_rate
    onset, stop = (round(sample * sample_rate / own) for sample in (onset, stop))
    return Sound(header.stream, onset, stop, unit)


def _named(stream: str, streams: dict[str, str]) -> str:
    """Name of the live stream that a recording's stream stands for."""
    for file, name in streams.items():
        if stream == file or stream.startswith(f"{file}.ch"):
            return name + stream.removeprefix(file)
    return stream
