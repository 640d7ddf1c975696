"""What a rehearsal plays: a recording long enough, as one file per lane."""

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
_LOUD = 0.9  # quantile
_RECORDINGS = "recordings"
_DEFAULT = "bengalese-finch"


@dataclass(frozen=True, slots=True)
class Tape:
    """Audio for one lane, in a file of its own.

    Parameters
    ----------
    path : Path
        The file.
    sample_rate : int
        Hz.
    channels : int
        How many it has; all are played.
    origin : str
        Where it comes from, in words.
    loud : float
        Absolute value that a tenth of the samples exceeds.
    """

    path: Path
    sample_rate: int
    channels: int
    origin: str
    loud: float


class TapeMaker:
    """Makes the tape of each lane.

    Parameters
    ----------
    registry : Registry
        Sources that can wait are asked for their own audio.
    context : BuildContext
        Base folder and clock.
    folder : Path
        Where tapes are written.
    seconds : float
        How long they must be: shorter recordings are played again and again.
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
    ) -> Tape:
        """Tape of lane `number`.

        Parameters
        ----------
        number : int
            Names the file.
        recording : str, optional
            What the user asked for.
        own : Plugin and its options
            The lane's source. If it can wait and owns nothing, its own audio is
            what is played; else a recording that ships.

        Raises
        ------
        AudioFileError
            The recording cannot be read, or is too short to rehearse with.
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

    def _from_file(self, number: int, name: str, origin: str = "") -> Tape:
        plugin = self._registry.get("source", "file")
        options = plugin.options.model_validate({"path": name})
        source = plugin.build(options, self._context)
        return self._write(number, source, origin or f"'{name}'")

    def _write(self, number: int, source: Source, origin: str) -> Tape:
        import soundfile

        info, samples = _read(source, self._seconds)
        heard_s = len(samples) / info.sample_rate
        origin = origin or f"'{info.stream}'"
        if heard_s < LEAST_S:
            raise AudioFileError(
                f"recording {origin} lasts {heard_s:.1f} s: a rehearsal needs "
                f"{LEAST_S:.0f} s or more, with sounds in it"
            )
        wanted = round(self._seconds * info.sample_rate)
        times = -(-wanted // len(samples))
        whole = np.tile(samples, (times, 1))[:wanted]
        path = self._folder / f"tape{number}.wav"
        soundfile.write(path, whole, info.sample_rate, subtype="FLOAT", format="RF64")
        loud = float(np.quantile(np.abs(samples), _LOUD))
        return Tape(path, info.sample_rate, info.channels, origin, min(1.0, loud))


def _read(source: Source, seconds: float) -> tuple[StreamInfo, Float32]:
    """What a source brings in its first `seconds`; what it lacks is silence."""
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
    info, heard = None, 0
    while info is None or heard < seconds * info.sample_rate:
        try:
            item = source.read(1.0)
        except EndOfStream:
            return
        known = source.info
        if info is not None and (known.sample_rate, known.channels) != (
            info.sample_rate,
            info.channels,
        ):
            return  # the next recording is of another kind
        info = known
        if isinstance(item, Block):
            heard += len(item.samples)
            yield item.samples.copy()
        elif isinstance(item, Gap):
            heard += item.stop - item.start
            yield np.zeros((item.stop - item.start, info.channels), np.float32)


def _shipped() -> Path:
    folder = Path(str(files("neurovocal.configs"))) / _RECORDINGS
    path = folder / f"{_DEFAULT}.flac"
    if not path.is_file():
        raise ConfigError("no recording ships here: name one by --recording FILE")
    return path
