"""Recordings that a rehearsal plays: one file per lane, long enough for any fault."""

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from neurovocal.engine.contracts.errors import AudioFileError, ConfigError, EndOfStream
from neurovocal.engine.contracts.options import Options
from neurovocal.engine.contracts.plugin import BuildContext, Plugin
from neurovocal.engine.contracts.registry import Registry
from neurovocal.engine.contracts.stages import Source
from neurovocal.engine.contracts.types import Block, Float32, Gap, StreamInfo

LEAST_S = 5.0
_LOUD_QUANTILE = 0.9
_RECORDINGS = "recordings"
_DEFAULT = "bengalese-finch"


@dataclass(frozen=True, slots=True)
class LaneRecording:
    """Audio of one lane, in a file.

    Parameters
    ----------
    path : Path
        WAV file.
    sample_rate : int
        In Hz.
    channels : int
        Number of channels; all are played.
    origin : str
        Name of the original recording, for people.
    loud_level : float
        Absolute value that a tenth of the samples exceeds.
    """

    path: Path
    sample_rate: int
    channels: int
    origin: str
    loud_level: float


class RecordingMaker:
    """Writes the recording of each lane.

    Parameters
    ----------
    registry : Registry
        Finds the plugin that reads files.
    context : BuildContext
        Base folder and clock.
    folder : Path
        Folder to write the recordings to.
    seconds : float
        Length of the recordings; shorter audio is repeated.
    """

    def __init__(
        self, registry: Registry, context: BuildContext, folder: Path, seconds: float
    ) -> None:
        self._registry = registry
        self._context = context
        self._folder = folder
        self._seconds = seconds

    def make(
        self, number: int, recording: str | None, own: tuple[Plugin[Any], Options]
    ) -> LaneRecording:
        """Write the recording of lane `number`.

        Parameters
        ----------
        number : int
            Part of the file's name.
        recording : str, optional
            File that the user named.
        own : Plugin and its options
            The lane's source. Its own audio is used if it is not live and claims no
            resource; if not, a recording that ships.

        Raises
        ------
        AudioFileError
            The recording cannot be read, or is shorter than 5 s.
        """
        if recording is not None:
            return self._from_file(number, recording)
        plugin, options = own
        source = None
        if not plugin.resources(options):
            if "pace" in type(options).model_fields:
                options = options.model_copy(update={"pace": "asap"})
            source = plugin.build(options, self._context)
        if source is None or source.live:
            path = _shipped()
            origin = f"'{path.name}' (which ships)"
            return self._from_file(number, str(path), origin)
        return self._write(number, source, "")

    def _from_file(self, number: int, name: str, origin: str = "") -> LaneRecording:
        plugin = self._registry.get("source", "file")
        options = plugin.options.model_validate({"path": name})
        source = plugin.build(options, self._context)
        return self._write(number, source, origin or f"'{name}'")

    def _write(self, number: int, source: Source, origin: str) -> LaneRecording:
        import soundfile

        info, samples = _read(source, self._seconds)
        length_s = len(samples) / info.sample_rate
        origin = origin or f"'{info.stream}'"
        if length_s < LEAST_S:
            raise AudioFileError(
                f"recording {origin} lasts {length_s:.1f} s: a rehearsal needs "
                f"{LEAST_S:.0f} s or more, with sounds in it"
            )
        wanted = round(self._seconds * info.sample_rate)
        times = -(-wanted // len(samples))
        whole = np.tile(samples, (times, 1))[:wanted]
        path = self._folder / f"tape{number}.wav"
        soundfile.write(path, whole, info.sample_rate, subtype="FLOAT", format="RF64")
        level = min(1.0, float(np.quantile(np.abs(samples), _LOUD_QUANTILE)))
        return LaneRecording(path, info.sample_rate, info.channels, origin, level)


def _read(source: Source, seconds: float) -> tuple[StreamInfo, Float32]:
    """Read the first `seconds` of a source; gaps are filled with zeros."""
    source.open()
    try:
        blocks = list(_blocks(source, seconds))
        info = source.info
    finally:
        source.close()
    if not blocks:
        raise AudioFileError(f"'{info.stream}' holds no samples")
    return info, np.concatenate(blocks)


def _blocks(source: Source, seconds: float) -> Iterator[Float32]:
    info, n_samples = None, 0
    while info is None or n_samples < seconds * info.sample_rate:
        try:
            item = source.read(1.0)
        except EndOfStream:
            return
        known = source.info
        if info is not None and (known.sample_rate, known.channels) != (
            info.sample_rate,
            info.channels,
        ):
            return  # the next recording has another format
        info = known
        if isinstance(item, Block):
            n_samples += len(item.samples)
            yield item.samples.copy()
        elif isinstance(item, Gap):
            n_samples += item.stop - item.start
            yield np.zeros((item.stop - item.start, info.channels), np.float32)


def _shipped() -> Path:
    folder = Path(str(files("neurovocal.configs"))) / _RECORDINGS
    path = folder / f"{_DEFAULT}.flac"
    if not path.is_file():
        raise ConfigError("no recording ships here: name one by --recording FILE")
    return path
