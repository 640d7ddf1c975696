"""Record the audio that lanes process, with its gaps, so that a run can be replayed.

A folder with one pair of files per stream: ``STREAM.wav`` (RF64, float32: the samples
of the source, bit for bit) and ``STREAM.jsonl``, its timeline.
"""

import json
import logging
from collections import deque
from pathlib import Path

from neurovocal.engine import (
    Block,
    BuildContext,
    Gap,
    Message,
    NeurovocalError,
    Options,
    Plugin,
    StageError,
    StreamInfo,
    Withheld,
)
from neurovocal.engine.audio.resampler import scaled
from neurovocal.plugins.storage.existing import text_kind
from neurovocal.plugins.storage.folder import (
    OutputFolder,
    folder_access,
    folder_claim,
    folder_problems,
    set_aside,
    stream_file_name,
)
from neurovocal.plugins.storage.text_file import TextOutput, existing_policy
from neurovocal.plugins.storage.wave_file import FLOAT_WAVE, FloatWave

log = logging.getLogger("neurovocal")

# Gaps come at the lane's sample rate: rounding moves them by at most so many samples.
_ROUNDING = 4

_TIMELINE = text_kind("the timeline of a recording", r'\{"stream": .*\}')

NOT_RECORDED = "not recorded"


class RecordingOptions(Options):
    """Options of the ``recording`` sink."""

    path: str
    """Folder to write into; made if it does not exist. A live run renames
    existing files of the same names to `STREAM.1.left.wav` and `.jsonl`: moved to a
    folder of their own, they are a recording again."""


class RecordingSink:
    """Writes blocks in order and notes every discontinuity of the stream.

    Parameters
    ----------
    folder : Path
        Folder of the recordings.
    keeps_files : bool
        Whether existing files are set aside instead of replaced.
    """

    wants = frozenset({"block", "gap", "withheld"})

    def __init__(self, folder: Path, *, keeps_files: bool = False) -> None:
        self._keeps_files = keeps_files
        self._folder = OutputFolder(folder, make=True)
        self._tracks: dict[str, _Track] = {}

    def open(self) -> None:
        """Make the folder; raise ConfigError if it cannot be made or written to."""
        self._folder.open("recordings")

    def write(self, message: Message) -> None:
        """Append a block, or keep the reason of a gap for the block behind it.

        Raises
        ------
        StageError
            The disk does not take the block; nothing of it is in the files.
        """
        name = message.info.stream
        match message.event:
            case Gap() | Withheld() as gap:
                if name in self._tracks:
                    self._tracks[name].add_gap(gap, message.info.sample_rate)
            case Block() as block:
                track = self._tracks.get(name)
                if track is None:
                    order = len(self._tracks)
                    track = _Track(
                        self._folder, message.info, order, keeps_files=self._keeps_files
                    )
                    self._tracks[name] = track
                try:
                    track.append(block)
                except OSError as error:
                    raise StageError(
                        f"audio of '{name}' cannot be written to "
                        f"'{self._folder.folder}': {error.strerror}"
                    ) from error

    def flush(self, timeout: float) -> None:
        """Update the headers of all audio files."""
        for track in self._tracks.values():
            track.flush()

    def close(self) -> None:
        """Complete all files; a sink that is opened again continues them."""
        for track in self._tracks.values():
            track.close()
        self._folder.close()


