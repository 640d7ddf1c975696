"""Baseline of a rehearsal: vocalizations of the recording in an undisturbed run."""

from collections.abc import Iterable, Sequence
from copy import deepcopy
from pathlib import Path
from threading import Event as Flag
from typing import Any

from neurovocal.engine.contracts.errors import ConfigError, StageError
from neurovocal.engine.rehearsal.comparison import Vocalization
from neurovocal.engine.rehearsal.engine_process import EngineProcess
from neurovocal.engine.rehearsal.recording import LaneRecording
from neurovocal.engine.support import safe_yaml
from neurovocal.engine.wire.headers import Header, LabelHeader, OffsetHeader

_POLL_S = 0.1
# Sections without influence on the events of a lane.
_UNUSED = ("sinks", "control", "keys", "privacy")


def find_baseline(
    data: dict[str, Any],
    recordings: Sequence[LaneRecording],
    folder: Path,
    base: Path,
    sample_rate: int,
    stopping: Flag,
) -> tuple[list[Vocalization], bool]:
    """Return the vocalizations of all lanes, and whether they are labels.

    The recordings are read as fast as possible: events do not depend on the pace.

    Parameters
    ----------
    data : dict
        The configuration; the files that it reads may be missing.
    recordings : sequence of LaneRecording
        One per lane.
    folder, base : Path
        Folder to write to, and folder that relative names in the configuration start
        from.
    sample_rate : int
        Rate at which positions are counted, in Hz, for lanes of any rate.
    stopping : Flag
        Set when the rehearsal is to be given up.

    Returns
    -------
    list of Vocalization, bool
        Sorted by stream and onset; an empty list and False after `stopping`.

    Raises
    ------
    ConfigError
        The configuration does not run.
    StageError
        It finds no vocalization in the recording.
    """
    config = folder / "truth.yaml"
    plain = _without_io(data, recordings, folder / "truth.jsonl")
    config.write_text(safe_yaml.dump(plain), encoding="utf-8")
    engine = _run_to_end(config, base, stopping)
    if stopping.is_set():
        return [], False
    if engine.exit_code != 0:
        errors = [line.removeprefix("error: ") for line in engine.log_lines]
        raise ConfigError(errors or f"the engine ended with code {engine.exit_code}")
    headers = [event.header for event in engine.events]
    labels = vocalizations_of(headers, True, sample_rate)
    found = labels or vocalizations_of(headers, False, sample_rate)
    if not found:
        raise StageError(
            f"this configuration finds no vocalization in {recordings[0].origin}: "
            "nothing could be compared; name another recording by --recording"
        )
    names = lane_names(data)
    streams = {
        recording.path.name: name
        for recording, name in zip(recordings, names, strict=True)
    }
    found = [one._replace(stream=_live_name(one.stream, streams)) for one in found]
    return found, bool(labels)


def _without_io(
    data: dict[str, Any], recordings: Sequence[LaneRecording], path: Path
) -> dict[str, Any]:
    """Return the configuration with files as sources and one sink of its own."""
    plain = deepcopy(data)
    for part in [plain, *plain.get("lanes", [])]:
        for key in _UNUSED:
            part.pop(key, None)
    lanes = plain.get("lanes", [plain])
    for lane, recording in zip(lanes, recordings, strict=True):
        channels = list(range(1, recording.channels + 1))
        options = {"path": str(recording.path), "channels": channels}
        lane["source"] = {"plugin": "file", "options": options}
    plain["sinks"] = [{"plugin": "jsonl", "options": {"path": str(path)}}]
    return plain


def _run_to_end(config: Path, base: Path, stopping: Flag) -> EngineProcess:
    """Run an engine to its end, or kill it once `stopping` is set."""
    engine = EngineProcess(config, base)
    try:
        while not engine.ended and not stopping.wait(_POLL_S):
            pass
    finally:
        if not engine.ended:
            engine.kill()
        engine.join()
    return engine


def lane_names(data: dict[str, Any]) -> list[str]:
    """Return the names of a configuration's lanes, those of their live streams."""
    station = data.get("station", "neurovocal")
    return [lane.get("name") or station for lane in data.get("lanes", [data])]


def vocalizations_of(
    headers: Iterable[Header], labelled: bool, sample_rate: int
) -> list[Vocalization]:
    """Return the vocalizations of final labels, or those of segments."""
    found = (vocalization_of(header, labelled, sample_rate) for header in headers)
    return sorted(one for one in found if one is not None)


def vocalization_of(
    header: Header, labelled: bool, sample_rate: int
) -> Vocalization | None:
    """Return the vocalization of a final label, or of an offset; None for other kinds.

    Samples are counted at `sample_rate`, for streams of any rate.
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
    return Vocalization(header.stream, onset, stop, unit)


def _live_name(stream: str, streams: dict[str, str]) -> str:
    """Return the name that a recording's stream has in a live run."""
    for file, name in streams.items():
        if stream == file or stream.startswith(f"{file}.ch"):
            return name + stream.removeprefix(file)
    return stream
