"""Record the audio that lanes process, with its gaps, so that a run can be replayed.

A folder with one pair of files per stream: ``STREAM.wav`` (RF64, float32: the samples
of the source, bit for bit) and ``STREAM.jsonl``, its timeline.
"""

import json
import logging
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import chain, count
from pathlib import Path
from typing import Any

from neurovocal.engine import (
    Block,
    BuildContext,
    Gap,
    Message,
    NeurovocalError,
    Options,
    Plugin,
    StageError,
    Withheld,
)
from neurovocal.engine.audio.resampler import scaled
from neurovocal.engine.support.names import at_home
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
    run : str
        Name of the run, noted in each timeline.
    keeps_files : bool
        Whether existing files are set aside instead of replaced.
    """

    wants = frozenset({"block", "gap", "withheld"})

    def __init__(
        self, folder: Path, run: str = "", *, keeps_files: bool = False
    ) -> None:
        self._keeps_files = keeps_files
        self._folder = OutputFolder(folder, make=True)
        self._run = run
        self._tracks: dict[str, _Track] = {}  # of streams that have not ended
        self._stems: set[str] = set()

    def open(self) -> None:
        """Make the folder; raise ConfigError if it cannot be made or written to."""
        self._folder.open("recordings")

    def write(self, message: Message) -> None:
        """Append a block, or keep a gap until the samples before it are written.

        Raises
        ------
        StageError
            The disk does not take the block; nothing of it is in the files.
        """
        match message.event:
            case Gap() | Withheld() as gap:
                self._track(message.info.stream).add_gap(gap, message.info.sample_rate)
            case Block() as block:
                track = self._track(message.info.stream)
                with self._stage_errors(message.info.stream):
                    track.append(block, message.info.sample_rate)

    def end_stream(self, stream: str) -> None:
        """Complete the files of a stream; another one may have the same name."""
        track = self._tracks.get(stream)
        if track is not None:
            with self._stage_errors(stream):
                track.end()
            del self._tracks[stream]

    def flush(self, timeout: float) -> None:
        """Update the headers of all audio files."""
        for track in self._tracks.values():
            track.flush()

    def close(self) -> None:
        """Complete all files; a sink that is opened again continues them."""
        with ExitStack() as stack:  # a disk that fails keeps no other file open
            stack.callback(self._folder.close)
            for track in self._tracks.values():
                stack.callback(track.close)

    def _track(self, stream: str) -> "_Track":
        track = self._tracks.get(stream)
        if track is None:
            order, stem = len(self._stems), stream_file_name(stream)
            names = chain([stem], (f"{stem}.part{n}" for n in count(2)))
            stem = next(name for name in names if name not in self._stems)
            header = {"stream": stream, "order": order, "run": self._run}
            track = _Track(self._folder, stem, header, keeps_files=self._keeps_files)
            self._tracks[stream] = track
            self._stems.add(stem)
        return track

    @contextmanager
    def _stage_errors(self, stream: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StageError(
                f"audio of '{stream}' cannot be written to "
                f"'{self._folder.folder}': {error.strerror}"
            ) from error


class _Track:
    """Audio file and timeline of one stream.

    Parameters
    ----------
    folder : OutputFolder
        Folder of the two files.
    stem : str
        File name of both, without suffix.
    header : dict
        First line of the timeline, without the sample rate.
    keeps_files : bool
        Whether existing files are set aside at the first opening.
    """

    def __init__(
        self,
        folder: OutputFolder,
        stem: str,
        header: dict[str, Any],
        *,
        keeps_files: bool,
    ) -> None:
        self._folder, self._stem, self._header = folder, stem, header
        self._keeps_files = keeps_files
        # Gaps of the source that no block has followed, and the sample rate that each
        # counts at; spans that privacy withheld.
        self._gaps: deque[tuple[Gap, int]] = deque()
        self._withheld: deque[Withheld] = deque()
        self._sample_rate = 0  # of the source; 0 until the first block
        self._stop = 0  # sample of the stream behind the last block or gap
        self._jump = 0  # samples in the audio file at the last line of the timeline

    def add_gap(self, gap: Gap | Withheld, sample_rate: int) -> None:
        """Keep a gap, given at the lane's rate; blocks before it may still come."""
        if isinstance(gap, Withheld):
            self._withheld.append(gap)
        else:
            self._gaps.append((gap, sample_rate))

    def append(self, block: Block, sample_rate: int) -> None:
        """Write a block, and the gaps before it to the timeline."""
        if not self._sample_rate:
            self._sample_rate = sample_rate
            self._begin()
        if self._audio.is_open:
            self._audio.require_in(self._folder)
        else:
            self._open()
        self._note_gaps(block.start)
        self._audio.write(self._audio.n_samples, block.samples[:, 0])
        self._stop = block.stop

    def end(self) -> None:
        """Write the last gaps to the timeline, and complete both files."""
        if self._gaps and not self._sample_rate and not self._withheld:
            self._sample_rate = self._gaps[0][1]  # a stream without a sample
            self._begin()
        if self._gaps and self._sample_rate:
            if not self._audio.is_open:
                self._open()
            self._note_gaps(None)
        self.close()

    def flush(self) -> None:
        if self._sample_rate:
            self._audio.flush()

    def close(self) -> None:
        if self._sample_rate:
            self._audio.close()
            self._timeline.close()

    def _note_gaps(self, start: int | None) -> None:
        """Write the gaps before a block that begins at `start`; None: all of them.

        They reach to the block, but for samples that a full queue has dropped. Gaps
        come at the lane's rate: where it is not the source's, their ends between two
        blocks are rounded, which the lane of a replay undoes.
        """
        while self._gaps:
            gap, rate = self._gaps[0]
            rounding = 0 if rate == self._sample_rate else _ROUNDING
            first = scaled(gap.start, rate, self._sample_rate)
            stop = scaled(gap.stop, rate, self._sample_rate)
            if start is not None and first > start + rounding:
                break  # blocks that come before it wait at the privacy gate
            if start is not None:
                first, stop = min(first, start), min(stop, start)
            # A gap that begins earlier is that of a failed lane, not of the audio.
            if first >= self._stop - rounding:
                if first > self._stop + rounding:
                    self._note_jump(first, self._withheld_in(first) or NOT_RECORDED)
                if start is not None and len(self._gaps) == 1:
                    stop = start if start - stop <= rounding else stop
                self._note_jump(max(self._stop, stop), gap.reason)
            self._gaps.popleft()
        if start is not None and start != self._stop:
            self._note_jump(start, self._withheld_in(start) or NOT_RECORDED)

    def _withheld_in(self, stop: int) -> str | None:
        """Return why samples before `stop` were withheld by privacy."""
        reason = None
        while self._withheld and self._withheld[0].start < stop:
            reason = self._withheld.popleft().reason
        return reason

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
                head = {**self._header, "sample_rate": self._sample_rate}
                self._timeline.write(json.dumps(head) + "\n")
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
    folder = at_home(options.path)
    keeps_files = existing_policy(context) != "replace"
    return RecordingSink(folder, context.run, keeps_files=keeps_files)


plugin = Plugin(
    kind="sink",
    options=RecordingOptions,
    build=_build,
    summary="Keeps the audio with its gaps, so that a live run can be replayed",
    resources=lambda options: folder_claim(options.path),
    check=lambda options, context: folder_problems(options.path),
    writes=lambda options, context: folder_access(options.path, "*.wav", "*.jsonl"),
)