class _Track:
    """Audio file and timeline of one stream.

    Parameters
    ----------
    folder : OutputFolder
        Folder of the two files.
    info : StreamInfo
        The stream.
    order : int
        Number of the stream in the run, from 0; it is noted in the timeline.
    keeps_files : bool
        Whether existing files are set aside at the first opening.
    """

    def __init__(
        self, folder: OutputFolder, info: StreamInfo, order: int, *, keeps_files: bool
    ) -> None:
        self._folder, self._sample_rate = folder, info.sample_rate
        self._keeps_files = keeps_files
        self._stem = stream_file_name(info.stream)
        self._header = {
            "stream": info.stream,
            "sample_rate": info.sample_rate,
            "order": order,
        }
        self._gaps: deque[tuple[int, str]] = deque()  # start, reason
        self._stop = 0  # sample of the stream behind the last block
        self._jump = 0  # samples in the audio file at the last line of the timeline
        self._begin()

    def add_gap(self, gap: Gap | Withheld, sample_rate: int) -> None:
        """Keep a gap, given at the lane's rate; blocks before it may still come."""
        start = scaled(gap.start, sample_rate, self._sample_rate)
        self._gaps.append((start, gap.reason))

    def append(self, block: Block) -> None:
        """Write a block, and a line of the timeline if it does not follow the last."""
        if self._audio.is_open:
            self._audio.require_in(self._folder)
        else:
            self._open()
        reasons = [why for at, why in self._gaps if at <= block.start + _ROUNDING]
        if reasons or block.start != self._stop:
            self._note_jump(block.start, reasons[-1] if reasons else NOT_RECORDED)
            for _ in reasons:
                self._gaps.popleft()
        self._audio.write(self._audio.n_samples, block.samples[:, 0])
        self._stop = block.stop

    def flush(self) -> None:
        self._audio.flush()

    def close(self) -> None:
        self._audio.close()
        self._timeline.close()

    def _begin(self) -> None:
        folder = self._folder.folder
        self._audio = FloatWave(folder / f"{self._stem}.wav", self._sample_rate)
        self._timeline_path = folder / f"{self._stem}.jsonl"
        self._timeline = TextOutput(str(self._timeline_path), folder=self._folder)
        self._stop = self._jump = 0

    def _open(self) -> None:
        """Open both files, or continue them after a failure."""
        self._folder.ensure()
        if self._keeps_files:
            self._set_aside("an earlier run or sink wrote it")
        elif not self._audio.n_samples and self._is_foreign():
            self._set_aside("no recording sink wrote it")
        self._keeps_files = False
        before = self._audio.n_samples
        if before and not self._has_both_files():
            self._set_aside("one of its two files is missing")
            before = 0
        try:
            self._audio.open()
            if self._audio.n_samples < max(self._jump, 1) and before:
                # The disk has lost samples that the timeline refers to.
                self._set_aside("its timeline refers to samples that it lacks")
                self._audio.open()
            else:
                self._stop -= before - self._audio.n_samples
            if self._timeline.open():
                self._timeline.write(json.dumps(self._header) + "\n")
        except (OSError, NeurovocalError):
            self._audio.release()
            raise

    def _is_foreign(self) -> bool:
        """Return True if a file with the name of one of the two is of another kind."""
        problems = [
            FLOAT_WAVE.problem(self._audio.path),
            _TIMELINE.problem(self._timeline_path),
        ]
        lonely = self._audio.path.exists() and not self._timeline_path.exists()
        return lonely or any(problem is not None for problem in problems)

    def _has_both_files(self) -> bool:
        return self._audio.path.exists() and self._timeline_path.exists()

    def _set_aside(self, reason: str) -> None:
        """Rename existing files and begin new ones."""
        self._audio.release()
        self._timeline.close()
        path = self._audio.path
        if path.exists() or self._timeline_path.exists():
            renamed = set_aside(path, self._timeline_path)
            log.warning("'%s' is now '%s': %s", path, renamed, reason)
        self._begin()

    def _note_jump(self, start: int, reason: str) -> None:
        """Write to the timeline that the next sample does not follow the last one."""
        entry = {
            "at": self._audio.n_samples,
            "start": self._stop,
            "stop": start,
            "reason": reason,
        }
        self._audio.flush()  # no timeline may know more samples than its audio
        self._timeline.write(json.dumps(entry) + "\n")
        self._stop, self._jump = start, self._audio.n_samples


def _build(options: RecordingOptions, context: BuildContext) -> RecordingSink:
    folder = Path(options.path).expanduser()
    return RecordingSink(folder, keeps_files=existing_policy(context) != "replace")


plugin = Plugin(
    kind="sink",
    options=RecordingOptions,
    build=_build,
    summary="Keeps the audio with its gaps, so that a live run can be replayed",
    resources=lambda options: folder_claim(options.path),
    check=lambda options, context: folder_problems(options.path),
    writes=lambda options, context: folder_access(options.path, "*.wav", "*.jsonl"),
)
