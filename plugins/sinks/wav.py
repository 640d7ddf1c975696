"""Synthesized sound in files: one WAV per stream, in time with the stream."""

import logging
from errno import ESTALE
from pathlib import Path

from neurovocal.engine.contracts.errors import ConfigError, StageError
from neurovocal.engine.contracts.options import Options
from neurovocal.engine.contracts.plugin import BuildContext, Plugin
from neurovocal.engine.contracts.types import Audio, Float32, Message, StreamInfo
from neurovocal.plugins.storage.folder import OutputFolder, set_aside, track_name
from neurovocal.plugins.storage.text_file import folder_problems
from neurovocal.plugins.storage.wave_file import FloatWave

log = logging.getLogger("neurovocal")


class WavOptions(Options):
    """Options of the ``wav`` sink."""

    path: str
    """Folder for one file per stream, ``STREAM.wav``; made if it does not exist. A live
    run sets what an earlier run wrote there under the same names aside, as
    `STREAM.1.left.wav`; offline runs replace it."""


class WavSink:
    """Writes synthesized sound where it belongs.

    Sample n of the file is sample n of the stream. Pieces that overlap are added; where
    nothing is sung is silence. Files are RF64 with float32 samples: nothing is
    clipped, and any length fits.

    Parameters
    ----------
    folder : Path
        Where the files go.
    keeps : bool
        Whether files that are found are set aside, rather than replaced.
    """

    wants = frozenset({"audio"})

    def __init__(self, folder: Path, *, keeps: bool = False) -> None:
        self._folder = folder
        self._keeps = keeps
        self._place = OutputFolder(folder, make=True)
        self._files: dict[str, FloatWave] = {}

    def open(self) -> None:
        """Make the folder.

        Raises
        ------
        ConfigError
            It cannot be made or written to.
        """
        try:
            self._place.probe()
        except OSError as error:
            raise ConfigError(
                f"sound cannot be written to '{self._folder}': {error.strerror}"
            ) from error

    def write(self, message: Message) -> None:
        """Add sound to its stream's file.

        Raises
        ------
        StageError
            The file cannot take it; nothing of it is in the file.
        """
        if not isinstance(message.event, Audio):
            return
        try:
            file = self._file(message.info)
            _add(file, message.event.start, message.event.samples[:, 0])
        except OSError as error:
            raise StageError(
                f"sound of '{message.info.stream}' cannot be written to "
                f"'{self._folder}': {error.strerror}"
            ) from error

    def flush(self, timeout: float) -> None:
        """Hand what was written to the operating system."""
        for file in self._files.values():
            file.flush()

    def close(self) -> None:
        """Finish the files; opened again, they go on."""
        for file in self._files.values():
            file.close()

    def _file(self, info: StreamInfo) -> FloatWave:
        path = self._folder / f"{track_name(info.stream)}.wav"
        if self._keeps and info.stream not in self._files and path.exists():
            log.warning("'%s' of before is now '%s'", path, set_aside(path))
        file = self._files.setdefault(info.stream, FloatWave(path, info.sample_rate))
        if not file.is_open:
            self._place.enter()
            file.open()
        elif not file.in_place:
            raise OSError(ESTALE, self._place.lost(path))
        return file


def _add(file: FloatWave, start: int, samples: Float32) -> None:
    """Add float32[n_samples] to what the file holds from `start` on."""
    overlap = min(len(samples), max(0, file.frames - start))
    if overlap:
        samples = samples.copy()
        samples[:overlap] += file.read(start, overlap)
    file.write(start, samples)


def _build(options: WavOptions, context: BuildContext) -> WavSink:
    return WavSink(
        Path(options.path).expanduser(),
        keeps=context.replaces_failed or context.unrepeatable,
    )


def _claims(options: WavOptions) -> frozenset[str]:
    return frozenset({f"folder:{Path(options.path).expanduser().resolve()}"})


plugin = Plugin(
    kind="sink",
    options=WavOptions,
    build=_build,
    summary="Writes synthesized sound into WAV files, in time with the stream",
    resources=_claims,
    check=lambda options, context: folder_problems(options.path),
)
