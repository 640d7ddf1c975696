"""Write synthesized audio to WAV files: one per stream, aligned with the stream."""

import logging
from contextlib import ExitStack
from pathlib import Path

from neurovocal.engine import (
    Audio,
    BuildContext,
    Float32,
    Message,
    Options,
    Plugin,
    StageError,
    StreamInfo,
)
from neurovocal.engine.support.names import at_home
from neurovocal.plugins.storage.folder import (
    OutputFolder,
    folder_access,
    folder_claim,
    folder_problems,
    set_aside,
    stream_file_name,
)
from neurovocal.plugins.storage.text_file import existing_policy
from neurovocal.plugins.storage.wave_file import FLOAT_WAVE, FloatWave

log = logging.getLogger("neurovocal")


class WavOptions(Options):
    """Options of the ``wav`` sink."""

    path: str
    """Folder for one file per stream, ``STREAM.wav``; made if it does not exist. A live
    run sets what an earlier run wrote there under the same names aside, as
    `STREAM.1.left.wav`; offline runs replace it."""


class WavSink:
    """Writes synthesized audio at its position in the stream.

    Sample n of the file is sample n of the stream. Overlapping audio is added; where no
    audio is synthesized there is silence. Files are RF64 with float32 samples: no
    clipping, no limit of length.

    Parameters
    ----------
    folder : Path
        Folder of the files.
    keeps_files : bool
        Whether existing files are set aside instead of replaced.
    """

    wants = frozenset({"audio"})

    def __init__(self, folder: Path, *, keeps_files: bool = False) -> None:
        self._keeps_files = keeps_files
        self._folder = OutputFolder(folder, make=True)
        self._files: dict[str, FloatWave] = {}

    def open(self) -> None:
        """Make the folder; raise ConfigError if it cannot be made or written to."""
        self._folder.open("sound")

    def write(self, message: Message) -> None:
        """Add audio to the file of its stream.

        Raises
        ------
        StageError
            The disk does not take it; nothing of it is in the file.
        """
        if not isinstance(message.event, Audio):
            return
        try:
            file = self._open_file(message.info)
            _add(file, message.event.start, message.event.samples[:, 0])
        except OSError as error:
            raise StageError(
                f"sound of '{message.info.stream}' cannot be written to "
                f"'{self._folder.folder}': {error.strerror}"
            ) from error

    def flush(self, timeout: float) -> None:
        """Update the headers of all files."""
        for file in self._files.values():
            file.flush()

    def close(self) -> None:
        """Complete all files; a sink that is opened again continues them."""
        with ExitStack() as stack:  # a disk that fails keeps no other file open
            stack.callback(self._folder.close)
            for file in self._files.values():
                stack.callback(file.close)

    def _open_file(self, info: StreamInfo) -> FloatWave:
        path = self._folder.folder / f"{stream_file_name(info.stream)}.wav"
        is_first = info.stream not in self._files and path.exists()
        if is_first and (self._keeps_files or FLOAT_WAVE.problem(path) is not None):
            log.warning("'%s' of before is now '%s'", path, set_aside(path))
        file = self._files.setdefault(info.stream, FloatWave(path, info.sample_rate))
        if file.is_open:
            file.require_in(self._folder)
        else:
            self._folder.ensure()
            file.open()
        return file


def _add(file: FloatWave, start: int, samples: Float32) -> None:
    """Add float32[n_samples] to the samples of the file from `start` on."""
    overlap = min(len(samples), max(0, file.n_samples - start))
    if overlap:
        samples = samples.copy()
        samples[:overlap] += file.read(start, overlap)
    file.write(start, samples)


def _build(options: WavOptions, context: BuildContext) -> WavSink:
    folder = at_home(options.path)
    return WavSink(folder, keeps_files=existing_policy(context) != "replace")


plugin = Plugin(
    kind="sink",
    options=WavOptions,
    build=_build,
    summary="Writes synthesized sound into WAV files, in time with the stream",
    resources=lambda options: folder_claim(options.path),
    check=lambda options, context: folder_problems(options.path),
    writes=lambda options, context: folder_access(options.path, "*.wav"),
)
