"""Synthesized sound in files: one WAV per stream, in time with the stream."""

from pathlib import Path
from typing import Any

import numpy as np

from neurovocal.engine.errors import ConfigError, StageError
from neurovocal.engine.registry import BuildContext, Options, Plugin
from neurovocal.engine.types import Audio, Float32, Message, StreamInfo
from neurovocal.plugins.sink_recording import track_name

# Silence that is written at once.
_STRETCH = 65_536


class WavOptions(Options):
    """Options of the ``wav`` sink."""

    path: str
    """Folder for one file per stream, ``STREAM.wav``; made if it does not exist. A run
    replaces what an earlier run wrote there under the same names."""


class WavSink:
    """Writes synthesized sound where it belongs.

    Sample n of the file is sample n of the stream. Pieces that overlap are added; where
    nothing is sung is silence. Files are RF64 with float32 samples: nothing is
    clipped, and any length fits.

    Parameters
    ----------
    folder : Path
        Where the files go.
    """

    wants = frozenset({"audio"})

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: dict[str, Any] = {}
        self._begun: set[str] = set()

    def open(self) -> None:
        """Make the folder.

        Raises
        ------
        ConfigError
            It cannot be made or written to.
        """
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            (self._folder / ".probe").touch()
            (self._folder / ".probe").unlink()
        except OSError as error:
            raise ConfigError(
                f"sound cannot be written to '{self._folder}': {error.strerror}"
            ) from error

    def write(self, message: Message) -> None:
        """Add sound to its stream's file.

        Raises
        ------
        StageError
            The file cannot take it.
        """
        import soundfile

        if not isinstance(message.event, Audio):
            return
        try:
            _add(self._file(message.info), message.event.start, message.event.samples)
        except (OSError, soundfile.LibsndfileError) as error:
            raise StageError(
                f"sound of '{message.info.stream}' cannot be written to "
                f"'{self._folder}': {error}"
            ) from error

    def flush(self, timeout: float) -> None:
        """Hand what was written to the operating system."""
        for file in self._files.values():
            file.flush()

    def close(self) -> None:
        """Finish the files."""
        for file in self._files.values():
            file.close()
        self._files.clear()

    def _file(self, info: StreamInfo) -> Any:
        import soundfile

        if info.stream not in self._files:
            # Opened once more after a failure, a file keeps what it holds.
            again = info.stream in self._begun
            form = {"format": "RF64", "subtype": "FLOAT"}
            shape = {"samplerate": info.sample_rate, "channels": 1}
            self._files[info.stream] = soundfile.SoundFile(
                self._folder / f"{track_name(info.stream)}.wav",
                mode="r+" if again else "w+",
                **({} if again else {**shape, **form}),
            )
            self._begun.add(info.stream)
        return self._files[info.stream]


def _add(file: Any, start: int, samples: Float32) -> None:
    """Add float32[n_samples, 1] to what the file holds from `start` on."""
    end = file.frames
    if start > end:
        file.seek(0, 2)
        for first in range(end, start, _STRETCH):
            file.write(np.zeros((min(_STRETCH, start - first), 1), np.float32))
        end = start
    overlap = min(len(samples), end - start)
    if overlap:
        samples = samples.copy()
        file.seek(start)
        samples[:overlap] += file.read(overlap, dtype="float32", always_2d=True)
    file.seek(start)
    file.write(samples)


def _build(options: WavOptions, context: BuildContext) -> WavSink:
    return WavSink(Path(options.path).expanduser())


def _claims(options: WavOptions) -> frozenset[str]:
    return frozenset({f"folder:{Path(options.path).expanduser().resolve()}"})


plugin = Plugin(
    kind="sink",
    options=WavOptions,
    build=_build,
    summary="Writes synthesized sound into WAV files, in time with the stream",
    resources=_claims,
)
